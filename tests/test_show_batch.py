"""show_batch: the batch that training draws, and tokens as JSON lines."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest

import flow
from flow import CLASSES, LONG_ROW, ROOT
from ulmfit import vocab
from ulmfit.decoding import unpadded
from ulmfit.errors import UsageError, UserError
from ulmfit.loaders import ClassifierLoader, LMLoader, TextStream
from ulmfit.models import pad_batch
from ulmfit.tokens import decode_line, encode_line, read_tokens

# Of test.csv, which show_batch reads in its own order; a text may hold what looks like padding or a document's start.
STRANGE = {30: "xxpad xxpad xxbos film xxunk xxmaj", 31: "naïve 🎬 映画 café"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A dataset with ids."""
    folder = flow.write_corpus(tmp_path_factory.mktemp("show") / "imdb")
    rows = flow.labelled_rows(flow.N_TEST, 1)
    for row, text in STRANGE.items():
        rows[row][1] = text
    flow.write_csv(folder / "test.csv", rows)
    for stage, flags in (("create_toks", {"workers": 1}), ("tok2id", {})):
        flow.call(stage, dir_path=str(folder), results_dir=str(folder.parent / "results"), quiet=True, **flags)
    (folder / "subsets").mkdir()
    (folder / "subsets" / "few.txt").write_text("".join(f"{row}\n" for row in range(5, 120, 7) if row != 33))
    return folder


@pytest.fixture
def show(data, capsys):
    """Calls show_batch and returns its lines."""
    def call(**flags) -> list[str]:
        capsys.readouterr()
        flow.call("show_batch", dir_path=str(data), **flags)
        return capsys.readouterr().out.splitlines()
    return call


def documents_of(lines: list[str]) -> list[tuple[str, str, list[str]]]:
    """(document, the rest of its heading, tokens) of each document shown."""
    assert lines[1::3] == [""] * len(lines[1::3])
    return [(*heading.split("  ", 1), decode_line(text)) for heading, text in zip(lines[2::3], lines[3::3])]


def words_of(data, ids) -> list[str]:
    words = vocab.load_vocab(data / "word/ids")
    return [words[number] for number in ids]


def test_unpadded_undoes_the_layout_of_a_batch():
    documents = [np.arange(10, 10 + length) for length in (23, 20, 11, 10, 1)] + [np.array([1])]  # 1: padding
    for bptt in (5, 7, 30):
        ids, lengths = pad_batch(documents, bptt)
        for row, document in enumerate(documents):
            found, before, after = unpadded(ids[row], int(lengths[row]), bptt)
            assert found.tolist() == document.tolist() and before + len(found) + after == ids.shape[1]
            assert (ids[row, :before] == 1).all() and (ids[row, before + len(found):] == 1).all()


@pytest.mark.parametrize("backwards", (False, True))
def test_a_classifier_batch_is_the_one_that_training_draws_first(data, show, backwards):
    lines = show(bs=12, bptt=20, seed=3, n=100, trunc_at=0, backwards=backwards)
    train = vocab.load_ids(data / "word/ids", "train")
    loader = ClassifierLoader(train, None, bs=6, bptt=20, backwards=backwards, seed=3)
    ids, lengths, labels = next(iter(loader))
    shown = documents_of(lines)
    assert len(shown) == 6 and f"train, {'bwd' if backwards else 'fwd'}: batch 1 of 18, 6 documents" in lines[0]
    with open(data / "train.csv", encoding="utf-8", newline="") as file:
        labels_in_csv = [row[0] for row in csv.reader(file)]
    for row, (document, heading, tokens) in enumerate(shown):
        place = train.document_ids.index(document)
        expected = words_of(data, train[place])
        assert tokens == (expected[::-1] if backwards else expected) and len(tokens) == lengths[row]
        assert f"label {labels_in_csv[int(document.split(':')[1])]}  " in heading
        assert heading.startswith(f"label {sorted(CLASSES)[labels[row]]}  ")
        numbers = [int(word) for word in heading.replace("label 1e5", "").split() if word.isdecimal()]
        assert numbers[0] == len(tokens) and sum(numbers) == ids.shape[1]
    # The longest document of all comes first, whatever the seed.
    assert shown[0][0] == f"train:{LONG_ROW}" or f"train:{LONG_ROW}" not in train.document_ids
    assert documents_of(show(bs=12, bptt=20, seed=4, n=100, trunc_at=0)) != shown


def test_texts_that_look_like_padding_are_shown(show):
    found = {document: tokens for document, _, tokens in documents_of(show(split="test", n=60, trunc_at=0))}
    assert found["test:30"] == ["xxbos", "xxpad", "xxpad", "xxbos", "film", "xxunk", "xxmaj"]
    assert found["test:20"] == ["xxbos"] and len(found) == flow.N_TEST
    assert "\n" in found["test:5"]


def test_long_documents_are_cut_short_and_say_so(show):
    line = show(split="test", n=1, trunc_at=7)[3]
    assert line.startswith("xxbos zyxomma ") and line.endswith(" ... (395 more)") and len(line.split()) == 10
    assert len(show(split="test", n=3)) == 10


@pytest.mark.parametrize("backwards", (False, True))
def test_language_model_rows_stand_over_their_targets(data, show, backwards):
    lines = show(kind="lm", bs=4, bptt=20, seed=1, n=2, trunc_at=0, backwards=backwards)
    parts = [(vocab.load_ids(data / "word/ids", split), None) for split in ("train", "unsup")]
    inputs, targets = next(iter(LMLoader(TextStream(parts, backwards), bs=4, bptt=20, seed=1, what="")))
    assert lines[0].startswith(f"train and unsup, {'bwd' if backwards else 'fwd'}: batch 1 of ")
    assert lines[1::3] == ["", ""]
    assert lines[2::3] == [f"input   {encode_line(words_of(data, row))}" for row in inputs[:2]]
    assert lines[3::3] == [f"target  {encode_line(words_of(data, row))}" for row in targets[:2]]
    assert decode_line(lines[2][8:])[1:] == decode_line(lines[3][8:])[:-1]


def test_language_model_text_of_another_split_comes_in_its_own_order(data, show):
    lines = show(kind="lm", split="test", bs=1, bptt=30, n=1, trunc_at=0)
    text = [token for document in vocab.load_ids(data / "word/ids", "test") for token in words_of(data, document)]
    assert decode_line(lines[2][8:]) == text[:30] and decode_line(lines[3][8:]) == text[1:31]
    assert show(kind="lm", split="unsup", bs=1)[0].startswith("unsup, fwd")


def test_a_subset_is_all_that_is_drawn_from(data, show):
    rows = {f"train:{row}" for row in (data / "subsets/few.txt").read_text().split()}
    held_out = set(vocab.load_ids(data / "word/ids", "val").document_ids)
    (data / "subsets" / "few.txt").write_text("".join(f"{name[6:]}\n" for name in rows - held_out))
    shown = documents_of(show(train_file_id="few", bs=100, n=100, trunc_at=0))
    assert {document for document, _, _ in shown} == rows - held_out
    assert show(kind="lm", train_file_id="few", bs=4)[0].startswith("train, fwd")


@pytest.mark.parametrize("backwards", (False, True))
@pytest.mark.parametrize("split", ("train", "val", "test", "unsup"))
def test_tokens_are_one_json_list_a_line(data, show, split, backwards):
    expected = list(read_tokens(data / f"word/tokens/{split}.txt"))
    found = [json.loads(line) for line in show(tokens=True, split=split, backwards=backwards)]
    assert found == ([tokens[::-1] for tokens in expected] if backwards else expected)
    assert show(tokens=True, split=split, n=2) == show(tokens=True, split=split)[:2]


def test_contradictions_and_what_is_missing_are_said(data, show, tmp_path):
    for flags, message in (({"tokens": True, "kind": "lm", "bptt": 30}, "it takes no --kind, --bptt"),
                           ({"split": "unsup"}, "add --kind=lm or --tokens"),
                           ({"split": "val", "train_file_id": "few"}, "not of val")):
        with pytest.raises(UsageError, match=message):
            show(**flags)
    for tokens in (False, True):
        with pytest.raises(UserError, match="create_toks.py .*--bpe"):
            show(bpe=True, tokens=tokens)
    with pytest.raises(UserError, match="none.txt is missing"):
        show(train_file_id="none")
    folder = flow.write_corpus(tmp_path / "raw")
    for tokens, stage in ((False, "tok2id"), (True, "create_toks")):
        with pytest.raises(UserError, match=f"run first: .*python imdb_scripts/{stage}.py"):
            flow.call("show_batch", dir_path=str(folder), tokens=tokens)
    (folder / "unsup.csv").unlink()
    for stage, flags in (("create_toks", {"workers": 1}), ("tok2id", {})):
        flow.call(stage, dir_path=str(folder), results_dir=str(tmp_path / "results"), quiet=True, **flags)
    with pytest.raises(UserError, match="no unsup documents .it has train, val, test"):
        flow.call("show_batch", dir_path=str(folder), tokens=True, split="unsup")
    with pytest.raises(UserError, match="no unsup documents"):
        flow.call("show_batch", dir_path=str(folder), kind="lm", split="unsup")


def test_the_command_line(data):
    done = flow.run_here("show_batch", dir_path=data, split="val", bs=4, n=2)
    assert (done.returncode, done.stderr) == (0, "") and len(documents_of(done.stdout.splitlines())) == 2
    assert done.stdout.startswith("val, fwd: batch 1 of 3, 4 documents")
    assert sorted(path.name for path in data.iterdir()) == sorted(
        ["subsets", "test.csv", "train.csv", "unsup.csv", "word"])
    # The split is a choice of four here, of two where one predicts.
    for stage, split in (("show_batch", "all"), ("eval_clas", "train")):
        done = flow.run_here(stage, dir_path=data, split=split)
        assert done.returncode == 2 and "the choices are" in done.stderr


def test_tokens_through_a_pipe_that_closes(data):
    """`| head -1`: one line, no complaint; nothing heavy is imported, and any terminal's encoding gives valid JSON."""
    script = [sys.executable, "-X", "importtime", *flow.command("show_batch", dir_path=data, split="test"), "--tokens"]
    first = json.dumps(next(read_tokens(data / "word/tokens/test.txt")), ensure_ascii=False)
    with subprocess.Popen(script, cwd=ROOT, env=flow.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, encoding="utf-8") as process:
        assert process.stdout.readline() == first + "\n"
        process.stdout.close()
        trace = process.stderr.read()
    imported = {line.rsplit("|", 1)[-1].strip() for line in trace.splitlines() if line.startswith("import time:")}
    assert all(line.startswith("import time:") for line in trace.splitlines())
    assert "ulmfit.tokens" in imported and not imported & {"torch", "fastai", "spacy", "pandas"}

    done = subprocess.run([script[0], *script[3:]], cwd=ROOT, env={**flow.environment(), "PYTHONIOENCODING": "ascii"},
                          capture_output=True, timeout=60)
    lines = done.stdout.decode("ascii").splitlines()
    assert [json.loads(line) for line in lines] == list(read_tokens(data / "word/tokens/test.txt"))
