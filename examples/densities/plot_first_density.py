"""
A first density
===============

A density is a scikit-learn estimator: `fit` it to rows, ask it for log-probabilities, draw new rows from it. Here are
two half moons, and a flow that learns them.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

from flowdetect import GlowDensity

X, _ = make_moons(2000, noise=0.08, random_state=0)
density = GlowDensity(n_steps=8, hidden_channels=32, max_epochs=40, random_state=0)
density.fit(X)

# %%
# The density itself
# ------------------
# `score_samples` gives log p(x) in nats, one number a row. On a grid of points it draws the density.

axis_1, axis_2 = np.linspace(-1.6, 2.6, 120), np.linspace(-1.1, 1.6, 90)
grid = np.stack(np.meshgrid(axis_1, axis_2), axis=-1).reshape(-1, 2)
log_p = density.score_samples(grid).reshape(len(axis_2), len(axis_1))

fig, ax = plt.subplots(figsize=(6, 4), layout="constrained")
ax.contourf(axis_1, axis_2, np.exp(log_p), levels=20, cmap="Blues")
ax.plot(*X[:300].T, ".", color="#D55E00", markersize=2)
ax.set(title="The density, and some of its training rows", aspect="equal")

# %%
# Since it is a density, it sums to one over the plane, up to what lies beyond the grid and to the grid's coarseness.

cell = (axis_1[1] - axis_1[0]) * (axis_2[1] - axis_2[0])
print(f"mass on the grid: {np.exp(log_p).sum() * cell:.3f}")

# %%
# Samples and latents
# -------------------
# A flow is one bijection from data to standard normal noise. Backwards it makes samples; forwards it turns the moons
# into a round cloud.

samples = density.sample(1000, random_state=1)
latents = density.transform(X[:1000])

fig, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
for ax, points, title in zip(
    axes, (X[:1000], samples, latents), ("data", "samples", "latents of the data"), strict=True
):
    ax.plot(*points.T, ".", markersize=2)
    ax.set(title=title, aspect="equal")

# %%
# Back and forth, nothing is lost.

print("largest error of there and back:", f"{np.abs(density.inverse_transform(latents) - X[:1000]).max():.1e}")

# sphinx_gallery_thumbnail_number = 1
