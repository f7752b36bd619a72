"""Likelihood paths: three intermediate results of a VAE's likelihood, combined by a copula-based score.

Huang et al., "Rethinking Test-time Likelihood: The Likelihood Path Principle and Its Application to OOD Detection"
(2024), https://arxiv.org/abs/2401.04933
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowdetect._protocols import PathName, RandomState, VariationalDensity
from flowdetect.detectors.base import BaseDetector
from flowdetect.detectors.calibration import log_copula_tail, log_kernel_density

JOINED_BY = {"copod": log_copula_tail, "kde": log_kernel_density}


class LPathDetector(BaseDetector):
    r"""Call a row an outlier if a VAE reconstructs or encodes it unusually.

    .. math:: u(x) = \|x - \hat x\|_2, \quad v(x) = \|\mu(x)\|_2, \quad w(x) = \|\sigma(x)\|_2

    where q(z | x) is normal with mean μ and standard deviations σ, and x̂ is the mean of p(x | z) at z = μ. The errors
    of encoder and decoder may cancel in the likelihood, so the three numbers are used separately. With ``kind="copod"``
    the score is that of COPOD:

    .. math:: s(x) = \min\Big( \sum_j \log F_j, \; \sum_j \log \bar F_j, \; \sum_j \log \tilde F_j \Big)

    where F_j is the share of calibration rows whose j-th number is at most that of x, and F̄_j the share of those whose
    number is at least that of x. F̃_j is the one of the two on the side of the longer tail. With ``kind="kde"`` the
    score is the sum of the logarithms of one kernel density for each number.

    It costs about four times the likelihood, because it is computed in float64. Weakness: the three numbers are treated
    as independent, and do not show where in the image or in the latent space a row is unusual.

    Parameters
    ----------
    density : estimator with `fit`, `score_samples` and `likelihood_path`
        Such as `VAEDensity`; its likelihood_path(X) is a Bunch of the three numbers, each (n,). A clone of it is
        fitted; a density in scikit-learn's `FrozenEstimator` is used without training.
    kind : {"copod", "kde"}, default="copod"
        How the three numbers are combined.
    contamination : float in (0, 0.5], default=0.1
        Share of the rows given to `fit` that are called outliers.
    calibration_fraction : float in [0, 1), default=0.1
        Share of the rows given to `fit` that are held out from training; F, the kernel densities and the p-values are
        computed from them. See `BaseDetector`.
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
    calibration_path_ : (n_calibration, 3) array
        The three numbers of the calibration rows.
    offset_ : float
        The `contamination` quantile of the scores of all rows given to `fit`.
    calibration_scores_ : (n_calibration,) array
        Scores of the calibration rows, sorted.
    image_shape_ : tuple of int (H, W, C) or None
    n_features_in_ : int
    feature_names_in_ : (n_features_in_,) array of str
        Only if `fit` was given a data frame.

    Notes
    -----
    Beyond the outermost 5 % of the calibration rows on each side, F falls exponentially, with the rate fitted to these
    5 %, so that very unusual rows do not tie. In pyod's COPOD a row's score depends on the other rows of the batch;
    here rows are compared with calibration rows only.

    References
    ----------
    "Rethinking Test-time Likelihood: The Likelihood Path Principle and Its Application to OOD Detection" (Huang et al.,
    2024), https://arxiv.org/abs/2401.04933; the variant with one VAE. The paper uses training rows in place of
    calibration rows. "COPOD: Copula-Based Outlier Detection" (Li et al., 2020), https://arxiv.org/abs/2009.09463

    Examples
    --------
    >>> from flowdetect import LPathDetector, VAEDensity, load_images
    >>> X, _ = load_images("digits")
    >>> density = VAEDensity(n_bins=17, latent_dim=8, hidden_channels=8, max_epochs=2, random_state=0)
    >>> detector = LPathDetector(density, random_state=0).fit(X[:400])
    >>> detector.score_samples(X[:3]).shape
    (3,)
    """

    no_graph = "scikit-learn's kernel densities cannot be exported"
    needs = ("likelihood_path",)
    kept = ("kind",)
    learns = True
    density_: VariationalDensity

    def __init__(
        self,
        density: VariationalDensity,
        kind: str = "copod",
        *,
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
        self.kind = kind

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.kind not in JOINED_BY:
            raise ValueError(f'LPathDetector needs kind="copod" or "kde", got {self.kind!r}.')

    def _calibrate(self, X_train: Any, X_calibration: Any) -> None:
        self.calibration_path_: NDArray[np.float64] = self._path(self._reference(X_train, X_calibration))

    def _path(self, X: Any) -> NDArray[np.float64]:
        """Compute the three numbers of each row: (n, 3)."""
        path = self.density_.likelihood_path(X)
        names = "reconstruction_error", "latent_norm", "latent_scale"
        return np.stack([np.asarray(path[name], dtype=np.float64) for name in names], axis=1)

    def _score(self, X: Any) -> NDArray[np.float64]:
        return JOINED_BY[self._kept["kind"]](self._path(X), self.calibration_path_)
