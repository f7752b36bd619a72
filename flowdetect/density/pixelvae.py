"""PixelVAE: a variational autoencoder whose decoder is a small PixelCNN.

Gulrajani et al., "PixelVAE: A Latent Variable Model for Natural Images" (2017), https://arxiv.org/abs/1611.05013
Kingma et al., "Improved Variational Inference with Inverse Autoregressive Flow" (2016),
https://arxiv.org/abs/1606.04934
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from flowdetect.density.latent import TABLE_WIDTH, LatentDensity, LatentModel
from flowdetect.density.spec import DataSpec
from flowdetect.nets.autoencoder import DecodedCategorical, DecodedMixture
from flowdetect.nets.cache import Whole, whole
from flowdetect.nets.causal import Block, CausalNet, GatedBlock, Messages, Stage, pointwise
from flowdetect.nets.heads import pixel_head
from flowdetect.nets.masked import CausalConv, MaskedMLP

MOST_FREE_BITS = 64


class MappedNet(CausalNet):
    """A gated PixelCNN that adds features of a map (n, F, H, W) at each pixel, at the start and before every gate.

    van den Oord et al. 2016, "Conditional Image Generation with PixelCNN Decoders", eq. 5.

    Parameters
    ----------
    image_channels, channels, map_features : int
    kernel : int
        Size of the first convolutions; odd. A pixel depends on kernel // 2 + n_blocks rows above its own, and on as
        many pixels to either side.
    n_blocks : int
    """

    def __init__(self, image_channels: int, channels: int, map_features: int, kernel: int, n_blocks: int) -> None:
        half = kernel // 2
        above = CausalConv(image_channels, channels, (half, kernel), half, half)
        left = CausalConv(image_channels, channels, (1, half), 0, half)
        blocks: list[Block] = [GatedBlock(channels, 0, 0.0) for _ in range(n_blocks)]
        super().__init__(above, [left], Stage(blocks, [], None, channels))
        self.maps = nn.ModuleList(pointwise(map_features, width * channels) for width in (1, *(2,) * n_blocks))

    def horizontal(self, image: Tensor, messages: Messages, context: Tensor | None, evaluate: Whole = whole) -> Tensor:
        """Compute the horizontal stream; the context is the whole map."""
        assert context is not None
        here = evaluate.at(context).to(image.dtype)
        first, *others = [evaluate(layer, here) for layer in self.maps]
        h = evaluate.first(self.h_first[0], image) + first
        for block, message, part in zip(self.stage.first, messages.first, others, strict=True):
            above = evaluate.at_pixel(message)
            assert above is not None
            h = block.horizontal(h, above + part, None, None, evaluate)
        return h


class MappedMLP(MaskedMLP):
    """Features of every column of a table from the columns before it and from a map of features (n, F, D, 1).

    Parameters
    ----------
    n_columns, hidden, features, n_blocks : int
        As in `MaskedMLP`.
    """

    def __init__(self, n_columns: int, hidden: int, features: int, n_blocks: int) -> None:
        super().__init__(n_columns, hidden, features, n_blocks, 0, 0.0)
        self.mix = pointwise(features, features, 2**0.5)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(n, 1, D, 1) and a map (n, features, D, 1) -> (n, features, D, 1)."""
        assert context is not None
        h = super().forward(x) + context
        mixed: Tensor = self.mix(h.relu())
        return h + mixed


class CausalLikelihood(nn.Module):
    """An autoregressive p(x | z), as a likelihood for `LatentModel`.

    Parameters
    ----------
    net : MappedNet or MappedMLP
        Maps values and the decoded map to features of each pixel, from the map and the pixels before it.
    head : DecodedMixture or DecodedCategorical
    """

    def __init__(self, net: MappedNet | MappedMLP, head: DecodedMixture | DecodedCategorical) -> None:
        super().__init__()
        self.net, self.head = net, head
        self.n_uniforms = head.n_uniforms

    def log_prob(self, h: Tensor, y: Tensor) -> Tensor:
        """log p(y | h) of a map (n, F, H, W) and values (n, C, H, W): (n, C, H, W), nats."""
        return self.head.log_prob(self.net(y, h), y)

    def draw(self, h: Tensor, u: Tensor, temperature: float) -> Tensor:
        """Draw values y (n, C, H, W) from uniform numbers u (n, n_uniforms, H, W), pixel by pixel."""
        return self._in_order(h, lambda f, i, j: self.head.draw(f, u[:, :, i : i + 1, j : j + 1], temperature))

    def mean(self, h: Tensor) -> Tensor:
        """Mean of each pixel given the pixels before it, set to their means: (n, C, H, W)."""
        return self._in_order(h, lambda f, i, j: self.head.mean(f))

    def _in_order(self, h: Tensor, value: Callable[[Tensor, int, int], Tensor]) -> Tensor:
        y = h.new_zeros(h.shape[0], self.head.channels, *h.shape[2:])
        for i, j, features in self.net.in_order(y, h):
            y[:, :, i, j] = value(features, i, j)[:, :, 0, 0]
        return y


class PixelLatentModel(LatentModel):
    """`LatentModel` with free bits: a lower limit on each latent dimension's divergence in training.

    Kingma et al. 2016, appendix C.8: the divergence is the batch's mean, and below the limit it has no gradient.

    Attributes
    ----------
    free_nats : float
        The limit for each latent dimension, nats.
    """

    free_nats: float = 0.0

    def _divergence(self, mean: Tensor, log_s: Tensor) -> Tensor:
        kl = super()._divergence(mean, log_s)
        if not self.training or not self.free_nats:
            return kl
        return kl.where(kl.detach().mean(0) > self.free_nats, self.free_nats)


@dataclass(kw_only=True, eq=False, repr=False)
class PixelVAEDensity(LatentDensity):
    r"""Density by a PixelVAE: a variational autoencoder whose decoder is a small PixelCNN.

    .. math:: p(x) = \int p(z) \prod_i p(x_i \mid x_1, \dots, x_{i-1}, z) \, dz

    Use it for a short code with sharp samples. After equal training time it had fewer bits/dim than `VAEDensity`; a
    sample is computed pixel by pixel. The latents describe an image as a whole, and the PixelCNN models how pixels
    depend on their neighbours. The prior p(z) is standard normal, and the encoder q(z | x) is normal with independent
    dimensions. A score is a lower bound of log p(x), as for `VAEDensity`. z is decoded to a map of features, which
    enters the PixelCNN at each pixel.

    Parameters
    ----------
    latent_dim : "auto" or int, default "auto"
        Dimensions of z. "auto": 32 for images; for tables the number of columns, at most 16.
    hidden_channels : int, default 32
        Width of encoder and decoder at full resolution. It is two and four times as large at coarser resolutions, and
        four times as large in a table's perceptrons.
    n_blocks : int, default 1
        Residual blocks of encoder and decoder at each resolution.
    n_filters : int, default 32
        Width of the PixelCNN.
    n_causal_blocks : int, default 1
        Blocks of the PixelCNN.
    causal_kernel : int, default 3
        Size of the PixelCNN's first convolutions; odd. A pixel depends on causal_kernel // 2 + n_causal_blocks rows
        above its own, and on as many pixels to either side; with fewer, the latents carry more. In a table, a column
        depends on all columns before it.
    free_bits : float in [0, 64], default 0.0
        Lower limit, in bits, on the KL divergence of each latent dimension (mean over the batch) in the training
        objective, so that a latent gains nothing by carrying less information. Scores do not use it.
    likelihood : "logistic_mixture" or "categorical", default "logistic_mixture"
        "categorical": a probability for each value; for data in bins only.
    n_mixtures : int, default 5
        Components of the logistic mixture.
    kl_warm_up : float in [0, 1], default 0.1
        Share of the training over which the weight of the KL divergence rises from 0 to 1. Scores do not use the
        weight.
    n_draws : int, default 1
        Draws of z per score. More draws give a tighter bound; the cost is proportional to them.
    learning_rate : float, default 3e-3

    All other parameters are those of `BaseDensity`.

    Attributes
    ----------
    n_features_in_ : int
    image_shape_ : (H, W, C) or None
    n_bins_ : int or None
    classes_, class_log_prior_ : (K,) arrays, of a conditional density
    constant_features_ : indices of the constant columns, which are not modelled
    history_ : dict of lists, one value per epoch: bits_per_dim (in training, with the KL's weight and free bits),
        validation_bits_per_dim, skipped_steps, seconds
    n_iter_ : int, epochs trained
    score_is_bound_ : bool, True

    Notes
    -----
    If the PixelCNN depends on enough of an image, it needs no latents, and training then ignores them: the KL
    divergence of q(z | x) from the prior, which is the information in z, falls to 0, and `transform` carries no
    information. The mean of ``-likelihood_terms(X).minus_kl`` measures this divergence, in nats. If it is near 0, use a
    smaller `causal_kernel`, fewer `n_causal_blocks`, a longer `kl_warm_up` or `free_bits`.

    The paper has several levels of latents for large images; here there is one, as in its section 3.1. Labels enter
    encoder and decoder.

    References
    ----------
    PixelVAE: A Latent Variable Model for Natural Images (Gulrajani et al.), 2017, https://arxiv.org/abs/1611.05013
    Free bits: Improved Variational Inference with Inverse Autoregressive Flow (Kingma et al.), 2016,
    https://arxiv.org/abs/1606.04934

    Examples
    --------
    >>> from flowdetect import PixelVAEDensity, load_images
    >>> X, _ = load_images("digits")
    >>> density = PixelVAEDensity(n_bins=17, latent_dim=8, hidden_channels=8, max_epochs=2, random_state=0).fit(X[:200])
    >>> density.score_samples(X[:3]).shape
    (3,)
    >>> density.transform(X[:3]).shape
    (3, 8)
    >>> density.sample(2, random_state=0).shape
    (2, 8, 8)
    """

    n_filters: int = 32
    n_causal_blocks: int = 1
    causal_kernel: int = 3
    free_bits: float = 0.0
    likelihood: str = "logistic_mixture"
    learning_rate: float = 3e-3
    chunk_values: ClassVar[int] = 2**14
    model_: PixelLatentModel = field(init=False)
    _image_latents: ClassVar[int] = 32

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **LatentDensity._parameter_constraints,
        "n_filters": [Interval(Integral, 1, None, closed="left")],
        "n_causal_blocks": [Interval(Integral, 1, None, closed="left")],
        "causal_kernel": [Interval(Integral, 3, None, closed="left")],
        "free_bits": [Interval(Real, 0, MOST_FREE_BITS, closed="both")],
        "likelihood": [StrOptions({"logistic_mixture", "categorical"})],
    }

    def _check_before_fit(self) -> None:
        super()._check_before_fit()
        if self.causal_kernel % 2 == 0:
            raise ValueError(f"causal_kernel must be odd, got {self.causal_kernel}; pass {self.causal_kernel + 1}.")

    def _build(self, spec: DataSpec) -> PixelLatentModel:
        latent_dim, (channels, height, width) = self._latent_dim(spec), spec.event_shape
        encoder, decoder = self._autoencoder(spec, 2 * latent_dim, self.n_filters)
        net: MappedNet | MappedMLP
        if spec.is_table:
            wide, columns, channels = TABLE_WIDTH * self.hidden_channels, channels, 1
            net = MappedMLP(columns, wide, self.n_filters, self.n_causal_blocks)
        else:
            kernel = min(self.causal_kernel, 2 * max(height, width) + 1)  # a larger kernel reaches no further pixel
            net = MappedNet(channels, self.n_filters, self.hidden_channels, kernel, self.n_causal_blocks)
        head = pixel_head(
            self.likelihood,
            self.n_filters,
            channels,
            self.n_mixtures,
            spec.n_bins,
            owner=type(self).__name__,
            kinds=(DecodedMixture, DecodedCategorical),
        )
        model = PixelLatentModel(
            spec.event_shape,
            encoder,
            decoder,
            CausalLikelihood(net, head),
            latent_dim,
            spec.n_bins,
            self.kl_warm_up,
            spec.is_table,
        )
        model.free_nats = float(self.free_bits) * math.log(2)
        return model
