"""Word tokens: those of fastai's default pipeline, token for token.

fastai's text rules run as they are. spaCy's tokenizer, which takes nine tenths of fastai's time, is asked once for each
distinct piece of text between spaces; `WordTokenizer` says when that is exact and what it does where it is not.
"""

import importlib.util
import re
from collections import defaultdict
from itertools import chain, islice
from operator import eq
from pathlib import Path
from typing import Callable, Sequence

from .errors import UsageError, UserError
from .tokens import BOS, SPECIAL_TOKENS, decode_line, encode_line, join_fields, text_rules

# What spaCy's tokenizer takes as one piece: a run without white space, or a run of white space less its first space.
# (White space at the very beginning keeps its first space.)
_PIECES = re.compile(r"\S+|(?! )\s+|(?<= )\s+|\A\s+")
_BETWEEN_CHUNKS = re.compile(r"(?<=\S) (?=\S)")
_OTHER_SPACE = re.compile(r"[^\S \n]")


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


class _Chunks(dict):
    """Chunk of text, as fastai's rule for HTML leaves it -> its tokens as in a token file; filled on demand by `learn`.

    repetitive: the chunks in which fastai's rule for repeated characters finds some. endings: of the chunks that
    begin with a piece which might depend on the one before it, the endings that this one would have (`_Pieces`).
    """

    def __init__(self, learn: Callable[[str], str], capacity: int):
        super().__init__()
        self.learn, self.capacity, self.characters = learn, capacity, 0
        self.repetitive: set[str] = set()
        self.endings: dict[str, tuple[str, ...]] = {}

    def __missing__(self, chunk: str) -> str:
        line = self[chunk] = self.learn(chunk)
        self.characters += len(chunk)
        return line

    def forget(self) -> None:
        """Empties a full memory: between documents, as a document's chunks are looked up more than once."""
        if self.characters >= self.capacity:
            for memory in (self, self.repetitive, self.endings):
                memory.clear()
            self.characters = 0


class WordTokenizer:
    """fastai's default text rules and spaCy's tokenizer for `lang`, with fastai's special tokens.

    Nearly all that rules and tokenizer do stays between two spaces: what becomes of such a chunk of text is learned
    once and remembered. Two things do not. fastai's rule for repeated words compares neighbours, which is seen from
    the words of a text; then the rule is applied. And spaCy, which cuts a text at its white space and tokenizes each
    piece by itself, afterwards looks for special cases in the whole document: where one might span two pieces, these
    are handed to it together.

    capacity: characters of distinct chunks remembered; at the default some 200 MB with what spaCy keeps of them.
    Raises UserError when spaCy cannot tokenize the language.
    """

    def __init__(self, lang: str = "en", capacity: int = 4_000_000):
        self._html, self._repeated_characters, self._repeated_words, self._marks, self._useless_spaces, \
            *self._capitals, _ = text_rules()
        self._pieces = _Pieces(lang, capacity)
        self._chunks = _Chunks(self._learn, capacity)

    def __call__(self, fields: Sequence[str]) -> list[str]:
        """Tokens of the document with these text columns, beginning with `xxbos`."""
        return decode_line(self.line(fields))

    def line(self, fields: Sequence[str]) -> str:
        """The same as a line of a token file."""
        self._chunks.forget()
        # What the other rules do depends neither on the number of spaces nor on those at the ends.
        text = self._useless_spaces(self._html(join_fields(fields))).strip()
        if not text:
            return BOS
        words, chunks = _words_and_chunks(text)
        lines = list(map(self._chunks.__getitem__, chunks))
        repetitive = not self._chunks.repetitive.isdisjoint(chunks)
        if repetitive:
            text = self._useless_spaces(self._repeated_characters(text)).strip()
            words, chunks = _words_and_chunks(text)
        if any(map(eq, words, islice(words, 1, None))):
            chunks = _words_and_chunks(self._useless_spaces(self._repeated_words(text)).strip())[1]
            repetitive = True
        if repetitive:
            lines = list(map(self._chunks.__getitem__, chunks))
        endings = self._chunks.endings
        dependent = [number for number, chunk in enumerate(chunks)
                     if chunk in endings and number and chunks[number - 1].lower().endswith(endings[chunk])]
        # From the last one on, so that three in a row come together, and the numbers of those before hold.
        for number in reversed(dependent):
            chunks[number - 1:number + 1] = [f"{chunks[number - 1]} {chunks[number]}"]
        if dependent:
            lines = map(self._chunks.__getitem__, chunks)
        return f"{BOS} {' '.join(lines)}"

    def split(self, text: str) -> list[str]:
        """Tokens of a text to which the rules have been applied."""
        pieces = _pieces_of(text)
        learned = list(map(self._pieces.__getitem__, pieces))
        if any(endings and number and pieces[number - 1].endswith(endings)
               for number, (_, endings) in enumerate(learned)):
            learned = map(self._pieces.__getitem__, self._joined(text))
        return list(chain.from_iterable(tokens for tokens, _ in learned))

    def _learn(self, chunk: str) -> str:
        """The tokens that the rules but the one for repeated words, and spaCy, make of a chunk, as in a token file."""
        if self._repeated_characters(chunk) != chunk:
            self._chunks.repetitive.add(chunk)
        text = self._useless_spaces(self._marks(chunk))
        for rule in self._capitals:
            text = rule(text)
        # The last rule, but for the beginning of the document; a space at the border is the one between chunks.
        text = text.lower().strip()
        _, endings = self._pieces[_pieces_of(text)[0]]
        if endings:
            self._chunks.endings[chunk] = endings
        return encode_line(self.split(text))

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


def _pieces_of(text: str) -> list[str]:
    """What spaCy takes as one piece each."""
    pieces = text.split(" ")
    return pieces if pieces == text.split() else _PIECES.findall(text)


def _words_and_chunks(text: str) -> tuple[list[str], list[str]]:
    """The text cut at all white space, and at single spaces alone. text: not empty, without white space at its ends.

    The white space within a chunk never touches its border: a space there would belong to it.
    """
    words, chunks = text.split(), text.split(" ")
    if chunks != words and ("\n " in text or " \n" in text or _OTHER_SPACE.search(text)):
        chunks = _BETWEEN_CHUNKS.split(text)
    return words, chunks
