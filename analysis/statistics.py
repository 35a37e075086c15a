"""Intervals and tests for error rates that vary over documents and over seeds.

`wrong` is a matrix of 0 and 1, shape (documents, seeds): whether the run of a seed got a document wrong. All rates are
in % (0 to 100). Everything is deterministic: the resampling has a fixed seed of its own, and two systems on the same
documents are resampled alike.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.special

REPLICATES = 2000
CONFIDENCE = 0.95
_CHUNK = 8_000_000  # counts of documents held at a time


@dataclass(frozen=True)
class Interval:
    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Test:
    """A p-value, and the smallest that could have come out with so many documents or seeds."""

    p: float
    smallest: float


def sample_sd(values: np.ndarray) -> float:
    """Sample standard deviation (divisor n - 1); NaN for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def document_replicates(wrong: np.ndarray, replicates: int = REPLICATES) -> np.ndarray:
    """Error rates of bootstrap samples of the documents, shape (replicates, runs).

    wrong: shape (documents, runs). Sample b draws the same documents for every run, and for every call with so many
    documents, so that differences of columns are those of paired samples.
    """
    documents = len(wrong)
    values = np.ascontiguousarray(wrong, dtype=np.float32)
    if replicates * documents <= _CHUNK:
        # The counts are whole numbers and exact; as single precision rates their differences would be no longer 0.
        return (_document_counts(documents, replicates) @ values).astype(np.float64) * (100.0 / documents)
    generator = np.random.default_rng(documents)
    rates = np.empty((replicates, wrong.shape[1]))
    step = max(1, _CHUNK // documents)
    for start in range(0, replicates, step):
        rows = min(step, replicates - start)
        rates[start:start + rows] = _counts(generator, documents, rows) @ values
    return rates * (100.0 / documents)


@lru_cache(maxsize=4)
def _document_counts(documents: int, replicates: int) -> np.ndarray:
    return _counts(np.random.default_rng(documents), documents, replicates)


def _counts(generator: np.random.Generator, documents: int, rows: int) -> np.ndarray:
    """How often each document is in each of `rows` samples, float32, shape (rows, documents)."""
    drawn = generator.integers(documents, size=(rows, documents), dtype=np.int32)
    drawn += (np.arange(rows, dtype=np.int32) * documents)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * documents).reshape(rows, documents).astype(np.float32)


def seed_replicates(rates: np.ndarray) -> np.ndarray:
    """Means over bootstrap samples of the seeds, shape (replicates,).

    rates: shape (replicates, seeds), from `document_replicates`. Documents and seeds are thus resampled independently
    of each other: the pigeonhole bootstrap of crossed factors (Owen 2007). With one seed only documents vary.
    """
    replicates, seeds = rates.shape
    if seeds == 1:
        return rates[:, 0]
    return np.take_along_axis(rates, _drawn_seeds(seeds, replicates), axis=1).mean(axis=1)


@lru_cache(maxsize=16)
def _drawn_seeds(seeds: int, replicates: int) -> np.ndarray:
    return np.random.default_rng(seeds).integers(seeds, size=(replicates, seeds))


def percentile_interval(replicates: np.ndarray) -> Interval:
    """The middle 95% of bootstrap replicates."""
    low, high = np.quantile(replicates, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high))


def interval(wrong: np.ndarray) -> Interval:
    """95% bootstrap interval of the mean error rate, over documents and seeds."""
    return percentile_interval(seed_replicates(document_replicates(wrong)))


def difference_interval(wrong: np.ndarray, reference: np.ndarray) -> Interval:
    """95% bootstrap interval of the mean difference `wrong` - `reference`, paired over documents and seeds.

    Both have shape (documents, seeds), the same documents and seeds in the same order.
    """
    return interval(np.asarray(wrong, dtype=np.int8) - np.asarray(reference, dtype=np.int8))


def document_test(wrong: np.ndarray, reference: np.ndarray) -> Test:
    """Exact two-sided permutation test over documents of the paired difference, the seeds combined.

    The two systems change places on each document or not, in all seeds at once, so that a document which is hard for
    every seed counts once. Of one seed it is McNemar's exact test. It speaks of these very runs: whether other seeds
    would agree is for `seed_test`.

    Both have shape (documents, seeds). The sum of the differences under the null hypothesis is a sum of k times a
    symmetric binomial for each size k of a document's difference; its distribution is their convolution.
    """
    differences = np.asarray(wrong, dtype=np.int64).sum(axis=1) - np.asarray(reference, dtype=np.int64).sum(axis=1)
    sizes = np.bincount(np.abs(differences))
    distribution = np.ones(1)
    for size, count in enumerate(sizes):
        if size and count:
            # Every one of `count` documents adds +size or -size: in steps of 2 x size from the lowest sum.
            steps = np.zeros(2 * size * count + 1)
            steps[::2 * size] = _fair_coins(int(count))
            distribution = np.convolve(distribution, steps)
    middle = (len(distribution) - 1) // 2
    distance = abs(int(differences.sum()))
    p = distribution[:middle - distance + 1].sum() + distribution[middle + distance:].sum() if distance else 1.0
    changed = int(np.count_nonzero(differences))
    return Test(min(1.0, float(p)), min(1.0, 2.0 ** (1 - changed)))


def _fair_coins(count: int) -> np.ndarray:
    """Probability of 0 to `count` heads. By log factorials, as binomial coefficients soon exceed a float."""
    log_factorials = scipy.special.gammaln(np.arange(count + 1) + 1.0)
    return np.exp(log_factorials[-1] - log_factorials - log_factorials[::-1] - count * np.log(2.0))


def seed_test(wrong: np.ndarray, reference: np.ndarray) -> Test:
    """Exact two-sided permutation test over seeds: the systems change places in each seed as a whole.

    With n seeds the smallest p is 2 / 2^n: 1 for one seed, 0.25 for three, 0.031 for six.
    """
    differences = (np.asarray(wrong, dtype=np.int64) - np.asarray(reference, dtype=np.int64)).sum(axis=0)
    seeds = len(differences)
    if seeds > 20:
        # 2^n sums no longer fit; the differences are whole numbers, so their sums are counted instead.
        counts = {0: 1.0}
        for value in differences:
            following: dict[int, float] = {}
            for total, weight in counts.items():
                for signed in (total + int(value), total - int(value)):
                    following[signed] = following.get(signed, 0.0) + weight / 2
            counts = following
        totals, weights = np.array(list(counts)), np.array(list(counts.values()))
    else:
        signs = 1 - 2 * ((np.arange(2 ** seeds)[:, None] >> np.arange(seeds)) & 1)
        totals, weights = signs @ differences, np.full(2 ** seeds, 0.5 ** seeds)
    p = weights[np.abs(totals) >= abs(int(differences.sum()))].sum()
    return Test(min(1.0, float(p)), min(1.0, 2.0 ** (1 - seeds)))


def holm(p_values: list[float]) -> list[float]:
    """Holm's adjusted p-values (Holm 1979), in the order given; NaN stays where there was no test.

    The k-th smallest of m is multiplied by m - k + 1, and none may be below one that was smaller. (statsmodels has the
    same, but its function collects the process's garbage each time, which takes longer than all of a large table.)
    """
    values = np.array(p_values, dtype=float)
    adjusted, tested = np.full(len(values), np.nan), np.flatnonzero(np.isfinite(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)))
    return adjusted.tolist()


def mixture_weights(probabilities: np.ndarray, rounds: int = 2000, tolerance: float = 1e-9) -> np.ndarray:
    """Weights (at least 0, sum 1) of the weighted mean of probabilities that has the lowest log loss.

    probabilities: of the label, shape (documents, members). The log loss is convex in the weights; this is the EM
    algorithm for the weights of a mixture (Dempster, Laird & Rubin 1977), which never makes it worse.
    """
    likelihood = np.maximum(np.asarray(probabilities, dtype=np.float64), 1e-12)
    weights = np.full(likelihood.shape[1], 1 / likelihood.shape[1])
    for _ in range(rounds):
        shares = likelihood * weights
        following = (shares / shares.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(following - weights).max() < tolerance:
            break
        weights = following
    return weights / weights.sum()
