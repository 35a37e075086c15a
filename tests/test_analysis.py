"""The average of runs, and the table of them, on hand-made run folders and by command lines."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from analysis import ensemble as ensemble_module
from analysis import provenance
from analysis.archive import Run
from analysis.ensemble import Member, average, ensemble, ensemble_id
from conftest import ROOT
from flow import interpret
from made_records import Made
from statsmodels.stats.contingency_tables import mcnemar
from ulmfit import metrics, predictions
from ulmfit.errors import UserError
from ulmfit.predictions import Predictions

FWD, BWD = (f"toy--eval_clas--{way}--word--default--all--s0--test" for way in ("fwd", "bwd"))
DOCUMENTS, LABELS, CLASSES = ["test:0", "test:1", "test:2", "test:3"], ["a", "b", "b", "a"], ["a", "b"]
# By hand: fwd is wrong on test:1 and test:3, bwd on test:2, their average on test:3 alone.
P_FWD = np.array([[0.9, 0.1], [0.6, 0.4], [0.1, 0.9], [0.1, 0.9]])
P_BWD = np.array([[0.8, 0.2], [0.1, 0.9], [0.7, 0.3], [0.6, 0.4]])
P_MEAN = np.array([[0.85, 0.15], [0.35, 0.65], [0.4, 0.6], [0.35, 0.65]])


def make_run(results, run_id, probabilities=None, order=(0, 1, 2, 3), labels=LABELS, classes=CLASSES,
             documents=DOCUMENTS, **changes):
    folder = results / "runs" / run_id
    folder.mkdir(parents=True)
    dataset, stage = run_id.split("--")[:2]
    record = {"schema": 1, "id": run_id, "stage": stage, "stage_version": 1, "dataset": dataset, "status": "finished",
              "error": None, "fingerprint": f"{len(run_id):016x}",
              "command": f"python imdb_scripts/{stage}.py --seed=7", "config": {},
              "inputs": {}, "parents": [], "device": "cpu", "started": "2026-01-01T00:00:00+00:00",
              "wall_seconds": 90.0, "sessions": [{"host": socket.gethostname(), "pid": os.getpid()}],
              "split": "test", "metrics": {}, **changes}
    if probabilities is not None:
        predictions.write(folder / "predictions.csv", [documents[i] for i in order], [labels[i] for i in order],
                          probabilities[list(order)], classes)
        values = {"error": 25.0, "loss": 0.5}
        record["metrics"] = changes.get("metrics", {"last": values, "best": values})
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def analysis(*arguments):
    return interpret(["-m", "analysis", *arguments])


def refusal(*runs, **flags):
    with pytest.raises(UserError) as error:
        ensemble(*map(str, runs), **flags)
    assert "\n" not in str(error.value)
    return str(error.value)


def of_ensembles(results):
    return sorted(path for path in (results / "runs").iterdir() if "--ensemble--" in path.name)


# -- the average -------------------------------------------------------------------------------------------------------

def test_average_joins_on_document_id():
    order = [2, 0, 3, 1]
    fwd = Predictions(DOCUMENTS, LABELS, CLASSES, P_FWD)
    bwd = Predictions([DOCUMENTS[i] for i in order], [LABELS[i] for i in order], CLASSES, P_BWD[order])
    np.testing.assert_allclose(average([fwd, bwd]), P_MEAN)
    np.testing.assert_allclose(average([bwd, fwd]), P_MEAN[order])
    np.testing.assert_allclose(average([fwd, fwd, bwd]), (2 * P_FWD + P_BWD) / 3)


def test_command_averages_records_and_reports(tmp_path):
    make_run(tmp_path, FWD, P_FWD)
    make_run(tmp_path, BWD, P_BWD, order=(3, 1, 0, 2))
    done = analysis("ensemble", FWD, BWD, f"--results_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    [folder] = of_ensembles(tmp_path)
    assert folder.name.startswith("toy--ensemble--bwd+fwd--word--default--all--s0--test--")
    made = predictions.read(folder / "predictions.csv")
    np.testing.assert_allclose(made.probabilities[[made.documents.index(name) for name in DOCUMENTS]], P_MEAN)
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "finished" and record["split"] == "test" and record["parents"] == sorted((FWD, BWD))
    assert record["members"] == {FWD: 50.0, BWD: 25.0}
    assert (record["gain"], record["gain_over_best"]) == (12.5, 0.0)
    last = record["metrics"]["last"]
    assert last == record["metrics"]["best"] and last["n"] == 4
    labels = np.array([0, 1, 1, 0])
    assert last["error"] == 25.0
    assert last["loss"] == pytest.approx(-np.mean(np.log(P_MEAN[np.arange(4), labels])))
    assert last["macro_f1"] == pytest.approx(metrics.macro_f1(labels, P_MEAN))
    assert record["command"] == (f"python -m analysis ensemble {BWD} {FWD} --results_dir={tmp_path.name}")
    assert f"{FWD}    50.00" in done.stdout and "average of 2" in done.stdout
    assert "error 25.00% on 4 documents" in done.stdout and "+12.50 points" in done.stdout


def test_the_same_set_in_another_order_or_by_path_is_the_same_run(tmp_path, capsys):
    fwd, bwd = make_run(tmp_path, FWD, P_FWD), make_run(tmp_path, BWD, P_BWD)
    ensemble(FWD, BWD, results_dir=str(tmp_path))
    [folder] = of_ensembles(tmp_path)
    before = (folder / "run.json").read_bytes()
    capsys.readouterr()
    ensemble(f"{bwd}/", str(fwd), results_dir=str(tmp_path))
    assert of_ensembles(tmp_path) == [folder] and (folder / "run.json").read_bytes() == before
    out = capsys.readouterr().out
    assert "already done, reused" in out and "error 25.00%" in out


def test_other_members_are_another_run(tmp_path):
    for seed in range(3):
        make_run(tmp_path, FWD.replace("s0", f"s{seed}"), P_FWD)
        make_run(tmp_path, BWD.replace("s0", f"s{seed}"), P_BWD)
    two, other = (FWD, BWD.replace("s0", "s1")), (FWD.replace("s0", "s1"), BWD)
    for members in (two, other, (*two, *other)):
        ensemble(*members, results_dir=str(tmp_path), quiet=True)
    folders = of_ensembles(tmp_path)  # all three read bwd+fwd ... s0+s1
    assert len(folders) == 3 and all(json.loads((f / "run.json").read_text())["status"] == "finished" for f in folders)


def test_a_member_made_anew_makes_the_average_stale(tmp_path):
    make_run(tmp_path, FWD, P_FWD)
    folder = make_run(tmp_path, BWD, P_BWD)
    ensemble(FWD, BWD, results_dir=str(tmp_path))
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "fingerprint": "f" * 16}))
    assert "stale" in refusal(FWD, BWD, results_dir=str(tmp_path))
    ensemble(FWD, BWD, results_dir=str(tmp_path), overwrite=True)


def test_many_members_fit_in_a_file_name(tmp_path):
    runs = [FWD.replace("default", f"language-model-of-a-long-name-{number}") for number in range(12)]
    for run in runs:
        make_run(tmp_path, run, P_FWD)
    ensemble(*runs, results_dir=str(tmp_path), quiet=True)
    [folder] = of_ensembles(tmp_path)
    assert folder.name.startswith("toy--ensemble--12runs--test--")


@pytest.mark.parametrize("other, complaint", [
    (dict(documents=["test:0", "test:1", "test:2", "test:4"]), "2 documents are in one of them only, such as test:3"),
    (dict(labels=["a", "b", "a", "a"]), "the label of test:2 is 'a' there, 'b' here"),
    (dict(classes=["b", "a"]), "the classes are b, a there, a, b here"),
    (dict(dataset="other"), "the dataset is other there, toy here"),
    (dict(split="val"), "the split is val there, test here"),
    (dict(status="interrupted"), "is not finished (interrupted); ask for it again: python imdb_scripts/eval_clas.py"),
    (dict(stage="ensemble", parents=["x", "y"]), "is an average itself; name its members (x, y)"),
    (dict(split=None), "has no predictions"),
])
def test_what_cannot_be_averaged_is_refused(tmp_path, other, complaint):
    make_run(tmp_path, FWD, P_FWD)
    make_run(tmp_path, BWD, P_BWD, **other)
    said = refusal(FWD, BWD, results_dir=str(tmp_path))
    assert complaint in said and BWD in said
    assert not of_ensembles(tmp_path)


def test_other_refusals(tmp_path):
    make_run(tmp_path, FWD, P_FWD)
    make_run(tmp_path, BWD)
    results = {"results_dir": str(tmp_path)}
    assert "two runs or more, 1 given" in refusal(FWD, **results)
    assert "given twice" in refusal(FWD, tmp_path / "runs" / FWD, **results)
    assert "there is no run toy--nothing" in refusal(FWD, "toy--nothing", **results)
    assert "has no predictions" in refusal(FWD, BWD, **results)
    assert "holds no run.json" in refusal(FWD, tmp_path, **results)
    assert "there is no folder" in refusal(FWD, BWD, results_dir=str(tmp_path / "none"))
    for way in (FWD, BWD):
        make_run(tmp_path / "unlabelled", way, P_FWD, labels=["a", "", "b", "a"])
    assert "the label of test:1 is unknown" in refusal(FWD, BWD, results_dir=str(tmp_path / "unlabelled"))
    assert not of_ensembles(tmp_path)


def test_a_refusal_on_the_command_line_is_one_line(tmp_path):
    make_run(tmp_path, FWD, P_FWD)
    done = analysis("ensemble", FWD, "toy--nothing", f"--results_dir={tmp_path}")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "toy--nothing" in done.stderr
    assert analysis("ensemble", FWD, FWD, "--overwrit").returncode == 2


# -- the table ---------------------------------------------------------------------------------------------------------

def test_runs_shows_every_run_and_names_what_it_cannot_read(tmp_path):
    clas = make_run(tmp_path, "toy--train_clas--fwd--word--default--all--s0", P_FWD, split="val",
                    metrics={"last": {"error": 4.126, "loss": 1}, "best": {"error": 3.5, "loss": 1}})
    (clas / "metrics.jsonl").write_text('{"epoch": 0}\n{"epoch": 1}\n')
    make_run(tmp_path, "toy--finetune_lm--fwd--word--default--all--s0", device="cuda:0", split=None,
             started="2025-01-01T00:00:00+00:00",
             metrics={"last": {"perplexity": 61.23, "accuracy": 0.3}, "best": {"perplexity": 60.0, "accuracy": 0.3}})
    make_run(tmp_path, "toy--create_toks--word", status="failed", error="UserError: train.csv, row 7: no text")
    # a process id beyond any that Linux gives out
    make_run(tmp_path, "toy--tok2id--word", status="running",
             sessions=[{"host": socket.gethostname(), "pid": 2**22 + 1}])
    make_run(tmp_path, "far--tok2id--word", status="running", sessions=[{"host": "another machine", "pid": 2**22 + 1}])
    for name, content in (("cut", '{"id": "cu'), ("other", "{}"), ("list", "[]")):
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "run.json").write_text(content)
    (tmp_path / "runs" / "empty").mkdir()

    done = analysis("runs", f"--results_dir={tmp_path}")
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    cells = {line.split("  ")[0]: [cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines}
    assert cells["toy--train_clas--fwd--word--default--all--s0"][1:] == [
        "train_clas", "finished", "error % val", "4.13", "3.50", "2", "1.5", "cpu"]
    assert cells["toy--finetune_lm--fwd--word--default--all--s0"][1:] == [
        "finetune_lm", "finished", "perplexity val", "61.2", "60.0", "1.5", "cuda:0"]
    assert cells["toy--tok2id--word"][2] == "stopped" and cells["far--tok2id--word"][2] == "running"
    assert lines[1].startswith("toy--finetune_lm")  # the oldest first
    assert "failed: toy--create_toks--word: UserError: train.csv, row 7: no text" in lines
    unreadable = [line for line in lines if line.startswith("unreadable: ")]
    assert len(unreadable) == 4 and all(str(tmp_path / "runs") in line for line in unreadable)
    assert lines[-1] == "5 runs, 4 unreadable"

    def shown(*filters):
        done = analysis("runs", f"--results_dir={tmp_path}", *filters)
        return {line.split()[0] for line in done.stdout.splitlines() if line.startswith(("toy--", "far--"))}

    assert shown("--status=running") == shown("--dataset=far") == {"far--tok2id--word"}
    assert shown("--stage=tok2id") == {"toy--tok2id--word", "far--tok2id--word"}
    assert "--stage='train'" in analysis("runs", f"--results_dir={tmp_path}", "--stage=train").stderr


def test_runs_of_an_empty_folder(tmp_path):
    assert "no runs in" in analysis("runs", f"--results_dir={tmp_path}").stdout
    assert "there is no folder" in analysis("runs", f"--results_dir={tmp_path / 'none'}").stderr


def test_analysis_needs_no_torch():
    code = "import sys, analysis.__main__; sys.exit(bool({'torch', 'fastai', 'spacy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_id_of_an_average_with_a_baseline_puts_like_under_like():
    def member(run):
        return Member(run, Path(), {"dataset": "imdb", "split": "test"}, None)

    run = ensemble_id([member("imdb--eval_clas--fwd--word--default--all--s0--test"),
                       member("imdb--train_baseline--word--tfidf-2grams--all--s0--test")])
    assert run.startswith("imdb--ensemble--fwd--word--default+tfidf-2grams--all--s0--test--")


# -- weights, gain and its test ----------------------------------------------------------------------------------------

def test_weights_by_number_follow_their_run(tmp_path, capsys):
    make_run(tmp_path, FWD, P_FWD)
    make_run(tmp_path, BWD, P_BWD)
    for runs, weights in (((FWD, BWD), "3,1"), ((BWD, FWD), "1,3")):
        ensemble(*runs, results_dir=str(tmp_path), weights=weights)
    [folder] = of_ensembles(tmp_path)  # the same run, asked for in two ways
    np.testing.assert_allclose(predictions.read(folder / "predictions.csv").probabilities, (3 * P_FWD + P_BWD) / 4)
    record = json.loads((folder / "run.json").read_text())
    assert record["weights"] == [0.25, 0.75] and record["config"] == {"weights": "1,3"}  # in the order of the ids
    assert "already done" in capsys.readouterr().out
    ensemble(FWD, BWD, results_dir=str(tmp_path))
    assert len(of_ensembles(tmp_path)) == 2
    for weights in ("1", "1,-1", "0,0", "a,b", "1,nan"):
        assert "2 numbers of 0 or more" in refusal(FWD, BWD, results_dir=str(tmp_path), weights=weights)


def test_weights_are_chosen_on_validation_alone(tmp_path):
    made = Made(tmp_path, documents=300)
    made.corpus("toy")
    runs, on_val = [], []
    for name, error in (("good", 5), ("bad", 35)):
        clas = made.classifier("toy", None, error, name, {"from_scratch": True})
        runs.append(clas.replace("train_clas", "eval_clas") + "--test")
        on_val.append(clas)
    made.baseline("toy", 20)
    runs.append(made.baseline("toy", 20, split="test"))
    on_val.append(runs[-1].removesuffix("test") + "val")
    ensemble(*runs, results_dir=str(tmp_path), weights="val")
    [folder] = of_ensembles(tmp_path)
    record = json.loads((folder / "run.json").read_text())
    assert set(on_val) | set(runs) == set(record["parents"])
    shares = dict(zip(record["members"], record["weights"]))
    assert sum(shares.values()) == pytest.approx(1) and max(shares, key=shares.get) == runs[0]
    again = [ensemble_module._member(on_val[runs.index(run)], tmp_path) for run in shares]
    assert ensemble_module.weights_on_val(again) == pytest.approx(list(shares.values()))
    said = refusal(*on_val, results_dir=str(tmp_path), weights="val")
    assert "may not be chosen on what they are measured on" in said
    made.save(on_val[0], fingerprint="0" * 16)
    said = refusal(*runs, results_dir=str(tmp_path), weights="val", overwrite=True)
    assert f"{runs[0]} is stale ({on_val[0]} was made anew since)" in said


def test_the_gain_has_an_interval_and_mcnemars_test(tmp_path):
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=400)
    members = []
    for name in (FWD, BWD, FWD.replace("s0", "s1")):
        p = np.clip(labels + 0.7 * generator.standard_normal(400), 0.01, 0.99)
        make_run(tmp_path, name, np.column_stack([1 - p, p]), range(400), [CLASSES[label] for label in labels], CLASSES,
                 [f"test:{row}" for row in range(400)])
        members.append(ensemble_module._member(name, tmp_path))
    mean = average([member.predictions for member in members])
    found = ensemble_module.gain(members, mean)
    ours = mean.argmax(axis=1) != labels
    for member, row in zip(members, found.members):
        theirs = member.predictions.probabilities.argmax(axis=1) != labels
        assert row["error"] == pytest.approx(100 * theirs.mean())
        assert row["above"] == pytest.approx(100 * (theirs.mean() - ours.mean()))
        assert row["low"] <= row["above"] <= row["high"] and row["p_holm"] >= row["p"]
        table = [[0, int((theirs & ~ours).sum())], [int((~theirs & ours).sum()), 0]]
        assert row["p"] == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert found.interval.low <= found.mean <= found.interval.high
    assert found.best == pytest.approx(min(row["above"] for row in found.members))


@pytest.mark.parametrize("said, flags, expected", [
    ("pretrain_lm.py --bs=32", {"sampled": True}, "pretrain_lm.py --bs=32 --sampled=True"),
    ("pretrain_lm.py --sampled=True", {"sampled": True}, "pretrain_lm.py --sampled=True"),
    ("pretrain_lm.py --bs=32", {"sampled": False}, "pretrain_lm.py --bs=32"), ("pretrain_lm.py", {}, "pretrain_lm.py")])
def test_a_command_names_the_defaults_of_its_time(tmp_path, said, flags, expected):
    assert provenance.command(Run(tmp_path, {"stage": "pretrain_lm", "command": said, "flags": flags})) == expected
    assert provenance.command(Run(tmp_path, {"stage": "finetune_lm", "command": said, "flags": flags})) == said
