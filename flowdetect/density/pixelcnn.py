"""PixelCNN in three generations: masked convolutions, gates, and discretised logistic mixtures.

van den Oord et al., "Pixel Recurrent Neural Networks" (2016), https://arxiv.org/abs/1601.06759
van den Oord et al., "Conditional Image Generation with PixelCNN Decoders" (2016), https://arxiv.org/abs/1606.05328
Salimans et al., "PixelCNN++" (2017), https://arxiv.org/abs/1701.05517
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import Interval, StrOptions

from flowdetect.density.autoregressive import AutoregressiveDensity, rescaling
from flowdetect.density.sequential import AutoregressiveModel
from flowdetect.density.spec import DataSpec
from flowdetect.nets.causal import Block, CausalNet, GatedBlock, MaskedBlock, PointwiseBlock, Stage
from flowdetect.nets.gated_residual import ResidualBlock
from flowdetect.nets.heads import CategoricalHead, Head, LogisticMixtureHead, pixel_head
from flowdetect.nets.masked import CausalConv, MaskedMLP
from flowdetect.nets.rectified import rectified_net
from flowdetect.nets.stretched import MOST_BINS, StretchedMixtureHead

MAX_STAGES = 3
FIRST_KERNEL = 7  # "pixelcnn", "local" and "gated"


@dataclass(kw_only=True, eq=False, repr=False)
class PixelCNNDensity(AutoregressiveDensity):
    r"""Density by a PixelCNN: each pixel's distribution is computed from the pixels before it.

    .. math:: \log p(x) = \sum_i \log p(x_i \mid x_1, \dots, x_{i-1})

    in raster order, and within a pixel in the order of the channels. Use it for the best likelihood of images, and to
    complete images. Scores are exact, also for data in bins. A score takes one pass; a sample is computed pixel by
    pixel. On tables, a masked network models each column given the columns before it.

    Parameters
    ----------
    variant : "pixelcnn", "local", "gated", "pixelcnn++" or "rectified", default "gated"
        The network; no effect on tables.

        - "pixelcnn": masked convolutions in one stream, with a blind spot to the upper right.
        - "gated": two streams with gates, without a blind spot.
        - "pixelcnn++": two streams of residual blocks at up to three resolutions.
        - "local": as "pixelcnn", but a pixel depends only on pixels at most 3 rows above and at most 3 columns aside; a
          background model for `LikelihoodRatioDetector`.
        - "rectified": two streams of residual blocks with ReLU in place of gates. On a CPU gates take longer than the
          convolutions between them, so n_filters can be twice that of "gated" at the same speed. It has learned maps of
          the positions (for centred images), a first layer that reaches 7 rows and columns far and, for data in bins,
          receives how near each value is to the lowest, and a hidden layer before the likelihood.
    likelihood : "logistic_mixture", "stretched_mixture" or "categorical", default "logistic_mixture"
        "logistic_mixture": a mixture of logistic distributions. "categorical": a probability for each value; for data
        in bins only. "stretched_mixture": a mixture of logistic distributions on the grey levels that the image can
        have. If the contrast of an image was stretched (four in ten images of Fashion-MNIST), values at regular steps
        are missing, and the pixels so far show which; for images of one channel in at most 256 bins, see Notes.
    n_filters : int, default 32
        Width of the network.
    n_blocks : int, default 5
        Number of blocks; for "pixelcnn++", blocks of each stage on the way down.
    n_mixtures : int, default 10
        Components of the logistic mixture.
    dropout : float in [0, 1), default 0.0
    label_streams : "both" or "horizontal", default "both"
        The streams of "gated" and "pixelcnn++" that receive the label: both, as in the papers, or the horizontal stream
        only.
    shortcuts : "blocks" or "all", default "blocks"
        Shortcuts of "pixelcnn++" from the way down to the way up. "blocks": from the n_blocks blocks of each stage,
        with transposed convolutions of kernel 2x2. "all": from all layers, as in the authors' code, with n_blocks + 1
        blocks per stage on the way up (n_blocks in the lowest stage) and kernels of 2x3 in the vertical stream. On 8x8
        digits "blocks" has the better likelihood after equal training time.
    batch_size : int, default 16
        Rows per step. The default is small because the data of a small batch fit the processor's caches.
    learning_rate : float, default 3e-3

    All other parameters are those of `BaseDensity`.

    Attributes
    ----------
    n_features_in_ : int
    image_shape_ : (H, W, C) or None
    n_bins_ : int or None
    classes_, class_log_prior_ : (K,) arrays, of a conditional density
    constant_features_ : indices of the constant columns, which are not modelled
    history_ : dict of lists, one value per epoch: bits_per_dim, validation_bits_per_dim, skipped_steps, seconds
    n_iter_ : int, epochs trained
    score_is_bound_ : bool, False

    Notes
    -----
    Settings of the papers: PixelCNN++ on CIFAR-10 has variant="pixelcnn++", shortcuts="all", n_filters=160, n_blocks=5,
    n_mixtures=10, dropout=0.5 (Salimans et al. 2017, section 3.1); a smaller one for 28x28 images has n_filters=100,
    n_blocks=2, n_mixtures=3. On two CPU cores these take hours to days.

    "stretched_mixture" assumes that an image has the values floor(k (n_bins - 1) / M), k = 0 .. M, for an unknown M of
    at least (n_bins - 1) / 4. log p(x) is exact: it sums over all M. Under one M, the bin of a value reaches up to the
    next value that the image can have; with probability 1/1,024 a value may be any other. A sample draws M along with
    the pixels.

    A temperature in `sample` and `complete` multiplies the scales of the logistic distributions and divides the
    log-probabilities of the components (of the values, for the categorical likelihood).

    References
    ----------
    Conditional Image Generation with PixelCNN Decoders (van den Oord et al.), 2016, https://arxiv.org/abs/1606.05328
    PixelCNN++ (Salimans et al.), 2017, https://arxiv.org/abs/1701.05517
    The local variant: On the Out-of-distribution Generalization of Probabilistic Image Modelling (Zhang et al.), 2021,
    https://arxiv.org/abs/2109.02639

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect import PixelCNNDensity, load_images
    >>> X, _ = load_images("digits")
    >>> density = PixelCNNDensity(n_bins=17, n_filters=8, n_blocks=1, max_epochs=1, random_state=0).fit(X[:200])
    >>> density.likelihood_terms(X[:3]).log_px.shape
    (3, 8, 8)
    >>> density.complete(X[:2], known=4, random_state=0).shape
    (2, 8, 8)
    >>> mask = np.ones((8, 8), dtype=bool)
    >>> mask[2:4, 2:4] = False  # a hole
    >>> density.complete(X[:2], mask=mask, n_candidates=8, random_state=0).shape
    (2, 8, 8)
    """

    variant: str = "gated"
    likelihood: str = "logistic_mixture"
    n_filters: int = 32
    n_blocks: int = 5
    n_mixtures: int = 10
    dropout: float = 0.0
    label_streams: str = "both"
    shortcuts: str = "blocks"
    batch_size: int = 16
    learning_rate: float = 3e-3
    chunk_values: ClassVar[int] = 2**14  # fewer than a flow's: its streams hold more features per pixel

    _may_change: ClassVar[frozenset[str]] = frozenset({"dropout"})
    _former: ClassVar[dict[str, Any]] = {"label_streams": "horizontal"}

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **AutoregressiveDensity._parameter_constraints,
        "variant": [StrOptions({"pixelcnn", "local", "gated", "pixelcnn++", "rectified"})],
        "likelihood": [StrOptions({"logistic_mixture", "stretched_mixture", "categorical"})],
        "n_filters": [Interval(Integral, 1, None, closed="left")],
        "n_blocks": [Interval(Integral, 1, None, closed="left")],
        "n_mixtures": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "label_streams": [StrOptions({"both", "horizontal"})],
        "shortcuts": [StrOptions({"all", "blocks"})],
    }

    def _build(self, spec: DataSpec) -> AutoregressiveModel:
        sizes = self.n_filters, self.n_blocks, spec.n_context, self.dropout
        net: CausalNet | MaskedMLP
        if spec.is_table:
            net = MaskedMLP(spec.event_shape[0], self.n_filters, *sizes)
        else:
            both, every = self.label_streams == "both", self.shortcuts == "all"
            net = causal_net(self.variant, spec.event_shape, *sizes, both, every, spec.n_bins is not None)
        return AutoregressiveModel(
            spec.event_shape, rescaling(spec), net, self._head(spec), spec.n_bins, is_table=spec.is_table
        )

    def _head(self, spec: DataSpec) -> Head:
        channels = 1 if spec.is_table else spec.event_shape[0]
        if self.likelihood == "stretched_mixture":
            if spec.n_bins is None or spec.n_bins > MOST_BINS or channels > 1:
                found = "real values" if spec.n_bins is None else f"{channels} channel(s) in {spec.n_bins} bins"
                raise ValueError(
                    'PixelCNNDensity: likelihood="stretched_mixture" is for images of one channel in at most '
                    f'{MOST_BINS} bins, and X has {found}; pass "logistic_mixture".'
                )
            return StretchedMixtureHead(self.n_filters, self.n_mixtures, spec.n_bins)
        return pixel_head(
            self.likelihood,
            self.n_filters,
            channels,
            self.n_mixtures,
            spec.n_bins,
            owner=type(self).__name__,
            kinds=(LogisticMixtureHead, CategoricalHead),
        )


def causal_net(
    variant: str,
    event_shape: tuple[int, int, int],
    channels: int,
    n_blocks: int,
    n_context: int,
    dropout: float,
    both_streams: bool = True,
    all_shortcuts: bool = False,
    is_binned: bool = False,
) -> CausalNet:
    """Build the network of a variant for images (C, H, W); is_binned: data in bins, mapped to [-1, 1]."""
    c, height, width = event_shape
    half = FIRST_KERNEL // 2
    if variant in ("pixelcnn", "local"):
        mask = torch.ones(half + 1, FIRST_KERNEL)
        mask[half, half:] = 0  # mask "A": neither the pixel itself nor the pixels to its right
        first = CausalConv(c, channels, (half + 1, FIRST_KERNEL), half, half, mask=mask)
        kind = MaskedBlock if variant == "pixelcnn" else PointwiseBlock
        blocks: list[Block] = [kind(channels, n_context, dropout) for _ in range(n_blocks)]
        return CausalNet(None, [first], Stage(blocks, [], None, channels))
    if variant == "rectified":
        return rectified_net(event_shape, channels, n_blocks, n_context, dropout, is_binned)
    if variant == "gated":
        above = CausalConv(c, channels, (half, FIRST_KERNEL), half, half)
        left = CausalConv(c, channels, (1, half), 0, half)
        blocks = [GatedBlock(channels, n_context, dropout, both_streams) for _ in range(n_blocks)]
        return CausalNet(above, [left], Stage(blocks, [], None, channels))
    above = CausalConv(c, channels, (2, 3), 2, 1)
    lefts = [CausalConv(c, channels, (1, 3), 1, 1), CausalConv(c, channels, (2, 1), 1, 1)]
    n_stages = 1
    while n_stages < MAX_STAGES and min(height, width) // 2**n_stages >= 1:
        n_stages += 1
    stage: Stage | None = None
    sizes = channels, n_context, dropout
    for _ in range(n_stages):
        n_up = n_blocks + (all_shortcuts and stage is not None)
        down: list[Block] = [ResidualBlock(*sizes, False, both_streams) for _ in range(n_blocks)]
        up: list[Block] = [ResidualBlock(*sizes, True, both_streams) for _ in range(n_up)]
        stage = Stage(down, up, stage, channels, all_shortcuts)
    assert stage is not None
    return CausalNet(above, lefts, stage)
