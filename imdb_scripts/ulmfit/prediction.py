"""predict_with_classifier: which classifiers answer, what they are asked, and how the answers are written."""

import csv
import io
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterable, Iterator, Sequence, TypeVar

import numpy as np

from . import corpus, files, names, records
from .corpus import TableRow
from .errors import UsageError, UserError
from .names import DataFolder

if TYPE_CHECKING:
    import torch

    from .classifier import Predictor

Item = TypeVar("Item")

PREDICTED = "predicted"
# Of what is read and answered at a time: many texts, so that their sorting by length saves padding; few characters, so
# that they and their ids take little memory.
CHUNK_TEXTS, CHUNK_CHARACTERS = 4096, 4_000_000
SECONDS_BETWEEN_LINES = 10
SHOWN_CLASSES = 10
QUIT = "q"


# -- which classifiers -------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Source:
    """A classifier that was asked for, and how it is loaded.

    name: as messages show it. text_columns: how many a text has; None: any number.
    """

    name: str
    classes: list[str]
    text_columns: int | None
    load: "Callable[[], Predictor]"


def trained(folder: DataFolder, model: str, made_by: str) -> Source:
    """A classifier of train_clas. made_by: the command that makes it, for the message where it is missing."""
    path = folder.model(model)
    facts = records.read_manifest(path, made_by)
    if facts.get("kind") != "classifier":
        raise UserError(f"{path} is no classifier; expected one of train_clas")

    def load() -> "Predictor":
        from . import classifier

        return classifier.predictor(path)

    return Source(model, facts["classes"], facts["text_columns"], load)


def listed(folder: DataFolder, models: str) -> list[Source]:
    """The classifiers whose folders' names stand in `models`, separated by spaces."""
    asked = models.split()
    there = sorted(path.name for path in folder.path.glob("models/clas--*")
                   if (path / records.MANIFEST).exists() and not names.is_intermediate(path.name))
    for model in asked:
        if model not in there:
            raise UserError(f"--models: {folder.path / 'models'} has no classifier {model!r}; it has "
                            f"{corpus.shortened(there) or 'none'}")
        if asked.count(model) > 1:
            raise UsageError(f"--models names {model} twice; each counts once in an average")
    return [trained(folder, model, names.command("train_clas", dir_path=folder.path)) for model in asked]


def is_2018_call(text: str | None, dir_path: str | None) -> bool:
    """Whether the first two values are ITOS and CLASSIFIER, as in 2018, and no text and folder."""
    return (text is not None and text.endswith((".pkl", "vocab.json")) and Path(text).is_file()
            and dir_path is not None and dir_path.endswith((".h5", ".pth", ".safetensors")))


def by_file_names(vocab: Path, weights: Path, num_classes: int | None, backwards: bool) -> Source:
    """A classifier given by its files: one of ours, or one that the 2018 scripts saved.

    Raises UserError when there is no such file, the two do not belong together, or the classes are another number.
    """
    for path in (vocab, weights):
        if not path.is_file():
            raise UserError(f"there is no file {path}")
    if weights.suffix != ".safetensors":
        from . import fastai_07

        # Read here already: the file alone says how many classes there are.
        predictor, n_classes = fastai_07.load(weights, vocab, num_classes, backwards)
        return Source(weights.name, [str(number) for number in range(n_classes)], None, lambda: predictor)
    from . import classifier
    from .vocab import VOCAB
    from .weights import WEIGHTS
    from .weights import facts as facts_of

    facts = facts_of(weights)
    if facts["kind"] != "classifier":
        raise UserError(f"{weights} is no classifier; expected one of train_clas")
    if weights.name != WEIGHTS or vocab.resolve() != weights.resolve().with_name(VOCAB):
        raise UserError(f"{vocab} and {weights} do not belong together; expected {VOCAB} and {WEIGHTS} of one folder")
    if backwards and not facts["backwards"]:
        raise UserError(f"{weights} was trained to read forward; leave out --backwards")
    if num_classes not in (None, len(facts["classes"])):
        raise UserError(f"{weights} has {len(facts['classes'])} classes, --num_classes asks for {num_classes}")
    return Source(weights.parent.name, facts["classes"], facts["text_columns"],
                  lambda: classifier.predictor(weights.parent))


def check_alike(sources: Sequence[Source]) -> None:
    """Raises UserError when classifiers cannot be averaged."""
    first = sources[0]
    for other in sources[1:]:
        if other.classes != first.classes:
            raise UserError(f"{other.name} and {first.name} cannot be averaged: the classes are "
                            f"{corpus.shortened(other.classes)} there, {corpus.shortened(first.classes)} here")
        if other.text_columns != first.text_columns:
            raise UserError(f"{other.name} and {first.name} cannot be averaged: a text has {other.text_columns} "
                            f"columns there, {first.text_columns} here")


def check_columns(sources: Sequence[Source], given: int) -> None:
    """Raises UserError when texts have not as many columns as in training."""
    wanted = sources[0].text_columns
    if wanted not in (None, given):
        raise UserError(f"this classifier was trained on {wanted} text columns and got {given}; name them as "
                        f"--csv=FILE --column={','.join('ABCDEFGH'[:wanted])}")


class Ensemble:
    """One classifier or several, loaded once: called with texts, each a list of its columns, it gives the arithmetic
    mean of their class probabilities, shape (texts, classes), float64."""

    def __init__(self, sources: Sequence[Source], *, bs: int, device: "torch.device"):
        self.classes, self.bs, self.device = sources[0].classes, bs, device
        self.predictors = [source.load() for source in sources]

    def __call__(self, texts: list[list[str]]) -> np.ndarray:
        total = np.zeros((len(texts), len(self.classes)))
        for predictor in self.predictors:
            total += predictor(texts, bs=self.bs, device=self.device)
        if not np.isfinite(total).all():
            raise UserError("the classifier gives probabilities that are not numbers: its training diverged; train it "
                            "again with a lower --lr")
        return total / len(self.predictors)


# -- answers as csv ----------------------------------------------------------------------------------------------------

def in_chunks(items: Iterable[Item], characters: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Lists of at most CHUNK_TEXTS items, which end when they hold CHUNK_CHARACTERS."""
    chunk, held = [], 0
    for item in items:
        chunk.append(item)
        held += characters(item)
        if len(chunk) == CHUNK_TEXTS or held >= CHUNK_CHARACTERS:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def answer_columns(first: str, classes: Sequence[str], probabilities: bool) -> list[str]:
    """The names of an answer's columns: `first`, which holds the class, then p:CLASS for every class."""
    return [first, *(f"p:{name}" for name in classes if probabilities)]


def _cells(row: np.ndarray, classes: Sequence[str], probabilities: bool) -> list[str]:
    return [classes[int(row.argmax())], *(f"{value:.6g}" for value in row if probabilities)]


def print_answers(ensemble: Ensemble, texts: Iterable[list[str]], probabilities: bool, at_once: bool = False) -> None:
    """A csv on standard output: of each text the most probable class, then every class's probability.

    at_once: a row as soon as its text has come, not a chunk at a time.
    """
    rows = csv.writer(sys.stdout, lineterminator="\n")
    chunks = ([text] for text in texts) if at_once else in_chunks(texts, lambda text: sum(map(len, text)))
    for number, chunk in enumerate(chunks):
        answers = ensemble(chunk)
        if number == 0:
            rows.writerow(answer_columns("class", ensemble.classes, probabilities))
        rows.writerows(_cells(row, ensemble.classes, probabilities) for row in answers)
        sys.stdout.flush()


@dataclass(frozen=True)
class Table:
    """A csv file whose rows are to be answered. columns, header: see `corpus.read_table`."""

    path: str
    columns: list[str]
    header: str

    def read(self) -> Iterator[TableRow]:
        return corpus.read_table(self.path, self.columns, self.header)

    def check(self, added: Sequence[str]) -> int | None:
        """Reads it once, so that a fault in a late row shows before hours of work; returns the number of its texts.

        added: the columns to come. Raises UserError as `read_table`, and when the header has one of them already. None
        for a pipe, which can be read only once.
        """
        if not Path(self.path).is_file() and Path(self.path).exists() and not Path(self.path).is_dir():
            return None
        return sum(row.texts is not None for row in map(_checked(self.path, added), self.read()))

    def texts(self) -> Iterator[list[str]]:
        return (row.texts for row in self.read() if row.texts is not None)


def _checked(path: str, added: Sequence[str]) -> Callable[[TableRow], TableRow]:
    """A function that hands rows on and refuses a header with a column that is to be added."""
    def check(row: TableRow) -> TableRow:
        if row.texts is None and (there := [name for name in added if name in row.fields]):
            raise UserError(f"{path} has a column {there[0]!r} already; rename it or take it out")
        return row

    return check


def check_output(output: Path, source: str, overwrite: bool) -> None:
    """Raises UserError when a file is in the way of --output, or there can be none."""
    if output.is_dir():
        raise UserError(f"--output={output} is a folder; name a file")
    if output.exists() and not overwrite:
        same = Path(source).exists() and output.samefile(source)
        raise UserError(f"--output={output} {'is the file of --csv' if same else 'exists'}; choose another name, or "
                        f"replace it with --overwrite")
    parent = next(folder for folder in output.resolve().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"--output={output}: {parent} takes no files")


def write_table(ensemble: Ensemble, table: Table, output: Path, total: int | None, probabilities: bool) -> Counter:
    """Copies a csv file, the answers as further columns; what was there stays as it was written, to the byte.

    total: texts in it, None where unknown. Returns how many texts each class got. The file appears when it is whole.
    """
    added = answer_columns(PREDICTED, ensemble.classes, probabilities)
    counts, began, shown = Counter(), time.monotonic(), time.monotonic()
    try:
        # A link stays one: it is the file behind it that is replaced.
        with files.replacing(output.resolve()) as temporary, \
                open(temporary, "w", encoding="utf-8", newline="") as file:
            rows = map(_checked(table.path, added), table.read())
            for chunk in in_chunks(rows, lambda row: len(row.written)):
                texts = [row.texts for row in chunk if row.texts is not None]
                answers = [_cells(row, ensemble.classes, probabilities) for row in ensemble(texts)] if texts else []
                counts.update(answer[0] for answer in answers)
                following = iter(answers)
                for row in chunk:
                    if row.texts is not None:
                        file.write(_extended(row.written, next(following)))
                    else:
                        file.write(_extended(row.written, added) if row.fields else row.written)
                if time.monotonic() - shown > SECONDS_BETWEEN_LINES:
                    shown = time.monotonic()
                    _report_progress(counts.total(), total, shown - began)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}") from error
    return counts


def _extended(written: str, cells: Sequence[str]) -> str:
    """A row with further cells before its line end."""
    body = written.rstrip("\r\n")
    line = io.StringIO()
    # With this line end Python quotes a field that holds either of its characters.
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return f"{body},{line.getvalue()[:-2]}{written[len(body):]}"


def _report_progress(done: int, total: int | None, seconds: float) -> None:
    of_all = f" of {total:,}  {(total - done) * seconds / max(1, done):.0f} s left" if total else ""
    print(f"  {done:,} texts{of_all}  {done / seconds:,.0f} texts/s", file=sys.stderr, flush=True)


def first_taken(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; the first is taken at once, so that its absence or fault shows before anything is loaded."""
    first = list(islice(items, 1))
    if not first:
        raise UserError("there is no text to predict; give one as an argument, by --csv, or on standard input")
    return chain(first, items)


# -- a conversation ----------------------------------------------------------------------------------------------------

def converse(ensemble: Ensemble) -> None:
    """Asks for a text in the terminal and answers it, until `q` or Ctrl-D; an empty line asks again."""
    try:
        import readline  # noqa: F401  (gives `input` its editing, and lines longer than a terminal's 4,095 characters)
    except ImportError:
        pass
    while True:
        try:
            text = input(f"text (or {QUIT} to quit): ")
        except EOFError:
            print()
            return
        except UnicodeDecodeError:
            print("that is not UTF-8; type another text")
            continue
        except KeyboardInterrupt:
            print()
            raise
        if text.strip() == QUIT:
            return
        if problem := _no_text(text):
            print(problem)
        elif text.strip():
            print(_in_words(ensemble([[text]])[0], ensemble.classes), flush=True)


def _no_text(line: str) -> str | None:
    """What makes a typed line no text; None where nothing does."""
    if "\0" in line:
        return "that holds a NUL character, which no text has; type another one"
    if any("\ud800" <= character <= "\udfff" for character in line):
        return "that is not UTF-8; type another text"
    return None


def _in_words(row: np.ndarray, classes: Sequence[str]) -> str:
    """`pos  (pos 0.9688, neg 0.0312)`: the class, then the probabilities from the highest on."""
    order = np.argsort(-row, kind="stable")[:SHOWN_CLASSES]
    listed = ", ".join(f"{classes[place]} {row[place]:.4f}" for place in order)
    return f"{classes[order[0]]}  ({listed}{', ...' if len(classes) > SHOWN_CLASSES else ''})"
