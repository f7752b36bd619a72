"""MADE: all values by one network whose weights are masked so that each value sees those before it.

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
    """Numbers of every value from those before it in an order, by a perceptron whose masks differ between members.

    A unit of degree m sees the first m + 1 values of the order, and whatever has degree m at most; an output sees the
    units whose degree is below its place in the order (Germain et al. 2015, eq. 8 and 9).

    Parameters
    ----------
    n_values : int
    hidden_features : sequence of int
        Widths of the hidden layers; at least n_values - 1 is taken, so that every value is seen by all later ones.
    n_numbers : int
        Numbers a value.
    n_orders, n_masks : int
        Members are all pairs of them. With one mask, degrees are spread evenly; of several, each has these shuffled.
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
        # a context reaches the hidden units, and the outputs too, since the first value sees no hidden unit
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
        # each unit sees about half of what is before it
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
        """As `OrderedNet.in_order`: one pass a step and member."""
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

    over K = n_orders * n_masks masked networks that share their weights. A score takes one pass of the network for each
    of them, a sample one pass a value. Scores are exact, in bins too. Images are taken as rows of their values; for
    large ones take `PixelCNNDensity`.

    Parameters
    ----------
    hidden_features : tuple of int, default (128, 128)
        Widths of the hidden layers; at least one unit less than there are values is taken.
    n_orders : int, default 1
        How many orders are averaged. 1: the order in which columns or pixels stand; more: drawn orders, of which every
        training step takes one ("order-agnostic" training).
    n_masks : int, default 1
        How many sets of masks are averaged for each order. 1: hidden units see the first 1, 2, 3 ... values of an
        order, evenly; more: which unit sees how many is drawn for each set, of which every training step takes one
        ("connectivity-agnostic" training).
    likelihood : "auto", "logistic_mixture" or "categorical", default "auto"
        Of a value given those before it. "logistic_mixture": discretised in bins, a density of real values, scales
        within e^-7 and e^7. "categorical" has a probability for each value, and needs data in bins. "auto":
        "categorical" with two bins, which makes it Bernoulli's, else "logistic_mixture".
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
    constant_features_ : indices of the columns that are constant and not modelled
    history_ : dict of lists, one value an epoch: bits_per_dim, validation_bits_per_dim, skipped_steps, seconds
    n_iter_ : int, epochs trained
    score_is_bound_ : bool, False

    Notes
    -----
    Real values are standardised first. `likelihood_terms` gives log_px, each value's part, and log_orders, which is 0
    for one network: see `OrderedModel.terms`. Binary data need n_bins=2. The paper draws a unit's degree at random;
    here degrees are shuffled, so that each occurs as often under every mask.

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
                f"{name}: n_orders * n_masks must be at most {DEEPEST}, got {self.n_orders} * {self.n_masks}; the "
                f"usual ones are 1 to 16 orders and 1 mask."
            )
        head = ordered_head(spec, self.likelihood, self.n_mixtures, name)
        net = MADENet(spec.n_values, widths, head.n_numbers, self.n_orders, self.n_masks, spec.n_context)
        return OrderedModel(spec, net, head)
