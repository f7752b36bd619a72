"""
One value after the other
=========================

Any density of rows is a product: of the first value, of the second given the first, of the third given these two, and
so on. NADE and MADE compute all factors with one network. A row says nothing of which value is the first, so several
orders can be averaged.
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
# What is expected of each pixel
# ------------------------------
# In the order of reading. In the second row each pixel has the probability of white that the pixels before it left: the
# first pixels, which know of nothing, are what the training digits have there on average; then strokes are expected to
# go on. In the last row bright pixels are those that came as a surprise: mostly where a stroke starts or turns.

shown = X_test[:9]
p_own = np.exp(nade.likelihood_terms(shown).log_px)  # (9, 8, 8), of the value that the pixel has
p_white = np.where(shown == 1, p_own, 1 - p_own)
bits = -np.log2(p_own)
_, ax = plt.subplots(figsize=(8.5, 3), layout="constrained")
rows = np.concatenate([shown, p_white, bits / bits.max()])
plot_image_grid(rows, n_columns=9, row_labels=["digit", "p(white | before)", "bits"], value_range=(0, 1), ax=ax)
print(f"dearest pixel: {bits.max():.1f} bits; a digit: {bits.sum((1, 2)).mean():.1f} bits on average")

# %%
# One order against several
# -------------------------
# With `n_orders` above 1 orders are drawn, each training step takes one of them, and a score is the logarithm of their
# mean probability. The mean gains; but the network has to learn to predict any pixel from any others, which is harder
# and wants more training than here. NADE has a hidden layer of its own for each pixel, MADE one for all. Dots are the
# means of test digits, lines their 95 % intervals; higher is better.

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
# What is known, and what may follow
# ----------------------------------
# `complete` draws the rest of an image. The mean of many completions is the probability of each pixel given all that is
# known: with nothing known it is the mean digit, and with each further row it sharpens to this one.

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
# Any other pixels can be known, by a mask: here those of the right half are, which come late in the order of reading.
# Candidates are then drawn and weighed (see `complete`).

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
# The same idea makes flows of real values. MAF computes how a value is mapped to noise from the *values* before it: all
# are there when a row is scored, so a score takes one pass, and a sample has to solve for the values. IAF computes it
# from the *noise* before it: all of it is there when a row is drawn, so a sample takes one pass, and a score has to
# solve for the noise. On two moons:

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
# What a column costs
# -------------------
# The seconds that 5,000 rows take to be scored and to be drawn, with more and more columns (affine transforms):

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
