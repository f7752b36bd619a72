"""The likelihood ratio to a background density, in which properties common to all images cancel.

Ren et al., "Likelihood Ratios for Out-of-Distribution Detection" (2019), https://arxiv.org/abs/1906.02845
"""

from __future__ import annotations

from functools import partial
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from flowdetect._frames import like
from flowdetect._images import draw_seed, row_generators, to_rows
from flowdetect._limits import is_number
from flowdetect._protocols import PathName, RandomState, Scorer
from flowdetect._resuming import further
from flowdetect._sources import Mapped, Source
from flowdetect.detectors.base import BaseDetector
from flowdetect.detectors.clones import seeded_clone
from flowdetect.detectors.rows import few, flat

MUTATION_SEED, BACKGROUND_SEED = 0, 0x5EED


class LikelihoodRatioDetector(BaseDetector):
    r"""Call a row an outlier if its likelihood is not much higher than under a background density.

    .. math:: s(x) = \log p(x) - \log p_\text{bg}(x)

    The background density should learn everything except semantics. It is a copy of the density, trained on rows in
    which a share of the features is replaced by values of the same feature in other training rows.

    It costs a second training and a second likelihood. Weakness: the best share depends on the data, and the paper
    chose it with OoD data. If two sets differ in their background, the likelihood is better.

    After Ctrl-C in the training of the background, the detector is fitted and complete. After Ctrl-C in the training of
    the density, which comes first, the previous fit is unchanged.

    Parameters
    ----------
    density : estimator with `fit` and `score_samples`
        Its score_samples is log p(x), (n,), nats. A clone of it is fitted; a density in scikit-learn's
        `FrozenEstimator` is used without training.
    background : estimator with `fit` and `score_samples`, or None, default=None
        None: an unfitted clone of `density`, trained without labels. Its `weight_decay`, if it has one, is
        `background_weight_decay`. Another density is cloned and fitted on the same changed rows; one in
        `FrozenEstimator` is used without training. For a local autoregressive background, use
        ``PixelCNNDensity(variant="local")`` with ``mutation_rate=0``.
    mutation_rate : float in [0, 1], default=0.2
        Share of the features that are replaced for the background; the paper tried 0.1 to 0.3.
    background_weight_decay : float, default=1.0
        Weight decay of a background that is a clone of `density`.
    contamination : float in (0, 0.5], default=0.1
        Share of the rows given to `fit` that are called outliers.
    calibration_fraction : float in [0, 1), default=0.1
        Share of the rows given to `fit` that are held out from both trainings; p-values are computed from their scores.
        See `BaseDetector`. With a frozen density, half of the rows train the background.
    prefit : bool, default=False
        True: `density`, and `background` if given, are already fitted and are used without training. With
        `background=None` half of the rows train a background. See `BaseDetector`.
    cv : int or None, default=None
        Number of folds of a cross-conformal calibration, for small data; see `BaseDetector`.
    checkpoint : path or None, default=None
        Folder for the checkpoints of all trainings in `fit`. A killed `fit` resumes from them; see `BaseDetector`.
    random_state : int, RandomState instance or None, default=None
        Draws the calibration rows, and a seed for each `random_state` inside the densities that is None.

    Attributes
    ----------
    density_, background_ : the fitted densities
    offset_ : float, nats
        The `contamination` quantile of the scores of all rows given to `fit`.
    calibration_scores_ : (n_calibration,) array, nats
        Scores of the calibration rows, sorted.
    image_shape_ : tuple of int (H, W, C) or None
    n_features_in_ : int
    feature_names_in_ : (n_features_in_,) array of str
        Only if `fit` was given a data frame.

    References
    ----------
    "Likelihood Ratios for Out-of-Distribution Detection" (Ren et al., 2019), https://arxiv.org/abs/1906.02845,
    section 3, eq. (4). In the paper a mutated pixel is drawn uniformly from all values; here it is drawn from the
    pixel's training values. The local background: "On the Out-of-distribution Generalization of Probabilistic Image
    Modelling" (Zhang et al., 2021), https://arxiv.org/abs/2109.02639

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from flowdetect.detectors import LikelihoodRatioDetector
    >>> X = np.random.default_rng(0).normal(size=(300, 1)) + 0.1 * np.random.default_rng(1).normal(size=(300, 2))
    >>> detector = LikelihoodRatioDetector(GaussianMixture(), mutation_rate=0.5, random_state=0).fit(X)
    >>> detector.predict([[1.0, 1.0], [1.0, -1.0]])  # the background has not learned that both columns are nearly equal
    array([ 1, -1])
    """

    learns = True
    shared = ("density", "background")

    def __init__(
        self,
        density: Scorer | None,
        background: Scorer | None = None,
        *,
        mutation_rate: float = 0.2,
        background_weight_decay: float = 1.0,
        contamination: float = 0.1,
        calibration_fraction: float = 0.1,
        prefit: bool = False,
        cv: int | None = None,
        checkpoint: PathName | None = None,
        random_state: RandomState = None,
    ) -> None:
        super().__init__(
            density,
            contamination=contamination,
            calibration_fraction=calibration_fraction,
            prefit=prefit,
            cv=cv,
            checkpoint=checkpoint,
            random_state=random_state,
        )
        self.background = background
        self.mutation_rate = mutation_rate
        self.background_weight_decay = background_weight_decay

    def _check_parameters(self) -> None:
        super()._check_parameters()
        rate = self.mutation_rate
        if not isinstance(rate, Real) or isinstance(rate, bool) or not 0 <= rate <= 1:
            raise ValueError(
                f"LikelihoodRatioDetector needs mutation_rate, a share of the features, from 0 to 1, got {rate!r}."
            )
        decay = self.background_weight_decay
        if not is_number(decay) or decay < 0:
            raise ValueError(
                f"LikelihoodRatioDetector needs background_weight_decay, a finite number >= 0, got {decay!r}; the "
                f"usual value is 1."
            )
        for method in ("fit", "score_samples"):
            if self.background is not None and not hasattr(self.background, method):
                raise TypeError(
                    f"LikelihoodRatioDetector needs a background with {method}, such as a density, "
                    f"got {type(self.background).__name__}."
                )

    def _calibrate(self, X_train: Any, X_calibration: Any) -> None:
        if isinstance(self.background, FrozenEstimator):
            self.background_: Any = self.background
            return
        if self.prefit and self.background is not None:
            self.background_ = FrozenEstimator(self.background)
            return
        background: Any = self.background if self.background is not None else self._same_kind()
        random = np.random.RandomState(draw_seed(self._seed) ^ BACKGROUND_SEED)  # not the density's seed
        self.background_ = self._with_checkpoints(seeded_clone(background, random))
        self._train(self.background_, self._mutated_rows(background, X_train))

    def _mutated_rows(self, background: Any, X: Any) -> Any:
        """Return training rows with replaced features, in the form that the background takes."""
        if not isinstance(X, Source):
            return _as_taken_by(background, mutated(X, self.mutation_rate))
        rows = Mapped(X, partial(mutated, rate=self.mutation_rate, donors=np.asarray(flat(few(X)))))
        return rows if hasattr(background, "image_shape") else _as_taken_by(background, rows.array())

    def _same_kind(self) -> Any:
        """Return an unfitted copy of the density with the same seeds, so that only the training rows differ."""
        density = self.density_.estimator if isinstance(self.density_, FrozenEstimator) else self.density_
        background = clone(density)
        changes: dict[str, Any] = {}
        for name, value in background.get_params(deep=True).items():
            last = name.split("__")[-1]
            if last == "weight_decay":
                changes[name] = self.background_weight_decay
            elif last == "conditional":
                changes[name] = False
            elif last == "checkpoint" and value is not None:
                changes[name] = further(value, ".background")
        return background.set_params(**changes)

    def _score(self, X: Any) -> NDArray[np.float64]:
        log_background = self.background_.score_samples(_as_taken_by(self.background_, X))
        found: NDArray[np.float64] = self._combined(
            self._log_likelihood(X), np.asarray(log_background, dtype=np.float64)
        )
        return found

    def _asked(self) -> list[tuple[Any, str]]:
        return [(self.density_, "score_samples"), (self.background_, "score_samples")]

    @staticmethod
    def _combined(log_px: Any, log_background: Any) -> Any:
        return log_px - log_background


def _as_taken_by(density: Any, X: Any) -> Any:
    """Return X unchanged for a density with `image_shape`, else as a frame or as rows of floats."""
    if hasattr(density, "image_shape") or hasattr(X, "columns"):
        return X
    return np.asarray(to_rows(X)[0], dtype=np.float64)


def mutated(X: Any, rate: float, donors: NDArray[Any] | None = None) -> NDArray[Any]:
    """Replace a share of the features of each row by those of other rows, in the layout of X.

    Parameters
    ----------
    X : (n, D) array or frame, or images
    rate : float
        Share of the features.
    donors : (m, D) array or None
        Rows that the new features come from; None: those of X.

    Returns
    -------
    X_mutated : frame or array in the form of X; for torch (n, C, H, W) it is numpy (n, H, W, C)
    """
    rows, layout = to_rows(X)
    rows = np.asarray(rows)
    changed, others = rows.copy(), rows if donors is None else donors
    for i, generator in enumerate(row_generators(rows, MUTATION_SEED)):
        chosen = np.flatnonzero(generator.random(rows.shape[1]) < rate)
        changed[i, chosen] = others[generator.integers(0, len(others), len(chosen)), chosen]
    if hasattr(X, "columns"):
        return like(X, changed)
    return layout.as_numpy().restore(changed)
