"""Couplings: one part of the channels is mapped elementwise, with parameters that a network computes from the rest."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from flowdetect.bijections.base import Bijection, Rewound, leaf, sum_except_batch
from flowdetect.bijections.elementwise import LOG_SCALES
from flowdetect.bijections.spline import spline_by_mode, spline_inverse, split_numbers


class Coupling(Bijection):
    """z_a = f(x_a; net(x_b)), z_b = x_b, with f monotone and elementwise; log|det| = sum(log f').

    The first half of the channels (the larger one if their number is odd) is x_b, the rest x_a. A subclass defines f.

    Parameters
    ----------
    net : module of x_b and a context, (n, ceil(c / 2), H, W) -> (n, k * floor(c / 2), H, W)
        Returns k parameters for each value of x_a.

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import AdditiveCoupling, Coupling
    >>> from flowdetect.nets import ConvNet
    >>> coupling = AdditiveCoupling(ConvNet(2, 8, 2))  # x_b has 2 of the 4 channels
    >>> isinstance(coupling, Coupling)
    True
    >>> x = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    >>> torch.equal(coupling(x)[0][:, :2], x[:, :2])  # x_b passes unchanged
    True
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def _map(self, x_a: Tensor, h: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return f(x_a) and log f' for every value (None if it is 0), given the network's output h."""
        raise NotImplementedError

    def _unmap(self, z_a: Tensor, h: Tensor) -> Tensor:
        """Invert f."""
        raise NotImplementedError

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x_b, x_a = x.chunk(2, dim=1)
        z_a, log_s = self._map(x_a, self.net(x_b, context))
        log_det = x.new_zeros(x.shape[0]) if log_s is None else sum_except_batch(log_s)
        return torch.cat([x_b, z_a], dim=1), log_det

    def forward_each(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `forward`, with the log-determinant of each value, (n, c, H, W), which is 0 for x_b."""
        x_b, x_a = x.chunk(2, dim=1)
        z_a, log_s = self._map(x_a, self.net(x_b, context))
        log_s = torch.zeros_like(x_a) if log_s is None else log_s
        return torch.cat([x_b, z_a], dim=1), torch.cat([torch.zeros_like(x_b), log_s], dim=1)

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        z_b, z_a = z.chunk(2, dim=1)
        return torch.cat([z_b, self._unmap(z_a, self.net(z_b, context))], dim=1)

    def rewind(self, z: Tensor, context: Tensor | None = None) -> Rewound:
        """As in the base class; the inverse and the map share the network's output."""
        z_b, z_a = z.chunk(2, dim=1)
        x_b = leaf(z_b)
        with torch.enable_grad():
            h = self.net(x_b, context)
        with torch.no_grad():
            x_a = self._unmap(z_a, h)
        x_a = leaf(x_a)
        with torch.enable_grad():
            z_a, log_s = self._map(x_a, h)
            log_det = z.new_zeros(z.shape[0]) if log_s is None else sum_except_batch(log_s)
        return Rewound((x_b, x_a), (x_b, z_a), log_det)


class AffineCoupling(Coupling):
    """z_a = (x_a + t) * s with (t, h) = net(x_b), s = scale(h); z_b = x_b (Kingma & Dhariwal 2018, Table 1).

    s lies in the interval of the named scale, see `sigmoid_log_scale` and `exp_log_scale`.

    Parameters
    ----------
    net : module, (n, ceil(c / 2), H, W) -> (n, 2 * floor(c / 2), H, W)
    scale : "sigmoid" or "exp"

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import AffineCoupling
    >>> from flowdetect.nets import ConvNet
    >>> coupling = AffineCoupling(ConvNet(2, 8, 4))  # 2 channels of x_b give 2 scales and 2 shifts
    >>> x = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    >>> z, log_det = coupling(x)
    >>> torch.allclose(coupling.inverse(z), x, atol=1e-5)
    True
    """

    def __init__(self, net: nn.Module, scale: str = "sigmoid") -> None:
        super().__init__(net)
        self.scale = scale

    def _map(self, x_a: Tensor, h: Tensor) -> tuple[Tensor, Tensor | None]:
        t, raw = h.chunk(2, dim=1)
        log_s = LOG_SCALES[self.scale](raw)
        return (x_a + t) * log_s.exp(), log_s

    def _unmap(self, z_a: Tensor, h: Tensor) -> Tensor:
        t, raw = h.chunk(2, dim=1)
        return z_a * (-LOG_SCALES[self.scale](raw)).exp() - t


class AdditiveCoupling(Coupling):
    """z_a = x_a + net(x_b), z_b = x_b: volume-preserving, log|det| = 0 (Dinh et al. 2014, NICE).

    Parameters
    ----------
    net : module, (n, ceil(c / 2), H, W) -> (n, floor(c / 2), H, W)

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import AdditiveCoupling
    >>> from flowdetect.nets import ConvNet
    >>> coupling = AdditiveCoupling(ConvNet(2, 8, 2))  # 2 channels of x_b give 2 shifts
    >>> z, log_det = coupling(torch.ones(1, 4, 2, 2))
    >>> log_det  # a shift changes no volume
    tensor([0.])
    """

    def _map(self, x_a: Tensor, h: Tensor) -> tuple[Tensor, Tensor | None]:
        return x_a + h, None

    def _unmap(self, z_a: Tensor, h: Tensor) -> Tensor:
        return z_a - h


class SplineCoupling(Coupling):
    """z_a = the spline of net(x_b) at x_a; z_b = x_b (Durkan et al. 2019, "Neural Spline Flows", section 3.1).

    The spline has its knots in [-5, 5] and is the identity outside; slopes lie in (5e-5, 87) for 8 bins.

    Parameters
    ----------
    net : module, (n, ceil(c / 2), H, W) -> (n, (3 n_bins - 1) * floor(c / 2), H, W)
    n_bins : int

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import SplineCoupling
    >>> from flowdetect.nets import ConvNet
    >>> coupling = SplineCoupling(ConvNet(1, 8, 11), n_bins=4)  # 3 * 4 - 1 numbers for the one channel of x_a
    >>> x = torch.randn(1, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    >>> z, log_det = coupling(x)
    >>> torch.allclose(coupling.inverse(z), x, atol=1e-5)
    True
    """

    def __init__(self, net: nn.Module, n_bins: int = 8) -> None:
        super().__init__(net)
        self.n_bins = n_bins

    def _map(self, x_a: Tensor, h: Tensor) -> tuple[Tensor, Tensor | None]:
        return spline_by_mode(x_a, split_numbers(h, self.n_bins).movedim(-1, 0), self.n_bins, self.training)

    def _unmap(self, z_a: Tensor, h: Tensor) -> Tensor:
        return spline_inverse(z_a, split_numbers(h, self.n_bins), self.n_bins)
