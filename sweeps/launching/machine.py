"""What this machine can run at once: a command for each GPU, or for each group of CPU cores."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import IO, Sequence

from ulmfit import names
from ulmfit.errors import UsageError

from . import locks

NO_GPU = "none"


@dataclass(frozen=True)
class Slot:
    """Where one command runs at a time. gpu: as CUDA_VISIBLE_DEVICES names it; None on the CPU."""

    name: str
    gpu: str | None = None

    def acquire(self) -> IO | None:
        """Locks it against the user's other launches on this machine; None when one of them uses it."""
        return locks.acquire(names.launch_slot(self.name))


def slots_of(gpus: Sequence[str], cpu_count: int) -> list[Slot]:
    """A slot for each GPU, or without one the CPU's."""
    return [Slot(f"gpu{gpu}", gpu) for gpu in gpus] or [Slot(f"cpu{number}") for number in range(cpu_count)]


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def visible_gpus() -> list[str]:
    """The GPUs that a command would see: those of CUDA_VISIBLE_DEVICES, else all of the machine."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [gpu.strip() for gpu in chosen.split(",") if gpu.strip() not in ("", "-1")]
    return _listed_gpus()


def _listed_gpus() -> list[str]:
    """The numbers of the machine's GPUs by nvidia-smi, none where it is not there."""
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    lines = listed.stdout.splitlines() if listed.returncode == 0 else []
    return [str(number) for number, _ in enumerate(line for line in lines if line.startswith("GPU "))]


def gpu_slots(gpus: str | None) -> list[str]:
    """The GPUs to run on, as CUDA_VISIBLE_DEVICES names them; empty: run on the CPU.

    gpus: `0 1` or `0,1`, `none`, or None for every visible one. Raises UsageError when one comes twice, or is none of
    those that nvidia-smi lists.
    """
    if gpus is None:
        return visible_gpus()
    chosen = gpus.replace(",", " ").split()
    if chosen == [NO_GPU]:
        return []
    if not chosen or len(set(chosen)) < len(chosen):
        raise UsageError(f"--gpus={gpus!r}: expected the numbers of GPUs, each once, as '0 1', or {NO_GPU}")
    listed = _listed_gpus()
    absent = [gpu for gpu in chosen if listed and gpu.isdigit() and gpu not in listed]
    if absent:
        raise UsageError(f"--gpus={gpus!r}: nvidia-smi lists the GPUs {' '.join(listed)}, and no {absent[0]}")
    return chosen


def cpu_slots(slots: int | None, threads: Sequence[int | None]) -> int:
    """How many commands run at once on the CPU.

    Slots times threads never exceed the cores: two trainings that share cores slow each other down manyfold.

    slots: as many as asked for; None: as many as fit. threads: those of each command; None: every core. Raises
    UsageError for slots that do not fit.
    """
    widest = max((number or cores() for number in threads), default=1)
    if slots is None:
        return max(1, cores() // widest)
    if slots > 1 and slots * widest > cores():
        raise UsageError(f"--slots={slots}: {slots} commands of {widest} threads need more than the {cores()} cores "
                         f"here, and would slow each other down; set THREADS or --slots lower")
    return slots
