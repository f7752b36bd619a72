import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture

from flowdetect import Flip, GlowDensity, TransformDetector, Translate, load
from flowdetect.detectors.transform import shakes

rng = np.random.default_rng(0)
RAMP = np.arange(16)[None] + rng.normal(size=(200, 16))  # (n, 4 * 4), brighter downwards


def gaussian():
    return FrozenEstimator(GaussianMixture(reg_covar=0.1, random_state=0).fit(RAMP))


def test_score_is_what_turning_over_costs():
    density = gaussian()
    detector = TransformDetector(density, image_shape=(4, 4)).fit(RAMP)
    images = RAMP.reshape(-1, 4, 4)
    turned = [images[:, :, ::-1], images[:, ::-1], images[:, ::-1, ::-1]]
    expected = density.score_samples(RAMP) - np.mean(
        [density.score_samples(each.reshape(-1, 16)) for each in turned], axis=0
    )
    np.testing.assert_allclose(detector.score_samples(RAMP), expected)


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (6, 9, 2), (1, 5, 1), (7, 1, 1)])
def test_shakes_put_whole_patches_elsewhere(shape):
    height, width, channels = shape
    down, across = (max(n for n in (1, 2, 3, 4) if side % n == 0) for side in (height, width))
    numbers = np.arange(down)[:, None] * across + np.arange(across)
    patch = np.repeat(np.kron(numbers, np.ones((height // down, width // across), dtype=int)).ravel(), channels)
    for order in shakes(shape):
        assert sorted(order) == list(range(np.prod(shape)))
        moved = patch[order].reshape(down, height // down, across, width // across, channels)
        assert (moved == moved[:, :1, :, :1, :1]).all()  # each place holds pixels of one patch


@pytest.mark.parametrize("transforms", ["stirring", "shaking"])
def test_what_hangs_together_is_told_from_what_does_not(transforms):
    detector = TransformDetector(gaussian(), transforms=transforms, image_shape=(4, 4)).fit(RAMP)
    flat = np.full((50, 16), 7.5) + rng.normal(size=(50, 16))
    assert detector.p_values(flat).max() < 0.02


def test_own_transformers_and_images(tmp_path):
    X = rng.integers(0, 4, (80, 4, 4))
    flow = GlowDensity(n_bins=4, n_steps=1, hidden_channels=4, max_epochs=1, random_state=0)
    detector = TransformDetector(flow, transforms=(Translate(dx=1), Flip()), random_state=0).fit(X)
    expected = detector.density_.score_samples(X) - np.mean(
        [detector.density_.score_samples(each.fit_transform(X)) for each in (Translate(dx=1), Flip())], axis=0
    )
    np.testing.assert_array_equal(detector.score_samples(X), expected)
    detector.save(tmp_path / "detector.safetensors")
    again = load(tmp_path / "detector.safetensors")
    np.testing.assert_array_equal(again.score_samples(X), detector.score_samples(X))


@pytest.mark.parametrize("transforms", ["stirred", (), ("stirring",), None])
def test_bad_transforms(transforms):
    with pytest.raises(ValueError, match="TransformDetector needs transforms="):
        TransformDetector(GaussianMixture(), transforms=transforms).fit(RAMP)
