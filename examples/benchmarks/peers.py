"""Other libraries' models at the shapes and sizes of ours, each behind one face: log_prob(x) and sample(n).

A library that is not installed is named and left out. What each model has that ours has not, or the other way round,
stands in its function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Size:
    """Size of a Glow.

    Attributes
    ----------
    shape : (channels, height, width)
    n_levels, n_steps, hidden : int
        Levels, steps of flow a level, channels of the networks inside.
    """

    shape: tuple[int, int, int]
    n_levels: int
    n_steps: int
    hidden: int


class Peer(nn.Module):
    """A model of another library."""

    def __init__(self, model: nn.Module, log_prob: Callable[[Tensor], Tensor], sample: Callable[[int], Tensor]) -> None:
        super().__init__()
        self.model, self.log_prob, self.sample = model, log_prob, sample


def normflows_glow(size: Size) -> Peer:
    """normflows' multi-scale Glow as in its own example: each level's latents have a mean and a scale a dimension."""
    import normflows as nf

    channels, height, width = size.shape
    bases, merges, flows = [], [], []
    for i in range(size.n_levels):  # the first is the deepest
        halvings, own = size.n_levels - i, channels * 2 ** (size.n_levels + 1 - i)
        steps = [nf.flows.GlowBlock(own, size.hidden, split_mode="channel", scale=True) for _ in range(size.n_steps)]
        flows.append([*steps, nf.flows.Squeeze()])
        if i > 0:
            merges.append(nf.flows.Merge())
        leaves = own if i == 0 else own // 2
        bases.append(nf.distributions.DiagGaussian((leaves, height // 2**halvings, width // 2**halvings)))
    model = nf.MultiscaleFlow(bases, flows, merges, class_cond=False)
    return Peer(model, lambda x: model.log_prob(x, None), lambda n: model.sample(n)[0])


def conv_net(into: int, hidden: int, out: int) -> nn.Sequential:
    """Glow's network, 3x3, 1x1 and 3x3, which begins at zero, for the libraries that take one."""
    last = nn.Conv2d(hidden, out, 3, padding=1)
    nn.init.zeros_(last.weight)
    assert last.bias is not None
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Conv2d(into, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, hidden, 1), nn.ReLU(), last
    )


class WithoutContext(nn.Module):
    """A network as nflows calls it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, context: None = None) -> Tensor:
        """Apply it."""
        found: Tensor = self.net(x)
        return found


def nflows_glow(size: Size) -> Peer:
    """nflows' layers put together as Glow: ActNorm, 1x1 convolution by LU, affine coupling; latents are standard."""
    from nflows import transforms
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow

    channels, height, width = size.shape
    levels = transforms.MultiscaleCompositeTransform(size.n_levels)
    for _ in range(size.n_levels):
        channels, height, width = 4 * channels, height // 2, width // 2
        mask = torch.ones(channels)
        mask[: channels // 2] = -1  # these stay
        steps = [transforms.SqueezeTransform()]
        for _ in range(size.n_steps):
            coupling = transforms.AffineCouplingTransform(
                mask, lambda into, out: WithoutContext(conv_net(into, size.hidden, out))
            )
            steps += [transforms.ActNorm(channels), transforms.OneByOneConvolution(channels), coupling]
        levels.add_transform(transforms.CompositeTransform(steps), (channels, height, width))
        channels //= 2
    model = Flow(levels, StandardNormal([math.prod(size.shape)]))
    return Peer(model, model.log_prob, model.sample)


def freia_glow(size: Size) -> Peer:
    """FrEIA's blocks as Glow: a coupling, a scale and shift, and a rotation of the channels that is not learned."""
    from FrEIA import framework, modules

    nodes = [framework.InputNode(*size.shape)]
    outputs = []
    for level in range(size.n_levels):
        nodes.append(framework.Node(nodes[-1], modules.IRevNetDownsampling, {}))
        net = {"subnet_constructor": lambda into, out: conv_net(into, size.hidden, out), "permute_soft": True}
        for _ in range(size.n_steps):
            nodes.append(framework.Node(nodes[-1], modules.AllInOneBlock, net))
        if level < size.n_levels - 1:
            nodes.append(framework.Node(nodes[-1], modules.Split, {}))
            outputs.append(framework.OutputNode(nodes[-1].out1))
    outputs.append(framework.OutputNode(nodes[-1]))
    model = framework.GraphINN([*nodes, *outputs])
    shapes = [node.input_dims[0] for node in outputs]

    def log_prob(x: Tensor) -> Tensor:
        latents, log_det = model(x)
        z = torch.cat([part.flatten(1) for part in latents], 1)
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1) + log_det

    return Peer(model, log_prob, lambda n: model([torch.randn(n, *shape) for shape in shapes], rev=True)[0])


def torchflows_glow(size: Size) -> Peer:
    """torchflows' AffineGlow, of another shape: no other is offered.

    A level has three checkerboards and three channel-wise couplings, whose networks have few channels and end in a
    linear layer for all values.
    """
    from torchflows.bijections.finite.multiscale.architectures import AffineGlow
    from torchflows.flows import Flow

    model = Flow(AffineGlow(size.shape, n_layers=size.n_levels))
    return Peer(model, model.log_prob, lambda n: model.sample((n,)))


GLOWS: dict[str, tuple[str, Callable[[Size], Peer]]] = {
    "normflows": ("normflows", normflows_glow),
    "nflows": ("nflows", nflows_glow),
    "FrEIA": ("FrEIA", freia_glow),
    "torchflows": ("torchflows", torchflows_glow),
}


def available(makers: dict[str, tuple[str, Callable[..., Peer]]], wanted: list[str]) -> dict[str, Callable[..., Peer]]:
    """Give those of the wanted peers whose package is installed, and print which are not."""
    missing = [name for name in wanted if find_spec(makers[name][0]) is None]
    if missing:
        print(f"not installed, left out: {', '.join(missing)}")
    return {name: makers[name][1] for name in wanted if name not in missing}
