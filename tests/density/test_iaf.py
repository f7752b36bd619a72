"""IAF: the inverse of MAF on the same weights, gradients through the numerical inverse, integrals and samples."""

import copy

import numpy as np
import pytest
import torch
from bijection_table import randomize
from sklearn.datasets import make_moons

from flowdetect import IAFDensity, MAFDensity
from flowdetect._reach import OutOfReachError
from flowdetect.bijections import Autoregressive, Inverse

MOONS, _ = make_moons(300, noise=0.1, random_state=0)
SMALL = {"n_transforms": 2, "hidden_features": (16,), "learning_rate": 5e-3, "random_state": 0}
SHAPE = (4, 1, 1)


def layer_and_rows(univariate, n_context=0):
    generator = torch.Generator().manual_seed(0)
    layer = randomize(Autoregressive(SHAPE, (16,), univariate, "random", n_context), generator).double()
    return layer, torch.randn(6, *SHAPE, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("univariate", ["affine", "spline"])
def test_maf_and_iaf_invert_each_other_on_copied_weights(univariate):
    maf, iaf = (
        kind(univariate=univariate, max_epochs=10, **SMALL).fit(MOONS[: 100 if kind is IAFDensity else 300])
        for kind in (MAFDensity, IAFDensity)
    )
    theirs = copy.deepcopy(maf.model_.flow.levels[0].bijections).double().eval()
    ours = copy.deepcopy(iaf.model_.flow.levels[0].bijections).double().eval()
    for inverse, transform in zip(ours, theirs, strict=True):
        inverse.layer.load_state_dict(transform.state_dict())
    x = torch.randn(50, 2, 1, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        for inverse, transform in zip(ours, theirs, strict=True):
            z, log_det = transform(x)
            back, log_det_back = inverse(z)
            torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(log_det_back, -log_det, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(inverse.inverse(x), z, rtol=0, atol=0)  # IAF samples as MAF scores: in one pass
            assert float((z - x).abs().max()) > 0.1


@pytest.mark.parametrize("univariate", ["affine", "spline"])
def test_gradients_in_training_are_those_of_the_sweeps(univariate):
    layer, x = layer_and_rows(univariate, n_context=2)
    context = torch.randn(6, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    inverse, gradients = Inverse(layer), []
    for training in (True, False):
        leaves = [x.clone().requires_grad_(), context.clone().requires_grad_()]
        z, log_det = inverse.train(training)(*leaves)
        value = (z.cos() + 0.3 * z.square()).sum() - 2 * log_det.square().sum()
        gradients.append(torch.autograd.grad(value, [*leaves, *inverse.parameters()]))
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-8)
        assert bool(expected.any())


@pytest.mark.parametrize("univariate", ["affine", "spline"])
def test_second_derivatives(univariate):
    layer, x = layer_and_rows(univariate)
    inverse = Inverse(layer).eval()
    assert torch.autograd.gradgradcheck(lambda x: inverse(x)[1], x[:1].requires_grad_(), atol=1e-5)


def test_a_row_is_solved_to_the_same_bits_wherever_it_stands():
    layer, x = layer_and_rows("spline")
    inverse, rows = Inverse(layer).float().eval(), torch.cat([0.1 * x, 30 * x]).float()  # far rows take more sweeps
    with torch.no_grad():
        together, log_det = inverse(rows)
        for i in (0, 3, 11):
            z, alone = inverse(torch.cat([rows[i : i + 1]] * len(rows)))  # as rows are scored: in chunks of one length
            assert torch.equal(z[0], together[i])
            assert torch.equal(alone[0], log_det[i])


@pytest.fixture(scope="module")
def density():
    return IAFDensity(max_epochs=15, **SMALL).fit(MOONS)


def test_it_integrates_to_one_and_learns(density):
    side = np.linspace(-3, 4, 161)
    points = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    assert np.exp(density.score_samples(points)).sum() * (side[1] - side[0]) ** 2 == pytest.approx(1, abs=0.01)
    assert density.score_is_bound_ is False
    losses = density.history_["bits_per_dim"]
    assert losses[-1] < losses[0] - 0.1


def test_samples_are_distributed_as_the_density_says(density):
    latents = density.transform(density.sample(2000, random_state=0))
    assert latents.mean(0) == pytest.approx([0, 0], abs=0.08)
    assert np.cov(latents.T) == pytest.approx(np.eye(2), abs=0.1)


@pytest.mark.parametrize("far", [1e20, 1e300])
def test_a_row_without_a_solution_gets_no_score(density, far):
    with pytest.raises(OutOfReachError, match="of row 1 is not finite; the row lies too far"):
        density.score_samples([[0, 0], [far, 0]])
