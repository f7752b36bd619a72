"""Other libraries' flows for tables at the sizes of ours: 3 transforms or 6 couplings, 2 hidden layers of 64."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from peers import Peer
from torch import Tensor, nn

N_TRANSFORMS, N_COUPLINGS, HIDDEN, N_BINS, TAIL = 3, 6, 64, 8, 5.0


# ---- zuko


def _zuko(flow: nn.Module) -> Peer:
    return Peer(flow, lambda x: flow().log_prob(x), lambda n: flow().sample((n,)))


def zuko_nsf(n_columns: int) -> Peer:
    """zuko's autoregressive neural spline flow."""
    import zuko

    return _zuko(zuko.flows.NSF(n_columns, transforms=N_TRANSFORMS, hidden_features=(HIDDEN, HIDDEN), bins=N_BINS))


def zuko_maf(n_columns: int) -> Peer:
    """zuko's affine autoregressive flow."""
    import zuko

    return _zuko(zuko.flows.MAF(n_columns, transforms=N_TRANSFORMS, hidden_features=(HIDDEN, HIDDEN)))


def zuko_realnvp(n_columns: int) -> Peer:
    """zuko's affine couplings."""
    import zuko

    return _zuko(zuko.flows.RealNVP(n_columns, transforms=N_COUPLINGS, hidden_features=(HIDDEN, HIDDEN)))


# ---- nflows, whose networks have residual blocks: one block is two layers


def _nflows(layers: list[nn.Module], n_columns: int) -> Peer:
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import CompositeTransform

    model = Flow(CompositeTransform(layers), StandardNormal([n_columns]))
    return Peer(model, model.log_prob, model.sample)


def nflows_nsf(n_columns: int) -> Peer:
    """nflows' autoregressive spline transforms, the order of the columns reversed in between."""
    from nflows.transforms import MaskedPiecewiseRationalQuadraticAutoregressiveTransform, ReversePermutation

    layers: list[nn.Module] = []
    for _ in range(N_TRANSFORMS):
        spline = MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
            n_columns, HIDDEN, num_bins=N_BINS, tails="linear", tail_bound=TAIL, num_blocks=1
        )
        layers += [ReversePermutation(n_columns), spline]
    return _nflows(layers, n_columns)


def nflows_maf(n_columns: int) -> Peer:
    """nflows' masked autoregressive flow."""
    from nflows.flows import MaskedAutoregressiveFlow

    model = MaskedAutoregressiveFlow(n_columns, HIDDEN, N_TRANSFORMS, num_blocks_per_layer=1)
    return Peer(model, model.log_prob, model.sample)


def nflows_realnvp(n_columns: int) -> Peer:
    """nflows' affine couplings."""
    from nflows.flows import SimpleRealNVP

    model = SimpleRealNVP(n_columns, HIDDEN, N_COUPLINGS, num_blocks_per_layer=1)
    return Peer(model, model.log_prob, model.sample)


# ---- normflows


def _normflows(flows: list[nn.Module], n_columns: int) -> Peer:
    import normflows as nf

    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(n_columns, trainable=False), flows)
    return Peer(model, model.log_prob, lambda n: model.sample(n)[0])


def normflows_nsf(n_columns: int) -> Peer:
    """normflows' autoregressive splines, with 1x1 matrices by LU in between."""
    import normflows as nf

    flows: list[nn.Module] = []
    for _ in range(N_TRANSFORMS):
        spline = nf.flows.AutoregressiveRationalQuadraticSpline(n_columns, 1, HIDDEN, num_bins=N_BINS, tail_bound=TAIL)
        flows += [spline, nf.flows.LULinearPermute(n_columns)]
    return _normflows(flows, n_columns)


def normflows_maf(n_columns: int) -> Peer:
    """normflows' masked affine autoregressive transforms, turned round: as they are, they score column by column."""
    import normflows as nf

    flows: list[nn.Module] = []
    for _ in range(N_TRANSFORMS):
        affine = nf.flows.MaskedAffineAutoregressive(n_columns, HIDDEN, num_blocks=1)
        flows += [nf.flows.Reverse(affine), nf.flows.Permute(n_columns)]
    return _normflows(flows, n_columns)


def normflows_realnvp(n_columns: int) -> Peer:
    """normflows' affine couplings."""
    import normflows as nf

    kept = (n_columns + 1) // 2
    flows: list[nn.Module] = []
    for _ in range(N_COUPLINGS):
        net = nf.nets.MLP([kept, HIDDEN, HIDDEN, 2 * (n_columns - kept)], init_zeros=True)
        flows += [nf.flows.AffineCouplingBlock(net), nf.flows.Permute(n_columns, mode="swap")]
    return _normflows(flows, n_columns)


# ---- torchflows


def _torchflows(name: str, n_columns: int, n_layers: int) -> Peer:
    from torchflows.bijections.finite.autoregressive import architectures
    from torchflows.flows import Flow

    net = {"n_layers": 2, "n_hidden": HIDDEN}
    model = Flow(getattr(architectures, name)((n_columns,), n_layers=n_layers, conditioner_kwargs=net))
    return Peer(model, model.log_prob, lambda n: model.sample((n,)))


def torchflows_nsf(n_columns: int) -> Peer:
    """torchflows' autoregressive neural spline flow."""
    return _torchflows("MaskedAutoregressiveRQNSF", n_columns, N_TRANSFORMS)


def torchflows_maf(n_columns: int) -> Peer:
    """torchflows' affine autoregressive flow."""
    return _torchflows("MAF", n_columns, N_TRANSFORMS)


def torchflows_realnvp(n_columns: int) -> Peer:
    """torchflows' affine couplings."""
    return _torchflows("RealNVP", n_columns, N_COUPLINGS)


# ---- FrEIA, which has couplings alone


def freia_realnvp(n_columns: int) -> Peer:
    """FrEIA's affine couplings, each with a scale and shift and a fixed permutation."""
    from FrEIA import framework, modules

    def net(into: int, out: int) -> nn.Module:
        hidden = [nn.Linear(into, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()]
        return nn.Sequential(*hidden, nn.Linear(HIDDEN, out))

    model = framework.SequenceINN(n_columns)
    for _ in range(N_COUPLINGS):
        model.append(modules.AllInOneBlock, subnet_constructor=net)

    def log_prob(x: Tensor) -> Tensor:
        z, log_det = model(x)
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1) + log_det

    return Peer(model, log_prob, lambda n: model(torch.randn(n, n_columns), rev=True)[0])


Makers = dict[str, tuple[str, Callable[[int], Peer]]]
TABLES: dict[str, Makers] = {
    "spline autoregressive": {
        "zuko": ("zuko", zuko_nsf),
        "nflows": ("nflows", nflows_nsf),
        "normflows": ("normflows", normflows_nsf),
        "torchflows": ("torchflows", torchflows_nsf),
    },
    "affine autoregressive": {
        "zuko": ("zuko", zuko_maf),
        "nflows": ("nflows", nflows_maf),
        "normflows": ("normflows", normflows_maf),
        "torchflows": ("torchflows", torchflows_maf),
    },
    "affine couplings": {
        "zuko": ("zuko", zuko_realnvp),
        "nflows": ("nflows", nflows_realnvp),
        "normflows": ("normflows", normflows_realnvp),
        "torchflows": ("torchflows", torchflows_realnvp),
        "FrEIA": ("FrEIA", freia_realnvp),
    },
}
