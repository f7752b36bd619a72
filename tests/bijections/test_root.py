"""Roots of increasing functions: far out, flat, steep, out of reach, and each entry by itself."""

import pytest
import torch

from flowdetect.bijections.root import bracketed_root


def cubic(x):
    return x + x**3, 1 + 3 * x**2


def logistic(x):
    s = 1 / (1 + (-x).exp())
    return s, s * (1 - s)


def staircase(x):
    """Nearly flat, with steep steps: Newton's steps leap."""
    return x - 0.999 * (20 * x).sin() / 20, 1 - 0.999 * (20 * x).cos()


@pytest.mark.parametrize("f", [cubic, staircase, lambda x: (cubic(x)[0], torch.zeros_like(x))])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_roots(f, dtype):
    x = torch.cat([torch.linspace(-9, 9, 200), torch.tensor([0.0, 1e3, -1e5])]).to(dtype)
    target = f(x)[0]
    found = bracketed_root(f, target, torch.full_like(x, -1), torch.ones_like(x))
    assert found.dtype == dtype
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    # the staircase in float32 is flat to within rounding, so there values are compared
    assert bool(((f(found)[0] - target).abs() <= tolerance * (1 + target.abs())).all())
    if dtype == torch.float64:
        assert bool(((found - x).abs() <= 1e-6 * (1 + x.abs())).all())


def test_an_entry_has_the_same_bits_in_any_company():
    target = torch.linspace(-50, 50, 101)
    whole = bracketed_root(cubic, target, target - 1, target + 1)
    for part in (slice(0, 1), slice(50, 51), slice(7, 90)):
        alone = bracketed_root(cubic, target[part], target[part] - 1, target[part] + 1)
        assert torch.equal(alone, whole[part])


def test_targets_that_are_never_reached_give_finite_ends():
    target = torch.tensor([-0.5, 0.25, 1.5], dtype=torch.float64)
    found = bracketed_root(logistic, target, target - 1, target + 1)
    assert bool(found.isfinite().all())
    assert found[0] < -100 < 100 < found[2]
    assert logistic(found)[0][1].item() == pytest.approx(0.25, abs=1e-12)


def test_a_coarser_tolerance_is_kept_in_fewer_steps():
    calls = []

    def counted(x):
        calls.append(None)
        return cubic(x)

    target = torch.linspace(-5, 5, 11, dtype=torch.float64)
    counts = []
    for tolerance in (1e-2, 1e-12):
        calls.clear()
        found = bracketed_root(counted, target, target - 1, target + 1, tolerance)
        assert bool(((found - bracketed_root(cubic, target, target - 1, target + 1)).abs() <= tolerance * 6).all())
        counts.append(len(calls))
    assert counts[0] < counts[1]
