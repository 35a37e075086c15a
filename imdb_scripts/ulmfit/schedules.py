"""Learning-rate schedules as factors of the highest rate (Howard & Ruder 2018, section 3.2)."""

import math
from dataclasses import dataclass

from .errors import UsageError


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


def one_cycle(step: int, steps: int, pct_start: float, begin: float, middle: float, end: float) -> float:
    """Half a cosine from `begin` to `middle` during the first `pct_start` of the updates, another one on to `end`.

    fastai's `combined_cos`, by which `fit_one_cycle` sets both the rate and the momentum (Smith 2018).
    """
    position = step / steps
    if position < pct_start:
        return _half_cosine(begin, middle, position / pct_start)
    return _half_cosine(middle, end, (position - pct_start) / (1 - pct_start))


def _half_cosine(begin: float, end: float, part: float) -> float:
    return begin + (1 - math.cos(math.pi * part)) * (end - begin) / 2


@dataclass(frozen=True)
class Schedule:
    """A schedule and its constants; called with (step, steps) it returns the factor of the highest rate.

    kind: "stlr", "cosine", "constant" or "one_cycle". `inverse_cut` is 1/cut_frac, as the 2018 scripts wrote it:
    use_clr=(ratio, inverse_cut). The rest is the one cycle's, by the names and defaults of fastai's `fit_one_cycle`:
    the rate rises from 1/div and falls to 1/div_final, the momentum goes from mom_max to mom_min and back.
    """

    kind: str
    ratio: float = 32.0
    inverse_cut: float = 10.0
    pct_start: float = 0.25
    div: float = 25.0
    div_final: float = 1e5
    mom_max: float = 0.95
    mom_min: float = 0.85

    def __call__(self, step: int, steps: int) -> float:
        if self.kind == "stlr":
            return slanted_triangular(step, steps, 1 / self.inverse_cut, self.ratio)
        if self.kind == "cosine":
            return cosine(step, steps)
        if self.kind == "one_cycle":
            return one_cycle(step, steps, self.pct_start, 1 / self.div, 1.0, 1 / self.div_final)
        return 1.0

    def momentum(self, step: int, steps: int) -> float | None:
        """Adam's first beta at this update; None where the schedule leaves it alone."""
        if self.kind != "one_cycle":
            return None
        return one_cycle(step, steps, self.pct_start, self.mom_max, self.mom_min, self.mom_max)


@dataclass(frozen=True)
class ScheduleFlags:
    """What the flags of these names ask for. Constants that are None are the phase's own, as 2018 had them, or
    fastai's for one cycle.

    The 2018 flags say: `use_regular_schedule` wins; then STLR, or one cosine cycle where `use_clr` is False. A
    `schedule` stands in their place, and in that of the constant rate of a classifier from scratch.
    """

    use_clr: bool = True
    use_regular_schedule: bool = False
    schedule: str | None = None
    cut_frac: float | None = None
    ratio: float | None = None
    pct_start: float | None = None
    div: float | None = None
    div_final: float | None = None
    mom_max: float | None = None
    mom_min: float | None = None

    def kind(self, from_scratch: bool = False) -> str:
        if self.schedule is not None:
            return self.schedule
        if self.use_regular_schedule or from_scratch:
            return "constant"
        return "stlr" if self.use_clr else "cosine"

    def of_phase(self, ratio: float, inverse_cut: float, from_scratch: bool = False) -> Schedule:
        """The schedule of a phase whose STLR had these constants in 2018."""
        kind = self.kind(from_scratch)
        if kind == "stlr":
            return Schedule(kind, ratio if self.ratio is None else self.ratio,
                            inverse_cut if self.cut_frac is None else 1 / self.cut_frac)
        if kind == "one_cycle":
            return Schedule(kind, **{name: value for name, value in self._one_cycle().items() if value is not None})
        return Schedule(kind)

    def _one_cycle(self) -> dict[str, float | None]:
        return {"pct_start": self.pct_start, "div": self.div, "div_final": self.div_final, "mom_max": self.mom_max,
                "mom_min": self.mom_min}

    def check(self, from_scratch: bool = False) -> None:
        """Raises UsageError where the flags contradict each other."""
        if self.schedule is not None and (self.use_regular_schedule or not self.use_clr):
            other = "--use_regular_schedule" if self.use_regular_schedule else "--nouse_clr"
            raise UsageError(f"--schedule={self.schedule} and {other} both choose the schedule; leave one of them out")
        kind = self.kind(from_scratch)
        constants = {"cut_frac": self.cut_frac, "ratio": self.ratio}
        for needed, values in (("stlr", constants), ("one_cycle", self._one_cycle())):
            typed = next((name for name, value in values.items() if value is not None), None)
            if typed and kind != needed:
                raise UsageError(f"--{typed} shapes the schedule {needed}, and that of this run is {kind}; leave it "
                                 f"out or choose --schedule={needed}")
        if kind == "one_cycle":
            cycle = self.of_phase(32, 10)
            if cycle.mom_min > cycle.mom_max:
                raise UsageError(f"--mom_min={cycle.mom_min:g} is above --mom_max={cycle.mom_max:g}")
