"""Flows that a latent-variable model's q(z | x) may end in: from the encoder's normal distribution to one of any shape.

Each runs from noise to z in one pass of its `forward`, with a code of the encoder as its context.

Rezende & Mohamed, "Variational Inference with Normalizing Flows" (2015), https://arxiv.org/abs/1505.05770
Kingma et al., "Improved Variational Inference with Inverse Autoregressive Flow" (2016),
https://arxiv.org/abs/1606.04934
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from flowdetect.bijections import AffineCoupling, Autoregressive, Chain, Layer, Permute, Planar, Radial
from flowdetect.nets.autoencoder import Affine

CODE_LENGTH = 32  # numbers of the encoder that a flow takes as its context
HIDDEN_FEATURES = 64  # width of the networks inside


class CodedNet(nn.Module):
    """A perceptron of latents and a code, side by side; the last of its three layers starts at zero."""

    def __init__(self, in_features: int, n_context: int, hidden_features: int, out_features: int) -> None:
        super().__init__()
        self.first = Affine(in_features + n_context, hidden_features, gain=2**0.5)
        self.second = Affine(hidden_features, hidden_features, gain=2**0.5)
        self.last = Affine(hidden_features, out_features, gain=0.0)

    def forward(self, z: Tensor, context: Tensor) -> Tensor:
        """z (n, in_features, 1, 1), context (n, n_context) -> (n, out_features, 1, 1)."""
        h = self.first(torch.cat([z.flatten(1), context], 1)).relu()
        out: Tensor = self.last(self.second(h).relu())
        return out[:, :, None, None]


def _planar(latent_dim: int, k: int) -> list[Layer]:
    return [Planar(latent_dim, CODE_LENGTH)]


def _radial(latent_dim: int, k: int) -> list[Layer]:
    return [Radial(latent_dim, CODE_LENGTH)]


def _autoregressive(latent_dim: int, k: int) -> list[Layer]:
    order = "reverse" if k % 2 else "forward"
    return [Autoregressive((latent_dim, 1, 1), (HIDDEN_FEATURES,), "affine", order, CODE_LENGTH)]


def _coupling(latent_dim: int, k: int) -> list[Layer]:
    n_moved = latent_dim // 2
    net = CodedNet(latent_dim - n_moved, CODE_LENGTH, HIDDEN_FEATURES, 2 * n_moved)
    return [AffineCoupling(net, "exp"), Permute(latent_dim)]


STEPS: dict[str, Callable[[int, int], list[Layer]]] = {
    "planar": _planar,
    "radial": _radial,
    "iaf": _autoregressive,
    "realnvp": _coupling,
}
POSTERIORS = {"gaussian", *STEPS}


def build_posterior_flow(kind: str, latent_dim: int, n_steps: int, name: str) -> Chain | None:
    """Build the flow of q(z | x), of latents (n, latent_dim, 1, 1) and a code (n, CODE_LENGTH); None: "gaussian".

    Raises
    ------
    ValueError
        If there is one latent only and the steps are couplings; `name` is who asks.
    """
    if kind == "gaussian":
        return None
    if kind == "realnvp" and latent_dim < 2:
        raise ValueError(
            f'{name}: posterior="realnvp" must have 2 latents or more to couple, got latent_dim={latent_dim}; pass a '
            f'larger latent_dim or another posterior, such as "iaf".'
        )
    return Chain([layer for k in range(n_steps) for layer in STEPS[kind](latent_dim, k)])
