"""Weights as safetensors, with the sizes and the vocabulary they belong to; pickles only where fastai is to read them.

A model's folder holds `weights.safetensors`, `vocab.json` and `manifest.json`.
"""

import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from . import files
from .errors import UserError
from .vocab import load_vocab

WEIGHTS = "weights.safetensors"
EMBEDDING = ("0.encoder.weight", "0.encoder_dp.emb.weight", "1.decoder.weight")


def _names_of_shared(model: nn.Module) -> list[list[str]]:
    """The names of a model's tensors, those of one and the same tensor (tied weights) together."""
    groups: dict[int, list[str]] = {}
    for name, tensor in model.state_dict().items():
        groups.setdefault(tensor.data_ptr(), []).append(name)
    return list(groups.values())


def save(model: nn.Module, path: Path, facts: dict) -> str:
    """Writes a model's weights (tied ones once) with `facts` in the file's header. Returns the file's sha256.

    Raises OSError for a full disk.
    """
    state = model.state_dict()
    tensors = {names[0]: state[names[0]].contiguous() for names in _names_of_shared(model)}
    # One entry alone: the header's entries are written in no fixed order, and the same weights must give the same file.
    with files.replacing(path) as temporary:
        try:
            save_file(tensors, str(temporary), metadata={"ulmfit": json.dumps(facts)})
        except SafetensorError as error:
            # The system's error is in its text alone.
            if number := re.search(r"\(os error (\d+)\)", str(error)):
                raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
            raise
    return files.sha256(path)


def torch_save(value: Any, path: Path) -> None:
    """torch.save, which makes a RuntimeError of the OSError of a full disk; here it stays one."""
    with open(path, "wb") as file:
        try:
            torch.save(value, file)
        except RuntimeError as error:
            # Raised as torch closes an archive that the system's error had cut short.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def export(model: nn.Module, vocab: list[str], weights_path: Path, vocab_path: Path, encoder_path: Path) -> None:
    """Writes a language model as fastai's `load_pretrained` and `load_encoder` read it.

    `load_pretrained` copies by position: the order is that of fastai's own model, which ours is.
    """
    with (files.replacing(weights_path) as whole, files.replacing(vocab_path) as words,
          files.replacing(encoder_path) as encoder):
        torch_save(model.state_dict(), whole)
        words.write_bytes(pickle.dumps(vocab))
        torch_save(model[0].state_dict(), encoder)


def facts(path: Path) -> dict:
    """What `save` noted in the header. Raises UserError when the file is not one of ours or is cut off."""
    try:
        with safe_open(str(path), framework="pt") as file:
            noted = (file.metadata() or {}).get("ulmfit")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read as safetensors ({error}); run the stage that made it again") from error
    if noted is None:
        raise UserError(f"{path} has no header of this project; expected weights saved by one of its stages")
    return json.loads(noted)


def vocabulary(folder: Path) -> list[str]:
    """The words beside a model's weights. Raises UserError when they are not those it was trained with."""
    return load_vocab(folder, facts(folder / WEIGHTS)["vocab_fingerprint"])


def load_whole(model: nn.Module, path: Path) -> None:
    """Loads all of a model's weights; raises UserError where names or sizes differ."""
    facts(path)
    tensors = load_file(str(path))
    for names in _names_of_shared(model):
        stored = next((name for name in names if name in tensors), None)
        if stored is not None:
            tensors.update({name: tensors[stored] for name in names})
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit this model: {' '.join(str(error).split())[:300]}") from error


def load_encoder(model: nn.Module, folder: Path, vocab_fingerprint: str) -> None:
    """Copies a fine-tuned language model's encoder into a classifier, by name.

    Raises UserError with the reason when the vocabulary or a size is another.
    """
    path = folder / WEIGHTS
    noted = facts(path)
    if noted["vocab_fingerprint"] != vocab_fingerprint:
        raise UserError(f"{path} was trained with another vocabulary ({noted['vocab_fingerprint']}) than the dataset "
                        f"has now ({vocab_fingerprint}); run finetune_lm again after tok2id")
    tensors = tied(load_file(str(path)))
    encoder = {name.removeprefix("0."): tensor for name, tensor in tensors.items() if name.startswith("0.")}
    wanted = model[0].module.state_dict()
    for name, parameter in wanted.items():
        if name not in encoder:
            raise UserError(f"{path} lacks {name}; expected the encoder of an AWD-LSTM language model")
        if encoder[name].shape != parameter.shape:
            raise UserError(f"{path}: {name} is {tuple(encoder[name].shape)}, this classifier's is "
                            f"{tuple(parameter.shape)}")
    if more := sorted(encoder.keys() - wanted.keys()):
        raise UserError(f"{path} holds {more[0]}, which this classifier lacks; it has fewer layers")
    model[0].module.load_state_dict(encoder)


def match_vocabulary(tensors: dict[str, Tensor], old_vocab: list[str], new_vocab: list[str]) \
        -> tuple[dict[str, Tensor], dict[str, int]]:
    """Arranges a language model's embedding and decoder bias for another vocabulary, by word.

    A word that the old vocabulary lacks gets the mean row and the mean bias, as in the 2018 scripts.

    Returns the tensors under `language_model`'s names and the counts {"matched", "filled"}.
    """
    place = {word: row for row, word in enumerate(old_vocab)}
    rows = torch.tensor([place.get(word, -1) for word in new_vocab])
    known = rows >= 0

    def arranged(old: Tensor) -> Tensor:
        new = old.mean(0, keepdim=True).expand(len(new_vocab), *old.shape[1:]).clone()
        new[known] = old[rows[known]]
        return new

    embedding = arranged(tensors[EMBEDDING[0]])
    matched = {**tensors, **{name: embedding for name in EMBEDDING},
               "1.decoder.bias": arranged(tensors["1.decoder.bias"])}
    return matched, {"matched": int(known.sum()), "filled": int((~known).sum())}


def load_pretrained(folder: Path, vocab: list[str]) -> tuple[dict[str, Tensor], dict[str, int]]:
    """A language model's tensors arranged for `vocab`, and the counts of words matched and filled.

    Raises UserError as `vocabulary`.
    """
    words = vocabulary(folder)
    return match_vocabulary(tied(load_file(str(folder / WEIGHTS))), words, vocab)


def tied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gives the embedding, which a file holds once, under each of the three names it has in a language model."""
    stored = next((name for name in EMBEDDING if name in tensors), None)
    return tensors if stored is None else {**{name: tensors[stored] for name in EMBEDDING}, **tensors}
