"""Likelihood regret and likelihood paths, on a VAE."""

import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.utils import Bunch
from sklearn.utils.estimator_checks import parametrize_with_checks

from flowdetect import VAEDensity, load
from flowdetect.datasets import load_images
from flowdetect.detectors import LikelihoodRegretDetector, LPathDetector
from flowdetect.detectors.calibration import log_copula_tail
from flowdetect.testing import check_detector

DIGITS, _ = load_images("digits")
ROWS, OUTSIDE = DIGITS[:1200].reshape(1200, 64).astype(float), 16.0 - DIGITS[1200:1210].reshape(10, 64)
MAKERS = [
    lambda density: LikelihoodRegretDetector(density, n_steps=3),
    LPathDetector,
    lambda density: LPathDetector(density, kind="kde"),
]


@pytest.fixture(scope="module")
def vae():
    return VAEDensity(
        image_shape=(8, 8), n_bins=17, latent_dim=8, hidden_channels=8, max_epochs=10, batch_size=32, random_state=0
    ).fit(ROWS[:600])


@pytest.mark.parametrize("make", MAKERS, ids=["regret", "path", "path, kde"])
class TestBoth:
    def test_laws(self, make, vae):
        check_detector(make(FrozenEstimator(vae)), ROWS[600:700], OUTSIDE)

    def test_strange_images_score_lower(self, make, vae):
        detector = make(FrozenEstimator(vae)).fit(ROWS[600:800])
        normal, strange = detector.score_samples(ROWS[800:900]), detector.score_samples(OUTSIDE)
        assert np.median(strange) < np.quantile(normal, 0.02)

    def test_files_keep_what_was_learned(self, make, vae, tmp_path):
        detector = make(FrozenEstimator(vae)).fit(ROWS[600:640])
        detector.save(tmp_path / "detector")
        loaded = load(tmp_path / "detector")
        np.testing.assert_array_equal(loaded.score_samples(ROWS[:5]), detector.score_samples(ROWS[:5]))

    def test_a_density_that_lacks_the_method(self, make):
        with pytest.raises(TypeError, match="needs a density with likelihood_.*; GaussianMixture has none"):
            make(GaussianMixture()).fit(ROWS)


def test_the_score_is_minus_the_regret(vae):
    detector = LikelihoodRegretDetector(FrozenEstimator(vae), n_steps=4, learning_rate=0.2).fit(ROWS[600:640])
    regret = vae.likelihood_regret(ROWS[:9], n_steps=4, learning_rate=0.2)
    np.testing.assert_array_equal(detector.score_samples(ROWS[:9]), -regret)


@pytest.mark.parametrize(
    ("settings", "match"),
    [({"n_steps": 0}, "n_steps"), ({"n_steps": 2.0}, "n_steps"), ({"learning_rate": 0}, "learning_rate")],
)
def test_settings_are_checked_before_training(settings, match):
    with pytest.raises(ValueError, match=f"LikelihoodRegretDetector needs.*{match}"):
        LikelihoodRegretDetector(VAEDensity(), **settings).fit(ROWS)


def test_the_path_is_compared_with_every_other_calibration_row(vae):
    detector = LPathDetector(FrozenEstimator(vae)).fit(ROWS[600:700])
    np.testing.assert_array_equal(
        detector.calibration_path_, np.stack(list(vae.likelihood_path(ROWS[600:700:2]).values()), 1)
    )
    with pytest.raises(ValueError, match='kind="copod" or "kde", got \'svm\''):
        LPathDetector(vae, kind="svm").fit(ROWS)


def test_copula_tails_within_the_data_are_shares_of_rows():
    rng = np.random.default_rng(0)
    known = np.stack([rng.exponential(size=200), -rng.exponential(size=200), rng.normal(size=200)], 1)
    at_most = (1 + rankdata(known, axis=0)) / 201
    at_least = (1 + rankdata(-known, axis=0)) / 201
    skewed = np.stack(
        [at_least[:, 0], at_most[:, 1], (at_least if (known[:, 2] ** 3).mean() > 0 else at_most)[:, 2]], 1
    )
    sums = np.stack([np.log(tail).sum(1) for tail in (at_most, at_least, skewed)])
    inner = ((at_most > 0.06) & (at_least > 0.06)).all(1)  # beyond, the tail is an exponential
    assert inner.sum() > 100
    np.testing.assert_allclose(log_copula_tail(known, known)[inner], sums.min(0)[inner])


def test_copula_tails_go_on_falling_on_both_sides():
    known = np.random.default_rng(0).normal(size=(200, 3))
    for side in (-1.0, 1.0):
        steps = side * np.array([[5.0], [10.0], [20.0]]) * np.ones(3)
        assert (np.diff(log_copula_tail(steps, known)) < 0).all()


class Answering(GaussianMixture):
    """A mixture that answers what a VAE is asked, quickly."""

    def likelihood_regret(self, X, *, n_steps, learning_rate):
        return -n_steps * learning_rate * self.score_samples(X)

    def likelihood_path(self, X):
        norm = np.linalg.norm(X, axis=1)
        return Bunch(reconstruction_error=norm, latent_norm=norm**2, latent_scale=self.score_samples(X))


@parametrize_with_checks(
    [make(Answering(reg_covar=1e-3, init_params="random_from_data")) for make in MAKERS], xfail_strict=True
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)
