"""The corpus: what a csv file of it may hold, and which of its rows are set aside.

A dataset's folder holds train.csv, test.csv, and optionally val.csv and unsup.csv. They are UTF-8 with csv quoting (a
field may hold newlines) and no header. A labelled row is the label (an integer or any other string) and one or more
text columns; an unlabelled row has only the text columns. Every field is text: "NA", "null", "nan" and the empty
string are never a missing value. A document is known by its split and its row number; the first row is 0.

A blank line is no row, as for pandas; an empty text in the only column is written `""`.
"""

import csv
import hashlib
import heapq
import random
import re
from codecs import BOM_UTF8
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Iterable, Iterator, NamedTuple, Sequence

import numpy as np

from .errors import UserError

# Python's own bound of 131,072 characters a field is shorter than long Wikipedia articles.
_FIELD_LIMIT = 2**31 - 1
_INTEGER = re.compile(r"[+-]?[0-9]+")
# Columns that csv files in the wild have, in the order of preference.
LABEL_NAMES = ("label", "labels", "class", "class index", "category", "sentiment", "target", "polarity", "topic")
TEXT_NAMES = ("title", "headline", "text", "review", "description", "content", "sentence", "question", "document",
              "body", "comment", "tweet")


def row_error(shown: Path | str, row: int, problem: str) -> UserError:
    return UserError(f"{shown}: row {row} (the first is 0): {problem}")


class NotText(Exception):
    """Bytes that are no text; whoever reads them knows the file and the row."""


def decoded(data: bytes, encoding: str = "utf-8") -> str:
    """Raises NotText for bytes of another encoding and for a NUL byte."""
    if b"\0" in data:
        raise NotText("holds a NUL byte, which no text has; save the file as UTF-8 text")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise NotText(f"is not UTF-8 (byte 0x{data[error.start]:02x}); convert the file to UTF-8") from error


def decoded_lines(file: BinaryIO) -> Iterator[str]:
    """The lines of a UTF-8 file, their ends kept, a byte order mark dropped. Raises NotText."""
    encoding = "utf-8-sig"
    for line in file:
        yield decoded(line, encoding)
        encoding = "utf-8"


def read_lines(file: BinaryIO, shown: Path | str) -> Iterator[str]:
    """A text a line, line ends cut off. Raises UserError that names the line (the first is 0) which is no text."""
    number = 0
    try:
        for number, line in enumerate(decoded_lines(file), 1):
            yield line.rstrip("\r\n")
    except NotText as error:
        raise row_error(shown, number, str(error)) from error


def read_rows(file: BinaryIO, shown: Path | str, lines: Iterable[str] | None = None) -> Iterator[list[str]]:
    """The rows of a csv file as a strict parser reads them, in a stream.

    Args:
        file: opened in binary mode; decoded here, so that an error is known by its row.
        shown: the file's name in errors.
        lines: `decoded_lines(file)`, from a caller who wants to see them too; none is taken before its row is due.

    Raises:
        UserError: invalid UTF-8, a NUL byte, an unterminated quote, text after a closing quote, or no row at all.
    """
    csv.field_size_limit(_FIELD_LIMIT)
    number = 0
    try:
        for row in csv.reader(decoded_lines(file) if lines is None else lines, strict=True):
            if row:
                yield row
                number += 1
    except NotText as error:
        raise row_error(shown, number, str(error)) from error
    except csv.Error as error:
        problem = {"unexpected end of data": 'a quote (") is opened and never closed',
                   "',' expected after '\"'": 'text follows a closing quote; a quote inside a field is written ""',
                   }.get(str(error), f"not valid csv ({error})")
        if "new-line character" in problem:
            problem = "a carriage return outside quotes; end the rows with a newline, or quote the field"
        raise row_error(shown, number, problem) from error
    if number == 0:
        raise UserError(f"{shown} is empty; expected one document a row")


def check_row(row: list[str], columns: int, n_lbls: int, shown: Path | str, number: int) -> None:
    """Raises UserError when a row has not `columns` columns, no text column, or an empty label."""
    if len(row) != columns:
        raise row_error(shown, number, f"{len(row)} column{'s' * (len(row) != 1)} where {columns} "
                                       f"{'is' if columns == 1 else 'are'} expected; check its commas and quotes")
    if columns <= n_lbls:
        raise row_error(shown, number, "no text column; expected a label, then one or more texts")
    if n_lbls and not row[0].strip():
        raise row_error(shown, number, "the label, its first column, is empty")


def _opened(path: Path | str) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


class Chunk(NamedTuple):
    """Rows of a split's csv file: the number of the first, their labels ("" where there are none; white space around a
    label is no part of it), and of each its text columns, exactly as in the file."""

    first: int
    labels: list[str]
    texts: list[list[str]]


def read_chunks(path: Path | str, n_lbls: int, chunksize: int, n_texts: int | None = None) -> Iterator[Chunk]:
    """A split's csv file in chunks of at most `chunksize` rows; memory is bounded by one of them.

    Args:
        n_lbls: 1 when the first column is the label, 0 when every column is text.
        n_texts: text columns that each row must have; without it, as many as the first row has.

    Raises:
        UserError: names the file and the row that is not as the module's docstring says.
    """
    with _opened(path) as file:
        rows = read_rows(file, path)
        columns = None if n_texts is None else n_lbls + n_texts
        start = 0
        while chunk := list(islice(rows, chunksize)):
            columns = columns or len(chunk[0])
            for number, row in enumerate(chunk, start):
                check_row(row, columns, n_lbls, path, number)
            yield Chunk(start, [row[0].strip() if n_lbls else "" for row in chunk], [row[n_lbls:] for row in chunk])
            start += len(chunk)


def check_no_header(path: Path | str, first_texts: Sequence[str], labels: Sequence[str]) -> None:
    """Raises UserError when a split's first row holds the columns' names.

    Args:
        first_texts: the text columns of the first row. labels: of all rows, as in `Chunk`; a header's has no other row.
    """
    label, texts = labels[0].lower(), {text.strip().lower() for text in first_texts}
    if texts <= set(TEXT_NAMES) and len(labels) > 1 and \
            (not label or (label in LABEL_NAMES and labels.count(labels[0]) == 1)):
        row = ",".join([*([labels[0]] if label else []), *first_texts])
        raise row_error(path, 0, f"{row!r} is a header; take it off, or make the folder with get_data.py --source, "
                                 f"which knows headers")


class TableRow(NamedTuple):
    """A row of any csv file.

    written: the characters it consists of, with its line end, any blank lines before it and the byte order mark.
    fields: its columns; none for the blank lines after the last row. texts: of a document, its text columns.
    """

    written: str
    fields: list[str]
    texts: list[str] | None


def read_table(path: Path | str, columns: Sequence[str], header: str = "auto") -> Iterator[TableRow]:
    """The rows of any csv file, in a stream; joined, what they are written as is the file.

    Args:
        columns: which of them hold the text: names, or numbers from 0.
        header: whether the first row holds the columns' names: yes, no, or auto: as soon as one of `columns` is no
            number.

    Raises:
        UserError: a column that is not there or is there twice, no row but the header, or a file that `read_rows`
            refuses.
    """
    has_header = header == "yes" or (header == "auto" and not all(column.isdecimal() for column in columns))
    written = []

    def lines() -> Iterator[str]:
        for line in decoded_lines(file):
            written.append(line)
            yield line

    number = 0
    with _opened(path) as file:
        if file.peek(len(BOM_UTF8)).startswith(BOM_UTF8):
            written.append("\ufeff")
        for number, row in enumerate(read_rows(file, path, lines())):
            if number == 0:
                width = len(row)
                places = _places(path, columns, row, has_header)
            check_row(row, width, 0, path, number)
            is_document = number > 0 or not has_header
            yield TableRow("".join(written), row, [row[place] for place in places] if is_document else None)
            written.clear()
    if has_header and number == 0:
        raise UserError(f"{path} has a header and no row below it")
    if written:
        yield TableRow("".join(written), [], None)


def _places(path: Path | str, columns: Sequence[str], first: list[str], has_header: bool) -> list[int]:
    """Where the columns stand in a row; a header's names come before numbers."""
    numbers = [str(place) for place in range(len(first))]
    names = first if has_header else numbers
    places = []
    for column in columns:
        if names.count(column) > 1:
            raise UserError(f"{path} has {names.count(column)} columns {column!r}; name it by its number, from 0, and "
                            f"add --header=yes")
        if column not in names and column not in numbers:
            raise UserError(f"{path} has no column {column!r}; its columns are {shortened(names)} "
                            f"({'of its first row, the header' if has_header else 'without a header, from 0'})")
        places.append((names if column in names else numbers).index(column))
    return places


def classes_of(labels: Iterable[str]) -> list[str]:
    """The classes among train's labels, sorted: by number when every one is an integer, else as strings.

    Labels stay strings: "1" and "01" are two classes.
    """
    classes = set(labels)
    if all(_INTEGER.fullmatch(name) for name in classes):
        return sorted(classes, key=lambda name: (int(name), name))
    return sorted(classes)


def encode_labels(labels: Sequence[str], classes: Sequence[str], path: Path | str, first_row: int = 0) -> np.ndarray:
    """Each label's place in train's `classes`.

    Args:
        path, first_row: the csv file that the labels are from, and the row of the first of them, for the error.

    Returns:
        int64 array, one element a label.

    Raises:
        UserError: a label that train does not have.
    """
    index = {name: i for i, name in enumerate(classes)}
    encoded = np.empty(len(labels), dtype=np.int64)
    for i, label in enumerate(labels):
        if label not in index:
            raise row_error(path, first_row + i, f"label {label!r} does not occur in train, whose "
                                                 f"{len(classes)} classes are {shortened(classes)}")
        encoded[i] = index[label]
    return encoded


def shortened(values: Sequence[str], most: int = 20) -> str:
    """A list for a message: its first `most` values."""
    return ", ".join(values[:most]) + (", ..." if len(values) > most else "")


def fixed_order(count: int, seed: int) -> list[float]:
    """A random key for each of `count` rows; sorting by it shuffles them, the same way for ever.

    The keys are those of `random.Random(seed).random()`, the one generator whose sequence Python promises to keep;
    numpy's may change with its version.
    """
    generator = random.Random(int(seed))
    return [generator.random() for _ in range(count)]


def validation_rows(labels: Sequence[str], seed: int, fraction: float = 0.1) -> np.ndarray:
    """The rows that are set aside, stratified by class; they depend on the labels, the seed and the fraction only.

    round(fraction * n) rows are shared among the classes by largest remainder, under two bounds that come first: a
    class of two documents or more gives at least one, and no class gives all. (With many tiny classes the total is
    therefore larger, with classes of one document it may be smaller.) In a class, the rows with the smallest keys of
    `fixed_order` are taken.

    Args:
        labels: one a row; for a corpus without labels, the same string for every row.

    Returns:
        int64 array of row numbers, ascending.

    Raises:
        UserError: there are too few documents to set any aside.
    """
    members: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        members.setdefault(label, []).append(row)
    n = len(labels)
    total = round(fraction * n)
    taken = {label: int(len(rows) >= 2) for label, rows in members.items()}
    left = total - sum(taken.values())
    # A class's deficit is its exact share less what it has: total * size / n - taken; integers (times n) avoid
    # rounding. Giving each place to the largest deficit is the method of largest remainders when no bound binds.
    heap = [(taken[label] * n - total * len(rows), label) for label, rows in members.items()]
    heapq.heapify(heap)
    while left > 0 and heap:
        deficit, label = heapq.heappop(heap)
        if taken[label] < len(members[label]) - 1:
            taken[label] += 1
            left -= 1
            heapq.heappush(heap, (deficit + n, label))
    if not any(taken.values()):
        raise UserError(f"too few documents to set any aside: {n} in {len(members)} classes; "
                        f"a class needs at least two")
    keys = fixed_order(n, seed)
    chosen = [row for label, rows in members.items()
              for row in heapq.nsmallest(taken[label], rows, key=keys.__getitem__)]
    return np.array(sorted(chosen), dtype=np.int64)


def text_hash(fields: Sequence[str]) -> str:
    """16 hex digits of a document's text columns, to find the same document in two splits."""
    return hashlib.sha256("\x1f".join(fields).encode()).hexdigest()[:16]
