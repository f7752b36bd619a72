"""scikit-learn's callbacks: told of fits, trainings and epochs, nested as the estimators are; they change nothing."""

import importlib.util
import sys
import warnings

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from flowdetect import (
    BitsPerDimMonitor,
    EnsembleDensity,
    LikelihoodDetector,
    LikelihoodRatioDetector,
    MAFDensity,
    NeighborsDensity,
    OODDetector,
    RealNVPDensity,
    WAICDetector,
    load,
)

callback = pytest.importorskip("sklearn.callback")

X = np.random.default_rng(0).normal(size=(120, 3))
LABELS = np.arange(120) % 2


def maf(**parameters):
    small = {"n_transforms": 1, "hidden_features": (4,), "max_epochs": 3, "random_state": 0}
    return MAFDensity(**{**small, **parameters})


class Recording:
    """Writes down what it is told; stops training at an epoch."""

    def __init__(self, stop_at=None, fails_at=None):
        self.told, self.fitted, self.stop_at, self.fails_at = [], [], stop_at, fails_at

    def setup(self, estimator, context):
        self.told.append("setup")

    def teardown(self, estimator, context):
        self.told.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.told.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context):
        self.told.append(f"end {context.task_name}")
        if context.task_name == "epoch" and context.task_id == self.fails_at:
            raise RuntimeError("no more")
        return context.task_name == "epoch" and context.task_id == self.stop_at


class Everywhere(Recording):
    """One that scikit-learn hands down to estimators within."""

    max_propagation_depth = None


class Fitted(Recording):
    """One that asks for an estimator fitted so far."""

    def on_fit_task_end(self, estimator, context, *, X=None, fitted_estimator=None):
        if fitted_estimator is not None:
            self.fitted.append(fitted_estimator.score_samples(X))
            self.told.append(fitted_estimator)


EPOCH = ["begin epoch", "end epoch"]


def training(n_epochs):
    return ["begin training", *EPOCH * n_epochs, "end training"]


def test_a_density_tells_of_its_epochs():
    heard = Recording()
    maf().set_callbacks(heard).fit(X)
    assert heard.told == ["setup", "begin fit", *training(3), "end fit", "teardown"]


def test_nothing_changes_bitwise():
    plain, told = maf().fit(X), maf().set_callbacks(Recording(), Fitted(), BitsPerDimMonitor()).fit(X)
    np.testing.assert_array_equal(told.score_samples(X), plain.score_samples(X))
    assert told.history_["bits_per_dim"] == plain.history_["bits_per_dim"]


def test_without_callbacks_no_context_is_made(monkeypatch):
    monkeypatch.setattr(callback.CallbackContext, "_from_estimator", lambda *arguments, **words: pytest.fail("made"))
    for estimator in (maf(max_epochs=1), LikelihoodDetector(maf(max_epochs=1)), EnsembleDensity(maf(max_epochs=1), 2)):
        estimator.fit(X)


def test_a_callback_ends_training_with_the_best_weights():
    stopped = maf(max_epochs=50).set_callbacks(Recording(stop_at=1)).fit(X)
    assert stopped.n_iter_ == 2
    assert np.isfinite(stopped.score_samples(X)).all()


def test_an_estimator_fitted_so_far_scores_as_if_fit_had_stopped_there():
    heard = Fitted()
    density = maf().set_callbacks(heard).fit(X)
    assert len(heard.fitted) == 4  # three epochs, and the whole fit
    np.testing.assert_array_equal(heard.fitted[-1], density.score_samples(X))
    stopped = maf().set_callbacks(Recording(stop_at=0)).fit(X)
    np.testing.assert_array_equal(heard.fitted[0], stopped.score_samples(X))
    first = next(each for each in heard.told if not isinstance(each, str))
    np.testing.assert_array_equal(first.score_samples(X), heard.fitted[0])  # later epochs left it as it was


def test_a_callback_that_fails_leaves_the_estimator_as_it_was():
    heard = Recording(fails_at=1)
    density = maf().fit(X)
    before = density.score_samples(X)
    with pytest.raises(RuntimeError, match="no more"):
        density.set_callbacks(heard).fit(X[::-1])
    assert heard.told[-1] == "teardown"
    np.testing.assert_array_equal(density.score_samples(X), before)
    assert not hasattr(density, "_callback_fit_ctx")


def test_nothing_is_told_where_parameters_are_refused():
    heard = Recording()
    with pytest.raises(ValueError, match="learning_rate"):
        maf(learning_rate=-1).set_callbacks(heard).fit(X)
    assert heard.told == []


def test_two_trainings_of_a_fit_are_two_tasks():
    heard = Recording()
    small = {"n_steps": 1, "n_blocks": 1, "hidden_channels": 4, "max_epochs": 4}
    density = RealNVPDensity(factorization="likelihood", n_bins=None, **small)
    density.set_callbacks(heard).fit(np.random.default_rng(0).normal(size=(40, 4, 4)))
    begun = [told for told in heard.told if told.startswith("begin training")]
    assert len(begun) == 2
    assert heard.told.count("end epoch") == 4


@pytest.mark.parametrize(
    ("estimator", "n_trainings"),
    [
        (LikelihoodDetector(maf(max_epochs=2), random_state=0), 1),
        (LikelihoodDetector(maf(max_epochs=2), cv=2, random_state=0), 2),
        (LikelihoodRatioDetector(maf(max_epochs=2), random_state=0), 2),
        (WAICDetector(maf(max_epochs=2), n_members=2, random_state=0), 2),
        (EnsembleDensity(maf(max_epochs=2), 2, random_state=0), 2),
        (make_pipeline(OODDetector(maf(max_epochs=2), random_state=0)), 1),
        (GridSearchCV(maf(), {"max_epochs": [2]}, cv=2), 3),
    ],
    ids=lambda case: type(case).__name__ if hasattr(case, "fit") else "",
)
def test_those_around_hand_callbacks_down(estimator, n_trainings):
    heard = Everywhere()
    estimator.set_callbacks(heard).fit(X)
    assert heard.told.count("begin training") >= n_trainings
    assert heard.told.count("begin epoch") == heard.told.count("end epoch") == 2 * n_trainings
    assert heard.told.count("setup") == heard.told.count("teardown") == 1


def test_a_table_without_training_has_a_task_too():
    heard = Everywhere()
    with warnings.catch_warnings(action="error"):
        OODDetector(random_state=0).set_callbacks(heard).fit(X)
        NeighborsDensity().set_callbacks(Recording()).fit(X)
    assert "begin fit" in heard.told


def test_the_monitor_has_what_the_history_has():
    monitor = BitsPerDimMonitor()
    detector = LikelihoodDetector(maf().set_callbacks(monitor), random_state=0).fit(X)
    frame = monitor.get_logs().data_as_pandas
    for name in ("bits_per_dim", "validation_bits_per_dim"):
        assert frame[name].tolist() == detector.density_.history_[name]
    assert frame["task_name"].tolist() == ["epoch"] * 3


def test_the_monitor_without_rows_held_out():
    monitor = BitsPerDimMonitor()
    maf(early_stopping=False).set_callbacks(monitor).fit(X)
    data = monitor.get_logs().data
    assert [row["validation_bits_per_dim"] for row in data] == [None] * 3
    assert all(row["bits_per_dim"] > 0 for row in data)


def test_the_monitor_ends_training():
    density = maf(max_epochs=50).set_callbacks(BitsPerDimMonitor(stop_below=100.0)).fit(X)
    assert density.n_iter_ == 1
    assert maf().set_callbacks(BitsPerDimMonitor(stop_below=-100.0)).fit(X).n_iter_ == 3
    with pytest.raises(ValueError, match="stop_below"):
        BitsPerDimMonitor("low")


def test_scikit_learns_monitor_scores_a_conditional_density():
    monitor = callback.ScoringMonitor(scoring={"score": lambda fitted, X, y: fitted.score(X, y)})
    density = maf(conditional=True).set_callbacks(monitor).fit(X, LABELS)
    scores = monitor.get_logs().data_as_pandas["score"]
    assert len(scores) == 4
    assert scores.iloc[0] == pytest.approx(density.score(X, LABELS))  # of the whole fit; its path is the shortest


def test_a_bar_is_shown(capfd):
    pytest.importorskip("rich")
    maf().set_callbacks(callback.ProgressBar()).fit(X)
    shown = capfd.readouterr().out
    assert "MAFDensity - fit" in shown
    assert "training" in shown


def test_files_keep_no_callbacks(tmp_path):
    density = LikelihoodDetector(maf().set_callbacks(BitsPerDimMonitor()), random_state=0).set_callbacks(Recording())
    density.fit(X).save(tmp_path / "detector")
    loaded = load(tmp_path / "detector")
    assert not hasattr(loaded, "_skl_callbacks")
    np.testing.assert_array_equal(loaded.score_samples(X), density.score_samples(X))


def test_densities_of_others_are_warned_of_by_scikit_learn():
    with pytest.warns(UserWarning, match="GaussianMixture does not support callbacks"):
        LikelihoodDetector(GaussianMixture(), random_state=0).set_callbacks(Everywhere()).fit(X)


def imported_without(name, monkeypatch):
    """A module of ours, as it is where scikit-learn has no callbacks."""
    monkeypatch.setitem(sys.modules, "sklearn.callback", None)
    found = importlib.util.find_spec(name)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_where_scikit_learn_has_no_callbacks_there_are_none(monkeypatch):
    module = imported_without("flowdetect._callbacks", monkeypatch)
    fit = maf.__init__

    class Estimator(module.CallbackSupportMixin):
        pass

    assert not hasattr(Estimator(), "set_callbacks")
    assert module.with_callbacks(fit) is fit
    assert module.begun(Estimator(), X, None) is None
    with pytest.raises(ImportError, match=r"scikit-learn 1\.9"):
        imported_without("flowdetect.density.callbacks", monkeypatch)
