"""
Same meaning, other likelihood
==============================

A semantic-invariant transformation (SIT) changes an image so that its meaning stays: it moves the digit by a pixel, or
adds noise too weak to see. A score that follows meaning would stay as well.
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
# Each has `fit` and `transform`, and goes into pipelines. `ZeroLatents` sets the first latent level of the flow to
# zero, where fine detail lives, and maps back.

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
# `sit_report` takes any scorers, densities and detectors alike. A shift above 0 is less normal; "AUROC clean" says how
# well the score tells an image from its changed self, where a score that follows meaning has 0.5; "AUROC OoD" how well
# it tells the changed images from another set, here upside-down digits.

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
# The digits of this set are centred, so that a flow learns their empty margins, and a digit moved by a pixel or two
# falls where none was before.

_, ax = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
report.select(["Glow"]).plot_shifts(ax=ax)

# %%
# And by class: ones, of the fewest strokes, are the likeliest, whatever is done to them.

report.select(["Glow"], ["1 pixel left", "noise, 0.001", "level 1 zeroed"]).plot(fig=plt.figure())
