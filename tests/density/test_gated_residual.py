"""PixelCNN++'s layers: in training with loops of their own, in scoring in blocks of images, as they are written."""

import copy
from collections import namedtuple

import numpy as np
import pytest
import torch
from pixelcnn_sizes import small

from flowdetect.density import PixelCNNDensity
from flowdetect.nets import blockwise, fused
from flowdetect.nets.cache import whole
from flowdetect.nets.gated_residual import ResidualBlock
from flowdetect.nets.masked import seed_dropouts

Inputs = namedtuple("Inputs", ["u", "u_skip", "h", "h_skip", "context"])


@pytest.fixture
def block_and_inputs():
    """A block with skips and a context, and features of 4 images of 6x7 pixels."""

    def made(dtype, dropout=0.0, channels=20):
        generator = torch.Generator().manual_seed(0)
        block = ResidualBlock(channels, 3, dropout, True)
        for parameter in block.parameters():
            parameter.data.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
        features = [torch.randn(4, channels, 6, 7, generator=generator).to(dtype) for _ in range(4)]
        return block, Inputs(*features, torch.randn(4, 3, generator=generator))

    return made


def passed(block, inputs):
    u, message = block.vertical(inputs.u, inputs.u_skip, inputs.context, whole)
    return u, block.horizontal(inputs.h, message, inputs.h_skip, inputs.context, whole)


def derivatives(block, inputs):
    """Both streams, and the gradients by all that enters and by the parameters."""
    inputs = Inputs(*(value.detach().clone().requires_grad_() for value in inputs))
    seed_dropouts(block, 3)
    u, h = passed(block, inputs)
    loss = (1.3 * u.float().sin()).sum() + h.float().cos().sum()
    return [u.detach(), h.detach(), *torch.autograd.grad(loss, [*inputs, *block.parameters()])]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loops_of_training_give_the_gradients_of_autograd(monkeypatch, block_and_inputs, dtype, dropout):
    pytest.importorskip("numba")
    block, inputs = block_and_inputs(dtype, dropout)
    block.train()
    right = derivatives(block, Inputs(*(value.float() for value in inputs)))
    plain = derivatives(block, inputs)
    monkeypatch.setattr(fused, "FEWEST_VALUES", 1)
    monkeypatch.setattr(fused, "BLOCK_BYTES", inputs.u[:2].nbytes)
    assert fused.can_fuse(inputs.u, True)
    for found, written, exact in zip(derivatives(block, inputs), plain, right, strict=True):
        scale = exact.square().mean().sqrt()
        if dtype == torch.float32:
            torch.testing.assert_close(found / scale, exact / scale, rtol=0, atol=1e-4)
        else:  # no further from float32 than torch's own passes in bfloat16
            errors = [float((values.float() - exact).square().mean().sqrt() / scale) for values in (found, written)]
            assert errors[0] < 1.2 * errors[1] + 0.01


def test_without_numba_layers_are_as_they_are_written(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "numba", None)
    fused.kernels.cache_clear()
    x = torch.zeros(64, 100, 8, 8)
    assert x.numel() >= fused.FEWEST_VALUES
    assert not fused.can_fuse(x, True)
    fused.kernels.cache_clear()


def test_scores_in_blocks_are_as_near_to_float64_as_whole_ones(monkeypatch, block_and_inputs):
    block, inputs = block_and_inputs(torch.float32)
    block.eval()
    with torch.no_grad():
        whole_ones = passed(block, inputs)
        exact = passed(copy.deepcopy(block).double(), Inputs(*(value.double() for value in inputs)))
        monkeypatch.setattr(blockwise, "FEWEST_VALUES", 1)
        monkeypatch.setattr(blockwise, "BLOCK_BYTES", inputs.u[:2].nbytes)
        assert blockwise.can_split(inputs.u, False)
        in_blocks = passed(block, inputs)
    for found, plain, right in zip(in_blocks, whole_ones, exact, strict=True):
        assert not torch.equal(found, plain)  # another order of additions
        errors = [float((values - right).square().mean().sqrt()) for values in (found, plain)]
        assert errors[0] < 2 * errors[1]


def test_scores_in_blocks_do_not_depend_on_the_batch_or_the_threads(monkeypatch):
    monkeypatch.setattr(blockwise, "FEWEST_VALUES", 1)
    monkeypatch.setattr(blockwise, "BLOCK_BYTES", 2**14)
    monkeypatch.setattr(PixelCNNDensity, "chunk_values", 2**10)  # 16 rows
    X = np.random.default_rng(0).integers(0, 9, (40, 8, 8)).astype(np.uint8)
    density = small(variant="pixelcnn++", n_bins=9, n_filters=16, max_epochs=1).fit(X)
    scores, before = density.score_samples(X), torch.get_num_threads()
    try:
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            for rows in (slice(0, 1), slice(39, 40), slice(None, None, -1)):
                np.testing.assert_array_equal(density.score_samples(X[rows]), scores[rows])
    finally:
        torch.set_num_threads(before)
