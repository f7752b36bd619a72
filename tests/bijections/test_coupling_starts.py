"""What couplings compute before any training."""

import math

import pytest
import torch

from flowdetect.bijections import AdditiveCoupling, AffineCoupling
from flowdetect.nets import ConvNet

SIGMOID_START = 1 / (1 + math.exp(-2))  # 0.8808, of Glow's code: s = sigmoid(h + 2)


@pytest.mark.parametrize(
    ("numbers", "couple", "scale"),
    [
        (1, AdditiveCoupling, 1.0),
        (2, lambda net: AffineCoupling(net, "exp"), 1.0),
        (2, AffineCoupling, SIGMOID_START),
    ],
    ids=["additive", "exp", "sigmoid"],
)
def test_a_fresh_coupling_is_the_identity_but_for_the_scale_of_sigmoid(numbers, couple, scale):
    net = ConvNet(1, 4, numbers)
    net.reset_parameters(torch.Generator().manual_seed(0))
    x = torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    z, log_det = couple(net)(x)
    ratios = sorted((z / x).mean((0, 2, 3)).tolist())  # one channel is kept, the other scaled
    assert ratios == pytest.approx(sorted([1.0, scale]), rel=1e-6)
    torch.testing.assert_close(log_det, torch.full((5,), 9 * math.log(scale)))
