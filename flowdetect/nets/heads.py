"""Heads: from the features of a pixel to the distribution of its channels."""

from __future__ import annotations

import math
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowdetect.distributions import (
    bound_log_scale,
    categorical_quantile,
    discretized_logistic_log_prob,
    logistic_log_prob,
    logistic_quantile,
)
from flowdetect.nets.causal import pointwise
from flowdetect.nets.masked import CausalConv


def of_pixel(layer: nn.Module, h: Tensor) -> Tensor:
    """Apply a 1x1 convolution to features (n, F, 1, 1) of single pixels: a matrix product, in a tenth of the time."""
    if not isinstance(layer, CausalConv) or h.shape[2:] != (1, 1):
        return cast(Tensor, layer(h))
    return F.linear(h.flatten(1), layer.kernel_weight().flatten(1), layer.bias)[:, :, None, None]


class Head(nn.Module):
    """Distribution of a pixel's channels given its features and, for some heads, a state of the pixels before it.

    Attributes
    ----------
    n_uniforms : int
        Number of uniform draws per pixel.
    """

    n_uniforms: int

    def first_state(self, n: int) -> Tensor | None:
        """State before the first pixel; None if the head has no state."""
        return None

    def log_prob(self, h: Tensor, y: Tensor, state: Tensor | None = None) -> Tensor:
        """Log-probability of each channel given the channels before it: (n, C, H, W)."""
        raise NotImplementedError

    def log_prob_of_all(self, h: Tensor, y: Tensor) -> Tensor:
        """Sum of the log-probabilities of all pixels, (n,)."""
        return self.log_prob(h, y).flatten(1).sum(1)

    def draw(self, h: Tensor, u: Tensor, temperature: float, state: Tensor | None = None) -> Tensor:
        """Draw values y (n, C, H, W) from uniform numbers u (n, n_uniforms, H, W)."""
        raise NotImplementedError

    def follow(self, h: Tensor, y: Tensor, state: Tensor | None) -> Tensor | None:
        """State after a pixel with features h (n, F, 1, 1) and values y (n, C, 1, 1)."""
        return state


class LogisticMixtureHead(Head):
    """Features of a pixel -> a mixture of logistic distributions of its channels (Salimans et al. 2017, section 2).

    Within a component, a channel's location is linear in the channels before it (section 2.2, eq. 3).

    Parameters
    ----------
    features : int or None
        None: the features are the distribution's `n_numbers` parameters, and the head learns nothing.
    channels, n_mixtures : int
    n_bins : int or None
        None: real values, and the score is a density.
    """

    def __init__(self, features: int | None, channels: int, n_mixtures: int, n_bins: int | None) -> None:
        super().__init__()
        self.channels, self.n_mixtures, self.n_bins = channels, n_mixtures, n_bins
        self.n_uniforms = channels + 1
        n_coefficients = channels * (channels - 1) // 2
        self.n_numbers = n_mixtures * (1 + 2 * channels + n_coefficients)
        self.out = pointwise(features, self.n_numbers, gain=0.1) if features else nn.Identity()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Spread the components' locations over the range of values."""
        if not isinstance(self.out, nn.Identity):
            self.start(self.out.bias)

    def start(self, numbers: Tensor) -> None:
        """Spread the components' locations over the range of values, in parameters (n_numbers, ...) that are zero."""
        by_component = numbers.view(self.n_mixtures, -1, *numbers.shape[1:])
        spread = (torch.arange(self.n_mixtures, dtype=torch.float32) + 0.5) / self.n_mixtures * 2 - 1
        by_component[:, 1 : 1 + self.channels] = spread.reshape(-1, *[1] * numbers.ndim)
        by_component[:, 1 + self.channels : 1 + 2 * self.channels] = -math.log(max(2, self.n_mixtures))

    def _mixture(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """log pi (n, M, H, W), mu and log s (n, M, C, H, W), coefficients (n, M, C (C - 1) / 2, H, W)."""
        return self._parts(self.out(h))

    def _parts(self, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        p, c = torch.unflatten(numbers, 1, (self.n_mixtures, -1)), self.channels
        return (
            p[:, :, 0].log_softmax(1),
            p[:, :, 1 : 1 + c],
            bound_log_scale(p[:, :, 1 + c : 1 + 2 * c]),
            p[:, :, 1 + 2 * c :],
        )

    def _location(self, mu: Tensor, coefficients: Tensor, y: Tensor, channel: int) -> Tensor:
        """Location of one channel given y of the channels before it: (n, M, H, W)."""
        start = channel * (channel - 1) // 2
        location = mu[:, :, channel]
        for k in range(channel):
            location = location + coefficients[:, :, start + k].tanh() * y[:, None, k]
        return location

    def log_prob(self, h: Tensor, y: Tensor, state: Tensor | None = None) -> Tensor:
        """Log-probability of each channel given the channels before it: (n, C, H, W)."""
        log_pi, mu, log_s, coefficients = self._mixture(h)
        mu = torch.stack([self._location(mu, coefficients, y, c) for c in range(self.channels)], 2)
        if self.n_bins is None:
            log_p = logistic_log_prob(y[:, None], mu, log_s)
        else:
            log_p = discretized_logistic_log_prob(y[:, None], mu, log_s, self.n_bins)
        joint = (log_pi[:, :, None] + log_p.cumsum(2)).logsumexp(1)  # over the channels up to each
        return joint if self.channels == 1 else torch.cat([joint[:, :1], joint.diff(dim=1)], 1)

    def draw(self, h: Tensor, u: Tensor, temperature: float, state: Tensor | None = None) -> Tensor:
        """Draw y (n, C, H, W) from uniform numbers u (n, C + 1, H, W); the temperature multiplies s and flattens pi."""
        log_pi, mu, log_s, coefficients = self._parts(of_pixel(self.out, h))
        k = categorical_quantile(log_pi / max(temperature, 1e-6), u[:, 0])[:, None, None]

        def of_component(values: Tensor) -> Tensor:
            return values.gather(1, k.expand(-1, 1, *values.shape[2:]))

        mu, log_s, coefficients = of_component(mu), of_component(log_s), of_component(coefficients)
        y = torch.empty_like(mu[:, 0])
        for c in range(self.channels):
            noise = temperature * log_s[:, 0, c].exp() * logistic_quantile(u[:, 1 + c])
            y[:, c] = self._to_grid(self._location(mu, coefficients, y, c)[:, 0] + noise)
        return y

    def _to_grid(self, y: Tensor) -> Tensor:
        if self.n_bins is None:
            return y
        half = (self.n_bins - 1) / 2
        return ((y + 1) * half).round().clamp(0, self.n_bins - 1) / half - 1


class CategoricalHead(Head):
    """Features of a pixel -> probability of each value of a channel, given the channels before it.

    van den Oord et al. 2016, section 3.2 (softmax over values) and 3.3 (channels); here a separate layer models the
    dependence on earlier channels, instead of masks throughout the network. If `features` is None and there is one
    channel, the features are the logits.
    """

    def __init__(self, features: int | None, channels: int, n_bins: int) -> None:
        super().__init__()
        self.channels = self.n_uniforms = channels
        self.n_bins = self.n_numbers = n_bins
        if features is None:
            self.out = nn.ModuleList([nn.Identity()])
            return
        self.hidden = nn.ModuleList(pointwise(features + c, features) for c in range(1, channels))
        self.out = nn.ModuleList(pointwise(features, n_bins, gain=0.1) for _ in range(channels))

    def start(self, numbers: Tensor) -> None:
        """Do nothing: the logits stay zero."""

    def _logits(self, h: Tensor, y: Tensor, channel: int) -> Tensor:
        """Logits (n, n_bins, H, W) of one channel, given y of the channels before it."""
        if channel:
            h = self.hidden[channel - 1](torch.cat([h, y[:, :channel]], 1)).relu()
        logits: Tensor = self.out[channel](h)
        return logits

    def log_prob(self, h: Tensor, y: Tensor, state: Tensor | None = None) -> Tensor:
        """Log-probability of each channel given the channels before it: (n, C, H, W); y is rounded to the grid."""
        half = (self.n_bins - 1) / 2
        values = ((y + 1) * half).round().clamp(0, self.n_bins - 1).long()
        columns = [self._logits(h, y, c).log_softmax(1).gather(1, values[:, c : c + 1]) for c in range(self.channels)]
        return torch.cat(columns, 1)

    def draw(self, h: Tensor, u: Tensor, temperature: float, state: Tensor | None = None) -> Tensor:
        """Draw values y (n, C, H, W) from uniform numbers u (n, C, H, W); logits are divided by the temperature."""
        y = h.new_zeros(h.shape[0], self.channels, *h.shape[2:])
        for c in range(self.channels):
            values = categorical_quantile(self._logits(h, y, c) / max(temperature, 1e-6), u[:, c])
            y[:, c] = values / ((self.n_bins - 1) / 2) - 1
        return y


Mixture = TypeVar("Mixture", bound=LogisticMixtureHead)
Categorical = TypeVar("Categorical", bound=CategoricalHead)


def pixel_head(
    likelihood: str,
    features: int,
    channels: int,
    n_mixtures: int,
    n_bins: int | None,
    owner: str,
    kinds: tuple[type[Mixture], type[Categorical]],
) -> Mixture | Categorical:
    """Build the head of a likelihood, "logistic_mixture" or "categorical", from the two classes in `kinds`.

    Raises
    ------
    ValueError
        If likelihood is "categorical" and the data are real-valued; the message names the owner, a density.
    """
    if likelihood == "logistic_mixture":
        return kinds[0](features, channels, n_mixtures, n_bins)
    if n_bins is None:
        raise ValueError(
            f'{owner}: likelihood="categorical" is for data in bins, but X is real-valued; pass "logistic_mixture", or '
            f"n_bins if X holds whole numbers."
        )
    return kinds[1](features, channels, n_bins)
