"""PixelCNN: masses that sum to 1, masks, cached sampling and completion."""

import copy
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from autoregressive_checks import assert_samples_follow, dependence, drawn, drawn_naively
from pixelcnn_sizes import DIGITS, VARIANTS, every_image, small

from flowdetect.density.pixelcnn import causal_net
from flowdetect.nets.activations import add_gated, concat_elu, tanh_gate
from flowdetect.nets.masked import REFERENCE_FAN_IN, REFERENCE_FAN_IN_ELU, CausalConv, MaskedMLP

LIKELIHOODS = ("logistic_mixture", "categorical")


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("n_bins", "shape"), [(4, (2, 2)), (3, (1, 2, 3))], ids=["grey", "colour"])
def test_masses_sum_to_one(variant, likelihood, n_bins, shape):
    images, X = every_image(n_bins, *shape)
    density = small(
        variant=variant, likelihood=likelihood, n_bins=n_bins, n_filters=16, max_epochs=20, learning_rate=3e-3
    ).fit(X)
    scores = density.score_samples(images)
    assert np.exp(scores).sum() == pytest.approx(1, abs=1e-5)
    assert -(np.exp(scores) * scores).sum() < np.log(len(images)) - 1  # far from the uniform distribution


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_masses_of_a_table_sum_to_one(likelihood):
    rows, X = every_image(4, 3)
    density = small(likelihood=likelihood, n_bins=4, n_filters=16, max_epochs=20, learning_rate=3e-3).fit(X)
    assert np.exp(density.score_samples(rows)).sum() == pytest.approx(1, abs=1e-5)


def test_a_real_valued_table_integrates_to_one():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2)) @ [[1.0, 0.5], [0.0, 0.3]]
    side = np.linspace(-8, 8, 401)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    density = small(max_epochs=10).fit(X)
    assert np.exp(density.score_samples(grid)).sum() * (side[1] - side[0]) ** 2 == pytest.approx(1, abs=0.01)


# ---- layers


@pytest.mark.parametrize(
    ("activation", "widths"),
    [
        (lambda x: concat_elu(x, (1, 2, 1, 0)), [3]),
        (tanh_gate, [4]),
        (add_gated, [2, 4]),
    ],
    ids=["concat_elu", "tanh_gate", "add_gated"],
)
def test_derivatives_of_activations(activation, widths):
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, c, 3, 4, generator=generator, dtype=torch.float64) for c in widths]
    assert torch.autograd.gradcheck(activation, [x.requires_grad_() for x in inputs])


def test_activations_are_the_papers():
    x = torch.linspace(-4, 4, 24, dtype=torch.float64).reshape(2, 4, 3, 1)
    a, b = x.chunk(2, dim=1)
    elus = F.pad(F.elu(torch.cat([x, -x], 1)), (1, 0, 2, 0))
    torch.testing.assert_close(concat_elu(x, (1, 0, 2, 0)), elus)
    torch.testing.assert_close(tanh_gate(x), 2 * a.tanh() * (2 * b).sigmoid())
    torch.testing.assert_close(add_gated(a, x), a + 2 * a * (2 * b).sigmoid())


@pytest.mark.parametrize(("elu", "reference"), [(False, REFERENCE_FAN_IN), (True, REFERENCE_FAN_IN_ELU)])
def test_a_step_moves_the_outputs_of_wide_layers_no_farther(elu, reference):
    layer, x, rate = CausalConv(500, 4, (1, 1), 0, 0, elu=elu), torch.ones(1, 500, 1, 1), 1e-3
    layer.reset_parameters(torch.Generator().manual_seed(0))
    before = layer(x)
    before.sum().backward()
    torch.optim.Adam(layer.parameters(), lr=rate).step()
    moved = (layer(x) - before).detach().abs()
    assert 0.5 * reference * rate < float(moved.max()) < 1.05 * reference * rate


# ---- what depends on what


def network(variant, n_blocks, channels=1, height=6, width=7):
    net = causal_net(variant, (channels, height, width), 12, n_blocks, 0, 0.0)
    return drawn(net), (channels, height, width)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("channels", [1, 3])
def test_no_pixel_depends_on_itself_or_later_ones(variant, channels):
    found = dependence(*network(variant, 3, channels))
    assert not np.triu(found).any()


@pytest.mark.parametrize(("variant", "n_blocks"), [("gated", 6), ("pixelcnn++", 2), ("rectified", 6)])
def test_all_earlier_pixels_are_seen(variant, n_blocks):
    found = dependence(*network(variant, n_blocks))
    np.testing.assert_array_equal(found, np.tril(np.ones_like(found), -1))


def reach(height, width, n_blocks):
    """Pixels that PixelCNN reaches: each layer goes one row up and one column right, the first one three."""
    reached = np.zeros((height * width,) * 2, dtype=bool)
    first = [(-a, b) for a in range(4) for b in range(-3, 4) if a or b < 0]
    steps = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0)]
    for i, j in itertools.product(range(height), range(width)):
        at = {(i, j)}
        for _ in range(n_blocks):
            at = {(a + da, b + db) for a, b in at for da, db in steps if 0 <= a + da and 0 <= b + db < width}
        at = {(a + da, b + db) for a, b in at for da, db in first if 0 <= a + da and 0 <= b + db < width}
        reached[i * width + j, [a * width + b for a, b in at]] = True
    return reached


@pytest.mark.parametrize("n_blocks", [1, 6])
def test_the_first_generation_lacks_exactly_its_blind_spot(n_blocks):
    found = dependence(*network("pixelcnn", n_blocks, height=6, width=12))
    np.testing.assert_array_equal(found, reach(6, 12, n_blocks))
    assert (np.tril(np.ones_like(found), -1) & ~found).any()


@pytest.mark.parametrize("n_blocks", [1, 6])
def test_a_local_one_sees_its_first_window_and_no_more(n_blocks):
    found = dependence(*network("local", n_blocks, height=6, width=12))
    np.testing.assert_array_equal(found, reach(6, 12, 0))


def test_pattern_of_a_table_is_triangular_and_full():
    net = MaskedMLP(5, 8, 3, 2, 0, 0.0)
    found = dependence(net, (1, 5, 1))
    np.testing.assert_array_equal(found, np.tril(np.ones((5, 5)), -1))


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_channels_see_the_channels_before_them(likelihood):
    X = np.random.default_rng(0).integers(0, 5, (50, 2, 2, 3)).astype(np.uint8)
    model = copy.deepcopy(small(n_bins=5, likelihood=likelihood).fit(X).model_).double()
    for parameter in model.parameters():
        parameter.data.add_(0.1)
    h = torch.randn(1, 8, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def parameters(y):
        # the distribution of each channel, seen at values that do not move along with y
        fixed = torch.zeros(1, 3, 1, 1, dtype=torch.float64)
        outputs = []
        for c in range(3):
            mixed = torch.cat([y[:, :c], fixed[:, c:]], 1)
            outputs.append(model.head.log_prob(h, mixed)[0, c, 0, 0])
        return torch.stack(outputs)

    jacobian = torch.autograd.functional.jacobian(parameters, torch.full((1, 3, 1, 1), 0.3, dtype=torch.float64))
    np.testing.assert_array_equal(jacobian.flatten(1).abs().numpy() > 0, np.tril(np.ones((3, 3)), -1))


# ---- sampling


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("shape", [(8, 8), (5, 7, 3)], ids=["grey", "colour, odd"])
def test_cached_sampling_equals_naive_sampling(variant, likelihood, shape):
    X = np.random.default_rng(0).integers(0, 9, (60, *shape)).astype(np.uint8)
    y = np.arange(60) % 3
    shortcuts = "all" if len(shape) == 3 else "blocks"
    density = small(
        variant=variant, likelihood=likelihood, n_bins=9, conditional=True, n_blocks=2, shortcuts=shortcuts
    ).fit(X, y)
    model = copy.deepcopy(density.model_).double()
    labels = density.spec_.to_context(np.array([0, 1, 2, 2]), "cpu")
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    with torch.no_grad():
        cached = model.sample(4, labels, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(cached, drawn_naively(model, 4, 1, labels), atol=0, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_cached_parameters_agree_in_float32(variant):
    X = DIGITS[:100]
    model = small(variant=variant, n_bins=17, n_blocks=2, learning_rate=3e-3, max_epochs=5).fit(X).model_
    y = torch.tensor(X[:4, None], dtype=torch.float32) / 8 - 1
    with torch.no_grad():
        whole = model.head.out(model.net(y))
        for i, j, h in model.net.in_order(y):
            torch.testing.assert_close(model.head.out(h), whole[:, :, i : i + 1, j : j + 1], atol=1e-4, rtol=0)


def test_sampling_a_table_equals_naive_sampling():
    model = small().fit(np.random.default_rng(0).normal(size=(60, 4))).model_
    model = copy.deepcopy(model).double()
    with torch.no_grad():
        torch.testing.assert_close(
            model.sample(4, generator=torch.Generator().manual_seed(1)), drawn_naively(model, 4, 1)
        )


def test_samples_follow_the_masses():
    images, X = every_image(3, 2, 2)
    density = small(n_bins=3, n_filters=16, max_epochs=20, learning_rate=3e-3).fit(X)
    assert_samples_follow(density.sample(4000, random_state=0), images, density.score_samples(images), 3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_extreme_images_have_finite_scores(variant):
    density = small(variant=variant, n_bins=17).fit(DIGITS[:100])
    extremes = np.stack([np.zeros((8, 8)), np.full((8, 8), 16), np.full((8, 8), -16), np.full((8, 8), 32)])
    assert np.isfinite(density.score_samples(extremes)).all()


def test_off_grid_values_are_scored_as_they_are():
    density = small(n_bins=17).fit(DIGITS[:100])
    assert (density.score_samples(DIGITS[:5] + 0.3) != density.score_samples(DIGITS[:5])).all()
    rounding = small(n_bins=17, likelihood="categorical").fit(DIGITS[:100])
    bottom = np.zeros((1, 8, 8))
    bottom[0, 7, 7] = 0.3  # the last pixel: nothing depends on it
    np.testing.assert_allclose(rounding.score_samples(bottom), rounding.score_samples(np.floor(bottom)))


def test_categorical_needs_bins():
    with pytest.raises(ValueError, match='"logistic_mixture", or n_bins'):
        small(likelihood="categorical").fit(np.random.default_rng(0).normal(size=(20, 3)))


def test_dropout_is_drawn_from_the_seed_alone():
    densities = [small(n_bins=17, dropout=0.5).fit(DIGITS[:60]) for _ in range(2)]
    without = small(n_bins=17).fit(DIGITS[:60])
    first, second = (density.score_samples(DIGITS[:5]) for density in densities)
    np.testing.assert_array_equal(first, second)
    assert (first != without.score_samples(DIGITS[:5])).all()
