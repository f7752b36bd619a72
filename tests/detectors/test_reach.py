"""Rows too far out to be scored are outliers to a detector, and errors to a density."""

import pickle

import numpy as np
import pytest
from detector_table import ASK_FOR_MORE, DETECTORS, Asked
from pyod.models.hbos import HBOS
from sklearn.base import BaseEstimator
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flowdetect import (
    EnsembleDensity,
    GlowDensity,
    MAFDensity,
    OODDetector,
    PixelCNNDensity,
    PyODDetector,
    RealNVPDensity,
    to_pyod,
)
from flowdetect._reach import OutOfReachError
from flowdetect.detectors import DoSEDetector, GradientNormDetector, LikelihoodDetector, ScaleDetector
from flowdetect.detectors.reach import LOWEST_SCORE

X = np.random.default_rng(0).normal(size=(80, 4))
ALL = DETECTORS | ASK_FOR_MORE
SMALL = {"max_epochs": 1, "random_state": 0}
FLOW = GlowDensity(n_steps=1, hidden_channels=8, **SMALL)
DENSITIES = {
    "Glow": FLOW,
    "RealNVP": RealNVPDensity(n_blocks=1, hidden_channels=8, **SMALL),
    "MAF": MAFDensity(**SMALL),
    "PixelCNN": PixelCNNDensity(n_filters=4, n_blocks=1, **SMALL),
    "ensemble": EnsembleDensity(FLOW, 2, random_state=0),
    "in a pipeline": make_pipeline(StandardScaler(), FLOW),
    "mixture": GaussianMixture(),
    "kernels": KernelDensity(),
}


def with_far_cells(rows, *values):
    far = rows.copy()
    for i, value in enumerate(values):
        far[2 * i + 1, i % far.shape[1]] = value
    return far


def check_far_rows(detector, rows, far, n_far):
    """Odd rows of `far` up to 2 * n_far lie far out; all others are as in `rows`."""
    is_far = np.isin(np.arange(len(rows)), 2 * np.arange(n_far) + 1)
    scores = detector.score_samples(far)
    np.testing.assert_allclose(scores[~is_far], detector.score_samples(rows)[~is_far], rtol=1e-9)
    assert np.isfinite(scores).all()
    assert (scores[is_far] < detector.score_samples(rows).min()).all()
    assert (detector.predict(far)[is_far] == -1).all()
    assert (detector.p_values(far)[is_far] == 1 / (1 + len(detector.calibration_scores_))).all()
    assert (detector.predict_proba(far)[is_far, 0] > 0.9).all()
    assert np.isfinite(detector.decision_function(far)).all()
    assert np.isfinite(detector.test_batch(far, n_bootstrap=20, random_state=0).p_value)


@pytest.mark.parametrize("name", DENSITIES)
@pytest.mark.parametrize("cv", [None, 2])
def test_densities(name, cv):
    detector = LikelihoodDetector(DENSITIES[name], cv=cv, random_state=0).fit(X)
    check_far_rows(detector, X[:12], with_far_cells(X[:12], 1e20, -1e39, 1e160, -1e300), 4)


@pytest.mark.parametrize("make", [DoSEDetector, GradientNormDetector, OODDetector, ScaleDetector])
def test_what_flows_are_asked_for_beyond_the_likelihood(make):
    images = np.random.default_rng(0).normal(size=(60, 4, 4, 1))
    flow = GlowDensity(image_shape=(4, 4), n_levels=2, n_steps=1, hidden_channels=4, **SMALL)
    detector = make(flow, calibration_fraction=0.5, random_state=0).fit(images)
    far = with_far_cells(images[:12].reshape(12, 16), 1e20, 1e39)
    scores = detector.score_samples(far)
    assert (scores[[1, 3]] == LOWEST_SCORE).all()
    np.testing.assert_allclose(np.delete(scores, [1, 3]), np.delete(detector.score_samples(images[:12]), [1, 3]))


@pytest.mark.parametrize("name", ALL)
def test_detectors_on_a_foreign_density(name):
    detector = ALL[name](Asked(reg_covar=1e-3), calibration_fraction=0.5, random_state=0).fit(X)
    scores = detector.score_samples(with_far_cells(X[:12], 1e200, -1e300))
    assert np.isfinite(scores).all()
    if not name.startswith("TransformDetector"):  # it takes the difference of two that are as far
        assert (detector.predict(with_far_cells(X[:12], 1e200, -1e300))[[1, 3]] == -1).all()


def test_images_in_bins():
    images = np.random.default_rng(0).integers(0, 4, (60, 4, 4))
    flow = GlowDensity(n_bins=4, n_steps=1, hidden_channels=4, **SMALL)
    detector = OODDetector(flow, codecs=("png",), calibration_fraction=0.5, random_state=0).fit(images)
    far = images[:12].copy()
    far[[1, 3, 5], 0, 0] = 200
    check_far_rows(detector, images[:12], far, 3)
    with pytest.raises(ValueError, match="values can be scored from -4 to 7.*in row 1; clip X"):
        detector.density_.score_samples(far)


def test_a_batch_of_another_range_is_warned_of():
    images = np.random.default_rng(0).integers(0, 4, (60, 4, 4))
    detector = LikelihoodDetector(GlowDensity(n_bins=4, n_steps=1, **SMALL), random_state=0).fit(images)
    with pytest.warns(UserWarning, match="60 of 60 rows lie too far.*check that X has their unit and range"):
        assert (detector.predict(images * 60 + 60) == -1).all()
    assert detector.predict(images[:1] * 60 + 60) == -1  # one row is no such sign


def test_other_libraries_labels():
    model = to_pyod(LikelihoodDetector(FLOW, random_state=0)).fit(X)
    assert model.predict(with_far_cells(X[:12], 1e20))[1] == 1
    far = PyODDetector(HBOS(), random_state=0).fit(X).predict(with_far_cells(X[:12], 1e300))
    assert far[1] == -1


class Says(BaseEstimator):
    """A density whose score of a row above 50 is what it is told."""

    def __init__(self, answer=0.0):
        self.answer = answer

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def score_samples(self, X):
        return np.where(X[:, 0] > 50, self.answer, -(X[:, 0] ** 2))


@pytest.mark.parametrize("answer", [-np.inf, -1e300])
def test_the_lowest_score_is_finite(answer):
    detector = LikelihoodDetector(Says(answer), random_state=0).fit(X)
    assert detector.score_samples(with_far_cells(X[:5], 99.0))[1] == LOWEST_SCORE


@pytest.mark.parametrize("answer", [np.nan, np.inf])
def test_what_is_no_distance_is_an_error(answer):
    detector = LikelihoodDetector(Says(answer), random_state=0).fit(X)
    with pytest.raises(ValueError, match=f"finite scores, but Says led to {answer} in row 1"):
        detector.score_samples(with_far_cells(X[:5], 99.0))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_cells_that_are_no_numbers_are_refused(value):
    detector = LikelihoodDetector(Says(), random_state=0).fit(X)
    with pytest.raises(ValueError, match="NaN|infinity"):
        detector.predict(with_far_cells(X[:5], value))


def test_fit_refuses_them():
    with pytest.raises(ValueError, match="finite scores, but Says led to -inf in row 1"):
        LikelihoodDetector(Says(-np.inf), random_state=0).fit(with_far_cells(X, 99.0))


def test_the_error_survives_other_processes():
    error = pickle.loads(pickle.dumps(OutOfReachError("too far", [3, 5])))
    assert str(error) == "too far"
    assert error.rows.tolist() == [3, 5]
