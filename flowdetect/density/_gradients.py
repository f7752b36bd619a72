"""Derivatives of log p: by the layers' parameters, and twice by the input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from flowdetect.density.base import BaseDensity


def log_prob(density: BaseDensity, model: Any, x: Tensor, codes: Any, noise: Tensor | None) -> Tensor:
    """log p of a batch (n, C, H, W), summed over classes where none is given: (n,)."""
    if density.conditional and codes is None:
        prior = torch.as_tensor(density.class_log_prior_, device=x.device)
        return torch.logsumexp(model.log_prob_by_class(x, noise) + prior, 1)
    found: Tensor = model.log_prob(x, density._to_context(codes), noise)
    return found


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
        value = log_prob(density, density.model_, density._to_tensor(rows[i : i + 1]), k, u)[0]
        gradients = torch.autograd.grad(value, parameters, materialize_grads=True)
        squares = torch.stack([g.double().square().sum() for g in gradients]).cpu().numpy()
        norms[i] = [np.sqrt(squares[members].sum()) for members in layers.values()]
    return norms


def curvature(density: BaseDensity, rows: NDArray[Any], codes: Any) -> NDArray[np.float64]:
    """Diagonal Hessian of log p at the one row, (D,), in float64: one backward pass a feature."""
    model = density._double_model()
    x = torch.as_tensor(rows[0], dtype=torch.float64, device=density.device_).requires_grad_()
    value = log_prob(density, model, density._to_tensor(x, torch.float64), codes, None)[0]
    (gradient,) = torch.autograd.grad(value, x, create_graph=True)
    diagonal = [torch.autograd.grad(gradient[i], x, retain_graph=True)[0][i] for i in range(len(x))]
    return np.array([value.item() for value in diagonal])


def directional_derivatives(
    density: BaseDensity, row: NDArray[Any], ways: NDArray[np.float64], codes: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """First and second derivative of t -> log p(row + t way) at 0, of ways (n, D), in float64: (n,) each."""
    model, length = density._double_model(), density._chunk_length()
    start = torch.as_tensor(row, dtype=torch.float64, device=density.device_)
    found = []
    for i in range(0, len(ways), length):
        part = torch.as_tensor(ways[i : i + length], dtype=torch.float64, device=density.device_)
        t = torch.zeros(len(part), dtype=torch.float64, device=density.device_, requires_grad=True)
        x = density._to_tensor(start + t[:, None] * part, torch.float64)
        values = log_prob(density, model, x, None if codes is None else np.repeat(codes, len(part)), None)
        (first,) = torch.autograd.grad(values.sum(), t, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), t)
        found.append(torch.stack([first.detach(), second]).cpu().numpy())
    first_all, second_all = np.concatenate(found, axis=1)
    return first_all, second_all
