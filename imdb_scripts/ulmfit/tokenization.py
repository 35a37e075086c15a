"""Documents to tokens, words or subwords, in this process or in many."""

import functools
import multiprocessing
import os
import signal
import threading
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Callable, Iterable, Iterator, Sequence, TypeVar

from .errors import UserError
from .subwords import SubwordTokenizer
from .words import WordTokenizer

Key = TypeVar("Key")
Result = TypeVar("Result")

# Big enough that sending a batch costs little beside tokenizing it, small enough that the last ones end together.
BATCH_DOCUMENTS = 250
# Keeps every process busy while the oldest batch is written, and bounds what waits in memory.
BATCHES_IN_FLIGHT = 3


def _tokenizer(lang: str, sp_model: Path | None) -> WordTokenizer | SubwordTokenizer:
    if sp_model is None:
        return _kept(lang, None, None)
    # A model that has been made anew since has the same path.
    path, now = Path(sp_model).resolve(), os.stat(sp_model)
    return _kept(lang, path, (now.st_ino, now.st_mtime_ns, now.st_size))


# Several models may be asked in turn; one of words, remembered pieces and all, takes 200 MB.
@functools.lru_cache(maxsize=8)
def _kept(lang: str, sp_model: Path | None, state: tuple[int, ...] | None) -> WordTokenizer | SubwordTokenizer:
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
    # Every document begins with xxbos, so that no line is empty.
    return [(line, line.count(" ") + 1) for line in _tokenizer(lang, sp_model).lines(rows)]


def work(lang: str = "en", sp_model: Path | None = None) \
        -> Callable[[Sequence[Sequence[str]]], list[tuple[str, int]]]:
    """The tokenizing of documents, for `Processes`: of each (line of a token file, number of tokens).

    sp_model: cuts into its subwords, not words. It raises UserError when the language cannot be tokenized.
    """
    return partial(_encoded, lang=lang, sp_model=sp_model)


class Processes:
    """Processes that work on streams of documents; what comes out does not depend on their number.

    workers: how many, by default one a core; with 1 the work is done here. To be used in a `with` statement.
    """

    def __init__(self, workers: int | None = None):
        self.workers = workers or available_cores()
        # A forked process would inherit the locks of other threads (BLAS starts some on import); a spawned one is
        # clean.
        self._pool = None if self.workers == 1 else \
            ProcessPoolExecutor(self.workers, multiprocessing.get_context("spawn"), _end_with_parent)

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *error) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def prepare(self, work: Callable[[Sequence[Sequence[str]]], object]) -> None:
        """Has each process import what the work needs, while this one reads."""
        if self._pool is not None:
            for _ in range(self.workers):
                self._pool.submit(work, [])

    def run(self, batches: Iterable[tuple[Key, Sequence[Sequence[str]]]],
            work: Callable[[Sequence[Sequence[str]]], Result]) -> Iterator[tuple[Key, Result]]:
        """Yields (key, work(rows)) of each batch, in their order, a bounded number of them taken in advance.

        batches: (key, rows) with one list of text columns a row; the key stays in this process. work: a function that
        can be sent to another. Raises UserError when a process is killed.
        """
        if self._pool is None:
            for key, rows in batches:
                yield key, work(rows)
            return
        waiting = deque()
        try:
            for key, rows in batches:
                waiting.append((key, self._pool.submit(work, rows)))
                if len(waiting) > BATCHES_IN_FLIGHT * self.workers:
                    key, future = waiting.popleft()
                    yield key, future.result()
            while waiting:
                key, future = waiting.popleft()
                yield key, future.result()
        except BrokenProcessPool as error:
            raise UserError("a tokenizing process was killed, probably for want of memory; use fewer --workers") \
                from error
