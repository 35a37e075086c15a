"""Plain pieces of text, cut as spaCy cuts them, but without its regular expressions, which take most of its time.

Nine in ten distinct pieces of an English text are a word, a hyphenated one or a number, with some punctuation around
and perhaps fastai's mark of capital letters before (`xxmaj word,` is two pieces to spaCy, and plain as well).
spaCy takes prefixes and suffixes off one at a time, until a special case (an abbreviation, a contraction, an emoticon)
is left or no rule fits, and cuts the rest at infixes. With its patterns for English these steps are known beforehand
for such a piece: each mark of punctuation is a token, dots in a row are one, so are `'s` and hyphens in a row between
letters. What may have to do with a special case is left to spaCy.
"""

import hashlib
import re
from itertools import chain
from typing import Iterable

# The patterns that this was worked out for, by `_digest`. With others no piece is plain.
KNOWN_PATTERNS = {"c785e185c1f7983dd8f532c2d40d79ca5c50dc7f02b3df40e721e86758e3c885"}  # English in spaCy 3.8

# What fastai's rules put before a word, the marks before it, the word, the marks behind it. A run of dots is taken whole,
# so that it is tried in one way only; by looking ahead, as Python 3.11.2 (Debian 12's) takes `(?:a|bb++)*+` for more than
# it is and would match a single dot.
_PLAIN = re.compile(r"""(?:xx(?:maj|up)\ )?
                        ((?:["'(\[*]|\.{2,}(?!\.))*)
                        ([a-z]+(?:-{1,3}[a-z]+)*|[0-9]+)
                        ((?:'s)?(?:[,;:!?)"'\]*]|\.+(?!\.))*)""", re.VERBOSE)
_TOKENS = re.compile(r"[a-z0-9]+|'s(?![a-z0-9])|\.+|-+|[^ ]")
_WORDS_WITHIN = re.compile(r"[^-]+")


class PlainPieces:
    """Tells the plain pieces from the others, and cuts them.

    tokenizer: spaCy's. patterns: the tokens that its rules alone make of each of its special cases.
    """

    def __init__(self, tokenizer, patterns: Iterable[list[str]]):
        self._known = _digest(tokenizer) in KNOWN_PATTERNS
        longer = [pattern for pattern in patterns if len(pattern) > 1]
        # spaCy looks for special cases of several tokens among those of the whole text, too.
        self._pairs = {pair for pattern in longer for pair in zip(pattern, pattern[1:])}
        special = (match.group(2) for match in map(_PLAIN.fullmatch, tokenizer.rules) if match)
        self._special_words = {*special, *chain.from_iterable(longer)}
        self._marks: dict[str, bool] = {"": True}

    def is_plain(self, piece: str) -> bool:
        match = _PLAIN.fullmatch(piece)
        if match is None or not self._known:
            return False
        before, word, after = match.groups()
        if word in self._special_words or not (self._apart(before) and self._apart(after)):
            return False
        return "-" not in word or self._special_words.isdisjoint(_WORDS_WITHIN.findall(word))

    def _apart(self, marks: str) -> bool:
        """Whether no special case is among the marks before or behind a word."""
        if marks not in self._marks:
            tokens = _TOKENS.findall(marks)
            self._marks[marks] = self._pairs.isdisjoint(zip(tokens, tokens[1:]))
        return self._marks[marks]

    @staticmethod
    def lines(pieces: list[str]) -> list[str]:
        """The tokens of each of these plain pieces, joined by a space."""
        # A piece holds no white space, so that a newline, a token for `_TOKENS`, can stand between two.
        return " ".join(_TOKENS.findall("\n".join(pieces))).split(" \n ") if pieces else []


def _digest(tokenizer) -> str:
    """Of all that decides on affixes: each function is a compiled pattern's, None, or one that no digest knows."""
    functions = (tokenizer.prefix_search, tokenizer.suffix_search, tokenizer.infix_finditer, tokenizer.token_match,
                 tokenizer.url_match)
    patterns = ("" if function is None else getattr(getattr(function, "__self__", None), "pattern", repr(function))
                for function in functions)
    return hashlib.sha256("\0".join(patterns).encode()).hexdigest()
