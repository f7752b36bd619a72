"""
Same meaning, different likelihood
==================================

A semantic-invariant transformation (SIT) changes the pixels of an image and keeps its meaning. It moves a digit by one
pixel, for example, or adds invisible noise. A score of meaning would not change; a likelihood does.
"""

import matplotlib.pyplot as plt
from sklearn.frozen import FrozenEstimator

from flowdetect import (
    AddNoise,
    ComplexityDetector,
    Flip,
    GlowDensity,
    Gray,
    Translate,
    ZeroLatents,
    load_images,
    sit_report,
)

X, _ = load_images("digits")
X_test, y_test = load_images("digits", "test")
density = GlowDensity(n_bins=17, n_steps=4, hidden_channels=64, max_epochs=15, random_state=0)
density.fit(X)

# %%
# SITs are transformers
# ---------------------
# Each SIT has `fit` and `transform`, and works in pipelines. `ZeroLatents` sets the first latent level of a flow, which
# describes fine detail, to zero and maps back.

sits = {
    "1 pixel left": Translate(dx=-1, n_bins=17),
    "2 pixels left": Translate(dx=-2, n_bins=17),
    "noise, 0.001": AddNoise(scale=0.001, n_bins=17, random_state=0),
    "half as grey": Gray(0.5, n_bins=17),
    "mirrored": Flip(n_bins=17),
    "level 1 zeroed": ZeroLatents(FrozenEstimator(density), n_factors=1),
}

# %%
# One call
# --------
# `sit_report` takes any scorers, both densities and detectors. A shift above 0 means less normal. "AUROC clean"
# measures how well the score separates images from their transformed versions; a score of meaning has 0.5. "AUROC OoD"
# measures how well it separates the transformed images from another set, here upside-down digits.

detector = ComplexityDetector(FrozenEstimator(density)).fit(X)
scorers = {"Glow": density, "corrected": detector}
report = sit_report(scorers, X_test, sits, y_test, X_out=X_test[:, ::-1])
report

# %%
# The numbers below the images are bits per dimension; more bits are less likely.

_, ax = plt.subplots(figsize=(8.5, 9), layout="constrained")
report.select(["Glow"]).plot_examples(8, ax=ax)

# %%
# Over all test images
# --------------------
# The digits of this set are centred, so a flow learns that the margins are empty. A digit that is moved by a pixel or
# two enters the margin.

_, ax = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
report.select(["Glow"]).plot_shifts(ax=ax)

# %%
# The same by class: ones have the fewest strokes and the highest likelihood, under every transformation.

report.select(["Glow"], ["1 pixel left", "noise, 0.001", "level 1 zeroed"]).plot(fig=plt.figure())
