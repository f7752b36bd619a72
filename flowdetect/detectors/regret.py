"""Likelihood regret: the gain in a row's likelihood bound if the encoder is fitted to this row alone.

Xiao et al., "Likelihood Regret: An Out-of-Distribution Detection Score For Variational Auto-encoder" (2020),
https://arxiv.org/abs/2003.02977
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowdetect._limits import MOST_STEPS, is_count, is_number
from flowdetect._protocols import PathName, RandomState, VariationalDensity
from flowdetect.detectors.base import BaseDetector


class LikelihoodRegretDetector(BaseDetector):
    r"""Call a row an outlier if the encoder's q(z | x) is far from the best q for this row.

    .. math:: s(x) = -\left( \max_q L(x; q) - L(x; q(z \mid x)) \right)

    where L is the lower bound of log p(x) that a VAE is trained on; the decoder stays fixed. For rows like the training
    rows the encoder is nearly as good as a q fitted to the row alone. For other rows it is worse, even if they are
    likely.

    Each row costs `n_steps` forward and backward passes through the decoder and 16 forward passes, about 100 times the
    likelihood. Weakness: an overfitted encoder has a high regret on all rows that it was not trained on.

    Parameters
    ----------
    density : estimator with `fit`, `score_samples` and `likelihood_regret`
        Such as `VAEDensity`; its likelihood_regret(X, n_steps=..., learning_rate=...) is (n,), nats. A clone of it is
        fitted; a density in scikit-learn's `FrozenEstimator` is used without training.
    n_steps : int, default=50
        Steps of Adam for each row.
    learning_rate : float, default=0.1
        Learning rate of the first step; it falls linearly to 0.
    contamination : float in (0, 0.5], default=0.1
        Share of the rows given to `fit` that are called outliers.
    calibration_fraction : float in [0, 1), default=0.1
        Share of the rows given to `fit` that are held out from training; p-values are computed from their scores. See
        `BaseDetector`.
    prefit : bool, default=False
        True: `density` is already fitted and is used without training; see `BaseDetector`.
    cv : int or None, default=None
        Number of folds of a cross-conformal calibration, for small data; see `BaseDetector`.
    checkpoint : path or None, default=None
        Folder for the checkpoints of all trainings in `fit`. A killed `fit` resumes from them; see `BaseDetector`.
    random_state : int, RandomState instance or None, default=None
        Draws the calibration rows, and a seed for each `random_state` inside the density that is None.

    Attributes
    ----------
    density_ : the fitted density
    offset_ : float, nats
        The `contamination` quantile of the scores of all rows given to `fit`.
    calibration_scores_ : (n_calibration,) array, nats
        Scores of the calibration rows, sorted.
    image_shape_ : tuple of int (H, W, C) or None
    n_features_in_ : int
    feature_names_in_ : (n_features_in_,) array of str
        Only if `fit` was given a data frame.

    Notes
    -----
    `fit` scores all rows given to it. If this takes too long, freeze a fitted density and fit the detector on a few
    hundred rows that the density was not trained on.

    References
    ----------
    "Likelihood Regret: An Out-of-Distribution Detection Score For Variational Auto-encoder" (Xiao et al., 2020),
    https://arxiv.org/abs/2003.02977, section 4. The paper fits the encoder's weights to each image. Here the mean and
    standard deviation of q are fitted, which needs no copy of the encoder and handles many rows at once.

    Examples
    --------
    >>> from flowdetect import LikelihoodRegretDetector, VAEDensity, load_images
    >>> X, _ = load_images("digits")
    >>> density = VAEDensity(n_bins=17, latent_dim=8, hidden_channels=8, max_epochs=2, random_state=0)
    >>> detector = LikelihoodRegretDetector(density, n_steps=5, random_state=0).fit(X[:200])
    >>> detector.score_samples(X[:3]).shape
    (3,)
    """

    no_graph = "it fits an encoder to each row"
    needs = ("likelihood_regret",)
    kept = ("n_steps", "learning_rate")
    density_: VariationalDensity

    def __init__(
        self,
        density: VariationalDensity,
        *,
        n_steps: int = 50,
        learning_rate: float = 0.1,
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
        self.n_steps = n_steps
        self.learning_rate = learning_rate

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if not is_count(self.n_steps, most=MOST_STEPS):
            raise ValueError(
                f"LikelihoodRegretDetector needs n_steps, a whole number of at least 1, at most {MOST_STEPS}, got "
                f"{self.n_steps!r}; the usual value is 50."
            )
        if not is_number(self.learning_rate) or self.learning_rate <= 0:
            raise ValueError(
                f"LikelihoodRegretDetector needs a finite learning_rate above 0, got {self.learning_rate!r}; the usual "
                f"value is 0.1."
            )

    def _score(self, X: Any) -> NDArray[np.float64]:
        regret = self.density_.likelihood_regret(X, **self._kept)
        return -np.asarray(regret, dtype=np.float64)
