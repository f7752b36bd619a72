"""Columns of one value that break out, and batches whose whole range is another than the training data's."""

import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
from detector_table import ASK_FOR_MORE, DETECTORS, Asked
from pyod.models.knn import KNN
from sklearn.datasets import load_digits
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture
from smallest_densities import SMALL, SMALLEST

import flowdetect
from flowdetect import (
    EnsembleDensity,
    FlowOD,
    GlowDensity,
    LikelihoodDetector,
    OODDetector,
    PyODDetector,
)
from flowdetect.detectors.reach import LOWEST_SCORE

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(80, 4))
TABLE[:, 2] = 5.0
BROKEN = TABLE[:20].copy()
BROKEN[3, 2], BROKEN[5, 2], BROKEN[7, 2] = 1e6, 5.01, 5 + 1e-9
OUT = [3, 5]
ON_TABLES = {name: make for name, make in (DETECTORS | ASK_FOR_MORE).items() if not name.endswith("images")}
DENSITIES = {
    **SMALLEST,
    "ensemble": lambda: EnsembleDensity(SMALLEST["MAFDensity"](), 2, random_state=0),
    "forest": lambda: IsolationForest(n_estimators=10, random_state=0),  # which never splits a constant column
}
constant = pytest.mark.filterwarnings("ignore:.*constant and not modelled")


def check_broken(detector, rows, broken):
    scores = detector.score_samples(broken)
    is_out = np.isin(np.arange(len(broken)), OUT)
    assert (scores[is_out] == LOWEST_SCORE).all()
    usual = np.delete(np.arange(len(broken)), [*OUT, 7])
    np.testing.assert_allclose(scores[usual], detector.score_samples(rows)[usual], rtol=1e-6)
    assert scores[7] > LOWEST_SCORE  # a rounding error
    assert (detector.predict(broken)[is_out] == -1).all()
    assert (detector.p_values(broken)[is_out] == 1 / (1 + len(detector.calibration_scores_))).all()


@pytest.mark.parametrize("name", ON_TABLES)
def test_a_constant_column_that_breaks_out_is_an_outlier_to_every_detector(name):
    detector = ON_TABLES[name](Asked(reg_covar=1e-3), calibration_fraction=0.5, random_state=0).fit(TABLE)
    check_broken(detector, TABLE[:20], BROKEN)


@constant
@pytest.mark.parametrize("name", DENSITIES)
def test_of_every_density(name):
    check_broken(LikelihoodDetector(DENSITIES[name](), random_state=0).fit(TABLE), TABLE[:20], BROKEN)


@pytest.mark.parametrize("cv", [None, 2])
def test_without_a_density(cv, tmp_path):
    detector = OODDetector(cv=cv, random_state=0).fit(TABLE)
    check_broken(detector, TABLE[:20], BROKEN)
    detector.save(tmp_path / "detector")
    check_broken(flowdetect.load(tmp_path / "detector"), TABLE[:20], BROKEN)


def test_of_frames_and_other_libraries():
    frame, broken = (pd.DataFrame(rows, columns=list("abcd")) for rows in (TABLE, BROKEN))
    check_broken(LikelihoodDetector(GaussianMixture(reg_covar=1e-3), random_state=0).fit(frame), frame[:20], broken)
    check_broken(PyODDetector(KNN(), random_state=0).fit(TABLE), TABLE[:20], BROKEN)
    assert FlowOD(random_state=0).fit(TABLE).predict(BROKEN)[OUT].tolist() == [1, 1]


def test_rows_with_a_rare_flag_are_held_out_and_p_values_stay_valid():
    X = np.column_stack([RNG.normal(size=(4000, 2)), RNG.random((4000, 60)) < 1e-3])  # some flags are never set
    detector = LikelihoodDetector(GaussianMixture(reg_covar=1e-3), calibration_fraction=0.5, random_state=0).fit(
        X[:1000]
    )
    never = (X[:1000, 2:] == 0).all(axis=0)
    assert never.sum() >= 10
    p_values = detector.p_values(X[1000:])
    for level in (0.01, 0.05, 0.1):
        assert (p_values <= level).mean() <= level + 3 * np.sqrt(level / 500)


@constant
@pytest.mark.parametrize("name", [name for name in DENSITIES if name != "forest"])
def test_a_density_says_that_it_does_not_see_them(name):
    density = DENSITIES[name]().fit(TABLE)
    with pytest.warns(UserWarning, match=r"column 2 was 5 in all training rows.* row 3 has 1e\+06.*outliers"):
        scores = density.score_samples(BROKEN)
    np.testing.assert_array_equal(scores, density.score_samples(TABLE[:20]))


IMAGES = RNG.integers(0, 256, (60, 4, 4))
GLOW = partial(GlowDensity, n_steps=1, hidden_channels=4, **SMALL)


def warned(ask, X):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        ask(X)
    return [str(warning.message) for warning in found]


def check_range(detector, X, *words, method="predict"):
    (message,) = warned(getattr(detector, method), X)  # once
    assert all(word in message for word in words), message


@pytest.mark.parametrize("method", ["predict", "score_samples", "p_values", "predict_proba", "test_batch", "score"])
@pytest.mark.parametrize("cv", [None, 2])
def test_images_of_another_range_are_warned_of_once(method, cv):
    detector = LikelihoodDetector(GLOW(), cv=cv, random_state=0).fit(IMAGES)
    ranges = "values go from 0 to 1, in training they went from "
    check_range(detector, IMAGES / 255, "another range", ranges, " to 255.", "give X the unit", method=method)
    assert not warned(detector.predict, IMAGES)


@pytest.mark.parametrize("n_rows", [1, 60])
def test_and_the_reverse(n_rows):
    detector = LikelihoodDetector(GLOW(n_bins=None), random_state=0).fit(IMAGES / 255)
    (message,) = warned(detector.predict, IMAGES[:n_rows])
    assert "0 to 255" in message or n_rows == 1
    assert "in training they went from 0 to 1" in message


@pytest.mark.parametrize("name", ["OODDetector, images", "ComplexityDetector, images", "TransformDetector, images"])
def test_of_detectors_on_images(name):
    images = IMAGES.reshape(-1, 2, 2)
    detector = DETECTORS[name](GaussianMixture(reg_covar=1e-3), random_state=0).fit(images)
    assert any(
        "values go from 0 to 1, in training they went" in text for text in warned(detector.predict, images / 255)
    )
    assert not warned(detector.predict, images)


def test_tables_of_another_range():
    X = RNG.normal([1000, 2000, 3000], [20, 300, 100], size=(200, 3))
    detector = OODDetector(random_state=0).fit(X)
    check_range(detector, X / 1000, "another range")
    check_range(detector, X * 1000, "another range")
    check_range(detector, (X - X.mean(0)) / X.std(0), "another range", "in training they went from")
    reverse = OODDetector(random_state=0).fit((X - X.mean(0)) / X.std(0))
    assert "in training they went from" in warned(reverse.predict, X)[0]


def test_the_ordinary_is_not_warned_of():
    digits = load_digits().images
    X, other = digits[:200], digits[200:300]
    rng = np.random.default_rng(0)
    detectors = [
        LikelihoodDetector(GLOW(n_bins=17), random_state=0).fit(X),
        OODDetector(random_state=0).fit(X.reshape(200, -1)),
    ]
    sets = {
        "other digits": other,
        "inverted": 16 - other,
        "darker": other // 2,
        "much darker": other // 8,
        "black": np.zeros_like(other),
        "white": np.full_like(other, 16),
        "noise": rng.integers(0, 17, other.shape),
        "noise between whole numbers": rng.uniform(0, 16, other.shape),
        "one outlier": np.where(np.arange(100)[:, None, None] == 3, 16.0, other),
    }
    for detector, as_rows in zip(detectors, (False, True), strict=True):
        for name, images in sets.items():
            found = warned(detector.predict, images.reshape(100, -1) if as_rows else images)
            assert not found, name
    table = rng.normal(size=(200, 3))
    detector = OODDetector(random_state=0).fit(table)
    for rows in (
        table + 5,
        table * 3,
        table * 0.1,
        table[:5] * 1e6,
        np.zeros((50, 3)),
        np.vstack([table, 1e6 + table[:9]]),
    ):
        assert not warned(detector.predict, rows)
