"""Which groups train, how long, how fast and by which schedule, for every row of the paper's tables as flags."""

import inspect
import itertools

import pytest

import finetune_lm
import pretrain_lm
import train_clas
from ulmfit import models
from ulmfit.errors import UsageError
from ulmfit.flags import bundled
from ulmfit.phases import (Phase, check_classifier_flags, classifier_phases, classifier_rates, language_model_phases,
                           language_model_rates)
from ulmfit.schedules import Schedule, ScheduleFlags

ALL, TOP, TOP_TWO, TOP_THREE = (0, 1, 2, 3, 4), (4,), (3, 4), (2, 3, 4)
CONSTANT, COSINE = Schedule("constant"), Schedule("cosine")
UNFREEZING, AFTER, LANGUAGE_MODEL = Schedule("stlr", 8, 3), Schedule("stlr", 8, 8), Schedule("stlr", 32, 10)
# 0.01 / 2.6^4, / 2.6^3, / 2.6^2, / 2.6 and 0.01.
DISCRIMINATIVE = (0.000218829873, 0.000568957669, 0.00147928994, 0.00384615385, 0.01)
ONE_RATE = (0.001,) * 5
THAW = (0.0001, 0.0001, 0.0001, 0.0001, 0.001)


def asked(stage, phases, **flags) -> dict:
    """The stage's own defaults with `flags` in their place: what it hands on to `phases`."""
    known = {name: parameter.default for name, parameter in inspect.signature(stage).parameters.items()}
    assert flags.keys() <= known.keys()
    takes, values = inspect.signature(phases).parameters, {**known, **flags}
    return {**{name: value for name, value in values.items() if name in takes},
            "schedules": bundled(ScheduleFlags, values)}


def clas(n_groups: int = 5, **flags) -> list[Phase]:
    values = asked(train_clas.train_clas, classifier_phases, **flags)
    return classifier_phases(epochs=flags.get("cl", 1), n_groups=n_groups, **values)


def seen(phases: list[Phase]) -> list[tuple]:
    return [(phase.groups, phase.epochs, pytest.approx(phase.rates, rel=1e-8), phase.schedule) for phase in phases]


def gradual(rates, unfreezing, after, epochs=50) -> list[tuple]:
    return [(TOP, 1, rates, unfreezing), (TOP_TWO, 1, rates, unfreezing), (ALL, epochs, rates, after)]


SLOW, REGULAR = {"use_discriminative": False, "lr": 0.001}, {"use_regular_schedule": True}
TABLE_7 = {
    "from scratch": ({"from_scratch": True, **SLOW}, [(ALL, 50, ONE_RATE, CONSTANT)]),
    "full": ({"startat": 2, **SLOW, **REGULAR}, [(ALL, 50, ONE_RATE, CONSTANT)]),
    "full + discr": ({"startat": 2, **REGULAR}, [(ALL, 50, DISCRIMINATIVE, CONSTANT)]),
    "last": ({"last": True, **SLOW, **REGULAR}, [(TOP, 50, ONE_RATE, CONSTANT)]),
    "chain-thaw": ({"chain_thaw": True, **REGULAR},
                   [*(((group,), 1, THAW, CONSTANT) for group in (4, 0, 1, 2, 3)), (ALL, 50, THAW, CONSTANT)]),
    "freez": ({**SLOW, **REGULAR}, gradual(ONE_RATE, CONSTANT, CONSTANT)),
    "freez + discr": (REGULAR, gradual(DISCRIMINATIVE, CONSTANT, CONSTANT)),
    "freez + stlr": (SLOW, gradual(ONE_RATE, UNFREEZING, AFTER)),
    "freez + cos": ({**SLOW, "use_clr": False}, gradual(ONE_RATE, COSINE, COSINE)),
    "freez + discr + stlr": ({}, gradual(DISCRIMINATIVE, UNFREEZING, AFTER)),
}


@pytest.mark.parametrize("row", TABLE_7)
def test_rows_of_table_7(row):
    flags, expected = TABLE_7[row]
    assert seen(clas(cl=50, **flags)) == expected


@pytest.mark.parametrize("row", TABLE_7)
def test_early_stopping_is_the_last_phases(row):
    flags, expected = TABLE_7[row]
    without, stopping = clas(cl=50, **flags), clas(cl=50, early_stopping=True, **flags)
    assert seen(stopping) == expected
    assert {phase.patience for phase in without} == {None}
    assert [phase.patience for phase in stopping] == [None] * (len(expected) - 1) + [6]
    thaws = row == "chain-thaw"
    assert [phase.reload_best for phase in without] == [thaws] * len(expected)
    assert [phase.reload_best for phase in stopping] == [thaws] * (len(expected) - 1) + [True]


@pytest.mark.parametrize("row", TABLE_7)
def test_the_intermediate_classifier_is_what_the_second_gradual_step_leaves(row):
    phases = clas(cl=50, **TABLE_7[row][0])
    assert [phase.groups for phase in phases if phase.keep] == ([TOP_TWO] if row.startswith("freez") else [])


@pytest.mark.parametrize("flags, expected", [
    ({"startat": 1}, [(ALL, 3, DISCRIMINATIVE, AFTER)]),
    ({"startat": 2}, [(ALL, 3, DISCRIMINATIVE, AFTER)]),
    ({"startat": 7}, [(ALL, 3, DISCRIMINATIVE, AFTER)]),
    ({"startat": 2, "use_clr": False}, [(ALL, 3, DISCRIMINATIVE, COSINE)]),
    ({"unfreeze": False}, [(TOP, 1, DISCRIMINATIVE, UNFREEZING), (TOP_TWO, 1, DISCRIMINATIVE, UNFREEZING),
                           (TOP_THREE, 3, DISCRIMINATIVE, AFTER)]),
    ({"unfreeze": False, "startat": 1}, [(TOP_THREE, 3, DISCRIMINATIVE, AFTER)]),
    ({"last": True}, [(TOP, 3, DISCRIMINATIVE, AFTER)]),
    ({"last": True, "unfreeze": False}, [(TOP, 3, DISCRIMINATIVE, AFTER)]),
    ({"last": True, "startat": 1}, [(TOP, 3, DISCRIMINATIVE, AFTER)]),
    ({"from_scratch": True}, [(ALL, 3, DISCRIMINATIVE, CONSTANT)]),
    ({"from_scratch": True, "use_clr": False}, [(ALL, 3, DISCRIMINATIVE, CONSTANT)]),
    ({"from_scratch": True, "startat": 2}, [(ALL, 3, DISCRIMINATIVE, CONSTANT)]),
])
def test_other_classifier_flags(flags, expected):
    assert seen(clas(cl=3, **flags)) == expected


@pytest.mark.parametrize("flags, schedules", [
    ({}, [UNFREEZING] * 5 + [AFTER]), ({"use_clr": False}, [COSINE] * 6), (REGULAR, [CONSTANT] * 6)])
@pytest.mark.parametrize("ignored", [{}, {"lr": 0.5}, {"use_discriminative": False}, {"startat": 2}])
def test_chain_thaw_has_fixed_rates_and_the_schedule_asked_for(flags, schedules, ignored):
    phases = clas(cl=4, chain_thaw=True, **flags, **ignored)
    assert [phase.groups for phase in phases] == [(4,), (0,), (1,), (2,), (3,), ALL]
    assert [phase.epochs for phase in phases] == [1, 1, 1, 1, 1, 4]
    assert {phase.rates for phase in phases} == {THAW}
    assert [phase.schedule for phase in phases] == schedules
    assert all(phase.reload_best for phase in phases) and not any(phase.keep for phase in phases)


@pytest.mark.parametrize("n_layers", [1, 2, 3, 4])
def test_every_depth_has_its_groups(n_layers):
    n_groups = n_layers + 2
    every = tuple(range(n_groups))
    assert [phase.groups for phase in clas(n_groups)] == [every[-1:], every[-2:], every]
    assert clas(n_groups, unfreeze=False)[-1].groups == every[-3:]
    assert [phase.groups for phase in clas(n_groups, chain_thaw=True)] == [
        every[-1:], *((group,) for group in every[:-1]), every]
    assert clas(n_groups)[0].rates == pytest.approx([0.01 / 2.6 ** power for power in reversed(range(n_groups))])


def test_a_discriminative_rate_is_the_one_above_divided_by_2_6():
    rates = classifier_rates(0.02, 6, discriminative=True)
    assert rates[-1] == 0.02
    assert [above / below for below, above in zip(rates, rates[1:])] == pytest.approx([2.6] * 5)
    assert classifier_rates(0.02, 6, discriminative=False) == (0.02,) * 6


def test_contradicting_flags_are_refused_and_no_others():
    refused = set()
    for startat, unfreeze, last, chain_thaw, from_scratch in itertools.product((0, 1, 2, 3), *[(False, True)] * 4):
        flags = {"startat": startat, "unfreeze": unfreeze, "last": last, "chain_thaw": chain_thaw,
                 "from_scratch": from_scratch}
        contradiction = ((last and chain_thaw) or (from_scratch and startat == 1)
                         or (from_scratch and (last or chain_thaw or not unfreeze))
                         or (chain_thaw and (startat == 1 or not unfreeze)))
        if contradiction:
            refused.add(tuple(flags.values()))
            for check in (check_classifier_flags, lambda **given: clas(**given)):
                with pytest.raises(UsageError) as error:
                    check(**flags)
                assert "\n" not in str(error.value) and "choose one" in str(error.value)
        else:
            check_classifier_flags(**flags)
            phases = clas(**flags)
            assert phases[-1].groups == (TOP if last else ALL if unfreeze else TOP_THREE)
    assert 0 < len(refused) < 64


@pytest.mark.parametrize("flags, named", [
    ({"last": True, "chain_thaw": True}, ("--last", "--chain_thaw")),
    ({"from_scratch": True, "startat": 1}, ("--from_scratch", "--startat=1")),
    ({"from_scratch": True, "last": True}, ("--from_scratch", "--last")),
    ({"from_scratch": True, "chain_thaw": True}, ("--from_scratch", "--chain_thaw")),
    ({"from_scratch": True, "unfreeze": False}, ("--from_scratch", "--nounfreeze")),
    ({"chain_thaw": True, "startat": 1}, ("--chain_thaw", "--startat=1")),
    ({"chain_thaw": True, "unfreeze": False}, ("--chain_thaw", "--nounfreeze")),
])
def test_a_refusal_names_both_flags(flags, named):
    with pytest.raises(UsageError) as error:
        clas(**flags)
    assert all(flag in str(error.value) for flag in named)


@pytest.mark.parametrize("n_layers, lstms", [
    (1, [1]), (2, [1 / 3, 1]), (3, [1 / 6, 1 / 3, 1]), (4, [1 / 12, 1 / 6, 1 / 3, 1])])
def test_language_model_rates_at_every_depth(n_layers, lstms):
    fine_tuning = language_model_rates(0.004, n_layers, discriminative=True, pretraining=False)
    pretraining = language_model_rates(0.004, n_layers, discriminative=True, pretraining=True)
    assert fine_tuning == pytest.approx([0.004 * factor for factor in [*lstms, 1 / 2]])
    assert pretraining == pytest.approx([0.004 * factor for factor in [*lstms, 1]])
    assert language_model_rates(0.004, n_layers, discriminative=False, pretraining=False) == (0.004,) * (n_layers + 1)


TABLE_6_RATES = (0.004 / 6, 0.004 / 3, 0.004, 0.002)


@pytest.mark.parametrize("flags, rates, schedule", [
    ({"use_discriminative": False, **REGULAR}, (0.004,) * 4, CONSTANT),
    (REGULAR, TABLE_6_RATES, CONSTANT),
    ({}, TABLE_6_RATES, LANGUAGE_MODEL),
    ({"use_clr": False}, TABLE_6_RATES, COSINE),
])
def test_rows_of_table_6(flags, rates, schedule):
    values = asked(finetune_lm.finetune_lm, language_model_phases, **flags)
    phase, = language_model_phases(epochs=25, pretraining=False, **values)
    assert (phase.groups, phase.epochs, phase.schedule) == ((0, 1, 2, 3), 25, schedule)
    assert phase.rates == pytest.approx(rates)
    assert phase.patience is None and not phase.reload_best and not phase.keep
    stopping, = language_model_phases(epochs=25, pretraining=False, **{**values, "early_stopping": True})
    assert stopping.patience == 6 and stopping.reload_best and stopping.rates == phase.rates


@pytest.mark.parametrize("flags, final", [
    ({"cut_frac": 0.1, "ratio": 32.0}, LANGUAGE_MODEL), ({"cut_frac": 0.1}, Schedule("stlr", 8, 10)),
    ({"schedule": "stlr"}, AFTER), ({"schedule": "cosine"}, COSINE), ({"schedule": "constant"}, CONSTANT),
    ({"schedule": "one_cycle"}, Schedule("one_cycle")),
    ({"schedule": "one_cycle", "div": 10.0, "mom_max": 0.8, "mom_min": 0.7},
     Schedule("one_cycle", div=10, mom_max=0.8, mom_min=0.7))])
def test_a_schedule_and_its_constants_are_those_of_every_phase(flags, final):
    gradual_ones = UNFREEZING if flags == {"schedule": "stlr"} else final
    assert [phase.schedule for phase in clas(**flags)] == [gradual_ones, gradual_ones, final]
    assert {phase.schedule for phase in clas(chain_thaw=True, **flags)[:-1]} == {gradual_ones}
    assert clas(startat=2, **flags)[0].schedule == final
    if "schedule" in flags:
        assert clas(from_scratch=True, **flags)[0].schedule == final
    for stage, pretraining in ((finetune_lm.finetune_lm, False), (pretrain_lm.pretrain_lm, True)):
        values = asked(stage, language_model_phases, **flags)
        phase, = language_model_phases(epochs=1, pretraining=pretraining, **values)
        expected = {AFTER: LANGUAGE_MODEL, Schedule("stlr", 8, 10): LANGUAGE_MODEL}.get(final, final)
        assert phase.schedule == expected


@pytest.mark.parametrize("n_layers", [1, 2, 3, 4])
def test_one_group_more_an_epoch(n_layers):
    every = tuple(range(n_layers + 2))
    phases = clas(n_layers + 2, cl=7, unfreezing="one_per_epoch")
    assert [phase.groups for phase in phases] == [every[-count:] for count in range(1, n_layers + 3)]
    assert [phase.epochs for phase in phases] == [1] * (n_layers + 1) + [7]
    assert [phase.keep for phase in phases] == [False] * n_layers + [True, False]
    assert [phase.schedule for phase in phases] == [UNFREEZING] * (n_layers + 1) + [AFTER]
    assert len({phase.rates for phase in phases}) == 1 and len({phase.name for phase in phases}) == len(phases)


@pytest.mark.parametrize("flags, named", [
    ({"unfreezing": "one_per_epoch", "startat": 1}, "--startat=1"),
    ({"unfreezing": "one_per_epoch", "startat": 2}, "--startat=2"),
    ({"unfreezing": "one_per_epoch", "last": True}, "--last"),
    ({"unfreezing": "one_per_epoch", "chain_thaw": True}, "--chain_thaw"),
    ({"unfreezing": "one_per_epoch", "from_scratch": True}, "--from_scratch"),
    ({"unfreezing": "one_per_epoch", "unfreeze": False}, "--nounfreeze"),
    ({"divisor": 3.0, "last": True}, "--last"), ({"divisor": 3.0, "chain_thaw": True}, "--chain_thaw")])
def test_flags_that_would_have_no_effect_are_refused(flags, named):
    with pytest.raises(UsageError, match="choose one") as error:
        clas(**flags)
    assert named in str(error.value) and f"--{next(iter(flags))}" in str(error.value)


@pytest.mark.parametrize("divisor", [1.0, 2.0, 10.0])
def test_a_divisor_is_between_every_group_and_the_one_above(divisor):
    rates = clas(divisor=divisor)[0].rates
    assert rates == pytest.approx([0.01 / divisor ** power for power in (4, 3, 2, 1, 0)])
    for pretraining in (False, True):
        found = language_model_rates(0.004, 3, discriminative=True, pretraining=pretraining, divisor=divisor)
        assert found == pytest.approx([0.004 / divisor ** power for power in (3, 2, 1, 0)])
    assert classifier_rates(0.01, 5, True, 2.6) == classifier_rates(0.01, 5, True) == clas()[0].rates


def test_frozen_epochs_train_the_embedding_and_the_decoder_first():
    values = asked(finetune_lm.finetune_lm, language_model_phases, freeze_epochs=2, early_stopping=True, patience=3)
    first, then = language_model_phases(epochs=25, pretraining=False, **values)
    assert (first.groups, first.epochs, first.schedule) == ((3,), 2, LANGUAGE_MODEL)
    assert (then.groups, then.epochs, then.schedule) == ((0, 1, 2, 3), 25, LANGUAGE_MODEL)
    assert first.rates == then.rates == pytest.approx(TABLE_6_RATES)
    # Only the last phase stops early, and goes back to the best of both.
    assert (first.patience, first.reload_best, then.patience, then.reload_best) == (None, False, 3, True)


def test_patience_is_the_last_phases():
    assert [phase.patience for phase in clas(early_stopping=True, patience=2)] == [None, None, 2]
    assert [phase.patience for phase in clas(patience=2)] == [None] * 3


def test_pretraining_has_one_stlr_cycle():
    values = asked(pretrain_lm.pretrain_lm, language_model_phases)
    phase, = language_model_phases(epochs=2, pretraining=True, **values)
    assert (phase.groups, phase.epochs, phase.schedule) == ((0, 1, 2, 3), 2, LANGUAGE_MODEL)
    assert phase.rates == pytest.approx((0.00005, 0.0001, 0.0003, 0.0003))


def parameters_of(groups) -> list[set[int]]:
    return [{id(parameter) for parameter in group} for group in groups]


def ids(*modules) -> set[int]:
    return {id(parameter) for module in modules for parameter in module.parameters()}


@pytest.mark.parametrize("n_layers", [1, 3])
def test_groups_are_numbered_as_the_phases_say(n_layers):
    sizes = {"emb_sz": 4, "n_hid": 6, "n_layers": n_layers}
    lm = models.language_model(20, **sizes, dropmult=1.0)
    lstms = [ids(rnn) for rnn in lm[0].rnns]
    assert parameters_of(models.lm_groups(lm)) == [*lstms, ids(lm[0].encoder, lm[1])]
    clas_model = models.classifier(20, 3, **sizes, bptt=5, max_len=10, dropmult=1.0)
    encoder = clas_model[0].module
    assert parameters_of(models.classifier_groups(clas_model)) == [
        ids(encoder.encoder), *(ids(rnn) for rnn in encoder.rnns), ids(clas_model[1])]
