"""Does what was chosen on ADBench's tables hold on others? One-class tasks made of scikit-learn's own tables.

    python examples/studies/tables_elsewhere.py [--quick] [--results DIR]

breast_cancer, digits, iris and wine: each class in turn is normal, half of its rows train, the others and at most 200
rows of each other class test; five splits. No choice in flowdetect was made by looking at them as tables.
`OODDetector()` beside pyod's KNN by mean distance, the nearest neighbour and IForest, on columns standardised by the
training rows.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
from pyod.models.iforest import IForest
from pyod.models.knn import KNN
from sklearn import datasets
from sklearn.metrics import roc_auc_score
from table_protocols import interval_text, standardised

from flowdetect import OODDetector

LOADERS = {name: getattr(datasets, f"load_{name}") for name in ("breast_cancer", "digits", "iris", "wine")}
PER_CLASS = 200  # test rows of a class that is not normal


def areas(X: np.ndarray, y: np.ndarray, normal: int, seed: int) -> list[float]:
    """Give the AUROC of each detector where one class is normal."""
    rng = np.random.default_rng(seed)
    inside = rng.permutation(np.flatnonzero(y == normal))
    half = len(inside) // 2
    outside = np.concatenate([rng.permutation(np.flatnonzero(y == other))[:PER_CLASS] for other in set(y) - {normal}])
    train, test = standardised(X[inside[:half]], X[np.concatenate([inside[half:], outside])])
    labels = np.repeat([0, 1], [len(inside) - half, len(outside)])
    peers = [KNN(method="mean"), KNN(n_neighbors=1), IForest(random_state=seed)]
    scores = [-OODDetector(random_state=seed).fit(train).score_samples(test)]
    scores += [peer.fit(train).decision_function(test) for peer in peers]
    return [float(roc_auc_score(labels, each)) for each in scores]


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="iris alone, two splits")
    parser.add_argument("--results", default="results")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*tight group.*")
    names, n_splits = (["iris"], 2) if args.quick else (list(LOADERS), 5)
    lines, means = [f"{'':22} {'OODDetector':>12} {'KNN mean':>12} {'KNN k=1':>12} {'IForest':>12}"], []
    for name in names:
        X, y = LOADERS[name](return_X_y=True)
        for normal in np.unique(y):
            found = np.array([areas(X, y, int(normal), seed) for seed in range(n_splits)])
            means.append(found)
            lines.append(f"{name + ', class ' + str(normal):22} " + " ".join(f"{v:12.3f}" for v in found.mean(axis=0)))
    by_split = np.mean(means, axis=0)  # (n_splits, n_detectors)
    lines.append(f"{'mean':22} " + " ".join(f"{v:12.4f}" for v in by_split.mean(axis=0)))
    lines.append(f"OODDetector minus KNN mean {interval_text(by_split[:, 0] - by_split[:, 1])}, over splits")
    text = "\n".join(lines) + "\n"
    Path(args.results).mkdir(parents=True, exist_ok=True)
    (Path(args.results) / "tables_elsewhere.txt").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
