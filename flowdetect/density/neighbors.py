"""The distance to the nearest neighbours as a density: what tables are scored by where nobody chooses a density.

A flow trained on a table fits its ties, its rounding and its gaps; what tells an outlier is how far away the nearest
training rows are. The number of neighbours is the scale of smoothing, and several scales are joined.

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

MOST_REFERENCES = 2000  # rows to measure distances to where many neighbours are asked for
AT_ONCE = 512  # rows whose distances to all references are held at a time
BEYOND = 4.0  # how much wider than the range without its ends a range may be before it is cut
END = 1e-3  # share of the rows at each end that this narrower range leaves out, at least one row
CLOSEST = 1e-9  # in ranges; rows that occur several times have no smaller distance than this
SAME = 1e-6  # in ranges; a row nearer than this is the row itself
FEWEST_IN_GROUP = 10  # rows
CONSTANT = 0.01  # of a constant column's value: what a whole range is there


class NeighborsDensity(Exports, Documented, CallbackSupportMixin, BaseEstimator):
    r"""The k-nearest-neighbour density at several scales, on columns scaled to their ranges.

    log p_k(x) = log k - log n - log V_D - D log r_k(x),  and  log p(x) = mean over k of log p_k(x),

    with r_k(x) the mean distance from x to its k nearest training rows and V_D the volume of the unit ball. Few
    neighbours follow fine structure, many smooth it away; the mean of the logarithms joins them.

    It is for tables: nothing is trained, but the training rows are kept, and each score searches among them.

    One training row that equals x is taken for x itself and left out, so that training rows are scored by the others.

    Rows that may contain outliers are smoothed more: with ``contamination`` c, r(x) is the distance to the
    (ceil(1.1 c n) + 5)-th neighbour, so that outliers, scattered or in one tight group, cannot vouch for each other.

    Parameters
    ----------
    n_neighbors : sequence of int, default=(1, 5)
        The scales; each is cut to the number of rows there are.
    contamination : float in [0, 0.5], default=0.0
        Share of the training rows that may be outliers. Above 0 it takes the place of `n_neighbors`.
    random_state : int, RandomState instance or None, default=None
        Draws the 2,000 rows that distances are measured to where ``contamination`` is above 0 and there are more.

    Attributes
    ----------
    n_features_in_ : int
    feature_names_in_ : (n_features_in_,) array of str
        Where a frame was given to `fit`.
    scale_ : (n_features_in_,) array
        What each column is divided by: its range. A range that is more than four times as wide as the range without
        the outermost 0.1 % (at least one row) at each end is cut to that, so that one gross value does not shrink its
        column to nothing. A constant column has 1 % of its value (at least 0.01): if it varies later, it counts.

    Notes
    -----
    Rows that occur several times have distance 0; it is taken as 1e-9 ranges, so that scores stay finite. The estimate
    of a fixed k does not integrate to 1, since its tails fall as ``|x|**-D``; it ranks rows and says how dense they
    lie.

    The scaling and the scales were chosen by AUROC on 16 tables of ADBench (docs/tables).

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
        """Keep the rows, scaled.

        Parameters
        ----------
        X : (n, D) array or frame, or a source of rows, which is read into memory; at least two rows
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
        self.shift_ = np.median(rows, axis=0)
        self.scale_ = self._ranges(rows)
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
        """Find training rows that lie close together and far from all others: a share of at most `share` of them.

        Their 5-th neighbour is four times as near as that of the median row, whereas the first neighbour that cannot
        be one of them, the (ceil(1.1 share n) + 5)-th, is twice as far away. A density cannot know whether such rows
        are a mode of the data or outliers that are alike.

        Parameters
        ----------
        share : float in (0, 0.5]

        Returns
        -------
        rows : array of int
            Indices of training rows; empty if they are fewer than ten.
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
        """Give the mean of `score_samples`, nats."""
        return float(np.mean(self.score_samples(X)))

    def sample(self, n_samples: int = 1, *, random_state: RandomState = None) -> NDArray[np.float64]:
        """Draw rows: training rows, each moved by Gaussian noise about as wide as the distance to its neighbour.

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
            If a parameter is something that a file does not keep, such as a RandomState.
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
                f"Column {name} has values up to {np.abs(rows[:, gross[0]]).max():g}, though all but {2 * end} of its "
                f"rows span {inner[gross[0]]:g}; its scale leaves them out. Are they codes for missing values?"
            )
        largest = float(np.abs(ordered[[0, -1]]).max()) or 1.0
        size = np.maximum(np.abs(ordered[0]), min(largest, 1.0))  # columns may all be in a tiny unit
        return np.asarray(np.where(whole > 1e-12 * size, cut, CONSTANT * size))

    def _index_rows(self) -> None:
        self._neighbors = _nearest_of(self._references, max(self._scales) + 1)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_neighbors", None)  # a tree, which is quickly built anew
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_scales" in state and self._sample is None:
            self._index_rows()

    def _check_state(self, state: dict[str, Any]) -> None:
        """Refuse a state from a file that would not make a density; its arrays may be placeholders."""
        if "_references" not in state:
            return
        references, n_columns, sample = state["_references"], state["n_features_in_"], state["_sample"]
        n_rows = len(references if sample is None else sample)
        is_whole = references.shape == (len(references), n_columns) and references.dtype == np.float64
        is_whole &= all(state[name].shape == (n_columns,) for name in ("shift_", "scale_"))
        if not is_whole or not all(is_count(k) and k < n_rows for k in state["_scales"]):
            raise ValueError("the rows of NeighborsDensity, their scales and numbers of neighbours do not fit together")

    def _example(self) -> NDArray[np.float64] | None:
        """Give a row for a loaded density to score; None if it is not fitted."""
        return self.shift_[None] if hasattr(self, "shift_") else None

    def _scaled(self, X: ArrayLike) -> NDArray[np.float64]:
        check_is_fitted(self)
        rows = self._read(X, reset=False)
        check_finite(rows, type(self).__name__)  # which scikit-learn can be told to assume
        return np.asarray((rows - self.shift_) / self.scale_)

    def _radii(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give r_k of scaled rows, in ranges: (n, n_scales)."""
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
        """Give log p_k, nats, of rows whose r_k is known: (n, n_scales)."""
        return np.asarray(self._constants() - len(self.scale_) * np.log(radii + CLOSEST))

    def _constants(self) -> NDArray[np.float64]:
        """Give what log p_k has beside the radius: (n_scales,), nats."""
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
        """Give rows to try a graph on: a training row, and others that lie between two."""
        rows = self._references[:N_TRIED] * self.scale_ + self.shift_
        rows[1:] = (rows[1:] + rows[:-1]) / 2
        return "rows", rows

    def _score_without_noise(self, X: Any) -> NDArray[np.float64]:
        return self.score_samples(X)


def _nearest_of(references: NDArray[np.float64], k: int) -> Any:
    """Give what finds the k nearest of some rows (n, D)."""
    with whole_imports():
        from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=k).fit(references)


def _beyond(share: float, n: int) -> int:
    """Give the number of the neighbour that cannot be an outlier, if that share of n rows are outliers at most."""
    return min(n - 1, math.ceil(1.1 * share * n) + 5)  # one more is looked for
