"""
The latents of an image in a flow
=================================

Glow is a bijection with several levels. At each level half of the numbers become latents, and the other half passes to
the next level. The first latents describe fine detail, the last ones the shape.
"""

import matplotlib.pyplot as plt
import numpy as np

from flowdetect import GlowDensity, load_images
from flowdetect.evaluation import plot_image_grid

X, _ = load_images("digits")
X_test, _ = load_images("digits", "test")
density = GlowDensity(n_bins=17, n_steps=4, hidden_channels=64, max_epochs=25, random_state=0)
density.fit(X)
levels = density.latent_slices_
print("latents of each level:", [level.stop - level.start for level in levels])

# %%
# One level after another
# -----------------------
# The first row shows images. For the rows below, the latents of the first level, of the first two levels, and so on are
# set to zero before they are mapped back.

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
# With all levels zeroed, every image becomes the one that the flow maps to z = 0. :doc:`plot_interpolation` moves from
# one image to another.
