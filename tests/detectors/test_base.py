import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flowdetect._images import to_rows
from flowdetect.detectors import BaseDetector, LikelihoodDetector

FOREIGN = 1e-9  # relative: scikit-learn's sums may take another order for another memory layout or processor
X = np.random.default_rng(0).normal(size=(100, 4))
IMAGES = np.random.default_rng(1).integers(0, 256, size=(40, 2, 3, 3)).astype(np.uint8)  # (n, H, W, C)


class RecordingDensity(BaseEstimator):
    """Remembers what it was given; its score is minus the squared norm, or what the test says."""

    def __init__(self, random_state=None, answer=None):
        self.random_state = random_state
        self.answer = answer

    def fit(self, X, y=None):
        self.X_, self.y_, self.seed_ = X, y, self.random_state
        return self

    def score_samples(self, X):
        self.X_scored_ = X
        rows = np.asarray(to_rows(X)[0], dtype=float)
        return -np.sum(rows**2, axis=1) if self.answer is None else self.answer(rows)


class ImageDensity(RecordingDensity):
    """A density that knows images, as its parameter says."""

    def __init__(self, image_shape=None, random_state=None, answer=None):
        super().__init__(random_state, answer)
        self.image_shape = image_shape

    def fit(self, X, y=None):
        self.image_shape_ = to_rows(X, self.image_shape)[1].image_shape
        return super().fit(X, y)


class CheapImageDensity(ImageDensity):
    """Keeps nothing and computes next to nothing."""

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def score_samples(self, X):
        return np.asarray(X[:, 0, 0], dtype=float)


class TestSplit:
    def test_calibration_rows_are_not_trained_on(self):
        detector = LikelihoodDetector(RecordingDensity(), calibration_fraction=0.25, random_state=0).fit(X)
        trained_on = {row.tobytes() for row in detector.density_.X_}
        held_out = np.array([row for row in X if row.tobytes() not in trained_on])
        assert len(trained_on) == 75
        np.testing.assert_array_equal(detector.calibration_scores_, np.sort(detector.score_samples(held_out)))

    def test_fraction_zero_trains_on_all_rows_and_compares_with_all(self):
        detector = LikelihoodDetector(RecordingDensity(), calibration_fraction=0).fit(X)
        np.testing.assert_array_equal(detector.density_.X_, X)
        assert len(detector.calibration_scores_) == 100

    def test_frozen_density_compares_with_all_rows(self):
        detector = LikelihoodDetector(FrozenEstimator(RecordingDensity().fit(X))).fit(X[:30])
        assert len(detector.calibration_scores_) == 30
        assert detector.density_ is detector.density

    @pytest.mark.parametrize(("n_rows", "fraction", "expected"), [(2, 0.1, 1), (2, 0.9, 1), (10, 0.01, 1), (9, 0.5, 4)])
    def test_both_parts_have_at_least_one_row(self, n_rows, fraction, expected):
        detector = LikelihoodDetector(RecordingDensity(), calibration_fraction=fraction).fit(X[:n_rows])
        assert len(detector.calibration_scores_) == expected
        assert len(detector.density_.X_) == n_rows - expected

    def test_labels_go_with_their_rows(self):
        y = X[:, 0] > 0
        for labels in (y, list(y), pd.Series(y)):
            detector = LikelihoodDetector(RecordingDensity(), random_state=0).fit(X, labels)
            np.testing.assert_array_equal(detector.density_.y_, detector.density_.X_[:, 0] > 0)
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            LikelihoodDetector(RecordingDensity()).fit(X, y[:-1])

    def test_fit_predict_hands_labels_on(self):
        detector = LikelihoodDetector(RecordingDensity(), random_state=0)
        labels = detector.fit_predict(X, np.arange(100))
        assert len(detector.density_.y_) == 90
        np.testing.assert_array_equal(labels, detector.predict(X))

    def test_offset_is_the_quantile_of_all_scores(self):
        detector = LikelihoodDetector(RecordingDensity(), contamination=0.3).fit(X)
        assert detector.offset_ == np.quantile(detector.score_samples(X), 0.3)

    def test_p_value_counts_ties(self):
        density = RecordingDensity(answer=lambda rows: rows[:, 0])
        detector = LikelihoodDetector(FrozenEstimator(density.fit([[0.0]]))).fit([[1.0], [2.0], [2.0], [3.0]])
        np.testing.assert_array_equal(detector.p_values([[0.0], [1.0], [2.0], [9.0]]), [0.2, 0.4, 0.8, 1.0])


class TestSeeds:
    def test_seed_reaches_nested_random_states(self):
        pipeline = make_pipeline(StandardScaler(), RecordingDensity())
        seeds = [LikelihoodDetector(pipeline, random_state=s).fit(X).density_[-1].seed_ for s in (0, 0, 1)]
        assert seeds[0] == seeds[1] != seeds[2]
        assert isinstance(seeds[0], int)
        assert pipeline[-1].random_state is None

    def test_seed_that_the_user_set_stays(self):
        detector = LikelihoodDetector(RecordingDensity(random_state=7), random_state=0).fit(X)
        assert detector.density_.seed_ == 7

    def test_none_draws_anew_and_leaves_the_global_generator_alone(self):
        detector = LikelihoodDetector(RecordingDensity())
        before = np.random.get_state()[1].copy()  # noqa: NPY002, to see that it is left alone
        assert detector.fit(X).density_.seed_ != detector.fit(X).density_.seed_
        np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


class TestLayouts:
    def test_density_that_knows_images_gets_them_as_they_are(self):
        for images in (IMAGES, IMAGES[..., 0], torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy())):
            detector = LikelihoodDetector(ImageDensity(), random_state=0).fit(images)
            assert type(detector.density_.X_) is type(images)
            assert detector.density_.X_.shape == (36, *images.shape[1:])
            assert detector.n_features_in_ == np.prod(images.shape[1:])
            assert detector.image_shape_ == (2, 3, 3 if images.ndim == 4 else 1)
            detector.score_samples(images[:2])
            assert detector.density_.X_scored_.shape == (2, *images.shape[1:])

    def test_other_densities_get_rows(self):
        tensor = torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy())
        scores = [
            LikelihoodDetector(GaussianMixture(reg_covar=1.0), random_state=0).fit(images).score_samples(images)
            for images in (IMAGES, IMAGES.reshape(40, 18), tensor)
        ]
        np.testing.assert_allclose(scores[1:], [scores[0]] * 2, rtol=FOREIGN)

    def test_small_integers_do_not_overflow_in_other_densities(self):
        rows = IMAGES.reshape(40, 18)
        detector = LikelihoodDetector(GaussianMixture(reg_covar=1.0), random_state=0).fit(rows)
        expected = detector.density_.score_samples(rows.astype(float))
        np.testing.assert_allclose(detector.score_samples(rows), expected, rtol=FOREIGN)

    def test_image_shape_comes_from_the_density_where_the_data_do_not_tell(self):
        detector = LikelihoodDetector(ImageDensity(image_shape=(2, 3, 3))).fit(IMAGES.reshape(40, 18))
        assert detector.image_shape_ == (2, 3, 3)
        with pytest.raises(ValueError, match="disagrees with X"):
            detector.predict(IMAGES.reshape(40, 3, 2, 3))

    def test_frozen_density_of_another_shape(self):
        density = FrozenEstimator(ImageDensity().fit(IMAGES))
        with pytest.raises(
            ValueError, match=r"images of \(3, 2, 3\).*ImageDensity was fitted on images of \(2, 3, 3\)"
        ):
            LikelihoodDetector(density).fit(IMAGES.reshape(40, 3, 2, 3))

    def test_frames_of_whole_numbers_score_as_arrays_do(self):
        whole = np.round(3 * X).astype(int)
        detector = LikelihoodDetector(GaussianMixture(), random_state=0)
        by_frame, by_array = detector.fit(pd.DataFrame(whole)).score_samples(pd.DataFrame(whole)), detector.fit(whole)
        np.testing.assert_allclose(by_frame, by_array.score_samples(whole.astype(float)), rtol=FOREIGN)

    def test_frames_keep_their_names(self):
        frame = pd.DataFrame(X, columns=list("abcd"))
        detector = LikelihoodDetector(GaussianMixture(), random_state=0).fit(frame)
        np.testing.assert_array_equal(detector.feature_names_in_, list("abcd"))
        np.testing.assert_array_equal(detector.density_.feature_names_in_, list("abcd"))
        assert detector.score_samples(frame).shape == (100,)
        with pytest.raises(ValueError, match="feature names"):
            detector.predict(frame[list("dcba")])

    def test_lists_are_rows(self):
        detector = LikelihoodDetector(GaussianMixture(), random_state=0).fit(X.tolist())
        assert detector.predict([[0.0] * 4]) == 1


class TestMemory:
    """Images go to the density as they are; beside them there is room for the rows of one training alone."""

    X = np.zeros((20_000, 16, 16), dtype=np.uint8)

    def added(self, work):
        """Most bytes in use while it works, beyond those before, in sizes of X."""
        tracemalloc.start()
        try:
            work()
            return tracemalloc.get_traced_memory()[1] / self.X.nbytes
        finally:
            tracemalloc.stop()

    def test_fit_and_score_copy_no_more_than_the_training_rows(self):
        detector = LikelihoodDetector(CheapImageDensity(), calibration_fraction=0.25, random_state=0)
        assert self.added(lambda: detector.fit(self.X)) < 1.1
        assert self.added(lambda: detector.score_samples(self.X)) < 0.1

    def test_all_rows_are_not_copied(self):
        for detector in (
            LikelihoodDetector(CheapImageDensity(), calibration_fraction=0),
            LikelihoodDetector(FrozenEstimator(CheapImageDensity().fit(None))),
        ):
            assert self.added(lambda detector=detector: detector.fit(self.X)) < 0.2


class TestErrors:
    @pytest.mark.parametrize("contamination", [0, 0.6, -0.1, "auto", None, True, float("nan")])
    def test_contamination(self, contamination):
        with pytest.raises(ValueError, match="LikelihoodDetector needs contamination.*above 0 and at most 0.5, got"):
            LikelihoodDetector(GaussianMixture(), contamination=contamination).fit(X)

    @pytest.mark.parametrize("fraction", [1, -0.1, 1.5, "auto", None, False, float("nan")])
    def test_calibration_fraction(self, fraction):
        with pytest.raises(ValueError, match="LikelihoodDetector needs calibration_fraction.*at least 0 and below 1"):
            LikelihoodDetector(GaussianMixture(), calibration_fraction=fraction).fit(X)

    def test_parameters_are_checked_before_the_density_is_trained(self):
        density = RecordingDensity()
        with pytest.raises(ValueError, match="contamination"):
            LikelihoodDetector(density, contamination=2).fit("no data at all")

    def test_density_without_score_samples(self):
        for density in (
            KMeans(),
            FrozenEstimator(KMeans(2, n_init=1).fit(X)),
            make_pipeline(StandardScaler(), KMeans()),
        ):
            with pytest.raises(TypeError, match="needs a density with score_samples.*(KMeans|Pipeline) has none"):
                LikelihoodDetector(density).fit(X)

    def test_density_that_is_no_estimator(self):
        with pytest.raises(TypeError, match="needs a density with fit.*NoneType has none"):
            LikelihoodDetector(None).fit(X)

    def test_density_that_is_a_class(self):
        with pytest.raises(TypeError, match="got the class GaussianMixture; make an instance"):
            LikelihoodDetector(GaussianMixture).fit(X)

    def test_frozen_density_that_is_not_fitted(self):
        with pytest.raises(NotFittedError):
            LikelihoodDetector(FrozenEstimator(GaussianMixture())).fit(X)

    def test_not_fitted(self):
        with pytest.raises(NotFittedError):
            LikelihoodDetector(GaussianMixture()).predict(X)

    @pytest.mark.parametrize("lost", [np.nan, np.inf])
    def test_score_that_is_not_finite_names_the_row(self, lost):
        density = RecordingDensity(answer=lambda rows: np.where(rows[:, 0] > 50, lost, rows[:, 0]))
        detector = LikelihoodDetector(density).fit(X)
        X_new = X[:5].copy()
        X_new[3] = 99.0
        with pytest.raises(ValueError, match=rf"finite scores, but RecordingDensity led to {lost} in row 3 \(1 of"):
            detector.score_samples(X_new)

    def test_score_of_the_wrong_shape(self):
        density = RecordingDensity(answer=lambda rows: rows)
        with pytest.raises(
            ValueError, match=r"one score for each row, shape \(100,\), but RecordingDensity.*\(100, 4\)"
        ):
            LikelihoodDetector(density).fit(X)

    def test_one_row(self):
        with pytest.raises(ValueError, match=r"1 sample\(s\)"):
            LikelihoodDetector(GaussianMixture()).fit(X[:1])

    def test_detector_without_score(self):
        with pytest.raises(NotImplementedError, match="BaseDetector must define _score"):
            BaseDetector(GaussianMixture()).fit(X)
