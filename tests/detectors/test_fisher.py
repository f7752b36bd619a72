import numpy as np
import pytest
from pyod.models.hbos import HBOS
from scipy.stats import combine_pvalues
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture

from flowdetect import PyODDetector
from flowdetect.detectors import (
    ComplexityDetector,
    FisherDetector,
    LikelihoodDetector,
    TypicalityDetector,
    WAICDetector,
)

X = np.random.default_rng(0).normal(size=(400, 30))
BOTH = [LikelihoodDetector(None), TypicalityDetector(None)]


@pytest.fixture
def mixture():
    return GaussianMixture(reg_covar=0.1, random_state=0)


def test_the_score_is_fishers_statistic(mixture):
    detector = FisherDetector(FrozenEstimator(mixture.fit(X)), BOTH).fit(X)
    p_values = np.stack([each.p_values(X) for each in detector.detectors_], axis=1)
    above = (p_values > 0.06).all(axis=1)
    assert above.sum() > 300
    expected = [-combine_pvalues(row, "fisher").statistic for row in p_values[above]]
    np.testing.assert_allclose(detector.score_samples(X)[above], expected)
    assert detector.score_samples(np.full((1, 30), 9.0)) < 2 * np.log(p_values).sum(axis=1).min()


def test_one_density_serves_all(mixture):
    detector = FisherDetector(mixture, BOTH, random_state=0).fit(X)
    assert all(each.density_.estimator is detector.density_ for each in detector.detectors_)
    assert BOTH[0].density is None
    frozen = FrozenEstimator(mixture.fit(X))
    assert all(each.density_ is frozen for each in FisherDetector(frozen, BOTH).fit(X).detectors_)


def test_the_usual_two(mixture):
    detector = FisherDetector(mixture, random_state=0).fit(X)
    assert [type(each) for each in detector.detectors_] == [LikelihoodDetector, ComplexityDetector]


def test_either_alarm_is_enough(mixture):
    detector = FisherDetector(mixture, BOTH, random_state=0).fit(X)
    assert detector.predict(np.stack([np.zeros(30), np.full(30, 9.0)])).tolist() == [-1, -1]


def test_parts_know_the_images_and_keep_their_seeds():
    images = np.random.default_rng(0).integers(0, 256, (80, 4, 4)).astype(np.uint8)
    parts = [ComplexityDetector(None, random_state=3), LikelihoodDetector(None)]
    detector = FisherDetector(GaussianMixture(reg_covar=1.0), parts, random_state=0).fit(images)
    assert detector.detectors_[0].image_shape_ == (4, 4, 1)
    assert [each.random_state for each in detector.detectors_] == [3, 0]


@pytest.mark.parametrize(
    ("detectors", "error", "message"),
    [
        ([], ValueError, "at least one detector, got none"),
        ([GaussianMixture()], TypeError, "needs detectors of flowdetect, .* got GaussianMixture"),
        (
            [WAICDetector(None)],
            TypeError,
            "combines scores of one density, which WAICDetector cannot share; leave it out",
        ),
        ([PyODDetector(HBOS())], TypeError, "which PyODDetector cannot share"),
        ([LikelihoodDetector(None, contamination=2)], ValueError, "contamination"),
    ],
)
def test_refusals(mixture, detectors, error, message):
    with pytest.raises(error, match=message):
        FisherDetector(mixture, detectors).fit(X)
