"""
A density for each class
========================

A masked autoregressive flow (MAF) maps each column by a curve that a network computes from the columns before it. With
``conditional=True`` the label is an input of every network. One model then contains a density for each class, and their
mixture is a density too.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

from flowdetect import MAFDensity

X, y = make_moons(2000, noise=0.1, random_state=0)
X_test, y_test = make_moons(2000, noise=0.1, random_state=1)
density = MAFDensity(conditional=True, max_epochs=60, random_state=0).fit(X, y)
print(f"log p(x | y): {density.score(X_test, y_test):.3f} nats a row")
print(f"log p(x):     {density.score(X_test):.3f} nats a row")

# %%
# The class of a point
# --------------------
# By Bayes' rule, p(y | x) = p(x | y) p(y) / p(x). This classifies points, although no classifier was trained.

joint = np.stack([density.score_samples(X_test, np.full(len(X_test), label)) for label in density.classes_], axis=1)
posterior = np.exp(joint + density.class_log_prior_ - density.score_samples(X_test)[:, None])
print(f"classes sum to {posterior.sum(1).mean():.6f}; right for {(posterior.argmax(1) == y_test).mean():.1%} of rows")

ticks = np.linspace(-1, 1, 200)
grid = np.stack(np.meshgrid(0.5 + 2 * ticks, 0.25 + 1.2 * ticks), axis=-1)
rows = grid.reshape(-1, 2)
fig, axes = plt.subplots(1, 3, figsize=(9, 2.7), sharex=True, sharey=True, layout="constrained")
titles = ["p(x | y = 0)", "p(x | y = 1)", "samples of either class"]
for label, ax in zip(density.classes_, axes[:2], strict=True):
    p = np.exp(density.score_samples(rows, np.full(len(rows), label))).reshape(grid.shape[:2])
    ax.pcolormesh(*grid.transpose(2, 0, 1), p, cmap="magma", rasterized=True)
    axes[2].scatter(*density.sample(1000, y=np.full(1000, label), random_state=0).T, s=2, linewidths=0)
for ax, title in zip(axes, titles, strict=True):
    ax.set(title=title, xlim=grid[0, [0, -1], 0], ylim=grid[[0, -1], 0, 1])
