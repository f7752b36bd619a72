"""Elementwise bijections: fixed maps of the input, normalisations, and standardisation by a network.

Also the two bounded scales of couplings and standardisations. The scoring path uses only exp, log, tanh and logsigmoid:
their vectorised and scalar code agree bitwise, so that a row has the same score in any batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from flowdetect.bijections.base import Bijection, soft_bound, sum_except_batch
from flowdetect.nets.conv import SPEED

RAW_BOUND = 3.0
RAW_GAIN = 8.0  # gain of log-scales, which learn faster than shifts, as in the authors' code (logscale_factor)
ACTNORM_BOUND = 10.0
# Gaussianize: weight of the uniform distribution relative to the counts, and probability beyond each end
UNIFORM_SHARE = 0.3
TAIL = 0.01
# BatchNorm: share of a batch in the running averages, and bounds of the variance
NEW_SHARE = 0.05
LEAST_PROBABILITY, CLOSE_TO_1 = 1e-6, 0.99  # Logit: where the lines begin; where 1 - p would lose digits
VARIANCES = 1e-4, 1e8


def sigmoid_log_scale(h: Tensor) -> Tensor:
    """log s of s = sigmoid(b + 2), b = 8 h squashed into (-3, 3): s lies in (0.27, 0.993), s = 0.88 at h = 0."""
    return F.logsigmoid(soft_bound(h, RAW_BOUND, RAW_GAIN) + 2.0)


def exp_log_scale(h: Tensor) -> Tensor:
    """log s of s = exp(b), b = 8 h squashed into (-3, 3): s lies in (0.050, 20.1), s = 1 at h = 0."""
    return soft_bound(h, RAW_BOUND, RAW_GAIN)


LOG_SCALES: dict[str, Callable[[Tensor], Tensor]] = {"sigmoid": sigmoid_log_scale, "exp": exp_log_scale}


class Rescale(Bijection):
    """Fixed affine map per feature: z = (x - loc) / scale.

    Parameters
    ----------
    loc, scale : tensors that broadcast against (C, H, W); scale > 0
    event_shape : (C, H, W)

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import Rescale
    >>> rescale = Rescale(torch.tensor(5.0), torch.tensor(2.0), (1, 1, 2))
    >>> rescale(torch.tensor([[[[5.0, 7.0]]]]))
    (tensor([[[[0., 1.]]]]), tensor([-1.3863]))
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor, scale: Tensor, event_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.register_buffer("loc", loc.expand(event_shape).clone())
        self.register_buffer("scale", scale.expand(event_shape).clone())

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (x - self.loc) / self.scale, -self.scale.log().sum().expand(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return z * self.scale + self.loc


class Gaussianize(Bijection):
    """Fixed map per channel that makes binned values standard normal: z = Phi^-1(F(x)), piecewise linear in x.

    F is the channel's cumulative distribution over [0, n_bins], linear within a bin; beyond the first and last edge,
    the line of the outermost bin continues, so that every real x has a z. If nearly all pixels share a few values, such
    as black in Fashion-MNIST, an affine map leaves these in an interval so narrow that couplings would have to stretch
    it a hundredfold; this map has already done so (Chen & Gopinath 2000, "Gaussianization", section 3, for one
    dimension).

    Parameters
    ----------
    counts : (C, n_bins) tensor
        How often each value occurs in each channel. Their distribution is mixed with a share of 3/13 of the uniform
        distribution and clipped to probabilities of at least 0.01 from either end, so that slopes lie in (0.0022, 4.65)
        for 256 bins.

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import Gaussianize
    >>> layer = Gaussianize(torch.tensor([[80, 10, 5, 5]]))  # how often the values 0, 1, 2 and 3 occur
    >>> z, log_det = layer(torch.tensor([[[[0.5, 1.5, 2.5, 3.5]]]]))
    >>> z
    tensor([[[[-0.9437,  0.6430,  1.0525,  1.7921]]]])
    """

    knots: Tensor

    def __init__(self, counts: Tensor) -> None:
        super().__init__()
        share = counts.double() / counts.sum(1, keepdim=True).clamp_min(1)
        mass = (share + UNIFORM_SHARE / counts.shape[1]) / (share.sum(1, keepdim=True) + UNIFORM_SHARE)
        edges = F.pad(mass.cumsum(1), (1, 0)) * (1 - 2 * TAIL) + TAIL  # (C, n_bins + 1)
        self.register_buffer("knots", torch.special.ndtri(edges).float())

    def _bins(self, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Knot, slope and log-slope of the bin of each index (n, C, H, W)."""
        channels, n_edges = self.knots.shape
        slopes = self.knots.diff(dim=1)
        flat = indices + (n_edges - 1) * torch.arange(channels, device=indices.device)[:, None, None]
        return self.knots[:, :-1].reshape(-1)[flat], slopes.reshape(-1)[flat], slopes.log().reshape(-1)[flat]

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        left = x.detach().floor().nan_to_num().clamp(0, self.knots.shape[1] - 2)
        knot, slope, log_slope = self._bins(left.long())
        return knot + slope * (x - left), sum_except_batch(log_slope)

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        by_channel = z.detach().transpose(0, 1).flatten(1)  # (C, n H W)
        indices = torch.searchsorted(self.knots, by_channel.contiguous(), right=True) - 1
        indices = indices.clamp(0, self.knots.shape[1] - 2).reshape(z.transpose(0, 1).shape).transpose(0, 1)
        knot, slope, _ = self._bins(indices)
        return indices + (z - knot) / slope


class PiecewiseLinear(Bijection):
    """Fixed monotone map per channel: straight lines between knots; the outermost lines continue beyond.

    Parameters
    ----------
    x_knots, z_knots : (C, K) tensors, K >= 2, increasing in each row
        Positions of the knots before and after the map.

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import PiecewiseLinear
    >>> layer = PiecewiseLinear(torch.tensor([[0.0, 1.0, 3.0]]), torch.tensor([[0.0, 2.0, 3.0]]))
    >>> z, log_det = layer(torch.tensor([[[[0.5, 2.0]]]]))
    >>> z  # slope 2 up to 1, then slope 1/2
    tensor([[[[1.0000, 2.5000]]]])
    >>> log_det
    tensor([0.])
    """

    x_knots: Tensor
    z_knots: Tensor

    def __init__(self, x_knots: Tensor, z_knots: Tensor) -> None:
        super().__init__()
        self.register_buffer("x_knots", x_knots.clone())
        self.register_buffer("z_knots", z_knots.clone())

    def _map(self, values: Tensor, here: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Map values (n, C, H, W) by the lines from one axis to the other; return the result and the slopes."""
        here, there = (knots[:, None, None].expand(*values.shape, -1) for knots in (here, there))
        k = (values[..., None] >= here[..., 1:-1]).sum(-1, keepdim=True)
        start, end = (torch.stack([knots.gather(-1, j)[..., 0] for knots in (here, there)]) for j in (k, k + 1))
        slope = (end[1] - start[1]) / (end[0] - start[0])
        return start[1] + (values - start[0]) * slope, slope

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, slope = self._map(x, self.x_knots, self.z_knots)
        return z, sum_except_batch(slope.log())

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return self._map(z, self.z_knots, self.x_knots)[0]


class Logit(Bijection):
    """Fixed map of binned values: z = logit(p), p = low + (high - low) x / n_bins, x in [0, n_bins]; linear beyond.

    The paper (Dinh et al. 2017, "Density estimation using Real NVP", section 4.1) has p = 0.05 + 0.95 x / 256; the
    authors' code has p = 0.05 + 0.9 x / 256, the default here. Lines begin where p is within 1e-6 of 0 or 1, so that
    dz/dx lies in
    [4, 1e6 + 2] (high - low) / n_bins.

    Parameters
    ----------
    n_bins : int
    low, high : float, 0 <= low < high <= 1

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import Logit
    >>> layer = Logit(256)
    >>> z, log_det = layer(torch.tensor([[[[0.0, 128.0, 256.0]]]]))
    >>> z
    tensor([[[[-2.9444,  0.0000,  2.9444]]]])
    >>> layer.inverse(z)
    tensor([[[[  0., 128., 256.]]]])
    """

    def __init__(self, n_bins: int, low: float = 0.05, high: float = 0.95) -> None:
        super().__init__()
        self.n_bins, self.low, self.high = n_bins, low, high
        self.gain = (high - low) / n_bins  # dp/dx
        p_ends = max(low, LEAST_PROBABILITY), min(high, 1 - LEAST_PROBABILITY)
        self.x_ends = tuple(min(max((p - low) / self.gain, 0.0), n_bins) for p in p_ends)
        self.z_ends = tuple(math.log(p) - math.log1p(-p) for p in p_ends)
        self.slopes = tuple(self.gain / (p * (1 - p)) for p in p_ends)

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        inside = x.clamp(*self.x_ends)
        p = self.low + self.gain * inside
        q = torch.where(p < CLOSE_TO_1, 1 - p, (1 - self.high) + self.gain * (self.n_bins - inside))
        log_p, log_q = p.log(), q.log()
        return log_p - log_q + self._line(x - inside), sum_except_batch(math.log(self.gain) - log_p - log_q)

    def _line(self, beyond: Tensor) -> Tensor:
        """Return the rise of the lines below the first end and above the second."""
        return beyond.clamp_max(0) * self.slopes[0] + beyond.clamp_min(0) * self.slopes[1]

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        inside = z.clamp(*self.z_ends)
        p, beyond = 1 / (1 + (-inside).exp()), z - inside
        x = (p - self.low) / self.gain
        return x + (beyond.clamp_max(0) / self.slopes[0] + beyond.clamp_min(0) / self.slopes[1])


class BatchNorm(Bijection):
    """Batch normalisation per channel: z = (x - mean) / std; log|det| = -H W sum(log std).

    Mean and variance are those of the batch in training mode, and running averages otherwise, so that a row's score
    does not depend on its batch. The variance is clipped to [1e-4, 1e8], so the scale lies in [1e-4, 100].
    Dinh et al. 2017, "Density estimation using Real NVP", section 3.7.

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import BatchNorm
    >>> norm = BatchNorm(1)
    >>> z, log_det = norm(torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1))  # the batch's own mean and variance
    >>> z.flatten()
    tensor([-1.,  1.])
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mean, variance = self.mean, self.variance
        if self.training:
            variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
            with torch.no_grad():
                self.mean.lerp_(mean, NEW_SHARE)
                self.variance.lerp_(variance, NEW_SHARE)
        log_s = -0.5 * variance.clamp(*VARIANCES).log()
        z = (x - mean[:, None, None]) * log_s.exp()[:, None, None]
        return z, (log_s.sum() * (x.shape[2] * x.shape[3])).expand(x.shape[0])

    needs_input = True  # the inverse uses running averages

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return z * self.variance.clamp(*VARIANCES).sqrt()[:, None, None] + self.mean[:, None, None]

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        self.mean.copy_(mean)
        self.variance.copy_(variance)
        return (x - mean[:, None, None]) / variance.clamp(*VARIANCES).sqrt()[:, None, None]


class ActNorm(Bijection):
    """Activation normalisation: z = s * x + b per channel, s in (e^-10, e^10).

    The first batch sets s and b so that z has median 0 and standard deviation 1 per channel; later they are trained.
    The paper uses the mean instead of the median (Kingma & Dhariwal 2018, section 3.1). The median keeps a flat
    background at 0, where changes of the scales and of the 1x1 convolutions do not move it: 5.04 instead of 5.44
    bits/dim after 250 steps on Fashion-MNIST, with grey levels mapped linearly.

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import ActNorm
    >>> norm = ActNorm(1)
    >>> z = norm.initialize(torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1, 1))  # the first batch sets s and b
    >>> z.flatten()
    tensor([-1.2247,  0.0000,  1.2247])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.raw_log_s = nn.Parameter(torch.zeros(channels))
        self.raw_bias = nn.Parameter(torch.zeros(channels))

    def log_scale_and_bias(self) -> tuple[Tensor, Tensor]:
        """log s and b per channel, (c,) each."""
        return soft_bound(self.raw_log_s, ACTNORM_BOUND, SPEED), SPEED * self.raw_bias

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_s, bias = self.log_scale_and_bias()
        z = x * log_s.exp()[:, None, None] + bias[:, None, None]
        return z, (log_s.sum() * (x.shape[2] * x.shape[3])).expand(x.shape[0])

    def forward_each(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `forward`, with the log-determinant of each value, (n, c, H, W)."""
        return self.forward(x)[0], self.log_scale_and_bias()[0][:, None, None].expand(x.shape)

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        log_s, bias = self.log_scale_and_bias()
        return (z - bias[:, None, None]) * (-log_s).exp()[:, None, None]

    def error_growth(self) -> Tensor:
        s = self.log_scale_and_bias()[0].exp()
        growth: Tensor = s.norm() * (1 / s).norm() / len(s)
        return growth

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        values = x.transpose(0, 1).flatten(1)  # (c, n * h * w)
        centre = values.median(1).values
        std = values.std(1, correction=0)
        # a constant channel (std 0) is unchanged; 0.999: atanh is infinite at the bound
        limit = 0.999 * ACTNORM_BOUND
        log_s = torch.where(std > 0, -std.clamp_min(1e-4).log(), 0.0).clamp(-limit, limit)
        self.raw_log_s.copy_(ACTNORM_BOUND * torch.atanh(log_s / ACTNORM_BOUND) / SPEED)
        self.raw_bias.copy_(-centre * log_s.exp() / SPEED)
        return self.forward(x)[0]


class Standardize(Bijection):
    """Standardisation by a network of the context: z = (x - mu) * s with (mu, h) = net(context), s = scale(h).

    In a multi-scale flow the context is the channels that stay; at the top of a class-conditional flow it is the label.
    s lies in the interval of the named scale, see `sigmoid_log_scale` and `exp_log_scale`.

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import Standardize
    >>> from flowdetect.nets import ConvNet
    >>> layer = Standardize(ConvNet(3, 8, 4))  # 3 channels of context give 2 means and 2 log-scales
    >>> x, context = torch.ones(1, 2, 4, 4), torch.ones(1, 3, 4, 4)
    >>> z, log_det = layer(x, context)
    >>> torch.allclose(layer.inverse(z, context), x)
    True
    """

    def __init__(self, net: nn.Module, scale: str = "exp") -> None:
        super().__init__()
        self.net = net
        self.scale = scale

    needs_input = True  # the inverse needs another pass of the network

    def _mean_and_log_scale(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        mu, h = self.net(x if context is None else context).chunk(2, dim=1)
        return mu, LOG_SCALES[self.scale](h)

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mu, log_s = self._mean_and_log_scale(x, context)
        return (x - mu) * log_s.exp(), sum_except_batch(log_s)

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        mu, log_s = self._mean_and_log_scale(z, context)
        return z * (-log_s).exp() + mu
