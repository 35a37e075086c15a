"""Classifiers of the 2018 scripts, as fastai 0.7 saved them, and the tokens they read."""

import re
from functools import lru_cache
from pathlib import Path
from typing import Sequence

import numpy as np
from torch import nn

from . import foreign_weights, models
from .classifier import Predictor
from .errors import UserError
from .vocab import UNK_ID
from .words import WordTokenizer

# Fixed in the 2018 scripts.
BPTT, MAX_LEN = 70, 20 * 70


def load(weights: Path, vocab: Path, num_classes: int | None, backwards: bool) -> tuple[Predictor, int]:
    """Such a classifier and the number of its classes, which have no names in the file.

    num_classes: how many it must have; None: any number. Raises UserError when it has another, or when the files are
    no such classifier. `foreign_weights` says how they are read.

    Where the original drops the first chunk of a document by mistake (its tokens an exact multiple of 70, at least
    1,400), ours keeps it.
    """
    read = foreign_weights.read_classifier(weights, vocab)
    if num_classes not in (None, read.n_classes):
        raise UserError(f"{weights} has {read.n_classes} classes, --num_classes asks for {num_classes}")
    model = models.classifier(len(read.words), read.n_classes, **read.sizes, bptt=BPTT, max_len=MAX_LEN, dropmult=0.0)
    model[0].module.load_state_dict({name.removeprefix("0."): tensor for name, tensor in read.encoder.items()})
    # Dropout is of no use here, and today's linear layers have no bias.
    model[1].layers = nn.Sequential(*(_block(tensors, number < len(read.head) - 1)
                                      for number, tensors in enumerate(read.head)))
    # 2018 looked words up in a dict made in the order of the rows, in which the last of two equal words wins.
    stoi = {word: row for row, word in enumerate(read.words)}

    def numericalized(rows: list[list[str]]) -> list[np.ndarray]:
        return [np.array([stoi.get(token, UNK_ID) for token in tokenized(fields)]) for fields in rows]

    return Predictor(model, numericalized, BPTT, backwards), read.n_classes


def _block(tensors: dict, hidden: bool) -> nn.Sequential:
    """Batch normalisation and linear layer, and the ReLU of one that is not the last."""
    outputs, inputs = tensors["lin.weight"].shape
    block = nn.ModuleDict({"bn": nn.BatchNorm1d(inputs), "lin": nn.Linear(inputs, outputs)})
    # Later than 0.7, torch counts the batches seen.
    block.load_state_dict({"bn.num_batches_tracked": block["bn"].num_batches_tracked, **tensors})
    return nn.Sequential(*block.values(), *[nn.ReLU()] * hidden)


# -- tokens ------------------------------------------------------------------------------------------------------------

def tokenized(fields: Sequence[str]) -> list[str]:
    """The tokens of a document with these text columns, by the rules of 0.7 and today's English tokenizer of spaCy.

    The special tokens have their names of then; every column is announced, also a single one.
    """
    text = "xbos " + " ".join(f"xfld {number} {field}" for number, field in enumerate(fields, 1))
    # Three and two lines of today's rules do nearly the same; the counts from which they apply are others.
    text = re.sub(r"(\S)(\1{3,})", lambda match: f" tk_rep {len(match[2]) + 1} {match[1]} ", text)
    text = re.sub(r"(\b\w+\W+)(\1{3,})", lambda match: f" tk_wrep {len(match[2].split()) + 1} {match[1]} ", text)
    text = "".join(f" t_up {piece.lower()}" if piece.isupper() and len(piece) > 2 else piece.lower()
                   for piece in re.findall(r"\w+|\W+", text))
    text = re.sub(r" {2,}", " ", re.sub(r"([/#])", r" \1 ", text))
    text = re.sub(r"<\s*br\s*/?>", "\n", text, flags=re.IGNORECASE)
    # Our tokenizer marks the spaces in a token of white space, which a vocabulary of 0.7 holds as they are.
    return [token.replace("\u2581", " ") for token in _tokenizer().split(text)]


@lru_cache(maxsize=1)
def _tokenizer() -> WordTokenizer:
    return WordTokenizer("en")
