"""The linear baselines: formulas by brute force, pipelines beside scikit-learn's own, the stage on files."""

import math
import random
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline

import flow
from flow import CLASSES
from ulmfit import baseline, files, metrics, names, predictions, vocab
from ulmfit.errors import UsageError, UserError
from ulmfit.names import DataFolder
from ulmfit.predictions import Predictions
from ulmfit.tokens import read_tokens

RUN = "imdb--train_baseline--word--{}--{}--s0--{}"
TFIDF_VAL, TFIDF_TEST = (RUN.format("tfidf-2grams", "all", split) for split in ("val", "test"))


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[Path, Path]:
    """(the tiny corpus with tokens and ids, the records), each baseline trained, tf-idf by the command line."""
    base = tmp_path_factory.mktemp("baseline")
    data, results = base / "imdb", base / "results"
    # A third of the labels is wrong: without any error every C would be the best.
    flow.write_corpus(data)
    noise = random.Random(4)
    for split, count, seed in (("train", 300, 0), ("test", 60, 1)):
        rows = flow.labelled_rows(count, seed)
        flow.write_csv(data / f"{split}.csv", [[noise.choice(CLASSES) if noise.random() < 0.33 else label, text]
                                               for label, text in rows])
    for stage, flags in (("create_toks", {"workers": 1}), ("tok2id", {})):
        flow.call(stage, dir_path=str(data), results_dir=str(results), quiet=True, **flags)
    done = flow.run_stage("train_baseline", dir_path=data, results_dir=results)
    assert done.returncode == 0, done.stderr
    assert "val error" in done.stdout and not done.stderr
    call((data, results), split="test")
    call((data, results), model="nbsvm")
    return data, results


def call(world: tuple[Path, Path], **flags) -> None:
    flow.call("train_baseline", **{"dir_path": str(world[0]), "results_dir": str(world[1]), **flags})


def read_predictions(world: tuple[Path, Path], run: str) -> Predictions:
    return predictions.read(names.run_folder(world[1], run) / "predictions.csv")


def raw(world: tuple[Path, Path], split: str) -> tuple[list[str], np.ndarray]:
    """The joined tokens and the labels of a split."""
    return ([" ".join(tokens) for tokens in read_tokens(world[0] / f"word/tokens/{split}.txt")],
            vocab.load_ids(world[0] / "word/ids", split).labels)


def sparse(dense: np.ndarray) -> object:
    """As a sparse matrix with the same columns."""
    return DictVectorizer().fit_transform([{f"{column:02}": value for column, value in enumerate(row)}
                                           for row in dense])


def pipeline(c: float) -> object:
    """tf-idf with logistic regression as scikit-learn's users write it, on tokens joined by spaces."""
    return make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, lowercase=False, token_pattern=r"[^ ]+"),
        OneVsRestClassifier(LogisticRegression(C=c, solver="liblinear", dual=True, max_iter=1000, random_state=0)))


# -- formulas ----------------------------------------------------------------------------------------------------------

def test_log_count_ratio_is_its_formula():
    documents = ["good good fun".split(), "good plot".split(), "bad plot".split(), "bad bad bad fun".split(), []]
    positive = np.array([True, True, False, False, False])
    vectors = baseline.vectorizer("nbsvm", 2, len(documents))
    present = vectors.fit_transform(documents)
    assert set(present.data) == {1.0}  # "good good" and "bad bad bad" count once
    ngrams = {"good": (2, 0), "fun": (1, 1), "plot": (1, 1), "bad": (0, 2), "good good": (1, 0), "good fun": (1, 0),
              "good plot": (1, 0), "bad plot": (0, 1), "bad bad": (0, 1), "bad fun": (0, 1)}
    assert set(vectors.vocabulary_) == set(ngrams)
    for alpha in (1.0, 0.5):
        total_p, total_q = (sum(alpha + counts[side] for counts in ngrams.values()) for side in (0, 1))
        found = baseline.log_count_ratio(present, positive, alpha)
        for ngram, (p, q) in ngrams.items():
            expected = math.log(((alpha + p) / total_p) / ((alpha + q) / total_q))
            assert found[vectors.vocabulary_[ngram]] == pytest.approx(expected)


def test_weighted_multiplies_columns():
    features = sparse(np.array([[1.0, 0, 2], [0, 3, 0], [0, 0, 0]]))
    np.testing.assert_array_equal(baseline.weighted(features, np.array([2.0, -1, 0.5])).toarray(),
                                  [[2, 0, 1], [0, -3, 0], [0, 0, 0]])
    np.testing.assert_array_equal(features.toarray(), [[1, 0, 2], [0, 3, 0], [0, 0, 0]])


@pytest.mark.parametrize("n_classes", [2, 3])
def test_nbsvm_is_a_logistic_regression_a_class_on_ratios(n_classes):
    generator = np.random.default_rng(0)
    labels = np.arange(60) % n_classes
    dense = (generator.random((60, 12)) < 0.3 + 0.4 * (np.arange(12) % n_classes == labels[:, None])).astype(float)
    found = baseline.classifier("nbsvm", 1.0, 0).fit(sparse(dense), labels).predict_proba(sparse(dense))
    columns = []
    for label in range(n_classes) if n_classes > 2 else (1,):
        p, q = (1 + dense[labels == label].sum(0), 1 + dense[labels != label].sum(0))
        scaled = dense * np.log((p / p.sum()) / (q / q.sum()))
        # Another solver on the same problem: liblinear regularises the intercept as one more weight of a constant 1.
        wide = np.hstack([scaled, np.ones((60, 1))])
        model = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-8, max_iter=5000).fit(wide, labels == label)
        columns.append(model.predict_proba(wide)[:, 1])
    expected = np.stack(columns if n_classes > 2 else [1 - columns[0], columns[0]], 1)
    np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), atol=2e-3)


def test_ngrams_do_not_run_together_and_rare_ones_go_when_there_are_enough_documents():
    documents = [["a", "b"], ["a b", "c"], ["Ab", ",", "ab"]]  # tokens keep case, marks and one letter
    one = baseline.vectorizer("tfidf", 2, 99).fit(documents[::2])
    assert set(one.vocabulary_) == {"a", "b", "a b", "Ab", ",", "ab", "Ab ,", ", ab"}
    assert set(baseline.vectorizer("tfidf", 1, 100).fit([["a", "b"], ["a"]]).vocabulary_) == {"a"}
    assert set(baseline.vectorizer("nbsvm", 1, 100).fit([["a", "b"], ["a"]]).vocabulary_) == {"a", "b"}


# -- the stage ---------------------------------------------------------------------------------------------------------

def test_tfidf_is_scikit_learns_pipeline_with_the_c_that_val_prefers(world):
    texts, labels = raw(world, "train")
    val_texts, val_labels = raw(world, "val")
    record = flow.record(world[1], TFIDF_VAL)
    errors = {c: metrics.error_percent(val_labels, pipeline(c).fit(texts, labels).predict_proba(val_texts))
              for c in baseline.C_GRID}
    assert {tried["C"]: tried["val_error"] for tried in record["grid"]} == pytest.approx(errors)
    assert len(set(errors.values())) > 2
    best = min(errors, key=lambda c: (errors[c], c))
    assert record["C"] == best and record["metrics"]["last"]["error"] == pytest.approx(errors[best])
    for run, some_texts in ((TFIDF_VAL, val_texts), (TFIDF_TEST, raw(world, "test")[0])):
        expected = pipeline(best).fit(texts, labels).predict_proba(some_texts)
        np.testing.assert_allclose(read_predictions(world, run).probabilities, expected, atol=1e-5)


def test_the_test_run_has_its_c_from_val_and_predicts_test_alone(world):
    val, test = (flow.record(world[1], run) for run in (TFIDF_VAL, TFIDF_TEST))
    assert (test["C"], test["grid"]) == (val["C"], val["grid"])
    assert (val["split"], test["split"]) == ("val", "test")
    found = read_predictions(world, TFIDF_TEST)
    assert found.documents == [f"test:{row}" for row in range(60)]
    assert test["metrics"]["last"] == test["metrics"]["best"]
    expected = metrics.classification(found.label_indices(), found.probabilities)
    assert test["metrics"]["last"] == pytest.approx(expected, rel=1e-4)
    assert np.array(test["confusion"]).sum() == 60
    assert np.trace(test["confusion"]) == pytest.approx(60 * (1 - expected["error"] / 100))


def test_val_is_evaluated_without_the_test_split(world, tmp_path):
    for split in ("train", "val"):
        for kind, suffixes in (("tokens", (".txt",)), ("ids", (".ids.npy", ".offsets.npy", ".labels.npy",
                                                               ".documents.txt"))):
            for suffix in suffixes:
                target = tmp_path / "imdb/word" / kind / f"{split}{suffix}"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes((world[0] / "word" / kind / f"{split}{suffix}").read_bytes())
    for kind in ("tokens", "ids"):
        made = files.read_json(world[0] / "word" / kind / "manifest.json")
        there = {path.name for path in (tmp_path / "imdb/word" / kind).iterdir()}
        files.write_json(tmp_path / "imdb/word" / kind / "manifest.json",
                         {**made, "files": {name: size for name, size in made["files"].items() if name in there}})
    call((tmp_path / "imdb", tmp_path / "results"))
    same = names.run_folder(tmp_path / "results", TFIDF_VAL) / "predictions.csv"
    assert same.read_bytes() == (names.run_folder(world[1], TFIDF_VAL) / "predictions.csv").read_bytes()
    with pytest.raises(UserError, match="has no test documents"):
        call((tmp_path / "imdb", tmp_path / "results"), split="test")


def test_runs_tell_their_model_subset_and_ngrams_apart(world, capsys):
    call(world, ngrams=1)
    flow.call("sample_train", dir_path=str(world[0]), results_dir=str(world[1]), n=60, quiet=True)
    call(world, train_file_id="60", model="nbsvm", split="test")
    runs = {RUN.format(model, subset, split) for model, subset, split in (
        ("tfidf-2grams", "all", "val"), ("tfidf-1grams", "all", "val"), ("nbsvm-3grams", "all", "val"),
        ("nbsvm-3grams", "60", "test"))}
    records = {run: flow.record(world[1], run) for run in runs}
    assert len({record["fingerprint"] for record in records.values()}) == 4
    assert all(record["status"] == "finished" and len(record["grid"]) == len(baseline.C_GRID)
               for record in records.values())
    assert records[RUN.format("tfidf-1grams", "all", "val")]["n_features"] < records[TFIDF_VAL]["n_features"]
    assert set(records[RUN.format("nbsvm-3grams", "60", "test")]["inputs"]) == {"tokens", "subset"}
    capsys.readouterr()
    call(world, ngrams=2)  # the default, typed
    assert "reused" in capsys.readouterr().out


def test_a_subset_is_all_that_is_learned_from(world):
    data, results = world
    train = vocab.load_ids(data / "word/ids", "train")
    numbers = np.concatenate([np.flatnonzero(train.labels == label)[:15] for label in range(3)])
    (data / "subsets").mkdir(exist_ok=True)
    (data / "subsets/few.txt").write_text(
        "".join(f"{train.document_ids[number].split(':')[1]}\n" for number in numbers), encoding="utf-8")
    call(world, train_file_id="few", ngrams=1)
    texts, labels = raw(world, "train")
    numbers.sort()
    vectors = TfidfVectorizer(sublinear_tf=True, lowercase=False, token_pattern=r"[^ ]+")
    model = OneVsRestClassifier(LogisticRegression(
        C=flow.record(results, RUN.format("tfidf-1grams", "few", "val"))["C"], solver="liblinear", dual=True,
        max_iter=1000, random_state=0)).fit(vectors.fit_transform([texts[i] for i in numbers]), labels[numbers])
    np.testing.assert_allclose(read_predictions(world, RUN.format("tfidf-1grams", "few", "val")).probabilities,
                               model.predict_proba(vectors.transform(raw(world, "val")[0])), atol=1e-5)


def test_the_same_command_gives_the_same_bytes(world, tmp_path):
    call((world[0], tmp_path), model="nbsvm", quiet=True)
    run = RUN.format("nbsvm-3grams", "all", "val")
    again, first = (names.run_folder(results, run) / "predictions.csv" for results in (tmp_path, world[1]))
    assert again.read_bytes() == first.read_bytes()


def test_another_vocabulary_is_the_same_run(world, capsys):
    flow.call("tok2id", dir_path=str(world[0]), results_dir=str(world[1]), max_vocab=20, overwrite=True, quiet=True)
    capsys.readouterr()
    call(world)
    assert "reused" in capsys.readouterr().out


def test_it_stands_in_an_ensemble_and_a_table_with_a_classifier(world):
    data, results = world
    flow.call("train_clas", dir_path=str(data), results_dir=str(results), from_scratch=True, quiet=True, **flow.SIZES,
              **flow.SMALL)
    classifier = "imdb--train_clas--fwd--word--default--all--s0"
    done = flow.run_here("ensemble", classifier, TFIDF_VAL, results_dir=results)
    assert done.returncode == 0, done.stderr
    [made] = (results / "runs").glob("imdb--ensemble--*")
    average, first, second = (read_predictions(world, run) for run in (made.name, classifier, TFIDF_VAL))
    assert first.documents == second.documents == average.documents and first.labels == second.labels
    np.testing.assert_allclose(average.probabilities, (first.probabilities + second.probabilities) / 2, atol=1e-5)
    table = flow.run_here("runs", results_dir=results, stage="train_baseline").stdout
    error = f"{flow.record(results, TFIDF_VAL)['metrics']['last']['error']:.2f}"
    [cells] = [line.split() for line in table.splitlines() if line.startswith(f"{TFIDF_VAL} ")]
    assert cells[1:8] == ["train_baseline", "finished", "error", "%", "val", error, error]


def test_mistakes_are_refused_in_one_line(world):
    data, results = world
    with pytest.raises(UsageError, match="the name of the whole training split"):
        call(world, train_file_id="all")
    with pytest.raises(UserError, match="nowhere.txt is missing"):
        call(world, train_file_id="nowhere")
    train = vocab.load_ids(data / "word/ids", "train")
    (data / "subsets").mkdir(exist_ok=True)
    (data / "subsets/one_class.txt").write_text("".join(
        f"{name.split(':')[1]}\n" for name, label in zip(train.document_ids, train.labels) if label == 1))
    with pytest.raises(UserError, match="one_class.txt holds no training document of class '1e5'"):
        call(world, train_file_id="one_class")
    wrong = flow.run_here("train_baseline", dir_path=data, results_dir=results, model="svm")
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1 and "tfidf, nbsvm" in wrong.stderr
    assert not list((results / "runs").glob("*one_class*"))


def test_a_token_file_cut_short_is_refused(world):
    path = world[0] / "word/tokens/val.txt"
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1)
    try:
        for damaged, message in ((whole[:last + 1], "val.txt has .* bytes, where .* were written; run first: .*create_toks"),
                                 (whole[:last] + b" " + whole[last + 1:], "val.txt holds 29 documents and the ids 30")):
            path.write_bytes(damaged)
            with pytest.raises(UserError, match=message):
                call(world, ngrams=4)
    finally:
        path.write_bytes(whole)
    folder = DataFolder(world[0])
    assert len(list(baseline.read_documents(folder, "val", np.array([0, 7]), 30))) == 2
