"""Table of the runs there are."""

from ulmfit import records
from ulmfit.errors import UsageError

from . import archive
from .aligned import align
from .archive import Archive, Run

_COLUMNS = ("run", "stage", "status", "measure", "last", "best", "epochs", "minutes", "device")


def _cells(run: Run) -> tuple[str, ...]:
    record = run.record
    measure, digits = next(((key, digits) for key, digits in (("error", 2), ("perplexity", 1))
                            if run.metric(key) is not None), ("", 0))
    title = {"error": f"error % {record.get('split') or 'val'}", "perplexity": "perplexity val"}.get(measure, "")
    numbers = [f"{run.metric(measure, which):.{digits}f}" if measure and run.metric(measure, which) is not None else ""
               for which in ("last", "best")]
    path = run.folder / "metrics.jsonl"
    epochs = len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0
    return (run.id, run.stage, run.state, title, *numbers, str(epochs or ""), f"{record['wall_seconds'] / 60:.1f}",
            str(record.get("device")))


def listed(archive: Archive, stage: str | None = None, dataset: str | None = None, status: str | None = None,
           match: str | None = None) -> list[Run]:
    """The runs that fit every filter, the oldest first. match: a part of the id. status: also `stale`.

    Raises UsageError for a stage that does not exist.
    """
    if stage is not None and stage not in records.STAGE_VERSIONS:
        raise UsageError(f"--stage={stage!r} is no stage; there are {', '.join(records.STAGE_VERSIONS)}")
    chosen = [run for run in archive if stage in (None, run.stage) and dataset in (None, run.dataset)
              and (match is None or match in run.id)
              and (status in (None, run.state) or (status == "stale" and archive.stale(run)))]
    return sorted(chosen, key=lambda run: (run.record["started"], run.id))


def runs(results_dir: str | None = None, stage: str | None = None, dataset: str | None = None,
         status: str | None = None, match: str | None = None) -> None:
    """Prints a table of the runs, the oldest first.

    Example: python -m analysis runs --dataset=imdb --stage=eval_clas

    `last` and `best` are the error in % of a classifier, or the perplexity of a language model, at the last and at
    the best epoch. A folder that cannot be read is named below the table, as is why a run failed or is stale.
    """
    every = archive.load(results_dir)
    shown = listed(every, stage, dataset, status, match)
    if shown:
        print("\n".join(align([_COLUMNS, *map(_cells, shown)], right=(4, 5, 6, 7))))
    for run in shown:
        if run.record["error"]:
            print(f"{run.state}: {run.id}: {run.record['error']}")
        elif why := every.stale(run):
            print(f"stale: {run.id}: {why}")
    for line in every.unreadable:
        print(line)
    if not every.runs and not every.unreadable:
        print(f"no runs in {every.folder / 'runs'}; `bash sweeps/demo.sh` makes some")
    else:
        hidden = f" of {len(every.runs)}" if len(shown) < len(every.runs) else ""
        print(f"{len(shown)}{hidden} run{'' if len(every.runs) == 1 else 's'}"
              + (f", {len(every.unreadable)} unreadable" if every.unreadable else ""))
