"""Training by fastai's Learner, phase by phase, so that it can be stopped at any moment and go on bit for bit.

What a run needs to go on is in one checkpoint: model, optimizer, place in the schedule and in the data, hidden
state, random states and everything recorded so far.
"""

import gzip
import math
import signal
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Callable

import numpy as np
import torch
from fastai.callback.core import Callback, CancelFitException, CancelValidException, TrainEvalCallback
from fastai.callback.fp16 import AMPMode, MixedPrecision
from fastai.callback.rnn import ModelResetter
from fastai.callback.training import GradientClip
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import OptimWrapper
from torch import Tensor, nn

from . import files, machine, metrics, models, tracking, weights
from .errors import Interrupted, UserError
from .hyperparameters import Optimization
from .loaders import ClassifierLoader, LMLoader
from .phases import Phase
from .records import BEST, CHECKPOINTS, Run

CHECKPOINT = "checkpoint.pt"
SECONDS_BETWEEN_CHECKPOINTS = 600
SECONDS_BETWEEN_LINES = 10
# Weights of LSTMs up to which memory is kept (`machine.keep_freed_memory`). On 2 cores those of 400 (1.4 million) train
# an eighth faster with the last group alone or a sampled softmax, for 0.1 to 0.5 GB; the paper's (20 million) would gain
# nothing for more than 1 GB.
SMALL = 5_000_000


class LanguageModelValidation(Callback):
    """Validation by the full softmax (`DecoderLoss`): mean loss over every token, perplexity, accuracy."""

    order = 40

    def before_validate(self) -> None:
        self.loss_sum, self.correct, self.tokens = 0.0, 0, 0

    def after_batch(self) -> None:
        if not self.training:
            targets = self.learn.yb[0]
            self.loss_sum += self.learn.loss.item() * targets.numel()
            self.correct += self.learn.loss_func.correct
            self.tokens += targets.numel()

    def finite(self) -> bool:
        return math.isfinite(self.loss_sum)

    def values(self) -> dict:
        loss = self.loss_sum / self.tokens
        return {"val_loss": loss, "perplexity": metrics.perplexity(loss), "accuracy": self.correct / self.tokens,
                "val_tokens": self.tokens}

    @staticmethod
    def line(row: dict) -> str:
        return f"val loss {row['val_loss']:.4f}  perplexity {row['perplexity']:.2f}  accuracy {row['accuracy']:.4f}"


class ClassifierValidation(Callback):
    """Validation of a classifier; keeps the probabilities in the documents' own order."""

    order = 40

    def __init__(self, loader: ClassifierLoader):
        self.loader = loader
        self.precision = "full"
        self.whole = None

    def before_validate(self) -> None:
        self.parts = []
        self.whole = self.learn.model
        self.learn.model = models.at_precision(self.whole, self.precision).eval()

    def after_validate(self) -> None:
        # Called too after a validation that another callback has called off.
        if self.whole is not None:
            self.learn.model, self.whole = self.whole, None

    def after_batch(self) -> None:
        if not self.training:
            self.parts.append(self.learn.pred.float().softmax(-1).cpu())

    def probabilities(self) -> np.ndarray:
        """(documents, classes) float64."""
        return in_document_order(self.parts, self.loader)

    def finite(self) -> bool:
        return all(bool(part.isfinite().all()) for part in self.parts)

    def values(self) -> dict:
        labels = self.loader.documents.labels[self.loader.rows]
        scores = metrics.classification(labels, self.probabilities())
        return {"val_loss": scores["loss"], "error": scores["error"], "macro_f1": scores["macro_f1"]}

    @staticmethod
    def line(row: dict) -> str:
        return f"val loss {row['val_loss']:.4f}  error {row['error']:.2f}%"


def in_document_order(parts: list[Tensor], loader: ClassifierLoader) -> np.ndarray:
    """Undoes the sorting by length of a prediction loader: rows of batches to (documents, classes) float64."""
    rows = torch.cat(parts).double().numpy()
    ordered = np.empty_like(rows)
    ordered[loader.order] = rows
    return ordered


def predict(model: nn.Module, loader: ClassifierLoader, device: torch.device, precision: str = "full",
            quiet: bool = True) -> np.ndarray:
    """Class probabilities (documents, classes) float64, in the documents' own order.

    precision: of the encoder, "full", "bf16" or "fp16".
    """
    model = models.at_precision(model.to(device), precision).eval()
    meter = Meter("predicting", "documents", len(loader), 0, quiet)
    parts = []
    with torch.inference_mode():
        for ids, lengths, _ in loader:
            logits = model(ids.to(device), lengths.to(device))[0]
            parts.append(logits.float().softmax(-1).cpu())
            meter.add(len(ids))
    return in_document_order(parts, loader)


def activation_regularization(states: Tensor, padding: Tensor, alpha: float, beta: float) -> Tensor:
    """AR and TAR (Merity 2017): alpha times the mean square of the states, beta times that of their steps in time.

    Args: states (rows, width, n), padding (rows, width); padded states and steps into padding do not count.
    """
    real = (~padding).float()
    n = states.shape[-1]
    states = states.float()
    activation = (states.pow(2).sum(-1) * real).sum() / (real.sum() * n)
    both = real[:, 1:] * real[:, :-1]
    steps = ((states[:, 1:] - states[:, :-1]).pow(2).sum(-1) * both).sum() / (both.sum() * n).clamp(min=1)
    return alpha * activation + beta * steps


class ClassifierOutput(Callback):
    """Takes the logits out of the classifier's output and regularizes its states."""

    order = 1

    def __init__(self, alpha: float, beta: float):
        self.alpha, self.beta = alpha, beta

    def after_pred(self) -> None:
        self.learn.pred, self.states, self.padding = self.learn.pred

    def after_loss(self) -> None:
        if self.training and (self.alpha or self.beta):
            self.learn.loss_grad = self.learn.loss_grad + activation_regularization(
                self.states, self.padding, self.alpha, self.beta)


def adam(optimization: Optimization) -> Callable:
    """Makes the optimizer of layer groups: torch's Adam, whose one pass over the memory takes a fraction of the time
    of fastai's chain of steps, and whose weight decay is L2 as well."""
    return partial(OptimWrapper, opt=torch.optim.Adam, betas=(optimization.beta1, optimization.beta2),
                   eps=optimization.eps, weight_decay=optimization.wd, fused=True)


@dataclass
class Place:
    """Where a run is: numbers of finished epochs, batches and updates.

    phase: number of the phase. epoch, step: within the phase. batch: within the epoch. epochs, steps: of the run.
    """

    phase: int = 0
    epoch: int = 0
    batch: int = 0
    step: int = 0
    epochs: int = 0
    steps: int = 0


class Training:
    """One run's training. `fit()` returns the rows of the best and of the last epoch.

    Args:
        splitter: gives the model's layer groups, as fastai's do.
        validation: LanguageModelValidation or ClassifierValidation.
        callbacks: what else the Learner needs (output and regularization).
        val_every: epochs of the run from one validation to the next; see `validates`.
        after_phase: called with a phase that says `keep`, when it has ended.
    """

    def __init__(self, run: Run, model: nn.Module, splitter: Callable, phases: list[Phase],
                 train: LMLoader | ClassifierLoader, val: LMLoader | ClassifierLoader, *, validation: Callback,
                 callbacks: list[Callback], optimization: Optimization, device: torch.device, unit: str,
                 loss_func: Callable | None = None, val_every: int = 1,
                 after_phase: Callable[[Phase], None] | None = None):
        if device.type == "cpu" and models.lstm_weights(model) < SMALL:
            machine.keep_freed_memory()
        self.run, self.model, self.phases, self.train, self.val = run, model.to(device), phases, train, val
        self.validation, self.optimization, self.device, self.unit = validation, optimization, device, unit
        self.val_every, self.after_phase = val_every, after_phase
        # The epoch whose weights this process has validated last, None before.
        self.validated: int | None = None
        self.folder = run.artefact
        self.precision = validation.precision = run.use_precision(optimization.precision, device)
        dls = DataLoaders(train, val, path=self.folder or run.folder, device=device)
        self.learn = Learner(dls, model, loss_func=loss_func or CrossEntropyLossFlat(), opt_func=adam(optimization),
                             splitter=splitter, wd_bn_bias=True, default_cbs=False,
                             cbs=[TrainEvalCallback(), ModelResetter(), *callbacks, validation,
                                  *([GradientClip(optimization.clip)] if optimization.clip else []),
                                  *([_MixedPrecision(self)] if self.precision != "full" else [])])
        self.groups = [list(group) for group in splitter(model)]
        self.place = Place()
        self.epochs: list[dict] = []
        self.step_log: list[tuple] = []
        self.loss_sum, self.loss_count = self._zero(), 0
        self.best: dict | None = None
        self.bad_epochs = 0
        self.finished_phase = False
        self.keep_best = any(phase.reload_best for phase in phases)
        self.moves_momentum = any(phase.schedule.kind == "one_cycle" for phase in phases)
        self.saved_at = time.monotonic()
        self.signal: int | None = None
        self.save_asked = False
        self.tracking = tracking.Tracking(run)
        self._hidden = None
        self._optimizer_state = None
        self.scaler_state: dict | None = None

    # -- the whole run ---------------------------------------------------------------------------------------------

    def fit(self) -> tuple[dict, dict]:
        """Trains what is left of the phases. Returns (best, last): the rows of metrics.jsonl.

        Raises Interrupted after a signal, its checkpoint written, and UserError when the loss is no longer finite.
        """
        if self.run.resumed:
            self._load_checkpoint()
        else:
            discard_checkpoint(self.folder)
        self.run.write_epochs(self.epochs)
        with tracking.start(self.run, self.place.steps) as self.tracking:
            self._run_phases()
        self._write_steps()
        best = min((row for row in self.epochs if "val_loss" in row), key=lambda row: row["val_loss"])
        return best, self.best if self.phases[-1].reload_best else self.epochs[-1]

    def _run_phases(self) -> None:
        handlers = {number: signal.signal(number, self._on_signal)
                    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
        try:
            with self.learn.added_cbs([_ValidationPace(self), _Steps(self), _Progress(self)]):
                while self.place.phase < len(self.phases):
                    self._run_phase(self.phases[self.place.phase])
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def thaw(self, groups: tuple[int, ...]) -> None:
        """Freezes every layer group but these, and makes a fresh optimizer."""
        for number, group in enumerate(self.groups):
            for parameter in group:
                parameter.requires_grad_(number in groups)
                parameter.grad = None
        self.learn.create_opt()

    def _run_phase(self, phase: Phase) -> None:
        self.thaw(phase.groups)
        if self._optimizer_state is not None:
            self._restore_optimizer(self._optimizer_state)
            self._optimizer_state = None
        if not self.finished_phase:
            self.run.say(f"phase {self.place.phase + 1}/{len(self.phases)}: {phase.name}, {phase.epochs} epochs, "
                         f"{phase.schedule.kind}, rates " + " ".join(f"{rate:.2g}" for rate in phase.rates))
            first = self.place.epochs - self.place.epoch
            self.phase_steps = sum(self.train.updates(first + epoch) for epoch in range(phase.epochs))
            self.train.start(self.place.epochs, self.place.batch)
            self.learn.fit(phase.epochs - self.place.epoch)
        if phase.reload_best and self.best is not None:
            weights.load_whole(self.model, self._best_path(self.best["epoch"]))
        if phase.keep and self.after_phase is not None:
            self.after_phase(phase)
        self.place = Place(self.place.phase + 1, epochs=self.place.epochs, steps=self.place.steps)
        self.bad_epochs, self.finished_phase = 0, False

    def _on_signal(self, number: int, frame) -> None:
        if number == signal.SIGUSR1:
            self.save_asked = True
        elif self.signal is not None:
            # Asked twice: whoever asks does not want to wait for the batch to end.
            raise Interrupted(number)
        else:
            self.signal = number

    # -- called by the callbacks -----------------------------------------------------------------------------------

    def validates(self) -> bool:
        """Whether the epoch in place ends with a validation: every `val_every`th of the run does, the run's last, and
        those that end a phase which goes back to the best weights."""
        phase, number = self.phases[self.place.phase], self.place.epochs + 1
        ends = self.place.epoch + 1 == phase.epochs and phase.reload_best
        return number % self.val_every == 0 or number == self.total_epochs() or ends

    def heed_signals(self, between_epochs: bool = False) -> None:
        """Writes a checkpoint when one is due; raises Interrupted when a signal asked for the end."""
        due = time.monotonic() - self.saved_at > SECONDS_BETWEEN_CHECKPOINTS
        if due or between_epochs or self.save_asked or self.signal is not None:
            self.save_asked = False
            self._save_checkpoint()
        if self.signal is not None:
            raise Interrupted(self.signal)

    def end_epoch(self, seconds: float) -> None:
        """Records an epoch, keeps the best weights, decides on early stopping, writes a checkpoint."""
        phase = self.phases[self.place.phase]
        self.check_finite()
        validated = self.validates()
        values = self._validated() if validated else {}
        row = {"epoch": self.place.epochs, "phase": phase.name, "steps": self.place.steps,
               "train_loss": (self.loss_sum / self.loss_count).item(), **values, "seconds": round(seconds, 2)}
        self.epochs.append(row)
        self.run.append_epoch(row)
        self.tracking.epoch(row)
        self.run.say(f"epoch {row['epoch'] + 1}/{self.total_epochs()}  train loss {row['train_loss']:.4f}  "
                     f"{self.validation.line(row) if validated else 'not validated'}  {seconds:.0f} s")
        better = validated and (self.best is None or row["val_loss"] < self.best["val_loss"])
        if validated:
            self.validated = row["epoch"]
        if better:
            previous, self.best = self.best, row
            if self.keep_best:
                weights.save(self.model, self._best_path(row["epoch"]), {"epoch": row["epoch"]})
        self.bad_epochs = 0 if better else self.bad_epochs + 1
        self.place.epoch += 1
        self.place.epochs += 1
        self.place.batch = 0
        self.loss_sum, self.loss_count = self._zero(), 0
        stop = validated and phase.patience is not None and self.bad_epochs >= phase.patience
        self.finished_phase = stop or self.place.epoch == phase.epochs
        self.train.start(self.place.epochs)
        self.run.record["progress"] = {"epochs": self.place.epochs, "of": self.total_epochs()}
        self.run.save()
        self._write_steps()
        self.heed_signals(between_epochs=True)
        if better and self.keep_best and previous is not None:
            self._best_path(previous["epoch"]).unlink(missing_ok=True)
        if stop:
            self.run.say(f"no better validation loss for {self.bad_epochs} epochs: stopped, back to epoch "
                         f"{self.best['epoch'] + 1}")
            raise CancelFitException

    def _validated(self) -> dict:
        """What the validation found. Raises UserError where the weights are no longer finite: the training loss, which
        comes before an update, does not show what an epoch's last one did."""
        if not self.validation.finite():
            raise UserError(f"the validation loss is not finite after {self.place.steps} updates; lower --lr")
        return self.validation.values()

    def total_epochs(self) -> int:
        """Epochs of the whole run, should nothing stop it early."""
        return sum(phase.epochs for phase in self.phases)

    def check_finite(self) -> None:
        if not math.isfinite(self.loss_sum.item()):
            raise UserError(f"the training loss is no longer finite after {self.place.steps} updates; lower --lr")

    def _zero(self) -> Tensor:
        """A sum that stays on the device: a GPU need not be waited for at every batch."""
        return torch.zeros((), dtype=torch.float64, device=self.device)

    # -- what is kept ----------------------------------------------------------------------------------------------

    def _best_path(self, epoch: int) -> Path:
        return self.folder / f"best.{epoch}.safetensors"

    def _hidden_state(self) -> tuple | None:
        """A language model's hidden state in the middle of an epoch; between epochs the one there is validation's."""
        encoder = self.model[0]
        return (encoder.bs, encoder.hidden) if self.place.batch and hasattr(encoder, "hidden") else None

    def restore_hidden(self) -> None:
        """Puts back the language model's hidden state, which fastai resets before an epoch begins."""
        if self._hidden is not None:
            encoder = self.model[0]
            encoder.bs = self._hidden[0]
            encoder.hidden = [tuple(state.to(self.device) for state in pair) for pair in self._hidden[1]]
            self._hidden = None

    def _save_checkpoint(self) -> None:
        self.tracking.flush()
        optimizer = self.learn.opt
        state = {
            "fingerprint": self.run.record["fingerprint"],
            "place": asdict(self.place), "finished_phase": self.finished_phase, "epochs": self.epochs,
            "steps": self.step_log, "loss": (self.loss_sum.item(), self.loss_count),
            "best": self.best, "bad_epochs": self.bad_epochs,
            "model": self.model.state_dict(),
            "optimizer": [dict(optimizer.opt.state[p]) for p, *_ in optimizer.all_params()],
            "hidden": self._hidden_state(), "random": machine.random_states(self.device),
            "scaler": self.learn.scaler.state_dict() if needs_scaling(self.precision, self.device.type) else None,
        }
        with files.replacing(self.folder / CHECKPOINT) as temporary:
            weights.torch_save(state, temporary)
        self.saved_at = time.monotonic()

    def _load_checkpoint(self) -> None:
        path = self.folder / CHECKPOINT
        if not path.exists():
            return
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
        except Exception as error:
            raise UserError(f"{path} cannot be read ({type(error).__name__}); --overwrite starts this run anew") \
                from error
        if state["fingerprint"] != self.run.record["fingerprint"]:
            raise UserError(f"{path} belongs to another run; --overwrite starts this run anew")
        if any(of_weight and "exp_avg" not in of_weight for of_weight in state["optimizer"]):
            raise UserError(f"{path} was written by an earlier version, with another optimizer; --overwrite starts this "
                            f"run anew")
        self.place, self.finished_phase = Place(**state["place"]), state["finished_phase"]
        self.epochs, self.best, self.bad_epochs = state["epochs"], state["best"], state["bad_epochs"]
        self.step_log = [tuple(row) for row in state["steps"]]
        self.loss_sum, self.loss_count = self._zero() + state["loss"][0], state["loss"][1]
        self.model.load_state_dict(state["model"])
        self._optimizer_state, self._hidden = state["optimizer"], state["hidden"]
        # Each phase has a loss scale of its own; checkpoints of earlier versions have none.
        self.scaler_state = None if self.finished_phase else state.get("scaler")
        machine.restore_random_states(state["random"], self.device)
        anew = f"; to begin anew, delete {path} first" if self.run.record["flags"]["overwrite"] else ""
        self.run.say(f"going on after {self.place.steps} updates{anew}")

    def _restore_optimizer(self, states: list[dict]) -> None:
        optimizer = self.learn.opt
        for (parameter, *_), state in zip(optimizer.all_params(), states):
            optimizer.opt.state[parameter] = state

    def step_columns(self) -> list[str]:
        """Names of what `step_log` holds after the phase and the groups that trained."""
        return [f"lr_{group}" for group in range(len(self.groups))] + ["momentum"] * self.moves_momentum

    def _write_steps(self) -> None:
        """steps.csv.gz: for each update the groups that trained, every group's learning rate and, where the schedule
        moves it, Adam's first beta."""
        lines = ["step,phase,groups," + ",".join(self.step_columns())]
        for step, (phase, groups, *rates) in enumerate(self.step_log):
            lines.append(f"{step},{phase},{groups}," + ",".join(f"{rate:.8g}" for rate in rates))
        with files.replacing(self.run.folder / "steps.csv.gz") as temporary:
            temporary.write_bytes(gzip.compress("\n".join([*lines, ""]).encode(), mtime=0))


def discard_checkpoint(folder: Path) -> None:
    """Removes from a model's folder what only a resume needs; called once the record says that the run is finished."""
    for path in (*folder.glob(CHECKPOINTS), *folder.glob(BEST)):
        path.unlink(missing_ok=True)


def needs_scaling(precision: str, device_type: str) -> bool:
    """Whether the loss must be scaled, so that small gradients do not vanish in 16 bits.

    bfloat16 has the range of full precision. But on a GPU torch's autocast runs cuDNN's LSTMs in float16, whichever
    type it was asked for (`_cudnn_rnn_cast_reflatten` in its AutocastRNN.cpp).
    """
    return precision == "fp16" or (precision == "bf16" and device_type == "cuda")


class _MixedPrecision(MixedPrecision):
    """fastai's mixed precision, on the CPU too, whose loss scale outlives a resume.

    Validation runs in full precision, so that its numbers are those of the predictions made afterwards.
    """

    run_valid = False

    def __init__(self, training: Training):
        super().__init__(training.precision)
        self.training_run = training

    def before_fit(self) -> None:
        run, half = self.training_run, self.amp_mode == AMPMode.FP16
        # Without the cache: the first chunks of a long document run without gradients, and some versions of torch
        # would hand weights that were cast there, cut off from their gradient, on to the chunks that train.
        self.autocast = torch.autocast(run.device.type, dtype=torch.float16 if half else torch.bfloat16,
                                       cache_enabled=False)
        scaled = needs_scaling(run.precision, run.device.type)
        self.learn.scaler, self.scales = torch.amp.GradScaler(run.device.type, enabled=scaled), []
        if run.scaler_state is not None:
            self.learn.scaler.load_state_dict(run.scaler_state)
            run.scaler_state = None


class _ValidationPace(Callback):
    """Leaves out the validations that `Training.validates` does not ask for, before anything is made ready for them."""

    order = TrainEvalCallback.order - 1

    def __init__(self, training: Training):
        self.training_run = training

    def before_validate(self) -> None:
        if not self.training_run.validates():
            raise CancelValidException


class _Steps(Callback):
    """Sets and logs the rates of every update, counts, and heeds signals between batches."""

    order = 60

    def __init__(self, training: Training):
        self.training_run = training

    def before_train(self) -> None:
        self.began = time.monotonic()
        self.training_run.restore_hidden()

    def before_batch(self) -> None:
        run = self.training_run
        if not self.training:
            return
        phase = run.phases[run.place.phase]
        factor = phase.schedule(run.place.step, run.phase_steps)
        self.learn.opt.set_hypers(lr=[rate * factor for rate in phase.rates])
        momentum = phase.schedule.momentum(run.place.step, run.phase_steps)
        if momentum is not None:
            self.learn.opt.set_hypers(mom=momentum)
        # Read back from what will be used, so that the record shows what ran and not what was meant.
        trained = "+".join(str(number) for number, group in enumerate(run.groups)
                           if any(parameter.requires_grad for parameter in group))
        hypers = self.learn.opt.hypers
        moved = [hypers[-1]["mom"]] if run.moves_momentum else []
        run.step_log.append((run.place.phase, trained, *(hyper["lr"] for hyper in hypers), *moved))

    def after_batch(self) -> None:
        run = self.training_run
        if self.training:
            run.loss_sum += self.learn.loss.detach()
            run.loss_count += 1
            run.place.batch += 1
            run.place.step += 1
            run.place.steps += 1
            if run.place.steps % 100 == 0:
                run.check_finite()
            if run.tracking:
                columns = dict(zip(run.step_columns(), run.step_log[-1][2:]))
                run.tracking.update(run.place.steps, self.learn.loss.item(), columns)
        run.heed_signals()

    def after_epoch(self) -> None:
        self.training_run.end_epoch(time.monotonic() - self.began)


class _Progress(Callback):
    """A line every few seconds: which batch, the loss so far, the speed, when the epoch ends."""

    order = 55

    def __init__(self, training: Training):
        self.training_run = training

    def before_train(self) -> None:
        run = self.training_run
        self.meter = Meter(f"epoch {run.place.epochs + 1}/{run.total_epochs()} training", run.unit, len(self.learn.dl),
                           run.place.batch, run.run.quiet)

    def before_validate(self) -> None:
        run = self.training_run
        self.meter = Meter(f"epoch {run.place.epochs + 1}/{run.total_epochs()} validating", run.unit,
                           len(self.learn.dl), 0, run.run.quiet)

    def after_batch(self) -> None:
        run = self.training_run
        # Language models are measured in tokens, classifiers in documents.
        batch = self.learn.xb[0]
        self.meter.add(batch.numel() if run.unit == "tokens" else len(batch), self._loss if self.training else None)

    def _loss(self) -> str:
        run = self.training_run
        return f"  loss {(run.loss_sum / max(1, run.loss_count)).item():.4f}"


class Meter:
    """Prints at most every few seconds how far a pass over the data has come, and how fast.

    what: what is being done. unit: "tokens" or "documents". batches: of the whole pass. done: those behind us.
    """

    def __init__(self, what: str, unit: str, batches: int, done: int, quiet: bool):
        self.what, self.unit, self.batches, self.quiet = what, unit, batches, quiet
        self.done, self.here, self.units = done, 0, 0
        self.began = self.shown = time.monotonic()

    def add(self, units: int, more: Callable[[], str] | None = None) -> None:
        """Counts a batch of so many tokens or documents; `more` makes what is shown behind the count.

        It is called for the lines that are printed alone: reading a number from a GPU waits for all that it was given.
        """
        self.done += 1
        self.here += 1
        self.units += units
        now = time.monotonic()
        if self.quiet or now - self.shown < SECONDS_BETWEEN_LINES:
            return
        self.shown = now
        seconds = now - self.began
        left = (self.batches - self.done) * seconds / self.here
        print(f"  {self.what} {self.done}/{self.batches}{more() if more else ''}  {self.units / seconds:,.0f} "
              f"{self.unit}/s  {left:.0f} s left", flush=True)
