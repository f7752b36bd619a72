import numpy as np
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from flowdetect.detectors import LikelihoodDetector

X = np.random.default_rng(0).normal(size=(200, 3))


def test_score_is_the_log_likelihood():
    detector = LikelihoodDetector(GaussianMixture(), random_state=0).fit(X)
    np.testing.assert_array_equal(detector.score_samples(X), detector.density_.score_samples(X))


def test_far_rows_are_outliers_under_any_density():
    for density in (GaussianMixture(3), KernelDensity(bandwidth=0.5)):
        detector = LikelihoodDetector(density, random_state=0).fit(X)
        np.testing.assert_array_equal(detector.predict(np.full((4, 3), 8.0)), -1)
        np.testing.assert_array_equal(detector.p_values(np.full((4, 3), 8.0)), 1 / 21)  # 20 rows held out
