"""Experiment tracking: a tracker has what the record has, a resumed run goes on in it, and training does not notice."""

import importlib.util
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import flow
from flow import MARK, ROOT, SIZES, SMALL
from ulmfit import names, tracking, training
from ulmfit.errors import Interrupted, UserError

RUN = "imdb--{stage}--fwd--word--{name}--all--s0"
OF_USER = ("WANDB_DIR", "WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A dataset with ids and a language model."""
    base = tmp_path_factory.mktemp("tracking")
    flow.write_corpus(base / "imdb")
    where = {"dir_path": str(base / "imdb"), "results_dir": str(base / "results"), "quiet": True}
    flow.call("create_toks", **where, workers=1)
    flow.call("tok2id", **where)
    flow.call("finetune_lm", **where, preload=False, cl=1, **SIZES, **SMALL)
    return base


@pytest.fixture(autouse=True)
def without_the_users_settings(monkeypatch):
    for name in OF_USER:
        monkeypatch.delenv(name, raising=False)


def where(data):
    return {"dir_path": str(data / "imdb"), "results_dir": str(data / "results"), "quiet": True}


def model_of(data, stage, name):
    kind = "clas" if stage == "train_clas" else "lm"
    return data / f"imdb/models/{kind}--fwd--word--{name}--all--s0/weights.safetensors"


def recorded(data, run):
    """What a tracker should have: {name: [(step, value)]}; the loss of each update is in no record."""
    series = {}
    for number, (_, _, rates) in enumerate(flow.steps(data / "results", run), start=1):
        for group, rate in enumerate(rates):
            series.setdefault(f"lr_{group}", []).append((number, rate))
    for row in flow.epochs(data / "results", run):
        for name in row.keys() - {"epoch", "phase", "steps"}:
            series.setdefault(name, []).append((row["steps"], row[name]))
    return series


def check_series(found, data, run):
    expected = recorded(data, run)
    assert found.keys() == expected.keys() | {"loss"}
    for name, points in expected.items():
        assert [step for step, _ in found[name]] == [step for step, _ in points], name
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in points], rel=1e-6), name
    # The losses of an epoch's updates have the recorded mean.
    assert [step for step, _ in found["loss"]] == [step for step, _ in expected["lr_0"]]
    first = 0
    for steps, mean in expected["train_loss"]:
        losses = [value for _, value in found["loss"][first:steps]]
        assert sum(losses) / len(losses) == pytest.approx(mean, rel=1e-5)
        first = steps


def no_text_in(folder):
    return not any(MARK.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def stop_after(monkeypatch, steps, error=None):
    """Stops a training of this process after so many updates: as a signal does, or by an error, which leaves no
    checkpoint of that moment."""
    heed = training.Training.heed_signals

    def stopping(job, *arguments, **named):
        if job.place.steps == steps and error is not None:
            raise error
        if job.place.steps == steps:
            job.signal = signal.SIGTERM
        heed(job, *arguments, **named)
    monkeypatch.setattr(training.Training, "heed_signals", stopping)


# -- tensorboard -------------------------------------------------------------------------------------------------------

def events(data, run):
    """{name: [(step, value)]} as tensorboard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(data / "results/tracking" / run), size_guidance={"scalars": 0})
    accumulator.Reload()
    tags = accumulator.Tags()
    assert tags["scalars"] and not tags["tensors"] and not tags["images"] and not tags["graph"]
    return {name: [(event.step, event.value) for event in accumulator.Scalars(name)] for name in tags["scalars"]}


@pytest.mark.parametrize("stage, flags", [("finetune_lm", {"preload": False, "cl": 2, **SIZES}),
                                          ("train_clas", {"cl": 1, "clas_id": "board"})])
def test_tensorboard_by_the_command_line(data, tmp_path, stage, flags):
    before = {path for path in data.rglob("*")}
    common = {**where(data), **SMALL, **flags, **({"lm_id": "board"} if stage == "finetune_lm" else {})}
    done = flow.run_here(stage, **common, track="tensorboard")
    assert done.returncode == 0, done.stderr
    run = RUN.format(stage=stage, name="board")
    check_series(events(data, run), data, run)
    assert no_text_in(data / "results/tracking" / run)
    new = {path.relative_to(data).parts[:2] for path in data.rglob("*") if path not in before}
    assert new <= {("results", "runs"), ("results", "tracking"), ("imdb", "models")}

    # Without it the same weights, under the same fingerprint.
    other = {"results_dir": str(tmp_path / "results"), "overwrite": True}
    tracked, record = model_of(data, stage, "board").read_bytes(), flow.record(data / "results", run)
    flow.call(stage, **{**common, **other})
    assert model_of(data, stage, "board").read_bytes() == tracked
    assert flow.record(tmp_path / "results", run)["fingerprint"] == record["fingerprint"]
    assert not (tmp_path / "results/tracking").exists()


def test_a_stopped_run_goes_on_in_the_same_events(data, monkeypatch):
    flags = {**where(data), **SMALL, "cl": 1, "clas_id": "stops", "track": "tensorboard"}
    run = RUN.format(stage="train_clas", name="stops")
    # Between two updates, after an epoch's last, and so that the last 13 are done again.
    for steps, error in ((20, None), (27, None), (40, RuntimeError("no power"))):
        with monkeypatch.context() as patch, pytest.raises(type(error) if error else Interrupted):
            stop_after(patch, steps, error)
            flow.call("train_clas", **flags)
    flow.call("train_clas", **flags)
    check_series(events(data, run), data, run)

    # Made anew it begins anew: nothing of the old run is left among the new one's numbers.
    flow.call("train_clas", **{**flags, "lr": 0.02, "overwrite": True})
    check_series(events(data, run), data, run)
    assert max(rate for _, rate in events(data, run)["lr_3"]) == pytest.approx(0.02)


def test_sigterm_from_outside_closes_the_events(data):
    flags = {**where(data), **SMALL, "cl": 400, "lm_id": "killed", "preload": False, **SIZES, "track": "tensorboard"}
    process = subprocess.Popen([sys.executable, *flow.command("finetune_lm", **flags)], cwd=ROOT,
                               env=flow.environment(), stderr=subprocess.PIPE, text=True)
    run = RUN.format(stage="finetune_lm", name="killed")
    lines = data / "results/runs" / run / "metrics.jsonl"
    while not lines.exists() or len(lines.read_text().splitlines()) < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM and errors.count("\n") == 1
    checkpoint = torch.load(data / "imdb/models/lm--fwd--word--killed--all--s0/checkpoint.pt", weights_only=True)
    assert events(data, run)["loss"][-1][0] == checkpoint["place"]["steps"] > 0


# -- wandb, offline ----------------------------------------------------------------------------------------------------

def wandb_entries(path):
    """The entries of an offline run's file: a log of LevelDB's, blocks of 32 KiB, after a header of 7 bytes."""
    data, place, entry = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        length, kind = int.from_bytes(data[place + 4:place + 6], "little"), data[place + 6]
        if left < 7 or kind == 0:  # the rest of a block
            place += left
            continue
        entry += data[place + 7:place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield entry
            entry = b""


def wandb_logged(folder):
    """({name: [(step, value)]} of every offline run below `folder`, the ids of the runs)."""
    from wandb.proto import wandb_internal_pb2

    series, ids = {}, []
    for path in sorted(folder.rglob("*.wandb")):
        for data in wandb_entries(path):
            entry = wandb_internal_pb2.Record.FromString(data)
            if entry.WhichOneof("record_type") == "run":
                ids.append(entry.run.run_id)
            if entry.WhichOneof("record_type") == "history":
                values = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in entry.history.item}
                for name, value in values.items():
                    if not name.startswith("_"):
                        series.setdefault(name, []).append((entry.history.step.num, value))
    return series, ids


def test_wandb_offline(data, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    flags = {**where(data), **SMALL, "cl": 1, "startat": 2}
    flow.call("train_clas", **flags, clas_id="plain")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        stop_after(patch, 12)
        flow.call("train_clas", **flags, clas_id="wandb", track="wandb")
    flow.call("train_clas", **flags, clas_id="wandb", track="wandb")
    run = RUN.format(stage="train_clas", name="wandb")
    folder = data / "results/tracking" / run
    found, ids = wandb_logged(folder)
    check_series(found, data, run)
    assert len(ids) >= 2 and set(ids) == {json.loads((folder / "tracking.json").read_text())["ids"]["wandb"]}
    # Tracked and stopped, and yet the same weights as the other.
    plain, tracked = (load_file(model_of(data, "train_clas", name)) for name in ("plain", "wandb"))
    assert plain.keys() == tracked.keys() and all(torch.equal(plain[name], tracked[name]) for name in plain)
    assert not list(tmp_path.iterdir()) and no_text_in(folder)


# -- mlflow ------------------------------------------------------------------------------------------------------------

def test_mlflow(data, monkeypatch, tmp_path):
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    flags = {**where(data), **SMALL, "cl": 1, "startat": 2, "clas_id": "mlflow", "track": "mlflow"}
    for steps, error, status in ((12, None, "KILLED"), (20, RuntimeError("no power"), "FAILED")):
        with monkeypatch.context() as patch, pytest.raises(type(error) if error else Interrupted):
            stop_after(patch, steps, error)
            flow.call("train_clas", **flags)
        client = MlflowClient(tracking_uri=f"sqlite:///{data}/results/tracking/mlflow.db")
        [experiment] = [found for found in client.search_experiments() if found.name == "ulmfit-ablations"]
        [tracked] = client.search_runs([experiment.experiment_id])
        assert tracked.info.status == status
    flow.call("train_clas", **flags)
    run = RUN.format(stage="train_clas", name="mlflow")
    [tracked] = client.search_runs([experiment.experiment_id])
    assert tracked.info.run_name == run and tracked.info.status == "FINISHED"
    assert tracked.data.params["startat"] == "2"
    assert tracked.data.tags["fingerprint"] == flow.record(data / "results", run)["fingerprint"]
    check_series({name: [(point.step, point.value) for point in client.get_metric_history(tracked.info.run_id, name)]
                  for name in tracked.data.metrics}, data, run)
    assert not list(tmp_path.iterdir())
    assert no_text_in(data / "results/tracking")


# -- what goes wrong ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("stage", ("pretrain_lm", "finetune_lm", "train_clas"))
def test_an_absent_package_is_named_before_anything_is_made(tmp_path, monkeypatch, stage):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else find(name, *rest))
    with pytest.raises(UserError, match=r"--track=wandb needs the package wandb.*pip install wandb"):
        flow.call(stage, dir_path=str(tmp_path / "none"), results_dir=str(tmp_path / "results"), track="wandb")
    assert not list(tmp_path.iterdir())


class Broken:
    """A tracker that fails at its fifth update."""

    id = "broken"

    def __init__(self, run, folder, known, steps):
        self.logged = 0

    def log(self, values, step):
        self.logged += 1
        if self.logged == 5:
            raise ConnectionError("no route to host\nsecond line")

    def flush(self):
        pass

    def close(self, status):
        raise AssertionError("a tracker that failed is asked no more")


def test_a_tracker_that_fails_does_not_stop_the_training(data, monkeypatch, capsys):
    monkeypatch.setitem(tracking.TRACKERS, "tensorboard", Broken)
    monkeypatch.setattr(tracking, "check", lambda track: None)
    flow.call("train_clas", **where(data), **SMALL, cl=1, last=True, clas_id="broken", track="tensorboard")
    said = capsys.readouterr().out
    assert said.count("tracking ended, training goes on: ConnectionError: no route to host\n") == 1
    assert flow.record(data / "results", RUN.format(stage="train_clas", name="broken"))["status"] == "finished"


def test_a_tracker_that_cannot_start_is_one_line(data, monkeypatch):
    def refused(*_):
        raise PermissionError("api_key not configured.\nuse wandb login")
    monkeypatch.setitem(tracking.TRACKERS, "wandb", refused)
    monkeypatch.setattr(tracking, "check", lambda track: None)
    with pytest.raises(UserError) as raised:
        flow.call("train_clas", **where(data), **SMALL, cl=1, last=True, clas_id="login", track="wandb")
    assert str(raised.value) == ("--track=wandb cannot be started: PermissionError: api_key not configured; "
                                 "WANDB_MODE=offline keeps everything on this machine")


def test_tracking_folder_lies_beside_the_records():
    folder = names.run_folder(Path("results"), "imdb--train_clas--fwd")
    assert names.tracking_folder(folder) == Path("results/tracking/imdb--train_clas--fwd")
    ignored = subprocess.run(["git", "check-ignore", "-q", "results/tracking/x/events"], cwd=ROOT)
    assert ignored.returncode == 0 or not (ROOT / ".git").exists()
