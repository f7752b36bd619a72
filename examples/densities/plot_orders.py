"""
Autoregressive densities: one value after the other
===================================================

Any density of rows is a product: the density of the first value, of the second given the first, of the third given
these two, and so on. NADE and MADE compute all factors with one network. Any order of the values is possible, so
several orders can be averaged.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

from flowdetect import IAFDensity, MADEDensity, MAFDensity, NADEDensity, load_images
from flowdetect.evaluation import plot_image_grid

X, X_test = (load_images("digits", part)[0] > 7 for part in ("train", "test"))  # black or white, (n, 8, 8)
X, X_test = X.astype(int), X_test.astype(int)
nade = NADEDensity(n_bins=2, max_epochs=40, random_state=0).fit(X)

# %%
# The probability of each pixel
# -----------------------------
# Pixels are read row by row. The second row shows the probability of white of each pixel, given the pixels before it.
# For the first pixels it is the average of the training digits; later, strokes are expected to continue. In the last
# row the improbable pixels are bright: mostly those where a stroke starts or turns.

shown = X_test[:9]
p_own = np.exp(nade.likelihood_terms(shown).log_px)  # (9, 8, 8), of the value that the pixel has
p_white = np.where(shown == 1, p_own, 1 - p_own)
bits = -np.log2(p_own)
_, ax = plt.subplots(figsize=(8.5, 3), layout="constrained")
rows = np.concatenate([shown, p_white, bits / bits.max()])
plot_image_grid(rows, n_columns=9, row_labels=["digit", "p(white | before)", "bits"], value_range=(0, 1), ax=ax)
print(f"least probable pixel: {bits.max():.1f} bits; a digit: {bits.sum((1, 2)).mean():.1f} bits on average")

# %%
# One order against several
# -------------------------
# With `n_orders` above 1, random orders are drawn. Each training step uses one of them, and a score is the logarithm of
# the mean probability over all. Averaging improves the score. But the network has to predict any pixel from any others,
# which is harder and needs more training than here. NADE has one hidden layer for each pixel, MADE one for all. Dots
# are the means of the test digits, lines their 95 % intervals; higher is better.

fig, ax = plt.subplots(figsize=(6, 2.2), layout="constrained")
names = []
for kind in (NADEDensity, MADEDensity):
    for n_orders in (1, 8):
        is_there = kind is NADEDensity and n_orders == 1
        density = nade if is_there else kind(n_bins=2, n_orders=n_orders, max_epochs=40, random_state=0).fit(X)
        scores, place = density.score_samples(X_test), -len(names)
        ax.errorbar(scores.mean(), place, xerr=1.96 * scores.std() / np.sqrt(len(scores)), fmt="o", color="C0")
        ax.annotate(f"{scores.mean():.1f}", (scores.mean(), place), (0, 5), textcoords="offset points", ha="center")
        names.append(f"{kind.__name__[:4]}, {n_orders} order{'s' * (n_orders > 1)}")
ax.set(yticks=-np.arange(len(names)), yticklabels=names, xlabel="nats a digit", ylim=(-3.5, 0.7))

# %%
# Completion of images
# --------------------
# `complete` draws the rest of an image. The mean of many completions is the probability of each pixel given the known
# pixels. With no known rows it is the mean digit; with each further row it becomes more like this digit.

chosen = X_test[[1, 3, 6, 9]]
columns = [chosen]
for known in (6, 5, 4, 3, 2, 1, 0):
    drawn = nade.complete(np.repeat(chosen, 60, axis=0), known=known, random_state=0)
    columns.append(drawn.reshape(len(chosen), 60, 8, 8).mean(1))
titles = ["digit", *(f"{known} rows" for known in (6, 5, 4, 3, 2, 1, 0))]
_, ax = plt.subplots(figsize=(8.5, 4.6), layout="constrained")
images = np.stack(columns, 1).reshape(-1, 8, 8)
plot_image_grid(images, n_columns=8, titles=titles + [""] * (len(images) - 8), value_range=(0, 1), ax=ax)

# %%
# A mask selects any known pixels: here the right half, which comes late in the order. Then several candidates are drawn
# and weighted (see `complete`).

mask = np.zeros((8, 8), dtype=bool)
mask[:, 4:] = True
given = np.where(mask, chosen, 0.35)
drawn = [nade.complete(chosen, mask=mask, n_candidates=64, random_state=seed) for seed in range(4)]
_, ax = plt.subplots(figsize=(5, 4), layout="constrained")
images = np.stack([chosen, given, *drawn], 1).reshape(-1, 8, 8)
titles = ["digit", "known", *["drawn"] * 4, *[""] * (len(images) - 6)]
plot_image_grid(images, n_columns=6, titles=titles, value_range=(0, 1), ax=ax)

# %%
# Real values, forwards and backwards
# -----------------------------------
# The same idea gives flows for real values. In MAF, the map of a value to noise depends on the *values* before it. A
# score knows all values, so it takes one pass; a sample must solve for one value after the other. In IAF, the map
# depends on the *noise* before it. A sample knows all noise, so it takes one pass; a score must solve for the noise. On
# two moons:

moons, _ = make_moons(1000, noise=0.1, random_state=0)
moons_test, _ = make_moons(1000, noise=0.1, random_state=1)
grid = np.stack(np.meshgrid(np.linspace(-1.8, 2.8, 150), np.linspace(-1.3, 1.8, 150)), axis=-1)
fig, axes = plt.subplots(1, 4, figsize=(9, 2.2), sharex=True, sharey=True, layout="constrained")
for kind, (left, right) in zip([MAFDensity, IAFDensity], axes.reshape(2, 2), strict=True):
    density = kind(n_transforms=3, univariate="spline", max_epochs=60, random_state=0).fit(moons)
    p = np.exp(density.score_samples(grid.reshape(-1, 2))).reshape(150, 150)
    left.pcolormesh(*grid.transpose(2, 0, 1), p, cmap="magma", rasterized=True)
    left.set_title(f"{kind.__name__[:3]}: {density.score(moons_test):.2f} nats")
    right.scatter(*density.sample(1500, random_state=0).T, s=2, linewidths=0)
    right.set(title="samples", xlim=(-1.8, 2.8), ylim=(-1.3, 1.8))

# %%
# Time by the number of columns
# -----------------------------
# Seconds to score and to draw 5,000 rows (affine transforms):

n_columns = [2, 4, 8, 16, 32]
fig, axes = plt.subplots(1, 2, figsize=(7, 2.6), sharey=True, layout="constrained")
for kind in (MAFDensity, IAFDensity):
    seconds = []
    for d in n_columns:
        noise = np.random.default_rng(0).normal(size=(5000, d))
        density = kind(univariate="affine", max_epochs=1, random_state=0).fit(noise)
        times = [time.perf_counter()]
        for act in (density.score_samples, lambda X, density=density: density.sample(len(X), random_state=0)):
            act(noise)
            times.append(time.perf_counter())
        seconds.append(np.diff(times))
    for ax, line in zip(axes, np.transpose(seconds), strict=True):
        ax.semilogx(n_columns, line, "o-", label=kind.__name__[:3])
for ax, title in zip(axes, ["to score", "to draw"], strict=True):
    ax.set(title=title, xlabel="columns", xticks=n_columns, xticklabels=n_columns)
    ax.minorticks_off()
    ax.set_ylim(bottom=0)
axes[0].set_ylabel("seconds")
axes[0].legend()
