"""What mapping the grey levels beforehand is worth: the same short training with both kinds of preprocessing.

    FLOWDETECT_DATA=folder python examples/benchmarks/preprocessing.py [--quick] [--sets fashion_mnist mnist]

One epoch of the first 30,080 training images (470 steps of 64), otherwise default settings; test bits/dim on 2,000.
"""

from __future__ import annotations

import argparse

from flowdetect import GlowDensity, load_images

SEED, N_TRAIN, N_TEST = 0, 30_080, 2000


def main() -> None:
    """Run the comparison and print a line a training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="640 images")
    parser.add_argument("--sets", nargs="+", default=["fashion_mnist", "mnist"])
    args = parser.parse_args()
    for name in args.sets:
        X, X_test = load_images(name)[0], load_images(name, "test")[0][:N_TEST]
        for preprocessing in ("linear", "gaussianize"):
            density = GlowDensity(
                max_epochs=1, batch_size=64, early_stopping=False, preprocessing=preprocessing, random_state=SEED
            ).fit(X[: 640 if args.quick else N_TRAIN])
            print(f"{name:15} {preprocessing:12} {density.bits_per_dim(X_test).mean():.3f} bits/dim", flush=True)


if __name__ == "__main__":
    main()
