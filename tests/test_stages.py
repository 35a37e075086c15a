"""The stages from csv to averaged predictions, by their command lines, on a tiny corpus.

What the command line adds nothing to is called in this process, which saves importing torch each time.
"""

import bz2
import csv
import gzip
import json
import math
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
import torch
from safetensors.torch import load_file

import flow
from flow import CLASSES, MARK, ROOT, SCRIPTS, SIZES, SMALL
from ulmfit import classifier, files, language_model, models, phases, predictions, training, vocab, weights
from ulmfit.errors import UsageError, UserError
from ulmfit.names import DataFolder

PREDICT = {"bs": 8, "threads": 1, "cuda_id": -1}
# predict_with_classifier answers in full precision, and what it says is held against what was evaluated.
EVAL = {**PREDICT, "precision": "full"}
LM, CLAS = "lm--{}--word--default--all--s0", "clas--{}--word--default--all--s0"
LM_RUN, CLAS_RUN = ("imdb--{}--{{}}--word--default--all--s0".format(stage) for stage in ("finetune_lm", "train_clas"))
EVAL_RUN = "imdb--eval_clas--{}--word--default--all--s0--{}"
HELD_OUT = 12
UNPACKED = {".gz": gzip.decompress, ".bz2": bz2.decompress}
LEARNED = {"cl": 14, "lr": 0.02, "dropmult": 0.2}


@dataclass(frozen=True)
class World:
    """The corpora, their records, and what each command printed."""

    base: Path
    data: Path
    wiki: Path
    results: Path
    printed: dict[str, str]

    def call(self, stage: str, **flags) -> None:
        if stage == "finetune_lm" and "pretrain_path" not in flags:
            flags.update(pretrain_path=str(self.wiki), pretrain_id="wiki")
        flow.call(stage, **{"dir_path": str(self.data), "results_dir": str(self.results), **flags})

    def train(self, clas_id: str, **flags) -> str:
        """Trains a classifier under an id of its own; returns the run."""
        self.call("train_clas", clas_id=clas_id, **{**SMALL, **flags})
        return f"imdb--train_clas--fwd--word--{clas_id}--{flags.get('train_file_id') or 'all'}--s0"

    def tune(self, lm_id: str, **flags) -> str:
        """Fine-tunes a language model under an id of its own; returns the run."""
        self.call("finetune_lm", lm_id=lm_id, **{**SMALL, "lr": 0.01, **flags})
        return f"imdb--finetune_lm--fwd--word--{lm_id}--{flags.get('train_file_id') or 'all'}--s0"

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(str(self.data / "models" / name / "weights.safetensors"))

    def subset(self, name: str, rows) -> str:
        (self.data / "subsets").mkdir(exist_ok=True)
        (self.data / "subsets" / f"{name}.txt").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
        return name


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    """The whole forward flow by command lines, typed in three folders; the backward one in this process."""
    base = tmp_path_factory.mktemp("flow")
    made = World(base, flow.write_corpus(base / "imdb"), flow.write_general_corpus(base / "wiki"), base / "results", {})

    def stage(title: str, name: str, cwd: Path, **flags) -> None:
        done = flow.run_stage(name, cwd=cwd, **flags)
        assert done.returncode == 0, done.stderr
        made.printed[title] = done.stdout

    here = {"dir_path": "imdb", "results_dir": "results"}
    there = {"dir_path": made.data, "results_dir": made.results}
    stage("create_toks", "create_toks", base, **here, workers=2)
    made.call("create_toks", dir_path=str(made.wiki), n_lbls=0, workers=1)
    stage("tok2id", "tok2id", SCRIPTS, **there)
    made.call("tok2id", dir_path=str(made.wiki))
    stage("pretrain", "pretrain_lm", base, dir_path="wiki", results_dir="results", cl=2, lr=0.005, **SIZES, **SMALL)
    stage("tune", "finetune_lm", base, **here, pretrain_path="wiki", pretrain_id="wiki", cl=2, lr=0.01, **SMALL)
    stage("train", "train_clas", SCRIPTS, **there, **LEARNED, **SMALL, precision="full")
    stage("test", "eval_clas", ROOT, **there, split="test", **EVAL)
    made.call("eval_clas", split="val", **EVAL)

    made.call("pretrain_lm", dir_path=str(made.wiki), backwards=True, cl=2, lr=0.005, **SIZES, **SMALL)
    made.call("finetune_lm", backwards=True, cl=2, lr=0.01, **SMALL)
    made.call("train_clas", backwards=True, **LEARNED, **SMALL, precision="full")
    for split in ("val", "test"):
        made.call("eval_clas", backwards=True, split=split, **EVAL)
    return made


def read_predictions(world: World, run: str) -> predictions.Predictions:
    return predictions.read(world.results / "runs" / run / "predictions.csv")


def loss_of_predictions(world: World, run: str) -> float:
    found = read_predictions(world, run)
    # Printed to six digits they sum to 1 only nearly, of which scikit-learn warns.
    return sklearn.metrics.log_loss(found.labels, found.probabilities / found.probabilities.sum(1, keepdims=True),
                                    labels=found.classes)


# -- from csv to predictions -------------------------------------------------------------------------------------------

def test_tokens_and_ids_keep_every_document(world):
    manifest = json.loads((world.data / "word/ids/manifest.json").read_text())
    assert {name: split["documents"] for name, split in manifest["splits"].items()} == {
        "train": flow.N_TRAIN - HELD_OUT, "val": HELD_OUT, "test": flow.N_TEST, "unsup": flow.N_UNSUP}
    assert manifest["classes"] == sorted(CLASSES)
    train, val, test = (vocab.load_ids(world.data / "word/ids", split) for split in ("train", "val", "test"))
    assert sorted([*train.document_ids, *val.document_ids], key=lambda name: int(name.split(":")[1])) == [
        f"train:{row}" for row in range(flow.N_TRAIN)]
    assert test.document_ids == [f"test:{row}" for row in range(flow.N_TEST)]
    # The empty document is xxbos alone, the long one is whole, and a newline inside a text ends no document.
    lengths = np.diff(test.offsets)
    assert lengths[20] == 1 and lengths[flow.LONG_ROW] > flow.LONG_WORDS
    assert len((world.data / "word/tokens/test.txt").read_bytes().split(b"\n")) == flow.N_TEST + 1


def test_runs_are_recorded_and_sizes_come_from_the_weights(world):
    for run in ("wiki--pretrain_lm--fwd--word--wiki--all--s0", LM_RUN.format("fwd"), CLAS_RUN.format("fwd"),
                EVAL_RUN.format("fwd", "test")):
        record = flow.record(world.results, run)
        assert (record["status"], record["error"], record["id"]) == ("finished", None, run)
        assert record["threads"] == 1 and record["device"] == "cpu"
    assert flow.record(world.results, "wiki--pretrain_lm--fwd--word--wiki--all--s0")["lang"] == "en"
    # Sizes were typed in pretraining alone; the defaults are others.
    assert flow.record(world.results, LM_RUN.format("fwd"))["sizes"] == SIZES
    assert flow.record(world.results, CLAS_RUN.format("bwd"))["sizes"] == SIZES
    assert world.weights(CLAS.format("fwd"))["0.module.encoder.weight"].shape[1] == SIZES["emb_sz"]
    parents = flow.record(world.results, CLAS_RUN.format("fwd"))["parents"]
    assert parents == [LM_RUN.format("fwd"), "imdb--tok2id--word"]


def test_language_models_match_the_vocabularies_by_word(world):
    old, new = (json.loads((folder / "word/ids/vocab.json").read_text()) for folder in (world.wiki, world.data))
    lacking = set(new) - set(old)
    assert set(flow.CLASS_WORDS["poor"]) <= lacking and not set(flow.CLASS_WORDS["NA"]) & lacking
    counts = flow.record(world.results, LM_RUN.format("fwd"))["vocabulary_match"]
    assert counts == {"matched": len(new) - len(lacking), "filled": len(lacking)}
    assert f"{counts['matched']} words of the vocabulary have pretrained vectors" in world.printed["tune"]

    run = world.tune("kept", notrain=True)
    kept = world.weights("lm--fwd--word--kept--all--s0")
    before = load_file(str(world.wiki / "models/pretrained--fwd--word--wiki--all--s0/weights.safetensors"))
    name = next(name for name in before if name in weights.EMBEDDING)
    for row, word in enumerate(new):
        expected = before[name].mean(0) if word in lacking else before[name][old.index(word)]
        bias = before["1.decoder.bias"].mean() if word in lacking else before["1.decoder.bias"][old.index(word)]
        torch.testing.assert_close(kept[name][row], expected)
        torch.testing.assert_close(kept["1.decoder.bias"][row], bias)
    recurrent = [key for key in before if "rnns" in key]
    assert len(recurrent) == 8 and all(torch.equal(before[key], kept[key]) for key in recurrent)
    assert len(flow.epochs(world.results, run)) == 1 and not (world.results / "runs" / run / "steps.csv.gz").exists()


@pytest.mark.parametrize("direction", ["fwd", "bwd"])
def test_perplexity_is_that_of_the_text_in_its_direction(world, direction):
    documents = vocab.load_ids(world.data / "word/ids", "val")
    texts = [documents[i][::-1] if direction == "bwd" else documents[i] for i in range(len(documents))]
    text = torch.from_numpy(np.concatenate(texts).astype(np.int64))
    model = models.language_model(len(vocab.load_vocab(world.data / "word/ids")), **SIZES, dropmult=0)
    weights.load_whole(model, world.data / "models" / LM.format(direction) / "weights.safetensors")
    length = (len(text) - 1) // SMALL["bs"]
    rows = text[:SMALL["bs"] * length].view(SMALL["bs"], length)
    targets = text[1:SMALL["bs"] * length + 1].view(SMALL["bs"], length)
    model.eval()
    model.reset()
    with torch.no_grad():
        # In one piece: cutting it into pieces of bptt must not change what the model knows.
        loss = torch.nn.functional.cross_entropy(model(rows)[0].flatten(0, 1), targets.flatten()).item()
    last = flow.record(world.results, LM_RUN.format(direction))["metrics"]["last"]
    assert last["val_loss"] == pytest.approx(loss, rel=1e-5)
    assert last["perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)


def test_sampled_softmax_of_a_whole_vocabulary_is_the_full_one(world):
    found = []
    for sampled in (True, False):
        world.call("pretrain_lm", dir_path=str(world.wiki), pretrain_id=f"sampled{sampled}", sampled=sampled, cl=3,
                   lr=0.02, dropmult=0.0, **SIZES, **SMALL)
        run = f"wiki--pretrain_lm--fwd--word--sampled{sampled}--all--s0"
        found.append([(row["train_loss"], row["val_loss"]) for row in flow.epochs(world.results, run)])
    assert found[0] == [pytest.approx(row, rel=1e-3) for row in found[1]]
    assert found[0][-1][1] < found[0][0][1]


@pytest.mark.parametrize("direction", ["fwd", "bwd"])
@pytest.mark.parametrize("split", ["val", "test"])
def test_metrics_are_those_of_the_predictions(world, direction, split):
    run = EVAL_RUN.format(direction, split)
    found, record = read_predictions(world, run), flow.record(world.results, run)
    with open(world.data / ("test.csv" if split == "test" else "train.csv"), newline="", encoding="utf-8") as file:
        labels = [row[0] for row in csv.reader(file)]
    rows = [int(document.split(":")[1]) for document in found.documents]
    assert rows == list(range(flow.N_TEST)) if split == "test" else rows == sorted(rows) and len(rows) == HELD_OUT
    assert {document.split(":")[0] for document in found.documents} == {"test" if split == "test" else "train"}
    assert found.labels == [labels[row] for row in rows]
    assert found.classes == sorted(CLASSES) == record["classes"]
    assert np.abs(found.probabilities.sum(1) - 1).max() < 1e-5

    guesses = [found.classes[i] for i in found.probabilities.argmax(1)]
    metrics = record["metrics"]["last"]
    assert metrics["n"] == len(rows)
    assert metrics["error"] == pytest.approx(100 * (1 - sklearn.metrics.accuracy_score(found.labels, guesses)))
    assert metrics["loss"] == pytest.approx(loss_of_predictions(world, run), rel=1e-4)
    assert metrics["macro_f1"] == pytest.approx(sklearn.metrics.f1_score(found.labels, guesses, average="macro"))
    assert record["confusion"] == sklearn.metrics.confusion_matrix(found.labels, guesses,
                                                                   labels=found.classes).tolist()


@pytest.mark.parametrize("direction", ["fwd", "bwd"])
def test_training_and_evaluation_agree_on_val(world, direction):
    trained, evaluated = (world.results / "runs" / run / "predictions.csv" for run in (
        CLAS_RUN.format(direction), EVAL_RUN.format(direction, "val")))
    assert trained.read_bytes() == evaluated.read_bytes()
    last = flow.record(world.results, CLAS_RUN.format(direction))["metrics"]["last"]
    again = flow.record(world.results, EVAL_RUN.format(direction, "val"))["metrics"]["last"]
    assert last["error"] == again["error"] and last["val_loss"] == pytest.approx(again["loss"], abs=1e-5)


@pytest.mark.parametrize("direction", ["fwd", "bwd"])
def test_each_document_is_predicted_as_if_alone_and_in_its_direction(world, direction):
    documents = vocab.load_ids(world.data / "word/ids", "test")
    model = classifier.load(world.data / "models" / CLAS.format(direction)).eval()
    found = read_predictions(world, EVAL_RUN.format(direction, "test")).probabilities
    other = 0.0
    with torch.no_grad():
        for number in range(len(documents)):
            ids = torch.from_numpy(documents[number].astype(np.int64))
            ways = {"fwd": ids, "bwd": ids.flip(0)}
            alone = {way: model(text[None], torch.tensor([len(text)]))[0].softmax(-1)[0].numpy()
                     for way, text in ways.items()}
            np.testing.assert_allclose(found[number], alone.pop(direction), atol=2e-5)
            other = max(other, np.abs(found[number] - alone.popitem()[1]).max())
    assert other > 0.01


@pytest.mark.parametrize("direction", ["fwd", "bwd"])
def test_the_task_is_learned(world, direction):
    # Three classes of the same size: guessing errs in two of three. Five documents hold no word of a class.
    assert flow.record(world.results, EVAL_RUN.format(direction, "test"))["metrics"]["last"]["error"] < 30


def test_ensemble_averages_both_directions(world):
    members = [EVAL_RUN.format(direction, "test") for direction in ("fwd", "bwd")]
    done = flow.run_stage("ensemble", *members, results_dir=world.results)
    assert done.returncode == 0, done.stderr
    (folder,) = (world.results / "runs").glob("imdb--ensemble--*")
    record, found = flow.record(world.results, folder.name), predictions.read(folder / "predictions.csv")
    first, second = (read_predictions(world, run) for run in members)
    assert found.documents == first.documents and found.labels == first.labels
    np.testing.assert_allclose(found.probabilities, (first.probabilities + second.probabilities) / 2, atol=1e-5)
    guesses = [found.classes[i] for i in found.probabilities.argmax(1)]
    error = 100 * (1 - sklearn.metrics.accuracy_score(found.labels, guesses))
    assert record["metrics"]["last"]["error"] == pytest.approx(error)
    assert f"error {error:.2f}% on {flow.N_TEST} documents" in done.stdout
    assert record["parents"] == sorted(members) and record["split"] == "test"

    table = flow.run_stage("runs", results_dir=world.results)
    listed = [line.split()[0] for line in table.stdout.splitlines()[1:-1]]
    assert set(members) | {folder.name, CLAS_RUN.format("bwd")} <= set(listed) and table.returncode == 0


# -- texts of one's own ------------------------------------------------------------------------------------------------

def printed_predictions(text: str) -> tuple[list[str], np.ndarray]:
    """(class of each text, probabilities), after a look at the header."""
    header, *rows = list(csv.reader(text.splitlines()))
    assert header == ["class", *(f"p:{name}" for name in sorted(CLASSES))]
    return [row[0] for row in rows], np.array([[float(value) for value in row[1:]] for row in rows])


def test_predict_gives_what_evaluation_gave(world):
    evaluated = read_predictions(world, EVAL_RUN.format("fwd", "test"))
    texts = [text for _, text in flow.labelled_rows(flow.N_TEST, 1)]
    where = {"dir_path": world.data, **PREDICT}

    def matches(done, rows: list[int]) -> None:
        assert done.returncode == 0, done.stderr
        guesses, found = printed_predictions(done.stdout)
        np.testing.assert_allclose(found, evaluated.probabilities[rows], atol=2e-6)
        assert guesses == [evaluated.classes[i] for i in evaluated.probabilities[rows].argmax(1)]

    # As an argument: of several lines, with quotes; then one a line, among them "NA" and nothing.
    matches(flow.run_here("predict_with_classifier", texts[5], **where), [5])
    lines = [row for row in range(flow.N_TEST) if "\n" not in texts[row]]
    assert {9, 14, 20, flow.LONG_ROW} <= set(lines)
    typed = "".join(texts[row] + "\n" for row in lines)
    matches(flow.run_stage("predict_with_classifier", stdin=typed, cwd=world.base, **where), lines)
    matches(flow.run_here("predict_with_classifier", cwd=SCRIPTS, csv=world.data / "test.csv", column=1, **where),
            list(range(flow.N_TEST)))


def test_predict_backwards(world, capsys):
    flow.call("predict_with_classifier", dir_path=str(world.data), backwards=True, csv=str(world.data / "test.csv"),
              column="1", **PREDICT)
    found = printed_predictions(capsys.readouterr().out)[1]
    np.testing.assert_allclose(found, read_predictions(world, EVAL_RUN.format("bwd", "test")).probabilities, atol=2e-6)
    assert np.abs(found - read_predictions(world, EVAL_RUN.format("fwd", "test")).probabilities).max() > 0.01


# -- what is trained, and how fast -------------------------------------------------------------------------------------

def stlr(ratio: int, inverse_cut: int):
    def factor(t: int, total: int) -> float:
        cut = max(1, total // inverse_cut)
        p = t / cut if t < cut else 1 - (t - cut) / (total - cut)
        return (1 + p * (ratio - 1)) / ratio
    return factor


def cosine(t: int, total: int) -> float:
    return (1 + math.cos(math.pi * t / total)) / 2


def constant(t: int, total: int) -> float:
    return 1.0


def check_steps(found: list, expected: list[tuple]) -> None:
    """expected: (groups, updates, highest rates, schedule) of each phase."""
    rows = [(phase, groups, [rate * schedule(t, updates) for rate in rates])
            for phase, (groups, updates, rates, schedule) in enumerate(expected) for t in range(updates)]
    assert [row[:2] for row in found] == [row[:2] for row in rows]
    for (*_, rates), (*_, wanted) in zip(found, rows):
        assert rates == pytest.approx(wanted, rel=1e-6)


UPDATES = (flow.N_TRAIN - HELD_OUT) // (SMALL["bs"] // 2)
EVERY = (0, 1, 2, 3)
DISCRIMINATIVE = [0.01 / 2.6**3, 0.01 / 2.6**2, 0.01 / 2.6, 0.01]
THAW = [1e-4, 1e-4, 1e-4, 1e-3]


def gradual(rates: list[float], first, final=None, groups: tuple[int, ...] = EVERY) -> list[tuple]:
    return [((3,), UPDATES, rates, first), ((2, 3), UPDATES, rates, first),
            (groups, 2 * UPDATES, rates, final or first)]


@pytest.mark.parametrize("flags, expected", [
    ({}, gradual(DISCRIMINATIVE, stlr(8, 3), stlr(8, 8))),
    ({"unfreeze": False}, gradual(DISCRIMINATIVE, stlr(8, 3), stlr(8, 8), groups=(1, 2, 3))),
    ({"use_clr": False}, gradual(DISCRIMINATIVE, cosine)),
    ({"use_discriminative": False, "use_regular_schedule": True, "lr": 0.001}, gradual([0.001] * 4, constant)),
    ({"last": True}, [((3,), 2 * UPDATES, DISCRIMINATIVE, stlr(8, 8))]),
    ({"startat": 2, "use_regular_schedule": True}, [(EVERY, 2 * UPDATES, DISCRIMINATIVE, constant)]),
    ({"from_scratch": True, **SIZES}, [(EVERY, 2 * UPDATES, DISCRIMINATIVE, constant)]),
    ({"chain_thaw": True, "use_regular_schedule": True, "lr": 0.5, "use_discriminative": False},
     [*(((group,), UPDATES, THAW, constant) for group in (3, 0, 1, 2)), (EVERY, 2 * UPDATES, THAW, constant)]),
    ({"chain_thaw": True},
     [*(((group,), UPDATES, THAW, stlr(8, 3)) for group in (3, 0, 1, 2)), (EVERY, 2 * UPDATES, THAW, stlr(8, 8))]),
], ids=["default", "nounfreeze", "cosine", "plain", "last", "startat2", "from_scratch", "chain_thaw_constant",
        "chain_thaw"])
def test_classifier_trains_the_groups_at_the_rates_that_the_flags_ask(world, flags, expected, request):
    run = world.train(f"steps-{request.node.callspec.id.split('-')[0]}", cl=2, **flags)
    check_steps(flow.steps(world.results, run), expected)
    assert [row["steps"] for row in flow.epochs(world.results, run)] == [
        UPDATES * epoch for epoch in range(1, sum(updates for _, updates, *_ in expected) // UPDATES + 1)]


@pytest.mark.parametrize("flags, rates, schedule", [
    ({}, [0.01 / 3, 0.01, 0.005], stlr(32, 10)),
    ({"use_clr": False}, [0.01 / 3, 0.01, 0.005], cosine),
    ({"use_discriminative": False, "use_regular_schedule": True}, [0.01] * 3, constant),
], ids=["default", "cosine", "plain"])
def test_language_model_trains_at_the_rates_that_the_flags_ask(world, flags, rates, schedule, request):
    run = world.tune(f"steps-{request.node.callspec.id}", cl=2, **flags)
    found = flow.steps(world.results, run)
    assert len(found) > 20
    check_steps(found, [((0, 1, 2), len(found), rates, schedule)])


def test_pretraining_gives_the_embedding_the_top_rate(world):
    found = flow.steps(world.results, "wiki--pretrain_lm--fwd--word--wiki--all--s0")
    check_steps(found, [((0, 1, 2), len(found), [0.005 / 3, 0.005, 0.005], stlr(32, 10))])


def encoder_changes(world: World, clas: str) -> dict[str, set[bool]]:
    """For each part of the encoder, whether its tensors are others than the language model's."""
    before, after = world.weights(LM.format("fwd")), world.weights(clas)
    changes: dict[str, set[bool]] = {}
    for name, tensor in after.items():
        if name.startswith("0.module."):
            part = "rnn" + name.split(".")[3] if "rnns" in name else "embedding"
            source = tied_name(before) if part == "embedding" else name.replace("0.module.", "0.", 1)
            changes.setdefault(part, set()).add(not torch.equal(tensor, before[source]))
    assert set(changes) == {"embedding", "rnn0", "rnn1"}
    return changes


def tied_name(tensors: dict) -> str:
    return next(name for name in weights.EMBEDDING if name in tensors)


def test_frozen_groups_stay_and_trained_ones_move(world):
    world.train("steps-last", cl=2, last=True)
    world.train("steps-default", cl=2)
    world.train("steps-nounfreeze", cl=2, unfreeze=False)
    name = "clas--fwd--word--steps-{}--all--s0"
    assert encoder_changes(world, name.format("last")) == {"embedding": {False}, "rnn0": {False}, "rnn1": {False}}
    assert encoder_changes(world, name.format("default") + "--intermediate") == {
        "embedding": {False}, "rnn0": {False}, "rnn1": {True}}
    assert encoder_changes(world, name.format("default")) == {"embedding": {True}, "rnn0": {True}, "rnn1": {True}}
    assert encoder_changes(world, name.format("nounfreeze")) == {
        "embedding": {False}, "rnn0": {True}, "rnn1": {True}}


# -- the best epoch, the intermediate classifier -----------------------------------------------------------------------

def test_chain_thaw_reloads_the_best_at_every_step(world, monkeypatch):
    # Rates that do harm, so that there is something to undo.
    monkeypatch.setattr(phases, "CHAIN_THAW_OTHERS", 30.0)
    loaded = []
    monkeypatch.setattr(weights, "load_whole",
                        lambda model, path, load=weights.load_whole: (loaded.append(path.name), load(model, path)))
    run = world.train("thaw-harm", cl=1, chain_thaw=True)
    losses = [row["val_loss"] for row in flow.epochs(world.results, run)]
    best_until = [losses.index(min(losses[:epoch + 1])) for epoch in range(5)]
    assert len(losses) == 5 and best_until[-1] < 4
    assert loaded == [f"best.{epoch}.safetensors" for epoch in best_until]
    record, best = flow.record(world.results, run), losses[best_until[-1]]
    assert record["metrics"]["last"]["val_loss"] == record["metrics"]["best"]["val_loss"] == best
    assert loss_of_predictions(world, run) == pytest.approx(best, abs=1e-4)
    # What only a resume needs is gone.
    assert flow.files_of(world.data / "models/clas--fwd--word--thaw-harm--all--s0") == [
        "manifest.json", "vocab.json", "weights.safetensors"]


@pytest.mark.parametrize("early_stopping", [True, False])
def test_early_stopping_ends_after_six_epochs_and_goes_back(world, early_stopping):
    few = world.subset("few", [0, 1, 2, 3])
    run = world.train(f"stop-{early_stopping}", cl=30, startat=2, lr=0.3, use_regular_schedule=True,
                      use_discriminative=False, train_file_id=few, early_stopping=early_stopping)
    losses = [row["val_loss"] for row in flow.epochs(world.results, run)]
    best = losses.index(min(losses))
    assert best < len(losses) - 1
    assert len(losses) == (best + 7 if early_stopping else 30) and (len(losses) == 30) != early_stopping
    record = flow.record(world.results, run)
    assert record["metrics"]["best"]["val_loss"] == losses[best]
    kept = losses[best] if early_stopping else losses[-1]
    assert record["metrics"]["last"]["val_loss"] == kept
    assert loss_of_predictions(world, run) == pytest.approx(kept, rel=1e-3)


def test_language_model_early_stopping_goes_back(world):
    few = world.subset("few", [0, 1, 2, 3])
    run = world.tune("stop", cl=30, lr=0.5, use_regular_schedule=True, train_file_id=few, early_stopping=True)
    losses = [row["val_loss"] for row in flow.epochs(world.results, run)]
    best = losses.index(min(losses))
    assert len(losses) == best + 7 < 30
    model = models.language_model(len(vocab.load_vocab(world.data / "word/ids")), **SIZES, dropmult=0)
    weights.load_whole(model, world.data / "models/lm--fwd--word--stop--few--s0/weights.safetensors")
    text = language_model.text(DataFolder(world.data), ("val",), False)
    again = language_model.evaluate(model, text, bs=SMALL["bs"], bptt=SMALL["bptt"], device=torch.device("cpu"))
    assert again["val_loss"] == pytest.approx(losses[best], rel=1e-5)


def test_startat_1_goes_on_from_the_intermediate_classifier(world):
    world.train("steps-default", cl=2)
    # So small a rate that what was loaded is what is saved.
    run = world.train("went-on", cl=1, startat=1, start_clas_id="steps-default", lr=1e-12)
    start = world.weights("clas--fwd--word--steps-default--all--s0--intermediate")
    end = world.weights("clas--fwd--word--went-on--all--s0")
    for name, tensor in start.items():
        if "running" not in name and "batches" not in name:
            torch.testing.assert_close(end[name], tensor, atol=1e-8, rtol=0)
    check_steps(flow.steps(world.results, run), [(EVERY, UPDATES, [rate * 1e-10 for rate in DISCRIMINATIVE],
                                                  stlr(8, 8))])
    assert flow.record(world.results, run)["parents"] == [
        "imdb--tok2id--word", "imdb--train_clas--fwd--word--steps-default--all--s0"]
    # With --last it trains the head alone, from the same start.
    run = world.train("last-went-on", cl=1, startat=1, start_clas_id="steps-default", last=True)
    assert {groups for _, groups, _ in flow.steps(world.results, run)} == {(3,)}
    end = world.weights("clas--fwd--word--last-went-on--all--s0")
    assert all(torch.equal(end[name], start[name]) for name in start if name.startswith("0."))


def test_language_model_goes_on_from_itself_or_from_another(world):
    def lm(lm_id: str) -> torch.Tensor:
        tensors = world.weights(f"lm--fwd--word--{lm_id}--all--s0")
        return tensors[tied_name(tensors)]

    first = world.tune("again", cl=1)
    before = lm("again")
    with pytest.raises(UserError, match=r"exists in .* with other flags \(.*startat: 0 there, 1 asked.*--overwrite"):
        world.tune("again", cl=1, startat=1, lr=1e-12)
    assert torch.equal(lm("again"), before)

    world.tune("other", cl=1, startat=1, start_lm_id="again", lr=1e-12)
    torch.testing.assert_close(lm("other"), before, atol=1e-8, rtol=0)
    assert first in flow.record(world.results, "imdb--finetune_lm--fwd--word--other--all--s0")["parents"]

    world.tune("again", cl=1, startat=1, lr=0.02, overwrite=True)
    after = lm("again")
    assert not torch.allclose(after, before, atol=1e-4)
    kept = world.weights("lm--fwd--word--again--all--s0--start")
    assert torch.equal(kept[tied_name(kept)], before)
    # The same words again mean the same run, not a third round.
    world.tune("again", cl=1, startat=1, lr=0.02)
    assert torch.equal(lm("again"), after)


@pytest.mark.slow
def test_a_model_outlives_a_failed_attempt_to_replace_it(world):
    def everything() -> dict[str, bytes]:
        folders = (world.results / "runs" / run, world.data / "models" / "clas--fwd--word--dear--all--s0")
        return {str(path): path.read_bytes() for folder in folders for path in folder.rglob("*")
                if path.is_file() and path.name != ".lock"}

    run = world.train("dear", cl=1, startat=2, from_scratch=True)
    before = everything()
    with pytest.raises(UserError, match="no longer finite"):
        world.train("dear", cl=1, startat=2, from_scratch=True, lr=1e30, clip=0.0, overwrite=True)
    assert everything() == before
    # The same words again find it done.
    world.train("dear", cl=1, startat=2, from_scratch=True)
    assert everything() == before


# -- which text is read ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("stage, flags, model", [
    ("pretrain_lm", {}, "pretrained--fwd--word--imdb--all--s0"),
    ("finetune_lm", {"preload": False}, "lm--fwd--word--default--all--s0"),
    ("train_clas", {"from_scratch": True}, "clas--fwd--word--default--all--s0")])
def test_ids_that_are_made_again_during_a_training_leave_it_as_it_began(tmp_path, monkeypatch, stage, flags, model):
    data, where = flow.make_ids(tmp_path)
    words, val = vocab.load_vocab(data / "word/ids"), vocab.load_ids(data / "word/ids", "val").document_ids
    end_epoch = training.Training.end_epoch

    def make_others(self, seconds):
        flow.write_csv(data / "val.csv", flow.labelled_rows(len(val), seed=9))
        flow.call("create_toks", **where, workers=1, overwrite=True)
        flow.call("tok2id", **where, max_vocab=20, overwrite=True)
        end_epoch(self, seconds)

    monkeypatch.setattr(training.Training, "end_epoch", make_others)
    flow.call(stage, **where, **flags, cl=1, **SIZES, **SMALL)
    assert len(vocab.load_vocab(data / "word/ids")) < len(words) == len(vocab.load_vocab(data / "models" / model))
    assert weights.vocabulary(data / "models" / model) == words
    if stage == "train_clas":
        run = tmp_path / "results/runs/imdb--train_clas--fwd--word--default--all--s0"
        assert predictions.read(run / "predictions.csv").documents == val
        files.write_json(data / "models" / model / "vocab.json", words[::-1])
        with pytest.raises(UserError, match="vocab.json is not the vocabulary that .* was made with"):
            flow.call("predict_with_classifier", text="a film", dir_path=where["dir_path"], **PREDICT)


def test_a_vocabulary_that_is_not_the_ids_own_is_refused_before_training(tmp_path):
    data, where = flow.make_ids(tmp_path)
    path = data / "word/ids/vocab.json"
    files.write_json(path, vocab.load_vocab(path.parent)[::-1])
    with pytest.raises(UserError, match="word/ids/vocab.json is not the vocabulary that .*word/ids was made with"):
        flow.call("finetune_lm", **where, preload=False, cl=1, **SIZES, **SMALL)


def log_of(world: World, run: str) -> str:
    return (world.results / "runs" / run / "log.txt").read_text(encoding="utf-8")


def tokens_of(world: World, split: str) -> dict[str, int]:
    rows = vocab.read_document_rows(world.data / f"word/tokens/{split}.documents.csv")
    return {row.document: row.tokens for row in rows}


def test_joined_reads_every_split_and_says_so(world):
    run = world.tune("joined", cl=1, joined=True)
    totals = {split: sum(tokens_of(world, split).values()) for split in ("train", "val", "test", "unsup")}
    assert f"training text {sum(totals.values()):,} tokens" in log_of(world, run)
    assert "(on seen text)" in log_of(world, run) and flow.record(world.results, run)["val_text_seen"] is True
    plain = LM_RUN.format("fwd")
    assert f"training text {totals['train'] + totals['unsup']:,} tokens" in log_of(world, plain)
    assert flow.record(world.results, plain)["val_text_seen"] is False


def test_a_subset_is_all_that_is_trained_on(world, monkeypatch):
    train = vocab.load_ids(world.data / "word/ids", "train")
    chosen = [int(document.split(":")[1]) for document in train.document_ids[3:99:12]]
    name = world.subset("eight", reversed(chosen))
    run = world.tune("", cl=1, train_file_id=name).replace("word----", "word--default--")
    tokens = tokens_of(world, "train")
    assert f"training text {sum(tokens[f'train:{row}'] for row in chosen):,} tokens" in log_of(world, run)

    read = []
    batches = classifier.ClassifierLoader.batches

    def spy(loader, epoch):
        if loader.seed is not None:
            read.extend(loader.documents.document_ids[row] for batch in batches(loader, epoch)
                        for row in loader.rows[batch])
        return batches(loader, epoch)

    monkeypatch.setattr(classifier.ClassifierLoader, "batches", spy)
    run = world.train("subset", cl=1, last=True, train_file_id=name, lm_train_file_id=name)
    assert sorted(read) == sorted(f"train:{row}" for row in chosen)
    record = flow.record(world.results, run)
    assert run.endswith("--subset--eight--s0") and record["inputs"]["subset"]["path"] == "eight.txt"
    assert "imdb--finetune_lm--fwd--word--default--eight--s0" in record["parents"]
    # The subset's rows are part of what the run is.
    world.subset("eight", chosen[:-1])
    with pytest.raises(UserError, match="is stale: eight.txt changed since"):
        world.train("subset", cl=1, last=True, train_file_id=name, lm_train_file_id=name)


@pytest.mark.parametrize("lines, message", [
    (["0", "seven"], "line 2: 'seven' is not a row of train.csv"),
    (["0", str(flow.N_TRAIN)], f"line 2: '{flow.N_TRAIN}' is not a row of train.csv"),
    (["0", "-1"], "line 2: '-1' is not a row of train.csv"),
    (["0", "HELD OUT"], r"line 2: '\d+' is not a row of train.csv that training may use .*set aside for validation"),
    (["0", "1", "0"], "line 3: row 0 stands there twice"),
    ([], "names no document"),
], ids=["word", "range", "negative", "held-out", "twice", "empty"])
def test_bad_lines_of_a_subset_are_refused(world, lines, message, request):
    held_out = vocab.load_ids(world.data / "word/ids", "val").document_ids[0].removeprefix("train:")
    name = world.subset(f"bad-{request.node.callspec.id}", [line.replace("HELD OUT", held_out) for line in lines])
    for stage in (world.train, world.tune):
        with pytest.raises(UserError, match=rf"bad-.*\.txt.*{message}"):
            stage("bad", cl=1, train_file_id=name)
    # Refused before anything is begun or, with --overwrite, replaced.
    assert not list((world.results / "runs").glob(f"*--{name}--*"))


# -- asked again, asked wrongly ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("stage, flags, run", [
    ("create_toks", {"workers": 1}, "imdb--create_toks--word"),
    ("finetune_lm", {"pretrain_path": "wiki", "pretrain_id": "wiki", "cl": 2, "lr": 0.01, **SMALL},
     LM_RUN.format("fwd")),
    ("train_clas", {**LEARNED, **SMALL, "precision": "full"}, CLAS_RUN.format("fwd")),
    ("eval_clas", {"split": "test", **EVAL}, EVAL_RUN.format("fwd", "test")),
])
def test_the_same_command_again_is_reused_without_loading_torch(world, stage, flags, run):
    before = (world.results / "runs" / run / "run.json").read_bytes()
    done = flow.run_stage(stage, cwd=world.base, python=(sys.executable, "-X", "importtime"), dir_path="imdb",
                          results_dir="results", **flags)
    assert done.returncode == 0
    assert done.stdout == f"{run}: already done, reused (results/runs/{run})\n"
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "ulmfit.records" in imported and not imported & {"torch", "fastai", "spacy", "pandas"}
    assert (world.results / "runs" / run / "run.json").read_bytes() == before


REFUSALS = {
    "other flag": ("train_clas", {"cl": 3, "lr": 0.02, "dropmult": 0.2, "precision": "full", **SMALL}, 1,
                   f"train_clas: error: {CLAS_RUN.format('fwd')} exists in results/runs/{CLAS_RUN.format('fwd')} with "
                   f"other flags (cl: 14 there, 3 asked); "),
    "no language model": ("train_clas", {"lm_id": "none", "seed": 3, "backwards": True, "lm_train_file_id": "few"}, 1,
                          f"run first: python {SCRIPTS}/finetune_lm.py --dir_path=imdb --lm_id=none --backwards "
                          "--train_file_id=few --seed=3, or "),
    "no pretrained model": ("finetune_lm", {"pretrain_path": "wiki", "pretrain_id": "none", "pretrain_seed": 2}, 1,
                            f"run first: python {SCRIPTS}/pretrain_lm.py --dir_path=wiki --pretrain_id=none "
                            "--seed=2, or "),
    "no classifier": ("eval_clas", {"clas_id": "none", "seed": 3, "train_file_id": "few"}, 1,
                      f"run first: python {SCRIPTS}/train_clas.py --dir_path=imdb --clas_id=none "
                      "--train_file_id=few --seed=3"),
    "no classifier to predict": ("predict_with_classifier", {"text": "A film.", "lm_id": "none"}, 1,
                                 f"run first: python {SCRIPTS}/train_clas.py --dir_path=imdb --lm_id=none"),
    "no ids": ("train_clas", {"dir_path": "nowhere"}, 1, f"run first: python {SCRIPTS}/"),
    "no subset": ("train_clas", {"train_file_id": "none"}, 1, "none.txt is missing: --train_file_id names a file"),
    "no intermediate": ("train_clas", {"clas_id": "new", "startat": 1}, 1, "--intermediate is missing or unfinished; "
                        f"run first: python {SCRIPTS}/train_clas.py "),
    "sizes": ("train_clas", {"clas_id": "new", "emb_sz": 400}, 1, "--emb_sz=400 does not fit imdb/models/"),
    "sizes of the pretrained": ("finetune_lm", {"lm_id": "new", "pretrain_path": "wiki", "pretrain_id": "wiki",
                                                "n_layers": 3}, 1, "--n_layers=3 does not fit wiki/models/"),
    "subwords": ("finetune_lm", {"bpe": True}, 1, "imdb/bpe/ids is missing or unfinished; run first: python "
                 f"{SCRIPTS}/create_toks.py --dir_path=imdb --bpe; python {SCRIPTS}/tok2id.py --dir_path=imdb --bpe"),
    "contradiction": ("train_clas", {"last": True, "chain_thaw": True}, 2, "choose one"),
    "from scratch": ("train_clas", {"from_scratch": True, "startat": 1}, 2, "choose one"),
    "no GPU": ("eval_clas", {"split": "test", "cuda_id": 0, "bs": 7}, 1, "--cuda_id=0: 0 GPUs are visible here"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_in_one_line(world, case, tmp_path):
    stage, flags, code, message = REFUSALS[case]
    known = {"dir_path": "imdb"} | ({} if stage == "predict_with_classifier" else {"results_dir": "results"})
    if case == "no GPU":
        known["results_dir"] = tmp_path
    done = flow.run_stage(stage, cwd=world.base, **(known | flags))
    assert done.returncode == code and done.stdout == ""
    assert message in done.stderr and done.stderr.count("\n") == 1


def test_a_changed_csv_makes_the_ids_stale(world, tmp_path):
    data = shutil.copytree(world.data, tmp_path / "imdb")
    world.call("train_clas", dir_path=str(data), results_dir=str(tmp_path), clas_id="fresh", cl=1, last=True, **SMALL)
    with open(data / "train.csv", "a", encoding="utf-8") as file:
        file.write('"NA","one more"\n')
    for stage, flags in (("tok2id", {}), ("finetune_lm", {"pretrain_path": str(world.wiki)}),
                         ("train_clas", {"clas_id": "fresh", "cl": 1, "last": True, **SMALL}), ("eval_clas", {})):
        with pytest.raises(UserError, match="imdb/train.csv changed since create_toks; run create_toks.py"):
            world.call(stage, dir_path=str(data), results_dir=str(tmp_path), **flags)


def test_flags_that_contradict_each_other_are_refused(world):
    for stage, flags, message in (
            ("finetune_lm", {"joined": True, "train_file_id": "few"}, "choose one"),
            ("finetune_lm", {"notrain": True, "preload": False}, "--notrain keeps the pretrained weights"),
            ("finetune_lm", {"startat": 1, "preload": False}, "choose one"),
            ("finetune_lm", {"start_lm_id": "x"}, "is read by --startat=1 alone"),
            ("train_clas", {"start_clas_id": "x"}, "is read by --startat=1 alone"),
            ("train_clas", {"from_scratch": True, "last": True}, "--last does not"),
            ("train_clas", {"chain_thaw": True, "unfreeze": False}, "--nounfreeze forbids it"),
            ("train_clas", {"max_len": 10}, "is less than one chunk"),
            ("predict_with_classifier", {"text": "a", "csv": "b", "column": "1"}, "exclude each other")):
        with pytest.raises(UsageError, match=message):
            flow.call(stage, **flags)


# -- what may be shared ------------------------------------------------------------------------------------------------

def test_records_hold_neither_text_nor_outside_paths(world):
    # One that failed as well: its error names a file.
    name = world.subset("leak", ["x"])
    with pytest.raises(UserError, match=str(world.data)):
        world.train("leak", cl=1, train_file_id=name)
    texts = {}
    for path in sorted((world.results / "runs").rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            texts[path] = UNPACKED.get(path.suffix, bytes)(content).decode()
    assert len(texts) > 50
    for path, text in texts.items():
        for secret in (MARK, str(world.base), str(ROOT), "brilliant"):
            assert secret not in text, f"{path.name} of {path.parent.name} holds {secret}"
