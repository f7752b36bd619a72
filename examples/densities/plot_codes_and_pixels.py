"""
Latents and pixels
==================

A VAE models an image by a short latent z, and PixelCNN and PixelRNN model it pixel by pixel. PixelVAE combines both:
the latent describes what is shown, and each pixel depends on the latent and on the pixels before it.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

from flowdetect import PixelCNNDensity, PixelRNNDensity, PixelVAEDensity, VAEDensity, load_images
from flowdetect.evaluation import plot_image_grid

X, y = load_images("digits")  # values 0 .. 16
X_test, y_test = load_images("digits", "test")
small = {"n_bins": 17, "random_state": 0}
densities = {
    "VAE": VAEDensity(latent_dim=16, hidden_channels=16, max_epochs=30, **small),
    "PixelVAE": PixelVAEDensity(latent_dim=16, hidden_channels=16, n_filters=16, max_epochs=15, **small),
    "PixelCNN": PixelCNNDensity(n_filters=16, n_blocks=2, max_epochs=15, **small),
    "PixelRNN": PixelRNNDensity(variant="row_lstm", n_filters=16, n_blocks=2, max_epochs=8, **small),
}
for name, density in densities.items():
    density.fit(X)
    kind = "at most" if density.score_is_bound_ else "exactly"
    print(f"{name:8} {kind} {density.bits_per_dim(X_test).mean():.3f} bits/dim")

# %%
# Samples
# -------
# A VAE draws all pixels of a sample independently, so the samples are grainy. The other models draw one pixel after the
# other, and their strokes are clean. Without a latent, only the pixels so far determine which digit appears.

samples = np.concatenate([density.sample(10, random_state=3) for density in densities.values()])
_, ax = plt.subplots(figsize=(8.5, 3.6), layout="constrained")
plot_image_grid(samples, n_columns=10, row_labels=list(densities), value_range=(0, 16), ax=ax)

# %%
# What a latent leaves open
# -------------------------
# A digit, and four draws of its pixels given the same latent, the mean of q(z | x). The latent of a VAE must describe
# the whole image. That of a PixelVAE describes less; its pixels determine the rest, differently in each draw.


@torch.no_grad()
def redraw(density, images, n):
    """Draw the pixels of each image n times from its code: (len(images), n, 8, 8)."""
    z = torch.from_numpy(density.transform(images)).float().repeat_interleave(n, 0)
    h = density.model_.decoder(z, None)
    u = torch.rand(len(z), density.model_.likelihood.n_uniforms, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = density.model_.likelihood.draw(h, u, 1.0)  # black is -1 and white 1
    return (8 * (drawn[:, 0] + 1)).round().reshape(len(images), n, 8, 8).numpy()


chosen = np.stack([X_test[y_test == digit][2] for digit in (0, 2, 3, 6)])
blocks = [np.concatenate([chosen[:, None], redraw(densities[name], chosen, 4)], 1) for name in ("VAE", "PixelVAE")]
fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.6), layout="constrained")
for ax, block, name in zip(axes, blocks, ("VAE", "PixelVAE"), strict=True):
    titles = ["digit", *[name] * 4, *[""] * 15]
    plot_image_grid(block.reshape(-1, 8, 8), titles, n_columns=5, value_range=(0, 16), ax=ax)

# %%
# How the bits are split
# ----------------------
# `likelihood_terms` splits a score into two costs: the KL divergence of q(z | x) from the prior, and the bits of the
# pixels given the latent. The more neighbours a pixel depends on, the less the latent needs to describe: compare
# PixelVAE with a narrow and with a wide kernel.

pixel_vae = {"latent_dim": 16, "hidden_channels": 16, "n_filters": 16, "max_epochs": 15, **small}
wide = PixelVAEDensity(causal_kernel=7, n_causal_blocks=2, **pixel_vae).fit(X)
split = {"VAE": densities["VAE"], "PixelVAE": densities["PixelVAE"], "PixelVAE, wide kernel": wide}
_, ax = plt.subplots(figsize=(7, 2.4), layout="constrained")
for place, density in enumerate(split.values()):
    terms = density.likelihood_terms(X_test)
    pixels, code = (-term.mean() / np.log(2) for term in (terms.log_px_given_z, terms.minus_kl))
    ax.barh(-place, code, color="C1", label=None if place else "code")
    ax.barh(-place, pixels, left=code, color="C0", label=None if place else "pixels given the code")
    ax.annotate(f"{code:.0f} + {pixels:.0f}", (code + pixels, -place), (4, -4), textcoords="offset points")
exact = -densities["PixelCNN"].score_samples(X_test).mean() / np.log(2)
ax.barh(-len(split), exact, color="C0")
ax.annotate(f"{exact:.0f}", (exact, -len(split)), (4, -4), textcoords="offset points")
ax.set(yticks=-np.arange(len(split) + 1), yticklabels=[*split, "PixelCNN"], xlabel="bits a digit", xlim=(0, 190))
ax.legend(loc="upper left", bbox_to_anchor=(1, 1))

# %%
# Between two latents
# -------------------
# `interpolate` goes from the latent of one digit to that of another. If the latent describes the shape, the shape
# changes gradually.

first, last = (np.stack([X_test[y_test == digit][0] for digit in pair]) for pair in ((0, 3), (6, 8)))
steps = [densities[name].interpolate(first, last, n=9) for name in ("VAE", "PixelVAE")]
_, ax = plt.subplots(figsize=(8.5, 3.6), layout="constrained")
plot_image_grid(
    np.concatenate(steps).reshape(-1, 8, 8),
    n_columns=9,
    row_labels=["VAE", "", "PixelVAE", ""],
    value_range=(0, 16),
    ax=ax,
)

# %%
# A latent of two numbers
# -----------------------
# A latent with two dimensions can be drawn: left, the latents of the test digits; right, the means of p(x | z) on a
# grid of latents.

plane = VAEDensity(latent_dim=2, hidden_channels=16, max_epochs=30, **small).fit(X)
fig, (left, right) = plt.subplots(1, 2, figsize=(8.5, 4), layout="constrained")
left.scatter(*plane.transform(X_test).T, c=y_test, cmap="tab10", s=8)
for digit in range(10):
    left.text(*np.median(plane.transform(X_test[y_test == digit]), axis=0), str(digit), fontsize=14, weight="bold")
left.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", title="latents of test digits")
ticks = np.linspace(-2.25, 2.25, 10)
codes = np.stack(np.meshgrid(ticks, ticks[::-1]), -1).reshape(-1, 2)  # from top to bottom
plot_image_grid(plane.inverse_transform(codes).reshape(-1, 8, 8), n_columns=10, value_range=(0, 16), ax=right)
right.set_title("means of p(x | z)")

# %%
# The gap of the bound
# --------------------
# A score is smaller than log p(x) by the KL divergence of q(z | x) from the true p(z | x). With two latent dimensions
# it can be computed on a grid. Bright is p(z | x) of a digit; the ellipses are one and two standard deviations of the
# encoder's normal q(z | x); the number above is the gap. `posterior` makes q more flexible by a flow.

shown = np.stack([X_test[y_test == digit][0] for digit in (0, 1, 3, 5, 8)])
angles = np.linspace(0, 2 * np.pi, 100)
fig, axes = plt.subplots(1, len(shown), figsize=(9, 2.2), layout="constrained")
for ax, image in zip(axes, shown, strict=True):
    x = torch.from_numpy(image[None, None]).float()
    with torch.no_grad():
        mean, log_s = (part[0].numpy() for part in plane.model_.posterior(x))
        steps = np.linspace(-6, 6, 61)
        e = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)  # of z, in standard deviations of q
        z = mean + np.exp(log_s) * e
        h = plane.model_.decoder(torch.from_numpy(z).float(), None)
        log_px = plane.model_.likelihood.log_prob(h, (x / 8 - 1).expand(len(h), -1, -1, -1)).flatten(1).sum(1)
    log_joint = log_px.double().numpy() - 0.5 * (z**2).sum(1)
    p, q = np.exp(log_joint - log_joint.max()), np.exp(-0.5 * (e**2).sum(1))
    p, q = p / p.sum(), q / q.sum()
    lost = (q * (np.log(q) - np.log(np.maximum(p, 1e-300)))).sum()
    ax.pcolormesh(*z.T.reshape(2, 61, 61), p.reshape(61, 61), cmap="magma", rasterized=True)
    for radius in (1, 2):
        ax.plot(*(mean[:, None] + radius * np.exp(log_s)[:, None] * [np.cos(angles), np.sin(angles)]), "w", lw=0.8)
    ax.set(title=f"{lost:.2f} nats", xticks=[], yticks=[])
