"""Output distributions of models: normal, logistic and categorical."""

from __future__ import annotations

import math

from flowdetect._ctrl_c import whole_imports

with whole_imports():
    import torch
    import torch.nn.functional as F
    from torch import Tensor

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
MAX_LOG_SCALE = 7.0
# distance of uniform draws from 0 and 1, where the logistic quantile is infinite
MARGIN = 1e-6
# the same for the normal quantile; 1 - NORMAL_MARGIN is a float32
NORMAL_MARGIN = 2.0**-24


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, 1) elementwise, nats."""
    return -0.5 * z.square() - HALF_LOG_2PI


def standard_normal_quantile(u: Tensor) -> Tensor:
    """Turn uniform draws u in [0, 1) into standard normal draws in (-5.4, 5.4), elementwise."""
    quantile: Tensor = torch.special.ndtri(u.clamp(NORMAL_MARGIN, 1 - NORMAL_MARGIN))
    return quantile


def bound_log_scale(log_s: Tensor) -> Tensor:
    """Clip log-scales to [-7, 7], so that no density and no bin's mass becomes 0 or infinite."""
    return log_s.clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE)


def logistic_log_prob(y: Tensor, mu: Tensor, log_s: Tensor) -> Tensor:
    """Log-density of the logistic distribution, elementwise: -z - log s - 2 log(1 + e^-z), z = (y - mu) / s."""
    z = (y - mu) * (-log_s).exp()
    return F.logsigmoid(z) + F.logsigmoid(-z) - log_s


def discretized_logistic_log_prob(y: Tensor, mu: Tensor, log_s: Tensor, n_bins: int) -> Tensor:
    """Log-mass of a bin under a logistic distribution (Salimans et al. 2017, eq. 2), elementwise, nats.

    Let a = (y + h - mu) / s and b = (y - h - mu) / s, where h = 1 / (n_bins - 1) is half a bin. The mass is sigma(a) -
    sigma(b) = sigma(a) sigma(-b) (1 - e^(b - a)); the last form has no difference of nearly equal numbers. The first
    bin includes the lower tail, sigma(a), and the last bin the upper tail, sigma(-b).

    Parameters
    ----------
    y : tensor
        Values x = 0 .. n_bins - 1 mapped to 2 x / (n_bins - 1) - 1; values between the bins and outside [-1, 1] are
        allowed.
    mu, log_s : tensors that broadcast against y
        Location, and log-scale within the limits of `bound_log_scale`.
    n_bins : int
    """
    half = 1 / (n_bins - 1)
    inverse_s = (-log_s).exp()
    below = F.logsigmoid((y + half - mu) * inverse_s)
    above = F.logsigmoid((mu - y + half) * inverse_s)
    width = (-torch.expm1(-2 * half * inverse_s)).log()
    inner = below + above + width
    return torch.where(y <= -1, below, torch.where(y >= 1, above, inner))


def logistic_quantile(u: Tensor) -> Tensor:
    """Quantile of the standard logistic distribution, log(u / (1 - u)), at uniform draws clipped into (0, 1)."""
    u = u.clamp(MARGIN, 1 - MARGIN)
    return u.log() - (-u).log1p()


def categorical_quantile(logits: Tensor, u: Tensor, dim: int = 1) -> Tensor:
    """Index whose cumulative probability first exceeds a uniform draw; u has the shape of logits without `dim`."""
    cumulative = logits.softmax(dim).cumsum(dim)
    return (cumulative < u.unsqueeze(dim) * cumulative.narrow(dim, -1, 1)).sum(dim).clamp_max(logits.shape[dim] - 1)


def systematic_draws(log_w: Tensor, n_drawn: int, generator: torch.Generator | None) -> Tensor:
    """Draw indices with probabilities w, (n, K) -> (n, n_drawn), systematically: with one uniform number per row."""
    u = torch.rand(len(log_w), 1, generator=generator, dtype=torch.float64).to(log_w.device)
    at = (torch.arange(n_drawn, dtype=torch.float64, device=log_w.device) + u) / n_drawn
    cumulative = log_w.double().softmax(1).cumsum(1)
    return torch.searchsorted(cumulative / cumulative[:, -1:], at).clamp_max(log_w.shape[1] - 1)
