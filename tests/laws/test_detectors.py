"""The laws of detectors, on a density that is not ours."""

import warnings
from functools import partial
from unittest import SkipTest

import numpy as np
import pytest
from detector_table import ASK_FOR_MORE, DETECTORS
from pyod.models.hbos import HBOS
from sklearn.base import BaseEstimator
from sklearn.exceptions import SkipTestWarning
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.utils import Bunch
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from flowdetect import EnsembleDensity, NeighborsDensity, OODDetector, PyODDetector, WAICDetector, detectors
from flowdetect.detectors import BaseDetector, LikelihoodDetector, LikelihoodRatioDetector, TransformDetector
from flowdetect.testing import check_detector

X_IN = np.random.default_rng(0).normal(size=(120, 4))
X_OUT = np.random.default_rng(1).normal(size=(30, 4)) + 6
FEWEST_CHECKS = 40

for_all_detectors = pytest.mark.parametrize("make", DETECTORS.values(), ids=DETECTORS)


def gaussian(**parameters):
    # its default k-means start refuses scikit-learn's array API dispatch, which one of the checks switches on
    return GaussianMixture(reg_covar=1e-3, init_params="random_from_data", **parameters)


def checked_by_scikit_learn():
    makers = (make for name, make in DETECTORS.items() if not name.endswith(", images"))
    members = [EnsembleDensity(gaussian(), 2), WAICDetector(gaussian(), 2)]
    own = [OODDetector(), OODDetector(contamination=0.2), NeighborsDensity(), NeighborsDensity(contamination=0.1)]
    return [*(make(gaussian()) for make in makers), *members, PyODDetector(HBOS()), *own]


def test_every_public_detector_is_in_the_table():
    tabled = {type(make(gaussian())) for make in (DETECTORS | ASK_FOR_MORE).values()}
    public = {getattr(detectors, name) for name in detectors.__all__ if name[0].isupper()} - {BaseDetector}
    assert public == tabled


@for_all_detectors
def test_laws_when_the_density_is_trained(make):
    check_detector(make(gaussian(n_components=2), contamination=0.2), X_IN, X_OUT)


@for_all_detectors
def test_laws_when_the_density_is_frozen(make):
    check_detector(make(FrozenEstimator(gaussian().fit(X_IN))), X_IN, X_OUT)


@for_all_detectors
def test_laws_without_held_out_rows(make):
    check_detector(make(gaussian(), calibration_fraction=0), X_IN, X_OUT)


class Terms(BaseEstimator):
    """A density with nine terms and forty gradient norms, all independent."""

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def score_samples(self, X):
        return self.likelihood_terms(X).log_pz

    def likelihood_terms(self, X):
        levels = np.asarray(X)[:, :8]
        return Bunch(log_pz=levels.sum(axis=1), log_pz_levels=levels, log_det_levels=levels**3)

    def layer_gradient_norms(self, X):
        return np.exp(np.asarray(X))

    def likelihood_regret(self, X, *, n_steps, learning_rate):
        return np.asarray(X)[:, 0]

    def likelihood_path(self, X):
        return Bunch(reconstruction_error=X[:, 0], latent_norm=np.exp(X[:, 1]), latent_scale=X[:, 2])


def false_alarms(make, n_repeats=40, n_rows=150):
    """Share of fresh rows with p-values of at most 1, 5 and 10 %, and how many rows that were."""
    rng = np.random.default_rng(2)
    found = []
    for _ in range(n_repeats):
        detector = make(FrozenEstimator(Terms().fit(np.zeros((1, 40))))).fit(rng.normal(size=(n_rows, 40)))
        found.append(detector.p_values(rng.normal(size=(100, 40))))
    p_values = np.concatenate(found)
    return [float(np.mean(p_values <= level)) for level in LEVELS], len(p_values)


LEVELS = (0.01, 0.05, 0.1)


WITH_TERMS = [name for name in (DETECTORS | ASK_FOR_MORE) if name != "WAICDetector"]


@pytest.mark.parametrize("name", WITH_TERMS)
def test_false_alarms_are_as_rare_as_p_values_say(name):
    """Rows within one fit share its calibration rows, so that the error is that of the fits, not of the rows."""
    make = (DETECTORS | ASK_FOR_MORE)[name]
    if make is LikelihoodRatioDetector:  # a background of this density's kind would be the very same
        make = partial(make, background=gaussian())
    if "images" in name:
        codecs = {} if make.func is TransformDetector else {"codecs": ("png",)}  # one codec is quicker
        make = partial(make, image_shape=(5, 8), **codecs)
    shares, _ = false_alarms(make)
    for share, level in zip(shares, LEVELS, strict=True):
        per_fit = np.sqrt(level * (1 - level) * (1 / 75 + 1 / 100))  # calibration rows and fresh rows
        assert share <= level + 3 * per_fit / np.sqrt(40)
        assert share >= level - 3 * per_fit / np.sqrt(40) - 1 / 76  # p-values are whole multiples of 1 / 76


class Mapped(BaseEstimator):
    """A density whose score is sent through exp, which is strictly increasing."""

    def __init__(self, density):
        self.density = density

    def fit(self, X, y=None):
        self.density_ = self.density.fit(X, y)
        return self

    def score_samples(self, X):
        return np.exp(self.density_.score_samples(X) / 10)


def test_increasing_map_of_the_likelihood_changes_no_auroc():
    labels = np.r_[np.ones(len(X_IN)), np.zeros(len(X_OUT))]
    X_out = X_OUT - 5  # overlapping, so that the AUROC is not 1
    aurocs = []
    for density in (gaussian(), Mapped(gaussian())):
        detector = LikelihoodDetector(density, random_state=0).fit(X_IN)
        aurocs.append(roc_auc_score(labels, detector.score_samples(np.concatenate([X_IN, X_out]))))
    assert aurocs[0] == aurocs[1]
    assert 0.7 < aurocs[0] < 0.99


@parametrize_with_checks(checked_by_scikit_learn(), xfail_strict=True)
def test_scikit_learn_checks(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("error", SkipTestWarning)
        try:
            check(estimator)
        except SkipTest as skipped:
            pytest.fail(f"skipped: {skipped}")


@pytest.mark.parametrize("detector", checked_by_scikit_learn(), ids=lambda detector: type(detector).__name__)
def test_scikit_learn_has_enough_checks(detector):
    assert len(list(estimator_checks_generator(detector))) >= FEWEST_CHECKS


class FitsFrozenDensities(LikelihoodDetector):
    def fit(self, X, y=None):
        super().fit(X, y)
        if isinstance(self.density, FrozenEstimator):
            self.density.estimator.fit(X)
        return self


class TestBrokenDetectors:
    """check_detector must see through detectors that break a law."""

    def broken(self, **methods):
        return type("Broken", (LikelihoodDetector,), methods)(gaussian())

    def test_fit_returning_nothing(self):
        detector = self.broken(fit=lambda self, X, y=None: LikelihoodDetector.fit(self, X, y) and None)
        with pytest.raises(AssertionError, match="fit must return the detector itself"):
            check_detector(detector, X_IN)

    def test_score_that_depends_on_the_batch(self):
        def score(self, X):
            return self._log_likelihood(X) - np.mean(X)

        with pytest.raises(AssertionError, match="the same score alone"):
            check_detector(self.broken(_score=score), X_IN)

    def test_score_that_depends_on_the_order(self):
        def score(self, X):
            return self._log_likelihood(X) + np.maximum(np.arange(len(X)) - 4, 0)  # the first five as if alone

        with pytest.raises(AssertionError, match="any order"):
            check_detector(self.broken(_score=score), X_IN)

    def test_labels_of_the_wrong_sign(self):
        detector = self.broken(predict=lambda self, X: -LikelihoodDetector.predict(self, X))
        with pytest.raises(AssertionError, match="predict must be"):
            check_detector(detector, X_IN)

    def test_decision_without_the_threshold(self):
        detector = self.broken(decision_function=lambda self, X: self.score_samples(X))
        with pytest.raises(AssertionError, match="minus offset_"):
            check_detector(detector, X_IN)

    def test_p_values_of_the_wrong_direction(self):
        detector = self.broken(p_values=lambda self, X: 1.001 - LikelihoodDetector.p_values(self, X))
        with pytest.raises(AssertionError, match="increase with the score"):
            check_detector(detector, X_IN)

    def test_global_random_state_touched(self):
        def score(self, X):
            np.random.normal()  # noqa: NPY002, the very thing that must not happen
            return self._log_likelihood(X)

        with pytest.raises(AssertionError, match="global random state"):
            check_detector(self.broken(_score=score), X_IN)

    def test_threshold_at_the_wrong_quantile(self):
        def fit(self, X, y=None):
            LikelihoodDetector.fit(self, X, y)
            self.offset_ -= 1.0
            return self

        with pytest.raises(AssertionError, match="contamination=0.1 must be labelled outliers"):
            check_detector(self.broken(fit=fit), X_IN)

    def test_frozen_density_fitted_again(self):
        with pytest.raises(AssertionError, match="must not be fitted again"):
            check_detector(FitsFrozenDensities(gaussian()), X_IN)
