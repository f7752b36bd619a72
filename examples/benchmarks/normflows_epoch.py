"""One epoch of Fashion-MNIST against normflows: the same shape, batch, schedule and data, interleaved step by step.

    FLOWDETECT_DATA=folder python examples/benchmarks/normflows_epoch.py [--quick] [--seeds 3] [--device auto]
        [--out results.json]

Both are Glows of 2 levels of 8 steps and 128 channels on 28x28 images, batch 64, Adam with a one-cycle schedule up to
1e-3 (a warm-up over 30 % of the steps, then a cosine to nearly 0). Each package runs as its defaults have it otherwise:
ours maps the grey levels by the training data's distribution first and computes the networks in bfloat16 where the
processor can.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings

import numpy as np
import torch
from peers import Size, normflows_glow

from flowdetect import GlowDensity, load_images
from flowdetect.density import _training
from flowdetect.density._devices import resolve_device

BATCH, PEAK, WARM_UP = 64, 1e-3, 0.3
BLOCK = 10  # steps of the one, then of the other, so that whatever else the machine does falls on both


def one_cycle(step: int, total: int) -> float:
    """Compute the learning rate of torch's OneCycleLR with its defaults, at a step."""
    peak_at = WARM_UP * total - 1
    if step <= peak_at:
        return PEAK / 25 + (PEAK - PEAK / 25) * 0.5 * (1 - math.cos(math.pi * step / peak_at))
    progress = (step - peak_at) / (total - 1 - peak_at)
    return PEAK / 25e4 + (PEAK - PEAK / 25e4) * 0.5 * (1 + math.cos(math.pi * progress))


def finish(device: str) -> None:
    """Wait for what a GPU was told to do, so that its time is counted."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


class Rival:
    """The training of normflows, some steps at a time."""

    def __init__(self, X: np.ndarray, seed: int, device: str) -> None:
        torch.manual_seed(seed)
        self.device = device
        self.model = normflows_glow(Size((1, 28, 28), 2, 8, 128)).model.to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=PEAK)
        self.images = torch.from_numpy(X).float()[:, None].to(device)
        self.order = torch.randperm(len(X))
        self.step, self.total, self.seconds = 0, len(X) // BATCH, 0.0

    def advance(self, n_steps: int) -> None:
        """Take the next steps, and count their time."""
        finish(self.device)
        started = time.perf_counter()
        for _ in range(min(n_steps, self.total - self.step)):
            x = self.images[self.order[self.step * BATCH : (self.step + 1) * BATCH]]
            loss = self.model.forward_kld((x + torch.rand_like(x)) / 256)
            self.optimizer.zero_grad()
            loss.backward()
            for group in self.optimizer.param_groups:
                group["lr"] = one_cycle(self.step, self.total)
            self.optimizer.step()
            self.step += 1
        finish(self.device)
        self.seconds += time.perf_counter() - started

    @torch.no_grad()
    def bits_per_dim(self, X: np.ndarray) -> float:
        """Mean over the images of X."""
        parts = torch.from_numpy(X).float()[:, None].to(self.device).split(500)
        nats = [self.model.forward_kld((part + torch.rand_like(part)) / 256).item() * len(part) for part in parts]
        return sum(nats) / len(X) / (784 * math.log(2)) + 8


def run_pair(X: np.ndarray, X_test: np.ndarray, seed: int, device: str) -> dict[str, dict[str, float]]:
    """Train both for one epoch, a block of steps of the one after a block of the other; give seconds and bits/dim."""
    rival = Rival(X, seed, device)
    step = _training.Training._step

    def step_and_let_the_rival_catch_up(self: _training.Training, *args: object) -> BaseException | None:
        failure = step(self, *args)
        if self.step % BLOCK == 0:
            rival.advance(BLOCK)
        return failure

    _training.Training._step = step_and_let_the_rival_catch_up
    density = GlowDensity(
        max_epochs=1, batch_size=BATCH, learning_rate=PEAK, early_stopping=False, random_state=seed, device=device
    )
    started = time.perf_counter()
    try:
        density.fit(X)
    finally:
        _training.Training._step = step
    seconds = time.perf_counter() - started - rival.seconds
    rival.advance(rival.total)
    return {
        "normflows": {"seconds": rival.seconds, "bits_per_dim": rival.bits_per_dim(X_test)},
        "flowdetect": {"seconds": seconds, "bits_per_dim": float(density.bits_per_dim(X_test).mean())},
    }


def main() -> None:
    """Run the benchmark and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3,200 images, one seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", help="a JSON file for the results")
    args = parser.parse_args()
    device = resolve_device(args.device)
    warnings.simplefilter("ignore")
    # the schedule of both: ours is set from outside, so that the library's own plays no part
    _training.Training._learning_rate = lambda self: one_cycle(self.step, self.n_steps)
    X, _ = load_images("fashion_mnist")
    X_test, _ = load_images("fashion_mnist", split="test")
    if args.quick:
        X, X_test, args.seeds = X[:3200], X_test[:500], 1
    name = torch.cuda.get_device_name() if device.startswith("cuda") else f"{torch.get_num_threads()} CPU threads"
    print(f"on {name}")
    results = []
    for seed in range(args.seeds):
        results.append({"seed": seed, **run_pair(X, X_test, seed, device)})
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
