"""What a fit leaves behind, for every detector: a whole fit or the old one, and no later look at parameters."""

import copy
import importlib.util
import pickle

import numpy as np
import pytest
import sklearn
from detector_table import ASK_FOR_MORE, DETECTORS, Asked
from pyod.models.hbos import HBOS
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from flowdetect import AddNoise, EnsembleDensity, GlowDensity, OODDetector, PyODDetector, TransformDetector, load
from flowdetect._fitting import all_or_nothing
from flowdetect.detectors import BaseDetector, ComplexityDetector, LikelihoodDetector
from flowdetect.detectors.pyod import PyODAdapter

X = np.random.default_rng(0).normal(size=(50, 4))
X_NEW = np.concatenate([X[:5], X[5:10] + 3])
X_OTHER = np.random.default_rng(1).normal(size=(40, 4)) * 3 + 5
CONTAINERS = ["pandas", *(["polars"] if importlib.util.find_spec("polars") else [])]


def detectors():
    made = {name: make(GaussianMixture(reg_covar=1e-3)) for name, make in DETECTORS.items()}
    made |= {name: make(Asked(reg_covar=1e-3)) for name, make in ASK_FOR_MORE.items()}
    made["DoSEDetector, terms"] = DETECTORS["DoSEDetector"](Asked(reg_covar=1e-3))
    made["TransformDetector, own"] = TransformDetector(
        GaussianMixture(reg_covar=1e-3), transforms=(AddNoise(0.1), StandardScaler())
    )
    made["PyODDetector"] = PyODDetector(HBOS())
    return {name: detector.set_params(random_state=0, calibration_fraction=0.4) for name, detector in made.items()}


@pytest.fixture(params=detectors())
def detector(request):
    return detectors()[request.param]


def answers(fitted):
    """Everything that a fitted detector says about X_NEW, bit for bit."""
    said = [fitted.score_samples(X_NEW), fitted.predict(X_NEW), fitted.p_values(X_NEW)]
    said.append(
        fitted.score_samples(np.arange(8, dtype=np.uint8).reshape(2, 4) * 30)
    )  # only our densities take integers
    if hasattr(fitted, "code_lengths"):
        said.append(fitted.code_lengths(X_NEW))
    if hasattr(fitted, "test_batch"):
        said.append(np.array(list(fitted.test_batch(X_NEW, n_bootstrap=100, random_state=0).values())))
    return [fitted.offset_, *(values.tobytes() for values in said)]


# A refit that fails


def fails(original, error, after):
    """Give a method that raises, after doing its work or instead of it."""

    def method(self, *args, **kwargs):
        if after:
            original(self, *args, **kwargs)
        raise error("midway")

    return method


def places_to_fail(detector):
    density = HBOS if isinstance(detector, PyODDetector) else type(detector.density)
    kind = type(detector)
    return [(density, "fit", True), (density, "fit", False), (kind, "_calibrate", True), (kind, "_score", True)]


@pytest.mark.parametrize("place", range(4), ids=["density trained", "density", "calibration", "scoring"])
def test_a_refit_that_fails_leaves_the_old_fit(detector, place, monkeypatch):
    owner, name, after = places_to_fail(detector)[place]
    original = getattr(owner, name)

    def fit_in_vain(X, error):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fails(original, error, after))
            with pytest.raises(error, match="midway"):
                detector.fit(X)

    fit_in_vain(X, RuntimeError)
    with pytest.raises(NotFittedError):
        check_is_fitted(detector)
    before, state = answers(detector.fit(X)), set(vars(detector))
    detector.set_params(contamination=0.4, calibration_fraction=0.3)
    for error in (RuntimeError, KeyboardInterrupt):
        fit_in_vain(X_OTHER, error)
        assert answers(detector) == before
        assert set(vars(detector)) == state


def test_a_refit_that_works_replaces_the_old_fit(detector):
    before = answers(detector.fit(X))
    assert answers(detector.fit(X_OTHER)) != before


@pytest.mark.parametrize("X_refused", [X[:1], X * np.nan, X[:, :0]], ids=["one row", "not finite", "no columns"])
def test_a_refit_on_refused_data_leaves_the_old_fit(detector, X_refused):
    before = answers(detector.fit(X))
    with pytest.raises(ValueError, match=r"sample|NaN|feature|values"):
        detector.fit(X_refused)
    assert answers(detector) == before
    assert detector.n_features_in_ == 4


def test_an_ensembles_refit_that_fails(monkeypatch):
    ensemble = EnsembleDensity(GaussianMixture(), 3, random_state=0).fit(X)
    before = ensemble.score_samples(X)
    original, seen = GaussianMixture.fit, []

    def second_fails(self, X, y=None):
        seen.append(self)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return original(self, X, y)

    monkeypatch.setattr(GaussianMixture, "fit", second_fails)
    with pytest.raises(KeyboardInterrupt):
        ensemble.fit(X_OTHER[:, :3])
    assert len(seen) == 2
    assert ensemble.n_features_in_ == 4
    np.testing.assert_array_equal(ensemble.score_samples(X), before)


def test_a_pyod_adapters_refit_that_fails(monkeypatch):
    model = PyODAdapter(LikelihoodDetector(GaussianMixture(), random_state=0)).fit(X)
    before = (model.decision_function(X).tobytes(), model.threshold_, model.labels_.tobytes())
    monkeypatch.setattr(PyODAdapter, "_process_decision_scores", fails(None, RuntimeError, after=False))
    with pytest.raises(RuntimeError, match="midway"):
        model.fit(X_OTHER)
    assert (model.decision_function(X).tobytes(), model.threshold_, model.labels_.tobytes()) == before


def test_the_decorator_keeps_name_and_signature():
    def fit(self, X, y=None):
        """Do it."""

    assert all_or_nothing(fit).__doc__ == "Do it."
    assert all_or_nothing(fit).__wrapped__ is fit


# Parameters changed after the fit

OTHERS = {
    "background": GlowDensity(max_epochs=1),
    "background_weight_decay": 0.25,
    "calibration_fraction": 0.5,
    "checkpoint": "elsewhere",
    "codecs": ("png",),
    "contamination": 0.3,
    "cv": 3,
    "density": GlowDensity(max_epochs=1),  # it knows images, a mixture does not
    "detectors": [LikelihoodDetector(None)],
    "device": "cpu",
    "image_shape": (4, 1),
    "kind": {"difference": "mixture", "mixture": "difference", "kde": "svm", "svm": "kde", "copod": "kde"},
    "learning_rate": 0.5,
    "model": HBOS(n_bins=5),
    "mutation_rate": 0.4,
    "n_members": 2,
    "prefit": True,
    "n_steps": 3,
    "random_state": 7,
    "time_limit": 60,
    "transforms": "shaking",
    "verbose": 1,
}


PYOD = [f"flowdetect.detectors.pyod.{name}" for name in ("PyODDetector", "PyODScores")]
TRUSTED = [f"{Asked.__module__}.Asked", "pyod.models.hbos.HBOS", *PYOD]


def other_parameters(estimator):
    names = estimator.get_params(deep=False)
    return {
        name: OTHERS[name][value] if name == "kind" else copy.deepcopy(OTHERS[name]) for name, value in names.items()
    }


def test_set_params_after_fit_changes_nothing_but_the_next_fit(detector, tmp_path):
    before = answers(detector.fit(X))
    for name, value in other_parameters(detector).items():
        detector.set_params(**{name: value})
        assert answers(detector) == before, name
    assert answers(pickle.loads(pickle.dumps(detector))) == before
    assert answers(copy.deepcopy(detector)) == before
    detector.save(tmp_path / "detector")
    assert answers(load(tmp_path / "detector", trusted=TRUSTED)) == before


def test_deep_parameters_after_fit_change_nothing(detector):
    before = answers(detector.fit(X))
    deep = [name for name in detector.get_params(deep=True) if name.endswith(("__reg_covar", "__n_components"))]
    detector.set_params(**dict.fromkeys(deep, 3))
    assert answers(detector) == before


def test_the_next_fit_uses_them():
    detector = ComplexityDetector(GaussianMixture(reg_covar=1e-3), image_shape=(2, 2), random_state=0).fit(X)
    by_three = detector.code_lengths(X)
    by_png = detector.set_params(codecs=("png",)).fit(X).code_lengths(X)
    assert (by_png >= by_three).all()
    assert (by_png > by_three).any()


def test_a_list_of_codecs_changed_in_place():
    codecs = ["png", "webp"]
    detector = ComplexityDetector(GaussianMixture(reg_covar=1e-3), image_shape=(2, 2), codecs=codecs, random_state=0)
    before = answers(detector.fit(X))
    codecs.remove("webp")
    assert answers(detector) == before


def test_an_ensembles_parameters_after_fit():
    ensemble = EnsembleDensity(GaussianMixture(), 2, random_state=0).fit(X)
    before = ensemble.score_samples(X)
    ensemble.set_params(density=GlowDensity(image_shape=(2, 2)), n_members=5, random_state=9)
    assert not hasattr(ensemble, "image_shape")
    np.testing.assert_array_equal(ensemble.score_samples(X), before)


def test_states_of_version_0_1_0_score_the_same(detector):
    """They hold no kept parameters; the present ones are those of the fit."""
    before = answers(detector.fit(X))
    state = {name: value for name, value in detector.__getstate__().items() if name != "_kept"}
    old = type(detector).__new__(type(detector))
    old.__setstate__(state)
    assert answers(old) == before
    assert answers(copy.deepcopy(old)) == before


# scikit-learn's containers


@pytest.mark.parametrize("container", CONTAINERS)
def test_transform_output_changes_nothing(detector, container):
    before = answers(detector.fit(X))
    with sklearn.config_context(transform_output=container):
        assert answers(detector) == before
        assert answers(detector.fit(X)) == before
    assert answers(detector) == before


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", [name for name in DETECTORS if "images" not in name])
def test_transform_output_changes_nothing_with_a_flow(name, container):
    flow = GlowDensity(n_steps=1, hidden_channels=4, max_epochs=1, random_state=0)
    detector = DETECTORS[name](flow, random_state=0)
    before = detector.fit(X).score_samples(X)
    with sklearn.config_context(transform_output=container):
        np.testing.assert_array_equal(detector.fit(X).score_samples(X), before)


class Recording(BaseEstimator):
    def fit(self, X, y=None):
        self.X_ = X
        return self

    def score_samples(self, X):
        return -np.abs(np.asarray(X)).sum(axis=1)


def test_a_fit_on_all_rows_copies_none():
    detector = LikelihoodDetector(Recording(), calibration_fraction=0).fit(X)
    assert detector.density_.X_ is X or np.shares_memory(detector.density_.X_, X)


def test_every_table_entry_is_a_detector_with_known_parameters():
    for made in detectors().values():
        assert isinstance(made, BaseDetector)
        assert set(made.get_params(deep=False)) <= set(OTHERS)
    assert set(OODDetector().get_params(deep=False)) <= set(OTHERS)
