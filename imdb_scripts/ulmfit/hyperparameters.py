"""The numbers of a training that flags set one by one: dropouts, hidden layers of the head, optimizer and loss.

Each class is a bundle of flags, its fields named as they are; `flags.bundled` fills it. Nothing here needs torch, so
that what contradicts is refused before anything heavy is imported.
"""

from dataclasses import dataclass, fields
from typing import Any

from .errors import UsageError, UserError
from .flags import bundled
from .schedules import ScheduleFlags

HIDDEN_LAYERS = [50]

# Those of the 2018 scripts; `dropmult` multiplies them.
LANGUAGE_MODEL_DROPOUTS = {"input": 0.25, "output": 0.1, "weight": 0.2, "embed": 0.02, "hidden": 0.15}
CLASSIFIER_DROPOUTS = {"input": 0.4, "weight": 0.5, "embed": 0.05, "hidden": 0.3, "head": 0.4}


@dataclass(frozen=True)
class Dropouts:
    """Dropouts that were set one by one; None: the stage's own of 2018 times `dropmult`.

    dropout_output is the language model's, between encoder and decoder; dropout_head the classifier's, on the pooled
    states.
    """

    dropout_input: float | None = None
    dropout_output: float | None = None
    dropout_weight: float | None = None
    dropout_embed: float | None = None
    dropout_hidden: float | None = None
    dropout_head: float | None = None

    def of_language_model(self, dropmult: float) -> dict[str, float]:
        """The probabilities under the names of fastai's config. Raises UsageError when one is not below 1."""
        return self._chosen(LANGUAGE_MODEL_DROPOUTS, dropmult)

    def of_classifier(self, dropmult: float) -> dict[str, float]:
        """As `of_language_model`; the head's is `output_p` to fastai."""
        chosen = self._chosen(CLASSIFIER_DROPOUTS, dropmult)
        chosen["output_p"] = chosen.pop("head_p")
        return chosen

    def _chosen(self, of_2018: dict[str, float], dropmult: float) -> dict[str, float]:
        chosen = {}
        for name, default in of_2018.items():
            typed = getattr(self, f"dropout_{name}")
            chosen[f"{name}_p"] = default * dropmult if typed is None else typed
            if chosen[f"{name}_p"] >= 1:
                raise UsageError(f"--dropmult={dropmult:g} makes the {name} dropout {chosen[f'{name}_p']:g}, and it "
                                 f"must stay below 1; lower it, or set this one alone by --dropout_{name}")
        return chosen


@dataclass(frozen=True)
class Optimization:
    """How each update is made: Adam with L2 (the gradient of `wd / 2 |w|^2` is added, not decoupled), as 2018 had it.

    clip: highest norm of the whole gradient; 0: any. beta1, beta2, eps: Adam's. alpha, beta: AR and TAR (Merity
    2017), added to the loss. precision: "auto" (the device's), "full", "fp16" or "bf16".
    """

    clip: float
    wd: float
    beta1: float = 0.8
    beta2: float = 0.99
    eps: float = 1e-8
    alpha: float = 2.0
    beta: float = 1.0
    precision: str = "auto"


LANGUAGE_MODEL = Optimization(clip=0.3, wd=1e-7)
CLASSIFIER = Optimization(clip=25.0, wd=1e-6)


@dataclass(frozen=True)
class ClassifierLoss:
    """What the training loss of a classifier differs in from plain cross-entropy; validation never does.

    class_weights: None, or "balanced": each class weighs n / (classes x its count), counted on the training rows.
    label_smoothing: the part of the target that is spread over all classes evenly.
    """

    class_weights: str | None = None
    label_smoothing: float = 0.0


def hidden_layers(lin_ftrs: str) -> list[int]:
    """`100,50` as [100, 50]: sizes of the head's hidden layers. Raises UsageError."""
    if lin_ftrs.strip() == "none":
        return []
    sizes = [part.strip() for part in lin_ftrs.split(",")]
    if not all(size.isascii() and size.isdigit() and 0 < int(size) < 10**6 for size in sizes):
        raise UsageError(f"--lin_ftrs={lin_ftrs!r}: sizes of hidden layers are expected, separated by commas, as 50 or "
                         f"100,50; none: no hidden layer")
    return [int(size) for size in sizes]


def as_flag(sizes: list[int]) -> str:
    """The value of --lin_ftrs for hidden layers of these sizes, in its one spelling."""
    return ",".join(map(str, sizes)) or "none"


def check_hidden_layers(path: Any, manifest: dict, sizes: list[int]) -> None:
    """Raises UserError when the classifier in `path` has hidden layers of other sizes."""
    found = manifest.get("lin_ftrs", HIDDEN_LAYERS)
    if found != sizes:
        raise UserError(f"--lin_ftrs={as_flag(sizes)} does not fit {path}, whose head has --lin_ftrs={as_flag(found)}")


def check_flags(flags: dict[str, Any], typed: set[str]) -> None:
    """Refuses contradictions between flags that every stage of training takes.

    Args: the stage's parameters by name, and which of them the caller chose. Raises UsageError.
    """
    dropouts, schedules = bundled(Dropouts, flags), bundled(ScheduleFlags, flags)
    (dropouts.of_classifier if "dropout_head" in flags else dropouts.of_language_model)(flags["dropmult"])
    schedules.check(from_scratch=flags.get("from_scratch", False))
    if "beta1" in typed and schedules.schedule == "one_cycle":
        raise UsageError("--beta1 is one number, and --schedule=one_cycle moves it between --mom_max and --mom_min; "
                         "choose one")
    if flags["divisor"] is not None and not flags.get("use_discriminative", True):
        raise UsageError("--divisor sets how much lower the rates of lower groups are, --nouse_discriminative has one "
                         "rate for all; choose one")
    if "patience" in typed and not flags["early_stopping"]:
        raise UsageError("--patience is read by --early_stopping alone; leave it out or add --early_stopping")
    if flags.get("early_stopping") and flags["val_every"] > flags["patience"]:
        raise UsageError(f"--val_every={flags['val_every']} lets more epochs pass than the --patience="
                         f"{flags['patience']} of --early_stopping; lower the one or raise the other")
    if flags["precision"] == "fp16" and flags["cuda_id"] == -1:
        raise UsageError("--precision=fp16 needs a GPU and --cuda_id=-1 is the CPU; --precision=bf16 runs on either")


def check_no_training(typed: set[str]) -> None:
    """Refuses what --notrain would not read. Args: the flags that the caller chose. Raises UsageError."""
    # --lr and others of 2018 were never refused beside it; those that choose the text would be taken for what was read.
    training = [field.name for bundle in (Dropouts, ScheduleFlags, Optimization) for field in fields(bundle)]
    training += ["divisor", "early_stopping", "patience", "freeze_epochs", "val_every", "sampled", "joined",
                 "train_file_id", "track"]
    unread = [name for name in training if name in typed and name not in ("use_clr", "use_regular_schedule")]
    if unread:
        raise UsageError(f"--notrain trains nothing and does not read --{unread[0]}; leave one of them out")
