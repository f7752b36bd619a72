"""memory_efficient=True as a parameter of flows: the same training but for rounding, files, several processes."""

from pathlib import Path

import numpy as np
import pytest

from flowdetect import GlowDensity, load, load_images
from flowdetect.density import _training

SETTINGS = {
    **{"n_bins": 17, "n_steps": 2, "hidden_channels": 8, "max_epochs": 2, "batch_size": 63, "device": "cpu"},
    **{"precision": "float32", "random_state": 0},
}
X = load_images("digits")[0][:200]


def test_training_ends_at_the_same_weights_but_for_rounding():
    plain, little = (GlowDensity(memory_efficient=how, **SETTINGS).fit(X) for how in (False, True))
    assert little.score(X) == pytest.approx(plain.score(X), rel=1e-4)


def test_files_from_before_the_parameter_are_loaded():
    old = load(Path(__file__).parent.parent / "data" / "glow_table.safetensors")
    assert old.memory_efficient is False
    assert old.set_params(warm_start=True)._fitted_params["memory_efficient"] is False


def test_a_warm_start_may_change_it():
    density = GlowDensity(**SETTINGS).fit(X)
    before = density.score(X)
    density.set_params(warm_start=True, memory_efficient=True).fit(X)
    assert density.score(X) > before
    assert density.model_.flow.levels[0].memory_efficient


def test_few_large_images_set_the_first_parameters(monkeypatch):
    seen = []
    initialize = _training.DensityModel.initialize
    monkeypatch.setattr(_training, "FIRST_VALUES", 100 * X[0].size)
    monkeypatch.setattr(
        "flowdetect.density.flow.FlowModel.initialize",
        lambda self, x, *rest: seen.append(len(x)) or initialize(self, x, *rest),
    )
    GlowDensity(**SETTINGS).fit(X)
    monkeypatch.setattr(_training, "FIRST_VALUES", 1)
    GlowDensity(**SETTINGS).fit(X)
    assert seen == [100, 63]


@pytest.mark.slow
def test_two_processes_train_the_model_of_one():
    one, two = (GlowDensity(memory_efficient=True, n_devices=n, **SETTINGS).fit(X) for n in (1, 2))
    assert np.mean(two.bits_per_dim(X)) == pytest.approx(np.mean(one.bits_per_dim(X)), abs=0.001)
