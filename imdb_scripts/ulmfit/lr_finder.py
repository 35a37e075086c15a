"""The learning-rate range test (Smith 2017): a rate that grows from update to update, and what the loss does.

The loop, the growth, the stop and the suggestions are fastai's; model, batches, loss, regularization, optimizer and
clipping are those of the training that it is for.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fastai.callback.schedule import LRFinder, ParamScheduler, minimum, slide, steep, valley
from fastai.learner import Recorder

from . import files
from .training import Meter, Training

CSV, PNG = "lr_find.csv", "lr_find.png"
# fastai's default first: it is the one that is printed as --lr.
METHODS = {"valley": valley, "steep": steep, "minimum": minimum, "slide": slide}
# `slide` compares points 15 apart, `Learner.lr_find` leaves out the last 5: past the divergence.
FEWEST_POINTS, LEFT_OUT_AT_END = 16, 5


@dataclass(frozen=True)
class Curve:
    """What a range test measured, one number an update.

    lrs: the rate as --lr means it, from which each layer group's follows. losses: of each batch, without
    regularization. smoothed: their exponentially weighted mean (0.98), corrected for its start as Adam's moments are.
    """

    lrs: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray

    @property
    def lowest(self) -> float:
        """The lowest smoothed loss; where the test diverged, they are no numbers any more."""
        return float(self.smoothed[np.isfinite(self.smoothed)].min())


class _RangeTest(LRFinder):
    """fastai's, without the copy of model and optimizer on disk: both are thrown away after the test."""

    def __init__(self, job: Training, rates: np.ndarray, start_lr: float, end_lr: float, num_it: int, stop_div: bool):
        # As arrays, for a list of rates goes wrong in fastai 2.8 (`_update_val` calls the list).
        super().__init__(rates * start_lr, rates * end_lr, num_it, stop_div)
        self.job, self.losses = job, []

    def before_fit(self) -> None:
        ParamScheduler.before_fit(self)
        self.best_loss = math.inf
        self.meter = Meter("range test", self.job.unit, self.num_it, 0, self.job.run.quiet)

    def before_epoch(self) -> None:
        self.learn.dls.train.start(self.learn.epoch)

    def after_batch(self) -> None:
        self.losses.append(self.learn.loss.item())
        batch = self.learn.xb[0]
        self.meter.add(batch.numel() if self.job.unit == "tokens" else len(batch),
                       lambda: f"  loss {self.losses[-1]:.4f}")
        super().after_batch()

    def after_fit(self) -> None:
        """Nothing is to be loaded back."""


def find(job: Training, *, start_lr: float, end_lr: float, num_it: int, stop_div: bool) -> Curve:
    """Runs the test on the groups of the job's only phase, whose rates are those for --lr=1.

    The rate grows exponentially, `start_lr (end_lr / start_lr)^(i / num_it)` at update i, for num_it updates or, with
    `stop_div`, until the smoothed loss is over four times its lowest. The model is changed.
    """
    [phase] = job.phases
    rates = np.array(phase.rates)
    job.thaw(phase.groups)
    epochs = updates = 0
    while updates < num_it:
        updates += job.train.updates(epochs)
        epochs += 1
    job.run.say(f"range test: {phase.name}, {num_it} updates, --lr from {start_lr:g} to {end_lr:g}, rates of the "
                "groups " + " ".join(f"{rate:.2g}" for rate in rates) + " of it")
    recorder, test = Recorder(), _RangeTest(job, rates, start_lr, end_lr, num_it, stop_div)
    began = time.monotonic()
    with job.learn.no_logging(), job.learn.added_cbs([recorder, test]):
        job.learn.fit(epochs)
    job.run.say(f"{len(test.losses)} updates in {time.monotonic() - began:.0f} s")
    return Curve(np.array(recorder.lrs, dtype=float) / rates[-1], np.array(test.losses),
                 np.array([float(loss) for loss in recorder.losses]))


def suggestions(curve: Curve, num_it: int) -> dict[str, float]:
    """fastai's suggestions by name, from the points that `Learner.lr_find` gives them: without the first tenth, the
    last five, and all from the first loss on that is no number. Nothing when fewer than 16 points are left.
    """
    end = len(curve.lrs) - LEFT_OUT_AT_END
    broken = np.flatnonzero(~np.isfinite(curve.smoothed))
    points = slice(num_it // 10, max(0, min([end, *broken[:1]])))
    lrs, losses = torch.tensor(curve.lrs[points]), torch.tensor(curve.smoothed[points])
    if len(lrs) < FEWEST_POINTS:
        return {}
    return {name: float(method(lrs, losses, num_it)[0]) for name, method in METHODS.items()}


def write_csv(curve: Curve, path: Path) -> None:
    lines = ["lr,loss,smoothed_loss"]
    lines += [f"{lr!r},{loss!r},{smoothed!r}" for lr, loss, smoothed in
              zip(curve.lrs.tolist(), curve.losses.tolist(), curve.smoothed.tolist())]
    files.write_text(path, "\n".join([*lines, ""]))


def plot(curve: Curve, suggested: dict[str, float], title: str, path: Path) -> None:
    """Draws the curve and the suggestions, without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(curve.lrs, curve.losses, color="0.8", linewidth=1, label="loss of the batch")
    axes.plot(curve.lrs, curve.smoothed, color="C0", label="smoothed")
    finite = curve.smoothed[np.isfinite(curve.smoothed)]
    if len(finite):
        # A loss that explodes would press the rest of the curve flat.
        low, high = finite.min(), min(finite.max(), 4 * finite.min())
        axes.set_ylim(low - 0.1 * (high - low) - 1e-3, high + 0.1 * (high - low) + 1e-3)
    for number, (name, lr) in enumerate(suggested.items(), start=1):
        axes.axvline(lr, color=f"C{number}", linestyle="--", linewidth=1, label=f"{name} {lr:.2g}")
    axes.set(xscale="log", xlabel="learning rate (--lr)", ylabel="training loss")
    axes.set_title(title, fontsize="small")
    axes.legend(fontsize="small")
    with files.replacing(path) as temporary:
        figure.savefig(temporary, format="png")
