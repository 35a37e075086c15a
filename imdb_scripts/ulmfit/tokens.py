"""Word tokens: those of fastai's default pipeline, token for token; and the files that tokens are kept in.

fastai's text rules run as they are. spaCy's tokenizer, which takes nine tenths of fastai's time, is asked once for each
distinct piece of text between spaces; `WordTokenizer` says when that is exact and what it does where it is not.

A token file holds one document a line, its tokens joined by one space.
"""

import functools
import importlib.util
import multiprocessing
import os
import re
import signal
import threading
from collections import defaultdict, deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Callable, Iterable, Iterator, Sequence, TypeVar

from . import files
from .errors import UsageError, UserError

Key = TypeVar("Key")
Result = TypeVar("Result")

# fastai's names and order: their places in the vocabulary are their ids.
SPECIAL_TOKENS = ("xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxrep", "xxwrep", "xxup", "xxmaj")
UNK, PAD, BOS, EOS, FLD = SPECIAL_TOKENS[:5]

# Big enough that sending a batch costs little beside tokenizing it, small enough that the last ones end together.
BATCH_DOCUMENTS = 250
# Keeps every process busy while the oldest batch is written, and bounds what waits in memory.
BATCHES_IN_FLIGHT = 3

# What spaCy's tokenizer takes as one piece: a run without white space, or a run of white space less its first space.
# (White space at the very beginning keeps its first space.)
_PIECES = re.compile(r"\S+|(?! )\s+|(?<= )\s+|\A\s+")


def check_lang(lang: str) -> None:
    """Raises UsageError when spaCy has no rules for the language; does not import spaCy."""
    folder = Path(importlib.util.find_spec("spacy").origin).parent / "lang"
    if not (folder / lang / "__init__.py").is_file():
        known = sorted(entry.name for entry in folder.iterdir() if (entry / "__init__.py").is_file())
        raise UsageError(f"--lang={lang!r}: spaCy has no such language; it has {', '.join(known)}")


def join_fields(fields: Sequence[str]) -> str:
    """The text columns of a document as one text; each is announced by `xxfld` and its number if there are several."""
    if len(fields) == 1:
        return fields[0]
    return " ".join(f"{FLD} {number} {field}" for number, field in enumerate(fields, 1))


def text_rules() -> list[Callable[[str], str]]:
    """fastai's default rules: what is done to a text before it is cut into tokens."""
    from fastai.text.core import defaults

    if tuple(defaults.text_spec_tok) != SPECIAL_TOKENS:
        raise RuntimeError(f"this fastai has other special tokens: {defaults.text_spec_tok}")
    return list(defaults.text_proc_rules)


def prepared(fields: Sequence[str], rules: Sequence[Callable[[str], str]]) -> str:
    """A document's text columns as one text, the rules applied; it begins with `xxbos`."""
    text = join_fields(fields)
    for rule in rules:
        text = rule(text)
    return text


class _Pieces(dict):
    """Piece of text -> (its tokens, the endings that would make it depend on the piece before it).

    Filled on demand by spaCy and emptied when the pieces held amount to `capacity` characters. spaCy's own store of
    strings grows with every word it meets, so its tokenizer is made anew at the same time.
    """

    def __init__(self, lang: str, capacity: int):
        super().__init__()
        self.lang, self.capacity, self.characters = lang, capacity, 0
        self.tokenizer = _spacy_tokenizer(lang)
        self.endings = _endings_before(self.tokenizer)

    def __missing__(self, piece: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if self.characters >= self.capacity:
            self.clear()
            self.characters = 0
            self.tokenizer = _spacy_tokenizer(self.lang)
        # The post rule of fastai: no token holds a plain space.
        tokens = tuple(token.text.replace(" ", "▁") for token in self.tokenizer(piece))
        endings = ()
        # No special case of several tokens holds one of these; `:x` is one, and `: xxmaj` common.
        if piece not in SPECIAL_TOKENS:
            endings = tuple(ending for beginning, endings in self.endings.get(piece[0], ())
                            if piece.startswith(beginning) for ending in endings)
        self[piece] = tokens, endings
        self.characters += len(piece)
        return tokens, endings


def _spacy_tokenizer(lang: str):
    import spacy
    from spacy.symbols import ORTH
    from spacy.tokenizer import Tokenizer

    try:
        tokenizer = spacy.blank(lang).tokenizer
    except ImportError as error:
        raise UserError(f"--lang={lang}: spaCy needs another package for it: {' '.join(str(error).split())}") from error
    if type(tokenizer) is not Tokenizer:
        raise UserError(f"--lang={lang}: spaCy segments it with a tokenizer that takes no special tokens, as fastai's "
                        f"pipeline needs; segment the text yourself and use --lang=xx")
    for word in SPECIAL_TOKENS:
        tokenizer.add_special_case(word, [{ORTH: word}])
    return tokenizer


def _endings_before(tokenizer) -> dict[str, list[tuple[str, list[str]]]]:
    """First character -> [(beginning of a piece, endings of the piece before it)] that a special case could join.

    spaCy looks for its special cases (emoticons, abbreviations) among the tokens of the whole document, so that one
    can match across a space. It then needs two neighbouring tokens of its pattern on either side.
    """
    from spacy.tokenizer import Tokenizer

    without_cases = Tokenizer(tokenizer.vocab, prefix_search=tokenizer.prefix_search,
                              suffix_search=tokenizer.suffix_search, infix_finditer=tokenizer.infix_finditer,
                              token_match=tokenizer.token_match, url_match=tokenizer.url_match)
    before = defaultdict(set)
    for case in tokenizer.rules:
        pattern = [token.text for token in without_cases(case)]
        for ending, beginning in zip(pattern, pattern[1:]):
            before[beginning].add(ending)
    index = defaultdict(list)
    for beginning, endings in sorted(before.items()):
        index[beginning[0]].append((beginning, sorted(endings)))
    return dict(index)


class WordTokenizer:
    """fastai's default text rules and spaCy's tokenizer for `lang`, with fastai's special tokens.

    spaCy cuts a text at its white space and tokenizes each piece by itself; only afterwards does it look for special
    cases in the whole document. So the tokens of a piece can be remembered, except where a special case might span
    two pieces: there the pieces concerned are handed to spaCy together.

    capacity: characters of distinct pieces remembered; at the default some 100 MB with what spaCy keeps of them.
    Raises UserError when spaCy cannot tokenize the language.
    """

    def __init__(self, lang: str = "en", capacity: int = 2_000_000):
        self._rules = text_rules()
        self._pieces = _Pieces(lang, capacity)

    def __call__(self, fields: Sequence[str]) -> list[str]:
        """Tokens of the document with these text columns, beginning with `xxbos`."""
        return self.split(prepared(fields, self._rules))

    def split(self, text: str) -> list[str]:
        """Tokens of a text to which the rules have been applied."""
        pieces = text.split(" ")
        if pieces != text.split():
            pieces = _PIECES.findall(text)
        learned = list(map(self._pieces.__getitem__, pieces))
        if any(endings and number and pieces[number - 1].endswith(endings)
               for number, (_, endings) in enumerate(learned)):
            learned = map(self._pieces.__getitem__, self._joined(text))
        return list(chain.from_iterable(tokens for tokens, _ in learned))

    def _joined(self, text: str) -> list[str]:
        """The pieces of a text, those in one that a special case might span, with the space between them."""
        spans: list[tuple[int, int]] = []
        previous = ""
        for match in _PIECES.finditer(text):
            start = match.start()
            _, endings = self._pieces[match.group()]
            if spans and endings and previous.endswith(endings):
                start, _ = spans.pop()
            spans.append((start, match.end()))
            previous = match.group()
        return [text[start:end] for start, end in spans]


# Several models may be asked in turn; one of words, remembered pieces and all, takes 100 MB.
@functools.lru_cache(maxsize=8)
def _tokenizer(lang: str, sp_model: Path | None) -> Callable[[Sequence[str]], list[str]]:
    from .subwords import SubwordTokenizer

    return WordTokenizer(lang) if sp_model is None else SubwordTokenizer(sp_model)


def tokenize_texts(rows: Sequence[Sequence[str]], lang: str = "en", sp_model: Path | None = None) -> list[list[str]]:
    """Tokens of documents in this process: words, or a sentencepiece model's subwords.

    rows: one list of text columns a document.
    """
    tokenizer = _tokenizer(lang, sp_model)
    return [tokenizer(fields) for fields in rows]


# -- many processes ----------------------------------------------------------------------------------------------------

def available_cores() -> int:
    return len(os.sched_getaffinity(0))


def _end_with_parent() -> None:
    """Makes a worker end when its parent is gone, were it killed; Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _encoded(rows: Sequence[Sequence[str]], lang: str, sp_model: Path | None) -> list[tuple[str, int]]:
    return [(encode_line(tokens), len(tokens)) for tokens in tokenize_texts(rows, lang, sp_model)]


def tokenize(batches: Iterable[tuple[Key, Sequence[Sequence[str]]]], lang: str = "en", workers: int | None = None,
             sp_model: Path | None = None) -> Iterator[tuple[Key, list[tuple[str, int]]]]:
    """Tokenizes a stream of documents; what it yields does not depend on the number of processes.

    batches: (key, rows) with one list of text columns a row; the key is handed back and stays in this process.
    workers: processes, by default one a core; 1 does the work here. sp_model: cuts into its subwords, not words.

    Yields (key, [(line of a token file, number of tokens), ...]) in the order of the batches, of which a bounded
    number is taken in advance. Raises UserError when the language cannot be tokenized or a process is killed.
    """
    return in_processes(batches, partial(_encoded, lang=lang, sp_model=sp_model), workers)


def in_processes(batches: Iterable[tuple[Key, Sequence[Sequence[str]]]],
                 work: Callable[[Sequence[Sequence[str]]], Result],
                 workers: int | None = None) -> Iterator[tuple[Key, Result]]:
    """Yields (key, work(rows)) of each batch, in their order; `work` must be a function that can be sent to a process.

    Raises UserError when a process is killed.
    """
    workers = workers or available_cores()
    if workers == 1:
        for key, rows in batches:
            yield key, work(rows)
        return
    # A forked process would inherit the locks of other threads (BLAS starts some on import); a spawned one is clean.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _end_with_parent)
    try:
        waiting = deque()
        for key, rows in batches:
            waiting.append((key, pool.submit(work, rows)))
            if len(waiting) > BATCHES_IN_FLIGHT * workers:
                key, future = waiting.popleft()
                yield key, future.result()
        while waiting:
            key, future = waiting.popleft()
            yield key, future.result()
    except BrokenProcessPool as error:
        raise UserError("a tokenizing process was killed, probably for want of memory; use fewer --workers") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


# -- token files -------------------------------------------------------------------------------------------------------

_UNESCAPED = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}


def encode_line(tokens: Sequence[str]) -> str:
    """A document as one line of a token file, without the line's end.

    Backslash, newline and carriage return are written `\\\\`, `\\n`, `\\r`. Raises ValueError when a token is empty or
    holds a space, which no tokenizer here gives.
    """
    line = " ".join(tokens)
    if "" in tokens or line.count(" ") != max(len(tokens) - 1, 0):
        raise ValueError("a token is empty or holds a space")
    return line.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def decode_line(line: str) -> list[str]:
    """The tokens of a line; the inverse of `encode_line`."""
    if not line:
        return []
    if "\\" in line:
        # A token never begins in the middle of an escape, as an escape holds no space.
        line = re.sub(r"\\.", lambda match: _UNESCAPED[match.group()], line)
    return line.split(" ")


def write_tokens(path: Path, documents: Iterable[Sequence[str]]) -> None:
    """Writes a token file. It appears under its name when it is whole."""
    with files.replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        for tokens in documents:
            file.write(encode_line(tokens) + "\n")


def read_tokens(path: Path) -> Iterator[list[str]]:
    """The documents of a token file, one at a time."""
    # newline: only "\n" ends a line. Tokens may hold other characters at which Python would break lines.
    with open(path, encoding="utf-8", newline="\n") as file:
        for line in file:
            yield decode_line(line.removesuffix("\n"))
