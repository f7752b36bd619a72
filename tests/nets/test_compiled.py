"""The networks written in C against torch's: values, gradients, and a row's bits in any company."""

import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowdetect import GlowDensity
from flowdetect.nets import ConvNet, compiled
from flowdetect.nets.compiled import BFLOAT16, FLOAT32, library

needs = {
    level: pytest.mark.skipif(library()[1] < level, reason=f"no compiled networks in {name} here")
    for level, name in ((FLOAT32, "float32"), (BFLOAT16, "bfloat16"))
}


def network(c, hidden, out, k, n_context=0, seed=0):
    """Give a network whose weights are all drawn."""
    generator = torch.Generator().manual_seed(seed)
    net = ConvNet(c, hidden, out, k, n_context)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * parameter[0].numel() ** -0.5)
    return net.train()


def everything(net, x, context, gradient):
    """Give the output and the gradients of the input, the context and all parameters."""
    inputs = [t for t in (x, context) if t is not None]
    y = net(x, context)
    return [y.detach(), *torch.autograd.grad(y, [*inputs, *net.parameters()], gradient)]


def without_compiled(function, *args):
    """Call a function with torch's convolutions alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "library", lambda: (None, 0))
        return function(*args)


def relative(found, expected):
    """Largest error, relative to the largest value."""
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


sizes = st.tuples(
    *(
        st.integers(1, 5),
        st.integers(1, 4),
        st.integers(1, 6),
        st.integers(1, 20),
        st.integers(1, 9),
        st.integers(1, 40),
    ),
    *(st.sampled_from([3, 5]), st.sampled_from([0, 3]), st.integers(0, 99), st.sampled_from([1, 2, 3])),
)


@needs[FLOAT32]
@settings(max_examples=25, deadline=None, derandomize=True)
@given(sizes)
def test_float32_gives_what_torch_gives(drawn):
    n, c, out, height, width, hidden, k, n_context, seed, n_threads = drawn
    net = network(c, hidden, out, k, n_context, seed)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2 * c, height, width, generator=generator)[:, :c].requires_grad_()  # images are not adjacent
    context = torch.randn(n, n_context, generator=generator).requires_grad_() if n_context else None
    gradient = torch.randn(n, out, height, width, generator=generator)
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "FEWEST_SHARED", 0)
        torch.set_num_threads(n_threads)
        found = everything(net, x, context, gradient)
        torch.set_num_threads(before)
    expected = without_compiled(
        everything, net.double(), x.double(), context if context is None else context.double(), gradient.double()
    )
    assert all(t.dtype == torch.float32 for t in found)
    for ours, theirs in zip(found, expected, strict=True):
        assert relative(ours, theirs) < 2e-5


@needs[BFLOAT16]
@pytest.mark.parametrize(
    ("c", "out", "side", "hidden"), [(2, 4, 14, 128), (4, 8, 7, 128), (3, 5, 9, 40), (1, 2, 33, 16)]
)
def test_bfloat16_is_as_near_to_float32_as_torchs_is(c, out, side, hidden):
    net = network(c, hidden, out, 3)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(20, c, side, side, generator=generator).requires_grad_()
    gradient = torch.randn(20, out, side, side, generator=generator)
    exact = without_compiled(everything, net, x, None, gradient)
    net.training_dtype = torch.bfloat16
    ours, theirs = everything(net, x, None, gradient), without_compiled(everything, net, x, None, gradient)
    for a, b, c_ in zip(ours, theirs, exact, strict=True):
        assert float((a - c_).norm()) < 1.25 * float((b - c_).norm()) + 1e-6 * float(c_.norm())
        assert float((a - c_).norm()) < 0.1 * float(c_.norm())


@needs[FLOAT32]
@torch.no_grad()
def test_an_image_has_the_same_bits_in_any_company():
    net = network(2, 128, 4, 3).eval()
    x = torch.randn(70, 2, 14, 14, generator=torch.Generator().manual_seed(2))
    whole, before = net(x), torch.get_num_threads()
    for n_threads in (1, 2, 3):
        torch.set_num_threads(n_threads)
        for part in (slice(0, 1), slice(69, 70), slice(3, 67), slice(None)):
            assert torch.equal(net(x[part]), whole[part])
    torch.set_num_threads(before)


@needs[FLOAT32]
@torch.no_grad()
def test_a_value_that_is_no_number_stays_with_its_image():
    net = network(2, 16, 4, 3).eval()
    x = torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(3))
    clean = net(x)
    x[2, 0, 3, 3] = torch.nan
    found = net(x)
    assert bool(found[2].isnan().any())
    assert torch.equal(found[[0, 1, 3, 4]], clean[[0, 1, 3, 4]])


@needs[FLOAT32]
def test_what_a_density_is_does_not_depend_on_it():
    X = np.random.default_rng(0).integers(0, 256, (60, 8, 8))
    density = GlowDensity(
        n_steps=2, hidden_channels=8, max_epochs=3, precision="float32", early_stopping=False, random_state=0
    )
    ours = density.fit(X).score_samples(X)
    assert without_compiled(density.score_samples, X) == pytest.approx(ours, abs=1e-3)
    theirs = without_compiled(lambda: density.fit(X).score_samples(X))
    assert theirs == pytest.approx(ours, rel=1e-4)


@pytest.mark.skipif(
    shutil.which("cc") is None or not torch.cpu.get_capabilities().get("avx512_dq"),
    reason="no C compiler, or no AVX-512",
)
def test_it_is_built_where_it_can_be():
    assert library()[1] >= FLOAT32


def test_it_can_be_turned_off(monkeypatch):
    monkeypatch.setenv("FLOWDETECT_COMPILED", "0")
    assert library.__wrapped__() == (None, 0)


@needs[FLOAT32]
def test_a_library_of_another_version_is_left_alone(monkeypatch):
    monkeypatch.setattr(compiled, "VERSION", compiled.VERSION + 1)
    assert library.__wrapped__() == (None, 0)
