"""Intervals and tests against scipy, statsmodels, scikit-learn and cases that can be counted by hand."""

from itertools import product

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import sklearn.metrics
from analysis import statistics
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests


def wrongs(documents, seeds, rate, generator):
    return generator.random((documents, seeds)) < rate


@pytest.mark.parametrize("number", range(5))
def test_of_one_seed_the_test_over_documents_is_mcnemars(number):
    generator = np.random.default_rng(number)
    ours, theirs = wrongs(300, 1, 0.1 + 0.05 * number, generator), wrongs(300, 1, 0.2, generator)
    table = [[int((ours & theirs).sum()), int((ours & ~theirs).sum())],
             [int((~ours & theirs).sum()), int((~ours & ~theirs).sum())]]
    found = statistics.document_test(ours, theirs)
    assert found.p == pytest.approx(min(1.0, mcnemar(table, exact=True).pvalue))
    assert found.smallest == pytest.approx(2.0 ** (1 - table[0][1] - table[1][0]))


def test_the_test_over_documents_counts_every_exchange():
    generator = np.random.default_rng(1)
    ours, theirs = wrongs(9, 3, 0.6, generator), wrongs(9, 3, 0.2, generator)
    differences = ours.sum(axis=1) - theirs.sum(axis=1).astype(int)
    sums = [abs(np.dot(signs, differences)) for signs in product((1, -1), repeat=9)]
    assert statistics.document_test(ours, theirs).p == pytest.approx(
        np.mean(np.array(sums) >= abs(differences.sum())))
    scipys = scipy.stats.permutation_test((ours.sum(axis=1).astype(float), theirs.sum(axis=1).astype(float)),
                                          lambda a, b: np.sum(a - b), permutation_type="samples", n_resamples=10_000)
    assert statistics.document_test(ours, theirs).p == pytest.approx(scipys.pvalue)


@pytest.mark.parametrize("seeds", [2, 3, 6, 25])
def test_the_test_over_seeds_and_the_smallest_p_it_can_have(seeds):
    ours, theirs = np.ones((40, seeds), dtype=bool), np.zeros((40, seeds), dtype=bool)
    found = statistics.seed_test(ours, theirs)
    assert found.p == pytest.approx(found.smallest) == pytest.approx(2 / 2 ** seeds)
    assert statistics.seed_test(ours, ours).p == 1.0


def test_both_ways_of_the_test_over_seeds_agree_with_scipy():
    generator = np.random.default_rng(2)
    ours, theirs = wrongs(50, 10, 0.3, generator), wrongs(50, 10, 0.25, generator)
    rates = [each.sum(axis=0).astype(float) for each in (ours, theirs)]
    expected = scipy.stats.permutation_test(rates, lambda a, b: np.sum(a - b), permutation_type="samples",
                                            n_resamples=10_000).pvalue
    assert statistics.seed_test(ours, theirs).p == pytest.approx(expected)
    # eleven further seeds without a difference leave it as it is
    more = [np.hstack([each, np.zeros((50, 11), dtype=bool)]) for each in (ours, theirs)]
    assert statistics.seed_test(*more).p == pytest.approx(expected)


def test_equal_systems_differ_in_nothing():
    ours = wrongs(100, 3, 0.2, np.random.default_rng(3))
    assert statistics.document_test(ours, ours) == statistics.Test(1.0, 1.0)
    interval = statistics.difference_interval(ours, ours)
    assert (interval.low, interval.high) == (0.0, 0.0)


def test_one_document_swapped_moves_the_difference_by_one():
    ours = wrongs(200, 1, 0.2, np.random.default_rng(4))
    theirs = ours.copy()
    theirs[17] = ~theirs[17]
    found = statistics.document_test(ours, theirs)
    assert found == statistics.Test(1.0, 1.0)  # one discordant document proves nothing
    assert 0.0 in statistics.difference_interval(ours, theirs)


def test_the_interval_over_documents_is_scipys():
    wrong = wrongs(400, 1, 0.15, np.random.default_rng(5))
    ours = statistics.interval(wrong)
    theirs = scipy.stats.bootstrap((100.0 * wrong[:, 0],), np.mean, method="percentile", n_resamples=20_000,
                                   rng=np.random.default_rng(6)).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.3) and ours.high == pytest.approx(theirs.high, abs=0.3)


def test_replicates_are_those_of_weights_made_one_by_one():
    wrong = wrongs(30, 2, 0.4, np.random.default_rng(7))
    rates = statistics.document_replicates(wrong, replicates=50)
    drawn = np.random.default_rng(30).integers(30, size=(50, 30), dtype=np.int32)
    np.testing.assert_allclose(rates, [100 * wrong[rows].mean(axis=0) for rows in drawn], rtol=1e-5)


def test_seeds_widen_the_interval_as_their_spread_says():
    # Every document alike within a seed: only seeds vary. Means of 2 draws of {0, 100} are 0, 50, 100.
    wrong = np.repeat([[True, False]], 50, axis=0)
    replicates = statistics.seed_replicates(statistics.document_replicates(wrong))
    values, counts = np.unique(replicates, return_counts=True)
    np.testing.assert_allclose(values, [0, 50, 100])
    np.testing.assert_allclose(counts / len(replicates), [0.25, 0.5, 0.25], atol=0.03)


def test_the_interval_covers_what_it_says():
    """Over documents and seeds drawn anew, about 95% of intervals hold the true rate."""
    generator = np.random.default_rng(8)
    hits = []
    for _ in range(200):
        rates = np.clip(0.2 + 0.02 * generator.standard_normal(8), 0, 1)
        hits.append(20.0 in statistics.interval(generator.random((150, 8)) < rates))
    assert np.mean(hits) > 0.9


def test_holm_is_statsmodels_and_skips_what_was_not_tested():
    p = [0.01, np.nan, 0.04, 0.03]
    found = statistics.holm(p)
    expected = multipletests([0.01, 0.04, 0.03], method="holm")[1]
    assert np.isnan(found[1]) and [found[0], found[2], found[3]] == pytest.approx(list(expected))
    assert found[0] == pytest.approx(0.03)  # three tests: three times the smallest
    assert np.isnan(statistics.holm([np.nan])).all()


def test_the_sample_standard_deviation():
    assert statistics.sample_sd(np.array([1.0, 2.0, 4.0])) == pytest.approx(scipy.stats.tstd([1.0, 2.0, 4.0]))
    assert np.isnan(statistics.sample_sd(np.array([1.0])))


def test_mixture_weights_have_the_lowest_log_loss():
    generator = np.random.default_rng(9)
    labels = generator.integers(2, size=300)
    members = [np.clip(labels * strength + (1 - labels) * (1 - strength) + 0.3 * generator.standard_normal(300),
                       0.02, 0.98) for strength in (0.6, 0.8, 0.5)]
    of_label = np.column_stack([np.where(labels == 1, p, 1 - p) for p in members])
    found = statistics.mixture_weights(of_label)
    assert found.sum() == pytest.approx(1) and (found >= 0).all()

    def loss(free):
        weights = np.append(free, 1 - np.sum(free))
        return sklearn.metrics.log_loss(labels, sum(w * p for w, p in zip(weights, members)))

    best = scipy.optimize.minimize(loss, [1 / 3, 1 / 3], bounds=[(0, 1)] * 2,
                                   constraints={"type": "ineq", "fun": lambda free: 1 - np.sum(free)}, tol=1e-12)
    assert loss(found[:2]) == pytest.approx(best.fun, abs=1e-5)
