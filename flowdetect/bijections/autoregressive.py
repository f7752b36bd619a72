"""Autoregressive bijections: every feature is mapped elementwise, with parameters from the features before it.

Papamakarios et al. 2017, "Masked Autoregressive Flow for Density Estimation", https://arxiv.org/abs/1705.07057
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Generator, Tensor

from flowdetect.bijections.base import Bijection
from flowdetect.bijections.elementwise import exp_log_scale
from flowdetect.bijections.spline import spline, spline_inverse
from flowdetect.nets.masked import MADE

N_SPLINE_BINS = 8
# a sweep that moves no value by more than this, relative to 1 + |x|, is the last
TOLERANCES = {torch.float64: 1e-11, torch.float32: 1e-6}
LARGEST = 1e18  # what iterates are kept within, so that none becomes infinite before its turn


class Autoregressive(Bijection):
    r"""z_i = f(x_i; net(x_1 .. x_{i-1}, context)), features in a fixed order; log|det| = sum_i log f'.

    All features are mapped in one pass. The inverse needs x to compute its parameters: `inverse` repeats
    x <- f^-1(z; net(x)) from x = 0 for all features in parallel (Song et al. 2021, https://arxiv.org/abs/2002.03629,
    section 3). Feature i is exact after i sweeps, so D sweeps always suffice; it ends as soon as a sweep moves no value
    by more than 1e-11 (1 + |x|) in float64, 1e-6 (1 + |x|) in float32. `inverse_sequential` maps one feature after the
    other.

    Parameters
    ----------
    event_shape : (C, H, W)
    hidden_features : sequence of int
        Widths of the masked network.
    univariate : "affine" or "spline"
        f(x) = (x + t) s with s = exp(b) in (0.050, 20.1), or a rational-quadratic spline of 8 bins on [-5, 5], the
        identity outside.
    order : "forward", "reverse" or "random"
        Of the features, which stand in the order (H, W, C); "random" is drawn once, with the parameters.
    n_context : int
        Length of a context (n, n_context); 0: it is ignored.
    """

    inverse_tolerance = 1e-9
    order: Tensor

    def __init__(
        self,
        event_shape: tuple[int, int, int],
        hidden_features: Sequence[int] = (64, 64),
        univariate: str = "affine",
        order: str = "forward",
        n_context: int = 0,
    ) -> None:
        super().__init__()
        n_features = prod(event_shape)
        self.univariate, self.order_kind = univariate, order
        self.net = MADE(n_features, hidden_features, 2 if univariate == "affine" else 3 * N_SPLINE_BINS - 1, n_context)
        features = torch.arange(n_features)
        self.register_buffer("order", features.flip(0) if order == "reverse" else features)

    def reset_parameters(self, generator: Generator) -> None:
        if self.order_kind == "random":
            self.order.copy_(torch.randperm(len(self.order), generator=generator))

    # ---- features in their order

    def _to_order(self, x: Tensor) -> Tensor:
        """(n, C, H, W) -> (D, n), in the order in which features depend on each other."""
        flat = x.permute(2, 3, 1, 0).flatten(0, 2)
        if self.order_kind == "random":
            return flat[self.order]
        return flat.flip(0) if self.order_kind == "reverse" else flat

    def _from_order(self, u: Tensor, shape: torch.Size) -> Tensor:
        n, c, h, w = shape
        if self.order_kind == "random":
            u = u[torch.argsort(self.order)]
        elif self.order_kind == "reverse":
            u = u.flip(0)
        # rows of memory again, since torch sums over other axes by where an entry stands
        return u.reshape(h, w, c, n).permute(3, 2, 0, 1).contiguous()

    def _map(self, u: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Give f(u) and log f' of every feature, (D, n) each, of parameters h (k, D, n)."""
        if self.univariate == "spline":
            return spline(u, h, N_SPLINE_BINS, numbers_first=True)
        log_s = exp_log_scale(h[1])
        return (u + h[0]) * log_s.exp(), log_s

    def _unmap(self, v: Tensor, h: Tensor) -> Tensor:
        if self.univariate == "spline":
            return spline_inverse(v, h, N_SPLINE_BINS, numbers_first=True)
        return v * (-exp_log_scale(h[1])).exp() - h[0]

    # ---- in both directions

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u = self._to_order(x)
        v, log_slope = self._map(u, self.net(u, context))
        return self._from_order(v, x.shape), log_slope.t().contiguous().sum(1)

    @torch.no_grad()
    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        v = self._to_order(z)
        u, tolerance = torch.zeros_like(v), TOLERANCES.get(v.dtype, 1e-6)
        for _ in range(len(v)):
            before, u = u, self._unmap(v, self.net(u, context)).nan_to_num().clamp(-LARGEST, LARGEST)
            if bool(((u - before).abs() <= tolerance * (1 + u.abs())).all()):
                break
        return self._from_order(u, z.shape)

    @torch.no_grad()
    def inverse_sequential(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """As `inverse`, one feature after the other: D passes of the network."""
        v = self._to_order(z)
        u = torch.zeros_like(v)
        for i in range(len(v)):
            h = self.net(u, context)
            u[i] = self._unmap(v[i : i + 1], h[:, i : i + 1])[0]
        return self._from_order(u, z.shape)
