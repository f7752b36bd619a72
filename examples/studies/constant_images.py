"""Images of one grey level under a flow that was trained on clothes or digits: black ones, white ones, all between.

    FLOWDETECT_DATA=folder python examples/studies/constant_images.py [--quick] [--sets fashion_mnist mnist]
        [--results DIR] [--models DIR]

"Do Deep Generative Models Know What They Don't Know?" (Nalisnick et al., 2019), https://arxiv.org/abs/1810.09136, says
in its Appendix, Figure 9, that constant images are the likeliest of all; its constant images are black. This study asks
for every fifth grey level from black (0) to white (255), and for levels drawn at random (`constant_images`), in
bits/dim, beside the test images and those of the other set.

The flow is that of fashion_mnist.py: `GlowDensity` with its default settings. A model that stands in --models is loaded
instead of trained. Writes DIR/constant_images.json and DIR/constant_images.png.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from fashion_mnist import fitted
from matplotlib.figure import Figure
from shared import interval

from flowdetect import constant_images, load_images

OTHER = {"fashion_mnist": "mnist", "mnist": "fashion_mnist"}
TITLES = {"fashion_mnist": "Fashion-MNIST", "mnist": "MNIST"}
LEVELS = np.arange(0, 256, 5)


def study(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Bits/dim of test images, of the other set's and of constant images under the flow of one set."""
    X = load_images(name)[0][: 2000 if args.quick else None]
    args.in_set, args.epochs = name, None
    flow = fitted(args, X)
    n_tests = 100 if args.quick else 2000
    tests = {each: load_images(each, "test")[0][:n_tests] for each in (name, OTHER[name])}
    shades = np.broadcast_to(LEVELS[:, None, None], (len(LEVELS), *X.shape[1:])).astype(np.uint8)
    return {
        "test images": {each: interval(flow.bits_per_dim(images)) for each, images in tests.items()},
        "constant, random levels": interval(flow.bits_per_dim(constant_images(200, X.shape[1:]))),
        "constant, by level": dict(zip(LEVELS.tolist(), flow.bits_per_dim(shades).round(4).tolist(), strict=True)),
        "share of training pixels that are black": float((X == 0).mean()),
    }


def drawn(found: dict[str, Any]) -> Figure:
    """Draw bits/dim by grey level, a panel for each training set."""
    figure = Figure(figsize=(4.4 * len(found), 3), layout="constrained")
    for ax, (name, cells) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        levels = {int(level): bits for level, bits in cells["constant, by level"].items()}
        ax.plot(list(levels), list(levels.values()), "o-", markersize=3, color="C0", label="constant images")
        for color, (each, (mean, *_)) in zip(("C1", "C2"), cells["test images"].items(), strict=True):
            ax.axhline(mean, color=color, linewidth=1.5, label=f"{TITLES[each]}, test")
        ax.set(xlabel="grey level, 0: black", ylabel="bits/dim", title=f"trained on {TITLES[name]}", ylim=(0, None))
        ax.legend(frameon=False, fontsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny models on 2,000 images, 100 test images")
    parser.add_argument("--sets", nargs="+", default=["fashion_mnist"], choices=list(OTHER))
    parser.add_argument("--results", default="results")
    parser.add_argument("--models", default="models")
    args = parser.parse_args()
    found = {name: study(args, name) for name in args.sets}
    folder = Path(args.results)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "constant_images.json").write_text(json.dumps(found, indent=1) + "\n")
    drawn(found).savefig(folder / "constant_images.png", dpi=110)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
