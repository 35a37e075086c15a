"""The benchmark's arithmetic, and that it measures ours and stock on the same work. No times are asserted."""

import csv
import json
import subprocess
import sys

import flow
import numpy as np
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "sweeps"))

import speed  # noqa: E402
import speed_measure  # noqa: E402
import speed_quality  # noqa: E402

MODEL = {"emb_sz": 6, "n_hid": 10, "n_layers": 2}
MADE_UP = {"words": 60, "length": 40, "documents": 12, "model": MODEL, "bs": 4, "threads": 1, "batches": 2}


@pytest.fixture
def measured(monkeypatch, capsys):
    """A work as the benchmark measures it, but in this process."""
    def run(work: str, whose: str, sizes: dict) -> dict:
        monkeypatch.setattr(sys, "argv", ["speed_measure.py", work, whose, json.dumps(sizes)])
        speed_measure.main()
        return json.loads(capsys.readouterr().out.splitlines()[-1])
    return run


@pytest.mark.parametrize("whose", ["ours", "stock"])
@pytest.mark.parametrize("work, more", [("lm", {}), ("clas", {}), ("clas", {"predict": True}), ("clas", {"unfrozen": False})])
def test_each_work_is_measured(measured, work, whose, more):
    found = measured(work, whose, {**MADE_UP, **more})
    assert found["rate"] > 0 and found["peak_memory_mb"] > 0
    assert found.get("tokens_a_document") == (MADE_UP["length"] if work == "clas" else None)


def test_ours_and_stock_make_the_same_tokens(measured, tmp_path):
    flow.write_csv(tmp_path / "train.csv", flow.labelled_rows(30, 0))
    sizes = {"data": str(tmp_path), "documents": 30, "workers": 1}
    # In a process of its own, as the benchmark calls it.
    done = subprocess.run([sys.executable, str(ROOT / "sweeps" / "speed_measure.py"), "tokens", "ours",
                           json.dumps(sizes)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours, stock = json.loads(done.stdout.splitlines()[-1]), measured("tokens", "stock", sizes)
    assert (ours["digest"], ours["tokens"]) == (stock["digest"], stock["tokens"])
    fewer = measured("tokens", "ours", {**sizes, "documents": 29})
    assert fewer["digest"] != ours["digest"]


def test_operations_of_a_token():
    # Layer 1: 4 gates of 10 units on 6 inputs and 10 states; layer 2: of 6 on 10 and 6; the decoder: 50 words of 6.
    weights = 4 * 10 * (6 + 10) + 4 * 6 * (10 + 6) + 50 * 6
    assert speed.gflop_a_token(MODEL, 50) == pytest.approx(6 * weights / 1e9)


@pytest.mark.parametrize("work, passes", [("clas small", 3), ("head small", 1), ("eval paper", 1)])
def test_operations_of_a_classifier(work, passes):
    made = entry(work, [10, 20], default=[30, 40])
    assert speed.gflops(made, 10, 50) is None  # measured before tokens were counted
    made["measured"]["stock"][0]["tokens_a_document"] = 300
    assert speed.gflops(made, 10, 50) == pytest.approx(10 * 300 * passes * speed.gflop_a_token(MODEL) / 3)
    assert speed.gflops(entry("tokens", [10]), 10, 50) is None


def entry(name: str, stock: list[float], **ours: list[float]) -> dict:
    def rows(rates: list[float]) -> list[dict]:
        return [{"rate": rate, "peak_memory_mb": 100 + number} for number, rate in enumerate(rates)]

    return {"name": name, "what": f"{name}, measured", "unit": "tokens/s", "sizes": {"model": MODEL},
            "measured": {"stock": rows(stock), **{label: rows(rates) for label, rates in ours.items()}}}


def test_ratios_are_those_of_the_same_round():
    stock, default = speed.summary(entry("clas small", [10, 20, 40], default=[30, 40, 200]), {"words": 9})
    assert stock["ratio"] == stock["lowest_ratio"] == stock["highest_ratio"] == 1
    # The ratio of the medians would be 2.
    assert (default["ratio"], default["lowest_ratio"], default["highest_ratio"]) == (3, 2, 5)
    assert (default["median"], default["lowest"], default["highest"], default["peak_memory_mb"]) == (40, 30, 200, 102)


@pytest.mark.parametrize("stem", ["speed", "speed-other"])
def test_tables_and_figure(tmp_path, monkeypatch, stem):
    monkeypatch.setenv("RESULTS", str(tmp_path / "results"))
    about = {"processor": "a processor", "threads": 2, "bfloat16": [], "torch": "1", "fastai": "2", "spacy": "3"}
    found = {"machine": about, "rounds": 3, "words": 30_009, "product": {"bf16": 2000.0, "full": 400.0},
             "works": [entry("lm small", [10, 20, 40], default=[30, 60, 100], sampled=[50, 100, 200]),
                       entry("help", [1], default=[10])],
             "growth": {what: [{"size": 10, "rate": 5.0}, {"size": 100, "rate": 4.0}]
                        for what in ("words in the vocabulary", "hidden size", "tokens of a document", "reviews")}}
    speed.write(found, stem)
    tables = tmp_path / "results" / "tables"
    assert json.loads((tables / f"{stem}.json").read_text()) == found
    rows = list(csv.DictReader((tables / f"{stem}.csv").read_text().splitlines()))
    assert [row["whose"] for row in rows] == ["stock", "ours, default", "ours, sampled", "stock", "ours, default"]
    assert float(rows[1]["ratio"]) == 3 and float(rows[0]["part_of_limit"]) == pytest.approx(
        20 * speed.gflop_a_token(MODEL, 30_009) / 400, rel=1e-4)
    assert "| lm small, measured | ours, default | 60 tokens | **3.0** (2.5 to 3.0) |" in (tables / f"{stem}.md").read_text()
    for suffix, begins in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        assert (tmp_path / "results" / "figures" / f"{stem}.{suffix}").read_bytes().startswith(begins)


def test_without_ids_it_says_what_to_run(tmp_path):
    done = subprocess.run([sys.executable, str(ROOT / "sweeps" / "speed.py"), "--data", str(tmp_path)],
                          capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"speed: {tmp_path} has no ids; run get_data, create_toks and tok2id --max_vocab=30000 first\n"


def test_labels_of_an_axis_do_not_touch():
    assert speed.apart([2733.0, 1056.0, 2751.0]) == [2751, 1056]
    assert speed.apart([100, 400, 1400]) == [1400, 400, 100]


def test_without_bfloat16_the_default_is_measured_once():
    labels = [{work.name: list(work.variants) for work in speed.works("data", 2, quick)} for quick in (True, False)]
    assert labels[0]["lm small"] == ["default", "full precision", "sampled"] and labels[0].keys() == labels[1].keys()
    assert labels[1]["lm small"] == ["default", "sampled"] and labels[1]["clas small"] == ["default"]


def test_a_name_that_is_no_files_is_refused():
    done = subprocess.run([sys.executable, str(ROOT / "sweeps" / "speed.py"), "--name", "../up"], capture_output=True,
                          text=True)
    assert done.returncode == 1 and done.stderr.startswith("speed: --name='../up': ")


def test_pretrained_classifiers_without_a_language_model_are_refused_at_once():
    done = subprocess.run([sys.executable, str(ROOT / "sweeps" / "speed_quality.py"), "--whose",
                           "stock pretrained classifier"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("speed_quality: pretrained classifiers need ")


@pytest.mark.parametrize("kind", ["classifier", "pretrained classifier"])
def test_quality_is_kept_a_row_a_model(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(speed_quality, "TABLE", tmp_path / "tables" / "quality.csv")
    monkeypatch.setattr(speed_quality, "WRONG", tmp_path / "tables" / "wrong.csv")
    ours, stock = f"{kind}, full precision", f"stock {kind}"
    generator = np.random.default_rng(0)
    wrong = {(whose, seed): generator.random(speed_quality.VAL_REVIEWS) < rate for seed in (0, 1)
             for whose, rate in ((ours, 0.13), (stock, 0.12))}
    for (whose, seed), of_one in [*wrong.items(), *wrong.items()]:
        speed_quality.keep({"whose": whose, "seed": seed, "tokens": 9, "error": 100 * of_one.mean(), "wrong": of_one})
    rows = speed_quality.kept(speed_quality.TABLE)
    assert [(row["whose"], row["seed"]) for row in rows] == [
        (whose, seed) for seed in "01" for whose in (stock, ours)]
    assert "wrong" not in rows[0]
    for (whose, seed), of_one in wrong.items():
        assert (speed_quality.wrong_reviews(whose, [str(seed)])[:, 0] == of_one).all()
    difference = 50 * sum(wrong[ours, seed].mean() - wrong[stock, seed].mean() for seed in (0, 1))
    shown = (tmp_path / "tables" / "quality.md").read_text()
    assert f"{ours} less {stock}, 2 seeds: {difference:+.2f} points, 95% interval" in shown
