"""What a run replaces is kept beside it until the new one is whole, and is put back when that comes to nothing.

A folder is a run's record, its artefact, or a further one that it makes. `alone`: the one name in it that is the run's,
where the folder holds others' files too (a dataset's); None where all of it is.
"""

import os
import shutil
from pathlib import Path

LOCK = ".lock"
ASIDE = ".replaced"
# What is on its way to ASIDE or back: a process that is killed between two files leaves it.
MOVING = ".replacing"


def set_aside(folder: Path, alone: str | None = None, empty: bool = False) -> bool:
    """Moves what a run keeps in a folder out of the way. Returns whether anything lies aside now.

    What lies aside already was whole, and what stands in its place was begun and never finished: that one goes.
    empty: nothing is set aside as well, so that what comes into the folder afterwards is known to be new.
    """
    if (folder / ASIDE).exists():
        clear(folder, alone)
    elif (held := _held(folder, alone)) or empty:
        (folder / MOVING).mkdir(parents=True)
        for path in held:
            os.replace(path, folder / MOVING / path.name)
        os.replace(folder / MOVING, folder / ASIDE)
    return (folder / ASIDE).exists()


def put_back(folder: Path, alone: str | None = None) -> bool:
    """Gives what lies aside its place again. Returns whether anything did."""
    if not (folder / ASIDE).exists():
        return False
    clear(folder, alone)
    os.replace(folder / ASIDE, folder / MOVING)
    mend(folder)
    return True


def mend(folder: Path) -> None:
    """Ends what a process that was killed was moving: back where it was."""
    if (folder / MOVING).exists():
        for path in list((folder / MOVING).iterdir()):
            os.replace(path, folder / path.name)
        (folder / MOVING).rmdir()


def clear(folder: Path, alone: str | None = None) -> None:
    for path in _held(folder, alone):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def forget(folder: Path) -> None:
    """Removes what lies aside, once what replaced it is whole."""
    shutil.rmtree(folder / ASIDE, ignore_errors=True)


def _held(folder: Path, alone: str | None) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir()
            if (path.name == alone if alone is not None else path.name not in (LOCK, ASIDE, MOVING))]
