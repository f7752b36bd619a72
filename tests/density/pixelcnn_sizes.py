"""Small PixelCNNs for tests, and all images of a shape."""

import itertools

import numpy as np

from flowdetect.datasets import load_images
from flowdetect.density import PixelCNNDensity

VARIANTS = ("pixelcnn", "local", "gated", "pixelcnn++", "rectified")
DIGITS, LABELS = load_images("digits")


def small(**settings):
    shared = {"n_filters": 8, "n_blocks": 1, "n_mixtures": 5, "max_epochs": 2, "batch_size": 64, "random_state": 0}
    return PixelCNNDensity(**{**shared, **settings})


def every_image(n_bins, *shape):
    """All images of a shape, and 2,000 draws from a distribution far from uniform."""
    images = np.array(list(itertools.product(range(n_bins), repeat=np.prod(shape)))).reshape(-1, *shape)
    rng = np.random.default_rng(0)
    draws = rng.choice(len(images), 2000, p=rng.dirichlet(np.full(len(images), 0.02)))
    return images.astype(np.uint8), images[draws].astype(np.uint8)
