"""Cross-conformal calibration, on every detector."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from detector_table import ASK_FOR_MORE, DETECTORS, Asked
from pyod.models.hbos import HBOS
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from flowdetect import GlowDensity, PyODDetector, TypicalityDetector, load
from flowdetect.detectors import ComplexityDetector, FisherDetector, LikelihoodDetector

X = np.random.default_rng(0).normal(size=(60, 4))
X_NEW = np.concatenate([X[:5], X[5:10] + 4])
LEVELS = (0.05, 0.1, 0.2)


@pytest.fixture(params=[*(DETECTORS | ASK_FOR_MORE), "PyODDetector"])
def detector(request):
    if request.param == "PyODDetector":
        return PyODDetector(HBOS(), cv=3, random_state=0)
    return (DETECTORS | ASK_FOR_MORE)[request.param](Asked(reg_covar=1e-3), cv=3, random_state=0)


def test_members_score_the_fold_that_they_were_trained_without(detector):
    detector.fit(X)
    members = detector.members_
    assert [len(member.calibration_scores_) for member in members] == [20, 20, 20]
    by_member = np.stack([member.score_samples(X_NEW) for member in members])
    np.testing.assert_allclose(detector.score_samples(X_NEW), by_member.mean(axis=0))
    at_most = [
        (member.calibration_scores_ <= score[:, None]).sum(1) for member, score in zip(members, by_member, strict=True)
    ]
    np.testing.assert_array_equal(detector.p_values(X_NEW), (1 + np.sum(at_most, axis=0)) / 61)
    together = np.sort(np.concatenate([member.calibration_scores_ for member in members]))
    np.testing.assert_array_equal(detector.calibration_scores_, together)
    assert detector.offset_ == np.quantile(together, 0.1)
    assert len({member.random_state for member in members}) == 3


def test_copies_and_files_answer_the_same(detector, tmp_path):
    def answers(fitted):
        batch = fitted.test_batch(X_NEW, n_bootstrap=50, random_state=0)
        said = [fitted.score_samples(X_NEW), fitted.p_values(X_NEW), fitted.predict_proba(X_NEW), [batch.p_value]]
        return [np.asarray(values).tobytes() for values in said]

    expected = answers(detector.fit(X))
    assert answers(clone(detector).fit(X)) == expected
    assert answers(detector.fit(X)) == expected
    assert answers(pickle.loads(pickle.dumps(detector))) == expected
    detector.save(tmp_path / "detector")
    names = ("PyODDetector", "PyODScores")
    trusted = [f"{Asked.__module__}.Asked", "pyod.models.hbos.HBOS", *(f"flowdetect.detectors.pyod.{n}" for n in names)]
    assert answers(load(tmp_path / "detector", trusted=trusted)) == expected


def test_one_kind_of_fit_forgets_the_other(detector):
    expected = clone(detector).set_params(cv=None).fit(X).score_samples(X_NEW)
    detector.fit(X).set_params(cv=None).fit(X)
    assert not hasattr(detector, "members_")
    np.testing.assert_array_equal(detector.score_samples(X_NEW), expected)
    detector.set_params(cv=2).fit(X * 2)
    assert len(detector.members_) == 2
    assert not {"density_", "detectors_", "entropy_", "background_"} & set(vars(detector))
    expected = clone(detector).fit(X * 2).score_samples(X_NEW)
    np.testing.assert_array_equal(detector.score_samples(X_NEW), expected)


class Recording(BaseEstimator):
    """Remembers its rows, and finds those that it has seen very likely."""

    def fit(self, X, y=None):
        self.seen_ = {row.tobytes() for row in X}
        self.y_ = y
        return self

    def score_samples(self, X):
        return np.array([100.0 * (row.tobytes() in self.seen_) for row in X]) - (X**2).sum(axis=1)


def test_no_row_is_compared_with_a_density_that_saw_it():
    detector = LikelihoodDetector(Recording(), cv=7, random_state=0).fit(X, X[:, 0] > 0)
    assert detector.calibration_scores_.max() < 0
    assert len(detector.calibration_scores_) == 60
    for member in detector.members_:
        assert len(member.density_.seen_) + len(member.calibration_scores_) == 60
        assert len(member.density_.y_) == len(member.density_.seen_)


def test_a_score_that_learns_does_so_from_rows_that_its_density_did_not_see():
    detector = TypicalityDetector(Recording(), cv=3, calibration_fraction=0.25, random_state=0).fit(X)
    assert [len(member.calibration_nll_) for member in detector.members_] == [10, 10, 10]
    assert min(member.entropy_ for member in detector.members_) > 0


@pytest.mark.parametrize("density", [GaussianMixture(), KernelDensity(bandwidth=0.3)], ids=["steady", "overfitting"])
def test_p_values_are_valid_for_few_rows(density):
    """Rows within one fit share its calibration rows, so that the error is that of the fits."""
    rng, p_values = np.random.default_rng(1), []
    for i in range(100):
        detector = LikelihoodDetector(density, cv=5, random_state=i).fit(rng.normal(size=(40, 3)))
        p_values.append(detector.p_values(rng.normal(size=(100, 3))))
    for level in LEVELS:
        shares = np.mean(np.array(p_values) <= level, axis=1)
        assert shares.mean() <= level + 3 * shares.std() / np.sqrt(100)
        assert shares.mean() >= level / 2  # not merely by never calling an alarm


def test_without_it_few_rows_have_no_small_p_values():
    few, X_far = X[:40], np.full((1, 4), 9.0)
    assert LikelihoodDetector(GaussianMixture(), random_state=0).fit(few).p_values(X_far) == 1 / 5
    assert LikelihoodDetector(GaussianMixture(), cv=5, random_state=0).fit(few).p_values(X_far) == 1 / 41


def test_images_keep_their_shape(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3)).astype(np.uint8)
    foreign = ComplexityDetector(GaussianMixture(reg_covar=1.0), cv=2, random_state=0).fit(images)
    assert [each.image_shape_ for each in (foreign, *foreign.members_)] == [(4, 4, 3)] * 3
    np.testing.assert_array_equal(foreign.code_lengths(images), foreign.members_[0].code_lengths(images))
    flow = GlowDensity(n_steps=1, hidden_channels=4, max_epochs=1, checkpoint=tmp_path / "flow")
    detector = ComplexityDetector(flow, cv=2, random_state=0).fit(images)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flow.member0", "flow.member1"]
    tensor = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    by_tensor = ComplexityDetector(flow.set_params(checkpoint=None), cv=2, random_state=0).fit(tensor)
    np.testing.assert_array_equal(by_tensor.score_samples(tensor), detector.score_samples(images))
    rows = LikelihoodDetector(flow.set_params(image_shape=(4, 4, 3)), cv=2, random_state=0)
    assert rows.fit(images.reshape(40, 48)).image_shape_ == (4, 4, 3)


def test_frames_keep_their_names():
    frame = pd.DataFrame(X, columns=list("abcd"))
    detector = LikelihoodDetector(GaussianMixture(), cv=3, random_state=0).fit(frame)
    np.testing.assert_array_equal(detector.members_[1].density_.feature_names_in_, list("abcd"))
    by_rows = LikelihoodDetector(GaussianMixture(), cv=3, random_state=0).fit(X)
    np.testing.assert_allclose(detector.p_values(frame), by_rows.p_values(X))


@pytest.mark.parametrize("cv", [1, 0, -2, 2.0, True, "5"])
def test_numbers_of_folds_that_are_none(cv):
    with pytest.raises(ValueError, match=f"needs cv=None or a whole number of folds, at least 2, got {cv!r}"):
        LikelihoodDetector(GaussianMixture(), cv=cv).fit("no data at all")


def test_more_folds_than_rows():
    with pytest.raises(ValueError, match=r"cv=5 needs at least 5 rows, got 4 sample"):
        LikelihoodDetector(GaussianMixture(), cv=5).fit(X[:4])


def test_densities_used_as_they_are_have_no_folds():
    fitted = GaussianMixture().fit(X)
    for options in ({"density": FrozenEstimator(fitted)}, {"density": fitted, "prefit": True}):
        with pytest.raises(ValueError, match="cv=5 trains a density for each fold.*leave cv=None"):
            LikelihoodDetector(**options, cv=5).fit(X)
    with pytest.raises(ValueError, match="LikelihoodDetector has cv=3; give cv to FisherDetector itself"):
        FisherDetector(GaussianMixture(), [LikelihoodDetector(None, cv=3)]).fit(X)
