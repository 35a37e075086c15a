"""Files that are locked for as long as a process lives: runs that a launch has claimed, GPUs and cores in use.

A run inherits the locks of its launch, so that a launch that was killed leaves its runs claimed, and what they run on
taken, for as long as they live.
"""

import fcntl
from pathlib import Path
from typing import IO


def acquire(path: Path) -> IO | None:
    """Locks a file, made if need be; None when another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "w", encoding="ascii")
    if not _lock(file, fcntl.LOCK_EX):
        file.close()
        return None
    return file


def is_taken(path: Path) -> bool:
    """Whether a process has locked the file. Whoever locks it at this very moment may fail: ask where that does no
    harm."""
    if not path.exists():
        return False
    with open(path, encoding="ascii") as file:
        return not _lock(file, fcntl.LOCK_SH)


def _lock(file: IO, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
