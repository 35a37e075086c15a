"""All runs as one frame, a run a line."""

from pathlib import Path

from ulmfit import files, names
from ulmfit.errors import UserError

from . import archive
from .archive import Archive


def frame_of(runs: Archive):
    """A pandas frame: id, stage, dataset, state, why it does not stand, seed, times, device, commit, versions, metrics
    as `last.error`, flags as `flag.lr`, and what differs from the defaults, sizes as they were, as `config.cl`."""
    import pandas as pd

    lines = []
    for run in runs:
        record = run.record
        git = record.get("git") or {}
        line = {"id": run.id, "stage": run.stage, "dataset": run.dataset, "state": run.state,
                "stale": runs.stale(run), "error": record["error"], "split": record.get("split"),
                "seed": record.get("seed"), "started": record["started"], "wall_seconds": record["wall_seconds"],
                "peak_memory_mb": record.get("peak_memory_mb"), "device": record.get("device"),
                "threads": record.get("threads"), "commit": git.get("commit"), "dirty": git.get("dirty"),
                "fingerprint": record["fingerprint"], "command": record.get("command"),
                "parents": " ".join(record["parents"])}
        for which in ("last", "best"):
            line.update({f"{which}.{name}": value for name, value in (record["metrics"].get(which) or {}).items()})
        line.update({f"version.{name}": value for name, value in (record.get("versions") or {}).items()})
        line.update({f"config.{name}": value for name, value in run.config.items()})
        line.update({f"flag.{name}": value for name, value in record.get("flags", {}).items()})
        lines.append(line)
    frame = pd.DataFrame(lines)
    # A column of several types (a flag that is a number here and a text there) has no type in parquet.
    for name in frame.columns[frame.dtypes == object]:
        kinds = {type(value) for value in frame[name].dropna()}
        if len(kinds) > 1 and not kinds <= {int, float}:
            frame[name] = frame[name].map(lambda value: value if value is None or value != value else str(value))
    return frame


def collect(results_dir: str | None = None, output: str | None = None, quiet: bool = False) -> None:
    """All runs as one table, a run a line: csv and parquet.

    Example: python -m analysis collect --output=runs.parquet

    Columns: id, stage, state, seed, times, device, commit, versions, metrics as last.error and best.error, every flag
    as flag.lr, and the flags off their default as config.lr. Without --output, results/tables/runs.csv and .parquet.
    """
    import pyarrow
    import pyarrow.parquet

    runs = archive.load(results_dir)
    paths = [Path(output)] if output else [runs.folder / "tables" / f"runs.{ending}" for ending in ("csv", "parquet")]
    for path in paths:
        if path.suffix not in (".csv", ".parquet"):
            raise UserError(f"--output={path}: its name must end with .csv or .parquet")
        if path.is_dir():
            raise UserError(f"--output={path} is a folder; name a file")
    frame = frame_of(runs)
    for path in paths:
        with files.replacing(path) as temporary:
            if path.suffix == ".csv":
                frame.to_csv(temporary, index=False, lineterminator="\n")
            else:
                pyarrow.parquet.write_table(pyarrow.Table.from_pandas(frame, preserve_index=False), temporary)
    if not quiet:
        for line in runs.unreadable:
            print(line)
    print(f"{len(frame):,} runs, {len(frame.columns)} columns: {', '.join(names.shown(path) for path in paths)}")
