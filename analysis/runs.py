"""Table of the runs there are."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from ulmfit import names, records
from ulmfit.errors import UsageError, UserError

_COLUMNS = ("run", "stage", "status", "measure", "last", "best", "epochs", "minutes", "device")


def results_folder(results_dir: str | None) -> Path:
    """The folder typed, which must exist, or the project's."""
    if results_dir is None:
        return names.project_root() / "results"
    return names.existing_dir(results_dir, "results_dir", "expected the folder that holds `runs`")


def align(rows: list[tuple[str, ...]], right: tuple[int, ...] = ()) -> list[str]:
    """Lines of a table whose columns are two spaces apart; `right` are the columns flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.rjust(width) if column in right else cell.ljust(width)
                      for column, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in rows]


@dataclass(frozen=True)
class Row:
    """What the table shows of a run; `error` is why it failed."""

    run: str
    stage: str
    dataset: str | None
    status: str
    started: str
    error: str | None
    cells: tuple[str, ...]


def state(record: dict) -> str:
    """The record's status, but `stopped` for a run whose process ended without a word (killed, power cut).

    Of a run on another machine only its record is known.
    """
    if record["status"] != "running":
        return record["status"]
    session = record["sessions"][-1]
    if session["host"] != socket.gethostname():
        return "running"
    try:
        os.kill(session["pid"], 0)
    except ProcessLookupError:
        return "stopped"
    except PermissionError:
        pass
    return "running"


def _row(folder: Path) -> Row:
    record = records.read_run(folder)
    last, best = (record["metrics"].get(which) or {} for which in ("last", "best"))
    measure, digits = next(((key, digits) for key, digits in (("error", 2), ("perplexity", 1)) if key in last),
                           ("", 0))
    title = {"error": f"error % {record.get('split') or 'val'}", "perplexity": "perplexity val"}.get(measure, "")
    numbers = [f"{values[measure]:.{digits}f}" if measure in values else "" for values in (last, best)]
    epochs = folder / "metrics.jsonl"
    count = len(epochs.read_text(encoding="utf-8").splitlines()) if epochs.exists() else 0
    status = state(record)
    cells = (record["id"], record["stage"], status, title, *numbers, str(count or ""),
             f"{record['wall_seconds'] / 60:.1f}", str(record["device"]))
    return Row(record["id"], record["stage"], record["dataset"], status, record["started"], record["error"], cells)


def runs(results_dir: str | None = None, stage: str | None = None, dataset: str | None = None,
         status: str | None = None) -> None:
    """Prints a table of the runs, the oldest first.

    Example: python -m analysis runs --dataset=imdb --stage=eval_clas

    `last` and `best` are the error in % of a classifier, or the perplexity of a language model, at the last and at
    the best epoch. A folder that cannot be read is named below the table, as is why a run failed.
    """
    if stage is not None and stage not in records.STAGE_VERSIONS:
        raise UsageError(f"--stage={stage!r} is no stage; there are {', '.join(records.STAGE_VERSIONS)}")
    folder = results_folder(results_dir) / "runs"
    rows, unreadable = [], []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not path.is_dir() or path.name.startswith("."):
            continue
        try:
            rows.append(_row(path))
        except UserError as error:
            unreadable.append(f"unreadable: {error}")
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OSError) as error:
            # run.json is JSON, yet no record: cut by hand, or of a version to come.
            unreadable.append(f"unreadable: {path} holds no record that this version knows "
                              f"({type(error).__name__}: {error})")
    shown = sorted((row for row in rows if stage in (None, row.stage) and dataset in (None, row.dataset)
                    and status in (None, row.status)), key=lambda row: (row.started, row.run))
    if shown:
        print("\n".join(align([_COLUMNS, *(row.cells for row in shown)], right=(4, 5, 6, 7))))
    for row in shown:
        if row.error:
            print(f"{row.status}: {row.run}: {row.error}")
    for line in unreadable:
        print(line)
    if not rows and not unreadable:
        print(f"no runs in {folder}; `bash sweeps/demo.sh` makes some")
    else:
        hidden = f" of {len(rows)}" if len(shown) < len(rows) else ""
        print(f"{len(shown)}{hidden} run{'' if len(rows) == 1 else 's'}"
              + (f", {len(unreadable)} unreadable" if unreadable else ""))
