"""Laws of memory_efficient=True: the gradients are those of plain training, and memory hardly grows with depth."""

import copy
from pathlib import Path

import numpy as np
import peak_memory
import pytest
import torch
from bijection_table import BIJECTIONS, random_case, randomize
from density_table import DENSITIES
from hypothesis import given, settings
from hypothesis import strategies as st

from flowdetect import density as density_room
from flowdetect.bijections import AffineCoupling, Chain, MultiScale, NormalizedConv1x1, reversible
from flowdetect.bijections.chain import set_memory_efficient
from flowdetect.density import FlowDensity, _memory
from flowdetect.nets import ConvNet, compiled, set_training_dtype
from flowdetect.nets.masked import seed_dropouts

TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-10}  # relative to the gradient of all parameters
FLOWS = {
    name: DENSITIES[name]
    for name in (
        "Glow, digits",
        "Glow, likelihood, shuffle, by class",
        "Glow, learned noise, digits by class",
        "Flow++, digits",
        "RealNVP, the paper's, small digits",
        "RealNVP, five columns by class",
        "RealNVP, splines, real-valued images",
        "MAF, splines, random, by class",
        "Planar, five columns by class",
        "Radial, digits by class",
        "TarFlow, digits as rows by class",
        "IAF, five columns",
    )
}


def gradients(module, loss, memory_efficient):
    """Gradients of a loss by all parameters, and what training leaves in the buffers."""
    module = copy.deepcopy(module).train()
    set_memory_efficient(module, memory_efficient)
    seed_dropouts(module, 0)
    found = loss(module)
    found.append(dict(module.named_buffers()))
    return [p.grad for p in module.parameters()], *found


def check_equal(module, loss, tolerance):
    plain, little = (gradients(module, loss, memory_efficient) for memory_efficient in (False, True))
    (of_parameters, *rest), (others, *other_rest) = plain, little
    assert [g is None for g in of_parameters] == [g is None for g in others]
    both = [(a, b) for a, b in zip(of_parameters, others, strict=True) if a is not None]
    both += [(a, b) for a, b in zip(rest[:-1], other_rest[:-1], strict=True) if a is not None]
    size = sum(a.double().square().sum() for a, _ in both)
    error = sum((a.double() - b.double()).square().sum() for a, b in both)
    assert error.sqrt() <= tolerance * size.sqrt()
    for name, value in rest[-1].items():
        assert torch.equal(value, other_rest[-1][name]), name


def loss_of_bijection(x, context):
    """-log p of a standard normal z, with gradients by x and by the context."""

    def loss(bijection):
        leaf = x.clone().requires_grad_()
        given = None if context is None else context.clone().requires_grad_()
        z, term = bijection(leaf, given)
        (0.5 * z.flatten(1).square().sum(1) - term).mean().backward()
        return [leaf.grad, None if given is None else given.grad]

    return loss


@pytest.mark.parametrize("case", BIJECTIONS.values(), ids=BIJECTIONS)
@settings(max_examples=2)
@given(
    shape=st.tuples(st.integers(2, 4), st.integers(1, 2), st.integers(1, 3)),
    depth=st.integers(1, 3),
    seed=st.integers(0, 2**31),
)
def test_gradients_of_bijections(case, shape, depth, seed):
    bijection, x, context = random_case(case, shape, depth, seed)
    chain = bijection if isinstance(bijection, Chain | MultiScale) else Chain([bijection])
    for dtype, tolerance in TOLERANCES.items():
        given_context = None if context is None else context.to(dtype)
        check_equal(chain.to(dtype), loss_of_bijection(x.to(dtype), given_context), tolerance)


def test_every_flow_is_among_the_cases():
    public = [getattr(density_room, name) for name in density_room.__all__]
    flows = {kind for kind in public if isinstance(kind, type) and issubclass(kind, FlowDensity)}
    assert {type(case.make()) for case in FLOWS.values()} == flows - {FlowDensity}


@pytest.mark.parametrize("case", FLOWS.values(), ids=FLOWS)
def test_gradients_of_flows(case):
    """With dropout, batch normalisation, labels, learned noise, and weights that are no identity."""
    density = case.make(max_epochs=1, random_state=0).fit(case.X[:40], None if case.y is None else case.y[:40])
    spec, model = density.spec_, randomize(density.model_, torch.Generator().manual_seed(0))
    rows = density._read(case.X[:8], None)[0].rows(np.arange(8)).astype(float)
    x = spec.to_tensor(rows, "cpu")
    context = spec.to_context(np.zeros(8, dtype=int) if spec.is_conditional else None, "cpu")
    noise = torch.rand(8, model.n_noise, generator=torch.Generator().manual_seed(1)) if model.n_noise else None
    for dtype, tolerance in TOLERANCES.items():

        def loss(model, dtype=dtype):
            values = [None if value is None else value.to(dtype) for value in (x, context, noise)]
            (-model(*values).mean()).backward()
            return []

        check_equal(model.to(dtype), loss, tolerance)


def steps(n, net=ConvNet, hidden=8, channels=4):
    """Steps of a flow with random weights."""
    layers = [
        layer
        for _ in range(n)
        for layer in (NormalizedConv1x1(channels), AffineCoupling(net(channels // 2, hidden, channels)))
    ]
    return randomize(Chain(layers), torch.Generator().manual_seed(0))


def test_large_images_pass_a_few_rows_at_a_time(monkeypatch):
    chain, x = steps(2), torch.randn(5, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    shapes = []
    chain.bijections[1].net.register_forward_hook(lambda module, inputs, output: shapes.append(len(inputs[0])))
    monkeypatch.setattr(reversible, "PIXELS_AT_ONCE", 32)
    check_equal(chain, loss_of_bijection(x, None), TOLERANCES[torch.float32])
    assert shapes == [5, *[2, 2, 1] * 2]  # plain; there and back


def test_bfloat16_networks_differ_by_less_than_their_own_rounding():
    chain, x = steps(8, hidden=32), torch.randn(8, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    loss = loss_of_bijection(x, None)
    exact = torch.cat([g.flatten() for g in gradients(chain, loss, False)[0]])
    set_training_dtype(chain, torch.bfloat16)
    plain, little = (torch.cat([g.flatten() for g in gradients(chain, loss, how)[0]]) for how in (False, True))
    assert 0 < (little - plain).norm() < 0.1 * (plain - exact).norm()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read as Linux tells it")
def test_memory_hardly_grows_with_depth(monkeypatch):
    monkeypatch.setattr(compiled, "library", lambda: (None, 0))  # which keep no hidden values in any case
    x, growths = torch.randn(16, 4, 32, 32, generator=torch.Generator().manual_seed(0)), []
    for memory_efficient in (False, True):
        peaks = []
        for n in (4, 16):  # each network makes two activations of 4 MiB
            chain = steps(n, hidden=64).train()
            set_memory_efficient(chain, memory_efficient)
            _memory.glibc() and _memory.glibc().malloc_trim(0)
            before = peak_memory.reset()
            z, term = chain(x)
            (z.square().sum() - term.sum()).backward()
            peaks.append(peak_memory.most() - before)
        growths.append(peaks[1] - peaks[0])
    assert growths[0] > 80
    assert growths[1] < 12
