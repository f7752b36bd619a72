"""NADE: a network with one hidden layer for every value; the layer's sums are updated from value to value.

Larochelle & Murray, "The Neural Autoregressive Distribution Estimator" (2011),
https://proceedings.mlr.press/v15/larochelle11a.html
Uria et al., "RNADE: The real-valued neural autoregressive density-estimator" (2013), https://arxiv.org/abs/1306.0186
Uria et al., "A Deep and Tractable Density Estimator" (2014), https://arxiv.org/abs/1310.1757
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Generator, Tensor, nn

from flowdetect.density.autoregressive import AutoregressiveDensity
from flowdetect.density.orders import OrderedModel, OrderedNet, ordered_head
from flowdetect.density.sequential import Steps
from flowdetect.density.spec import DataSpec
from flowdetect.nets.conv import map_rows


class NADENet(OrderedNet):
    r"""Parameters of the d-th value of an order o: V_i h_d + b_i, h_d = relu(rho_d (c + sum_{e < d} y_j W_j + U_j)).

    Here i = o(d) and j = o(e). All orders share the weights. U tells the network which values came before, like the
    masks among the inputs in Uria et al. 2014, section 3.1; rho_d keeps the growing sum in range (Uria et al. 2013, eq.
    11).

    Parameters
    ----------
    n_values, n_hidden : int
    n_numbers : int
        Parameters per value.
    n_orders : int
    n_context : int
        Length of a context (n, n_context), which is mapped linearly and added to c; 0: it is ignored.
    """

    def __init__(self, n_values: int, n_hidden: int, n_numbers: int, n_orders: int, n_context: int) -> None:
        super().__init__(n_values, n_orders)
        self.seen_weight = nn.Parameter(torch.zeros(2, n_values, n_hidden, dtype=torch.float32))  # W and U
        self.bias = nn.Parameter(torch.zeros(n_hidden, dtype=torch.float32))
        self.gain = nn.Parameter(torch.ones(n_values, dtype=torch.float32))
        self.out_weight = nn.Parameter(torch.zeros(n_values, n_numbers, n_hidden, dtype=torch.float32))
        self.out_bias = nn.Parameter(torch.zeros(n_numbers, n_values, dtype=torch.float32))
        self.of_context = nn.Parameter(torch.zeros(n_context, n_hidden, dtype=torch.float32)) if n_context else None

    @torch.no_grad()
    def reset_parameters(self, generator: Generator) -> None:
        """Draw the orders, W and V; all other parameters start at zero."""
        super().reset_parameters(generator)
        n_values, n_hidden = self.seen_weight.shape[1:]
        for weight, gain in ((self.seen_weight[0], n_values**-0.5), (self.out_weight, 0.1 * n_hidden**-0.5)):
            weight.copy_(gain * torch.randn(weight.shape, generator=generator, dtype=torch.float32))

    def _sum_of_none(self, n: int, context: Tensor | None) -> Tensor:
        """Return the sums before the first value: (n, n_hidden)."""
        if self.of_context is None or context is None:
            return self.bias.expand(n, -1)
        return self.bias + map_rows(context.to(self.bias.dtype), self.of_context, self.training)

    def forward(self, y: Tensor, context: Tensor | None = None, member: int = 0) -> Tensor:
        """(n, 1, D, 1) -> (n, n_numbers, D, 1); the sums of all values at once, (n, D, n_hidden)."""
        order = self.orders[member]
        weight, seen = self.seen_weight.index_select(1, order[:-1])
        terms = torch.addcmul(seen, y[:, 0].index_select(1, order[:-1]), weight)  # (n, D - 1, n_hidden)
        sums = torch.cat([self._sum_of_none(y.shape[0], context)[:, None], terms], 1).cumsum(1)
        h, weights = (sums * self.gain[:, None]).relu(), self.out_weight.index_select(0, order)
        n_values, n_numbers, n_hidden = weights.shape
        if self.training:
            out = torch.einsum("ndh,dkh->nkd", h, weights)
        else:  # a convolution gives equal rows equal results at any position
            out = F.conv2d(h.reshape(h.shape[0], -1, 1, 1), weights.reshape(-1, n_hidden, 1, 1), groups=n_values)
            out = out.reshape(-1, n_values, n_numbers).transpose(1, 2)
        where_they_stand = out.index_select(2, order.argsort())
        return (where_they_stand + self.out_bias)[..., None].contiguous()

    def in_order(self, y: Tensor, context: Tensor | None, members: Tensor) -> Steps:
        """As `OrderedNet.in_order`: each step adds one term to the sum."""
        sums, orders = self._sum_of_none(y.shape[0], context), self.orders[members]
        for d in range(y.shape[2]):
            h = (sums * self.gain[d]).relu()
            numbers = (self.out_weight[orders[:, d]] @ h[:, :, None])[..., 0] + self.out_bias.t()[orders[:, d]]
            index = yield d, 0, numbers[..., None, None]
            if index is not None:
                sums, orders = sums[index], orders[index]
            weight, seen = self.seen_weight[:, orders[:, d]]
            sums = sums + y[:, 0, d] * weight + seen


@dataclass(kw_only=True, eq=False, repr=False)
class NADEDensity(AutoregressiveDensity):
    r"""Density by a neural autoregressive distribution estimator: value by value, with one hidden layer.

    .. math:: \log p(x) = \log \frac{1}{K} \sum_{k=1}^K \prod_d p(x_{o_k(d)} \mid x_{o_k(1)}, \dots, x_{o_k(d-1)})

    over K orders o of the values. Use it for tables and for features with few values, such as binary data. From value
    to value one term is added to the sums of the hidden layer, so a score takes about as long as one pass of a network
    over all values; a sample takes one step per value. Scores are exact, also for data in bins. Images are treated as
    rows of their values; for large images use `PixelCNNDensity`.

    Parameters
    ----------
    n_hidden : int, default 128
        Units of the hidden layer.
    n_orders : int, default 1
        Number of orders to average over. 1: the order of the columns or pixels in the data. More: random orders that
        share their weights; each training step uses one of them ("order-agnostic" training). Training then takes as
        long as with one order, and a score n_orders times as long.
    likelihood : "auto", "logistic_mixture" or "categorical", default "auto"
        The distribution of a value given the values before it. "logistic_mixture": discretised for data in bins, a
        density for real values (RNADE has normal distributions); scales lie between e^-7 and e^7. "categorical": a
        probability for each value; for data in bins only. "auto": "categorical" for two bins (a Bernoulli
        distribution), else "logistic_mixture".
    n_mixtures : int, default 10
        Components of the logistic mixture.
    batch_size : "auto" or int, default "auto"
    learning_rate : float, default 3e-3

    All other parameters are those of `BaseDensity`.

    Attributes
    ----------
    n_features_in_ : int
    image_shape_ : (H, W, C) or None
    n_bins_ : int or None
    classes_, class_log_prior_ : (K,) arrays, of a conditional density
    constant_features_ : indices of the constant columns, which are not modelled
    history_ : dict of lists, one value per epoch: bits_per_dim, validation_bits_per_dim, skipped_steps, seconds
    n_iter_ : int, epochs trained
    score_is_bound_ : bool, False

    Notes
    -----
    Real values are standardised first. `likelihood_terms` returns log_px, one term per value, and log_orders, which is
    0 for one order and otherwise the entropy of the orders' shares of p(x), less log K. Binary data need n_bins=2.

    References
    ----------
    The Neural Autoregressive Distribution Estimator (Larochelle & Murray), 2011,
    https://proceedings.mlr.press/v15/larochelle11a.html
    RNADE: The real-valued neural autoregressive density-estimator (Uria et al.), 2013, https://arxiv.org/abs/1306.0186
    A Deep and Tractable Density Estimator (Uria et al.), 2014, https://arxiv.org/abs/1310.1757

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect import NADEDensity
    >>> X = np.random.default_rng(0).integers(0, 2, size=(200, 6))
    >>> density = NADEDensity(n_bins=2, n_hidden=8, n_orders=4, max_epochs=2, random_state=0).fit(X)
    >>> density.score_samples(X[:3]).shape
    (3,)
    >>> density.sample(5, random_state=0).shape
    (5, 6)
    """

    n_hidden: int = 128
    n_orders: int = 1
    likelihood: str = "auto"
    n_mixtures: int = 10
    batch_size: int | str = "auto"
    learning_rate: float = 3e-3
    chunk_values: ClassVar[int] = 2**13  # fewer than a flow's: each value has its own copy of all hidden units

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **AutoregressiveDensity._parameter_constraints,
        "n_hidden": [Interval(Integral, 1, None, closed="left")],
        "n_orders": [Interval(Integral, 1, None, closed="left")],
        "likelihood": [StrOptions({"auto", "logistic_mixture", "categorical"})],
        "n_mixtures": [Interval(Integral, 1, None, closed="left")],
    }

    def _build(self, spec: DataSpec) -> OrderedModel:
        head = ordered_head(spec, self.likelihood, self.n_mixtures, type(self).__name__)
        net = NADENet(spec.n_values, self.n_hidden, head.n_numbers, self.n_orders, spec.n_context)
        return OrderedModel(spec, net, head)
