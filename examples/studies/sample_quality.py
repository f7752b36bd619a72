"""Do samples look like digits? A classifier's verdict on samples and test images, and each sample's nearest neighbour.

    FLOWDETECT_DATA=folder python examples/studies/sample_quality.py [--quick] [--data mnist] [--samples 200]
        [--variant pixelcnn++] [--filters 32] [--blocks 1] [--batch-size 16] [--epochs 4] [--time-limit SECONDS]
        [--temperature 1] [--model FILE] [--results DIR] [--models DIR]

Trains a class-conditional PixelCNN, or loads the density of --model (a training that was killed resumes); draws
samples, labels with their training frequencies; trains a small convolutional classifier on the same data set, and
writes quality.json (its test accuracy; the share of samples, and of test images, that it gives a probability above 0.9;
how many of each class) and a picture of samples beside the training image nearest to each, in Euclidean distance of
pixels.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from classifier import probabilities, train_classifier
from matplotlib.figure import Figure
from shared import SEED, loaded_or_fitted
from sklearn.neighbors import NearestNeighbors

from flowdetect import PixelCNNDensity, load, load_images
from flowdetect.density import BaseDensity
from flowdetect.evaluation import plot_image_grid

CONFIDENT, N_SHOWN = 0.9, 12


def density_of(args: argparse.Namespace, X: np.ndarray, y: np.ndarray) -> BaseDensity:
    """Load the density that was asked for, or train one that is told the labels."""
    if args.model is not None:
        return load(args.model)
    density = PixelCNNDensity(
        variant=args.variant,
        n_filters=args.filters,
        n_blocks=args.blocks,
        batch_size=args.batch_size,
        conditional=True,
        max_epochs=args.epochs,
        time_limit=args.time_limit,
        random_state=SEED,
        verbose=1,
    )
    size = "quick" if args.quick else f"{args.variant}-{args.filters}-{args.blocks}-{args.batch_size}-{args.epochs}"
    return loaded_or_fitted(Path(args.models) / f"{args.data}-by-class-{size}.safetensors", density, X, y)


def verdict(p: np.ndarray) -> dict[str, object]:
    """Sum up class probabilities (n, 10) of images."""
    return {
        "images": len(p),
        f"share above {CONFIDENT}": float((p.max(1) > CONFIDENT).mean()),
        "images a class": np.bincount(p.argmax(1), minlength=10).tolist(),
    }


def draw_neighbours(samples: np.ndarray, X: np.ndarray) -> Figure:
    """Draw two lines of samples, each above the training images nearest to them."""
    shown = samples[: 2 * N_SHOWN]
    flat = X.reshape(len(X), -1).astype(np.float32)
    nearest = NearestNeighbors(n_neighbors=1).fit(flat).kneighbors(shown.reshape(len(shown), -1), return_distance=False)
    neighbours = X[nearest[:, 0]]
    lines = [shown[:N_SHOWN], neighbours[:N_SHOWN], shown[N_SHOWN:], neighbours[N_SHOWN:]]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    plot_image_grid(
        np.concatenate(lines), n_columns=N_SHOWN, row_labels=["samples", "nearest"] * 2, ax=figure.add_subplot()
    )
    return figure


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="file of a fitted density")
    parser.add_argument("--quick", action="store_true", help="tiny models, 24 samples, a minute")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--variant", default="pixelcnn++")
    parser.add_argument("--filters", type=int, default=32)
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--time-limit", type=float, help="seconds of training, at most")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the samples")
    parser.add_argument("--results", default="results")
    parser.add_argument("--models", default="models")
    args = parser.parse_args()
    (X, y), (X_test, y_test) = load_images(args.data), load_images(args.data, "test")
    n_epochs = 6
    if args.quick:
        X, y, args.samples, n_epochs = X[:6000], y[:6000], 2 * N_SHOWN, 2
        args.filters, args.epochs = 8, 1
    density = density_of(args, X, y)
    samples = density.sample(args.samples, temperature=args.temperature, random_state=SEED)
    classifier = train_classifier(X, y, n_epochs, max_shift=2)
    p = probabilities(classifier, X_test)
    results = {
        "settings": {name: value for name, value in density.get_params().items() if name != "checkpoint"},
        "history": density.history_,
        "temperature": args.temperature,
        "classifier's test accuracy": float((p.argmax(1) == y_test).mean()),
        "samples": verdict(probabilities(classifier, samples)),
        "test images": verdict(p),
    }
    folder = Path(args.results)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "quality.json").write_text(json.dumps(results, indent=1) + "\n")
    draw_neighbours(samples, X).savefig(folder / "neighbours.png", dpi=110)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
