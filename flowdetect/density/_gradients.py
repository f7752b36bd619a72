"""Derivatives of log p: by the layers' parameters, and twice by the input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from flowdetect.density.base import BaseDensity


def log_prob_of_one(density: BaseDensity, model: Any, x: Tensor, codes: Any, noise: Tensor | None) -> Tensor:
    """log p of a batch of one as a scalar, summed over classes where none is given."""
    if density.conditional and codes is None:
        prior = torch.as_tensor(density.class_log_prior_, device=x.device)
        return torch.logsumexp(model.log_prob_by_class(x, noise)[0] + prior, 0)
    return model.log_prob(x, density._to_context(codes), noise)[0]


def layer_gradient_norms(density: BaseDensity, rows: NDArray[Any], codes: Any) -> NDArray[np.float64]:
    """(n, n_layers); rows one by one, so that company does not matter; the gradients of the first noise draw."""
    names = [name.rpartition(".")[0] for name, _ in density.model_.named_parameters()]
    layers = {layer: [i for i, name in enumerate(names) if name == layer] for layer in dict.fromkeys(names)}
    parameters = list(density.model_.parameters())
    noise = density._noises(rows)[0]
    norms = np.empty((len(rows), len(layers)))
    for i in range(len(rows)):
        u = None if noise is None else density._to_tensor(noise[i : i + 1])
        k = None if codes is None else codes[i : i + 1]
        value = log_prob_of_one(density, density.model_, density._to_tensor(rows[i : i + 1]), k, u)
        gradients = torch.autograd.grad(value, parameters, materialize_grads=True)
        squares = torch.stack([g.double().square().sum() for g in gradients]).cpu().numpy()
        norms[i] = [np.sqrt(squares[members].sum()) for members in layers.values()]
    return norms


def curvature(density: BaseDensity, rows: NDArray[Any], codes: Any) -> NDArray[np.float64]:
    """Diagonal Hessian of log p at the one row, (D,), in float64: one backward pass a feature."""
    model = density._double_model()
    x = torch.as_tensor(rows[0], dtype=torch.float64, device=density.device_).requires_grad_()
    value = log_prob_of_one(density, model, density._to_tensor(x, torch.float64), codes, None)
    (gradient,) = torch.autograd.grad(value, x, create_graph=True)
    diagonal = [torch.autograd.grad(gradient[i], x, retain_graph=True)[0][i] for i in range(len(x))]
    return np.array([value.item() for value in diagonal])
