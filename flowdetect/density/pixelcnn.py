"""PixelCNN in three generations: masked convolutions, gates, and discretised logistic mixtures.

van den Oord et al., "Pixel Recurrent Neural Networks" (2016), https://arxiv.org/abs/1601.06759
van den Oord et al., "Conditional Image Generation with PixelCNN Decoders" (2016), https://arxiv.org/abs/1606.05328
Salimans et al., "PixelCNN++" (2017), https://arxiv.org/abs/1701.05517
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils import Bunch
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from flowdetect._images import check_on_grid, draw_seed
from flowdetect.density._inputs import check_temperature
from flowdetect.density.base import DRAWN_AT_ONCE, BaseDensity
from flowdetect.density.model import DensityModel
from flowdetect.nets.causal import Block, CausalNet, GatedBlock, MaskedBlock, PointwiseBlock, ResidualBlock, Stage
from flowdetect.nets.heads import CategoricalHead, LogisticMixtureHead
from flowdetect.nets.masked import CausalConv, Dropout, MaskedMLP

MAX_STAGES = 3
FIRST_KERNEL = 7  # "pixelcnn", "local" and "gated"
PROGRESS_AFTER = 2.0  # seconds of sampling


class PixelCNNModel(DensityModel):
    """log p(x) = sum over pixels and channels of log p(x_i | those before), nats.

    Parameters
    ----------
    event_shape : (C, H, W)
    loc, scale : tensors that broadcast against (C, H, W)
        The network sees y = (x - loc) / scale, which for data in bins lies in [-1, 1].
    net : module, (n, C, H, W) -> features (n, F, H, W)
    head : LogisticMixtureHead or CategoricalHead
    n_bins, n_classes : int or None
    """

    loc: Tensor
    scale: Tensor

    def __init__(
        self,
        event_shape: tuple[int, int, int],
        rescaling: tuple[Tensor, Tensor],
        net: CausalNet | MaskedMLP,
        head: LogisticMixtureHead | CategoricalHead,
        n_bins: int | None,
        n_classes: int | None,
    ) -> None:
        super().__init__(event_shape, n_classes)
        for name, value in zip(("loc", "scale"), rescaling, strict=True):
            self.register_buffer(name, value)
        self.net, self.head, self.n_bins = net, head, n_bins
        self.is_table = isinstance(net, MaskedMLP)
        self.shows_progress = False

    def begin_step(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, Dropout):
                module.generator = generator

    def log_px(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-probability of each channel of each pixel, (n, C, H, W) -> (n, C, H, W)."""
        y = self._to_net((x - self.loc) / self.scale)
        log_px = self._from_net(self.head.log_prob(self.net(y, context), y))
        return log_px if self.n_bins is not None else log_px - self.scale.log()

    def log_prob(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        return self.log_px(x, context).flatten(1).sum(1)

    def sample(
        self,
        n: int,
        context: Tensor | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        blank = self.loc.new_zeros(n, *self.event_shape)
        return self.complete(blank, 0, context, temperature, generator)

    def complete(
        self,
        x: Tensor,
        n_known: int,
        context: Tensor | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw all pixels but the first n_known, in raster order, of x (n, C, H, W)."""
        y = self._to_net(((x - self.loc) / self.scale).clone())
        u = torch.rand(len(x), self.head.n_uniforms, *y.shape[2:], generator=generator, dtype=torch.float64).to(y)
        for index, (i, j, h) in enumerate(self._progress(self.net.in_order(y, context), y[0, 0].numel())):
            if index >= n_known:
                y[:, :, i, j] = self.head.draw(h, u[:, :, i : i + 1, j : j + 1], temperature)[:, :, 0, 0]
        values = self._from_net(y) * self.scale + self.loc
        return values if self.n_bins is None else values.round()

    def _progress(self, steps: Iterator[Any], n_steps: int) -> Any:
        if not self.shows_progress:
            return steps
        from tqdm.auto import tqdm

        return tqdm(steps, desc="sampling", total=n_steps, unit="pixel", delay=PROGRESS_AFTER)

    def _to_net(self, x: Tensor) -> Tensor:
        """Lay a table's row (n, D, 1, 1) out as a strip of D pixels, (n, 1, D, 1), for network and head."""
        return x.transpose(1, 2) if self.is_table else x

    def _from_net(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2) if self.is_table else x


@dataclass(kw_only=True, eq=False, repr=False)
class PixelCNNDensity(BaseDensity):
    r"""Density by a PixelCNN: each pixel's distribution is computed from the pixels before it.

    .. math:: \log p(x) = \sum_i \log p(x_i \mid x_1, \dots, x_{i-1})

    in raster order, and within a pixel in the order of the channels. Scores are exact, in bins too. A table's row is
    taken column by column, by a masked network.

    Parameters
    ----------
    variant : "pixelcnn", "local", "gated" or "pixelcnn++", default "gated"
        "pixelcnn": masked convolutions in one stream, which has a blind spot to the upper right; "gated": two streams
        with gates, without it; "pixelcnn++": two streams of residual blocks at up to three resolutions; "local": as
        "pixelcnn", but no pixel depends on one more than 3 rows above or 3 columns aside, as a background for
        `LikelihoodRatioDetector`. Without effect on tables.
    likelihood : "logistic_mixture" or "categorical", default "logistic_mixture"
        "categorical" has a probability for each value, and needs data in bins.
    n_filters : int, default 32
        Width of the network.
    n_blocks : int, default 5
        Blocks; of "pixelcnn++" in each stage, on the way down and on the way up again.
    n_mixtures : int, default 10
        Components of the logistic mixture.
    dropout : float in [0, 1), default 0.0
    batch_size : int, default 16
        Small, since a step on few images finds its data in the caches of the processor.
    learning_rate : float, default 3e-3

    All other parameters are those of `BaseDensity`: image_shape, n_bins, conditional; max_epochs, weight_decay,
    early_stopping, validation_fraction, n_iter_no_change, tol, warm_start, verbose, random_state; device, precision,
    n_devices, checkpoint.

    Attributes
    ----------
    n_features_in_ : int
    image_shape_ : (H, W, C) or None
    n_bins_ : int or None
    classes_, class_log_prior_ : (K,) arrays, of a conditional density
    constant_features_ : indices of the columns that are constant and not modelled
    history_ : dict of lists, one value an epoch: bits_per_dim, validation_bits_per_dim, skipped_steps, seconds
    n_iter_ : int, epochs trained
    score_is_bound_ : bool, False

    Notes
    -----
    Settings of the papers: PixelCNN++ on CIFAR-10 has variant="pixelcnn++", n_filters=160, n_blocks=5, n_mixtures=10,
    dropout=0.5 (Salimans et al. 2017, section 3.1); a smaller one for 28x28 images n_filters=100, n_blocks=2,
    n_mixtures=3. On two CPU cores these take hours to days.

    A temperature in `sample` and `complete` multiplies the scales of the logistic distributions and divides the
    logarithms of the components' (of the categorical likelihood: the values') probabilities.

    References
    ----------
    Conditional Image Generation with PixelCNN Decoders (van den Oord et al.), 2016, https://arxiv.org/abs/1606.05328
    PixelCNN++ (Salimans et al.), 2017, https://arxiv.org/abs/1701.05517
    The local variant: On the Out-of-distribution Generalization of Probabilistic Image Modelling (Zhang et al.), 2021,
    https://arxiv.org/abs/2109.02639

    Examples
    --------
    >>> from flowdetect import PixelCNNDensity, load_images
    >>> X, _ = load_images("digits")
    >>> density = PixelCNNDensity(n_bins=17, n_filters=8, n_blocks=1, max_epochs=1, random_state=0).fit(X[:200])
    >>> density.likelihood_terms(X[:3]).log_px.shape
    (3, 8, 8)
    >>> density.complete(X[:2], known=4, random_state=0).shape
    (2, 8, 8)
    """

    variant: str = "gated"
    likelihood: str = "logistic_mixture"
    n_filters: int = 32
    n_blocks: int = 5
    n_mixtures: int = 10
    dropout: float = 0.0
    batch_size: int = 16
    learning_rate: float = 3e-3
    model_: PixelCNNModel = field(init=False)
    chunk_values: ClassVar[int] = 2**14  # fewer than a flow's, as its streams hold more features a pixel

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseDensity._parameter_constraints,
        "variant": [StrOptions({"pixelcnn", "local", "gated", "pixelcnn++"})],
        "likelihood": [StrOptions({"logistic_mixture", "categorical"})],
        "n_filters": [Interval(Integral, 1, None, closed="left")],
        "n_blocks": [Interval(Integral, 1, None, closed="left")],
        "n_mixtures": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
    }

    def _build(self, event_shape: tuple[int, int, int]) -> PixelCNNModel:
        is_table = self.image_shape_ is None
        channels = 1 if is_table else event_shape[0]
        net: CausalNet | MaskedMLP
        if is_table:
            net = MaskedMLP(event_shape[0], self.n_filters, self.n_filters, self.n_blocks, self.n_classes, self.dropout)
        else:
            net = causal_net(self.variant, event_shape, self.n_filters, self.n_blocks, self.n_classes, self.dropout)
        head: LogisticMixtureHead | CategoricalHead
        if self.likelihood == "logistic_mixture":
            head = LogisticMixtureHead(self.n_filters, channels, self.n_mixtures, self.n_bins_)
        elif self.n_bins_ is not None:
            head = CategoricalHead(self.n_filters, channels, self.n_bins_)
        else:
            raise ValueError(
                'PixelCNNDensity: likelihood="categorical" is for data in bins, and X is real-valued; pass '
                '"logistic_mixture", or n_bins if X holds whole numbers.'
            )
        model = PixelCNNModel(event_shape, self._rescaling(), net, head, self.n_bins_, self.n_classes)
        model.shows_progress = bool(self.verbose)
        return model

    def _rescaling(self) -> tuple[Tensor, Tensor]:
        """loc and scale (C, 1, 1) that map bins to [-1, 1], and standardise real values."""
        if self.n_bins_ is not None:
            half = torch.tensor((self.n_bins_ - 1) / 2)
            return half.reshape(1, 1, 1), half.clone().reshape(1, 1, 1)
        loc, scale = (torch.from_numpy(np.array(value, dtype=np.float32)) for value in (self.loc_, self.scale_))
        return loc.reshape(-1, 1, 1), scale.reshape(-1, 1, 1)

    def likelihood_terms(self, X: ArrayLike, y: ArrayLike | None = None) -> Bunch:
        """Split each row's score into those of its values, nats.

        Returns
        -------
        terms : Bunch
            log_px : in the images' shape, (n, H, W) or (n, H, W, C), of a table (n, D); it sums to the score. A
            conditional density without y gives the terms of the likeliest class, and log_class : (n,), so that all
            still sum.
        """
        rows = self._read_rows(X)
        codes = self._likeliest_codes(rows, y, [None])

        def one_chunk(x: Any, k: Any) -> list[Tensor]:
            log_px = self.model_.log_px(self._to_tensor(x), self._to_context(k))
            return [log_px.permute(0, 2, 3, 1).flatten(1)]

        flat = self._in_chunks(one_chunk, rows, codes)[0]
        terms = Bunch(log_px=flat if self.image_shape_ is None else flat.reshape(len(flat), *self._picture_shape()))
        if self.conditional and y is None:
            terms.log_class = self._log_prob(rows, None, None) - flat.sum(1)
        return terms

    def _picture_shape(self) -> tuple[int, ...]:
        channels, height, width = self._event_shape()
        return (height, width) if channels == 1 else (height, width, channels)

    def complete(
        self,
        X: ArrayLike,
        known: int | tuple[int, int],
        *,
        y: ArrayLike | None = None,
        temperature: float = 1.0,
        random_state: Any = None,
    ) -> Any:
        """Draw what is unknown of images of which the first rows, or the first pixels, are known.

        Parameters
        ----------
        X : images or rows as in `fit`
        known : int or (int, int)
            How many rows of pixels are known (of a table: columns); or (row, column) of the first unknown pixel in
            raster order. In bins they are whole numbers; what lies behind is not looked at.
        y : (n,) class labels, optional
            Of a conditional density; without, they are drawn with their training frequencies.
        temperature : float, default 1.0
        random_state : int, RandomState or None

        Returns
        -------
        X : as `sample` gives it, the known part as it was
        """
        check_is_fitted(self)
        check_temperature(temperature)
        rows, n_known = self._read_rows(X), self._n_known(known)
        given = rows[:, : n_known * (1 if self.image_shape_ is None else self._event_shape()[0])]
        if self.n_bins_ is not None and given.size:
            check_on_grid(given, self.n_bins_)
        seed = draw_seed(random_state)
        codes = self._drawn_codes(y, len(rows), seed)
        generator = torch.Generator().manual_seed(seed)
        images = self._to_tensor(rows)
        parts = []
        with torch.no_grad():
            for start in range(0, len(rows), DRAWN_AT_ONCE):
                context = self._to_context(None if codes is None else codes[start : start + DRAWN_AT_ONCE])
                part = images[start : start + DRAWN_AT_ONCE]
                parts.append(self._to_rows(self.model_.complete(part, n_known, context, temperature, generator)))
        completed = np.concatenate(parts).astype(np.float64)
        completed[:, : given.shape[1]] = given  # in float64, as it came
        return self._restore(completed)

    def _n_known(self, known: Any) -> int:
        channels, height, width = self._event_shape()
        if self.image_shape_ is None:
            height = channels
        row, column = known if isinstance(known, tuple) and len(known) == 2 else (known, 0)
        whole = isinstance(row, Integral) and isinstance(column, Integral)
        if not whole or not (0 <= row <= height and 0 <= column < width) or (row == height and column):
            raise ValueError(
                f"known must be a number of rows, 0 .. {height}, or (row, column) of the first unknown pixel of "
                f"{height}x{width}, got {known!r}."
            )
        return int(row) * width + int(column)


def causal_net(
    variant: str, event_shape: tuple[int, int, int], channels: int, n_blocks: int, n_classes: int | None, dropout: float
) -> CausalNet:
    """Build the network of a variant for images (C, H, W)."""
    c, height, width = event_shape
    half = FIRST_KERNEL // 2
    if variant in ("pixelcnn", "local"):
        mask = torch.ones(half + 1, FIRST_KERNEL)
        mask[half, half:] = 0  # "A": neither the pixel itself nor what is right of it
        first = CausalConv(c, channels, (half + 1, FIRST_KERNEL), half, half, mask=mask)
        kind = MaskedBlock if variant == "pixelcnn" else PointwiseBlock
        blocks: list[Block] = [kind(channels, n_classes, dropout) for _ in range(n_blocks)]
        return CausalNet(None, [first], Stage(blocks, [], None, channels))
    if variant == "gated":
        above = CausalConv(c, channels, (half, FIRST_KERNEL), half, half)
        left = CausalConv(c, channels, (1, half), 0, half)
        blocks = [GatedBlock(channels, n_classes, dropout) for _ in range(n_blocks)]
        return CausalNet(above, [left], Stage(blocks, [], None, channels))
    above = CausalConv(c, channels, (2, 3), 2, 1)
    lefts = [CausalConv(c, channels, (1, 3), 1, 1), CausalConv(c, channels, (2, 1), 1, 1)]
    n_stages = 1
    while n_stages < MAX_STAGES and min(height, width) // 2**n_stages >= 1:
        n_stages += 1
    stage: Stage | None = None
    for _ in range(n_stages):
        down: list[Block] = [ResidualBlock(channels, n_classes, dropout) for _ in range(n_blocks)]
        up: list[Block] = [ResidualBlock(channels, n_classes, dropout, has_skip=True) for _ in range(n_blocks)]
        stage = Stage(down, up, stage, channels)
    assert stage is not None
    return CausalNet(above, lefts, stage)
