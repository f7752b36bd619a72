"""
The order of factoring out in a flow
====================================

A multi-scale flow factors out half of the dimensions at each level. RealNVP chooses this half by a checkerboard. The
likelihood-contribution based architecture (Das et al. 2019) first trains a flow that factors nothing out. It measures
how much the couplings of each dimension contribute to the likelihood, and factors out the smallest contributions first.
"""

import matplotlib.pyplot as plt
import numpy as np

from flowdetect import RealNVPDensity, load_images
from flowdetect.evaluation import plot_image_grid

X, _ = load_images("digits")  # (1297, 8, 8), values 0..16
X_test, _ = load_images("digits", "test")
kinds = ["standard", "likelihood", "likelihood_reversed", "random"]
settings = {"n_bins": 17, "n_steps": 1, "hidden_channels": 32, "max_epochs": 8, "random_state": 0}
densities = [RealNVPDensity(factorization=kind, **settings).fit(X) for kind in kinds]

# %%
# Dark pixels are factored out after the first level, grey ones after the second, and white ones pass all three.

titles = [f"{density.factorization}\n{density.bits_per_dim(X_test).mean():.3f} bits/dim" for density in densities]
_, ax = plt.subplots(figsize=(8.5, 2.6), layout="constrained")
factored = np.stack([density.factored_dims_[:, :, 0] for density in densities])
plot_image_grid(factored, titles=titles, n_columns=4, value_range=(1, 3), ax=ax)

# %%
# From one digit to another
# -------------------------
# Straight lines between the latents of two digits, mapped back to images.

density = densities[1]
start, end = density.transform(X_test[:4]), density.transform(X_test[4:8])
shares = np.linspace(0, 1, 9)
between = np.concatenate([(1 - shares)[:, None] * a + shares[:, None] * b for a, b in zip(start, end, strict=True)])
images = density.inverse_transform(between).reshape(-1, 8, 8)
_, ax = plt.subplots(figsize=(8.5, 3.8), layout="constrained")
plot_image_grid(images.clip(0, 16), n_columns=9, value_range=(0, 16), ax=ax)
