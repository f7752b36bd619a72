"""The densities that the laws are checked on: name -> constructor and data. A new density is one more line."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from flowdetect.datasets import load_images
from flowdetect.density import (
    BaseDensity,
    GlowDensity,
    MAFDensity,
    PixelCNNDensity,
    RealNVPDensity,
    VAEDensity,
)

DIGITS, LABELS = load_images("digits", return_X_y=True)  # (n, 8, 8) uint8, 0..16
RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, size=(40, 4, 4, 3)).astype(np.uint8)
REAL_IMAGES = RNG.normal(size=(40, 4, 4))
TABLE = RNG.normal(size=(60, 5)) * [1, 10, 0.1, 1, 1] + [0, 100, 0, 0, 0]
NAMES = RNG.choice(["even", "odd"], size=60)

# fast, and yet away from the identity that a flow starts as
glow = partial(GlowDensity, n_steps=1, hidden_channels=8, max_epochs=2, batch_size=16, learning_rate=2e-3)
pixelcnn = partial(PixelCNNDensity, n_filters=8, n_blocks=1, n_mixtures=2, max_epochs=2, batch_size=16)
realnvp = partial(
    RealNVPDensity, n_steps=1, n_blocks=1, hidden_channels=8, max_epochs=2, batch_size=16, learning_rate=2e-3
)
maf = partial(MAFDensity, n_transforms=2, hidden_features=(8,), max_epochs=2, batch_size=16, learning_rate=2e-3)
vae = partial(VAEDensity, latent_dim=3, hidden_channels=8, max_epochs=2, batch_size=16)


class Case(NamedTuple):
    make: Callable[..., BaseDensity]
    X: Any
    y: Any = None


DENSITIES = {
    "Glow, digits": Case(partial(glow, n_bins=17, n_steps=2), DIGITS[:80]),
    "Glow, digits as rows": Case(partial(glow, n_bins=17, image_shape=(8, 8)), DIGITS[:80].reshape(80, 64)),
    "Glow, digits by class": Case(partial(glow, n_bins=17, conditional=True), DIGITS[:80], LABELS[:80]),
    "Glow, constant volume": Case(partial(glow, n_bins=17, coupling="additive", split_prior="standard"), DIGITS[:80]),
    "Glow, exp scale, shuffle, two draws": Case(
        partial(glow, n_bins=17, scale="exp", permutation="shuffle", n_draws=2), DIGITS[:80]
    ),
    "Glow, linear preprocessing": Case(partial(glow, n_bins=17, preprocessing="linear"), DIGITS[:80]),
    "Glow, reverse, one level": Case(partial(glow, n_bins=17, permutation="reverse", n_levels=1), DIGITS[:80]),
    "Glow, likelihood, shuffle, by class": Case(
        partial(glow, n_bins=17, n_steps=2, factorization="likelihood", permutation="shuffle", conditional=True),
        DIGITS[:80],
        LABELS[:80],
    ),
    "Glow, likelihood reversed, reverse, digits as rows": Case(
        partial(glow, n_bins=17, image_shape=(8, 8), factorization="likelihood_reversed", permutation="reverse"),
        DIGITS[:80].reshape(80, 64),
    ),
    "Glow, random, constant volume": Case(
        partial(glow, factorization="random", permutation="shuffle", coupling="additive", split_prior="standard"),
        COLOUR,
    ),
    "Glow, colour": Case(glow, COLOUR),
    "Glow, colour, torch": Case(glow, torch.from_numpy(COLOUR).permute(0, 3, 1, 2)),
    "Glow, real-valued images": Case(glow, REAL_IMAGES),
    "Glow, one column": Case(glow, TABLE[:, :1]),
    "Glow, two columns": Case(partial(glow, n_steps=2), TABLE[:, :2].astype(np.float32)),
    "Glow, five columns": Case(glow, TABLE),
    "Glow, five columns by class": Case(partial(glow, conditional=True, permutation="shuffle"), TABLE, NAMES),
    "Glow, five columns in bins": Case(partial(glow, n_bins=9), RNG.integers(0, 9, size=(60, 5))),
    "RealNVP, digits": Case(partial(realnvp, n_bins=17), DIGITS[:80]),
    "RealNVP, likelihood, digits as rows": Case(
        partial(realnvp, n_bins=17, image_shape=(8, 8), factorization="likelihood"), DIGITS[:80].reshape(80, 64)
    ),
    "RealNVP, likelihood reversed, logit, by class": Case(
        partial(realnvp, n_bins=17, conditional=True, factorization="likelihood_reversed", preprocessing="logit"),
        DIGITS[:80],
        LABELS[:80],
    ),
    "RealNVP, random, colour, torch": Case(
        partial(realnvp, factorization="random", normalization="activation"),
        torch.from_numpy(COLOUR).permute(0, 3, 1, 2),
    ),
    "RealNVP, splines, real-valued images": Case(partial(realnvp, coupling="spline", n_levels=1), REAL_IMAGES),
    "RealNVP, NICE": Case(
        partial(realnvp, n_bins=17, coupling="additive", normalization="none", n_levels=1), DIGITS[:80]
    ),
    "RealNVP, the paper's, digits by class": Case(
        partial(
            realnvp,
            n_bins=17,
            conditional=True,
            net_normalization="batch",
            masking="image",
            last_level="checkerboard",
            decayed="scales",
            weight_decay=5e-5,
            preprocessing="logit",
            logit_range=(0.05, 1.0),
        ),
        DIGITS[:80],
        LABELS[:80],
    ),
    "RealNVP, one column": Case(realnvp, TABLE[:, :1]),
    "RealNVP, one column, affine": Case(partial(realnvp, coupling="affine"), TABLE[:, :1]),
    "RealNVP, five columns": Case(realnvp, TABLE),
    "RealNVP, five columns by class": Case(
        partial(realnvp, conditional=True, coupling="affine", normalization="activation"), TABLE, NAMES
    ),
    "RealNVP, five columns in bins": Case(partial(realnvp, n_bins=9), RNG.integers(0, 9, size=(60, 5))),
    "PixelCNN, digits": Case(partial(pixelcnn, variant="pixelcnn", n_bins=17), DIGITS[:80]),
    "PixelCNN, local, digits by class": Case(
        partial(pixelcnn, variant="local", n_bins=17, conditional=True), DIGITS[:80], LABELS[:80]
    ),
    "PixelCNN, gated, digits by class": Case(partial(pixelcnn, n_bins=17, conditional=True), DIGITS[:80], LABELS[:80]),
    "PixelCNN, gated, categorical, colour": Case(partial(pixelcnn, likelihood="categorical"), COLOUR),
    "PixelCNN, rectified, stretched, digits by class": Case(
        partial(pixelcnn, variant="rectified", likelihood="stretched_mixture", n_bins=17, conditional=True),
        DIGITS[:80],
        LABELS[:80],
    ),
    "PixelCNN, rectified, colour": Case(partial(pixelcnn, variant="rectified"), COLOUR),
    "PixelCNN++, all shortcuts, dropout, digits": Case(
        partial(pixelcnn, variant="pixelcnn++", shortcuts="all", n_bins=17, dropout=0.5), DIGITS[:80]
    ),
    "PixelCNN++, colour, torch": Case(
        partial(pixelcnn, variant="pixelcnn++"), torch.from_numpy(COLOUR).permute(0, 3, 1, 2)
    ),
    "PixelCNN++, real-valued images": Case(partial(pixelcnn, variant="pixelcnn++"), REAL_IMAGES),
    "PixelCNN, one column": Case(pixelcnn, TABLE[:, :1]),
    "PixelCNN, five columns": Case(pixelcnn, TABLE),
    "PixelCNN, five columns by class": Case(partial(pixelcnn, conditional=True), TABLE, NAMES),
    "PixelCNN, five columns in bins": Case(
        partial(pixelcnn, n_bins=9, likelihood="categorical"), RNG.integers(0, 9, size=(60, 5))
    ),
    "MAF, digits": Case(partial(maf, n_bins=17), DIGITS[:80]),
    "MAF, splines, random, by class": Case(
        partial(maf, n_bins=17, univariate="spline", order="random", conditional=True),
        COLOUR[:, :2, :2] // 16,
        LABELS[:40],
    ),
    "MAF, colour, torch": Case(maf, torch.from_numpy(COLOUR).permute(0, 3, 1, 2)),
    "MAF, one column": Case(maf, TABLE[:, :1]),
    "MAF, five columns": Case(partial(maf, univariate="spline"), TABLE),
    "MAF, five columns by class": Case(partial(maf, conditional=True, order="random"), TABLE, NAMES),
    "MAF, five columns in bins": Case(partial(maf, n_bins=9), RNG.integers(0, 9, size=(60, 5))),
    "VAE, digits": Case(partial(vae, n_bins=17), DIGITS[:80]),
    "VAE, categorical, digits by class": Case(
        partial(vae, n_bins=17, likelihood="categorical", conditional=True), DIGITS[:80], LABELS[:80]
    ),
    "VAE, colour, torch, three draws": Case(partial(vae, n_draws=3), torch.from_numpy(COLOUR).permute(0, 3, 1, 2)),
    "VAE, real-valued images": Case(vae, REAL_IMAGES),
    "VAE, one column": Case(vae, TABLE[:, :1]),
    "VAE, five columns": Case(partial(vae, latent_dim="auto"), TABLE),
    "VAE, five columns by class": Case(partial(vae, conditional=True, n_draws=2), TABLE, NAMES),
    "VAE, five columns in bins": Case(partial(vae, n_bins=9), RNG.integers(0, 9, size=(60, 5))),
}
