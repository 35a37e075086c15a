"""The average of several classifiers' predictions, as of the forward and the backward one, a run of its own."""

import hashlib
import math
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Sequence

import numpy as np

from ulmfit import metrics, names, predictions, records
from ulmfit.errors import UsageError, UserError
from ulmfit.lineage import Lineage
from ulmfit.predictions import Predictions
from ulmfit.records import Input

from . import statistics
from .aligned import align
from .archive import load, results_folder


CHOSEN_ON_VAL = "val"


@dataclass(frozen=True)
class Member:
    """A finished run with predictions."""

    id: str
    folder: Path
    record: dict
    predictions: Predictions


def average(members: list[Predictions], weights: Sequence[float] | None = None) -> np.ndarray:
    """Mean of the probabilities, shape (documents, classes), in the order of the first member's documents.

    The documents must be the same; each member may hold them in an order of its own. weights: one a member, summing to
    1; without them each counts the same.
    """
    total = np.zeros_like(members[0].probabilities)
    for member, weight in zip(members, weights or [1.0] * len(members), strict=True):
        total += weight * in_order_of(members[0], member)
    return total if weights else total / len(members)


def in_order_of(first: Predictions, member: Predictions) -> np.ndarray:
    """The member's probabilities in the order of the first one's documents."""
    row = {document: index for index, document in enumerate(member.documents)}
    return member.probabilities[[row[document] for document in first.documents]]


def check_joinable(first: Member, other: Member) -> None:
    """Raises UserError, in one line, when two runs did not predict the same documents."""
    def refuse(what: str) -> None:
        raise UserError(f"{other.id} and {first.id} cannot be averaged: {what}")

    for key in ("dataset", "split"):
        if first.record[key] != other.record[key]:
            refuse(f"the {key} is {other.record[key]} there, {first.record[key]} here")
    mine, theirs = first.predictions, other.predictions
    if mine.classes != theirs.classes:
        refuse(f"the classes are {', '.join(theirs.classes)} there, {', '.join(mine.classes)} here")
    missing = set(mine.documents) ^ set(theirs.documents)
    if missing:
        example = min(missing)
        refuse(f"{len(missing)} documents are in one of them only, such as {example}")
    labels = dict(zip(theirs.documents, theirs.labels))
    for document, label in zip(mine.documents, mine.labels):
        if labels[document] != label:
            refuse(f"the label of {document} is {labels[document]!r} there, {label!r} here")


def ensemble_id(members: list[Member], weights: str | None = None) -> str:
    """The id of the average: the fields of the members' ids, `+` where they differ, the split, and a digest of the ids.

    The digest tells sets apart that read alike: fwd+bwd of s0+s1 may be two runs or four. weights: as the flag.
    """
    dataset, split = members[0].record["dataset"], members[0].record["split"]
    content = [member.id for member in members] + ([weights] if weights else [])
    digest = hashlib.sha256("\n".join(content).encode()).hexdigest()[:8]
    fields = []
    for member in members:
        own = member.id.split(names.SEPARATOR)[2:]
        fields.append(own[:-1] if own[-1:] == [split] else own)
    # From the right, as a baseline has no direction: its other fields then stand under those of the same kind.
    merged = ["+".join(dict.fromkeys(value for value in values if value))
              for values in zip_longest(*map(reversed, fields))][::-1]
    run_id = names.run_id(dataset, "ensemble", *merged, split, digest)
    # A folder's name may have 255 bytes.
    return run_id if len(run_id) <= 200 else names.run_id(dataset, "ensemble", f"{len(members)}runs", split, digest)


def _member(run: str, results: Path) -> Member:
    """A run by its id, or by the path of its folder."""
    by_id = names.run_folder(results, run)
    folder = by_id if "/" not in run and by_id.is_dir() else Path(run)
    if not folder.is_dir():
        raise UserError(f"there is no run {run} in {results / 'runs'}; `python -m analysis runs` lists what there is")
    record = records.read_run(folder)
    name = record.get("id", run)
    if record.get("status") != "finished":
        raise UserError(f"{name} is not finished ({record.get('status')}); ask for it again: {record.get('command')}")
    if record.get("stage") == "ensemble":
        raise UserError(f"{name} is an average itself; name its members ({', '.join(record.get('parents', ()))})")
    if record.get("split") is None or not (folder / "predictions.csv").exists():
        raise UserError(f"{name} has no predictions; expected a run of train_clas or eval_clas")
    return Member(name, folder, record, predictions.read(folder / "predictions.csv"))


def _labels(member: Member) -> np.ndarray:
    """The labels' indices, shape (documents,). Raises UserError where one is unknown."""
    labels = member.predictions.label_indices()
    if (labels < 0).any():
        unknown = member.predictions.documents[int(np.argmin(labels))]
        raise UserError(f"{member.id}: the label of {unknown} is unknown, so the error cannot be told")
    return labels


def parse_weights(weights: str, count: int) -> list[float] | None:
    """`2,1` as [2.0, 1.0]; None for `val`. Raises UsageError."""
    if weights == CHOSEN_ON_VAL:
        return None
    try:
        values = [float(part) for part in weights.split(",")]
    except ValueError:
        values = []
    if len(values) != count or not all(math.isfinite(value) and value >= 0 for value in values) or not sum(values):
        raise UsageError(f"--weights={weights!r}: {count} numbers of 0 or more are expected, one a run in their order, "
                         f"separated by commas and not all 0; or {CHOSEN_ON_VAL}: chosen on validation")
    return values


def _on_val(member: Member, results: Path) -> Member:
    """The run with the same model's predictions of val. Raises UserError when it is not there."""
    if member.record["split"] != "test":
        raise UserError(f"--weights={CHOSEN_ON_VAL}: {member.id} is of {member.record['split']}, and weights may not "
                        f"be chosen on what they are measured on; name runs of test, or give numbers")
    if member.record["stage"] == "eval_clas":
        given = member.record["inputs"]["classifier"]
        run, mark = given["run"], given["fingerprint"]
    else:
        run, mark = member.id.removesuffix("test") + "val", None
    found = _member(run, results)
    same = (found.record["fingerprint"] == mark if mark else
            {**found.record["config"], "split": "test"} == member.record["config"]
            and found.record["inputs"] == member.record["inputs"])
    if not same or found.record["split"] != "val":
        raise UserError(f"{run} does not hold the validation predictions of the model of {member.id} (any more); make "
                        f"both again")
    return found


def weights_on_val(members: list[Member]) -> list[float]:
    """The weights whose average has the lowest log loss on these validation predictions.

    Raises UserError when they are not of the same documents.
    """
    for other in members[1:]:
        check_joinable(members[0], other)
    first, labels = members[0].predictions, _labels(members[0])
    of_label = np.column_stack([in_order_of(first, member.predictions)[np.arange(len(labels)), labels]
                                for member in members])
    # Rounded to what the record shows, so that the weights told are the weights used.
    rounded = np.round(statistics.mixture_weights(of_label), 4)
    return (rounded / rounded.sum()).tolist()


def shares_of(weights: str | None, count: int, on_val: list[Member]) -> list[float] | None:
    """The members' weights, which sum to 1, by the flag as the record has it; None where each counts the same.

    on_val: the members' validation predictions where the flag is `val`. Raises UsageError as `parse_weights`.
    """
    if weights is None:
        return None
    given = parse_weights(weights, count)
    return weights_on_val(on_val) if given is None else [weight / sum(given) for weight in given]


@dataclass(frozen=True)
class Gain:
    """What the average gains, in points of error (positive: it is better).

    mean, best: over the members' mean error and over the best member. interval: 95% of `mean` over documents. p: exact
    McNemar test against the best member. members: for each its error, how much higher it is than the average's, the 95%
    interval of that, McNemar's p and Holm's.
    """

    mean: float
    best: float
    interval: statistics.Interval
    p: float
    members: list[dict]

    def facts(self) -> dict:
        """What the record says of it."""
        return {"members": {row["run"]: row["error"] for row in self.members}, "gain": self.mean,
                "gain_over_best": self.best, "gain_interval": [self.interval.low, self.interval.high],
                "p_over_best": self.p, "comparisons": self.members}


def gain(members: list[Member], averaged: np.ndarray) -> Gain:
    """averaged: probabilities (documents, classes) in the order of the first member's documents."""
    first, labels = members[0].predictions, _labels(members[0])
    wrong = np.column_stack([in_order_of(first, member.predictions).argmax(axis=1) != labels for member in members])
    ours = (averaged.argmax(axis=1) != labels)[:, None]
    rates = statistics.document_replicates(np.hstack([wrong, ours]))
    errors, own = 100 * wrong.mean(axis=0), float(100 * ours.mean())
    tests = [statistics.document_test(wrong[:, [number]], ours) for number in range(len(members))]
    rows = []
    for number, adjusted in enumerate(statistics.holm([test.p for test in tests])):
        spread = statistics.percentile_interval(rates[:, number] - rates[:, -1])
        rows.append({"run": members[number].id, "error": float(errors[number]), "above": float(errors[number] - own),
                     "low": spread.low, "high": spread.high, "p": tests[number].p, "p_holm": adjusted})
    best = int(np.argmin(errors))
    return Gain(float(errors.mean() - own), float(errors[best] - own),
                statistics.percentile_interval(rates[:, :-1].mean(axis=1) - rates[:, -1]), tests[best].p, rows)


def _report(record: dict, folder: Path, found: Gain) -> tuple[list[str], str]:
    """The table of members and average, and the one line that says the result."""
    ensemble_metrics, weights = record["metrics"]["last"], record.get("weights")
    rows = [("run", *(["weight"] if weights else []), "error %", "above the average", "95% interval", "p", "p Holm")]
    for number, row in enumerate(found.members):
        rows.append((row["run"], *([f"{weights[number]:.4f}"] if weights else []), f"{row['error']:.2f}",
                     f"{row['above']:+.2f}", f"[{row['low']:+.2f}, {row['high']:+.2f}]", f"{row['p']:.3g}",
                     f"{row['p_holm']:.3g}"))
    last = f"{'weighted ' if weights else ''}average of {len(found.members)}"
    rows.append((last, *([""] if weights else []), f"{ensemble_metrics['error']:.2f}", "", "", "", ""))
    result = (f"error {ensemble_metrics['error']:.2f}% on {ensemble_metrics['n']} documents of {record['dataset']} "
              f"{record['split']}, a gain of {found.mean:+.2f} points [{found.interval.low:+.2f}, "
              f"{found.interval.high:+.2f}] over its members' mean and {found.best:+.2f} over the best (p "
              f"{found.p:.3g}, exact McNemar test); record in {names.portable(folder)}")
    return align(rows, right=range(1, len(rows[0]))), result


def ensemble(*runs: str, results_dir: str | None = None, overwrite: bool = False, quiet: bool = False,
             weights: str | None = None) -> None:
    """Averages the class probabilities of two or more classifiers over the same documents.

    Example: python -m analysis ensemble imdb--eval_clas--fwd--word--default--all--s0--test \\
                 imdb--eval_clas--bwd--word--default--all--s0--test

    Reads the predictions.csv of each run (eval_clas, train_baseline, or train_clas for val), joined on the documents'
    ids; the runs must have the dataset, split, documents, labels and classes in common. Writes a run of its own with
    predictions.csv, the error in %, log loss (nats) and macro F1, each member's error, the gain with its interval over
    documents and McNemar's exact test.

    Each run weighs the same, in whatever order they are given. --weights=2,1 weighs them in the order given;
    --weights=val takes the weights with the lowest log loss on the validation predictions of the same models.
    """
    if len(runs) < 2:
        raise UsageError(f"ensemble averages two runs or more, {len(runs)} given; "
                         f"`python -m analysis runs` lists what there is")
    given = parse_weights(weights, len(runs)) if weights is not None else None
    results = results_folder(results_dir)
    members = [_member(run, results) for run in runs]
    archive = load(results)
    for member in members:
        run = archive.runs.get(member.id)
        if run is not None and run.folder.resolve() == member.folder.resolve() and (why := archive.stale(run)):
            raise UserError(f"{member.id} is stale ({why}); make it again: {member.record.get('command')} --overwrite")
    ids = [member.id for member in members]
    twice = next((name for name in ids if ids.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{twice} is given twice; each run counts once in an average")
    for other in members[1:]:
        check_joinable(members[0], other)
    # Sorted, so that the same set of runs is the same run, to the last digit.
    members.sort(key=lambda member: member.id)
    first = members[0]
    labels = _labels(first)
    inputs = _inputs("member", members)
    on_val = []
    if given is not None:
        by_id = dict(zip(ids, given))
        weights = ",".join(f"{by_id[member.id]:g}" for member in members)
    elif weights is not None:
        on_val = [_on_val(member, results) for member in members]
        inputs |= _inputs("val", on_val)
    shares = shares_of(weights, len(members), on_val)
    words = [member.id if member.folder == names.run_folder(results, member.id) else names.portable(member.folder)
             for member in members]
    flags = {"results_dir": results_dir, "overwrite": overwrite, "quiet": quiet, "weights": weights}
    with records.open_run(ensemble, ensemble_id(members, weights), flags, inputs, dataset=first.record["dataset"],
                          program=("python", "-m", "analysis", "ensemble", *words)) as run:
        path = run.folder / "predictions.csv"
        if run.reused:
            table, result = _report(run.record, run.folder, gain(members, predictions.read(path).probabilities))
            print("\n".join([*([] if quiet else table), result]))
            return
        mean = average([member.predictions for member in members], shares)
        predictions.write(path, first.predictions.documents, first.predictions.labels, mean, first.predictions.classes)
        # The numbers are those of the file, so that whoever reads it finds the same.
        written = predictions.read(path).probabilities
        values, found = metrics.classification(labels, written), gain(members, written)
        run.finish(metrics={"last": values, "best": values}, split=first.record["split"],
                   classes=first.predictions.classes, **found.facts(), **({"weights": shares} if shares else {}))
        table, result = _report(run.record, run.folder, found)
        for line in table:
            run.say(line)
        run.say(result, important=True)


def lineage(flags: dict) -> Lineage:
    """What an average of these runs reads and writes; see `ulmfit.lineage`.

    Dataset and split are read from the members' ids, as the runs need not be there yet.
    """
    results = names.results_folder(flags["results_dir"])
    folders = sorted((names.run_folder(results, run) if "/" not in run else Path(run) for run in flags["runs"]),
                     key=lambda folder: folder.name)
    if len(folders) < 2:
        raise UsageError(f"ensemble averages two runs or more, {len(folders)} given")
    dataset, stage, *_, last = folders[0].name.split(names.SEPARATOR)
    record = {"dataset": dataset, "split": "val" if stage == "train_clas" else last}
    weights = flags["weights"]
    if weights == CHOSEN_ON_VAL:
        raise UsageError("--weights=val reads runs on val that a plan does not name; in a plan give numbers, or no weights")
    if weights is not None:
        # As `ensemble` writes them into the id: in the order of the members' names.
        given = dict(zip((Path(run).name for run in flags["runs"]), parse_weights(weights, len(folders))))
        weights = ",".join(f"{given[folder.name]:g}" for folder in folders)
    run_id = ensemble_id([Member(folder.name, folder, record, Predictions([], [], [], np.empty((0, 0))))
                          for folder in folders], weights)
    return Lineage(ensemble, run_id, dataset, {name: value for name, value in flags.items() if name != "runs"},
                   {f"member{number}": (folder,) for number, folder in enumerate(folders, start=1)})


def _inputs(role: str, members: list[Member]) -> dict[str, Input]:
    return {f"{role}{number}": Input(names.portable(member.folder), member.record["fingerprint"], member.id,
                                     records.content_of(member.folder))
            for number, member in enumerate(members, start=1)}
