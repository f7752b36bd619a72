"""Detectors of tables: flowdetect's, pyod's and scikit-learn's, with their defaults and with well-known settings.

pyod's IForest, LOF, OCSVM, KDE, GMM and MCD call scikit-learn's classes; on standardised columns, where gamma="auto"
and "scale" agree, they rank rows as those do. Each pair therefore stands here once; `same_ranking` checks it. Of
ADBench's fourteen unsupervised detectors all are here but COF, SOD and DAGMM; INNE, LUNAR, kernels and mixtures are
added.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity, LocalOutlierFactor
from sklearn.svm import OneClassSVM
from table_protocols import Split

N_COMPONENTS = (1, 2, 3, 5, 8, 12, 20)
REG_COVAR = (1e-6, 1e-4, 1e-2)
BANDWIDTHS = tuple(np.geomspace(0.1, 2, 8))
N_CHOOSE = 2000  # rows by which components, floors and bandwidths are chosen, at most
MAX_ROWS = {"OneClassSVM": 5000, "KernelDensity": 5000, "DeepSVDD": 5000, "LUNAR": 5000}  # by the first word of a name

TRIMMED = "KNN mean, trimmed"

Make = Callable[[int, int], Any]  # (number of columns, seed) -> an unfitted detector


class Chosen(BaseEstimator):
    """The candidate with the highest likelihood of a fifth of the rows, fitted to all rows."""

    def __init__(self, candidates: Callable[[int, int], list[Any]]):
        self.candidates = candidates

    def fit(self, X: np.ndarray, y: None = None) -> Chosen:
        """Choose and fit."""
        order = np.random.default_rng(0).permutation(len(X))[:N_CHOOSE]
        held_out, rest = X[order[: len(order) // 5]], X[order[len(order) // 5 :]]
        candidates = self.candidates(*rest.shape)
        likelihoods = [float(np.mean(model.fit(rest).score_samples(held_out))) for model in candidates]
        self.model_ = candidates[int(np.argmax(likelihoods))].fit(X)
        return self

    def score_samples(self, X: np.ndarray) -> np.ndarray:
        """Log-likelihood of each row."""
        return self.model_.score_samples(X)


class TrimmedKNN(BaseEstimator):
    """pyod's KNN by mean distance, fitted again without the rows furthest out, a share `contamination` of them."""

    def __init__(self, contamination: float = 0.1):
        self.contamination = contamination

    def fit(self, X: np.ndarray, y: None = None) -> TrimmedKNN:
        """Fit twice."""
        from pyod.models.knn import KNN

        scores = KNN(method="mean").fit(X).decision_scores_
        self.model_ = KNN(method="mean").fit(X[scores <= np.quantile(scores, 1 - self.contamination)])
        return self

    def score_samples(self, X: np.ndarray) -> np.ndarray:
        """Score, higher for more usual rows."""
        return -self.model_.decision_function(X)


def mixtures(n: int, n_columns: int) -> list[Any]:
    """Gaussian mixtures to choose from: at least two rows for each column and component, or one component."""
    return [
        GaussianMixture(k, reg_covar=floor, random_state=0)
        for k in N_COMPONENTS
        for floor in REG_COVAR
        if k == 1 or 2 * k * n_columns <= n
    ]


def kernels(n: int, n_columns: int) -> list[Any]:
    """Kernel densities to choose from."""
    return [KernelDensity(bandwidth=h, rtol=1e-4) for h in BANDWIDTHS]


def ours() -> dict[str, Make]:
    """flowdetect's detector as it comes."""
    from flowdetect import OODDetector

    return {"OODDetector": lambda n_columns, seed: OODDetector(random_state=seed)}


def by_default() -> dict[str, Make]:
    """Detectors of pyod and scikit-learn with their defaults; KNN twice, by the largest and the mean distance."""
    from pyod.models.cblof import CBLOF
    from pyod.models.copod import COPOD
    from pyod.models.deep_svdd import DeepSVDD
    from pyod.models.ecod import ECOD
    from pyod.models.hbos import HBOS
    from pyod.models.iforest import IForest
    from pyod.models.inne import INNE
    from pyod.models.knn import KNN
    from pyod.models.loda import LODA
    from pyod.models.lof import LOF
    from pyod.models.lunar import LUNAR
    from pyod.models.pca import PCA

    return {
        "KNN mean": lambda n_columns, seed: KNN(method="mean"),
        "KNN": lambda n_columns, seed: KNN(),
        "LOF": lambda n_columns, seed: LOF(),
        "IForest": lambda n_columns, seed: IForest(random_state=seed),
        "ECOD": lambda n_columns, seed: ECOD(),
        "COPOD": lambda n_columns, seed: COPOD(),
        "HBOS": lambda n_columns, seed: HBOS(),
        "CBLOF": lambda n_columns, seed: CBLOF(random_state=seed),
        "PCA": lambda n_columns, seed: PCA(random_state=seed),
        "LODA": lambda n_columns, seed: LODA(random_state=seed),
        "INNE": lambda n_columns, seed: INNE(random_state=seed),
        "GaussianMixture": lambda n_columns, seed: GaussianMixture(random_state=seed),
        "KernelDensity": lambda n_columns, seed: KernelDensity(),
        "OneClassSVM": lambda n_columns, seed: OneClassSVM(),
        "EllipticEnvelope": lambda n_columns, seed: EllipticEnvelope(random_state=seed),
        "DeepSVDD": lambda n_columns, seed: DeepSVDD(n_features=n_columns, random_state=seed, verbose=0),
        "LUNAR": lambda n_columns, seed: LUNAR(random_state=seed),
    }


def with_settings() -> dict[str, Make]:
    """Give the same with other settings in use: neighbours, trees, clusters, and what a likelihood chooses."""
    from pyod.models.cblof import CBLOF
    from pyod.models.hbos import HBOS
    from pyod.models.iforest import IForest
    from pyod.models.knn import KNN
    from pyod.models.lof import LOF
    from pyod.models.pca import PCA

    return {
        "KNN k=1": lambda n_columns, seed: KNN(n_neighbors=1),
        "KNN mean k=10": lambda n_columns, seed: KNN(n_neighbors=10, method="mean"),
        "LOF k=5": lambda n_columns, seed: LOF(n_neighbors=5),
        "LOF k=50": lambda n_columns, seed: LOF(n_neighbors=50),
        "IForest 500 trees": lambda n_columns, seed: IForest(n_estimators=500, random_state=seed),
        "HBOS auto bins": lambda n_columns, seed: HBOS(n_bins="auto"),
        "CBLOF 32 clusters": lambda n_columns, seed: CBLOF(n_clusters=32, random_state=seed),
        "PCA 90 %": lambda n_columns, seed: PCA(n_components=0.9, svd_solver="full", random_state=seed),
        "OneClassSVM nu=0.05": lambda n_columns, seed: OneClassSVM(nu=0.05),
        "KernelDensity h=0.5": lambda n_columns, seed: KernelDensity(bandwidth=0.5),
        "KernelDensity chosen": lambda n_columns, seed: Chosen(kernels),
        "GaussianMixture chosen": lambda n_columns, seed: Chosen(mixtures),
    }


def detectors() -> dict[str, Make]:
    """All detectors by name."""
    trimmed = {TRIMMED: lambda n_columns, seed: TrimmedKNN()}
    return {**ours(), **by_default(), **with_settings(), **trimmed}


def outlier_scores(model: Any, X: np.ndarray) -> np.ndarray:
    """Scores that are higher for outliers; what is not finite becomes the largest number of its sign."""
    scores = model.decision_function(X) if hasattr(model, "decision_scores_") else -model.score_samples(X)
    return np.nan_to_num(np.asarray(scores, float), nan=np.inf)


def measure(name: str, make: Make, split: Split, seed: int) -> dict[str, Any]:
    """Fit and score one detector; one that raises ranks at random."""
    rows = np.random.default_rng(seed).permutation(len(split.train))[: MAX_ROWS.get(name.split()[0], len(split.train))]
    model = make(split.train.shape[1], seed)
    if split.contamination is not None and "contamination" in model.get_params():
        model.set_params(contamination=split.contamination)
    started = time.process_time()
    found: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model.fit(split.train[rows])
            fitted = time.process_time()
            scores = outlier_scores(model, split.test)
        except (ValueError, np.linalg.LinAlgError) as error:
            found["error"], fitted, scores = str(error), time.process_time(), np.zeros(len(split.test))
    return {
        **found,
        "auroc": float(roc_auc_score(split.labels, scores)),
        "aupr": float(average_precision_score(split.labels, scores)),
        "fit_seconds": fitted - started,
        "score_seconds": time.process_time() - fitted,
        "n_train": len(rows),
        "n_test": len(split.test),
        "n_columns": split.train.shape[1],
    }


def same_ranking(split: Split) -> dict[str, bool]:
    """Whether pyod's wrappers have the AUROC of scikit-learn's classes."""
    from pyod.models.gmm import GMM
    from pyod.models.iforest import IForest
    from pyod.models.kde import KDE
    from pyod.models.lof import LOF
    from pyod.models.mcd import MCD
    from pyod.models.ocsvm import OCSVM

    pairs = {
        "IForest": (IForest(random_state=0), IsolationForest(random_state=0)),
        "LOF": (LOF(), LocalOutlierFactor(novelty=True)),
        "OCSVM": (OCSVM(), OneClassSVM()),
        "KDE": (KDE(), KernelDensity()),
        "GMM": (GMM(random_state=0), GaussianMixture(random_state=0)),
        "MCD": (MCD(random_state=0), EllipticEnvelope(random_state=0)),
    }
    same = {}
    for name, both in pairs.items():
        theirs, wrapped = (measure(name, lambda *_, model=model: model, split, 0)["auroc"] for model in both)
        same[name] = abs(theirs - wrapped) < 1e-9
    return same
