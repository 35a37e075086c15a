"""Device, threads, memory and seeds."""

import ctypes
import os
import random
from pathlib import Path

import numpy as np
import torch

from .errors import UserError

# Intel's matrix unit, and the vector products of it in processors without one.
BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16"}
# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def pick_device(cuda_id: int | None, precision: str = "auto") -> torch.device:
    """-1: the CPU; None: the first visible GPU, else the CPU.

    Raises UserError for a GPU that is not there, and for a precision that the device does not have.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if cuda_id is None:
        cuda_id = 0 if count else -1
    if cuda_id >= count:
        raise UserError(f"--cuda_id={cuda_id}: {count} GPUs are visible here; --cuda_id=-1 is the CPU")
    device = torch.device("cpu") if cuda_id == -1 else torch.device("cuda", cuda_id)
    check_precision(precision, device)
    return device


def check_precision(precision: str, device: torch.device) -> None:
    """Raises UserError for a precision that the device does not have."""
    if precision == "fp16" and device.type == "cpu":
        raise UserError("--precision=fp16 needs a GPU, and none is visible here; --precision=bf16 runs on the CPU too")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError("--precision=bf16: this GPU does not have it; --precision=fp16 runs on every GPU")


def quick_precision(device: torch.device) -> str:
    """ "bf16" on a device that multiplies it in hardware, else "full": what `--precision=auto` means.

    bfloat16 has the range of single precision, so that nothing needs scaling.
    """
    native = torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" \
        else cpu_flags() & BFLOAT16_FLAGS
    return "bf16" if native else "full"


def cpu_flags() -> set[str]:
    """What the processor can do, in the kernel's words; empty where the kernel does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.partition(":")[2].split()}


def set_threads(threads: int | None) -> int:
    """Sets torch's CPU threads and returns their number; None: as many as this process may use."""
    threads = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    return threads


def keep_freed_memory() -> None:
    """Lets glibc keep what is freed for what is asked for next, where it would give large blocks back to the system and
    take fresh pages each time.

    Elsewhere than on glibc nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def set_seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_states(device: torch.device) -> dict:
    """The generators that training on the device draws from, in a form that `torch.load(weights_only=True)` accepts."""
    states = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = [torch.cuda.get_rng_state(device)]
    return states


def restore_random_states(states: dict, device: torch.device) -> None:
    """Puts back what `random_states` returned, on whichever GPU the training goes on."""
    torch.set_rng_state(states["torch"].cpu())
    if states.get("cuda") and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"][0].cpu(), device)
