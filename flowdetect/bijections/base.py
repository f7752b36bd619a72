"""The contract of a layer and of a bijection.

A layer runs data to noise: `forward(x)` gives `(z, term)` with log p(x) = log p(z) + term, term in nats, one per row.
The term of a bijection is log|det dz/dx|. Flows, dequantisation and encoders are all sums of such terms (Nielsen et al.
2020, "SurVAE Flows", https://arxiv.org/abs/2007.02731). `Chain`, in chain.py, composes them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn


def sum_except_batch(x: Tensor) -> Tensor:
    """Sum over all axes but the first: (n, ...) -> (n,)."""
    return x.flatten(1).sum(1)


def soft_bound(h: Tensor, bound: float, gain: float = 1.0) -> Tensor:
    """Squash gain * h smoothly into (-bound, bound), with slope gain at 0."""
    return bound * torch.tanh(h * (gain / bound))


class Layer(nn.Module):
    """A map of tensors, batch first, with the term that makes log p(x) = log p(z) + term.

    A subclass must ensure that the term has shape (n,) and is in nats, and that a context is taken also where it is
    ignored. A context is any tensor of n rows: class labels pass an embedding first.

    Attributes
    ----------
    n_noise : int
        How many values of noise, in [0, 1), `forward` takes for each row; 0: none.
    is_bound : bool
        Whether the term makes the sum a lower bound of log p(x).

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import UniformDequantize
    >>> layer = UniformDequantize((1, 2, 2), n_bins=4)
    >>> layer.n_noise, layer.is_bound  # a value of noise for each pixel; log p(x) becomes a lower bound
    (4, True)
    >>> z, term = layer(torch.zeros(3, 1, 2, 2))
    >>> z.shape, term.shape
    (torch.Size([3, 1, 2, 2]), torch.Size([3]))
    """

    n_noise: int = 0
    is_bound: bool = False

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map data to noise: (n, ...) -> z (n, ...), term (n,) in nats.

        `noise` is (n, n_noise), in [0, 1); None gives the deterministic answer, such as the bins' centres.
        """
        raise NotImplementedError

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """Map noise to data: (n, ...) -> (n, ...); whatever a layer draws comes from the generator."""
        raise NotImplementedError

    def reset_parameters(self, generator: Generator) -> None:
        """Draw this layer's own random parameters; layers without any need not override it."""

    def initialize(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """Set data-dependent parameters from a first batch and return z; most layers have none."""
        return self.forward(x, context, noise)[0]


class Rewound(NamedTuple):
    """A layer's map, computed again from what it gave, as a graph that gradients pass through.

    Attributes
    ----------
    x : tuple of leaves; side by side along the channels they are what the layer was given
    z : tuple of tensors; side by side along the channels they are what it gave
    term : (n,) tensor
    """

    x: tuple[Tensor, ...]
    z: tuple[Tensor, ...]
    term: Tensor


def leaf(x: Tensor) -> Tensor:
    """Give the start of a new graph."""
    return x.detach().requires_grad_()


class Bijection(Layer):
    """An invertible map of tensors, batch first, that knows the log-determinant of its Jacobian.

    A layer without noise, whose term is log|det dz/dx|. A subclass must ensure that `inverse(forward(x)[0])` is x, that
    every scale is bounded both ways (by an interval that it documents), and what `Layer` asks for. The library relies
    on this and does not verify it at run time; `flowdetect.testing.check_bijection` does.

    Attributes
    ----------
    inverse_tolerance : float
        Largest error of `inverse` relative to 1 + |x|, in float64; 0 where the inverse is a formula.
    needs_input : bool
        Whether a memory-efficient backward pass must keep what the layer was given: where the inverse takes as long as
        the layer, or is another one in training. Where it is numerical, the input is kept in any case.

    Examples
    --------
    >>> import math
    >>> import torch
    >>> from flowdetect.bijections import Bijection
    >>> class Double(Bijection):
    ...     def forward(self, x, context=None, noise=None):
    ...         return 2 * x, x.new_full((len(x),), x[0].numel() * math.log(2))
    ...     def inverse(self, z, context=None, generator=None):
    ...         return z / 2
    >>> z, log_det = Double()(torch.ones(1, 3))
    >>> z, log_det  # 3 log 2
    (tensor([[2., 2., 2.]]), tensor([2.0794]))
    """

    inverse_tolerance: float = 0.0
    needs_input: bool = False

    def error_growth(self) -> Tensor | None:
        """How much larger an error of z is in x, each relative to the values, on average; None: no larger."""
        return None

    def rewind(self, z: Tensor, context: Tensor | None = None) -> Rewound:
        """Find what the layer was given from what it gave, and map it again with gradients."""
        with torch.no_grad():
            x = self.inverse(z, context)
        return self.again(x, context)

    def again(self, x: Tensor, context: Tensor | None = None) -> Rewound:
        """Map what the layer was given again, with gradients."""
        x = leaf(x)
        with torch.enable_grad():
            z, term = self(x, context)
        return Rewound((x,), (z,), term)
