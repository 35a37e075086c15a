"""A run that is stopped, in whatever way and wherever, and asked for again, ends as if nothing had happened."""

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import flow
from flow import ROOT, SIZES, SMALL
from ulmfit import training
from ulmfit.errors import Interrupted, UserError

FEW = 24

# What is trained, small enough to be stopped dozens of times in this process.
VARIANTS = {
    "finetune_lm": ("finetune_lm", {"cl": 2}),
    "finetune_lm early_stopping": ("finetune_lm", {"cl": 3, "early_stopping": True, "lr": 0.3,
                                                   "use_regular_schedule": True}),
    "train_clas gradual": ("train_clas", {"cl": 1}),
    "train_clas early_stopping": ("train_clas", {"cl": 60, "early_stopping": True, "lr": 0.3, "startat": 2,
                                                 "precision": "full", "use_regular_schedule": True}),
    "train_clas val_every": ("train_clas", {"cl": 3, "val_every": 2}),
    "train_clas chain_thaw": ("train_clas", {"cl": 1, "chain_thaw": True, "backwards": True}),
}


class Corpus:
    """The ids of the tiny corpus, with language models in both directions whose weights are random."""

    def __init__(self, base: Path):
        self.results = base / "results"
        self.data, self.where = flow.make_ids(base)
        (self.data / "subsets").mkdir()
        (self.data / "subsets/few.txt").write_text("".join(f"{row}\n" for row in self.trained_rows()[:FEW]))
        for backwards in (False, True):
            flow.call("finetune_lm", **self.where, preload=False, backwards=backwards, cl=1, **SIZES, **SMALL)

    def trained_rows(self) -> list[int]:
        lines = (self.data / "word/ids/train.documents.txt").read_text().splitlines()
        return [int(line.removeprefix("train:")) for line in lines]

    def names(self, stage: str, name: str, flags: dict) -> tuple[str, Path]:
        """(run, folder of its model) of a run with this id."""
        way = "bwd" if flags.get("backwards") else "fwd"
        fields = f"{way}--word--{name}--{flags.get('train_file_id') or 'all'}--s0"
        kind = "lm" if stage == "finetune_lm" else "clas"
        return f"imdb--{stage}--{fields}", self.data / "models" / f"{kind}--{fields}"

    def left(self, stage: str, name: str, flags: dict) -> dict:
        """All that a run leaves and that must be the same, to the last byte."""
        run, model = self.names(stage, name, flags)
        record = flow.record(self.results, run)
        assert record["status"] == "finished" and record["error"] is None
        assert flow.files_of(model) == ["manifest.json", "vocab.json", "weights.safetensors"]
        left = {"weights": (model / "weights.safetensors").read_bytes(), "epochs": flow.epochs(self.results, run)}
        for file in ("steps.csv.gz", "predictions.csv"):
            path = self.results / "runs" / run / file
            left[file] = path.read_bytes() if path.exists() else None
        kept = model.with_name(model.name + "--intermediate") / "weights.safetensors"
        left["intermediate"] = kept.read_bytes() if kept.exists() else None
        metrics = {which: {key: value for key, value in values.items() if key != "seconds"}
                   for which, values in record["metrics"].items()}
        return {**left, "metrics": metrics}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    return Corpus(tmp_path_factory.mktemp("resume"))


def flags_of(stage: str, name: str, more: dict) -> dict:
    return {**({"lm_id": name, "preload": False, **SIZES} if stage == "finetune_lm" else {"clas_id": name}), **SMALL,
            **more}


# -- stopped in this process, where one can choose the place ---------------------------------------------------------

@pytest.mark.parametrize("variant", VARIANTS)
def test_stopped_again_and_again_ends_the_same(corpus, monkeypatch, variant):
    stage, more = VARIANTS[variant]
    more = {**more, "train_file_id": "few" if stage == "train_clas" else ""}
    label = variant.split()[-1]
    flow.call(stage, **corpus.where, **flags_of(stage, f"whole-{label}", more))
    whole = corpus.left(stage, f"whole-{label}", more)

    # A signal comes before a look for signals: after a batch of training or validation, or between epochs.
    looks, wait = 0, 0
    heed = training.Training.heed_signals
    between = set()

    def heed_and_be_stopped(self, between_epochs=False):
        nonlocal looks
        looks += 1
        if looks == wait:
            between.add(between_epochs)
            os.kill(os.getpid(), signal.SIGTERM)
        heed(self, between_epochs)

    monkeypatch.setattr(training.Training, "heed_signals", heed_and_be_stopped)
    stops = 0
    while True:
        # Another number of looks each time, so that every kind of place is met.
        looks, wait = 0, 1 + 2 * stops % 7
        try:
            flow.call(stage, **corpus.where, **flags_of(stage, f"stopped-{label}", more))
        except Interrupted as error:
            assert error.signum == signal.SIGTERM
            stops += 1
            run = flow.record(corpus.results, corpus.names(stage, f"stopped-{label}", more)[0])
            assert run["status"] == "interrupted" and run["error"] == "Interrupted: stopped by signal 15"
        else:
            break
    assert stops > 8 and between == {True, False}
    assert corpus.left(stage, f"stopped-{label}", more) == whole
    record = flow.record(corpus.results, corpus.names(stage, f"stopped-{label}", more)[0])
    assert len(record["sessions"]) == stops + 1
    if "early_stopping" in variant and stage == "train_clas":
        losses = [row["val_loss"] for row in whole["epochs"]]
        assert len(losses) == losses.index(min(losses)) + 7 < 60


@pytest.mark.parametrize("variant", ["train_clas gradual", "train_clas chain_thaw"])
def test_killed_right_after_a_checkpoint_or_before_the_next(corpus, monkeypatch, variant):
    """A process that vanishes leaves what was on disk at that moment: the last checkpoint may lie well behind."""
    stage, more = VARIANTS[variant]
    more = {**more, "train_file_id": "few"}
    label = "vanished-" + variant.split()[-1]
    flow.call(stage, **corpus.where, **flags_of(stage, f"whole-{label}", more))
    whole = corpus.left(stage, f"whole-{label}", more)

    class Vanished(BaseException):
        pass

    heed, looks, wait = training.Training.heed_signals, 0, 0

    def heed_and_vanish(self, between_epochs=False):
        nonlocal looks
        looks += 1
        if looks == wait and stops % 2:
            raise Vanished
        heed(self, between_epochs)
        if looks == wait:
            raise Vanished

    monkeypatch.setattr(training.Training, "heed_signals", heed_and_vanish)
    run, _ = corpus.names(stage, label, more)
    one_epoch = None
    for stops in range(100):
        # More than an epoch each time, or no epoch would ever be reached: only the ends of epochs are on disk.
        looks, wait = 0, 10 + 3 * (stops % 3)
        try:
            flow.call(stage, **corpus.where, **flags_of(stage, label, more))
            break
        except Vanished:
            # The record cannot say that its process is gone.
            path = corpus.results / "runs" / run / "run.json"
            path.write_text(path.read_text().replace('"status": "failed"', '"status": "running"'))
            one_epoch = one_epoch or len(flow.epochs(corpus.results, run))
    assert stops >= 2 and one_epoch >= 1
    assert corpus.left(stage, label, more) == whole


def test_checkpoint_of_another_run_or_a_broken_one_is_refused(corpus, monkeypatch):
    more = {"cl": 1, "train_file_id": "few"}
    heed = training.Training.heed_signals

    def stop(self, between_epochs=False):
        self.signal = signal.SIGTERM
        heed(self, between_epochs)

    monkeypatch.setattr(training.Training, "heed_signals", stop)
    for name in ("broken", "foreign"):
        with pytest.raises(Interrupted):
            flow.call("train_clas", **corpus.where, **flags_of("train_clas", name, {**more, "seed": 0}),
                      **({"lr": 0.02} if name == "foreign" else {}))
    monkeypatch.undo()
    broken, foreign = (corpus.names("train_clas", name, more)[1] / training.CHECKPOINT
                       for name in ("broken", "foreign"))
    shutil.copyfile(foreign, broken)
    with pytest.raises(UserError, match="checkpoint.pt belongs to another run; --overwrite starts this run anew"):
        flow.call("train_clas", **corpus.where, **flags_of("train_clas", "broken", more))
    broken.write_bytes(foreign.read_bytes()[:1000])
    with pytest.raises(UserError, match="checkpoint.pt cannot be read .*; --overwrite starts this run anew"):
        flow.call("train_clas", **corpus.where, **flags_of("train_clas", "broken", more))
    flow.call("train_clas", **corpus.where, **flags_of("train_clas", "broken", more), overwrite=True)
    flow.call("train_clas", **corpus.where, **flags_of("train_clas", "untouched", more))
    assert corpus.left("train_clas", "broken", more) == corpus.left("train_clas", "untouched", more)


def test_the_intermediate_classifier_comes_back_with_its_run_and_is_made_again_when_lost(corpus, monkeypatch, capsys):
    flags = flags_of("train_clas", "kept", {"cl": 1, "train_file_id": "few"})
    flow.call("train_clas", **corpus.where, **flags)
    whole = corpus.left("train_clas", "kept", flags)
    heed = training.Training.heed_signals

    def stop_in_the_last_phase(self, between_epochs=False):
        if self.place.phase == 2:
            self.signal = signal.SIGTERM
        heed(self, between_epochs)

    monkeypatch.setattr(training.Training, "heed_signals", stop_in_the_last_phase)
    for _ in range(2):
        with pytest.raises(Interrupted):
            flow.call("train_clas", **corpus.where, **flags, lr=0.05, overwrite=True)
    model = corpus.names("train_clas", "kept", flags)[1]
    assert f" updates; to begin anew, delete {model / training.CHECKPOINT} first\n" in capsys.readouterr().out
    monkeypatch.undo()
    flow.call("train_clas", **corpus.where, **flags)
    assert corpus.left("train_clas", "kept", flags) == whole

    (model.with_name(model.name + "--intermediate") / "weights.safetensors").unlink()
    after = {**flags, "clas_id": "after", "start_clas_id": "kept", "startat": 1}
    with pytest.raises(UserError, match="intermediate/weights.safetensors is missing; run first: .*train_clas.py"):
        flow.call("train_clas", **corpus.where, **after)
    flow.call("train_clas", **corpus.where, **flags)
    assert corpus.left("train_clas", "kept", flags) == whole
    flow.call("train_clas", **corpus.where, **after)


def test_sigusr1_writes_a_checkpoint_and_goes_on(corpus, monkeypatch):
    flow.call("finetune_lm", **corpus.where, **flags_of("finetune_lm", "unsaved", {"cl": 1}))
    checkpoint = corpus.names("finetune_lm", "saved", {})[1] / training.CHECKPOINT
    heed, found = training.Training.heed_signals, []

    def heed_and_look(self, between_epochs=False):
        # In the first epoch there is no other reason for a checkpoint.
        if self.place.steps == 3 and not found:
            assert not checkpoint.exists()
            os.kill(os.getpid(), signal.SIGUSR1)
            heed(self, between_epochs)
            found.append(torch.load(checkpoint, weights_only=True)["place"])
            checkpoint.unlink()
        else:
            heed(self, between_epochs)
        if self.place.steps == 4:
            # Asked for once, written once.
            assert not checkpoint.exists()

    monkeypatch.setattr(training.Training, "heed_signals", heed_and_look)
    flow.call("finetune_lm", **corpus.where, **flags_of("finetune_lm", "saved", {"cl": 1}))
    assert [(place["epochs"], place["batch"], place["steps"]) for place in found] == [(0, 3, 3)]
    assert corpus.left("finetune_lm", "saved", {}) == corpus.left("finetune_lm", "unsaved", {})


# -- no room left -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("cut_short", ["weights", "checkpoint"])
def test_a_full_disk_ends_a_training_in_one_line(corpus, monkeypatch, cut_short):
    flags = flags_of("finetune_lm", f"full-{cut_short}", {"cl": 1})
    run, model = corpus.names("finetune_lm", f"full-{cut_short}", {})
    if cut_short == "checkpoint":
        heed = training.Training.heed_signals

        def stop(self, between_epochs=False):
            self.signal = signal.SIGTERM
            heed(self, between_epochs)

        monkeypatch.setattr(training.Training, "heed_signals", stop)
    with flow.full_disk(20_000):
        done = flow.run_here("finetune_lm", **corpus.where, **flags)
    assert (done.returncode, done.stderr) == (1, f"finetune_lm: error: {model}: File too large\n")
    # Written before the training, and whole.
    assert flow.files_of(model) == ["vocab.json"]
    assert flow.record(corpus.results, run)["status"] == "failed"
    monkeypatch.undo()
    flow.call("finetune_lm", **corpus.where, **flags)
    assert flow.files_of(model) == ["manifest.json", "vocab.json", "weights.safetensors"]


# -- real processes, real signals -------------------------------------------------------------------------------------

class Process:
    """A stage in a process of its own, whose output is read line by line."""

    def __init__(self, stage: str, flags: dict):
        self.process = subprocess.Popen(
            [sys.executable, *flow.command(stage, **flags)], cwd=ROOT, env=flow.environment(), stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, bufsize=1)
        self.lines: list[str] = []

    def wait_for(self, beginning: str) -> None:
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith(beginning):
                return
        raise AssertionError(f"ended without a line {beginning!r}: {self.lines} {self.process.stderr.read()}")

    def send(self, number: int) -> None:
        assert self.process.poll() is None, "it ended before it could be stopped; give it more to do"
        self.process.send_signal(number)

    def end(self) -> tuple[int, str, str]:
        """(exit code, whole stdout, stderr)"""
        out, errors = self.process.communicate(timeout=600)
        return self.process.returncode, "".join(self.lines) + out, errors


# Enough for some seconds of training, cut into pieces by signals; each is sent after a line and a moment more.
@pytest.mark.parametrize("stage, more, plan", [
    ("finetune_lm", {"bs": 2, "bptt": 5, "cl": 4},
     [("epoch 1/", signal.SIGKILL), ("phase", signal.SIGTERM), ("phase", signal.SIGINT)]),
    ("train_clas", {"bs": 4, "bptt": 5, "cl": 2},
     [("phase 1/3", signal.SIGTERM), ("phase 2/3", signal.SIGKILL), ("phase 3/3", signal.SIGINT)]),
], ids=["finetune_lm", "train_clas"])
@pytest.mark.slow
def test_killed_by_signals_and_asked_for_again(corpus, stage, more, plan):
    moments = random.Random(stage)
    # The undisturbed run is made in this process: another process must not matter.
    flow.call(stage, **corpus.where, **flags_of(stage, "quiet", more))
    run, model = corpus.names(stage, "killed", more)
    flags = {**corpus.where, **flags_of(stage, "killed", more)}
    for line, number in plan:  # a line to wait for, what to send then
        process = Process(stage, flags)
        process.wait_for(line)
        if line == plan[0][0]:
            # Asked for twice at the same time, the second is told so; the first holds still meanwhile.
            process.send(signal.SIGSTOP)
            second = flow.run_stage(stage, **flags)
            process.send(signal.SIGCONT)
            assert second.returncode == 1
            assert second.stderr == f"{stage}: error: {run} is being made by another process now; wait for it, or " \
                                    f"stop it first\n"
        else:
            try:
                process.process.wait(timeout=moments.uniform(0, 0.6))
            except subprocess.TimeoutExpired:
                pass
        process.send(number)
        code, out, errors = process.end()
        status = flow.record(corpus.results, run)["status"]
        if number == signal.SIGKILL:
            assert (code, status, errors) == (-signal.SIGKILL, "running", "")
        else:
            assert (code, status) == (128 + number, "interrupted")
            assert errors == f"{stage}: stopped by signal {int(number)}\n"
            assert (model / training.CHECKPOINT).exists() and not (model / "manifest.json").exists()
    process = Process(stage, flags)
    code, out, errors = process.end()
    assert code == 0, errors
    assert "going on after " in out and "already done" not in out
    assert corpus.left(stage, "killed", more) == corpus.left(stage, "quiet", more)
    assert len(flow.record(corpus.results, run)["sessions"]) == len(plan) + 1
