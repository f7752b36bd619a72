"""Graphs of scores in torch's format, and one in ONNX: the answers are ours, and what has no graph says why."""

import json
import sys
import zipfile
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture

from flowdetect import (
    ComplexityDetector,
    DoSEDetector,
    EnsembleDensity,
    LikelihoodDetector,
    LikelihoodRatioDetector,
    NeighborsDensity,
    OODDetector,
    PixelCNNDensity,
    RadialDensity,
    TypicalityDetector,
    WAICDetector,
)
from flowdetect.density import export
from flowdetect.density.graphs import count_at_most

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 3)) * [1, 1e-3, 10] + [0, 1e4, 0]  # the second column is far from 0: float32 alone loses it
NEW = RNG.normal(size=(40, 3)) * [1, 1e-3, 10] + [0, 1e4, 0]
IMAGES = RNG.integers(0, 8, size=(40, 4, 4)).astype(np.uint8)
radial = partial(RadialDensity, n_steps=2, max_epochs=1, batch_size=16, random_state=0)
pixelcnn = partial(PixelCNNDensity, n_bins=8, n_filters=4, n_blocks=1, max_epochs=1, random_state=0)


def exported(estimator, tmp_path):
    """The function of arrays that is in the file of an estimator."""
    path = tmp_path / "graph.pt2"
    estimator.export(path)
    module = torch.export.load(path).module()
    return lambda rows: [found.numpy() for found in module(torch.from_numpy(np.asarray(rows, float).copy()))]


def answers(estimator, rows, tmp_path):
    """What the file of an estimator gives for rows."""
    return exported(estimator, tmp_path)(rows)


def test_any_number_of_rows_in_the_data_s_units_classes_summed_over_constants_left_out(tmp_path):
    rows, new = (np.column_stack([values, np.full(len(values), 7.0)]) for values in (X, NEW))
    with pytest.warns(UserWarning, match="constant"):
        density = radial(conditional=True).fit(rows, np.arange(80) % 3)
    graph = exported(density, tmp_path)
    for n_rows in (1, 2, 40):
        (score,) = graph(new[:n_rows])
        np.testing.assert_allclose(score, density.score_samples(new[:n_rows]), rtol=0, atol=1e-5)
        assert score.dtype == np.float64


@pytest.mark.parametrize(
    "layout",
    [IMAGES.reshape(40, 16), torch.from_numpy(RNG.integers(0, 8, size=(40, 2, 4, 4)))],
    ids=["rows", "nchw"],
)
def test_images_come_in_the_layout_of_the_training_data(layout, tmp_path):
    density = pixelcnn(image_shape=(4, 4) if layout.ndim == 2 else None).fit(layout)
    (score,) = answers(density, layout, tmp_path)
    np.testing.assert_allclose(score, density.score_samples(layout), rtol=0, atol=1e-4)  # of some 100 nats


def test_noise_stays_outside(tmp_path):
    density = radial(n_bins=8).fit(IMAGES)
    expected = density.score_samples(IMAGES, dequantize=False)
    np.testing.assert_allclose(answers(density, IMAGES, tmp_path)[0], expected, rtol=0, atol=1e-4)
    detector = LikelihoodDetector(density, prefit=True).fit(IMAGES)
    with pytest.raises(ValueError, match=r"uses noise keyed by the row.*dequantize=False"):
        detector.export(tmp_path / "detector.pt2")


def test_a_row_that_is_refused_has_no_score(tmp_path):
    density = pixelcnn().fit(IMAGES)
    rows = np.repeat(IMAGES[:1].astype(float), 4, axis=0)
    rows[0, 0, 0], rows[1, 0, 0], rows[2, 0, 0] = np.nan, np.inf, 16.0  # beyond one value range outside
    (score,) = answers(density, rows, tmp_path)
    assert np.isnan(score[:2]).all()
    assert score[2] == -np.inf
    assert np.isfinite(score[3])


DETECTORS = {
    "typicality": TypicalityDetector(NeighborsDensity(), random_state=0),
    "WAIC": WAICDetector(NeighborsDensity(contamination=0.1), n_members=2, random_state=0),
    "recommended, outliers": OODDetector(contamination=0.1, random_state=0),
    "folds": LikelihoodDetector(NeighborsDensity(), cv=2, random_state=0),
}


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_s_verdicts_are_in_its_graph(name, tmp_path):
    detector = DETECTORS[name].fit(X)
    rows = np.concatenate([NEW, [[1e3, 1e4, 0], [1e200, 1e4, 0]]])
    graph = exported(detector, tmp_path)
    score, p_value, label = graph(rows)
    np.testing.assert_allclose(score[:40], detector.score_samples(rows)[:40], rtol=0, atol=1e-5)
    np.testing.assert_allclose(score, detector.score_samples(rows), rtol=1e-6, atol=1e-5)
    np.testing.assert_array_equal(p_value, detector.p_values(rows))
    np.testing.assert_array_equal(label, detector.predict(rows))
    score, p_value, label = (found[0] for found in graph([[np.nan, 1e4, 0]]))
    assert np.isnan([score, p_value]).all()
    assert label == -1


def test_another_value_in_a_constant_column_is_an_outlier(tmp_path):
    names = ["a", "b", "c", "d"]
    detector = OODDetector(random_state=0).fit(pd.DataFrame(np.column_stack([X, np.full(80, 7.0)]), columns=names))
    new = pd.DataFrame(np.column_stack([NEW[:2], [7.0, 8.0]]), columns=names)
    score, p_value, label = answers(detector, new, tmp_path)
    np.testing.assert_allclose(score, detector.score_samples(new), rtol=1e-12)
    assert score[1] == score.min() == -1e250
    np.testing.assert_array_equal(p_value, detector.p_values(new))
    assert label[1] == -1
    with zipfile.ZipFile(tmp_path / "graph.pt2") as file:  # it tells what it is
        (name,) = [name for name in file.namelist() if name.endswith("flowdetect.json")]
        told = json.loads(file.read(name))
    outputs = ["score", "p_value", "label"]
    assert told == {"estimator": "OODDetector", "outputs": outputs, "row_shape": [4], "columns": names}


@pytest.mark.parametrize("n_known", [1, 2, 7, 8, 9, 1000])
def test_a_search_in_plain_operators_counts_as_searchsorted(n_known):
    known = np.sort(RNG.integers(0, 50, n_known).astype(float))
    scores = np.concatenate([known, known + 0.5, [-1.0, 99.0, -np.inf, np.inf]])
    found = count_at_most(torch.from_numpy(known), torch.from_numpy(scores)).numpy()
    np.testing.assert_array_equal(found, np.searchsorted(known, scores, side="right"))


def test_training_rows_are_scored_by_the_others_in_a_graph_too(tmp_path):
    rows = np.concatenate([X, X[:3]])  # the first three twice
    for density in (NeighborsDensity(), NeighborsDensity(contamination=0.1), NeighborsDensity([1, 500])):
        density.fit(rows)
        np.testing.assert_allclose(answers(density, rows, tmp_path)[0], density.score_samples(rows), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("detector", "told"),
    [
        (ComplexityDetector(radial(), random_state=0), "codecs"),
        (DoSEDetector(radial(), random_state=0), "kernel densities"),
        (LikelihoodDetector(GaussianMixture(), random_state=0), "no density of flowdetect"),
        (
            LikelihoodRatioDetector(radial(), GaussianMixture(), random_state=0),
            "densities of flowdetect whose score_samples",
        ),
        (LikelihoodDetector(FrozenEstimator(EnsembleDensity(GaussianMixture(), 2).fit(X))), "no density of flowdetect"),
    ],
)
def test_what_has_no_graph_is_refused_by_name(detector, told, tmp_path):
    with pytest.raises(TypeError, match=told):
        detector.fit(X).export(tmp_path / "graph.pt2")
    assert not list(tmp_path.iterdir())


def test_wrong_calls_write_nothing(tmp_path, monkeypatch):
    density = NeighborsDensity().fit(X)
    with pytest.raises(ValueError, match=r'format="torch" or "onnx", got \'pickle\''):
        density.export(tmp_path / "graph.pt2", format="pickle")
    with pytest.raises(ValueError, match=r'end in "\.pt2"'):
        density.export(tmp_path / "graph")
    with pytest.raises(FileNotFoundError, match="folder does not exist"):
        density.export(tmp_path / "none" / "graph.pt2")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"flowdetect-ood\[onnx\]"):
        density.export(tmp_path / "graph.onnx", format="onnx")
    monkeypatch.setattr(type(density), "not_exported", {"torch": "a reason."})
    assert density.export_formats == ("onnx",)
    with pytest.raises(ValueError, match=r"NeighborsDensity cannot be exported with format='torch': a reason\."):
        density.export(tmp_path / "graph.pt2")
    assert not list(tmp_path.iterdir())


def test_a_file_that_scores_otherwise_is_not_put_in_place(tmp_path, monkeypatch):
    density, path = NeighborsDensity().fit(X), tmp_path / "graph.pt2"
    density.export(path)
    before = path.read_bytes()
    ours = density._score_without_noise
    monkeypatch.setattr(density, "_score_without_noise", lambda rows: ours(rows) + 1e-4)
    with pytest.raises(RuntimeError, match="scores must equal those of score_samples"):
        density.export(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_answer_does_not_follow_from_other_scores(tmp_path, monkeypatch):
    detector = OODDetector(random_state=0).fit(X)
    monkeypatch.setattr(export.VerdictOutput, "forward", wrong_labels(export.VerdictOutput.forward))
    with pytest.raises(RuntimeError, match="do not follow"):
        detector.export(tmp_path / "graph.pt2")
    assert not list(tmp_path.iterdir())


def wrong_labels(forward):
    def wrong(self, X):
        score, p_value, label = forward(self, X)
        return score, p_value, -label

    return wrong


def test_onnx_gives_the_same_verdicts(tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    detector = OODDetector(random_state=0).fit(X)
    detector.export(tmp_path / "graph.onnx", format="onnx")
    session = onnxruntime.InferenceSession(tmp_path / "graph.onnx", providers=["CPUExecutionProvider"])
    for rows in (NEW[:1], NEW):
        score, p_value, label = session.run(["score", "p_value", "label"], {"X": rows})
        np.testing.assert_allclose(score, detector.score_samples(rows), rtol=0, atol=1e-5)
        np.testing.assert_array_equal(p_value, detector.p_values(rows))
        np.testing.assert_array_equal(label, detector.predict(rows))
