"""Rarity of a cell given the other cells of its row, in tables with columns of any type."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowdetect.detectors.cells import Cells, Column
from flowdetect.detectors.explanations import (
    MOST_COLUMNS_REGRESSED,
    N_NEAREST,
    N_NEIGHBORS,
    N_QUANTILES,
    RIDGE,
    two_sided_p_values,
)

MOST_LEVELS = 32  # most frequent categories of a column that the linear prediction distinguishes
UNLIKE = 2.0  # squared distance of unequal cells: that of two independent standardised numbers, on average


class MixedNeighborhood:
    """A column's cells among the known rows that are nearest to a row in the other columns.

    Distances of numbers are in standard deviations. In the distances for other columns, a number outside the known
    range is clipped to it. Unequal categories, and a missing number compared with a present one, have a squared
    distance of 2.

    Parameters
    ----------
    cells : Cells
    """

    def __init__(self, cells: Cells) -> None:
        self.columns = cells.columns
        self.scaled = [_scaled(column) for column in cells.columns]  # None for a column of categories
        self.known = np.stack([column.known for column in cells.columns], axis=1)  # (n_known, D)
        encoded: list[NDArray[np.float64]] = []
        self.groups: list[slice] = []
        for column, scaled in zip(cells.columns, self.scaled, strict=True):
            block = _encoded(column, scaled, column.known)
            start = sum(each.shape[1] for each in encoded)
            self.groups.append(slice(start, start + block.shape[1]))
            encoded.append(block)
        known = np.concatenate(encoded, axis=1)  # (n_known, n_encoded)
        self.deviation = np.maximum(known.std(axis=0), 1e-9)
        self.mean = known.mean(axis=0)
        known = (known - self.mean) / self.deviation
        n_encoded = known.shape[1]
        precision = np.eye(n_encoded)
        if n_encoded <= MOST_COLUMNS_REGRESSED:
            covariance = (1 - RIDGE) * known.T @ known / len(known)
            precision = np.linalg.inv(covariance + RIDGE * np.eye(n_encoded))
        # encoded row -> residual of each column's part, given the other columns
        self.residual_of = [precision[:, g] @ np.linalg.inv(precision[g, g]) for g in self.groups]
        self.residuals = np.stack([self._residual(j, self.known[:, j], known) for j in range(len(self.columns))], 1)

    def look_up(self, row: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
        """Return the cells of the 16 closest rows (16, D), and two p-values of each cell (D,), as in `Neighborhood`.

        For a category, the first p-value is the share of neighbours whose category is at most as frequent among the
        neighbours. The second is the share of neighbours whose category is predicted at most as well from their other
        columns.
        """
        squares = np.stack([self._squares(j, cell) for j, cell in enumerate(row)], axis=1)
        elsewhere = squares.sum(axis=1, keepdims=True) - squares
        n_neighbors = min(N_NEIGHBORS, len(elsewhere))
        ends = sorted({min(N_NEAREST, n_neighbors) - 1, n_neighbors - 1})
        nearest = np.argpartition(elsewhere, ends, axis=0)[:n_neighbors]
        near = np.take_along_axis(self.known, nearest, axis=0)
        encoded = np.concatenate(
            [_encoded(c, s, row[j : j + 1]) for j, (c, s) in enumerate(zip(self.columns, self.scaled, strict=True))], 1
        )
        encoded = (encoded - self.mean) / self.deviation
        cell_p_values, residual_p_values = np.empty(len(row)), np.empty(len(row))
        for j, cell in enumerate(row):
            residual = self._residual(j, row[j : j + 1], encoded)
            cell_p_values[j], residual_p_values[j] = self._p_values(
                j, cell, near[:, j], residual, self.residuals[nearest[:, j], j]
            )
        closest = near[np.arange(N_NEAREST) % n_neighbors]
        return closest, cell_p_values, residual_p_values

    def candidates(self, column: int) -> NDArray[np.intp]:
        """Return N_QUANTILES known cells spread over a column; of categories, the most frequent first."""
        known = self.columns[column]
        numbers = known.numbers
        present = known.known[~known.is_missing[known.known]]
        if numbers is None:
            order = np.argsort(-known.counts[: len(known.places)], kind="stable")
        else:
            sorted_cells = present[np.argsort(numbers[present], kind="stable")]
            if len(np.unique(present)) > N_QUANTILES:
                at = np.linspace(0, len(sorted_cells) - 1, N_QUANTILES).round().astype(int)
                sorted_cells = sorted_cells[at]
            order = sorted_cells[np.sort(np.unique(sorted_cells, return_index=True)[1])]
            if len(present) < len(known.known):
                order = np.append(order[: N_QUANTILES - 1], known.known[known.is_missing[known.known]][0])
        return np.resize(order[:N_QUANTILES], N_QUANTILES)

    def distances(self, column: int, cell: int, others: NDArray[np.intp]) -> NDArray[np.float64]:
        """Distances of cells from a row's own cell, or from the median if it is missing; 1 between categories."""
        scaled = self.scaled[column]
        if scaled is None:
            return (others != cell).astype(np.float64)
        own = scaled[cell] if np.isfinite(scaled[cell]) else 0.0
        far = np.abs(scaled[others] - own)
        return np.where(others == cell, 0.0, np.where(np.isfinite(far), far, 1e9))  # missing cells come last

    def _squares(self, column: int, cell: int) -> NDArray[np.float64]:
        known, scaled = self.columns[column].known, self.scaled[column]
        if scaled is None:
            return UNLIKE * (known != cell)
        there, own = scaled[known], _clipped(self.columns[column], scaled)[cell]
        squares = (there - own) ** 2
        unlike = np.isnan(there) != np.isnan(own)
        return np.where(np.isnan(squares), UNLIKE * unlike, squares)

    def _residual(self, column: int, cells: NDArray[np.intp], encoded: NDArray[np.float64]) -> NDArray[np.float64]:
        """Residuals given the other columns: signed for a number, 1 - predicted share for a category."""
        residual = encoded @ self.residual_of[column]  # (n, width of the group)
        scaled, group = self.scaled[column], self.groups[column]
        if scaled is not None:
            beyond = np.nan_to_num(scaled[cells] - _clipped(self.columns[column], scaled)[cells])
            return np.asarray(residual[:, 0] + beyond / self.deviation[group])
        levels = _levels(self.columns[column])
        place = np.full(len(self.columns[column].values), -1)
        place[levels] = np.arange(len(levels))
        at = place[cells]
        own = np.take_along_axis(residual, np.maximum(at, 0)[:, None], axis=1)[:, 0]
        return np.where(at < 0, 1.0, own * self.deviation[group][np.maximum(at, 0)])

    def _p_values(
        self,
        column: int,
        cell: int,
        near: NDArray[np.intp],
        residual: NDArray[np.float64],
        near_residuals: NDArray[np.float64],
    ) -> tuple[float, float]:
        scaled, n = self.scaled[column], len(near)
        if scaled is not None and np.isfinite(scaled[cell]):
            is_there = np.isfinite(scaled[near])
            if not is_there.any():
                return 1 / n, 1 / n
            return (
                float(two_sided_p_values(scaled[near[is_there], None], scaled[[cell]])[0]),
                float(two_sided_p_values(near_residuals[is_there, None], residual)[0]),
            )
        counts = np.bincount(near, minlength=cell + 1)
        as_rare = min((np.count_nonzero(counts[near] <= counts[cell]) + 1) / n, 1.0)
        if scaled is not None:
            return as_rare, as_rare
        return as_rare, min((np.count_nonzero(near_residuals >= residual[0] - 1e-9) + 1) / n, 1.0)


def _scaled(column: Column) -> NDArray[np.float64] | None:
    """Scale a column's distinct numbers: (x - median) / standard deviation of the known rows; NaN is missing."""
    if column.numbers is None:
        return None
    known = column.numbers[column.known]
    known = known[np.isfinite(known)]
    if not len(known):
        return np.where(np.isnan(column.numbers), np.nan, column.numbers)
    deviation = known.std()
    return np.asarray((column.numbers - np.median(known)) / (deviation if deviation > 0 else 1.0))


def _levels(column: Column) -> NDArray[np.intp]:
    """Return the most frequent categories of the known rows."""
    return np.argsort(-column.counts[: len(column.places)], kind="stable")[:MOST_LEVELS]


def _encoded(column: Column, scaled: NDArray[np.float64] | None, cells: NDArray[np.intp]) -> NDArray[np.float64]:
    """Encode cells as numeric columns: a number unchanged, 0 if missing; a category as indicators."""
    if scaled is None:
        return (cells[:, None] == _levels(column)[None]).astype(np.float64)
    return np.nan_to_num(_clipped(column, scaled)[cells])[:, None]


def _clipped(column: Column, scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Clip distinct numbers to the range of the known rows."""
    known = scaled[column.known]
    return np.clip(scaled, np.nanmin(known, initial=0), np.nanmax(known, initial=0))
