"""PixelRNN beside PixelCNN at equal numbers of parameters, and PixelVAE beside VAE, on 8x8 digits.

    python examples/studies/pixelrnn.py [--quick] [--results docs/studies] [--models NAME ...]

Trains each density with early stopping on the same rows, from different seeds, and writes pixelrnn.json, pixelrnn.txt
and a picture of samples, pixelrnn_samples.png. Each width is the one whose number of parameters, without those that a
mask sets to zero, is nearest to --parameters. Intervals are of the mean over seeds, by Student's t; those of
differences are of the differences of models of the same seed. What stands in pixelrnn.json already, of the same
settings, is not trained again, so that a study that was killed resumes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from shared import t_interval

from flowdetect import PixelCNNDensity, PixelRNNDensity, PixelVAEDensity, VAEDensity, load_images
from flowdetect.density import BaseDensity
from flowdetect.evaluation import plot_image_grid

N_TEST, N_SHOWN, N_BLOCKS, N_DRAWS = 397, 16, 2, 64
BY_PIXEL = {  # name -> class, variant and number of blocks
    "PixelCNN": (PixelCNNDensity, "pixelcnn", N_BLOCKS),
    "gated PixelCNN": (PixelCNNDensity, "gated", N_BLOCKS),
    "Row LSTM": (PixelRNNDensity, "row_lstm", N_BLOCKS),
    "Diagonal BiLSTM": (PixelRNNDensity, "diagonal_bilstm", N_BLOCKS),
    "PixelCNN, three times as deep": (PixelCNNDensity, "pixelcnn", 3 * N_BLOCKS),
}


def n_parameters(density: BaseDensity) -> int:
    """Count a fitted density's parameters, without weights that a mask sets to zero."""
    found = 0
    for module in density.model_.modules():
        mask = getattr(module, "mask", None)
        for name, parameter in module.named_parameters(recurse=False):
            share = float(mask.mean()) if mask is not None and name == "weight" else 1.0
            found += round(share * parameter.numel())
    return found


def widest(kind: type[BaseDensity], settings: dict[str, Any], X: np.ndarray, target: int) -> int:
    """Find the number of filters whose number of parameters is nearest to the target."""

    def parameters(n_filters: int) -> int:
        return n_parameters(kind(n_filters=n_filters, max_epochs=1, n_bins=17, random_state=0, **settings).fit(X[:16]))

    low, high = 4, 128
    while high - low > 1:  # bisection
        middle = (low + high) // 2
        low, high = (middle, high) if parameters(middle) < target else (low, middle)
    return min(low, high, key=lambda each: abs(parameters(each) - target))


def with_interval(values: list[float]) -> dict[str, Any]:
    """Mean over seeds with a 95 % interval by Student's t."""
    mean, *ends = t_interval(values)
    low, high = ends or (None, None)
    return {"mean": mean, "low": low, "high": high}


def shown(found: dict[str, Any], style: str) -> str:
    """Write an interval, which one seed has not."""
    return "one seed" if found["low"] is None else f"{found['low']:{style}} to {found['high']:{style}}"


def measured(density: BaseDensity, X: np.ndarray, X_test: np.ndarray) -> dict[str, Any]:
    """Train one density and time it, in seconds of one core."""
    started = time.process_time()
    density.fit(X)
    trained = time.process_time()
    bits = float(density.bits_per_dim(X_test).mean())
    scored = time.process_time()
    density.sample(N_SHOWN, random_state=0)
    sampled = time.process_time()
    found = {
        "test bits/dim": bits,
        "training bits/dim of the best epoch": float(density.bits_per_dim(X[:N_TEST]).mean()),
        "epochs": density.n_iter_,
        "seconds of training": trained - started,
        "ms to score an image": 1e3 * (scored - trained) / len(X_test),
        "ms to sample an image": 1e3 * (sampled - scored) / N_SHOWN,
        "parameters": n_parameters(density),
    }
    if density.score_is_bound_:
        found["KL, nats"] = float(-density.likelihood_terms(X_test).minus_kl.mean())
    return found


def densities(args: argparse.Namespace, X: np.ndarray) -> Iterator[tuple[str, type[BaseDensity], dict[str, Any]]]:
    """Name, class and settings of one density after the other."""
    for name, (kind, variant, n_blocks) in BY_PIXEL.items():
        if args.models and name not in args.models:
            continue
        settings = {"variant": variant, "n_blocks": n_blocks, "dropout": args.dropout, "batch_size": 16}
        yield name, kind, {**settings, "n_filters": widest(kind, settings, X, args.parameters)}
    latents = {"latent_dim": 16, "n_draws": N_DRAWS, "batch_size": 32}
    for name, kind, more in (
        ("VAE", VAEDensity, {}),
        ("PixelVAE", PixelVAEDensity, {}),
        ("PixelVAE, 0.5 free bits", PixelVAEDensity, {"free_bits": 0.5}),
    ):
        if not args.models or name in args.models:
            yield name, kind, {**latents, **more}


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, two epochs, fewer parameters: a minute")
    parser.add_argument("--parameters", type=int, default=24_000)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", nargs="*", help="names of the densities; all by default")
    parser.add_argument("--results", default="results")
    args = parser.parse_args()
    if args.quick:
        args.parameters, args.epochs, args.seeds = 8_000, 2, 1
    torch.set_num_threads(1)
    X = load_images("digits")[0]
    X = X[np.random.default_rng(0).permutation(len(X))]
    X, X_test = X[N_TEST:], X[:N_TEST]
    folder = Path(args.results)
    folder.mkdir(parents=True, exist_ok=True)
    runs = earlier_runs(folder / "pixelrnn.json", args)
    shared = {"n_bins": 17, "max_epochs": args.epochs, "early_stopping": True, "n_iter_no_change": 6}
    samples = {"test images": X_test[:N_SHOWN]}
    for name, kind, settings in densities(args, X):
        fits = runs.setdefault(name, {"settings": settings, "seeds": []})["seeds"]
        for seed in range(len(fits), args.seeds):
            density = kind(**settings, **shared, random_state=seed)
            fits.append(measured(density, X, X_test))
            print(name, seed, settings, fits[-1], flush=True)
            samples[name] = density.sample(N_SHOWN, random_state=0)
            write(folder, runs, args)
    if len(samples) > 1:
        figure = Figure(figsize=(9, 0.62 * len(samples)), layout="constrained")
        grid = np.concatenate(list(samples.values())) * 15  # of 0..16, so that 16 is nearly white
        plot_image_grid(grid, n_columns=N_SHOWN, row_labels=list(samples), ax=figure.add_subplot())
        figure.savefig(folder / "pixelrnn_samples.png", dpi=100)


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """Give what a result depends on."""
    return {"parameters": args.parameters, "dropout": args.dropout, "epochs": args.epochs}


def earlier_runs(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Read the runs of these settings that stand in a file."""
    found = json.loads(path.read_text()) if path.exists() else {}
    runs: dict[str, Any] = found["runs"] if found.get("settings") == settings_of(args) else {}
    return runs


def write(folder: Path, runs: dict[str, Any], args: argparse.Namespace) -> None:
    """Write what there is so far."""
    lines = [
        f"8x8 digits, {N_TEST} test images, at most {args.epochs} epochs, early stopping",
        f"{'':30}{'seeds':>6}{'bits/dim':>9} {'95 % interval':>17} {'parameters':>11} {'epochs':>7} {'train s':>8} "
        f"{'score ms':>9} {'sample ms':>10} {'KL nats':>8}",
    ]
    for name, run in runs.items():
        fits = run["seeds"]
        mean = {key: float(np.mean([fit[key] for fit in fits])) for key in fits[0]}
        run["test bits/dim"] = bits = with_interval([fit["test bits/dim"] for fit in fits])
        lines.append(
            f"{name:30}{len(fits):6}{bits['mean']:9.3f} {shown(bits, '.3f'):>17} "
            f"{mean['parameters']:13.0f} {mean['epochs']:7.1f} {mean['seconds of training']:8.1f} "
            f"{mean['ms to score an image']:9.2f} {mean['ms to sample an image']:10.2f} "
            f"{mean.get('KL, nats', float('nan')):8.2f}"
        )
    found = {}
    for other in ("Row LSTM", "Diagonal BiLSTM"):
        for name in ("PixelCNN", "gated PixelCNN"):
            if other in runs and name in runs:
                pairs = zip(runs[other]["seeds"], runs[name]["seeds"], strict=False)
                difference = with_interval([a["test bits/dim"] - b["test bits/dim"] for a, b in pairs])
                found[f"{other} less {name}"] = difference
                lines.append(
                    f"{other} less {name}: {difference['mean']:+.3f} bits/dim, from {shown(difference, '+.3f')}"
                )
    results = {"settings": settings_of(args), "runs": runs, "differences, bits/dim": found}
    (folder / "pixelrnn.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "pixelrnn.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
