"""What all detectors share: a density inside, a score of it, a threshold on the score and p-values.

A new detector defines `_score`, and `_calibrate` if its score needs reference rows; this class does the rest. Signs are
those of scikit-learn: higher scores are more normal, +1 is normal and -1 is an outlier.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import check_consistent_length

from flowdetect._callbacks import CallbackSupportMixin, begun, ended, with_callbacks
from flowdetect._documented import Documented
from flowdetect._fitting import KeepsParameters, all_or_nothing
from flowdetect._limits import check_seed
from flowdetect._nested import check_within
from flowdetect._protocols import ImageShape, PathName, RandomState, Scorer
from flowdetect._reach import OutOfReachError
from flowdetect._sources import Without
from flowdetect.detectors.checks import check_folds, check_methods, check_shares, name_of
from flowdetect.detectors.clones import seeded_clone, tell_image_shape
from flowdetect.detectors.cross_conformal import CrossConformal
from flowdetect.detectors.explanations import Explains, remembered_rows
from flowdetect.detectors.prefit import UsesPrefit
from flowdetect.detectors.reach import lowest_beyond_reach, lowest_where
from flowdetect.detectors.reading import ReadsRows
from flowdetect.detectors.rows import Split, by_parts, drawn, few, hold_out, most_read, take
from flowdetect.detectors.trainings import Trainings
from flowdetect.detectors.usual import KnowsUsual
from flowdetect.detectors.verdicts import Verdicts

FEWEST_REFERENCE = 10  # rows


class BaseDetector(
    KeepsParameters,
    ReadsRows,
    Verdicts,
    Explains,
    CrossConformal,
    UsesPrefit,
    KnowsUsual,
    Trainings,
    OutlierMixin,
    Documented,
    CallbackSupportMixin,
    BaseEstimator,
):
    r"""Base class of all detectors: a density, a score computed from it, and a threshold.

    A row x is an outlier if its score s(x) is below `offset_`. Its p-value is its rank among the n calibration scores:
    p(x) = (1 + #{i : s_i <= s(x)}) / (1 + n).

    Parameters
    ----------
    density : estimator with `fit` and `score_samples`
        A density of flowdetect or of another library, such as scikit-learn's GaussianMixture. A clone of it is fitted;
        with `prefit=True`, or inside scikit-learn's `FrozenEstimator`, it is used without training.
    contamination : float in (0, 0.5], default=0.1
        Share of the rows given to `fit` that are to be called outliers; it sets `offset_`.
    calibration_fraction : float in [0, 1), default=0.1
        Share of the rows given to `fit` that are held out from training; p-values are computed from their scores. With
        0 the density trains on all rows and p-values use all of them, so the p-values of new rows are too small. It has
        no effect on a fitted density, where p-values use all rows.
    prefit : bool, default=False
        True: `density` is already fitted and is used without training, as in `FrozenEstimator`; clones of the detector
        share it. False: a clone of `density` is trained; a warning is given if `density` was already fitted.
    cv : int or None, default=None
        Number of folds for cross-conformal calibration, for small data; 5 is usual. For each fold a member is trained
        on the other folds, and p-values use all rows. Training and scoring cost `cv` times as much.
        `calibration_fraction` then only matters for scores that learn from rows, and is a share of each member's rows.
        See Notes.
    checkpoint : path or None, default=None
        Folder for the checkpoints of all trainings in `fit` and for the detector's seed; it is created if needed. A
        killed `fit` resumes from it and ends with bitwise the same result. With random_state=None, fits of the same
        class, parameters, X and y share that seed; a RandomState instance must be in the same state. An inner estimator
        with a `checkpoint` of its own keeps it; without a folder, the seed is kept beside that file.
    random_state : int, RandomState instance or None, default=None
        Draws the calibration rows, and a seed for each `random_state` inside the density that is None. None: each `fit`
        draws a new seed, without numpy's global generator.

    Attributes
    ----------
    density_ : the fitted density; with `cv` each member has its own
    members_ : list of fitted detectors, with `cv`
        One for each fold, of the same class, trained on the other folds; its `calibration_scores_` are the fold's
        scores.
    offset_ : float
        The `contamination` quantile of the scores of all rows given to `fit`; with `cv`, each row is scored by the
        member that was trained without it.
    calibration_scores_ : (n_calibration,) array
        Scores of the calibration rows, sorted.
    image_shape_ : tuple of int (H, W, C) or None
        Shape of the images, from the data given to `fit` or from the density; None for tables.
    n_features_in_ : int
        Values per row; H * W * C for images.
    feature_names_in_ : (n_features_in_,) array of str
        Names of the columns, if `fit` was given a data frame.

    Notes
    -----
    X may be rows (n, D), as an array or data frame, or images: numpy (n, H, W) or (n, H, W, C), torch (n, C, H, W). X
    may also be a source that is read in parts: the result of `load_folder` or `load_parquet`, an array in a file, or a
    map-style dataset. From a source of more than 262,144 rows or 17 million values, a sample sets the threshold and the
    p-values, and the density is fitted on all other rows. A density of another library is then fitted in memory. A
    density with an `image_shape` parameter receives images unchanged; any other receives float rows.

    With `cv`, a row's score is the mean of the members' scores. Its p-value counts, over all folds, the rows that score
    at most as high under the fold's member. Scores and p-values may therefore order two rows differently.

    A score that learns from rows uses every second calibration row; p-values use the others.

    The density was trained on most of the rows behind `offset_`. For a held-out threshold, freeze a fitted density and
    fit the detector on other rows.

    p-values are valid (uniform or larger on normal rows) for any density, if calibration rows and new rows are
    exchangeable: Vovk et al., "Algorithmic Learning in a Random World" (2005), section 2.2. With `cv` they are
    approximately valid: "Cross-conformal predictors" (Vovk, 2015), https://arxiv.org/abs/1208.0806. At worst a share of
    about 2 alpha of the normal rows has p-values of at most alpha, as for CV+ intervals: "Predictive inference with the
    jackknife+" (Barber et al., 2021), https://arxiv.org/abs/1905.02928

    Examples
    --------
    A new detector defines its score:

    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from flowdetect.detectors import BaseDetector
    >>> class TemperedDetector(BaseDetector):
    ...     def _score(self, X):
    ...         return self._log_likelihood(X) / 2
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> detector = TemperedDetector(GaussianMixture(), random_state=0).fit(X)
    >>> detector.predict([[0.0, 0.0], [9.0, 9.0]])
    array([ 1, -1])
    """

    image_shape: ImageShape = None  # detectors with a parameter of this name overwrite it
    needs: tuple[str, ...] = ()  # methods of the density beyond fit and score_samples
    density: Scorer | None
    contamination: float | str  # "auto" only in detectors that accept it
    density_: Scorer
    image_shape_: tuple[int, int, int] | None

    @property
    def learns(self) -> bool:
        """Whether the score learns from rows; p-values then use other rows."""
        return False

    def __init__(
        self,
        density: Scorer | None,
        *,
        contamination: float = 0.1,
        calibration_fraction: float = 0.1,
        prefit: bool = False,
        cv: int | None = None,
        checkpoint: PathName | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.density = density
        self.contamination = contamination
        self.calibration_fraction = calibration_fraction
        self.prefit = prefit
        self.cv = cv
        self.checkpoint = checkpoint
        self.random_state = random_state

    def _score(self, X: Any) -> NDArray[np.float64]:
        """Score rows; the one method that a detector must define.

        Parameters
        ----------
        X : (n, D) array or frame, or images; validated, in the form that `density_` takes

        Returns
        -------
        scores : (n,) array; higher is more normal
        """
        raise NotImplementedError(f"{type(self).__name__} must define _score(X), higher being more normal.")

    def _calibrate(self, X_train: Any, X_calibration: Any) -> None:
        """Learn what the score needs in addition to the density; `fit` calls it once, before `_score`.

        Parameters
        ----------
        X_train : the rows that the density was trained on
        X_calibration : the rows that it was not trained on
            The same as X_train with calibration_fraction=0, with a fitted density, and with `cv` unless ``learns``.

            A class that learns from these rows sets ``learns = True``. It then receives every second held-out row, and
            the others make `calibration_scores_`: p-values are too small if the score has learned from the rows behind
            them. Fewer than 20 held-out rows serve both purposes.
        """

    @with_callbacks
    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> BaseDetector:
        """Fit the density, unless it is already fitted, and set the threshold; a failed `fit` changes nothing.

        Ctrl-C during the training of a flowdetect density ends the training and keeps its best weights. The detector is
        calibrated with them, then KeyboardInterrupt is raised. An ensemble, or a detector with `cv`, keeps the members
        trained so far. Ctrl-C at any other moment, or before another training that the score needs, leaves the previous
        fit unchanged. A second Ctrl-C stops immediately.

        Parameters
        ----------
        X : (n, D) array or frame, or images
            At least two rows.
        y : (n,) array or None
            Class labels for a conditional density; passed to the density only.

        Returns
        -------
        self : BaseDetector

        Raises
        ------
        TypeError
            If the density lacks `fit` or `score_samples`.
        ValueError
            If a parameter, also of an inner estimator, is out of range, if X is not finite, or if a score is not
            finite.
        OSError
            If a checkpoint cannot be written.
        NotFittedError
            If the density is to be used without training, but is not fitted.

        Warns
        -----
        UserWarning
            If the density was already fitted and is trained again.
        """
        context = begun(self, X, y)
        interrupt = self._fit(X, y)
        ended(self, context, X, y)
        if interrupt is not None:
            raise interrupt
        return self

    @all_or_nothing
    def _fit(self, X: ArrayLike, y: ArrayLike | None) -> KeyboardInterrupt | None:
        """Fit; return the KeyboardInterrupt that ended the density's training early, if any."""
        self._check_parameters()
        self._warn_of_retraining()
        self._keep_parameters()
        checked = self._check_X(X, reset=True)
        self._check_data(checked)
        check_consistent_length(checked, y)
        random = self._settle_seed(checked, y)
        checked = self._narrowed(checked, random)
        self._remembered_rows = remembered_rows(few(checked), is_image=self.image_shape_ is not None)
        if self.cv is not None:
            self._fit_members(checked, y, random)
            return self._end_trainings()
        self.__dict__.pop("members_", None)
        train, reference, calibration = self._split(len(checked), random, most_read(checked))
        self._learn(checked, y, train, reference, random)
        rows = self._threshold_rows(len(checked), reference, calibration)
        if rows is None and len(checked) > (most_read(checked) or len(checked)):
            rows = np.union1d(reference, calibration)
        scores = self._threshold_scores(checked, rows, reference)
        self._settle(scores, np.isin(np.arange(len(checked)) if rows is None else rows, calibration))
        return self._end_trainings()

    def _learn(self, X: Any, y: Any, train: Any, reference: Any, random: np.random.RandomState) -> None:
        """Fit the density on rows `train` of checked X, and learn what else the score needs."""
        X_train, y_train = take(X, train), None if y is None else take(np.asarray(y), train)
        self.density_ = self._with_checkpoints(seeded_clone(self._as_used(self._template()), random))
        if self.image_shape is not None:
            tell_image_shape(self.density_, self.image_shape_)
        self._train(self.density_, self._density_source(X_train), y_train)
        self._settle_image_shape()
        self._learn_usual(X_train)
        self._calibrate(X_train, self._in_memory(take(X, reference)))

    # ---- what a detector may override

    @property
    def _share(self) -> Any:
        """Share of the rows given to `fit` that are called outliers."""
        return self.contamination

    def _density_rows(self, X: Any) -> Any:
        """Convert checked rows to the form that the density receives."""
        return X

    def _narrowed(self, X: Any, random: np.random.RandomState) -> Any:
        """Select the rows of checked X that `fit` uses."""
        return X

    def _threshold_rows(
        self, n_rows: int, reference: NDArray[np.int_], calibration: NDArray[np.int_]
    ) -> NDArray[np.int_] | None:
        """Return the indices of the rows whose scores set the threshold; None: all rows."""
        return None

    def _threshold_scores(
        self, X: Any, rows: NDArray[np.int_] | None, reference: NDArray[np.int_]
    ) -> NDArray[np.float64]:
        """Score the rows of checked X that set the threshold; `_calibrate` has learned from the rows `reference`."""
        return self._finite_scores(X if rows is None else take(X, rows))

    def _settle(self, scores: NDArray[np.float64], is_calibration: NDArray[np.bool_]) -> None:
        """Set the threshold and the calibration scores."""
        self.calibration_scores_ = np.sort(scores[is_calibration])
        self.offset_ = float(np.quantile(scores, self._share))

    def _template(self) -> Any:
        """Return the density to clone and fit; `image_shape_` is already set."""
        return self.density

    def fit_predict(self, X: ArrayLike, y: ArrayLike | None = None) -> NDArray[np.int_]:
        """Fit to X and label its rows.

        Parameters
        ----------
        X : (n, D) array or frame, or images
        y : (n,) array or None
            As in `fit`.

        Returns
        -------
        labels : (n,) array of int; +1 normal, -1 outlier
        """
        return self.fit(X, y).predict(X)

    @staticmethod
    def _reference(X_train: Any, X_calibration: Any) -> Any:
        """Return the rows to learn statistics from: the calibration rows, or the training rows if those are too few."""
        return X_calibration if len(X_calibration) >= FEWEST_REFERENCE else few(X_train)

    def _log_likelihood(self, X: Any) -> NDArray[np.float64]:
        """Compute log p(x) with the density: (n,), nats."""
        return self._finite(np.asarray(self.density_.score_samples(self._density_rows(X)), dtype=np.float64))

    @by_parts
    def _scores(self, X: Any) -> NDArray[np.float64]:
        """Score checked rows; rows too far out for the density to score get the lowest score."""
        return lowest_beyond_reach(self._finite_scores, self._log_likelihood, X, lambda: self._ranges(X))

    @by_parts
    def _finite_scores(self, X: Any) -> NDArray[np.float64]:
        is_out = self._breaks_out(X)
        if is_out.any():
            return lowest_where(is_out, self._finite_scores, X)
        scores = np.asarray(self._score(X), dtype=np.float64)
        if scores.shape != (len(X),):
            raise ValueError(
                f"{type(self).__name__} needs one score for each row, shape ({len(X)},), but "
                f"{name_of(self.density_)} led to scores of shape {scores.shape}; correct its score_samples."
            )
        return self._finite(scores)

    def _finite(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        lost = np.flatnonzero(~np.isfinite(scores))
        if len(lost):
            message = (
                f"{type(self).__name__} needs finite scores, but {name_of(self.density_)} led to {scores[lost[0]]} in "
                f"row {lost[0]} ({len(lost)} of {len(scores)} rows); check this row, and the density's training."
            )
            if (scores[lost] == -np.inf).all():
                raise OutOfReachError(message, lost)
            raise ValueError(message)
        return scores

    def _check_parameters(self) -> None:
        """Raise if a parameter is invalid, before any computation."""
        name, density = type(self).__name__, self.density
        check_methods(name, density, self.needs)
        check_shares(name, self._share, self.calibration_fraction)
        self._check_prefit()
        check_folds(name, self.cv, self.is_frozen)
        check_seed(self.random_state)
        if not self.prefit:
            check_within(self, *self.shared)

    def _check_data(self, X: Any) -> None:
        """Raise if checked rows do not suit the parameters, before any training."""

    def _split(self, n_rows: int, random: np.random.RandomState, most: int | None = None) -> Split:
        """Return the indices of the rows to train on, to learn the score from, and to calibrate on, in the order of X.

        For a source, at most `most` rows serve the last two purposes.
        """
        rows = np.arange(n_rows) if most is None else drawn(n_rows, most, random)
        if self.calibration_fraction == 0 and not self.is_frozen:
            return Without(n_rows, rows[:0]) if most is not None else rows, rows, rows
        if not self.is_frozen:
            train, rows = hold_out(n_rows, self.calibration_fraction, random, most)
        splits = self.learns and len(rows) >= 2 * FEWEST_REFERENCE
        reference, calibration = (rows[::2], rows[1::2]) if splits else (rows, rows)
        return reference if self.is_frozen else train, reference, calibration
