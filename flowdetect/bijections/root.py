"""Roots of increasing functions, elementwise: the inverse of a bijection without a closed-form inverse."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# error of a root, relative to 1 + |x|; other types count as float32
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-6}
MOST_STEPS = 120  # halvings of a bracket: enough for all but very wide ones to shrink to neighbouring float64 values
MOST_WIDENINGS = 60  # each doubles the bracket


@torch.no_grad()
def bracketed_root(
    f: Callable[[Tensor], tuple[Tensor, Tensor]],
    target: Tensor,
    low: Tensor,
    high: Tensor,
    tolerance: float | None = None,
) -> Tensor:
    """Solve f(x) = target for each entry, where f is increasing in each entry alone.

    It takes Newton steps within a bracket, or the middle of the bracket if a Newton step would leave it or does not
    halve the previous step (Press et al., "Numerical Recipes", section 9.4, rtsafe). A converged entry is not changed
    any more, so that it does not depend on the other entries.

    Parameters
    ----------
    f : callable, x (...) -> value (...), slope (...)
        Slopes may be 0 if unknown: such steps halve the bracket.
    target : (...) tensor
    low, high : (...) tensors, low < high
        Initial bracket. While f(low) > target or f(high) < target, that end moves outwards, twice as far each time.
    tolerance : float or None, default None
        An entry has converged if its step is below this, relative to ``1 + |x|``. None: 1e-12 in float64, else 1e-6.

    Returns
    -------
    x : (...) tensor
        Finite if the target is finite. If f never reaches the target, x is a far end of the bracket. No gradient passes
        through x.

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections.root import bracketed_root
    >>> z = torch.tensor([-3.0, 0.0, 5.0], dtype=torch.float64)
    >>> x = bracketed_root(lambda x: (x + x**3, 1 + 3 * x**2), z, z - 1, z + 1)
    >>> bool(((x + x**3) - z).abs().max() < 1e-10)
    True
    """
    tolerance = TOLERANCES.get(target.dtype, TOLERANCES[torch.float32]) if tolerance is None else tolerance
    low, high = _widened(f, target, low, high)
    x, before, done = (low + high) / 2, high - low, torch.zeros_like(target, dtype=torch.bool)
    for _ in range(MOST_STEPS):
        value, slope = f(x)
        residual = value - target
        low, high = torch.where(residual < 0, x, low), torch.where(residual > 0, x, high)
        step = residual / slope
        inside = (x - step > low) & (x - step < high) & (2 * step.abs() <= before.abs())
        step = torch.where(inside, step, x - (low + high) / 2)
        step = torch.where(residual == 0, 0.0, step)
        x = torch.where(done, x, x - step)
        before = step
        done = done | (step.abs() <= tolerance * (1 + x.abs()))
        if bool(done.all()):
            break
    return x


def _widened(
    f: Callable[[Tensor], tuple[Tensor, Tensor]], target: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    """Move the ends of each bracket outwards until the target lies between their values."""
    width = high - low
    for _ in range(MOST_WIDENINGS):
        below, above = f(low)[0] > target, f(high)[0] < target
        if not bool((below | above).any()):
            break
        low, high = torch.where(below, low - width, low), torch.where(above, high + width, high)
        width = torch.where(below | above, 2 * width, width)
    return low, high
