"""In which flags, inputs and versions two runs differ."""

import inspect
from collections import deque
from typing import Iterator

from ulmfit import records

from . import archive
from .aligned import align
from .archive import Archive, Run
from .settings import stage_function

_ABSENT = "-"


def differences(runs: Archive, first: Run, second: Run) -> list[tuple[str, str, str, str]]:
    """(kind, name, in the first, in the second) for everything that differs, ancestors' flags included.

    kind: run, flag, input, version, machine, metric; `flag of member1 > classifier` is one of the run that made the
    classifier which the first member read, in both. A flag that came after a record counts with its default; one that
    the other stage does not have shows `-`. An input shows the run that made it and its fingerprint.
    """
    lines = []

    def add(kind: str, mine: dict, theirs: dict) -> None:
        for name in [*mine, *(name for name in theirs if name not in mine)]:
            ours, other = mine.get(name, _ABSENT), theirs.get(name, _ABSENT)
            if ours != other:
                lines.append((kind, name, str(ours), str(other)))

    def add_flags(kind: str, mine: tuple[Run, dict], theirs: tuple[Run, dict]) -> None:
        add(kind, *({**_defaults(run.stage, other), **own} for (run, own), (_, other) in ((mine, theirs),
                                                                                         (theirs, mine))))

    add("run", *({name: each.record.get(name) for name in ("stage", "dataset", "stage_version", "status", "split",
                                                           "fingerprint")} for each in (first, second)))
    add_flags("flag", *((each, {**each.record.get("flags", {}), **each.config}) for each in (first, second)))
    add("input", *({role: f"{given['run'] or given['path']} ({given['fingerprint']})"
                    for role, given in each.record["inputs"].items()} for each in (first, second)))
    for path, *both in _pairs(runs, first, second):
        add(f"run of {path}", *({"stage": each.stage, "dataset": each.dataset} for each in both))
        add_flags(f"flag of {path}", *((each, each.config) for each in both))
    add("version", *(each.record.get("versions") or {} for each in (first, second)))
    add("version", *({"commit": (each.record.get("git") or {}).get("commit"),
                      "uncommitted changes": (each.record.get("git") or {}).get("dirty")} for each in (first, second)))
    add("machine", *({name: each.record.get(name) for name in ("device", "threads")} for each in (first, second)))
    add("metric", *({f"{which} {name}": value for which in ("last", "best")
                     for name, value in (each.record["metrics"].get(which) or {}).items() if name != "seconds"}
                    for each in (first, second)))
    return lines


def _defaults(stage: str, flags: dict) -> dict:
    """Of these flags those that the stage has, with the value that a record without them stands for."""
    function = stage_function(stage)
    known = inspect.signature(function).parameters
    return {name: records.first_default(function, name) for name in flags if name in known}


def _pairs(runs: Archive, first: Run, second: Run) -> Iterator[tuple[str, Run, Run]]:
    """(path, ancestor of the first, ancestor of the second) where these are two runs; the nearest come first.

    path: the roles of the inputs that lead there in both, as `member1 > classifier > language_model`. What several
    paths lead to comes once, by the shortest.
    """
    seen, waiting = {(first.id, second.id)}, deque([((), first, second)])
    while waiting:
        path, mine, theirs = waiting.popleft()
        for role in mine.record["inputs"]:
            if role not in theirs.record["inputs"]:
                continue
            ours, other = runs.source(mine, role), runs.source(theirs, role)
            if ours is None or other is None or ours is other or (ours.id, other.id) in seen:
                continue
            seen.add((ours.id, other.id))
            waiting.append(((*path, role), ours, other))
            yield " > ".join((*path, role)), ours, other


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
