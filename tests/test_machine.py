"""What is set of the process before torch computes."""

import platform
import subprocess
import sys

import pytest

from conftest import ROOT

LEFT = """
import sys
import torch
from ulmfit import machine

if sys.argv[1] == "keep":
    machine.keep_freed_memory()

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

before = resident()
large = torch.ones(2**24)
assert resident() - before > 60
del large
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory is glibc's alone to keep")
@pytest.mark.parametrize("how, kept", [("keep", True), ("give back", False)])
def test_memory_of_a_large_tensor_is_kept_when_freed(how, kept):
    done = subprocess.run([sys.executable, "-c", LEFT, how], cwd=ROOT / "imdb_scripts", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (float(done.stdout) > 60) == kept
