"""Cached against naive sampling of a PixelCNN++, and how fast it trains and scores.

    FLOWDETECT_DATA=folder python examples/benchmarks/pixelcnn_sampling.py [--quick]

28x28 images, 100 filters, 2 blocks a stage, 3 mixtures. Naive sampling passes the whole batch of images through the
network once for every pixel and takes the same uniform draws. The model is trained for four steps only: speed does not
depend on its weights.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from flowdetect import PixelCNNDensity, load_images
from flowdetect.density.pixelcnn import PixelCNNModel

SEED, BATCH = 0, 64


@torch.no_grad()
def sample_naively(model: PixelCNNModel, n: int) -> tuple[np.ndarray, float]:
    """Draw n images with one pass of the network a pixel; give them and the mean seconds of a pass."""
    generator = torch.Generator().manual_seed(SEED)
    _, height, width = model.event_shape
    y = ((torch.zeros(n, *model.event_shape) - model.loc) / model.scale).clone()
    u = torch.rand(n, model.head.n_uniforms, height, width, generator=generator, dtype=torch.float64).to(y)
    seconds = 0.0
    for i in range(height):
        for j in range(width):
            started = time.perf_counter()
            h = model.net(y)
            seconds += time.perf_counter() - started
            at = (slice(None), slice(None), slice(i, i + 1), slice(j, j + 1))
            y[at] = model.head.draw(h[at], u[at], 1.0)
    return (y * model.scale + model.loc).round().numpy(), seconds / (height * width)


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
        variant="pixelcnn++", batch_size=BATCH, max_epochs=1, early_stopping=False, random_state=SEED, **size
    )
    started = time.perf_counter()
    density.fit(X)
    print(f"training: {len(X) / (time.perf_counter() - started):.1f} images/s")
    density.score_samples(X[:BATCH])
    started = time.perf_counter()
    density.score_samples(X)
    print(f"scoring, float32: {len(X) / (time.perf_counter() - started):.1f} images/s")
    model, rates = density.model_, {}
    for n in (1, 16, 64):
        started = time.perf_counter()
        with torch.no_grad():
            cached = model.sample(n, generator=torch.Generator().manual_seed(SEED)).numpy()
        rates[n] = n / (time.perf_counter() - started)
        print(f"cached sampling, {n} at once: {rates[n]:.2f} images/s", flush=True)
        if n == 16:
            kept = cached
    started = time.perf_counter()
    naive, seconds_a_pass = sample_naively(model, 16)
    rate = 16 / (time.perf_counter() - started)
    print(f"naive sampling, 16 at once: {rate:.4f} images/s, {1000 * seconds_a_pass:.0f} ms a pass")
    print(f"cached / naive: {rates[16] / rate:.0f}; equal pixels: {(naive == kept).mean():.2%}")


if __name__ == "__main__":
    main()
