"""Damaged and forged files, drawn with a seed: refused, or a model that scores; within seconds and little memory.

FLOWDETECT_FUZZ multiplies the number of cases; `make fuzz` runs the whole numbers.
"""

import copy
import io
import json
import os
import signal
import warnings
import zipfile
from pathlib import Path

import numpy as np
import peak_memory
import pytest
from safetensors.numpy import load as tensors_of
from safetensors.numpy import save as to_safetensors
from sklearn.mixture import GaussianMixture

import flowdetect
from flowdetect import (
    EnsembleDensity,
    GlowDensity,
    LikelihoodDetector,
    MAFDensity,
    NeighborsDensity,
    OODDetector,
    PixelCNNDensity,
    RealNVPDensity,
    TypicalityDetector,
    VAEDensity,
    _tensor_file,
)

MANY = int(os.environ.get("FLOWDETECT_FUZZ", "1"))
SECONDS, MEBIBYTES = 5, 200
RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(60, 3))
IMAGES = RNG.integers(0, 4, size=(40, 4, 4)).astype(np.uint8)
LABELS = np.array(["cat", "dog"] * 20)
SHARED = {"max_epochs": 1, "random_state": 0}
FLOW = {"n_steps": 1, "hidden_channels": 4, **SHARED}
MAF = {"n_transforms": 1, "hidden_features": (8,), **SHARED}

WHOLE = {
    "glow": lambda: GlowDensity(**FLOW).fit(TABLE),
    "glow of labelled images": lambda: GlowDensity(n_bins=4, conditional=True, **FLOW).fit(IMAGES, LABELS),
    "realnvp": lambda: RealNVPDensity(**{**FLOW, "n_steps": 2}).fit(TABLE),
    "pixelcnn": lambda: PixelCNNDensity(n_bins=4, n_filters=4, n_blocks=1, **SHARED).fit(IMAGES),
    "maf": lambda: MAFDensity(**MAF).fit(TABLE),
    "vae": lambda: VAEDensity(n_bins=4, latent_dim=2, hidden_channels=4, **SHARED).fit(IMAGES),
    "neighbors": lambda: NeighborsDensity().fit(TABLE),
    "ensemble": lambda: EnsembleDensity(MAFDensity(**MAF), 2, random_state=0).fit(TABLE),
    "likelihood of a mixture": lambda: LikelihoodDetector(GaussianMixture(random_state=0), random_state=0).fit(TABLE),
    "typicality of a flow": lambda: TypicalityDetector(GlowDensity(**FLOW), random_state=0).fit(TABLE),
    "recommended": lambda: OODDetector(random_state=0).fit(TABLE),
}
JUNK = [
    *(None, True, False, 0, -1, 1, 2, 1.5, -0.0, 1e308, float("nan"), float("inf"), 10**7, 10**12, 10**30, -(10**9)),
    *("", "x", "auto", "../x", "\0", "é" * 9, "fit", "Popen", [], [[]], [1] * 50, {}, {"dict": []}, {"tuple": [1, 2]}),
    *({"array": "nowhere"}, {"strings": ["a"], "object": True}, {"slice": [0, 1]}, {"path": "/dev/zero"}),
    *({"estimator": "GlowDensity", "state": {"dict": []}}, {"frozen": None}, {"skops": "nowhere"}),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Bytes of whole files of several estimators."""
    folder, found = tmp_path_factory.mktemp("whole"), {}
    for name, fitted in WHOLE.items():
        path = folder / name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted().save(path)
        found[name] = path.read_bytes()
    return found


def taken_apart(content):
    text = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]["flowdetect"]
    return json.loads(text), dict(tensors_of(content))


def put_together(header, arrays):
    """Write a file with a valid checksum, whatever it holds."""
    text = json.dumps(header)
    arrays = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    return to_safetensors(arrays, metadata={"flowdetect": text, "sha256": _tensor_file._digest(text, arrays)})


def places(tree, path=()):
    """Every place of a tree, by the keys that lead there."""
    yield path
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in entries:
        yield from places(value, (*path, key))


def at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def mutated_tree(header, random):
    header = copy.deepcopy(header)
    for _ in range(random.integers(1, 4)):
        found = [path for path in places(header) if path]
        path = found[random.integers(len(found))]
        parent, key = at(header, path[:-1]), path[-1]
        kind = random.integers(5)
        if kind == 0:
            del parent[key]
        elif kind == 1:
            other = found[random.integers(len(found))]
            parent[key] = copy.deepcopy(at(header, other))
        elif kind == 2 and isinstance(key, str):
            parent[key + "_"] = parent.pop(key)
        elif isinstance(parent[key], int | float) and random.random() < 0.5:
            parent[key] = parent[key] * random.choice([-1, 0, 2, 10**6]) + random.choice([0, 1])
            parent[key] = parent[key].item() if isinstance(parent[key], np.generic) else parent[key]
        else:
            parent[key] = copy.deepcopy(JUNK[random.integers(len(JUNK))])
    return header


def mutated_arrays(arrays, random):
    arrays = dict(arrays)
    name = sorted(arrays)[random.integers(len(arrays))]
    value = arrays[name]
    kind = random.integers(7)
    if kind == 0:
        del arrays[name]
    elif kind == 1:
        arrays[name + "x"] = arrays.pop(name)
    elif kind == 2:
        arrays[name] = value.astype(random.choice(["float64", "float16", "int8", "bool", "uint8"]))
    elif kind == 3:
        arrays[name] = value.reshape(-1)[: value.size // 2]
    elif kind == 4:
        arrays[name] = np.concatenate([value.reshape(-1)] * 2)
    elif value.size:
        flat = np.array(value).reshape(-1)
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            flat[random.integers(flat.size)] = np.array(random.choice([np.nan, np.inf, -1e30, 1e9, 0.0])).astype(
                flat.dtype
            )
        arrays[name] = flat.reshape(value.shape)
    return arrays


def mutated_bytes(content, random):
    changed = bytearray(content)
    kind = random.integers(5)
    if kind == 0:
        return bytes(changed[: random.integers(len(changed))])
    place = int(random.integers(len(changed) if kind < 3 else min(len(changed), 600)))
    if kind == 1:
        del changed[place : place + int(random.integers(1, 64))]
    elif kind == 2:
        changed[place:place] = random.bytes(int(random.integers(1, 64)))
    else:
        changed[place] = int(random.integers(256))
    return bytes(changed)


def mutated(content, random):
    kind = random.integers(10)
    if kind < 2:
        return mutated_bytes(content, random)
    header, arrays = taken_apart(content)
    if kind < 4 and arrays:
        return put_together(header, mutated_arrays(arrays, random))
    return put_together(mutated_tree(header, random), arrays)


class TooSlow(BaseException):
    """Raised by the alarm: no handler of `load` may take it for its own."""


def within_limits(load):
    """Call it; it must end within the seconds and the memory that a file may cost."""

    def alarm(*_):
        raise TooSlow

    before = peak_memory.reset()
    old = signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, 6 * SECONDS)
    started = os.times().user + os.times().system
    try:
        return load()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        assert os.times().user + os.times().system - started < SECONDS
        assert peak_memory.most() - before < MEBIBYTES


def outcome(path, X):
    """Load a file and score; say what became of it."""
    try:
        estimator = within_limits(lambda: flowdetect.load(path))
    except (ValueError, OSError):
        return "refused"
    try:
        scores = estimator.score_samples(X)
    except (ValueError, AttributeError) as error:  # not fitted, or to other data
        return f"loaded: {type(error).__name__}"
    assert np.isfinite(scores).all()
    return "scores"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WHOLE)
def test_mutated_files(whole, tmp_path, name):
    random = np.random.default_rng(sorted(WHOLE).index(name))
    X = IMAGES[:2] if "images" in name or name in ("pixelcnn", "vae") else TABLE[:2]
    path, counts = tmp_path / "file", {}
    for _ in range(max(1, 455 * MANY // 20)):
        content = mutated(whole[name], random)
        path.write_bytes(content)
        try:
            found = outcome(path, X)
        except BaseException:
            Path(os.environ.get("FLOWDETECT_FUZZ_KEEP", tmp_path), "found").write_bytes(content)
            raise
        counts[found] = counts.get(found, 0) + 1
    assert counts.get("refused", 0) > 0
    print(name, counts)  # noqa: T201, for `make fuzz`


class TestCheckpoints:
    """Checkpoints with a valid checksum, of this training or nearly."""

    @pytest.fixture(scope="class")
    def checkpoint(self, tmp_path_factory):
        path = tmp_path_factory.mktemp("checkpoint") / "file"
        RealNVPDensity(checkpoint=path, **self.SETTINGS).fit(TABLE)
        return path.read_bytes()

    SETTINGS = {**FLOW, "n_steps": 2, "max_epochs": 2, "batch_size": 19}

    @pytest.mark.filterwarnings("ignore")
    def test_mutated(self, checkpoint, tmp_path):
        random, counts = np.random.default_rng(7), {}
        path = tmp_path / "file"
        for i in range(max(1, 1000 * MANY // 20)):
            content = mutated(checkpoint, random)
            path.write_bytes(content)
            density = RealNVPDensity(checkpoint=path, **{**self.SETTINGS, "max_epochs": 2 + i % 2})
            try:
                within_limits(lambda density=density: density.fit(TABLE))
            except (ValueError, OSError) as error:
                found, told = "refused", str(error)
                assert not hasattr(density, "model_")
            else:
                found, told = "trained", str(path)
                assert np.isfinite(density.score_samples(TABLE)).all()
            assert str(path) in told
            counts[found] = counts.get(found, 0) + 1
        assert counts["refused"] > 0
        print(counts)  # noqa: T201, for `make fuzz`


class TestArchives:
    """Archives of images, damaged and forged."""

    @pytest.mark.filterwarnings("ignore")
    def test_mutated(self, tmp_path, monkeypatch):
        monkeypatch.setenv("FLOWDETECT_DATA", str(tmp_path))
        random, counts, path = np.random.default_rng(8), {}, tmp_path / "mnist.npz"
        images, labels = random.integers(0, 256, (20, 28, 28)).astype(np.uint8), np.arange(20)
        for _ in range(max(1, 500 * MANY // 20)):
            path.write_bytes(forged_archive(images, labels, random))
            try:
                X, y = within_limits(lambda: flowdetect.load_images("mnist"))
            except (ValueError, OSError) as error:
                found, told = "refused", str(error)
            else:
                found, told = "loaded", "mnist"
                assert X.dtype == np.uint8
                assert X.shape[1:] == (28, 28)
                assert len(X) == len(y)
            assert "mnist" in told
            counts[found] = counts.get(found, 0) + 1
        assert counts["refused"] > 0
        print(counts)  # noqa: T201, for `make fuzz`


def forged_archive(images, labels, random):
    """Make an archive in which one thing is wrong: a byte, a member, or what a member declares."""
    kind = random.integers(8)
    file = io.BytesIO()
    if kind < 4:
        save = np.savez if kind % 2 else np.savez_compressed
        save(file, X_train=images, y_train=labels)
        return mutated_bytes(file.getvalue(), random)
    members = {"X_train.npy": as_npy(images), "y_train.npy": as_npy(labels)}
    name = random.choice(sorted(members))
    if kind == 4:
        members[name] = mutated_bytes(members[name], random)
    elif kind == 5:
        members[name] = random.choice([b"", b"text", b"\x93NUMPY\x01\x00\xff\xff"])
    elif kind == 6:
        shape = random.choice(["(1000000000000, 28, 28)", "(20, 28)", "(-1, 28, 28)", "()", "(20, 28, 28, 0)"])
        members[name] = members[name].replace(b"(20, 28, 28)", shape.encode()).replace(b"(20,)", shape.encode())
    else:
        odd = random.choice([0, 1, 2, 3])
        values = [np.zeros((2**26,), np.uint8), np.array([{}], dtype=object), images.astype(float), labels.astype(str)]
        members[name] = as_npy(values[odd])
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def as_npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()
