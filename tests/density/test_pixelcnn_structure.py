"""PixelCNN's structure is the papers': labels in both streams, shortcuts, transposed convolutions; and older files'."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pixelcnn_sizes import DIGITS, LABELS, every_image, small

from flowdetect import PixelCNNDensity, load
from flowdetect.density.pixelcnn import causal_net
from flowdetect.nets.cache import whole
from flowdetect.nets.causal import overlapping

STREAMED = ("gated", "pixelcnn++")


def network(variant, n_context=0, n_blocks=1, shape=(1, 5, 6), **settings):
    """A network in float64 whose parameters are all far from zero."""
    net = causal_net(variant, shape, 6, n_blocks, n_context, 0.0, **settings).double().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return net


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("variant", STREAMED)
def test_a_label_reaches_the_streams_that_it_enters(variant, both):
    net = network(variant, n_context=3, both_streams=both)
    image = torch.zeros(1, 1, 5, 6, dtype=torch.float64)
    context = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64)

    def first_row_of_message(c):  # the vertical stream sees no pixel there
        return net.vertical(image, c).first[0][0, :, 0].flatten()

    def first_pixel(c):
        return net(image, c)[0, :, 0, 0]

    from_vertical = torch.autograd.functional.jacobian(first_row_of_message, context)
    assert bool((from_vertical != 0).any()) == both
    assert (torch.autograd.functional.jacobian(first_pixel, context)[:, 0] != 0).all()


@pytest.mark.parametrize("variant", STREAMED)
def test_masses_sum_to_one_in_each_class(variant):
    images, X = every_image(3, 2, 2)
    y = X.reshape(len(X), -1).sum(1) % 2
    density = small(variant=variant, n_bins=3, conditional=True, max_epochs=1).fit(X[:100], y[:100])
    generator = torch.Generator().manual_seed(0)
    for parameter in density.model_.parameters():
        parameter.data.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    scores = [density.score_samples(images, np.full(len(images), label)) for label in (0, 1)]
    np.testing.assert_allclose(np.exp(scores).sum(1), 1, atol=1e-5)
    assert np.abs(scores[0] - scores[1]).max() > 0.1


def test_pixel_shuffle_makes_it_a_transposed_convolution():
    up = overlapping(3).double()
    up.reset_parameters(torch.Generator().manual_seed(0))
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    taps = up.kernel_weight().reshape(3, 2, 2, 3, 2)  # out, row and column of the output, in, column of the input
    kernel = torch.stack([taps[:, :, 1, :, 1], taps[:, :, 0, :, 0], taps[:, :, 1, :, 0]], -1)  # (out, 2, in, 3)
    expected = F.conv_transpose2d(x, kernel.permute(2, 0, 1, 3), stride=2)[..., 1:]  # its first column is cut off
    torch.testing.assert_close(whole.upsample(up, up(x), (8, 10)), expected)


def features_by_lists(net, image):
    """PixelCNN++ as its authors' code goes: what comes down is put on two lists, and taken off them on the way up."""
    stages = [net.stage, net.stage.below, net.stage.below.below]
    us, hs = [net.u_first(image)], [sum(layer(image) for layer in net.h_first)]

    def through(block, u, h, u_skip, h_skip):
        u, message = block.vertical(u, u_skip, None, whole)
        return u, block.horizontal(h, message, h_skip, None, whole)

    for k, stage in enumerate(stages):
        for block in stage.first:
            u, h = through(block, us[-1], hs[-1], None, None)
            us.append(u), hs.append(h)
        if k < 2:
            us.append(stage.u_down(us[-1])), hs.append(stage.h_down(hs[-1]))
    u, h = us.pop(), hs.pop()
    for stage in reversed(stages):
        if stage.below is not None:
            shape = us[-1].shape[2:]
            u, h = whole.upsample(None, stage.u_up(u), shape), whole.upsample(None, stage.h_up(h), shape)
        for block in stage.second:
            u, h = through(block, u, h, us.pop(), hs.pop())
    assert not us
    assert not hs
    return h


def test_shortcuts_are_the_authors():
    net = network("pixelcnn++", n_blocks=2, all_shortcuts=True)
    assert [len(stage.second) for stage in (net.stage, net.stage.below, net.stage.below.below)] == [3, 3, 2]
    image = torch.randn(2, 1, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(net(image), features_by_lists(net, image), atol=0, rtol=1e-9)


def test_of_blocks_alone_there_are_as_many_up_as_down():
    net = network("pixelcnn++", n_blocks=2)
    assert [len(stage.second) for stage in (net.stage, net.stage.below, net.stage.below.below)] == [2, 2, 2]


FORMER = {"label_streams": "horizontal", "shortcuts": "blocks"}


def without_later_parameters(state):
    return {name: value for name, value in state.items() if name not in FORMER}


@pytest.mark.parametrize("variant", STREAMED)
def test_an_older_file_keeps_its_structure(variant, tmp_path, monkeypatch):
    X, y = DIGITS[:60, 2:6, 2:6], LABELS[:60] % 2
    density = small(variant=variant, n_bins=17, conditional=True, max_epochs=1, **FORMER).fit(X, y)
    state = without_later_parameters(density.__getstate__())
    state["_fitted_params"] = without_later_parameters(state["_fitted_params"])
    with monkeypatch.context() as patch:
        patch.setattr(PixelCNNDensity, "__getstate__", lambda self: state)
        density.save(tmp_path / "older")
    assert not any(name.encode() in (tmp_path / "older").read_bytes() for name in FORMER)
    older = load(tmp_path / "older")
    assert {name: older.get_params()[name] for name in FORMER} == FORMER
    np.testing.assert_array_equal(older.score_samples(X[:9], y[:9]), density.score_samples(X[:9], y[:9]))
    older.set_params(warm_start=True)
    if variant == "gated":
        older.fit(X, y)
    with pytest.raises(ValueError, match="label_streams was 'horizontal', is 'both'"):
        older.set_params(label_streams="both").fit(X, y)
