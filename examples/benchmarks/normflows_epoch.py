"""One epoch of Fashion-MNIST against normflows: the same shape, batch, schedule and data, interleaved in one run.

    FLOWDETECT_DATA=folder python examples/benchmarks/normflows_epoch.py [--quick] [--seeds 3] [--out results.json]

Both are Glows of 2 levels of 8 steps and 128 channels on 28x28 images, batch 64, Adam with a one-cycle schedule up to
1e-3 (a warm-up over 30 % of the steps, then a cosine to nearly 0). A third run gives ours as many epochs as fit into
normflows' wall time.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings

import numpy as np
import torch

from flowdetect import GlowDensity, load_images
from flowdetect.density import _training

BATCH, PEAK, WARM_UP = 64, 1e-3, 0.3


def one_cycle(step: int, total: int) -> float:
    """Compute the learning rate of torch's OneCycleLR with its defaults, at a step."""
    peak_at = WARM_UP * total - 1
    if step <= peak_at:
        return PEAK / 25 + (PEAK - PEAK / 25) * 0.5 * (1 - math.cos(math.pi * step / peak_at))
    progress = (step - peak_at) / (total - 1 - peak_at)
    return PEAK / 25e4 + (PEAK - PEAK / 25e4) * 0.5 * (1 + math.cos(math.pi * progress))


def normflows_glow() -> torch.nn.Module:
    """normflows' multi-scale Glow as in its own example, for 1x28x28."""
    import normflows as nf

    n_levels, n_steps, hidden = 2, 8, 128
    bases, merges, flows = [], [], []
    for level in range(n_levels):
        channels = 2 ** (n_levels + 1 - level)
        blocks = [nf.flows.GlowBlock(channels, hidden, split_mode="channel", scale=True) for _ in range(n_steps)]
        flows.append([*blocks, nf.flows.Squeeze()])
        side = 28 // 2**n_levels if level == 0 else 28 // 2 ** (n_levels - level)
        if level > 0:
            merges.append(nf.flows.Merge())
        shape = (2 ** (n_levels + 1), side, side) if level == 0 else (2 ** (n_levels - level), side, side)
        bases.append(nf.distributions.DiagGaussian(shape))
    return nf.MultiscaleFlow(bases, flows, merges)


def run_normflows(X: np.ndarray, X_test: np.ndarray, seed: int) -> dict[str, float]:
    """Train normflows for one epoch; give seconds and test bits/dim."""
    torch.manual_seed(seed)
    model = normflows_glow()
    optimizer = torch.optim.Adam(model.parameters(), lr=PEAK)
    images = torch.from_numpy(X).float()[:, None]
    order = torch.randperm(len(images))
    total = len(images) // BATCH
    started = time.perf_counter()
    for step in range(total):
        x = images[order[step * BATCH : (step + 1) * BATCH]]
        loss = model.forward_kld((x + torch.rand_like(x)) / 256)
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(step, total)
        optimizer.step()
    seconds = time.perf_counter() - started
    tests = torch.from_numpy(X_test).float()[:, None]
    with torch.no_grad():
        nats = [model.forward_kld((part + torch.rand_like(part)) / 256).item() * len(part) for part in tests.split(500)]
    bits = sum(nats) / len(tests) / (784 * math.log(2)) + 8
    return {"seconds": seconds, "bits_per_dim": bits}


def run_ours(X: np.ndarray, X_test: np.ndarray, seed: int, epochs: int = 1) -> dict[str, float]:
    """Train GlowDensity with the same schedule; give seconds of fit and test bits/dim."""
    density = GlowDensity(
        max_epochs=epochs, batch_size=BATCH, learning_rate=PEAK, early_stopping=False, random_state=seed
    )
    started = time.perf_counter()
    density.fit(X)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "bits_per_dim": float(density.bits_per_dim(X_test).mean())}


def main() -> None:
    """Run the benchmark and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3,200 images, one seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", help="a JSON file for the results")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    # the schedule of both: ours is set from outside, so that the library's own plays no part
    _training.Training._learning_rate = lambda self: one_cycle(self.step, self.max_epochs * self.n_batches)
    X, _ = load_images("fashion_mnist")
    X_test, _ = load_images("fashion_mnist", split="test")
    if args.quick:
        X, X_test, args.seeds = X[:3200], X_test[:500], 1
    results = []
    for seed in range(args.seeds):
        theirs = run_normflows(X, X_test, seed)
        ours = run_ours(X, X_test, seed)
        epochs = max(1, int(theirs["seconds"] / ours["seconds"]))
        longer = run_ours(X, X_test, seed, epochs) if epochs > 1 else ours
        results.append(
            {"seed": seed, "normflows": theirs, "flowdetect": ours, "same_wall_time": {"epochs": epochs, **longer}}
        )
        print(json.dumps(results[-1]), flush=True)
    ratios = [r["flowdetect"]["seconds"] / r["normflows"]["seconds"] for r in results]
    gaps = [r["flowdetect"]["bits_per_dim"] - r["normflows"]["bits_per_dim"] for r in results]
    print(f"time, ours / normflows: {np.mean(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    print(
        f"test bits/dim after one epoch, ours - normflows: {np.mean(gaps):+.3f} ({min(gaps):+.3f} to {max(gaps):+.3f})"
    )
    if args.out:
        with open(args.out, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
