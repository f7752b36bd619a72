"""Planar and radial layers: against normflows' on copied weights, bounds, and inverses far out."""

import math

import pytest
import torch
from bijection_table import randomize

from flowdetect.bijections import Planar, Radial
from flowdetect.bijections.base import soft_bound

D = 4
ROWS = 2 * torch.randn(50, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def raw(log_s):
    """What soft_bound maps to log_s."""
    return 3 * math.atanh(log_s / 3)


def theirs(name, seed):
    """A layer of normflows in float64, with weights drawn here; it runs in the same direction as ours."""
    from normflows import flows

    generator = torch.Generator().manual_seed(seed)
    state = torch.get_rng_state()
    layer = getattr(flows, name)((D,)).double()
    torch.set_rng_state(state)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return layer


@pytest.mark.parametrize("seed", range(5))
@torch.no_grad()
def test_planar_agrees_with_normflows(seed):
    """Theirs bounds w^T v by another function of w^T u, so our u is one whose v is theirs."""
    other, ours = theirs("Planar", seed), Planar(D).double()
    other.u.mul_(0.5)  # within our bounds
    w, u = other.w[0], other.u[0]
    product = w @ u
    v = u + (torch.log1p(product.exp()) - 1 - product) * w / w.square().sum()
    wanted = raw(torch.log1p(w @ v).item())
    ours.numbers.copy_(torch.cat([w, v + (wanted - w @ v) * w / w.square().sum(), other.b]))
    for found, expected in zip(ours(ROWS), other(ROWS), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert other(ROWS)[1].std() > 1e-3


@pytest.mark.parametrize("seed", range(5))
@torch.no_grad()
def test_radial_agrees_with_normflows(seed):
    """Theirs has alpha = |alpha'| and beta = log(1 + e^beta') - alpha."""
    other, ours = theirs("Radial", seed), Radial(D).double()
    other.alpha.copy_(0.3 + other.alpha.abs())  # within our bounds
    alpha = other.alpha.item()
    slope = math.log1p(other.beta.exp().item()) / alpha  # 1 + beta / alpha
    numbers = [*other.z_0[0].tolist(), raw(math.log(alpha)), raw(math.log(slope))]
    ours.numbers.copy_(torch.tensor(numbers, dtype=torch.float64))
    for found, expected in zip(ours(ROWS), other(ROWS), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert other(ROWS)[1].std() > 1e-3


@pytest.mark.parametrize("kind", [Planar, Radial])
@pytest.mark.parametrize("size", [1e-9, 1e-4, 1.0, 30.0, 1e4])
@torch.no_grad()
def test_steps_are_invertible_whatever_their_numbers(kind, size):
    low, high = math.exp(-3), math.exp(3)
    for seed in range(20):
        layer = kind(2).double()
        generator = torch.Generator().manual_seed(seed)
        layer.numbers.copy_(size * torch.randn(len(layer.numbers), generator=generator, dtype=torch.float64))
        x = 3 * torch.randn(64, 2, generator=generator, dtype=torch.float64)
        z, log_det = layer(x)
        slopes = 1 if kind is Planar else 2  # factors of the determinant
        assert bool((log_det >= slopes * math.log(low) - 1e-9).all())
        assert bool((log_det <= slopes * math.log(high) + 1e-9).all())
        scale = 1 + layer.numbers.abs().max()
        assert bool(((layer.inverse(z) - x).abs() <= 1e-10 * scale * (1 + z.abs())).all())


@pytest.mark.parametrize("kind", [Planar, Radial])
@torch.no_grad()
def test_inverses_of_far_latents_in_float32(kind):
    layer = randomize(kind(3), torch.Generator().manual_seed(0))
    z = torch.tensor([[1e3, -2e3, 5.0], [1e12, 1.0, -1e12], [0.0, 0.0, 0.0]])
    x = layer.inverse(z)
    torch.testing.assert_close(layer(x)[0], z, rtol=1e-5, atol=1e-5)


def test_the_part_along_w_is_the_bounded_one():
    layer = randomize(Planar(D), torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        w, v, _, m = layer._w_v_b_m(None)
        u = layer.numbers[D : 2 * D]
        torch.testing.assert_close((w * v).sum(1), m)
        torch.testing.assert_close(m, torch.expm1(soft_bound((w * u).sum(1), 3.0)))
        across = torch.tensor([w[0, 1], -w[0, 0], 0, 0], dtype=torch.float64)
        torch.testing.assert_close(v[0] @ across, u @ across)


@pytest.mark.parametrize("kind", [Planar, Radial])
def test_contexts_move_the_step_row_by_row(kind):
    layer = randomize(kind(D, 3), torch.Generator().manual_seed(0)).double()
    context = torch.eye(3, dtype=torch.float64)[torch.arange(50) % 3]
    z, log_det = layer(ROWS, context)
    for k in range(3):
        of_k = context[:, k] == 1
        fixed = kind(D).double()
        with torch.no_grad():
            fixed.numbers.copy_(layer._parameters_of(context[k : k + 1])[0])
        alone = fixed(ROWS[of_k])
        torch.testing.assert_close(z[of_k], alone[0])
        torch.testing.assert_close(log_det[of_k], alone[1])
    assert not torch.allclose(log_det[::3][:10], log_det[1::3][:10])
