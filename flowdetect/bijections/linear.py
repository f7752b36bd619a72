"""Linear bijections of the channels: the invertible 1x1 convolution and its fixed alternatives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from flowdetect.bijections.base import Bijection, soft_bound
from flowdetect.bijections.elementwise import ActNorm
from flowdetect.nets.conv import SPEED

LU_BOUND = 10.0


def mix_channels(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply the channels of every pixel by one matrix: (n, c, H, W) -> W x + b, of the same shape.

    It is computed as one small matrix product per row, which for few channels is faster than a convolution.
    """
    n, c = x.shape[:2]
    weight, pixels = weight.expand(n, c, c), x.flatten(2)
    mixed = torch.bmm(weight, pixels) if bias is None else torch.baddbmm(bias[:, None], weight, pixels)
    return mixed.view(x.shape)


def mean_condition(weight: Tensor, inverse: Tensor) -> Tensor:
    """Mean condition of a matrix (c, c) over directions, from it and its inverse: a scalar, 1 for a rotation."""
    condition: Tensor = weight.norm() * inverse.norm() / len(weight)
    return condition


class Permute(Bijection):
    """A fixed permutation of the channels: reversed, drawn once at random ("shuffle"), or a given one.

    Parameters
    ----------
    channels : int
    kind : "reverse" or "shuffle"
    order : (channels,) sequence of int, optional
        Channel i of the result is channel order[i]; replaces `kind`.

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import Permute
    >>> z, log_det = Permute(3)(torch.arange(3.0).reshape(1, 3, 1, 1))
    >>> z.flatten(), log_det
    (tensor([2., 1., 0.]), tensor([0.]))
    """

    order: Tensor

    def __init__(self, channels: int, kind: str = "reverse", order: Sequence[int] | None = None) -> None:
        super().__init__()
        self.kind = kind if order is None else "given"
        self.register_buffer("order", torch.arange(channels).flip(0) if order is None else torch.tensor(order))

    def reset_parameters(self, generator: Generator) -> None:
        if self.kind == "shuffle":
            self.order.copy_(torch.randperm(len(self.order), generator=generator))

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x[:, self.order], x.new_zeros(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return z[:, torch.argsort(self.order)]


class Whiten(Bijection):
    """A fixed lower triangular matrix of the channels: z = W x at every pixel, e.g. W = L^-1 of a covariance L L^T.

    Parameters
    ----------
    weight : (c, c) lower triangular tensor, positive on the diagonal, whose entries bound the scale

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import Whiten
    >>> whiten = Whiten(torch.tensor([[1.0, 0.0], [-0.5, 2.0]]))
    >>> z, log_det = whiten(torch.ones(1, 2, 1, 1))
    >>> z.flatten(), log_det  # log 2
    (tensor([1.0000, 1.5000]), tensor([0.6931]))
    """

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.clone())

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = self.weight.diagonal().log().sum() * (x.shape[2] * x.shape[3])
        return mix_channels(x, self.weight), log_det.expand(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        weight = self.weight.expand(z.shape[0], *self.weight.shape)
        x: Tensor = torch.linalg.solve_triangular(weight, z.flatten(2), upper=False)
        return x.view(z.shape)


class Conv1x1(Bijection):
    """Invertible 1x1 convolution in LU form: z = W x at every pixel, W = P L (U + diag(s)).

    P is a fixed permutation, L unit lower and U strictly upper triangular, |s| in (e^-10, e^10) with fixed signs;
    log|det| = H W sum(log|s|). It starts as a random rotation (Kingma & Dhariwal 2018, section 3.2, eq. 10 and 11).

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import Conv1x1
    >>> layer = Conv1x1(3)
    >>> layer.reset_parameters(torch.Generator().manual_seed(0))  # a random rotation, so log|det| is 0
    >>> x = torch.ones(1, 3, 2, 2)
    >>> z, log_det = layer(x)
    >>> torch.allclose(layer.inverse(z), x, atol=1e-5)
    True
    """

    permutation: Tensor
    sign_s: Tensor
    unit: Tensor
    below: Tensor
    above: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("permutation", torch.eye(channels))
        self.register_buffer("sign_s", torch.ones(channels))
        self.register_buffer("unit", torch.eye(channels), persistent=False)
        self.register_buffer("below", SPEED * torch.ones(channels, channels).tril(-1), persistent=False)
        self.register_buffer("above", SPEED * torch.ones(channels, channels).triu(1), persistent=False)
        self.raw_lower = nn.Parameter(torch.zeros(channels, channels))
        self.raw_upper = nn.Parameter(torch.zeros(channels, channels))
        self.raw_log_s = nn.Parameter(torch.zeros(channels))

    @torch.no_grad()
    def reset_parameters(self, generator: Generator) -> None:
        channels = len(self.sign_s)
        noise = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
        rotation, _ = torch.linalg.qr(noise)
        permutation, lower, upper = torch.linalg.lu(rotation)
        s = upper.diagonal()
        self.permutation.copy_(permutation)
        self.raw_lower.copy_(lower.tril(-1) / SPEED)
        self.raw_upper.copy_(upper.triu(1) / SPEED)
        self.sign_s.copy_(s.sign())
        self.raw_log_s.copy_(LU_BOUND * torch.atanh(s.abs().log().clamp(-0.999 * LU_BOUND) / LU_BOUND) / SPEED)

    def _log_s(self) -> Tensor:
        return soft_bound(self.raw_log_s, LU_BOUND, SPEED)

    def _factors(self, log_s: Tensor) -> tuple[Tensor, Tensor]:
        lower = self.raw_lower * self.below + self.unit
        upper = self.raw_upper * self.above + torch.diag(self.sign_s * log_s.exp())
        return lower, upper

    def weight_and_log_det(self) -> tuple[Tensor, Tensor]:
        """W (c, c), and log|det W| per pixel, a scalar."""
        log_s = self._log_s()
        lower, upper = self._factors(log_s)
        return self.permutation @ lower @ upper, log_s.sum()

    def inverse_weight(self) -> Tensor:
        """W^-1 (c, c), by two triangular solves."""
        lower, upper = self._factors(self._log_s())
        half = torch.linalg.solve_triangular(lower, self.permutation.T, upper=False, unitriangular=True)
        whole: Tensor = torch.linalg.solve_triangular(upper, half, upper=True)
        return whole

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        weight, log_det = self.weight_and_log_det()
        return mix_channels(x, weight), (log_det * (x.shape[2] * x.shape[3])).expand(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return mix_channels(z, self.inverse_weight())

    def error_growth(self) -> Tensor:
        return mean_condition(self.weight_and_log_det()[0], self.inverse_weight())


class NormalizedConv1x1(Bijection):
    """`ActNorm` followed by `Conv1x1`, folded into one matrix product: z = W (s * x + b) = (W diag(s)) x + W b.

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import NormalizedConv1x1
    >>> layer = NormalizedConv1x1(3)
    >>> x = torch.randn(8, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    >>> z = layer.initialize(x)  # the first batch sets the normalisation
    >>> torch.allclose(layer.inverse(layer(x)[0]), x, atol=1e-5)
    True
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ActNorm(channels)
        self.conv = Conv1x1(channels)

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_s, bias = self.norm.log_scale_and_bias()
        weight, log_det = self.conv.weight_and_log_det()
        z = mix_channels(x, weight * log_s.exp(), weight @ bias)
        return z, ((log_s.sum() + log_det) * (x.shape[2] * x.shape[3])).expand(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return self.norm.inverse(self.conv.inverse(z))

    def error_growth(self) -> Tensor:
        s = self.norm.log_scale_and_bias()[0].exp()
        return mean_condition(self.conv.weight_and_log_det()[0] * s, self.conv.inverse_weight() / s[:, None])

    def initialize(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        return self.conv.initialize(self.norm.initialize(x))
