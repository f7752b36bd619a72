"""Which half of the dimensions should leave a flow early? The ablation of LCMA's Table 2, four factorisations.

    FLOWDETECT_DATA=folder python examples/studies/lcma.py [--quick] [--sets fashion_mnist cifar10] [--seeds 0 1 2]
        [--images 20000] [--epochs 8] [--results DIR] [--models DIR]

Trains `RealNVPDensity` with each factorisation, on each set, from each seed, with the same budget: the pre-training
that measures the contributions is a share of the epochs. Each cell is stored as it is done, and a second start goes on
where the first one ended. Writes cells.json, table.txt and a picture of the dimensions that leave.

Das et al. 2019, "Likelihood Contribution based Multi-scale Architecture for Generative Flows",
https://arxiv.org/abs/1908.01686, Table 2 (CelebA, bits/dim): random 3.05, likelihood_reversed 3.10, standard 3.02,
likelihood 2.71.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from shared import interval, loaded_or_fitted

from flowdetect import RealNVPDensity, load_images
from flowdetect.evaluation import plot_image_grid

FACTORIZATIONS = ["standard", "likelihood", "likelihood_reversed", "random"]
Cells = dict[tuple[str, str, int], dict[str, Any]]


def one_cell(args: argparse.Namespace, name: str, kind: str, seed: int) -> dict[str, Any]:
    """Train and score one density, or read what an earlier start found."""
    path = Path(args.models) / f"lcma-{name}-{kind}-{seed}-{args.images}-{args.epochs}.safetensors"
    stored = path.with_suffix(".json")
    if stored.exists():
        return dict(json.loads(stored.read_text()))
    X, X_test = load_images(name)[0][: args.images], load_images(name, "test")[0][: args.tests]
    density = RealNVPDensity(
        n_levels=2,
        n_steps=args.steps,
        hidden_channels=args.hidden,
        preprocessing="logit",
        factorization=kind,
        max_epochs=args.epochs,
        early_stopping=False,
        random_state=seed,
        verbose=1,
    )
    started = time.perf_counter()
    density = loaded_or_fitted(path, density, X)
    cell = {
        "bits": density.bits_per_dim(X_test).tolist(),
        "factored_dims": density.factored_dims_.tolist(),
        "seconds": time.perf_counter() - started,
    }
    stored.write_text(json.dumps(cell))
    return cell


def agreement(factored: np.ndarray) -> float:
    """Share of the dimensions leaving at level 1 on which a choice and the more similar checkerboard agree."""
    h, w, _ = factored.shape
    share = float(((np.add.outer(np.arange(h), np.arange(w)) % 2 == 0)[:, :, None] == (factored == 1)).mean())
    return max(share, 1 - share)


def table(cells: Cells) -> str:
    """Bits/dim of each factorisation: mean over seeds with an interval over test images, and every seed's."""
    lines = []
    for name, kind in dict.fromkeys(key[:2] for key in cells):
        bits = np.array([cell["bits"] for key, cell in cells.items() if key[:2] == (name, kind)])
        factored = next(np.array(cell["factored_dims"]) for key, cell in cells.items() if key[:2] == (name, kind))
        mean, low, high = interval(bits.mean(0))
        seeds = " ".join(f"{value:.3f}" for value in bits.mean(1))
        lines.append(
            f"{name:14} {kind:20} {mean:.3f} [{low:.3f}, {high:.3f}]   seeds {seeds}   "
            f"agrees with a checkerboard on {agreement(factored):.0%}"
        )
        first = np.array([cell["bits"] for key, cell in cells.items() if key[:2] == (name, FACTORIZATIONS[0])])
        if kind != FACTORIZATIONS[0] and len(first) == len(bits):
            gain, low, high = interval((bits - first).mean(0))
            lines.append(f"{'':35} {gain:+.3f} [{low:+.3f}, {high:+.3f}] beside standard, paired by image")
    return "\n".join(lines) + "\n"


def draw(cells: Cells, folder: Path) -> None:
    """Draw which dimensions leave at which level, of the first seed and channel."""
    for name in dict.fromkeys(key[0] for key in cells):
        found = {key[1]: np.array(cell["factored_dims"])[:, :, 0] for key, cell in cells.items() if key[0] == name}
        figure = Figure(figsize=(9, 2.6), layout="constrained")
        plot_image_grid(
            np.stack(list(found.values())),
            titles=list(found),
            n_columns=len(found),
            value_range=(1, 2),
            ax=figure.add_subplot(),
        )
        figure.savefig(folder / f"lcma_{name}.png", dpi=110)


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny models on 640 images, one seed, half a minute")
    parser.add_argument("--sets", nargs="+", default=["fashion_mnist", "cifar10"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--tests", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=48)
    parser.add_argument("--results", default="results")
    parser.add_argument("--models", default="models")
    args = parser.parse_args()
    if args.quick:
        args.images, args.tests, args.epochs, args.hidden, args.seeds = 640, 128, 2, 8, [0]
    cells = {
        (name, kind, seed): one_cell(args, name, kind, seed)
        for name in args.sets
        for seed in args.seeds
        for kind in FACTORIZATIONS
    }
    folder = Path(args.results)
    folder.mkdir(parents=True, exist_ok=True)
    summary = {" ".join(map(str, key)): [np.mean(cell["bits"]), cell["seconds"]] for key, cell in cells.items()}
    (folder / "cells.json").write_text(json.dumps({"settings": vars(args), "cells": summary}, indent=1) + "\n")
    (folder / "table.txt").write_text(table(cells))
    draw(cells, folder)
    print(table(cells))


if __name__ == "__main__":
    main()
