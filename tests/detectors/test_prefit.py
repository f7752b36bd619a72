"""Densities that are used as they are, and those that are trained anew."""

import pickle
import warnings

import numpy as np
import pytest
from detector_table import ASK_FOR_MORE, DETECTORS, Asked
from pyod.models.hbos import HBOS
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flowdetect import EnsembleDensity, GlowDensity, OODDetector, PyODDetector, WAICDetector, load, to_pyod
from flowdetect.detectors import LikelihoodDetector, LikelihoodRatioDetector

X = np.random.default_rng(0).normal(size=(60, 4))
X_NEW = np.concatenate([X[:5], X[5:10] + 4])


ALL = DETECTORS | ASK_FOR_MORE
FITTED = Asked(random_state=0, reg_covar=1e-3).fit(X)


def fitted_for(name):
    return EnsembleDensity(FITTED, 2, random_state=0).fit(X) if name == "WAICDetector" else FITTED


@pytest.mark.parametrize("name", ALL)
def test_it_is_the_same_as_frozen_estimator(name):
    density = fitted_for(name)
    by_prefit = ALL[name](density, prefit=True, random_state=0).fit(X)
    frozen = ALL[name](FrozenEstimator(density), random_state=0).fit(X)
    assert by_prefit.density_.estimator is density
    np.testing.assert_array_equal(by_prefit.score_samples(X_NEW), frozen.score_samples(X_NEW))
    np.testing.assert_array_equal(by_prefit.p_values(X_NEW), frozen.p_values(X_NEW))
    assert clone(by_prefit).density is density
    np.testing.assert_array_equal(clone(by_prefit).fit(X).p_values(X_NEW), frozen.p_values(X_NEW))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(by_prefit)).p_values(X_NEW), frozen.p_values(X_NEW))


@pytest.mark.parametrize("name", ALL)
def test_an_unfitted_one_is_refused(name):
    density = EnsembleDensity(Asked(), 2) if name == "WAICDetector" else Asked()
    with pytest.raises(NotFittedError, match=r"prefit=True uses its density as it is, and this \w+ is not fitted"):
        ALL[name](density, prefit=True).fit("no data at all")


@pytest.mark.parametrize("name", ALL)
def test_a_fitted_one_that_is_trained_anew_is_warned_of(name):
    with pytest.warns(
        UserWarning, match="got a fitted .* trains a new clone of it.* Pass prefit=True.* pass sklearn.base.clone"
    ):
        detector = ALL[name](fitted_for(name), random_state=0).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = ALL[name](clone(fitted_for(name)), random_state=0).fit(X)
        again.fit(X)
    np.testing.assert_array_equal(detector.score_samples(X_NEW), again.score_samples(X_NEW))


def test_the_warning_points_at_the_line_that_fits():
    with pytest.warns(UserWarning, match="fitted Asked") as caught:
        LikelihoodDetector(FITTED).fit(X)
    assert caught[0].filename == __file__


def test_pipelines_and_models_of_pyod():
    pipeline = make_pipeline(StandardScaler(), GaussianMixture()).fit(X)
    assert LikelihoodDetector(pipeline, prefit=True).fit(X).density_.estimator is pipeline
    with pytest.warns(UserWarning, match="fitted Pipeline"):
        LikelihoodDetector(pipeline).fit(X)
    model = HBOS().fit(X)
    detector = PyODDetector(model, prefit=True).fit(X)
    np.testing.assert_array_equal(detector.score_samples(X_NEW), -model.decision_function(X_NEW))
    assert clone(detector).model is model
    with pytest.raises(NotFittedError, match="uses its model as it is, and this HBOS is not fitted"):
        PyODDetector(HBOS(), prefit=True).fit(X)
    with pytest.warns(UserWarning, match="fitted HBOS"):
        PyODDetector(model).fit(X)


def test_pyods_side_keeps_the_density():
    adapter = to_pyod(LikelihoodDetector(FITTED, prefit=True)).fit(X)
    assert adapter.detector_.density_.estimator is FITTED


def test_a_background_is_used_as_it_is_too():
    background = GaussianMixture(2, random_state=0).fit(X)
    detector = LikelihoodRatioDetector(FITTED, background, prefit=True).fit(X)
    expected = FITTED.score_samples(X_NEW) - background.score_samples(X_NEW)
    np.testing.assert_array_equal(detector.score_samples(X_NEW), expected)
    assert clone(detector).background is background
    with pytest.raises(NotFittedError, match="uses its background as it is"):
        LikelihoodRatioDetector(FITTED, GaussianMixture(), prefit=True).fit(X)
    assert LikelihoodRatioDetector(FITTED, prefit=True, random_state=0).fit(X).background_.means_.shape == (1, 4)


def test_one_density_is_no_ensemble():
    with pytest.raises(TypeError, match="prefit=True needs a fitted ensemble, with member_scores.*leave prefit=False"):
        WAICDetector(FITTED, prefit=True).fit(X)


def test_flat_images_and_files(tmp_path):
    images = np.random.default_rng(0).integers(0, 4, (60, 4, 4))
    flow = GlowDensity(n_bins=4, n_steps=1, hidden_channels=4, max_epochs=1, random_state=0).fit(images)
    detector = OODDetector(flow, prefit=True, codecs=("png",)).fit(images.reshape(60, 16))
    assert detector.learns
    assert detector.image_shape_ == (4, 4, 1)
    detector.save(tmp_path / "detector")
    loaded = load(tmp_path / "detector")
    np.testing.assert_array_equal(loaded.p_values(images), detector.p_values(images))
    np.testing.assert_array_equal(clone(loaded).fit(images).score_samples(images), detector.score_samples(images))


@pytest.mark.parametrize("prefit", [1, None, "yes"])
def test_what_is_neither_true_nor_false(prefit):
    with pytest.raises(TypeError, match=f"needs prefit=True or prefit=False, got {prefit!r}"):
        LikelihoodDetector(FITTED, prefit=prefit).fit(X)


def test_no_density_to_use():
    with pytest.raises(NotFittedError, match="OODDetector with prefit=True"):
        OODDetector(prefit=True).fit(X)
