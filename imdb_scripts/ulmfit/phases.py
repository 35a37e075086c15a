"""What is trained, when, and how fast: layer groups, discriminative rates, gradual unfreezing, chain-thaw.

A training run is a list of phases; each is a cycle of its own, with a fresh optimizer, as each `fit` of the 2018
scripts was. Layer groups are numbered as fastai splits the model:

    language model: LSTM 1 ... LSTM n, then the embedding with the (tied) decoder
    classifier:     embedding, LSTM 1 ... LSTM n, then the head
"""

from dataclasses import dataclass

from .errors import UsageError
from .schedules import Schedule, ScheduleFlags

DIVISOR = 2.6
CHAIN_THAW_LAST, CHAIN_THAW_OTHERS = 1e-3, 1e-4
_WORDS = {2: "two", 3: "three", 4: "four", 5: "five"}
PATIENCE = 6
UNFREEZING_2018, ONE_PER_EPOCH = "2018", "one_per_epoch"


@dataclass(frozen=True)
class Phase:
    """One cycle of training.

    groups: numbers of the layer groups that train; the others are frozen.
    rates: highest learning rate of every group, frozen ones included.
    reload_best: at the end, go back to the weights with the lowest validation loss of the run so far.
    patience: stop after so many epochs of this phase without a lower validation loss than the run's best; None: never.
    keep: keep the weights at the end of this phase as the intermediate classifier.
    """

    name: str
    groups: tuple[int, ...]
    epochs: int
    rates: tuple[float, ...]
    schedule: Schedule
    reload_best: bool = False
    patience: int | None = None
    keep: bool = False


def divided_rates(lr: float, n_groups: int, divisor: float) -> tuple[float, ...]:
    """The last group has lr, every other one the rate of the group above divided by `divisor` (section 3.2)."""
    return tuple(lr / divisor ** (n_groups - 1 - group) for group in range(n_groups))


def language_model_rates(lr: float, n_layers: int, discriminative: bool, pretraining: bool,
                         divisor: float | None = None) -> tuple[float, ...]:
    """Rates of the groups LSTM 1..n and embedding + decoder; without a divisor as the 2018 scripts had them.

    Theirs: the top LSTM has lr, the next lr/3, each lower one half again (three layers: lr/6, lr/3, lr); the
    embedding with the decoder lr/2 in fine-tuning, lr in pretraining.
    """
    if not discriminative:
        return (lr,) * (n_layers + 1)
    if divisor is not None:
        return divided_rates(lr, n_layers + 1, divisor)
    lstm = [lr if depth == 0 else lr / 3 / 2 ** (depth - 1) for depth in range(n_layers)]
    return (*reversed(lstm), lr if pretraining else lr / 2)


def classifier_rates(lr: float, n_groups: int, discriminative: bool, divisor: float | None = None) \
        -> tuple[float, ...]:
    """Each group's rate is that of the group above divided by 2.6, or by another divisor; the head has lr."""
    if not discriminative:
        return (lr,) * n_groups
    return divided_rates(lr, n_groups, DIVISOR if divisor is None else divisor)


def language_model_phases(*, epochs: int, lr: float, n_layers: int, pretraining: bool,
                          schedules: ScheduleFlags = ScheduleFlags(), use_discriminative: bool = True,
                          divisor: float | None = None, freeze_epochs: int = 0, early_stopping: bool = False,
                          patience: int = PATIENCE) -> list[Phase]:
    """All groups from the first step, in one cycle: STLR (32, 10) unless the flags say otherwise.

    With `freeze_epochs` a cycle of so many epochs comes before, in which only the embedding with the decoder trains.
    """
    rates = language_model_rates(lr, n_layers, use_discriminative, pretraining, divisor)
    schedule = schedules.of_phase(32, 10)
    phases = []
    if freeze_epochs:
        phases = [Phase("embedding and decoder", (n_layers,), freeze_epochs, rates, schedule)]
    return [*phases, Phase("all", tuple(range(n_layers + 1)), epochs, rates, schedule, reload_best=early_stopping,
                           patience=patience if early_stopping else None)]


def check_classifier_flags(*, startat: int, unfreeze: bool, last: bool, chain_thaw: bool, from_scratch: bool,
                           unfreezing: str = UNFREEZING_2018, divisor: float | None = None) -> None:
    """Raises UsageError for flags that contradict each other."""
    if last and chain_thaw:
        raise UsageError("--last trains the last group alone and --chain_thaw every group in turn; choose one")
    if from_scratch and startat == 1:
        raise UsageError("--startat=1 goes on from a trained classifier, which --from_scratch would throw away; "
                         "choose one")
    if from_scratch and (last or chain_thaw or not unfreeze):
        other = "--last" if last else "--chain_thaw" if chain_thaw else "--nounfreeze"
        raise UsageError(f"--from_scratch trains every group of a random model from the start, {other} does not; "
                         f"choose one")
    if chain_thaw and startat == 1:
        raise UsageError("--chain_thaw has its own first steps and --startat=1 skips the gradual ones; choose one")
    if chain_thaw and not unfreeze:
        raise UsageError("--chain_thaw ends with all groups together, --nounfreeze forbids it; choose one")
    if divisor is not None and (last or chain_thaw):
        other = "--last trains one group alone" if last else "--chain_thaw has fixed rates"
        raise UsageError(f"--divisor sets the rates of lower groups, {other}; choose one")
    if unfreezing == ONE_PER_EPOCH:
        others = {f"--startat={startat}": startat > 0, "--last": last, "--chain_thaw": chain_thaw,
                  "--from_scratch": from_scratch, "--nounfreeze": not unfreeze}
        for other, given in others.items():
            if given:
                raise UsageError(f"--unfreezing={unfreezing} unfreezes group by group until all train, {other} does "
                                 f"not; choose one")


def classifier_phases(*, epochs: int, lr: float, n_groups: int, startat: int = 0, unfreeze: bool = True,
                      schedules: ScheduleFlags = ScheduleFlags(), use_discriminative: bool = True,
                      divisor: float | None = None, last: bool = False, chain_thaw: bool = False,
                      from_scratch: bool = False, unfreezing: str = UNFREEZING_2018, early_stopping: bool = False,
                      patience: int = PATIENCE) -> list[Phase]:
    """The phases that the flags ask for; what each flag means is in the README's table.

    Raises UsageError where flags contradict each other.
    """
    check_classifier_flags(startat=startat, unfreeze=unfreeze, last=last, chain_thaw=chain_thaw,
                           from_scratch=from_scratch, unfreezing=unfreezing, divisor=divisor)
    every = tuple(range(n_groups))
    top = n_groups - 1
    gradual, final = schedules.of_phase(8, 3), schedules.of_phase(8, 8)
    stop = {"reload_best": early_stopping, "patience": patience if early_stopping else None}
    rates = classifier_rates(lr, n_groups, use_discriminative, divisor)

    if from_scratch:
        return [Phase("all", every, epochs, rates, schedules.of_phase(8, 8, from_scratch=True), **stop)]
    if chain_thaw:
        thaw = (CHAIN_THAW_OTHERS,) * top + (CHAIN_THAW_LAST,)
        steps = [Phase(f"group {group} alone", (group,), 1, thaw, gradual, reload_best=True)
                 for group in (top, *range(top))]
        stop["reload_best"] = True
        return [*steps, Phase("all", every, epochs, thaw, final, **stop)]
    if last:
        return [Phase("last group", (top,), epochs, rates, final, **stop)]
    phases = []
    if startat == 0:
        # 2018: the last, the last two; one group an epoch: on to all but the first. What the last step leaves is kept.
        steps = 2 if unfreezing == UNFREEZING_2018 else top
        phases = [Phase("last group" if count == 1 else f"last {_WORDS.get(count, count)} groups", every[-count:], 1,
                        rates, gradual, keep=count == steps)
                  for count in range(1, steps + 1)]
    groups = every if unfreeze else every[-3:]
    return [*phases, Phase("all" if unfreeze else "last three groups", groups, epochs, rates, final, **stop)]
