"""Rows of runs compared on the same documents: the frame that every table, plot and page is made from."""

from dataclasses import dataclass, field
from typing import Iterable

import numpy as np
import pandas as pd
from ulmfit.errors import UserError

from . import statistics
from .outcomes import Documents, Outcomes, difference
from .settings import Result

SPLITS = ("val", "test")
ALPHA = 0.05


@dataclass
class Entry:
    """A row before anything is measured.

    wrong: by split and seed, which documents were got wrong, shape (documents,). runs: by split and seed, the ids of
    the runs behind. all_seeds: what a seed stands for, with those of the language model and the rest. paper: the
    paper's error rate in %. note: what a reader must know of the row. stands_for_all: its seed changes nothing to speak
    of, so that a single run is compared with every seed of the reference. epochs: of each run how many were run and how
    many were planned.
    """

    name: str
    paper: float | None = None
    note: str = ""
    reference: bool = False
    stands_for_all: bool = False
    wrong: dict[str, dict[object, np.ndarray]] = field(default_factory=lambda: {split: {} for split in SPLITS})
    documents: dict[str, Documents] = field(default_factory=dict)
    runs: dict[str, dict[object, str]] = field(default_factory=lambda: {split: {} for split in SPLITS})
    all_seeds: dict[object, tuple] = field(default_factory=dict)
    best: dict[object, float] = field(default_factory=dict)
    epochs: set[tuple[int, int]] = field(default_factory=set)

    def add(self, split: str, seed: object, documents: Documents, wrong: np.ndarray, runs: str) -> None:
        """Raises UserError when the row's runs did not all predict the same documents."""
        earlier = self.documents.setdefault(split, documents)
        if earlier is not documents:
            other = next(iter(self.runs[split].values()))
            raise UserError(f"{runs} and {other} cannot be averaged: {difference(documents, earlier)}")
        if seed in self.wrong[split]:
            raise UserError(f"{runs} and {self.runs[split][seed]} stand in one row with the same seed; tell them apart "
                            f"by --where")
        self.wrong[split][seed] = wrong
        self.runs[split][seed] = runs


@dataclass
class Block:
    """Rows that are compared with each other.

    corpus: what the dataset is, whatever its folder's name. constant: the flags that are the same in all rows, or in
    all `constant_in`. notes: what the reader must know of the whole. candidates: by row all results that could stand
    in it, of which one setting was chosen.
    """

    table: str
    dataset: str
    entries: list[Entry]
    constant: dict = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    main_split: str = "val"
    candidates: dict[str, list[Result]] = field(default_factory=dict)
    corpus: str | None = None
    constant_in: str = "row"


def entry_of(name: str, results: Iterable[Result], outcomes: Outcomes, **facts) -> Entry:
    """The row of results that differ in their seeds alone."""
    entry = Entry(name, **facts)
    results = list(results)
    for result in results:
        seed = seed_key(result, results)
        entry.all_seeds[seed] = result.seeds
        for split in SPLITS:
            if (run := result.of(split)) is not None:
                entry.add(split, seed, *outcomes.wrong(run.folder), run.id)
        trained = result.run.stage == "train_clas"
        if trained and result.val is not None and (best := result.val.metric("error", "best")) is not None:
            entry.best[seed] = best
        if result.epochs:
            entry.epochs.add((result.epochs_run or result.epochs, result.epochs))
    return entry


def counted(problems: Iterable[str]) -> str:
    """`2 runs failed; 1 run stale`."""
    problems = list(problems)
    return "; ".join(f"{problems.count(what)} run{'s' * (problems.count(what) > 1)} {what}"
                     for what in dict.fromkeys(problems))


def seed_key(result: Result, among: Iterable[Result]) -> object:
    """The classifier's seed; where several results share it (other seeds of the language model), all seeds."""
    return result.seed if sum(other.seed == result.seed for other in among) == 1 else result.seeds


def frame_of(block: Block) -> pd.DataFrame:
    """One line a row and split, error rates and differences in percentage points.

    Columns: table, dataset, corpus, n_labels (of the training subset, None for the whole split), row, reference, split,
    n_seeds, seeds, epochs (that were run, and of how many where they were fewer), error (mean over seeds, at the last
    epoch or where training stopped), sd (sample standard deviation), low, high (95% bootstrap interval), best (mean
    error at the epoch with the lowest validation loss of those validated; val only), best_sd; against the reference
    row, over the n_pairs pairs of seeds: difference, difference_low, difference_high, p and p_smallest (over
    documents), p_holm (over the rows), p_seeds and p_seeds_smallest (over seeds), significant (the interval leaves out
    0 and p_holm is below ALPHA); paper, constant, note, runs.

    A row without runs has n_seeds 0 and no numbers. Raises UserError when rows were measured on different documents.
    """
    lines = []
    for split in SPLITS:
        present = [entry for entry in block.entries if entry.wrong[split]]
        if not present and split != block.main_split:
            continue
        _check_documents(present, split)
        lines += _lines(block, split, present)
    # With a number in every cell, pandas finds the columns' types by itself.
    return pd.DataFrame([{**dict.fromkeys(NUMBERS, np.nan), **line} for line in lines], columns=COLUMNS)


COLUMNS = ("table", "dataset", "corpus", "n_labels", "row", "reference", "split", "n_seeds", "seeds", "epochs",
           "error", "sd", "low", "high", "best", "best_sd", "difference", "difference_low", "difference_high",
           "n_pairs", "p", "p_smallest", "p_holm", "p_seeds", "p_seeds_smallest", "significant", "paper", "constant",
           "note", "runs")
NUMBERS = ("error", "sd", "low", "high", "best", "best_sd", "difference", "difference_low", "difference_high",
           "n_pairs", "p", "p_smallest", "p_holm", "p_seeds", "p_seeds_smallest", "paper")


def _check_documents(present: list[Entry], split: str) -> None:
    for entry in present[1:]:
        if entry.documents[split] is not present[0].documents[split]:
            mine, theirs = (next(iter(each.runs[split].values())) for each in (entry, present[0]))
            raise UserError(f"{mine} and {theirs} cannot be compared on {split}: "
                            f"{difference(entry.documents[split], present[0].documents[split])}")


def _lines(block: Block, split: str, present: list[Entry]) -> list[dict]:
    replicates = replicates_of(present, split)
    reference = next((entry for entry in block.entries if entry.reference), None)
    lines = []
    for entry in block.entries:
        line = {"table": block.table, "dataset": block.dataset, "corpus": block.corpus or block.dataset,
                "n_labels": block.constant.get("n_labels"), "row": entry.name, "reference": entry.reference,
                "split": split, "n_seeds": len(entry.wrong[split]),
                "paper": entry.paper if entry.paper is not None and split == block.main_split else np.nan,
                "note": entry.note, "constant": " ".join(f"{k}={v}" for k, v in block.constant.items()),
                "seeds": " ".join(map(str, entry.wrong[split])), "runs": " ".join(entry.runs[split].values()),
                "epochs": _epochs(entry.epochs)}
        if entry.wrong[split]:
            line.update(_measured(entry, split, replicates))
            if reference is not None and entry is not reference and reference.wrong[split]:
                line.update(compared(entry, reference, split, replicates))
        lines.append(line)
    for line, adjusted in zip(lines, statistics.holm([line.get("p", np.nan) for line in lines])):
        line.update(p_holm=adjusted, significant=significant(line.get("difference_low"), line.get("difference_high"),
                                                             adjusted))
    return lines


def significant(low: float | None, high: float | None, p_holm: float) -> bool:
    """Whether both ways to look at a difference say that there is one: over other documents and seeds (the interval),
    and over the documents of these very runs, corrected for the number of comparisons."""
    return low is not None and (low > 0 or high < 0) and p_holm < ALPHA


def correct_together(frames: list[pd.DataFrame]) -> None:
    """Holm's correction over the rows of several tables at once, in place; of each split by itself."""
    for split in SPLITS:
        places = [(frame, index) for frame in frames for index in frame.index[frame["split"] == split]]
        for (frame, index), adjusted in zip(places, statistics.holm([frame.at[index, "p"] for frame, index in places])):
            frame.at[index, "p_holm"] = adjusted
            frame.at[index, "significant"] = significant(frame.at[index, "difference_low"],
                                                         frame.at[index, "difference_high"], adjusted)


def _epochs(pairs: set[tuple[int, int]]) -> str:
    """`15`, `12-15`; `12-13 of 15` where not all that were planned were run."""
    run, planned = ("-".join(map(str, sorted({min(each), max(each)}))) if each else ""
                    for each in ([run for run, _ in pairs], [planned for _, planned in pairs]))
    return run if run == planned else f"{run} of {planned}"


def _measured(entry: Entry, split: str, replicates: dict) -> dict:
    seeds = list(entry.wrong[split])
    errors = np.array([100.0 * entry.wrong[split][seed].mean() for seed in seeds])
    spread = statistics.percentile_interval(statistics.seed_replicates(
        np.column_stack([replicates[id(entry), seed] for seed in seeds])))
    line = {"error": errors.mean(), "sd": statistics.sample_sd(errors), "low": spread.low, "high": spread.high}
    if split == "val" and entry.best:
        best = np.array(list(entry.best.values()))
        line.update(best=best.mean(), best_sd=statistics.sample_sd(best))
    return line


def replicates_of(entries: list[Entry], split: str) -> dict[tuple[int, object], np.ndarray]:
    """Error rates of bootstrap samples of the documents, by (id of the entry, seed); the same samples for all."""
    columns = [(entry, seed) for entry in entries for seed in entry.wrong[split]]
    if not columns:
        return {}
    rates = statistics.document_replicates(np.column_stack([entry.wrong[split][seed] for entry, seed in columns]))
    return {(id(entry), seed): rates[:, number] for number, (entry, seed) in enumerate(columns)}


def compared(entry: Entry, reference: Entry, split: str, replicates: dict) -> dict:
    """The columns from `difference` to `p_seeds_smallest` but `p_holm`; `n_pairs` alone without a seed in common."""
    pairs = _pairs(entry, reference, split)
    if not pairs:
        return {"n_pairs": 0.0}
    mine = np.column_stack([entry.wrong[split][seed] for seed, _ in pairs])
    theirs = np.column_stack([reference.wrong[split][seed] for _, seed in pairs])
    spread = statistics.percentile_interval(statistics.seed_replicates(
        np.column_stack([replicates[id(entry), own] - replicates[id(reference), other] for own, other in pairs])))
    over_documents, over_seeds = statistics.document_test(mine, theirs), statistics.seed_test(mine, theirs)
    return {"difference": 100.0 * (mine.mean() - theirs.mean()), "difference_low": spread.low,
            "difference_high": spread.high, "n_pairs": float(len(pairs)), "p": over_documents.p,
            "p_smallest": over_documents.smallest, "p_seeds": over_seeds.p, "p_seeds_smallest": over_seeds.smallest}


def _pairs(entry: Entry, reference: Entry, split: str) -> list[tuple[object, object]]:
    """The seeds of a row and of the reference that are compared with each other."""
    mine, theirs = entry.wrong[split], reference.wrong[split]
    if entry.stands_for_all and len(mine) == 1:
        return [(next(iter(mine)), seed) for seed in theirs]
    # Where a row has several runs of one classifier's seed, its seeds are told by the language model's too.
    by_all = {reference.all_seeds[seed]: seed for seed in theirs if seed in reference.all_seeds and seed not in mine}
    return [(seed, seed if seed in theirs else by_all[entry.all_seeds[seed]]) for seed in mine
            if seed in theirs or entry.all_seeds.get(seed) in by_all]
