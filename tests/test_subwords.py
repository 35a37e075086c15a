"""Subwords: sentencepiece's training and use against sentencepiece and fastai themselves, and the stages with --bpe."""

import importlib
import io
import json
import shutil
from collections import Counter
from pathlib import Path

import flow
import numpy as np
import pytest
import sentencepiece
from analysis import archive
from ulmfit import files, names, subwords, tokenization, tokens, vocab
from ulmfit.errors import UsageError, UserError

TEXTS = ["The film was unbelievably good, and the actors' acting unbelievable!!!! I LOVE it.",
         "What a dreadful, dreadful dreadful dreadful mess; nobody could love this.<br />Acting? None.",
         "Überraschend gut — 電影很好看 😀 naïve café", "", "word", "\u2581 xxmaj xxunk xxbos xxpad xxmajestic",
         "line one\nline two\ttab   spaces\u00a0here", "שלום עולם مرحبا", "a" * 5000, "so " * 200]


@pytest.fixture(scope="module")
def counts():
    corpus = [[text] for text in TEXTS] + [[text] for _, text in flow.labelled_rows(300, 7)]
    return subwords.count_words(corpus)


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def model(request, counts, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param) / "spm.model"
    path.write_bytes(subwords.train(counts, sp_type=request.param, sp_vocab=300, lang="en"))
    return path


def test_subwords_are_those_of_fastai(model):
    from fastai.text.core import SentencePieceTokenizer

    theirs = SentencePieceTokenizer(sp_model=model)
    rules, ours = tokens.text_rules(), subwords.SubwordTokenizer(model)
    for text in TEXTS:
        [expected] = theirs([tokens.prepared([text], rules)])
        special = {"\u2581" + token: token for token in tokens.SPECIAL_TOKENS}
        assert ours([text]) == [special.get(piece, piece) for piece in expected]
    assert ours(TEXTS[:2]) == ours(["xxfld 1 " + TEXTS[0] + " xxfld 2 " + TEXTS[1]])


def test_bpe_from_counts_is_bpe_from_sentences(counts):
    """sentencepiece's own way, a sentence a line, against the counted words."""
    rows = [text for text in TEXTS if len(text) < 1000] + [text for _, text in flow.labelled_rows(300, 7)]
    rules, written = tokens.text_rules(), io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([tokens.prepared([row], rules) for row in rows]), model_writer=written, model_type="bpe",
        vocab_size=250, hard_vocab_limit=False, character_coverage=0.99999, unk_id=9, pad_id=-1, bos_id=-1, eos_id=-1,
        user_defined_symbols=["\u2581" + token for token in tokens.SPECIAL_TOKENS], minloglevel=2)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    ours = sentencepiece.SentencePieceProcessor(model_proto=subwords.train(
        subwords.count_words([[row] for row in rows]), sp_type="bpe", sp_vocab=250, lang="en"))
    assert ({theirs.id_to_piece(i) for i in range(theirs.get_piece_size())}
            == {ours.id_to_piece(i) for i in range(ours.get_piece_size())})


def test_frequent_words_become_pieces_of_unigram_even_if_nothing_begins_with_them():
    counts = Counter({"zebra": 500, "?": 500, **{f"{a}{b}{c}": 1 for a in "klm" for b in "xyz" for c in "pqr"}})
    pieces = subwords.train(counts, sp_type="unigram", sp_vocab=60, lang="en")
    processor = sentencepiece.SentencePieceProcessor(model_proto=pieces)
    assert processor.encode("zebra ?", out_type=str) == ["\u2581zebra", "\u2581?"]


def test_words_are_counted_after_the_rules_and_no_document_is_dropped():
    counts = subwords.count_words([["The the THE the."], ["word " * 3000 + "last"], ["長" * 450]])
    assert counts["the"] == 3 and counts["the."] == 1 and counts["last"] == 1
    assert not set(counts) & set(tokens.SPECIAL_TOKENS)
    # `xxrep 450 長` is a rule's, so that the run of one character is short; a run of different ones is cut.
    varied = "".join(chr(0x4E00 + number) for number in range(450))
    assert [len(word) for word in subwords.count_words([[varied]])] == [200, 200, 50]


def test_counting_in_bounded_memory_keeps_the_frequent_words():
    parts = [Counter({"common": 10, **{f"rare{number:05}": 1}}) for number in range(2000)]
    whole = subwords.total_counts(parts)
    assert whole == sum(parts, Counter())
    bounded = subwords.total_counts(parts, capacity=500)
    assert bounded["common"] == whole["common"] == 20000
    assert sum(map(len, bounded)) <= 500 and set(bounded) < set(whole)
    assert bounded == subwords.total_counts(parts, capacity=500)


def test_sentencepiece_gets_every_occurrence():
    counts, got = Counter({f"word{number}": number % 4 + 1 for number in range(250)}), Counter()
    for line in subwords._lines(counts):
        text, count = line.split("\t")
        got.update({word: int(count) for word in text.split()})
    assert got == counts


def test_counts_are_scaled_in_proportion():
    counts = Counter({"common": 70_000, **{f"rare{number:05}": 3 for number in range(7000)}})
    assert subwords.scaled(counts) == counts  # 700,000 characters
    fewer = subwords.scaled(counts, characters=70_000)
    total = sum((len(word) + 1) * count for word, count in fewer.items())
    assert 69_980 <= total <= 70_000 and fewer["common"] == 7000
    assert sum(fewer.values()) - 7000 == 2100 and max(count for word, count in fewer.items() if word != "common") == 1


def test_training_is_the_same_every_time_and_a_small_text_gives_fewer_pieces(counts):
    asked = {"sp_type": "unigram", "lang": "en"}
    first = subwords.train(counts, sp_vocab=30000, **asked)
    assert first == subwords.train(Counter(dict(reversed(counts.items()))), sp_vocab=30000, **asked)
    with pytest.raises(UserError, match=r"--sp_vocab=20 has no room for the \d+ characters"):
        subwords.train(counts, sp_vocab=20, **asked)
    with pytest.raises(UserError, match="no words to train"):
        subwords.train(Counter(), sp_vocab=20, **asked)


def test_vocabulary_holds_every_piece_once(model, counts):
    words = subwords.vocabulary(model)
    assert words[:9] == list(tokens.SPECIAL_TOKENS) and len(set(words)) == len(words)
    tokenizer = subwords.SubwordTokenizer(model)
    known = set(words)
    unknown = {piece for text in TEXTS for piece in tokenizer([text]) if piece not in known}
    assert not any(piece.isascii() for piece in unknown)
    assert all(0 < len(piece) for piece in unknown)


def test_pieces_are_put_together_again():
    pieces = ["xxbos", "xxmaj", "\u2581un", "believ", "able", "\u2581", "xxrep", "\u25813", "\u2581!"]
    assert subwords.words_of(pieces) == ["xxbos", "xxmaj", "unbelievable", "xxrep", "3", "!"]
    from ulmfit import decoding

    assert decoding.readable(["xxbos", "xxmaj", "\u2581un", "real", "\u2581film", "s."], bpe=True) == "Unreal films."


def test_a_prompt_is_shown_as_it_was_typed():
    from ulmfit.generation import shown

    prompt = ["xxbos", "xxmaj", "\u2581the", "\u2581fi", "lm"]  # sentencepiece makes two letters of the ligature
    assert shown("The \ufb01lm", prompt, ["s", "\u2581were"], backwards=False, bpe=True) == "The \ufb01lms were"
    assert shown("The \ufb01lm", prompt, ["\u2581saw", "\u2581i", "xxmaj"], backwards=True, bpe=True) == (
        "I saw The \ufb01lm")


def test_what_is_no_model_is_said(tmp_path):
    for content in ("no model", ""):
        (tmp_path / "text").write_text(content)
        with pytest.raises(UserError, match="text cannot be read as a sentencepiece model"):
            subwords.load(tmp_path / "text")
    plain = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(["one two three"] * 9), model_writer=plain,
                                             vocab_size=30, hard_vocab_limit=False, minloglevel=2)
    (tmp_path / "plain").write_bytes(plain.getvalue())
    with pytest.raises(UserError, match="does not keep the special token xxunk whole"):
        subwords.load(tmp_path / "plain")
    with pytest.raises(UserError, match="there is no sentencepiece model"):
        subwords.find_model(tmp_path)


# -- the stages --------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A pretrained subword language model, and a dataset cut by its sentencepiece model."""
    root = tmp_path_factory.mktemp("stages")
    flow.write_general_corpus(root / "wiki")
    flow.write_corpus(root / "imdb")
    shared = {"results_dir": str(root / "results"), "quiet": True}
    wiki, imdb = str(root / "wiki"), str(root / "imdb")
    small = {**flow.SMALL, **shared}
    flow.call("create_toks", dir_path=wiki, n_lbls=0, bpe=True, sp_vocab=400, workers=1, **shared)
    flow.call("tok2id", dir_path=wiki, bpe=True, **shared)
    for backwards in (False, True):
        flow.call("pretrain_lm", dir_path=wiki, bpe=True, backwards=backwards, **flow.SIZES, **small)
    flow.call("create_toks", dir_path=imdb, bpe=True, sp_model=wiki, workers=2, **shared)
    flow.call("tok2id", dir_path=imdb, bpe=True, **shared)
    return root


def test_whole_way_by_the_command_line(place):
    shared = {"results_dir": "results", **flow.SMALL}
    for way in ("False", "True"):
        for name, flags in (("finetune_lm", {"pretrain_path": "wiki", "pretrain_id": "wiki", "cl": 1}),
                            ("train_clas", {"cl": 1}),
                            ("eval_clas", {"split": "test"})):
            flags = {key: value for key, value in (shared | flags).items() if name != "eval_clas" or key != "bptt"}
            done = flow.run_here(name, cwd=place, dir_path="imdb", bpe="True", backwards=way, **flags)
            assert done.returncode == 0, done.stderr
    lm = flow.record(place / "results", "imdb--finetune_lm--fwd--bpe--default--all--s0")
    size = len(vocab.load_vocab(place / "imdb" / "bpe" / "ids"))
    assert lm["vocabulary_match"] == {"matched": size, "filled": 0} and lm["vocab_size"] == size
    models = place / "imdb" / "models"
    spm = (place / "wiki" / "bpe" / "tokens" / names.SENTENCEPIECE).read_bytes()
    for name in ("lm--fwd--bpe--default--all--s0", "clas--bwd--bpe--default--all--s0"):
        assert (models / name / names.SENTENCEPIECE).read_bytes() == spm
    done = flow.run_here("predict_with_classifier", "A brilliant superb gem.", cwd=place, dir_path="imdb", bpe="True")
    assert done.returncode == 0 and done.stdout.startswith("class,p:1e5,p:NA,p:poor\n"), done.stderr
    done = flow.run_here("generate", "The film was", cwd=place, dir_path="imdb", bpe="True", backwards="True",
                          n_sentences=2)
    assert done.returncode == 0 and [line.endswith("The film was") for line in done.stdout.splitlines()] == [True] * 2
    members = [f"imdb--eval_clas--{way}--bpe--default--all--s0--test" for way in ("fwd", "bwd")]
    done = flow.run_here("ensemble", *members, results_dir=place / "results")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_run_that_made_a_given_model_is_recorded_and_remaking_it_shows(place, tmp_path, monkeypatch):
    shutil.copytree(place, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    maker, reader = "wiki--create_toks--bpe", "imdb--create_toks--bpe"

    def cut(model):
        done = flow.run_here("create_toks", cwd=Path.cwd(), dir_path="imdb", bpe="True", sp_model=model, workers=1,
                             results_dir="results", overwrite="True")
        assert done.returncode == 0, done.stderr
        return flow.record(Path("results"), reader)["inputs"]["sp_model"]

    def standing():
        runs = archive.load("results")
        return runs.stale(runs.get(reader))

    digest = files.sha256(Path("wiki/bpe/tokens/spm.model"))[:16]
    for model, run in (("wiki", maker), ("wiki/bpe/tokens/spm.model", maker), ("wiki/bpe/ids", "wiki--tok2id--bpe"),
                       ("wiki/models/pretrained--fwd--bpe--wiki--all--s0",
                        "wiki--pretrain_lm--fwd--bpe--wiki--all--s0")):
        assert (cut(model)["run"], cut(model)["fingerprint"]) == (run, digest)
    shutil.copyfile("wiki/bpe/tokens/spm.model", "mine.model")
    assert cut("mine.model")["run"] is None
    # In the folder of a run, but not what that run left there.
    Path("wiki/bpe/ids/spm.model").write_bytes(
        subwords.train(Counter({"other": 3, "words": 3}), sp_type="bpe", sp_vocab=20, lang="en"))
    assert cut("wiki/bpe/ids")["run"] is None

    assert cut("wiki")["run"] == maker and standing() is None
    done = flow.run_here("show", reader, cwd=Path.cwd(), results_dir="results")
    made = [line.split()[2] for line in done.stdout.splitlines() if "imdb_scripts/create_toks.py" in line]
    assert made[-2:] == ["--dir_path=wiki", "--dir_path=imdb"], done.stdout
    flow.call("create_toks", dir_path="wiki", n_lbls=0, bpe=True, sp_vocab=60, workers=1, results_dir="results",
              overwrite=True, quiet=True)
    assert standing() == f"{maker} was made anew since"


def test_predictions_are_those_of_the_split(place):
    """Texts of test.csv go the way of create_toks and tok2id: ids made from them are the split's."""
    ids = vocab.load_ids(place / "imdb" / "bpe" / "ids", "test")
    stoi = vocab.ids_by_word(vocab.load_vocab(place / "imdb" / "bpe" / "ids"))
    texts = [[text] for _, text in flow.labelled_rows(flow.N_TEST, 1)]
    made = tokenization.tokenize_texts(texts, "en", place / "imdb" / "bpe" / "ids" / names.SENTENCEPIECE)
    for number, document in enumerate(made):
        np.testing.assert_array_equal(vocab.numericalize(document, stoi), ids[number])


def test_a_model_made_anew_is_read_anew(tmp_path):
    model, text = tmp_path / "spm.model", [["words words words"]]
    made = []
    for word in ("words", "other"):
        model.write_bytes(subwords.train(Counter({word: 9}), sp_type="bpe", sp_vocab=30, lang="en"))
        made.append(tokenization.tokenize_texts(text, "en", model)[0])
    assert made[0] != made[1] and "\u2581words" in made[0]


def test_everything_stays_in_the_data_folder_and_the_workers_do_not_matter(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flow.write_corpus(tmp_path / "imdb")
    made = []
    for workers in (1, 2):
        flow.call("create_toks", dir_path="imdb", bpe=True, sp_type="bpe", sp_vocab=300, workers=workers,
                  results_dir="results", overwrite=True, quiet=True)
        made.append({path.name: path.read_bytes() for path in (tmp_path / "imdb/bpe/tokens").glob("*[tv.]*")
                     if path.name not in ("manifest.json", ".lock")})
    assert made[0] == made[1] and {"spm.model", "train.txt", "val.txt"} < set(made[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["imdb", "results"]
    assert sorted(path.name for path in (tmp_path / "imdb").iterdir()) == ["bpe", "test.csv", "train.csv", "unsup.csv"]


@pytest.mark.parametrize("given", ["imdb", "imdb/bpe/tokens/spm.model"])
def test_tokens_are_made_again_by_the_model_that_lies_with_them(tmp_path, monkeypatch, given):
    """What is replaced is moved aside first, and the model with it."""
    monkeypatch.chdir(tmp_path)
    flow.write_corpus(tmp_path / "imdb")
    shared = {"dir_path": "imdb", "bpe": True, "workers": 1, "results_dir": "results", "overwrite": True, "quiet": True}
    made = []
    for more in ({"sp_vocab": 300}, {"sp_model": given}):
        flow.call("create_toks", **shared, **more)
        made.append({path.name: path.read_bytes() for path in (tmp_path / "imdb/bpe/tokens").glob("[!.]*")
                     if path.name != "manifest.json"})
    assert made[0] == made[1] and "spm.model" in made[0]


def test_sentencepiece_is_trained_on_train_and_unsup_alone(tmp_path, monkeypatch):
    """Words of val and test alone, twenty times each, may not become pieces; those of unsup do."""
    monkeypatch.chdir(tmp_path)
    flow.write_corpus(tmp_path / "imdb")
    for split, word in (("test", "quokka"), ("val", "numbat"), ("unsup", "bilby")):
        rows = [["NA", f"{word} {word}"]] * 20
        flow.write_csv(tmp_path / "imdb" / f"{split}.csv", [row[1:] for row in rows] if split == "unsup" else rows)
    flow.call("create_toks", dir_path="imdb", bpe=True, sp_vocab=500, workers=1, results_dir="results", quiet=True)
    pieces = subwords.vocabulary(tmp_path / "imdb/bpe/tokens/spm.model")
    assert "\u2581bilby" in pieces and "\u2581quokka" not in pieces and "\u2581numbat" not in pieces
    record = flow.record(tmp_path / "results", "imdb--create_toks--bpe")
    assert record["sp_vocab_realised"] == len(pieces) + 1 <= 500


def test_held_out_rows_are_not_trained_on(tmp_path, monkeypatch):
    """Without val.csv: a word of its own in every document, of which only those of train may be seen whole."""
    monkeypatch.chdir(tmp_path)
    letters = "bcdfghjklmnpqrstvwxz"
    words = [f"{a}u{b}o{a}" for a in letters[:10] for b in letters[:10]]
    (tmp_path / "d").mkdir()
    flow.write_csv(tmp_path / "d" / "train.csv",
                   [["ab"[row % 2], f"{word} {word} {word}"] for row, word in enumerate(words)])
    seen = []
    monkeypatch.setattr(subwords, "train", lambda counts, **flags: seen.append(counts) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        flow.call("create_toks", dir_path="d", bpe=True, workers=1, results_dir="results", quiet=True)
    from ulmfit.corpus import validation_rows

    held_out = set(validation_rows(["ab"[row % 2] for row in range(len(words))], 0).tolist())
    assert set(seen[0]) - {"3"} == {word for row, word in enumerate(words) if row not in held_out}


def test_chunks_of_the_csv_do_not_matter_where_words_are_dropped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flow.write_csv(tmp_path / "train.csv", [["ab"[row % 2], f"w{row} w{row // 2} common"] for row in range(1500)])
    monkeypatch.setattr(subwords, "total_counts", lambda parts, add=subwords.total_counts: add(parts, capacity=5000))
    made = []
    for chunksize in (24000, 300, 7):
        flow.call("create_toks", dir_path=".", bpe=True, sp_vocab=300, chunksize=chunksize, workers=1,
                  results_dir="results", overwrite=True, quiet=True)
        made.append((tmp_path / "bpe/tokens/spm.model").read_bytes())
        (tmp_path / "bpe/tokens/manifest.json").unlink()
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize("what", ["tokens", "ids", "model"])
@pytest.mark.parametrize("how, message", [("of another size", "bytes, where .* were written; run first: python"),
                                          ("of the same size", "is not the sentencepiece model that"),
                                          ("deleted", "is missing; run first: python")])
def test_another_sentencepiece_model_in_its_place_is_noticed(place, tmp_path, monkeypatch, what, how, message):
    shutil.copytree(place, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    shared = {"dir_path": "imdb", "bpe": True, "results_dir": "results"}
    model = "imdb/models/lm--fwd--bpe--broken--all--s0"
    flow.call("finetune_lm", **shared, lm_id="broken", preload=False, cl=1, quiet=True, **flow.SIZES, **flow.SMALL)
    path = tmp_path / "copy" / {"tokens": "imdb/bpe/tokens", "ids": "imdb/bpe/ids", "model": model}[what] / "spm.model"
    before = path.read_bytes()
    path.unlink()
    if how == "of another size":
        path.write_bytes(subwords.train(Counter({"other": 3, "words": 3}), sp_type="bpe", sp_vocab=20, lang="en"))
    elif how == "of the same size":
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(UserError, match=message):
        if what == "tokens":
            flow.call("tok2id", **shared, overwrite=True)
        elif what == "ids":
            flow.call("train_clas", **shared, lm_id="broken", **flow.SMALL)
        else:
            flow.call("generate", text="The film", dir_path="imdb", bpe=True, lm_id="broken")
    # Before hours of training, not after.
    assert not (tmp_path / "copy/results/runs/imdb--train_clas--fwd--bpe--broken--all--s0").exists()


def test_a_start_with_other_subwords_is_refused(place, tmp_path, monkeypatch):
    shutil.copytree(place, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    shared = {"dir_path": "imdb", "bpe": True, "results_dir": "results", "quiet": True}
    flow.call("finetune_lm", **shared, lm_id="first", preload=False, cl=1, **flow.SIZES, **flow.SMALL)
    flow.call("create_toks", **shared, sp_vocab=60, workers=1, overwrite=True)
    flow.call("tok2id", **shared, overwrite=True)
    with pytest.raises(UserError, match="another sentencepiece model"):
        flow.call("finetune_lm", **shared, startat=1, start_lm_id="first", lm_id="on", cl=1, **flow.SMALL)


REFUSALS = {
    "type of words": ("create_toks", {"sp_type": "bpe"}, UsageError, "--sp_type is of subwords; add --bpe"),
    "size of a given model": ("create_toks", {"bpe": True, "sp_model": "wiki", "sp_vocab": 50}, UsageError,
                              "--sp_model is a trained model, --sp_vocab is read to train one"),
    "language of a given model": ("create_toks", {"bpe": True, "sp_model": "wiki", "lang": "de"}, UsageError,
                                  "--sp_model is a trained model, --lang is read to train one"),
    "no language": ("create_toks", {"bpe": True, "lang": "qq"}, UsageError, "spaCy has no such language"),
    "no model": ("create_toks", {"bpe": True, "sp_model": "nowhere"}, UserError, "there is no sentencepiece model"),
    "size of words": ("tok2id", {"bpe": True, "max_vocab": 50}, UsageError, "create_toks --bpe --sp_vocab sets"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_contradictions_are_refused(place, case, monkeypatch):
    monkeypatch.chdir(place)
    stage, flags, error, message = REFUSALS[case]
    with pytest.raises(error, match=message):
        flow.call(stage, dir_path="imdb", results_dir="other", **flags)
    assert not (place / "other").exists()


def test_a_dataset_cut_by_another_model_is_refused_with_the_command(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flow.write_corpus(tmp_path / "imdb")
    shared = {"results_dir": "results", "quiet": True}
    flow.call("create_toks", dir_path="imdb", bpe=True, sp_vocab=200, workers=1, **shared)
    flow.call("tok2id", dir_path="imdb", bpe=True, **shared)
    asked = {"dir_path": "imdb", "bpe": True, "pretrain_path": str(place / "wiki"), "pretrain_id": "wiki", "cl": 1,
             **flow.SMALL, **shared}
    with pytest.raises(UserError, match="another sentencepiece model") as caught:
        flow.call("finetune_lm", **asked)
    command = str(caught.value).partition("by that one: ")[2].partition(";")[0].split()
    flags = dict(word.removeprefix("--").partition("=")[::2] for word in command[2:])
    flow.call("create_toks", **{name: value or True for name, value in flags.items()}, workers=1, **shared)
    flow.call("tok2id", dir_path="imdb", bpe=True, overwrite=True, **shared)
    flow.call("finetune_lm", **asked)
    assert (tmp_path / "imdb/models/lm--fwd--bpe--default--all--s0/weights.safetensors").exists()


def test_subset_of_a_dataset_that_has_only_subwords(place, monkeypatch):
    monkeypatch.chdir(place)
    flow.call("sample_train", dir_path="imdb", n=30, results_dir="results")
    assert len((place / "imdb/subsets/30.txt").read_text().splitlines()) == 30


def test_show_batch_and_tokens(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    show = importlib.import_module("show_batch").show_batch
    show(dir_path="imdb", bpe=True, tokens=True, split="test", n=3)
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    texts = [[text] for _, text in flow.labelled_rows(flow.N_TEST, 1)[:3]]
    assert shown == tokenization.tokenize_texts(texts, "en", place / "imdb/bpe/ids/spm.model")
    show(dir_path="imdb", bpe=True, kind="lm", backwards=True, n=1, bs=4)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[2:11] == lines[3].split()[1:10]
    show(dir_path="imdb", bpe=True, split="test", n=60, bs=60, trunc_at=0)
    lines = capsys.readouterr().out.splitlines()
    documents = tokenization.tokenize_texts([[text] for _, text in flow.labelled_rows(flow.N_TEST, 1)], "en",
                                            place / "imdb/bpe/ids/spm.model")
    known = set(vocab.load_vocab(place / "imdb/bpe/ids"))
    assert sorted(lines[3::3]) == sorted(tokens.encode_line([piece if piece in known else "xxunk" for piece in document])
                                         for document in documents)
