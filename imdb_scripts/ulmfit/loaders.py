"""Batches from flat, memory-mapped ids.

The order of an epoch is a function of (seed, epoch) alone and a loader can start in the middle, so that a resumed
run sees the very batches that an undisturbed one would have seen.
"""

from abc import ABC, abstractmethod
from typing import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from .errors import UserError
from .models import pad_batch
from .vocab import Documents


class TextStream:
    """The documents of several splits read as one text, in a given order, without copying them.

    parts: (documents, rows) pairs; rows None: all of them. backwards: each document's ids reversed.
    """

    def __init__(self, parts: Sequence[tuple[Documents, np.ndarray | None]], backwards: bool):
        self.documents = [documents for documents, _ in parts]
        rows = [np.arange(len(documents)) if chosen is None else np.asarray(chosen) for documents, chosen in parts]
        # Begun with an empty array: a dataset may have none of the splits asked for.
        nothing = np.zeros(0, dtype=np.int64)
        self.part = np.concatenate([nothing, *(np.full(len(chosen), part) for part, chosen in enumerate(rows))])
        self.row = np.concatenate([nothing, *rows])
        self.lengths = np.concatenate([nothing, *(np.diff(documents.offsets)[chosen]
                                                  for documents, chosen in zip(self.documents, rows))])
        self.backwards = backwards
        self.arrange(np.arange(len(self.row)))

    def arrange(self, order: np.ndarray) -> None:
        """Puts the documents into `order`, a permutation of their numbers."""
        self.order = order
        self.begins = np.concatenate([[0], np.cumsum(self.lengths[order])])

    def __len__(self) -> int:
        return int(self.begins[-1])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens start to stop - 1 of the text, int64."""
        out = np.empty(stop - start, dtype=np.int64)
        place = int(np.searchsorted(self.begins, start, side="right")) - 1
        filled = 0
        while filled < len(out):
            number = self.order[place]
            document = self.documents[self.part[number]][self.row[number]]
            if self.backwards:
                document = document[::-1]
            piece = document[start + filled - self.begins[place]:][:len(out) - filled]
            out[filled:filled + len(piece)] = piece
            filled += len(piece)
            place += 1
        return out


def bptt_lengths(total: int, bptt: int, generator: np.random.Generator) -> np.ndarray:
    """Cuts `total` tokens into pieces of variable length (Merity 2017): N(bptt, 5) with probability 0.95, else
    N(bptt / 2, 5), at least 5; the last piece is what is left."""
    # A piece has at least 5 tokens, so this many are always enough.
    count = total // 5 + 1
    mean = np.where(generator.random(count) < 0.95, bptt, bptt / 2)
    lengths = np.maximum(5, generator.normal(mean, 5).astype(np.int64))
    ends = np.cumsum(lengths)
    pieces = int(np.searchsorted(ends, total)) + 1
    lengths = lengths[:pieces]
    lengths[-1] -= ends[pieces - 1] - total
    return lengths


class _Loader(ABC):
    """What fastai's Learner asks of a loader, and a place to start from."""

    epoch = 0
    first_batch = 0

    @abstractmethod
    def updates(self, epoch: int) -> int:
        """Batches of an epoch."""

    def __len__(self) -> int:
        return self.updates(self.epoch)

    def start(self, epoch: int, batch: int = 0) -> None:
        """Sets which epoch the next iteration is, and the batch it begins with."""
        self.epoch, self.first_batch = epoch, batch

    def to(self, device: torch.device) -> None:
        """The Learner moves each batch itself; fastai's DataLoaders calls this on every loader."""


class LMLoader(_Loader):
    """Language-model batches: the text cut into `bs` parallel streams, read bptt tokens at a time.

    Yields (inputs, targets), both (bs, tokens) int64; targets are the inputs one token on. With a seed (training)
    documents are shuffled anew each epoch and bptt varies; without one (validation) neither.
    """

    def __init__(self, stream: TextStream, *, bs: int, bptt: int, seed: int | None, what: str):
        if len(stream) < 2:
            raise UserError(f"{what} has {len(stream)} tokens; a language model needs at least 2 to predict one")
        self.stream, self.bptt, self.seed = stream, bptt, seed
        # A text shorter than the batch gives fewer rows, not none.
        self.bs = min(bs, len(stream) - 1)
        self.row_length = (len(stream) - 1) // self.bs

    def pieces(self, epoch: int) -> np.ndarray:
        """Tokens a row of each batch of an epoch."""
        if self.seed is None:
            whole, rest = divmod(self.row_length, self.bptt)
            return np.array([self.bptt] * whole + [rest] * bool(rest), dtype=np.int64)
        return bptt_lengths(self.row_length, self.bptt, np.random.default_rng([self.seed, epoch, 1]))

    def updates(self, epoch: int) -> int:
        return len(self.pieces(epoch))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.seed is not None:
            order = np.random.default_rng([self.seed, self.epoch, 0])
            self.stream.arrange(order.permutation(len(self.stream.row)))
        pieces = self.pieces(self.epoch)
        begins = np.concatenate([[0], np.cumsum(pieces)])
        for batch in range(self.first_batch, len(pieces)):
            text = np.stack([self.stream.read(row * self.row_length + begins[batch],
                                              row * self.row_length + begins[batch + 1] + 1)
                             for row in range(self.bs)])
            text = torch.from_numpy(text)
            yield text[:, :-1], text[:, 1:]


def sortish_batches(lengths: np.ndarray, bs: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Random batches of documents of similar length: shuffled, sorted by length in pools of 50 batches, the batches
    shuffled, the one with the longest document first (so that a lack of memory shows at once). No batch has a single
    document, which batch normalisation cannot take: it joins the one before."""
    order = generator.permutation(len(lengths))
    pools = [order[i:i + bs * 50] for i in range(0, len(order), bs * 50)]
    order = np.concatenate([pool[np.argsort(-lengths[pool], kind="stable")] for pool in pools])
    batches = [order[i:i + bs] for i in range(0, len(order), bs)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        single = batches.pop()
        batches[-1] = np.concatenate([batches[-1], single])
    batches = [batches[i] for i in generator.permutation(len(batches))]
    longest = max(range(len(batches)), key=lambda i: lengths[batches[i]].max())
    batches[0], batches[longest] = batches[longest], batches[0]
    return [batch[np.argsort(-lengths[batch], kind="stable")] for batch in batches]


class ClassifierLoader(_Loader):
    """Classifier batches: (ids (rows, width), lengths (rows,), labels (rows,)), longest document first.

    With a seed (training) batches are drawn anew each epoch; without one (prediction) documents come sorted by
    length, and `order` says which document each row was, over all batches.
    """

    def __init__(self, documents: Documents, rows: np.ndarray | None, *, bs: int, bptt: int, backwards: bool,
                 seed: int | None):
        self.documents, self.bs, self.bptt, self.backwards, self.seed = documents, bs, bptt, backwards, seed
        self.rows = np.arange(len(documents)) if rows is None else np.asarray(rows)
        self.lengths = np.diff(documents.offsets)[self.rows]
        self.order = np.argsort(-self.lengths, kind="stable")

    def batches(self, epoch: int) -> list[np.ndarray]:
        if self.seed is None:
            return [self.order[i:i + self.bs] for i in range(0, len(self.order), self.bs)]
        return sortish_batches(self.lengths, self.bs, np.random.default_rng([self.seed, epoch, 0]))

    def updates(self, epoch: int) -> int:
        whole, rest = divmod(len(self.rows), self.bs)
        if self.seed is not None and whole and rest == 1:
            return whole
        return whole + bool(rest)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for batch in self.batches(self.epoch)[self.first_batch:]:
            rows = self.rows[batch]
            documents = [self.documents[row] for row in rows]
            ids, lengths = pad_batch([text[::-1] for text in documents] if self.backwards else documents, self.bptt)
            labels = self.documents.labels[rows].astype(np.int64)
            yield torch.from_numpy(ids), torch.from_numpy(lengths), torch.from_numpy(labels)
