"""Word tokens: those of fastai's default pipeline, token for token.

fastai's text rules and spaCy's tokenizer run as they are, but once for each distinct piece of text between spaces, and
on many at a time; `WordTokenizer` says when that is exact and what it does where it is not. What spaCy would make of
most pieces is known without it (`affixes`).
"""

import importlib.util
import re
import sys
from collections import defaultdict
from itertools import chain, compress, count, filterfalse, islice
from operator import eq
from pathlib import Path
from typing import Iterable, Iterator, Sequence

from .affixes import PlainPieces
from .errors import UsageError, UserError
from .tokens import BOS, SPECIAL_TOKENS, decode_line, encode_line, join_fields, text_rules

# What spaCy's tokenizer takes as one piece: a run without white space, or a run of white space less its first space.
# (White space at the very beginning keeps its first space.)
_PIECES = re.compile(r"\S+|(?! )\s+|(?<= )\s+|\A\s+")
# It begins with the space, which `re` can look for fast.
_BETWEEN_CHUNKS = re.compile(r" (?<=\S )(?=\S)")
# White space between the chunks that the rules are given together. They treat all of it alike, but for spaces, and this
# occurs in hardly any text.
_SEPARATOR = "\x1e"
# Documents are taken together up to this many characters, which bounds what is in memory.
_CHARACTERS_TOGETHER = 150_000
# Enough to share the making of a document. In larger ones spaCy rarely uses its cache: not after a special case.
_PIECES_TOGETHER = 100


def languages() -> list[str]:
    """Those that spaCy has rules for, `xx` among them for any other; does not import spaCy."""
    folder = Path(importlib.util.find_spec("spacy").origin).parent / "lang"
    return sorted(entry.name for entry in folder.iterdir() if (entry / "__init__.py").is_file())


def check_lang(lang: str) -> None:
    """Raises UsageError when spaCy has no rules for the language."""
    known = languages()
    if lang not in known:
        raise UsageError(f"--lang={lang!r}: spaCy has no such language; it has {', '.join(known)}")


class _Pieces(dict):
    """Piece of text -> (its tokens as in a token file, the endings that would make it depend on the piece before it).

    Filled by `learn`. `forget` empties it when the pieces held amount to `capacity` characters. spaCy's own store of
    strings grows with every word it meets, so its tokenizer is made anew at the same time.
    """

    def __init__(self, lang: str, capacity: int):
        super().__init__()
        self.lang, self.capacity, self.characters = lang, capacity, 0
        self.tokenizer = _spacy_tokenizer(lang)
        patterns = _patterns_of_cases(self.tokenizer)
        self.endings = _endings_before(patterns)
        self.plain = PlainPieces(self.tokenizer, patterns)

    def forget(self) -> None:
        if self.characters >= self.capacity:
            self.clear()
            self.characters = 0
            self.tokenizer = _spacy_tokenizer(self.lang)

    def learn(self, pieces: Iterable[str]) -> None:
        """Tokenizes those that are not known: plain ones here, the others by spaCy, as one text with spaces between
        them where that is exact."""
        unknown = dict.fromkeys(filterfalse(self.__contains__, pieces))
        self.characters += sum(map(len, unknown))
        plain, together = [], {}
        previous = ""
        for piece in unknown:
            if self.plain.is_plain(piece):
                plain.append(piece)
                continue
            endings = self._endings(piece)
            if piece.split() != [piece]:
                # The post rule of fastai: no token holds a plain space.
                self[piece] = encode_line([token.text.replace(" ", "▁") for token in self.tokenizer(piece)]), endings
                continue
            if len(together) == _PIECES_TOGETHER or endings and previous.endswith(endings):
                self._learn_together(together)
                together = {}
            together[piece] = endings
            previous = piece
        if together:
            self._learn_together(together)
        self.update(zip(plain, zip(self.plain.lines(plain), map(self.endings_of_plain, plain)), strict=True))

    def _learn_together(self, pieces: dict[str, tuple[str, ...]]) -> None:
        """pieces: without white space, each with its endings, which the one before it does not have."""
        # The last token of a piece comes with a space and gets a second one here; the others have none.
        text = " ".join([token.text_with_ws for token in self.tokenizer(" ".join(pieces))])
        lines = text.replace("\\", "\\\\").split("  ")
        self.update(zip(pieces, zip(lines, pieces.values(), strict=True), strict=True))

    def endings_of_plain(self, piece: str) -> tuple[str, ...]:
        # The first token of one that begins with its word is in no special case.
        return () if piece[0].isalnum() else self._endings(piece)

    def _endings(self, piece: str) -> tuple[str, ...]:
        # No special case of several tokens holds one of these; `:x` is one, and `: xxmaj` common.
        if piece in SPECIAL_TOKENS or piece[0] not in self.endings:
            return ()
        return tuple(ending for beginning, endings in self.endings[piece[0]]
                     if piece.startswith(beginning) for ending in endings)


def _import_spacy() -> None:
    """Imports spaCy without torch, unless torch is there already.

    spaCy takes it along for its models, at two thirds of the time of the import; its tokenizer has no use for it.
    """
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # Python's way to make an import fail, as where there is no torch
    try:
        import spacy  # noqa: F401
    finally:
        if hidden:
            del sys.modules["torch"]


def _spacy_tokenizer(lang: str):
    _import_spacy()
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
    # What spaCy works out of each new word (its shape, whether it is like a number, ...) is half of its time, and no
    # rule of the tokenizer reads it.
    tokenizer.vocab.lex_attr_getters = {}
    for word in SPECIAL_TOKENS:
        tokenizer.add_special_case(word, [{ORTH: word}])
    return tokenizer


def _patterns_of_cases(tokenizer) -> list[list[str]]:
    """The tokens that spaCy's rules make of each of its special cases (emoticons, abbreviations) without it."""
    from spacy.tokenizer import Tokenizer

    without_cases = Tokenizer(tokenizer.vocab, prefix_search=tokenizer.prefix_search,
                              suffix_search=tokenizer.suffix_search, infix_finditer=tokenizer.infix_finditer,
                              token_match=tokenizer.token_match, url_match=tokenizer.url_match)
    return [[token.text for token in without_cases(case)] for case in tokenizer.rules]


def _endings_before(patterns: Iterable[list[str]]) -> dict[str, list[tuple[str, list[str]]]]:
    """First character -> [(beginning of a piece, endings of the piece before it)] that a special case could join.

    spaCy looks for its special cases, as `patterns`, among the tokens of the whole document, so that one can match
    across a space. It then needs two neighbouring tokens of its pattern on either side.
    """
    before = defaultdict(set)
    for pattern in patterns:
        for ending, beginning in zip(pattern, pattern[1:]):
            before[beginning].add(ending)
    index = defaultdict(list)
    for beginning, endings in sorted(before.items()):
        index[beginning[0]].append((beginning, sorted(endings)))
    return dict(index)


class _Chunks(dict):
    """Chunk of text, as fastai's rule for HTML leaves it -> its tokens as in a token file.

    repetitive: the chunks in which fastai's rule for repeated characters finds some. endings: of the chunks that
    begin with a piece which might depend on the one before it, the endings that this one would have (`_Pieces`).
    """

    def __init__(self, capacity: int):
        super().__init__()
        self.capacity, self.characters = capacity, 0
        self.repetitive: set[str] = set()
        self.endings: dict[str, tuple[str, ...]] = {}

    def forget(self) -> None:
        """Empties a full memory."""
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

    For the same reasons the chunks of many documents can be learned as one text, white space between them.

    capacity: characters of distinct chunks remembered, and of distinct pieces, until the next documents come; at the
    default some 200 MB with what spaCy keeps of them. Raises UserError when spaCy cannot tokenize the language.
    """

    def __init__(self, lang: str = "en", capacity: int = 4_000_000):
        self._html, self._repeated_characters, self._repeated_words, self._marks, self._useless_spaces, \
            *self._capitals, _ = text_rules()
        self._pieces = _Pieces(lang, capacity)
        self._chunks = _Chunks(capacity)

    def __call__(self, fields: Sequence[str]) -> list[str]:
        """Tokens of the document with these text columns, beginning with `xxbos`."""
        return decode_line(next(self.lines([fields])))

    def lines(self, rows: Iterable[Sequence[str]]) -> Iterator[str]:
        """The tokens of documents, each as a line of a token file. rows: one list of text columns a document."""
        together, characters = [], 0
        for fields in rows:
            # What the other rules do depends neither on the number of spaces nor on those at the ends.
            text = self._useless_spaces(self._html(join_fields(fields))).strip()
            together.append(text)
            characters += len(text)
            if characters >= _CHARACTERS_TOGETHER:
                yield from self._lines(together)
                together, characters = [], 0
        yield from self._lines(together)

    def split(self, text: str) -> list[str]:
        """Tokens of a text to which the rules have been applied."""
        self._pieces.forget()
        pieces = _pieces_of(text)
        self._pieces.learn(pieces)
        return decode_line(self._line_of_pieces(text, pieces))

    def _lines(self, texts: list[str]) -> list[str]:
        self._chunks.forget()
        self._pieces.forget()
        cut = list(map(_words_and_chunks, texts))
        self._learn(chain.from_iterable(chunks for _, chunks in cut))
        documents = [self._unrepeated(text, words, chunks) for text, (words, chunks) in zip(texts, cut)]
        self._learn(chain.from_iterable(new for new, (_, old) in zip(documents, cut) if new is not old))
        return [self._line(chunks) for chunks in documents]

    def _unrepeated(self, text: str, words: list[str], chunks: list[str]) -> list[str]:
        """The chunks when fastai's rules for repeated characters and words have been applied to a text cut in these."""
        if not self._chunks.repetitive.isdisjoint(chunks):
            text = self._useless_spaces(self._repeated_characters(text)).strip()
            words, chunks = _words_and_chunks(text)
        if any(map(eq, words, islice(words, 1, None))):
            _, chunks = _words_and_chunks(self._useless_spaces(self._repeated_words(text)).strip())
        return chunks

    def _line(self, chunks: list[str]) -> str:
        """The line of a document of known chunks."""
        endings = self._chunks.endings
        dependent = [number for number in compress(count(), map(endings.__contains__, chunks))
                     if number and chunks[number - 1].lower().endswith(endings[chunks[number]])]
        # From the last one on, so that three in a row come together, and the numbers of those before hold.
        for number in reversed(dependent):
            chunks[number - 1:number + 1] = [f"{chunks[number - 1]} {chunks[number]}"]
        if dependent:
            self._learn(chunks)
        return " ".join([BOS, *map(self._chunks.__getitem__, chunks)])

    def _learn(self, chunks: Iterable[str]) -> None:
        """Learns what the rules but the one for repeated words, and spaCy, make of those chunks that are not known."""
        unknown = list(dict.fromkeys(filterfalse(self._chunks.__contains__, chunks)))
        together = [chunk for chunk in unknown if _SEPARATOR not in chunk]
        texts = self._ruled(together)
        if len(together) < len(unknown):
            together += (alone := [chunk for chunk in unknown if _SEPARATOR in chunk])
            texts += [text for chunk in alone for text in self._ruled([chunk])]
        self._chunks.characters += sum(map(len, together))
        plain = list(map(self._pieces.plain.is_plain, texts))
        self._learn_plain(list(compress(together, plain)), list(compress(texts, plain)))
        others = [(chunk, text, _pieces_of(text)) for chunk, text, known in zip(together, texts, plain, strict=True)
                  if not known]
        self._pieces.learn(chain.from_iterable(pieces for _, _, pieces in others))
        for chunk, text, pieces in others:
            self._chunks[chunk] = self._line_of_pieces(text, pieces)
            _, endings = self._pieces[pieces[0]]
            if endings:
                self._chunks.endings[chunk] = endings

    def _learn_plain(self, chunks: list[str], texts: list[str]) -> None:
        """Learns chunks of which the rules made these plain pieces, without a memory of the pieces."""
        self._chunks.update(zip(chunks, self._pieces.plain.lines(texts), strict=True))
        endings = map(self._pieces.endings_of_plain, texts)
        self._chunks.endings.update((chunk, ends) for chunk, ends in zip(chunks, endings) if ends)

    def _ruled(self, chunks: list[str]) -> list[str]:
        """The chunks after those rules; one that holds the separator is alone. Notes the repetitive ones."""
        text = _SEPARATOR.join(chunks)

        def apart(text: str) -> list[str]:
            return text.split(_SEPARATOR) if len(chunks) > 1 else [text][:len(chunks)]

        repeated = self._repeated_characters(text)
        if repeated != text:
            self._chunks.repetitive.update(chunk for chunk, new in zip(chunks, apart(repeated), strict=True)
                                           if new != chunk)
        text = self._useless_spaces(self._marks(text))
        for rule in self._capitals:
            text = rule(text)
        # The last rule, but for the beginning of the document; a space at the border is the one between chunks.
        return [text.strip() for text in apart(text.lower())]

    def _line_of_pieces(self, text: str, pieces: list[str]) -> str:
        """The line of a text that consists of these known pieces."""
        lines, previous = [], ""
        for piece in pieces:
            line, endings = self._pieces[piece]
            if endings and previous.endswith(endings):
                joined = self._joined(text)
                self._pieces.learn(joined)
                return " ".join([self._pieces[piece][0] for piece in joined])
            lines.append(line)
            previous = piece
        return " ".join(lines)

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
    """The text cut at all white space, and at single spaces alone. text: without white space at its ends.

    The white space within a chunk never touches its border: a space there would belong to it.
    """
    words = text.split()
    chunks = text.split(" ") if text else []
    if chunks != words:
        # Newlines within chunks are the common case, for which there is a faster way than the pattern.
        only_newlines = len("".join(words)) + text.count(" ") + text.count("\n") == len(text)
        if not only_newlines or "\n " in text or " \n" in text:
            chunks = _BETWEEN_CHUNKS.split(text)
    return words, chunks
