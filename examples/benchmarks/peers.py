"""Other libraries' models at the shapes and sizes of ours, each behind one face: log_prob(x) and sample(n).

A library that is not installed is named and left out. What each model has that ours has not, or the other way round,
stands in its function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

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


GLOWS: dict[str, tuple[str, Callable[[Size], Peer]]] = {
    "normflows": ("normflows", normflows_glow),
}


def available(makers: dict[str, tuple[str, Callable[..., Peer]]], wanted: list[str]) -> dict[str, Callable[..., Peer]]:
    """Give those of the wanted peers whose package is installed, and print which are not."""
    missing = [name for name in wanted if find_spec(makers[name][0]) is None]
    if missing:
        print(f"not installed, left out: {', '.join(missing)}")
    return {name: makers[name][1] for name in wanted if name not in missing}
