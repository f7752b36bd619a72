"""Densities of tables by test log-likelihood: flows beside kernels and Gaussian mixtures (`tables.py --likelihood`).

One split (seed 0): 70 % of the inliers train, 5,000 at most, the others test, 2,000 at most. A density of tied values
is unbounded, so every value gets uniform noise of 1 % of its column's range in training, which is wider than rounding
errors and breaks ties for all models alike; columns constant in training are dropped, the others standardised. A
fifth of the training rows, 1,000 at most, chooses the bandwidth of `KernelDensity` (15 values in [0.02, 2]), and the
number of full components (1 to 20) and `reg_covar` (1e-6 to 0.1) of `GaussianMixture`; both are then fitted to all
training rows. `RealNVPDensity` and `MAFDensity` have their defaults, early stopping on rows of their own included.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from shared import SEED, interval
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from table_protocols import ONE_CLASS_TRAIN, Results, load_table, standardised

from flowdetect import MAFDensity, RealNVPDensity

BANDWIDTHS = np.geomspace(0.02, 2, 15)
N_COMPONENTS = (1, 2, 3, 4, 6, 8, 11, 15, 20)
REG_COVAR = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
N_TRAIN, N_TEST, N_CHOOSE = 5000, 2000, 1000  # rows at most
JITTER = 0.01  # of a column's range
FLOWS = ("RealNVPDensity", "MAFDensity")


def jittered_rows(name: str, n_train: int, n_test: int) -> tuple[np.ndarray, np.ndarray]:
    """Give training and test inliers, ties broken."""
    X, y = load_table(name)
    rng = np.random.default_rng(SEED)
    inliers = rng.permutation(np.flatnonzero(y == 0))
    n = int(ONE_CLASS_TRAIN * len(inliers))
    train, test = inliers[:n][:n_train], inliers[n:][:n_test]
    X = X + rng.random(X.shape) * JITTER * np.ptp(X[train], axis=0)
    return standardised(X[train], X[test])


def best_of(makers: list[Callable[[], Any]], X: np.ndarray) -> Any:
    """Fit to all rows the model that is best on a fifth of them."""
    order = np.random.default_rng(SEED).permutation(len(X))
    held_out, rest = X[order[: len(X) // 5][:N_CHOOSE]], X[order[len(X) // 5 :]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mixtures that have not converged
        likelihoods = [np.mean(make().fit(rest).score_samples(held_out)) for make in makers]
        return makers[int(np.argmax(likelihoods))]().fit(X)


def densities(n_train: int) -> dict[str, Callable[[np.ndarray], Any]]:
    """How each density is fitted."""
    kernels: list[Callable[[], Any]] = [partial(KernelDensity, bandwidth=h, rtol=1e-4) for h in BANDWIDTHS]
    mixtures: list[Callable[[], Any]] = [
        partial(GaussianMixture, k, reg_covar=floor, random_state=SEED)
        for k in N_COMPONENTS
        for floor in REG_COVAR
        if 2 * k < 0.8 * n_train
    ]
    return {
        "KernelDensity": lambda X: best_of(kernels, X),
        "GaussianMixture": lambda X: best_of(mixtures, X),
        "RealNVPDensity": lambda X: RealNVPDensity(random_state=SEED).fit(X),
        "MAFDensity": lambda X: MAFDensity(random_state=SEED).fit(X),
    }


def choice(model: Any) -> dict[str, float]:
    """Give what validation chose."""
    parameters = model.get_params()
    return {name: float(parameters[name]) for name in ("bandwidth", "n_components", "reg_covar") if name in parameters}


def one_table(name: str, n_train: int, n_test: int) -> dict[str, Any]:
    """Fit all densities to one table."""
    train, test = jittered_rows(name, n_train, n_test)
    log_p, seconds, chosen = {}, {}, {}
    for density, fit in densities(len(train)).items():
        started = time.process_time()
        model = fit(train)
        log_p[density] = model.score_samples(test)
        seconds[density] = time.process_time() - started
        chosen[density] = choice(model)
    better = max(("KernelDensity", "GaussianMixture"), key=lambda density: log_p[density].mean())
    return {
        "shape": train.shape,
        "n_test": len(test),
        "log_p": {density: float(values.mean()) for density, values in log_p.items()},
        "better": better,
        "gain": {flow: interval(log_p[flow] - log_p[better]) for flow in FLOWS},
        "chosen": chosen,
        "seconds": seconds,
    }


def report(found: dict[str, dict[str, Any]]) -> str:
    """Lay the comparison out as text."""
    names = list(next(iter(found.values()))["log_p"])
    lines = [
        "Mean test log-likelihood, nats; gain of a flow over the better of the first two, 95 % bootstrap interval",
        "",
        f"{'':24}" + "".join(f"{name:>17}" for name in names) + "".join(f"  {'gain of ' + flow:28}" for flow in FLOWS),
    ]
    for table, row in found.items():
        shape = "{}x{}".format(*row["shape"])
        gains = "".join("  {:28}".format("{:+.3f} [{:+.3f}, {:+.3f}]".format(*row["gain"][flow])) for flow in FLOWS)
        lines.append(f"{table:12} {shape:>10} " + "".join(f"{value:17.3f}" for value in row["log_p"].values()) + gains)
    for flow in FLOWS:
        gains = [row["gain"][flow] for row in found.values()]
        ahead, behind = sum(gain[1] > 0 for gain in gains), sum(gain[2] < 0 for gain in gains)
        lines += [
            "",
            f"{flow}: ahead on {ahead}, behind on {behind}, the interval holds 0 on {len(gains) - ahead - behind}",
        ]
    return "\n".join([*lines, ""])


def compare(tables: list[str], folder: Path, *, quick: bool) -> None:
    """Compare what is missing and write everything out."""
    stem = "tables_likelihood_quick" if quick else "tables_likelihood"
    results = Results(folder / stem)
    for table in tables:
        if not results.get(table, "likelihood"):
            results.put(table, "likelihood", one_table(table, *((500, 200) if quick else (N_TRAIN, N_TEST))))
            print(table, results.get(table, "likelihood")["log_p"], flush=True)
    found = {table: results.get(table, "likelihood") for table in tables}
    (folder / f"{stem}.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / f"{stem}.txt").write_text(report(found))
    print(report(found))
