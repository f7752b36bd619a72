"""No public class goes without laws: each is in a table, or has checks of its own that are named here."""

import inspect
from pathlib import Path

from density_table import DENSITIES
from detector_table import ASK_FOR_MORE, DETECTORS
from sit_table import SITS

import flowdetect

# where the classes are checked that are neither of one density nor of pixels
ELSEWHERE = {
    "BitsPerDimMonitor": "test_callbacks.py",  # no estimator
    "EnsembleDensity": "laws/test_detectors.py",  # scikit-learn's checks
    "FlowOD": "detectors/test_pyod.py",  # what pyod asserts of its own detectors
    "NeighborsDensity": "laws/test_detectors.py",  # scikit-learn's checks
    "PyODDetector": "laws/test_detectors.py",
    "Scorer": "test_scorer.py",
}


def made(constructors, *arguments):
    return {type(make(*arguments)).__name__ for make in constructors}


def test_every_public_class_has_laws():
    tabled = made(case.make for case in DENSITIES.values()) | made(SITS.values())
    tabled |= made((DETECTORS | ASK_FOR_MORE).values(), None)
    public = {name for name in flowdetect.__all__ if inspect.isclass(getattr(flowdetect, name))}
    assert tabled & public | set(ELSEWHERE) == public
    assert not tabled & set(ELSEWHERE)


def test_those_elsewhere_are_there():
    tests = Path(__file__).parent.parent
    for name, file in ELSEWHERE.items():
        assert f"{name}(" in (tests / file).read_text()
