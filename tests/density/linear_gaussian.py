"""A VAE of a linear Gaussian model, whose log p(x) is known exactly."""

import math

import numpy as np
import torch
from scipy.stats import multivariate_normal

from flowdetect.density.vae import VAEDensity

LOADINGS = np.array([[1.0, 0.5], [0.3, 0.9], [0.4, -0.3]])  # not orthogonal: q, of independent dimensions, has a gap
NOISE = 0.6
PRECISION = np.eye(2) + LOADINGS.T @ LOADINGS / NOISE**2  # of z given x
CORRELATION = PRECISION[0, 1] / np.sqrt(PRECISION[0, 0] * PRECISION[1, 1])
RNG = np.random.default_rng(0)
LINEAR = RNG.normal(size=(1000, 2)) @ LOADINGS.T + NOISE * RNG.normal(size=(1000, 3))


def unbounded(log_s, centre, reach):
    """What a network must give so that its log-scale, bounded to within `reach` of `centre`, is this."""
    return reach * np.arctanh((np.asarray(log_s) - centre) / reach)


@torch.no_grad()
def linear_gaussian(n_draws, posterior="gaussian"):
    """A VAE whose weights make x = W z + noise of the standardised columns; a flow of q is the identity."""
    density = VAEDensity(
        posterior=posterior,
        latent_dim=2,
        hidden_channels=8,
        n_draws=n_draws,
        max_epochs=1,
        batch_size=32,
        random_state=0,
    ).fit(LINEAR)
    model, (D, d) = density.model_, LOADINGS.shape
    for parameter in model.parameters():
        parameter.zero_()
    log_s = -0.5 * np.log(np.diag(PRECISION))  # the best of independent dimensions
    model.encoder.first.weight[:d] = torch.from_numpy(np.linalg.solve(PRECISION, LOADINGS.T) / NOISE**2)
    model.encoder.out.weight[:d, :d] = torch.eye(d)
    model.encoder.out.bias[d : 2 * d] = torch.from_numpy(unbounded(log_s, -3, 4))
    model.decoder.first.weight[:d] = torch.eye(d)
    model.decoder.out.weight[:D, :d] = torch.from_numpy(LOADINGS)  # the first feature of each column
    model.likelihood.out.weight[0, 0] = 1
    model.likelihood.out.bias[1] = float(unbounded(math.log(NOISE), 0, 7))
    loc, scale = density.spec_.loc, density.spec_.scale
    exact = multivariate_normal(np.zeros(D), LOADINGS @ LOADINGS.T + NOISE**2 * np.eye(D))
    return density, exact.logpdf((LINEAR - loc) / scale) - np.log(scale).sum()
