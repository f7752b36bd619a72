"""What all detectors share: a density inside, a score of it, a threshold on the score and p-values.

A likelihood is not a verdict; a detector turns the one into the other. A new detector writes `_score`, and `_calibrate`
if its score needs reference rows. Everything else is here, with scikit-learn's signs: higher scores are more normal,
+1 is normal and -1 is not.
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
    r"""A density, a score made of it, and a threshold; the base of all detectors.

    A row x is called an outlier if its score s(x) is below `offset_`. Its p-value compares it with the n calibration
    scores: p(x) = (1 + #{i : s_i <= s(x)}) / (1 + n).

    Parameters
    ----------
    density : estimator with `fit` and `score_samples`
        A density of flowdetect, or any other, such as scikit-learn's GaussianMixture. It is cloned and the clone
        fitted; with `prefit=True`, or inside scikit-learn's `FrozenEstimator`, it is used as it is.
    contamination : float in (0, 0.5], default=0.1
        Share of the rows given to `fit` that are to be called outliers; it sets `offset_`.
    calibration_fraction : float in [0, 1), default=0.1
        Share of the rows given to `fit` that are kept from the density's training; p-values compare with them. With 0
        the density is trained on all rows and p-values compare with all, so that p-values of new rows are too small.
        A density used as it is ignores it: p-values compare with all rows.
    prefit : bool, default=False
        True: `density` is fitted, and used as it is, as one in `FrozenEstimator`; clones of the detector share it.
        False: a fitted density is trained anew, as a clone, which a warning says.
    cv : int or None, default=None
        Number of folds for cross-conformal calibration, for small data: the rows are cut into that many, a member is
        trained for each on the other folds, and p-values compare with all rows. 5 is usual; it costs as many trainings
        and scores. `calibration_fraction` then has no effect, but where a score learns from rows itself: of each
        member's rows. See Notes.
    checkpoint : path or None, default=None
        A folder, made where there is none, in which every training within keeps a checkpoint and the detector its
        seed; a fit that was killed goes on from there, and ends bitwise as if it had not been. With random_state=None,
        fits of the same class, parameters, X and y thus share a seed; a RandomState instance must come in the same
        state. Checkpoints that an estimator within has itself stay; without a folder, the seed is kept beside them.
    random_state : int, RandomState instance or None, default=None
        Draws the calibration rows, and a seed for each `random_state` within the density that is None. With None,
        each `fit` draws anew and leaves numpy's global generator alone.

    Attributes
    ----------
    density_ : the fitted density; with `cv` each member has its own
    members_ : list of fitted detectors, with `cv`
        One a fold, of the same class, trained without it; the fold's scores are its `calibration_scores_`.
    offset_ : float
        The `contamination` quantile of the scores of all rows given to `fit`; with `cv`, of each row's score by the
        member that was trained without it.
    calibration_scores_ : (n_calibration,) array
        Scores of the calibration rows, sorted.
    image_shape_ : tuple of int (H, W, C) or None
        Shape of the images: that of the data given to `fit`, else that of the density; None for tables.
    n_features_in_ : int
        Values per row; H * W * C for images.
    feature_names_in_ : (n_features_in_,) array of str
        Names of the columns, where a frame was given to `fit`.

    Notes
    -----
    X may hold rows (n, D), as an array or frame, or images: numpy (n, H, W), (n, H, W, C), torch (n, C, H, W). It may
    be a source that is read in parts: what `load_folder` and `load_parquet` give, an array in a file, a map-style
    dataset. Of a source that exceeds 262,144 rows or 17 million values, the rows of threshold and p-values are drawn;
    the density is fitted on all others, in memory if it is not one of ours. A
    density with an `image_shape` parameter receives images unchanged; any other receives float rows.

    With `cv`, a row's score is the mean of the members' scores, whereas its p-value adds up, over the folds, how many
    rows score at most as high under the fold's member; so two rows need not have the same order in both.

    A score that learns from rows itself learns from every other calibration row; p-values compare with the rest.

    The density was trained on most of the rows that `offset_` comes from. For a held-out threshold, freeze a fitted
    density and fit the detector on other rows.

    p-values are valid (uniform or larger on rows like the calibration rows) as long as calibration rows and new rows
    are exchangeable, whatever the density: Vovk et al., "Algorithmic Learning in a Random World" (2005), section 2.2.
    With `cv` they are approximately so: "Cross-conformal predictors" (Vovk, 2015), https://arxiv.org/abs/1208.0806. At
    worst a share of about 2 alpha of normal rows has p-values of at most alpha, as for intervals by CV+: "Predictive
    inference with the jackknife+" (Barber et al., 2021), https://arxiv.org/abs/1905.02928

    Examples
    --------
    A detector of one's own says what its score is:

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
    contamination: float | str  # a word only where a detector takes one
    density_: Scorer
    image_shape_: tuple[int, int, int] | None

    @property
    def learns(self) -> bool:
        """Whether the score learns from rows itself; p-values then compare with other rows."""
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
        """Say how normal each row is: the one method that a detector must write.

        Parameters
        ----------
        X : rows (n, D) or images, checked, as `density_` takes them

        Returns
        -------
        scores : (n,) array; higher is more normal
        """
        raise NotImplementedError(f"{type(self).__name__} must define _score(X), higher being more normal.")

    def _calibrate(self, X_train: Any, X_calibration: Any) -> None:
        """Learn what the score needs besides the density; called once in `fit`, before any `_score`.

        Parameters
        ----------
        X_train : the rows that the density was trained on
        X_calibration : the rows that it was not trained on
            With calibration_fraction=0 or a density used as it is, X_train and X_calibration are the same; with `cv`
            too, but for a class that learns.

        A class that learns here says ``learns = True``. It then gets every other row that the density was not trained
        on; the rest make `calibration_scores_`, because p-values are too small if the score has seen the rows they
        compare with. Fewer than 20 such rows serve both purposes.
        """

    @with_callbacks
    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> BaseDetector:
        """Fit the density, unless it is used as it is, and the threshold; a fit that fails leaves the old one.

        Ctrl-C while a density of ours trains ends the training, which keeps its best weights; the detector is
        calibrated with them, and KeyboardInterrupt goes on. Of an ensemble, or with `cv`, the members so far are kept
        and those not begun are left out. Where another training would have to follow, such as that of a background,
        and at any other moment, Ctrl-C leaves the old fit. A second Ctrl-C stops immediately.

        Parameters
        ----------
        X : (n, D) array or frame, or images
            At least two rows.
        y : (n,) array or None
            Class labels for a conditional density; handed to the density, not used otherwise.

        Returns
        -------
        self : BaseDetector

        Raises
        ------
        TypeError
            If the density lacks `fit` or `score_samples`.
        ValueError
            If a parameter is out of range, also of an estimator within, X is not finite, or a row has no finite score.
        OSError
            If a checkpoint cannot be written.
        NotFittedError
            If the density is not fitted, and is to be used as it is.

        Warns
        -----
        UserWarning
            If a fitted density is trained anew.
        """
        context = begun(self, X, y)
        interrupt = self._fit(X, y)
        ended(self, context, X, y)
        if interrupt is not None:
            raise interrupt
        return self

    @all_or_nothing
    def _fit(self, X: ArrayLike, y: ArrayLike | None) -> KeyboardInterrupt | None:
        """Do what `fit` promises; give back the interrupt that ended the density's training early."""
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
        """Fit the density on the rows `train` of checked X, and what the score needs besides."""
        X_train, y_train = take(X, train), None if y is None else take(np.asarray(y), train)
        self.density_ = self._with_checkpoints(seeded_clone(self._as_used(self._template()), random))
        if self.image_shape is not None:
            tell_image_shape(self.density_, self.image_shape_)
        self._train(self.density_, self._density_source(X_train), y_train)
        self._settle_image_shape()
        self._learn_usual(X_train)
        self._calibrate(X_train, self._in_memory(take(X, reference)))

    # ---- what a detector may say differently

    @property
    def _share(self) -> Any:
        """The share of the rows given to `fit` that are to be called outliers."""
        return self.contamination

    def _density_rows(self, X: Any) -> Any:
        """Give checked rows as the density is to see them."""
        return X

    def _narrowed(self, X: Any, random: np.random.RandomState) -> Any:
        """Give the rows of checked X that are used at all."""
        return X

    def _threshold_rows(
        self, n_rows: int, reference: NDArray[np.int_], calibration: NDArray[np.int_]
    ) -> NDArray[np.int_] | None:
        """Give the indices of the rows whose scores make the threshold; None stands for all."""
        return None

    def _threshold_scores(
        self, X: Any, rows: NDArray[np.int_] | None, reference: NDArray[np.int_]
    ) -> NDArray[np.float64]:
        """Score the rows of checked X that make the threshold; of `reference` is what `_calibrate` has learned."""
        return self._finite_scores(X if rows is None else take(X, rows))

    def _settle(self, scores: NDArray[np.float64], is_calibration: NDArray[np.bool_]) -> None:
        """Set the threshold, and the scores that p-values compare with."""
        self.calibration_scores_ = np.sort(scores[is_calibration])
        self.offset_ = float(np.quantile(scores, self._share))

    def _template(self) -> Any:
        """Give the density to clone and fit; `image_shape_` is known by then."""
        return self.density

    def fit_predict(self, X: ArrayLike, y: ArrayLike | None = None) -> NDArray[np.int_]:
        """Fit on X and say which of its rows are outliers.

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
        """Give the rows to learn statistics from: the calibration rows; if these are few, the training rows."""
        return X_calibration if len(X_calibration) >= FEWEST_REFERENCE else few(X_train)

    def _log_likelihood(self, X: Any) -> NDArray[np.float64]:
        """Ask the density for log p(x): (n,), nats."""
        return self._finite(np.asarray(self.density_.score_samples(self._density_rows(X)), dtype=np.float64))

    @by_parts
    def _scores(self, X: Any) -> NDArray[np.float64]:
        """Score checked rows once fitted: those that lie too far out have the lowest score."""
        return lowest_beyond_reach(self._finite_scores, self._log_likelihood, X, lambda: self._ranges(X))

    @by_parts
    def _finite_scores(self, X: Any) -> NDArray[np.float64]:
        is_out = self._breaks_out(X)
        if is_out.any():
            return lowest_where(is_out, self._finite_scores, X)
        scores = np.asarray(self._score(X), dtype=np.float64)
        if scores.shape != (len(X),):
            raise ValueError(
                f"{type(self).__name__} needs one score a row, shape ({len(X)},), but {name_of(self.density_)} led to "
                f"scores of shape {scores.shape}; correct its score_samples."
            )
        return self._finite(scores)

    def _finite(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        lost = np.flatnonzero(~np.isfinite(scores))
        if len(lost):
            message = (
                f"{type(self).__name__} needs finite scores, but {name_of(self.density_)} led to {scores[lost[0]]} in "
                f"row {lost[0]} ({len(lost)} such of {len(scores)} asked); look there, or at how it was trained."
            )
            if (scores[lost] == -np.inf).all():
                raise OutOfReachError(message, lost)
            raise ValueError(message)
        return scores

    def _check_parameters(self) -> None:
        """Refuse parameters that cannot work, before anything is computed."""
        name, density = type(self).__name__, self.density
        check_methods(name, density, self.needs)
        check_shares(name, self._share, self.calibration_fraction)
        self._check_prefit()
        check_folds(name, self.cv, self.is_frozen)
        check_seed(self.random_state)
        if not self.prefit:
            check_within(self, *self.shared)

    def _check_data(self, X: Any) -> None:
        """Refuse checked rows that do not suit the parameters, before anything is trained."""

    def _split(self, n_rows: int, random: np.random.RandomState, most: int | None = None) -> Split:
        """Give the indices of the rows to train on, to learn the score from and to calibrate on, in the order of X.

        Of a source, at most `most` are for the latter two.
        """
        rows = np.arange(n_rows) if most is None else drawn(n_rows, most, random)
        if self.calibration_fraction == 0 and not self.is_frozen:
            return Without(n_rows, rows[:0]) if most is not None else rows, rows, rows
        if not self.is_frozen:
            train, rows = hold_out(n_rows, self.calibration_fraction, random, most)
        splits = self.learns and len(rows) >= 2 * FEWEST_REFERENCE
        reference, calibration = (rows[::2], rows[1::2]) if splits else (rows, rows)
        return reference if self.is_frozen else train, reference, calibration
