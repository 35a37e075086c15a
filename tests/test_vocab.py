"""The vocabulary, flat arrays of ids, and the tok2id command."""

import csv
import errno
import json
import os
import shlex
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from flow import full_disk, interpret
from ulmfit import tokens, vocab
from ulmfit.errors import UserError
from ulmfit.names import DataFolder


def test_vocabulary_order_and_cuts():
    counts = Counter({"xxbos": 99, "xxunk": 7, "the": 9, "b": 3, "a": 3, "é": 3, "rare": 1, "two": 2})
    special = list(tokens.SPECIAL_TOKENS)
    assert vocab.make_vocab(counts, 100, 1) == special + ["the", "a", "b", "é", "two"]
    assert vocab.make_vocab(counts, 2, 1) == special + ["the", "a"]
    assert vocab.make_vocab(counts, 100, 2) == special + ["the", "a", "b", "é"]
    assert vocab.make_vocab(counts, 100, 0)[-1] == "rare"
    shuffled = Counter(dict(reversed(list(counts.items()))))
    assert vocab.make_vocab(shuffled, 2, 1) == vocab.make_vocab(counts, 2, 1)


def test_fingerprint_depends_on_words_and_order():
    assert vocab.vocab_fingerprint(["a", "b"]) == vocab.vocab_fingerprint(("a", "b"))
    assert len({vocab.vocab_fingerprint(words) for words in (["a", "b"], ["b", "a"], ["ab"], ["a"])}) == 4


def test_special_ids_and_unknown_words():
    stoi = vocab.ids_by_word([*tokens.SPECIAL_TOKENS, "film"])
    ids = vocab.numericalize(["xxbos", "film", "unheard", "xxpad"], stoi)
    assert ids.tolist() == [2, 9, vocab.UNK_ID, vocab.PAD_ID] == [2, 9, 0, 1]
    assert ids.dtype == np.uint16
    assert vocab.numericalize([], stoi).shape == (0,)


def test_id_type_holds_every_id():
    assert vocab.id_type(2**16) == np.uint16
    assert vocab.id_type(2**16 + 1) == np.uint32


def make_split(folder: Path, split: str, documents: list[list[str]], labels: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    tokens.write_tokens(folder / f"{split}.txt", documents)
    with open(folder / f"{split}.documents.csv", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(vocab.DOCUMENT_COLUMNS)
        rows.writerows([f"{split}:{i}", label, len(d), "0"] for i, (d, label) in enumerate(zip(documents, labels)))


@pytest.mark.parametrize("words", [20, 70_000])
def test_ids_round_trip(tmp_path, words):
    known = [*tokens.SPECIAL_TOKENS, *(f"w{i}" for i in range(words))]
    documents = [["xxbos", "w0", f"w{words - 1}"], ["xxbos"], ["xxbos", "\n", "w\\", "w3"]]
    make_split(tmp_path / "tokens", "val", documents, ["b", "a", "c"])
    (tmp_path / "ids").mkdir()
    facts = vocab.write_ids(tmp_path / "tokens", tmp_path / "ids", "val", vocab.ids_by_word(known), ["a", "b"])
    assert facts == {"documents": 3, "tokens": 8, "unk_rate": 2 / 8}
    read = vocab.load_ids(tmp_path / "ids", "val")
    assert isinstance(read.ids, np.memmap) and read.ids.dtype == vocab.id_type(len(known))
    assert len(read) == 3
    assert [[known[i] for i in read[n]] for n in range(3)] == \
        [documents[0], ["xxbos"], ["xxbos", "xxunk", "xxunk", "w3"]]
    assert read.labels.tolist() == [1, 0, -1] and read.labels.dtype == np.int16
    assert read.document_ids == ["val:0", "val:1", "val:2"]
    with pytest.raises(IndexError):
        read[3]


def test_a_missing_split_is_named(tmp_path):
    make_split(tmp_path / "tokens", "train", [["a"]], ["x"])
    vocab.write_ids(tmp_path / "tokens", tmp_path, "train", {"xxunk": 0}, ["x"])
    with pytest.raises(UserError, match=r"no test documents \(it has train\)"):
        vocab.load_ids(tmp_path, "test")


@pytest.mark.parametrize("damaged", [[["a"]], [["a"], ["b", "c"], ["d"]], [["a"], ["b"]]])
def test_a_damaged_token_file_is_noticed(tmp_path, damaged):
    make_split(tmp_path, "val", [["a"], ["b", "c"]], ["x", "x"])
    tokens.write_tokens(tmp_path / "val.txt", damaged)
    with pytest.raises(UserError, match="val.txt.*create_toks"):
        vocab.write_ids(tmp_path, tmp_path, "val", {"xxunk": 0}, ["x"])
    assert not (tmp_path / "val.ids.npy").exists()


@pytest.mark.parametrize("documents, lost", [([["a"] * 1000] * 100, "ids"), ([["a"]] * 1000, "offsets")])
def test_a_full_disk_is_an_os_error_and_leaves_nothing(tmp_path, documents, lost):
    make_split(tmp_path / "tokens", "val", documents, ["x"] * len(documents))
    with full_disk(5000), pytest.raises(OSError) as caught:
        vocab.write_ids(tmp_path / "tokens", tmp_path / "ids", "val", {"xxunk": 0}, ["x"])
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(tmp_path / "ids"))
    assert not any(path.match(f"*{lost}*") for path in (tmp_path / "ids").iterdir())


# the command

def run(script: str, *arguments: str, code: int = 0) -> str:
    done = interpret([script, *arguments])
    assert done.returncode == code, done.stdout + done.stderr
    if code:
        assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def tokenized(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "tiny"
    folder.mkdir()
    with open(folder / "train.csv", "w", encoding="utf-8") as file:
        file.writelines(f"{i % 3 + 1},the film number {i} is Good\n" for i in range(40))
    (folder / "test.csv").write_text("3,the testword testword film\n", encoding="utf-8")
    (folder / "unsup.csv").write_text("an unlabelled unlabelled film\n", encoding="utf-8")
    run("create_toks.py", f"--dir_path={folder}", f"--results_dir={folder.parent / 'results'}", "--workers=1")
    return folder


@pytest.fixture
def folder(tokenized, tmp_path) -> Path:
    # copytree keeps the times of modification, which check_current looks at
    return Path(shutil.copytree(tokenized, tmp_path / "tiny"))


def arguments(folder: Path, *more: str) -> list[str]:
    return [f"--dir_path={folder}", f"--results_dir={folder.parent / 'results'}", *more]


def test_tok2id_counts_what_the_language_model_reads(folder):
    run("tok2id.py", *arguments(folder))
    ids = DataFolder(folder).ids()
    words = vocab.load_vocab(ids)
    counts = Counter(token for split in ("train", "unsup")
                     for document in tokens.read_tokens(DataFolder(folder).tokens() / f"{split}.txt")
                     for token in document)
    assert words == vocab.make_vocab(counts, 30000, 1)
    assert "unlabelled" in words and "testword" not in words
    for split in ("train", "val", "test", "unsup"):
        documents = vocab.load_ids(ids, split)
        written = list(tokens.read_tokens(DataFolder(folder).tokens() / f"{split}.txt"))
        assert [[words[i] for i in documents[n]] for n in range(len(documents))] == \
            [[token if token in words else "xxunk" for token in document] for document in written]
    assert vocab.load_ids(ids, "test").labels.tolist() == [2]
    assert vocab.load_ids(ids, "unsup").labels.tolist() == [-1]
    assert vocab.load_ids(ids, "unsup").document_ids == ["unsup:0"]
    train = vocab.load_ids(ids, "train")
    assert [int(document.split(":")[1]) % 3 for document in train.document_ids] == train.labels.tolist()

    manifest = vocab.check_current(DataFolder(folder))
    assert manifest["vocab_size"] == len(words)
    assert manifest["vocab_fingerprint"] == vocab.vocab_fingerprint(words)
    assert manifest["classes"] == ["1", "2", "3"]
    assert manifest["splits"]["test"]["unk_rate"] == pytest.approx(2 / 5)


def test_tok2id_is_reused_refused_and_replaced(folder):
    run("tok2id.py", *arguments(folder))
    assert "reused" in run("tok2id.py", *arguments(folder))
    assert "max_vocab" in run("tok2id.py", *arguments(folder, "--max_vocab=3"), code=1)
    run("tok2id.py", *arguments(folder, "--max_vocab=3", "--overwrite"))
    assert len(vocab.load_vocab(DataFolder(folder).ids())) == len(tokens.SPECIAL_TOKENS) + 3


def test_tok2id_before_create_toks_names_the_command(tmp_path):
    assert f"create_toks.py --dir_path={tmp_path}" in run("tok2id.py", *arguments(tmp_path), code=1)


def test_what_changed_since_is_named(folder):
    data = DataFolder(folder)
    with pytest.raises(UserError, match="tok2id.py --dir_path"):
        vocab.check_current(data)
    run("tok2id.py", *arguments(folder))
    vocab.check_current(data)

    csv_file, content = data.csv("train"), data.csv("train").read_text()
    os.utime(csv_file, ns=(0, 0))
    vocab.check_current(data)  # touched, not changed
    csv_file.write_text(content.replace("1,the", "2,the", 1))
    with pytest.raises(UserError, match=r"train.csv changed since create_toks; run .*--overwrite"):
        vocab.check_current(data)
    assert "train.csv changed since" in run("tok2id.py", *arguments(folder, "--overwrite"), code=1)
    csv_file.write_text(content)
    vocab.check_current(data)
    data.csv("val").write_text("1,late\n")
    with pytest.raises(UserError, match="val.csv has come since"):
        vocab.check_current(data)
    data.csv("val").unlink()
    csv_file.unlink()
    vocab.check_current(data)  # the ids do not need the csv files

    manifest_file = data.tokens() / "manifest.json"
    manifest = json.loads(manifest_file.read_text())
    manifest_file.write_text(json.dumps({**manifest, "fingerprint": "0" * 16}))
    with pytest.raises(UserError, match="changed since tok2id; run tok2id.py --overwrite"):
        vocab.check_current(data)


def test_every_command_that_is_missing_is_named(tmp_path):
    folder = DataFolder(tmp_path / "imdb")
    with pytest.raises(UserError) as caught:
        vocab.check_current(folder, then=("python imdb_scripts/finetune_lm.py",))
    commands = str(caught.value).partition("run first: ")[2].split("; ")
    assert [words.split()[1] for words in commands] == [
        f"imdb_scripts/{stage}.py" for stage in ("get_data", "create_toks", "tok2id", "finetune_lm")]
    folder.path.mkdir()
    folder.csv("train").write_text("0,a\n")
    with pytest.raises(UserError, match="run first: python imdb_scripts/create_toks.py"):
        vocab.check_current(folder)


def test_a_pretrained_model_of_another_language_is_refused(folder, tmp_path):
    run("tok2id.py", *arguments(folder))
    source = tmp_path / "wiki" / "models" / "pretrained--fwd--word--wiki--all--s0"
    source.mkdir(parents=True)
    tune = arguments(folder, f"--pretrain_path={tmp_path / 'wiki'}", "--pretrain_id=wiki", "--emb_sz=7")
    made = {"run": "wiki", "fingerprint": "0" * 16, "sizes": {"emb_sz": 8, "n_hid": 8, "n_layers": 1}}
    for more, message in (({"lang": "de"}, "was tokenized with --lang=en, the text that"),
                          ({"lang": "en"}, "--emb_sz=7 does not fit"), ({}, "--emb_sz=7 does not fit")):
        (source / "manifest.json").write_text(json.dumps({**made, **more}))
        assert message in run("finetune_lm.py", *tune, code=1)


def test_what_pretraining_misses_is_text_without_labels(tmp_path):
    done = interpret(["pretrain_lm.py", f"--dir_path={tmp_path / 'wt103'}"])
    commands = done.stderr.strip().partition("run first: ")[2].split("; ")
    assert [shlex.split(words)[2:] for words in commands] == [
        ["--name=wikitext103", f"--dir_path={tmp_path / 'wt103'}"],
        [f"--dir_path={tmp_path / 'wt103'}", "--n_lbls=0"], [f"--dir_path={tmp_path / 'wt103'}"]]
    (tmp_path / "u").mkdir()
    (tmp_path / "u" / "train.csv").write_text("a film\n" * 20)
    commands = interpret(["pretrain_lm.py", f"--dir_path={tmp_path / 'u'}"]).stderr.strip().partition("run first: ")[2]
    for words in commands.split("; "):
        run(*shlex.split(words)[1:], f"--results_dir={tmp_path / 'results'}")
    assert vocab.check_current(DataFolder(tmp_path / "u"))["classes"] == []
