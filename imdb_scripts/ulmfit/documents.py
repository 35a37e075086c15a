"""Documents on their way to the csv files of a corpus, which take their places together."""

from collections import Counter
from contextlib import ExitStack
from csv import QUOTE_ALL
from csv import writer as csv_writer
from pathlib import Path
from typing import Iterable, NamedTuple

from . import corpus, files, names, records
from .errors import UserError

# A longer "label" is a text: the label column is another one.
LONGEST_LABEL = 100
NO_LABEL = "none"


class Document(NamedTuple):
    """One document on its way to a csv file. `label` is None without one; `shown` and `row` say where it was found."""

    split: str
    label: str | None
    texts: list[str]
    shown: str
    row: int | None = None

    def error(self, problem: str) -> UserError:
        if self.row is None:
            return UserError(f"{self.shown}: {problem}")
        return corpus.row_error(self.shown, self.row, problem)


def csvs_made_before(data: names.DataFolder, overwrite: bool, source: Path | None = None) -> set[str]:
    """The splits in the folder that a stage made, by its manifest. source: what the new csv files are made from.

    Raises:
        UserError: when the source is one of the csv files that would be replaced; unless `overwrite`, when the folder
            holds csv files of the user's, or ours were changed or lost.
    """
    if source is not None:
        own = {data.csv(split).resolve() for split in names.SPLITS if data.csv(split).exists()}
        found = sorted(own & {path.resolve() for path in (source.iterdir() if source.is_dir() else (source,))})
        if found:
            raise UserError(f"--source: {names.portable(found[0])} would be replaced by what is made from it; give "
                            f"another --dir_path")
    made = records.last_manifest(data.path).get("splits", {})
    if not overwrite:
        present = [split for split in names.SPLITS if data.csv(split).exists()]
        if present and not made:
            raise UserError(f"{data.path} holds {present[0]}.csv, which this project did not make; choose another "
                            f"--dir_path, or replace it with --overwrite")
        for split, facts in made.items():
            if split not in present or files.sha256(data.csv(split)) != facts["sha256"]:
                raise UserError(f"{data.csv(split)} is not as it was made; --overwrite makes it again")
    return set(made)


class _SplitWriter:
    """One csv file of the corpus, and what is counted while it is written."""

    def __init__(self, path: Path, temporary: Path, stack: ExitStack):
        self.path, self.temporary = path, temporary
        self.rows = 0
        self.labels: Counter[str] = Counter()
        self.first: dict[str, Document] = {}
        self.file = stack.enter_context(open(temporary, "w", encoding="utf-8", newline=""))
        self.plain = csv_writer(self.file, lineterminator="\n")
        self.quoting = csv_writer(self.file, lineterminator="\n", quoting=QUOTE_ALL)

    def write(self, document: Document) -> None:
        row = document.texts
        if document.label is not None:
            label = document.label.strip()
            row = [label, *row]
            self.labels[label] += 1
            if label not in self.first:
                self.first[label] = document._replace(texts=[])
        # Python before 3.13 leaves a carriage return unquoted when rows end with a newline, and then it ends the row.
        writer = self.quoting if any("\r" in cell for cell in row) else self.plain
        writer.writerow(row)
        self.rows += 1

    def facts(self) -> dict:
        """Rows, rows per label and digest; call it when all is written."""
        self.file.flush()
        labels = {name: self.labels[name] for name in corpus.classes_of(self.labels)}
        return {"rows": self.rows, "labels": labels, "sha256": files.sha256(self.temporary)}


def write_csvs(documents: Iterable[Document], data: names.DataFolder, replaceable: set[str]) -> dict[str, dict]:
    """Writes each split's csv file in a stream; they take their places together, when all is read and right.

    Args:
        replaceable: splits whose csv file may be removed when the new corpus does not have them.

    Returns:
        For each split: rows, rows per label, sha256.

    Raises:
        UserError: documents that differ in their columns, an empty or very long label, a label that train lacks, no
            training document, or a csv file of the user's that would be left beside the new ones.
    """
    writers: dict[str, _SplitWriter] = {}
    like: Document | None = None
    with ExitStack() as renaming, ExitStack() as closing:
        for document in documents:
            like = like or document
            _check(document, like)
            if document.split not in writers:
                path = data.csv(document.split)
                writers[document.split] = _SplitWriter(path, renaming.enter_context(files.replacing(path)), closing)
            writers[document.split].write(document)
        if "train" not in writers:
            raise UserError("the source holds no training documents")
        classes = corpus.classes_of(writers["train"].labels)
        for writer in writers.values():
            for label, document in writer.first.items():
                if label not in writers["train"].labels:
                    raise document.error(f"label {label!r} does not occur in train, whose {len(classes)} classes are "
                                         f"{corpus.shortened(classes)}")
        left = {split for split in names.SPLITS if data.csv(split).exists()} - set(writers)
        if left - replaceable:
            raise UserError(f"{names.portable(data.path)} holds {min(left - replaceable)}.csv, which this project did "
                            f"not make and the new corpus does not have; move it away")
        facts = {split: writers[split].facts() for split in names.SPLITS if split in writers}
    for split in left:
        data.csv(split).unlink()
    return facts


def _check(document: Document, like: Document) -> None:
    """Raises UserError when a document's columns are not those of the first one, or its label cannot be one."""
    if len(document.texts) != len(like.texts):
        raise document.error(f"{len(document.texts)} text columns, where {like.shown} has {len(like.texts)}")
    if document.split == "unsup":
        return
    if like.split != "unsup" and (document.label is None) != (like.label is None):
        has, other = ("no label", "labels") if document.label is None else ("a label", "none")
        raise document.error(f"{has}, where {like.shown} has {other}")
    if document.label is not None:
        label = document.label.strip()
        if not label:
            raise document.error("the label is empty")
        if len(label) > LONGEST_LABEL or "\n" in label:
            raise document.error(f"the label is a text of {len(label)} characters ({label[:40]!r}...); say which "
                                 f"column is the label with --label_column, or --label_column={NO_LABEL}")


def summary(facts: dict[str, dict]) -> str:
    """`train 5452 rows (0: 86, 1: 1162), test 500 rows (...)`."""
    def one(split: str) -> str:
        labels = [f"{name}: {count}" for name, count in facts[split]["labels"].items()]
        return f"{split} {facts[split]['rows']} rows" + (f" ({corpus.shortened(labels)})" if labels else "")

    return ", ".join(one(split) for split in facts)
