"""RealNVP on tables: densities beside kernels and Gaussian mixtures, detection beside pyod's detectors.

    FLOWDETECT_DATA=folder python examples/studies/tables.py [--quick] [--tables wine thyroid ...] [--results DIR]

Reads ADBench tables from FLOWDETECT_DATA/adbench (X and y of each .npz; y is 1 for outliers). Of each table, 70 % of
the inliers are trained on (20,000 at most), the others tested (10,000 at most). Columns constant in training are
dropped; every value gets uniform noise as wide as the smallest gap between distinct values of its column, since a
density of tied values is unbounded; columns are standardised. All models get these same arrays. `KernelDensity` has the
best of 15 bandwidths in [0.02, 2], `GaussianMixture` the best of 1 to 20 full components (reg_covar=1e-3), both by a
fifth of the training rows held out, and are fitted again to all; `RealNVPDensity` has its defaults. Detection: held-out
inliers against the outliers (10,000 at most). Each table is stored as it is done, and a second start goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from shared import SEED, interval
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from flowdetect import LikelihoodDetector, RealNVPDensity

BANDWIDTHS = np.geomspace(0.02, 2, 15)
N_COMPONENTS = range(1, 21)
N_CHOOSE = 1000  # rows by which bandwidth and components are chosen, at most


def arrays(path: Path, n_train: int, n_test: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give training inliers, test inliers and outliers."""
    with np.load(path) as file:
        X, y = file["X"].astype(np.float64), file["y"]
    rng = np.random.default_rng(SEED)
    inliers, outliers = (rng.permutation(np.flatnonzero(y == label)) for label in (0, 1))
    n = int(0.7 * len(inliers))
    train, test = inliers[:n][:n_train], inliers[n:][:n_test]
    X = X[:, np.ptp(X[train], axis=0) > 0]
    X += rng.random(X.shape) * [np.diff(np.unique(column)).min() for column in X[train].T]
    X = (X - X[train].mean(0)) / X[train].std(0)
    return X[train], X[test], X[outliers[:n_test]]


def best_of(makers: list[Callable[[], Any]], X: np.ndarray) -> Any:
    """Fit the model that is best on a fifth of the rows to all of them."""
    order = np.random.default_rng(SEED).permutation(len(X))
    held_out, rest = X[order[: len(X) // 5][:N_CHOOSE]], X[order[len(X) // 5 :]]
    scores = [make().fit(rest).score(held_out) for make in makers]
    return makers[int(np.argmax(scores))]().fit(X)


def densities(n_train: int) -> dict[str, Callable[[np.ndarray], Any]]:
    """How each density is fitted."""
    kernels = [lambda h=h: KernelDensity(bandwidth=h, rtol=1e-4) for h in BANDWIDTHS]
    mixtures = [
        lambda k=k: GaussianMixture(k, reg_covar=1e-3, random_state=SEED) for k in N_COMPONENTS if 2 * k < n_train
    ]
    return {
        "KernelDensity": lambda X: best_of(kernels, X),
        "GaussianMixture": lambda X: best_of(mixtures, X),
        "RealNVPDensity": lambda X: RealNVPDensity(random_state=SEED).fit(X),
    }


def outlier_detectors(n_columns: int) -> dict[str, Any]:
    """pyod's detectors with their defaults."""
    from pyod.models.deep_svdd import DeepSVDD
    from pyod.models.ecod import ECOD
    from pyod.models.gmm import GMM
    from pyod.models.iforest import IForest
    from pyod.models.knn import KNN

    return {
        "KNN": KNN(),
        "ECOD": ECOD(),
        "GMM": GMM(random_state=SEED),
        "IForest": IForest(random_state=SEED),
        "DeepSVDD": DeepSVDD(n_features=n_columns, random_state=SEED, verbose=0),
    }


def one_table(path: Path, n_train: int, n_test: int) -> dict[str, Any]:
    """Measure all models on one table."""
    train, test, outliers = arrays(path, n_train, n_test)
    fitted, log_p, auroc, seconds = {}, {}, {}, {}
    labels = np.repeat([0, 1], [len(test), len(outliers)])
    for name, fit in densities(len(train)).items():
        started = time.perf_counter()
        fitted[name] = fit(train)
        log_p[name] = fitted[name].score_samples(test)
        seconds[name] = time.perf_counter() - started
    detector = LikelihoodDetector(FrozenEstimator(fitted["RealNVPDensity"])).fit(train)  # not trained again
    auroc["LikelihoodDetector"] = roc_auc_score(labels, -detector.score_samples(np.concatenate([test, outliers])))
    for name, model in outlier_detectors(train.shape[1]).items():
        started = time.perf_counter()
        model.fit(train)
        auroc[name] = roc_auc_score(labels, model.decision_function(np.concatenate([test, outliers])))
        seconds[name] = time.perf_counter() - started
    best = max(("KernelDensity", "GaussianMixture"), key=lambda name: log_p[name].mean())
    return {
        "shape": train.shape,
        "n_test": len(test),
        "n_outliers": len(outliers),
        "log_p": {name: float(values.mean()) for name, values in log_p.items()},
        "better": best,
        "gain": interval(log_p["RealNVPDensity"] - log_p[best]),
        "auroc": auroc,
        "seconds": seconds,
    }


def table(found: dict[str, dict[str, Any]]) -> str:
    """Lay both comparisons out as text."""
    lines = ["mean test log-likelihood, nats; gain over the better of the first two, paired bootstrap interval", ""]
    for name, row in found.items():
        mean, low, high = row["gain"]
        values = " ".join(f"{value:9.3f}" for value in row["log_p"].values())
        gain = f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]" + ("" if high >= 0 else "  behind")
        lines.append(f"{name:12} {row['shape'][0]:6}x{row['shape'][1]:<4} {values}  {gain}")
    kept = sum(row["gain"][2] >= 0 for row in found.values())
    names = list(next(iter(found.values()))["auroc"])
    lines += ["", f"at least equal on {kept} of {len(found)}", "", "AUROC, held-out inliers against outliers", ""]
    lines.append(" " * 12 + " ".join(f"{name:>18}" for name in names))
    for name, row in found.items():
        lines.append(f"{name:12}" + " ".join(f"{row['auroc'][model]:18.3f}" for model in names))
    means = [np.mean([row["auroc"][model] for row in found.values()]) for model in names]
    lines.append(f"{'mean':12}" + " ".join(f"{value:18.3f}" for value in means))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="500 training rows, 200 test rows, two tables")
    parser.add_argument("--tables", nargs="*")
    parser.add_argument("--results", default="results")
    args = parser.parse_args()
    data = Path(os.environ["FLOWDETECT_DATA"]) / "adbench"
    names = args.tables or (["wine", "thyroid"] if args.quick else sorted(path.stem for path in data.glob("*.npz")))
    folder = Path(args.results)
    folder.mkdir(parents=True, exist_ok=True)
    stored = folder / ("tables_quick.json" if args.quick else "tables.json")
    found = json.loads(stored.read_text()) if stored.exists() else {}
    for name in names:
        if name not in found:
            found[name] = one_table(data / f"{name}.npz", *((500, 200) if args.quick else (20_000, 10_000)))
            stored.write_text(json.dumps(found, indent=1) + "\n")
            print(name, found[name]["log_p"], flush=True)
    text = table({name: found[name] for name in names})
    (folder / "tables.txt").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
