"""Scores from the terms of a density's likelihood: the last scale, and the density of all terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowdetect._ctrl_c import whole_imports
from flowdetect._protocols import Density, PathName, RandomState, Scorer
from flowdetect.detectors.base import BaseDetector
from flowdetect.detectors.calibration import log_kernel_density

N_DECIMALS = 6  # of a decision function
SMALLEST_SPREAD = 1e-9  # of a statistic, relative to its size; below it the statistic counts as constant


class ScaleDetector(BaseDetector):
    r"""Call an image an outlier if it is unlikely at the last scale of a multi-scale flow.

    .. math:: s(x) = \log p(z_L) + \log \left|\det J_L\right|

    the part of the last level L in the log-likelihood. The first scales describe edges and smoothness, in which sets of
    images hardly differ; the last scale describes more of the content.

    It costs no more than the likelihood. Weakness: it needs a multi-scale flow, and ignores what the earlier scales
    factor out.

    Parameters
    ----------
    density : estimator with `fit`, `score_samples` and `likelihood_terms`
        A flow of at least two levels; `likelihood_terms(X)` has `log_pz_levels` and `log_det_levels`, (n, L), nats. A
        clone of it is fitted; a density in scikit-learn's `FrozenEstimator` is used without training.
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

    References
    ----------
    "Understanding Anomaly Detection with Deep Invertible Networks through Hierarchies of Distributions and Features"
    (Schirrmeister et al., 2020), https://arxiv.org/abs/2006.10848, section 3.

    Examples
    --------
    >>> from flowdetect import GlowDensity, ScaleDetector, load_images
    >>> X, _ = load_images("digits")
    >>> flow = GlowDensity(n_bins=17, n_steps=1, hidden_channels=8, max_epochs=1, random_state=0)
    >>> ScaleDetector(flow, random_state=0).fit(X[:100]).score_samples(X[:5]).shape
    (5,)
    """

    needs = ("likelihood_terms",)
    density_: Density

    def _score(self, X: Any) -> NDArray[np.float64]:
        terms = self.density_.likelihood_terms(X)
        n_levels = np.shape(terms.get("log_pz_levels", ()))[1:] or (0,)
        if n_levels[0] < 2:
            raise ValueError(
                "ScaleDetector needs a multi-scale flow of at least two levels, whose likelihood_terms have "
                f"log_pz_levels (n, L); this density has {n_levels[0]}. Give it n_levels=2 or more, or use "
                "LikelihoodDetector."
            )
        return np.asarray(self._combined(terms), dtype=np.float64)

    def _asked(self) -> list[tuple[Any, str]]:
        return [(self.density_, "likelihood_terms")]

    @staticmethod
    def _combined(terms: Any) -> Any:
        return terms.log_pz_levels[:, -1] + terms.log_det_levels[:, -1]


class DoSEDetector(BaseDetector):
    r"""Call a row an outlier if the terms of its likelihood are unusual.

    .. math:: s(x) = \sum_j \log \hat p_j(T_j(x))

    With ``kind="kde"``, :math:`\hat p_j` is a one-dimensional kernel density of the statistic T_j over the calibration
    rows. With ``kind="svm"``, the score is the decision function of a one-class support vector machine on all
    statistics. The statistics are log p(x) and all values that `likelihood_terms` returns for a row. For a flow these
    are log p(z) and log|det| of each level, the term of the standardisations, and log_class of a conditional flow.

    It costs no more than the likelihood. Weakness: it uses only these statistics; on a density without terms, such as
    those of scikit-learn, it is a two-sided test of the likelihood.

    Parameters
    ----------
    density : estimator with `fit` and `score_samples`
        If it has `likelihood_terms(X)`, its terms are used. A clone of it is fitted; a density in scikit-learn's
        `FrozenEstimator` is used without training.
    kind : {"kde", "svm"}, default="kde"
        Kernel densities, or a one-class support vector machine.
    contamination : float in (0, 0.5], default=0.1
        Share of the rows given to `fit` that are called outliers.
    calibration_fraction : float in [0, 1), default=0.1
        Share of the rows given to `fit` that are held out from training; the kernel densities and the p-values are
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
    statistic_names_ : list of str
    calibration_statistics_ : (n_calibration, n_statistics) array
        Statistics of the rows that the kernel densities are fitted to.
    svm_ : the fitted support vector machine, with ``kind="svm"``
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
    Statistics are standardised. Kernels are Gaussian; Scott's rule sets their width. Half of the calibration rows make
    the kernel densities, and p-values use the other half.

    References
    ----------
    "Density of States Estimation for Out-of-Distribution Detection" (Morningstar et al., 2020),
    https://arxiv.org/abs/2006.09273, section 3. The paper fits the densities of the statistics to training rows.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from flowdetect.detectors import DoSEDetector
    >>> X = np.random.default_rng(0).normal(size=(400, 50))
    >>> detector = DoSEDetector(GaussianMixture(reg_covar=0.1), random_state=0).fit(X)
    >>> detector.predict(np.zeros((1, 50)))  # the mode: too likely
    array([-1])
    """

    no_graph = "scikit-learn's kernel densities and support vectors cannot be exported"
    learns = True
    kept = ("kind",)

    def __init__(
        self,
        density: Scorer | None,
        *,
        kind: str = "kde",
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
        if self.kind not in ("kde", "svm"):
            raise ValueError(f'DoSEDetector needs kind="kde" or "svm", got {self.kind!r}.')

    def _calibrate(self, X_train: Any, X_calibration: Any) -> None:
        found = self._statistics(self._reference(X_train, X_calibration))
        values = np.stack(list(found.values()), axis=1)  # (n, J)
        varies = values.std(axis=0) > SMALLEST_SPREAD * (1 + np.abs(values).mean(axis=0))
        if not varies.any():
            raise ValueError(
                "DoSEDetector needs a statistic that varies over the calibration rows, got constant ones; fit on other "
                "rows."
            )
        self.statistic_names_: list[str] = [name for name, kept in zip(found, varies, strict=True) if kept]
        self.calibration_statistics_: NDArray[np.float64] = np.ascontiguousarray(
            values[:, varies]
        )  # the memory layout after loading, for bitwise equal scores
        if self.kind == "svm":
            with whole_imports():
                from sklearn.pipeline import make_pipeline
                from sklearn.preprocessing import StandardScaler
                from sklearn.svm import OneClassSVM

            svm = OneClassSVM(nu=0.1, tol=1e-9)
            svm.random_state = 0  # OneClassSVM has no such parameter, and would draw from numpy's global generator
            scaler = StandardScaler().set_output(
                transform="default"
            )  # independent of the user's global transform_output
            self.svm_ = make_pipeline(scaler, svm).fit(self.calibration_statistics_)

    def _statistics(self, X: Any) -> dict[str, NDArray[np.float64]]:
        """Return every statistic by name, (n,) each."""
        if not hasattr(self.density_, "likelihood_terms"):
            return {"log_px": self._log_likelihood(X)}
        terms = self.density_.likelihood_terms(X)
        columns = {name: np.asarray(term, dtype=np.float64).reshape(len(X), -1) for name, term in terms.items()}
        if "log_pz" not in columns:  # one term for each pixel: only their sum is a statistic
            return {"log_px": sum_of_terms(columns, len(X))}
        found = {"log_px": np.sum([columns[name][:, 0] for name in SUMMED if name in columns], axis=0)}
        for name, values in columns.items():
            many = values.shape[1] > 1
            found.update({f"{name} {j + 1}" if many else name: column for j, column in enumerate(values.T)})
        return found

    def _score(self, X: Any) -> NDArray[np.float64]:
        found = self._statistics(X)
        values = np.stack([found[name] for name in self.statistic_names_], axis=1)
        if self._kept["kind"] == "svm":
            return np.round(self.svm_.decision_function(values), N_DECIMALS)  # rounded so that support vectors tie
        return log_kernel_density(values, self.calibration_statistics_)


SUMMED = ("log_pz", "log_det", "log_class")  # the terms whose sum is the score of a flow


def sum_of_terms(terms: Mapping[str, Any], n_rows: int) -> NDArray[np.float64]:
    """Sum all terms of each row: (n,)."""
    return np.sum(
        [np.asarray(term, dtype=np.float64).reshape(n_rows, -1).sum(axis=1) for term in terms.values()], axis=0
    )
