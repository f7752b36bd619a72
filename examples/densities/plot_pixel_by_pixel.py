"""
Pixel by pixel
==============

A PixelCNN models the distribution of each pixel given the pixels above it and to its left. Its scores are exact. It
draws samples pixel by pixel, completes images, and shows the likelihood of each pixel as a picture.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

from flowdetect import PixelCNNDensity, load_images
from flowdetect.evaluation import plot_image_grid, plot_pixel_likelihood

X, _ = load_images("digits")  # (1297, 8, 8), values 0..16
X_test, _ = load_images("digits", "test")
density = PixelCNNDensity(n_bins=17, n_filters=32, n_blocks=3, max_epochs=30, random_state=0).fit(X)
print(f"{density.bits_per_dim(X_test).mean():.3f} bits/dim on digits not trained on")

# %%
# Completions
# -----------
# The upper half of each digit is given. The rows show the digit and three completions.

completions = [density.complete(X_test[:10], known=4, random_state=seed) for seed in range(3)]
_, ax = plt.subplots(figsize=(8.5, 3.6), layout="constrained")
plot_image_grid(
    np.concatenate([X_test[:10], *completions]),
    n_columns=10,
    row_labels=["digit", "completed", "again", "and again"],
    value_range=(0, 16),
    ax=ax,
)

# %%
# The likelihood of each pixel
# ----------------------------
# Sampled digits; in the fourth one a pixel was changed. The changed pixel costs many bits, and so may the pixels
# after it, because their neighbourhood is unusual.

samples = density.sample(8, random_state=1)
samples[3, 4, 4] = 16 - samples[3, 4, 4]
_, ax = plt.subplots(figsize=(8.5, 2.4), layout="constrained")
plot_pixel_likelihood(samples, density.likelihood_terms(samples).log_px, value_range=(0, 16), ax=ax)

# %%
# The receptive field of a pixel
# ------------------------------
# The gradient of one pixel's features with respect to the image, for three variants. Masked convolutions have a blind
# spot at the upper right; networks with two streams have none.


def seen(variant):
    """Tell which pixels of a 9x15 image the pixel in the last row's middle depends on."""
    noise = np.random.default_rng(0).integers(0, 17, (20, 9, 15))
    settings = {"n_filters": 8, "n_blocks": 3, "max_epochs": 2, "learning_rate": 1e-2, "batch_size": 5}
    net = PixelCNNDensity(variant=variant, n_bins=17, random_state=0, **settings).fit(noise).model_.net
    image = torch.rand(1, 1, 9, 15, requires_grad=True)
    net(image)[0, :, 8, 7].square().sum().backward()
    return (image.grad[0, 0] != 0).numpy()


variants = ["pixelcnn", "gated", "pixelcnn++"]
_, ax = plt.subplots(figsize=(8.5, 2), layout="constrained")
plot_image_grid([seen(variant) for variant in variants], titles=variants, n_columns=3, value_range=(0, 1), ax=ax)
