"""Which half of the dimensions should leave a flow early? The ablation of LCMA's Table 2, four factorisations.

    FLOWDETECT_DATA=folder python examples/studies/lcma.py [--quick] [--sets fashion_mnist cifar10]
        [--models realnvp glow] [--kinds standard likelihood ...] [--seeds 0 1 2] [--images 20000]
        [--epochs 8 | --training-steps N] [--batch-size 64] [--device auto] [--results DIR] [--out DIR]

Trains a density with each factorisation, on each set, from each seed, with the same budget: the pre-training that
measures the contributions is a quarter of the epochs. Every cell is stored as one json in --results; a second start
resumes where the first one ended, and cells can be run by many processes at once and collected afterwards:

    export OMP_NUM_THREADS=1
    python examples/studies/lcma.py --list | xargs -P 12 -I CELL python examples/studies/lcma.py --only CELL
    python examples/studies/lcma.py --collect --out docs/studies

where each call gets the same settings. Writes lcma.json, lcma.txt and a picture of the dimensions that leave for each
model and set. The Glow permutes channels ("shuffle"), since 1x1 convolutions leave no dimension by itself; its
"standard" lets a fixed half of the channels leave.

Das et al. 2019, "Likelihood Contribution based Multi-scale Architecture for Generative Flows",
https://arxiv.org/abs/1908.01686, Table 2 (CelebA, bits/dim): random 3.05, likelihood_reversed 3.10, standard 3.02,
likelihood 2.71.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from shared import cell_arguments, over_seeds, run_cells, training_arguments

from flowdetect import GlowDensity, RealNVPDensity, load_images
from flowdetect.density import BaseDensity
from flowdetect.evaluation import plot_image_grid

FACTORIZATIONS = ["standard", "likelihood", "likelihood_reversed", "random"]
Cells = dict[str, dict[str, Any]]


def density_of(model: str, args: argparse.Namespace, **settings: Any) -> BaseDensity:
    """Make a density of two levels, which differ in what leaves the first."""
    settings = {
        **settings,
        "n_levels": 2,
        "n_steps": args.flow_steps,
        "hidden_channels": args.hidden,
        "preprocessing": "logit",
        "batch_size": args.batch_size,
        "max_epochs": args.epochs,
        "early_stopping": False,
        "device": args.device,
        "time_limit": args.time_limit,
        "verbose": 1,
    }
    if model == "realnvp":
        return RealNVPDensity(**settings)
    return GlowDensity(permutation="shuffle", **{**settings, "n_steps": 4 * args.flow_steps})  # as many couplings


def run_cell(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train and score one density."""
    model, data, kind, seed = name.split()
    X, X_test = load_images(data)[0][: args.images], load_images(data, "test")[0][: args.tests]
    if args.training_steps:
        args.epochs = -(-args.training_steps // (len(X) // args.batch_size))
    started = time.perf_counter()
    density = density_of(model, args, factorization=kind, random_state=int(seed)).fit(X)
    seconds = time.perf_counter() - started  # with the pre-training
    has_names = model == "realnvp" or kind != "standard"
    kept = ("images", "tests", "epochs", "batch_size", "flow_steps", "hidden", "time_limit")
    return {
        "bits": float(density.bits_per_dim(X_test).mean()),
        "factored_dims": density.factored_dims_.tolist() if has_names else None,
        "epochs": density.n_iter_,
        "seconds": seconds,
        "device": density.device_,
        "settings": {key: vars(args)[key] for key in kept},
    }


def of_kind(cells: Cells, *kind: str) -> dict[int, dict[str, Any]]:
    """Give the cells of a model, a set and a factorisation by their seeds."""
    return {int(name.split()[3]): cell for name, cell in cells.items() if name.split()[:3] == list(kind)}


def agreement(factored: np.ndarray) -> float:
    """Share of the dimensions leaving at level 1 on which a choice and the more similar checkerboard agree."""
    h, w, _ = factored.shape
    share = float(((np.add.outer(np.arange(h), np.arange(w)) % 2 == 0)[:, :, None] == (factored == 1)).mean())
    return max(share, 1 - share)


def table(cells: Cells) -> str:
    """Bits/dim of each factorisation: mean with an interval over seeds, beside "standard" paired by seed."""
    lines = [f"{'':43} {'bits/dim, over seeds':26} {'to standard':26} seconds   each seed"]
    for kind in dict.fromkeys(tuple(name.split()[:3]) for name in cells):
        found, first = of_kind(cells, *kind), of_kind(cells, *kind[:2], FACTORIZATIONS[0])
        paired = [cell["bits"] - first[seed]["bits"] for seed, cell in found.items() if seed in first]
        gain = over_seeds(paired, "+.3f") if paired and kind[2] != FACTORIZATIONS[0] else ""
        bits, seconds = [cell["bits"] for cell in found.values()], np.mean([cell["seconds"] for cell in found.values()])
        line = f"{kind[0]:8} {kind[1]:14} {kind[2]:19} {over_seeds(bits):26} {gain:26} {seconds:7.0f}   "
        line += " ".join(f"{value:.3f}" for value in bits)
        factored = next(iter(found.values()))["factored_dims"]
        if factored is not None:
            line += f"   agrees with a checkerboard on {agreement(np.array(factored)):.0%}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def draw(cells: Cells, folder: Path) -> None:
    """Draw which dimensions leave at which level, of the first seed and channel."""
    for model, data in dict.fromkeys(tuple(name.split()[:2]) for name in cells):
        found = {}
        for kind in FACTORIZATIONS:
            for cell in list(of_kind(cells, model, data, kind).values())[:1]:
                if cell["factored_dims"] is not None:
                    found[kind] = np.array(cell["factored_dims"])[:, :, 0]
        if not found:
            continue
        figure = Figure(figsize=(9, 2.6), layout="constrained")
        plot_image_grid(
            np.stack(list(found.values())),
            titles=list(found),
            n_columns=len(found),
            value_range=(1, 2),
            ax=figure.add_subplot(),
        )
        figure.savefig(folder / (f"lcma_{data}.png" if model == "realnvp" else f"lcma_{model}_{data}.png"), dpi=110)


def collect(cells: Cells, folder: Path) -> None:
    """Write all cells without their dimensions, the table and the pictures."""
    plain = {
        name: {key: value for key, value in cell.items() if key != "factored_dims"} for name, cell in cells.items()
    }
    (folder / "lcma.json").write_text(json.dumps(plain, indent=1) + "\n")
    (folder / "lcma.txt").write_text(table(cells))
    draw(cells, folder)
    print(table(cells))


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cell_arguments(parser)
    training_arguments(parser)
    parser.add_argument("--quick", action="store_true", help="tiny models on 640 images, one seed, half a minute")
    parser.add_argument("--sets", nargs="+", default=["fashion_mnist", "cifar10"])
    parser.add_argument("--models", nargs="+", default=["realnvp"], choices=["realnvp", "glow"])
    parser.add_argument("--kinds", nargs="+", default=FACTORIZATIONS, choices=FACTORIZATIONS)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--tests", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument(
        "--training-steps", type=int, help="instead of --epochs: at least so many, the pre-training's too"
    )
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--flow-steps", type=int, default=1, help="n_steps of RealNVP; of Glow four times as many")
    parser.add_argument("--hidden", type=int, default=48)
    args = parser.parse_args()
    if args.quick:
        args.images, args.tests, args.epochs, args.hidden, args.seeds = 640, 128, 2, 8, [0]
    names = [
        f"{model} {data} {kind} {seed}"
        for model in args.models
        for data in args.sets
        for seed in args.seeds
        for kind in args.kinds
    ]
    run_cells(args, names, partial(run_cell, args=args), collect)


if __name__ == "__main__":
    main()
