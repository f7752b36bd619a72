"""Odd inputs to every public class and function: refused in our words before anything is trained, or taken."""

import warnings
from functools import cache

import numpy as np
import pytest
from detector_table import ASK_FOR_MORE, DETECTORS, Asked
from odd_input_table import BAD_DATASETS, DATASETS, EMPTY, REFUSED, TABLE, TAKEN
from pyod.models.knn import KNN
from sit_table import SITS
from sklearn.mixture import GaussianMixture
from smallest_densities import REACHED, SMALLEST, Untrained

import flowdetect
from flowdetect import (
    EnsembleDensity,
    FlowOD,
    LikelihoodDetector,
    NeighborsDensity,
    OODDetector,
    PyODDetector,
    Translate,
    ood_report,
    second_order_gap,
    sit_report,
    to_pyod,
)
from flowdetect._homes import HOMES
from flowdetect.density import _training

DENSITIES = {
    **SMALLEST,
    "NeighborsDensity": NeighborsDensity,
    "EnsembleDensity": lambda: EnsembleDensity(SMALLEST["MAFDensity"](), 2),
}


class Exact(Asked):
    """A density that computes in float64, whatever it is given."""

    def score_samples(self, X):
        return super().score_samples(np.asarray(X, dtype=np.float64, order="C"))


def detectors(density):
    """Every detector around a density that knows no images, unfitted."""
    made = {name: make(density, calibration_fraction=0.5, random_state=0) for name, make in ALL_DETECTORS.items()}
    made["PyODDetector"] = PyODDetector(KNN(), random_state=0)
    made["FlowOD"] = FlowOD(density=density, random_state=0)
    made["to_pyod"] = to_pyod(LikelihoodDetector(density, random_state=0))
    return made


ALL_DETECTORS = {name: make for name, make in (DETECTORS | ASK_FOR_MORE).items() if not name.endswith("images")}
ALL_SITS = {name: make for name, make in SITS.items() if name != "zero-latents-none"}


@cache
def fitted(name):
    """A receiver fitted on the ordinary table."""
    if name in DENSITIES:
        return DENSITIES[name]().fit(TABLE)
    if name in ALL_SITS:
        return ALL_SITS[name]().fit(TABLE)
    if name == "OODDetector, no density":
        return OODDetector(random_state=0).fit(TABLE)
    return detectors(Exact(reg_covar=1e-3))[name].fit(TABLE)


MIXTURE = GaussianMixture().fit(TABLE)
FITS = {
    **{name: lambda X, make=make: make().fit(X) for name, make in DENSITIES.items()},
    **{name: lambda X, one=one: one.fit(X) for name, one in detectors(Untrained()).items()},
    "OODDetector, no density": lambda X: OODDetector(random_state=0).fit(X),
    **{name: lambda X, make=make: make().fit(X) for name, make in ALL_SITS.items()},
}
SCORES = {
    name: lambda X, name=name, method=method: getattr(fitted(name), method)(X)
    for names, method in (
        (DENSITIES, "score_samples"),
        (detectors(Asked()), "decision_function"),
        (("OODDetector, no density",), "predict"),
        (ALL_SITS, "transform"),
    )
    for name in names
}
FUNCTIONS = {
    "ood_report, in": lambda X: ood_report([MIXTURE], X, {"out": TABLE}, n_bootstrap=10),
    "ood_report, out": lambda X: ood_report([MIXTURE], TABLE, {"out": X}, n_bootstrap=10),
    "sit_report": lambda X: sit_report([MIXTURE], X, [Translate(dx=1)], n_bootstrap=10),
    "sit_report, out": lambda X: sit_report([MIXTURE], TABLE, [Translate(dx=1)], X_out=X, n_bootstrap=10),
    "second_order_gap, in": lambda X: second_order_gap(fitted("MAFDensity"), X, TABLE),
    "second_order_gap, out": lambda X: second_order_gap(fitted("MAFDensity"), TABLE, X),
}
RECEIVERS = {
    **{f"{name}: fit": ask for name, ask in FITS.items()},
    **{f"{name}: fitted": ask for name, ask in SCORES.items()},
    **FUNCTIONS,
}
ARRAYS_ALONE = {*ALL_SITS, "FlowOD", "to_pyod"}
READS_DATASETS = {name for name in RECEIVERS if name.split(":")[0] not in ARRAYS_ALONE and name not in FUNCTIONS}
UNSCORED = {"items of two lengths", "an item that cannot be read"}  # rows that ood_report counts and names


def refused_of(name):
    """What a receiver must refuse."""
    if name in READS_DATASETS:
        return REFUSED | EMPTY | BAD_DATASETS
    if name in FUNCTIONS:
        own = UNSCORED if name.startswith("ood_report") else set()
        return REFUSED | {odd: case for odd, case in BAD_DATASETS.items() if odd not in own}
    return REFUSED | EMPTY | DATASETS


def ask(name, X):
    return RECEIVERS[name](X)


def patch_training():
    def run(*arguments):
        pytest.fail(REACHED)

    for name in DENSITIES:
        fitted(name)
    _training.Training.run = run


@pytest.fixture
def no_training(monkeypatch):
    for name in DENSITIES:
        fitted(name)
    monkeypatch.setattr(_training.Training, "run", lambda *arguments: pytest.fail(REACHED))


def complaint(ask, case):
    """What is wrong with the refusal of an input; empty if nothing is."""
    with warnings.catch_warnings(action="ignore"):  # numpy warns of its matrices, torch of its quantised tensors
        X = case.make()
    try:
        ask(X)
    except ValueError as error:
        missing = [word for word in case.words if word not in str(error)]
        return f"{missing} not in: {error}" if missing else ""
    except Exception as error:
        return f"a raw {type(error).__name__}: {error}"
    except pytest.fail.Exception:
        return REACHED
    return "nothing was said"


@pytest.mark.parametrize("name", RECEIVERS)
def test_what_is_no_table_of_numbers_is_refused(name, no_training):
    cases = refused_of(name)
    if name == "sit_report, out":
        cases = {odd: case for odd, case in cases.items() if odd != "nothing itself"}  # None is no set
    complaints = {odd: complaint(RECEIVERS[name], case) for odd, case in cases.items()}
    assert not "\n".join(f"{odd}: {text}" for odd, text in complaints.items() if text)


@pytest.mark.parametrize("name", [name for name in RECEIVERS if name.endswith(": fitted")])
@pytest.mark.filterwarnings("ignore:X has feature names", "ignore:.*lie too far", "ignore:.*range")
def test_what_is_plain_is_taken(name):
    for odd, case in TAKEN.items():
        found, expected = (np.asarray(ask(name, X)) for X in (case.make(), case.ordinary))
        assert np.isfinite(found).all(), odd
        np.testing.assert_allclose(found, expected, rtol=max(case.rtol, 1e-9), atol=max(case.rtol, 1e-9), err_msg=odd)


def test_every_public_class_is_asked():
    estimators = [*(make() for make in DENSITIES.values()), *detectors(Asked()).values()]
    estimators += [OODDetector(), *(make() for make in ALL_SITS.values())]
    asked = {type(estimator).__name__ for estimator in estimators}
    classes = {name for name in HOMES if name[0].isupper() and hasattr(getattr(flowdetect, name), "fit")}
    assert classes <= asked
