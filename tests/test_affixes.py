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
    ours, differ = differing(plain, spacy_tokenizer, (piece for piece in pieces if not any(map(str.isspace, piece))))
    assert not differ
    assert len(ours) > 100


def test_random_pieces(plain, spacy_tokenizer):
    rng = random.Random(1)
    signs = "abdeosx3858'.,-:)(\"*![]?;"
    pieces = ["".join(rng.choices(signs, k=rng.randint(1, 7))) for _ in range(60_000)]
    ours, differ = differing(plain, spacy_tokenizer, pieces)
    assert not differ
    assert len(ours) > 1000


def test_special_cases_across_the_borders_of_plain_pieces(spacy_tokenizer):
    """The endings that plain pieces are given, or not given, where spaCy looks at the whole text."""
    rng = random.Random(2)
    words = """word (word word( "word" word: word; word) *word* 'word word' word's (8 8) o) (o ( ) : ; * :) :( ' '' - . ...
               = < > / 3 [ ] good:) :(bad d x p it's he 's em cos""".split()
    tokenizer = WordTokenizer()
    for _ in range(3000):
        text = " ".join(rng.choices(words, k=rng.randint(2, 7)))
        assert tokenizer.split(text) == [token.text for token in spacy_tokenizer(text)], text


def test_long_runs_of_marks_take_no_time(plain):
    for run in ("." * 5000, "'" * 5000, "(" * 5000, "a-" * 5000):
        assert not plain.is_plain(f"word{run}\u00e9") and not plain.is_plain(run)


@pytest.mark.parametrize("piece", ["vs.", "don't", "cannot", ":)", "word:)", "u.s.", "and/or", "10km", "one.two", "é",
                                   "-a"])
def test_what_is_left_to_spacy(plain, piece):
    assert not plain.is_plain(piece)


def test_other_patterns_have_no_plain_pieces():
    german = _spacy_tokenizer("de")
    assert not PlainPieces(german, _patterns_of_cases(german)).is_plain("wort")
