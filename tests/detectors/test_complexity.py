import importlib.util
import io

import imagecodecs
import numpy as np
import pandas as pd
import PIL.features
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.base import BaseEstimator
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture

from flowdetect import EnsembleDensity
from flowdetect.detectors import ComplexityDetector, LikelihoodDetector, OODDetector
from flowdetect.detectors.codecs import CODECS, encode
from flowdetect.detectors.complexity import _mixture

DIGITS = load_digits().data[:200]  # (200, 64), whole numbers 0..16


class FlatDensity(BaseEstimator):
    """Gives every row the same log-likelihood, so that code lengths are all that a score shows."""

    def __init__(self, n_bins=None, log_likelihood=0.0):
        self.n_bins = n_bins
        self.log_likelihood = log_likelihood

    def fit(self, X, y=None):
        self.n_bins_ = self.n_bins
        return self

    def score_samples(self, X):
        return np.full(len(X), self.log_likelihood)


def fitted(X, density=None, **parameters):
    return ComplexityDetector(FlatDensity(256) if density is None else density, random_state=0, **parameters).fit(X)


def textures(blur, n, seed):
    """Gray images (n, 16, 16) of noise, blurred; a blur of 0 is noise, one of 3 is smooth."""
    noise = np.random.default_rng(seed).normal(size=(n, 16, 16))
    smooth = gaussian_filter(noise, (0, blur, blur)) * (1 + 1.5 * blur)
    return np.clip(128 + 20 * smooth, 0, 255).astype(np.uint8)


def decode(code, mode):
    if code[:2] == b"\xff\x0a" or code[4:8] == b"JXL ":
        return imagecodecs.jpegxl_decode(code)
    return np.asarray(Image.open(io.BytesIO(code)).convert(mode))


class TestCodecs:
    @pytest.mark.parametrize("codec", CODECS)
    @given(
        height=st.integers(1, 70),
        width=st.integers(1, 70),
        channels=st.sampled_from([1, 3]),
        n_values=st.sampled_from([1, 2, 16, 256]),
        seed=st.integers(0, 99),
    )
    def test_lossless_at_every_size(self, codec, height, width, channels, n_values, seed):
        shape = (height, width) if channels == 1 else (height, width, 3)
        image = np.random.default_rng(seed).integers(0, n_values, shape).astype(np.uint8)
        np.testing.assert_array_equal(decode(encode(image, codec), "L" if channels == 1 else "RGB"), image)

    def test_length_is_that_of_the_shortest_file(self):
        X = textures(1, 6, seed=0)
        each = [[8 * len(encode(image, codec)) for codec in ("png", "webp", "jpeg2000")] for image in X]
        np.testing.assert_array_equal(fitted(X).code_lengths(X), np.min(each, axis=1))
        np.testing.assert_array_equal(fitted(X, codecs=["png"]).code_lengths(X), np.array(each)[:, 0])

    def test_jpeg_xl_is_one_of_the_codecs(self):
        X = textures(3, 4, seed=0)
        lengths = fitted(X, codecs=("jpegxl",)).code_lengths(X)
        np.testing.assert_array_equal(lengths, [8 * len(encode(image, "jpegxl")) for image in X])
        both = np.minimum(lengths, fitted(X).code_lengths(X))
        np.testing.assert_array_equal(fitted(X, codecs=CODECS).code_lengths(X), both)

    def test_rows_are_coded_in_parts(self, monkeypatch):
        X = textures(1, 9, seed=0)
        detectors = fitted(X), fitted(X.reshape(9, -1) / 7)
        whole = [detector.code_lengths(X.reshape(9, -1)) for detector in detectors]
        monkeypatch.setattr("flowdetect.detectors.complexity.CODED_AT_ONCE", 4)
        for detector, lengths in zip(detectors, whole, strict=True):
            np.testing.assert_array_equal(detector.code_lengths(X.reshape(9, -1)), lengths)

    def test_noise_is_longer_than_texture_and_texture_than_a_flat_image(self):
        X = np.concatenate([np.full((1, 16, 16), 99, np.uint8), textures(3, 1, 0), textures(0, 1, 0)])
        assert np.all(np.diff(fitted(X).code_lengths(X)) > 0)


class TestScore:
    def test_bits_of_the_density_plus_bits_of_the_codec(self):
        detector = fitted(DIGITS, GaussianMixture(reg_covar=1.0), image_shape=(8, 8))
        bits = detector.density_.score_samples(DIGITS) / np.log(2)
        np.testing.assert_allclose(detector.score_samples(DIGITS) - detector.code_lengths(DIGITS), bits)

    def test_likelihood_prefers_smooth_outliers_and_complexity_turns_that_round(self):
        """Trained on noise, a Gaussian gives flat images a higher likelihood: the paradox in small."""
        X, X_new, X_smooth = textures(0.5, 400, 0), textures(0.5, 100, 1), textures(3, 100, 2)
        labels = np.r_[np.ones(100), np.zeros(100)]
        density = GaussianMixture(covariance_type="spherical", random_state=0)
        aurocs = {}
        for kind in (LikelihoodDetector, ComplexityDetector):
            detector = kind(density, random_state=0).fit(X)
            aurocs[kind] = roc_auc_score(labels, detector.score_samples(np.concatenate([X_new, X_smooth])))
        assert aurocs[LikelihoodDetector] < 0.1
        assert aurocs[ComplexityDetector] > 0.95

    def test_constant_in_the_code_length_changes_no_ranking(self):
        one = fitted(DIGITS, FlatDensity(17, log_likelihood=0.0), image_shape=(8, 8))
        other = fitted(DIGITS, FlatDensity(17, log_likelihood=-50.0), image_shape=(8, 8))
        np.testing.assert_array_equal(one.predict(DIGITS), other.predict(DIGITS))
        np.testing.assert_array_equal(one.p_values(DIGITS), other.p_values(DIGITS))


class TestMixture:
    def test_log_density_of_complexity_and_log_pz(self):
        class Latent(FlatDensity):
            def likelihood_terms(self, X):
                return {"log_pz": np.asarray(X, dtype=float).reshape(len(X), -1).mean(axis=1)}

        X = textures(1, 300, 0)
        detector = fitted(X, FrozenEstimator(Latent(256).fit(X)), kind="mixture")
        assert detector.learns
        pairs = np.stack([detector.code_lengths(X), X.reshape(300, -1).mean(axis=1)], axis=1)
        np.testing.assert_allclose(detector.score_samples(X), detector.mixture_.score_samples(pairs))

    def test_no_component_stands_on_one_length(self):
        X = np.random.default_rng(0).normal(size=(400, 8))  # a table: its codes have two lengths
        detector = fitted(X, GaussianMixture(), kind="mixture", calibration_fraction=0.5)
        assert len(np.unique(detector.code_lengths(X))) <= 3
        variances = detector.mixture_[-1].covariances_[:, 0, 0] * detector.mixture_[0].scale_[0] ** 2
        assert (variances > 8**2 / 12 / 2).all()  # bits^2; that of even noise one byte wide, halved by chance at most
        assert detector.score_samples(X).min() > -1e3

    @pytest.mark.parametrize("n_groups", [1, 3])
    def test_as_many_components_as_there_are_groups(self, n_groups):
        generator = np.random.default_rng(0)
        groups = 3000.0 * (1 + np.arange(n_groups).repeat(300))  # bits, and nats
        pairs = np.stack([groups, groups], axis=1) + generator.normal(size=(len(groups), 2)) * 100
        assert _mixture(pairs)[-1].n_components == n_groups

    def test_a_pixelcnn_is_asked_for_its_whole_likelihood(self):
        class Pixels(FlatDensity):
            def likelihood_terms(self, X):
                return {"log_px": np.asarray(X, dtype=float)}

        X = textures(1, 300, 0)
        detector = fitted(X, FrozenEstimator(Pixels(256).fit(X)), kind="mixture")
        np.testing.assert_allclose(detector._pair(X)[:, 1], X.reshape(300, -1).sum(axis=1, dtype=float))

    def test_finds_the_simple_and_the_complex(self):
        X = textures(1, 400, 0)
        detector = fitted(X, GaussianMixture(reg_covar=100.0, random_state=0), kind="mixture")
        for blur in (0, 3):
            assert np.median(detector.p_values(textures(blur, 50, 1))) < 0.05

    def test_unknown_kind(self):
        with pytest.raises(ValueError, match='needs kind="difference" or "mixture", got'):
            fitted(DIGITS, image_shape=(8, 8), kind="sum")


class TestValues:
    def test_off_grid_values_are_rounded_and_clipped_for_the_codec_alone(self):
        X = textures(1, 20, 0)
        detector = fitted(X, GaussianMixture(reg_covar=1.0))
        noisy = X + np.random.default_rng(0).uniform(-0.49, 0.49, X.shape)
        np.testing.assert_array_equal(detector.code_lengths(noisy), detector.code_lengths(X))
        assert np.all(detector.score_samples(noisy) != detector.score_samples(X))
        beyond = np.where(X > 140, X + 300.0, X)
        np.testing.assert_array_equal(detector.code_lengths(beyond), detector.code_lengths(np.where(X > 140, 255, X)))

    def test_few_bins_are_coded_as_they_are(self):
        detector = fitted(DIGITS, FlatDensity(17), image_shape=(8, 8), codecs=("png",))
        expected = [8 * len(encode(row.astype(np.uint8).reshape(8, 8), "png")) for row in DIGITS]
        np.testing.assert_array_equal(detector.code_lengths(DIGITS), expected)
        assert detector.n_bins_ == 17
        assert np.all(detector._to_bytes(DIGITS + 100) == 16)

    def test_real_values_are_scaled_by_the_training_range(self):
        X = textures(1, 20, 0)
        low, high = X.min(), X.max()
        detector = fitted(X / 255 - 0.5, FlatDensity(None), calibration_fraction=0)
        assert detector.n_bins_ is None
        assert detector.value_range_ == pytest.approx((low / 255 - 0.5, high / 255 - 0.5))
        stretched = np.rint((X.astype(float) - low) * 255 / (high - low)).astype(np.uint8)
        np.testing.assert_array_equal(detector.code_lengths(X / 255 - 0.5), fitted(X).code_lengths(stretched))

    def test_real_values_that_are_all_the_same(self):
        X = np.full((10, 4, 4), 0.5)
        assert np.ptp(fitted(X, FlatDensity(None)).score_samples(X)) == 0

    def test_bins_of_a_density_that_does_not_say(self):
        mixture = GaussianMixture(reg_covar=1.0)
        assert fitted(DIGITS, mixture, image_shape=(8, 8)).n_bins_ == 256
        for X in (DIGITS / 16, DIGITS - 1, DIGITS * 100):
            assert fitted(X, mixture, image_shape=(8, 8)).n_bins_ is None

    def test_too_many_bins(self):
        with pytest.raises(ValueError, match=r"at most 256 values a pixel, got n_bins=1024.*X // 4"):
            fitted(DIGITS, FlatDensity(1024), image_shape=(8, 8))
        assert fitted(DIGITS, FlatDensity(1024)).image_shape_ is None  # a table has no codec to mind


class TestShapes:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_layouts_agree(self, channels):
        images = np.random.default_rng(0).integers(0, 256, (12, 5, 7, channels)).astype(np.uint8)
        tensor = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        rows = images.reshape(12, -1)
        frame = pd.DataFrame(rows)
        expected = fitted(images).score_samples(images)
        for X, shape in ((tensor, None), (rows, (5, 7, channels)), (frame, (5, 7, channels))):
            detector = fitted(X, image_shape=shape)
            np.testing.assert_array_equal(detector.score_samples(X), expected)
            np.testing.assert_array_equal(detector.score_samples(images), expected)

    def test_other_channel_counts_are_coded_side_by_side(self):
        images = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 2)).astype(np.uint8)
        strips = np.concatenate([images[..., 0], images[..., 1]], axis=2)  # (n, H, 2 * W)
        np.testing.assert_array_equal(fitted(images).code_lengths(images), fitted(strips).code_lengths(strips))

    def test_shape_from_the_density(self):
        class ImageDensity(FlatDensity):
            image_shape_ = (8, 8, 1)

        detector = fitted(DIGITS, FrozenEstimator(ImageDensity(17).fit(DIGITS)))
        assert detector.image_shape_ == (8, 8, 1)
        with pytest.raises(ValueError, match="give both the same image_shape"):
            fitted(DIGITS, FrozenEstimator(ImageDensity(17).fit(DIGITS)), image_shape=(4, 16))

    def test_shape_that_does_not_fit(self):
        with pytest.raises(ValueError, match=r"image_shape=\(9, 9, 1\) needs rows of 81 values"):
            fitted(DIGITS, image_shape=(9, 9))
        with pytest.raises(ValueError, match="image_shape must be None"):
            fitted(DIGITS, image_shape=64)


class TestTables:
    X = np.random.default_rng(0).normal(size=(300, 12)) * np.arange(1, 13)

    def test_length_is_nearly_constant(self):
        lengths = fitted(self.X).code_lengths(self.X)
        assert np.ptp(lengths) <= 4 * 8  # bits: within four bytes of some twenty

    def test_repeated_values_are_shorter(self):
        detector = fitted(self.X)
        assert detector.code_lengths(np.zeros((1, 12)) - 1e9) < detector.code_lengths(self.X[:1])

    def test_scale_and_shift_of_columns_do_not_matter(self):
        moved = self.X * 3.0 + 7.0
        np.testing.assert_array_equal(fitted(self.X).code_lengths(self.X), fitted(moved).code_lengths(moved))

    def test_frame_of_mixed_columns(self):
        frame = pd.DataFrame({"real": self.X[:, 0], "whole": np.arange(300), "flag": self.X[:, 1] > 0})
        assert fitted(frame).code_lengths(frame).shape == (300,)

    def test_finds_what_likelihood_finds(self):
        detector = fitted(self.X, GaussianMixture())
        np.testing.assert_array_equal(detector.predict(self.X[:20] + 200), -1)


class TestErrors:
    @pytest.mark.parametrize("codecs", [(), "png", None, ("gif",), ("png", "flif"), ("png", 3)])
    def test_codecs(self, codecs):
        with pytest.raises(ValueError, match="at least one of 'png', 'webp', 'jpeg2000', 'jpegxl', got"):
            fitted(DIGITS, image_shape=(8, 8), codecs=codecs)

    def test_pillow_without_a_codec(self, monkeypatch):
        monkeypatch.setattr(PIL.features, "check", lambda feature: feature != "webp")
        with pytest.raises(ValueError, match=r"cannot write 'webp'.*codecs=\('png', 'jpeg2000', 'jpegxl'\)"):
            fitted(DIGITS, image_shape=(8, 8))
        fitted(DIGITS, image_shape=(8, 8), codecs=("png",))

    def test_imagecodecs_without_jpeg_xl(self, monkeypatch):
        monkeypatch.setattr(imagecodecs.JPEGXL, "available", False)
        with pytest.raises(ValueError, match="cannot write 'jpegxl'"):
            fitted(DIGITS, image_shape=(8, 8), codecs=("jpegxl",))

    def test_jpeg_xl_needs_imagecodecs(self, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(ValueError, match=r"cannot write 'jpegxl', which imagecodecs does: pip install 'flowdetect"):
            fitted(DIGITS, image_shape=(8, 8), codecs=("jpegxl",))

    def test_too_many_bins_are_refused_before_training(self):
        class ImageDensity(FlatDensity):
            image_shape = (8, 8)

            def fit(self, X, y=None):
                raise AssertionError("trained in vain")

        for make in (ComplexityDetector, OODDetector):
            with pytest.raises(ValueError, match=f"{make.__name__} codes images.*n_bins=512"):
                make(ImageDensity(512)).fit(DIGITS.reshape(-1, 8, 8))
            with pytest.raises(ValueError, match=f"{make.__name__} codes images.*n_bins=512"):
                make(EnsembleDensity(ImageDensity(512), 2)).fit(DIGITS.reshape(-1, 8, 8))
        with pytest.raises(ValueError, match="n_bins=512"):
            fitted(DIGITS, ImageDensity(512))
