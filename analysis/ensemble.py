"""The average of several classifiers' predictions, as of the forward and the backward one, a run of its own."""

import hashlib
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from ulmfit import metrics, names, predictions, records
from ulmfit.errors import UsageError, UserError
from ulmfit.predictions import Predictions
from ulmfit.records import Input

from .archive import results_folder
from .rendering import align


@dataclass(frozen=True)
class Member:
    """A finished run with predictions."""

    id: str
    folder: Path
    record: dict
    predictions: Predictions


def average(members: list[Predictions]) -> np.ndarray:
    """Mean of the probabilities, shape (documents, classes), in the order of the first member's documents.

    The documents must be the same; each member may hold them in an order of its own.
    """
    first, total = members[0].documents, np.zeros_like(members[0].probabilities)
    for member in members:
        row = {document: index for index, document in enumerate(member.documents)}
        total += member.probabilities[[row[document] for document in first]]
    return total / len(members)


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


def ensemble_id(members: list[Member]) -> str:
    """The id of the average: the fields of the members' ids, `+` where they differ, the split, and a digest of the ids.

    The digest tells sets apart that read alike: fwd+bwd of s0+s1 may be two runs or four.
    """
    dataset, split = members[0].record["dataset"], members[0].record["split"]
    digest = hashlib.sha256("\n".join(member.id for member in members).encode()).hexdigest()[:8]
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


def _report(record: dict, folder: Path) -> tuple[list[str], str]:
    """The table of members and average, and the one line that says the result."""
    ensemble_metrics = record["metrics"]["last"]
    rows = [("run", "error %"), *((name, f"{error:.2f}") for name, error in record["members"].items()),
            (f"average of {len(record['members'])}", f"{ensemble_metrics['error']:.2f}")]
    result = (f"error {ensemble_metrics['error']:.2f}% on {ensemble_metrics['n']} documents of {record['dataset']} "
              f"{record['split']}, a gain of {record['gain']:+.2f} points over its members' mean and "
              f"{record['gain_over_best']:+.2f} over the best; record in {names.portable(folder)}")
    return align(rows, right=(1,)), result


def ensemble(*runs: str, results_dir: str | None = None, overwrite: bool = False, quiet: bool = False) -> None:
    """Averages the class probabilities of two or more classifiers over the same documents.

    Example: python -m analysis ensemble imdb--eval_clas--fwd--word--default--all--s0--test \\
                 imdb--eval_clas--bwd--word--default--all--s0--test

    Reads the predictions.csv of each run (eval_clas, or train_clas for val), joined on the documents' ids; the runs
    must have the dataset, split, documents, labels and classes in common. Writes a run of its own with
    predictions.csv and the error in %, log loss (nats) and macro F1; each run weighs the same, in whatever order they
    are given.
    """
    if len(runs) < 2:
        raise UsageError(f"ensemble averages two runs or more, {len(runs)} given; "
                         f"`python -m analysis runs` lists what there is")
    results = results_folder(results_dir)
    members = [_member(run, results) for run in runs]
    ids = [member.id for member in members]
    twice = next((name for name in ids if ids.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{twice} is given twice; each run counts once in an average")
    for other in members[1:]:
        check_joinable(members[0], other)
    # Sorted, so that the same set of runs is the same run, to the last digit.
    members.sort(key=lambda member: member.id)
    first = members[0]
    labels = first.predictions.label_indices()
    if (labels < 0).any():
        unknown = first.predictions.documents[int(np.argmin(labels))]
        raise UserError(f"{first.id}: the label of {unknown} is unknown, so the error cannot be told")

    inputs = {f"member{number}": Input(names.portable(member.folder), member.record["fingerprint"], member.id)
              for number, member in enumerate(members, start=1)}
    words = [member.id if member.folder == names.run_folder(results, member.id) else names.portable(member.folder)
             for member in members]
    flags = {"results_dir": results_dir, "overwrite": overwrite, "quiet": quiet}
    with records.open_run(ensemble, ensemble_id(members), flags, inputs, dataset=first.record["dataset"],
                          program=("python", "-m", "analysis", "ensemble", *words)) as run:
        if run.reused:
            table, result = _report(run.record, run.folder)
            print("\n".join([*([] if quiet else table), result]))
            return
        mean = average([member.predictions for member in members])
        path = run.folder / "predictions.csv"
        predictions.write(path, first.predictions.documents, first.predictions.labels, mean, first.predictions.classes)
        # The numbers are those of the file, so that whoever reads it finds the same.
        values = metrics.classification(labels, predictions.read(path).probabilities)
        errors = {}
        for member in members:
            own = member.predictions
            errors[member.id] = metrics.error_percent(own.label_indices(), own.probabilities)
        run.finish(metrics={"last": values, "best": values}, split=first.record["split"],
                   classes=first.predictions.classes, members=errors,
                   gain=float(np.mean(list(errors.values()))) - values["error"],
                   gain_over_best=min(errors.values()) - values["error"])
        table, result = _report(run.record, run.folder)
        for line in table:
            run.say(line)
        run.say(result, important=True)
