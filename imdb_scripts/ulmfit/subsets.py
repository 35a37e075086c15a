"""Subsets of the training split: balanced ones are drawn, of which a larger holds the smaller ones of its seed."""

import hashlib
from itertools import takewhile
from pathlib import Path
from typing import Sequence

import numpy as np

from . import corpus, names, records, vocab
from .errors import UserError


def balanced_order(rows: Sequence[int], labels: Sequence[int], n_classes: int, seed: int) -> list[int]:
    """The rows in the order in which subsets take them: the classes in turn, each class's rows at random.

    Any beginning of it is balanced: the counts of two classes differ by one at most, and the first classes have the
    more. It ends where the class whose turn it is has no row left.

    rows: row numbers of train.csv. labels: the class of each, 0 to n_classes - 1. A row's place among its class
    depends on its number and the seed, not on which other rows there are.
    """
    keys = corpus.fixed_order(max(rows, default=-1) + 1, seed)
    members: list[list[int]] = [[] for _ in range(n_classes)]
    for row, label in sorted(zip(rows, labels), key=lambda pair: keys[pair[0]]):
        members[label].append(row)
    smallest = min(len(member) for member in members)
    turns = [member[turn] for turn in range(smallest) for member in members]
    return turns + [member[smallest] for member in takewhile(lambda member: len(member) > smallest, members)]


def csv_rows(documents: vocab.Documents) -> list[int]:
    """The row number in the csv file of each document."""
    return [int(document.partition(":")[2]) for document in documents.document_ids]


def check_classes(classes: Sequence[str], source: Path) -> None:
    """Raises UserError when there are no two classes. source: what the message says they are of."""
    if len(classes) < 2:
        raise UserError(f"{source}: its training documents have {len(classes)} classes, at least 2 are needed "
                        f"(create_toks --n_lbls=1 reads the label from the first column)")


def check_every_class(labels: np.ndarray, classes: Sequence[str], source: Path) -> None:
    """Raises UserError when there are no two classes, or none of the training documents is of one of them."""
    check_classes(classes, source)
    for name, count in zip(classes, np.bincount(labels, minlength=len(classes))):
        if not count:
            raise UserError(f"{source} holds no training document of class {name!r}; this classifier needs one of each")


def sample(documents: vocab.Documents, classes: Sequence[str], n: int, seed: int) -> list[int]:
    """Row numbers of a balanced subset of `n` documents, in the order drawn.

    Raises UserError when there are too few labels, or too few documents of one class.
    """
    where = documents.folder
    check_classes(classes, where)
    if n < len(classes):
        raise UserError(f"--n={n} leaves some of the {len(classes)} classes of {where} without a document; "
                        f"the smallest balanced subset has {len(classes)}")
    labels = documents.labels.tolist()
    order = balanced_order(csv_rows(documents), labels, len(classes), seed)
    if n > len(order):
        count, name = min((labels.count(number), name) for number, name in enumerate(classes))
        raise UserError(f"--n={n}: class {name!r} of {where} has {count} training documents only; the largest "
                        f"balanced subset has {len(order)}")
    return order[:n]


def labels_input(documents: vocab.Documents, classes: Sequence[str], run: str) -> records.Input:
    """The training split as a run's input when only its rows and labels are read, whatever tokens and vocabulary."""
    content = "".join(f"{document},{classes[label]}\n"
                      for document, label in zip(documents.document_ids, documents.labels.tolist()))
    return records.Input(names.portable(documents.folder), hashlib.sha256(content.encode()).hexdigest()[:16], run)
