"""Sources of rows: memory maps and datasets are read a few rows at a time, and memory does not grow with the rows."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from flowdetect import GlowDensity, LikelihoodDetector, PixelCNNDensity, load_images
from flowdetect._datasets import DatasetSource
from flowdetect._rows import is_dataset
from flowdetect._sources import ArraySource, Subset, chunks, sample_rows

DIGITS, LABELS = load_images("digits")
SMALL = {"n_steps": 1, "hidden_channels": 8, "max_epochs": 1, "random_state": 0}


class Images:
    """A map-style dataset of (image, label) pairs, as torch's are."""

    def __init__(self, images, as_tensor):
        self.images, self.as_tensor, self.read = images, as_tensor, []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        self.read.append(i)
        image = self.images[i]
        return (torch.from_numpy(image)[None] if self.as_tensor else image), 0


@pytest.mark.parametrize("as_tensor", [False, True], ids=["arrays", "tensors"])
def test_a_dataset_is_fitted_and_scored_as_its_array(as_tensor):
    X = torch.from_numpy(DIGITS[:100])[:, None] if as_tensor else DIGITS[:100]
    expected = GlowDensity(n_bins=17, **SMALL).fit(X)
    dataset = Images(DIGITS[:100], as_tensor)
    density = GlowDensity(n_bins=17, **SMALL).fit(dataset)
    np.testing.assert_array_equal(density.score_samples(DIGITS[:50]), expected.score_samples(DIGITS[:50]))
    np.testing.assert_array_equal(density.score_samples(dataset), expected.score_samples(X))
    samples = density.sample(2, random_state=0)
    assert type(samples) is type(expected.sample(2, random_state=0))
    assert samples.shape == expected.sample(2, random_state=0).shape


def test_an_empty_dataset_is_refused():
    with pytest.raises(ValueError, match="0 sample"):
        GlowDensity(**SMALL).fit(Images(DIGITS[:0], False))


def test_what_is_a_dataset():
    assert is_dataset(Images(DIGITS, False))
    assert is_dataset(torch.utils.data.TensorDataset(torch.zeros(3, 2)))
    for other in (DIGITS, DIGITS.tolist(), torch.zeros(3), "text", {"a": 1}, (1, 2), 5):
        assert not is_dataset(other)


def test_sources_read_what_is_asked():
    source = ArraySource(DIGITS)
    np.testing.assert_array_equal(source.rows(np.array([3, 1])), DIGITS[[3, 1]].reshape(2, 64))
    part = Subset(source, np.array([5, 6, 9]))
    np.testing.assert_array_equal(part.rows(np.array([2, 0])), DIGITS[[9, 5]].reshape(2, 64))
    parts = dict(chunks(part, 2))
    assert {start: len(rows) for start, rows in parts.items()} == {0: 2, 2: 1}
    assert 50 < len(sample_rows(source, 100)) <= 100
    assert len(DatasetSource(Images(DIGITS[:7], True))) == 7


@pytest.mark.parametrize("shape", [(200, 6), (200, 8, 8)])
def test_a_memory_map_is_fitted_as_its_array(shape, tmp_path):
    X = np.random.default_rng(0).normal(size=shape)
    mapped = np.memmap(tmp_path / "X", dtype=X.dtype, mode="w+", shape=shape)
    mapped[:] = X
    expected, found = (GlowDensity(**SMALL).fit(rows).score_samples(rows) for rows in (X, mapped))
    np.testing.assert_array_equal(found, expected)


MEMORY = """
import resource, sys
import numpy as np
from flowdetect import {names}
from lightning_fabric import Fabric
kind, path = sys.argv[1:]
def peak():
    return int([line for line in open("/proc/self/status") if line.startswith("RssAnon")][0].split()[1]) / 1024
import threading, time
highest = [0.0]
def watch():
    while True:
        highest[0] = max(highest[0], peak())
        time.sleep(0.005)
threading.Thread(target=watch, daemon=True).start()
{code}
"""


def measured(code, *args, names="GlowDensity, PixelCNNDensity, LikelihoodDetector"):
    """Run code that prints MiB of anonymous memory."""
    script = MEMORY.format(names=names, code=code)
    done = subprocess.run(
        [sys.executable, "-c", script, *args],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [float(line) for line in done.stdout.split()]


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads Linux's /proc")
@pytest.mark.parametrize("kind", ["images", "table"])
def test_memory_of_scoring_does_not_grow_with_the_rows(kind, tmp_path):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (40_000, 12, 12)).astype(np.uint8) if kind == "images" else rng.normal(size=(200_000, 8))
    np.save(tmp_path / "X.npy", X)
    code = """
X = np.load(path, mmap_mode="r")
density = GlowDensity(n_steps=1, hidden_channels=4, max_epochs=1, batch_size=256, random_state=0).fit(X[:512])
density.score_samples(X[:2000])
for n in (2000, len(X)):
    highest[0] = 0.0
    density.score_samples(X[:n])
    time.sleep(0.05)
    print(highest[0])
"""
    few, many = measured(code, kind, str(tmp_path / "X.npy"))
    assert many < few + 10  # MiB; the rows are 5.5 MiB of bytes, 44 of float64, or 12 MiB


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads Linux's /proc")
def test_memory_of_fitting_does_not_grow_with_the_rows(tmp_path):
    X = np.random.default_rng(0).normal(size=(400_000, 16)).astype(np.float32)  # 24 MiB, 49 in float64
    np.save(tmp_path / "X.npy", X)
    code = """
X = np.load(path, mmap_mode="r")
def fit(rows):
    GlowDensity(n_steps=1, hidden_channels=4, max_epochs=1, batch_size=len(rows) // 8, random_state=0).fit(rows)
fit(X[:16_000])
for n in (16_000, len(X)):
    highest[0] = 0.0
    GlowDensity(n_steps=1, hidden_channels=4, max_epochs=1, batch_size=2000, random_state=0).fit(X[:n])
    time.sleep(0.05)
    print(highest[0])
"""
    few, many = measured(code, "table", str(tmp_path / "X.npy"))
    assert many < few + 20  # MiB: order, split and indices of the rows, 8 bytes each


def test_a_detector_scores_a_memory_map(tmp_path):
    X = np.random.default_rng(0).normal(size=(200, 3))
    mapped = np.memmap(tmp_path / "X", dtype=X.dtype, mode="w+", shape=X.shape)
    mapped[:] = X
    detector = LikelihoodDetector(
        PixelCNNDensity(n_filters=4, n_blocks=1, max_epochs=1, random_state=0), random_state=0
    )
    np.testing.assert_array_equal(detector.fit(mapped).score_samples(mapped), detector.score_samples(X))
