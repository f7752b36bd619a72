"""PixelRNN: masses that sum to 1, what depends on what, the paper's recursion, sampling with kept states."""

import copy
import itertools

import numpy as np
import pytest
import torch
from autoregressive_checks import assert_samples_follow, dependence, drawn, drawn_naively
from pixelcnn_sizes import DIGITS, every_image

from flowdetect.density import PixelRNNDensity
from flowdetect.nets.recurrent import DiagonalBiLSTM, RecurrentNet, RowLSTM, skew, unskew

KINDS = {"row_lstm": RowLSTM, "diagonal_bilstm": DiagonalBiLSTM}
LIKELIHOODS = ("logistic_mixture", "categorical")
for_both = pytest.mark.parametrize("variant", KINDS)


def small(**settings):
    shared = {"n_filters": 8, "n_blocks": 1, "n_mixtures": 5, "max_epochs": 2, "batch_size": 64, "random_state": 0}
    return PixelRNNDensity(**{**shared, **settings})


def network(variant, n_blocks, height, width, channels=1, is_strip=False):
    shape = channels, height, width
    return drawn(RecurrentNet(shape, 12, n_blocks, 0, 0.0, variant, is_strip)), shape


@for_both
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_masses_sum_to_one(variant, likelihood):
    images, X = every_image(4, 2, 2)
    settings = {"n_filters": 16, "max_epochs": 4, "learning_rate": 2e-2}
    density = small(variant=variant, likelihood=likelihood, n_bins=4, **settings).fit(X[:1000])
    scores = density.score_samples(images)
    assert np.exp(scores).sum() == pytest.approx(1, abs=1e-5)
    assert -(np.exp(scores) * scores).sum() < np.log(len(images)) - 1  # far from the uniform distribution
    assert_samples_follow(density.sample(4000, random_state=0), images, scores, 4)


def test_masses_of_colours_and_of_a_table_sum_to_one():
    for shape, n_bins in [((1, 2, 3), 3), ((3,), 4)]:
        rows, X = every_image(n_bins, *shape)
        density = small(n_bins=n_bins, n_filters=16).fit(X[:500])
        assert np.exp(density.score_samples(rows)).sum() == pytest.approx(1, abs=1e-5)


def test_a_real_valued_table_integrates_to_one():
    X = np.random.default_rng(0).normal(size=(300, 2)) @ [[1.0, 0.5], [0.0, 0.3]]
    side = np.linspace(-8, 8, 301)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    density = small(max_epochs=5).fit(X)
    assert np.exp(density.score_samples(grid)).sum() * (side[1] - side[0]) ** 2 == pytest.approx(1, abs=0.01)


# ---- what depends on what


@pytest.mark.parametrize(("n_blocks", "channels"), [(1, 1), (2, 2)])
def test_diagonals_see_all_earlier_pixels_and_no_others(n_blocks, channels):
    found = dependence(*network("diagonal_bilstm", n_blocks, 4, 8, channels))
    np.testing.assert_array_equal(found, np.tril(np.ones_like(found), -1))


@pytest.mark.parametrize("n_blocks", [1, 3])
def test_rows_see_a_triangle(n_blocks):
    """Three columns aside by the first convolution, then one a row; to the left each layer goes one more."""
    height, width = 4, 12
    found = dependence(*network("row_lstm", n_blocks, height, width))
    expected = np.zeros((height, width, height, width), dtype=bool)
    for i, j, a, b in itertools.product(range(height), range(width), range(height), range(width)):
        up, left = i - a, j - b
        expected[i, j, a, b] = (up > 0 or (up == 0 and left > 0)) and -(up + 2) <= left <= up + 3 + n_blocks
    np.testing.assert_array_equal(found, expected.reshape(found.shape))
    assert (np.tril(np.ones_like(found), -1) & ~found).any()  # the blind spot


def test_pattern_of_a_table_is_triangular_and_full():
    found = dependence(*network("row_lstm", 1, 6, 1, is_strip=True))
    np.testing.assert_array_equal(found, np.tril(np.ones((6, 6)), -1))


# ---- layers


def test_skewing():
    x = torch.arange(2 * 3 * 4.0).reshape(1, 2, 3, 4)
    skewed = skew(x)
    assert skewed.shape == (1, 2, 3, 6)
    for i in range(3):
        torch.testing.assert_close(skewed[:, :, i, i : i + 4], x[:, :, i])
        assert not skewed[:, :, i, :i].any()
        assert not skewed[:, :, i, i + 4 :].any()
    torch.testing.assert_close(unskew(skewed), x)


def paper_lstm(gates, cell):
    """Eq. 3, of gates with halved arguments."""
    inner, forget, outer, content = gates.chunk(4)
    cell = (2 * forget).sigmoid() * cell + (2 * inner).sigmoid() * content.tanh()
    return (2 * outer).sigmoid() * cell.tanh(), cell


@for_both
def test_states_follow_the_papers_recursion(variant):
    h, height, width = 3, 3, 4
    layer = drawn(KINDS[variant](2 * h, 3, 0, 0.0)).double()
    d, weight = layer.n_directions, layer.state.weight.detach()
    generator = torch.Generator().manual_seed(0)
    gates = torch.randn(1, 4 * h * d, height, width, generator=generator, dtype=torch.float64)
    zero, expected = torch.zeros(h, dtype=torch.float64), torch.zeros(h, height, width, dtype=torch.float64)
    for direction in range(d):
        states, cells = {}, {}
        columns = range(width) if direction == 0 else reversed(range(width))
        beside = 1 if direction else -1
        for i, j in itertools.product(range(height), list(columns)):
            if variant == "row_lstm":
                before, taps = (i - 1, j), [(i - 1, j - 1), (i - 1, j), (i - 1, j + 1)]
            else:
                before, taps = (i, j + beside), [(i - 1, j), (i, j + beside)]
            own = slice(4 * h * direction, 4 * h * (direction + 1))
            pre = gates[0, own, i, j]
            for tap, w in zip(taps, weight[own].flatten(2).unbind(2), strict=True):
                pre = pre + w @ states.get(tap, zero)
            states[i, j], cells[i, j] = paper_lstm(pre, cells.get(before, zero))
        for (i, j), state in states.items():
            if direction == 0:
                expected[:, i, j] += state
            elif i + 1 < height:
                expected[:, i + 1, j] += state  # shifted down by a row
    torch.testing.assert_close(layer.states(gates, gates)[0].detach(), expected)


def test_labels_enter_every_layer():
    net = drawn(RecurrentNet((1, 4, 4), 8, 3, 2, 0.0, "diagonal_bilstm"))
    net(torch.ones(2, 1, 4, 4), torch.eye(2)).square().sum().backward()
    assert all(layer.context_bias.value.grad.abs().sum() > 0 for layer in net.layers)


# ---- sampling


@for_both
@pytest.mark.parametrize("shape", [(8, 8), (5, 7, 3), (4,)], ids=["grey", "colour", "table"])
def test_sampling_with_kept_states_equals_naive_sampling(variant, shape):
    X = np.random.default_rng(0).integers(0, 9, (60, *shape)).astype(np.uint8)
    density = small(variant=variant, n_bins=9, conditional=True, n_blocks=2).fit(X, np.arange(60) % 3)
    model = copy.deepcopy(density.model_).double()
    labels = density.spec_.to_context(np.array([0, 1, 2, 2]), "cpu")
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    with torch.no_grad():
        kept = model.sample(4, labels, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(kept, drawn_naively(model, 4, 1, labels), atol=0, rtol=0)


@for_both
def test_rows_of_the_batch_are_reordered(variant):
    """As the particle filter does: after any pixel the rows go on from others' states."""
    net = network(variant, 2, 4, 5)[0].double()
    image = torch.randn(3, 1, 4, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    index, steps = None, net.in_order(image)
    with torch.no_grad():
        for step in range(20):
            i, j, h = steps.send(index)
            torch.testing.assert_close(h, net(image)[:, :, i : i + 1, j : j + 1])
            index = torch.tensor([2, 0, 0]) if step in (3, 7, 9, 14) else None
            if index is not None:
                image.copy_(image[index])


@for_both
def test_any_pixels_are_completed(variant):
    density = small(variant=variant, n_bins=17).fit(DIGITS[:100])
    mask = np.ones((8, 8), dtype=bool)
    mask[2:4, 2:4] = False
    drawn_pixels = density.complete(DIGITS[:3], mask=mask, n_candidates=8, random_state=0)
    np.testing.assert_array_equal(drawn_pixels[:, mask], DIGITS[:3][:, mask])


# ---- scores


@for_both
def test_scores_are_the_same_bits_with_any_number_of_threads(variant):
    density = small(variant=variant, n_bins=17, n_filters=16).fit(DIGITS[:100])
    before, scores = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            scores.append(np.concatenate([density.score_samples(DIGITS[:17]), density.score_samples(DIGITS[17:20])]))
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(scores[0], other) for other in scores)
    assert np.array_equal(scores[0], density.score_samples(DIGITS[:20]))


@for_both
def test_extreme_images_have_finite_scores(variant):
    density = small(variant=variant, n_bins=17).fit(DIGITS[:100])
    extremes = np.stack([np.zeros((8, 8)), np.full((8, 8), 16), np.full((8, 8), -16), np.full((8, 8), 32)])
    assert np.isfinite(density.score_samples(extremes)).all()


def test_categorical_needs_bins():
    with pytest.raises(ValueError, match='PixelRNNDensity: .*"logistic_mixture", or n_bins'):
        small(likelihood="categorical").fit(np.random.default_rng(0).normal(size=(20, 3)))
