"""Flows for q(z | x) of a latent-variable model: they map the encoder's normal distribution to a more flexible one.

The `forward` of each maps noise to z in one pass; its context is a code from the encoder.

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

CODE_LENGTH = 32  # outputs of the encoder that are a flow's context
HIDDEN_FEATURES = 64  # width of the networks inside


class CodedNet(nn.Module):
    """A perceptron of the concatenated latents and code; the last of its three layers starts at zero."""

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
    """Build the flow of q(z | x) for latents (n, latent_dim, 1, 1) and a code (n, CODE_LENGTH); None for "gaussian".

    Raises
    ------
    ValueError
        If there is only one latent and the steps are couplings; `name` is the estimator's name for the message.
    """
    if kind == "gaussian":
        return None
    if kind == "realnvp" and latent_dim < 2:
        raise ValueError(
            f'{name}: posterior="realnvp" needs at least 2 latents for its couplings, got latent_dim={latent_dim}; '
            'pass a larger latent_dim or another posterior, such as "iaf".'
        )
    return Chain([layer for k in range(n_steps) for layer in STEPS[kind](latent_dim, k)])
