"""The finer flags of training, from the command line to the numbers that ran; and what contradicts itself."""

import csv
import gzip
import importlib
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.callback.schedule import combined_cos
from safetensors.torch import load_file
from sklearn.metrics import log_loss

import flow
from flow import SIZES, SMALL
from ulmfit import classifier, cli, hyperparameters, machine, models, names, training
from ulmfit.errors import Interrupted, UsageError, UserError
from ulmfit.hyperparameters import ClassifierLoss

STAGES = ("pretrain_lm", "finetune_lm", "train_clas")
FEW = 24


class Corpus:
    """The ids of the tiny corpus, a language model with random weights, and calls of the stages on it."""

    def __init__(self, base: Path):
        self.results = base / "results"
        self.data, self.where = flow.make_ids(base)
        (self.data / "subsets").mkdir()
        lines = (self.data / "word/ids/train.documents.txt").read_text().splitlines()
        rows = [int(line.removeprefix("train:")) for line in lines]
        self.write_subset("few", rows[:FEW])
        self.write_subset("without", [row for row in rows if row % 3 != 2][:FEW])
        flow.call("finetune_lm", **self.where, preload=False, cl=1, **SIZES, **SMALL)

    def write_subset(self, name: str, rows: list[int]) -> None:
        (self.data / f"subsets/{name}.txt").write_text("".join(f"{row}\n" for row in rows))

    def flags(self, stage: str, name: str, **more) -> dict:
        own = {"pretrain_lm": {"pretrain_id": name, **SIZES}, "finetune_lm": {"lm_id": name, "preload": False, **SIZES},
               "train_clas": {"clas_id": name, "train_file_id": "few"}}[stage]
        return {**self.where, "cl": 1, **own, **SMALL, **more}

    def run(self, stage: str, name: str, **more) -> str:
        flow.call(stage, **self.flags(stage, name, **more))
        return self.id(stage, name, **more)

    def id(self, stage: str, name: str, **more) -> str:
        subset = more.get("train_file_id", "few" if stage == "train_clas" else "all")
        return f"imdb--{stage}--fwd--word--{name}--{subset}--s0"

    def model(self, stage: str, name: str) -> Path:
        kind = {"pretrain_lm": "pretrained", "finetune_lm": "lm", "train_clas": "clas"}[stage]
        return self.data / "models" / f"{kind}--fwd--word--{name}--{'few' if stage == 'train_clas' else 'all'}--s0"

    def weights(self, stage: str, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.model(stage, name) / "weights.safetensors")

    def table(self, run: str) -> list[dict[str, str]]:
        """The rows of steps.csv.gz."""
        text = gzip.decompress((self.results / "runs" / run / "steps.csv.gz").read_bytes()).decode()
        return list(csv.DictReader(text.splitlines()))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    return Corpus(tmp_path_factory.mktemp("flags"))


class Optimizers:
    """Keeps what the optimizer of a training was given, and its loss function."""

    def __init__(self, monkeypatch):
        self.seen = []
        heed = training.Training.heed_signals

        def look(job, between_epochs=False):
            self.seen.append((job, dict(job.learn.opt.hypers[0])))
            heed(job, between_epochs)

        monkeypatch.setattr(training.Training, "heed_signals", look)

    @property
    def job(self) -> training.Training:
        return self.seen[-1][0]


# -- what they do ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("stage", STAGES)
def test_optimizer_regularization_and_clipping_get_what_was_typed(corpus, monkeypatch, stage):
    kept = Optimizers(monkeypatch)
    corpus.run(stage, "optimizer", precision="full", beta1=0.7, beta2=0.95, eps=1e-6, wd=1e-3, clip=0.125, alpha=0.5, beta=0.25)
    hypers = kept.seen[0][1]
    assert (hypers["mom"], hypers["sqr_mom"], hypers["eps"], hypers["wd"]) == (0.7, 0.95, 1e-6, 1e-3)
    learn = kept.job.learn
    regularizer = learn.classifier_output if stage == "train_clas" else learn.rnn_regularizer
    assert (regularizer.alpha, regularizer.beta, learn.gradient_clip.max_norm) == (0.5, 0.25, 0.125)
    assert not hasattr(learn, "_mixed_precision")


@pytest.mark.parametrize("stage, clip, wd", [("pretrain_lm", 0.3, 1e-7), ("finetune_lm", 0.3, 1e-7),
                                             ("train_clas", 25.0, 1e-6)])
def test_without_flags_they_get_what_they_had_in_2018(corpus, monkeypatch, stage, clip, wd):
    kept = Optimizers(monkeypatch)
    corpus.run(stage, "plain")
    hypers, learn = kept.seen[0][1], kept.job.learn
    assert (hypers["mom"], hypers["sqr_mom"], hypers["eps"], hypers["wd"]) == (0.8, 0.99, 1e-8, wd)
    regularizer = learn.classifier_output if stage == "train_clas" else learn.rnn_regularizer
    assert (regularizer.alpha, regularizer.beta, learn.gradient_clip.max_norm) == (2.0, 1.0, clip)
    # `lr_find` takes the optimizer from here, the stages from their signature.
    assert kept.job.optimization == (hyperparameters.CLASSIFIER if stage == "train_clas"
                                     else hyperparameters.LANGUAGE_MODEL)
    assert list(corpus.table(corpus.id(stage, "plain"))[0])[-1].startswith("lr_")


def test_no_clipping(corpus, monkeypatch):
    kept = Optimizers(monkeypatch)
    corpus.run("finetune_lm", "unclipped", clip=0.0)
    assert not hasattr(kept.job.learn, "gradient_clip")
    assert all(torch.isfinite(tensor).all() for tensor in corpus.weights("finetune_lm", "unclipped").values())


@pytest.mark.parametrize("stage", STAGES)
def test_one_cycle_moves_rate_and_momentum_as_fastai_does(corpus, stage):
    run = corpus.run(stage, "cycle", schedule="one_cycle", lr=0.01, cl=2, mom_max=0.8, mom_min=0.7, div=10.0,
                     div_final=100.0, pct_start=0.3)
    rows = corpus.table(run)
    top = [name for name in rows[0] if name.startswith("lr_")][-1]
    phases = sorted({int(row["phase"]) for row in rows})
    assert len(phases) == (3 if stage == "train_clas" else 1)
    highest = 0.005 if stage == "finetune_lm" else 0.01
    rate = combined_cos(0.3, highest / 10, highest, highest / 100)
    momentum = combined_cos(0.3, 0.8, 0.7, 0.8)
    for phase in phases:
        own = [row for row in rows if int(row["phase"]) == phase]
        for step, row in enumerate(own):
            assert float(row[top]) == pytest.approx(rate(step / len(own)), abs=1e-6)
            assert float(row["momentum"]) == pytest.approx(momentum(step / len(own)), abs=1e-6)


def intermediate(corpus, run: str):
    """The folder of the classifier as it stood after the gradual steps."""
    folder = corpus.model("train_clas", run)
    return folder.with_name(names.intermediate_name(folder.name))


def test_one_group_more_an_epoch_is_what_trains(corpus):
    run = corpus.run("train_clas", "pace", unfreezing="one_per_epoch")
    seen = list(dict.fromkeys((row["phase"], row["groups"]) for row in corpus.table(run)))
    assert seen == [("0", "3"), ("1", "2+3"), ("2", "1+2+3"), ("3", "0+1+2+3")]
    assert [row["phase"] for row in flow.epochs(corpus.results, run)] == [
        "last group", "last two groups", "last three groups", "all"]
    # --startat=1 goes on from where the last step left.
    later = corpus.run("train_clas", "pace-on", startat=1, start_clas_id="pace", lr=1e-9)
    kept = load_file(intermediate(corpus, "pace") / "weights.safetensors")
    for name, tensor in corpus.weights("train_clas", "pace-on").items():
        if "running" not in name and "batches" not in name:
            torch.testing.assert_close(tensor, kept[name], rtol=0, atol=1e-5)
    assert [row["phase"] for row in flow.epochs(corpus.results, later)] == ["all"]


def test_frozen_epochs_leave_the_lstm_layers_as_they_were(corpus, monkeypatch):
    start, same = corpus.weights("finetune_lm", "default"), {}
    heed = training.Training.heed_signals

    def compare(job, between_epochs=False):
        state = job.model.state_dict()
        same[job.place.phase] = [torch.equal(state[name], start[name]) for name in (
            "0.rnns.0.weight_hh_l0_raw", "0.rnns.1.module.weight_ih_l0", "0.encoder.weight")]
        heed(job, between_epochs)

    monkeypatch.setattr(training.Training, "heed_signals", compare)
    run = corpus.run("finetune_lm", "frozen", preload=True, startat=1, start_lm_id="default", freeze_epochs=1, cl=1)
    seen = list(dict.fromkeys((row["phase"], row["groups"]) for row in corpus.table(run)))
    assert seen == [("0", "2"), ("1", "0+1+2")]
    assert [row["phase"] for row in flow.epochs(corpus.results, run)] == ["embedding and decoder", "all"]
    assert same == {0: [True, True, False], 1: [False, False, False]}


def test_a_divisor_sets_the_rates_of_the_language_model_too(corpus):
    row = corpus.table(corpus.run("pretrain_lm", "divided", divisor=4.0, lr=0.016, schedule="constant"))[0]
    assert [float(row[f"lr_{group}"]) for group in range(3)] == pytest.approx([0.001, 0.004, 0.016])


def test_hidden_layers_of_the_head_come_back_with_the_weights(corpus):
    corpus.run("train_clas", "head", lin_ftrs="11,7", dropout_head=0.0)
    folder = corpus.model("train_clas", "head")
    assert json.loads((folder / "manifest.json").read_text())["lin_ftrs"] == [11, 7]
    sizes = [layer.out_features for layer in classifier.load(folder)[1].modules() if isinstance(layer, torch.nn.Linear)]
    assert sizes == [11, 7, 3]
    flow.call("eval_clas", **corpus.where, clas_id="head", train_file_id="few", split="val", threads=1, cuda_id=-1)
    records = corpus.results / "runs"
    evaluated = next(path for path in records.iterdir() if "--eval_clas--" in path.name and "--head--" in path.name)
    assert (evaluated / "predictions.csv").read_bytes() == (
        records / corpus.id("train_clas", "head") / "predictions.csv").read_bytes()
    # Its intermediate state goes on with other dropouts, among which that of 0 has no layer.
    on = {"startat": 1, "start_clas_id": "head", "lin_ftrs": "11,7", "lr": 1e-9, "use_regular_schedule": True}
    corpus.run("train_clas", "head-on", **on)
    corpus.run("train_clas", "head-on-without", **on, dropout_head=0.0)
    # By their shapes, as names are others.
    kept, *after = ({tuple(tensor.shape): tensor for tensor in tensors.values()} for tensors in (
        load_file(intermediate(corpus, "head") / "weights.safetensors"),
        corpus.weights("train_clas", "head-on"), corpus.weights("train_clas", "head-on-without")))
    for shape in ((11, 48), (7, 11), (3, 7)):
        for tensors in after:
            torch.testing.assert_close(tensors[shape], kept[shape], rtol=0, atol=1e-5)
    # A classifier of the time before the flag says nothing of its head.
    corpus.run("train_clas", "plain")
    plain = json.loads((corpus.model("train_clas", "plain") / "manifest.json").read_text())
    assert "lin_ftrs" not in plain and "dropout_head" not in plain
    with pytest.raises(UserError, match="--lin_ftrs=50 does not fit .*head.*, whose head has --lin_ftrs=11,7"):
        corpus.run("train_clas", "other-head", startat=1, start_clas_id="head")


def test_a_classifier_of_a_high_dropmult_is_loaded_again(corpus):
    """Its weight dropout would be 1 by dropmult alone."""
    corpus.run("train_clas", "high", dropmult=2.0, dropout_weight=0.5)
    flow.call("eval_clas", **corpus.where, clas_id="high", train_file_id="few", split="val", threads=1, cuda_id=-1)
    corpus.run("train_clas", "high-on", startat=1, start_clas_id="high")


def test_what_a_language_model_has_read_is_not_forgotten(corpus):
    corpus.run("finetune_lm", "joined", joined=True)
    run = corpus.run("finetune_lm", "joined-on", preload=True, startat=1, start_lm_id="joined")
    assert flow.record(corpus.results, run)["val_text_seen"] is True
    run = corpus.run("finetune_lm", "plain-on", preload=True, startat=1, start_lm_id="default")
    assert flow.record(corpus.results, run)["val_text_seen"] is False


def test_hidden_layers_have_one_spelling(corpus, capsys):
    corpus.run("train_clas", "spelled", lin_ftrs="11,7")
    capsys.readouterr()
    corpus.run("train_clas", "spelled", lin_ftrs=" 11, 7")
    assert "already done, reused" in capsys.readouterr().out


def test_patience(corpus):
    flags = {"early_stopping": True, "cl": 20, "lr": 0.3, "startat": 2, "use_regular_schedule": True}
    losses = [row["val_loss"] for row in flow.epochs(corpus.results, corpus.run("train_clas", "patient", patience=2,
                                                                                **flags))]
    assert len(losses) == losses.index(min(losses)) + 3 < 20
    losses = [row["val_loss"] for row in flow.epochs(corpus.results, corpus.run(
        "pretrain_lm", "patient", patience=1, early_stopping=True, cl=30, lr=0.3, schedule="constant"))]
    assert len(losses) == losses.index(min(losses)) + 2 < 30


def test_a_validation_every_so_many_epochs_changes_nothing_else(corpus):
    for stage, cl, validated in (("train_clas", 3, [2, 4, 5]), ("finetune_lm", 5, [2, 4, 5])):
        whole, paced = (corpus.run(stage, f"every-{n}", val_every=n, cl=cl) for n in (1, 2))
        each, some = flow.epochs(corpus.results, whole), flow.epochs(corpus.results, paced)
        assert [row["epoch"] + 1 for row in some if "val_loss" in row] == validated
        assert len(each) == len(some) == 5
        for row, same in zip(some, each):
            assert row.items() <= same.items() and (row.keys() == same.keys()) == ("val_loss" in row)
        before, after = corpus.weights(stage, "every-1"), corpus.weights(stage, "every-2")
        assert all(torch.equal(before[name], after[name]) for name in before)
        if stage == "train_clas":
            predicted = [corpus.results / "runs" / run / "predictions.csv" for run in (whole, paced)]
            assert predicted[0].read_bytes() == predicted[1].read_bytes()
        metrics = flow.record(corpus.results, paced)["metrics"]
        assert metrics["last"]["epoch"] == 4 and metrics["best"]["epoch"] + 1 in validated


def test_patience_between_validations_counts_epochs(corpus):
    flags = {"early_stopping": True, "cl": 40, "lr": 0.3, "startat": 2, "use_regular_schedule": True}
    run = corpus.run("train_clas", "patient-paced", patience=4, val_every=3, **flags)
    rows = flow.epochs(corpus.results, run)
    losses = {row["epoch"]: row["val_loss"] for row in rows if "val_loss" in row}
    best = min(losses, key=losses.get)
    # The first validated epoch that lies at least four behind the best.
    assert [epoch for epoch in losses if epoch >= best + 4] == [len(rows) - 1] and len(rows) < 40
    assert flow.record(corpus.results, run)["metrics"]["last"]["epoch"] == best


def test_chain_thaw_validates_each_of_its_steps(corpus):
    rows = flow.epochs(corpus.results, corpus.run("train_clas", "thaw-paced", chain_thaw=True, val_every=10, cl=2))
    assert ["val_loss" in row for row in rows] == [row["phase"] != "all" for row in rows[:-1]] + [True]


def test_val_is_predicted_once(corpus, monkeypatch):
    predicted = []
    monkeypatch.setattr(training, "predict", lambda *args: predicted.append(args) or 1 / 0)
    corpus.run("train_clas", "once", cl=1)
    with pytest.raises(ZeroDivisionError):  # the weights that were gone back to are not those validated last
        corpus.run("train_clas", "back", early_stopping=True, patience=1, cl=30, lr=0.3, startat=2)
    assert len(predicted) == 1


def reference_loss(logits: torch.Tensor, labels: torch.Tensor, weights: list[float], smoothing: float) -> float:
    """Written out: the target is 1 - s on the label and s / k on every class; each term weighs as its class does, and
    the sum is divided by the weights of the labels."""
    log_p, k = logits.double().log_softmax(-1), logits.shape[1]
    total = sum((1 - smoothing) * -log_p[row, label].item() * weights[label]
                + smoothing / k * sum(-log_p[row, c].item() * weights[c] for c in range(k))
                for row, label in enumerate(labels.tolist()))
    return total / sum(weights[label] for label in labels.tolist())


@pytest.mark.parametrize("class_weights, smoothing", [(None, 0.0), ("balanced", 0.0), (None, 0.1), ("balanced", 0.3)])
def test_training_loss_against_its_definition(class_weights, smoothing):
    labels = np.array([0] * 6 + [1] * 3 + [2])
    weights = [10 / (3 * 6), 10 / (3 * 3), 10 / (3 * 1)] if class_weights else [1.0] * 3
    loss = classifier.training_loss(ClassifierLoss(class_weights, smoothing), labels, ["a", "b", "c"])
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 2, 1, 0, 0])
    assert loss(logits, targets).item() == pytest.approx(reference_loss(logits, targets, weights, smoothing), rel=1e-5)


def test_class_weights_and_label_smoothing_are_the_training_losss_alone(corpus, monkeypatch):
    kept = Optimizers(monkeypatch)
    run = corpus.run("train_clas", "weighted", class_weights="balanced", label_smoothing=0.2)
    loss = kept.job.learn.loss_func.func
    assert loss.label_smoothing == 0.2 and loss.weight.shape == (3,)
    with open(corpus.results / "runs" / run / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    classes = [name for name in rows[0] if name not in ("document", "label")]
    p = np.array([[float(row[name]) for name in classes] for row in rows])
    labels = [[name.removeprefix("p:") for name in classes].index(row["label"]) for row in rows]
    last = flow.record(corpus.results, run)["metrics"]["last"]
    assert last["val_loss"] == pytest.approx(log_loss(labels, p, labels=range(3)), rel=1e-4)
    plain = flow.record(corpus.results, corpus.run("train_clas", "plain"))["metrics"]["last"]
    assert last["train_loss"] != plain["train_loss"]


def test_a_class_without_a_training_document_cannot_be_weighted(corpus):
    message = "--class_weights=balanced: none of the 24 training documents is of class 'poor'"
    with pytest.raises(UserError, match=message):
        corpus.run("train_clas", "absent", class_weights="balanced", train_file_id="without")


def test_an_intermediate_classifier_of_another_vocabulary_is_refused(corpus):
    corpus.run("train_clas", "plain")
    folder = corpus.model("train_clas", "plain")
    facts = json.loads((folder / "manifest.json").read_text())
    model = classifier.load(folder)
    with pytest.raises(UserError, match="was trained with another vocabulary than the dataset has now"):
        classifier.load_intermediate(model, folder, "another")
    drawn = torch.random.get_rng_state()
    classifier.load_intermediate(model, folder, facts["vocab_fingerprint"])
    assert torch.equal(torch.random.get_rng_state(), drawn)


# -- precision ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("stage", STAGES)
def test_bf16_trains_nearly_alike(corpus, stage):
    flags = {"dropmult": 0.0, "cl": 2, "lr": 0.01}
    if stage == "train_clas":
        flags["train_file_id"] = "few"
    full = flow.epochs(corpus.results, corpus.run(stage, "full", precision="full", **flags))
    half = flow.epochs(corpus.results, corpus.run(stage, "bf16", precision="bf16", **flags))
    for a, b in zip(full, half, strict=True):
        assert a["train_loss"] != b["train_loss"]
        assert b["val_loss"] == pytest.approx(a["val_loss"], rel=0.01)
    assert {tensor.dtype for tensor in corpus.weights(stage, "bf16").values()} <= {torch.float32, torch.int64}
    if stage == "train_clas":
        flow.call("eval_clas", **corpus.where, clas_id="bf16", train_file_id="few", split="val", precision="bf16",
                  threads=1, cuda_id=-1)
        run = next(path for path in (corpus.results / "runs").iterdir()
                   if "--eval_clas--" in path.name and "--bf16--" in path.name)
        # Validation during training is of the very precision; in another the third digit would differ.
        assert json.loads((run / "run.json").read_text())["metrics"]["last"]["loss"] == pytest.approx(
            half[-1]["val_loss"], rel=1e-6)


def test_bf16_gradients_reach_the_weights_behind_chunks_without_gradient():
    """A document longer than max_len: its first chunks use the same weights without gradients."""
    torch.manual_seed(0)
    model = models.classifier(50, 3, **SIZES, bptt=5, max_len=10, dropmult=0.0).train()
    ids, lengths = models.pad_batch([np.arange(2, 2 + n) for n in (33, 20, 7)], 5)
    found = {}
    for precision in ("full", "bf16"):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False, enabled=precision == "bf16"):
            states, padding = model[0]((torch.from_numpy(ids), torch.from_numpy(lengths)))
            pooled = models.concat_pool(states, padding)
        # Not on through the head: its batch normalisation of so few rows enlarges every rounding.
        pooled.float().pow(2).sum().backward()
        found[precision] = {name: parameter.grad.clone() for name, parameter in model[0].named_parameters()}
    for name, gradient in found["full"].items():
        assert torch.cosine_similarity(gradient.flatten(), found["bf16"][name].flatten(), dim=0) > 0.95, name


def test_precisions_that_the_device_lacks_are_refused(monkeypatch, corpus):
    with pytest.raises(UserError, match="--precision=fp16 needs a GPU, and none is visible here"):
        machine.pick_device(None, "fp16")
    assert machine.pick_device(None, "bf16") == torch.device("cpu")
    # A finished run is not lost for the wish to make it again where it cannot be made.
    run = corpus.run("pretrain_lm", "precise")
    with pytest.raises(UserError, match="--precision=fp16 needs a GPU"):
        corpus.run("pretrain_lm", "precise", precision="fp16", overwrite=True, cuda_id=None)
    assert flow.record(corpus.results, run)["status"] == "finished"
    assert (corpus.model("pretrain_lm", "precise") / "manifest.json").exists()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert machine.pick_device(0, "fp16") == torch.device("cuda", 0)
    with pytest.raises(UserError, match="--precision=bf16: this GPU does not have it"):
        machine.pick_device(0, "bf16")


@pytest.mark.parametrize("flags, expected", [("flags\t: fpu amx_bf16 sse\n", "bf16"), ("flags : avx512_bf16\n", "bf16"),
                                             ("flags : fpu avx2 bf16ish\n", "full"), ("Features : bf16\n", "full"),
                                             (None, "full")])
def test_auto_is_bf16_where_the_processor_multiplies_it(monkeypatch, flags, expected):
    def read_text(self, **how):
        assert str(self) == "/proc/cpuinfo"
        if flags is None:
            raise FileNotFoundError(self)
        return "model name : amx_bf16\n" + flags

    monkeypatch.setattr(machine.Path, "read_text", read_text)
    assert machine.quick_precision(torch.device("cpu")) == expected


@pytest.mark.parametrize("native", [True, False])
def test_auto_on_a_gpu_is_bf16_where_it_is_native(monkeypatch, native):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert machine.quick_precision(torch.device("cuda", 0)) == ("bf16" if native else "full")


@pytest.mark.parametrize("here", ["bf16", "full"])
def test_auto_is_recorded_and_kept_by_a_run_that_goes_on(corpus, monkeypatch, here):
    other = {"bf16": "full", "full": "bf16"}[here]
    monkeypatch.setattr(machine, "quick_precision", lambda device: here)
    monkeypatch.setattr(training.Training, "heed_signals", stopped_after(3))
    with pytest.raises(Interrupted):
        corpus.run("finetune_lm", f"auto-{here}")
    monkeypatch.undo()
    # On another kind of machine.
    monkeypatch.setattr(machine, "quick_precision", lambda device: other)
    record = flow.record(corpus.results, corpus.run("finetune_lm", f"auto-{here}"))
    assert record["precision"] == here and [session["precision"] for session in record["sessions"]] == [here, here]
    typed = corpus.run("finetune_lm", f"typed-{here}", precision=here)
    assert flow.epochs(corpus.results, typed)[0]["train_loss"] == flow.epochs(
        corpus.results, corpus.id("finetune_lm", f"auto-{here}"))[0]["train_loss"]
    # What was not typed is the device's, and does not make another run of it.
    assert "precision" not in record["config"]
    assert flow.record(corpus.results, typed)["config"]["precision"] == here


def test_a_checkpoint_of_fastais_optimizer_is_refused_in_one_line(corpus, monkeypatch):
    monkeypatch.setattr(training.Training, "heed_signals", stopped_after(3))
    with pytest.raises(Interrupted):
        corpus.run("finetune_lm", "earlier")
    monkeypatch.undo()
    path = corpus.model("finetune_lm", "earlier") / training.CHECKPOINT
    state = torch.load(path, weights_only=True)
    state["optimizer"] = [{"grad_avg": of_weight["exp_avg"], "sqr_avg": of_weight["exp_avg_sq"], "step": 3}
                          for of_weight in state["optimizer"]]
    torch.save(state, path)
    with pytest.raises(UserError, match="was written by an earlier version, with another optimizer; --overwrite"):
        corpus.run("finetune_lm", "earlier")


def stopped_after(batches: int):
    heed, seen = training.Training.heed_signals, 0

    def heed_signals(self, between_epochs=False):
        nonlocal seen
        seen += 1
        if seen == batches:
            os.kill(os.getpid(), signal.SIGTERM)
        heed(self, between_epochs)

    return heed_signals


# -- stopped and resumed -----------------------------------------------------------------------------------------------

RESUMED = {
    "bf16 one_cycle": ("finetune_lm", {"precision": "bf16", "schedule": "one_cycle", "cl": 2}),
    "frozen": ("finetune_lm", {"preload": True, "startat": 1, "start_lm_id": "default", "freeze_epochs": 1, "cl": 1,
                               "divisor": 2.0, "dropout_hidden": 0.4}),
    "pace": ("train_clas", {"unfreezing": "one_per_epoch", "schedule": "one_cycle", "precision": "bf16",
                            "lin_ftrs": "9", "label_smoothing": 0.1, "class_weights": "balanced"}),
    "fp16": ("finetune_lm", {"precision": "fp16", "cuda_id": None, "cl": 2, "early_stopping": True}),
    # As on a GPU, whose LSTMs are in float16 then too.
    "bf16 scaled": ("finetune_lm", {"precision": "bf16", "cl": 2}),
}


@pytest.mark.parametrize("variant", RESUMED)
def test_stopped_again_and_again_ends_the_same(corpus, monkeypatch, variant):
    stage, flags = RESUMED[variant]
    label = variant.replace(" ", "-")
    scales, scaled = [], variant in ("fp16", "bf16 scaled")
    if scaled:
        scaler = torch.amp.GradScaler
        monkeypatch.setattr(torch.amp, "GradScaler", lambda device, enabled: scaler(
            device, enabled=enabled, init_scale=2.0**40 if variant == "fp16" else 2.0**120, growth_interval=3))
        monkeypatch.setattr(training, "needs_scaling", lambda precision, device_type: True)
    if flags.get("precision") == "fp16":
        # No GPU is needed to see the loss scale through: its arithmetic is the same, only slow without one.
        pick = machine.pick_device
        monkeypatch.setattr(machine, "pick_device", lambda cuda_id, precision="auto": pick(cuda_id))
        monkeypatch.setattr(machine, "check_precision", lambda precision, device: None)
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
        torch.backends.mkldnn.set_flags(False)
    heed, looks, wait, stops = training.Training.heed_signals, 0, 0, 0

    def heed_and_be_stopped(self, between_epochs=False):
        nonlocal looks
        looks += 1
        if scaled:
            scales.append(self.learn.scaler.get_scale())
        if looks == wait:
            os.kill(os.getpid(), signal.SIGTERM)
        heed(self, between_epochs)

    monkeypatch.setattr(training.Training, "heed_signals", heed_and_be_stopped)
    try:
        whole = corpus.run(stage, f"whole-{label}", **flags)
        undisturbed = list(scales)
        while True:
            looks, wait = 0, 2 + 3 * stops % 7
            try:
                stopped = corpus.run(stage, f"stopped-{label}", **flags)
                break
            except Interrupted:
                stops += 1
                state = torch.load(corpus.model(stage, f"stopped-{label}") / training.CHECKPOINT, weights_only=True)
                assert (state["scaler"] is not None) == scaled
    finally:
        torch.backends.mkldnn.set_flags(True)
    assert stops > 4
    for file in ("steps.csv.gz", "predictions.csv"):
        left = [corpus.results / "runs" / run / file for run in (whole, stopped)]
        assert left[0].exists() == left[1].exists() == (file == "steps.csv.gz" or stage == "train_clas")
        assert not left[0].exists() or left[0].read_bytes() == left[1].read_bytes()
    assert flow.epochs(corpus.results, whole) == flow.epochs(corpus.results, stopped)
    before, after = corpus.weights(stage, f"whole-{label}"), corpus.weights(stage, f"stopped-{label}")
    assert all(torch.equal(before[name], after[name]) for name in before)
    if undisturbed:
        # It fell while gradients overflowed, and grew: a fresh one would have begun where it began again.
        assert len(set(undisturbed)) > 4 and min(undisturbed) < undisturbed[0] * 2


@pytest.mark.parametrize("precision, device, scaled", [("fp16", "cuda", True), ("fp16", "cpu", True),
                                                       ("bf16", "cuda", True), ("bf16", "cpu", False),
                                                       ("full", "cuda", False)])
def test_where_the_loss_is_scaled(precision, device, scaled):
    assert training.needs_scaling(precision, device) == scaled


def test_a_run_goes_on_with_the_random_numbers_of_its_gpu_on_another(monkeypatch):
    """cuda:1 of four is the only one that another process sees."""
    states = {f"cuda:{number}": torch.tensor([number], dtype=torch.uint8) for number in range(4)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[str(device)])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.update({str(device): state}))
    saved = machine.random_states(torch.device("cuda:1"))
    drawn = torch.rand(3)
    machine.restore_random_states(saved, torch.device("cuda:0"))
    assert [int(state) for state in states.values()] == [1, 1, 2, 3] and torch.equal(torch.rand(3), drawn)
    on_cpu = machine.random_states(torch.device("cpu"))
    machine.restore_random_states(on_cpu, torch.device("cuda:3"))
    assert int(states["cuda:3"]) == 3


@pytest.mark.parametrize("stage", ["finetune_lm", "train_clas"])
def test_what_the_last_update_of_an_epoch_destroyed_is_said(corpus, monkeypatch, stage):
    """The training loss of an epoch of one update comes before it."""
    def to_nan(self):
        for parameter in self.learn.model.parameters():
            parameter.data.fill_(float("nan"))

    monkeypatch.setattr(training._Steps, "after_step", to_nan, raising=False)
    more = {"bs": 64, "bptt": 2000} if stage == "finetune_lm" else {"bs": 2 * FEW}
    with pytest.raises(UserError, match="the validation loss is not finite after 1 updates; lower --lr"):
        corpus.run(stage, "destroyed", **more)


# -- the command line --------------------------------------------------------------------------------------------------

REFUSED = {
    "divisor": (("finetune_lm", "train_clas"), {"divisor": 3, "use_discriminative": False}, "--nouse_discriminative"),
    "cut_frac": (("finetune_lm", "train_clas"), {"cut_frac": 0.2, "use_clr": False}, "--cut_frac shapes"),
    "from_scratch": (("train_clas",), {"ratio": 8, "from_scratch": True}, "--ratio shapes"),
    "schedule": (("finetune_lm", "train_clas"), {"schedule": "one_cycle", "use_regular_schedule": True}, "both choose"),
    "cycle": (STAGES, {"pct_start": 0.5}, "--pct_start shapes the schedule one_cycle"),
    "beta1": (STAGES, {"schedule": "one_cycle", "beta1": 0.8}, "--beta1 is one number"),
    "patience": (STAGES, {"patience": 6}, "--patience is read by --early_stopping alone"),
    "pace of validation": (STAGES, {"early_stopping": True, "patience": 2, "val_every": 3}, "--val_every=3 lets more"),
    "precision": (STAGES, {"precision": "fp16", "cuda_id": -1}, "--precision=fp16 needs a GPU"),
    "dropmult": (STAGES, {"dropmult": 9}, "--dropmult=9 makes the input dropout"),
    "freeze": (("finetune_lm",), {"freeze_epochs": 1, "preload": False}, "--freeze_epochs trains"),
    "notrain": (("finetune_lm",), {"notrain": True, "wd": 1e-7}, "--notrain trains nothing and does not read --wd"),
    **{f"notrain {name}": (("finetune_lm",), {"notrain": True, name: value}, f"does not read --{name}") for name, value
       in (("joined", True), ("train_file_id", "few"), ("early_stopping", True), ("sampled", True))},
    "pace": (("train_clas",), {"unfreezing": "one_per_epoch", "last": True}, "--last does not"),
    "head": (("train_clas",), {"lin_ftrs": "50,"}, "--lin_ftrs='50,': sizes of hidden layers are expected"),
    "dropout": (STAGES, {"dropout_weight": 1.0}, "--dropout_weight='1.0': it must be from 0 to 0.99"),
    "weights": (("train_clas",), {"class_weights": "even"}, "--class_weights='even': the choices are balanced"),
}


@pytest.mark.parametrize("stage, case", [(stage, case) for case, (stages, _, _) in REFUSED.items()
                                         for stage in stages])
def test_contradictions_are_refused_in_one_line_before_torch_is_there(monkeypatch, capsys, stage, case):
    _, flags, message = REFUSED[case]
    # Whatever would import torch now fails.
    for name in [name for name in sys.modules if name.split(".")[0] in ("torch", "fastai")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit) as stopped:
        cli.main(getattr(importlib.import_module(stage), stage),
                 ["--dir_path=/nowhere", *(f"--{name}={value}" for name, value in flags.items())])
    out, err = capsys.readouterr()
    assert stopped.value.code == 2 and out == ""
    assert err.count("\n") == 1 and message in err


def test_the_real_command_line(corpus):
    done = flow.run_here("train_clas", **corpus.flags("train_clas", "real", schedule="one_cycle", mom_max=0.8,
                                                      mom_min=0.7, dropout_input=0.1, lin_ftrs="20,10", eps="1e-7"))
    assert done.returncode == 0, done.stderr
    record = flow.record(corpus.results, corpus.id("train_clas", "real"))
    assert record["config"]["schedule"] == "one_cycle" and record["config"]["eps"] == 1e-7
    assert record["config"]["lin_ftrs"] == "20,10" and "beta1" not in record["config"]
    refused = flow.run_here("train_clas", **corpus.flags("train_clas", "real2", schedule="one_cycle"), ratio=4)
    assert (refused.returncode, refused.stderr) == (
        2, "train_clas: error: --ratio shapes the schedule stlr, and that of this run is one_cycle; leave it out or "
           "choose --schedule=stlr\n")


@pytest.mark.parametrize("stage, groups", [
    (stage, ["Data", "Names", "Model", "Dropout", "Learning rates", *extra, "Training", "Optimizer and loss",
             "The run"]) for stage, extra in (("pretrain_lm", []), ("finetune_lm", ["Which layers train"]),
                                              ("train_clas", ["Which layers train"]))])
def test_help_groups(monkeypatch, stage, groups):
    monkeypatch.setenv("COLUMNS", "100")
    text = cli.help_text(getattr(importlib.import_module(stage), stage), f"{stage}.py")
    found = [line[:-1] for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert [name for name in found if name in groups] == groups
    entries = text[text.index("\nDropout:"):text.index("\nLearning rates:")]
    assert ("--dropout_head" in entries) == (stage == "train_clas") == ("--dropout_output" not in entries)


@pytest.mark.parametrize("lin_ftrs, sizes", [("50", [50]), ("100,50", [100, 50]), (" 7 , 8", [7, 8]), ("none", [])])
def test_hidden_layers(lin_ftrs, sizes):
    assert hyperparameters.hidden_layers(lin_ftrs) == sizes


@pytest.mark.parametrize("lin_ftrs", ["", "0", "-5", "5;6", "5.0", "5,,6", "[50]", "9" * 9, "²"])
def test_what_is_no_list_of_hidden_layers(lin_ftrs):
    with pytest.raises(UsageError, match="sizes of hidden layers are expected"):
        hyperparameters.hidden_layers(lin_ftrs)
