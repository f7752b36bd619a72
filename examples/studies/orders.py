"""NADE and MADE on binary digits: one order of the pixels beside the average of several.

    python examples/studies/orders.py [--quick] [--results DIR]

The 1,797 images 8x8 of scikit-learn's digits, a pixel 1 where it is at least 8 of 16: 1,197 rows are fitted, of which
a tenth are held out to stop training by, and 600 are the test. For each of three seeds (of the division, the weights
and the orders), `NADEDensity` and `MADEDensity` of one and of eight orders are fitted for 60 and for 200 epochs, of
which the rows held out choose, and the mean test log-likelihood is noted, nats. Intervals are of the means over seeds,
by Student's t; differences are taken seed by seed. About seven minutes on one idle core.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
from shared import SEED, t_interval
from sklearn.model_selection import train_test_split

from flowdetect import MADEDensity, NADEDensity, load_images
from flowdetect.density import BaseDensity

SEEDS, N_TEST = range(SEED, SEED + 3), 600
ORDERS = (1, 8)
SETTINGS = {"n_bins": 2, "batch_size": 64, "validation_fraction": 0.1}
KINDS = {
    "NADE": lambda **more: NADEDensity(n_hidden=64, **SETTINGS, **more),
    "MADE": lambda **more: MADEDensity(hidden_features=(256,), **SETTINGS, **more),
}
EPOCHS = (60, 200)  # eight orders share the steps, and need more of them than one, which overfits sooner


def binary_digits(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, 64) of 0 and 1 to fit and to test on."""
    X, _ = load_images("digits")
    fit, test = train_test_split((X >= 8).reshape(-1, 64).astype(np.uint8), test_size=N_TEST, random_state=seed)
    return fit, test


def run(kind: str, n_orders: int, seed: int, epochs: tuple[int, ...]) -> dict[str, float]:
    """Fit one model for each number of epochs; test nats of the best on the rows held out, and seconds of all."""
    X, X_test = binary_digits(seed)
    started, best = time.perf_counter(), {"held out": -np.inf}
    for n in epochs:
        density: BaseDensity = KINDS[kind](n_orders=n_orders, max_epochs=n, n_iter_no_change=n, random_state=seed)
        density.fit(X)
        held_out = -min(density.history_["validation_bits_per_dim"]) * 64 * float(np.log(2))
        if held_out > best["held out"]:
            best = {"epochs": n, "held out": held_out, "nats": density.score(X_test)}
    return {**best, "seconds": time.perf_counter() - started}


def summary(found: dict[str, dict[int, list[float]]]) -> list[str]:
    """Lines of a table, and of what is claimed."""
    lines = ["model  orders  nats, test (95 % over seeds)     gain on one order (95 %)"]
    for kind, by_orders in found.items():
        for n_orders, nats in by_orders.items():
            mean, low, high = t_interval(nats)
            gain = t_interval([a - b for a, b in zip(nats, by_orders[min(by_orders)], strict=True)])
            lines.append(
                f"{kind:5s}  {n_orders:6d}  {mean:8.3f} ({low:.3f} to {high:.3f})    "
                f"{gain[0]:+.3f} ({gain[1]:+.3f} to {gain[2]:+.3f})"
            )
    for n_orders in found["NADE"]:
        both = zip(found["NADE"][n_orders], found["MADE"][n_orders], strict=True)
        mean, low, high = t_interval([a - b for a, b in both])
        lines.append(f"NADE less MADE, {n_orders} order(s): {mean:+.3f} ({low:+.3f} to {high:+.3f}) nats")
    return lines


def main() -> None:
    """Fit every model with every seed, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 epochs: a few seconds")
    parser.add_argument("--results", default="results")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    runs: list[dict[str, object]] = []
    found: dict[str, dict[int, list[float]]] = {kind: {n: [] for n in ORDERS} for kind in KINDS}
    for seed in SEEDS:
        for kind in KINDS:
            for n_orders in ORDERS:
                one = run(kind, n_orders, seed, (5,) if args.quick else EPOCHS)
                runs.append({"model": kind, "orders": n_orders, "seed": seed, **one})
                found[kind][n_orders].append(one["nats"])
                print(runs[-1], flush=True)
    lines = summary(found)
    print("\n".join(lines))
    folder = Path(args.results)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orders.json").write_text(json.dumps(runs, indent=1) + "\n")
    (folder / "orders.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
