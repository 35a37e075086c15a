"""Schedules against the equations, in exact fractions where there are any."""

import math
from fractions import Fraction

import pytest

from ulmfit.schedules import Schedule, choose, cosine, slanted_triangular

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
    assert choose(use_clr, use_regular_schedule, 8, 3) == expected
