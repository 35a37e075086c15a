"""Word tokens against fastai's own pipeline; token files; the create_toks command."""

import csv
import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from fastai.text.core import defaults, tokenize_df

from flow import SCRIPTS, interpret
from ulmfit import records, tokenization, tokens, words
from ulmfit.errors import UsageError

# Words, emoticons and marks on which spaCy's special cases, affixes and url rules act.
WORDS = """
film movie the he it she don't DON'T can't I'm i'm it's It’s o'clock 'em 'Cause y'all gonna cannot vs. Mr. Dr.
e.g. i.e. a.m. 10a.m. 7pm 5km 3.50$ $1,000 U.S.A. Ph.D. and/or w/o
http://www.imdb.com/title/tt0000001/?ref=a#b www.site.co.uk/x_y a@b.co :) :-) :( ;-D :x :xx =3 <3 8) (o_o)
(-_-) (╯°□°）╯︵┻━┻ ¯\\_(ツ)_/¯ ಠ_ಠ ^_^ o.O :'( :1 ( ) - -- --- . .. ... .... , ! !!! ?! ' '' ’ ‘ " “quoted” [ ]
{ } * ** / \\ \\n \\t # @ @.@ @-@ & % _ | ~ ` … — – ° °C °c. ° xxbos xxmaj xxunk xxfld XXUP <unk> <br />
<br/><br /> <BR> &amp; &lt;b&gt; &nbsp; &#39; #39; amp; nbsp; quot; \\" sooooo AAAAAH GREAT Great GrEaT A I É
ÉCOLE école straße İstanbul naïve 日本語のテキスト 中文。中文 שלום مرحبا привет ПРИВЕТ 😀 😀😀😀😀 👨‍👩‍👧 e\u0301 \u200b \u00ad
zero\u200bwidth test.Test test,test a-b-c well-known 1-2 100% no.1 ... space> <space> 's s' 're don 't ca n't
a . b . C. ä. :D :-D D: ]= =] (8 8-) xD word word word word no no no no, ha ha ha ha ha
""".split()
SPACES = [" "] * 12 + ["  ", "   ", "\n", "\n\n", " \n", "\n ", " \n\n ", "\t", "\r\n", "\xa0", " \xa0 ", "\u2003",
                       "\u3000", "\u2028", "\x0b", "\x0c", "\x1c", "\x85", "\t \t", "<br /><br />", " <br />", "", ""]


def random_texts(count: int, seed: int = 0) -> list[str]:
    generator = random.Random(seed)
    characters = [*" .,:;'’\"()[]<>-_=*/\\|oxpdDOs38\n\t\xa0"]
    texts = []
    for number in range(count):
        if number % 4 == 3:  # dense in marks, so that special cases form, touch and overlap by chance
            texts.append("".join(generator.choices(characters, k=generator.randrange(60))))
        else:
            words = generator.choices(WORDS, k=generator.randrange(25))
            texts.append("".join(word + generator.choice(SPACES) for word in words))
    return texts


EDGE_TEXTS = ["", " ", "\n", "  \n ", "NA", "nan", "null", ".", "a", "A", "xxbos", "( :", ": )", ":  )", "- _ -",
              "(- _-)", "' s", "He 's", "and / or", "8 -) :", "a\n .", "a \n.", ": \n)", ":\n)", "a" * 300,
              "AB" * 200, "\u2028", "O . o", "http : / /", "he's: xxmaj",
              "< space >", "t . h . e .", "¯\\(ツ)/¯ ¯\\( ツ)/¯", "word\x00word"]


# A longer special case that spans the space (":(( (") keeps spaCy from matching the one before it (":((").
ACROSS_SPACES = ["what'asa:(( (", "couldna’t’ve:(( (v_v", "thesea're-:( )", "it'as:) )mayn't've", "these'd'vea:( (a"]


def fastai_tokens(columns: dict[str, list[str]]) -> list[list[str]]:
    frame, _ = tokenize_df(pd.DataFrame(columns, dtype=object), list(columns), n_workers=0)
    return [list(document) for document in frame.text]


def assert_same(ours: list[list[str]], theirs: list[list[str]], texts: list) -> None:
    assert len(ours) == len(theirs)
    for text, our, their in zip(texts, ours, theirs):
        assert our == their, f"for {text!r}"


def test_special_tokens_are_fastais():
    assert list(tokens.SPECIAL_TOKENS) == defaults.text_spec_tok


def test_tokens_equal_fastai_on_adversarial_texts():
    texts = EDGE_TEXTS + ACROSS_SPACES + random_texts(6000)
    assert_same(tokenization.tokenize_texts([[text] for text in texts]), fastai_tokens({"text": texts}), texts)


def test_pieces_that_a_special_case_spans_are_tokenized_together():
    """In these texts the tokens of the pieces are not those of the text, so remembering pieces alone would be wrong."""
    tokenizer = words.WordTokenizer()
    for text in ACROSS_SPACES:
        text = f"xxbos {text}"
        pieces = [token for piece in text.split() for token in tokenization.tokenize_texts([[piece]])[0][1:]]
        whole = tokenizer.split(text)
        assert whole != pieces and "".join(whole) == "".join(pieces), text


def test_fields_are_marked_only_when_there_are_several():
    first, second = random_texts(200, seed=1), random_texts(200, seed=2)
    rows = [list(row) for row in zip(first, second)]
    ours = tokenization.tokenize_texts(rows)
    assert_same(ours, fastai_tokens({"a": first, "b": second}), rows)
    assert ours[0][:3] == ["xxbos", "xxfld", "1"]
    assert "xxfld" not in tokenization.tokenize_texts([["one column"]])[0]


@pytest.mark.parametrize("lang", ["de", "ru", "xx"])
def test_other_languages_equal_fastai(lang):
    from fastai.text.core import SpacyTokenizer
    # spaCy's Russian has special cases that hold spaces
    texts = random_texts(600, seed=3) + ["многое, в т.ч. это", "в  т.ч.", "(вед. науч. сотр.)"]
    frame, _ = tokenize_df(pd.DataFrame({"text": texts}), "text", n_workers=0, tok=SpacyTokenizer(lang))
    assert_same(tokenization.tokenize_texts([[text] for text in texts], lang), [list(d) for d in frame.text], texts)


def test_forgetting_pieces_does_not_change_tokens():
    texts = random_texts(300, seed=4)
    forgetful = words.WordTokenizer(capacity=500)
    assert [forgetful([text]) for text in texts] == tokenization.tokenize_texts([[text] for text in texts])
    # What is learned of one document comes on top.
    longest = max(len(" ".join(tokens)) for tokens in map(forgetful, [[text] for text in texts]))
    for memory in (forgetful._pieces, forgetful._chunks):
        assert memory.characters < 500 + 3 * longest and sum(map(len, memory)) == memory.characters


def nasty_texts(count: int, seed: int) -> list[str]:
    """Short texts of a small alphabet: special cases, affixes and rules meet in ways that nobody writes."""
    generator = random.Random(seed)
    parts = ["a", "b", "d", "o", "x", "D", "X", "O", "A", "he", "He", "we", "can", "not", "don", "Ill", "km", "ß",
             "é", "İ", "Σ", "0", "3", "8", "10", "'", "’", "'s", "'ll", "n't", ".", ".", ",", "..", "...", "-", "--",
             "(", ")", ":", ";", "=", "/", "\\", "#", "*", "_", "^", "<", ">", "[", "]", "°", "°c", "¬", "ಠ", "—",
             "…", "$", "%", "&", "@", "http://", "www.", ".com", "://", "xxmaj", "xxbos", "xxrep", "xxup", "xxfld",
             "e.g", "v.v", "Mr", "т.ч", "в", "日本", "😀", "u.", "s.", " ", " ", " ", " ", "  ", "\n", "\n\n", " \n",
             "\n ", "\t", "\r", "\xa0", "\u2003", "\x1e", "\x1c", "\u200b", "<br />", "&amp;"]
    return ["".join(generator.choices(parts, k=generator.randrange(1, 30))) for _ in range(count)]


@pytest.mark.parametrize("lang", ["en", "de", "fr", "ru", "tr", "fi", "xx"])
def test_chunks_and_pieces_learned_together_are_those_learned_alone(lang):
    from fastai.text.core import SpacyTokenizer

    texts = nasty_texts(2500, seed=8)
    frame, _ = tokenize_df(pd.DataFrame({"text": texts}), "text", n_workers=0, tok=SpacyTokenizer(lang))
    theirs = [list(document) for document in frame.text]
    together = words.WordTokenizer(lang)
    assert_same([tokens.decode_line(line) for line in together.lines([[text] for text in texts])], theirs, texts)
    assert_same([together([text]) for text in texts], theirs, texts)
    # Nothing is remembered from one to the next.
    alone = words.WordTokenizer(lang, capacity=0)
    assert_same([alone([text]) for text in texts[:40]], theirs[:40], texts)


def test_the_rules_are_fastais():
    """They are read from its source; the functions must be those that fastai itself uses."""
    for ours, theirs in zip(tokens.text_rules(), defaults.text_proc_rules, strict=True):
        assert ours.__code__ == theirs.__code__ and ours.__defaults__ == theirs.__defaults__
        read = set(ours.__code__.co_names).union(*(constant.co_names for constant in ours.__code__.co_consts
                                                   if hasattr(constant, "co_names")))
        # Besides the globals these are methods' names, of which fastai has a few as functions too.
        for name in read & set(ours.__globals__):
            assert ours.__globals__[name] == theirs.__globals__[name], name


def test_another_layout_of_fastai_is_imported_instead(monkeypatch):
    def other() -> None:
        raise NameError("a rule that needs more")

    monkeypatch.setattr(tokens, "_fastai_defaults", other)
    assert tokens.text_rules() == list(defaults.text_proc_rules)


def test_tokenizing_imports_neither_torch_nor_fastai():
    """They would take most of the time of a short job; torch can still be imported afterwards."""
    code = ("import sys; from ulmfit import tokenization; print(tokenization.tokenize_texts([['A b']])); "
            "print(sorted({'torch', 'fastai', 'pandas'} & set(sys.modules))); import torch")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=SCRIPTS, check=True)
    assert done.stdout.splitlines() == ["[['xxbos', 'a', 'b']]", "[]"]


def test_number_of_processes_does_not_change_what_is_yielded():
    texts = random_texts(140, seed=5)
    batches = [(start, [[text] for text in texts[start:start + 7]]) for start in range(0, len(texts), 7)]
    taken = []

    def noted():
        for batch in batches:
            taken.append(batch)
            yield batch

    with tokenization.Processes(1) as one:
        alone = list(one.run(batches, tokenization.work()))
    with tokenization.Processes(2) as two:
        stream = two.run(noted(), tokenization.work())
        first = next(stream)
        # Memory holds some batches, not the corpus.
        assert len(taken) <= 2 * tokenization.BATCHES_IN_FLIGHT + 1 < len(batches)
        assert [first, *stream] == alone
    assert [key for key, _ in alone] == [key for key, _ in batches]
    assert [tokens.decode_line(line) for _, lines in alone for line, _ in lines] == \
        tokenization.tokenize_texts([[text] for text in texts])
    assert all(len(tokens.decode_line(line)) == length for _, lines in alone for line, length in lines)


def test_processes_have_ended_when_memory_is_asked_for(tmp_path, monkeypatch):
    """The system tells it of those that have."""
    from create_toks import create_toks

    happened, leave = [], tokenization.Processes.__exit__

    def entered(self):
        happened.clear()
        return self

    def left(self, *error):
        leave(self, *error)
        happened.append("ended")

    monkeypatch.setattr(tokenization.Processes, "__enter__", entered)
    monkeypatch.setattr(tokenization.Processes, "__exit__", left)
    monkeypatch.setattr(records, "peak_memory_mb", lambda: happened.append("asked") or 1.0)
    (tmp_path / "train.csv").write_text("".join(f"{row % 2},some words\n" for row in range(40)))
    create_toks(str(tmp_path), workers=2, results_dir=str(tmp_path / "results"))
    assert happened[0] == "ended" and "asked" in happened


def test_unknown_language_is_refused():
    words.check_lang("en")
    with pytest.raises(UsageError, match="--lang='qq'.* en, "):
        words.check_lang("qq")


# token files

AWKWARD = [["xxbos", "a"], [], ["\n"], ["\\n"], ["\\", "\\\\", "\\\n", "n"], ["\r\n", "\n▁"],
           ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\t"], ["日本語", "😀"]]


def test_token_files_round_trip(tmp_path):
    documents = AWKWARD + tokenization.tokenize_texts([[text] for text in random_texts(300, seed=6)])
    tokens.write_tokens(tmp_path / "x.txt", documents)
    assert list(tokens.read_tokens(tmp_path / "x.txt")) == documents
    assert (tmp_path / "x.txt").read_bytes().count(b"\n") == len(documents)
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


@pytest.mark.parametrize("document", [["a b"], ["a", ""], [""]])
def test_a_token_that_could_not_be_read_back_is_refused(document):
    with pytest.raises(ValueError):
        tokens.encode_line(document)


# the command

def run(script: str, *arguments: str, code: int = 0) -> str:
    done = interpret([script, *arguments])
    assert done.returncode == code, done.stdout + done.stderr
    if code:
        assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1
    return done.stdout + done.stderr


def write_csv(path: Path, rows: list[list[str]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, str]:
    """A dataset's folder that create_toks has been through, with two processes, and what that printed."""
    folder = tmp_path_factory.mktemp("made") / "reviews"
    folder.mkdir()
    texts = random_texts(100, seed=7)
    write_csv(folder / "train.csv", [["pos" if i % 2 else "neg", f"{i} {text}"] for i, text in enumerate(texts[:60])])
    write_csv(folder / "test.csv", [["neg", f"0 {texts[0]}"], ["pos", "NA"], ["pos", "something\nnew, \"quoted\""]])
    write_csv(folder / "unsup.csv", [[f"unlabelled {text}"] for text in texts[60:]])
    return folder, run("create_toks.py", *arguments(folder, workers=2))


@pytest.fixture
def corpus(made, tmp_path) -> Path:
    """A copy of it, with its record."""
    return Path(shutil.copytree(made[0].parent, tmp_path / "copy")) / "reviews"


def tokenized(folder: Path) -> dict[str, str]:
    return {path.name: path.read_bytes().decode() if path.suffix != ".json" else ""
            for path in (folder / "word" / "tokens").iterdir()}


def arguments(folder: Path, *more: str, workers: int = 1) -> list[str]:
    return [f"--dir_path={folder}", f"--results_dir={folder.parent / 'results'}", f"--workers={workers}", *more]


def test_create_toks_writes_every_document_once(made):
    corpus, printed = made
    assert "1 texts of test are also in" in printed
    made = tokenized(corpus)
    splits = ("train", "val", "test", "unsup")
    # `.lock` is the run's, held while the folder is being made.
    assert set(made) == {".lock", "manifest.json", *(f"{split}.txt" for split in splits),
                         *(f"{split}.documents.csv" for split in splits)}

    given = {split: list(csv.reader(open(corpus / f"{split}.csv", encoding="utf-8", newline="")))
             for split in ("train", "test", "unsup")}
    seen = {}
    for split in splits:
        lines = [tokens.decode_line(line) for line in made[f"{split}.txt"].split("\n")[:-1]]
        rows = list(csv.DictReader(made[f"{split}.documents.csv"].splitlines()))
        assert len(lines) == len(rows)
        for line, row in zip(lines, rows):
            source, number = row["document"].split(":")
            fields = given[source][int(number)]
            assert line == tokenization.tokenize_texts([fields[-1:]])[0]
            assert row["label"] == (fields[0] if source != "unsup" else "")
            assert int(row["tokens"]) == len(line)
            seen[row["document"]] = split
    assert len(seen) == 60 + 3 + 40
    val = [document for document, split in seen.items() if split == "val"]
    assert len(val) == 6 and all(document.startswith("train:") for document in val)

    manifest = json.loads((corpus / "word" / "tokens" / "manifest.json").read_text())
    assert manifest["classes"] == ["neg", "pos"]
    assert manifest["splits"]["val"]["documents"] == 6
    assert manifest["duplicates"]["test in train"] + manifest["duplicates"]["test in val"] == 1
    record = json.loads((corpus.parent / "results/runs/reviews--create_toks--word/run.json").read_text())
    assert record["status"] == "finished" and record["fingerprint"] == manifest["fingerprint"]


def test_create_toks_is_reused_refused_and_replaced(corpus):
    first = tokenized(corpus)
    assert "reused" in run("create_toks.py", *arguments(corpus, "--chunksize=7"))
    assert "val_seed" in run("create_toks.py", *arguments(corpus, "--val_seed=1"), code=1)
    run("create_toks.py", *arguments(corpus, "--overwrite", "--chunksize=7"))
    assert tokenized(corpus) == first

    (corpus / "unsup.csv").unlink()
    write_csv(corpus / "val.csv", [["pos", "a val.csv of its own"]])
    assert "stale" in run("create_toks.py", *arguments(corpus), code=1)
    run("create_toks.py", *arguments(corpus, "--overwrite"))
    made = tokenized(corpus)
    assert "unsup.txt" not in made and made["train.txt"].count("\n") == 60
    assert "val:0,pos," in made["val.documents.csv"]


def test_create_toks_without_labels(corpus):
    write_csv(corpus / "train.csv", [[f"article {i}", "its text"] for i in range(20)])
    for name in ("test", "unsup"):
        (corpus / f"{name}.csv").unlink()
    run("create_toks.py", *arguments(corpus, "--n_lbls=0", "--overwrite"))
    made = tokenized(corpus)
    assert made["train.txt"].count("\n") == 18 and made["val.txt"].count("\n") == 2
    assert made["train.txt"].startswith("xxbos xxfld 1 article")


@pytest.mark.parametrize("spoil, message", [
    (lambda folder: write_csv(folder / "test.csv", [["pos", "x"], ["bad", "y"]]), "test.csv: row 1 .*'bad'"),
    (lambda folder: write_csv(folder / "unsup.csv", [["0", "x"]]), "unsup.csv: row 0 .*2 columns where 1"),
])
def test_create_toks_says_what_is_wrong(corpus, spoil, message):
    before = tokenized(corpus)
    spoil(corpus)
    assert re.search(message, run("create_toks.py", *arguments(corpus, "--overwrite"), code=1))
    assert tokenized(corpus) == before


@pytest.mark.parametrize("split, header", [("train", ["label", "text"]), ("train", ["Sentiment", " Review"]),
                                           ("unsup", ["text"])])
def test_create_toks_takes_no_header_for_a_document(corpus, split, header):
    path = corpus / f"{split}.csv"
    path.write_text(",".join(header) + "\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    said = run("create_toks.py", *arguments(corpus, "--overwrite"), code=1)
    assert re.search(rf"{split}.csv: row 0 .*: '{','.join(header)}' is a header", said) and "get_data.py --source" in said


def test_a_class_of_a_usual_name_is_no_header(corpus):
    """Two documents of the class `text`; and one class of a column's name, whose document is no column's."""
    path = corpus / "train.csv"
    path.write_text("topic,text\ntopic,question\nclass,of its own\n" + path.read_text(encoding="utf-8"),
                    encoding="utf-8")
    run("create_toks.py", *arguments(corpus, "--overwrite"))
    assert json.loads((corpus / "word/tokens/manifest.json").read_text())["classes"] == ["class", "neg", "pos", "topic"]


def test_create_toks_needs_train_csv(corpus):
    (corpus / "train.csv").unlink()
    assert "holds no train.csv" in run("create_toks.py", *arguments(corpus), code=1)
