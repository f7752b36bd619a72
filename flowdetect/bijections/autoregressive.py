"""Autoregressive bijections: every feature is mapped with parameters computed from the features before it.

Papamakarios et al. 2017, "Masked Autoregressive Flow for Density Estimation", https://arxiv.org/abs/1705.07057
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Generator, Tensor

from flowdetect.bijections.base import Bijection
from flowdetect.bijections.elementwise import exp_log_scale
from flowdetect.bijections.spline import spline_by_mode, spline_inverse
from flowdetect.bijections.spline_gradient import masked_spline
from flowdetect.nets.masked import MADE

N_SPLINE_BINS = 8
# the last sweep moves no value by more than this, relative to 1 + |x|
TOLERANCES = {torch.float64: 1e-11, torch.float32: 1e-6}
LARGEST = 1e18  # bound on iterates, so that none becomes infinite before it is exact


class Autoregressive(Bijection):
    r"""z_i = f(x_i; net(x_1 .. x_{i-1}, context)), features in a fixed order; log|det| = sum_i log f'.

    `forward` maps all features in one pass. The parameters of the inverse depend on x, so `inverse` repeats x <-
    f^-1(z; net(x)) from x = 0, for all features in parallel (Song et al. 2021, https://arxiv.org/abs/2002.03629,
    section 3). Feature i is exact after i sweeps, so D sweeps always suffice. A row is finished as soon as a sweep
    moves none of its values by more than ``1e-11 (1 + |x|)`` in float64 or ``1e-6 (1 + |x|)`` in float32; it does not
    depend on the other rows. `inverse_sequential` maps one feature after the other. `Inverse` is the inverted layer.

    Parameters
    ----------
    event_shape : (C, H, W)
    hidden_features : sequence of int
        Widths of the masked network.
    univariate : "affine" or "spline"
        f(x) = (x + t) s with s = exp(b) in (0.050, 20.1), or a rational-quadratic spline of 8 bins on [-5, 5], the
        identity outside.
    order : "forward", "reverse" or "random"
        Order of the features, relative to (H, W, C); "random" is drawn once, with the parameters.
    n_context : int
        Length of a context (n, n_context); 0: it is ignored.

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import Autoregressive
    >>> layer = Autoregressive((3, 1, 1), hidden_features=(16,)).eval()
    >>> x = torch.randn(5, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    >>> z, log_det = layer(x)
    >>> log_det.shape
    torch.Size([5])
    >>> torch.allclose(layer.inverse(z), x, atol=1e-5)
    True
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

    # ---- layout of the features

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
        # contiguous again: torch's sum over other axes depends on an entry's position
        return u.reshape(h, w, c, n).permute(3, 2, 0, 1).contiguous()

    def _map(self, u: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return f(u) and log f' of every feature, (D, n) each, given parameters h (k, D, n)."""
        if self.univariate == "spline":
            return spline_by_mode(u, h, N_SPLINE_BINS, self.training)
        log_s = exp_log_scale(h[1])
        return (u + h[0]) * log_s.exp(), log_s

    def _unmap(self, v: Tensor, h: Tensor) -> Tensor:
        if self.univariate == "spline":
            return spline_inverse(v, h, N_SPLINE_BINS, numbers_first=True)
        return v * (-exp_log_scale(h[1])).exp() - h[0]

    # ---- in both directions

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u = self._to_order(x)
        if self.training and self.univariate == "spline" and not len(self.net.context_maps):
            v, log_slope = masked_spline(u, N_SPLINE_BINS, *self.net.masks_and_parameters())
        else:
            v, log_slope = self._map(u, self.net(u, context))
        return self._from_order(v, x.shape), log_slope.t().contiguous().sum(1)

    @torch.no_grad()
    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return self._from_order(self._solve(self._to_order(z), context), z.shape)

    def _sweep(self, u: Tensor, v: Tensor, context: Tensor | None) -> Tensor:
        return self._unmap(v, self.net(u, context)).nan_to_num().clamp(-LARGEST, LARGEST)

    def _solve(self, v: Tensor, context: Tensor | None) -> Tensor:
        """Return u with f(u) = v, (D, n) each."""
        u, tolerance = torch.zeros_like(v), TOLERANCES.get(v.dtype, 1e-6)
        is_done = torch.zeros_like(v[0], dtype=torch.bool)
        for _ in range(len(v)):
            before, u = u, torch.where(is_done, u, self._sweep(u, v, context))
            is_done = ((u - before).abs() <= tolerance * (1 + u.abs())).all(0)
            if not torch.compiler.is_exporting() and bool(is_done.all()):  # a graph makes all sweeps
                break
        return u

    @torch.no_grad()
    def inverse_sequential(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """As `inverse`, but one feature after the other, with D passes of the network."""
        v = self._to_order(z)
        u = torch.zeros_like(v)
        for i in range(len(v)):
            h = self.net(u, context)
            u[i] = self._unmap(v[i : i + 1], h[:, i : i + 1])[0]
        return self._from_order(u, z.shape)


class Inverse(Bijection):
    r"""The inverse of an autoregressive layer: `inverse` takes one pass, and `forward` solves f(z) = x by sweeps.

    Kingma et al. 2016, "Improved Variational Inference with Inverse Autoregressive Flow",
    https://arxiv.org/abs/1606.04934: z_i = f^-1(x_i; net(z_1 .. z_{i-1}, context)), log|det| = -sum_i log f'(z_i).

    `forward` has the tolerance of `Autoregressive.inverse`: ``1e-11 (1 + |z|)`` in float64 and ``1e-6 (1 + |z|)`` in
    float32. In training, gradients come from the implicit function theorem: with J = df/dz, triangular in the layer's
    order, dz = J^-1 (dx - df), and J^-T g is solved by sweeps to the same tolerance. In evaluation, D further sweeps
    are differentiated instead, which gives derivatives of any order.

    Parameters
    ----------
    layer : Autoregressive

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import Autoregressive, Inverse
    >>> layer = Autoregressive((3, 1, 1), hidden_features=(16,)).eval()
    >>> x = torch.randn(5, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    >>> torch.allclose(Inverse(layer).inverse(x), layer(x)[0])
    True
    """

    inverse_tolerance = Autoregressive.inverse_tolerance

    def __init__(self, layer: Autoregressive) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        layer = self.layer
        v = layer._to_order(x)
        with torch.no_grad():
            u = layer._solve(v, context)
            u = torch.where(u.abs() < LARGEST, u, u * torch.inf)  # no solution: no finite score
        if torch.is_grad_enabled():
            if self.training:
                u = self._with_gradient(u, v, context)
            else:
                for _ in range(len(u)):
                    u = layer._sweep(u, v, context)
        log_slope = layer._map(u, layer.net(u, context))[1]
        return layer._from_order(u, x.shape), -log_slope.t().contiguous().sum(1)

    def _with_gradient(self, solution: Tensor, v: Tensor, context: Tensor | None) -> Tensor:
        """Attach the gradients of the implicit function to the solution u of f(u) = v."""
        layer, at = self.layer, solution.clone().requires_grad_()
        mapped, log_slope = layer._map(at, layer.net(at, context))
        slope, tolerance = log_slope.detach().exp(), TOLERANCES.get(v.dtype, 1e-6)

        def solve_transposed(g: Tensor) -> Tensor:
            w = g / slope
            for _ in range(len(g)):
                (product,) = torch.autograd.grad(mapped, at, w, retain_graph=True)  # J^T w
                step = (g - product) / slope
                w = w + step
                if bool((step.abs() <= tolerance * (w.abs() + g.abs())).all()):
                    break
            return w

        rest = v - mapped  # about 0; the hook below solves for the gradients in v and in the parameters
        if rest.requires_grad:
            rest.register_hook(solve_transposed)  # type: ignore[no-untyped-call]
        return solution + (rest - rest.detach())

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        x: Tensor = self.layer(z, context)[0]
        return x
