"""How fast each image density trains, scores and samples on each device: images a second, side by side in one run.

    FLOWDETECT_DATA=folder python examples/benchmarks/devices.py [--quick] [--devices cpu cuda] [--seconds 10]
        [--only GlowDensity ...] [--out devices.json]

Every density of the library that models images, at its default settings, on Fashion-MNIST at 28x28. Training is a fit
with `time_limit`, without what is done before the first epoch; scoring is the fastest of three runs; sampling is one
run of 64 images, after one of a single image. Scores of 256 images by the same model on each device are compared.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

import flowdetect
from flowdetect import load, load_images
from flowdetect.density import BaseDensity

SEED, N_SCORED, N_SAMPLED, N_COMPARED = 0, 2048, 64, 256
OF_ROWS = {"EnsembleDensity", "IAFDensity", "MADEDensity", "MAFDensity", "NADEDensity", "NeighborsDensity"}
OF_ROWS |= {"PlanarDensity", "RadialDensity"}


def seconds(function: Callable[[], object]) -> float:
    """Time one call; what it gives is an array, so a GPU has then done what it was told."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def names() -> list[str]:
    """Every density of images that the library exports."""
    return [name for name in flowdetect.__all__ if name.endswith("Density") and name not in OF_ROWS]


def moved(density: BaseDensity, device: str) -> BaseDensity:
    """Give the same model on another device."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "density.safetensors"
        density.set_params(device=device).save(path)
        return cast(BaseDensity, load(path))


def measure(density: BaseDensity, X: np.ndarray, X_test: np.ndarray) -> dict[str, float]:
    """Train, score and sample one density."""
    density.fit(X)
    density.score_samples(X_test[:N_COMPARED])
    scoring = min(seconds(lambda: density.score_samples(X_test)) for _ in range(3))
    density.sample(1, random_state=SEED)
    sampling = seconds(lambda: density.sample(N_SAMPLED, random_state=SEED))
    epochs = density.history_["seconds"]
    return {
        "trained images/s": len(epochs) * len(X) / sum(epochs),
        "scored images/s": len(X_test) / scoring,
        "sampled images/s": N_SAMPLED / sampling,
        "epochs": len(epochs),
        "bits/dim": float(density.bits_per_dim(X_test).mean()),
    }


def main() -> None:
    """Run the benchmark and print a line a density and device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="640 images, two seconds each")
    parser.add_argument("--devices", nargs="+", default=["cpu", "cuda"])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--out", help="a JSON file for the results")
    args = parser.parse_args()
    X, X_test = load_images("fashion_mnist")[0][: args.images], load_images("fashion_mnist", "test")[0][:N_SCORED]
    if args.quick:
        X, X_test, args.seconds = X[:640], X_test[:256], 2.0
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    results: dict[str, Any] = {"card": card, "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(f"card {card}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for name in args.only or names():
        settings = {"time_limit": args.seconds, "early_stopping": False, "random_state": SEED}
        densities = [getattr(flowdetect, name)(device=device, **settings) for device in args.devices]
        results[name] = {
            device: measure(density, X, X_test) for device, density in zip(args.devices, densities, strict=True)
        }
        scores = [moved(densities[0], device).score_samples(X_test[:N_COMPARED]) for device in args.devices]
        results[name]["largest difference of scores, nats"] = float(np.ptp(scores, axis=0).max())
        print(name, json.dumps(results[name]), flush=True)
        if args.out:
            Path(args.out).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
