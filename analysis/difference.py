"""In which flags, inputs and versions two runs differ."""

from . import archive
from .aligned import align
from .archive import Archive, Run

_ABSENT = "-"


def differences(runs: Archive, first: Run, second: Run) -> list[tuple[str, str, str, str]]:
    """(kind, name, in the first, in the second) for everything that differs, ancestors' flags included.

    kind: run, flag, input, version, machine, metric. A flag that an older version did not have shows `-`; an input
    shows the run that made it and its fingerprint.
    """
    lines = []

    def add(kind: str, mine: dict, theirs: dict) -> None:
        for name in [*mine, *(name for name in theirs if name not in mine)]:
            ours, other = mine.get(name, _ABSENT), theirs.get(name, _ABSENT)
            if ours != other:
                lines.append((kind, name, str(ours), str(other)))

    add("run", *({name: each.record.get(name) for name in ("stage", "dataset", "stage_version", "status", "split",
                                                           "fingerprint")} for each in (first, second)))
    add("flag", *({**each.record.get("flags", {}), **each.config} for each in (first, second)))
    add("input", *({role: f"{given['run'] or given['path']} ({given['fingerprint']})"
                    for role, given in each.record["inputs"].items()} for each in (first, second)))
    mine, theirs = ({_role(each, run): run for run in runs.ancestors(each)} for each in (first, second))
    for role in mine:
        if role in theirs and mine[role] is not theirs[role]:
            add(f"flag of {role}", mine[role].config, theirs[role].config)
    add("version", *(each.record.get("versions") or {} for each in (first, second)))
    add("version", *({"commit": (each.record.get("git") or {}).get("commit"),
                      "uncommitted changes": (each.record.get("git") or {}).get("dirty")} for each in (first, second)))
    add("machine", *({name: each.record.get(name) for name in ("device", "threads")} for each in (first, second)))
    add("metric", *({f"{which} {name}": value for which in ("last", "best")
                     for name, value in (each.record["metrics"].get(which) or {}).items() if name != "seconds"}
                    for each in (first, second)))
    return lines


def _role(run: Run, ancestor: Run) -> str:
    """The ancestor's stage, with its dataset where that is another: tokens of both, say."""
    return ancestor.stage if ancestor.dataset == run.dataset else f"{ancestor.stage} ({ancestor.dataset})"


def diff(run: str, other: str, results_dir: str | None = None) -> None:
    """Says in which flags, inputs, versions and numbers two runs differ, and the flags of what they descend from.

    Example: python -m analysis diff trec6--train_clas--fwd--word--default--all--s0 \\
                 trec6--train_clas--fwd--word--scratch--all--s0
    """
    runs = archive.load(results_dir)
    first, second = runs.get(run), runs.get(other)
    lines = differences(runs, first, second)
    print(f"a  {first.id}\nb  {second.id}\n")
    if lines:
        print("\n".join(align([("", "", "a", "b"), *lines])))
    print(f"{len(lines)} differences" if lines else "no differences")
