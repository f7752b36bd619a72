import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from sklearn.metrics import roc_auc_score

from flowdetect.evaluation import bootstrap_interval
from flowdetect.evaluation.resampling import ResampledOut, draw_counts, interval_of, resampled_means


@given(n_in=st.integers(1, 12), n_out=st.integers(1, 12), seed=st.integers(0, 2**16), tied=st.booleans())
def test_each_resample_has_the_auroc_of_the_images_it_drew(n_in, n_out, seed, tied):
    generator = np.random.default_rng(seed)
    scores_in, scores_out = (generator.normal(size=n).round(0 if tied else 9) for n in (n_in, n_out))
    counts_in, counts_out = draw_counts(n_in, 5, generator), draw_counts(n_out, 5, generator)
    found = ResampledOut(scores_out, counts_out).auroc(scores_in, counts_in)
    for b in range(5):
        drawn_in = np.repeat(scores_in, counts_in[b].astype(int))
        drawn_out = np.repeat(scores_out, counts_out[b].astype(int))
        labels = np.repeat([0, 1], [n_in, n_out])
        assert found[b] == pytest.approx(roc_auc_score(labels, -np.concatenate([drawn_in, drawn_out])), abs=1e-6)


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


def test_two_ways_to_the_same_interval():
    generator = np.random.default_rng(2)
    scores_in, scores_out = generator.normal(size=300), generator.normal(size=200) - 0.5
    counts_in, counts_out = draw_counts(300, 3000, generator), draw_counts(200, 3000, generator)
    here = interval_of(ResampledOut(scores_out, counts_out).auroc(scores_in, counts_in))
    assert here == pytest.approx(bootstrap_interval(scores_in, scores_out, n_bootstrap=3000), abs=0.006)


def test_pairs_stay_together():
    """An image and its hardly changed self differ less than two independent draws of it would."""
    clean = np.random.default_rng(3).normal(size=500)
    counts = draw_counts(500, 1000, np.random.default_rng(0))
    low, high = interval_of(ResampledOut(clean - 0.01, counts).auroc(clean, counts))
    apart = bootstrap_interval(clean, clean - 0.01)
    assert high - low < (apart[1] - apart[0]) / 5
    np.testing.assert_allclose(ResampledOut(clean, counts).auroc(clean, counts), 0.5, atol=1e-6)
