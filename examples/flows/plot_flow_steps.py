"""
What steps of a flow do
=======================

A planar step moves points near a line along one direction; a radial step moves points towards or away from a centre
(Rezende & Mohamed 2015). One step changes a density little; many steps change it much.
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
# Random steps y = f(x) are applied to a standard normal x. The density of y is log p(y) = log N(x) - log|det dy/dx|,
# where x is found by the inverse of each step. Each picture shows 3 standard deviations to both sides of the mean.
# These planar steps split the Gaussian in two. The first radial steps bend it; later ones change little.

ticks = torch.linspace(-3, 3, 200, dtype=torch.float64)
square = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), dim=-1).reshape(-1, 2)
start = torch.randn(5000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def random_steps(kind, n_steps):
    """Make steps with larger numbers than a fresh layer has."""
    generator, steps = torch.Generator().manual_seed(7), []
    for _ in range(n_steps):
        step = kind(2).double()
        noise = torch.randn(len(step.numbers), generator=generator, dtype=torch.float64)
        with torch.no_grad():
            step.numbers.copy_(noise * (0.8 if kind is Planar else 1))
        steps.append(step)
    return Chain(steps)


fig, axes = plt.subplots(2, 5, figsize=(9, 3.8), layout="constrained")
for row, kind in zip(axes, [Planar, Radial], strict=True):
    for ax, n_steps in zip(row, [0, *COUNTS], strict=True):
        steps = random_steps(kind, n_steps)
        with torch.no_grad():
            moved = steps(start)[0]
            y = moved.mean(0) + moved.std(0) * square
            x = steps.inverse(y)
            p = (standard_normal_log_prob(x).sum(1) - steps(x)[1]).exp()
        p = p.clamp(max=p.quantile(0.999)).reshape(200, 200)  # so that one bright line does not hide the rest
        ax.imshow(p, origin="lower", cmap="magma")
        ax.set(title=f"{n_steps} {kind.__name__.lower()}" if n_steps else "the Gaussian", xticks=[], yticks=[])

# %%
# Densities with 1 to 32 learned steps
# ------------------------------------
# Flows from data to noise, fitted to two moons: with more steps the mean log-likelihood of held-out rows is higher.

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
# Samples need the inverse of each step. For a radial step it is a formula; for a planar step it is a search for one
# number.

fig, ax = plt.subplots(figsize=(4, 3), layout="constrained")
ax.scatter(*density.sample(2000, random_state=0).T, s=2, linewidths=0)
ax.set_title(f"samples of {n_steps} radial steps")
