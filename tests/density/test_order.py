"""The order of rows: a permutation, whether it is listed or computed."""

import numpy as np
import pytest

from flowdetect._sources import Without
from flowdetect.density import _order
from flowdetect.density._order import Shuffled, shuffled


@pytest.mark.parametrize("n_rows", [1, 2, 3, 4, 5, 63, 64, 65, 1000, 4097])
def test_a_computed_order_is_a_permutation(n_rows):
    order = Shuffled(n_rows, 0)
    np.testing.assert_array_equal(np.sort(order[0:n_rows]), np.arange(n_rows))
    np.testing.assert_array_equal(np.concatenate([order[0:7], order[7:n_rows]]), order[0:n_rows])


def test_a_computed_order_looks_drawn():
    n_rows = 50_000
    first, second = (Shuffled(n_rows, seed)[0:n_rows] for seed in (0, 1))
    places = np.arange(n_rows)
    for found in (np.corrcoef(first, places), np.corrcoef(first, second), np.corrcoef(first[1:], first[:-1])):
        assert abs(found[0, 1]) < 4 / np.sqrt(n_rows)  # four standard deviations of a drawn one's
    assert 0.4 < np.mean(np.diff(first) > 0) < 0.6
    # of the first tenth of places, each tenth of the rows has its share
    counts = np.bincount(first[: n_rows // 10] * 10 // n_rows, minlength=10)
    assert abs(counts - 500).max() < 4 * np.sqrt(500)


def test_a_long_order_takes_no_memory(monkeypatch):
    assert isinstance(shuffled(2**24, 0), np.ndarray)
    order = shuffled(2**40, 0)
    found = order[10**9 : 10**9 + 1000]
    assert len(np.unique(found)) == 1000
    assert found.max() < 2**40
    monkeypatch.setattr(_order, "MOST_LISTED", 10)
    assert isinstance(shuffled(11, 0), Shuffled)


def test_all_rows_without_some():
    left_out = np.array([7, 0, 3, 4, 9])
    kept = Without(10, left_out)
    assert len(kept) == 5
    np.testing.assert_array_equal(kept[np.arange(5)], [1, 2, 5, 6, 8])
    np.testing.assert_array_equal(Without(4, np.array([], dtype=int))[np.array([2, 1])], [2, 1])
