"""RealNVP and MAF on tables beside the same flows of zuko's and torch's transforms, with copied weights."""

import copy

import pytest
import torch
import torch.nn.functional as F
import zuko
from torch.distributions import AffineTransform, MultivariateNormal

import flowdetect.bijections as ours
from flowdetect import MAFDensity, RealNVPDensity
from flowdetect.bijections.elementwise import LOG_SCALES, exp_log_scale
from flowdetect.bijections.spline import BOUND, LOG_SLOPE_BOUND, SMALLEST_SHARE, split_numbers
from flowdetect.testing import TOLERANCE

N_COLUMNS = 5


@pytest.fixture
def rows():
    z = torch.randn(300, N_COLUMNS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return (z.cumsum(1) + z.sin()).numpy()


def spline_of(numbers, n_bins):
    """zuko's spline with our knots and slopes; its own are bounded otherwise."""
    theirs = zuko.transforms.MonotonicRQSTransform(*numbers.split([n_bins, n_bins, n_bins - 1], -1))
    *shares, raw = numbers.split([n_bins, n_bins, n_bins - 1], -1)
    widths = [SMALLEST_SHARE + (1 - n_bins * SMALLEST_SHARE) * share.softmax(-1) for share in shares]
    edges = [F.pad(width.cumsum(-1), (1, 0)) for width in widths]
    theirs.horizontal, theirs.vertical = (BOUND * (2 * edge - 1) for edge in edges)
    theirs.derivatives = F.pad(LOG_SLOPE_BOUND * (raw / LOG_SLOPE_BOUND).tanh(), (1, 1)).exp()
    return zuko.transforms.DependentTransform(theirs, 1)


def coupling_of(layer):
    def meta(kept):
        h = layer.net(kept[..., None, None])
        if isinstance(layer, ours.SplineCoupling):
            return spline_of(split_numbers(h, layer.n_bins)[:, :, 0, 0], layer.n_bins)
        t, raw = h[..., 0, 0].chunk(2, 1)
        s = torch.ones_like(t) if isinstance(layer, ours.AdditiveCoupling) else LOG_SCALES[layer.scale](raw).exp()
        return AffineTransform(t * s, s, event_dim=1)

    return zuko.transforms.CouplingTransform(meta, torch.arange(N_COLUMNS) < N_COLUMNS - N_COLUMNS // 2)


def theirs_of(layer):
    """The transform of a bijection, of rows (n, D)."""
    match layer:
        case ours.Rescale():
            return AffineTransform(-layer.loc.flatten() / layer.scale.flatten(), 1 / layer.scale.flatten(), event_dim=1)
        case ours.Spline():
            return spline_of(split_numbers(layer.net(torch.zeros(1)), layer.n_bins)[0, :, 0, 0], layer.n_bins)
        case ours.Permute():
            return zuko.transforms.PermutationTransform(layer.order)
        case ours.Whiten():
            return zuko.transforms.LULinearTransform(layer.weight)
        case ours.Standardize():
            mu, raw = layer.net(torch.zeros(1)).flatten().chunk(2)
            s = LOG_SCALES[layer.scale](raw).exp()
            return AffineTransform(-mu * s, s, event_dim=1)
    return coupling_of(layer)


@pytest.mark.parametrize("coupling", ["affine", "spline"])
def test_log_densities_agree(coupling, rows):
    density = RealNVPDensity(
        coupling=coupling, preprocessing="linear", hidden_channels=16, max_epochs=40, random_state=0
    ).fit(rows)
    model = copy.deepcopy(density.model_).double()
    (steps,) = model.flow.levels
    layers = [model.preprocess, *steps.bijections, model.top.bijection]
    flow = zuko.distributions.NormalizingFlow(
        zuko.transforms.ComposedTransform(*[theirs_of(layer) for layer in layers]),
        MultivariateNormal(torch.zeros(N_COLUMNS, dtype=torch.float64), torch.eye(N_COLUMNS, dtype=torch.float64)),
    )
    x = torch.from_numpy(density.spec_.standardized(rows))
    with torch.no_grad():
        expected = flow.log_prob(x)
        found = model.log_prob(x[..., None, None])
    torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE)
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(
        torch.from_numpy(density.score_samples(rows)), expected + density.spec_.log_units.sum(), rtol=1e-4, atol=1e-3
    )


class BoundedAffine(zuko.transforms.MonotonicAffineTransform):
    """zuko's affine map with our bounds of the scale, and the shift before it."""

    def __init__(self, shift, raw):
        super().__init__(shift, raw)
        self.log_scale = exp_log_scale(raw)
        self.scale = self.log_scale.exp()
        self.shift = shift * self.scale


def autoregressive_of(layer):
    """zuko's masked autoregressive transform with the weights, masks and order of ours."""
    place, kinds = layer.order.argsort(), (N_COLUMNS, 2)
    theirs = zuko.flows.MaskedAutoregressiveTransform(
        N_COLUMNS, order=place, univariate=BoundedAffine, hidden_features=[len(h.bias) for h in layer.net.hidden]
    ).double()
    linear = [part for part in theirs.hyper if isinstance(part, zuko.nn.MaskedLinear)]
    for part, own in zip(linear, [*layer.net.hidden, layer.net.out], strict=True):
        weight, mask, bias = own.weight.data, own.mask, own.bias.data
        if part is linear[0]:  # our columns stand in their order, theirs as they are
            weight, mask = weight[:, place], mask[:, place]
        if part is linear[-1]:  # ours: all first numbers, then all second; theirs: column by column
            weight, mask, bias = (
                v.reshape(*kinds[::-1], *v.shape[1:]).transpose(0, 1)[place].flatten(0, 1) for v in (weight, mask, bias)
            )
        assert part.weight.shape == weight.shape
        part.mask.copy_(mask.bool())
        part.weight.data.copy_(weight)
        part.bias.data.copy_(bias)
    return theirs


@pytest.mark.parametrize("order", ["reverse", "random"])
def test_maf_agrees_with_zukos(order, rows):
    density = MAFDensity(
        univariate="affine", order=order, n_transforms=3, hidden_features=(16, 16), max_epochs=20, random_state=0
    ).fit(rows)
    model = copy.deepcopy(density.model_).double()
    first, top = theirs_of(model.preprocess), theirs_of(model.top.bijection)
    steps = [autoregressive_of(layer)() for layer in model.flow.levels[0].bijections]
    flow = zuko.distributions.NormalizingFlow(
        zuko.transforms.ComposedTransform(first, *steps, top),
        MultivariateNormal(torch.zeros(N_COLUMNS, dtype=torch.float64), torch.eye(N_COLUMNS, dtype=torch.float64)),
    )
    x = torch.from_numpy(density.spec_.standardized(rows))
    with torch.no_grad():
        expected, found = flow.log_prob(x), model.log_prob(x[..., None, None])
        back = model.decode(flow.transform(x))[..., 0, 0]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(back, x, rtol=1e-6, atol=1e-6)
    assert float(expected.std()) > 0.1
