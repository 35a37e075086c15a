"""Predictions of a run as a csv file: a document a row, in the documents' own order.

    document,label,p:neg,p:pos
    test:0,pos,0.0312,0.9688

A document's id is its split and csv row, so that runs whatever their tokens or direction can be joined on it.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

import numpy as np

from . import files
from .errors import UserError

_PREFIX = "p:"


@dataclass(frozen=True)
class Predictions:
    """documents: ids, all different. labels: class names, "" where unknown. classes: names, one a column.
    probabilities: float64, shape (documents, classes)."""

    documents: list[str]
    labels: list[str]
    classes: list[str]
    probabilities: np.ndarray

    def label_indices(self) -> np.ndarray:
        """Position of each label among `classes`, shape (documents,); -1 where it is unknown."""
        position = {name: index for index, name in enumerate(self.classes)}
        return np.array([position[label] if label else -1 for label in self.labels], dtype=np.int64)


def write(path: Path, document_ids: Sequence[str], labels: Sequence[str], probabilities: np.ndarray,
          classes: Sequence[str]) -> None:
    """Writes the file whole or not at all.

    labels: class names, "" where unknown. probabilities: shape (documents, classes), written to six digits, and to all
    where the two largest are so near that six could make another class the most likely. Raises UserError when a
    probability is not a number (training that diverged).
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.shape != (len(document_ids), len(classes)) or len(labels) != len(document_ids):
        raise ValueError(f"{len(document_ids)} documents, {len(labels)} labels and {len(classes)} classes do not fit "
                         f"probabilities of shape {probabilities.shape}")
    finite = np.isfinite(probabilities).all(axis=1)
    if not finite.all():
        raise UserError(f"{path}: the probabilities of {document_ids[int(np.argmin(finite))]} are not numbers: the "
                        f"training diverged; train again with a lower --lr")
    with files.replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["document", "label", *(_PREFIX + name for name in classes)])
        for document, label, row, near in zip(document_ids, labels, probabilities, _near(probabilities)):
            rows.writerow([document, label, *(("%.17g" if near else "%.6g") % value for value in row)])


def _near(probabilities: np.ndarray) -> np.ndarray:
    """Rows whose two largest values six digits may not tell apart, shape (documents,)."""
    if probabilities.shape[1] < 2:
        return np.zeros(len(probabilities), dtype=bool)
    second, first = np.partition(probabilities, -2, axis=1)[:, -2:].T
    return first - second < 1e-5 * first


def read(path: Path) -> Predictions:
    """Reads what `write` wrote. Raises UserError with the file and the line of what does not fit."""
    if not Path(path).is_file():
        raise UserError(f"{path}: there is no such file; expected the predictions of a finished run")
    documents: dict[str, None] = {}
    labels, probabilities = [], []
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = next(rows, [])
            if header[:2] != ["document", "label"] or len(header) < 3 or not all(
                    name.startswith(_PREFIX) for name in header[2:]):
                raise UserError(f"{path}, line 1: expected the header document,label,{_PREFIX}CLASS,...")
            classes = [name.removeprefix(_PREFIX) for name in header[2:]]
            if len(set(classes)) < len(classes):
                raise UserError(f"{path}, line 1: a class stands there twice")
            for row in rows:
                problem = _problem(row, classes, documents)
                if problem:
                    raise UserError(f"{path}, line {rows.line_num}: {problem}")
                documents[row[0]] = None
                labels.append(row[1])
                probabilities.append([float(value) for value in row[2:]])
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not readable as csv ({error}); make its run again with --overwrite") from error
    if not documents:
        raise UserError(f"{path} holds no documents; make its run again with --overwrite")
    return Predictions(list(documents), labels, classes, np.array(probabilities, dtype=np.float64))


def _problem(row: list[str], classes: list[str], earlier: dict[str, None]) -> str | None:
    """What is wrong with a row, None when nothing is."""
    if len(row) != len(classes) + 2:
        return f"expected {len(classes) + 2} columns, found {len(row)}"
    document, label, *values = row
    if document in earlier:
        return f"document {document} stands in an earlier line too"
    if label and label not in classes:
        return f"label {label!r} is none of the classes {', '.join(classes)}"
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return f"expected probabilities, found {','.join(values)}"
    # Six digits a class are written: the sum is off by less than a millionth a class. NaN fails both comparisons.
    if not (all(0 <= number <= 1 for number in numbers) and abs(sum(numbers) - 1) < 1e-3):
        return f"expected probabilities that sum to 1, found {','.join(values)}"
    return None
