"""Cached against naive sampling of a PixelCNN++, and how fast it trains and scores.

    FLOWDETECT_DATA=folder python examples/benchmarks/pixelcnn_sampling.py [--quick]

28x28 images, 100 filters, 2 blocks a stage, 3 mixtures. Naive sampling passes the whole batch of images through the
network once for every pixel and takes the same uniform draws. The model is trained for a few steps only: speed does not
depend on its weights. Rates of training and scoring are also given as shares of the machine's limit: the rate at which
it multiplies matrices of 4,096 x 1,200 and 1,200 x 200, those of the largest convolutions, in the same number format.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from flowdetect import PixelCNNDensity, load_images
from flowdetect.density.autoregressive import AutoregressiveModel

SEED, BATCH, N_SHOWN = 0, 64, 8


def seconds(function: Callable[[], object]) -> float:
    """Time one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def matmul_rate(dtype: torch.dtype) -> float:
    """Floating-point operations a second of the fastest of 50 matrix products."""
    a, b = torch.randn(4096, 1200, dtype=dtype), torch.randn(1200, 200, dtype=dtype)
    return 2 * 4096 * 1200 * 200 / min(seconds(lambda: a @ b) for _ in range(50))


@torch.no_grad()
def operations(model: AutoregressiveModel) -> int:
    """Floating-point operations of scoring one image."""
    with FlopCounterMode(display=False) as counter:
        model.log_prob(torch.zeros(1, *model.event_shape))
    return int(counter.get_total_flops())


@torch.no_grad()
def sample_cached(model: AutoregressiveModel, n: int) -> np.ndarray:
    """Draw n images as the density does."""
    return model.sample(n, generator=torch.Generator().manual_seed(SEED)).numpy()


@torch.no_grad()
def sample_naively(model: AutoregressiveModel, n: int) -> tuple[np.ndarray, float]:
    """Draw n images with one pass of the network a pixel; give them and the mean seconds of a pass."""
    generator = torch.Generator().manual_seed(SEED)
    _, height, width = model.event_shape
    y = ((torch.zeros(n, *model.event_shape) - model.loc) / model.scale).clone()
    u = torch.rand(n, model.head.n_uniforms, height, width, generator=generator, dtype=torch.float64).to(y)
    passing = 0.0
    for i in range(height):
        for j in range(width):
            started = time.perf_counter()
            h = model.net(y)
            passing += time.perf_counter() - started
            at = (slice(None), slice(None), slice(i, i + 1), slice(j, j + 1))
            y[at] = model.head.draw(h[at], u[at], 1.0)
    return (y * model.scale + model.loc).round().numpy(), passing / (height * width)


@torch.no_grad()
def parameter_error(model: AutoregressiveModel, x: torch.Tensor) -> float:
    """Largest difference of the mixtures' parameters along images, computed pixel by pixel and computed whole."""
    y = (x - model.loc) / model.scale
    whole, error = model.head.out(model.net(y)), 0.0
    for i, j, h in model.net.in_order(y):
        error = max(error, float((model.head.out(h)[..., 0, 0] - whole[:, :, i, j]).abs().max()))
    return error


def print_shares(model: AutoregressiveModel, n: int) -> None:
    """Print which operations cached sampling spends its time on."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        sample_cached(model, n)
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    shares = ", ".join(f"{event.key} {event.self_cpu_time_total / total:.0%}" for event in events[:N_SHOWN])
    print(f"cached sampling, {n} at once, shares of the time: {shares}")


def main() -> None:
    """Run the benchmark and print a line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="16 filters, 1 block, 8x8 corners of the images")
    args = parser.parse_args()
    X = load_images("fashion_mnist")[0][: 4 * BATCH]
    size = {"n_filters": 100, "n_blocks": 2, "n_mixtures": 3}
    if args.quick:
        X, size = X[:, 10:18, 10:18], {"n_filters": 16, "n_blocks": 1, "n_mixtures": 3}
    density = PixelCNNDensity(
        variant="pixelcnn++", batch_size=BATCH, max_epochs=4, early_stopping=False, random_state=SEED, **size
    ).fit(X)
    model, rates = density.model_, {}
    training = len(X) / float(np.median(density.history_["seconds"]))
    scoring = len(X) / float(np.median([seconds(lambda: density.score_samples(X)) for _ in range(4)]))
    trained_in = torch.bfloat16 if torch.cpu.get_capabilities().get("avx512_bf16") else torch.float32
    for name, rate, dtype, passes in (("training", training, trained_in, 3), ("scoring", scoring, torch.float32, 1)):
        share = passes * rate * operations(model) / matmul_rate(dtype)
        print(f"{name}: {rate:.1f} images/s, {share:.0%} of the limit in {dtype}", flush=True)
    for n in (1, 16, 64):
        rates[n] = n / seconds(lambda n=n: sample_cached(model, n))
        print(f"cached sampling, {n} at once: {rates[n]:.2f} images/s", flush=True)
    print_shares(model, 16)
    x = density.spec_.to_tensor(X[:16].reshape(16, -1), density.device_)
    print(f"parameters along 16 images differ by at most {parameter_error(model, x):.1e}")
    with torch.no_grad():
        a_score = float(np.median([seconds(lambda: model.log_prob(x)) for _ in range(10)]))
    started = time.perf_counter()
    naive, a_pass = sample_naively(model, 16)
    rate = 16 / (time.perf_counter() - started)
    print(f"naive sampling, 16 at once: {rate:.4f} images/s; a pass {a_pass / a_score:.2f} of scoring 16 images")
    equal = float((naive == sample_cached(model, 16)).mean())
    print(f"cached / naive: {rates[16] / rate:.0f}; equal pixels: {equal:.2%}")


if __name__ == "__main__":
    main()
