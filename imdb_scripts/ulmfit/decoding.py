"""From tokens back to text that a person reads."""

import re
from typing import Sequence

import numpy as np

from .subwords import words_of
from .tokens import BOS, EOS, FLD, PAD, SPECIAL_TOKENS

REP, WREP, UP, MAJ = SPECIAL_TOKENS[5:]

# A text may hold `xxrep 999999999 a` as its own words; no real one repeats anything so often.
MOST_REPEATS = 10_000

# The part of a contraction or a possessive that English tokenizers cut off.
_SUFFIX = re.compile(r"n['’]t|['’](s|m|d|re|ve|ll)", re.IGNORECASE)
# French articles and pronouns that are written together with the word after them.
_ELISION = re.compile(r"([cdjlmnst]|(jus|lors|puis|quoi)?qu)['’]", re.IGNORECASE)
_CLOSING = re.compile(r"[.,!?…]+|[;:%)\]}”’»]|''")
_OPENING = frozenset("([{“«‘`$£€¥#")
# Written without spaces between two words: `well-made`, `and/or`.
_JOINING = frozenset("-/")
# Words in s after which an apostrophe opens a quotation; after another one it makes a possessive (`the films' plot`).
_NO_PLURAL = frozenset("as does has his is its this thus us was yes".split())


def unpadded(row: np.ndarray, length: int, bptt: int) -> tuple[np.ndarray, int, int]:
    """A document out of a row as `models.pad_batch` lays it out.

    Args: row (width,) ids, the document's length in tokens, tokens a chunk.

    Returns its ids (length,), and how much padding stands before and after it. The padding is known by its place: a
    document may hold the padding token as a word.
    """
    before = (-(-len(row) // bptt) - -(-length // bptt)) * bptt
    return row[before:before + length], before, len(row) - before - length


def undo_markers(tokens: Sequence[str]) -> list[str]:
    """The words that tokens stand for: `xxmaj film` is `Film`, `xxup tv` `TV`, `xxrep 3 !` `!!!`, `xxwrep 2 so` twice.

    `xxbos`, `xxeos` and `xxpad` are left out, `xxfld` and its number stand as `|` between two text columns, and a
    marker with nothing to work on is dropped. As fastai's `decode_spec_tokens`, but for two things which that does not
    do: a repetition ends with its word (there, every later word is repeated too), and it may be one of a capitalized
    word, as fastai's rules write `The The The`.
    """
    words: list[str] = []
    case, rule, count, field = None, None, None, False
    for token in tokens:
        if field and token.isdecimal():
            field = False
            words += ["|"] * bool(words)
        elif token in (BOS, EOS, PAD, FLD):
            case, rule, count, field = None, None, None, token == FLD
        elif token in (REP, WREP):
            case, rule, count, field = None, token, None, False
        elif token in (UP, MAJ):
            case, field = token, False
            if count is None:
                rule = None
        elif rule and count is None and token.isdecimal() and len(token) <= len(str(MOST_REPEATS)) \
                and int(token) <= MOST_REPEATS:
            count = int(token)
        else:
            if rule and count is None:
                # Not a repetition after all: fastai drops the marker with the word after it; here the word stays.
                rule = None
            word = token.upper() if case == UP else token[:1].upper() + token[1:].lower() if case == MAJ else token
            words += [word * count] * bool(count) if rule == REP else [word] * count if rule == WREP else [word]
            case, rule, count, field = None, None, None, False
    return words


def join_words(words: Sequence[str]) -> str:
    """Words and punctuation as a line of text, spaced as in print: `do n't ( ever ) stop !` is `don't (ever) stop!`.

    White space of any kind becomes one space. The space before a word depends on it and on those before it alone, so
    that the text of the first words is the beginning of the text of all. What tokenization loses stays lost: whether a
    dash or an apostrophe had spaces around it is guessed.
    """
    text, previous, attach = "", "", True
    quotes = {'"': False, "'": False}  # whether one is open
    for word in " ".join(words).replace("▁", " ").split():
        joined = attach or bool(_SUFFIX.fullmatch(word) or _CLOSING.fullmatch(word))
        attach = word in _OPENING or bool(_ELISION.fullmatch(word))
        if word == "'" and not quotes[word] and previous.endswith("s") and previous.lower() not in _NO_PLURAL:
            joined = True
        elif word in quotes:
            joined = joined or quotes[word]
            quotes[word] = attach = not quotes[word]
        elif word in _JOINING and previous[-1:].isalnum():
            joined = attach = True
        text += word if joined else " " + word
        previous = word
    return text


def readable(tokens: Sequence[str], bpe: bool = False) -> str:
    """Tokens in reading order as one line of text. bpe: they are subwords."""
    return join_words(undo_markers(words_of(tokens) if bpe else tokens))
