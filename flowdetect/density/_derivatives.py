"""Derivatives of log p of a model: gradients in the layers' parameters, second derivatives in the input."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowdetect._images import keyed_uniform
from flowdetect.density._scoring import Scoring
from flowdetect.density.model import DensityModel
from flowdetect.density.spec import DataSpec


def double(model: DensityModel) -> DensityModel:
    """Copy a model in float64, for latents, inverses and derivatives."""
    return copy.deepcopy(model).double()


def layer_names(model: DensityModel) -> list[str]:
    """Names of the modules that hold parameters, in order."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name, _ in model.named_parameters()))


def log_prob(
    model: DensityModel, spec: DataSpec, x: Tensor, labels: NDArray[np.int64] | None, noise: Tensor | None
) -> Tensor:
    """log p of a batch (n, C, H, W), summed over classes if no labels are given: (n,)."""
    device = str(x.device)
    if spec.is_conditional and labels is None:
        prior = torch.as_tensor(spec.class_log_prior, device=device)
        return torch.logsumexp(model.log_prob_by_context(x, spec.every_context(device), noise) + prior, 1)
    return model.log_prob(x, spec.to_context(labels, device), noise)


def layer_gradient_norms(
    scoring: Scoring, rows: NDArray[np.float64], labels: NDArray[np.int64] | None
) -> NDArray[np.float64]:
    """Gradient norms (n, n_layers), for the first noise draw; row by row, for batch invariance."""
    model, spec = scoring.model, scoring.spec
    names = [name.rpartition(".")[0] for name, _ in model.named_parameters()]
    layers = {layer: [i for i, name in enumerate(names) if name == layer] for layer in dict.fromkeys(names)}
    parameters = list(model.parameters())
    norms = np.empty((len(rows), len(layers)))
    for i in range(len(rows)):
        row = rows[i : i + 1]
        noise = None
        if model.n_noise:
            drawn = keyed_uniform(spec.modelled_rows(row), scoring.noise_seed, 1, model.n_noise)[0]
            noise = torch.from_numpy(drawn).to(scoring.device)
        own = None if labels is None else labels[i : i + 1]
        value = log_prob(model, spec, spec.to_tensor(row, scoring.device), own, noise)[0]
        gradients = torch.autograd.grad(value, parameters, materialize_grads=True)
        squares = torch.stack([g.double().square().sum() for g in gradients]).cpu().numpy()
        norms[i] = [np.sqrt(squares[members].sum()) for members in layers.values()]
    return norms


def curvature(scoring: Scoring, row: NDArray[np.float64], labels: NDArray[np.int64] | None) -> NDArray[np.float64]:
    """Diagonal Hessian of log p at one row of modelled values, (D,), in float64: one backward pass per value."""
    model, spec = double(scoring.model), scoring.spec
    x = torch.tensor(row, dtype=torch.float64, device=scoring.device).requires_grad_()
    value = log_prob(model, spec, spec.standardized_tensor(x[None]), labels, None)[0]
    (gradient,) = torch.autograd.grad(value, x, create_graph=True)
    diagonal = [torch.autograd.grad(gradient[i], x, retain_graph=True)[0][i] for i in range(len(x))]
    return np.array([value.item() for value in diagonal])


def directional_derivatives(
    scoring: Scoring,
    row: NDArray[np.float64],
    directions: NDArray[np.float64],
    labels: NDArray[np.int64] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """First and second directional derivatives of log p at a row, along each of `directions` (n, D): (n,) each."""
    model, spec = double(scoring.model), scoring.spec
    start = torch.tensor(row, dtype=torch.float64, device=scoring.device)
    found = []
    for i in range(0, len(directions), scoring.length):
        part = torch.tensor(directions[i : i + scoring.length], dtype=torch.float64, device=scoring.device)
        t = torch.zeros(len(part), dtype=torch.float64, device=scoring.device, requires_grad=True)
        x = spec.standardized_tensor(start + t[:, None] * part)
        values = log_prob(model, spec, x, None if labels is None else np.repeat(labels, len(part)), None)
        (first,) = torch.autograd.grad(values.sum(), t, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), t)
        found.append(torch.stack([first.detach(), second]).cpu().numpy())
    first_all, second_all = np.concatenate(found, axis=1)
    return first_all, second_all
