"""A hash of every document's text in the record of create_toks: who has the records alone can tell duplicates.

    split,document,hash
    val,train:35,8a1f0c3b77de

Twelve hex digits of `corpus.text_hash`: two texts of a million have the same by chance once in 500 times, and IMDb's
100,000 documents take 0.9 MB (gzip: 1.05, and no sooner).
"""

import bz2
import csv
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator, NamedTuple

from . import files
from .errors import UserError

FILE = "documents.csv.bz2"
DIGITS = 12
_HEADER = ["split", "document", "hash"]


class TextHash(NamedTuple):
    split: str
    document: str
    hash: str


@contextmanager
def writing(path: Path) -> Iterator[Callable[[str, str, str], None]]:
    """Yields what writes (split, document, hash); the file is there whole after a clean exit, or not at all."""
    with files.replacing(path) as temporary:
        with bz2.open(temporary, "wt", encoding="utf-8", newline="") as text:
            rows = csv.writer(text, lineterminator="\n")
            rows.writerow(_HEADER)
            yield lambda split, document, mark: rows.writerow([split, document, mark[:DIGITS]])


def read(path: Path) -> list[TextHash]:
    """Reads what `writing` wrote. Raises UserError when it is cut off or another file."""
    try:
        with bz2.open(path, "rt", encoding="utf-8", newline="") as text:
            header, *rows = csv.reader(text, strict=True)
    except (OSError, EOFError, ValueError, csv.Error) as error:
        raise UserError(f"{path} is not readable ({error}); make its run again with --overwrite") from error
    if header != _HEADER or any(len(row) != len(_HEADER) for row in rows):
        raise UserError(f"{path}: expected the columns {','.join(_HEADER)}; make its run again with --overwrite")
    return [TextHash(*row) for row in rows]
