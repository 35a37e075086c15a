"""Which documents a run got wrong, in an order that all runs on the same documents share."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.csv  # else `pa.csv` is not there
from ulmfit.errors import UserError

_PREFIX = "p:"
_BATCH = 32  # files that a thread parses at a time


@dataclass(frozen=True)
class Documents:
    """The documents of a split with their labels; the same object for every run on them.

    ids: in sorted order. labels: class names in that order.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(eq=False)
class _File:
    """What a file holds, in its own order. probabilities: shape (classes, documents)."""

    document: pa.Array
    label: pa.Array
    classes: list[str]
    probabilities: np.ndarray


@dataclass(eq=False)
class _Known:
    """Documents as a file has them: `order` sorts them."""

    document: pa.Array
    label: pa.Array
    order: np.ndarray
    documents: Documents


@dataclass
class Outcomes:
    """Reads predictions files, some thousand a second; what lies in them is checked in full by `analysis check`."""

    _known: list[_Known] = field(default_factory=list)
    _wrong: dict[Path, tuple[Documents, np.ndarray]] = field(default_factory=dict)
    _by_content: dict[tuple, Documents] = field(default_factory=dict)
    _labels: dict[tuple, np.ndarray] = field(default_factory=dict)
    _probabilities: dict[Path, tuple[Documents, np.ndarray, list[str]]] = field(default_factory=dict)

    def wrong(self, folder: Path) -> tuple[Documents, np.ndarray]:
        """(documents, wrong): bool, shape (documents,), whether the most probable class is not the label.

        The lower class wins a tie, as in `metrics.error_percent`. Raises UserError for a file that cannot be read or
        has no label for a document.
        """
        if folder not in self._wrong:
            self._wrong[folder] = self._wrong_in(folder, _parsed(folder / "predictions.csv"))
        return self._wrong[folder]

    def prefetch(self, folders: Iterable[Path]) -> None:
        """Reads many at once, on every core, for `wrong` to have them. Raises UserError as `wrong` does."""
        asked = [folder for folder in dict.fromkeys(folders) if folder not in self._wrong]
        batches = [asked[start:start + _BATCH] for start in range(0, len(asked), _BATCH)]

        def parsed(batch: list[Path]) -> list[_File]:
            return _parsed_together([folder / "predictions.csv" for folder in batch])

        with ThreadPoolExecutor() as pool:  # pyarrow parses without the interpreter's lock
            for batch, found in zip(batches, pool.map(parsed, batches)):
                self._wrong.update({folder: self._wrong_in(folder, file) for folder, file in zip(batch, found)})

    def _wrong_in(self, folder: Path, file: _File) -> tuple[Documents, np.ndarray]:
        known = self._find(folder / "predictions.csv", file)
        predicted = file.probabilities.argmax(axis=0)[known.order]
        return known.documents, predicted != self.label_indices(known.documents, file.classes, folder)

    def wrong_of(self, documents: Documents, probabilities: np.ndarray, classes: list[str], folder: Path) -> np.ndarray:
        """As `wrong`, of probabilities in the documents' order; folder: named where a label is unknown."""
        return probabilities.argmax(axis=1) != self.label_indices(documents, classes, folder)

    def probabilities(self, folder: Path) -> tuple[Documents, np.ndarray, list[str]]:
        """(documents, probabilities of shape (documents, classes), classes), kept for the next time."""
        if folder not in self._probabilities:
            path = folder / "predictions.csv"
            file = _parsed(path)
            known = self._find(path, file)
            self._probabilities[folder] = known.documents, file.probabilities.T[known.order], file.classes
        return self._probabilities[folder]

    def confusion(self, folder: Path) -> tuple[np.ndarray, list[str]]:
        """(documents of each true and predicted class, shape (classes, classes), classes). Raises UserError as
        `wrong` does."""
        documents, probabilities, classes = self.probabilities(folder)
        counts = np.zeros((len(classes), len(classes)), dtype=int)
        np.add.at(counts, (self.label_indices(documents, classes, folder), probabilities.argmax(axis=1)), 1)
        return counts, classes

    def label_indices(self, documents: Documents, classes: list[str], folder: Path) -> np.ndarray:
        """Position of each document's label among the classes, shape (documents,)."""
        key = (id(documents), *classes)
        if key not in self._labels:
            position = {name: index for index, name in enumerate(classes)}
            unknown = next((name for name, label in zip(documents.ids, documents.labels) if label not in position),
                           None)
            if unknown is not None:
                raise UserError(f"{folder / 'predictions.csv'}: the label of {unknown} is unknown or none of the "
                                f"classes, so the error cannot be told")
            self._labels[key] = np.array([position[label] for label in documents.labels])
        return self._labels[key]

    def _find(self, path: Path, file: _File) -> _Known:
        for known in self._known:
            if known.document.equals(file.document) and known.label.equals(file.label):
                return known
        ids, labels = file.document.to_pylist(), file.label.to_pylist()
        order = np.array(sorted(range(len(ids)), key=ids.__getitem__))
        content = tuple(ids[row] for row in order), tuple(labels[row] for row in order)
        if len(set(ids)) < len(ids):
            raise UserError(f"{path}: a document stands there twice; make its run again with --overwrite")
        documents = self._by_content.setdefault(content, Documents(*content))
        known = _Known(file.document, file.label, order, documents)
        # Anew for an order not seen before; the documents are the same object all the same.
        self._known.insert(0, known)
        return known


def _parsed(path: Path) -> _File:
    """Raises UserError for a file that is not there, cannot be read or holds something else."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; expected the predictions of a finished run")
    try:
        table = _read_csv(path)
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is not readable as csv ({' '.join(str(error).split())}); make its run again with "
                        f"--overwrite") from error
    try:
        return _file(table)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _parsed_together(paths: list[Path]) -> list[_File]:
    """As `_parsed` of each; raises UserError as it does.

    Plain files with one header are parsed as one: opening a parser takes several times as long as 500 lines do.
    """
    try:
        contents = [path.read_bytes() for path in paths]
    except OSError:
        contents = []  # `_parsed` says which it is
    headers = {content[:content.find(b"\n") + 1] for content in contents}
    # A line is a row where nothing is quoted.
    if len(headers) == 1 and all(content.endswith(b"\n") and b'"' not in content for content in contents):
        [header] = headers
        rows = [content.count(b"\n") - 1 for content in contents]
        whole = header + b"".join(content[len(header):] for content in contents)
        try:
            file = _file(_read_csv(pa.BufferReader(whole), block_size=len(whole)))
        except (pa.ArrowInvalid, ValueError):
            return list(map(_parsed, paths))  # one of them is wrong, and is to be named
        if min(rows) and len(file.document) == sum(rows):  # an empty line is no row
            return [_File(file.document.slice(end - count, count), file.label.slice(end - count, count), file.classes,
                          file.probabilities[:, end - count:end]) for end, count in zip(np.cumsum(rows), rows)]
    return list(map(_parsed, paths))


def _read_csv(source: Path | pa.BufferReader, **options: int) -> pa.Table:
    return pa.csv.read_csv(
        source, read_options=pa.csv.ReadOptions(use_threads=False, **options),
        parse_options=pa.csv.ParseOptions(newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(column_types={"document": pa.string(), "label": pa.string()}))


def _file(table: pa.Table) -> _File:
    """Raises ValueError that says what was expected."""
    header = table.column_names
    if header[:2] != ["document", "label"] or len(header) < 3 or not all(
            name.startswith(_PREFIX) for name in header[2:]) or not table.num_rows:
        raise ValueError(f"expected the header document,label,{_PREFIX}CLASS,... and a row a document")
    columns = [table.column(number).to_numpy() for number in range(2, len(header))]
    if not all(np.issubdtype(column.dtype, np.number) for column in columns):
        raise ValueError(f"expected probabilities in the columns {_PREFIX}...")
    probabilities = np.array(columns, dtype=np.float64)
    if not np.isfinite(probabilities.sum()):
        raise ValueError("some probabilities are not numbers")
    return _File(table["document"].combine_chunks(), table["label"].combine_chunks(),
                 [name.removeprefix(_PREFIX) for name in header[2:]], probabilities)


def difference(first: Documents, other: Documents) -> str:
    """In words how two sets of documents differ."""
    missing = set(first.ids) ^ set(other.ids)
    if missing:
        return f"{len(missing):,} documents are in one of them only, such as {min(missing)}"
    changed = [name for name, mine, theirs in zip(first.ids, first.labels, other.labels) if mine != theirs]
    return f"{len(changed):,} labels differ, such as that of {changed[0]}"
