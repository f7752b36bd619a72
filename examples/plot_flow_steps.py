"""
What steps of a flow do
=======================

A planar step pushes points along one direction next to one line; a radial step draws points towards one centre or
drives them away from it (Rezende & Mohamed 2015). Each changes a density little, and many of them change it much.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import make_moons

from flowdetect import PlanarDensity, RadialDensity
from flowdetect.bijections import Chain, Planar, Radial
from flowdetect.distributions import standard_normal_log_prob

COUNTS = [1, 2, 8, 32]

# %%
# A Gaussian after 1 to 32 random steps
# -------------------------------------
# Points x of a standard normal distribution pass steps drawn at random, y = f(x). The density of y is that of x,
# divided by the determinant: log p(y) = log N(x) - log|det dy/dx|. Where x lies is found by the inverse of each step.

side = np.linspace(-4, 4, 200)
grid = np.stack(np.meshgrid(side, side), axis=-1)


def random_steps(kind, n_steps):
    """Make steps with larger numbers than a fresh layer has."""
    generator, steps = torch.Generator().manual_seed(3), []
    for _ in range(n_steps):
        step = kind(2).double()
        noise = torch.randn(len(step.numbers), generator=generator, dtype=torch.float64)
        with torch.no_grad():
            step.numbers.copy_(noise * (1.2 if kind is Planar else torch.tensor([1.5, 1.5, 1.0, 1.5])))
        steps.append(step)
    return Chain(steps)


@torch.no_grad()
def density_after(steps, points):
    """Density of a Gaussian that went through the steps."""
    x = steps.inverse(points)
    return (standard_normal_log_prob(x).sum(1) - steps(x)[1]).exp()


fig, axes = plt.subplots(2, 5, figsize=(9, 3.8), sharex=True, sharey=True, layout="constrained")
points = torch.from_numpy(grid.reshape(-1, 2))
for row, kind in zip(axes, [Planar, Radial], strict=True):
    for ax, n_steps in zip(row, [0, *COUNTS], strict=True):
        p = density_after(random_steps(kind, n_steps), points).reshape(200, 200)
        ax.pcolormesh(*grid.transpose(2, 0, 1), p, cmap="magma", rasterized=True)
        ax.set(title=f"{n_steps} {kind.__name__.lower()}" if n_steps else "the Gaussian", aspect="equal")

# %%
# Densities with 1 to 32 learned steps
# ------------------------------------
# Fitted to two moons, from data to noise: the more steps, the higher the mean log-likelihood of rows held out. MAF,
# with its default 5 transforms, gets further in as many epochs.

X, _ = make_moons(2000, noise=0.1, random_state=0)
X_test, _ = make_moons(2000, noise=0.1, random_state=1)
side = np.linspace(-1.8, 2.8, 200), np.linspace(-1.5, 2.0, 200)
grid = np.stack(np.meshgrid(*side), axis=-1)

fig, axes = plt.subplots(2, 4, figsize=(9, 3.8), sharex=True, sharey=True, layout="constrained")
for row, kind in zip(axes, [PlanarDensity, RadialDensity], strict=True):
    for ax, n_steps in zip(row, COUNTS, strict=True):
        density = kind(n_steps=n_steps, max_epochs=50, random_state=0).fit(X)
        p = np.exp(density.score_samples(grid.reshape(-1, 2))).reshape(200, 200)
        ax.pcolormesh(*grid.transpose(2, 0, 1), p, cmap="magma", rasterized=True)
        name = kind.__name__.removesuffix("Density").lower()
        ax.set_title(f"{n_steps} {name}: {density.score(X_test):.2f} nats")

# %%
# Samples take the inverse of each step: of a radial one it is a formula, and of a planar one a search for one number.

fig, ax = plt.subplots(figsize=(4, 3), layout="constrained")
ax.scatter(*density.sample(2000, random_state=0).T, s=2, linewidths=0)
ax.set_title(f"samples of {n_steps} radial steps")
