"""What a PixelCNN says of images, pixel by pixel: bits/dim, the paradox, the pixels behind it, samples, completions.

    FLOWDETECT_DATA=folder python examples/studies/pixelcnn.py [--quick] [--in-set fashion_mnist] [--out-set mnist]
        [--epochs 5] [--time-limit SECONDS] [--variant gated] [--likelihood logistic_mixture] [--filters 32]
        [--blocks 5] [--mixtures 10] [--batch-size 16] [--learning-rate 3e-3]
        [--results DIR] [--models DIR]

Trains `PixelCNNDensity` and writes results.json, a picture of the bits of each pixel on images of both sets, and one of
samples and completions. With a time limit, --epochs is the most. A model that stands in --models already is loaded
instead of trained; a training that was killed resumes.
"""

from __future__ import annotations

import argparse
import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from shared import SEED, interval, loaded_or_fitted, study_parser

from flowdetect import PixelCNNDensity, load_images
from flowdetect.evaluation import auroc, auroc_interval, plot_image_grid, plot_pixel_likelihood

N_SHOWN = 10


def fitted(args: argparse.Namespace, X: np.ndarray) -> PixelCNNDensity:
    """Load the model of these settings, or train and save it."""
    size = f"{args.filters}-{args.blocks}-{args.epochs}-{args.batch_size}-{args.learning_rate:g}"
    if args.time_limit is not None:
        size = f"{size}-{args.time_limit:g}s"
    size = "quick" if args.quick else size
    name = f"{args.in_set}-{args.variant}-{args.likelihood}-{args.mixtures}-{size}.safetensors"
    density = PixelCNNDensity(
        variant=args.variant,
        likelihood=args.likelihood,
        n_filters=args.filters,
        n_blocks=args.blocks,
        n_mixtures=args.mixtures,
        max_epochs=args.epochs,
        time_limit=args.time_limit,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        random_state=SEED,
        verbose=1,
    )
    return loaded_or_fitted(Path(args.models) / name, density, X)


def gaps(density: PixelCNNDensity, X: np.ndarray, bits: np.ndarray) -> dict[str, object]:
    """Score images as if all had all grey levels, and count those that lose more than 10 nats by it."""
    plain = deepcopy(density)
    with torch.no_grad():
        plain.model_.head.raw_prior[:-1] = -10.0  # times SPEED: no share is left to the stretches
    bits_plain = plain.bits_per_dim(X)
    nats = (bits_plain - bits) * np.log(2) * X[0].size
    return {"bits/dim, all grey levels": interval(bits_plain), "images with gaps": interval((nats > 10).astype(float))}


def draw_pixels(density: PixelCNNDensity, X_in: np.ndarray, X_out: np.ndarray) -> Figure:
    """Draw the bits of each pixel, of five images of either set."""
    images = np.concatenate([X_in[: N_SHOWN // 2], X_out[: N_SHOWN // 2]])
    figure = Figure(figsize=(9, 2.2), layout="constrained")
    plot_pixel_likelihood(images, density.likelihood_terms(images).log_px, ax=figure.add_subplot())
    return figure


def draw_samples(density: PixelCNNDensity, X: np.ndarray) -> Figure:
    """Draw samples, test images and completions of their upper halves."""
    images = X[:N_SHOWN]
    rows = {
        "samples": density.sample(N_SHOWN, random_state=SEED),
        "test images": images,
        "completed": density.complete(images, known=images.shape[1] // 2, random_state=SEED),
    }
    figure = Figure(figsize=(9, 3), layout="constrained")
    plot_image_grid(
        np.concatenate(list(rows.values())), n_columns=N_SHOWN, row_labels=list(rows), ax=figure.add_subplot()
    )
    return figure


def main() -> None:
    """Run the study."""
    parser = study_parser(__doc__, quick="a tiny model on 640 images, a minute")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--time-limit", type=float)
    parser.add_argument("--variant", default="gated")
    parser.add_argument("--likelihood", default="logistic_mixture")
    parser.add_argument("--filters", type=int, default=32)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--mixtures", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    args = parser.parse_args()
    X, X_test = load_images(args.in_set)[0], load_images(args.in_set, "test")[0]
    X_out = load_images(args.out_set, "test")[0]
    if args.quick:
        X, X_test, X_out = X[:640], X_test[:128], X_out[:128]
        args.epochs, args.filters, args.blocks = 1, 8, 1
    density = fitted(args, X)
    bits, bits_out = density.bits_per_dim(X_test), density.bits_per_dim(X_out)
    results = {
        "settings": {name: value for name, value in density.get_params().items() if not name.startswith("_")},
        "history": density.history_,
        "bits/dim": interval(bits),
        "bits/dim out": interval(bits_out),
        "AUROC of the likelihood": [auroc(-bits, -bits_out), *auroc_interval(-bits, -bits_out)],
    }
    if density.likelihood == "stretched_mixture":
        results |= gaps(density, X_test, bits)
    folder = Path(args.results)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    draw_pixels(density, X_test, X_out).savefig(folder / "pixels.png", dpi=110)
    draw_samples(density, X_test).savefig(folder / "samples.png", dpi=110)
    print(json.dumps({name: results[name] for name in list(results)[2:]}, indent=1))


if __name__ == "__main__":
    main()
