"""A density to copy: every value follows a logistic distribution, whose location depends on the value before it.

It works on tables and images, on real values and data in bins, with class labels and without. Rename it, and put your
network in the place of `_location`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from sklearn.utils._param_validation import Interval
from torch import Generator, Tensor, nn

from flowdetect.bijections.base import soft_bound
from flowdetect.density.base import BaseDensity
from flowdetect.density.model import DensityModel
from flowdetect.density.spec import DataSpec
from flowdetect.distributions import discretized_logistic_log_prob, logistic_log_prob, logistic_quantile

MAX_LOG_SCALE = 7.0


class MarkovModel(DensityModel):
    """log p(x) = sum_i log p(x_i | x_(i-1)), nats.

    Parameters
    ----------
    event_shape : (C, H, W)
    n_bins : int or None
        In bins the model computes with y = 2 x / (n_bins - 1) - 1; real values arrive centred and scaled.
    n_context : int
        Length of a context (n, n_context); 0: there is none.
    gain : float
        Standard deviation of the initial weights.
    """

    summands = ("log_px",)  # which of `terms` sum to log_prob
    terms_by_value = True  # the first of them has one part for each value of x

    def __init__(self, event_shape: tuple[int, int, int], n_bins: int | None, n_context: int, gain: float) -> None:
        super().__init__(event_shape)
        self.n_bins, self.gain = n_bins, gain
        self.weight = nn.Parameter(torch.zeros(self.n_values, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(self.n_values, dtype=torch.float32))
        self.log_s = nn.Parameter(torch.zeros(self.n_values, dtype=torch.float32))
        self.context_map = nn.Parameter(torch.zeros(n_context, self.n_values, dtype=torch.float32))

    # ---- the contract

    def log_prob(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        return self._log_px(x, context).sum(1)

    def terms(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> dict[str, Tensor]:
        return {"log_px": self._log_px(x, context).reshape(x.shape)}

    def sample(
        self,
        n: int,
        context: Tensor | None = None,
        temperature: float = 1.0,
        generator: Generator | None = None,
    ) -> Tensor:
        u = torch.rand(n, self.n_values, generator=generator, dtype=torch.float32).to(self.log_s)
        noise = temperature * self._log_scale().exp() * logistic_quantile(u)
        y = torch.zeros_like(u)
        for i in range(self.n_values):  # one value after the other, as each needs the one before it
            y[:, i] = self._on_grid(self._location(y, context)[:, i] + noise[:, i])
        x = y if self.n_bins is None else ((y + 1) * ((self.n_bins - 1) / 2)).round()
        return x.reshape(n, *self.event_shape)

    @torch.no_grad()
    def reset_parameters(self, generator: Generator) -> None:
        """Draw the weights; what the layers of a network draw is drawn by the base class."""
        super().reset_parameters(generator)
        self.weight.copy_(self.gain * torch.randn(self.n_values, generator=generator, dtype=torch.float32))

    # ---- the network

    def _location(self, y: Tensor, context: Tensor | None) -> Tensor:
        """(n, D) -> (n, D), each from the value before it; a context is taken also where it is ignored."""
        before = F.pad(y[:, :-1], (1, 0))
        location = self.bias + self.weight * before
        return location if context is None or not len(self.context_map) else location + context @ self.context_map

    def _log_scale(self) -> Tensor:
        """(D,), within (-7, 7)."""
        return soft_bound(self.log_s, MAX_LOG_SCALE)

    def _log_px(self, x: Tensor, context: Tensor | None) -> Tensor:
        """(n, C, H, W) -> (n, D)."""
        y = x.flatten(1)
        if self.n_bins is None:
            return logistic_log_prob(y, self._location(y, context), self._log_scale())
        y = 2 * y / (self.n_bins - 1) - 1
        return discretized_logistic_log_prob(y, self._location(y, context), self._log_scale(), self.n_bins)

    def _on_grid(self, y: Tensor) -> Tensor:
        """Of data in bins, the value of the nearest bin."""
        if self.n_bins is None:
            return y
        half = (self.n_bins - 1) / 2
        return ((y.clamp(-1, 1) + 1) * half).round() / half - 1


@dataclass(kw_only=True, eq=False, repr=False)
class MarkovDensity(BaseDensity):
    r"""Density of values of which each depends linearly on the one before it.

    .. math:: \log p(x) = \sum_i \log p(x_i \mid x_{i-1})

    Scores are exact, in bins too. The values of an image are taken channel by channel, row by row.

    Parameters
    ----------
    gain : float, default 0.1
        Standard deviation of the initial weights.

    All other parameters are those of `BaseDensity`.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> density = MarkovDensity(max_epochs=2, random_state=0).fit(X)
    >>> density.score_samples(X[:5]).shape
    (5,)
    """

    gain: float = 0.1
    model_: MarkovModel = field(init=False)

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseDensity._parameter_constraints,
        "gain": [Interval(Real, 0, None, closed="left")],
    }

    def _build(self, spec: DataSpec) -> MarkovModel:
        return MarkovModel(spec.event_shape, spec.n_bins, spec.n_context, self.gain)
