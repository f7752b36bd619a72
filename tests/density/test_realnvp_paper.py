"""RealNVP's settings that are the paper's: masked images, the last level, batch normalisation within, weight decay."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from flowdetect import RealNVPDensity, load_images
from flowdetect.bijections import Coupling, Logit, Squeeze
from flowdetect.density._training import decay_groups
from flowdetect.density.realnvp import MaskedImageNet
from flowdetect.nets.residual import NEW_SHARE, FeatureNorm

DIGITS = load_images("digits")[0][:60]
SMALL = {"n_bins": 17, "n_steps": 2, "n_blocks": 1, "hidden_channels": 4, "max_epochs": 1, "random_state": 0}


@pytest.mark.parametrize("values_first", [False, True])
@pytest.mark.parametrize("colour", [0, 1])
def test_a_masked_net_sees_the_other_colour_of_the_image(colour, values_first):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 2, 4, 6, generator=generator)
    weight = torch.randn(6, 2, 3, 3, generator=generator)  # three numbers for each of two channels
    mask = torch.tensor((np.add.outer(np.arange(4), np.arange(6)) % 2 == colour).astype(np.float32))
    order = np.argsort(np.isin(np.arange(8) % 4, (1, 2)), kind="stable")  # pixels 0 3 | 1 2 of each 2x2 block
    order = np.roll(order, 4 * colour)
    net = MaskedImageNet(lambda x, context: F.conv2d(x, weight, padding=1), order, values_first)
    found = net(Squeeze()(image)[0][:, order[:4].tolist()])
    expected = Squeeze()(F.conv2d(image * mask, weight, padding=1))[0]  # (2, 3 * 8, 2, 3)
    expected = expected.unflatten(1, (3, 8))[:, :, order[4:].tolist()]
    expected = expected.transpose(1, 2) if values_first else expected
    torch.testing.assert_close(found, expected.flatten(1, 2))


def levels_of(density):
    """Number of couplings of each level, and the flow's levels."""
    levels = list(density.model_.flow.levels)
    return [sum(isinstance(step, Coupling) for step in level.bijections) for level in levels], levels


def test_the_last_level_has_checkerboards_alone():
    density = RealNVPDensity(**SMALL, last_level="checkerboard", normalization="none").fit(DIGITS)
    counts, levels = levels_of(density)
    assert counts == [8, 8, 4]  # of two steps
    assert levels_of(RealNVPDensity(**SMALL).fit(DIGITS))[0] == [8, 8, 8]
    for module in density.model_.modules():
        if hasattr(module, "g"):  # the couplings are then the identity
            module.g.data.zero_(), module.bias.data.zero_()
    x = torch.arange(64.0).reshape(1, 4, 4, 4)
    torch.testing.assert_close(levels[-1](x)[0], Squeeze()(x)[0])  # each channel is back at its place


def test_batch_normalisation_of_features():
    h = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1
    norm = FeatureNorm(3)
    torch.testing.assert_close(norm(h), F.batch_norm(h, None, None, training=True))
    torch.testing.assert_close(norm.mean, NEW_SHARE * h.mean((0, 2, 3)))
    norm.eval()
    torch.testing.assert_close(norm(h), F.batch_norm(h, norm.mean, norm.variance))


def test_weight_decay_on_scales_alone():
    density = RealNVPDensity(**SMALL, decayed="scales").fit(DIGITS)
    decayed, others = (decay_groups(density.model_, 0.1)[i]["params"] for i in (1, 0))
    names = {id(parameter): name for name, parameter in density.model_.named_parameters()}
    assert {names[id(p)].rpartition(".")[2] for p in decayed} == {"g"}
    assert {names[id(p)].rpartition(".")[2] for p in others} == {"v", "bias", "raw_value"}
    assert len(decayed) + len(others) == len(names)
    every = decay_groups(RealNVPDensity(**SMALL).fit(DIGITS).model_, 0.1)
    assert [group["weight_decay"] for group in every] == [0.1]


def scale_lengths(density):
    return sum(float(module.g.detach().square().sum()) for module in density.model_.modules() if hasattr(module, "g"))


def test_decayed_scales_shrink():
    settings = {**SMALL, "learning_rate": 1e-3, "early_stopping": False, "decayed": "scales"}
    with_decay = RealNVPDensity(**settings, weight_decay=30.0).fit(DIGITS)
    assert scale_lengths(with_decay) < scale_lengths(RealNVPDensity(**settings).fit(DIGITS))


@pytest.mark.parametrize("ends", [(0.05, 0.95), (0.05, 1.0), (1e-6, 1 - 1e-6), (0.0, 1.0)])
def test_logit_is_that_of_the_papers(ends):
    low, high = ends
    x = torch.linspace(1, 255, 255, dtype=torch.float64)[None, :, None, None]
    z, log_det = Logit(256, low, high)(x)
    p = low + (high - low) * x / 256
    torch.testing.assert_close(z, torch.logit(p))
    torch.testing.assert_close(log_det, ((high - low) / 256 / (p * (1 - p))).log().flatten(1).sum(1))


@pytest.mark.parametrize(
    "ends", [(0.5, 0.5), (-0.1, 1), (0.1,), (0.9, 0.1), (0, "1"), (float("nan"), 1.0), (False, True), (0, 1e-7)]
)
def test_a_range_that_is_none_is_refused(ends):
    with pytest.raises(ValueError, match="0 <= low < high <= 1"):
        RealNVPDensity(**SMALL, preprocessing="logit", logit_range=ends).fit(DIGITS)
