"""Experiment tracking: a run's losses, rates and metrics sent to tensorboard, wandb or mlflow as well.

They get what the record has, under the same names: for every update the `loss` of its batch and the columns of
steps.csv.gz, for every epoch the numbers of metrics.jsonl, all at the number of updates done. Never a text. The record
needs none of it: what a tracker keeps on disk lies in results/tracking, and one that fails is let go.

fastai's TensorBoardCallback and WandbCallback cannot do this. Both count by `train_iter`, which begins at 0 again with
every phase and every resume; both take their numbers from a Recorder, which knows none of our metrics; tensorboard's
logs during validation too. So the packages' own interfaces are called from where the record is written.
"""

import fcntl
import importlib.util
import os
import shutil
import time
import uuid
from pathlib import Path
from typing import Any, Protocol

from . import files, names
from .errors import Interrupted, UserError
from .records import Run

NONE = "none"
PROJECT = "ulmfit-ablations"
STATE = "tracking.json"
# Of a row of metrics.jsonl, what says where the numbers belong.
_PLACE = ("epoch", "phase", "steps", "seconds")
_MLFLOW_BATCH = 500


def check(track: str) -> None:
    """Raises UserError when the package that `track` names is not installed."""
    if track != NONE and importlib.util.find_spec(track) is None:
        raise UserError(f"--track={track} needs the package {track}, which is not installed; install it by: "
                        f"pip install {track}")


class Tracker(Protocol):
    """What keeps the numbers. `id`: by which a resumed run finds it again; None when its folder is enough."""

    id: str | None

    def log(self, values: dict[str, float], step: int) -> None: ...

    def flush(self) -> None: ...

    def close(self, status: str) -> None: ...


class TensorBoard:
    """Event files in `folder`. Those that an earlier session wrote beyond `steps` are marked as void."""

    id = None

    def __init__(self, run: Run, folder: Path, known: str | None, steps: int):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=steps + 1)

    def log(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def flush(self) -> None:
        self.writer.flush()

    def close(self, status: str) -> None:
        self.writer.close()


class WandB:
    """A run of wandb. Updates that are done again after a crash it leaves out by itself: they are the same numbers.

    Offline it cannot know; each session has a folder then, all with the same id.
    """

    def __init__(self, run: Run, folder: Path, known: str | None, steps: int):
        import wandb

        self.id = known or uuid.uuid4().hex
        # Neither code, output nor the machine: a command line may hold paths.
        settings = wandb.Settings(console="off", disable_git=True, disable_code=True, x_disable_meta=True, silent=True)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT, id=self.id, name=run.id, resume="allow",
            dir=None if os.environ.get("WANDB_DIR") else str(folder), config=_config(run), settings=settings)

    def log(self, values: dict[str, float], step: int) -> None:
        self.run.log(values, step=step)

    def flush(self) -> None:
        """A process of its own writes it out."""

    def close(self, status: str) -> None:
        self.run.finish(exit_code=0 if status == "finished" else 1)


class MLflow:
    """A run of mlflow, kept in tracking/mlflow.db beside the runs' folders unless MLFLOW_TRACKING_URI is set."""

    def __init__(self, run: Run, folder: Path, known: str | None, steps: int):
        # mlflow would ask a server that does not answer for many minutes, and training would wait.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param, RunTag

        place, artifacts = folder.parent.resolve(), None
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            # Without an address of its own an experiment's would be mlruns in the working folder.
            uri, artifacts = f"sqlite:///{place / 'mlflow.db'}", (place / "mlflow-artifacts").as_uri()
        self.metric, self.waiting = Metric, []
        # Two runs that begin at once would both make the tables, and the experiment.
        with open(place / ".mlflow.lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.client = MlflowClient(tracking_uri=uri)
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
            experiment = self.client.get_experiment_by_name(name)
            experiment_id = (experiment.experiment_id if experiment else
                             self.client.create_experiment(name, artifact_location=artifacts))
        if known:
            self.id = known
            self.client.update_run(known, status="RUNNING")
            # mlflow would keep twice what is logged twice: the updates and epochs since the last checkpoint.
            self.done = {name: max((point.step for point in self.client.get_metric_history(known, name)), default=0)
                         for name in ("loss", "train_loss")}
        else:
            self.id = self.client.create_run(experiment_id, run_name=run.id).info.run_id
            self.done = {}
            config = _config(run)
            self.client.log_batch(self.id, params=[Param(key, str(value)) for key, value in config["flags"].items()],
                                  tags=[RunTag(key, str(value)) for key, value in config.items() if key != "flags"])

    def log(self, values: dict[str, float], step: int) -> None:
        first = next(iter(values))
        if step > self.done.get(first, 0):
            now = int(time.time() * 1000)
            self.waiting += [self.metric(name, float(value), now, step) for name, value in values.items()]
        if len(self.waiting) >= _MLFLOW_BATCH:
            self.flush()

    def flush(self) -> None:
        waiting, self.waiting = self.waiting, []
        if waiting:
            self.client.log_batch(self.id, metrics=waiting)

    def close(self, status: str) -> None:
        self.flush()
        self.client.set_terminated(self.id, {"finished": "FINISHED", "interrupted": "KILLED"}.get(status, "FAILED"))


TRACKERS: dict[str, Any] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}


def _config(run: Run) -> dict:
    return {key: run.record[key] for key in ("stage", "dataset", "fingerprint", "command", "flags")}


class Tracking:
    """A run's tracker while it trains, as a context manager; without one every call does nothing.

    A tracker that fails must not cost the training: one line says so, and it is asked no more.
    """

    def __init__(self, run: Run, tracker: Tracker | None = None):
        self.run, self.tracker = run, tracker

    def __bool__(self) -> bool:
        return self.tracker is not None

    def update(self, step: int, loss: float, columns: dict[str, float]) -> None:
        """An update: the loss of its batch, and the rates."""
        self._ask("log", {"loss": loss, **columns}, step)

    def epoch(self, row: dict) -> None:
        """A row of metrics.jsonl."""
        self._ask("log", {name: value for name, value in row.items() if name not in _PLACE}, row["steps"])

    def flush(self) -> None:
        """Brings to the disk what a checkpoint is about to rely on."""
        self._ask("flush")

    def __enter__(self) -> "Tracking":
        return self

    def __exit__(self, kind, error, trace) -> None:
        interrupted = isinstance(error, (Interrupted, KeyboardInterrupt))
        self._ask("close", "finished" if error is None else "interrupted" if interrupted else "failed")

    def _ask(self, method: str, *arguments: Any) -> None:
        if self.tracker is None:
            return
        try:
            getattr(self.tracker, method)(*arguments)
        except Exception as error:
            self.tracker = None
            self.run.say(f"tracking ended, training goes on: {_one_line(error)}", important=True)


def start(run: Run, steps: int) -> Tracking:
    """The tracking that the run's --track asks for, from the update after `steps` on.

    A run that is resumed goes on in the tracking run it had; one that is made anew gets a new one, and what the old one
    left in its folder is removed. Raises UserError when the tracker cannot be started.
    """
    track = run.record["flags"].get("track", NONE)
    if track == NONE:
        return Tracking(run)
    folder = names.tracking_folder(run.folder)
    # The time at which a run began stays the same when it is resumed.
    state = files.read_json(folder / STATE) if (folder / STATE).exists() else {}
    begun = {key: run.record[key] for key in ("started", "fingerprint")}
    if {key: state.get(key) for key in begun} != begun:
        shutil.rmtree(folder, ignore_errors=True)
        state = {**begun, "ids": {}}
    folder.mkdir(parents=True, exist_ok=True)
    try:
        tracker = TRACKERS[track](run, folder, state["ids"].get(track), steps)
    except Exception as error:
        hint = "; WANDB_MODE=offline keeps everything on this machine" if track == "wandb" else ""
        raise UserError(f"--track={track} cannot be started: {_one_line(error).rstrip('.')}{hint}") from error
    if tracker.id is not None:
        state["ids"][track] = tracker.id
    files.write_json(folder / STATE, state)
    return Tracking(run, tracker)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
