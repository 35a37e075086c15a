"""Error against the number of labels (Figure 3): which runs make which curve."""

from collections import defaultdict
from dataclasses import dataclass, field

from . import rendering
from .averages import C_CHOSEN, SCRATCH, ULMFIT, baseline_name
from .comparison import Block, entry_of
from .paper_rows import is_row
from .published import WITHOUT_PRETRAINING, dataset_order
from .settings import Result
from .study import Study, shown_value

SUPERVISED, SEMI_SUPERVISED, FROM_SCRATCH = "ULMFiT, supervised", "ULMFiT, semi-supervised", "from scratch"
_SUBSETS = ("n_labels", "lm.n_labels")


@dataclass
class Curves:
    """dataset: the folder's name. corpus: what it is. points: runs by curve and number of labels. notes: what varies
    along a curve, what is left out."""

    dataset: str
    corpus: str | None
    points: dict[str, dict[int, list[Result]]]
    notes: list[str] = field(default_factory=list)

    def sizes(self) -> list[int]:
        return sorted({n for points in self.points.values() for n in points})


def method_of(result: Result) -> str | None:
    """The curve that a result belongs to, None when it is none of Figure 3's.

    Supervised: the language model read the text of the labelled subset alone; semi-supervised: all text. Those that
    began with random weights are a curve of their own.
    """
    if result.run.stage == "train_baseline":
        return baseline_name(result)
    if is_row(SCRATCH, result.setting):
        return FROM_SCRATCH
    if result.unknown:
        return None
    if is_row(ULMFIT, result.setting):
        pretraining = ""
    elif is_row(WITHOUT_PRETRAINING, result.setting):
        pretraining = f", {WITHOUT_PRETRAINING.name}"
    else:
        return None
    text = result.setting.get("lm.n_labels")
    if text is None:
        return SEMI_SUPERVISED + pretraining
    return (SUPERVISED if text == "the same" else f"ULMFiT, LM on {text}") + pretraining


def curves(study: Study, results: list[Result]) -> list[Curves]:
    """Figure 3 of each dataset in which something was trained on a subset, forward and on words."""
    by_dataset: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        if not result.setting.get("backwards") and not result.setting.get("bpe"):
            by_dataset[result.dataset].append(result)
    found = []
    for dataset in sorted(by_dataset, key=lambda name: dataset_order(name, by_dataset[name][0].corpus)):
        if any(isinstance(result.setting.get("n_labels"), int) for result in by_dataset[dataset]):
            found.append(_of_dataset(dataset, by_dataset[dataset]))
    return found


def _of_dataset(dataset: str, results: list[Result]) -> Curves:
    methods: dict[str, dict[int, list[Result]]] = defaultdict(lambda: defaultdict(list))
    notes, unsized = [], []
    for result in results:
        method = method_of(result)
        if method is None:
            continue
        labels = result.setting.get("n_labels", result.train_documents())
        if not isinstance(labels, int):
            unsized.append(result.run.id)
            continue
        methods[method][labels].append(result)
    if unsized:
        notes.append(f"Left out, as no record says how many labels they had: {', '.join(unsized)}.")
    points: dict[str, dict[int, list[Result]]] = {}
    # In the paper's order, baselines last.
    for method in sorted(methods, key=lambda name: (not name.startswith("ULMFiT"), name != FROM_SCRATCH, name)):
        # What was trained on all labels alone is no curve.
        points.update({name: by_size for name, by_size in _split(method, methods[method]).items()
                       if any("n_labels" in result.setting for group in by_size.values() for result in group)})
    # Baselines alone on all labels would stretch the axis and compare nothing.
    trained = {labels for by_size in points.values() for labels, group in by_size.items()
               if any("n_labels" in result.setting or result.run.stage == "train_clas" for result in group)}
    points = {name: {labels: group for labels, group in by_size.items() if labels in trained}
              for name, by_size in points.items()}
    for name, by_size in points.items():
        along = _differing([result for group in by_size.values() for result in group])
        if along:
            notes.append(f"{name}: from size to size {', '.join(along)} differ{'s' * (len(along) == 1)}.")
    if any(result.run.stage == "train_baseline" for by_size in points.values() for group in by_size.values()
           for result in group):
        notes.append(f"{rendering.dataset_title(dataset, results[0].corpus)}: {C_CHOSEN}")
    return Curves(dataset, results[0].corpus, points, notes)


def _split(method: str, by_size: dict[int, list[Result]]) -> dict[str, dict[int, list[Result]]]:
    """One curve, or several where runs of one size differ in more than seeds; then named by what they differ in."""
    apart = list(dict.fromkeys(flag for group in by_size.values() for flag in _differing(group)))
    found: dict[str, dict[int, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for labels, group in by_size.items():
        for result in group:
            said = ", ".join(f"{flag}={shown_value(result.value(flag))}" for flag in apart)
            found[f"{method} ({said})" if said else method][labels].append(result)
    return found


def _differing(results: list[Result]) -> list[str]:
    """The flags in which results differ, those that name the subset left out."""
    flags = dict.fromkeys(flag for result in results for flag in result.setting if flag not in _SUBSETS)
    return [flag for flag in flags if len({repr(result.setting.get(flag)) for result in results}) > 1]


def blocks(study: Study, shown: Curves) -> list[Block]:
    """A block for each number of labels; from scratch is the reference, and where it is missing the first curve.

    Constant are the flags that all curves but the baselines share.
    """
    found = []
    for labels in shown.sizes():
        entries = []
        for name, points in shown.points.items():
            entries.append(entry_of(name, points.get(labels, []), study.outcomes))
        reference = next((entry for entry in entries if entry.name.startswith(FROM_SCRATCH) and entry.wrong["val"]),
                         next((entry for entry in entries if entry.wrong["val"]), entries[0]))
        reference.reference = True
        trained = [result for points in shown.points.values() for result in points.get(labels, [])
                   if result.run.stage == "train_clas"]
        shared = dict(trained[0].setting if trained else {})
        for result in trained:
            shared = {name: value for name, value in shared.items() if result.setting.get(name) == value}
        found.append(Block("low_shot", shown.dataset, entries, {**shared, "n_labels": labels}, corpus=shown.corpus,
                           constant_in="row of a neural network"))
    return found
