"""What NADE and MADE share: autoregressive models in one order of the values, or averaged over several orders.

A paper adds the network, an `OrderedNet`: it computes the parameters of every value from the values before it, in the
order of any of its members.
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
    """A network from the values before each value to its parameters; members differ in the order of the values.

    A subclass implements `forward` and `in_order`; its attribute `out_bias`, (n_numbers, D), holds the output biases.

    Parameters
    ----------
    n_values : int
    n_orders : int
        1: the order of the values in the data. More: that many orders, drawn with the parameters.
    n_repeats : int
        Number of consecutive members with the same order.
    """

    orders: Tensor
    out_bias: nn.Parameter

    def __init__(self, n_values: int, n_orders: int, n_repeats: int = 1) -> None:
        super().__init__()
        self.n_orders, self.n_repeats = n_orders, n_repeats
        # (members, D): index of the first value, the second, ...
        self.register_buffer("orders", torch.arange(n_values).repeat(n_orders * n_repeats, 1))

    @torch.no_grad()
    def reset_parameters(self, generator: Generator) -> None:
        """Draw the orders."""
        if self.n_orders > 1:
            drawn = [torch.randperm(self.orders.shape[1], generator=generator) for _ in range(self.n_orders)]
            self.orders.copy_(torch.stack(drawn).repeat_interleave(self.n_repeats, 0))

    def forward(self, y: Tensor, context: Tensor | None = None, member: int = 0) -> Tensor:
        """Parameters of each value, at its place in the data: (n, 1, D, 1) -> (n, n_numbers, D, 1)."""
        raise NotImplementedError

    def in_order(self, y: Tensor, context: Tensor | None, members: Tensor) -> Steps:
        """Yield the parameters (n, n_numbers, 1, 1) of one value after the other, each row in its member's order (n,).

        The values y (n, 1, D, 1) are arranged in these orders. The caller writes each drawn value into y; see
        `CausalNet.in_order`.
        """
        raise NotImplementedError


class OrderedModel(AutoregressiveModel):
    """log p(x) = log mean over members of p_m(x), p_m(x) the product of p(x_i | values before it in order m).

    Uria et al. 2014, "A Deep and Tractable Density Estimator", https://arxiv.org/abs/1310.1757, section 3 (orders with
    shared weights, and ensembles of them). Each training step uses the likelihood of one member, drawn for the step.
    """

    summands = ("log_px", "log_orders")
    net: OrderedNet
    head: Head

    def __init__(self, spec: DataSpec, net: OrderedNet, head: Head) -> None:
        super().__init__(spec.event_shape, rescaling(spec), net, head, spec.n_bins, spec.is_table)
        self.member = 0  # member of the current training step

    @torch.no_grad()
    def reset_parameters(self, generator: Generator) -> None:
        super().reset_parameters(generator)
        self.head.start(self.net.out_bias)

    @property
    def n_members(self) -> int:
        """Number of averaged members (orders and masks)."""
        return len(self.net.orders)

    @property
    def values_a_step(self) -> int:
        """1: each channel of a pixel is a separate value."""
        return 1

    @property
    def is_in_raster_order(self) -> bool:
        """Whether there is one member, in the order of the data."""
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
        """log p(x), (n,) nats; in training, of the step's member."""
        if self.training:
            return self._of_member(x, context, self.member).flatten(1).sum(1)
        sums = [self._of_member(x, context, m).flatten(1).sum(1) for m in range(self.n_members)]
        return sums[0] if self.n_members == 1 else torch.stack(sums, 1).logsumexp(1) - math.log(self.n_members)

    def log_px(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """See `terms`."""
        return self.terms(x, context)["log_px"]

    def terms(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> dict[str, Tensor]:
        """Split log p(x) into one term per value and a term for the disagreement of the members.

        Let w_m be the members' shares of p(x). log_px, (n, C, H, W), is the mean, weighted by w_m, of each value's
        log-probability. log_orders, (n,), is the entropy of w_m less log(number of members); it is 0 if all members
        agree, and for one member.
        """
        of_members = [self._of_member(x, context, m) for m in range(self.n_members)]
        if self.n_members == 1:
            return {"log_px": of_members[0], "log_orders": x.new_zeros(x.shape[0])}
        log_w = torch.stack([each.flatten(1).sum(1) for each in of_members], 1).log_softmax(1)
        w = log_w.exp()
        log_px = sum((w[:, m, None, None, None] * each for m, each in enumerate(of_members)), torch.zeros_like(x))
        return {"log_px": log_px, "log_orders": -(w * log_w).sum(1) - math.log(self.n_members)}

    # ---- rows as strips of values, and the order in which values are drawn

    def _to_net(self, x: Tensor) -> Tensor:
        """(n, C, H, W) -> (n, 1, D, 1), values in the order (H, W, C)."""
        return x.permute(0, 2, 3, 1).reshape(x.shape[0], 1, -1, 1)

    def _from_net(self, x: Tensor) -> Tensor:
        channels, height, width = self.event_shape
        # contiguous rows: torch's sum over other axes depends on an entry's position
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
    """Build the distribution of a value from the network's outputs; "auto": Bernoulli for two bins."""
    if likelihood == "logistic_mixture" or (likelihood == "auto" and spec.n_bins != 2):
        return LogisticMixtureHead(None, 1, n_mixtures, spec.n_bins)
    if spec.n_bins is None:
        raise ValueError(
            f'{name}: likelihood="categorical" is for data in bins, but X is real-valued; pass "logistic_mixture", or '
            f"n_bins if X holds whole numbers."
        )
    return CategoricalHead(None, 1, spec.n_bins)


def gather_steps(
    net: Callable[[Tensor, Tensor | None, int], Tensor], y: Tensor, context: Tensor | None, members: Tensor, at: Tensor
) -> Tensor:
    """Parameters (n, n_numbers, 1, 1) of the value `at` (n,) of each row, by the row's member (n,)."""
    found: Tensor | None = None
    for member in sorted(set(members.tolist())):
        rows = (members == member).nonzero()[:, 0]
        numbers = net(y[rows], None if context is None else context[rows], member)[..., 0]
        own = numbers.gather(2, at[rows, None, None].expand(-1, numbers.shape[1], 1))
        found = own.new_empty(y.shape[0], *own.shape[1:]) if found is None else found
        found[rows] = own
    assert found is not None
    return found[..., None]
