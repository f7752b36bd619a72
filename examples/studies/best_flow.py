"""How far does a flow get on Fashion-MNIST in half an hour of two cores? One long training, its curve and its samples.

    FLOWDETECT_DATA=folder OMP_NUM_THREADS=1 python examples/studies/best_flow.py [--quick] [--density tarflow]
        [--dequantization variational] [--in-set fashion_mnist] [--out-set mnist] [--time-limit 3600]
        [--set NAME=VALUE ...] [--results DIR] [--models DIR]

An hour of one thread stands for half an hour of two. Writes best_flow.json (test bits/dim, a bound by one draw of the
noise; the other set; the curve; all settings) and a picture of samples. A model that stands in --models already is
loaded instead of trained; a training that was killed resumes.
"""

from __future__ import annotations

import ast
import json
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from shared import SEED, interval, loaded_or_fitted, study_parser

from flowdetect import FlowPPDensity, GlowDensity, RealNVPDensity, TarFlowDensity, load_images
from flowdetect.evaluation import auroc, plot_image_grid

DENSITIES = {"glow": GlowDensity, "realnvp": RealNVPDensity, "flowpp": FlowPPDensity, "tarflow": TarFlowDensity}
N_SHOWN = 12
TEMPERATURES = (1.0, 0.8)


def main() -> None:
    """Run the study."""
    parser = study_parser(__doc__, quick="640 images, 20 seconds")
    parser.add_argument("--density", default="tarflow", choices=DENSITIES)
    parser.add_argument("--dequantization", default="variational", choices=["uniform", "variational"])
    parser.add_argument("--time-limit", type=float, default=3600.0)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="parameters of the density")
    args = parser.parse_args()
    X, X_test = load_images(args.in_set)[0], load_images(args.in_set, "test")[0]
    X_out = load_images(args.out_set, "test")[0]
    if args.quick:
        X, X_test, X_out, args.time_limit = X[:640], X_test[:100], X_out[:100], 20.0
    given = {name: _value(text) for name, text in (pair.split("=") for pair in args.set)}
    density = DENSITIES[args.density](
        dequantization=args.dequantization,
        time_limit=args.time_limit,
        max_epochs=10_000,
        n_iter_no_change=10_000,
        random_state=SEED,
        verbose=1,
        **given,
    )
    started = time.perf_counter()
    size = "quick" if args.quick else "-".join([f"{args.time_limit:g}s", *args.set])
    name = f"{args.in_set}-{args.density}-{args.dequantization}-{size}.safetensors"
    density = loaded_or_fitted(Path(args.models) / name, density, X)
    trained = time.perf_counter() - started
    bits, bits_out = density.bits_per_dim(X_test), density.bits_per_dim(X_out)
    found = {
        "settings": {name: str(value) for name, value in density.get_params().items()},
        "weights": sum(parameter.numel() for parameter in density.model_.parameters()),
        "seconds": trained,
        "history": density.history_,
        "bits/dim": interval(bits),
        "bits/dim out": interval(bits_out),
        "AUROC of the likelihood": auroc(-bits, -bits_out),
    }
    folder = Path(args.results)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "best_flow.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({name: found[name] for name in found if name.startswith("bits")}))
    draw(density, X_test, folder / "best_flow_samples.png")


def _value(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def draw(density: GlowDensity, X: np.ndarray, path: Path) -> None:
    """Draw test images, and samples at two temperatures."""
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    rows = [X[:N_SHOWN], *(density.sample(N_SHOWN, temperature=t, random_state=SEED) for t in TEMPERATURES)]
    labels = ["test images", *(f"samples, T = {t:g}" for t in TEMPERATURES)]
    plot_image_grid(np.concatenate(rows), n_columns=N_SHOWN, row_labels=labels, ax=figure.add_subplot())
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
