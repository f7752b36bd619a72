"""
A first density
===============

A density is a scikit-learn estimator: `fit` learns it from rows, `score_samples` returns log-probabilities, and
`sample` draws new rows. Here a flow learns two half moons.
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
# `score_samples` returns log p(x) in nats, one number for each row. On a grid of points it shows the density.

axis_1, axis_2 = np.linspace(-1.6, 2.6, 120), np.linspace(-1.1, 1.6, 90)
grid = np.stack(np.meshgrid(axis_1, axis_2), axis=-1).reshape(-1, 2)
log_p = density.score_samples(grid).reshape(len(axis_2), len(axis_1))

fig, ax = plt.subplots(figsize=(6, 4), layout="constrained")
ax.contourf(axis_1, axis_2, np.exp(log_p), levels=20, cmap="Blues")
ax.plot(*X[:300].T, ".", color="#D55E00", markersize=2)
ax.set(title="The density, and some of its training rows", aspect="equal")

# %%
# A density integrates to one. The sum over the grid is close to one, up to the mass outside and the error of the grid.

cell = (axis_1[1] - axis_1[0]) * (axis_2[1] - axis_2[0])
print(f"mass on the grid: {np.exp(log_p).sum() * cell:.3f}")

# %%
# Samples and latents
# -------------------
# A flow is a bijection between data and standard normal noise. In one direction it maps the moons to a round cloud; in
# the other it maps noise to samples.

samples = density.sample(1000, random_state=1)
latents = density.transform(X[:1000])

fig, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
for ax, points, title in zip(
    axes, (X[:1000], samples, latents), ("data", "samples", "latents of the data"), strict=True
):
    ax.plot(*points.T, ".", markersize=2)
    ax.set(title=title, aspect="equal")

# %%
# Mapping to latents and back restores the rows up to rounding.

print("largest error of there and back:", f"{np.abs(density.inverse_transform(latents) - X[:1000]).max():.1e}")

# sphinx_gallery_thumbnail_number = 1
