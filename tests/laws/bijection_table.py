"""The bijections that the laws are checked on: name -> how to make one with random weights.

A new bijection is one line; a class that is in no line fails the completeness test.
"""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import NamedTuple

import torch

from flowdetect.bijections import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Autoregressive,
    BatchNorm,
    Bijection,
    Chain,
    Conv1x1,
    Gaussianize,
    Inverse,
    Logit,
    MultiScale,
    NormalizedConv1x1,
    Permute,
    PiecewiseLinear,
    Planar,
    Radial,
    Reorder,
    Rescale,
    Spline,
    SplineCoupling,
    Squeeze,
    Standardize,
    Top,
    Whiten,
)
from flowdetect.bijections.elementwise import RAW_GAIN
from flowdetect.nets import Constant, ContextMap, ConvNet, ResidualNet
from flowdetect.nets.conv import SPEED

HIDDEN = 8
N_CONTEXT = 3
# what a log-scale or an entry of a matrix is disturbed by, about; more makes inverses of far-out latents so large that
# float64 runs out of digits
PERTURBATION = 0.2


class Case(NamedTuple):
    make: Callable[[tuple[int, int, int], int], Bijection]  # (C, H, W), depth -> bijection
    event_shape: Callable[[int, int, int], tuple[int, ...]] = lambda c, h, w: (c, h, w)
    context: str | None = None  # "image" (of as many channels), "vector" (of N_CONTEXT values) or None


def rescale(shape, depth):
    channels = shape[0]
    return Rescale(
        torch.linspace(-1, 2, channels)[:, None, None], torch.linspace(0.1, 3, channels)[:, None, None], shape
    )


def gaussianize(shape, depth):
    """Channels that differ, with values that never occur among them."""
    n_bins = 3 + depth
    return Gaussianize(torch.arange(shape[0] * n_bins).reshape(shape[0], n_bins) % 4)


def affine_coupling(shape, depth, scale="sigmoid", n_context=0):
    c = shape[0]
    return AffineCoupling(ConvNet(c - c // 2, HIDDEN, 2 * (c // 2), 1 + 2 * (depth % 2), n_context), scale)


def additive_coupling(shape, depth):
    c = shape[0]
    return AdditiveCoupling(ConvNet(c - c // 2, HIDDEN, c // 2))


def spline_coupling(shape, depth, n_context=0):
    c = shape[0]
    net = ResidualNet(c - c // 2, HIDDEN, (3 * depth + 2) * (c // 2), depth - 1, 1 + 2 * (depth % 2), n_context)
    return SplineCoupling(net, n_bins=1 + depth)


def autoregressive(shape, depth, **settings):
    return Autoregressive(shape, (HIDDEN,) * depth, **settings)


def inverse(shape, depth, **settings):
    return Inverse(autoregressive(few(*shape), depth, **settings))


def batch_norm(shape, depth):
    """With running averages of some training."""
    norm = BatchNorm(shape[0])
    norm.mean.copy_(torch.linspace(-2, 3, shape[0]))
    norm.variance.copy_(torch.linspace(0.1, 9, shape[0]))
    return norm


def piecewise_linear(shape, depth):
    """Channels that differ, with slopes between 1/8 and 8."""
    x = torch.linspace(-2, 2, depth + 2).expand(shape[0], -1)
    steps = 2.0 ** (torch.arange(shape[0] * (depth + 1)).reshape(shape[0], -1) % 5 - 2)
    return PiecewiseLinear(x, torch.cat([x[:, :1], x[:, :1] + steps.cumsum(1)], 1))


def whiten(shape, depth):
    generator = torch.Generator().manual_seed(depth)
    weight = torch.randn(shape[0], shape[0], generator=generator).tril(-1)
    return Whiten(weight + torch.diag(torch.linspace(0.3, 3, shape[0])))


def reorder(shape, depth):
    return Reorder(torch.randperm(prod(shape), generator=torch.Generator().manual_seed(depth)))


def chain(shape, depth, scale="sigmoid", n_context=0):
    steps = [(NormalizedConv1x1(shape[0]), affine_coupling(shape, depth, scale, n_context)) for _ in range(depth)]
    return Chain([bijection for step in steps for bijection in step])


def multi_scale(shape, depth, learned=True, n_context=0):
    """Two levels of a (C, 4 H, 4 W) image."""
    c, h, w = shape
    levels = [
        Chain([Squeeze(), chain((4 * c, 2 * h, 2 * w), depth, n_context=n_context)]),
        Chain([Squeeze(), chain((8 * c, h, w), depth, n_context=n_context)]),
    ]
    standardizers = [Standardize(ConvNet(2 * c + n_context, HIDDEN, 4 * c))] if learned else []
    return MultiScale(levels, standardizers, [(2 * c, 2 * h, 2 * w), (8 * c, h, w)], n_context)


def top(shape, depth, net=Constant):
    """On flat latents of `depth` values before the last level's."""
    c, h, w = shape
    return Top(Standardize(net(2 * c, h, w)), shape)


def few(c, h, w):
    return c, 1, 1  # its derivatives take as many passes as there are values, and the Jacobian their square


def four_times(c, h, w):
    return c // 2, 4 * (1 if h > 1 else h), 4  # few values, for the Jacobian


BIJECTIONS = {
    "ActNorm": Case(lambda shape, depth: ActNorm(shape[0])),
    "AdditiveCoupling": Case(additive_coupling),
    "AffineCoupling, sigmoid": Case(affine_coupling),
    "AffineCoupling, exp": Case(partial(affine_coupling, scale="exp")),
    "AffineCoupling, context": Case(partial(affine_coupling, n_context=N_CONTEXT), context="vector"),
    "Autoregressive, affine": Case(autoregressive),
    "Autoregressive, affine, reverse, context": Case(
        partial(autoregressive, order="reverse", n_context=N_CONTEXT), context="vector"
    ),
    "Autoregressive, spline, random": Case(partial(autoregressive, univariate="spline", order="random")),
    "BatchNorm": Case(batch_norm),
    "Chain": Case(chain),
    "Chain, exp": Case(partial(chain, scale="exp")),
    "Chain of none": Case(lambda shape, depth: Chain([])),
    "Conv1x1": Case(lambda shape, depth: Conv1x1(shape[0])),
    "Gaussianize": Case(gaussianize),
    "Inverse, affine, reverse, context": Case(
        partial(inverse, order="reverse", n_context=N_CONTEXT), few, context="vector"
    ),
    "Inverse, spline, random": Case(partial(inverse, univariate="spline", order="random"), few),
    "Logit": Case(lambda shape, depth: Logit(2**depth)),
    "Logit, to 1": Case(lambda shape, depth: Logit(2**depth, 0.05, 1.0)),
    "MultiScale": Case(multi_scale, four_times),
    "MultiScale, context": Case(partial(multi_scale, n_context=N_CONTEXT), four_times, context="vector"),
    "MultiScale, standard": Case(partial(multi_scale, learned=False), four_times),
    "NormalizedConv1x1": Case(lambda shape, depth: NormalizedConv1x1(shape[0])),
    "Permute, reverse": Case(lambda shape, depth: Permute(shape[0])),
    "Permute, shuffle": Case(lambda shape, depth: Permute(shape[0], "shuffle")),
    "Permute, given": Case(lambda shape, depth: Permute(shape[0], order=[*range(1, shape[0]), 0])),
    "PiecewiseLinear": Case(piecewise_linear),
    "Planar": Case(lambda shape, depth: Planar(prod(shape))),
    "Planar, context": Case(lambda shape, depth: Planar(prod(shape), N_CONTEXT), context="vector"),
    "Radial": Case(lambda shape, depth: Radial(prod(shape))),
    "Radial, context": Case(lambda shape, depth: Radial(prod(shape), N_CONTEXT), context="vector"),
    "Reorder": Case(reorder),
    "Rescale": Case(rescale),
    "Spline": Case(lambda shape, depth: Spline(Constant((3 * depth + 2) * shape[0], *shape[1:]), 1 + depth)),
    "SplineCoupling": Case(spline_coupling),
    "SplineCoupling, context": Case(partial(spline_coupling, n_context=N_CONTEXT), context="vector"),
    "Squeeze": Case(lambda shape, depth: Squeeze(), lambda c, h, w: (c, 2 * h, 2 * w)),
    "Standardize, constant": Case(lambda shape, depth: Standardize(Constant(2 * shape[0], *shape[1:]))),
    "Standardize, image": Case(
        lambda shape, depth: Standardize(ConvNet(shape[0], HIDDEN, 2 * shape[0])), context="image"
    ),
    "Standardize, sigmoid": Case(
        lambda shape, depth: Standardize(ConvNet(shape[0], HIDDEN, 2 * shape[0]), "sigmoid"), context="image"
    ),
    "Standardize, context": Case(
        lambda shape, depth: Standardize(ContextMap(N_CONTEXT, 2 * shape[0], *shape[1:])), context="vector"
    ),
    "Whiten": Case(whiten),
    "Top": Case(top, lambda c, h, w: (c * h * w + 3,)),
    "Top, context": Case(
        partial(top, net=partial(ContextMap, N_CONTEXT)), lambda c, h, w: (c * h * w + 3,), context="vector"
    ),
}


def random_case(case, shape, depth, seed, n_rows=4):
    """A bijection none of whose parameters is zero, a batch and a context for it."""
    generator = torch.Generator().manual_seed(seed)
    event_shape = case.event_shape(*shape)
    inner = (event_shape[0], event_shape[1] // 4, event_shape[2] // 4) if case.event_shape is four_times else shape
    bijection = randomize(case.make(inner, depth), generator).eval()
    x = torch.randn(n_rows, *event_shape, generator=generator)
    context = {
        None: None,
        "image": torch.randn(n_rows, *shape, generator=generator),
        "vector": torch.randn(n_rows, N_CONTEXT, generator=generator),
    }[case.context]
    return bijection, x, context


@torch.no_grad()
def randomize(module, generator):
    """Draw a module's parameters and disturb every one of them, so that nothing is an identity."""
    for part in module.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters(generator)
    for name, parameter in module.named_parameters():
        gain = SPEED if "raw" in name else RAW_GAIN  # by which layers multiply it
        parameter.add_(PERTURBATION / gain * torch.randn(parameter.shape, generator=generator))
    return module
