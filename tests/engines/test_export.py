"""Every density in every format that it claims, on tables and on images: scores agree, others are refused."""

import warnings
from functools import partial

import numpy as np
import onnxruntime
import pytest
import torch
from density_table import DENSITIES
from sklearn.frozen import FrozenEstimator
from smallest_densities import SMALLEST

import flowdetect
from flowdetect import (
    EnsembleDensity,
    GlowDensity,
    LikelihoodDetector,
    LikelihoodRatioDetector,
    NeighborsDensity,
    OODDetector,
    PixelCNNDensity,
    ScaleDetector,
    TypicalityDetector,
    WAICDetector,
)
from flowdetect.density.export import FORMATS, ROUNDING, TOLERANCE

RNG = np.random.default_rng(0)
TABLE, LABELS = RNG.normal(size=(60, 3)) * [1, 10, 0.1] + [0, 100, 0], np.arange(60) % 2
IMAGES = RNG.integers(0, 5, size=(40, 2, 2)).astype(np.uint8)
REAL_IMAGES = RNG.normal(size=(40, 4, 4))
OTHERS = {
    "NeighborsDensity": NeighborsDensity,
    "EnsembleDensity": partial(EnsembleDensity, NeighborsDensity(), 2, random_state=0),
}
VARIANTS = {
    variant: partial(SMALLEST["PixelCNNDensity"], variant=variant)
    for variant in ("pixelcnn", "local", "gated", "rectified", "pixelcnn++")
}
IN_FULL = ["RealNVP, splines, real-valued images", "VAE, iaf posterior, colour, torch, two draws", "PixelRNN, digits"]


def ran(path, X):
    """What a file gives for rows, all at once and the first alone."""
    X = np.asarray(X, dtype=np.float64)
    if path.suffix == ".pt2":
        module = torch.export.load(path).module()
        return [[found.numpy() for found in module(torch.from_numpy(rows))] for rows in (X, X[:1])]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [session.run(None, {"X": rows}) for rows in (X, X[:1])]


def check(density, X, tmp_path):
    expected = density._score_without_noise(X)
    allowed = TOLERANCE + ROUNDING * np.maximum(np.abs(expected), int(np.prod(np.shape(X[0]))))
    for format in FORMATS:
        path = tmp_path / f"graph.{'pt2' if format == 'torch' else format}"
        if format not in density.export_formats:
            with pytest.raises(ValueError, match=f"cannot be exported with format='{format}'"):
                density.export(path, format=format)
            continue
        density.export(path, format=format)
        (scores,), (alone,) = ran(path, X)
        assert (np.abs(scores - expected) <= allowed).all()
        assert np.abs(alone - expected[:1]) <= allowed[0]


def test_every_density_is_here():
    public = {name for name in flowdetect.__all__ if name.endswith("Density")}
    assert set(SMALLEST) | set(OTHERS) == public


@pytest.mark.parametrize("name", [*SMALLEST, *OTHERS])
def test_a_table(name, tmp_path):
    make = {**SMALLEST, **OTHERS}[name]
    far = 5 * (TABLE - TABLE.mean(0)) + TABLE.mean(0)  # where log(sigmoid(x)) loses its digits
    check(make().fit(TABLE), np.concatenate([TABLE, far]), tmp_path)


@pytest.mark.parametrize("name", SMALLEST)
def test_a_table_by_class(name, tmp_path):
    check(SMALLEST[name](conditional=True).fit(TABLE, LABELS), TABLE, tmp_path)


@pytest.mark.parametrize("name", [*SMALLEST, *VARIANTS])
def test_images_in_bins(name, tmp_path):
    check({**SMALLEST, **VARIANTS}[name](n_bins=5).fit(IMAGES), IMAGES, tmp_path)


@pytest.mark.parametrize("name", IN_FULL)
def test_some_cases_of_the_table_of_laws(name, tmp_path):
    case = DENSITIES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        density = case.make(random_state=0, max_epochs=1).fit(case.X, case.y)
    check(density, case.X, tmp_path)


def test_what_iaf_solves_value_by_value_is_refused_where_it_is_long(tmp_path):
    density = SMALLEST["IAFDensity"](n_bins=2).fit(RNG.integers(0, 2, size=(20, 65)))
    assert density.export_formats == ()
    check(density, np.zeros((1, 65)), tmp_path)


def verdicts(detector, X, tmp_path):
    for format in FORMATS:
        path = tmp_path / f"graph.{'pt2' if format == 'torch' else format}"
        detector.export(path, format=format)
        (score, p_value, label), _ = ran(path, X)
        np.testing.assert_allclose(score, detector.score_samples(X), rtol=1e-6, atol=1e-5)
        np.testing.assert_array_equal(p_value, detector.p_values(X))
        np.testing.assert_array_equal(label, detector.predict(X))


@pytest.mark.parametrize(
    "kind", [LikelihoodDetector, TypicalityDetector, LikelihoodRatioDetector, partial(WAICDetector, n_members=2)]
)
def test_detectors_of_a_trained_density(kind, tmp_path):
    detector = kind(SMALLEST["MAFDensity"](), random_state=0).fit(TABLE)
    verdicts(detector, TABLE + 0.01, tmp_path)


NEIGHBORS = NeighborsDensity().fit(TABLE)
OF_NEIGHBORS = {
    "scales": WAICDetector(FrozenEstimator(NEIGHBORS)),
    "ratio": LikelihoodRatioDetector(NeighborsDensity(), random_state=0),
    "ensemble": LikelihoodDetector(EnsembleDensity(NeighborsDensity(), 2), random_state=0),
    "recommended": OODDetector(random_state=0),
    "recommended, folds": OODDetector(random_state=0, cv=3),
}


@pytest.mark.parametrize("name", OF_NEIGHBORS)
def test_detectors_of_neighbours(name, tmp_path):
    verdicts(OF_NEIGHBORS[name].fit(TABLE), TABLE + 0.01, tmp_path)


def test_the_last_scale_of_a_flow(tmp_path):
    flow = GlowDensity(n_levels=2, n_steps=1, hidden_channels=4, conditional=True, max_epochs=1, random_state=0)
    detector = ScaleDetector(flow, random_state=0).fit(REAL_IMAGES, np.arange(40) % 2)
    verdicts(detector, REAL_IMAGES + 0.01, tmp_path)


def test_images_without_noise(tmp_path):
    detector = LikelihoodDetector(PixelCNNDensity(n_bins=5, n_filters=4, n_blocks=1, max_epochs=1, random_state=0))
    verdicts(detector.fit(IMAGES), RNG.integers(0, 5, size=(30, 2, 2)).astype(np.uint8), tmp_path)
