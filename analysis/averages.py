"""Forward and backward, words and subwords: single classifiers beside the average of their probabilities."""

from collections import defaultdict
from itertools import product as combinations
from typing import Callable, Iterable

import numpy as np
from ulmfit.errors import UserError

from .comparison import SPLITS, Block, Entry, entry_of, seed_key
from .outcomes import difference
from .paper_rows import is_row
from .published import BIDIRECTIONAL, OTHER_METHODS, TABLES, ULMFIT_TEST, WITHOUT_PRETRAINING, dataset_order
from .rendering import PAPER_ONLY
from .settings import Result
from .study import Study

BOTH = {"forward": False, "backward": True}
_WEIGHTS = "pre.fingerprint"  # of pretrained weights without a record, as fastai's
ULMFIT = TABLES["table7"].reference
SCRATCH = TABLES["table7"].rows[0]
C_CHOSEN = "The baselines' C is chosen on val, so that their error there is a little too low."


def average_entry(name: str, members: list[list[Result]], study: Study, **facts) -> Entry:
    """The row of the averaged probabilities: seed by seed, where each member has a run of that seed.

    members: each a list of results that differ in seeds alone. Raises UserError when the members of a seed predicted
    different documents or classes.
    """
    entry = Entry(name, **facts)
    # One kind of key for all members: where one has several runs of a classifier's seed, all seeds tell them apart.
    several = any(seed_key(result, results) != result.seed for results in members for result in results)
    by_seed = [{result.seeds if several else result.seed: result for result in results} for results in members]
    for seed in [seed for seed in by_seed[0] if all(seed in others for others in by_seed[1:])] if by_seed else ():
        entry.all_seeds[seed] = by_seed[0][seed].seeds
        for split in SPLITS:
            runs = [member[seed].of(split) for member in by_seed]
            if any(run is None for run in runs):
                continue
            read = [study.outcomes.probabilities(run.folder) for run in runs]
            documents, _, classes = read[0]
            for run, (others, _, other_classes) in zip(runs[1:], read[1:]):
                if others is not documents:
                    raise UserError(f"{run.id} and {runs[0].id} cannot be averaged: {difference(others, documents)}")
                if other_classes != classes:
                    raise UserError(f"{run.id} and {runs[0].id} cannot be averaged: the classes are "
                                    f"{', '.join(other_classes)} there, {', '.join(classes)} here")
            mean = np.mean([probabilities for _, probabilities, _ in read], axis=0)
            entry.add(split, seed, documents, study.outcomes.wrong_of(documents, mean, classes, runs[0].folder),
                      "&".join(run.id for run in runs))
    return entry


def _profile(result: Result, blind: Callable[[str], bool]) -> tuple:
    return tuple(sorted((name, repr(value)) for name, value in result.setting.items() if not blind(name)))


def grouped(results: Iterable[Result], blind: Callable[[str], bool]) -> dict[tuple, list[Result]]:
    """Results by dataset, stage and all flags that are not `blind`, in order of the dataset."""
    groups = defaultdict(list)
    for result in results:
        groups[result.dataset, result.run.stage, _profile(result, blind)].append(result)
    return dict(sorted(groups.items(), key=lambda item: (
        *dataset_order(item[0][0], item[1][0].corpus), bool(item[1][0].setting.get("bpe")), -len(item[1]))))


def _constant(results: list[Result], blind: Callable[[str], bool]) -> dict:
    return {name: value for name, value in results[0].setting.items() if not blind(name)}


def _of_direction(results: list[Result], backwards: bool) -> list[Result]:
    return [result for result in results if bool(result.setting.get("backwards")) == backwards]


def _by_direction(results: list[Result]) -> dict[str, list[Result]]:
    return {name: _of_direction(results, backwards) for name, backwards in BOTH.items()}


def _is_direction(name: str) -> bool:
    """The two directions of fastai's weights are two files."""
    return name in ("backwards", _WEIGHTS)


def _grouped_by_weights(results: Iterable[Result]) -> list[list[Result]]:
    """Results in groups that differ in direction and seeds alone.

    Where a direction began from several files, the name by which finetune_lm found them says which two are a pair.
    """
    groups = []
    for group in grouped(results, _is_direction).values():
        if not _differ_in_weights(group):
            groups.append(group)
            continue
        by_name, by_files = defaultdict(list), defaultdict(list)
        for result in group:
            by_name[_found_as(result)].append(result)
        for part in by_name.values():  # the same files may have two names
            by_files[_weights(part)] += part
        groups += sorted(by_files.values(), key=len, reverse=True)
    return groups


def _differ_in_weights(group: list[Result]) -> bool:
    return any(len({result.setting.get(_WEIGHTS) for result in side}) > 1 for side in _by_direction(group).values())


def _found_as(result: Result) -> tuple:
    """The name by which the language model's run found the pretrained weights."""
    return tuple(tuple(run.record["flags"].get(name) for name in ("pretrain_path", "pretrain_id", "pretrain_seed"))
                 for run in result.behind.values() if "pretrained" in run.record["inputs"])


def _weights(group: list[Result]) -> str:
    """The fingerprints of pretrained weights without a record, as `aaaa (forward) & bbbb (backward)`."""
    return " & ".join(f"{mark} ({way})" for way, side in _by_direction(group).items()
                      for mark in sorted({result.setting[_WEIGHTS] for result in side if _WEIGHTS in result.setting}))


def _check_one_pretraining(sides: dict[str, list[Result]]) -> None:
    """Classifiers of one row began from the same pretrained weights."""
    for way, results in sides.items():
        files = {result.setting.get(_WEIGHTS): result for result in results}
        if len(files) > 1:
            first, second = list(files.values())[:2]
            raise UserError(f"{first.run.id} and {second.run.id} are both {way}, and began from different pretrained "
                            f"weights of one name; move one of them away, or look at one direction alone by "
                            f"--where={_WEIGHTS}={first.setting.get(_WEIGHTS)}")


def _constant_of_directions(group: list[Result]) -> dict:
    weights = _weights(group)
    return _constant(group, _is_direction) | ({_WEIGHTS: weights} if weights else {})


def bidirectional_blocks(study: Study, results: list[Result]) -> list[Block]:
    """A block for each dataset, setting and pair of pretrained weights that was trained in both directions.

    Raises UserError when a direction's weights of one name are not the same in all runs.
    """
    blocks = []
    for group in _grouped_by_weights(results):
        sides = _by_direction(group)
        if group[0].run.stage != "train_clas" or not all(sides.values()):
            continue
        _check_one_pretraining(sides)
        dataset, setting, corpus = group[0].dataset, group[0].setting, group[0].corpus
        unpretrained = is_row(WITHOUT_PRETRAINING, setting)
        ours = (is_row(ULMFIT, setting) or unpretrained) and not {"bpe", "n_labels"} & set(setting)
        paper = BIDIRECTIONAL.get(corpus, {}) if ours else {}
        entries = [entry_of(name, side, study.outcomes, paper=paper.get(name), reference=name == "forward")
                   for name, side in sides.items()]
        entries.append(average_entry("averaged", list(sides.values()), study, paper=paper.get("averaged")))
        notes = ["The paper's models were pretrained, these were not."] if paper and unpretrained else []
        blocks.append(Block("bidirectional", dataset, entries, _constant_of_directions(group), notes,
                            main_split="test", corpus=corpus))
    return blocks


def _is_unit(name: str) -> bool:
    """Flags that words and subwords cannot have in common."""
    prefixes = ("ids.", "toks.", "pre.ids.", "pre.toks.")
    return name in ("backwards", "bpe", _WEIGHTS) or name.startswith(prefixes)


def subword_blocks(study: Study, results: list[Result]) -> list[Block]:
    """A block for each dataset and setting that was trained on words and on subwords."""
    blocks = []
    for (dataset, stage, _), group in grouped(results, _is_unit).items():
        sides = {(unit, name): [result for result in _of_direction(group, backwards)
                                if bool(result.setting.get("bpe")) == bpe]
                 for (unit, bpe), (name, backwards) in combinations({"word": False, "subword": True}.items(),
                                                                    BOTH.items())}
        if stage != "train_clas" or not all(any(sides[unit, way] for way in BOTH) for unit in ("word", "subword")):
            continue
        _check_one_vocabulary(sides)
        entries = []
        for unit in ("word", "subword"):
            entries += [entry_of(f"{unit}, {way}", sides[unit, way], study.outcomes,
                                 reference=(unit, way) == ("word", "forward")) for way in BOTH]
            entries.append(average_entry(f"{unit}, averaged", [sides[unit, way] for way in BOTH], study))
        for way in BOTH:
            entries.append(average_entry(f"word + subword, {way}", [sides[unit, way] for unit in ("word", "subword")],
                                         study))
        entries.append(average_entry("all four", list(sides.values()), study))
        blocks.append(Block("subword", dataset, entries, _constant(group, _is_unit), main_split="test",
                            corpus=group[0].corpus))
    return blocks


def _check_one_vocabulary(sides: dict[tuple[str, str], list[Result]]) -> None:
    """Words of one vocabulary and subwords of one model: others would be averaged over unseen."""
    for (unit, way), results in sides.items():
        keys = {result.key: result for result in results}
        if len(keys) > 1:
            first, second = list(keys.values())[:2]
            raise UserError(f"{first.run.id} and {second.run.id} are both of {unit}s, {way}, with other flags of "
                            f"create_toks or tok2id; tell them apart by --where")


def tables2_3_blocks(study: Study, results: list[Result]) -> list[Block]:
    """Full ULMFiT on all labels, pretrained or not, beside linear baselines and the paper's other methods, by test
    error.

    Raises UserError when a direction's pretrained weights of one name are not the same in all runs.
    """
    whole = [result for result in results if "n_labels" not in result.setting and not result.setting.get("bpe")]
    ulmfit = [result for result in whole if result.run.stage == "train_clas" and not result.unknown
              and (is_row(ULMFIT, result.setting) or is_row(WITHOUT_PRETRAINING, result.setting))]
    blocks = []
    for group in _grouped_by_weights(ulmfit):
        sides = _by_direction(group)
        _check_one_pretraining(sides)
        dataset, corpus = group[0].dataset, group[0].corpus
        entries = [Entry(name, paper=error, note=PAPER_ONLY) for name, error in OTHER_METHODS.get(corpus, {}).items()]
        notes = []
        for (_, _, _), same in grouped((result for result in whole if result.run.stage == "train_baseline"
                                        and result.dataset == dataset), lambda name: False).items():
            entries.append(entry_of(baseline_name(same[0]), same, study.outcomes, stands_for_all=True))
            notes = [C_CHOSEN + " Their seed changes hardly a digit: one run is compared with every seed of the "
                                "reference."]
        pretrained, both = is_row(ULMFIT, group[0].setting), all(sides.values())
        ulmfit_name = "ULMFiT" if pretrained else f"ULMFiT {WITHOUT_PRETRAINING.name}"
        # Without pretraining is no row of the paper: what of it was not run is not missing.
        # Where one direction alone was trained, it is what the others are compared with.
        entries += [entry_of(f"{ulmfit_name}, {way}", side, study.outcomes, reference=bool(side) and not both)
                    for way, side in sides.items() if side or pretrained]
        if both or pretrained:
            entries.append(average_entry(f"{ulmfit_name}, averaged", list(sides.values()), study, reference=both,
                                         paper=ULMFIT_TEST.get(corpus) if pretrained else None))
        blocks.append(Block("tables2_3", dataset, entries, _constant_of_directions(group), notes, main_split="test",
                            corpus=corpus, constant_in="row of ULMFiT"))
    return blocks


def baseline_name(result: Result) -> str:
    model = {"tfidf": "tf-idf", "nbsvm": "NB-SVM"}[str(result.value("model"))]
    longest = result.value("ngrams")
    return f"{model}, " + ("1-grams" if longest == 1 else f"1- to {longest}-grams")
