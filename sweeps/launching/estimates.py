"""How long a run will take, from the records of earlier ones."""

import heapq
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Iterable, Mapping

from ulmfit import files, names, records
from ulmfit.errors import UserError
from ulmfit.lineage import Lineage

from .plan import Step

# Stages whose time grows with the text that they train on.
LANGUAGE_MODELS, CLASSIFIERS = ("pretrain_lm", "finetune_lm"), ("train_clas", "train_baseline")


@dataclass(frozen=True)
class Corpus:
    """What a run trains on. subset: its `train_file_id`."""

    dataset: str
    unit: str
    subset: str = ""


@dataclass(frozen=True)
class Run:
    """What an estimate needs of a finished run."""

    stage: str
    corpus: Corpus
    device: str
    config: dict
    epochs: int
    seconds: float


@dataclass(frozen=True)
class Past:
    """The finished runs of a results folder.

    splits: of each numericalized dataset, by its name and unit, the documents and tokens of each split.
    """

    runs: list[Run]
    splits: dict[tuple[str, str], dict[str, dict]]

    def tokens(self, stage: str, corpus: Corpus) -> float | None:
        """About how many tokens an epoch of a stage reads; None: not known."""
        splits = self.splits.get((corpus.dataset, corpus.unit))
        if splits is None:
            return None
        train = splits["train"]
        if corpus.subset:
            # Those that sample_train names begin with their number of documents.
            documents = re.match(r"[0-9]+", corpus.subset)
            return int(documents[0]) * train["tokens"] / train["documents"] if documents else None
        return train["tokens"] + (splits.get("unsup", {}).get("tokens", 0) if stage in LANGUAGE_MODELS else 0)


def read_past(results: Path) -> Past:
    """What the records of a results folder tell; one that cannot be read is left out."""
    runs, splits = [], {}
    for path in sorted((results / "runs").glob("*/run.json")):
        try:
            record = files.read_json(path)
            if record["status"] != "finished":
                continue
            flags, stage = record["flags"], record["stage"]
            corpus = _corpus(record["dataset"], flags)
            runs.append(Run(stage, corpus, (record["device"] or "cpu").partition(":")[0], record["config"],
                            flags.get("cl") or 1, record["wall_seconds"]))
            if stage == "tok2id":
                splits[corpus.dataset, corpus.unit] = record["splits"]
        except (UserError, KeyError, TypeError, AttributeError):
            continue
    return Past(runs, splits)


def known_past(results: Path) -> Past:
    """The past of a results folder; the project's records, which come with it, tell of stages that have none there."""
    own = read_past(results)
    project = names.project_root() / "results"
    if results.resolve() == project.resolve():
        return own
    theirs, known = read_past(project), {run.stage for run in own.runs}
    return Past(own.runs + [run for run in theirs.runs if run.stage not in known], theirs.splits | own.splits)


def _corpus(dataset: str, flags: Mapping) -> Corpus:
    return Corpus(dataset, names.unit(bool(flags.get("bpe"))), flags.get("train_file_id") or "")


def seconds(run: Lineage, past: Past, device: str) -> float | None:
    """How long a run will take; None when no earlier run tells.

    The median of the earlier runs that are nearest: same kind of device, same corpus, then the fewest flags that differ
    (the seed aside); `--notrain` is compared with its like alone. Time grows with the epochs and, from one corpus to another, with the tokens.
    """
    stage, corpus = run.stage.__name__, _corpus(run.dataset, run.flags)
    wanted = _compared(records.config_of(run.stage, run.flags) | run.resolved)
    nearest: dict[tuple, list[float]] = {}
    for one in past.runs:
        if one.stage != stage:
            continue
        growth = _growth(stage, past, one.corpus, corpus)
        if growth is None:
            continue
        config = _compared(one.config)
        # What trains nothing tells nothing of what trains, nor the other way round.
        if bool(config.get("notrain")) != bool(wanted.get("notrain")):
            continue
        apart = (one.device != device, one.corpus != corpus,
                 sum(config.get(key) != wanted.get(key) for key in {*config, *wanted}))
        nearest.setdefault(apart, []).append(one.seconds * growth * (run.flags.get("cl") or 1) / one.epochs)
    return median(nearest[min(nearest)]) if nearest else None


def _growth(stage: str, past: Past, there: Corpus, here: Corpus) -> float | None:
    """How much longer an epoch takes on another corpus; None when their sizes are not known."""
    if there == here or stage not in LANGUAGE_MODELS + CLASSIFIERS:
        return 1.0
    before, now = past.tokens(stage, there), past.tokens(stage, here)
    return now / before if before and now else None


def _compared(config: Mapping) -> dict:
    return {name: value for name, value in config.items() if name not in ("seed", "cl")}


def until_the_end(steps: Iterable[Step], left: Mapping[Step, float], slots: int) -> float:
    """Seconds until the last run ends when `slots` run at once, each as soon as what it needs is there.

    left: seconds that each run still takes; those without an entry are there already.
    """
    free = [0.0] * max(1, slots)
    ended: dict[Step, float] = {}
    for step in steps:
        if step in left:
            begins = max([heapq.heappop(free), *(ended.get(need, 0.0) for need in step.needs)])
            ended[step] = begins + left[step]
            heapq.heappush(free, ended[step])
    return max(ended.values(), default=0.0)
