"""How a number came about: its run, what it descends from down to the csv files, the commands that make it again."""

import shlex

from ulmfit.errors import UserError
from ulmfit.records import FIRST_DEFAULTS

from . import archive
from .aligned import align
from .archive import Archive, Run


def chain(runs: Archive, run: Run) -> list[Run]:
    """A run behind all that it descends from, parents first; what two branches share stands once."""
    return [*runs.ancestors(run), run]


def outside(runs: Archive, members: list[Run]) -> list[tuple[str, str]]:
    """(path, fingerprint) of the files that no run of the chain made: csv files, subsets, weights from elsewhere."""
    return [(path, mark) for path, (_, mark) in _outside(runs, members).items()]


def _outside(runs: Archive, members: list[Run]) -> dict[str, tuple[str | None, str]]:
    """(dataset of the run that read it, fingerprint) of each such file by its path."""
    return {given["path"]: (run.dataset, given["fingerprint"]) for run in members
            for role, given in run.record["inputs"].items() if given["run"] is None and runs.source(run, role) is None}


def missing(runs: Archive, members: list[Run]) -> list[str]:
    """Parents of the chain whose record is not there."""
    return sorted({name for run in members for name in run.record["parents"] if name not in runs.runs})


def commands(runs: Archive, members: list[Run]) -> list[str]:
    """What makes the chain again, in an order that works; get_data and sample_train where their results were read."""
    every = list(members)
    for path, (dataset, mark) in _outside(runs, members).items():
        for run in runs:
            if run in every:
                continue
            if run.dataset == dataset and run.stage == "sample_train" and run.record.get("sha256", "")[:16] == mark:
                # After the ids that it draws from.
                after = max((number for number, each in enumerate(every) if each.stage == "tok2id"
                             and each.dataset == dataset), default=-1)
                every.insert(after + 1, run)
            # fastai's weights lie in a folder of their own.
            elif run.stage in ("get_data", "prepare_wiki") and (
                    run.dataset == dataset and path.endswith(".csv")
                    or path.startswith(f"{run.record['flags'].get('dir_path')}/")):
                every.insert(0, run)
    return [command(run) for run in every]


def command(run: Run) -> str:
    """What makes the run: its record's command, with the defaults of its time that are others today."""
    words = run.record.get("command") or ""
    for (stage, name), value in FIRST_DEFAULTS.items():
        if words and stage == run.stage and run.record["flags"].get(name) == value and f"--{name}" not in words:
            words += f" --{name}={value}"
    return words


def summary(run: Run) -> list[tuple[str, str]]:
    """What a reader wants to know first, as (name, value)."""
    record, git = run.record, run.record.get("git") or {}
    lines = [("stage", run.stage), ("state", run.state)]
    if record.get("error"):
        lines.append(("error", record["error"]))
    for which in ("last", "best"):
        values = {name: value for name, value in (record["metrics"].get(which) or {}).items()
                  if isinstance(value, (int, float)) and name != "seconds"}
        if values:
            said = ", ".join(f"{name} {value:.6g}" for name, value in values.items())
            lines.append((f"{which} epoch" if run.stage not in ("eval_clas", "train_baseline", "ensemble") else
                          f"on {record.get('split')}", said))
        if run.stage in ("eval_clas", "train_baseline", "ensemble"):
            break
    config = ", ".join(f"{name}={value}" for name, value in run.config.items())
    commit = git.get("commit")
    lines += [("flags off their default", config or "none"), ("command", command(run)),
              ("commit", (commit or "unknown") + ", with uncommitted changes" * bool(git.get("dirty"))),
              ("started", record["started"]), ("time", f"{record['wall_seconds'] / 60:.1f} minutes"),
              ("machine", f"{record.get('device') or 'CPU'}, {record.get('threads') or 'any'} threads, "
                          f"{record.get('peak_memory_mb') or 0:,.0f} MB"),
              ("versions", ", ".join(f"{name} {value}" for name, value in (record.get("versions") or {}).items())),
              ("fingerprint", record["fingerprint"])]
    return lines


def show(run: str, results_dir: str | None = None) -> None:
    """Shows how a number came about: the run, what it descends from, and the commands that make it again.

    Example: python -m analysis show trec6--eval_clas--fwd--word--default--all--s0--test
    """
    runs = archive.load(results_dir)
    found = runs.get(run)
    if not found.record.get("command"):
        raise UserError(f"{found.id}: its record has no command")
    members = chain(runs, found)
    print(f"{found.id}\n")
    print("\n".join(align([(f"  {name}", value) for name, value in summary(found)])))
    if problem := runs.problem(found):
        print(f"\nIts numbers do not stand: {problem}")
    print("\nIt descends from:\n")
    rows = [(f"  {each.id}", each.stage, (each.record.get("git") or {}).get("commit") or "", each.record["fingerprint"])
            for each in members[:-1]]
    rows += [(f"  {path}", "file", "", mark) for path, mark in outside(runs, members)]
    rows += [(f"  {name}", "its record is not here", "", "") for name in missing(runs, members)]
    print("\n".join(align(rows)) if rows else "  nothing")
    print("\nThese commands make it again (those that are done are reused):\n")
    for line in commands(runs, members):
        print(f"  {' '.join(map(shlex.quote, shlex.split(line)))}")
