"""
Which score, both ways
======================

A corrected score that works in one direction can fail in the other. Here one density learns handwritten digits and is
asked about small digits, another learns small digits and is asked about the usual ones; every score is looked at both
ways, and its worse direction is what counts.
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
# One density a set, six scores
# -----------------------------
# The detectors ask a density that is fitted already, and learn what they need from 300 images that it has not seen.


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
both.worst().round(3)

# %%
# The first column of the table is ordered by each score's worse direction; in the picture a score that holds has both
# marks at the right.

_, ax = plt.subplots(figsize=(8, 4.4), layout="constrained")
both.plot(ax=ax)

# %%
# From a score to a verdict
# -------------------------
# `p_values` compare an image with those that the density was not trained on, and `predict` says +1 or -1 at the
# detector's threshold. The same detector speaks pyod, where rows are flat and 1 is an outlier.

detector = fitted["digits"]["OODDetector"]
some = np.concatenate([X_test[:6], small(X_test[:6])])
_, ax = plt.subplots(figsize=(8, 2.8), layout="constrained")
plot_image_grid(some, titles=[f"p = {p:.3f}" for p in detector.p_values(some)], n_columns=6, value_range=(0, 16), ax=ax)
print("scikit-learn:", detector.predict(some))
print("pyod:        ", to_pyod(detector).fit(X[:300].reshape(300, -1)).predict(some.reshape(len(some), -1)))

# %%
# sphinx_gallery_thumbnail_number = 2
