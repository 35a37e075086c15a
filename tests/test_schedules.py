"""Schedules against the equations, in exact fractions where there are any."""

import math
from fractions import Fraction

import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.schedule import combined_cos
from fastai.data.core import DataLoaders
from fastai.learner import Learner

from ulmfit.errors import UsageError
from ulmfit.schedules import Schedule, ScheduleFlags, cosine, slanted_triangular

# (ratio, 1/cut_frac): the paper and the language model; the classifier while unfreezing; the classifier after it.
CONSTANTS = [(32, 10), (8, 3), (8, 8)]


def equation_3(step: int, steps: int, ratio: int, inverse_cut: int) -> Fraction:
    """STLR with `T - cut` under the falling branch and a cut of at least 1."""
    cut = max(1, steps // inverse_cut)
    p = Fraction(step, cut) if step < cut else 1 - Fraction(step - cut, steps - cut)
    return (1 + p * (ratio - 1)) / ratio


def as_published(step: int, steps: int, ratio: int, inverse_cut: int) -> Fraction:
    cut = steps // inverse_cut
    p = Fraction(step, cut) if step < cut else 1 - Fraction(step - cut, cut * (inverse_cut - 1))
    return (1 + p * (ratio - 1)) / ratio


@pytest.mark.parametrize("ratio, inverse_cut", CONSTANTS)
@pytest.mark.parametrize("steps", range(1, 51))
def test_stlr_at_every_step_of_short_runs(steps, ratio, inverse_cut):
    found = [Schedule("stlr", ratio, inverse_cut)(step, steps) for step in range(steps)]
    assert found == pytest.approx([float(equation_3(step, steps, ratio, inverse_cut)) for step in range(steps)],
                                  rel=1e-12)
    assert found[0] == 1 / ratio
    assert min(found) > 0 and max(found) <= 1
    if steps > 1:
        assert [step for step, factor in enumerate(found) if factor == 1.0] == [max(1, steps // inverse_cut)]


@pytest.mark.parametrize("ratio, inverse_cut", CONSTANTS)
@pytest.mark.parametrize("steps", [999, 1000, 1001, 30_000, 123_457, 3_000_000, 9_999_990])
def test_stlr_of_long_runs(steps, ratio, inverse_cut):
    cut = steps // inverse_cut
    places = {0, 1, cut // 2, cut - 1, cut, cut + 1, (cut + steps) // 2, steps - 2, steps - 1}
    for step in places:
        assert Schedule("stlr", ratio, inverse_cut)(step, steps) == pytest.approx(
            float(equation_3(step, steps, ratio, inverse_cut)), rel=1e-9)
    assert Schedule("stlr", ratio, inverse_cut)(cut, steps) == 1.0


@pytest.mark.parametrize("cut, steps", [(1, 10), (1, 3), (1, 8), (29, 100), (57, 100), (7, 10), (14, 25)])
def test_stlr_peaks_at_whole_cuts_whatever_floating_point_says(cut, steps):
    # 100 * 0.29 is not 29 in floating point.
    for times in range(1, 1000):
        factors = [slanted_triangular(times * cut + near, times * steps, cut / steps) for near in (-1, 0, 1)]
        assert factors[1] == 1.0 and factors[0] < 1.0 > factors[2]


@pytest.mark.parametrize("ratio, inverse_cut", CONSTANTS)
def test_stlr_is_the_published_equation_where_that_is_whole(ratio, inverse_cut):
    for steps in range(inverse_cut, 20 * inverse_cut, inverse_cut):
        for step in range(steps):
            assert slanted_triangular(step, steps, 1 / inverse_cut, ratio) == pytest.approx(
                float(as_published(step, steps, ratio, inverse_cut)), rel=1e-12)


def test_stlr_of_19_steps_does_not_go_negative_as_the_published_equation_does():
    assert as_published(18, 19, 32, 10) < 0
    assert slanted_triangular(18, 19) == pytest.approx((1 + Fraction(1, 18) * 31) / 32)


def test_stlr_defaults_are_the_papers():
    assert [slanted_triangular(step, 20) for step in (0, 1, 2, 11, 19)] == pytest.approx(
        [1 / 32, 16.5 / 32, 1, (1 + 31 / 2) / 32, (1 + 31 / 18) / 32])
    assert Schedule("stlr") == Schedule("stlr", 32, 10)


@pytest.mark.parametrize("steps", [1, 2, 3, 19, 50, 100_000])
def test_cosine_against_its_equation(steps):
    for step in {0, 1 % steps, steps // 2, steps - 1}:
        expected = 0.5 * (1 + math.cos(math.pi * step / steps))
        assert cosine(step, steps) == expected == Schedule("cosine")(step, steps)
    assert cosine(0, steps) == 1.0


def test_cosine_falls_from_one_through_half_towards_zero():
    factors = [cosine(step, 100) for step in range(100)]
    assert factors == sorted(factors, reverse=True) and factors[50] == pytest.approx(0.5)
    assert 0 < factors[-1] < 0.001


def test_constant_is_constant():
    assert {Schedule("constant")(step, steps) for steps in (1, 7, 1000) for step in range(steps)} == {1.0}


@pytest.mark.parametrize("use_clr, use_regular_schedule, expected", [
    (True, False, Schedule("stlr", 8, 3)), (False, False, Schedule("cosine")),
    (True, True, Schedule("constant")), (False, True, Schedule("constant"))])
def test_regular_schedule_wins_over_clr(use_clr, use_regular_schedule, expected):
    assert ScheduleFlags(use_clr, use_regular_schedule).of_phase(8, 3) == expected


# Of updates: where `fit_one_cycle` draws the border, and next to it.
@pytest.mark.parametrize("steps, pct_start", [(1, 0.25), (2, 0.25), (7, 0.25), (100, 0.25), (40, 0.3), (9, 0.0),
                                              (9, 1.0), (12_345, 0.1)])
@pytest.mark.parametrize("div, div_final, mom_max, mom_min", [(25, 1e5, 0.95, 0.85), (10, 100, 0.8, 0.7)])
def test_one_cycle_is_fastais_combined_cos(steps, pct_start, div, div_final, mom_max, mom_min):
    schedule = Schedule("one_cycle", pct_start=pct_start, div=div, div_final=div_final, mom_max=mom_max,
                        mom_min=mom_min)
    rate = combined_cos(pct_start, 1 / div, 1.0, 1 / div_final)
    momentum = combined_cos(pct_start, mom_max, mom_min, mom_max)
    for step in range(0, steps, max(1, steps // 200)):
        # fastai's borders are in single precision.
        assert schedule(step, steps) == pytest.approx(rate(step / steps), abs=2e-6)
        assert schedule.momentum(step, steps) == pytest.approx(momentum(step / steps), abs=2e-6)


@pytest.mark.parametrize("epochs, batches", [(1, 20), (3, 8)])
def test_one_cycle_is_what_fit_one_cycle_gives_the_optimizer(epochs, batches):
    loader = [(torch.ones(2, 3), torch.zeros(2, 1))] * batches
    used = Used()
    learn = Learner(DataLoaders(loader, loader), torch.nn.Linear(3, 1), loss_func=torch.nn.MSELoss(), lr=0.02,
                    cbs=[used])
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs)
    schedule, steps = Schedule("one_cycle"), epochs * batches
    assert len(used.rates) == steps
    assert [0.02 * schedule(step, steps) for step in range(steps)] == pytest.approx(used.rates, abs=1e-7)
    assert [schedule.momentum(step, steps) for step in range(steps)] == pytest.approx(used.momenta, abs=2e-6)


class Used(Callback):
    """What the optimizer has at every update."""

    order = 70

    def before_fit(self):
        self.rates, self.momenta = [], []

    def before_step(self):
        self.rates.append(self.learn.opt.hypers[-1]["lr"])
        self.momenta.append(self.learn.opt.hypers[-1]["mom"])


def test_only_one_cycle_moves_the_momentum():
    assert {Schedule(kind).momentum(3, 10) for kind in ("stlr", "cosine", "constant")} == {None}
    assert len({Schedule("one_cycle").momentum(step, 10) for step in range(10)}) > 5


@pytest.mark.parametrize("flags, refused", [
    ({"schedule": "stlr", "use_clr": False}, "--schedule=stlr and --nouse_clr both"),
    ({"schedule": "one_cycle", "use_regular_schedule": True}, "--schedule=one_cycle and --use_regular_schedule both"),
    ({"cut_frac": 0.2, "use_clr": False}, "--cut_frac shapes the schedule stlr, and that of this run is cosine"),
    ({"ratio": 9.0, "use_regular_schedule": True}, "--ratio shapes the schedule stlr, .* is constant"),
    ({"ratio": 9.0, "schedule": "one_cycle"}, "--ratio shapes the schedule stlr, .* is one_cycle"),
    ({"div": 9.0}, "--div shapes the schedule one_cycle, and that of this run is stlr"),
    ({"mom_min": 0.5, "schedule": "cosine"}, "--mom_min shapes the schedule one_cycle, .* is cosine"),
    ({"mom_max": 0.8, "schedule": "one_cycle"}, "--mom_min=0.85 is above --mom_max=0.8")])
def test_schedule_flags_that_contradict_each_other(flags, refused):
    with pytest.raises(UsageError, match=refused):
        ScheduleFlags(**flags).check()


def test_a_schedule_by_name_stands_in_the_place_of_a_classifier_from_scratchs():
    with pytest.raises(UsageError, match="--cut_frac shapes the schedule stlr, and that of this run is constant"):
        ScheduleFlags(cut_frac=0.2).check(from_scratch=True)
    flags = ScheduleFlags(schedule="stlr", cut_frac=0.2)
    flags.check(from_scratch=True)
    assert flags.of_phase(8, 8, from_scratch=True) == Schedule("stlr", 8, 5)
    assert ScheduleFlags().of_phase(8, 8, from_scratch=True) == Schedule("constant")


@pytest.mark.parametrize("cut_frac", [0.1, 0.29, 0.3, 1 / 3, 0.57, 1.0])
def test_a_typed_cut_frac_is_where_the_rate_is_highest(cut_frac):
    schedule = ScheduleFlags(cut_frac=cut_frac).of_phase(32, 10)
    factors = [schedule(step, 300) for step in range(300)]
    cut = math.floor(300 * cut_frac + 1e-9)
    assert (factors.index(max(factors)) == cut and max(factors) == 1) or (cut == 300 and factors[-1] == max(factors))
