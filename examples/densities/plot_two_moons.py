"""
Two moons
=========

The rows of a table with two columns lie on two half circles. RealNVP learns a map from these moons to a normal
distribution. The map gives a density that integrates to 1, and samples; its grid lines show how it bends the plane.

Training stops here after 80 epochs, to keep this page fast. By default it continues for some minutes, until held-out
rows no longer improve, and ends at -1.038 nats a row.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from flowdetect import RealNVPDensity

X, _ = make_moons(5000, noise=0.1, random_state=0)
X_test, _ = make_moons(5000, noise=0.1, random_state=1)
density = RealNVPDensity(max_epochs=80, random_state=0).fit(X)

gmm = min((GaussianMixture(k, random_state=0).fit(X) for k in range(1, 21)), key=lambda model: model.bic(X))
print(f"RealNVP                               {density.score(X_test):.3f} nats a row")
print(f"Gaussian mixture of {gmm.n_components} by BIC          {gmm.score(X_test):.3f}")
print(f"kernels of width 0.1                  {KernelDensity(bandwidth=0.1).fit(X).score(X_test) / len(X_test):.3f}")

# %%
# Density, samples, and the plane bent
# ------------------------------------
# Left, the density; in the middle, samples; right, the lines of a square grid of latents, mapped to the data. Where
# lines are close together, the density is high.

ticks = np.linspace(-3, 3, 300)
grid = np.stack(np.meshgrid(0.5 + 0.75 * ticks, 0.25 + 0.6 * ticks), axis=-1)
p = np.exp(density.score_samples(grid.reshape(-1, 2))).reshape(grid.shape[:2])
print(f"integral over the square shown: {p.sum() * np.ptp(grid[0, :2, 0]) * np.ptp(grid[:2, 0, 1]):.3f}")

fig, axes = plt.subplots(1, 3, figsize=(9, 2.7), sharex=True, sharey=True, layout="constrained")
axes[0].pcolormesh(*grid.transpose(2, 0, 1), p, cmap="magma", rasterized=True)
axes[1].scatter(*density.sample(2000, random_state=0).T, s=2, linewidths=0)
for i in range(-8, 9):
    for fixed in (0, 1):
        line = np.stack([np.full(300, i * 0.3), ticks * 0.8], axis=1)[:, :: 1 - 2 * fixed]
        axes[2].plot(*density.inverse_transform(line).T, color=f"C{fixed}", linewidth=0.6)
for ax, title in zip(axes, ["density", "samples", "a grid of latents"], strict=True):
    ax.set(title=title, xlim=grid[0, [0, -1], 0], ylim=grid[[0, -1], 0, 1])
