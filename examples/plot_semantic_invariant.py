"""
Same meaning, other likelihood
==============================

A semantic-invariant transformation (SIT) changes an image so that its meaning stays: it moves the digit by a pixel, or
adds noise too weak to see. A score that follows meaning would stay as well.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.frozen import FrozenEstimator

from flowdetect import AddNoise, GlowDensity, Translate, ZeroLatents, load_images
from flowdetect.evaluation import plot_image_grid, plot_sit_shifts

X, _ = load_images("digits")
X_test, _ = load_images("digits", "test")
density = GlowDensity(n_bins=17, n_steps=4, hidden_channels=64, max_epochs=15, random_state=0)
density.fit(X)

# %%
# SITs are transformers
# ---------------------
# Each has `fit` and `transform`, and goes into pipelines. `ZeroLatents` sets the first latent level of the flow to
# zero, where fine detail lives, and maps back.

sits = {
    "1 pixel left": Translate(dx=-1, n_bins=17),
    "2 pixels left": Translate(dx=-2, n_bins=17),
    "noise, 0.001": AddNoise(scale=0.001, n_bins=17, random_state=0),
    "level 1 zeroed": ZeroLatents(FrozenEstimator(density), n_factors=1),
}
changed = {name: sit.fit_transform(X_test) for name, sit in sits.items()}

# %%
# The numbers are bits per dimension; more bits are less likely.

rows = {"as it is": X_test, **changed}
_, ax = plt.subplots(figsize=(8.5, 6.6), layout="constrained")
plot_image_grid(
    np.concatenate([images[:8] for images in rows.values()]),
    titles=[f"{bits:.2f}" for images in rows.values() for bits in density.bits_per_dim(images[:8])],
    n_columns=8,
    row_labels=list(rows),
    value_range=(0, 16),
    ax=ax,
)

# %%
# Over all test images
# --------------------
# The digits of this set are centred, so that a flow learns their empty margins, and a digit moved by a pixel or two
# falls where none was before.

before = density.bits_per_dim(X_test)
shifts = {name: density.bits_per_dim(images) - before for name, images in changed.items()}
_, ax = plt.subplots(figsize=(7.5, 2.8), layout="constrained")
plot_sit_shifts({"Glow": shifts}, xscale="symlog", ax=ax)
