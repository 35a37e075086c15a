"""What a source of documents may look like, and reading it.

It is recognised by looking at it:

    split files    train.csv, test.csv, val.csv or valid.csv, unsup.csv (.txt: a document a line), any compression
    class tree     train/CLASS/*.txt and test/CLASS/*.txt, with unsup/ or train/unsup/; or CLASS/*.txt without splits
    TREC           train_5500.label and TREC_10.label
    csv            a single file, with or without a header and an `is_valid` column
    lines          a single .txt, unlabelled, a document a line

or a folder or an archive that holds one of these somewhere below it. What has labels and no split at all is split
here: 20% for test, stratified, seed 0.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Iterator

from . import archives, corpus, names
from .documents import NO_LABEL, Document
from .errors import UsageError, UserError

TEST_FRACTION = 0.2
SPLIT_SEED = 0
# Names that splits have in the wild.
_SPLIT_NAMES = {"train": "train", "test": "test", "val": "val", "valid": "val", "validation": "val", "dev": "val",
                "unsup": "unsup"}
_SPLIT_FILE = re.compile(rf"({'|'.join(_SPLIT_NAMES)})\.(csv|txt)(\.(xz|gz|bz2))?")
_SINGLE_FILE = re.compile(r".*\.(csv|txt)(\.(xz|gz|bz2))?")
_IS_VALID = "is_valid"
_OTHER_NAMES = (_IS_VALID, "id", "index", "unnamed: 0", "")
_COLUMN_NAME = re.compile(r"([^\W\d][\w .:-]{0,39})?")  # pandas leaves the name of its index empty
_TRUTH = {"true": True, "1": True, "false": False, "0": False}
_DEPTH = 4


@dataclass(frozen=True)
class Reading:
    """How a source is read: the dataset's own ways, the user's flags, and where to say what was assumed.

    classes: the label of each class of a class tree or of TREC, where it is not the class's name.
    second_encoding: of files that are not UTF-8.
    """

    classes: dict[str, str] = field(default_factory=dict)
    second_encoding: str | None = None
    header: str = "auto"
    label_column: str | None = None
    text_columns: str | None = None
    say: Callable[[str], None] = print


# what a source looks like


@dataclass(frozen=True)
class SplitFiles:
    """A file a split. One column is text without labels; of several, the first is the label."""

    by_split: dict[str, Path]

    def paths(self) -> list[Path]:
        return list(self.by_split.values())

    def documents(self, reading: Reading) -> Iterator[Document]:
        for split in [split for split in names.SPLITS if split in self.by_split]:
            path = self.by_split[split]
            if _kind(path) == "txt":
                yield from _line_documents(path, split)
            else:
                yield from _csv_documents(path, reading, {split}, labelled=False if split == "unsup" else None)


@dataclass(frozen=True)
class SingleFile:
    """One csv or text file for the whole dataset."""

    path: Path

    def paths(self) -> list[Path]:
        return [self.path]

    def documents(self, reading: Reading) -> Iterator[Document]:
        if _kind(self.path) == "txt":
            yield from _line_documents(self.path, "train")
        else:
            yield from _csv_documents(self.path, reading, {"train", "val", "test"})


@dataclass(frozen=True)
class ClassTree:
    """A file a document, a folder a class. `entries` holds split (None: there are none), class and path, sorted."""

    root: Path
    entries: list[tuple[str | None, str, str]]

    def paths(self) -> list[Path]:
        return [self.root / path for _, _, path in self.entries]

    def documents(self, reading: Reading) -> Iterator[Document]:
        """In one random order for ever: by class, the first chunk would show only some of them."""
        split_of = {}
        unsplit = [i for i, (split, _, _) in enumerate(self.entries) if split is None]
        if unsplit:
            rows = corpus.validation_rows([self.entries[i][1] for i in unsplit], SPLIT_SEED, TEST_FRACTION)
            split_of = {unsplit[row]: "test" for row in rows}
            reading.say(_said_split(len(unsplit), len(rows)))
        keys = corpus.fixed_order(len(self.entries), SPLIT_SEED)
        second = 0
        for i in sorted(range(len(self.entries)), key=keys.__getitem__):
            split, name, path = self.entries[i]
            data = (self.root / path).read_bytes()
            try:
                text = corpus.decoded(data, "utf-8-sig")
            except corpus.NotText as error:
                if reading.second_encoding is None or b"\0" in data:
                    raise UserError(f"{path}: {error}") from error
                text, second = data.decode(reading.second_encoding), second + 1
            label = None if split == "unsup" else reading.classes.get(name, name)
            yield Document(split or split_of.get(i, "train"), label, [text.strip()], path)
        if second:
            reading.say(f"files that are not UTF-8, read as {reading.second_encoding}: {second}")


@dataclass(frozen=True)
class TrecFiles:
    """The question classification set as distributed: latin-1, a line `COARSE:fine question`."""

    train: Path
    test: Path

    def paths(self) -> list[Path]:
        return [self.train, self.test]

    def documents(self, reading: Reading) -> Iterator[Document]:
        for split, path in (("train", self.train), ("test", self.test)):
            with open(path, encoding="latin-1", newline="\n") as lines:
                for row, line in enumerate(lines):
                    found = re.fullmatch(r"([A-Z]+):\w+ (.+)", line.strip())
                    if not found:
                        raise corpus.row_error(path.name, row, "expected `CLASS:subclass question`")
                    name, question = found.groups()
                    yield Document(split, reading.classes.get(name, name), [question], path.name, row)


Layout = SplitFiles | SingleFile | ClassTree | TrecFiles


def look(path: Path, scratch: Path) -> Layout:
    """What a source is; an archive is unpacked into `scratch` first. Raises UserError when it is nothing known."""
    if path.is_dir():
        return recognise(path)
    if _kind(path):
        return SingleFile(path)
    if archives.is_archive(path):
        archives.unpack(path, scratch / "unpacked")
        return recognise(scratch / "unpacked", path.name)
    raise UserError(f"{path.name} is no csv or txt file (also .xz, .gz, .bz2) and no zip or tar archive; rename it if "
                    f"it is one, or convert it")


def recognise(folder: Path, shown: str | None = None) -> Layout:
    """The one dataset in a folder, at the least depth at which there is one. Raises UserError for none and for two."""
    shown = shown or str(folder)
    level, single = [folder], []
    for _ in range(_DEPTH + 1):
        found = [(place, layout) for place in level if (layout := _recognise_here(place)) is not None]
        if len(found) > 1:
            raise UserError(f"{shown} holds several datasets ({', '.join(place.name for place, _ in found)}); give one "
                            f"of them with --source")
        if found:
            return found[0][1]
        single += [path for place in level for path in _visible(place) if path.is_file() and _kind(path)]
        level = [path for place in level for path in _visible(place) if path.is_dir()]
    if len(single) == 1:
        return SingleFile(single[0])
    raise UserError(f"{shown} holds nothing that is recognised; expected train.csv and test.csv, folders "
                    f"train/CLASS/*.txt and test/CLASS/*.txt or CLASS/*.txt, or a single csv or txt file")


def _recognise_here(folder: Path) -> SplitFiles | ClassTree | TrecFiles | None:
    by_split: dict[str, Path] = {}
    for path in _visible(folder):
        if (match := _SPLIT_FILE.fullmatch(path.name)) and path.is_file():
            split = _SPLIT_NAMES[match[1]]
            if split in by_split:
                raise UserError(f"{folder.name} holds both {by_split[split].name} and {path.name}; leave one of them")
            by_split[split] = path
    if "train" in by_split:
        return SplitFiles(by_split)
    trec = [folder / name for name in ("train_5500.label", "TREC_10.label")]
    if all(path.is_file() for path in trec):
        return TrecFiles(*trec)
    entries = sorted(_tree(folder), key=lambda entry: entry[2])
    return ClassTree(folder, entries) if entries else None


def _tree(folder: Path) -> Iterator[tuple[str | None, str, str]]:
    """The documents of a class tree; none when the folder is no such tree."""
    subfolders = [path for path in _visible(folder) if path.is_dir()]
    splits = [(split, path) for path in subfolders if (split := _SPLIT_NAMES.get(path.name))]
    if any(split == "train" and len(_class_folders(path)) > 1 for split, path in splits):
        labelled = [(split, path) for split, path in splits if split != "unsup"]
    elif len(_class_folders(folder)) > 1:
        labelled = [(None, folder)]
    else:
        return
    for split, place in labelled:
        for class_folder in _class_folders(place):
            yield from ((split, class_folder.name, path) for path in _texts(folder, class_folder))
    for unlabelled in (folder / "unsup", folder / "train" / "unsup"):
        if unlabelled.is_dir():
            yield from (("unsup", "", path) for path in _texts(folder, unlabelled))


def _class_folders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder)
            if path.name not in _SPLIT_NAMES and path.is_dir() and any(path.glob("[!.]*.txt"))]


def _texts(root: Path, folder: Path) -> Iterator[str]:
    """The text files of a folder, relative to `root`: strings, since there may be a hundred thousand."""
    relative = folder.relative_to(root).as_posix()
    for entry in os.scandir(folder):
        if entry.name.endswith(".txt") and not entry.name.startswith(".") and entry.is_file():
            yield f"{relative}/{entry.name}"


def _visible(folder: Path) -> list[Path]:
    """A folder's entries, sorted, without hidden ones and the shadow folder of macOS's zip."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name != "__MACOSX")


def _kind(path: Path) -> str | None:
    """`csv`, `txt` or None, by the name under the compression."""
    match = _SINGLE_FILE.fullmatch(path.name.lower())
    return match[1] if match else None


def _said_split(count: int, test: int) -> str:
    return f"no split in the source: {test} of {count} documents are set aside for test (stratified, seed {SPLIT_SEED})"


# reading text and csv


def _line_documents(path: Path, split: str) -> Iterator[Document]:
    """A document a line; blank lines are none."""
    row = 0
    with archives.opened(path) as file:
        try:
            for line in corpus.decoded_lines(file):
                if line.strip():
                    yield Document(split, None, [line.rstrip("\r\n")], path.name, row)
                row += 1
        except corpus.NotText as error:
            raise corpus.row_error(path.name, row, str(error)) from error


@dataclass(frozen=True)
class Columns:
    """Which columns of a csv are what, by number; `count` is how many there are."""

    count: int
    has_header: bool
    label: int | None
    texts: list[int]
    is_valid: int | None = None


def _csv_documents(path: Path, reading: Reading, splits: set[str], labelled: bool | None = None) -> Iterator[Document]:
    """The documents of a csv file.

    splits: the one that the file is, or those that it may be divided into: by `is_valid`, else at random.
    labelled: False for an unlabelled split; None to find out.
    """
    with archives.opened(path) as file:
        columns = find_columns(next(corpus.read_rows(file, path.name)), reading, path.name, labelled)
    if columns.has_header or reading.label_column or reading.text_columns:
        reading.say(f"{path.name}: {_said_columns(columns)}")
    only_split = next(iter(splits)) if len(splits) == 1 else None
    test_rows: set[int] = set()
    if only_split is None and columns.label is not None and columns.is_valid is None:
        labels = [row[columns.label].strip() for _, row in _csv_rows(path, columns)]
        test_rows = set(corpus.validation_rows(labels, SPLIT_SEED, TEST_FRACTION).tolist())
        reading.say(_said_split(len(labels), len(test_rows)))
    for i, (number, row) in enumerate(_csv_rows(path, columns)):
        if only_split:
            split = only_split
        elif columns.is_valid is not None:
            value = row[columns.is_valid].strip().lower()
            if value not in _TRUTH:
                raise corpus.row_error(path.name, number, f"{_IS_VALID} is {row[columns.is_valid]!r}; expected True or "
                                                          f"False")
            split = "val" if _TRUTH[value] else "train"
        else:
            split = "test" if i in test_rows else "train"
        label = None if columns.label is None else row[columns.label]
        yield Document(split, label, [row[text] for text in columns.texts], path.name, number)


def _csv_rows(path: Path, columns: Columns) -> Iterator[tuple[int, list[str]]]:
    """Row numbers of the file and rows, without the header, all of the same width."""
    with archives.opened(path) as file:
        for number, row in enumerate(corpus.read_rows(file, path.name)):
            corpus.check_row(row, columns.count, 0, path.name, number)
            if number or not columns.has_header:
                yield number, row


def find_columns(first_row: list[str], reading: Reading, shown: str, labelled: bool | None = None) -> Columns:
    """Which columns are label and texts, from the user's flags and the first row.

    A first row is taken for a header when all of its cells are short distinct names (no number) and at least two of
    them, or the only one, are usual names of a text or label column. One of several is no proof: that is refused until
    the user says --header=yes or no.

    Raises:
        UsageError: a column that is not there, or a choice that only the user can make.
    """
    named = [cell.strip().lower() for cell in first_row]
    asked = [column.strip() for column in (reading.text_columns or "").split(",") if column.strip()]
    label_asked = reading.label_column if reading.label_column not in (None, NO_LABEL) else None
    count = len(first_row)
    for separator, said in ((";", "semicolons"), ("\t", "tabs")):
        # A label and a text at least; a review may hold a semicolon, but hardly behind its first word.
        begin, found, _ = first_row[0].partition(separator) if count == 1 else ("", "", "")
        if found and labelled is not False and reading.label_column is None and " " not in begin:
            raise UsageError(f"{shown}: its first row has one column, {first_row[0][:60]!r}, whose parts are separated by "
                             f"{said}; save it with commas, or say --label_column={NO_LABEL} where it is a text")
    has_header = _has_header(named, [*asked, *([label_asked] if label_asked else [])], reading.header, shown)

    def place(column: str) -> int | None:
        if has_header and column.lower() in named:
            return named.index(column.lower())
        return int(column) if column.isdecimal() and int(column) < count else None

    def number(column: str, flag: str) -> int:
        if (found := place(column)) is not None:
            return found
        there = f"its columns are {', '.join(first_row)}" if has_header else f"its columns are 0 to {count - 1}"
        raise UsageError(f"--{flag}={column!r} is no column of {shown}; {there}")

    is_valid = named.index(_IS_VALID) if has_header and _IS_VALID in named else None
    label = None
    if label_asked and labelled is False:
        label = place(label_asked) if count > 1 else None  # beside those with the label, it may hold texts alone
    elif label_asked:
        label = number(label_asked, "label_column")
    elif reading.label_column is None and has_header:
        known = [named.index(name) for name in corpus.LABEL_NAMES if name in named]
        label = known[0] if known else None
    elif reading.label_column is None and count > 1 and labelled is not False:
        label = 0
    if asked:
        texts = [number(column, "text_columns") for column in asked]
    elif has_header:
        texts = [i for i, name in enumerate(named) if name in corpus.TEXT_NAMES and i != label]
    else:
        texts = [i for i in range(count) if i != label]
    if not texts:
        raise UsageError(f"{shown}: no text column among {', '.join(first_row)[:200]}; name it with --text_columns")
    if label in texts:
        raise UsageError(f"{shown}: column {first_row[label]!r} cannot be both label and text; set --label_column and "
                         f"--text_columns")
    unknown = [first_row[i] for i, name in enumerate(named) if i not in texts and name not in _OTHER_NAMES]
    if has_header and label is None and unknown and reading.label_column is None and labelled is not False:
        raise UsageError(f"{shown}: which of its columns {', '.join(unknown)[:200]} is the label? name it with "
                         f"--label_column, or --label_column={NO_LABEL}")
    return Columns(count, has_header, None if labelled is False else label, texts, is_valid)


def _has_header(named: list[str], asked: list[str], header: str, shown: str) -> bool:
    if header != "auto":
        if header == "yes" and len(set(named)) < len(named):
            raise UsageError(f"{shown}: --header=yes, but its first row names a column twice")
        return header == "yes"
    if any(not column.isdecimal() and column.lower() in named for column in asked):
        return True
    if len(set(named)) < len(named) or not all(_COLUMN_NAME.fullmatch(name) for name in named):
        return False
    known = sum(name in (*corpus.LABEL_NAMES, *corpus.TEXT_NAMES, _IS_VALID) for name in named)
    if known == 1 and len(named) > 1:
        raise UsageError(f"{shown}: is its first row ({', '.join(named)}) a header? say --header=yes or --header=no")
    return known > 0


def _said_columns(columns: Columns) -> str:
    label = "no label" if columns.label is None else f"label in column {columns.label}"
    texts = ", ".join(map(str, columns.texts))
    valid = "" if columns.is_valid is None else f", {_IS_VALID} in column {columns.is_valid}"
    return f"{'a header' if columns.has_header else 'no header'}, {label}, text in column {texts}{valid}"
