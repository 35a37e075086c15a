"""Learning-rate schedules as factors of the highest rate (Howard & Ruder 2018, section 3.2)."""

import math
from dataclasses import dataclass


def slanted_triangular(step: int, steps: int, cut_frac: float = 0.1, ratio: float = 32.0) -> float:
    """STLR: a short linear rise from 1/ratio to 1, then a long linear fall back.

    Equation 3 of the paper, with the falling branch's denominator written `steps - cut`: the published
    `cut * (1/cut_frac - 1)` is smaller than that whenever `steps * cut_frac` is not whole, and goes negative at
    the end. `cut` is at least 1, so that short runs have a rise too.

    Args:
        step: update number, from 0 to steps - 1.
        steps: updates of the whole cycle.
    """
    # The small number undoes what floating point takes from products that are whole (100 * 0.29 is 28.999999999999996).
    cut = max(1, math.floor(steps * cut_frac + 1e-9))
    p = step / cut if step < cut else 1 - (step - cut) / (steps - cut)
    return (1 + p * (ratio - 1)) / ratio


def cosine(step: int, steps: int) -> float:
    """One cosine cycle from 1 towards 0: `(1 + cos(pi t / T)) / 2`."""
    return (1 + math.cos(math.pi * step / steps)) / 2


@dataclass(frozen=True)
class Schedule:
    """A schedule and its constants; called with (step, steps) it returns the factor of the highest rate.

    kind: "stlr", "cosine" or "constant". `inverse_cut` is 1/cut_frac, as the 2018 scripts wrote it: use_clr=(ratio,
    inverse_cut).
    """

    kind: str
    ratio: float = 32.0
    inverse_cut: float = 10.0

    def __call__(self, step: int, steps: int) -> float:
        if self.kind == "stlr":
            return slanted_triangular(step, steps, 1 / self.inverse_cut, self.ratio)
        if self.kind == "cosine":
            return cosine(step, steps)
        return 1.0


def choose(use_clr: bool, use_regular_schedule: bool, ratio: float, inverse_cut: float) -> Schedule:
    """The 2018 flags: `use_regular_schedule` wins; then STLR, or one cosine cycle where `use_clr` is False."""
    if use_regular_schedule:
        return Schedule("constant")
    return Schedule("stlr", ratio, inverse_cut) if use_clr else Schedule("cosine")
