"""Text from a language model, a token at a time."""

from pathlib import Path
from typing import Iterator, NamedTuple, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from . import models, vocab, weights
from .decoding import readable
from .tokenization import tokenize_texts
from .tokens import BOS, FLD, SPECIAL_TOKENS

BOS_ID = SPECIAL_TOKENS.index(BOS)
# Never drawn: neither is a word. (fastai leaves padding in, which no training text holds.)
NEVER = (vocab.UNK_ID, vocab.PAD_ID)
# Tokens of the prompt read at once, which bounds the memory whatever its length.
CHUNK = 1000


class Continuation(NamedTuple):
    """What was drawn.

    tokens: in the order of drawing; a backward model's first one stands next to the prompt. ended: the model began
    another document, so that fewer tokens than asked for came. uncut: how many were drawn when no word reached min_p.
    """

    tokens: list[str]
    ended: bool
    uncut: int


def load(folder: Path) -> nn.Module:
    """A fine-tuned language model, on the CPU and ready to predict."""
    facts = weights.facts(folder / weights.WEIGHTS)
    model = models.language_model(facts["vocab_size"], **facts["sizes"], dropmult=1.0)
    weights.load_whole(model, folder / weights.WEIGHTS)
    return model.eval()


def prompt_tokens(text: str, *, lang: str, sp_model: Path | None = None, text_columns: int,
                  backwards: bool) -> list[str]:
    """Tokens of a prompt, in reading order, as create_toks makes them: a document begins with `xxbos`.

    With several text columns the prompt of a forward model begins the first one; that of a backward model, which has
    not read the beginning yet, ends the last one.
    """
    if text_columns > 1 and not backwards:
        text = f"{FLD} 1 {text}"
    return tokenize_texts([[text]], lang, sp_model)[0]


def next_logits(model: nn.Module, ids: Sequence[int] | np.ndarray) -> Tensor:
    """Reads ids, going on from the model's hidden state, and returns the logits (vocab,) of the word that follows."""
    encoder, decoder = model[0], model[1]
    device = decoder.decoder.weight.device
    ids = torch.as_tensor(np.asarray(ids, dtype=np.int64), device=device)[None]
    with torch.no_grad():
        for piece in ids.split(CHUNK, dim=1):
            states = encoder(piece)
        # Of the last word alone: the logits of a long prompt would be its length times the vocabulary.
        return decoder(states[:, -1:])[0][0, 0]


def next_probabilities(logits: Tensor, *, temperature: float, min_p: float | None) -> tuple[np.ndarray, bool]:
    """The distribution that the next word is drawn from, as fastai's `LMLearner.predict` makes it.

    p = softmax(logits), 0 for the words of NEVER and for those below min_p; then p ** (1 / temperature), summing to 1.
    When nothing reaches min_p, nothing is cut off.

    Args: logits (vocab,). Returns probabilities (vocab,) float64, and whether min_p could be kept to.
    """
    # In logarithms: at a low temperature every power of a probability would be 0.
    logs = logits.double().cpu().log_softmax(0).numpy().copy()
    logs[list(NEVER)] = -np.inf
    reached = True
    if min_p is not None:
        low = np.exp(logs) < min_p
        reached = not low.all()
        if reached:
            logs[low] = -np.inf
    powers = np.exp((logs - logs.max()) / temperature)
    return powers / powers.sum(), reached


def draw(probabilities: np.ndarray, random: np.random.Generator) -> int:
    """A place, drawn by its probability; never one whose probability is 0."""
    cumulative = probabilities.cumsum()
    return int(np.searchsorted(cumulative, random.random() * cumulative[-1], side="right"))


def continuations(model: nn.Module, words: Sequence[str], prompt: Sequence[str], *, backwards: bool, n_words: int,
                  n_sentences: int, temperature: float, min_p: float | None, seed: int) -> Iterator[Continuation]:
    """Goes on with a prompt `n_sentences` times, each from the prompt anew.

    Args:
        words: the model's vocabulary.
        prompt: what `prompt_tokens` gives, beginning with `xxbos`.
        seed: the first continuations stay the same when more are asked for.
    """
    ids = vocab.numericalize(prompt, vocab.ids_by_word(words))
    if backwards:
        # In backward text, too, a document comes after an `xxbos`: the one that ended the document before it.
        ids = np.concatenate([ids[:1], ids[:0:-1]])
    model.reset()
    first = next_logits(model, ids)
    # The model replaces its states and never changes one, so that they can be taken up again.
    state = model[0].hidden
    for number in range(n_sentences):
        random = np.random.default_rng([seed, number])
        model[0].hidden, logits = state, first
        tokens, ended, uncut = [], False, 0
        while len(tokens) < n_words and not ended:
            if tokens:
                logits = next_logits(model, [drawn])
            probabilities, reached = next_probabilities(logits, temperature=temperature, min_p=min_p)
            drawn = draw(probabilities, random)
            ended = drawn == BOS_ID
            uncut += not reached
            if not ended:
                tokens.append(words[drawn])
        yield Continuation(tokens, ended, uncut)


def shown(text: str, prompt: Sequence[str], drawn: Sequence[str], *, backwards: bool, bpe: bool = False) -> str:
    """The prompt as it was typed with what was drawn after it, or before it, as one line of text.

    Where a backward model changed the prompt's own first word (a capital), the prompt is shown from its tokens.
    """
    typed, alone = " ".join(text.split()), readable(prompt, bpe)
    # A capital's marker that was drawn last must meet the prompt's first word, not its `xxbos`.
    whole = readable([*reversed(drawn), *prompt[1:]] if backwards else [*prompt, *drawn], bpe)
    fits = whole.endswith(alone) if backwards else whole.startswith(alone)
    if not fits:
        return whole
    more = whole[:len(whole) - len(alone)] if backwards else whole[len(alone):]
    # Of a prompt that stands for nothing (`xxbos`), no space was made.
    space = " " if typed and more and not alone else ""
    return more + space + typed if backwards else typed + space + more
