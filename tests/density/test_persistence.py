"""Saved files: equal to the last bit, whole or refused, and never run."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from safetensors.numpy import load as read_safetensors
from safetensors.numpy import save as to_safetensors
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import flowdetect
from flowdetect import ComplexityDetector, GlowDensity, LikelihoodDetector, RealNVPDensity, _persistence, _tensor_file
from flowdetect.sit import Translate, ZeroLatents

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(40, 4))
IMAGES = RNG.integers(0, 17, size=(40, 4, 4)).astype(np.uint8)
SMALL = {"n_steps": 1, "hidden_channels": 8, "max_epochs": 1, "random_state": 0}


def glow(**parameters):
    return GlowDensity(**{**SMALL, **parameters})


def realnvp():
    return RealNVPDensity(n_bins=17, factorization="random", n_blocks=1, **SMALL)


def gaussian():
    return GaussianMixture(random_state=0)


def with_constant_columns():
    return np.c_[np.full(40, 7.0), TABLE, np.zeros(40)]


# name -> estimator, X, y
FITTED = {
    "table": lambda: (glow(), TABLE, None),
    "images": lambda: (glow(n_bins=17), IMAGES, None),
    "conditional": lambda: (glow(conditional=True), TABLE, RNG.integers(0, 3, 40)),
    "conditional on words": lambda: (glow(conditional=True), TABLE, pd.Series(["cat", "dog"] * 20, dtype=object)),
    "frame": lambda: (glow(), pd.DataFrame(TABLE, columns=list("abcd")), None),
    "big endian": lambda: (glow(), TABLE.astype(">f8"), None),
    "long double parameter": lambda: (glow(learning_rate=np.longdouble("1e-3")), TABLE, None),
    "numpy parameters": lambda: (glow(n_steps=np.int64(1), learning_rate=np.float64(1e-3)), TABLE, None),
    "long double": lambda: (glow(), TABLE.astype(np.longdouble), None),
    "16-bit images": lambda: (glow(n_bins=1000), IMAGES.astype(np.uint16) * 50, None),
    "likelihood of a flow": lambda: (LikelihoodDetector(glow(), random_state=0), TABLE, None),
    "likelihood of a frozen flow": lambda: (LikelihoodDetector(FrozenEstimator(glow().fit(TABLE))), TABLE, None),
    "likelihood of a mixture": lambda: (LikelihoodDetector(gaussian(), random_state=0), TABLE, None),
    "likelihood of a frozen mixture": lambda: (LikelihoodDetector(FrozenEstimator(gaussian().fit(TABLE))), TABLE, None),
    "likelihood of a pipeline": lambda: (
        LikelihoodDetector(make_pipeline(StandardScaler(), glow()), random_state=0),
        TABLE,
        None,
    ),
    "complexity of images": lambda: (ComplexityDetector(glow(n_bins=17), random_state=0), IMAGES, None),
    "complexity of a table": lambda: (ComplexityDetector(gaussian(), random_state=0), TABLE, None),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """A whole file, as bytes."""
    path = tmp_path_factory.mktemp("whole") / "file"
    glow().fit(TABLE).save(path)
    return path.read_bytes()


def parameters(estimator):
    return {name: str(value) for name, value in estimator.get_params().items()}


@pytest.mark.parametrize("name", FITTED)
@pytest.mark.parametrize("way", ["save", "pickle", "joblib", "skops"])
def test_round_trip(name, way, path):
    estimator, X, y = FITTED[name]()
    estimator.fit(X, y)
    before = estimator.score_samples(X)
    if way == "save":
        estimator.save(path)
        restored = flowdetect.load(str(path))
    elif way == "pickle":
        restored = pickle.loads(pickle.dumps(estimator))
    elif way == "joblib":
        joblib.dump(estimator, path)
        restored = joblib.load(path, mmap_mode="r")  # read-only arrays
    else:
        skops.io.dump(estimator, path)
        restored = skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))
    assert type(restored) is type(estimator)
    np.testing.assert_array_equal(restored.score_samples(X), before)
    np.testing.assert_array_equal(estimator.score_samples(X), before)
    assert parameters(restored) == parameters(estimator)
    assert set(vars(restored)) == set(vars(estimator))


@pytest.mark.parametrize("name", ["table", "images", "conditional", "conditional on words"])
def test_a_loaded_density_does_all_that_the_original_does(name, path):
    density, X, y = FITTED[name]()
    density.fit(X, y).save(path)
    restored = flowdetect.load(path)
    for method in ("transform", "bits_per_dim", "layer_gradient_norms"):
        np.testing.assert_array_equal(getattr(restored, method)(X, y), getattr(density, method)(X, y))
    np.testing.assert_array_equal(restored.sample(5, random_state=0), density.sample(5, random_state=0))
    assert restored.latent_slices_ == density.latent_slices_
    assert restored.history_ == density.history_
    restored.save(path)
    np.testing.assert_array_equal(flowdetect.load(path).score_samples(X), density.score_samples(X))
    np.testing.assert_array_equal(restored.fit(X, y).score_samples(X), density.score_samples(X))


@pytest.mark.filterwarnings("ignore:.*constant")
def test_constant_columns(path):
    X = with_constant_columns()
    density = glow().fit(X)
    density.save(path)
    samples = flowdetect.load(path).sample(3, random_state=0)
    np.testing.assert_array_equal(samples, density.sample(3, random_state=0))
    np.testing.assert_array_equal(samples[:, [0, 5]], [[7, 0]] * 3)


def test_unfitted_estimators(path):
    for estimator in (glow(checkpoint=Path("some") / "where"), LikelihoodDetector(gaussian()), Translate(dx=1)):
        _persistence.save(estimator, path)
        restored = flowdetect.load(path)
        assert repr(restored) == repr(estimator)
        assert not hasattr(restored, "n_features_in_")
    _persistence.save(ZeroLatents(FrozenEstimator(glow().fit(TABLE)), n_factors=1), path)
    assert flowdetect.load(path).flow.estimator.n_features_in_ == 4


@pytest.mark.parametrize("name", ["table", "images", "conditional on words", "likelihood of a mixture", "factored"])
def test_a_large_file_is_compared_before_it_is_read(path, monkeypatch, name):
    monkeypatch.setattr(_tensor_file, "READ_AT_ONCE", 0)
    monkeypatch.setattr(_tensor_file, "PREVIEWED", 4000)  # bytes; some arrays are then placeholders
    estimator, X, y = FITTED[name]() if name in FITTED else (realnvp(), IMAGES, None)
    estimator.fit(X, y).save(path)
    np.testing.assert_array_equal(flowdetect.load(path).score_samples(X), estimator.score_samples(X))
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="corrupt: its content does not match its checksum"):
        flowdetect.load(path)


def test_arrays_are_the_same_in_another_process(path):
    density = glow().fit(TABLE)
    density.save(path)
    code = f"import flowdetect; print(flowdetect.load({str(path)!r}).sample(1, random_state=0).tolist())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == density.sample(1, random_state=0).tolist()


def test_a_device_that_is_not_there_is_replaced(path):
    density = glow().fit(TABLE)
    density.device = "cuda:99"
    density.save(path)
    restored = flowdetect.load(path)
    assert restored.device == "cuda:99"
    np.testing.assert_array_equal(restored.score_samples(TABLE), density.score_samples(TABLE))


class TestRefusals:
    @pytest.mark.parametrize("share", np.linspace(0, 0.9999, 25))
    def test_truncated(self, content, path, share):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match="not a flowdetect file|is incomplete"):
            flowdetect.load(path)

    def test_truncated_by_one_byte_or_longer_by_one(self, content, path):
        for changed in (content[:-1], content + b"\0"):
            path.write_bytes(changed)
            with pytest.raises(ValueError, match="is incomplete"):
                flowdetect.load(path)

    @pytest.mark.parametrize("bit", range(8))
    def test_flipped_bits(self, content, path, bit):
        places = np.random.default_rng(bit).choice(len(content), 150, replace=False)
        for place in [*range(8), *places]:
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            with pytest.raises(ValueError, match="nothing was loaded|Update flowdetect|choose another file"):
                flowdetect.load(path)

    def test_every_digit_of_the_header(self, content, path):
        end = 8 + int.from_bytes(content[:8], "little")
        for place in [place for place in range(8, end) if chr(content[place]).isdigit()][::7]:
            changed = bytearray(content)
            changed[place] = ord("7") if changed[place] != ord("7") else ord("5")
            path.write_bytes(changed)
            with pytest.raises(ValueError, match="nothing was loaded|Update flowdetect"):
                flowdetect.load(path)

    @pytest.mark.parametrize("foreign", [b"", b"\0" * 100, b"PK\x03\x04" * 9, b"{}", to_safetensors({"a": np.ones(2)})])
    def test_foreign(self, path, foreign):
        path.write_bytes(foreign)
        with pytest.raises(ValueError, match="not a flowdetect file"):
            flowdetect.load(path)

    @pytest.mark.parametrize("missing", ["no such file", "."])
    def test_cannot_be_read(self, tmp_path, missing):
        with pytest.raises(OSError, match="No such file|directory"):
            flowdetect.load(tmp_path / missing)

    @pytest.mark.parametrize(
        ("parameters", "word"),
        [
            ({"random_state": np.random.RandomState(0)}, "RandomState"),  # noqa: NPY002
            ({"checkpoint": object()}, "object"),
            ({"n_steps": -1}, "n_steps"),
        ],
    )
    def test_what_a_file_does_not_keep(self, path, parameters, word):
        with pytest.raises(ValueError, match=word):
            glow(**parameters).save(path)
        assert not path.exists()


class Bomb:
    """Whoever unpickles it leaves a trace."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (self.trace,)


def forge(path, tree, arrays=None):
    """Write a file that is whole and has our mark, but holds a tree of somebody else's making."""
    _tensor_file.write(path, "estimator", {"estimator": tree}, arrays or {})


class TestNothingIsRun:
    def test_a_pickle(self, path, tmp_path):
        trace = tmp_path / "trace"
        path.write_bytes(pickle.dumps(Bomb(str(trace))))
        with pytest.raises(ValueError, match="not a flowdetect file"):
            flowdetect.load(path)
        assert not trace.exists()

    def test_a_pickle_inside(self, path, tmp_path):
        trace = tmp_path / "trace"
        bomb = np.frombuffer(pickle.dumps(Bomb(str(trace))), np.uint8)
        for tree in ({"skops": "a"}, {"array": "a"}, {"estimator": "GlowDensity", "state": {"array": "a"}}):
            forge(path, tree, {"a": bomb})
            try:
                flowdetect.load(path)
            except Exception as error:
                assert type(error) is ValueError  # noqa: PT017, since an array by itself is no mistake
            assert not trace.exists()

    @pytest.mark.parametrize("name", ["Popen", "subprocess.Popen", "os.system", "BaseDensity", "__class__", ""])
    def test_a_class_outside_the_list(self, path, name):
        forge(path, {"estimator": name, "state": {"dict": []}})
        with pytest.raises(ValueError, match="does not have"):
            flowdetect.load(path)

    @pytest.mark.parametrize("tree", [{"estimator": "GlowDensity"}, {}, {"array": "none"}, {"slice": 3}, {"dict": [1]}])
    def test_a_tree_that_is_broken(self, path, tree):
        forge(path, tree)
        with pytest.raises(ValueError, match="not a complete flowdetect file"):
            flowdetect.load(path)

    def test_foreign_types_that_nobody_trusts(self, path):
        detector = LikelihoodDetector(KernelDensity()).fit(TABLE)
        detector.save(path)
        with pytest.raises(ValueError, match=r"KDTree.*load\(path, trusted=\[") as caught:
            flowdetect.load(path)
        trusted = str(caught.value).partition("trusted=[")[2].partition("]")[0].replace("'", "").split(", ")
        restored = flowdetect.load(path, trusted=trusted)
        np.testing.assert_array_equal(restored.score_samples(TABLE), detector.score_samples(TABLE))

    def test_a_pickle_and_a_file_hold_no_torch_object(self, content):
        density = glow().fit(TABLE)
        assert b"torch" not in pickle.dumps(density)
        assert all(isinstance(value, np.ndarray) for value in density.__getstate__()["weights_"].values())
        assert all(isinstance(value, np.ndarray) for value in read_safetensors(content).values())


class TestAtomicity:
    @pytest.mark.parametrize("failing", ["fsync", "replace"])
    @pytest.mark.parametrize("old", [True, False])
    def test_a_failed_write_leaves_the_old_file(self, path, monkeypatch, failing, old):
        density = glow().fit(TABLE)
        if old:
            density.save(path)
        before = path.read_bytes() if old else None

        def fail(*arguments):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, failing, fail)
        with pytest.raises(OSError, match="No space left"):
            glow(random_state=1).fit(TABLE).save(path)
        monkeypatch.undo()
        assert [file.name for file in path.parent.iterdir()] == (["file"] if old else [])
        if old:
            assert path.read_bytes() == before
            np.testing.assert_array_equal(flowdetect.load(path).score_samples(TABLE), density.score_samples(TABLE))

    def test_saving_writes_over_an_older_file(self, path):
        path.write_bytes(b"older")
        glow().fit(TABLE).save(path)
        assert isinstance(flowdetect.load(path), GlowDensity)
        assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_every_public_estimator_can_be_saved():
    classes = {name for name in flowdetect.__all__ if isinstance(getattr(flowdetect, name), type)}
    estimators = {name for name in classes if hasattr(getattr(flowdetect, name), "fit")}
    of_pyod = {"FlowOD", "PyODDetector"}  # kept as pyod keeps its models, and with the user's trust in them
    parts = {"Members", "ImageStatistics", "PrincipalNeighbors"}  # of ensembles, and of OODDetector on images
    assert estimators - of_pyod == set(_persistence.OURS) - parts
