"""Plain pieces against spaCy itself."""

import itertools
import random

import pytest
from ulmfit.affixes import PlainPieces
from ulmfit.words import WordTokenizer, _patterns_of_cases, _spacy_tokenizer


@pytest.fixture(scope="module")
def spacy_tokenizer():
    return _spacy_tokenizer("en")


@pytest.fixture(scope="module")
def plain(spacy_tokenizer):
    return PlainPieces(spacy_tokenizer, _patterns_of_cases(spacy_tokenizer))


def differing(plain, spacy_tokenizer, pieces):
    """The plain ones among the pieces, and of these (piece, ours, spaCy's) where the two differ."""
    ours = [piece for piece in dict.fromkeys(pieces) if plain.is_plain(piece)]
    cut = [" ".join(token.text for token in spacy_tokenizer(piece)) for piece in ours]
    return ours, [row for row in zip(ours, plain.lines(ours), cut, strict=True) if row[1] != row[2]]


def test_the_installed_spacys_patterns_are_known(plain):
    assert plain.is_plain("word") and plain.is_plain('(well-made,"')


def test_every_short_run_of_marks_around_words(plain, spacy_tokenizer):
    marks = ["".join(run) for length in range(4) for run in itertools.product(""",;:!?)("'[]*.-""", repeat=length)]
    words = ["word", "o", "8", "1990", "x-ray", "so--called", "dog's", "it's", "etc", "vs", "cannot", "em"]
    rng = random.Random(0)
    pieces = [word + run for word in words for run in marks] + [run + word for word in words for run in marks]
    pieces += [rng.choice(marks) + rng.choice(words) + rng.choice(marks) for _ in range(5000)]
    ours, differ = differing(plain, spacy_tokenizer, (piece for piece in pieces if piece))
    assert not differ
    assert len(ours) > 5000


def test_every_special_case_within_marks(plain, spacy_tokenizer):
    around = ["", '"', "(", ")", "'", ",", ".", "...", ":", "*", "'s", "--", "-a", "a-"]
    pieces = [before + case.lower() + after for case in spacy_tokenizer.rules
              for before in around for after in around if not case.isspace()]
    _, differ = differing(plain, spacy_tokenizer, (piece for piece in pieces if not any(map(str.isspace, piece))))
    assert not differ


def test_random_pieces(plain, spacy_tokenizer):
    rng = random.Random(1)
    pieces = ["".join(rng.choice("abdeosx3858'.,-:)(\"*![]?;") for _ in range(rng.randint(1, 7))) for _ in range(60_000)]
    ours, differ = differing(plain, spacy_tokenizer, pieces)
    assert not differ
    assert len(ours) > 1000


@pytest.mark.parametrize("piece", ["vs.", "don't", "cannot", ":)", "word:)", "u.s.", "and/or", "10km", "one.two", "é", "-a"])
def test_what_is_left_to_spacy(plain, piece):
    assert not plain.is_plain(piece)


def test_other_patterns_have_no_plain_pieces():
    german = _spacy_tokenizer("de")
    assert not PlainPieces(german, _patterns_of_cases(german)).is_plain("wort")


def test_a_special_case_across_plain_pieces_is_found():
    text = "He said ( : and left ) : or (o : so"
    tokenizer, alone = WordTokenizer(), _spacy_tokenizer("en")
    assert tokenizer.split(text) == [token.text for token in alone(text)]
