import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from flowdetect import GlowDensity, second_order_gap

rng = np.random.default_rng(0)


class Quadratic:
    """A Gaussian around an odd place: its expansion to second order is exact."""

    image_shape_ = (2, 2, 3)
    centre, precision = rng.normal(size=12), rng.uniform(0.5, 2.0, size=12)

    def score_samples(self, X, *, dequantize=True):
        rows = np.asarray(X, dtype=float).reshape(len(X), -1)
        return -((rows - self.centre) ** 2) @ self.precision / 2

    def curvature(self, x0):
        return -self.precision


def test_a_gaussian_is_predicted_exactly_up_to_the_way_between_the_means():
    X_in, X_out = rng.normal(size=(300, 2, 2, 3)), 0.3 + 0.5 * rng.normal(size=(200, 2, 2, 3))
    gap = second_order_gap(Quadratic(), X_in, X_out)
    assert gap.measured_low < gap.measured < gap.measured_high
    way = gap.mean_out - gap.mean_in
    beyond = -(way**2) @ Quadratic.precision / 2  # what the variance around x0 has more than that around the own mean
    np.testing.assert_allclose(gap.first_order + gap.second_order + beyond, gap.measured, rtol=1e-6)
    assert gap.second_order > 0
    np.testing.assert_allclose(gap.by_channel(gap.variance_in), X_in.var(axis=0).sum(axis=(0, 1)))
    assert "second order +" in str(gap)


def test_the_same_set_has_no_gap():
    X = rng.normal(size=(100, 12)).reshape(100, 2, 2, 3)
    gap = second_order_gap(Quadratic(), X, X)
    assert gap.measured == gap.second_order == gap.first_order == 0
    assert gap.measured_low < 0 < gap.measured_high


def test_one_feature_of_a_flow_is_a_gaussian():
    X = rng.normal(2.0, 3.0, size=(2000, 1))
    density = GlowDensity(max_epochs=30, random_state=0).fit(X)
    gap = second_order_gap(density, X, rng.normal(2.0, 1.0, size=(2000, 1)))
    np.testing.assert_allclose(gap.curvature, -1 / 9, rtol=0.2)
    np.testing.assert_allclose(gap.second_order, gap.measured, rtol=0.2)


def test_a_density_without_curvature():
    density = GaussianMixture().fit(rng.normal(size=(20, 2)))
    with pytest.raises(TypeError, match="second_order_gap needs a fitted density with curvature.*GaussianMixture"):
        second_order_gap(density, np.zeros((2, 2)), np.zeros((2, 2)))
