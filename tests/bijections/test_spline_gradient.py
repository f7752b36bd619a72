"""Splines in training: the same values as in evaluation, and autograd's gradients."""

import pytest
import torch
from bijection_table import randomize

from flowdetect.bijections import Autoregressive
from flowdetect.bijections.spline import spline, spline_by_mode
from flowdetect.bijections.spline_gradient import fused_spline

N_BINS = 8


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_gradients(function, inputs, weights):
    inputs = [value.detach().clone().requires_grad_() for value in inputs]
    found = function(*inputs)
    total = sum((weight * value).sum() for weight, value in zip(weights, found, strict=True))
    return [*found, *torch.autograd.grad(total, inputs)]


@pytest.mark.parametrize("size", [0.1, 2.0, 30.0], ids=["near the identity", "usual", "at the bounds"])
def test_values_and_gradients_are_autograds(size):
    x, h = 3 * drawn(5, 200), size * drawn(3 * N_BINS - 1, 5, 200, seed=1)
    x[0, :4] = torch.tensor([-5.0, 5.0, -70.0, 0.0])
    weights = drawn(2, 5, 200, seed=2)
    expected = with_gradients(lambda x, h: spline(x, h, N_BINS, numbers_first=True), (x, h), weights)
    found = with_gradients(lambda x, h: fused_spline(x, h, N_BINS), (x, h), weights)
    has_slope = x.abs() != 5  # elsewhere it is another one on either side
    for here, there in zip(found, expected, strict=True):
        here, there = here.detach() * has_slope, there.detach() * has_slope
        torch.testing.assert_close(here, there, rtol=1e-9, atol=1e-9 * there.abs().max().item())


@pytest.mark.parametrize("widths", [(), (7,), (12, 9, 8)])
@pytest.mark.parametrize("order", ["forward", "reverse", "random"])
def test_a_layer_in_training_is_the_layer_in_evaluation(widths, order):
    layer = randomize(Autoregressive((4, 1, 1), widths, "spline", order), torch.Generator().manual_seed(0)).double()
    x, weights = 2 * drawn(50, 4, 1, 1), [drawn(50, 4, 1, 1, seed=1), drawn(50, seed=2)]

    def run(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    names = [name for name, _ in layer.named_parameters()]
    inputs = [x, *layer.parameters()]
    in_training = with_gradients(run, inputs, weights)
    layer.eval()
    for found, expected in zip(in_training, with_gradients(run, inputs, weights), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_values_without_gradients_are_those_with():
    x, h = 3 * drawn(5, 200), 2 * drawn(3 * N_BINS - 1, 5, 200, seed=1)
    expected = spline_by_mode(x, h, N_BINS, training=False)
    with torch.no_grad():
        found = spline_by_mode(x, h, N_BINS, training=False)
    for here, there in zip(found, expected, strict=True):
        torch.testing.assert_close(here, there, rtol=1e-12, atol=1e-12)


def test_a_second_derivative_is_refused_in_training():
    layer, x = Autoregressive((3, 1, 1), (4,), "spline"), drawn(2, 3, 1, 1).float().requires_grad_()
    with pytest.raises(RuntimeError, match=r"call eval\(\)"):
        torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)
    torch.autograd.grad(layer.eval()(x)[0].sum(), x, create_graph=True)
