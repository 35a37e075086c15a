"""Linear classifiers over n-grams: tf-idf with logistic regression, and NB-SVM.

NB-SVM (Wang & Manning 2012): each n-gram is there or not, and weighs its naive Bayes log-count ratio; a linear
classifier is trained on that. As in Mesnil et al. 2014 it is a logistic regression, which gives probabilities, and it
is not interpolated with its mean weight. More than two classes are told apart one against the rest, by both models.
"""

import warnings
from dataclasses import dataclass
from typing import Any, Iterator

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from . import metrics, vocab
from .errors import UserError
from .names import DataFolder
from .records import Run
from .tokens import read_tokens

# scipy's csr_matrix, which scikit-learn's vectorizers make: shape (documents, n-grams).
Features = Any

# Half decades: the error is flat around its best C, so that a finer grid would fit the noise of val.
C_GRID = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
# tf-idf leaves out what occurs in one document only, except among so few documents that little would be left. 100 is
# where low-shot curves begin, so that one of them is made in one way from end to end.
MIN_DF, MIN_DF_DOCUMENTS = 2, 100
MAX_ITERATIONS = 1000


def log_count_ratio(present: Features, positive: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    """r = ln((p / |p|_1) / (q / |q|_1)), where p and q count the documents of either side that hold an n-gram.

    present: 0 or 1, shape (documents, n-grams). positive: bool, shape (documents,). alpha: added to every count.
    Returns shape (n-grams,); above 0 for an n-gram of the positive side.
    """
    p = alpha + np.asarray(present[positive].sum(axis=0)).ravel()
    q = alpha + np.asarray(present[~positive].sum(axis=0)).ravel()
    return np.log(p / p.sum()) - np.log(q / q.sum())


def weighted(features: Features, weights: np.ndarray) -> Features:
    """A copy with each column multiplied by its weight, shape (n-grams,)."""
    product = features.copy()
    product.data *= weights[product.indices]
    return product


def logistic_regression(c: float, seed: int) -> LogisticRegression:
    # The dual of liblinear: its time and memory grow with the documents' n-grams, not with classes x vocabulary.
    return LogisticRegression(C=c, solver="liblinear", dual=True, max_iter=MAX_ITERATIONS, random_state=seed)


class NaiveBayesLogistic(ClassifierMixin, BaseEstimator):
    """One side of NB-SVM: logistic regression on features weighted by their log-count ratio. Labels are 0 and 1."""

    def __init__(self, c: float, seed: int):
        self.c, self.seed = c, seed

    def fit(self, present: Features, labels: np.ndarray) -> "NaiveBayesLogistic":
        self.ratio_ = log_count_ratio(present, labels == 1)
        self.linear_ = logistic_regression(self.c, self.seed).fit(weighted(present, self.ratio_), labels)
        self.classes_, self.n_iter_ = self.linear_.classes_, self.linear_.n_iter_
        return self

    def predict_proba(self, present: Features) -> np.ndarray:
        return self.linear_.predict_proba(weighted(present, self.ratio_))


def classifier(model: str, c: float, seed: int) -> OneVsRestClassifier:
    """An untrained `tfidf` or `nbsvm`; its probabilities are those of each class, divided by their sum."""
    one = logistic_regression(c, seed) if model == "tfidf" else NaiveBayesLogistic(c, seed)
    return OneVsRestClassifier(one)


def vectorizer(model: str, ngrams: int, documents: int) -> CountVectorizer:
    """Makes features of documents that are lists of tokens.

    tfidf: 1 + ln(count), times ln((1 + n) / (1 + df)) + 1, each document of length 1. nbsvm: 0 or 1.
    ngrams: the longest counted. documents: how many it is going to be fitted on.
    """
    tokens = {"tokenizer": list, "lowercase": False, "token_pattern": None, "ngram_range": (1, ngrams)}
    if model == "tfidf":
        return TfidfVectorizer(**tokens, sublinear_tf=True, min_df=MIN_DF if documents >= MIN_DF_DOCUMENTS else 1)
    return CountVectorizer(**tokens, binary=True, dtype=np.float64)


def read_documents(folder: DataFolder, split: str, rows: np.ndarray | None, count: int) -> Iterator[list[str]]:
    """The tokens of a split's documents, or of those that `rows` numbers, in the split's order.

    count: documents that the split has. Raises UserError when the token file holds another number.
    """
    wanted = None if rows is None else set(rows.tolist())
    path, read = folder.tokens() / f"{split}.txt", 0
    for read, tokens in enumerate(read_tokens(path), 1):
        if wanted is None or read - 1 in wanted:
            yield tokens
    if read != count:
        raise UserError(f"{path} holds {read} documents and the ids {count}; run create_toks.py and tok2id.py "
                        f"--overwrite")


@dataclass(frozen=True)
class Trained:
    """A baseline with the C that does best on val.

    grid: {"C", "val_error" in %, "converged"} of each C tried. probabilities: of val, shape (documents, classes).
    """

    model: OneVsRestClassifier
    vectorizer: CountVectorizer
    c: float
    grid: list[dict]
    probabilities: np.ndarray


def train(run: Run, folder: DataFolder, rows: np.ndarray | None, *, model: str, ngrams: int, seed: int) -> Trained:
    """Trains one classifier for each C of the grid and keeps the one with the lowest val error, the smallest C first.

    rows: those of the train split to learn from, None for all.
    """
    documents, val = vocab.load_ids(folder.ids(), "train"), vocab.load_ids(folder.ids(), "val")
    labels = documents.labels if rows is None else documents.labels[rows]
    vectors = vectorizer(model, ngrams, len(labels))
    features = vectors.fit_transform(read_documents(folder, "train", rows, len(documents)))
    val_features = vectors.transform(read_documents(folder, "val", None, len(val)))
    run.say(f"{len(labels):,} training and {len(val):,} validation documents, {features.shape[1]:,} n-grams")
    grid, best, lowest = [], None, np.inf
    for c in C_GRID:
        with warnings.catch_warnings():
            # Said below in a line instead.
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted = classifier(model, c, seed).fit(features, labels)
        probabilities = fitted.predict_proba(val_features)
        error = metrics.error_percent(val.labels, probabilities)
        converged = all(one.n_iter_.max() < MAX_ITERATIONS for one in fitted.estimators_)
        grid.append({"C": c, "val_error": error, "converged": converged})
        run.say(f"C {c:g}: val error {error:.2f}%{'' if converged else f', not converged in {MAX_ITERATIONS} passes'}")
        if error < lowest:
            best, lowest = (fitted, c, probabilities), error
    fitted, c, probabilities = best
    return Trained(fitted, vectors, c, grid, probabilities)


def predict(trained: Trained, folder: DataFolder, split: str) -> np.ndarray:
    """Class probabilities of every document of a split, shape (documents, classes)."""
    count = len(vocab.load_ids(folder.ids(), split))
    return trained.model.predict_proba(trained.vectorizer.transform(read_documents(folder, split, None, count)))
