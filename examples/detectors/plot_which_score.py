"""
Comparison of scores in both directions
=======================================

A score that separates set A from set B can fail if B is the training set. Here one density learns handwritten digits
and scores small digits; another learns small digits and scores the usual ones. Each score is rated by its worse
direction.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.frozen import FrozenEstimator

from flowdetect import (
    ComplexityDetector,
    DoSEDetector,
    GlowDensity,
    LikelihoodDetector,
    OODDetector,
    TransformDetector,
    TypicalityDetector,
    combine,
    load_images,
    ood_report,
    to_pyod,
)
from flowdetect.evaluation import plot_image_grid

X, _ = load_images("digits")  # (1297, 8, 8), values 0..16
X_test, _ = load_images("digits", "test")


def small(images):
    """Halve the size and put black around it."""
    quarters = images.reshape(-1, 4, 2, 4, 2).mean((2, 4)).round().astype(np.uint8)
    return np.pad(quarters, ((0, 0), (2, 2), (2, 2)))


train = {"digits": X, "small digits": small(X)}
test = {"digits": X_test, "small digits": small(X_test)}
_, ax = plt.subplots(figsize=(8, 2.4), layout="constrained")
plot_image_grid([*X_test[:8], *small(X_test[:8])], n_columns=8, row_labels=list(test), value_range=(0, 16), ax=ax)

# %%
# One density for each set, six scores
# ------------------------------------
# The detectors use a fitted density, and calibrate on 300 images that it was not trained on.


def detectors_for(images):
    """Fit a density, and the detectors on it."""
    density = GlowDensity(n_bins=17, n_steps=4, hidden_channels=64, max_epochs=12, random_state=0).fit(images[300:])
    frozen = FrozenEstimator(density)
    kinds = {
        "likelihood": LikelihoodDetector(frozen),
        "typicality": TypicalityDetector(frozen),
        "complexity": ComplexityDetector(frozen),
        "DoSE": DoSEDetector(frozen),
        "stirring": TransformDetector(frozen),
        "OODDetector": OODDetector(frozen),
    }
    return {name: each.fit(images[:300]) for name, each in kinds.items()}


fitted = {name: detectors_for(images) for name, images in train.items()}
directions = [("digits", "small digits"), ("small digits", "digits")]
reports = [ood_report(fitted[name], test[name], {other: test[other]}, name=name) for name, other in directions]
both = combine(reports)
both.worst()[["scorer", "in_set", "out_set", "auroc", "auroc_low", "auroc_high"]].round(3)

# %%
# The table is sorted by the worse direction of each score. In the picture, a good score has both marks at the right.

_, ax = plt.subplots(figsize=(8, 4.4), layout="constrained")
both.plot(ax=ax)

# %%
# From a score to a verdict
# -------------------------
# `p_values` compares an image with images that the density was not trained on; `predict` returns +1 or -1 by the
# detector's threshold. `to_pyod` adapts the same detector to pyod, where rows are flat and 1 is an outlier.

detector = fitted["digits"]["OODDetector"]
some = np.concatenate([X_test[:6], small(X_test[:6])])
_, ax = plt.subplots(figsize=(8, 2.8), layout="constrained")
titles = [f"p = {p:.3f}" for p in detector.p_values(some)]
plot_image_grid(some, titles=titles, n_columns=6, value_range=(0, 16), ax=ax)
print("scikit-learn:", detector.predict(some))
print("pyod:        ", to_pyod(detector).fit(X[:300].reshape(300, -1)).predict(some.reshape(len(some), -1)))

# sphinx_gallery_thumbnail_number = 2
