"""
A likelihood is no verdict
==========================

Outlier detection by likelihood trains a density on normal data and calls unlikely rows outliers. On images this can
fail, because simple images have a high likelihood. Here a flow learns handwritten digits, and scores half digits and
digits of half the size, which it was not trained on.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.frozen import FrozenEstimator

from flowdetect import ComplexityDetector, GlowDensity, LikelihoodDetector, Translate, load_images, ood_report
from flowdetect.evaluation import plot_image_grid, plot_score_histograms

X, _ = load_images("digits")  # (1297, 8, 8), values 0..16
X_test, _ = load_images("digits", "test")
train, held_out = X[100:], X[:100]
density = GlowDensity(n_bins=17, n_steps=4, hidden_channels=64, max_epochs=12, random_state=0)
density.fit(train)

# %%
# Digits, halves and small ones
# -----------------------------
# The number above each image is the flow's bits per dimension; fewer bits are more likely.

halved = np.where(np.arange(8) < 4, X_test, 0)
quarters = X_test.reshape(-1, 4, 2, 4, 2).mean((2, 4)).round()  # (n, 4, 4)
outside = {"halved": halved, "small": np.pad(quarters, ((0, 0), (2, 2), (2, 2)))}
rows = [images[10:18] for images in (X_test, *outside.values())]
_, ax = plt.subplots(figsize=(8.5, 3.8), layout="constrained")
plot_image_grid(
    [image for row in rows for image in row],
    titles=[f"{bits:.2f}" for row in rows for bits in density.bits_per_dim(row)],
    n_columns=8,
    row_labels=["digits", *outside],
    value_range=(0, 16),
    ax=ax,
)

# %%
# Two detectors, one density
# --------------------------
# `ComplexityDetector` subtracts the size of a lossless file of the image. Simple images have small files, so this
# removes the effect of simplicity. Both detectors use the same fitted density, and set their thresholds on images that
# it was not trained on.

frozen = FrozenEstimator(density)
detectors = {
    "likelihood": LikelihoodDetector(frozen).fit(held_out),
    "corrected": ComplexityDetector(frozen).fit(held_out),
}
report = ood_report(detectors, X_test, outside, name="digits")
report

# %%
# AUROC is the probability that an outlier scores lower than a normal image: 1 is perfect, 0.5 is guessing, and below
# 0.5 outliers score higher.

_, axes = plt.subplots(2, figsize=(7, 6), layout="constrained")
plot_score_histograms(report.scores["likelihood"], xlabel="log-likelihood, nats", ax=axes[0])
plot_score_histograms(report.scores["corrected"], xlabel="corrected score, bits", ax=axes[1])

# %%
# No score is right everywhere
# ----------------------------
# The file size is not always useful. A digit moved by one pixel is about as complex as before. The correction then
# mainly adds the spread of the file sizes, and the likelihood alone is better.

moved = Translate(dx=-1, n_bins=17).fit_transform(X_test)
ood_report(detectors, X_test, {"moved": moved}, name="digits")

# sphinx_gallery_thumbnail_number = 2
