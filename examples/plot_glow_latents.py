"""
Where an image lives in a flow
==============================

Glow is a bijection in several levels: at each, half of the numbers leave as latents and the other half goes on. What
leaves first is fine detail; what stays to the end is the shape.
"""

import matplotlib.pyplot as plt
import numpy as np

from flowdetect import GlowDensity, load_images
from flowdetect.evaluation import plot_image_grid

X, y = load_images("digits")
X_test, y_test = load_images("digits", "test")
density = GlowDensity(n_bins=17, n_steps=4, hidden_channels=64, max_epochs=25, random_state=0)
density.fit(X)
levels = density.latent_slices_
print("latents of each level:", [level.stop - level.start for level in levels])

# %%
# One level after another
# -----------------------
# In the first row are images; below, the latents of the first level, of the first two, ... are set to zero before the
# way back.

shown = X_test[:8]
latents = density.transform(shown)
rows = [shown.reshape(8, -1)]
for k in range(1, len(levels) + 1):
    zeroed = latents.copy()
    zeroed[:, : levels[k - 1].stop] = 0
    rows.append(density.inverse_transform(zeroed))
labels = ["image", *(f"1 to {k} zeroed" for k in range(1, len(levels) + 1))]
_, ax = plt.subplots(figsize=(8.5, 3.6), layout="constrained")
plot_image_grid(np.concatenate(rows).reshape(-1, 8, 8), n_columns=8, row_labels=labels, value_range=(0, 16), ax=ax)

# %%
# With all levels zeroed, every image becomes the one that the flow maps to z = 0.
#
# From one digit to another
# -------------------------
# A straight line between two latents is a way from one image to the other. Halfway, a point on the line lies too close
# to the centre for standard normal noise; the circle through both keeps the length.

pairs = [(0, 1), (3, 8), (4, 9)]
steps = np.linspace(0, 1, 8)
ways = []
for first, last in pairs:
    a, b = density.transform(np.stack([X_test[y_test == first][0], X_test[y_test == last][0]]))
    angle = np.arccos(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    ways.append([(np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle) for t in steps])
images = density.inverse_transform(np.concatenate(ways)).reshape(-1, 8, 8)
labels = [f"from {first} to {last}" for first, last in pairs]
_, ax = plt.subplots(figsize=(8.5, 3), layout="constrained")
plot_image_grid(images, n_columns=8, row_labels=labels, value_range=(0, 16), ax=ax)

# %%
# Samples at a temperature
# ------------------------
# Noise times a temperature below 1 makes samples that are more alike, and likelier: each row says its temperature, and
# its mean bits per dimension.

temperatures = [0.3, 0.6, 0.8, 1.0]
samples = [density.sample(8, temperature=temperature, random_state=0) for temperature in temperatures]
labels = [
    f"T = {temperature}: {density.bits_per_dim(drawn).mean():.2f}"
    for temperature, drawn in zip(temperatures, samples, strict=True)
]
_, ax = plt.subplots(figsize=(8.5, 3.6), layout="constrained")
plot_image_grid(np.concatenate(samples), n_columns=8, row_labels=labels, value_range=(0, 16), ax=ax)
