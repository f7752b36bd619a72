"""The contract of a layer and of a bijection.

A layer maps data to noise: `forward(x)` returns `(z, term)` with log p(x) = log p(z) + term, one term per row, in nats.
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

    A subclass must return a term of shape (n,), in nats, and must accept a context even if it ignores it. A context is
    any tensor of n rows; class labels are embedded first.

    Attributes
    ----------
    n_noise : int
        Number of noise values, in [0, 1), that `forward` takes per row; 0: none.
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

        `noise` is (n, n_noise), in [0, 1); None: no noise, e.g. the bins' centres.
        """
        raise NotImplementedError

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """Map noise to data: (n, ...) -> (n, ...); all random draws come from the generator."""
        raise NotImplementedError

    def reset_parameters(self, generator: Generator) -> None:
        """Draw this layer's own random parameters; layers without random parameters need not override it."""

    def initialize(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """Set data-dependent parameters from a first batch and return z; most layers have none."""
        return self.forward(x, context, noise)[0]


class Rewound(NamedTuple):
    """A layer's map, recomputed from its output, as a graph for gradients.

    Attributes
    ----------
    x : tuple of leaves; concatenated along the channels they are the layer's input
    z : tuple of tensors; concatenated along the channels they are its output
    term : (n,) tensor
    """

    x: tuple[Tensor, ...]
    z: tuple[Tensor, ...]
    term: Tensor


def leaf(x: Tensor) -> Tensor:
    """Return x as the start of a new graph."""
    return x.detach().requires_grad_()


class Bijection(Layer):
    """An invertible map of tensors, batch first, with the log-determinant of its Jacobian.

    It is a layer without noise whose term is log|det dz/dx|. Besides the rules of `Layer`, a subclass must ensure that
    `inverse(forward(x)[0])` is x, and that every scale lies in an interval that it documents, bounded away from 0 and
    infinity. The library relies on these rules and does not verify them at run time;
    `flowdetect.testing.check_bijection` does.

    Attributes
    ----------
    inverse_tolerance : float
        Largest error of `inverse` relative to ``1 + |x|``, in float64; 0 if the inverse has a closed form.
    needs_input : bool
        Whether a memory-efficient backward pass must store the layer's input, because the inverse takes as long as the
        layer, or differs in training. If the inverse is numerical, the input is always stored.

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
        """Mean factor by which the inverse enlarges a relative error of z; None: it does not."""
        return None

    def rewind(self, z: Tensor, context: Tensor | None = None) -> Rewound:
        """Recompute the layer's input from its output, and map it again with gradients."""
        with torch.no_grad():
            x = self.inverse(z, context)
        return self.again(x, context)

    def again(self, x: Tensor, context: Tensor | None = None) -> Rewound:
        """Map the layer's input again, with gradients."""
        x = leaf(x)
        with torch.enable_grad():
            z, term = self(x, context)
        return Rewound((x,), (z,), term)
