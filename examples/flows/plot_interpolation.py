"""
From one image to another
=========================

A flow maps every image to a latent and every latent to an image. Points between two latents are images between two
images. The difference of the mean latents of two groups is a direction that adds to an image what distinguishes the
groups.
"""

import matplotlib.pyplot as plt
import numpy as np

from flowdetect import GlowDensity, VAEDensity, load_images
from flowdetect.evaluation import plot_image_grid

X, y = load_images("digits")
X_test, y_test = load_images("digits", "test")
glow = GlowDensity(n_bins=17, n_steps=4, hidden_channels=64, max_epochs=25, random_state=0).fit(X)


def show(images, labels, height):
    """Draw rows of images, (rows, columns, 8, 8)."""
    _, ax = plt.subplots(figsize=(8.5, height), layout="constrained")
    flat = np.reshape(images, (-1, 8, 8))
    plot_image_grid(flat, n_columns=len(images[0]), row_labels=labels, value_range=(0, 16), ax=ax)


# %%
# Interpolation
# -------------
# `interpolate` takes pairs of images and moves from one to the other, both ends included, along a circle between their
# latents. On a straight line, points in the middle would be too close to 0 for standard normal noise.

pairs = [(0, 6), (3, 8), (4, 9)]
first, last = (np.stack([X_test[y_test == pair[end]][0] for pair in pairs]) for end in (0, 1))
steps = glow.interpolate(first, last, n=9)
show(steps, [f"from {a} to {b}" for a, b in pairs], 3)

# %%
# The ends are the images themselves, because a flow is invertible. To the flow, the images between are about as likely
# as the ends. Images that fade pixel by pixel are less likely:

assert (steps[:, 0] == first).all()
assert (steps[:, -1] == last).all()
faded = np.rint((first.astype(float) + last) / 2)
for name, images in {"ends": np.concatenate([first, last]), "halfway": steps[:, 4], "faded halfway": faded}.items():
    print(f"{name:14} {glow.bits_per_dim(images).mean():.2f} bits/dim")

# %%
# A VAE does the same with fewer latents. Its ends are the decoder's versions of the images, and the images between are
# smoother.

vae = VAEDensity(n_bins=17, latent_dim=16, hidden_channels=16, max_epochs=40, random_state=0).fit(X)
show(vae.interpolate(first, last, n=9), [f"from {a} to {b}" for a, b in pairs], 3)

# %%
# Directions
# ----------
# A direction is the mean latent of images with an attribute, minus that of images without it (section 5 of the Glow
# paper). The density was not trained on these labels. Here the attribute is a bold stroke: more ink than the median of
# the same digit. `move_along` adds a multiple of the direction to each image's latent; 0 leaves the image unchanged.

ink = X.mean((1, 2))
is_bold = ink > np.array([np.median(ink[y == digit]) for digit in range(10)])[y]
bold = vae.attribute_direction(X, is_bold)
amounts = [-2, -1, 0, 1, 2, 3]
chosen = np.stack([X_test[y_test == digit][1] for digit in (2, 5, 9)])
moved = vae.move_along(chosen, bold, amounts)
show(moved, ["", "", ""], 3.6)
for amount, images in zip(amounts, moved.swapaxes(0, 1), strict=True):
    print(f"amount {amount:2}: mean ink {images.mean():.2f}")

# %%
# The same with the flow, whose latents describe every detail of an image:

show(glow.move_along(chosen, glow.attribute_direction(X, is_bold), amounts), ["", "", ""], 3.6)

# %%
# Temperature
# -----------
# Noise multiplied by a temperature below 1 gives samples that are more likely and more similar. A flow also accepts a
# temperature for each level: in the last row the first level, which describes fine detail, has a lower one than the
# others.

temperatures = [0.3, 0.6, 1.0, [0.3, 1.0, 1.0]]
samples = [glow.sample(9, temperature=temperature, random_state=0) for temperature in temperatures]
labels = [
    f"T = {temperature}: {glow.bits_per_dim(drawn).mean():.2f}"
    for temperature, drawn in zip(temperatures, samples, strict=True)
]
show(samples, labels, 3.6)
