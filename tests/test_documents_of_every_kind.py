"""Documents of every kind through all stages, as words and as subwords, forward and backward."""

import csv
import importlib
import json

import flow
import numpy as np
import pytest
from ulmfit import names, predictions, vocab

LONG = 12_000

KINDS = {
    "empty": "",
    "blank": " \t  ",
    "one word": "good",
    "one letter": "x",
    "long": " ".join(f"word{number % 97}" for number in range(LONG)),
    "no spaces": "spaceless" * 500,
    "emoji": "👍🏽 👩‍👩‍👧‍👦 😀😀😀😀 ❤️ 🇩🇪",
    "right to left": "هذا الفيلم رائع جدا، שלום עולם \u200f(טוב)\u200e",
    "Chinese": "這部電影非常好看。演員們的表演令人難忘,我會推薦給大家!",
    "Japanese": "この映画はとても面白かった。ｶﾀｶﾅ　全角スペース",
    "Korean": "이 영화는 정말 재미있었습니다.",
    "Thai": "หนังเรื่องนี้สนุกมาก",
    "combining": "Cafe\u0301 noe\u0308l a\u0300\u0301\u0302 ﬁlm",
    "special tokens": "xxbos xxunk xxpad xxmaj xxup xxfld 1 xxrep 3 xxwrep 4 xxeos",
    "unended repetition": "xxrep 999999999 a xxwrep 123456789",
    "part of special tokens": "xxbosom xxmajesty XXUNK xx bos <unk> <s> </s> <pad> ▁the ▁ _",
    "control characters": "a\x01b\x7f \x0b \x0c \x1c \x85 \u2028 \u2029 \ufeff \u200b \ufffd",
    "line ends": "one\ntwo\r\nthree\rfour\\n five\\",
    "only punctuation": "... !!! ??? --- ((( \"\" '' \\ / | ; ,",
    "markup": "<br /><b>bold</b> &amp;amp; &lt;3 <a href='x'>",
    "numbers": "1e5 -3.14 NaN inf None True 0x1F 1,000,000 ½",
    "like a flag": "--backwards=True -h -- *",
    "like a formula": "=SUM(A1:A9) @cmd +1",
    "private use": "\ue000 \U0010ffff \U0001f9ff \u0378",
}
FILLER = 60


def rows(seed: int, labelled: bool = True) -> list[list[str]]:
    """Every kind with its label, then ordinary documents, so that there is something to learn."""
    kinds = [[flow.CLASSES[number % 3], text] for number, text in enumerate(KINDS.values())]
    return [row if labelled else row[1:] for row in kinds + flow.labelled_rows(FILLER, seed)]


@pytest.fixture(scope="module", params=[False, True], ids=["word", "subword"])
def place(request, tmp_path_factory):
    """A dataset of such documents, tokenized and numericalized. Every split holds every kind."""
    bpe, folder = request.param, tmp_path_factory.mktemp("kinds")
    (folder / "d").mkdir()
    for number, split in enumerate(("train", "val", "test")):
        flow.write_csv(folder / "d" / f"{split}.csv", rows(number))
    flow.write_csv(folder / "d" / "unsup.csv", rows(9, labelled=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shared = {"dir_path": "d", "results_dir": "results", "quiet": True}
        unit = {"bpe": True, "sp_vocab": 2000} if bpe else {}
        flow.call("create_toks", workers=1, **unit, **shared)
        flow.call("tok2id", **({"bpe": True} if bpe else {"min_freq": 0}), **shared)
        if bpe:
            # The baseline counts words.
            flow.call("create_toks", workers=1, **shared)
            flow.call("tok2id", **shared)
        yield folder, bpe


@pytest.fixture(scope="module")
def trained(place):
    folder, bpe = place
    shared = {"dir_path": "d", "results_dir": "results", "bpe": bpe}
    # Longer chunks than elsewhere: the document of 12,000 words is run through in steps of them.
    small = {**flow.SMALL, "bptt": 70, "quiet": True}
    for backwards in (False, True):
        flow.call("finetune_lm", preload=False, cl=1, backwards=backwards, **flow.SIZES, **shared, **small)
        flow.call("train_clas", cl=1, backwards=backwards, **shared, **small)
        flow.call("eval_clas", split="test", backwards=backwards, threads=1, cuda_id=-1, bs=8, quiet=True,
                  precision="full", **shared)
    return folder, bpe


@pytest.mark.parametrize("split", ["train", "val", "test", "unsup"])
def test_no_document_is_lost_or_runs_into_the_next(place, split):
    folder, bpe = place
    data = names.DataFolder(folder / "d")
    ids, words = vocab.load_ids(data.ids(bpe), split), vocab.load_vocab(data.ids(bpe))
    assert ids.document_ids == [f"{split}:{row}" for row in range(len(KINDS) + FILLER)]
    begin = words.index("xxbos")
    for number, name in enumerate(KINDS):
        assert ids[number][0] == begin, name
    by_kind = dict(zip(KINDS, (ids[number] for number in range(len(KINDS)))))
    assert len(by_kind["empty"]) == 1 and len(by_kind["one word"]) >= 2
    assert len(by_kind["long"]) > LONG
    shown = [words[number] for number in by_kind["special tokens"]]
    # fastai's rules make a repetition of neither, as the markers are words to them.
    assert [word for word in shown if word in KINDS["special tokens"].split()][:4] == ["xxbos"] * 2 + ["xxunk", "xxpad"]


def test_tokens_are_shown_as_json(place, monkeypatch, capsys):
    folder, bpe = place
    monkeypatch.chdir(folder)
    importlib.import_module("show_batch").show_batch(dir_path="d", bpe=bpe, tokens=True, split="test")
    documents = [json.loads(line) for line in capsys.readouterr().out.split("\n")[:-1]]
    assert len(documents) == len(KINDS) + FILLER
    data = names.DataFolder(folder / "d")
    stoi = vocab.ids_by_word(vocab.load_vocab(data.ids(bpe)))
    ids = vocab.load_ids(data.ids(bpe), "test")
    for number, document in enumerate(documents):
        np.testing.assert_array_equal(vocab.numericalize(document, stoi), ids[number])
        assert not any(token == "" or " " in token for token in document)


def test_every_document_is_predicted(trained):
    folder, bpe = trained
    unit = "bpe" if bpe else "word"
    for way in ("fwd", "bwd"):
        for run, split in ((f"d--train_clas--{way}--{unit}--default--all--s0", "val"),
                           (f"d--eval_clas--{way}--{unit}--default--all--s0--test", "test")):
            predicted = predictions.read(folder / "results" / "runs" / run / "predictions.csv")
            assert list(predicted.documents) == [f"{split}:{row}" for row in range(len(KINDS) + FILLER)]
            assert np.isfinite(predicted.probabilities).all()
            np.testing.assert_allclose(predicted.probabilities.sum(1), 1, atol=1e-5)


def test_texts_of_ones_own_are_predicted_as_in_the_split(trained, monkeypatch, capfd):
    """A csv of the same texts gives the probabilities that eval_clas recorded."""
    folder, bpe = trained
    monkeypatch.chdir(folder)
    predict = importlib.import_module("predict_with_classifier").predict_with_classifier
    predict(csv="d/test.csv", column="1", dir_path="d", bpe=bpe, bs=8, cuda_id=-1, threads=1)
    table = list(csv.reader(capfd.readouterr().out.splitlines()))
    run = f"d--eval_clas--fwd--{'bpe' if bpe else 'word'}--default--all--s0--test"
    recorded = predictions.read(folder / "results" / "runs" / run / "predictions.csv").probabilities
    np.testing.assert_allclose(np.array([row[1:] for row in table[1:]], dtype=float), recorded, atol=2e-5)


def test_batches_are_shown(trained, monkeypatch, capsys):
    folder, bpe = trained
    monkeypatch.chdir(folder)
    show = importlib.import_module("show_batch").show_batch
    for kind in ("clas", "lm"):
        for backwards in (False, True):
            show(dir_path="d", bpe=bpe, kind=kind, backwards=backwards, n=8, bs=16)
            assert capsys.readouterr().out.count("\n\n") == 8


@pytest.mark.parametrize("backwards", [False, True])
def test_generation_goes_on_with_every_kind(trained, monkeypatch, capsys, backwards):
    folder, bpe = trained
    monkeypatch.chdir(folder)
    generate = importlib.import_module("generate").generate
    for name, text in KINDS.items():
        generate(text, dir_path="d", bpe=bpe, backwards=backwards, n_words=3, threads=1, cuda_id=-1)
        assert capsys.readouterr().out.count("\n") == 1, name


def test_baseline_takes_every_kind(place, monkeypatch):
    folder, _ = place
    monkeypatch.chdir(folder)
    for model in ("tfidf", "nbsvm"):
        flow.call("train_baseline", dir_path="d", model=model, split="test", results_dir="results", quiet=True)
