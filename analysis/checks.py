"""Does what the records say hold? Recomputed from the records alone, neither data nor weights needed."""

import math
from collections import Counter
from typing import Iterator, NamedTuple

import numpy as np
from ulmfit import metrics, names, predictions, records, text_hashes
from ulmfit.errors import UserError
from ulmfit.records import Input

from . import archive, ensemble
from .archive import Archive, Run
from .runs import listed

PROBLEM, NOTE = "problem", "note"
# Predictions are written to six digits, and the loss of a training is a mean over batches in single precision.
_TOLERANCE = {"error": 1e-6, "macro_f1": 1e-6, "loss": 2e-3, "val_loss": 2e-3}
_SIX_DIGITS = 2e-6
_TRAINED = ("pretrain_lm", "finetune_lm", "train_clas")


class Finding(NamedTuple):
    """kind: `problem`: something does not hold; `note`: something that a reader should know, or that cannot be told."""

    kind: str
    run: str
    what: str


def findings(runs: Archive, chosen: list[Run]) -> Iterator[Finding]:
    """Everything that is wrong or worth knowing about some runs, in their order."""
    for line in runs.unreadable:
        yield Finding(PROBLEM, "", line)
    documents: dict[str, dict[str, dict[str, str]] | None] = {}
    for run in chosen:
        checks = [_identity(run), _standing(runs, run)]
        if run.state == "finished":
            checks += [_epochs(run), _predictions(runs, run, documents), _corpus(run, documents)]
        for each in checks:
            try:
                yield from each
            except UserError as error:
                yield Finding(PROBLEM, run.id, str(error))


def _identity(run: Run) -> Iterator[Finding]:
    record = run.record
    if run.folder.name != run.id:
        yield Finding(PROBLEM, run.id, f"lies in the folder {run.folder.name}")
    if record["stage_version"] == records.STAGE_VERSIONS.get(run.stage):
        inputs = {role: Input(**given) for role, given in record["inputs"].items()}
        if records.fingerprint(run.stage, record["config"], inputs) != record["fingerprint"]:
            yield Finding(PROBLEM, run.id, "its fingerprint is not that of its flags and inputs: the record was edited")
    if record["parents"] != sorted({given["run"] for given in record["inputs"].values() if given["run"]}):
        yield Finding(PROBLEM, run.id, "its parents are not the runs of its inputs")
    if (record.get("git") or {}).get("dirty"):
        yield Finding(NOTE, run.id, "was made by code with uncommitted changes")


def _standing(runs: Archive, run: Run) -> Iterator[Finding]:
    if run.state != "finished":
        yield Finding(NOTE, run.id, runs.problem(run) or run.state)
    if why := runs.stale(run):
        yield Finding(PROBLEM, run.id, f"stale: {why}")
    for role, given in run.record["inputs"].items():
        if given["run"] and given["run"] not in runs.runs:
            yield Finding(NOTE, run.id, f"the record of its {role}, {given['run']}, is not here")


def _epochs(run: Run) -> Iterator[Finding]:
    """The best and the last epoch are what metrics.jsonl says; of what does not train they are the same numbers."""
    best, last = (run.record["metrics"].get(which) for which in ("best", "last"))
    if run.stage not in _TRAINED:
        if best != last:
            yield Finding(PROBLEM, run.id, "trains nothing, yet its best numbers are not its last")
        return
    rows = run.epochs()
    validated = [row for row in rows if "val_loss" in row]
    if not validated:
        yield Finding(PROBLEM, run.id, "its metrics.jsonl holds no epoch with a validation")
        return
    lowest = min(validated, key=lambda row: row["val_loss"])
    # These end with the weights of the best epoch.
    goes_back = any(run.record["flags"].get(name) for name in ("early_stopping", "chain_thaw"))
    for which, recorded, row in (("best", best, lowest), ("last", last, lowest if goes_back else rows[-1])):
        if recorded != row:
            name = next(name for name in {**row, **(recorded or {})} if row.get(name) != (recorded or {}).get(name))
            yield Finding(PROBLEM, run.id, f"the {which} epoch of its metrics.jsonl has {name} {row.get(name)}, its "
                                           f"record says {(recorded or {}).get(name)}")


def _predictions(runs: Archive, run: Run, documents: dict) -> Iterator[Finding]:
    """Complete, of the split's documents, and with the metrics that the record says."""
    split = run.record.get("split")
    if split is None:
        return
    found = predictions.read(run.folder / "predictions.csv")
    if found.classes != run.record.get("classes"):
        yield Finding(PROBLEM, run.id, f"its predictions are of the classes {', '.join(found.classes)}, its record "
                                       f"says {', '.join(run.record.get('classes') or ())}")
        return
    labels = found.label_indices()
    if (labels < 0).any():
        yield Finding(NOTE, run.id, f"{int((labels < 0).sum()):,} of its documents have no label")
        return
    for name, recorded in _recorded(run).items():
        value = _recomputed(name, labels, found.probabilities)
        if value is not None and abs(value - recorded) > _TOLERANCE[name] * max(1.0, abs(recorded)):
            yield Finding(PROBLEM, run.id, f"its predictions give {name} {value:.6g}, its record says {recorded:.6g}")
    confusion = run.record.get("confusion")
    if confusion is not None and not np.array_equal(metrics.confusion(labels, found.probabilities), confusion):
        yield Finding(PROBLEM, run.id, "its predictions give another confusion matrix than its record")
    counts = np.bincount(labels, minlength=len(found.classes))
    missing = [name for name, count in zip(found.classes, counts) if not count]
    if missing:
        yield Finding(NOTE, run.id, f"no document of {split} is of class {', '.join(missing)}")
    yield from _complete(runs, run, found, split, documents)
    if run.stage == "ensemble":
        yield from _average(runs, run, found)


def _recorded(run: Run) -> dict[str, float]:
    return {name: value for name, value in (run.record["metrics"].get("last") or {}).items() if name in _TOLERANCE}


def _recomputed(name: str, labels: np.ndarray, probabilities: np.ndarray) -> float | None:
    if name == "error":
        return metrics.error_percent(labels, probabilities)
    if name == "macro_f1":
        return metrics.macro_f1(labels, probabilities)
    # A label's probability may be too small for six digits, and the loss of zero is infinite.
    if (probabilities[np.arange(len(labels)), labels] < 1e-6).any():
        return None
    return metrics.log_loss(labels, probabilities)


def _complete(runs: Archive, run: Run, found: predictions.Predictions, split: str, documents: dict) \
        -> Iterator[Finding]:
    tokens = next((each for each in reversed(runs.ancestors(run))
                   if each.stage == "create_toks" and each.dataset == run.dataset), None)
    if tokens is None:
        yield Finding(NOTE, run.id, "whether its predictions are complete cannot be told without the record of "
                                    "create_toks")
        return
    expected = (tokens.record.get("splits") or {}).get(split, {}).get("documents")
    if expected is not None and expected != len(found.documents):
        yield Finding(PROBLEM, run.id, f"has predictions of {len(found.documents):,} documents; {split} has "
                                       f"{expected:,}")
    known = _documents(tokens, documents)
    if known is None:
        return
    if strange := set(found.documents) ^ set(known.get(split, {})):
        yield Finding(PROBLEM, run.id, f"{len(strange):,} documents are only among its predictions or only in {split}, "
                                       f"such as {min(strange)}")


def _average(runs: Archive, run: Run, found: predictions.Predictions) -> Iterator[Finding]:
    """An ensemble predicts the average of its members, by the weights that its flag says, and gains what it records."""
    given = {kind: [runs.parent(run, role) for role in run.record["inputs"] if role.startswith(kind)]
             for kind in ("member", "val")}
    weights, count = run.config.get("weights"), len(given["member"])
    if (runs.stale(run) or None in given["member"] + given["val"] or not count
            or len(given["val"]) != (count if weights == ensemble.CHOSEN_ON_VAL else 0)):
        return  # said already: members that were made anew or are not here, or a record whose inputs were edited
    members, on_val = ([ensemble.Member(each.id, each.folder, each.record,
                                        predictions.read(each.folder / "predictions.csv")) for each in given[kind]]
                       for kind in ("member", "val"))
    first, shares = members[0], run.record.get("weights")
    for other in members[1:]:
        ensemble.check_joinable(first, other)
    theirs = first.predictions
    if (found.documents, found.labels, found.classes) != (theirs.documents, theirs.labels, theirs.classes):
        yield Finding(PROBLEM, run.id, f"its documents or labels are not those of {first.id}, its first member")
        return
    expected = ensemble.shares_of(weights, count, on_val)
    if not _same(shares, expected):
        yield Finding(PROBLEM, run.id, f"its flags give the weights {expected}, its record says {shares}")
        return
    apart = np.abs(found.probabilities - ensemble.average([each.predictions for each in members], shares)).max(axis=1)
    if apart.max() > _SIX_DIGITS:
        yield Finding(PROBLEM, run.id, f"its predictions are not the average of its members', as of "
                                       f"{found.documents[int(apart.argmax())]}")
    for name, value in ensemble.gain(members, found.probabilities).facts().items():
        if name in run.record and not _same(run.record[name], value):
            said = f"{name} {value}, its record says {run.record[name]}" if isinstance(value, float) else (
                f"other `{name}` than its record says")
            yield Finding(PROBLEM, run.id, f"its members' predictions give {said}")


def _same(recorded: object, value: object) -> bool:
    """Whether two values of JSON are the same, numbers to six digits."""
    if isinstance(value, dict) and isinstance(recorded, dict):
        return recorded.keys() == value.keys() and all(_same(recorded[name], value[name]) for name in value)
    if isinstance(value, list) and isinstance(recorded, list):
        return len(recorded) == len(value) and all(map(_same, recorded, value))
    if isinstance(value, float) and isinstance(recorded, (int, float)):
        return math.isclose(recorded, value, rel_tol=1e-6, abs_tol=1e-6)
    return recorded == value


def _documents(tokens: Run, documents: dict) -> dict[str, dict[str, str]] | None:
    """The text hash of each document by split, None where an earlier version did not record them."""
    if tokens.id not in documents:
        path, found = tokens.folder / text_hashes.FILE, None
        if path.exists():
            found = {}
            for row in text_hashes.read(path):
                found.setdefault(row.split, {})[row.document] = row.hash
        documents[tokens.id] = found
    return documents[tokens.id]


def duplicates(documents: dict[str, dict[str, str]]) -> dict[str, int]:
    """`test in train`: how many documents of the one split have a text that is in the other."""
    splits = [split for split in names.SPLITS if split in documents]
    texts = {split: set(documents[split].values()) for split in splits}
    return {f"{later} in {earlier}": sum(mark in texts[earlier] for mark in documents[later].values())
            for number, later in enumerate(splits) for earlier in splits[:number]}


def _corpus(run: Run, documents: dict) -> Iterator[Finding]:
    """No document in two splits; how many texts are, recounted from their hashes."""
    if run.stage != "create_toks":
        return
    recorded = run.record.get("duplicates") or {}
    for pair, count in recorded.items():
        if count:
            later, earlier = pair.split(" in ")
            yield Finding(NOTE, run.id, f"{count:,} texts of {later} are also in {earlier}")
    known = _documents(run, documents)
    if known is None:
        yield Finding(NOTE, run.id, "was made before texts' hashes were recorded; its own count of duplicates is all "
                                    "there is")
        return
    for split, stated in (run.record.get("splits") or {}).items():
        if stated["documents"] != len(known.get(split, {})):
            yield Finding(PROBLEM, run.id, f"records hashes of {len(known.get(split, {})):,} documents of {split}, "
                                           f"which has {stated['documents']:,}")
    counted = Counter(document for own in known.values() for document in own)
    if twice := [document for document, count in counted.items() if count > 1]:
        yield Finding(PROBLEM, run.id, f"{len(twice):,} documents are in two splits, such as {twice[0]}")
    if recorded and (again := duplicates(known)) != recorded:
        wrong = next(pair for pair in {**recorded, **again} if recorded.get(pair) != again.get(pair))
        yield Finding(PROBLEM, run.id, f"its hashes give {again.get(wrong)} texts of {wrong}, its record says "
                                       f"{recorded.get(wrong)}")


def check(results_dir: str | None = None, stage: str | None = None, dataset: str | None = None,
          match: str | None = None, quiet: bool = False) -> None:
    """Does what the records say hold? Ends with status 1 where something does not.

    Example: python -m analysis check --dataset=imdb

    Recomputes fingerprints from flags and inputs, compares inputs with the runs that made them, metrics with the
    predictions, the best and the last epoch with metrics.jsonl, an ensemble with the average of its members;
    predictions must be complete; no document may be in two splits. Says which texts are in two splits, by the hashes
    that create_toks records, which runs did not finish, and what cannot be told. --quiet leaves the notes out.
    """
    runs = archive.load(results_dir)
    chosen = listed(runs, stage, dataset, None, match)
    if runs.runs and not chosen:
        raise UserError("none of the runs fits these filters; `python -m analysis runs` lists them")
    found = list(findings(runs, chosen))
    for kind, run, what in found:
        if kind == PROBLEM or not quiet:
            print(f"{kind}: {run + ': ' if run else ''}{what}")
    problems = sum(finding.kind == PROBLEM for finding in found)
    print(f"{len(chosen):,} runs checked, {problems} problems, {len(found) - problems} notes")
    if problems:
        raise UserError(f"{problems} of the findings are problems")
