import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from sit_data import few, images_8_bit, seeds, table
from sit_table import WhiteningFlow
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler

from flowdetect.sit import ZeroLatents


@given(seed=seeds, n_features=st.integers(2, 9))
@few
def test_zeroing_nothing_is_the_identity_within_inversion_error(seed, n_features):
    X = table(30, n_features, seed)
    np.testing.assert_allclose(ZeroLatents(WhiteningFlow(), 0).fit_transform(X), X, atol=1e-10)


@pytest.mark.parametrize("n_factors", [1, 2])
def test_the_first_levels_are_zero_and_the_others_stay(n_factors):
    X = table(n_features=6)
    flow = WhiteningFlow().fit(X)
    latents = flow.transform(ZeroLatents(FrozenEstimator(flow), n_factors).fit(X).transform(X))
    kept = 3 * n_factors
    np.testing.assert_allclose(latents[:, :kept], 0, atol=1e-10)
    np.testing.assert_allclose(latents[:, kept:], flow.transform(X)[:, kept:], atol=1e-10)


def test_a_frozen_flow_is_used_and_another_is_cloned():
    X = table()
    flow = WhiteningFlow().fit(X)
    frozen = FrozenEstimator(flow)
    np.testing.assert_array_equal(ZeroLatents(frozen).fit(X[:5]).flow_.mean_, flow.mean_)
    unfitted = WhiteningFlow()
    ZeroLatents(unfitted).fit(X)
    assert not hasattr(unfitted, "mean_")


class ImageFlow(WhiteningFlow):
    """Takes images and gives them back, as some flows may."""

    def fit(self, X, y=None):
        self.shape_ = X.shape[1:]
        return super().fit(X.reshape(len(X), -1))

    def transform(self, X):
        return super().transform(X.reshape(len(X), -1))

    def inverse_transform(self, Z):
        return super().inverse_transform(Z).reshape(-1, *self.shape_)


def test_images_stay_images():
    images = images_8_bit(20, (2, 3, 3), 0)
    zeroed = ZeroLatents(ImageFlow(), 0).fit_transform(images)
    assert zeroed.shape == images.shape
    np.testing.assert_allclose(zeroed, images, atol=1e-8)


@pytest.mark.parametrize("n_factors", [-1, 1.0, "all", True])
def test_n_factors_is_a_whole_number(n_factors):
    with pytest.raises(ValueError, match="n_factors must be a whole number >= 0"):
        ZeroLatents(WhiteningFlow(), n_factors).fit(table())


def test_there_are_only_so_many_levels():
    with pytest.raises(ValueError, match="n_factors must be at most 2, .* got 3"):
        ZeroLatents(WhiteningFlow(), 3).fit(table())


def test_a_flow_that_is_none():
    with pytest.raises(TypeError, match="latent_slices_, which StandardScaler lacks"):
        ZeroLatents(StandardScaler()).fit(table())
    with pytest.raises(TypeError, match="transform, inverse_transform, which GaussianMixture lacks"):
        ZeroLatents(GaussianMixture()).fit(table())


class ConditionalFlow(WhiteningFlow):
    def fit(self, X, y=None):
        self.classes_ = np.arange(2)
        return super().fit(X)


def test_a_conditional_flow():
    X = table()
    for flow in (ConditionalFlow(), FrozenEstimator(ConditionalFlow().fit(X))):
        with pytest.raises(ValueError, match="conditional=False"):
            ZeroLatents(flow).fit(X)
