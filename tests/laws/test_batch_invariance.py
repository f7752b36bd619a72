"""A row scores bitwise the same in any batch: networks wide enough for every kernel, and for its threads."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from density_table import DIGITS, glow, pixelcnn, tarflow, vae


def digits_flow():
    return glow(n_bins=17, n_steps=2, hidden_channels=32, random_state=0).fit(DIGITS[:200]), DIGITS[:1000]


def table_flow():
    rows = np.random.default_rng(1).normal(size=(1200, 5))
    return glow(n_steps=3, hidden_channels=32, random_state=0).fit(rows[:200]), rows


def digits_pixelcnn():
    density = pixelcnn(variant="pixelcnn++", n_bins=17, n_filters=16, random_state=0)
    return density.fit(DIGITS[:200]), DIGITS[:1000]


def digits_gated():
    density = pixelcnn(likelihood="categorical", n_bins=17, n_filters=16, random_state=0)
    return density.fit(DIGITS[:200]), DIGITS[:1000]


def digits_rectified():
    density = pixelcnn(
        variant="rectified", likelihood="stretched_mixture", n_bins=17, n_filters=16, n_mixtures=3, random_state=0
    )
    return density.fit(DIGITS[:200]), DIGITS[:1000]


def table_pixelcnn():
    rows = np.random.default_rng(1).normal(size=(1200, 5))
    return pixelcnn(n_filters=32, random_state=0).fit(rows[:200]), rows


def digits_tarflow():
    density = tarflow(n_bins=17, hidden_channels=32, random_state=0)
    return density.fit(DIGITS[:200]), DIGITS[:1000]


def table_tarflow():
    rows = np.random.default_rng(1).normal(size=(1200, 5))
    return tarflow(hidden_channels=32, random_state=0).fit(rows[:200]), rows


def digits_posterior():
    density = vae(posterior="iaf", n_bins=17, random_state=0)
    return density.fit(DIGITS[:200]), DIGITS[:1000]


MAKERS = [
    *(digits_flow, table_flow, digits_pixelcnn, digits_gated, digits_rectified, table_pixelcnn),
    *(digits_tarflow, table_tarflow, digits_posterior),
]


@pytest.fixture(params=MAKERS, scope="module")
def scored(request):
    density, X = request.param()
    return density, X, density.score_samples(X)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


class TestBatchInvariance:
    @pytest.mark.parametrize("batch_size", [1, 7, 63, 65, 1000])
    def test_batch_size(self, scored, batch_size):
        density, X, scores = scored
        starts = range(0, len(X), batch_size) if batch_size > 1 else range(0, len(X), 50)
        for start in starts:
            part = slice(start, start + batch_size)
            np.testing.assert_array_equal(density.score_samples(X[part]), scores[part])

    @pytest.mark.parametrize("place", [0, 499, -1])
    def test_place(self, scored, place):
        density, X, scores = scored
        others = X[:500].copy()
        others[place] = X[700]
        assert density.score_samples(others)[place] == scores[700]

    @pytest.mark.parametrize("n_threads", [1, 2, 3])
    def test_threads(self, scored, threads, n_threads):
        density, X, scores = scored
        threads(n_threads)
        np.testing.assert_array_equal(density.score_samples(X), scores)
        np.testing.assert_array_equal(density.score_samples(X[:1]), scores[:1])

    @pytest.mark.parametrize("n_threads", [1, 3])
    def test_another_process(self, scored, tmp_path, n_threads):
        density, X, scores = scored
        density.save(tmp_path / "density")
        np.save(tmp_path / "X.npy", X[:65])
        code = "import flowdetect, numpy as np; score = flowdetect.load('density').score_samples"
        code += "; np.save('scores.npy', score(np.load('X.npy')))"
        environment = {**os.environ, "OMP_NUM_THREADS": str(n_threads)}
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
        np.testing.assert_array_equal(np.load(tmp_path / "scores.npy"), scores[:65])

    def test_dtype_and_layout(self, scored):
        density, X, scores = scored
        for same in (X.astype(np.float64), X.reshape(len(X), -1), np.asfortranarray(X), X.reshape(len(X), -1).tolist()):
            np.testing.assert_array_equal(density.score_samples(same), scores)
