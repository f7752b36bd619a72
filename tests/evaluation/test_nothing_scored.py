"""Reports about scorers that can score no row, and sets without rows."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin

from flowdetect import ood_report, sit_report

X = np.random.default_rng(0).normal(size=(8, 4))


class Mean:
    def score_samples(self, X):
        return np.asarray(X, dtype=float).mean(axis=1)


class Broken(Mean):
    def score_samples(self, X):
        raise ValueError("no row is good enough")


class ToNaN(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.full_like(X, np.nan)


def texts(fig):
    return {text.get_text() for ax in fig.axes for text in ax.texts}


def test_a_scorer_that_scores_nothing_has_no_histogram():
    report = ood_report({"mean": Mean(), "broken": Broken()}, X, {"moved": X + 1})
    assert {problem.scorer for problem in report.unscored} == {"broken"}
    assert "broken: not scored" in texts(report.plot())
    frame = report.to_frame().set_index("scorer")
    assert np.isnan(frame.loc["broken", "auroc"])
    assert 0 <= frame.loc["mean", "auroc"] <= 1


def test_a_transformation_after_which_nothing_is_scored():
    report = sit_report({"mean": Mean()}, X, {"to NaN": ToNaN()})
    row = report.to_frame().set_index("sit").loc["to NaN"]
    assert row["n_images"] == 0
    assert np.isnan([row["shift"], row["auroc_clean"]]).all()


def test_no_images_at_all():
    with pytest.raises(ValueError, match="at least one row, 'X' has none"):
        sit_report({"mean": Mean()}, X[:0], {"to NaN": ToNaN()})
