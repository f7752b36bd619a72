"""Likelihood paths: what a VAE computes on the way to its likelihood, joined by a copula-based score.

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

    with q(z | x) normal of mean μ and standard deviations σ, and x̂ the mean of p(x | z) at z = μ. Encoder and decoder
    may err in opposite directions, so that the likelihood, their sum, looks usual; these three numbers are looked at
    before they are summed. Their score is that of COPOD (``kind="copod"``),

    .. math:: s(x) = \min\Big( \sum_j \log F_j, \; \sum_j \log \bar F_j, \; \sum_j \log \tilde F_j \Big)

    with F_j the share of calibration rows whose j-th number is at most that of x, F̄_j of those whose is at least that,
    and F̃_j the one of the two on the side of the longer tail; or the sum of the logarithms of their kernel densities
    (``kind="kde"``).

    It costs about four times the likelihood, as it is computed in float64. Weakness: the three numbers are taken for
    independent, and know nothing of where in the image or in the latent space a row is unusual.

    Parameters
    ----------
    density : estimator with `fit`, `score_samples` and `likelihood_path`
        Such as `VAEDensity`; its likelihood_path(X) is a Bunch of the three numbers, (n,) each. It is cloned and the
        clone fitted; one inside scikit-learn's `FrozenEstimator` is used as it is.
    kind : {"copod", "kde"}, default="copod"
    contamination : float in (0, 0.5], default=0.1
        Share of the rows given to `fit` that are to be called outliers.
    calibration_fraction : float in [0, 1), default=0.1
        Share of the rows given to `fit` that the density is not trained on, which the three numbers are compared with,
        and which p-values compare with; see `BaseDetector`.
    prefit : bool, default=False
        True: `density` is fitted, and used as it is; see `BaseDetector`.
    cv : int or None, default=None
        Folds of a cross-conformal calibration, for small data; see `BaseDetector`.
    checkpoint : path or None, default=None
        A folder that keeps all trainings within, so that a fit that was killed goes on; see `BaseDetector`.
    random_state : int, RandomState instance or None, default=None
        Draws the calibration rows, and the seeds within the density that are None.

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
        Where a frame was given to `fit`.

    Notes
    -----
    Beyond the outermost 5 % of the calibration rows on a side, log F falls exponentially, at the rate of these 5 %, so
    that very unusual rows do not tie. pyod's COPOD ranks the rows asked about among themselves too, so that a row's
    score there depends on the others; here rows are compared with calibration rows alone.

    References
    ----------
    "Rethinking Test-time Likelihood: The Likelihood Path Principle and Its Application to OOD Detection" (Huang et al.,
    2024), https://arxiv.org/abs/2401.04933; the variant with one VAE. There training rows take the place of the
    calibration rows.
    "COPOD: Copula-Based Outlier Detection" (Li et al., 2020), https://arxiv.org/abs/2009.09463

    Examples
    --------
    >>> from flowdetect import LPathDetector, VAEDensity, load_images
    >>> X, _ = load_images("digits")
    >>> density = VAEDensity(n_bins=17, latent_dim=8, hidden_channels=8, max_epochs=2, random_state=0)
    >>> detector = LPathDetector(density, random_state=0).fit(X[:400])
    >>> detector.score_samples(X[:3]).shape
    (3,)
    """

    no_graph = "kernel densities of scikit-learn have none"
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
        self.calibration_path_ = self._path(self._reference(X_train, X_calibration))

    def _path(self, X: Any) -> NDArray[np.float64]:
        """Ask the density for the three numbers of each row: (n, 3)."""
        path = self.density_.likelihood_path(X)
        names = "reconstruction_error", "latent_norm", "latent_scale"
        return np.stack([np.asarray(path[name], dtype=np.float64) for name in names], axis=1)

    def _score(self, X: Any) -> NDArray[np.float64]:
        return JOINED_BY[self._kept["kind"]](self._path(X), self.calibration_path_)
