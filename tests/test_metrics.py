"""Metrics against closed forms and scikit-learn."""

import math
import warnings

import numpy as np
import pytest
import sklearn.metrics
from ulmfit import metrics


def test_closed_forms():
    labels = np.array([0, 1, 1, 2])
    probabilities = np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.5, 0.25, 0.25], [0.25, 0.25, 0.5]])
    assert metrics.error_percent(labels, probabilities) == 25.0
    assert metrics.log_loss(labels, probabilities) == pytest.approx((3 * math.log(2) + math.log(4)) / 4)
    # F1: class 0 has precision 1/2 and recall 1, class 1 precision 1 and recall 1/2, class 2 is perfect
    assert metrics.macro_f1(labels, probabilities) == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert metrics.classification(labels, probabilities) == {
        "error": 25.0, "loss": metrics.log_loss(labels, probabilities),
        "macro_f1": metrics.macro_f1(labels, probabilities), "n": 4}


def test_equals_scikit_learn_on_random_predictions():
    random = np.random.default_rng(0)
    labels = random.integers(0, 5, 300)
    probabilities = random.dirichlet(np.ones(5), 300)
    predicted = probabilities.argmax(1)
    assert metrics.error_percent(labels, probabilities) == pytest.approx(
        100 * (1 - sklearn.metrics.accuracy_score(labels, predicted)))
    assert metrics.log_loss(labels, probabilities) == pytest.approx(sklearn.metrics.log_loss(labels, probabilities))
    assert metrics.macro_f1(labels, probabilities) == pytest.approx(
        sklearn.metrics.f1_score(labels, predicted, average="macro"))


def test_a_class_without_labels_keeps_its_column():
    labels = np.array([0, 2])
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    assert metrics.error_percent(labels, probabilities) == 0
    assert metrics.log_loss(labels, probabilities) == pytest.approx(-(math.log(0.7) + math.log(0.6)) / 2)
    assert metrics.macro_f1(labels, probabilities) == 1.0  # class 1 occurs nowhere and does not count
    # once it is predicted, it counts as 0; class 0 then has recall 0 too
    assert metrics.macro_f1(labels, np.array([[0.2, 0.7, 0.1], [0.1, 0.3, 0.6]])) == pytest.approx(1 / 3)


def test_rounded_probabilities_need_no_warning():
    probabilities = np.round(np.random.default_rng(0).dirichlet(np.ones(3), 50), 6).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics.log_loss(np.arange(50) % 3, probabilities)


def test_perplexity():
    assert metrics.perplexity(0.0) == 1.0
    assert metrics.perplexity(math.log(30_000)) == pytest.approx(30_000)  # of a uniform guess
    assert metrics.perplexity(1e6) == math.inf
