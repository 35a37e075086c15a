"""What a trained classifier was made with: the flags of every stage behind it in one flat dict.

    {"cl": 10, "emb_sz": 200, "lm.cl": 15, "pre.corpus": "wiki1500", "pre.lr": 0.004, "n_labels": 500}

The classifier's own flags have no prefix, its language model's `lm.`, the pretrained model's `pre.`, the vocabulary's
`ids.`, the tokens' `toks.`, a classifier or language model it goes on from `start.`. A flag that is absent has its
default. Seeds are no part of it: runs that differ in seeds alone have the same setting.
"""

import importlib
import inspect
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Callable

from ulmfit import records
from ulmfit.errors import UserError

from .archive import Archive, Run

_ROLES = {"language_model": "lm.", "pretrained": "pre.", "intermediate": "start.", "start": "start."}
_OF_EVERY_STAGE = ("dataset", "n_labels", "backwards", "bpe")
_SHARED = ("seed", "backwards", "bpe", "split")  # said once for the whole chain


@dataclass(eq=False)
class Result:
    """A trained classifier or linear baseline with what was measured of it.

    setting: see above. corpus: what the dataset is, whatever its folder's name. seeds: (seed of the classifier, of its
    language model, of the pretrained model, of the draw of the training subset, of the language model's subset); None
    where there is none. val, test: the runs that hold the predictions of each split, None where there is none. epochs:
    how many were planned, epochs_run: how many of them were run. unknown: ancestors whose record is not there. behind:
    the runs whose flags have each prefix, its own under "".
    """

    run: Run
    setting: dict
    seeds: tuple
    val: Run | None = None
    test: Run | None = None
    epochs: int | None = None
    epochs_run: int | None = None
    unknown: list[str] = field(default_factory=list)
    behind: dict[str, Run] = field(default_factory=dict)
    corpus: str | None = None

    @property
    def dataset(self) -> str:
        return self.run.dataset

    @property
    def seed(self) -> int:
        return self.seeds[0]

    @cached_property
    def key(self) -> tuple:
        """The setting as a dict's key, with the stage and the dataset."""
        return self.run.stage, self.dataset, *sorted((name, repr(value)) for name, value in self.setting.items())

    def of(self, split: str) -> Run | None:
        return self.val if split == "val" else self.test

    def value(self, name: str) -> object:
        """A flag's value, its default where it was left at that or the record is older than the flag; None when no
        stage behind it has such a flag."""
        if name == "dataset":
            return self.dataset
        if name in self.setting:
            return self.setting[name]
        prefix = max((prefix for prefix in self.behind if name.startswith(prefix)), key=len)
        if name.removeprefix(prefix) in ("backwards", "bpe"):
            return False
        flag, run = name.removeprefix(prefix), self.behind[prefix]
        flags = run.record.get("flags", {})
        if flag in flags:
            return flags[flag]
        return records.first_default(stage_function(run.stage), flag)

    def has_stage(self, name: str) -> bool:
        """Whether the stage that a flag is of is behind this result: by its prefix, without one its own."""
        prefix = name[:name.rfind(".") + 1]
        if not prefix:
            own = inspect.signature(stage_function(self.run.stage)).parameters
            return name in _OF_EVERY_STAGE or name in self.setting or name in own
        # Of a stage without a record the setting has the fingerprint alone.
        return any(known.startswith(prefix) for known in (*self.behind, *self.setting))

    def train_documents(self) -> int | None:
        """Documents of the whole training split, None when no record says."""
        source = self.behind.get("ids.") or self.behind.get("toks.")
        split = (source.record.get("splits") or {}).get("train") if source else None
        return split["documents"] if split else None


@lru_cache(maxsize=None)
def stage_function(name: str) -> Callable:
    """The function that makes runs of a stage; its signature has the flags' defaults."""
    return getattr(importlib.import_module("analysis.ensemble" if name == "ensemble" else name), name)


class Chain:
    """Finds settings in an archive; what several runs descend from is looked up once."""

    def __init__(self, archive: Archive):
        self.archive = archive
        self._known: dict[str, tuple[dict, dict, list[str], dict[str, Run]]] = {}
        self._samples = {(run.dataset, run.record["sha256"][:16]): run for run in archive
                         if run.stage == "sample_train" and run.state == "finished" and "sha256" in run.record}
        self._subsets: dict[tuple[str | None, object], set[str]] = defaultdict(set)  # fingerprints by name
        for run in archive:
            if given := run.record["inputs"].get("subset"):
                self._subsets[run.dataset, run.record.get("flags", {}).get("train_file_id")].add(given["fingerprint"])

    def subset(self, run: Run) -> tuple[object, int | None]:
        """(number of labels, seed of the draw) of the training subset that a run read; of one that sample_train did
        not draw its name, with the file's fingerprint where runs read several of that name; of the whole split None."""
        given = run.record["inputs"].get("subset")
        if given is None:
            return None, None
        sample = self._samples.get((run.dataset, given["fingerprint"]))
        if sample is None:
            name = run.record["flags"].get("train_file_id") or given["fingerprint"]
            several = len(self._subsets[run.dataset, name]) > 1
            return f"{name} ({given['fingerprint'][:8]})" if several else name, None
        return sample.record["documents"], sample.record["seed"]

    def of(self, run: Run) -> tuple[dict, dict, list[str], dict[str, Run]]:
        """(setting, seeds by prefix, ids of ancestors whose record is not there or was made anew, runs by prefix)."""
        if run.id not in self._known:
            self._known[run.id] = self._of(run)
        return self._known[run.id]

    def _of(self, run: Run) -> tuple[dict, dict, list[str], dict[str, Run]]:
        setting = {name: value for name, value in run.config.items() if name not in _SHARED}
        seeds = {"": run.record.get("seed")}
        unknown: list[str] = []
        behind = {"": run}
        size, draw = self.subset(run)
        if size is not None:
            setting["n_labels"], seeds["n_labels"] = size, draw
        self._vocabulary(run, setting, unknown, behind)
        for role, prefix in _ROLES.items():
            given = run.record["inputs"].get(role)
            if given is None:
                continue
            parent = self.archive.parent(run, role)
            if parent is None:
                self._unknown(prefix, given, setting, unknown)
                continue
            inner, inner_seeds, inner_unknown, inner_behind = self.of(parent)

            def named(name: str) -> str:
                return name if name.startswith(("pre.", "lm.")) else prefix + name

            # A language model shares the dataset's tokens and vocabulary with its classifier.
            setting.update({named(name): value for name, value in inner.items()
                            if prefix == "pre." or not name.startswith(("ids.", "toks."))})
            seeds.update({named(name): value for name, value in inner_seeds.items()})
            behind.update({named(name): value for name, value in inner_behind.items()})
            if prefix == "pre.":
                setting["pre.corpus"] = parent.dataset
            elif given.get("run") and self._same_subset(run, parent):
                setting["lm.n_labels"] = "the same"
            unknown += inner_unknown
        return setting, seeds, unknown, behind

    @staticmethod
    def _unknown(prefix: str, given: dict, setting: dict, unknown: list[str]) -> None:
        """An input whose run has no record here is known by its fingerprint alone."""
        setting[f"{prefix}fingerprint"] = given["fingerprint"]
        if given["run"] is not None:
            unknown.append(given["run"])

    def _same_subset(self, run: Run, parent: Run) -> bool:
        mine, theirs = (each.record["inputs"].get("subset") for each in (run, parent))
        return bool(mine and theirs and mine["fingerprint"] == theirs["fingerprint"])

    def _vocabulary(self, run: Run, setting: dict, unknown: list[str], behind: dict[str, Run]) -> None:
        """Adds the flags of tok2id and create_toks."""
        child = run
        for role, prefix in (("ids", "ids."), ("tokens", "toks.")):
            given = child.record["inputs"].get(role)
            if given is None:
                if role == "ids" and "tokens" in child.record["inputs"]:
                    continue  # a linear baseline reads the tokens themselves
                return
            parent = self.archive.parent(child, role)
            if parent is None:
                self._unknown(prefix, given, setting, unknown)
                return
            setting.update({prefix + name: value for name, value in parent.config.items() if name not in _SHARED})
            behind[prefix] = child = parent


def results(archive: Archive) -> tuple[list[Result], list[tuple[Result, str]]]:
    """Every trained classifier and baseline whose numbers stand, and those whose do not, with why.

    A classifier's test split is that of the eval_clas run which read these very weights. Direction and unit are in the
    setting as `backwards` and `bpe`. Raises UserError when two runs have the same setting and seeds, but differ.
    """
    chain = Chain(archive)
    found: list[Result] = []
    broken: list[tuple[Result, str]] = []
    by_classifier: dict[str, Result] = {}
    baselines: dict[tuple, Result] = {}
    for run in archive:
        if run.stage not in ("train_clas", "train_baseline"):
            continue
        result = _result(chain, run)
        if problem := archive.problem(run):
            broken.append((result, problem))
        elif run.stage == "train_clas":
            result.val = run
            by_classifier[run.id] = result
            found.append(result)
        else:
            # A baseline's val and test are two runs of the same training.
            kept = baselines.setdefault((result.key, result.seeds), result)
            if kept is result:
                found.append(result)
            if run.record["split"] == "val":
                kept.val = run
            else:
                kept.test = run
    for run in archive:
        if run.stage == "eval_clas" and run.record.get("split") == "test" and archive.problem(run) is None:
            parent = archive.parent(run, "classifier")
            if parent is not None and parent.id in by_classifier:
                by_classifier[parent.id].test = run
    return _distinct(found), broken


def _result(chain: Chain, run: Run) -> Result:
    setting, seeds, unknown, behind = chain.of(run)
    setting = dict(setting)
    for flag in ("backwards", "bpe"):
        if run.config.get(flag):
            setting[flag] = True
    key = tuple(seeds.get(name) for name in ("", "lm.", "pre.", "n_labels", "lm.n_labels"))
    progress = run.record.get("progress") or {}
    return Result(run, setting, key, epochs=progress.get("of"), epochs_run=progress.get("epochs"), unknown=unknown,
                  behind=behind, corpus=chain.archive.corpus(run.dataset))


def _distinct(found: list[Result]) -> list[Result]:
    """Without those that are another one under a second name."""
    seen: dict[tuple, Result] = {}
    kept = []
    for result in found:
        other = seen.setdefault((result.key, result.seeds), result)
        if other is result:
            kept.append(result)
        elif other.run.record["fingerprint"] != result.run.record["fingerprint"]:
            raise UserError(f"{other.run.id} and {result.run.id} have the same flags and seeds, yet differ in what "
                            f"they read; `python -m analysis diff` of the two says in what; move one of them away")
        elif result.test is not None and other.test is None:
            other.test = result.test
    return kept
