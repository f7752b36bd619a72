"""Draw the pictures of the guide's pages from the data that the pages use.

    OMP_NUM_THREADS=1 python docs/guide/draw_pictures.py

A minute of it is the training of the Glow on docs/guide/images.rst. Names of pictures as arguments draw these alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_breast_cancer, load_wine, make_moons
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from flowdetect import (
    AddNoise,
    Flip,
    GlowDensity,
    OODDetector,
    Translate,
    ZeroLatents,
    load_images,
    sit_report,
)
from flowdetect.evaluation import plot_image_grid, plot_score_histograms

FOLDER = Path(__file__).parent
BLUE, ORANGE, GREY = "#2f6eb0", "#d9722e", "#666666"


def images_samples() -> Figure:
    """Draw test images of digits above samples of a Glow."""
    X, _ = load_images("digits")
    X_test, _ = load_images("digits", "test")
    flow = GlowDensity(n_bins=17, hidden_channels=64, time_limit=60, random_state=0).fit(X)
    both = np.concatenate([X_test[:12], flow.sample(12, random_state=0)])
    return plot_image_grid(both, n_columns=12, row_labels=["test", "samples"], value_range=(0, 16)).figure


def detectors_threshold() -> Figure:
    """Draw scores of benign and malignant rows, and the threshold."""
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    train, rest = train_test_split(X[y == 1], train_size=200, random_state=0)
    detector = OODDetector(random_state=0).fit(train)
    fig = Figure(figsize=(7, 2.8), layout="constrained")
    ax = fig.subplots()
    scores = {"benign, new": detector.score_samples(rest), "malignant": detector.score_samples(X[y == 0])}
    plot_score_histograms(scores, xlabel="score (higher is more normal)", ax=ax)
    ax.axvline(detector.offset_, color="black", linewidth=1, linestyle="--")
    place = (detector.offset_, 0.97)
    ax.annotate(" offset_; outliers lie left", place, xycoords=("data", "axes fraction"), va="top", color=GREY)
    return fig


def _moons(n_rows: int, seed: int) -> np.ndarray:
    return make_moons(n_rows, noise=0.08, random_state=seed)[0]


def p_values() -> Figure:
    """Draw p-values of normal rows, and the sorted ones of a batch with the line of Benjamini and Hochberg."""
    detector = OODDetector(random_state=0).fit(_moons(2000, 0))
    outliers = np.random.default_rng(0).uniform([-2, 2], [3, 3], (10, 2))
    batch = np.concatenate([_moons(190, 3), outliers])
    fig = Figure(figsize=(9, 3), layout="constrained")
    left, right = fig.subplots(1, 2)
    left.hist(detector.p_values(_moons(4000, 1)), bins=np.linspace(0, 1, 21), color=BLUE, edgecolor="white")
    left.set(xlabel="p-value", ylabel="new normal rows", xlim=(0, 1))
    p = detector.p_values(batch)
    order, is_outlier = np.argsort(p, kind="stable")[:25], np.arange(200) >= 190
    rank = np.arange(1, 26)
    for kind, color, label in ((False, BLUE, "normal"), (True, ORANGE, "outlier")):
        shown = is_outlier[order] == kind
        right.plot(rank[shown], p[order][shown], "o", color=color, markersize=4, label=label)
    right.plot(rank, 0.1 * rank / len(batch), color=GREY, linewidth=1, label="0.1 · place / 200")
    right.set(xlabel="place in the batch, by p-value", ylabel="p-value", ylim=(0, None))
    right.legend(frameon=False)
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    return fig


def explanations_table() -> Figure:
    """Explain a wine with too little alcohol."""
    X, y = load_wine(return_X_y=True, as_frame=True)
    train = X[y == 0]
    odd = train[:1].assign(alcohol=11.0)
    return OODDetector(random_state=0).fit(train).explain(odd).plot(row=0).figure


def explanations_image() -> Figure:
    """Explain a digit with a white corner."""
    X, _ = load_images("digits")
    spoilt = load_images("digits", "test")[0][:1].copy()
    spoilt[0, :2, :2] = 16
    shown = OODDetector(time_limit=20, random_state=0).fit(X).explain(spoilt)
    return shown.plot(row=0).figure


def sits() -> Figure:
    """Draw digits under four SITs, and what a flow and a mixture say of them."""
    X, _ = load_images("digits")
    X_test, _ = load_images("digits", "test")
    flow = GlowDensity(n_bins=17, hidden_channels=64, time_limit=60, random_state=0).fit(X)
    flatten = FunctionTransformer(lambda images: np.reshape(images, (len(images), -1)).astype(float))
    mixture = make_pipeline(flatten, PCA(20, random_state=0), GaussianMixture(5, random_state=0)).fit(X)
    used = {
        "moved": Translate(dx=1, n_bins=17),
        "mirrored": Flip(n_bins=17),
        "noise": AddNoise(0.001, n_bins=17, random_state=0),
        "latents": ZeroLatents(FrozenEstimator(flow)),
    }
    return sit_report({"flow": flow, "mixture": mixture}, X_test, used, n_bootstrap=20).plot_examples(10).figure


PICTURES = (images_samples, detectors_threshold, p_values, explanations_table, explanations_image, sits)


def main() -> None:
    """Draw all pictures, or those that are named."""
    matplotlib.use("agg")
    for draw in PICTURES:
        if not sys.argv[1:] or draw.__name__ in sys.argv[1:]:
            draw().savefig(FOLDER / f"{draw.__name__}.png", dpi=130, facecolor="white")


if __name__ == "__main__":
    main()
