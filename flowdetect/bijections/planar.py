"""Planar and radial bijections: a shift along one direction, and a shift towards or away from one point.

Rezende & Mohamed 2015, "Variational Inference with Normalizing Flows", https://arxiv.org/abs/1505.05770, section 4.1
and appendix A.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from flowdetect.bijections.base import Bijection, soft_bound
from flowdetect.bijections.root import bracketed_root
from flowdetect.nets.conv import map_rows

SLOPE_BOUND = 3.0  # bound on the log of a step's extreme slope
LEAST_SQUARE = 1e-12  # lower limit on |w|^2, which is a divisor
TINY = 1e-30  # added to a squared distance, so that its root has a gradient at 0


class _Step(Bijection):
    """A step whose parameters are learned constants plus a linear map of the context.

    Parameters
    ----------
    n_features : int
        Number of values per row; rows may have any shape.
    n_context : int
        Length of a context (n, n_context); 0: it is ignored.
    """

    def __init__(self, n_features: int, n_context: int = 0) -> None:
        super().__init__()
        self.n_features = n_features
        self.numbers = nn.Parameter(torch.zeros(self._count(n_features), dtype=torch.float32))
        # not a ContextMap, which learns too fast here: the context may be many outputs of a network
        weight = torch.zeros(n_context, len(self.numbers), dtype=torch.float32)
        self.context_weight = nn.Parameter(weight) if n_context else None

    @staticmethod
    def _count(n_features: int) -> int:
        """Return the number of parameters of a step."""
        raise NotImplementedError

    @torch.no_grad()
    def reset_parameters(self, generator: Generator) -> None:
        """Draw the parameters; scalar products with standard normal rows have standard deviation about 1."""
        noise = torch.randn(self.numbers.shape, generator=generator, dtype=torch.float32)
        self.numbers.copy_(noise / self.n_features**0.5)

    def _parameters_of(self, context: Tensor | None) -> Tensor:
        """Return the parameters: (1, n_numbers), or (n, n_numbers) with a context."""
        if self.context_weight is None or context is None:
            return self.numbers[None]
        return self.numbers + map_rows(context.to(self.numbers.dtype), self.context_weight, self.training)


class Planar(_Step):
    r"""z = x + v tanh(w^T x + b): moves points along v, in opposite directions on either side of the plane w^T x = -b.

    .. math:: \log|\det| = \log(1 + w^T v \, (1 - \tanh^2(w^T x + b))), \quad
        v = u + (m(w^T u) - w^T u) w / |w|^2, \quad m(a) = e^{3 \tanh(a / 3)} - 1

    It is invertible if w^T v > -1 (paper, appendix A.1). Therefore v is u with its component along w replaced so that 1
    + w^T v, and with it the determinant, lies in (0.050, 20.1); the paper's m(a) = log(1 + e^a) - 1 is not bounded away
    from -1. w^T z is an increasing function of w^T x; the inverse solves for w^T x by Newton steps within a bracket,
    with an error of about ``1e-12 (1 + |w^T x|) |v|`` in float64, ``1e-6 (1 + |w^T x|) |v|`` in float32.

    Parameters
    ----------
    n_features : int
        D, the number of values per row; rows may have any shape.
    n_context : int
        Length of a context (n, n_context), whose linear map is added to w, u and b; 0: it is ignored.

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import Planar
    >>> layer = Planar(2).eval()
    >>> layer.reset_parameters(torch.Generator().manual_seed(0))
    >>> x = torch.randn(5, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    >>> z, log_det = layer(x)
    >>> torch.allclose(layer.inverse(z), x, atol=1e-4)
    True
    """

    inverse_tolerance = 1e-9

    @staticmethod
    def _count(n_features: int) -> int:
        return 2 * n_features + 1

    def _w_v_b_m(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """w (k, D), v (k, D), b (k,) and m = w^T v (k,), for k = 1 or n rows."""
        numbers, d = self._parameters_of(context), self.n_features
        w, u, b = numbers[:, :d], numbers[:, d : 2 * d], numbers[:, 2 * d]
        product = (w * u).sum(1)
        m = torch.expm1(soft_bound(product, SLOPE_BOUND))
        square = w.square().sum(1).clamp_min(LEAST_SQUARE)
        return w, u + ((m - product) / square)[:, None] * w, b, m

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        w, v, b, m = self._w_v_b_m(context)
        rows = x.flatten(1)
        t = torch.tanh((rows * w).sum(1) + b)
        z = rows + v * t[:, None]
        return z.reshape(x.shape), torch.log1p(m * (1 - t.square()))

    @torch.no_grad()
    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        w, v, b, m = self._w_v_b_m(context)
        rows = z.flatten(1)
        target = (rows * w).sum(1)

        def moved(a: Tensor) -> tuple[Tensor, Tensor]:
            t = torch.tanh(a + b)
            return a + m * t, 1 + m * (1 - t.square())

        reach = m.abs() + 1e-6 * (1 + target.abs())
        a = bracketed_root(moved, target, target - reach, target + reach)
        x = rows - v * torch.tanh(a + b)[:, None]
        return x.reshape(z.shape)


class Radial(_Step):
    r"""z = x + beta (x - c) / (alpha + r), r = |x - c|: moves points towards the centre c or away from it.

    .. math:: \log|\det| = (D - 1) \log(1 + \beta h) + \log(1 + \beta \alpha h^2), \quad h = 1 / (\alpha + r)

    It is invertible if beta > -alpha (paper, appendix A.2). Here alpha = e^a lies in (0.050, 20.1), and so does 1 +
    beta / alpha, the slope at the centre, which differs most from 1. The inverse has a closed form: the distance of z
    from the centre is R = r + beta r / (alpha + r), a quadratic equation in r.

    Parameters
    ----------
    n_features : int
        D, the number of values per row; rows may have any shape.
    n_context : int
        Length of a context (n, n_context), whose linear map is added to centre, a and the log-slope; 0: it is ignored.

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import Radial
    >>> layer = Radial(2).eval()
    >>> layer.reset_parameters(torch.Generator().manual_seed(0))
    >>> x = torch.randn(5, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    >>> z, log_det = layer(x)
    >>> torch.allclose(layer.inverse(z), x, atol=1e-4)
    True
    """

    @staticmethod
    def _count(n_features: int) -> int:
        return n_features + 2

    def _centre_alpha_beta(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Centre (k, D), alpha (k,) and beta (k,), for k = 1 or n rows."""
        numbers, d = self._parameters_of(context), self.n_features
        alpha = soft_bound(numbers[:, d], SLOPE_BOUND).exp()
        beta = alpha * torch.expm1(soft_bound(numbers[:, d + 1], SLOPE_BOUND))
        return numbers[:, :d], alpha, beta

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        centre, alpha, beta = self._centre_alpha_beta(context)
        away = x.flatten(1) - centre
        h = 1 / (alpha + (away.square().sum(1) + TINY).sqrt())
        z = x.flatten(1) + (beta * h)[:, None] * away
        log_det = (self.n_features - 1) * torch.log1p(beta * h) + torch.log1p(beta * alpha * h.square())
        return z.reshape(x.shape), log_det

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        centre, alpha, beta = self._centre_alpha_beta(context)
        away = z.flatten(1) - centre
        distance = (away.square().sum(1) + TINY).sqrt()
        # solves r^2 + k r - alpha R = 0 without a difference of nearly equal numbers
        k = alpha + beta - distance
        root = (k.square() + 4 * alpha * distance).sqrt() + k.abs()
        r = torch.where(k > 0, 2 * alpha * distance / root, root / 2)
        x = centre + away / (1 + beta / (alpha + r))[:, None]
        return x.reshape(z.shape)
