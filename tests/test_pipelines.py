"""Densities, SITs and detectors inside scikit-learn's searches and pipelines, on arrays and on frames."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import make_moons
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flowdetect import (
    AddNoise,
    ComplexityDetector,
    GlowDensity,
    LikelihoodDetector,
    Translate,
    ZeroLatents,
    load_images,
)

SMALL = {"n_steps": 1, "hidden_channels": 8, "max_epochs": 2, "random_state": 0}
MOONS = make_moons(200, noise=0.1, random_state=0)[0]
DIGITS = load_images("digits")[0][:200].reshape(200, -1)
FRAME = pd.DataFrame(MOONS, columns=["east", "north"])


def density(**settings: object) -> GlowDensity:
    return GlowDensity(**{**SMALL, **settings})


def digits_density() -> GlowDensity:
    return density(image_shape=(8, 8), n_bins=17)


def test_grid_search_over_the_number_of_steps() -> None:
    search = GridSearchCV(density(), {"n_steps": [1, 3]}, cv=2).fit(MOONS)
    assert search.best_params_["n_steps"] in (1, 3)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.score(MOONS) == pytest.approx(search.score(MOONS))


@pytest.mark.parametrize("X", [MOONS, FRAME], ids=["array", "frame"])
@pytest.mark.parametrize(
    "last", [density, lambda: LikelihoodDetector(density(), random_state=0)], ids=["density", "detector"]
)
def test_a_scaler_comes_first(X: object, last: object) -> None:
    pipeline = make_pipeline(StandardScaler(), last())
    scores = pipeline.fit(X).score_samples(X)
    assert scores.shape == (200,)
    np.testing.assert_array_equal(scores[:7], pipeline.score_samples(X[:7]))


def test_frames_flow_through_with_their_names() -> None:
    pipeline = make_pipeline(StandardScaler().set_output(transform="pandas"), density())
    pipeline.fit(FRAME)
    assert list(pipeline[-1].feature_names_in_) == ["east", "north"]
    with pytest.raises(ValueError, match="feature names"):
        pipeline.score_samples(FRAME[["north", "east"]])


@pytest.mark.parametrize("as_frame", [False, True], ids=["array", "frame"])
@pytest.mark.parametrize("detector", [LikelihoodDetector, ComplexityDetector])
def test_sits_before_a_detector(detector: type, as_frame: bool) -> None:
    X = pd.DataFrame(DIGITS, columns=[f"p{i}" for i in range(64)]) if as_frame else DIGITS
    sits = Translate(dx=1, image_shape=(8, 8), n_bins=17), AddNoise(image_shape=(8, 8), n_bins=17, random_state=0)
    frozen = FrozenEstimator(digits_density().fit(DIGITS))
    pipeline = make_pipeline(*sits, detector(frozen, random_state=0)).fit(X)
    assert set(pipeline.predict(X)) <= {-1, 1}
    assert pipeline.decision_function(X).shape == (200,)


def test_latents_feed_any_outlier_detector() -> None:
    pipeline = make_pipeline(digits_density(), PCA(5), IsolationForest(random_state=0)).fit(DIGITS)
    assert set(pipeline.predict(DIGITS)) <= {-1, 1}
    names = pipeline[0].get_feature_names_out()
    assert (len(names), names[0]) == (64, "glowdensity0")


def test_zeroed_latents_feed_the_density_that_they_come_from() -> None:
    fitted = FrozenEstimator(digits_density().fit(DIGITS))
    pipeline = make_pipeline(ZeroLatents(fitted, n_factors=1), fitted).fit(DIGITS)
    assert np.isfinite(pipeline.score_samples(DIGITS)).all()
