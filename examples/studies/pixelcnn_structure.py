"""What PixelCNN's settings of structure are worth at equal time: bits/dim of 8x8 digits, three seeds.

    python examples/studies/pixelcnn_structure.py [--seconds 12] [--quick]

Each setting trains for as many epochs as fit into so many seconds of processor time on one thread, by the speed of two
epochs, and is scored on the 500 test images, given their labels where it is told labels. Prints a line a setting.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from flowdetect import PixelCNNDensity, load_images

SHARED = {
    **{"n_bins": 17, "n_filters": 16, "n_mixtures": 5, "batch_size": 32, "learning_rate": 3e-3},
    "early_stopping": False,
}
SETTINGS = [
    *({"variant": "pixelcnn++", "n_blocks": 1, "shortcuts": shortcuts} for shortcuts in ("blocks", "all")),
    *(
        {"variant": "gated", "n_blocks": 3, "conditional": True, "label_streams": streams}
        for streams in ("horizontal", "both")
    ),
]
SEEDS = (0, 1, 2)


def epochs_in(seconds: float, settings: dict[str, object], X: np.ndarray, y: np.ndarray) -> int:
    """How many epochs fit into so many seconds of processor time."""
    for n_epochs in (1, 2):  # the first time libraries are loaded
        started = time.process_time()
        PixelCNNDensity(**SHARED, **settings, max_epochs=n_epochs, random_state=0).fit(X, y)
    return max(1, round(seconds / ((time.process_time() - started) / 2)))


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--quick", action="store_true", help="200 images, an epoch, a seed")
    args = parser.parse_args()
    (X, y), (X_test, y_test) = load_images("digits"), load_images("digits", "test")
    seeds = SEEDS
    if args.quick:
        X, y, X_test, y_test, seeds = X[:200], y[:200], X_test[:50], y_test[:50], SEEDS[:1]
    for settings in SETTINGS:
        n_epochs = 1 if args.quick else epochs_in(args.seconds, settings, X, y)
        bits = []
        for seed in seeds:
            density = PixelCNNDensity(**SHARED, **settings, max_epochs=n_epochs, random_state=seed).fit(X, y)
            labels = y_test if "conditional" in settings else None
            bits.append(float(density.bits_per_dim(X_test, labels).mean()))
        print(settings, f"epochs {n_epochs}", np.round(bits, 4), f"mean {np.mean(bits):.4f}", flush=True)


if __name__ == "__main__":
    main()
