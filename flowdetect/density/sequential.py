"""The module of autoregressive densities: terms, sampling, and completion of partly known rows.

A paper adds the network that computes the features of every value from the values before it.
"""

from __future__ import annotations

from collections.abc import Generator as StepGenerator
from collections.abc import Iterable
from typing import ClassVar, TypeVar

import torch
from torch import Generator, Tensor, nn

from flowdetect.density._progress import show_sampling
from flowdetect.density.model import DensityModel
from flowdetect.distributions import systematic_draws
from flowdetect.nets.heads import Head
from flowdetect.nets.masked import seed_dropouts

Item = TypeVar("Item")
Steps = StepGenerator[tuple[int, int, Tensor], Tensor | None, None]


class AutoregressiveModel(DensityModel):
    """log p(x) = sum over pixels and channels of log p(x_i | earlier values), nats.

    Parameters
    ----------
    event_shape : (C, H, W)
    loc, scale : tensors that broadcast against (C, H, W)
        The network's input is y = (x - loc) / scale, in [-1, 1] for data in bins.
    net : module, (n, C, H, W) -> features (n, F, H, W)
        Its `in_order` yields the features of one pixel after the other. For a table, it works on strips (n, ..., D, 1).
    head : Head
    n_bins : int or None
    is_table : bool
    """

    summands: ClassVar[tuple[str, ...]] = ("log_px",)
    terms_by_value = True

    loc: Tensor
    scale: Tensor

    def __init__(
        self,
        event_shape: tuple[int, int, int],
        rescaling: tuple[Tensor, Tensor],
        net: nn.Module,
        head: Head,
        n_bins: int | None,
        is_table: bool,
    ) -> None:
        super().__init__(event_shape)
        for name, value in zip(("loc", "scale"), rescaling, strict=True):
            self.register_buffer(name, value)
        self.net, self.head, self.n_bins = net, head, n_bins
        self.is_table = is_table
        self.values_a_pixel = 1 if is_table else event_shape[0]

    @property
    def values_a_step(self) -> int:
        """Number of values per sampling step: all channels of a pixel."""
        return self.values_a_pixel

    @property
    def is_in_raster_order(self) -> bool:
        """Whether a pixel depends on the pixels before it in raster order."""
        return True

    def begin_step(self, seed: int, progress: float) -> None:
        seed_dropouts(self, seed)

    def log_px(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-probability of each channel of each pixel, (n, C, H, W) -> (n, C, H, W)."""
        h, y = self._features(x, context)
        log_px = self._from_net(self.head.log_prob(h, y))
        return log_px if self.n_bins is not None else log_px - self.scale.log()

    def log_prob(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        if self.n_bins is None:
            return self.log_px(x, context).flatten(1).sum(1)
        return self.head.log_prob_of_all(*self._features(x, context))

    def _features(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Features of every pixel, and the values in the units of network and head."""
        y = self._to_net((x - self.loc) / self.scale)
        return self.net(y, context), y

    def terms(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> dict[str, Tensor]:
        """log_px, (n, C, H, W): the log-probability of each value given those before it."""
        return {"log_px": self.log_px(x, context)}

    def sample(
        self,
        n: int,
        context: Tensor | None = None,
        temperature: float = 1.0,
        generator: Generator | None = None,
    ) -> Tensor:
        blank = self.loc.new_zeros(n, *self.event_shape)
        return self.complete(blank, 0, context, temperature, generator)

    def complete(
        self,
        x: Tensor,
        n_known: int,
        context: Tensor | None = None,
        temperature: float = 1.0,
        generator: Generator | None = None,
    ) -> Tensor:
        """Draw all pixels but the first n_known, in raster order, of x (n, C, H, W)."""
        y, members = self._to_net(((x - self.loc) / self.scale).clone()), self._draw_members(len(x), generator)
        y, n_known = self._in_order(y, members), n_known * self.values_a_pixel // self.values_a_step
        u = torch.rand(len(x), self.head.n_uniforms, *y.shape[2:], generator=generator, dtype=torch.float64).to(y)
        state = self.head.first_state(len(y))
        for index, (i, j, h) in enumerate(self._progress(self._steps(y, context, members), y[0, 0].numel())):
            at = (slice(None), slice(None), slice(i, i + 1), slice(j, j + 1))
            if index >= n_known:
                y[at] = self.head.draw(h, u[at], temperature, state)
            state = self.head.follow(h, y[at], state)
        return self._values(self._out_of_order(y, members))

    def complete_around(
        self,
        x: Tensor,
        known: Tensor,
        n_candidates: int,
        context: Tensor | None = None,
        temperature: float = 1.0,
        generator: Generator | None = None,
    ) -> Tensor:
        """Draw the unknown pixels of x (n, C, H, W), given all known pixels, with a particle filter.

        `known` (n, number of steps) says whether the values of a sampling step are known.

        Each image has K candidates, completed step by step. A known pixel keeps its value and multiplies a candidate's
        weight by the probability of that value given the pixels before it. If the effective sample size falls below K /
        2, candidates are resampled (systematic resampling). At the end, one candidate is drawn according to the
        weights. As K grows, its distribution tends to p(unknown | known): Doucet & Johansen 2009, "A Tutorial on
        Particle Filtering and Smoothing", algorithm in section 3.5. The context (n K, n_context) may differ between
        candidates.
        """
        n, k = len(x), n_candidates
        y = self._to_net((x - self.loc) / self.scale).repeat_interleave(k, 0)  # (n K, C, H, W)
        members = self._draw_members(n * k, generator)
        fixed = self._in_order(known.reshape(n, 1, *y.shape[2:]).repeat_interleave(k, 0), members)
        y = self._in_order(y, members)
        u = torch.rand(len(y), self.head.n_uniforms, *y.shape[2:], generator=generator, dtype=torch.float64).to(y)
        log_w, index = torch.zeros(n, k, dtype=torch.float64, device=y.device), None
        steps, state = self._steps(y, context, members), self.head.first_state(len(y))
        for _ in self._progress(range(y[0, 0].numel()), y[0, 0].numel()):
            i, j, h = steps.send(index)
            index, at = None, (slice(None), slice(None), slice(i, i + 1), slice(j, j + 1))
            if not fixed[at].all():
                y[at] = torch.where(fixed[at], y[at], self.head.draw(h, u[at], temperature, state))
            before, state = state, self.head.follow(h, y[at], state)
            if fixed[at].any():
                log_p = torch.where(fixed[at], self.head.log_prob(h, y[at], before), 0.0).double().flatten(1).sum(1)
                log_w = (log_w + log_p.reshape(n, k)).log_softmax(1)
                poor = (log_w.exp().square().sum(1) * k > 2)[:, None]  # effective sample size below K / 2
                if poor.any():
                    drawn = systematic_draws(log_w, k, generator)
                    index = _flat(torch.where(poor, drawn, torch.arange(k, device=y.device)), k)
                    y.copy_(y[index])  # in place: the network reads it
                    state = None if state is None else state[index]
                    fixed, members = fixed[index], None if members is None else members[index]
                    log_w = torch.where(poor, 0.0, log_w)
        drawn = _flat(systematic_draws(log_w, 1, generator), k)
        return self._values(self._out_of_order(y[drawn], None if members is None else members[drawn]))

    def _values(self, y: Tensor) -> Tensor:
        """Undo the rescaling: values in the network's units -> (n, C, H, W)."""
        values = self._from_net(y) * self.scale + self.loc
        return values if self.n_bins is None else values.round()

    # ---- for models with several orders

    def _draw_members(self, n: int, generator: Generator | None) -> Tensor | None:
        """Draw the order in which each row is sampled, (n,); None if there is one order."""
        return None

    def _in_order(self, y: Tensor, members: Tensor | None) -> Tensor:
        """Arrange the values of each row in the order in which they are drawn."""
        return y

    def _out_of_order(self, y: Tensor, members: Tensor | None) -> Tensor:
        return y

    def _steps(self, y: Tensor, context: Tensor | None, members: Tensor | None) -> Steps:
        """Yield the features of one step after the other; see `CausalNet.in_order`."""
        steps: Steps = self.net.in_order(y, context)  # type: ignore[operator]
        return steps

    def _progress(self, steps: Iterable[Item], n_steps: int) -> Iterable[Item]:
        return show_sampling(iter(steps), n_steps) if self.shows_progress else steps

    def _to_net(self, x: Tensor) -> Tensor:
        """Arrange a table's rows (n, D, 1, 1) as strips of D pixels, (n, 1, D, 1), for network and head."""
        return x.transpose(1, 2) if self.is_table else x

    def _from_net(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2) if self.is_table else x


def _flat(candidates: Tensor, k: int) -> Tensor:
    """Turn indices of an image's K candidates, (n, m), into indices of all images' candidates, (n m,)."""
    first = k * torch.arange(len(candidates), device=candidates.device)
    return (first[:, None] + candidates).flatten()
