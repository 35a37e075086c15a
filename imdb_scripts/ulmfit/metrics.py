"""The numbers that runs report, each from labels and predictions alone.

`labels` are class indices, shape (n,); `probabilities` have shape (n, classes) and rows that sum to 1. Both must hold
at least one document.
"""

import math

import numpy as np
import sklearn.metrics


def error_percent(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Documents whose most probable class is not their label, in % (0 to 100). The lower class wins a tie."""
    return 100.0 * float(np.mean(np.argmax(probabilities, axis=1) != np.asarray(labels)))


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of -ln p(label), in nats. A class that no label names still has its column."""
    probabilities = np.asarray(probabilities, dtype=np.float64)
    # Rounded probabilities (float32, or six digits in a csv) sum to 1 only nearly; scikit-learn warns of that.
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    return float(sklearn.metrics.log_loss(labels, probabilities, labels=np.arange(probabilities.shape[1])))


def macro_f1(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Unweighted mean of the classes' F1 scores, 0 to 1.

    The mean is over the classes that occur among labels or predictions: one that occurs in neither has no F1, and
    counting it as 0 would punish a small split for what it lacks.
    """
    predicted = np.argmax(probabilities, axis=1)
    return float(sklearn.metrics.f1_score(labels, predicted, average="macro", zero_division=0))


def classification(labels: np.ndarray, probabilities: np.ndarray) -> dict:
    """What a classifier's run reports: `error` in %, `loss` in nats, `macro_f1` from 0 to 1, and the documents `n`."""
    return {"error": error_percent(labels, probabilities), "loss": log_loss(labels, probabilities),
            "macro_f1": macro_f1(labels, probabilities), "n": len(labels)}


def confusion(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Counts of documents, shape (classes, classes): a row a true class, a column a predicted one."""
    predicted = np.argmax(probabilities, axis=1)
    return sklearn.metrics.confusion_matrix(labels, predicted, labels=np.arange(probabilities.shape[1]))


def perplexity(nll: float) -> float:
    """exp of the mean negative log-likelihood a token (nats); infinite where that is beyond a float."""
    try:
        return math.exp(nll)
    except OverflowError:
        return math.inf
