"""Tables from generated records: which runs make which row, the numbers in the cells, and what is refused."""

import csv
import json
import shutil
import subprocess
import sys

import analysis_speed
import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
from analysis import commands, comparison, rendering, statistics, study, tables
from analysis.collect import collect
from analysis.ensemble import ensemble
from analysis.paper import missing_rows, sections
from analysis.outcomes import Outcomes
from analysis.selection import select
from analysis.rendering import Cell, Grid
from conftest import ROOT
from flow import interpret
from made_records import Made, few_labels, hash_of, paper_tables
from ulmfit import predictions
from ulmfit.errors import UsageError, UserError
from ulmfit.records import Input


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Every run of Tables 4 to 7 and of Figure 3 on two datasets. Tests that change it take a copy."""
    made = Made(tmp_path_factory.mktemp("results"))
    paper_tables(made, "trec6", details=True)
    paper_tables(made, "imdb", seeds=(0, 1))
    few_labels(made, "imdb", seeds=(0, 1))
    return made


@pytest.fixture
def small(tmp_path):
    """Table 7's default and `last` rows, three seeds each."""
    made = Made(tmp_path / "results")
    made.corpus("trec6")
    pretrained = made.pretrained()
    for seed in range(3):
        model = made.language_model("trec6", pretrained, seed=seed)
        made.classifier("trec6", model, 5, "default", {}, seed)
        made.classifier("trec6", model, 12, "last", {"last": True, "use_discriminative": False, "lr": 0.001,
                                                     "use_regular_schedule": True, "early_stopping": True}, seed)
    return made


def frame_of(folder, name="table7", **flags):
    return tables.paper_table(study.load(folder), name, **flags)[0].frame


def line_of(frame, row, split="val", dataset="trec6"):
    [(_, line)] = frame[(frame["row"] == row) & (frame["split"] == split) & (frame["dataset"] == dataset)].iterrows()
    return line


def error_of(folder, run):
    with open(folder / "runs" / run / "predictions.csv", newline="") as file:
        header, *rows = csv.reader(file)
    classes = [name.removeprefix("p:") for name in header[2:]]
    predicted = [classes[int(np.argmax([float(p) for p in row[2:]]))] for row in rows]
    return 100 * (1 - sklearn.metrics.accuracy_score([row[1] for row in rows], predicted))


def refusal(call, *arguments, **flags):
    with pytest.raises(UserError) as error:
        call(*arguments, **flags)
    assert "\n" not in str(error.value)
    return str(error.value)


# -- rows --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, rows", [("table4", {"without pretraining": "random", "with pretraining": "default"}),
                                        ("table5", {"vanilla LM": "vanilla", "AWD-LSTM LM": "default"}),
                                        ("table6", {"no LM fine-tuning": "none", "full": "full",
                                                    "full + discr": "discr",
                                                    "full + discr + stlr": "default"}),
                                        ("table7", {"from scratch": "scratch", "full": "t7-full",
                                                    "full + discr": "t7-full-discr", "last": "t7-last",
                                                    "chain-thaw": "t7-thaw", "freez": "t7-freez",
                                                    "freez + discr": "t7-freez-discr", "freez + stlr": "t7-freez-stlr",
                                                    "freez + cos": "t7-freez-cos", "freez + discr + stlr": "default"})])
def test_each_row_holds_the_runs_of_its_flags_and_their_mean(whole, name, rows):
    frame = frame_of(whole.folder, name)
    assert list(frame[(frame["dataset"] == "trec6") & (frame["split"] == "val")]["row"]) == list(rows)
    for row, given in rows.items():
        runs = [f"trec6--train_clas--fwd--word--{given}--all--s{seed}" for seed in range(3)]
        line = line_of(frame, row)
        errors = [error_of(whole.folder, run) for run in runs]
        assert line["runs"].split() == runs and line["n_seeds"] == 3 and line["seeds"] == "0 1 2"
        assert line["error"] == pytest.approx(np.mean(errors)) and line["sd"] == pytest.approx(np.std(errors, ddof=1))
        assert line["low"] <= line["error"] <= line["high"]
        assert line["best"] == pytest.approx(np.mean([whole.records[run]["metrics"]["best"]["error"] for run in runs]))
        on_test = line_of(frame, row, "test")
        assert on_test["error"] == pytest.approx(np.mean([
            error_of(whole.folder, run.replace("train_clas", "eval_clas") + "--test") for run in runs]))


def test_the_papers_numbers_stand_beside(whole):
    frame = frame_of(whole.folder)
    assert line_of(frame, "last")["paper"] == 16.09 and line_of(frame, "last", dataset="imdb")["paper"] == 6.49
    assert np.isnan(line_of(frame, "last", "test")["paper"])  # the paper's is of val


def test_differences_are_paired_and_corrected(whole):
    frame = frame_of(whole.folder)
    runs, reference = (line_of(frame, row)["runs"].split() for row in ("last", "freez + discr + stlr"))
    line = line_of(frame, "last")
    assert line["difference"] == pytest.approx(np.mean([error_of(whole.folder, a) - error_of(whole.folder, b)
                                                        for a, b in zip(runs, reference)]))
    assert line["difference_low"] < line["difference"] < line["difference_high"]
    assert line["p_seeds_smallest"] == 0.25 and line["n_pairs"] == 3
    own = frame[(frame["dataset"] == "trec6") & (frame["split"] == "val")]
    assert (own["p_holm"].dropna() >= own["p"].dropna()).all() and own["p"].isna().sum() == 1


def test_few_labels(whole):
    made, shown = tables.low_shot(study.load(whole.folder))
    [curves] = shown
    assert list(curves.points) == ["ULMFiT, semi-supervised", "ULMFiT, supervised", "from scratch",
                                   "tf-idf, 1- to 2-grams"]
    assert curves.sizes() == [100, 500, 1000]  # the last are the runs on all labels
    lines = made.frame[(made.frame["n_labels"] == 100) & (made.frame["split"] == "val")].set_index("row")
    assert (lines["n_seeds"] == 2).all() and lines.loc["from scratch", "reference"]
    for row, error in (("ULMFiT, semi-supervised", 18), ("ULMFiT, supervised", 25), ("from scratch", 40)):
        assert lines.loc[row, "error"] == pytest.approx(error, abs=0.5)
    assert "missing" in made.markdown()  # no baseline was trained on all labels
    # First of all the sizes beside each other, on val and on test.
    assert [grid.title for grid in made.grids[:3]] == ["IMDb, val error in % by labels",
                                                       "IMDb, test error in % by labels", "IMDb, 100 labels"]
    tested = made.frame[(made.frame["n_labels"] == 500) & (made.frame["split"] == "test")].set_index("row")
    row = next(row for row in made.grids[1].rows if row[0].text == "from scratch")
    assert row[2].text.startswith(f"{tested.loc['from scratch', 'error']:.2f} ± ") and row[2].text.endswith("(n=2)")


def test_few_labels_without_pretraining_are_a_curve_of_their_own(small):
    random = small.language_model("trec6", None, "random", {"preload": False, "dropmult": 0.5,
                                                            "use_discriminative": False})
    named = "ULMFiT, semi-supervised, without pretraining"
    small.classifier("trec6", random, 9, "random", {"cl": 2})
    assert all(named not in curves.points for curves in tables.low_shot(study.load(small.folder))[1])
    for seed in range(2):
        subset = small.subset("trec6", 100, seed)
        small.classifier("trec6", random, 20, "random", {"cl": 2}, seed, subset=subset)
    [curves] = tables.low_shot(study.load(small.folder))[1]
    assert {labels: len(results) for labels, results in curves.points[named].items()} == {100: 2, 1000: 1}


def test_forward_and_backward_are_averaged_seed_by_seed(small):
    backward = small.pretrained(backwards=True)
    for seed in range(2):  # one seed less than forward
        model = small.language_model("trec6", backward, seed=seed, backwards=True)
        small.classifier("trec6", model, 6, "default", {}, seed, backwards=True)
    frame = tables.bidirectional(study.load(small.folder))[0].frame
    line = line_of(frame, "averaged", "test")
    assert line["n_seeds"] == 2 and line_of(frame, "forward", "test")["n_seeds"] == 3
    errors = []
    for seed in range(2):
        read = [predictions.read(small.folder / "runs" / f"trec6--eval_clas--{way}--word--default--all--s{seed}--test"
                                 / "predictions.csv") for way in ("fwd", "bwd")]
        errors.append(100 * np.mean((read[0].probabilities + read[1].probabilities).argmax(axis=1)
                                    != read[0].label_indices()))
    assert line["error"] == pytest.approx(np.mean(errors)) and line["n_pairs"] == 2


def test_words_beside_subwords(small):
    small.corpus("trec6", bpe=True)
    model = small.language_model("trec6", small.pretrained(bpe=True), bpe=True)
    small.classifier("trec6", model, 6, "default", {}, bpe=True)
    frame = tables.subword(study.load(small.folder))[0].frame
    assert line_of(frame, "subword, forward", "test")["n_seeds"] == 1
    assert line_of(frame, "word + subword, forward", "test")["n_seeds"] == 1
    assert line_of(frame, "all four", "test")["n_seeds"] == 0


def test_the_papers_orderings(whole):
    found = tables.agreement(study.load(whole.folder))
    frame = found.frame[(found.frame["table"] == "table7") & (found.frame["dataset"] == "trec6")]
    assert len(frame) == 44  # 45 pairs of ten rows, of which `full` and `freez` are equal in the paper
    line = frame[(frame["lower"] == "freez + discr + stlr") & (frame["higher"] == "last")].iloc[0]
    assert line["verdict"] == "holds" and line["low"] > 0 and line["paper"] == pytest.approx(10.40)
    line = frame[(frame["lower"] == "from scratch") & (frame["higher"] == "last")].iloc[0]
    assert line["verdict"] == ("holds" if line["low"] > 0 and line["p_holm"] < 0.05 else "undecided")


def test_a_star_needs_the_interval_and_the_corrected_test(whole):
    assert comparison.significant(0.1, 2.0, 0.01) and comparison.significant(-2.0, -0.1, 0.01)
    assert not comparison.significant(-0.1, 2.0, 0.01) and not comparison.significant(0.1, 2.0, 0.06)
    assert not comparison.significant(None, None, np.nan)
    product, _ = tables.paper_table(study.load(whole.folder), "table7")
    for frame, grid in zip(product.frames, product.grids):
        for row in grid.rows:
            line = frame[(frame["row"] == row[0].text) & (frame["split"] == "val")].iloc[0]
            wanted = line["p_holm"] < 0.05 and (line["difference_low"] > 0 or line["difference_high"] < 0)
            assert line["significant"] == wanted == ("*" in row[grid.heads.index("difference")].text)
    verdicts = tables.agreement(study.load(whole.folder)).frame
    decided = (verdicts["p_holm"] < 0.05) & ((verdicts["low"] > 0) | (verdicts["high"] < 0))
    assert (verdicts["verdict"].isin(["holds", "reversed"]) == decided).all() and decided.any() and not decided.all()


def test_p_values_of_a_curve_are_corrected_over_rows_and_sizes(whole):
    product, _ = tables.low_shot(study.load(whole.folder))
    on_val = product.frame[product.frame["split"] == "val"]
    corrected = statistics.holm(on_val["p"].tolist())
    assert on_val["p_holm"].tolist() == pytest.approx(corrected, nan_ok=True)
    assert on_val["p"].notna().sum() > 6 and "over the rows and numbers of labels" in product.markdown()


def test_all_labels_are_no_point_of_a_figure_where_the_baseline_alone_has_them(tmp_path):
    made = Made(tmp_path)
    made.corpus("trec6")
    model = made.language_model("trec6", made.pretrained())
    subset = made.subset("trec6", 100, 0)
    made.classifier("trec6", model, 20, subset=subset)
    made.baseline("trec6", 25, subset=subset)
    made.baseline("trec6", 8)
    [curves] = tables.low_shot(study.load(tmp_path))[1]
    assert curves.sizes() == [100] and list(curves.points) == ["ULMFiT, semi-supervised", "tf-idf, 1- to 2-grams"]
    made.classifier("trec6", model, 5)
    [curves] = tables.low_shot(study.load(tmp_path))[1]
    assert curves.sizes() == [100, 1000] and len(curves.points["tf-idf, 1- to 2-grams"][1000]) == 1


def test_what_the_curves_have_in_common_is_said_of_them_alone(whole):
    product, _ = tables.low_shot(study.load(whole.folder))
    [said] = [note for grid in product.grids if grid.title == "IMDb, 100 labels" for note in grid.notes]
    assert said.startswith("The same in every row of a neural network: ") and "emb_sz=16" in said and "cl=2" in said
    assert "lm." not in said  # from scratch has none
    assert "C is chosen on val" in product.markdown()


def test_a_baseline_of_one_seed_is_compared_with_every_seed(small):
    for split in ("val", "test"):
        small.baseline("trec6", 20, split=split)
    backward = small.pretrained(backwards=True)
    for seed in range(3):
        model = small.language_model("trec6", backward, seed=seed, backwards=True)
        small.classifier("trec6", model, 6, "default", {}, seed, backwards=True)
    product, _ = tables.tables2_3(study.load(small.folder))
    line, averaged = (line_of(product.frame, row, "test") for row in ("tf-idf, 1- to 2-grams", "ULMFiT, averaged"))
    assert line["n_seeds"] == 1 and line["n_pairs"] == 3
    assert line["difference"] == pytest.approx(line["error"] - averaged["error"])
    shutil.rmtree(small.folder / "runs" / "trec6--eval_clas--bwd--word--default--all--s1--test")
    product, _ = tables.tables2_3(study.load(small.folder))
    assert line_of(product.frame, "ULMFiT, forward", "test")["n_pairs"] == 2
    assert "(n=2)" in product.grids[0].rows[-3][product.grids[0].heads.index("difference")].text
    assert "best epoch" not in [head for grid in product.grids for head in grid.heads
                                if grid.rows[0][0].text.startswith("tf-idf")]


def test_epochs_that_were_run_and_the_best_of_them(small):
    small.save(LAST, progress={"epochs": 3, "of": 4})
    small.baseline("trec6", 20)
    found = study.load(small.folder)
    frame = frame_of(small.folder)
    assert line_of(frame, "last")["epochs"] == "3-4 of 4" and line_of(frame, "freez + discr + stlr")["epochs"] == "4"
    [baseline] = [result for result in found.results if result.run.stage == "train_baseline"]
    assert comparison.entry_of("tf-idf", [baseline], found.outcomes).best == {}


def test_a_folder_of_another_name_is_the_corpus_that_get_data_says(tmp_path):
    made = Made(tmp_path)
    made.run("get_data", "imdb30k--get_data", {"name": "imdb"}, {})
    made.corpus("imdb30k")
    for backwards in (False, True):
        model = made.language_model("imdb30k", None, "random", {"preload": False}, backwards=backwards)
        made.classifier("imdb30k", model, 8, "random", backwards=backwards)
    found = study.load(tmp_path)
    product, _ = tables.bidirectional(found)
    assert product.grids[0].title == "IMDb (imdb30k)" and "were pretrained, these were not" in product.markdown()
    assert line_of(product.frame, "averaged", "test", "imdb30k")["paper"] == 4.58
    orderings = tables.agreement(found).frame
    assert list(orderings[orderings["table"] == "bidirectional"]["lower"]) == ["averaged"]
    assert "ULMFiT without pretraining, averaged" in set(tables.tables2_3(found)[0].frame["row"])


def test_without_pretraining_nothing_is_missing_from_tables_2_and_3(tmp_path):
    """It is no row of the paper: Table 4 trains it forward, and has no run that the tables could ask for."""
    made = Made(tmp_path)
    made.corpus("imdb")
    made.classifier("imdb", made.language_model("imdb", None, "random", {"preload": False}), 8, "random")
    frame = tables.tables2_3(study.load(tmp_path))[0].frame
    ours = frame[frame["row"].str.startswith("ULMFiT")]
    assert set(ours["row"]) == {"ULMFiT without pretraining, forward"} and ours["reference"].all()


def test_averages_that_ensemble_made(small):
    runs = [f"trec6--eval_clas--fwd--word--{name}--all--s0--test" for name in ("default", "last")]
    assert "Missing" in tables.ensembles(study.load(small.folder)).markdown()
    ensemble(*runs, results_dir=str(small.folder), quiet=True)
    product = tables.ensembles(study.load(small.folder))
    [line] = product.frame.to_dict("records")
    assert line["members"].split() == runs
    assert line["gain"] == pytest.approx(np.mean([error_of(small.folder, run) for run in runs]) - line["error"])
    assert line["error"] == pytest.approx(error_of(small.folder, line["run"]))
    assert product.grids[0].rows[0][1].runs == (line["run"],)
    assert tables.ensembles(study.load(small.folder), "imdb").frame.empty


def test_rows_without_runs_are_named(small):
    small.baseline("trec6", 20, split="test")  # measured, if not on val
    found = study.load(small.folder)
    made = {section.product.name: missing_rows(section, None) for section in sections(found, small.folder / "figures")}
    assert made["tables2_3"] == ["TREC-6: ULMFiT, backward, ULMFiT, averaged"]
    assert any(line.startswith("TREC-6: from scratch, full, ") for line in made["table7"])
    assert made["agreement"] == made["ensembles"] == []
    small.classifier("trec6", None, 20, "scratch", {"from_scratch": True, "use_discriminative": False, "lr": 0.001,
                                                    "early_stopping": True}, subset=small.subset("trec6", 500, 0))
    small.baseline("trec6", 20, subset=small.subset("trec6", 100, 0))
    found = study.load(small.folder)
    [few] = [section for section in sections(found, small.folder / "figures") if section.product.name == "low_shot"]
    assert missing_rows(few, None) == ["TREC-6, 100 labels: from scratch", "TREC-6, 500 labels: tf-idf, 1- to 2-grams"]


# -- hard cases --------------------------------------------------------------------------------------------------------

def rewrite(made, run, change):
    """Reads a run's predictions, lets `change` edit the rows, writes them back."""
    path = made.folder / "runs" / run / "predictions.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *change(rows)]) + "\n")


LAST = "trec6--train_clas--fwd--word--last--all--s1"


def test_another_order_of_documents_changes_nothing(small):
    before = frame_of(small.folder)
    rewrite(small, LAST, lambda rows: rows[::-1])
    pd.testing.assert_frame_equal(before, frame_of(small.folder))


def test_another_document_is_refused(small):
    rewrite(small, LAST, lambda rows: [rows[0].replace("train:0,", "train:9999,"), *rows[1:]])
    said = refusal(frame_of, small.folder)
    assert LAST in said and "2 documents are in one of them only" in said


def test_another_label_is_refused(small):
    rewrite(small, LAST, lambda rows: [rows[0].replace("neg", "pos"), *rows[1:]])
    assert "1 labels differ, such as that of train:0" in refusal(frame_of, small.folder)


@pytest.mark.parametrize("change, complaint", [
    (lambda rows: [rows[0], *rows], "a document stands there twice"),
    (lambda rows: [], "and a row a document"),
    (lambda rows: [rows[0].replace("neg", ""), *rows[1:]], "the label of train:0 is unknown"),
    (lambda rows: [rows[0] + ",1", *rows[1:]], "not readable as csv"),
    (lambda rows: [rows[0].rpartition(",")[0] + ",much", *rows[1:]], "expected probabilities"),
    (lambda rows: [rows[0].rpartition(",")[0] + ",nan", *rows[1:]], "are not numbers")])
def test_broken_predictions_are_refused(small, change, complaint):
    for run in list(small.records):  # also the others, so that the documents are the same
        if "--train_clas--" in run:
            rewrite(small, run, change)
    assert complaint in refusal(frame_of, small.folder)


def test_a_class_that_val_lacks(tmp_path):
    made = Made(tmp_path, documents=60, classes=["a", "b", "c"])
    made.corpus("trec6")
    model = made.language_model("trec6", made.pretrained())
    run = made.classifier("trec6", model, 10)
    rewrite(made, run, lambda rows: [row for row in rows if ",c," not in row])
    line = line_of(frame_of(tmp_path), "freez + discr + stlr")
    assert line["error"] == pytest.approx(error_of(tmp_path, run))


def test_unbalanced_seeds_are_paired_where_both_have_them(small):
    shutil.rmtree(small.folder / "runs" / LAST)
    line = line_of(frame_of(small.folder), "last")
    assert (line["n_seeds"], line["n_pairs"], line["seeds"]) == (2, 2, "0 2")
    for seed in (0, 2):
        shutil.rmtree(small.folder / "runs" / f"trec6--train_clas--fwd--word--default--all--s{seed}")
    made, _ = tables.paper_table(study.load(small.folder), "table7")
    assert line_of(made.frame, "last")["n_pairs"] == 0 and "no seed in common" in made.markdown()


def test_seeds_of_the_language_model_tell_runs_of_one_seed_apart(small):
    model = small.language_model("trec6", "wiki--pretrain_lm--fwd--word--wiki--all--s0", seed=7)
    small.classifier("trec6", model, 20, "last7", {"last": True, "use_discriminative": False, "lr": 0.001,
                                                   "use_regular_schedule": True, "early_stopping": True}, seed=1)
    for seed in (0, 2):
        shutil.rmtree(small.folder / "runs" / f"trec6--train_clas--fwd--word--default--all--s{seed}")
    line = line_of(frame_of(small.folder), "last")
    assert line["n_seeds"] == 4 and line["n_pairs"] == 1
    assert line["difference"] == pytest.approx(error_of(small.folder, LAST)
                                               - error_of(small.folder, LAST.replace("last", "default")))


def test_missing_failed_and_stale_runs_are_told_apart(small):
    small.save(LAST, status="failed", error="RuntimeError: out of memory")
    small.save(LAST.replace("s1", "s2"), inputs={**small.records[LAST]["inputs"], "language_model": {
        "path": "x", "fingerprint": "0" * 16, "run": "trec6--finetune_lm--fwd--word--default--all--s2"}})
    made, _ = tables.paper_table(study.load(small.folder), "table7")
    line = line_of(made.frame, "last")
    assert line["n_seeds"] == 1 and "1 run failed" in line["note"]
    assert line_of(made.frame, "full")["n_seeds"] == 0 and "| full | missing |" in made.markdown()
    found = study.load(small.folder)
    stale = found.archive.stale(found.archive.get(LAST.replace("s1", "s2")))
    assert "trec6--finetune_lm--fwd--word--default--all--s2 was made anew since" in stale


def test_a_test_split_of_other_weights_is_not_counted(small):
    run = "trec6--eval_clas--fwd--word--last--all--s1--test"
    inputs = small.records[run]["inputs"]
    small.save(run, inputs={**inputs, "classifier": {**inputs["classifier"], "fingerprint": "0" * 16}})
    frame = frame_of(small.folder)
    assert line_of(frame, "last")["n_seeds"] == 3 and line_of(frame, "last", "test")["n_seeds"] == 2


def test_the_other_split_says_its_own_number_of_seeds(small):
    shutil.rmtree(small.folder / "runs" / "trec6--eval_clas--fwd--word--last--all--s1--test")
    made, _ = tables.paper_table(study.load(small.folder), "table7")
    line = line_of(made.frame, "last", "test")
    assert line["n_seeds"] == 2 and f"{line['error']:.2f} ± {line['sd']:.2f} (n=2)" in made.markdown()


def test_a_copy_beside_a_run_does_not_stand_for_it(small):
    before = frame_of(small.folder)
    copy = shutil.copytree(small.folder / "runs" / LAST, small.folder / "runs" / f"OLD-{LAST}")
    shutil.copyfile(small.folder / "runs" / LAST.replace("last", "default") / "predictions.csv",
                    copy / "predictions.csv")
    pd.testing.assert_frame_equal(before, frame_of(small.folder))
    assert f"OLD-{LAST} holds the record of {LAST}" in study.load(small.folder).left_out()[0]


def test_the_average_of_unbalanced_seeds_of_the_language_model(small):
    backward = small.pretrained(backwards=True)
    for seed in range(3):
        model = small.language_model("trec6", backward, seed=seed, backwards=True)
        small.classifier("trec6", model, 6, "default", {}, seed, backwards=True)
    # A second language model behind forward's first seed.
    model = small.language_model("trec6", "wiki--pretrain_lm--fwd--word--wiki--all--s0", seed=7)
    small.classifier("trec6", model, 20, "other", {}, seed=0)
    line = line_of(tables.bidirectional(study.load(small.folder))[0].frame, "averaged")
    assert (line["n_seeds"], line["n_pairs"]) == (3, 3)


def on_fastais_weights(made, pretrain_id, seed, name="default", directions=("fwd", "bwd"), version=""):
    """A classifier for each direction of fastai's weights, which are two files; version: of what lies in them."""
    for way in directions:
        backwards = way == "bwd"
        file = f"{pretrain_id}-{way}.tgz"
        model = made.language_model("trec6", Input(f"data/{file}", hash_of(file + version)), name, {
            "pretrain_path": "data", "pretrain_id": pretrain_id}, seed, backwards)
        made.classifier("trec6", model, 6, name, {}, seed, backwards)


def test_fastais_weights_of_two_names_are_never_averaged(tmp_path):
    made = Made(tmp_path)
    made.corpus("trec6")
    on_fastais_weights(made, "one", 0)
    on_fastais_weights(made, "one", 1)
    marks = {name: " & ".join(f"{hash_of(f'{name}-{way}.tgz')} ({said})"
                              for way, said in (("fwd", "forward"), ("bwd", "backward"))) for name in ("one", "two")}
    for make in (tables.bidirectional, tables.tables2_3):
        product, [block] = make(study.load(tmp_path))
        assert block.constant["pre.fingerprint"] == marks["one"] and product.grids[0].title == "TREC-6"
        assert any(f"pre.fingerprint={marks['one']}" in note for note in product.grids[0].notes)
    on_fastais_weights(made, "two", 0, "other")  # a seed that the first has too
    for make in (tables.bidirectional, tables.tables2_3):
        product, _ = make(study.load(tmp_path))
        assert [grid.title for grid in product.grids] == [f"TREC-6, pre.fingerprint={marks[name]}" for name in marks]
        for frame, name, seeds in zip(product.frames, ("default", "other"), ("0 1", "0")):
            lines = frame[(frame["split"] == "test") & (frame["n_seeds"] > 0)]
            assert list(lines["seeds"]) == [seeds] * 3 and lines["runs"].str.contains(f"--{name}--").all()
    # The same files under a third name are the same weights.
    on_fastais_weights(made, "two", 1, "other")
    for way in ("fwd", "bwd"):
        run = f"trec6--finetune_lm--{way}--word--other--all--s1"
        made.save(run, flags={**made.records[run]["flags"], "pretrain_id": "three"})
    lines = tables.bidirectional(study.load(tmp_path))[0].frame.query("split == 'test'")
    assert list(lines["seeds"]) == ["0 1"] * 6


def test_fastais_weights_that_changed_under_their_name_are_refused(tmp_path):
    made = Made(tmp_path)
    made.corpus("trec6")
    on_fastais_weights(made, "one", 0)
    on_fastais_weights(made, "one", 1, directions=("fwd",), version="2")
    for make in (tables.bidirectional, tables.tables2_3):
        said = refusal(make, study.load(tmp_path))
        assert all(f"trec6--train_clas--fwd--word--default--all--s{seed}" in said for seed in (0, 1))
        assert f"--where=pre.fingerprint={hash_of('one-fwd.tgz')}" in said
    frame = tables.tables2_3(study.load(tmp_path), where=f"pre.fingerprint={hash_of('one-fwd.tgz')}")[0].frame
    assert line_of(frame, "ULMFiT, forward", "test")["seeds"] == "0"
    assert line_of(frame, "ULMFiT, backward", "test")["n_seeds"] == 0


def test_a_condition_on_a_stage_leaves_in_what_has_no_such_stage(small):
    for seed in range(3):
        small.classifier("trec6", None, 15, "scratch", {"from_scratch": True, "use_discriminative": False, "lr": 0.001,
                                                        "early_stopping": True}, seed)
    cl = study.load(small.folder).results[0].value("lm.cl")
    frame = frame_of(small.folder, where=f"lm.cl={cl}")
    assert line_of(frame, "from scratch")["n_seeds"] == line_of(frame, "last")["n_seeds"] == 3
    assert "no run has these values" in refusal(frame_of, small.folder, where="lm.cl=99")
    assert "no run has these values" in refusal(frame_of, small.folder, where="lm.cl=99,lr=0.001")


def test_a_condition_on_a_classifiers_flag_leaves_the_baselines_in(small):
    for split in ("val", "test"):
        small.baseline("trec6", 20, split=split)
    found = study.load(small.folder)
    cl = next(result for result in found.results if result.run.stage == "train_clas").value("cl")
    frame = tables.tables2_3(found, where=f"cl={cl}")[0].frame
    assert line_of(frame, "tf-idf, 1- to 2-grams", "test")["n_seeds"] == 1
    pd.testing.assert_frame_equal(frame, tables.tables2_3(found)[0].frame)
    assert {result.run.stage for result in select(found, where="n_labels=None")} == {"train_clas", "train_baseline"}
    assert not any(result.run.stage == "train_baseline" for result in select(found, where="lr=0.001,seed=1"))
    assert "no run has these values" in refusal(select, found, where="cl=99")
    assert "no run has these values" in refusal(select, found, where="dataset=imdb")


def test_files_of_one_name_are_other_subsets(small):
    """A user's own file of rows, which was changed between two seeds."""
    def trained(seed, content):
        digest = hash_of(content)
        subset = "mine", Input("data/trec6/subsets/mine.txt", digest)
        model = small.language_model("trec6", small.pretrained(), "few", seed=seed, subset=subset)
        small.classifier("trec6", model, 20, seed=seed, subset=subset)
        small.baseline("trec6", 25, subset=subset, seed=seed)
        return digest[:8]

    def subsets(name):
        return {str(result.setting.get(name)) for result in study.load(small.folder).results}

    first = trained(0, "first")
    assert subsets("n_labels") == {"None", "mine"}
    second = trained(1, "second")
    assert subsets("n_labels") == {"None", f"mine ({first})", f"mine ({second})"}
    assert subsets("lm.n_labels") == {"None", "the same"}
    found = study.load(small.folder)
    made, _ = tables.ablation(found, "n_labels", where="last=False")
    lines = made.frame[made.frame["split"] == "val"].set_index("row")
    assert [lines.loc[f"n_labels=mine ({digits})", "n_seeds"] for digits in (first, second)] == [1, 1]
    assert len(select(found, where=f"n_labels=mine ({first})")) == 2


def test_a_record_older_than_a_flag_has_its_default(small):
    run = LAST.replace("last", "default")
    small.save(run, flags={name: value for name, value in small.records[run]["flags"].items() if name != "patience"})
    made, _ = tables.ablation(study.load(small.folder), "patience", where="last=False")
    assert list(made.frame["row"].unique()) == ["patience=6"]


def test_a_sweep_shows_what_failed(small):
    for seed in range(3):
        small.save(LAST.replace("s1", f"s{seed}"), status="failed", error="RuntimeError: out of memory")
    made, _ = tables.ablation(study.load(small.folder), "last")
    assert line_of(made.frame, "last=True")["n_seeds"] == 0
    assert line_of(made.frame, "last=True")["note"] == "3 runs failed"


def test_a_sweep_of_which_all_failed_is_a_block_too(small):
    small.corpus("imdb")
    run = small.classifier("imdb", small.language_model("imdb", "wiki--pretrain_lm--fwd--word--wiki--all--s0"), 9,
                           flags={"lr": 0.3})
    small.save(run, status="failed", error="RuntimeError: out of memory")
    made, blocks = tables.ablation(study.load(small.folder), "lr", where="last=False")
    assert [block.dataset for block in blocks] == ["imdb", "trec6"]
    line = line_of(made.frame, "lr=0.3", dataset="imdb")
    assert line["n_seeds"] == 0 and line["note"] == "1 run failed"


def test_what_nobody_knows_the_making_of_is_named(small):
    assert study.load(small.folder).left_out() == []
    shutil.rmtree(small.folder / "runs" / "trec6--finetune_lm--fwd--word--default--all--s1")
    [line] = study.load(small.folder).left_out()
    assert "2 classifiers, as trec6--train_clas--fwd--word--" in line
    assert "trec6--finetune_lm--fwd--word--default--all--s1" in line
    assert line_of(frame_of(small.folder), "last")["n_seeds"] == 2


def test_runs_on_all_labels_are_not_hidden_by_a_fuller_subset(small):
    subset = small.subset("trec6", 500, 0)
    model = small.language_model("trec6", "wiki--pretrain_lm--fwd--word--wiki--all--s0", "few", subset=subset)
    small.classifier("trec6", model, 20, "few", subset=subset)
    small.classifier("trec6", model, 20, "few-last", {"last": True, "use_discriminative": False, "lr": 0.001,
                                                      "use_regular_schedule": True, "early_stopping": True}, subset=subset)
    for seed in range(3):
        shutil.rmtree(small.folder / "runs" / LAST.replace("s1", f"s{seed}"))
    for seed in (1, 2):
        shutil.rmtree(small.folder / "runs" / LAST.replace("last", "default").replace("s1", f"s{seed}"))
    frame = frame_of(small.folder)
    assert frame["n_labels"].isna().all() and line_of(frame, "freez + discr + stlr")["n_seeds"] == 1
    made, _ = tables.paper_table(study.load(small.folder), "table7")
    assert "1 such set" in made.markdown()


def test_a_dataset_in_a_folder_of_another_name_is_no_missing_one(tmp_path):
    made = Made(tmp_path / "results")
    made.corpus("questions")
    made.run("get_data", "questions--get_data", {"name": "trec6"}, {}, splits={})
    made.classifier("questions", made.language_model("questions", made.pretrained()), 5)
    found = study.load(made.folder)
    [lines] = [missing_rows(section, None) for section in sections(found, made.folder / "figures")
               if section.product.name == "table7"]
    assert "TREC-6: no run" not in lines and "IMDb: no run" in lines


def test_the_papers_numbers_stand_beside_the_papers_rows_alone(small):
    model = small.language_model("trec6", small.pretrained(backwards=True), backwards=True)
    small.classifier("trec6", model, 6, backwards=True)
    assert line_of(frame_of(small.folder), "last")["paper"] > 0
    backward = frame_of(small.folder, backwards=True)
    assert line_of(backward, "freez + discr + stlr")["n_seeds"] == 1 and backward["paper"].isna().all()


def test_other_flags_make_a_table_of_their_own(small):
    for seed in range(3):
        model = f"trec6--finetune_lm--fwd--word--default--all--s{seed}"
        for name, flags in (("wide", {}), ("wide-last", {"last": True, "use_discriminative": False, "lr": 0.001,
                                                         "use_regular_schedule": True, "early_stopping": True})):
            small.classifier("trec6", model, 5, name, {"bs": 32, **flags}, seed)
    _, blocks = tables.paper_table(study.load(small.folder), "table7")
    assert len(blocks) == 1  # two of ten rows: only the fullest is shown
    _, blocks = tables.paper_table(study.load(small.folder), "table7", where="bs=32")
    assert blocks[0].constant["bs"] == 32 and {len(entry.wrong["val"]) for entry in blocks[0].entries} == {0, 3}


def test_runs_that_cannot_be_told_apart_are_refused(small):
    run = "trec6--train_clas--fwd--word--default--all--s0"
    folder = shutil.copytree(small.folder / "runs" / run, small.folder / "runs" / run.replace("default", "twin"))
    record = {**small.records[run], "id": folder.name}
    (folder / "run.json").write_text(json.dumps(record))
    assert line_of(frame_of(small.folder), "freez + discr + stlr")["n_seeds"] == 3  # one run under two names
    (folder / "run.json").write_text(json.dumps({**record, "fingerprint": "f" * 16}))
    assert "have the same flags and seeds, yet differ" in refusal(study.load, small.folder)


# -- ablation ----------------------------------------------------------------------------------------------------------

def test_a_sweep_of_ones_own(small):
    for seed in range(3):
        model = f"trec6--finetune_lm--fwd--word--default--all--s{seed}"
        for lr in (0.002, 0.02):
            small.classifier("trec6", model, 5 + 100 * lr, f"lr{lr}", {"lr": lr}, seed)
    found = study.load(small.folder)
    assert "--by=bs puts into one row differ in lr (0.001, 0.002, 0.01, 0.02)" in refusal(tables.ablation, found, "bs")
    made, _ = tables.ablation(found, "lr")  # each row has one setting, of which more than lr differs
    assert "From row to row these differ too: " in made.markdown() and "use_discriminative" in made.markdown()
    made, _ = tables.ablation(found, "lr", where="last=False")
    lines = made.frame[made.frame["split"] == "val"].set_index("row")
    assert list(lines.index) == ["lr=0.002", "lr=0.01", "lr=0.02"] and (lines["n_seeds"] == 3).all()
    assert lines.loc["lr=0.01", "reference"] and "emb_sz=16" in lines.loc["lr=0.01", "constant"]


def test_flags_that_do_not_exist_and_filters_that_are_none(small):
    found = study.load(small.folder)
    assert "dropout is a flag of none of these runs" in refusal(tables.ablation, found, "dropout")
    assert "nothing is a flag of none" in refusal(tables.ablation, found, "lr", where="nothing=1")
    with pytest.raises(UsageError, match="FLAG=VALUE"):
        tables.ablation(found, "lr", where="lr")
    with pytest.raises(UsageError, match="--by"):
        tables.ablation(found, "")


def test_figure_4_of_some_runs_leaves_the_others_where_it_is(small, capsys):
    commands.figure4(results_dir=str(small.folder))
    before = {path: path.read_bytes() for path in (small.folder / "figures").iterdir()}
    assert sorted(path.name for path in before) == ["epochs-trec6.pdf", "epochs-trec6.png"]
    commands.figure4(results_dir=str(small.folder), where="lm.seed=0")
    assert {path: path.read_bytes() for path in before} == before
    assert "/epochs-lm.seed-0-trec6.pdf, epochs-lm.seed-0-trec6.png" in capsys.readouterr().out


def test_many_conditions_fit_in_a_file_name(small, capsys):
    flags = study.load(small.folder).results[0].behind[""].record["flags"]
    where = ",".join(f"{name}={value}" for name, value in flags.items()
                     if name not in ("seed", "emb_sz", "n_hid", "n_layers") and isinstance(value, (bool, int, float)))
    assert len(where) > 255
    commands.ablation(by="lr", results_dir=str(small.folder), where=where)
    [written] = (small.folder / "tables").glob("ablation-lr-*.csv")
    assert len(written.name) < 110


# -- forms -------------------------------------------------------------------------------------------------------------

ODD = Grid("50% of R&D_#1 {x}~^\\", ("", "a|b"), ((Cell("<b>&\"'"), Cell("5.00 ± 0.10", True, ("a--b", "c"))),),
           ("中 $1",))


def test_every_form_escapes_its_own_signs():
    text = rendering.latex([ODD], "T_1", ["note & more"])
    assert r"50\% of R\&D\_\#1 \{x\}\textasciitilde{}\textasciicircum{}\textbackslash{}" in text
    assert r"\textbf{5.00 $\pm$ 0.10}" in text and "U+4E2D \\$1" in text and r"T\_1" in text
    assert rendering.latex_escape("-0.50 [-1, +2] a-b --where e-3") == r"$-$0.50 {[}$-$1, +2{]} a-b -{}-where e-3"
    page = rendering.html_table(ODD)
    assert "&lt;b&gt;&amp;&quot;&#x27;" in page and "<b>" not in page and 'href="#run-a--b"' in page
    assert r"a\|b" in rendering.markdown(ODD) and "**5.00 ± 0.10**" in rendering.markdown(ODD)


def test_all_forms_show_the_same_cells(whole, tmp_path):
    made, _ = tables.paper_table(study.load(whole.folder), "table7")
    markdown, _, latex = (path.read_text() for path in made.write(tmp_path))
    again = pd.read_csv(tmp_path / "table7.csv")
    assert list(again.columns) == list(made.frame.columns) and len(again) == len(made.frame)
    for row in made.grids[1].rows:
        line = line_of(again, row[0].text)
        assert row[1].text == f"{line['error']:.2f} ± {line['sd']:.2f}"
        assert row[1].text in markdown and row[1].text.replace("±", r"$\pm$") in latex
    assert "\n\n" in markdown and markdown.startswith("# Table 7")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex (texlive-latex-extra)")
def test_the_latex_compiles_as_it_stands(whole, tmp_path):
    found = study.load(whole.folder)
    made = [tables.paper_table(found, "table7")[0], tables.low_shot(found)[0], tables.subword(found)[0]]
    made[1].grids.append(ODD)
    for each in made:
        each.write(tmp_path)
        done = subprocess.run(["pdflatex", "-halt-on-error", "-interaction=nonstopmode", f"{each.name}.tex"],
                              cwd=tmp_path, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stdout[-2000:]
        assert (tmp_path / f"{each.name}.pdf").stat().st_size > 1000
    # And taken into a paper of two columns they fit.
    (tmp_path / "paper.tex").write_text("\n".join([
        r"\documentclass[twocolumn]{article}\usepackage[T1]{fontenc}\usepackage{standalone,booktabs,graphicx}",
        r"\begin{document}", *(rf"\input{{{each.name}}}" for each in (made[0], made[2])), r"\end{document}"]))
    done = subprocess.run(["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"], cwd=tmp_path,
                          capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and "Overfull" not in done.stdout, done.stdout[-2000:]


def test_commands_write_every_form_and_a_figure(whole, tmp_path):
    shutil.copytree(whole.folder / "runs", tmp_path / "runs")
    done = subprocess.run([sys.executable, "-m", "analysis", "table6", f"--results_dir={tmp_path}", "--dataset=trec6"],
                          cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "no LM fine-tuning" in done.stdout and "IMDb" not in done.stdout
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == [
        "table6-trec6.csv", "table6-trec6.md", "table6-trec6.tex"]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["table6-trec6.pdf", "table6-trec6.png"]
    # A table of some of the runs leaves the others' where it is.
    before = {path: path.read_bytes() for path in (tmp_path / "tables").iterdir()}
    done = interpret(["-m", "analysis", "table6", f"--results_dir={tmp_path}", "--where=lm.cl=15", "--quiet"])
    assert done.returncode == 0 and "/table6-lm.cl-15.md, table6-lm.cl-15.csv" in done.stdout
    assert {path: path.read_bytes() for path in before} == before
    for flags, said in ((["--where=x=1"], "x is a flag of none of these runs"),
                        (["--where=lm.cl=99"], "no run has these values; lm.cl is "),
                        (["--dataset=trec"], "no run is of it; there are runs of ")):
        done = interpret(["-m", "analysis", "table6", f"--results_dir={tmp_path}", *flags])
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and said in done.stderr
    assert len(select(study.load(tmp_path), where="lm.notrain=true")) > 0
    for command in (["check", "--match=typo"], ["report", "--match=typo"], ["report", "--dataset=trec"]):
        done = interpret(["-m", "analysis", *command, f"--results_dir={tmp_path}"])
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, command


def test_an_empty_folder_has_empty_tables(tmp_path):
    made, _ = tables.paper_table(study.load(tmp_path), "table7")
    assert "Missing: no run matches" in made.markdown() and made.frame.empty
    assert "Missing" in tables.agreement(study.load(tmp_path)).markdown()


# -- profiles that set what only some rows have ------------------------------------------------------------------------

def test_a_factor_on_the_dropouts_that_all_rows_share(tmp_path):
    """Only no dropout at all is Table 5's vanilla language model; two other factors are never averaged."""
    made = Made(tmp_path)
    made.corpus("imdb")
    for name, before, after, flags in (("default", 0.3, 0.7, {}), ("other", 0.3, 0.6, {}),
                                       ("vanilla", 0.0, 0.0, {"early_stopping": True})):
        model = made.language_model("imdb", made.pretrained({"dropmult": before}, name=name), name, {"dropmult": after})
        made.classifier("imdb", model, 6, name, {"cl": 5, **flags}, test=False)
    frame = frame_of(tmp_path, "table5")
    lines = frame[frame["n_seeds"] > 0]
    assert sorted(lines["row"]) == ["AWD-LSTM LM"] * 2 + ["vanilla LM"] * 2
    assert not any("pretrained otherwise" in note for note in lines["note"])
    runs = lines.groupby("constant")["runs"].apply(list)
    assert sorted(run.split("--")[4] for named in runs for run in named) == ["default", "other", "vanilla", "vanilla"]
    assert {"lm.dropmult=0.6" in constant for constant in runs.index} == {True, False}
    assert all("pre.dropmult=0.3" in constant for constant in runs.index)


def test_how_often_a_run_was_validated_makes_no_row(small):
    pretrained = small.pretrained()
    model = small.language_model("trec6", pretrained, "paced", {"val_every": 3}, seed=7)
    small.classifier("trec6", model, 9, "paced", {"val_every": 2}, 7)
    small.classifier("trec6", model, 9, "paced-last", {"last": True, "use_discriminative": False, "lr": 0.001,
                                                       "use_regular_schedule": True, "early_stopping": True,
                                                       "val_every": 2}, 7)
    lines = frame_of(small.folder).query("split == 'val' and n_seeds > 0")
    # One block; of each row the three seeds that are alike, the others not averaged in.
    assert dict(zip(lines["row"], lines["n_seeds"])) == {"last": 3, "freez + discr + stlr": 3}
    assert not lines["constant"].str.contains("val_every").any()


def test_a_profile_whose_flags_only_some_rows_read(tmp_path):
    """As the profile `paper`: STLR's constants and the unfreezing go to the rows that have them, the vanilla language
    model has a pretraining of its own."""
    made = Made(tmp_path)
    made.corpus("imdb")
    pretrained, vanilla = made.pretrained(), made.pretrained({"dropmult": 0.0, "cl": 3}, name="vanilla")
    lm = {"beta1": 0.7, "divisor": 2.6, "dropout_input": 0.4}
    clas, gradual, stlr = {"cl": 50, "beta1": 0.7}, {"unfreezing": "one_per_epoch"}, {"cut_frac": 0.1, "ratio": 32.0}
    flat, constant, stop = {"use_discriminative": False, "lr": 0.001}, {"use_regular_schedule": True}, {
        "early_stopping": True}
    model = made.language_model("imdb", pretrained, "paper", lm)
    rows = {"default": {**gradual, **stlr}, "scratch": {"from_scratch": True, **flat, **stop},
            "full": {"startat": 2, **flat, **constant, **stop}, "full_discr": {"startat": 2, **constant, **stop},
            "to_the_end": {"startat": 2, **flat, **constant},  # Figure 4's, which is not stopped early
            "last": {"last": True, **flat, **constant, **stop}, "chain_thaw": {"chain_thaw": True, **constant, **stop},
            "freez": {**gradual, **flat, **constant, **stop}, "freez_discr": {**gradual, **constant, **stop},
            "freez_stlr": {**gradual, **flat, **stlr, **stop},
            "freez_cos": {**gradual, **flat, "use_clr": False, **stop}}
    for name, flags in rows.items():
        made.classifier("imdb", None if name == "scratch" else model, 6, name, {**clas, **flags}, test=False)
    for name, source, flags, cl in (("none", pretrained, {"notrain": True}, 50),
                                    ("lm_full", pretrained, {"beta1": 0.7, "dropout_input": 0.4, **constant,
                                                             "use_discriminative": False}, 50),
                                    ("lm_discr", pretrained, {**lm, **constant}, 50),
                                    ("without", None, {"preload": False, **lm}, 50),
                                    ("vanilla", vanilla, {"dropmult": 0.0, "beta1": 0.7, "divisor": 2.6}, 5)):
        made.classifier("imdb", made.language_model("imdb", source, name, flags), 7, name,
                        {**clas, "cl": cl, **gradual, **stlr, **stop}, test=False)
    for name in ("table4", "table5", "table6", "table7"):
        frame = frame_of(tmp_path, name)
        assert (frame["n_seeds"] == 1).all() and len(frame) == len(tables.TABLES[name].rows), name
    assert line_of(frame_of(tmp_path, "table5"), "vanilla LM", dataset="imdb")["note"] == "pretrained otherwise: pre.cl"
    _, [block] = tables.paper_table(study.load(tmp_path), "table7")
    assert line_of(frame_of(tmp_path), "full", dataset="imdb")["runs"] == "imdb--train_clas--fwd--word--full--all--s0"
    assert {result.run.id.split("--")[4] for result in block.candidates["full"]} == {"full", "to_the_end"}


# -- many runs ---------------------------------------------------------------------------------------------------------

PLAIN = "document,label,p:a,p:b\n" + "".join(f"val:{row},{'ab'[row % 2]},0.7,0.3\n" for row in range(4))


@pytest.mark.parametrize("other", [
    PLAIN.replace("0.7", "0.2").replace("0.3", "0.8"), PLAIN.replace("0.7", "1").replace("0.3", "0"), PLAIN[:-1],
    PLAIN.replace("val:1,b", "\nval:1,b"), PLAIN.replace("\n", "\r\n"), PLAIN.replace("p:a,p:b", "p:b,p:a"),
    PLAIN.replace("a,p:b", "a,p:b,p:c").replace("0.3", "0.2,0.1"), PLAIN.replace("b,0.7", '"b",0.7'),
    PLAIN.replace(",b,", ',"b\nc",').replace("p:b", '"p:b\nc"'), PLAIN.replace("val:3,b,0.7,0.3\n", "")])
def test_files_read_together_are_read_as_one_by_one(tmp_path, other):
    folders = [tmp_path / name for name in ("first", "other", "last")]
    for folder, text in zip(folders, (PLAIN, other, PLAIN)):
        folder.mkdir()
        (folder / "predictions.csv").write_text(text, newline="")
    together, single = Outcomes(), Outcomes()
    together.prefetch(folders)
    for folder in folders:
        documents, wrong = single.wrong(folder)
        assert together.wrong(folder)[0] == documents
        np.testing.assert_array_equal(together.wrong(folder)[1], wrong)
    assert together.wrong(folders[0])[1].tolist() == [False, True] * 2


@pytest.mark.parametrize("broken, said", [
    (None, "there is no such file"), (PLAIN.replace("0.3", "much"), "expected probabilities in the columns"),
    (PLAIN.replace("val:1,b,0.7,0.3", "val:1,b,0.7,"), "some probabilities are not numbers"), ("", "is not readable as csv"),
    (PLAIN.replace("a,0.7", "a,0.7,0.1"), "is not readable as csv"), (PLAIN[:23], "and a row a document"),
    (PLAIN.replace("val:1", "val:0"), "a document stands there twice")])
def test_of_files_read_together_the_broken_one_is_named(tmp_path, broken, said):
    folders = [tmp_path / name for name in ("first", "other", "last")]
    for folder, text in zip(folders, (PLAIN, broken, PLAIN)):
        folder.mkdir()
        if text is not None:
            (folder / "predictions.csv").write_text(text)
    complaint = refusal(Outcomes().prefetch, folders)
    assert said in complaint and str(folders[1] / "predictions.csv") in complaint, complaint


@pytest.mark.slow
def test_thousands_of_runs_are_collected_and_tabled_rightly(tmp_path):
    """How long it takes is for analysis_speed.py to say."""
    made = analysis_speed.make(tmp_path, 3000, documents=20)
    collect(str(tmp_path), quiet=True)
    analysis_speed.table(tmp_path)
    frame = pd.read_parquet(tmp_path / "tables" / "runs.parquet").set_index("id")
    assert set(frame.index) == set(made.records) and len(frame) >= 3000 and (frame["state"] == "finished").all()
    errors = {}
    for run, record in made.records.items():
        if record["stage"] == "train_clas":
            assert frame.loc[run, "last.error"] == record["metrics"]["last"]["error"]
            lm = made.records[record["inputs"]["language_model"]["run"]]
            row = f"lr={record['flags']['lr']:g}, lm.lr={lm['flags']['lr']:g}"
            errors.setdefault((record["dataset"], row), []).append(record["metrics"]["last"]["error"])
    table = pd.read_csv(tmp_path / "tables" / "ablation.csv")
    found = table[table["split"] == "val"].set_index(["dataset", "row"])
    assert set(found.index) == set(errors) and (found["n_seeds"] == analysis_speed.SEEDS).all()
    assert (table.groupby("split").size() == len(errors)).all()
    for row, values in errors.items():
        assert found.loc[row, "error"] == pytest.approx(np.mean(values), abs=1e-3)
        assert found.loc[row, "sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-3)
