"""Whatever a fitted density is asked: answers are finite, and what cannot be told is an error that says so."""

import numpy as np
import pytest
from smallest_densities import SMALLEST

from flowdetect import EnsembleDensity
from flowdetect._reach import OutOfReachError

TABLE = np.random.default_rng(0).normal(size=(40, 2))
ASKED = ("score_samples", "likelihood_terms", "transform", "layer_gradient_norms")


@pytest.mark.parametrize("name", SMALLEST)
def test_no_answer_is_nan(name):
    density, far = SMALLEST[name]().fit(TABLE), TABLE[:3].copy()
    far[1, 0] = 1e300
    refused = []
    for method in (method for method in ASKED if hasattr(density, method)):
        try:
            found = getattr(density, method)(far)
        except OutOfReachError as error:
            refused.append((str(error), error.rows.tolist()))
            continue
        assert all(np.isfinite(values).all() for values in (found.values() if isinstance(found, dict) else [found]))
    assert all("of row 1 is not finite; the row lies too far" in text and rows == [1] for text, rows in refused)
    told = "finite"
    try:
        told = "finite" if np.isfinite(density.sample(3, temperature=1e300, random_state=0)).all() else "NaN"
    except ValueError as error:
        told = str(error)
    assert told == "finite" or "some are not at temperature=1e+300; pass a temperature nearer to 1" in told


def test_an_ensemble_of_flows_takes_a_temperature_a_level():
    ensemble = EnsembleDensity(SMALLEST["MAFDensity"](), 2, random_state=0).fit(TABLE)
    np.testing.assert_array_equal(*(ensemble.sample(3, temperature=t, random_state=0) for t in (0.5, [0.5])))
    for odd in (np.array(0.5), np.ones((1, 1)), [], [1, 2]):
        with pytest.raises(ValueError, match="temperature must be"):
            ensemble.sample(3, temperature=odd)


def test_two_rows_are_enough_without_a_foreign_warning():
    found = SMALLEST["RealNVPDensity"]().fit(TABLE[:2]).score_samples(TABLE[:5])  # warnings are errors here
    assert np.isfinite(found).all()
