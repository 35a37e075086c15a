"""The predictions file: what is written is read back; what does not fit is refused with its line."""

import numpy as np
import pytest
from ulmfit import predictions
from ulmfit.errors import UserError

DOCUMENTS = ["test:0", "test:2", "test:1"]
CLASSES = ["news, world", "sport"]
PROBABILITIES = np.array([[0.123456789, 0.876543211], [1.0, 0.0], [1e-9, 1 - 1e-9]])


def test_read_returns_what_was_written(tmp_path):
    path = tmp_path / "predictions.csv"
    predictions.write(path, DOCUMENTS, ["sport", "", "news, world"], PROBABILITIES, CLASSES)
    assert path.read_text(encoding="utf-8").splitlines()[:2] == [
        'document,label,"p:news, world",p:sport', "test:0,sport,0.123457,0.876543"]
    read = predictions.read(path)
    assert (read.documents, read.labels, read.classes) == (DOCUMENTS, ["sport", "", "news, world"], CLASSES)
    assert read.probabilities.dtype == np.float64
    np.testing.assert_allclose(read.probabilities, PROBABILITIES, atol=5e-7)
    assert read.label_indices().tolist() == [1, -1, 0]


def test_six_digits_never_make_another_class_the_most_likely(tmp_path):
    near = np.array([[0.4999999, 0.5000001], [0.5000001, 0.4999999], [0.5, 0.5], [0.50000501, 0.49999499]])
    predictions.write(tmp_path / "predictions.csv", ["test:0"], [""], near[3:], ["a", "b"])
    assert (tmp_path / "predictions.csv").read_text().splitlines()[1] == "test:0,,0.500005,0.499995"
    several = np.random.default_rng(0).normal(1 / 3, 3e-7, size=(500, 3))
    for probabilities in (near, several):
        classes = list("abc")[:probabilities.shape[1]]
        documents = [f"test:{row}" for row in range(len(probabilities))]
        predictions.write(tmp_path / "predictions.csv", documents, [""] * len(documents), probabilities, classes)
        read = predictions.read(tmp_path / "predictions.csv").probabilities
        np.testing.assert_array_equal(read.argmax(1), probabilities.argmax(1))


def test_diverged_training_is_named_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "predictions.csv"
    predictions.write(path, DOCUMENTS, ["sport"] * 3, PROBABILITIES, CLASSES)
    before = path.read_bytes()
    broken = PROBABILITIES.copy()
    broken[1, 0] = np.nan
    with pytest.raises(UserError, match="test:2 are not numbers"):
        predictions.write(path, DOCUMENTS, ["sport"] * 3, broken, CLASSES)
    with pytest.raises(ValueError, match="do not fit"):
        predictions.write(path, DOCUMENTS, ["sport"] * 2, PROBABILITIES, CLASSES)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("content, complaint", [
    ("document,p:a,p:b\nx,0.5,0.5\n", "line 1: expected the header"),
    ("", "line 1: expected the header"),
    ("document,label,p:a,p:a\nx,a,0.5,0.5\n", "line 1: a class stands there twice"),
    ("document,label,p:a,p:b\nx,a,0.5,0.5\ny,a,0.5\n", "line 3: expected 4 columns, found 3"),
    ("document,label,p:a,p:b\nx,a,0.5,0.5\nx,a,0.5,0.5\n", "line 3: document x stands in an earlier line"),
    ("document,label,p:a,p:b\nx,c,0.5,0.5\n", "line 2: label 'c' is none of the classes a, b"),
    ("document,label,p:a,p:b\nx,a,half,0.5\n", "line 2: expected probabilities, found half,0.5"),
    ("document,label,p:a,p:b\nx,a,nan,0.5\n", "line 2: expected probabilities that sum to 1"),
    ("document,label,p:a,p:b\nx,a,0.5,0.4\n", "line 2: expected probabilities that sum to 1"),
    ("document,label,p:a,p:b\nx,a,-0.5,1.5\n", "line 2: expected probabilities that sum to 1"),
    ("document,label,p:a,p:b\n", "holds no documents"),
    ('document,label,p:a,p:b\n"x,a,0.5,0.5\n', "not readable as csv"),
])
def test_what_does_not_fit_is_refused(tmp_path, content, complaint):
    path = tmp_path / "predictions.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as error:
        predictions.read(path)
    assert complaint in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        predictions.read(tmp_path / "predictions.csv")
