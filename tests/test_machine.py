"""What is set of the process before torch computes."""

import subprocess
import sys

import pytest

from conftest import ROOT
from ulmfit import machine

sys.path.insert(0, str(ROOT / "sweeps"))

import speed_measure  # noqa: E402

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


@pytest.mark.parametrize("how, kept", [("keep", True), ("give back", False)])
def test_memory_of_a_large_tensor_is_kept_when_freed(how, kept):
    done = subprocess.run([sys.executable, "-c", LEFT, how], cwd=ROOT / "imdb_scripts", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (float(done.stdout) > 60) == kept


@pytest.mark.parametrize("n_hid, keeps", [(20, True), (1200, False)])
def test_training_keeps_memory_for_small_lstms_alone(n_hid, keeps, monkeypatch):
    calls = []
    monkeypatch.setattr(machine, "keep_freed_memory", lambda: calls.append(n_hid))
    speed_measure.lm_ours({"documents": 4, "length": 60, "words": 50, "bs": 2, "batches": 1,
                           "model": {"emb_sz": 8, "n_hid": n_hid, "n_layers": 2}})
    assert bool(calls) == keeps
