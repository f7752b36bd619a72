"""Nearest-neighbour density: the default density for tables.

A flow trained on a table also fits its ties, rounding and gaps. The distance to the nearest training rows is a better
sign of an outlier. The number of neighbours sets the scale of smoothing; the score is a mean over several scales.

Loftsgaarden and Quesenberry, "A Nonparametric Estimate of a Multivariate Density Function" (1965).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist
from scipy.special import gammaln
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from flowdetect import _persistence
from flowdetect._callbacks import CallbackSupportMixin, begun, ended, with_callbacks
from flowdetect._ctrl_c import whole_imports
from flowdetect._documented import Documented
from flowdetect._fitting import all_or_nothing
from flowdetect._images import to_rows
from flowdetect._limits import check_count, check_seed, is_count, is_number
from flowdetect._opening import as_source, check_columns, is_lazy, names_compared
from flowdetect._protocols import PathName, RandomState
from flowdetect._sources import Source
from flowdetect._warning import warn
from flowdetect.density._inputs import check_finite
from flowdetect.density.export import N_TRIED, Exports
from flowdetect.density.graphs import NeighborsGraph

MOST_REFERENCES = 2000  # rows to which distances are measured if contamination > 0
AT_ONCE = 512  # rows per block of distances to all references
BEYOND = 4.0  # largest ratio of a column's range to its range without the ends
END = 1e-3  # share of rows left out at each end of that narrower range; at least one row
CLOSEST = 1e-9  # in ranges; the smallest distance, e.g. between equal rows
SAME = 1e-6  # in ranges; a nearer row counts as the row itself
FEWEST_IN_GROUP = 10  # rows
CONSTANT = 0.01  # range of a constant column, relative to its value


class NeighborsDensity(Exports, Documented, CallbackSupportMixin, BaseEstimator):
    r"""The k-nearest-neighbour density at several scales, on columns scaled to their ranges.

    log p_k(x) = log k - log n - log V_D - D log r_k(x),  and  log p(x) = mean over k of log p_k(x),

    with r_k(x) the mean distance from x to its k nearest training rows and V_D the volume of the unit ball. Few
    neighbours follow fine structure, many neighbours smooth it; the score is the mean of their log-densities.

    Use it for tables. It trains nothing: it keeps the training rows, and each score searches among them.

    If a training row equals x, one such row is left out, so that training rows are scored by the other rows.

    If the training rows may contain outliers, smoothing is stronger: with ``contamination`` c, r(x) is the distance to
    the (ceil(1.1 c n) + 5)-th neighbour, so that outliers do not raise each other's density, even in one tight group.

    Parameters
    ----------
    n_neighbors : sequence of int, default=(1, 5)
        Numbers of neighbours, one per scale; each is at most the number of rows.
    contamination : float in [0, 0.5], default=0.0
        Share of the training rows that may be outliers. A value above 0 replaces `n_neighbors`.
    random_state : int, RandomState instance or None, default=None
        Seed for the choice of 2,000 training rows, if ``contamination`` is above 0 and there are more rows than that.

    Attributes
    ----------
    n_features_in_ : int
    feature_names_in_ : (n_features_in_,) array of str
        If `fit` received a data frame.
    scale_ : (n_features_in_,) array
        Divisor of each column: its range. A range more than four times as wide as the range without the outermost 0.1 %
        of rows (at least one row) at each end is cut to four times that width, so that one gross value does not flatten
        its column. For a constant column it is 1 % of the value (at least 0.01), so that a later change counts.

    Notes
    -----
    The distance between equal rows is taken as 1e-9 ranges, so that scores stay finite. The estimate for a fixed k does
    not integrate to 1, since its tails fall as ``|x|**-D``; it ranks rows by their density.

    The scaling and the default `n_neighbors` were chosen by AUROC on 16 tables of ADBench (docs/studies/tables).

    References
    ----------
    "A Nonparametric Estimate of a Multivariate Density Function" (Loftsgaarden and Quesenberry, 1965). The mean
    distance: "Fast Outlier Detection in High Dimensional Spaces" (Angiulli and Pizzuti, 2002).

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect import NeighborsDensity
    >>> X = np.random.default_rng(0).normal(size=(500, 2))
    >>> density = NeighborsDensity().fit(X)
    >>> bool(density.score_samples([[0.0, 0.0]])[0] > density.score_samples([[6.0, 6.0]])[0])
    True
    """

    def __init__(
        self,
        n_neighbors: Sequence[int] = (1, 5),
        *,
        contamination: float = 0.0,
        random_state: RandomState = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.contamination = contamination
        self.random_state = random_state

    @with_callbacks
    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Store the scaled training rows.

        Parameters
        ----------
        X : (n, D) array, frame or source of rows (read into memory); at least two rows
        y : ignored

        Returns
        -------
        self : NeighborsDensity

        Raises
        ------
        ValueError
            If a parameter is out of range or X is not finite.
        """
        context = begun(self, X, y, 0)
        self._fit(X)
        ended(self, context, X, y)
        return self

    @all_or_nothing
    def _fit(self, X: ArrayLike) -> Self:
        self._check_before_fit()
        rows = self._read(X, reset=True)
        check_finite(rows, type(self).__name__)
        n = len(rows)
        self.shift_: NDArray[np.float64] = np.median(rows, axis=0)
        self.scale_: NDArray[np.float64] = self._ranges(rows)
        self._references = (rows - self.shift_) / self.scale_
        self._sample: NDArray[np.int_] | None = None
        if self.contamination > 0:
            self._sample = np.arange(n)
            if n > MOST_REFERENCES:
                drawn = check_random_state(self.random_state).permutation(n)[:MOST_REFERENCES]
                self._sample = np.sort(drawn)
            self._scales: tuple[int, ...] = (_beyond(self.contamination, len(self._sample)),)
        else:
            self._scales = tuple(min(int(k), n - 1) for k in self.n_neighbors)
            self._index_rows()
        return self

    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:
        """Estimate log p of each row.

        Parameters
        ----------
        X : (n, D) array or frame

        Returns
        -------
        log_p : (n,) array of float64, nats, in the columns' own units
        """
        return np.asarray(self.member_scores(X).mean(axis=1))

    def member_scores(self, X: ArrayLike) -> NDArray[np.float64]:
        """Estimate log p of each row at each scale: (n, n_scales), nats."""
        return self._log_densities(self._radii(self._scaled(X)))

    def tight_group(self, share: float = 0.1) -> NDArray[np.int_]:
        """Find a tight group of training rows far from all others: at most a share `share` of the rows.

        A row of the group has its 5th neighbour at most a quarter as far away as the median row has, but its (ceil(1.1
        share n) + 5)-th neighbour, the first outside any such group, at least twice as far away. A density cannot tell
        whether such rows are a mode of the data or similar outliers.

        Parameters
        ----------
        share : float in (0, 0.5]

        Returns
        -------
        rows : array of int
            Indices of training rows; empty if the group has fewer than ten rows.
        """
        check_is_fitted(self)
        if not is_number(share) or not 0 < share <= 0.5:
            raise ValueError(f"tight_group needs share, the share of rows, above 0 and at most 0.5, got {share!r}.")
        n = len(self._references)
        sample = np.sort(check_random_state(0).permutation(n)[:MOST_REFERENCES])
        radii = self._radii_of_sample(self._references, sample, _beyond(share, len(sample)))[:, 0]
        near = _nearest_of(self._references, min(5, n - 1)).kneighbors()[0][:, -1]
        is_tight = (near < np.median(near) / 4) & (radii > 2 * np.median(radii))
        found = np.flatnonzero(is_tight)
        return found if len(found) >= FEWEST_IN_GROUP else found[:0]

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """Mean of `score_samples`, nats."""
        return float(np.mean(self.score_samples(X)))

    def sample(self, n_samples: int = 1, *, random_state: RandomState = None) -> NDArray[np.float64]:
        """Draw rows: training rows plus Gaussian noise, about as wide as the distance to the nearest neighbour.

        Parameters
        ----------
        n_samples : int
        random_state : int, RandomState instance or None

        Returns
        -------
        X : (n_samples, D) array
        """
        check_is_fitted(self)
        check_count("n_samples", n_samples)
        check_seed(random_state)
        random = check_random_state(random_state)
        chosen = random.randint(len(self._references), size=n_samples)
        rows = self._references[chosen]
        radii = _nearest_of(self._references, 2).kneighbors(rows)[0][:, 1]
        noise = random.normal(size=rows.shape) * (radii / math.sqrt(rows.shape[1]))[:, None]
        return np.asarray((rows + noise) * self.scale_ + self.shift_)

    def save(self, path: PathName) -> None:
        """Write the density to a file that `flowdetect.load` reads.

        Parameters
        ----------
        path : str or path

        Raises
        ------
        OSError
            If the file cannot be written.
        ValueError
            If a parameter cannot be saved, such as a RandomState.
        """
        _persistence.save(self, path)

    def _read(self, X: Any, *, reset: bool) -> NDArray[np.float64]:
        source = as_source(X) if is_lazy(X) else X
        rows = to_rows(source.array() if isinstance(source, Source) else X)[0]
        with names_compared(source):
            checked = validate_data(self, rows, reset=reset, dtype=np.float64, ensure_min_samples=2 if reset else 1)
        check_columns(self, source, reset=reset)
        return np.asarray(checked)

    def _check_before_fit(self) -> None:
        scales = self.n_neighbors
        is_sequence = isinstance(scales, Sequence | np.ndarray) and not isinstance(scales, str) and len(scales) > 0
        if not is_sequence or not all(is_count(k) for k in scales):
            raise ValueError(
                f"NeighborsDensity needs n_neighbors, a sequence of numbers of neighbours >= 1, got {scales!r}; the "
                "usual value is (1, 5)."
            )
        check_seed(self.random_state)
        share = self.contamination
        if not is_number(share) or not 0 <= share <= 0.5:
            raise ValueError(
                f"NeighborsDensity needs contamination, the share of rows that may be outliers, from 0 to 0.5, "
                f"got {share!r}; 0 stands for rows that are all normal."
            )

    def _ranges(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        n = len(rows)
        end = min((n - 1) // 2, max(1, math.ceil(max(END, self.contamination) * n)))
        ordered = np.sort(rows, axis=0)
        whole, inner = ordered[-1] - ordered[0], ordered[n - 1 - end] - ordered[end]
        cut = np.where(inner > 0, np.minimum(whole, BEYOND * inner), whole)
        gross = np.flatnonzero(whole > 1000 * np.where(inner > 0, inner, np.inf))
        if len(gross):
            names = getattr(self, "feature_names_in_", None)
            name = repr(str(names[gross[0]])) if names is not None else str(gross[0])
            warn(
                f"Column {name} has values up to {np.abs(rows[:, gross[0]]).max():g}, but all except {2 * end} of its "
                f"rows span {inner[gross[0]]:g}; the column's scale ignores the extreme values. Are they codes for "
                "missing values?"
            )
        largest = float(np.abs(ordered[[0, -1]]).max()) or 1.0
        size = np.maximum(np.abs(ordered[0]), min(largest, 1.0))  # all columns may have a tiny unit
        return np.asarray(np.where(whole > 1e-12 * size, cut, CONSTANT * size))

    def _index_rows(self) -> None:
        self._neighbors = _nearest_of(self._references, max(self._scales) + 1)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_neighbors", None)  # a search tree; fast to rebuild
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_scales" in state and self._sample is None:
            self._index_rows()

    def _check_state(self, state: dict[str, Any]) -> None:
        """Refuse a state from a file that describes no valid density; its arrays may be placeholders."""
        if "_references" not in state:
            return
        references, n_columns, sample = state["_references"], state["n_features_in_"], state["_sample"]
        n_rows = len(references if sample is None else sample)
        is_whole = references.shape == (len(references), n_columns) and references.dtype == np.float64
        is_whole &= all(state[name].shape == (n_columns,) for name in ("shift_", "scale_"))
        if not is_whole or not all(is_count(k) and k < n_rows for k in state["_scales"]):
            raise ValueError("the rows, scales and numbers of neighbours of NeighborsDensity do not fit together")

    def _example(self) -> NDArray[np.float64] | None:
        """Return a row for a loaded density to score; None if it is not fitted."""
        return self.shift_[None] if hasattr(self, "shift_") else None

    def _scaled(self, X: ArrayLike) -> NDArray[np.float64]:
        check_is_fitted(self)
        rows = self._read(X, reset=False)
        check_finite(rows, type(self).__name__)  # scikit-learn's own check can be switched off (assume_finite)
        return np.asarray((rows - self.shift_) / self.scale_)

    def _radii(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return r_k of scaled rows, in ranges: (n, n_scales)."""
        if self._sample is not None:
            return self._radii_of_sample(rows, self._sample, *self._scales)
        distances = self._neighbors.kneighbors(rows)[0]
        is_own = distances[:, :1] < SAME
        distances = np.where(is_own, distances[:, 1:], distances[:, :-1])
        return np.stack([distances[:, :k].mean(axis=1) for k in self._scales], axis=1)

    def _radii_of_sample(self, rows: NDArray[np.float64], sample: NDArray[np.int_], k: int) -> NDArray[np.float64]:
        references = self._references[sample]
        found = np.empty((len(rows), 1))
        for start in range(0, len(rows), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            distances = cdist(rows[part], references)
            nearest = np.partition(distances, (k - 1, k), axis=1)
            found[part, 0] = np.where(distances.min(axis=1) < SAME, nearest[:, k], nearest[:, k - 1])
        return found

    def _log_densities(self, radii: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return log p_k of rows from their r_k: (n, n_scales), nats."""
        return np.asarray(self._constants() - len(self.scale_) * np.log(radii + CLOSEST))

    def _constants(self) -> NDArray[np.float64]:
        """Return the terms of log p_k that do not depend on the radius: (n_scales,), nats."""
        n_columns = len(self.scale_)
        log_volume = n_columns / 2 * math.log(math.pi) - gammaln(n_columns / 2 + 1)
        n = len(self._references if self._sample is None else self._sample)
        return np.asarray(np.log(self._scales) - math.log(n) - log_volume - np.log(self.scale_).sum())

    # ---- export

    def _graph(self, answer: str = "score_samples") -> NeighborsGraph | None:
        if answer not in ("score_samples", "member_scores"):
            return None
        is_mean = self._sample is None
        return NeighborsGraph(
            self._references if self._sample is None else self._references[self._sample],
            self.shift_,
            self.scale_,
            self._scales,
            self._constants(),
            is_mean=is_mean,
            is_joined=answer == "score_samples",
            same=SAME,
            closest=CLOSEST,
        )

    def _graph_input(self) -> tuple[str, NDArray[np.float64]]:
        """Return rows for testing a graph: a training row, and rows between two training rows."""
        rows = self._references[:N_TRIED] * self.scale_ + self.shift_
        rows[1:] = (rows[1:] + rows[:-1]) / 2
        return "rows", rows

    def _score_without_noise(self, X: Any) -> NDArray[np.float64]:
        return self.score_samples(X)


def _nearest_of(references: NDArray[np.float64], k: int) -> Any:
    """Return a fitted search for the k nearest of the references (n, D)."""
    with whole_imports():
        from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=k).fit(references)


def _beyond(share: float, n: int) -> int:
    """Return the rank of the first neighbour that is no outlier, if at most that share of n rows are outliers."""
    return min(n - 1, math.ceil(1.1 * share * n) + 5)  # one more neighbour is searched
