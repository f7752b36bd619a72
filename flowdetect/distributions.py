"""The distributions that models end in."""

from __future__ import annotations

import math

from torch import Tensor

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, 1) elementwise, nats."""
    return -0.5 * z.square() - HALF_LOG_2PI
