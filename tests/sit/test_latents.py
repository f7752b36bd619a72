import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from sit_data import few, images_8_bit, seeds, table
from sit_table import WhiteningFlow
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler

from flowdetect import GlowDensity, load_images, sit_report
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
    """Moves rows of label c by c."""

    conditional = True

    def fit(self, X, y):
        self.classes_, counts = np.unique(y, return_counts=True)
        self.class_log_prior_ = np.log(counts / len(y))
        return super().fit(X)

    def transform(self, X, y):
        return super().transform(X) - np.asarray(y)[:, None]

    def inverse_transform(self, Z, y):
        return super().inverse_transform(Z + np.asarray(y)[:, None])

    def score_samples(self, X, y):
        return -0.5 * (self.transform(X, y) ** 2).sum(1)


@pytest.mark.parametrize("is_frozen", [False, True])
def test_a_conditional_flow_zeroes_under_the_label_that_is_given(is_frozen):
    X, y = table(), np.arange(40) % 2 * 5
    flow = ConditionalFlow()
    sit = ZeroLatents(FrozenEstimator(flow.fit(X, y)) if is_frozen else flow).fit(X, y)
    kept = sit.flow_.latent_slices_[1]
    latents = sit.flow_.transform(sit.transform(X, y), y)
    np.testing.assert_allclose(latents[:, kept], sit.flow_.transform(X, y)[:, kept], atol=1e-10)
    np.testing.assert_allclose(latents[:, sit.flow_.latent_slices_[0]], 0, atol=1e-10)


def test_without_labels_a_conditional_flow_takes_the_likeliest():
    X, y = table(), (np.arange(40) % 3 == 0) * 2
    sit = ZeroLatents(ConditionalFlow()).fit(X, y)
    flow = sit.flow_
    posterior = [flow.score_samples(X, np.full(40, c)) + flow.class_log_prior_[k] for k, c in enumerate((0, 2))]
    likeliest = np.array([0, 2])[np.argmax(posterior, axis=0)]
    assert len(np.unique(likeliest)) == 2
    np.testing.assert_array_equal(sit.transform(X), sit.transform(X, likeliest))


def test_a_report_gives_labels_to_a_conditional_flow():
    X = table()
    y = np.arange(40) % 2 * 5
    scorer = GaussianMixture(random_state=0).fit(X)
    report = sit_report([scorer], X, {"zeroed": ZeroLatents(ConditionalFlow())}, y, n_bootstrap=10)
    told = ZeroLatents(ConditionalFlow()).fit(X, y).transform(X, y)
    np.testing.assert_array_equal(report.scores["GaussianMixture"]["zeroed"], scorer.score_samples(told))
    unlabelled = sit_report([scorer], X, {"zeroed": report.sits["zeroed"]}, n_bootstrap=10)
    assert (unlabelled.scores["GaussianMixture"]["zeroed"] != scorer.score_samples(told)).any()


def test_a_glow_by_class():
    X, y = load_images("digits")
    X, y = X[:40, 2:6, 2:6], y[:40] % 2
    flow = GlowDensity(n_bins=17, n_steps=1, hidden_channels=4, conditional=True, max_epochs=1, random_state=0)
    flow.fit(X, y)
    sit = ZeroLatents(FrozenEstimator(flow)).fit(X)
    latents = flow.transform(sit.transform(X, y), y)
    first, *others = flow.latent_slices_
    np.testing.assert_allclose(latents[:, first], 0, atol=1e-6)
    np.testing.assert_allclose(latents[:, others[0]], flow.transform(X, y)[:, others[0]], atol=1e-6)
    assert sit.transform(X).shape == X.shape  # under the likeliest labels
