"""Word tokens: those of fastai's default pipeline, token for token.

fastai's text rules run as they are. spaCy's tokenizer, which takes nine tenths of fastai's time, is asked once for each
distinct piece of text between spaces; `WordTokenizer` says when that is exact and what it does where it is not.
"""

import importlib.util
import re
from collections import defaultdict
from itertools import chain
from pathlib import Path
from typing import Sequence

from .errors import UsageError, UserError
from .tokens import SPECIAL_TOKENS, prepared, text_rules

# What spaCy's tokenizer takes as one piece: a run without white space, or a run of white space less its first space.
# (White space at the very beginning keeps its first space.)
_PIECES = re.compile(r"\S+|(?! )\s+|(?<= )\s+|\A\s+")


def check_lang(lang: str) -> None:
    """Raises UsageError when spaCy has no rules for the language; does not import spaCy."""
    folder = Path(importlib.util.find_spec("spacy").origin).parent / "lang"
    if not (folder / lang / "__init__.py").is_file():
        known = sorted(entry.name for entry in folder.iterdir() if (entry / "__init__.py").is_file())
        raise UsageError(f"--lang={lang!r}: spaCy has no such language; it has {', '.join(known)}")


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
