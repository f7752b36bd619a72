"""TarFlow: who sees whom, log-determinants, the inverse with its cache, batch invariance, samples, labels."""

import time

import numpy as np
import pytest
import torch
from bijection_table import N_CONTEXT, randomize
from density_table import DIGITS, LABELS, tarflow

from flowdetect import TarFlowDensity
from flowdetect.bijections import Chain
from flowdetect.density.tarflow import PatchAutoregressive
from flowdetect.nets import set_training_dtype
from flowdetect.testing import check_bijection

KINDS = {  # units within a patch, bins of a spline
    "independent, affine": (0, 0),
    "autoregressive, spline": (3, 2),
}
SHAPES = {"table": ((4, 1, 1), None), "patches": ((2, 4, 4), (2, 2)), "pixels": ((1, 2, 3), (1, 1))}
for_all_shapes = pytest.mark.parametrize(("shape", "patch"), SHAPES.values(), ids=SHAPES)
for_both_directions = pytest.mark.parametrize("is_reversed", [False, True])
for_both_kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def random_flow(shape, patch, is_reversed=False, kind=(0, 0), n_context=0, width=8, seed=0):
    flow = PatchAutoregressive(shape, patch, width, 2, 2, is_reversed, *kind, n_context)
    return randomize(flow, torch.Generator().manual_seed(seed)).eval()


def rows(n, shape, seed=1):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


@for_both_directions
@for_both_kinds
@for_all_shapes
def test_laws(shape, patch, kind, is_reversed):
    for n_context in (0, N_CONTEXT):
        flow = random_flow(shape, patch, is_reversed, kind, n_context)
        check_bijection(flow, rows(3, shape), rows(3, (N_CONTEXT,)) if n_context else None)


@for_both_directions
@for_both_kinds
@for_all_shapes
def test_a_patch_sees_all_patches_before_it_and_no_later_one(shape, patch, kind, is_reversed):
    flow = random_flow(shape, patch, is_reversed, kind).double()
    u = flow.to_sequence(rows(1, shape).double())
    n_tokens, n_values = u.shape[1:]

    def in_order(u):
        return flow.to_sequence(flow(flow.from_sequence(u))[0])

    jacobian = torch.autograd.functional.jacobian(in_order, u).reshape(2 * (n_tokens, n_values))
    for i in range(n_tokens):
        for j in range(n_tokens):
            found = jacobian[i, :, j] != 0  # (value of z, value of x)
            own = torch.eye(n_values) if kind[0] == 0 else torch.ones(n_values, n_values).tril()
            expected = own if i == j else torch.full((n_values, n_values), float(j < i))
            assert torch.equal(found, expected > 0)


def test_the_sequence_of_patches_is_in_raster_order():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    flow = random_flow((1, 4, 4), (2, 2))
    assert flow.to_sequence(x)[0, :2].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]
    backwards = random_flow((1, 4, 4), (2, 2), is_reversed=True)
    assert backwards.to_sequence(x)[0, 0].tolist() == [15, 14, 11, 10]
    for each in (flow, backwards):
        assert torch.equal(each.from_sequence(each.to_sequence(x)), x)


@for_both_kinds
def test_the_inverse_of_many_flows_is_exact_far_out_too(kind):
    shape = (1, 8, 8)
    chain = Chain([random_flow(shape, (2, 2), i % 2 == 1, kind, width=16, seed=i) for i in range(4)]).double()
    for spread in (1.0, 10.0, 100.0):
        z = spread * rows(5, shape).double()
        assert ((chain(chain.inverse(z))[0] - z).abs() <= 1e-9 * (1 + z.abs())).all()


def test_training_in_another_type_and_by_faster_attention_computes_the_same():
    flow = random_flow((1, 8, 8), (2, 2), kind=(4, 3), n_context=N_CONTEXT, width=16)
    x, context = rows(5, (1, 8, 8)), rows(5, (N_CONTEXT,))
    z, log_det = flow(x, context)
    for dtype, tolerance in ((None, 1e-4), (torch.bfloat16, 0.1)):
        set_training_dtype(flow.train(), dtype)
        found = flow(x, context)
        torch.testing.assert_close(found[0], z, atol=tolerance, rtol=tolerance)
        torch.testing.assert_close(found[1], log_det, atol=20 * tolerance, rtol=tolerance)
        assert found[0].dtype == torch.float32


@torch.no_grad()
@pytest.mark.parametrize(("shape", "patch"), [((5, 1, 1), None), ((1, 8, 8), (2, 2)), ((1, 5, 7), (1, 1))])
@pytest.mark.parametrize("n_rows", [16, 80])
def test_a_row_is_mapped_to_the_same_bits_wherever_it_stands(shape, patch, n_rows):
    flow, x = random_flow(shape, patch, kind=(4, 3), width=24), rows(n_rows, shape)
    shuffled = torch.randperm(n_rows, generator=torch.Generator().manual_seed(2))
    n_threads = torch.get_num_threads()
    z, log_det = flow(x)
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            found = flow(x[shuffled])
            assert torch.equal(found[0], z[shuffled])
            assert torch.equal(found[1], log_det[shuffled])
    finally:
        torch.set_num_threads(n_threads)


def test_the_log_scale_stays_in_its_interval():
    flow = random_flow((4, 1, 1), None)
    with torch.no_grad():
        flow.net.last.bias[1] = 1e6
    log_det = flow(rows(3, (4, 1, 1)))[1] / 4
    assert log_det.tolist() == pytest.approx([3.0] * 3, abs=1e-3)
    assert np.exp(3.0) == pytest.approx(20.1, abs=0.05)


# ---- densities


@pytest.fixture(scope="module")
def by_class():
    keep = LABELS < 2
    density = tarflow(n_bins=17, conditional=True, hidden_channels=32, max_epochs=15, random_state=0)
    return density.fit(DIGITS[keep], LABELS[keep])


@pytest.fixture(scope="module")
def bent():
    X = np.random.default_rng(0).normal(size=(200, 2))
    X[:, 1] = np.abs(X[:, 0]) + 0.3 * X[:, 1]
    return tarflow(max_epochs=8, learning_rate=1e-2, random_state=0).fit(X)


def test_integrates_to_one_in_two_dimensions(bent):
    side = np.linspace(-6, 6, 161)
    points = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    assert np.exp(bent.score_samples(points)).sum() * (side[1] - side[0]) ** 2 == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_latents_of_samples_are_normal_at_the_temperature(bent, temperature):
    latents = bent.transform(bent.sample(1000, temperature=temperature, random_state=1))
    assert latents.std(0) == pytest.approx([temperature] * 2, rel=0.08)
    assert latents.mean(0) == pytest.approx([0.0] * 2, abs=0.1)


def test_one_column_is_fitted_by_a_gaussian():
    x = np.random.default_rng(0).normal(3, 2, size=(200, 1))
    expected = -0.5 * np.log(2 * np.pi * np.e * x.var())
    assert tarflow(max_epochs=10, random_state=0).fit(x).score(x) == pytest.approx(expected, abs=0.05)


def test_labels_enter_the_flow(by_class):
    X, y = by_class.sample(200, y=np.repeat([0, 1], 100), random_state=0), np.repeat([0, 1], 100)
    own, other = by_class.score_samples(X, y), by_class.score_samples(X, 1 - y)
    assert (own > other).mean() > 0.9
    assert by_class.model_.context_enters == "flow"


def test_temperature_zero_is_one_image(by_class):
    cold = by_class.sample(3, y=[0, 0, 0], temperature=0, random_state=0)
    np.testing.assert_array_equal(cold, np.repeat(cold[:1], 3, axis=0))


def test_sampling_is_practical():
    images = np.random.default_rng(0).integers(0, 256, size=(19, 28, 28)).astype(np.uint8)
    density = TarFlowDensity(n_flows=2, n_layers=1, max_epochs=1, random_state=0).fit(images)
    started = time.process_time()
    assert density.sample(16, random_state=0).shape == (16, 28, 28)
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hidden_channels": 10, "n_heads": 3}, "multiple of n_heads, got hidden_channels=10 and n_heads=3"),
        ({"patch_size": 3}, "divide height and width .* got patch_size=3 for images of 8x8"),
        ({"hidden_channels": 2**16}, "parameters.*memory"),
        ({"n_flows": 10**9}, "at most 10000"),
        ({"patch_size": 8}, "at least 2 patches, got patch_size=8"),
    ],
)
def test_bad_parameters_are_told(settings, words):
    with pytest.raises(ValueError, match=words):
        TarFlowDensity(n_bins=17, **settings).fit(DIGITS[:80])
    if "patch_size" in settings:
        with pytest.raises(ValueError, match="column of a table as a patch"):
            TarFlowDensity(**settings).fit(np.random.default_rng(0).normal(size=(30, 3)))


@pytest.mark.parametrize(("side", "expected"), [(8, 2), (28, 4), (32, 4), (27, 3), (5, 1)])
def test_auto_patches(side, expected):
    images = np.random.default_rng(0).integers(0, 9, size=(20, side, side))
    density = tarflow(n_bins=9, n_flows=1, max_epochs=1).fit(images)
    assert density.model_.flow.levels[0].bijections[0].patch == (expected, expected)
