"""Densities whose truth is known or easy to see: a Gaussian, two moons, rings, a checkerboard.

    python examples/studies/toys.py [--quick] [--results DIR]

`RealNVPDensity` with its defaults beside `KernelDensity` (bandwidth by 5-fold cross-validation) and `GaussianMixture`
(1 to 30 components by BIC), 5,000 training and test rows; of the Gaussian 10,000, beside the truth. Integrals are sums
over 1,200 x 1,200 cells that cover the training rows and half of their range on either side.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import multivariate_normal
from shared import SEED, interval
from sklearn.datasets import make_circles, make_moons
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity

from flowdetect import RealNVPDensity

N_CELLS = 1200  # an axis
Sampler = Callable[[int, int], np.ndarray]


def moons(n: int, seed: int) -> np.ndarray:
    """Two half circles, noise 0.1."""
    return make_moons(n, noise=0.1, random_state=seed)[0]


def rings(n: int, seed: int) -> np.ndarray:
    """Two circles of radius 1 and 0.5, noise 0.08."""
    return make_circles(n, noise=0.08, factor=0.5, random_state=seed)[0]


def checkerboard(n: int, seed: int) -> np.ndarray:
    """Eight unit squares of a 4x4 board, uniform, no noise; the truth is -log 8 = -2.079 nats."""
    rng = np.random.default_rng(seed)
    column, row = rng.integers(0, 4, n), rng.integers(0, 2, n)
    return np.stack([column + rng.random(n), 2 * row + column % 2 + rng.random(n)], axis=1) - 2


def integral(density: RealNVPDensity, X: np.ndarray) -> float:
    """Sum of the density over cells."""
    low, high = X.min(0) - 0.5 * np.ptp(X, 0), X.max(0) + 0.5 * np.ptp(X, 0)
    width = (high - low) / N_CELLS
    axes = [low[i] + width[i] * (np.arange(N_CELLS) + 0.5) for i in (0, 1)]
    cells = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    return float(np.exp(density.score_samples(cells)).sum() * width.prod())


def compare(sampler: Sampler, n: int) -> tuple[dict[str, object], RealNVPDensity]:
    """Fit the three models; test log-likelihoods, and ours minus the better of the others."""
    X, X_test = sampler(n, SEED), sampler(n, SEED + 1)
    kernels = GridSearchCV(KernelDensity(), {"bandwidth": np.geomspace(0.01, 1, 20)}).fit(X).best_estimator_
    mixtures = (GaussianMixture(k, random_state=SEED).fit(X) for k in range(1, 31))
    mixture = min(mixtures, key=lambda model: model.bic(X))
    started = time.perf_counter()
    density = RealNVPDensity(random_state=SEED).fit(X)
    seconds = time.perf_counter() - started
    log_p = {
        f"KernelDensity({kernels.bandwidth:.3f})": kernels.score_samples(X_test),
        f"GaussianMixture({mixture.n_components})": mixture.score_samples(X_test),
    }
    ours = density.score_samples(X_test)
    better = max(log_p.values(), key=np.mean)
    found: dict[str, object] = {name: float(values.mean()) for name, values in log_p.items()}
    found |= {"RealNVPDensity": float(ours.mean()), "gain": interval(ours - better)}
    return {**found, "integral": integral(density, X), "seconds": seconds}, density


def gaussian(n: int) -> dict[str, object]:
    """Five correlated normal columns: the mean test log-likelihood beside the truth's."""
    rng = np.random.default_rng(SEED)
    mix = rng.normal(size=(5, 5))
    X, X_test = (rng.normal(size=(n, 5)) @ mix.T + [1, 2, 3, 4, 5] for _ in range(2))
    started = time.perf_counter()
    density = RealNVPDensity(random_state=SEED).fit(X)
    truth = multivariate_normal([1, 2, 3, 4, 5], mix @ mix.T).logpdf(X_test)
    ours = density.score_samples(X_test)
    seconds = time.perf_counter() - started
    return {
        "truth": truth.mean(),
        "RealNVPDensity": ours.mean(),
        "gain": interval(ours - truth),
        "seconds": seconds,
    }


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="500 rows")
    parser.add_argument("--results", default="results")
    args = parser.parse_args()
    n = 500 if args.quick else 5000
    found: dict[str, object] = {"Gaussian in 5 dimensions": gaussian(2 * n)}
    samplers: dict[str, Sampler] = {"moons": moons, "rings": rings, "checkerboard": checkerboard}
    figure = Figure(figsize=(7.5, 2.6), layout="constrained")
    for name, ax in zip(samplers, figure.subplots(1, 3), strict=True):
        found[name], density = compare(samplers[name], n)
        grid = np.stack(np.meshgrid(*[np.linspace(-2.4, 2.4, 200)] * 2), axis=-1)
        p = np.exp(density.score_samples(grid.reshape(-1, 2))).reshape(200, 200)
        ax.pcolormesh(*grid.transpose(2, 0, 1), p, cmap="magma", rasterized=True)
        ax.set(title=name, aspect="equal")
    folder = Path(args.results)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "toys.json").write_text(json.dumps(found, indent=1) + "\n")
    figure.savefig(folder / "toys.png", dpi=110)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
