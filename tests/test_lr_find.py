"""lr_find: the range test trains what the stage would train, and its suggestions are fastai's."""

import csv
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from fastai.callback.schedule import minimum, slide, steep, valley
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from torch import nn

import flow
from flow import ROOT, SIZES, SMALL
from ulmfit import lr_finder
from ulmfit.errors import UsageError, UserError

RUN = "imdb--lr_find--{kind}--fwd--word--{name}--all--s0"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A dataset with ids, a pretrained and a fine-tuned language model."""
    base = tmp_path_factory.mktemp("lr_find")
    where = {"results_dir": str(base / "results"), "quiet": True}
    for folder in (flow.write_corpus(base / "imdb"), flow.write_general_corpus(base / "wiki")):
        flow.call("create_toks", dir_path=str(folder), workers=1, n_lbls=0 if folder.name == "wiki" else 1, **where)
        flow.call("tok2id", dir_path=str(folder), **where)
    flow.call("pretrain_lm", dir_path=str(base / "wiki"), lr=0.01, **SIZES, **SMALL, **where)
    flow.call("finetune_lm", dir_path=str(base / "imdb"), pretrain_path=str(base / "wiki"), pretrain_id="wiki", cl=1,
              **SMALL, **where)
    return base


def where(data):
    return {"dir_path": str(data / "imdb"), "results_dir": str(data / "results"), "quiet": True}


def curve_of(data, kind, name="default"):
    with open(data / "results/runs" / RUN.format(kind=kind, name=name) / "lr_find.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}


def test_suggestions_are_those_of_fastais_own_function():
    torch.manual_seed(0)
    inputs = torch.randn(64, 3)
    targets = inputs @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.1 * torch.randn(64, 1)
    batches = [(inputs[i:i + 8], targets[i:i + 8]) for i in range(0, 64, 8)]
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    learn = Learner(DataLoaders(loader, loader), nn.Linear(3, 1), loss_func=nn.MSELoss())
    with learn.no_bar():
        expected = learn.lr_find(num_it=120, show_plot=False, suggest_funcs=(valley, steep, minimum, slide))
    curve = lr_finder.Curve(np.array(learn.recorder.lrs), np.zeros(1), np.array(learn.recorder.losses))
    found = lr_finder.suggestions(curve, 120)
    assert {name: pytest.approx(lr, rel=1e-5) for name, lr in expected._asdict().items()} == found
    assert len(set(found.values())) == 4

    # The loss is no number in the end: what comes before it counts.
    broken = lr_finder.Curve(*(np.append(values, [np.nan] * 30) for values in (curve.lrs, curve.losses,
                                                                               curve.smoothed)))
    assert lr_finder.suggestions(broken, 120).keys() == found.keys()
    few = lr_finder.Curve(*(values[:12 + 5 + 15] for values in (curve.lrs, curve.losses, curve.smoothed)))
    assert lr_finder.suggestions(few, 120) == {}


CONSTANT = {
    "lm": ("finetune_lm", {"pretrain_id": "wiki"}),
    "lm_one_rate": ("finetune_lm", {"pretrain_id": "wiki", "use_discriminative": False, "train_file_id": "some",
                                    "bs": 2, "clip": 0.05}),
    "lm_scratch": ("finetune_lm", {**SIZES, "backwards": True}),
    "clas": ("train_clas", {}),
    "clas_last": ("train_clas", {"last": True, "wd": 0.1, "lin_ftrs": "12,8"}),
    "clas_scratch": ("train_clas", {**SIZES, "from_scratch": True, "dropmult": 0.3}),
}


@pytest.mark.parametrize("variant", CONSTANT)
def test_at_a_constant_rate_it_is_the_training_itself(data, variant):
    """Two epochs of each, so that the batches of the second and the hidden state between them are covered."""
    stage, flags = CONSTANT[variant]
    kind, lr = variant.partition("_")[0], 0.03
    if "train_file_id" in flags:
        (data / "imdb/subsets").mkdir(exist_ok=True)
        rows = random.Random(0).sample([row for row in range(120) if row != flow.LONG_ROW], 60)
        validation = (data / "imdb/word/ids/val.documents.txt").read_text().split()
        (data / "imdb/subsets/some.txt").write_text(
            "".join(f"{row}\n" for row in sorted(rows) if f"train:{row}" not in validation))
    own = {"pretrain_path": str(data / "wiki")} if kind == "lm" and "scratch" not in variant else {}
    of_training = {"use_regular_schedule": True, "cl": 2, "lr": lr}
    if variant == "lm_scratch":
        of_training["preload"] = False
    if variant == "clas":
        of_training["startat"] = 2
    ids = {"lm_id": variant} if kind == "lm" else {"clas_id": variant}
    flow.call(stage, **where(data), **{**SMALL, **flags}, **own, **ids, **of_training)
    fields = f"{'bwd' if flags.get('backwards') else 'fwd'}--word--{variant}--{flags.get('train_file_id', 'all')}--s0"
    epochs = flow.epochs(data / "results", f"imdb--{stage}--{fields}")

    scratch = {"from_scratch": True} if "scratch" in variant else {}
    flow.call("lr_find", **where(data), **{**SMALL, **flags, **scratch}, **own, **ids, kind=kind, start_lr=lr,
              end_lr=lr * (1 + 1e-12), num_it=epochs[-1]["steps"], stop_div=False)
    with open(data / f"results/runs/imdb--lr_find--{kind}--{fields}/lr_find.csv", newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert len(losses) == epochs[1]["steps"] > epochs[0]["steps"]
    first, second = losses[:epochs[0]["steps"]], losses[epochs[0]["steps"]:]
    assert np.mean(first) == pytest.approx(epochs[0]["train_loss"], rel=1e-6)
    assert np.mean(second) == pytest.approx(epochs[1]["train_loss"], rel=1e-5)


def test_it_takes_fastais_weights_as_finetune_lm_does(data, tmp_path):
    flow.call("export", dir_path=str(data / "imdb"), to=str(tmp_path), export_id="elsewhere")
    flow.call("lr_find", **where(data), **SMALL, kind="lm", lm_id="foreign", pretrain_path=str(tmp_path),
              pretrain_id="elsewhere", num_it=40)
    record = flow.record(data / "results", RUN.format(kind="lm", name="foreign"))
    assert record["sizes"] == SIZES and len(record["inputs"]) == 3
    assert {given["run"] for role, given in record["inputs"].items() if role != "ids"} == {None}
    # The exported model is one that has learned a little of this very text.
    flow.call("lr_find", **where(data), **SMALL, **SIZES, kind="lm", lm_id="random", from_scratch=True, num_it=40)
    foreign, fresh = (curve_of(data, "lm", name)["loss"][0] for name in ("foreign", "random"))
    assert foreign < fresh - 0.01


def everything_in(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_from_the_command_line(data):
    flags = {**where(data), **SMALL, "kind": "lm", "lm_id": "line", "pretrain_path": data / "wiki",
             "pretrain_id": "wiki", "num_it": 60}
    before = everything_in(data / "imdb"), everything_in(data / "wiki")
    done = flow.run_stage("lr_find", **flags)
    assert done.returncode == 0, done.stderr
    # Neither weights nor anything else stays behind.
    assert before == (everything_in(data / "imdb"), everything_in(data / "wiki"))

    run = RUN.format(kind="lm", name="line")
    folder, record = data / "results/runs" / run, flow.record(data / "results", run)
    assert flow.files_of(folder) == ["log.txt", "lr_find.csv", "lr_find.png", "run.json"]
    image = (folder / "lr_find.png").read_bytes()
    assert image.startswith(b"\x89PNG") and len(image) < 100_000
    curve = curve_of(data, "lm", "line")
    updates = np.arange(len(curve["lr"]))
    assert curve["lr"] == pytest.approx(1e-7 * (10 / 1e-7) ** (updates / 60), rel=1e-9)
    mean, expected = 0.0, []
    for update, loss in enumerate(curve["loss"]):
        mean = 0.98 * mean + 0.02 * loss
        expected.append(mean / (1 - 0.98 ** (update + 1)))
    assert curve["smoothed_loss"] == pytest.approx(expected, rel=1e-5)
    assert record["status"] == "finished" and set(record["inputs"]) == {"ids", "pretrained"}
    metrics = record["metrics"]
    assert metrics["updates"] == len(updates)
    assert {metrics[name] for name in ("valley", "steep")} <= set(curve["lr"].tolist())
    said = f"--lr={metrics['valley']:.2g} by fastai's valley"
    assert said in done.stdout

    again = flow.run_here("lr_find", **flags)
    assert again.returncode == 0 and "already done" in again.stdout and said in again.stdout
    other = flow.run_here("lr_find", **{**flags, "num_it": 70})
    assert other.returncode == 1 and "num_it: 60 there, 70 asked" in other.stderr


def test_it_stops_when_the_loss_diverges_and_says_when_that_was_too_early(data):
    common = {**where(data), **SMALL, **SIZES, "kind": "lm", "from_scratch": True, "precision": "full"}
    flow.call("lr_find", **common, lm_id="stops", end_lr=1e7, num_it=100)
    curve = curve_of(data, "lm", "stops")
    assert len(curve["lr"]) < 100
    lowest = np.minimum.accumulate(curve["smoothed_loss"])
    over = curve["smoothed_loss"] > 4 * lowest
    assert over[-1] and not over[:-1].any()

    # Without that stop the losses end as no numbers; the record must hold some.
    flow.call("lr_find", **common, lm_id="on", end_lr=1e30, num_it=60, stop_div=False, clip=0)
    assert not np.isfinite(curve_of(data, "lm", "on")["smoothed_loss"][-1])
    metrics = flow.record(data / "results", RUN.format(kind="lm", name="on"))["metrics"]
    assert all(np.isfinite(value) for value in metrics.values())

    with pytest.raises(UserError, match="too early for a suggestion; lower --start_lr") as raised:
        flow.call("lr_find", **common, lm_id="early", start_lr=1e3, end_lr=1e4, num_it=100)
    assert "\n" not in str(raised.value)
    run = RUN.format(kind="lm", name="early")
    assert flow.record(data / "results", run)["status"] == "failed"
    assert {"lr_find.csv", "lr_find.png"} <= set(flow.files_of(data / "results/runs" / run))


@pytest.mark.parametrize("flags, message", [
    ({"start_lr": 0.1, "end_lr": 0.01}, "--end_lr=0.01 must be above --start_lr=0.1"),
    ({"kind": "lm", "last": True}, "--last is read by --kind=clas alone"),
    ({"kind": "lm", "lm_seed": 3}, "--lm_seed is read by --kind=clas alone"),
    ({"pretrain_id": "wiki"}, "--pretrain_id is read by --kind=lm alone"),
    ({"last": True, "from_scratch": True}, "--from_scratch trains every group"),
    ({"max_len": 10}, "--max_len=10 is less than one chunk"),
])
def test_what_contradicts_itself_is_refused(data, flags, message):
    with pytest.raises(UsageError, match=message):
        flow.call("lr_find", **where(data), **{**SMALL, **flags})


def test_without_the_model_it_names_the_command_that_makes_it(data):
    with pytest.raises(UserError, match="run first: python imdb_scripts/finetune_lm.py .*--lm_id=none.*--from_scratch"):
        flow.call("lr_find", **where(data), **SMALL, lm_id="none")
    with pytest.raises(UserError, match="run first: python imdb_scripts/pretrain_lm.py .*--pretrain_id=none"):
        flow.call("lr_find", **where(data), **SMALL, kind="lm", pretrain_path=str(data / "wiki"), pretrain_id="none")


def test_help_does_not_load_torch():
    done = subprocess.run([sys.executable, "-X", "importtime", "imdb_scripts/lr_find.py", "--help"], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0 and "--start_lr=1e-07" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "ulmfit.names" in imported and not imported & {"torch", "matplotlib", "fastai"}
