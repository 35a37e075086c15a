"""Batches of a dataset as lines of text: what train_clas and finetune_lm read first."""

from typing import Iterator, Sequence

import numpy as np

from . import language_model, vocab
from .decoding import unpadded
from .errors import UserError
from .loaders import ClassifierLoader, LMLoader
from .names import DataFolder, direction
from .tokens import encode_line


def classifier_lines(folder: DataFolder, split: str, rows: np.ndarray | None, classes: Sequence[str], *, n: int,
                     backwards: bool, bpe: bool, bs: int, bptt: int, seed: int, trunc_at: int) -> Iterator[str]:
    """The first batch of a split for a classifier, in the layout and order of `ClassifierLoader`.

    rows: those of the train split to draw from, None for all. n: documents shown. trunc_at: tokens of each that are
    shown, 0 for all. Raises UserError when the split has no documents.
    """
    documents, words = vocab.load_ids(folder.ids(bpe), split), vocab.load_vocab(folder.ids(bpe))
    if not len(documents):
        raise UserError(f"{folder.path}: {split} has no documents to show")
    training = split == "train"
    # As train_clas: training batches hold half as many documents as those of prediction.
    loader = ClassifierLoader(documents, rows, bs=max(2, bs // 2) if training else bs, bptt=bptt, backwards=backwards,
                              seed=seed if training else None)
    ids, lengths, labels = (part.numpy() for part in next(iter(loader)))
    numbers = loader.rows[loader.batches(0)[0]]
    yield (f"{split}, {direction(backwards)}: batch 1 of {len(loader):,}, {ids.shape[0]:,} documents, "
           f"{ids.shape[1]:,} tokens wide, of which {1 - lengths.sum() / ids.size:.1%} padding")
    for row in range(min(n, len(ids))):
        document, before, after = unpadded(ids[row], int(lengths[row]), bptt)
        label = f"label {classes[labels[row]]}" if labels[row] >= 0 else "no label"
        yield ""
        yield (f"{documents.document_ids[numbers[row]]}  {label}  {len(document):,} tokens, padding {before:,} before "
               f"and {after:,} after")
        yield _line(document, words, trunc_at)


def language_model_lines(folder: DataFolder, split: str, rows: np.ndarray | None, *, n: int, backwards: bool,
                         bpe: bool, bs: int, bptt: int, seed: int, trunc_at: int) -> Iterator[str]:
    """The first batch of a split for a language model, in the layout and order of `LMLoader`.

    The training text is that of train and unsup, or of `rows` of train alone. n: rows shown. trunc_at: tokens of each
    that are shown, 0 for all. Raises UserError when the text has fewer than 2 tokens.
    """
    ids = folder.ids(bpe)
    words = vocab.load_vocab(ids)
    training = split == "train"
    vocab.load_ids(ids, split)  # for its error: which splits there are when this one is not
    splits = [name for name in (("train", "unsup") if training and rows is None else (split,))
              if vocab.has_split(ids, name)]
    text = language_model.text(folder, splits, backwards, bpe, rows)
    loader = LMLoader(text, bs=bs, bptt=bptt, seed=seed if training else None, what=f"the text of {split}")
    inputs, targets = (part.numpy() for part in next(iter(loader)))
    yield (f"{' and '.join(splits)}, {direction(backwards)}: batch 1 of {len(loader):,}, {inputs.shape[0]:,} rows of "
           f"{inputs.shape[1]:,} tokens")
    for row in range(min(n, len(inputs))):
        yield ""
        yield f"input   {_line(inputs[row], words, trunc_at)}"
        yield f"target  {_line(targets[row], words, trunc_at)}"


def _line(ids: np.ndarray, words: Sequence[str], trunc_at: int) -> str:
    """Words of ids on one line, newlines in them escaped as in a token file."""
    shown = ids[:trunc_at or None]
    more = len(ids) - len(shown)
    return encode_line([words[number] for number in shown]) + f" ... ({more:,} more)" * bool(more)
