"""What NADE and MADE share: models of rows in one or several orders of their values, averaged.

A paper brings the network, an `OrderedNet`, which computes the numbers of every value from those before it in any of
its members' orders.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from flowdetect.density.autoregressive import rescaling
from flowdetect.density.sequential import AutoregressiveModel, Steps
from flowdetect.density.spec import DataSpec
from flowdetect.nets.heads import CategoricalHead, LogisticMixtureHead

Head = LogisticMixtureHead | CategoricalHead


class OrderedNet(nn.Module):
    """Numbers of every value from the values before it, by members that differ in the order of the values.

    A subclass writes `forward` and `in_order`, and has the biases of its numbers in `out_bias`, (n_numbers, D).

    Parameters
    ----------
    n_values : int
    n_orders : int
        One: the order in which the values stand. Several: that many, drawn with the parameters.
    n_repeats : int
        How many members, one after the other, have the same order.
    """

    orders: Tensor
    out_bias: nn.Parameter

    def __init__(self, n_values: int, n_orders: int, n_repeats: int = 1) -> None:
        super().__init__()
        self.n_orders, self.n_repeats = n_orders, n_repeats
        # (members, D): which value is the first, the second ...
        self.register_buffer("orders", torch.arange(n_values).repeat(n_orders * n_repeats, 1))

    @torch.no_grad()
    def reset_parameters(self, generator: Generator) -> None:
        """Draw the orders."""
        if self.n_orders > 1:
            drawn = [torch.randperm(self.orders.shape[1], generator=generator) for _ in range(self.n_orders)]
            self.orders.copy_(torch.stack(drawn).repeat_interleave(self.n_repeats, 0))

    def forward(self, y: Tensor, context: Tensor | None = None, member: int = 0) -> Tensor:
        """Numbers of each value, where the values stand: (n, 1, D, 1) -> (n, n_numbers, D, 1)."""
        raise NotImplementedError

    def in_order(self, y: Tensor, context: Tensor | None, members: Tensor) -> Steps:
        """Numbers (n, n_numbers, 1, 1) of one value after the other, each row in the order of its member (n,).

        The values y (n, 1, D, 1) stand in these orders; see `CausalNet.in_order` for what the caller does.
        """
        raise NotImplementedError


class OrderedModel(AutoregressiveModel):
    """log p(x) = log mean over members of p_m(x), where p_m(x) is the product of p(x_i | those before it in order m).

    Uria et al. 2014, "A Deep and Tractable Density Estimator", https://arxiv.org/abs/1310.1757, section 3 (orders that
    share their weights, and ensembles of them). A training step takes the likelihood of one member, drawn for the step.
    """

    summands = ("log_px", "log_orders")
    net: OrderedNet
    head: Head

    def __init__(self, spec: DataSpec, net: OrderedNet, head: Head) -> None:
        super().__init__(spec.event_shape, rescaling(spec), net, head, spec.n_bins, spec.is_table)
        self.member = 0  # of the training step

    @torch.no_grad()
    def reset_parameters(self, generator: Generator) -> None:
        super().reset_parameters(generator)
        self.head.start(self.net.out_bias)

    @property
    def n_members(self) -> int:
        """How many orders, or networks, are averaged."""
        return len(self.net.orders)

    @property
    def values_a_step(self) -> int:
        """One: the channels of a pixel are values of their own."""
        return 1

    @property
    def is_in_raster_order(self) -> bool:
        """Whether there is one member, in the order in which the values stand."""
        return self.n_members == 1

    def begin_step(self, seed: int, progress: float) -> None:
        super().begin_step(seed, progress)
        self.member = int(torch.randint(self.n_members, (1,), generator=Generator().manual_seed(seed)))

    def _of_member(self, x: Tensor, context: Tensor | None, member: int) -> Tensor:
        """Log-probability of each value in the order of a member: (n, C, H, W)."""
        y = self._to_net((x - self.loc) / self.scale)
        log_px = self._from_net(self.head.log_prob(self.net(y, context, member), y))
        return log_px if self.n_bins is not None else log_px - self.scale.log()

    def log_prob(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """log p(x), (n,) nats; in training that of the step's member."""
        if self.training:
            return self._of_member(x, context, self.member).flatten(1).sum(1)
        sums = [self._of_member(x, context, m).flatten(1).sum(1) for m in range(self.n_members)]
        return sums[0] if self.n_members == 1 else torch.stack(sums, 1).logsumexp(1) - math.log(self.n_members)

    def log_px(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """See `terms`."""
        return self.terms(x, context)["log_px"]

    def terms(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> dict[str, Tensor]:
        """Split log p(x) by value and by what the members are in doubt about.

        With the members' shares w_m of p(x): log_px, (n, C, H, W), is the mean over w_m of the value's log-probability;
        log_orders, (n,), the entropy of w_m less log(number of members), which is 0 where all members agree and for one
        member.
        """
        of_members = [self._of_member(x, context, m) for m in range(self.n_members)]
        if self.n_members == 1:
            return {"log_px": of_members[0], "log_orders": x.new_zeros(x.shape[0])}
        log_w = torch.stack([each.flatten(1).sum(1) for each in of_members], 1).log_softmax(1)
        w = log_w.exp()
        log_px = sum((w[:, m, None, None, None] * each for m, each in enumerate(of_members)), torch.zeros_like(x))
        return {"log_px": log_px, "log_orders": -(w * log_w).sum(1) - math.log(self.n_members)}

    # ---- rows as strips of their values, and in the order in which they are drawn

    def _to_net(self, x: Tensor) -> Tensor:
        """(n, C, H, W) -> (n, 1, D, 1), values in the order (H, W, C)."""
        return x.permute(0, 2, 3, 1).reshape(x.shape[0], 1, -1, 1)

    def _from_net(self, x: Tensor) -> Tensor:
        channels, height, width = self.event_shape
        # rows of memory, since torch sums over other axes by where an entry stands
        return x.reshape(-1, height, width, channels).permute(0, 3, 1, 2).contiguous()

    def _draw_members(self, n: int, generator: Generator | None) -> Tensor:
        return torch.randint(self.n_members, (n,), generator=generator).to(self.loc.device)

    def _in_order(self, y: Tensor, members: Tensor | None) -> Tensor:
        return y if members is None else y.gather(2, self.net.orders[members][:, None, :, None])

    def _out_of_order(self, y: Tensor, members: Tensor | None) -> Tensor:
        return y if members is None else y.gather(2, self.net.orders[members].argsort(1)[:, None, :, None])

    def _steps(self, y: Tensor, context: Tensor | None, members: Tensor | None) -> Steps:
        assert members is not None
        return self.net.in_order(y, context, members)


def ordered_head(spec: DataSpec, likelihood: str, n_mixtures: int, name: str) -> Head:
    """Make the distribution of a value, whose numbers the network gives; "auto": Bernoulli for two bins."""
    if likelihood == "logistic_mixture" or (likelihood == "auto" and spec.n_bins != 2):
        return LogisticMixtureHead(None, 1, n_mixtures, spec.n_bins)
    if spec.n_bins is None:
        raise ValueError(
            f'{name}: likelihood="categorical" is for data in bins, and X is real-valued; pass "logistic_mixture", or '
            f"n_bins if X holds whole numbers."
        )
    return CategoricalHead(None, 1, spec.n_bins)


def gather_steps(
    net: Callable[[Tensor, Tensor | None, int], Tensor], y: Tensor, context: Tensor | None, members: Tensor, at: Tensor
) -> Tensor:
    """Numbers (n, n_numbers, 1, 1) of the value `at` (n,) of each row, by the row's member (n,)."""
    found: Tensor | None = None
    for member in sorted(set(members.tolist())):
        rows = (members == member).nonzero()[:, 0]
        numbers = net(y[rows], None if context is None else context[rows], member)[..., 0]
        own = numbers.gather(2, at[rows, None, None].expand(-1, numbers.shape[1], 1))
        found = own.new_empty(y.shape[0], *own.shape[1:]) if found is None else found
        found[rows] = own
    assert found is not None
    return found[..., None]
