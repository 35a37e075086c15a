"""collect, diff, show and check, on generated records and on those of the real stages."""

import json
import shutil

import flow
import pandas as pd
import pytest
from analysis import archive, checks, difference, provenance
from analysis.ensemble import ensemble
from made_records import Made, few_labels
from ulmfit import corpus, text_hashes
from ulmfit.errors import UserError
from ulmfit.records import Input

CLAS = "imdb--train_clas--fwd--word--{}--100--s0"


@pytest.fixture
def made(tmp_path):
    results = Made(tmp_path / "results", documents=40)
    few_labels(results, "imdb", sizes=(100,), seeds=(0,))
    return results


def analysis(*arguments):
    return flow.interpret(["-m", "analysis", *arguments])


def test_collect_has_a_line_for_every_run(made, tmp_path):
    done = analysis("collect", f"--results_dir={made.folder}")
    assert done.returncode == 0, done.stderr
    frames = [pd.read_csv(made.folder / "tables" / "runs.csv", dtype={"id": str}),
              pd.read_parquet(made.folder / "tables" / "runs.parquet")]
    for frame in frames:
        assert set(frame["id"]) == set(made.records)
        line = frame.set_index("id").loc[CLAS.format("scratch")]
        record = made.records[CLAS.format("scratch")]
        assert line["last.error"] == pytest.approx(record["metrics"]["last"]["error"])
        assert line["config.lr"] == 0.001 and line["flag.use_clr"] in (True, "True") and line["state"] == "finished"
    assert len(frames[0].columns) == len(frames[1].columns)
    done = analysis("collect", f"--results_dir={made.folder}", f"--output={tmp_path / 'runs.xlsx'}")
    assert done.returncode == 1 and "must end with .csv or .parquet" in done.stderr


def test_diff_names_flags_inputs_and_what_lies_behind(made):
    runs = archive.load(made.folder)
    found = {(kind, name): (mine, theirs) for kind, name, mine, theirs in
             difference.differences(runs, runs.get(CLAS.format("own")), runs.get(CLAS.format("shared")))}
    assert found["flag", "lm_id"] == ("own", "shared") and ("input", "language_model") in found
    assert ("flag", "lr") not in found and ("input", "ids") not in found
    found = difference.differences(runs, runs.get(CLAS.format("own")), runs.get(CLAS.format("scratch")))
    assert ("flag", "from_scratch", "False", "True") in found
    assert difference.differences(runs, runs.get(CLAS.format("own")), runs.get(CLAS.format("own"))) == []
    made.save(CLAS.format("own"), versions={"torch": "9.9"})
    done = analysis("diff", CLAS.format("own"), made.folder / "runs" / CLAS.format("shared"),
                    f"--results_dir={made.folder}")
    assert done.returncode == 0 and "9.9" in done.stdout and "differences" in done.stdout


def test_diff_of_two_averages_goes_down_each_member(tmp_path):
    """Backward members differ in the flags of their classifiers and of all that these come from; forward ones are the
    same run."""
    made = Made(tmp_path, documents=40)
    made.corpus("imdb")
    runs = {}
    for name, backwards, pretrained, lm, clas in (("default", False, {}, {}, {}), ("default", True, {}, {}, {}),
                                                  ("small", True, {"lr": 0.1}, {"cl": 7}, {"wd": 0.5})):
        source = made.pretrained(pretrained, backwards, name=name)
        tuned = made.language_model("imdb", source, name, lm, backwards=backwards)
        trained = made.classifier("imdb", tuned, 5, name, clas, backwards=backwards)
        runs[name, backwards] = trained.replace("train_clas", "eval_clas") + "--test"
    forward = runs["default", False]
    for name in ("default", "small"):
        ensemble(forward, runs[name, True], results_dir=str(tmp_path), quiet=True)
    found = archive.load(tmp_path)
    first, second = (run for run in found if run.stage == "ensemble")
    lines = difference.differences(found, first, second)
    assert {line for line in lines if line[0].startswith(("flag", "run of"))} == {
        ("flag of member1 > classifier", "wd", "1e-06", "0.5"),
        ("flag of member1 > classifier > language_model", "cl", "25", "7"),
        ("flag of member1 > classifier > language_model > pretrained", "lr", "0.0003", "0.1")}
    assert [line[1] for line in lines if line[0] == "input"] == ["member1"]
    back = difference.differences(found, second, first)
    assert ("flag of member1 > classifier", "wd", "0.5", "1e-06") in back and len(back) == len(lines)


def test_diff_names_another_stage_or_corpus_behind(made):
    """Members of two kinds; the language models of a third corpus."""
    other = made.classifier("imdb", None, 9, "other", {"from_scratch": True})
    test = made.baseline("imdb", 9, split="test")
    for member in (other.replace("train_clas", "eval_clas") + "--test", test):
        ensemble(CLAS.format("own").replace("train_clas", "eval_clas") + "--test", member,
                 results_dir=str(made.folder), quiet=True)
    runs = archive.load(made.folder)
    lines = difference.differences(runs, *(run for run in runs if run.stage == "ensemble"))
    assert [line for line in lines if line[0].startswith("run of")] == [
        ("run of member2", "stage", "eval_clas", "train_baseline")]

    made.run("pretrain_lm", "news--pretrain_lm--fwd--word--news--all--s0", {}, {}, {"emb_sz": 16})
    model = CLAS.format("shared")
    source = made.language_model("imdb", "news--pretrain_lm--fwd--word--news--all--s0", "news")
    given = {**made.records[model]["inputs"], "language_model": made.input("data/x", source).as_json()}
    made.save(CLAS.format("own"), inputs=given)
    runs = archive.load(made.folder)
    lines = difference.differences(runs, runs.get(CLAS.format("own")), runs.get(model))
    assert ("run of language_model > pretrained", "dataset", "news", "wiki") in lines


def test_diff_takes_a_flag_that_came_later_at_its_default(made):
    """As it was in the first version of the stage, on either side; a flag that is no more shows as absent."""
    own, shared = CLAS.format("own"), CLAS.format("shared")
    flags = dict(made.records[own]["flags"])
    del flags["precision"], flags["patience"], flags["lr"]
    made.save(own, flags={**flags, "of_old": 3})
    made.save(shared, flags={**made.records[shared]["flags"], "patience": 9})
    runs = archive.load(made.folder)
    for pair in ((own, shared), (shared, own)):
        lines = [line for line in difference.differences(runs, *map(runs.get, pair)) if line[0] == "flag"]
        assert {line[1]: sorted(line[2:]) for line in lines} == {
            "lm_id": ["own", "shared"], "of_old": ["-", "3"], "patience": ["6", "9"]}

    wiki = next(run for run in made.records if "--pretrain_lm--" in run)
    exact = made.pretrained(name="exact")  # by today's default
    assert made.records[wiki]["config"].pop("sampled") is False
    made.save(wiki, flags={})
    runs = archive.load(made.folder)
    lines = difference.differences(runs, runs.get(wiki), runs.get(exact))
    assert [line for line in lines if line[1] == "sampled"] == [("flag", "sampled", "True", "False")]


def test_show_goes_down_to_the_csv(made):
    runs = archive.load(made.folder)
    run = runs.get("imdb--eval_clas--fwd--word--own--100--s0--test")
    order = [each.id for each in provenance.chain(runs, run)]
    for child in order:
        for parent in made.records[child]["parents"]:
            assert order.index(parent) < order.index(child)
    assert order[-1] == run.id and "wiki--create_toks--word" in order
    paths = dict(provenance.outside(runs, provenance.chain(runs, run)))
    assert set(paths) == {"data/imdb/train.csv", "data/wiki/train.csv", "data/imdb/subsets/100.txt"}
    commands = provenance.commands(runs, provenance.chain(runs, run))
    stages = [command.split("/")[1].split(".")[0] for command in commands]
    assert stages.index("tok2id") < stages.index("sample_train") < stages.index("finetune_lm") < stages.index(
        "train_clas") < stages.index("eval_clas")
    done = analysis("show", run.id, f"--results_dir={made.folder}")
    assert done.returncode == 0 and made.records[run.id]["command"].strip() in done.stdout
    assert "0" * 40 in done.stdout and "data/imdb/train.csv" in done.stdout
    shutil.rmtree(made.folder / "runs" / "wiki--create_toks--word")
    assert "its record is not here" in analysis("show", run.id, f"--results_dir={made.folder}").stdout
    done = analysis("show", "nothing", f"--results_dir={made.folder}")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1


def test_show_names_what_fetched_weights_of_another_folder(tmp_path):
    made = Made(tmp_path)
    made.corpus("imdb")
    made.run("get_data", "wt103--get_data", {"name": "wt103", "dir_path": "data/wt103"}, {})
    model = made.language_model("imdb", None)
    given = made.records[model]["inputs"]
    made.save(model, inputs={**given, "pretrained": {"path": "data/wt103/wt103-fwd.tgz", "fingerprint": "12", "run": None}})
    runs = archive.load(tmp_path)
    assert "get_data.py" in provenance.commands(runs, provenance.chain(runs, runs.get(model)))[0]


def tokens_of_subwords(made, dataset, model, **given):
    """create_toks --bpe by the sentencepiece model of wiki, or that trains it."""
    inputs = {"train": Input(f"data/{dataset}/train.csv", "ab" * 8)}
    if given:
        inputs["sp_model"] = Input("data/wiki/bpe/tokens/spm.model", model[:16], **given)
    made.run("create_toks", f"{dataset}--create_toks--bpe", {"bpe": True, "dir_path": f"data/{dataset}"}, inputs,
             sp_model_sha256=model)


@pytest.mark.parametrize("recorded", [None, "wiki--create_toks--bpe"])
def test_what_trained_a_sentencepiece_model_comes_before_what_is_cut_by_it(tmp_path, recorded):
    """Earlier versions recorded the model as a file of the user's."""
    made, model = Made(tmp_path), "12" * 32
    tokens_of_subwords(made, "aaa", model)  # happens to have trained the same
    tokens_of_subwords(made, "wiki", model)
    tokens_of_subwords(made, "imdb", model, run=recorded)
    runs = archive.load(tmp_path)
    members = provenance.chain(runs, runs.get("imdb--create_toks--bpe"))
    assert [run.id for run in members] == ["wiki--create_toks--bpe", "imdb--create_toks--bpe"]
    assert [command.split()[2] for command in provenance.commands(runs, members)] == [
        "--dir_path=data/wiki", "--dir_path=data/imdb"]
    assert [path for path, _ in provenance.outside(runs, members)] == ["data/wiki/train.csv", "data/imdb/train.csv"]
    assert problems(tmp_path) == []

    made.save("wiki--create_toks--bpe", sp_model_sha256="34" * 32)
    runs = archive.load(tmp_path)
    said = runs.stale(runs.get("imdb--create_toks--bpe"))
    if recorded:
        assert said == "wiki--create_toks--bpe was made anew since"
    else:  # which run it was is known by the model alone
        assert said is None and runs.parents(runs.get("imdb--create_toks--bpe")) == [runs.get("aaa--create_toks--bpe")]
    del made.records["wiki--create_toks--bpe"]["sp_model_sha256"]  # while it is being made again
    made.save("wiki--create_toks--bpe")
    runs = archive.load(tmp_path)
    assert runs.stale(runs.get("imdb--create_toks--bpe")) is None


# -- check -------------------------------------------------------------------------------------------------------------

def problems(folder):
    runs = archive.load(folder)
    return [(run, what) for kind, run, what in checks.findings(runs, list(runs)) if kind == checks.PROBLEM]


def test_records_as_the_stages_leave_them_hold(made):
    assert problems(made.folder) == []
    assert analysis("check", f"--results_dir={made.folder}", "--quiet").returncode == 0


def swapped(lines):
    """One document's probabilities the other way round: one more or one less is wrong."""
    document, label, *values = lines[1].split(",")
    return [lines[0], ",".join([document, label, *values[::-1]]), *lines[2:]]


@pytest.mark.parametrize("change, complaint", [
    (swapped, "its predictions give error"),
    (lambda lines: lines[:-1], "has predictions of 39 documents; val has 40"),
    (lambda lines: [lines[0].replace("p:neg,p:pos", "p:pos,p:neg"), *lines[1:]], "of the classes pos, neg"),
    (lambda lines: [*lines, lines[-1]], "stands in an earlier line too"),
    (lambda lines: [lines[0], lines[1].replace("0.7", "0.9"), *lines[2:]], "sum to 1")])
def test_predictions_that_do_not_fit_their_record(made, change, complaint):
    path = made.folder / "runs" / CLAS.format("own") / "predictions.csv"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    found = problems(made.folder)
    assert found and {run for run, _ in found} == {CLAS.format("own")} and any(complaint in what for _, what in found)


def test_edited_records_and_inputs_made_anew(made):
    run = CLAS.format("own")
    made.save(run, config={**made.records[run]["config"], "cl": 3})
    assert (run, "its fingerprint is not that of its flags and inputs: the record was edited") in problems(made.folder)
    done = analysis("check", f"--results_dir={made.folder}", f"--match={run}")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "problem: " + run in done.stdout
    made.save("imdb--tok2id--word", fingerprint="0" * 16)
    stale = {name for name, what in problems(made.folder) if "stale: imdb--tok2id--word was made anew since" in what}
    assert run in stale and "imdb--eval_clas--fwd--word--own--100--s0--test" in {
        name for name, what in problems(made.folder) if "stale" in what}


def test_predictions_of_weights_that_were_made_again(made):
    run = CLAS.format("own")
    evaluation = run.replace("train_clas", "eval_clas") + "--test"
    made.save(run, weights_sha256="ab" * 32)
    given = made.records[evaluation]["inputs"]
    made.save(evaluation, inputs={**given, "classifier": {**given["classifier"], "content": "weights:" + "ab" * 8}})
    assert not [what for name, what in problems(made.folder) if name == evaluation]
    made.save(run, weights_sha256="cd" * 32)
    assert [what for name, what in problems(made.folder) if name == evaluation] == [
        f"stale: {run} was made anew since, with other digits"]
    del made.records[run]["weights_sha256"]  # while it is being made again
    made.save(run)
    assert not [what for name, what in problems(made.folder) if name == evaluation and "digits" in what]


def of_best(made, which, **changed):
    """CLAS's record with other numbers at its best or last epoch."""
    metrics = made.records[CLAS.format("own")]["metrics"]
    made.save(CLAS.format("own"), metrics={**metrics, which: {**metrics[which], **changed}})


@pytest.mark.parametrize("tamper, complaint", [
    (lambda made: of_best(made, "best", error=1.23), "the best epoch of its metrics.jsonl has error"),
    (lambda made: of_best(made, "best", epoch=1), "the best epoch of its metrics.jsonl has epoch 3, its record says 1"),
    (lambda made: of_best(made, "last", val_loss=0.1), "the last epoch of its metrics.jsonl has val_loss"),
    (lambda made: made.save(CLAS.format("own"), metrics={"last": made.records[CLAS.format("own")]["metrics"]["last"]}),
     "the best epoch of its metrics.jsonl has epoch 3, its record says None"),
    (lambda made: (made.folder / "runs" / CLAS.format("own") / "metrics.jsonl").unlink(),
     "its metrics.jsonl holds no epoch with a validation")])
def test_best_and_last_epoch_are_those_of_the_log(made, tamper, complaint):
    tamper(made)
    found = problems(made.folder)
    assert {run for run, _ in found} == {CLAS.format("own")} and any(complaint in what for _, what in found), found


def test_the_best_epoch_is_the_first_with_the_lowest_loss_and_may_be_the_last_to_count(made):
    run = made.classifier("imdb", None, 9, "stopped", {"from_scratch": True, "early_stopping": True})
    best = made.records[run]["metrics"]["best"]
    worse = {**best, "epoch": 5, "val_loss": best["val_loss"] + 1, "error": 50.0}
    unvalidated = {"epoch": 4, "phase": "all", "steps": 1, "train_loss": 0.1, "seconds": 1.0}  # --val_every
    made.epochs(run, [{**worse, "epoch": 0}, best, {**best, "epoch": 7}, unvalidated, worse])
    assert problems(made.folder) == []
    made.save(run, metrics={"best": best, "last": worse})
    assert any("the last epoch of its metrics.jsonl has epoch 3, its record says 5" in what
               for _, what in problems(made.folder))
    made.save(run, metrics={"best": {**best, "epoch": 7}, "last": best})
    assert problems(made.folder) == [(run, "the best epoch of its metrics.jsonl has epoch 3, its record says 7")]


def test_an_evaluations_best_numbers_are_its_last(made):
    run = "imdb--eval_clas--fwd--word--own--100--s0--test"
    scores = made.records[run]["metrics"]["last"]
    made.save(run, metrics={"last": scores, "best": {**scores, "error": 1.23}})
    assert problems(made.folder) == [(run, "trains nothing, yet its best numbers are not its last")]


@pytest.fixture
def averaged(made):
    """(results, id of an average of two members, how to rewrite its record)."""
    members = [f"imdb--eval_clas--fwd--word--{name}--100--s0--test" for name in ("own", "scratch")]
    ensemble(*members, results_dir=str(made.folder), weights="3,1", quiet=True)
    [run] = (run for run in archive.load(made.folder) if run.stage == "ensemble")
    made.records[run.id] = run.record
    return made, run.id, members


def test_an_average_put_in_by_hand_is_found(averaged):
    """One member's predictions and metrics under the average's name, and a gain to match."""
    made, run, members = averaged
    assert problems(made.folder) == []
    worst = members[1]
    original = made.records[run]
    shutil.copyfile(made.folder / "runs" / worst / "predictions.csv", made.folder / "runs" / run / "predictions.csv")
    made.save(run, metrics=made.records[worst]["metrics"], gain=99.0, members={**original["members"], worst: 99.0})
    found = [what for name, what in problems(made.folder) if name == run]
    assert any("its predictions are not the average of its members', as of test:" in what for what in found)
    assert any(what.startswith("its members' predictions give gain ") and what.endswith("its record says 99.0")
               for what in found)
    assert "its members' predictions give other `members` than its record says" in found


@pytest.mark.parametrize("name, change", [
    ("gain", lambda value: value + 1), ("gain_over_best", lambda value: value + 1),
    ("gain_interval", lambda value: [value[0], value[1] + 1]), ("p_over_best", lambda value: value / 2),
    ("members", lambda value: dict.fromkeys(value, 1.0)),
    ("comparisons", lambda value: [value[0], {**value[1], "above": 0.0}]),
    ("weights", lambda value: value[::-1])])
def test_a_number_of_an_average_that_was_edited(averaged, name, change):
    made, run, _ = averaged
    made.save(run, **{name: change(made.records[run][name])})
    [(where, what)] = problems(made.folder)
    assert where == run and name in what


def test_an_average_in_another_order_or_of_members_that_are_gone(averaged):
    made, run, members = averaged
    path = made.folder / "runs" / run / "predictions.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *rows[::-1]]) + "\n")
    assert problems(made.folder) == [(run, f"its documents or labels are not those of {members[0]}, its first member")]
    shutil.rmtree(made.folder / "runs" / members[0])
    assert problems(made.folder) == []
    assert f"note: {run}: the record of its member1, {members[0]}, is not here" in analysis(
        "check", f"--results_dir={made.folder}").stdout


def test_an_evaluation_without_confusion_or_with_another(made):
    run = "imdb--eval_clas--fwd--word--own--100--s0--test"
    made.save(run, confusion=[[20, 0], [0, 20]])
    assert (run, "its predictions give another confusion matrix than its record") in problems(made.folder)


def write_hashes(folder, rows):
    with text_hashes.writing(folder / text_hashes.FILE) as write:
        for split, document, text in rows:
            write(split, document, corpus.text_hash([text]))


def test_texts_in_two_splits_are_counted_again(made):
    run = "imdb--create_toks--word"
    rows = [("train", f"train:{row + 100}", f"text {row}") for row in range(1000)]
    rows += [("val", f"train:{row}", f"val {row}") for row in range(40)]
    rows += [("test", f"test:{row}", "text 7" if row < 3 else f"test {row}") for row in range(40)]
    write_hashes(made.folder / "runs" / run, rows)
    assert [what for name, what in problems(made.folder) if name == run] == [
        "its hashes give 3 texts of test in train, its record says 0"]
    made.save(run, duplicates={"val in train": 0, "test in train": 3, "test in val": 0})
    assert problems(made.folder) == []
    assert "note: imdb--create_toks--word: 3 texts of test are also in train" in analysis(
        "check", f"--results_dir={made.folder}").stdout

    write_hashes(made.folder / "runs" / run, [*rows[1:], ("train", "train:5", "other")])  # a val document
    said = [what for name, what in problems(made.folder) if name == run]
    assert said == ["1 documents are in two splits, such as train:5"]
    write_hashes(made.folder / "runs" / run, [row for row in rows if row[1] != "train:5"])
    said = problems(made.folder)
    assert any("1 documents are only among its predictions or only in val, such as train:5" in what for _, what in said)
    (made.folder / "runs" / run / text_hashes.FILE).write_bytes(b"\x1f\x8b broken")
    assert any("is not readable" in what for _, what in problems(made.folder))


def test_the_file_of_hashes_is_the_same_bytes_again(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_hashes(tmp_path / name, [("val", "train:1", "x, y"), ("train", "train:0", "z")])
    first, second = ((tmp_path / name / text_hashes.FILE).read_bytes() for name in ("a", "b"))
    assert first == second
    assert text_hashes.read(tmp_path / "a" / text_hashes.FILE) == [
        ("val", "train:1", corpus.text_hash(["x, y"])[:12]), ("train", "train:0", corpus.text_hash(["z"])[:12])]
    (tmp_path / "a" / text_hashes.FILE).write_bytes(b"plain")
    with pytest.raises(UserError, match="not readable"):
        text_hashes.read(tmp_path / "a" / text_hashes.FILE)


def test_the_real_stages_leave_records_that_hold(tmp_path):
    """Tokens, ids, a classifier and a baseline by the real commands; then check, show and the tables."""
    _, where = flow.make_ids(tmp_path)
    results = tmp_path / "results"
    flow.call("train_clas", **where, **flow.SIZES, **flow.SMALL, cl=1, from_scratch=True, lr=0.01, quiet=True)
    flow.call("eval_clas", **where, split="test", bs=8, threads=1, cuda_id=-1, quiet=True)
    flow.call("train_baseline", **where, quiet=True)
    assert problems(results) == []
    tokens = next((results / "runs").glob("*--create_toks--word"))
    recorded = json.loads((tokens / "run.json").read_text())
    documents = {}
    for row in text_hashes.read(tokens / text_hashes.FILE):
        documents.setdefault(row.split, {})[row.document] = row.hash
    assert checks.duplicates(documents) == recorded["duplicates"]
    assert {split: len(own) for split, own in documents.items()} == {
        split: stated["documents"] for split, stated in recorded["splits"].items()}
    assert flow.MARK not in (tokens / text_hashes.FILE).read_bytes().decode("latin-1")
    runs = archive.load(results)
    run = next(run for run in runs if run.stage == "eval_clas")
    assert [each.stage for each in provenance.chain(runs, run)] == ["create_toks", "tok2id", "train_clas", "eval_clas"]
    done = analysis("ablation", "--by=from_scratch", f"--results_dir={results}")
    assert done.returncode == 0 and "from_scratch=True" in done.stdout, done.stderr
