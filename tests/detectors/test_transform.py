import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flowdetect import AddNoise, Flip, GlowDensity, Rotate90, TransformDetector, Translate, load
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
    np.testing.assert_allclose(detector.score_samples(RAMP), np.round(expected, 6))


def test_shakes_put_whole_patches_elsewhere():
    for height, width, channels in [(28, 28, 1), (32, 32, 3), (6, 9, 2), (1, 5, 1), (7, 1, 1), (7, 7, 1), (11, 13, 3)]:
        down, across = (max((n for n in (2, 3, 4) if side % n == 0), default=min(4, side)) for side in (height, width))
        rows, columns = height // down * down, width // across * across
        numbers = np.full((height, width), -1)  # what is left over stays
        inside = np.arange(down)[:, None] * across + np.arange(across)
        numbers[:rows, :columns] = np.kron(inside, np.ones((height // down, width // across), dtype=int))
        patch = np.repeat(numbers.ravel(), channels)
        for order in shakes((height, width, channels)):
            assert sorted(order) == list(range(height * width * channels))
            assert (order != np.arange(len(order))).any()
            stays = patch == -1
            np.testing.assert_array_equal(order[stays], np.flatnonzero(stays))
            moved = patch[order].reshape(height, width, channels)[:rows, :columns]
            cells = moved.reshape(down, height // down, across, width // across, channels)
            assert (cells == cells[:, :1, :, :1, :1]).all()  # each place holds pixels of one patch


@pytest.mark.parametrize("side", [2, 3, 5, 7, 11, 13, 29])
@pytest.mark.parametrize("transforms", ["stirring", "shaking"])
def test_no_image_stays_as_it_is(side, transforms):
    X = rng.normal(size=(30, side * 2))
    density = FrozenEstimator(GaussianMixture(reg_covar=0.1, random_state=0).fit(X + np.arange(side * 2)))
    detector = TransformDetector(density, transforms=transforms, image_shape=(side, 2)).fit(X)
    assert (detector.score_samples(X) != 0).all()


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
    np.testing.assert_array_equal(detector.score_samples(X), np.round(expected, 6))
    detector.save(tmp_path / "detector.safetensors")
    again = load(tmp_path / "detector.safetensors")
    np.testing.assert_array_equal(again.score_samples(X), detector.score_samples(X))


class Fold(TransformerMixin, BaseEstimator):
    """What it is given to fit comes back as it was, anything else as zeros."""

    def fit(self, X, y=None):
        self.seen_ = {row.tobytes() for row in X}
        return self

    def transform(self, X):
        return np.array([row if row.tobytes() in self.seen_ else np.zeros_like(row) for row in X])


@pytest.mark.parametrize("frozen", [True, False])
def test_transformers_do_not_see_the_rows_that_calibrate(frozen):
    density = gaussian() if frozen else clone(gaussian().estimator)
    detector = TransformDetector(density, transforms=(Fold(),), calibration_fraction=0.3, random_state=0).fit(RAMP)
    fresh = np.arange(16)[None] + rng.normal(size=(300, 16))
    assert np.mean(detector.p_values(fresh) <= 0.1) == pytest.approx(0.1, abs=0.08)


def test_transformers_hear_of_the_bins_and_get_images():
    X = rng.integers(0, 4, (80, 4, 4))
    flow = GlowDensity(n_bins=4, n_steps=1, hidden_channels=4, max_epochs=1, random_state=0)
    turned = make_pipeline(Flip(), AddNoise(0.1, random_state=0))
    by_images = TransformDetector(flow, transforms=(turned,), random_state=0).fit(X)
    noise = by_images.transforms_[0][-1]
    assert (noise.n_bins_, noise.image_shape_) == (4, (4, 4, 1))
    by_rows = TransformDetector(flow, transforms=(turned,), image_shape=(4, 4), random_state=0).fit(X.reshape(80, 16))
    np.testing.assert_array_equal(by_rows.score_samples(X.reshape(80, 16)), by_images.score_samples(X))


def test_images_of_more_than_8_bits_are_stirred():
    X = rng.integers(0, 4096, (40, 4, 4))
    flow = GlowDensity(n_bins=4096, n_steps=1, hidden_channels=4, max_epochs=1, random_state=0)
    assert np.isfinite(TransformDetector(flow, random_state=0).fit(X).score_samples(X)).all()


def test_transformers_that_turn_the_shape():
    density = GaussianMixture(reg_covar=0.1)
    for turn in (Rotate90(), make_pipeline(Flip(), Rotate90(3))):
        with pytest.raises(ValueError, match=r"keep the images' shape, \(2, 8, 1\), got Rotate90\(.*swaps height"):
            TransformDetector(density, transforms=(turn,), image_shape=(2, 8)).fit(RAMP)
    TransformDetector(density, transforms=(Rotate90(2),), image_shape=(2, 8)).fit(RAMP)
    with pytest.raises(ValueError, match=r"keep the shape, got \(2,\) for \(16,\) from PCA"):
        TransformDetector(density, transforms=(PCA(2),)).fit(RAMP)


@pytest.mark.parametrize("image_shape", [(1, 8, 2), (4, 4), None])
def test_transformers_within_pipelines_and_frozen_ones(image_shape):
    flip = FrozenEstimator(Flip(image_shape=image_shape).fit(RAMP))
    scores = [
        TransformDetector(gaussian(), transforms=(each,), image_shape=image_shape).fit(RAMP).score_samples(RAMP)
        for each in (Flip(), flip, make_pipeline(StandardScaler(with_mean=False, with_std=False), Flip()))
    ]
    np.testing.assert_allclose(scores[1:], [scores[0]] * 2, atol=2e-6)


def test_transformers_get_seeds():
    scores = [
        TransformDetector(gaussian(), transforms=(AddNoise(0.1),), random_state=seed).fit(RAMP).score_samples(RAMP)
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert (scores[0] != scores[2]).any()


@pytest.mark.parametrize("transforms", ["stirring", "shaking"])
def test_one_pixel(transforms):
    with pytest.raises(ValueError, match="at least two pixels to change places, got one, of 3 feature"):
        TransformDetector(GaussianMixture(), transforms=transforms, image_shape=(1, 1, 3)).fit(RAMP[:, :3])


@pytest.mark.parametrize("transforms", ["stirred", (), ("stirring",), None, (Flip,)])
def test_bad_transforms(transforms):
    with pytest.raises(ValueError, match="TransformDetector needs transforms="):
        TransformDetector(GaussianMixture(), transforms=transforms).fit(RAMP)
