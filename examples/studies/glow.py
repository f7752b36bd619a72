"""Which parts of Glow matter: how channels are mixed, the coupling, the depth; and Glow beside RealNVP.

    FLOWDETECT_DATA=folder python examples/studies/glow.py [--quick] [--set fashion_mnist] [--images 20000]
        [--epochs 12] [--batch-size 256] [--hidden 128] [--seeds 0 1 2] [--device auto]
        [--time-limit SECONDS] [--results DIR] [--out DIR]

Every cell is one training on the same images for the same number of epochs, stored as one json in --results; a second
start resumes where the first one ended. Cells can be run by many processes at once, and collected afterwards:

    export OMP_NUM_THREADS=1
    python examples/studies/glow.py --list | xargs -P 12 -I CELL python examples/studies/glow.py --only CELL
    python examples/studies/glow.py --collect --out docs/studies

which writes glow.json, glow.txt and glow.png, the learning curves. Bits/dim are bounds, by uniform dequantisation.

Kingma & Dhariwal 2018, "Glow: Generative Flow with Invertible 1x1 Convolutions", https://arxiv.org/abs/1807.03039,
Figure 3 (CIFAR-10: 1x1 convolutions end lowest with both couplings, affine below additive) and Table 2.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from shared import cell_arguments, over_seeds, run_cells, training_arguments

from flowdetect import GlowDensity, RealNVPDensity, load_images
from flowdetect.density import BaseDensity

PERMUTATIONS, COUPLINGS, DEPTHS = ["reverse", "shuffle", "conv1x1"], ["additive", "affine"], [2, 4, 16]
N_STEPS = 8  # of all cells but those of another depth
BASE = "conv1x1 affine"
COLORS = {"reverse": "#D55E00", "shuffle": "#009E73", "conv1x1": "#0072B2"}
Cells = dict[str, dict[str, Any]]


def kinds() -> list[str]:
    """Names of the cells without their seeds."""
    ablation = [f"{permutation} {coupling}" for coupling in COUPLINGS for permutation in PERMUTATIONS]
    return [*ablation, "realnvp", *(f"{depth} steps" for depth in DEPTHS)]


def density_of(kind: str, args: argparse.Namespace) -> BaseDensity:
    """Make the density of a kind of cell; all have two levels."""
    settings = {
        "n_levels": 2,
        "max_epochs": args.epochs,
        "batch_size": args.batch_size,
        "early_stopping": True,  # 5 % held out, for the curves; no training ends early
        "n_iter_no_change": args.epochs + 1,
        "validation_fraction": 0.05,
        "device": args.device,
        "time_limit": args.time_limit,
        "verbose": 1,
    }
    n_steps = N_STEPS // 2 if args.quick else N_STEPS
    if kind == "realnvp":  # as wide, and about as many couplings: two pairs with either mask at each level
        return RealNVPDensity(n_steps=max(1, n_steps // 4), hidden_channels=args.hidden // 2, **settings)
    permutation, coupling = "conv1x1", "affine"
    if kind.endswith(" steps"):
        n_steps = n_steps * int(kind.split()[0]) // N_STEPS
    else:
        permutation, coupling = kind.split()
    return GlowDensity(
        n_steps=n_steps, hidden_channels=args.hidden, permutation=permutation, coupling=coupling, **settings
    )


def run_cell(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train and score one density."""
    kind, _, seed = name.rpartition(" ")
    X, X_test = load_images(args.set)[0][: args.images], load_images(args.set, "test")[0][: args.tests]
    density = density_of(kind, args).set_params(random_state=int(seed)).fit(X)
    return {
        "bits": float(density.bits_per_dim(X_test).mean()),
        "curve": density.history_["validation_bits_per_dim"],
        "epochs": density.n_iter_,
        "seconds": float(np.sum(density.history_["seconds"])),
        "parameters": sum(parameter.numel() for parameter in density.model_.parameters()),
        "device": density.device_,
        "settings": {key: vars(args)[key] for key in ("set", "images", "tests", "epochs", "batch_size", "hidden")},
    }


def of_kind(cells: Cells, kind: str) -> dict[int, dict[str, Any]]:
    """Give the cells of a kind by their seeds."""
    return {int(name.rpartition(" ")[2]): cell for name, cell in cells.items() if name.rpartition(" ")[0] == kind}


def table(cells: Cells) -> str:
    """Bits/dim of each kind: mean with an interval over seeds, and its difference to the usual Glow, paired by seed."""
    first = next(iter(cells.values()))["settings"]
    lines = [
        f"{first['set']}: {first['images']} images, {first['epochs']} epochs of batches of {first['batch_size']}, "
        f"{first['hidden']} channels; bits/dim of {first['tests']} test images, 95 % intervals over seeds",
        f"{'':20} {'bits/dim':26} {'to ' + BASE:26} {'parameters':>10} {'seconds':>8}   each seed",
    ]
    base = of_kind(cells, BASE)
    for kind in kinds():
        found = of_kind(cells, kind)
        if not found:
            continue
        bits = over_seeds([cell["bits"] for cell in found.values()])
        paired = [cell["bits"] - base[seed]["bits"] for seed, cell in found.items() if seed in base]
        gain = "" if kind == BASE or not paired else over_seeds(paired, "+.3f")
        seconds = np.mean([cell["seconds"] for cell in found.values()])
        each = " ".join(f"{cell['bits']:.3f}" for cell in found.values())
        parameters = next(iter(found.values()))["parameters"]
        ended = "" if all(cell["epochs"] == first["epochs"] for cell in found.values()) else "   not all epochs"
        lines.append(f"{kind:20} {bits:26} {gain:26} {parameters:10} {seconds:8.0f}   {each}{ended}")
    return "\n".join(lines) + "\n"


def draw_curves(ax: Any, cells: Cells, styles: dict[str, tuple[str, str, str]]) -> None:
    """Draw the mean curve of each kind with a band of one standard deviation over seeds, as the paper's Figure 3."""
    for kind, (label, color, line) in styles.items():
        curves = [cell["curve"] for cell in of_kind(cells, kind).values()]
        if not curves:
            continue
        shortest = min(map(len, curves))
        values = np.array([curve[:shortest] for curve in curves])
        epochs, mean, spread = np.arange(1, shortest + 1), values.mean(0), values.std(0)
        ax.plot(epochs, mean, line, color=color, label=label)
        ax.fill_between(epochs, mean - spread, mean + spread, color=color, alpha=0.2, linewidth=0)
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)


def draw(cells: Cells) -> Figure:
    """Draw the learning curves: additive couplings, affine ones, and depth beside RealNVP."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    for ax, coupling in zip(axes, COUPLINGS, strict=False):
        draw_curves(ax, cells, {f"{key} {coupling}": (key, COLORS[key], "-") for key in PERMUTATIONS})
        ax.set_title(f"{coupling} coupling", fontsize=10)
    blues = ["#9ECAE1", "#4292C6", "#0072B2", "#08306B"]
    depths = sorted([*DEPTHS, N_STEPS])
    styles = {f"{depth} steps" if depth != N_STEPS else BASE: depth for depth in depths}
    drawn = {
        kind: (f"Glow, {depth} steps", color, "-") for (kind, depth), color in zip(styles.items(), blues, strict=True)
    }
    draw_curves(axes[2], cells, {**drawn, "realnvp": ("RealNVP", "#222222", "--")})
    axes[2].set_title("depth, affine, conv1x1", fontsize=10)
    axes[0].set_ylabel("bits/dim of held-out images")
    tops = [cell["curve"][min(1, len(cell["curve"]) - 1)] for cell in cells.values()]
    ends = [cell["curve"][-1] for cell in cells.values()]
    margin = 0.05 * (max(tops) - min(ends)) + 1e-3
    axes[0].set_ylim(min(ends) - margin, max(tops) + margin)  # the first epoch would flatten all others
    return figure


def collect(cells: Cells, folder: Path) -> None:
    """Write all cells, the table and the picture."""
    (folder / "glow.json").write_text(json.dumps(cells, indent=1) + "\n")
    (folder / "glow.txt").write_text(table(cells))
    draw(cells).savefig(folder / "glow.png", dpi=110)
    print(table(cells))


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cell_arguments(parser)
    training_arguments(parser)
    parser.add_argument("--quick", action="store_true", help="half as deep, 640 images, 3 epochs, one seed, 2 minutes")
    parser.add_argument("--set", default="fashion_mnist")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--tests", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--hidden", type=int, default=128)
    args = parser.parse_args()
    if args.quick:
        args.images, args.tests, args.epochs, args.hidden, args.seeds = 640, 128, 3, 16, [0]
        args.batch_size = 32
    names = [f"{kind} {seed}" for kind in kinds() for seed in args.seeds]
    run_cells(args, names, partial(run_cell, args=args), collect)


if __name__ == "__main__":
    main()
