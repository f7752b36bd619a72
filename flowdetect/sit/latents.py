"""SITs on the latents of a flow: zero the first factors (section 4.3 of the paper)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data

from flowdetect._documented import Documented
from flowdetect._fitting import KeepsParameters, all_or_nothing
from flowdetect._images import Layout, to_rows
from flowdetect._nested import check_within
from flowdetect._protocols import Flow
from flowdetect._rows import plain
from flowdetect.sit._base import check_whole


class ZeroLatents(Documented, KeepsParameters, OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    r"""Set the first latent factors of a multi-scale flow to zero and map back to an image of higher likelihood.

    Algorithm 1 of the paper, for a flow g with latents :math:`z = (z_1, \ldots, z_L)`, where level 1 is factored out
    first:

    .. math:: x^* = g^{-1}(0, \ldots, 0, z_{k+1}, \ldots, z_L), \qquad z = g(x)

    The object in the image depends on the last factors; the first ones hold fine detail and most of log p(z).

    Parameters
    ----------
    flow : estimator
        It needs `transform(X)`, which returns latents (n, D), `inverse_transform(Z)`, which returns rows (n, D), and
        after `fit` the list of slices `latent_slices_`, level 1 first. A clone of it is fitted; a flow in
        scikit-learn's `FrozenEstimator` is used without training. The flow's own parameters set the image shape and the
        bins.
    n_factors : int, default=1
        The k of the algorithm, 0 .. L: the number of levels to set to zero, from the first. With 0 only the inversion
        error of the flow remains; with L each image becomes the flow's image of z = 0.

    Attributes
    ----------
    flow_ : the fitted flow
    n_features_in_ : int
    feature_names_in_ : (n_features_in_,) array of str

    Notes
    -----
    Results are float64 and not on the grid of bins; nothing is rounded or clipped.

    A conditional flow uses the label y of `transform` in both directions, as in the paper. Without y it uses the most
    probable class given the image, the one with the largest p(x | c) p(c); this costs one score for each class.

    References
    ----------
    "Exploring the Correlation Between Likelihood of Flow-based Generative Models and Image Semantics" (anonymous, under
    double-blind review), section 4.3, Algorithm 1.

    Examples
    --------
    Any estimator with these methods can be the flow. This one subtracts the mean, and has two levels of one feature
    each:

    >>> from sklearn.preprocessing import StandardScaler
    >>> from flowdetect import ZeroLatents
    >>> class Centre(StandardScaler):
    ...     latent_slices_ = [slice(0, 1), slice(1, 2)]
    >>> ZeroLatents(Centre(with_std=False), n_factors=1).fit_transform([[0.0, 1.0], [2.0, 5.0]]).tolist()
    [[1.0, 1.0], [1.0, 5.0]]
    """

    kept = ("n_factors",)

    def __init__(self, flow: Flow, n_factors: int = 1):
        self.flow = flow
        self.n_factors = n_factors

    def _check_before_fit(self) -> None:
        """Raise if a parameter is invalid for any data."""
        check_whole(self, "n_factors", low=0)
        _check_has(self.flow, "fit", "transform", "inverse_transform")
        check_within(self, "flow")

    @all_or_nothing
    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> ZeroLatents:
        """Fit a clone of the flow, or use the frozen one.

        Parameters
        ----------
        X : rows (n, D), images (n, H, W) or (n, H, W, C), or torch (n, C, H, W)
        y : (n,) class labels, for a conditional flow that is fitted here; else ignored

        Returns
        -------
        self

        Raises
        ------
        TypeError
            If the flow lacks a method or `latent_slices_`.
        ValueError
            If `n_factors` is not a whole number 0 .. L.
        """
        self._check_before_fit()
        self._keep_parameters()
        X, rows, _ = _rows_beside(X)
        validate_data(self, rows)
        self.flow_ = clone(self.flow).fit(X, y if getattr(self.flow, "conditional", False) else None)
        _check_has(self.flow_, "latent_slices_")
        n_levels = len(self.flow_.latent_slices_)
        if self.n_factors > n_levels:
            raise ValueError(
                f"n_factors must be at most {n_levels}, the flow's number of latent levels, got {self.n_factors}."
            )
        return self

    def transform(self, X: ArrayLike, y: ArrayLike | None = None) -> NDArray[np.float64]:
        """Zero the latents and map back.

        Parameters
        ----------
        X : rows (n, D), images (n, H, W) or (n, H, W, C), or torch (n, C, H, W)
        y : (n,) class labels, optional
            For a conditional flow; None: the most probable class of each row. Other flows ignore it.

        Returns
        -------
        X_zeroed : float64 array in the form of X (torch: numpy (n, H, W, C))
        """
        check_is_fitted(self)
        X, rows, layout = _rows_beside(X)
        validate_data(self, rows, reset=False)
        labels = self._labels(X, len(rows), y)
        # (n, D), a copy; the flow may return a frame
        latents = np.array(self.flow_.transform(X, *labels), dtype=np.float64, order="C")
        for level in self.flow_.latent_slices_[: self._kept["n_factors"]]:
            latents[:, level] = 0.0
        zeroed, _ = to_rows(np.asarray(self.flow_.inverse_transform(latents, *labels), dtype=np.float64))
        return layout.as_numpy().restore(zeroed)

    def _labels(self, X: Any, n_rows: int, y: Any) -> tuple[Any, ...]:
        """Return the second argument of a conditional flow, the labels; nothing for other flows."""
        if not hasattr(self.flow_, "classes_"):
            return ()
        if y is not None:
            return (y,)
        _check_has(self.flow_, "score_samples", "class_log_prior_")
        classes = np.asarray(self.flow_.classes_)
        scores = [self.flow_.score_samples(X, np.full(n_rows, label, classes.dtype)) for label in classes]
        return (classes[np.argmax(np.array(scores) + self.flow_.class_log_prior_[:, None], axis=0)],)


def _rows_beside(X: Any) -> tuple[Any, Any, Layout]:
    """Return X in the form that a flow takes, its rows and its layout."""
    X = plain(X)
    rows, layout = to_rows(X)
    return (rows if layout.axes == "rows" else X), rows, layout


def _check_has(flow: Any, *names: str) -> None:
    missing = [name for name in names if not hasattr(flow, name)]
    if missing:
        raise TypeError(
            f"ZeroLatents needs a flow with {', '.join(missing)}, which {type(flow).__name__} lacks; "
            f"pass a flow such as GlowDensity, fitted and in FrozenEstimator, or to be fitted."
        )
