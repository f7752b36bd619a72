import numpy as np
import pytest

from flowdetect.evaluation.resampling import draw_counts, interval_of, resampled_means


def test_counts_are_resamples_of_the_same_size():
    counts = draw_counts(50, 200, np.random.default_rng(0))
    assert counts.shape == (200, 50)
    np.testing.assert_array_equal(counts.sum(axis=1), 50)
    assert counts.mean(axis=0) == pytest.approx(np.ones(50), abs=0.35)
    assert (counts != counts[0]).any()


def test_means_and_their_interval():
    values = np.random.default_rng(1).normal(size=400)
    low, high = interval_of(resampled_means(values, draw_counts(400, 2000, np.random.default_rng(0))))
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
