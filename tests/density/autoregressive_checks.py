"""What tests of autoregressive networks share: what depends on what, and sampling without caches."""

import itertools

import numpy as np
import torch


def drawn(net):
    """Draw a network's initial parameters."""
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters(generator)
    return net


def dependence(net, shape):
    """Which pixels' features (rows) depend on which pixels (columns), at any of some inputs: a ReLU may be off."""
    generator = torch.Generator().manual_seed(1)
    net.double().eval()
    for parameter in net.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    found = False
    for _ in range(8):
        x = torch.randn(1, *shape, generator=generator, dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(lambda x: net(x).square().sum(1).flatten(), x)
        found = found | (jacobian[:, 0].abs().sum(1) > 0).flatten(1).numpy()  # over channels
    return found


def drawn_naively(model, n, seed, context=None):
    """Sample with a pass of the whole network for every pixel."""
    x = torch.zeros(n, *model.event_shape, dtype=model.loc.dtype)
    y = model._to_net((x - model.loc) / model.scale).clone()
    u = torch.rand(
        n, model.head.n_uniforms, *y.shape[2:], generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).to(y)
    for i, j in itertools.product(range(y.shape[2]), range(y.shape[3])):
        at = (slice(None), slice(None), slice(i, i + 1), slice(j, j + 1))
        y[at] = model.head.draw(model.net(y, context)[at], u[at], 1.0)
    values = model._from_net(y) * model.scale + model.loc
    return values if model.n_bins is None else values.round()


def assert_samples_follow(samples, images, scores, n_bins):
    """Compare the counts of samples with the masses of all images, in raster order, by chi squared."""
    digits = n_bins ** np.arange(images[0].size)[::-1]
    observed = np.bincount(samples.reshape(len(samples), -1) @ digits, minlength=len(images))
    expected = len(samples) * np.exp(scores)
    often = expected > 5
    chi_squared = ((observed - expected)[often] ** 2 / expected[often]).sum()
    assert chi_squared < often.sum() + 4 * np.sqrt(2 * often.sum())
