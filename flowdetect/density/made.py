"""MADE: one network for all values, with weights masked so that each value depends on the values before it.

Germain et al., "MADE: Masked Autoencoder for Distribution Estimation" (2015), https://arxiv.org/abs/1502.03509
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Generator, Tensor, nn

from flowdetect.density._parameters import DEEPEST, check_widths
from flowdetect.density.autoregressive import AutoregressiveDensity
from flowdetect.density.orders import OrderedModel, OrderedNet, gather_steps, ordered_head
from flowdetect.density.sequential import Steps
from flowdetect.density.spec import DataSpec
from flowdetect.nets.masked import context_biases, degree_mask, masked_linear


class MADENet(OrderedNet):
    """A perceptron from the values before each value, in an order, to its parameters; members differ in their masks.

    A unit of degree m receives the first m + 1 values of the order and units of degree at most m. An output receives
    the units whose degree is below its place in the order (Germain et al. 2015, eq. 8 and 9).

    Parameters
    ----------
    n_values : int
    hidden_features : sequence of int
        Widths of the hidden layers; raised to n_values - 1 if smaller, so that every value reaches all later ones.
    n_numbers : int
        Parameters per value.
    n_orders, n_masks : int
        A member is a pair of an order and a mask. With one mask, degrees are spread evenly; with several, each mask has
        these degrees shuffled.
    n_context : int
        Length of a context (n, n_context); 0: it is ignored.
    """

    def __init__(
        self,
        n_values: int,
        hidden_features: Sequence[int],
        n_numbers: int,
        n_orders: int,
        n_masks: int,
        n_context: int,
    ) -> None:
        super().__init__(n_values, n_orders, n_masks)
        highest = max(1, n_values - 1)  # number of degrees
        widths = [max(width, n_values - 1) for width in hidden_features]
        for i, width in enumerate(widths):
            self.register_buffer(f"degrees_{i}", (torch.arange(width) % highest).repeat(n_masks, 1))
        sizes = [n_values, *widths]
        self.weights = nn.ParameterList(torch.zeros(b, a, dtype=torch.float32) for a, b in pairwise(sizes))
        self.biases = nn.ParameterList(torch.zeros(width, dtype=torch.float32) for width in widths)
        self.out_weight = nn.Parameter(torch.zeros(n_numbers * n_values, sizes[-1], dtype=torch.float32))
        self.out_bias = nn.Parameter(torch.zeros(n_numbers, n_values, dtype=torch.float32))
        # the context also enters the outputs: the first value depends on no hidden unit
        outer = [sizes[1] if widths else n_values, n_numbers * n_values] if n_context else []
        self.context_maps = nn.ParameterList(torch.zeros(n_context, width, dtype=torch.float32) for width in outer)

    @torch.no_grad()
    def reset_parameters(self, generator: Generator) -> None:
        """Draw orders, masks and weights; biases start at zero."""
        super().reset_parameters(generator)
        if self.n_repeats > 1:
            for i in range(len(self.weights)):
                degrees = self._degrees(i)
                for mask in range(self.n_repeats):
                    drawn = torch.randperm(degrees.shape[1], generator=generator)
                    degrees[mask] = degrees[mask].sort().values[drawn]
        # each unit receives about half of the units before it
        for weight, gain in (*((weight, 2.0) for weight in self.weights), (self.out_weight, 0.14)):
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float32)
            weight.copy_(noise * (gain * weight.shape[1] ** -0.5))

    def _degrees(self, layer: int) -> Tensor:
        """Degrees of a hidden layer's units, under each mask: (n_masks, width)."""
        degrees: Tensor = getattr(self, f"degrees_{layer}")
        return degrees

    def forward(self, y: Tensor, context: Tensor | None = None, member: int = 0) -> Tensor:
        """(n, 1, D, 1) -> (n, n_numbers, D, 1)."""
        of_hidden, of_out = context_biases(self.context_maps, context)
        place = degrees = self.orders[member].argsort()
        h = y.transpose(1, 2)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            before, degrees = degrees, self._degrees(i)[member % self.n_repeats]
            h = masked_linear(h, weight * degree_mask(before, degrees), bias, self.training)
            h = h if i or of_hidden is None else h + of_hidden
            h = h.relu()
        mask = degree_mask(degrees, place, strict=True).repeat(len(self.out_bias), 1)
        out = masked_linear(h, self.out_weight * mask, self.out_bias.flatten(), self.training)
        out = out if of_out is None else out + of_out
        return out.reshape(y.shape[0], *self.out_bias.shape, 1)

    def in_order(self, y: Tensor, context: Tensor | None, members: Tensor) -> Steps:
        """As `OrderedNet.in_order`: one pass per step and member."""
        orders = self.orders[members]
        for d in range(y.shape[2]):
            values = y.gather(2, orders.argsort(1)[:, None, :, None])
            index = yield d, 0, gather_steps(self, values, context, members, orders[:, d])
            if index is not None:
                members, orders = members[index], orders[index]
                context = None if context is None else context[index]


@dataclass(kw_only=True, eq=False, repr=False)
class MADEDensity(AutoregressiveDensity):
    r"""Density by a masked autoencoder: one network computes every value's distribution from those before it.

    .. math:: \log p(x) = \log \frac{1}{K} \sum_{k=1}^K \prod_d p(x_{o_k(d)} \mid x_{o_k(1)}, \dots, x_{o_k(d-1)})

    over K = n_orders * n_masks masked networks with shared weights. Use it for tables. A score takes one pass of the
    network for each of the K, a sample one pass per value. Scores are exact, also for data in bins. Images are treated
    as rows of their values; for large images use `PixelCNNDensity`.

    Parameters
    ----------
    hidden_features : tuple of int, default (128, 128)
        Widths of the hidden layers; raised to the number of values minus 1 if smaller.
    n_orders : int, default 1
        Number of orders to average over. 1: the order of the columns or pixels in the data. More: random orders, of
        which each training step uses one ("order-agnostic" training).
    n_masks : int, default 1
        Number of sets of masks to average over, for each order. 1: hidden units depend on the first 1, 2, 3, ... values
        of an order, spread evenly. More: these numbers are shuffled among the units in each set, and each training step
        uses one set ("connectivity-agnostic" training).
    likelihood : "auto", "logistic_mixture" or "categorical", default "auto"
        The distribution of a value given the values before it. "logistic_mixture": discretised for data in bins, a
        density for real values; scales lie between e^-7 and e^7. "categorical": a probability for each value; for data
        in bins only. "auto": "categorical" for two bins (a Bernoulli distribution), else "logistic_mixture".
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
    0 for one network and otherwise the entropy of the networks' shares of p(x), less log K. Binary data need n_bins=2.
    The paper draws a unit's degree at random; here degrees are shuffled, so that each degree occurs equally often in
    every mask.

    References
    ----------
    MADE: Masked Autoencoder for Distribution Estimation (Germain et al.), 2015, https://arxiv.org/abs/1502.03509

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect import MADEDensity
    >>> X = np.random.default_rng(0).integers(0, 2, size=(200, 6))
    >>> density = MADEDensity(n_bins=2, hidden_features=(16,), n_orders=4, max_epochs=2, random_state=0).fit(X)
    >>> density.score_samples(X[:3]).shape
    (3,)
    >>> density.sample(5, random_state=0).shape
    (5, 6)
    """

    hidden_features: tuple[int, ...] = (128, 128)
    n_orders: int = 1
    n_masks: int = 1
    likelihood: str = "auto"
    n_mixtures: int = 10
    batch_size: int | str = "auto"
    learning_rate: float = 3e-3

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **AutoregressiveDensity._parameter_constraints,
        "hidden_features": [tuple, list],
        "n_orders": [Interval(Integral, 1, None, closed="left")],
        "n_masks": [Interval(Integral, 1, None, closed="left")],
        "likelihood": [StrOptions({"auto", "logistic_mixture", "categorical"})],
        "n_mixtures": [Interval(Integral, 1, None, closed="left")],
    }

    def _build(self, spec: DataSpec) -> OrderedModel:
        name = type(self).__name__
        widths = check_widths(self.hidden_features, (128, 128), name)
        if self.n_orders * self.n_masks > DEEPEST:
            raise ValueError(
                f"{name}: n_orders * n_masks must be at most {DEEPEST}, got {self.n_orders} * {self.n_masks}; usual "
                "values are 1 to 16 orders and 1 mask."
            )
        head = ordered_head(spec, self.likelihood, self.n_mixtures, name)
        net = MADENet(spec.n_values, widths, head.n_numbers, self.n_orders, self.n_masks, spec.n_context)
        return OrderedModel(spec, net, head)
