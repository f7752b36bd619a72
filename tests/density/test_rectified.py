"""The rectified PixelCNN: what its first layer sees, maps of the positions, and the label in both streams."""

import torch

from flowdetect.density.pixelcnn import causal_net
from flowdetect.nets.rectified import NEARNESS, LiftedConv


def network(n_context=0, is_binned=True):
    """A network in float64 whose parameters are all far from zero."""
    net = causal_net("rectified", (1, 5, 6), 6, 1, n_context, 0.0, is_binned=is_binned).double().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return net


def test_the_first_layer_sees_values_and_how_near_they_are_to_the_lowest():
    layer = LiftedConv(1, 1, (1, 1), 0, 0).double()
    seen = []
    for channel in range(1 + len(NEARNESS)):
        layer.weight.data.zero_()
        layer.weight.data[:, channel] = 1
        seen.append(layer(torch.tensor([-3.0, -1, -0.99, 1], dtype=torch.float64).reshape(1, 1, 1, 4)).flatten())
    wanted = [[-3.0, -1, -0.99, 1], *([1, 1, torch.tensor(-0.01 * rate).exp(), 0] for rate in NEARNESS)]
    torch.testing.assert_close(torch.stack(seen), torch.tensor(wanted, dtype=torch.float64), atol=1e-6, rtol=1e-6)


def test_real_values_are_not_lifted():
    assert isinstance(network().u_first, LiftedConv)
    assert not isinstance(network(is_binned=False).u_first, LiftedConv)


def test_positions_differ_where_the_image_does_not():
    net = network()
    image = torch.zeros(1, 1, 5, 6, dtype=torch.float64)
    first, second = net(image)[0, :, 3, 3], net(image)[0, :, 3, 4]
    assert (first - second).abs().max() > 0.01
    for positions in net.positions:  # a pixel's map moves its features, and none of the rows above
        before = net(image)
        positions.value.data[:, :, 4, 5] += 1.0
        moved = (net(image) != before).any(1)[0]
        assert moved[4, 5]
        assert not moved[:4].any()


def test_a_label_reaches_both_streams():
    net, context = network(n_context=3), torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64)
    image = torch.zeros(1, 1, 5, 6, dtype=torch.float64)

    def of_vertical(c):
        return net.vertical(image, c).first[0][0, :, 0].flatten()

    assert (torch.autograd.functional.jacobian(of_vertical, context) != 0).any()
    net.stage.first[0].u_context_bias.value.data.zero_()
    assert (torch.autograd.functional.jacobian(lambda c: net(image, c).flatten(), context) != 0).any()
