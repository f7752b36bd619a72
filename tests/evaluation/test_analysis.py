import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline

from flowdetect import EnsembleDensity, GlowDensity, LikelihoodDetector, second_order_gap

rng = np.random.default_rng(0)
FACTOR = rng.normal(size=(12, 12))


class Quadratic:
    """A Gaussian of correlated features around an odd place: its expansion to second order is exact."""

    image_shape_ = (2, 2, 3)
    centre, precision = rng.normal(size=12), FACTOR @ FACTOR.T / 12

    def score_samples(self, X):
        away = np.asarray(X, dtype=float).reshape(len(X), -1) - self.centre
        return -np.einsum("ni,ij,nj->n", away, self.precision, away) / 2

    def directional_derivatives(self, x0, directions):
        slopes = -directions @ self.precision @ (x0[0] - self.centre)
        return slopes, -np.einsum("ni,ij,nj->n", directions, self.precision, directions)


def test_a_gaussian_is_predicted_exactly():
    correlated = rng.normal(size=(200, 12)) @ rng.normal(size=(12, 12)) / 3
    X_in, X_out = rng.normal(size=(300, 2, 2, 3)), (0.3 + correlated).reshape(200, 2, 2, 3)
    gap = second_order_gap(Quadratic(), X_in, X_out)
    assert gap.measured_low < gap.measured < gap.measured_high
    np.testing.assert_allclose(gap.first_order + gap.second_order, gap.measured, rtol=1e-6)
    slope = -Quadratic.precision @ (gap.mean_in - Quadratic.centre)
    np.testing.assert_allclose(gap.first_order, slope @ (gap.mean_out - gap.mean_in), rtol=1e-6)
    np.testing.assert_allclose(gap.by_channel(gap.variance_in), X_in.var(axis=0).sum(axis=(0, 1)))
    assert f"predicted {gap.measured:+.1f}" in str(gap)


def test_many_rows_of_whole_numbers_come_in_parts(monkeypatch):
    X = rng.integers(0, 256, (100, 2, 2, 3)).astype(np.uint8)
    whole = second_order_gap(Quadratic(), X.astype(float), X // 2)
    monkeypatch.setattr("flowdetect.evaluation.analysis.AT_ONCE", 16)
    parts = second_order_gap(Quadratic(), X, X // 2)
    for name in ("first_order", "second_order", "variance_in", "variance_out", "mean_in", "mean_out"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-9)
    np.testing.assert_allclose(parts.variance_out, (X // 2).reshape(100, 12).var(axis=0))


def test_the_same_set_has_no_gap():
    X = rng.normal(size=(100, 12)).reshape(100, 2, 2, 3)
    gap = second_order_gap(Quadratic(), X, X)
    assert gap.measured == gap.second_order == gap.first_order == 0
    assert gap.measured_low < 0 < gap.measured_high


def test_a_mean_that_moves_is_of_second_order_too():
    X = rng.normal(size=(300, 12)).reshape(300, 2, 2, 3)
    gap = second_order_gap(Quadratic(), X, X + 2.0)
    np.testing.assert_allclose(gap.first_order + gap.second_order, gap.measured, rtol=1e-6)
    np.testing.assert_allclose(gap.second_order, -2.0 * Quadratic.precision.sum())  # half of 2 H 2


def test_a_flow_with_a_constant_column():
    X = pd.DataFrame({"a": rng.normal(2.0, 3.0, size=500), "b": np.ones(500)})
    with pytest.warns(UserWarning, match="constant"):
        density = GlowDensity(max_epochs=30, random_state=0).fit(X)  # of one column, a Gaussian
    inside = pd.DataFrame({"a": rng.normal(2.0, 1.0, size=500), "b": np.ones(500)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # names of columns are kept
        gap = second_order_gap(density, X, inside)
    np.testing.assert_allclose(gap.first_order + gap.second_order, gap.measured, rtol=1e-3)


def test_in_bins_no_noise_is_drawn():
    X = rng.integers(0, 8, size=(100, 4, 4))
    density = GlowDensity(n_bins=8, n_steps=1, hidden_channels=4, max_epochs=1, random_state=0).fit(X)
    gap = second_order_gap(density, X, X // 2)
    density.noise_seed_ += 1
    again = second_order_gap(density, X, X // 2)
    assert gap.measured != again.measured
    assert (gap.first_order, gap.second_order) == (again.first_order, again.second_order)


GLOW = GlowDensity()


@pytest.mark.parametrize("density", [object(), EnsembleDensity(GLOW), make_pipeline(GLOW), LikelihoodDetector(GLOW)])
def test_what_has_no_expansion(density):
    with pytest.raises(TypeError, match="second_order_gap needs a fitted density with directional_derivatives"):
        second_order_gap(density, np.zeros((2, 2)), np.zeros((2, 2)))
