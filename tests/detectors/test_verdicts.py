"""Selection, batches, probabilities and scores: what every detector answers by its calibration scores."""

import warnings

import numpy as np
import pytest
from detector_table import DETECTORS
from scipy.stats import anderson_ksamp, false_discovery_control
from sklearn.base import BaseEstimator
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, cross_val_score

from flowdetect.detectors import DoSEDetector, LikelihoodDetector
from flowdetect.detectors.calibration import outlier_probability, two_sample_p_value

X = np.random.default_rng(0).normal(size=(300, 4))
X_OUT = np.random.default_rng(1).normal(size=(30, 4)) + 3


class FirstColumn(BaseEstimator):
    """A density whose score is the first column."""

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def score_samples(self, X):
        return np.asarray(X, dtype=float)[:, 0]


def calibrated_on(scores):
    rows = np.reshape(scores, (-1, 1)).astype(float)
    return LikelihoodDetector(FirstColumn().fit(rows), prefit=True).fit(rows)


class TestSelect:
    def test_it_is_benjamini_and_hochberg(self):
        detector = calibrated_on(np.random.default_rng(0).normal(size=2000))
        rows = np.concatenate([np.random.default_rng(1).normal(size=80), [-3.0] * 10, [-9.0] * 10])[:, None]
        for fdr in (0.05, 0.2):
            adjusted = false_discovery_control(detector.p_values(rows))
            np.testing.assert_array_equal(detector.select(rows, fdr), np.where(adjusted <= fdr, -1, 1))
        assert (detector.select(rows)[-10:] == -1).all()

    @pytest.mark.parametrize("n_out", [0, 10, 30])
    def test_the_false_discovery_rate_is_held(self, n_out):
        rng, shares, found = np.random.default_rng(2), [], []
        for i in range(200):
            detector = LikelihoodDetector(GaussianMixture(), calibration_fraction=0.5, random_state=i)
            detector.fit(rng.normal(size=(2200, 2)))
            named = detector.select(np.concatenate([rng.normal(size=(100 - n_out, 2)), np.full((n_out, 2), 4.0)])) == -1
            shares.append(named[: 100 - n_out].sum() / max(1, named.sum()))
            found.append(named[100 - n_out :].mean() if n_out else 1.0)
        assert np.mean(shares) <= 0.1 * (1 - n_out / 100) + 3 * np.std(shares) / np.sqrt(200)
        assert np.mean(found) > 0.95

    def test_too_few_calibration_rows_are_warned_of(self):
        detector = calibrated_on(np.arange(99))
        batch = np.full((20, 1), 50.0)
        batch[0] = -1
        message = "compares 20 rows with 99 calibration scores.*fdr=0.1.*at least 2 rows.*single one it needs 199.*cv=5"
        with pytest.warns(UserWarning, match=message):
            assert (detector.select(batch) == 1).all()
        batch[1] = -1
        with pytest.warns(UserWarning, match=message):
            assert (detector.select(batch) == -1).sum() == 2

    def test_the_number_that_is_asked_for_is_enough(self):
        batch = np.full((20, 1), 50.0)
        batch[0] = -1
        assert (calibrated_on(np.arange(199)).select(batch) == -1).sum() == 1
        with pytest.warns(UserWarning, match="at least 2 rows"):
            calibrated_on(np.arange(198)).select(batch)

    @pytest.mark.parametrize("fdr", [0, 1, -0.1, "0.1", None, True, float("nan")])
    def test_rates_that_are_none(self, fdr):
        with pytest.raises(ValueError, match="select needs fdr.*above 0 and below 1, got"):
            calibrated_on(np.arange(20)).select([[1.0]], fdr)


class TestBatches:
    @pytest.mark.parametrize("n_rows", [1, 5, 20])
    @pytest.mark.parametrize("rounded", [False, True])
    def test_the_level_is_kept(self, n_rows, rounded):
        rng, p_values = np.random.default_rng(3), []
        for _ in range(500):
            known, batch = rng.normal(size=50), rng.normal(size=n_rows)
            if rounded:
                known, batch = np.round(known), np.round(batch)
            p_values.append(two_sample_p_value(batch, np.sort(known), 199, rng)[1])
        for level in (0.05, 0.1, 0.5):
            assert np.mean(np.array(p_values) <= level) <= level + 3 * np.sqrt(level * (1 - level) / 500)
        if n_rows > 1 and not rounded:
            assert np.mean(np.array(p_values) <= 0.1) > 0.05

    @pytest.mark.parametrize("rounded", [False, True])
    def test_the_statistic_is_scipys(self, rounded):
        rng = np.random.default_rng(4)
        known, batch = rng.normal(size=60), rng.normal(size=15) + 0.4
        if rounded:
            known, batch = np.round(known, 1), np.round(batch, 1)
        ours = two_sample_p_value(batch, np.sort(known), 1, rng)[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            standardised = [anderson_ksamp([known, each], variant="right").statistic for each in (batch, batch - 0.5)]
        other = two_sample_p_value(batch - 0.5, np.sort(known), 1, rng)[0]
        slope = (standardised[1] - standardised[0]) / (other - ours)
        assert slope * (1 - ours) + standardised[0] == pytest.approx(
            0, abs=0.02
        )  # scipy's: mean 1, divided by its spread

    @pytest.mark.parametrize(
        "change",
        [lambda rows: rows + 1, lambda rows: rows * 1.6, lambda rows: rows * 0.5],
        ids=["shift", "wide", "narrow"],
    )
    @pytest.mark.parametrize("options", [{"calibration_fraction": 0.5}, {"cv": 3}], ids=["held out", "cv"])
    def test_drifts_are_seen(self, change, options):
        detector = LikelihoodDetector(GaussianMixture(), random_state=0, **options).fit(X)
        fresh = np.random.default_rng(5).normal(size=(60, 4))
        assert not detector.test_batch(fresh, random_state=0).drifted
        found = detector.test_batch(change(fresh), random_state=0)
        assert found.drifted
        assert found.p_value < 0.01
        assert found.n_rows == 60

    def test_members_keep_the_level_too(self):
        rng, p_values = np.random.default_rng(6), []
        for i in range(150):
            detector = LikelihoodDetector(GaussianMixture(), cv=4, random_state=0).fit(rng.normal(size=(40, 3)))
            p_values.append(detector.test_batch(rng.normal(size=(20, 3)), n_bootstrap=199, random_state=i).p_value)
        for level in (0.05, 0.1):
            assert np.mean(np.array(p_values) <= level) <= level + 3 * np.sqrt(level * (1 - level) / 150)

    def test_options(self):
        detector = LikelihoodDetector(GaussianMixture(), random_state=0).fit(X)
        first, again = (detector.test_batch(X[:9], random_state=1) for _ in range(2))
        assert first == again
        assert detector.test_batch(X[:9], alpha=0.9999, random_state=1).drifted
        with pytest.raises(ValueError, match="test_batch needs alpha.*above 0 and below 1, got 1"):
            detector.test_batch(X, alpha=1)
        with pytest.raises(ValueError, match="test_batch needs n_bootstrap, a whole number >= 1, got 0"):
            detector.test_batch(X, n_bootstrap=0)


class TestProbabilities:
    @pytest.mark.parametrize("name", DETECTORS)
    @pytest.mark.parametrize("cv", [None, 3])
    def test_they_agree_with_the_labels_and_fall_with_the_score(self, name, cv):
        detector = DETECTORS[name](GaussianMixture(reg_covar=1e-3), contamination=0.2, cv=cv, random_state=0)
        rows = np.concatenate([X[:150], X_OUT])
        detector.fit(X[:150])
        probabilities, scores = detector.predict_proba(rows), detector.score_samples(rows)
        assert detector.classes_.tolist() == [-1, 1]
        np.testing.assert_array_equal(probabilities.sum(axis=1), 1)
        assert ((probabilities >= 0) & (probabilities <= 1)).all()
        np.testing.assert_array_equal(probabilities[:, 0] > 0.5, detector.predict(rows) == -1)
        assert (np.diff(probabilities[np.argsort(scores), 0]) <= 0).all()

    @pytest.mark.parametrize("contamination", [0.02, 0.1, 0.3, 0.5])
    def test_their_mean_is_the_share_of_outliers(self, contamination):
        known = np.sort(np.random.default_rng(7).normal(size=20_000))
        probability = outlier_probability(known, known, float(np.quantile(known, contamination)))
        assert probability.mean() == pytest.approx(contamination, rel=0.02)

    def test_an_increasing_map_changes_nothing_at_the_known_scores(self):
        known = np.sort(np.random.default_rng(8).normal(size=500))
        plain, mapped = (outlier_probability(each, each, each[50]) for each in (known, np.exp(known)))
        np.testing.assert_allclose(plain, mapped, atol=1e-12)

    @pytest.mark.parametrize("known", [[0.0], [0.0, 0.0, 0.0], [-1.0, 5.0]])
    @pytest.mark.parametrize("threshold", [-1e300, -1.0, 0.0, 1e-300, 3.0, 1e300])
    def test_few_or_tied_scores_and_thresholds_anywhere(self, known, threshold):
        scores = np.array([-1e300, -2.0, np.nextafter(threshold, -np.inf), threshold, 0.0, 4.0, 1e300])
        probability = outlier_probability(scores, np.array(known), threshold)
        assert ((probability >= 0) & (probability <= 1)).all()
        np.testing.assert_array_equal(probability > 0.5, scores < threshold)


class TestScores:
    @pytest.mark.parametrize("cv", [None, 3])
    def test_labels_make_it_an_auroc(self, cv):
        detector = DoSEDetector(GaussianMixture(), cv=cv, random_state=0).fit(X)
        rows, y = np.concatenate([X, X_OUT - 2]), np.repeat([1, -1], [300, 30])
        assert detector.score(rows, y) == roc_auc_score(y, detector.score_samples(rows))
        assert 0.5 < detector.score(rows, y.astype(float)) < 1

    def test_without_labels_it_is_the_log_likelihood(self):
        detector = DoSEDetector(GaussianMixture(), random_state=0).fit(X)
        expected = detector.density_.score(X)
        for y in (None, np.arange(300) % 2, np.array(["a", "b"] * 150), np.zeros(300)):
            assert detector.score(X, y) == pytest.approx(expected)
        by_members = DoSEDetector(GaussianMixture(), cv=3, random_state=0).fit(X)
        assert by_members.score(X) == pytest.approx(expected, rel=0.05)

    @pytest.mark.parametrize("label", [1, -1])
    def test_one_label_alone(self, label):
        detector = LikelihoodDetector(GaussianMixture(), random_state=0).fit(X)
        with pytest.raises(ValueError, match=rf"needs both labels.*got \{label:+d} alone"):
            detector.score(X, np.full(300, label))

    def test_searches(self):
        rng = np.random.default_rng(9)
        rows = rng.normal(size=(240, 2)) + rng.choice([0.0, 8.0, 16.0], size=(240, 1))
        detector = LikelihoodDetector(GaussianMixture(random_state=0), random_state=0)
        search = GridSearchCV(detector, {"density__n_components": [1, 2, 3]}, cv=3).fit(rows)
        assert search.best_params_ == {"density__n_components": 3}
        assert search.predict([[8.0, 8.0], [-9.0, 9.0]]).tolist() == [1, -1]
        assert len(cross_val_score(detector, rows, cv=4)) == 4
