"""Frames of polars as X, and frames as output: what pandas' give, names kept and checked, nothing changed inside."""

import functools
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
from detector_table import ASK_FOR_MORE, DETECTORS, Asked
from sit_table import SITS
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from smallest_densities import SMALLEST

from flowdetect import (
    EnsembleDensity,
    LikelihoodDetector,
    MAFDensity,
    NeighborsDensity,
    OODDetector,
    PyODDetector,
    Translate,
    explain,
    ood_report,
    second_order_gap,
    sit_report,
)

polars = pytest.importorskip("polars")

RNG = np.random.default_rng(0)
NAMES = ["a", "b", "c", "d"]
X = RNG.normal(size=(60, 4)).round(2)
PANDAS, POLARS = pd.DataFrame(X, columns=NAMES), polars.DataFrame(X, schema=NAMES)
COUNTS = RNG.integers(0, 200, size=(60, 4)).astype(np.uint8)
DENSITIES = {
    **SMALLEST,
    "NeighborsDensity": NeighborsDensity,
    "EnsembleDensity": lambda: EnsembleDensity(SMALLEST["MAFDensity"](), 2, random_state=0),
}
TABLES = {name: make for name, make in (DETECTORS | ASK_FOR_MORE).items() if not name.endswith("images")}
TABLES["PyODDetector"] = None
TABLES["OODDetector"] = None


def detector(name, density=Asked):
    if name == "OODDetector":
        return OODDetector(random_state=0)
    if name == "PyODDetector":
        from pyod.models.knn import KNN

        return PyODDetector(KNN(), random_state=0)
    return TABLES[name](density(), random_state=0, calibration_fraction=0.5)


@functools.cache
def fitted(name):
    return DENSITIES[name]().fit(PANDAS)


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*few distinct values")
        yield


def check_names(estimator):
    assert list(estimator.feature_names_in_) == NAMES
    with pytest.raises(ValueError, match="feature names"):
        estimator.score_samples(POLARS[["b", "a", "c", "d"]])


@pytest.mark.parametrize("name", DENSITIES)
def test_a_density_of_polars_is_that_of_pandas(name):
    density = DENSITIES[name]().fit(POLARS)
    expected = fitted(name).score_samples(PANDAS)
    np.testing.assert_array_equal(density.score_samples(POLARS), expected)
    np.testing.assert_array_equal(density.score_samples(PANDAS), expected)
    check_names(density)


@pytest.mark.parametrize("values", [X, COUNTS], ids=["real", "bytes"])
@pytest.mark.parametrize("name", TABLES)
def test_a_detector_of_polars_is_that_of_pandas(name, values):
    frames = pd.DataFrame(values, columns=NAMES), polars.DataFrame(values, schema=NAMES)
    found = [detector(name).fit(frame) for frame in frames]
    for method in ("score_samples", "p_values"):
        expected, got = (getattr(each, method)(frame) for each, frame in zip(found, frames, strict=True))
        np.testing.assert_array_equal(got, expected)
    check_names(found[1])


def test_explanations_of_polars_are_those_of_pandas():
    found = [OODDetector(random_state=0).fit(frame).explain(frame[:3]).to_frame() for frame in (PANDAS, POLARS)]
    assert isinstance(found[1], pd.DataFrame)
    pd.testing.assert_frame_equal(*found)
    pipelines = [make_pipeline(StandardScaler(), OODDetector(random_state=0)).fit(frame) for frame in (PANDAS, POLARS)]
    through = [explain(pipe, frame[:3], frame).to_frame() for pipe, frame in zip(pipelines, (PANDAS, POLARS), strict=1)]
    pd.testing.assert_frame_equal(*through)


def test_reports_of_polars_are_those_of_pandas():
    mixture = GaussianMixture(random_state=0).fit(PANDAS)
    maf = fitted("MAFDensity")
    found = [
        (
            ood_report({"mixture": mixture}, frame[:30], {"out": frame[30:]}, n_bootstrap=10).to_frame(),
            sit_report({"maf": maf}, frame[:30], [Translate(dx=1)], X_out=frame[30:], n_bootstrap=10).to_frame(),
            second_order_gap(maf, frame[:30], frame[30:]),
        )
        for frame in (PANDAS, POLARS)
    ]
    pd.testing.assert_frame_equal(*(ood.drop(columns="ms_per_image") for ood, _, _ in found))
    pd.testing.assert_frame_equal(*(sit for _, sit, _ in found))
    for name in ("measured", "first_order", "second_order"):
        assert getattr(found[1][2], name) == pytest.approx(getattr(found[0][2], name))


# ---- frames as output


@pytest.mark.parametrize("container", ["pandas", "polars"])
@pytest.mark.parametrize("name", [name for name in SITS if name != "zero-latents-none"])
def test_sits_give_frames(name, container):
    sit, frame = SITS[name](), {"pandas": PANDAS, "polars": POLARS}[container]
    expected = sit.fit(X).transform(X)
    got = sit.set_output(transform=container).fit(frame).transform(frame)
    assert type(got) is type(frame)
    assert list(got.columns) == list(sit.get_feature_names_out()) == NAMES
    np.testing.assert_allclose(got.to_numpy(), expected, rtol=1e-12)  # a frame's columns are added up in another order


@pytest.mark.parametrize("container", ["pandas", "polars"])
@pytest.mark.parametrize("name", [name for name in SMALLEST if hasattr(SMALLEST[name](), "transform")])
def test_latents_come_as_frames(name, container):
    frame = {"pandas": PANDAS, "polars": POLARS}[container]
    density = SMALLEST[name]().set_output(transform=container).fit(frame)
    latents = density.transform(frame)
    assert type(latents) is type(frame)
    assert list(latents.columns) == list(density.get_feature_names_out())
    np.testing.assert_array_equal(latents.to_numpy(), fitted(name).transform(PANDAS))


# ---- the user's setting for the whole process


@pytest.mark.parametrize("container", ["pandas", "polars"])
@pytest.mark.parametrize("name", DENSITIES)
def test_the_output_set_for_the_process_changes_no_density(name, container):
    with sklearn.config_context(transform_output=container):
        density = DENSITIES[name]().fit(PANDAS)
        np.testing.assert_array_equal(density.score_samples(PANDAS), fitted(name).score_samples(PANDAS))
        if hasattr(density, "inverse_transform"):
            density.inverse_transform(density.transform(POLARS[:5]))
        if hasattr(density, "interpolate"):
            density.interpolate(PANDAS[:2], PANDAS[2:4], 3)


# detectors: laws/test_detector_fits.py


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_the_output_set_for_the_process_changes_no_explanation(container):
    detector = OODDetector(random_state=0).fit(X)
    scaler = StandardScaler().set_output(transform="default")
    pipeline = make_pipeline(scaler, OODDetector(random_state=0)).fit(POLARS)
    before = detector.explain(X[:2]), explain(pipeline, POLARS[:2], POLARS)
    with sklearn.config_context(transform_output=container):
        after = detector.explain(X[:2]), explain(pipeline, POLARS[:2], POLARS)
    for found, expected in zip(after, before, strict=True):
        np.testing.assert_array_equal(found.gains, expected.gains)


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_the_output_set_for_the_process_changes_no_report(container):
    maf = fitted("MAFDensity")

    def report():
        found = sit_report({"maf": maf}, X[:30], [Translate(dx=1)], X_out=X[30:], n_bootstrap=10).to_frame()
        return found, ood_report({"maf": maf}, X[:30], {"out": X[30:]}, n_bootstrap=10).to_frame()["auroc"].tolist()

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        expected = report()
        with sklearn.config_context(transform_output=container):
            found = report()
    pd.testing.assert_frame_equal(found[0], expected[0])
    assert found[1] == expected[1]


def test_a_pipeline_that_gives_polars_ends_in_a_density():
    scaler = StandardScaler().set_output(transform="polars")
    for last in (MAFDensity(max_epochs=1), LikelihoodDetector(GaussianMixture()), OODDetector()):
        pipeline = make_pipeline(scaler, last).fit(POLARS)
        assert list(pipeline[-1].feature_names_in_) == NAMES
        assert np.isfinite(pipeline.score_samples(POLARS)).all()
