"""The paradox and its cure, on real images: a Glow on Fashion-MNIST (or MNIST), its likelihood, SITs and complexity.

    FLOWDETECT_DATA=folder python examples/studies/fashion_mnist.py [--quick] [--in-set fashion_mnist] [--out-set mnist]
        [--epochs N] [--results DIR] [--models DIR]

Trains `GlowDensity` with its default settings (--epochs for a longer training), and writes results.json, a picture of
the story, one of the report and one of samples. A model that stands in --models already is loaded instead of trained.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from shared import SEED, interval, loaded_or_fitted, study_parser
from sklearn.frozen import FrozenEstimator

from flowdetect import (
    AddNoise,
    ComplexityDetector,
    GlowDensity,
    LikelihoodDetector,
    Translate,
    ZeroLatents,
    load_images,
    ood_report,
)
from flowdetect.evaluation import OODReport, auroc, plot_image_grid, plot_score_histograms


def fitted(args: argparse.Namespace, X: np.ndarray) -> GlowDensity:
    """Load the model of these settings, or train and save it."""
    name = f"{args.in_set}-{'quick' if args.quick else args.epochs or 'default'}.safetensors"
    settings = {"n_steps": 2, "hidden_channels": 32, "max_epochs": 1} if args.quick else {}
    if args.epochs:
        settings["max_epochs"] = args.epochs
    return loaded_or_fitted(Path(args.models) / name, GlowDensity(random_state=SEED, verbose=1, **settings), X)


def probes(density: GlowDensity, X: np.ndarray) -> dict[str, object]:
    """Bits/dim of the test images under SITs, and how many of them each moves in which direction."""
    clean = density.bits_per_dim(X)
    centre = density.score_samples(X, dequantize=False)
    frozen = FrozenEstimator(density)
    found: dict[str, object] = {"clean bits/dim": interval(clean)}
    for name, sit in {
        "1 pixel left": Translate(dx=-1),
        "2 pixels left": Translate(dx=-2),
        "noise 0.001": AddNoise(scale=0.001, random_state=SEED),
    }.items():
        moved = density.bits_per_dim(sit.fit_transform(X))
        found[name] = {"bits/dim": interval(moved), "share raised": float((moved > clean).mean())}
    for n_factors in range(1, len(density.latent_slices_) + 1):
        zeroed = ZeroLatents(frozen, n_factors=n_factors).fit(X).transform(X).reshape(len(X), -1)
        outside = (zeroed < 0) | (zeroed > density.n_bins_ - 1)
        record: dict[str, object] = {
            "finite": bool(np.isfinite(zeroed).all()),
            "share of values outside the data's range": float(outside.mean()),
            "share of images with one": float(outside.any(1).mean()),
        }
        reach = (zeroed >= -density.n_bins_).all(1) & (zeroed <= 2 * density.n_bins_ - 1).all(1)
        record["images beyond reach of scoring"] = int((~reach).sum())
        score = density.score_samples(zeroed[reach], dequantize=False)
        record["share lowered (dequantize=False)"] = float((score > centre[reach]).sum() / len(X))
        found[f"zero latents <= {n_factors}"] = record
    return found


def inversion(density: GlowDensity, sets: dict[str, np.ndarray]) -> dict[str, float]:
    """Find the largest error of inverse_transform(transform(X)), in grey levels."""
    return {
        name: float(np.abs(density.inverse_transform(density.transform(X)) - X.reshape(len(X), -1)).max())
        for name, X in sets.items()
    }


def draw_story(report: OODReport, in_set: str, out_set: str) -> Figure:
    """Draw both scores' histograms side by side, with their AUROC."""
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    axes = figure.subplots(1, 2)
    titles = {"likelihood": "log-likelihood, nats", "complexity": "corrected for complexity, bits"}
    for ax, (scorer, title) in zip(axes, titles.items(), strict=True):
        scores = {name: report.scores[scorer][name] for name in (in_set, out_set)}
        plot_score_histograms(scores, ax=ax)
        ax.set_title(f"{title}: AUROC {auroc(scores[in_set], scores[out_set]):.3f}", fontsize=11)
    return figure


def main() -> None:
    """Run the study."""
    parser = study_parser(__doc__, quick="a tiny model on 2,000 images, a minute")
    parser.add_argument("--epochs", type=int)
    args = parser.parse_args()
    X, _ = load_images(args.in_set)
    X_test, _ = load_images(args.in_set, split="test")
    X_out, _ = load_images(args.out_set, split="test")
    if args.quick:
        X, X_test, X_out = X[:2000], X_test[:500], X_out[:500]
    density = fitted(args, X)
    n_calibration = len(X) // 20
    detectors = {
        "likelihood": LikelihoodDetector(FrozenEstimator(density)).fit(X[-n_calibration:]),
        "complexity": ComplexityDetector(FrozenEstimator(density)).fit(X[-n_calibration:]),
    }
    report = ood_report(detectors, X_test, {args.out_set: X_out}, name=args.in_set, random_state=SEED)
    print(report)
    noise = np.random.default_rng(SEED).integers(0, 256, (1000, *X.shape[1:])).astype(np.uint8)
    results = {
        "settings": {name: value for name, value in density.get_params().items() if not name.startswith("_")},
        "history": density.history_,
        "bits/dim out": interval(density.bits_per_dim(X_out)),
        "report": report.to_frame().to_dict("records"),
        "probes": probes(density, X_test),
        "inversion error in grey levels": inversion(density, {"test": X_test, "out": X_out, "uniform noise": noise}),
    }
    folder = Path(args.results)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1))
    print(
        json.dumps(
            {name: results[name] for name in ("bits/dim out", "probes", "inversion error in grey levels")}, indent=1
        )
    )
    report.plot().savefig(folder / "report.png", dpi=110)
    draw_story(report, args.in_set, args.out_set).savefig(folder / "story.png", dpi=110)
    samples = density.sample(16, random_state=SEED, temperature=0.7)
    plot_image_grid(np.concatenate([X_test[:16], samples]), n_columns=16).figure.savefig(
        folder / "samples.png", dpi=110
    )


if __name__ == "__main__":
    main()
