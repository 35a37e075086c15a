"""The checkout's own packages come first, installed or not."""

import os
import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Who runs the tests may have records of his own there.
os.environ.pop("RESULTS", None)
# Whoever starts the tests in the background of a script has the interrupt ignored, and so would each process that a test
# interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path[:0] = [str(ROOT), str(ROOT / "imdb_scripts")]


@pytest.fixture(scope="session", autouse=True)
def own_slots(tmp_path_factory):
    """Launches in the tests of one process do not wait for those in another's, nor for a user's."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        yield


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """The smoke corpus up to the pretrained language model, for the tests of sweeps, launch and Slurm."""
    from sweep_flow import Place

    place = Place(tmp_path_factory.mktemp("base"))
    place.make([line for line in place.plan("table7_clas_finetuning") if not any(
        stage in line for stage in ("finetune_lm", "train_clas", "analysis"))])
    return place


@pytest.fixture
def torchs_dropout(monkeypatch):
    """torch's dropout of weights in the place of our quick one, which draws other random numbers: for comparisons with
    fastai's own models."""
    import torch

    from ulmfit import models

    monkeypatch.setattr(models, "quick_dropout",
                        lambda weight, p, dtype: torch.nn.functional.dropout(weight, p).to(dtype))
