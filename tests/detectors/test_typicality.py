import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture

from flowdetect.detectors import TypicalityDetector

D = 60


@pytest.fixture(scope="module")
def detector():
    X = np.random.default_rng(0).normal(size=(2000, D))
    density = GaussianMixture(covariance_type="spherical").fit(X)
    return TypicalityDetector(FrozenEstimator(density)).fit(np.random.default_rng(1).normal(size=(2000, D)))


def test_the_score_is_the_distance_to_the_entropy(detector):
    X = np.random.default_rng(2).normal(size=(50, D)) * 1.3
    nll = -detector.density_.score_samples(X)
    np.testing.assert_allclose(detector.score_samples(X), -np.abs(nll - detector.entropy_), atol=1e-8)
    assert detector.entropy_ == pytest.approx(D / 2 * np.log(2 * np.pi * np.e), rel=0.01)


def test_too_likely_is_as_bad_as_too_unlikely(detector):
    likely, unlikely = np.full((1, D), 0.1), np.full((1, D), 3.0)
    assert detector.density_.score_samples(likely) > detector.density_.score_samples(unlikely)
    assert detector.predict(np.concatenate([likely, unlikely])).tolist() == [-1, -1]


def test_batches_of_normal_rows_have_uniform_p_values(detector):
    rng = np.random.default_rng(3)
    p_values = [detector.test_batch(rng.normal(size=(20, D)), random_state=i).p_value for i in range(200)]
    for level in (0.1, 0.5, 0.9):
        assert np.mean(np.array(p_values) <= level) == pytest.approx(level, abs=0.1)


def test_batches_see_what_single_rows_hide(detector):
    X = np.random.default_rng(4).normal(size=(100, D)) * 0.97
    assert np.mean(detector.predict(X) == -1) < 0.25
    result = detector.test_batch(X, random_state=0)
    assert result.p_value < 0.01
    assert result.n_rows == 100
    assert result.statistic == pytest.approx(abs(-detector.density_.score_samples(X).mean() - detector.entropy_))


def test_a_seed_fixes_the_p_value(detector):
    X = np.random.default_rng(5).normal(size=(5, D))
    first, again = (detector.test_batch(X, random_state=1).p_value for _ in range(2))
    assert first == again


def test_batches_larger_than_the_calibration_have_honest_p_values():
    rng = np.random.default_rng(6)
    density = FrozenEstimator(GaussianMixture(covariance_type="spherical").fit(rng.normal(size=(500, D))))
    p_values = []
    for i in range(150):
        detector = TypicalityDetector(density).fit(rng.normal(size=(120, D)))
        p_values.append(detector.test_batch(rng.normal(size=(100, D)), n_bootstrap=300, random_state=i).p_value)
    for level in (0.05, 0.1):
        assert np.mean(np.array(p_values) <= level) <= level + 3 * np.sqrt(level * (1 - level) / 150)


def test_no_resamples(detector):
    with pytest.raises(ValueError, match="test_batch needs n_bootstrap, a whole number >= 1, got 0"):
        detector.test_batch(np.zeros((3, D)), n_bootstrap=0)
