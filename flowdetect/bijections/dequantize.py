"""Dequantisation: the layer between data in bins and a density of real values."""

from __future__ import annotations

import math

from torch import Generator, Tensor

from flowdetect.bijections.base import Layer

BIN_CENTRE = 0.5
FLOAT32_BITS = 24  # of a float32's mantissa


class UniformDequantize(Layer):
    """Adds uniform noise to data in bins of width 1: z = x + u, term 0.

    E_u log p(x + u) is a lower bound of log P(x), the log-probability of the discrete data (Theis et al. 2016, "A note
    on the evaluation of generative models", section 3.1). Without noise u is 1/2, the bin's centre. `inverse` gives the
    bin that z lies in.

    Parameters
    ----------
    event_shape : (C, H, W)
        The noise of a row is in the order (H, W, C).
    n_bins : int
        At most 2^20. Noise is rounded down to multiples of 2^-k, so that float32 keeps x + u below x + 1.
    """

    is_bound = True

    def __init__(self, event_shape: tuple[int, int, int], n_bins: int) -> None:
        super().__init__()
        self.event_shape = event_shape
        self.n_bins = n_bins
        self.n_noise = math.prod(event_shape)
        # float32 resolves 2^-k below n_bins
        self.n_steps = 2 ** min(16, FLOAT32_BITS - math.ceil(math.log2(n_bins)))

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if noise is None:
            return x + BIN_CENTRE, x.new_zeros(len(x))
        channels, height, width = self.event_shape
        u = noise.reshape(-1, height, width, channels).permute(0, 3, 1, 2)  # (n, C, H, W)
        return x + (u * self.n_steps).floor() / self.n_steps, x.new_zeros(len(x))

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return z.floor().clamp(0, self.n_bins - 1)
