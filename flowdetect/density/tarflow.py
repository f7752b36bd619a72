"""TarFlow: autoregressive transformers over the patches of an image, one after the other, in alternating directions.

Zhai et al., "Normalizing Flows are Capable Generative Models" (2024), https://arxiv.org/abs/2412.06329
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Generator, Tensor

from flowdetect.bijections import Bijection, Chain, MultiScale
from flowdetect.bijections.base import sum_except_batch
from flowdetect.bijections.elementwise import exp_log_scale
from flowdetect.density.flow import FlowDensity, FlowModel
from flowdetect.density.spec import DataSpec
from flowdetect.nets.transformer import CausalTransformer

FEWEST_PATCHES = 16  # that patch_size="auto" leaves
LARGEST_AUTO_PATCH = 4


class PatchAutoregressive(Bijection):
    r"""z_i = (x_i + t_i) s_i of every patch x_i, with (t_i, s_i) by a causal transformer from the patches before it.

    log|det| is the plain sum of log s, s = exp(b) in (0.050, 20.1). The inverse maps one patch after the other, with a
    cache of the keys and values of the patches before it; it has no other error than that of rounding.

    Parameters
    ----------
    event_shape : (C, H, W)
    patch : (ph, pw) or None
        Height and width of a patch, which divide H and W; the sequence is in raster order. None: each channel of a 1x1
        image, that is each column of a table, is a patch of one value.
    width, n_blocks, n_heads, n_context : see `CausalTransformer`
    is_reversed : bool
        Whether the sequence runs from the last patch to the first.
    """

    inverse_tolerance = 1e-9

    def __init__(
        self,
        event_shape: tuple[int, int, int],
        patch: tuple[int, int] | None,
        width: int,
        n_blocks: int,
        n_heads: int,
        is_reversed: bool = False,
        n_context: int = 0,
    ) -> None:
        super().__init__()
        self.event_shape, self.patch, self.is_reversed = event_shape, patch, is_reversed
        n_tokens, n_values = sequence_shape(event_shape, patch)
        self.net = CausalTransformer(n_tokens, n_values, width, 2 * n_values, n_blocks, n_heads, n_context)

    # ---- patches in their order

    def to_sequence(self, x: Tensor) -> Tensor:
        """(n, C, H, W) -> (n, T, ph * pw * C), in the order in which patches depend on each other."""
        n, c, h, w = x.shape
        if self.patch is None:
            patches = x.reshape(n, c, 1)
        else:
            ph, pw = self.patch
            patches = x.reshape(n, c, h // ph, ph, w // pw, pw).permute(0, 2, 4, 3, 5, 1)
            patches = patches.reshape(n, (h // ph) * (w // pw), ph * pw * c)
        return patches.flip(1) if self.is_reversed else patches

    def from_sequence(self, u: Tensor) -> Tensor:
        """(n, T, ph * pw * C) -> (n, C, H, W)."""
        c, h, w = self.event_shape
        u = u.flip(1) if self.is_reversed else u
        if self.patch is None:
            return u.reshape(len(u), c, h, w)
        ph, pw = self.patch
        patches = u.reshape(len(u), h // ph, w // pw, ph, pw, c).permute(0, 5, 1, 3, 2, 4)
        return patches.reshape(len(u), c, h, w)

    # ---- in both directions

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u = self.to_sequence(x)
        t, h = self.net(u, context).chunk(2, dim=2)
        log_s = exp_log_scale(h)
        return self.from_sequence((u + t) * log_s.exp()), sum_except_batch(log_s)

    @torch.no_grad()
    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        v = self.to_sequence(z)
        u, started = torch.empty_like(v), self.net.start(len(v), context)
        before = None
        for i in range(v.shape[1]):
            t, h = self.net.step(before, i, started).chunk(2, dim=1)
            before = u[:, i] = v[:, i] * (-exp_log_scale(h)).exp() - t
        return self.from_sequence(u)


def sequence_shape(event_shape: tuple[int, int, int], patch: tuple[int, int] | None) -> tuple[int, int]:
    """Give how many patches there are, and how many values each has."""
    c, h, w = event_shape
    if patch is None:
        return c, 1
    return (h // patch[0]) * (w // patch[1]), patch[0] * patch[1] * c


@dataclass(kw_only=True, eq=False, repr=False)
class TarFlowDensity(FlowDensity):
    r"""Density by transformers over the patches of an image, each an autoregressive flow (TarFlow).

    .. math:: \log p(x) = \log N(z; 0, 1) + \log|\det dz/dx|, \quad z = f(x)

    with f a sequence of flows, :math:`z_i = (x_i - \mu(x_1 .. x_{i-1})) \exp(-\alpha(x_1 .. x_{i-1}))` each, x_i the
    i-th patch; every other flow runs through the patches from last to first.
    """

    patch_size: int | str = "auto"
    n_flows: int = 4
    n_layers: int = 2
    hidden_channels: int = 128
    n_heads: int = 2
    batch_size: int | str = "auto"
    learning_rate: float = 1e-3

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **FlowDensity._parameter_constraints,
        "patch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "n_flows": [Interval(Integral, 1, None, closed="left")],
        "n_layers": [Interval(Integral, 1, None, closed="left")],
        "hidden_channels": [Interval(Integral, 1, None, closed="left")],
        "n_heads": [Interval(Integral, 1, None, closed="left")],
    }

    def _build(self, spec: DataSpec) -> FlowModel:
        if self.hidden_channels % self.n_heads:
            raise ValueError(
                f"TarFlowDensity: hidden_channels must be a multiple of n_heads, got hidden_channels="
                f"{self.hidden_channels} and n_heads={self.n_heads}; pass e.g. hidden_channels="
                f"{self.hidden_channels - self.hidden_channels % self.n_heads + self.n_heads}."
            )
        patch = patch_of(self.patch_size, spec)
        flows: list[Bijection] = []
        if sequence_shape(spec.event_shape, patch)[0] > 1:  # one token has none before it: the top does all
            flows = [
                PatchAutoregressive(
                    spec.event_shape,
                    patch,
                    self.hidden_channels,
                    self.n_layers,
                    self.n_heads,
                    is_reversed=i % 2 == 1,
                    n_context=spec.n_context,
                )
                for i in range(self.n_flows)
            ]
        flow = MultiScale([Chain(flows)], [], [spec.event_shape])
        return self._flow_model(spec, flow, context_enters="flow")


def patch_of(patch_size: int | str, spec: DataSpec) -> tuple[int, int] | None:
    """Give height and width of a patch; None for a table, whose columns are the patches."""
    if spec.is_table:
        if patch_size not in ("auto", 1):
            raise ValueError(
                f"TarFlowDensity takes each column of a table as a patch of one value, got patch_size={patch_size!r}; "
                f'pass "auto" or 1, or image_shape if the rows are images.'
            )
        return None
    _, height, width = spec.event_shape
    if isinstance(patch_size, str):
        for size in range(LARGEST_AUTO_PATCH, 1, -1):
            fits = height % size == 0 and width % size == 0
            if fits and (height // size) * (width // size) >= FEWEST_PATCHES:
                return size, size
        return 1, 1
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"TarFlowDensity: patch_size must divide height and width, got patch_size={patch_size} for images of "
            f'{height}x{width}; pass "auto" or a common divisor, or pad the images.'
        )
    return patch_size, patch_size
