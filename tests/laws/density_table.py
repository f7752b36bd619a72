"""The densities that the laws are checked on: name -> constructor and data. A new density is one more line."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from flowdetect.datasets import load_images
from flowdetect.density import (
    BaseDensity,
    FlowPPDensity,
    GlowDensity,
    IAFDensity,
    MADEDensity,
    MAFDensity,
    NADEDensity,
    PixelCNNDensity,
    PixelRNNDensity,
    PixelVAEDensity,
    PlanarDensity,
    RadialDensity,
    RealNVPDensity,
    TarFlowDensity,
    VAEDensity,
)

DIGITS, LABELS = load_images("digits", return_X_y=True)  # (n, 8, 8) uint8, 0..16
RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, size=(40, 4, 4, 3)).astype(np.uint8)
REAL_IMAGES = RNG.normal(size=(40, 4, 4))
TABLE = RNG.normal(size=(60, 5)) * [1, 10, 0.1, 1, 1] + [0, 100, 0, 0, 0]
NAMES = RNG.choice(["even", "odd"], size=60)

# fast, and yet away from what a flow starts as
glow = partial(GlowDensity, n_steps=1, hidden_channels=8, max_epochs=2, batch_size=16, learning_rate=2e-3)
pixelcnn = partial(PixelCNNDensity, n_filters=8, n_blocks=1, n_mixtures=2, max_epochs=2, batch_size=16)
pixelrnn = partial(PixelRNNDensity, n_filters=8, n_blocks=1, n_mixtures=2, max_epochs=2, batch_size=16)
pixelvae = partial(
    PixelVAEDensity, latent_dim=3, hidden_channels=8, n_filters=8, n_mixtures=2, max_epochs=2, batch_size=16
)
realnvp = partial(
    RealNVPDensity, n_steps=1, n_blocks=1, hidden_channels=8, max_epochs=2, batch_size=16, learning_rate=2e-3
)
flowpp = partial(
    FlowPPDensity,
    n_couplings=(1, 1, 1),
    hidden_channels=8,
    n_blocks=1,
    n_heads=2,
    n_mixtures=3,
    max_epochs=2,
    batch_size=16,
)
maf = partial(MAFDensity, n_transforms=2, hidden_features=(8,), max_epochs=2, batch_size=16, learning_rate=2e-3)
planar = partial(PlanarDensity, n_steps=3, max_epochs=2, batch_size=16)
radial = partial(RadialDensity, n_steps=3, max_epochs=2, batch_size=16)
tarflow = partial(
    TarFlowDensity, n_flows=2, n_layers=1, hidden_channels=8, n_heads=2, max_epochs=2, batch_size=16, learning_rate=2e-3
)
iaf = partial(IAFDensity, n_transforms=2, hidden_features=(8,), max_epochs=2, batch_size=16, learning_rate=2e-3)
made = partial(MADEDensity, hidden_features=(8,), n_mixtures=2, max_epochs=2, batch_size=16)
nade = partial(NADEDensity, n_hidden=8, n_mixtures=2, max_epochs=2, batch_size=16)
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
    "Glow, memory efficient, digits by class": Case(
        partial(glow, n_bins=17, n_steps=2, conditional=True, memory_efficient=True), DIGITS[:80], LABELS[:80]
    ),
    "Glow, linear preprocessing": Case(partial(glow, n_bins=17, preprocessing="linear"), DIGITS[:80]),
    "Glow, reverse, one level": Case(partial(glow, n_bins=17, permutation="reverse", n_levels=1), DIGITS[:80]),
    "Glow, likelihood, shuffle, by class": Case(
        partial(glow, n_bins=17, n_steps=2, factorization="likelihood", permutation="shuffle", conditional=True),
        DIGITS[:80],
        LABELS[:80],
    ),
    "Glow, random, constant volume": Case(
        partial(glow, factorization="random", permutation="shuffle", coupling="additive", split_prior="standard"),
        COLOUR,
    ),
    "Glow, colour": Case(glow, COLOUR),
    "Glow, colour, torch": Case(glow, torch.from_numpy(COLOUR).permute(0, 3, 1, 2)),
    "Glow, real-valued images": Case(glow, REAL_IMAGES),
    "Glow, learned noise, digits by class": Case(
        partial(glow, n_bins=17, conditional=True, dequantization="variational", n_draws=2), DIGITS[:80], LABELS[:80]
    ),
    "Glow, one column": Case(glow, TABLE[:, :1]),
    "Glow, two columns": Case(partial(glow, n_steps=2), TABLE[:, :2].astype(np.float32)),
    "Glow, five columns": Case(glow, TABLE),
    "Glow, five columns by class": Case(partial(glow, conditional=True, permutation="shuffle"), TABLE, NAMES),
    "Glow, five columns in bins": Case(partial(glow, n_bins=9), RNG.integers(0, 9, size=(60, 5))),
    "Flow++, digits": Case(partial(flowpp, n_bins=17, dropout=0.2), DIGITS[:80]),
    "Flow++, uniform noise, digits by class": Case(
        partial(flowpp, n_bins=17, dequantization="uniform", conditional=True, n_heads=0), DIGITS[:80], LABELS[:80]
    ),
    "Flow++, colour, torch": Case(flowpp, torch.from_numpy(COLOUR).permute(0, 3, 1, 2)),
    "Flow++, real-valued images": Case(flowpp, REAL_IMAGES),
    "Flow++, one column": Case(flowpp, TABLE[:, :1]),
    "Flow++, five columns": Case(flowpp, TABLE),
    "Flow++, five columns by class": Case(partial(flowpp, conditional=True), TABLE, NAMES),
    "Flow++, five columns in bins": Case(partial(flowpp, n_bins=9), RNG.integers(0, 9, size=(60, 5))),
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
    "RealNVP, the paper's, small digits": Case(
        partial(
            realnvp,
            n_bins=17,
            net_normalization="batch",
            masking="image",
            last_level="checkerboard",
            decayed="scales",
            weight_decay=5e-5,
            preprocessing="logit",
            logit_range=(0.05, 1.0),
        ),
        DIGITS[:40, 2:6, 2:6],
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
    "PixelRNN, digits": Case(partial(pixelrnn, n_bins=17), DIGITS[:40]),
    "PixelRNN, rows, dropout, digits by class": Case(
        partial(pixelrnn, variant="row_lstm", n_bins=17, dropout=0.5, conditional=True), DIGITS[:40], LABELS[:40] % 2
    ),
    "PixelRNN, rows, categorical, colour": Case(
        partial(pixelrnn, variant="row_lstm", likelihood="categorical"), COLOUR
    ),
    "PixelRNN, colour, torch": Case(pixelrnn, torch.from_numpy(COLOUR).permute(0, 3, 1, 2)),
    "PixelRNN, real-valued images": Case(pixelrnn, REAL_IMAGES),
    "PixelRNN, one column": Case(pixelrnn, TABLE[:, :1]),
    "PixelRNN, five columns by class": Case(partial(pixelrnn, conditional=True), TABLE, NAMES),
    "PixelRNN, five columns in bins": Case(
        partial(pixelrnn, n_bins=9, likelihood="categorical"), RNG.integers(0, 9, size=(60, 5))
    ),
    "PixelVAE, digits": Case(partial(pixelvae, n_bins=17, free_bits=0.5), DIGITS[:20]),
    "PixelVAE, categorical, digits by class": Case(
        partial(pixelvae, n_bins=17, likelihood="categorical", conditional=True), DIGITS[:20], LABELS[:20] % 2
    ),
    "PixelVAE, colour, torch, three draws": Case(
        partial(pixelvae, n_draws=3, causal_kernel=5), torch.from_numpy(COLOUR).permute(0, 3, 1, 2)
    ),
    "PixelVAE, real-valued images": Case(pixelvae, REAL_IMAGES),
    "PixelVAE, one column": Case(pixelvae, TABLE[:, :1]),
    "PixelVAE, five columns by class": Case(partial(pixelvae, conditional=True), TABLE, NAMES),
    "PixelVAE, five columns in bins": Case(partial(pixelvae, n_bins=9), RNG.integers(0, 9, size=(60, 5))),
    "MAF, digits": Case(partial(maf, n_bins=17), DIGITS[:80]),
    "MAF, splines, random, by class": Case(
        partial(maf, n_bins=17, univariate="spline", order="random", conditional=True),
        COLOUR[:, :2, :2] // 16,
        LABELS[:40],
    ),
    "MAF, colour, torch": Case(maf, torch.from_numpy(COLOUR).permute(0, 3, 1, 2)),
    "MAF, learned noise, one column in bins": Case(
        partial(maf, n_bins=9, dequantization="variational"), RNG.integers(0, 9, size=(60, 1))
    ),
    "MAF, one column": Case(maf, TABLE[:, :1]),
    "MAF, five columns": Case(partial(maf, univariate="spline"), TABLE),
    "MAF, five columns by class": Case(partial(maf, conditional=True, order="random"), TABLE, NAMES),
    "MAF, five columns in bins": Case(partial(maf, n_bins=9), RNG.integers(0, 9, size=(60, 5))),
    "Planar, digits": Case(partial(planar, n_bins=17), DIGITS[:80]),
    "Planar, colour, torch, two draws": Case(partial(planar, n_draws=2), torch.from_numpy(COLOUR).permute(0, 3, 1, 2)),
    "Planar, one column": Case(planar, TABLE[:, :1]),
    "Planar, five columns": Case(planar, TABLE),
    "Planar, five columns by class": Case(partial(planar, conditional=True), TABLE, NAMES),
    "Radial, digits by class": Case(partial(radial, n_bins=17, conditional=True), DIGITS[:80], LABELS[:80]),
    "Radial, real-valued images": Case(radial, REAL_IMAGES),
    "Radial, one column": Case(radial, TABLE[:, :1]),
    "Radial, five columns": Case(radial, TABLE),
    "Radial, five columns in bins": Case(partial(radial, n_bins=9), RNG.integers(0, 9, size=(60, 5))),
    "TarFlow, digits": Case(partial(tarflow, n_bins=17), DIGITS[:80]),
    "TarFlow, digits as rows by class": Case(
        partial(tarflow, n_bins=17, image_shape=(8, 8), conditional=True, patch_size=4),
        DIGITS[:80].reshape(80, 64),
        LABELS[:80],
    ),
    "TarFlow, colour": Case(partial(tarflow, patch_size=2), COLOUR),
    "TarFlow, colour, torch, two draws": Case(
        partial(tarflow, n_draws=2), torch.from_numpy(COLOUR).permute(0, 3, 1, 2)
    ),
    "TarFlow, real-valued images": Case(partial(tarflow, patch_size=2), REAL_IMAGES),
    "TarFlow, one column": Case(tarflow, TABLE[:, :1]),
    "TarFlow, five columns": Case(tarflow, TABLE),
    "TarFlow, five columns by class": Case(partial(tarflow, conditional=True), TABLE, NAMES),
    "TarFlow, five columns in bins": Case(partial(tarflow, n_bins=9), RNG.integers(0, 9, size=(60, 5))),
    "IAF, two by two digits": Case(partial(iaf, n_bins=17), DIGITS[:80, 2:4, 2:4]),
    "IAF, splines, random, by class": Case(
        partial(iaf, univariate="spline", order="random", conditional=True), TABLE, NAMES
    ),
    "IAF, one column": Case(iaf, TABLE[:, :1]),
    "IAF, five columns": Case(iaf, TABLE),
    "IAF, five columns in bins": Case(partial(iaf, n_bins=9), RNG.integers(0, 9, size=(60, 5))),
    "MADE, digits": Case(partial(made, n_bins=17), DIGITS[:80]),
    "MADE, two orders, binary digits by class": Case(
        partial(made, n_bins=2, n_orders=2, conditional=True), DIGITS[:80] // 9, LABELS[:80] % 2
    ),
    "MADE, two masks, colour, torch": Case(
        partial(made, n_masks=2, hidden_features=(8, 8)), torch.from_numpy(COLOUR).permute(0, 3, 1, 2)
    ),
    "MADE, real-valued images": Case(made, REAL_IMAGES),
    "MADE, one column": Case(partial(made, n_orders=2), TABLE[:, :1]),
    "MADE, five columns": Case(partial(made, n_orders=2, n_masks=2), TABLE),
    "MADE, five columns by class": Case(partial(made, conditional=True), TABLE, NAMES),
    "MADE, five columns in bins": Case(
        partial(made, n_bins=9, likelihood="categorical"), RNG.integers(0, 9, size=(60, 5))
    ),
    "NADE, digits": Case(partial(nade, n_bins=17), DIGITS[:80]),
    "NADE, three orders, binary digits by class": Case(
        partial(nade, n_bins=2, n_orders=3, conditional=True), DIGITS[:80] // 9, LABELS[:80] % 2
    ),
    "NADE, two orders, colour, torch": Case(partial(nade, n_orders=2), torch.from_numpy(COLOUR).permute(0, 3, 1, 2)),
    "NADE, real-valued images": Case(nade, REAL_IMAGES),
    "NADE, one column": Case(partial(nade, n_orders=2), TABLE[:, :1]),
    "NADE, five columns": Case(partial(nade, n_orders=3), TABLE),
    "NADE, five columns by class": Case(partial(nade, conditional=True), TABLE, NAMES),
    "NADE, five columns in bins": Case(
        partial(nade, n_bins=9, likelihood="categorical"), RNG.integers(0, 9, size=(60, 5))
    ),
    "VAE, digits": Case(partial(vae, n_bins=17), DIGITS[:80]),
    "VAE, categorical, digits by class": Case(
        partial(vae, n_bins=17, likelihood="categorical", conditional=True), DIGITS[:80], LABELS[:80]
    ),
    "VAE, colour, torch, three draws": Case(partial(vae, n_draws=3), torch.from_numpy(COLOUR).permute(0, 3, 1, 2)),
    "VAE, real-valued images": Case(vae, REAL_IMAGES),
    "VAE, one column": Case(vae, TABLE[:, :1]),
    "VAE, five columns": Case(partial(vae, latent_dim="auto"), TABLE),
    "VAE, five columns by class": Case(partial(vae, conditional=True, n_draws=2), TABLE, NAMES),
    "VAE, planar posterior, digits": Case(partial(vae, n_bins=17, posterior="planar"), DIGITS[:80]),
    "VAE, radial posterior, one column": Case(partial(vae, posterior="radial", n_posterior_steps=2), TABLE[:, :1]),
    "VAE, iaf posterior, colour, torch, two draws": Case(
        partial(vae, posterior="iaf", n_draws=2), torch.from_numpy(COLOUR).permute(0, 3, 1, 2)
    ),
    "VAE, realnvp posterior, five columns by class": Case(
        partial(vae, posterior="realnvp", conditional=True), TABLE, NAMES
    ),
    "VAE, five columns in bins": Case(partial(vae, n_bins=9), RNG.integers(0, 9, size=(60, 5))),
}
