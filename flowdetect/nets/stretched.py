"""Mixtures of logistics on stretched grey levels, with a different factor for each image.

If the contrast of an image was stretched from M + 1 levels to all n_bins, its values have gaps: it has only the values
floor(k (n_bins - 1) / M) of the levels k. The pixels seen so far show which M is likely. Given M, the bin of a value
reaches up to the next value that the image can have. The density is a mixture over M:

    p(x) = sum_M p(M) prod_t p(x_t | x_1 .. x_(t - 1), M)

M = n_bins - 1 has no gaps: it is the discretised mixture of logistics (Salimans et al. 2017, section 2).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowdetect.distributions import categorical_quantile
from flowdetect.nets.conv import SPEED, map_rows
from flowdetect.nets.heads import LogisticMixtureHead

MOST_GAP = 4  # largest step between neighbouring values; larger stretches are not modelled
LEAK = 2.0**-10  # probability that a value is not one of its image's levels
MOST_BINS = 256


def stretches(n_bins: int) -> tuple[Tensor, Tensor]:
    """Tabulate the possible values of images of M + 1 levels, for each M (a row; the last has no gaps).

    Returns
    -------
    floor : (K, n_bins) integers
        The largest possible value that is at most the given value.
    gap : (K, n_bins) integers
        Steps to the next possible value, 1 at the top; 0 if the value is not possible.
    """
    top = n_bins - 1
    floors, gaps = [], []
    for m in range(-(-top // MOST_GAP), top + 1):
        held = [level * top // m for level in range(m + 1)]
        reach = [above - value for value, above in zip(held, [*held[1:], top + 1], strict=True)]
        floors.append([value for value, n in zip(held, reach, strict=True) for _ in range(n)])
        gaps.append([left for n in reach for left in (n, *[0] * (n - 1))])
    return torch.tensor(floors), torch.tensor(gaps)


class StretchedMixtureHead(LogisticMixtureHead):
    """Features of a pixel -> mixture of logistics on grey levels that are possible given the earlier pixels.

    A state (n, K) holds the log-probabilities, up to a constant, of each M given the pixels so far.

    Parameters
    ----------
    features, n_mixtures, n_bins : int
    """

    n_bins: int
    floor: Tensor
    gap: Tensor

    def __init__(self, features: int, n_mixtures: int, n_bins: int) -> None:
        super().__init__(features, 1, n_mixtures, n_bins)
        self.n_uniforms = 3  # for the stretch, the component, and the value
        for name, value in zip(("floor", "gap"), stretches(n_bins), strict=True):
            self.register_buffer(name, value, persistent=False)
        self.raw_prior = nn.Parameter(torch.zeros(self.gap.shape[0], dtype=torch.float32))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Set the probability of all grey levels (no stretch) to 1/2, and equal shares for the other stretches."""
        super().reset_parameters(generator)
        self.raw_prior.zero_()
        self.raw_prior[-1] = math.log(max(1, len(self.raw_prior) - 1)) / SPEED

    def first_state(self, n: int) -> Tensor:
        return (SPEED * self.raw_prior).log_softmax(0).expand(n, -1)

    def log_prob(self, h: Tensor, y: Tensor, state: Tensor | None = None) -> Tensor:
        """Log-probability of each pixel given the state and the pixels before it: (n, 1, H, W)."""
        state = self.first_state(y.shape[0]) if state is None else state
        by_stretch = self._by_stretch(h, y)  # (n, H W, K)
        weight = torch.cat([state[:, None], by_stretch.to(state.dtype)], 1).double().cumsum(1)
        return weight.logsumexp(2).diff(dim=1).to(h.dtype).reshape(y.shape)

    def log_prob_of_all(self, h: Tensor, y: Tensor) -> Tensor:
        log_p, value = self._by_gap(h, y), self._values(y).flatten(1)
        n, gaps = y.shape[0], torch.arange(MOST_GAP + 1, device=y.device)
        index = value[:, :, None] * len(gaps) + gaps
        by_value = log_p.new_zeros(n, self.n_bins * len(gaps)).scatter_add(1, index.flatten(1), log_p.flatten(1))
        chosen = (self.gap[..., None] == gaps).to(log_p.dtype).flatten(1)  # one-hot gap of each value under each M
        return (map_rows(by_value, chosen.t(), self.training) + self.first_state(n)).logsumexp(1)

    def draw(self, h: Tensor, u: Tensor, temperature: float, state: Tensor | None = None) -> Tensor:
        """Draw values y (n, 1, H, W) from uniform numbers u (n, 3, H, W), each pixel given only the state."""
        state = self.first_state(h.shape[0]) if state is None else state
        rest = (u[:, 0] - LEAK) / (1 - LEAK)
        m = categorical_quantile(state[:, :, None, None].expand(-1, -1, *u.shape[2:]), rest.clamp_min(0))
        m = torch.where(rest < 0, len(self.floor) - 1, m)
        value = self._values(super().draw(h, u[:, 1:], temperature))
        half = (self.n_bins - 1) / 2
        return self.floor[m, value][:, None].to(h.dtype) / half - 1

    def follow(self, h: Tensor, y: Tensor, state: Tensor | None) -> Tensor:
        assert state is not None
        return state + self._by_stretch(h, y).sum(1)

    def _values(self, y: Tensor) -> Tensor:
        """(n, 1, H, W) in [-1, 1] -> whole numbers (n, H, W)."""
        half = (self.n_bins - 1) / 2
        return ((y[:, 0] + 1) * half).round().clamp(0, self.n_bins - 1).long()

    def _by_stretch(self, h: Tensor, y: Tensor) -> Tensor:
        """Log-probability of each pixel under each stretch, (n, H W, K)."""
        gap = self.gap.t()[self._values(y).flatten(1)]
        return self._by_gap(h, y).gather(2, gap)

    def _by_gap(self, h: Tensor, y: Tensor) -> Tensor:
        """Log-probability of each pixel if its bin spans a given number of steps, (n, H W, gaps 0 .. MOST_GAP).

        Gap 0 is for impossible values: LEAK times the probability without gaps, which is also added to the other gaps.
        """
        log_pi, mu, log_s, _ = self._mixture(h)
        mu, log_s, half = mu[:, :, 0], log_s[:, :, 0], 1 / (self.n_bins - 1)
        inverse_s = (-log_s).exp()
        low = (y - half - mu) * inverse_s
        above = F.logsigmoid(-low)
        found = []
        for gap in range(1, MOST_GAP + 1):
            width = 2 * gap * half * inverse_s
            below = F.logsigmoid(low + width)
            # the first bin includes the lower tail, a bin that reaches the top the upper tail
            reaches_top = y + 2 * (gap - 1) * half >= 1
            inner = below + above + (-torch.expm1(-width)).log()
            log_p = torch.where(y <= -1, below, torch.where(reaches_top, above, inner))
            found.append((log_pi + log_p).logsumexp(1).flatten(1))
        log_p = torch.stack(found, 2)
        ratio = (log_p[..., :1] - log_p).exp()  # at most 1: a wider bin contains the narrower one
        leaky = log_p + (1 - LEAK + LEAK * ratio).log()
        return torch.cat([log_p[..., :1] + math.log(LEAK), leaky], 2)
