import io

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from flowdetect.evaluation import (
    plot_auroc_intervals,
    plot_image_grid,
    plot_pixel_likelihood,
    plot_roc,
    plot_score_histograms,
    plot_sit_classes,
    plot_sit_shifts,
)

rng = np.random.default_rng(0)
SCORES = {"in": rng.normal(0, 1, 200), "out": rng.normal(3, 1, 100)}
PLOTS = {
    "histograms": (plot_score_histograms, SCORES),
    "roc": (plot_roc, {"density": (SCORES["in"], SCORES["out"])}),
    "intervals": (plot_auroc_intervals, {"density": {"out": (0.9, 0.8, 0.95), "far": (0.99, 0.97, 1.0)}}),
    "grid": (plot_image_grid, rng.random((3, 4, 5))),
    "classes": (plot_sit_classes, {"none": SCORES["in"], "noise": SCORES["in"] + 1}),
    "shifts": (plot_sit_shifts, {"Glow": {"left": SCORES["in"], "noise": SCORES["out"]}, "CNN": {"noise": [1.0, 2.0]}}),
}


def texts(ax):
    return [text.get_text() for text in ax.texts]


@pytest.fixture(params=PLOTS, ids=list(PLOTS))
def plot(request):
    return PLOTS[request.param]


def test_draws_a_figure_of_its_own(plot):
    function, data = plot
    ax = function(data)
    file = io.BytesIO()
    ax.figure.savefig(file)
    assert file.getbuffer().nbytes > 1000
    assert ax.figure.get_size_inches()[0] <= 9.01


def test_draws_into_the_axes_given(plot):
    function, data = plot
    ax = Figure().add_subplot()
    assert function(data, ax=ax) is ax


def test_leaves_matplotlib_as_it_is(plot):
    function, data = plot
    before = dict(mpl.rcParams)
    function(data)
    assert dict(mpl.rcParams) == before


def test_histograms_label_each_set_in_its_colour():
    ax = plot_score_histograms(SCORES, xlabel="nats")
    assert texts(ax) == ["out", "in"]
    assert len({to_hex(text.get_color()) for text in ax.texts}) == 2
    assert ax.get_xlabel() == "nats"
    heights = {text.xy[1] for text in ax.texts}
    assert len(heights) == 2  # names never overlap


@pytest.mark.parametrize("odd", [[1.0], [2.0, 2.0], [np.nan, 0.0, np.inf]])
def test_histograms_of_few_or_odd_scores(odd):
    ax = plot_score_histograms({"in": odd, "none": [np.nan]})
    assert texts(ax) == ["in"]


def test_histograms_of_nothing():
    with pytest.raises(ValueError, match="at least one finite score"):
        plot_score_histograms({"in": [np.nan]})


def test_roc_states_the_area():
    ax = plot_roc({"perfect": ([1.0, 2.0], [0.0, np.nan]), "blind": ([0.0], [0.0]), "none": ([np.nan], [1.0])})
    legend = ax.get_legend()
    assert legend.get_title().get_text() == "AUROC"
    assert [text.get_text() for text in legend.get_texts()] == ["perfect  1.000", "blind  0.500", "none  not scored"]
    assert texts(ax) == []  # no name stands on a curve
    assert len(ax.lines) == 4  # three curves, one of them empty, and the diagonal
    np.testing.assert_array_equal(ax.lines[0].get_xydata()[[0, -1]], [[0, 0], [1, 1]])
    assert ax.child_axes == []


def test_roc_near_the_corner_shows_it_larger():
    near = rng.normal(size=300) + 4
    ax = plot_roc({"a": (near, rng.normal(size=300)), "b": (near + 1, rng.normal(size=300))})
    (inset,) = ax.child_axes
    assert inset.get_xlim() == (0, 0.02)
    assert inset.get_ylim() == (0.98, 1)
    assert len(inset.lines) == 2
    box = inset.get_position()
    corner = ax.transAxes.inverted().transform(ax.figure.transFigure.transform((box.x0, box.y1)))
    for line in ax.lines[:2]:  # no curve crosses the inset
        x, y = line.get_xydata().T
        assert (y[x >= corner[0]] > corner[1]).all()


def test_intervals_of_areas_near_1_are_drawn_large():
    ax = plot_auroc_intervals({"a": {"x": (0.98, 0.97, 0.99)}, "b": {"x": (np.nan, np.nan, np.nan)}})
    assert 0.95 < ax.get_xlim()[0] < 0.97
    assert plot_auroc_intervals({"a": {"x": (0.4, 0.3, 0.5)}}).get_xlim()[0] < 0.01
    assert plot_auroc_intervals({"a": {"x": (np.nan, np.nan, np.nan)}}) is not None


def test_grid_shows_the_value_range():
    images = np.array([[[0, 255]], [[51, 102]]], dtype=np.uint8)
    ax = plot_image_grid(images, titles=["a", "b"], n_columns=1, row_labels=["r", "s"])
    assert texts(ax) == ["a", "b", "r", "s"]
    np.testing.assert_allclose(ax.images[1].get_array(), [[0.2, 0.4]])
    ax = plot_image_grid(images.astype(float), value_range=(0, 102))
    np.testing.assert_allclose(ax.images[0].get_array(), [[0, 1]])


def test_captions_stand_below_their_images():
    images = np.zeros((2, 4, 6))
    ax = plot_image_grid(images, captions=["1.0\n2.0", "3.0\n4.0"], n_columns=1)
    assert texts(ax) == ["1.0\n2.0", "3.0\n4.0"]
    bottoms, tops = [image.get_extent()[2] for image in ax.images], [image.get_extent()[3] for image in ax.images]
    places = [text.get_position()[1] for text in ax.texts]
    assert bottoms[0] < places[0] < tops[1] < bottoms[1] < places[1] < ax.get_ylim()[0]


def test_classes_stand_side_by_side():
    values = {"none": [1.0, 2.0, 5.0], "noise": [2.0, 4.0, np.nan]}
    ax = plot_sit_classes(values, ["10", "9", "9"], yscale="log")
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["9", "10"]
    means = [line.get_ydata().tolist() for line in ax.lines]
    assert means == [[3.5, 1.0], [4.0, 2.0]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["none", "noise"]


@pytest.mark.parametrize("images", [np.zeros((2, 3, 3)), np.ones((1, 3, 3, 3), bool), np.zeros((12, 2, 2, 1))])
def test_grid_of_flat_colour_and_many_images(images):
    assert len(plot_image_grid(images).images) == len(images)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"images": np.zeros((3, 4))}, r"images must be .* got shape \(3, 4\)"),
        ({"images": np.zeros((3, 2, 2, 2))}, "images must be"),
        ({"images": np.zeros((3, 2, 2)), "titles": ["a"]}, "titles must be as many as images, 3, got 1"),
        ({"images": np.zeros((3, 2, 2)), "row_labels": []}, "row_labels must be as many as rows of images, 1, got 0"),
        ({"images": np.zeros((3, 2, 2)), "captions": ["a"]}, "captions must be as many as images, 3, got 1"),
        ({"images": np.zeros((3, 2, 2)), "n_columns": 0}, "n_columns must be"),
    ],
)
def test_grid_refuses(parameters, message):
    with pytest.raises(ValueError, match=message):
        plot_image_grid(**parameters)


def test_pixel_likelihood_shows_bits_below_their_images():
    log_px = -np.log(2) * np.arange(24.0).reshape(2, 3, 4)
    ax = plot_pixel_likelihood(np.zeros((2, 3, 4)), log_px)
    maps = [image.get_array() for image in ax.images[2:]]
    np.testing.assert_allclose(maps, np.arange(24.0).reshape(2, 3, 4))
    colour = plot_pixel_likelihood(np.zeros((1, 3, 4, 3)), np.full((1, 3, 4, 3), -np.log(2)))
    np.testing.assert_allclose(colour.images[1].get_array(), 3)
    with pytest.raises(ValueError, match=r"shape of images, \(2, 3, 4\), got \(2, 3\)"):
        plot_pixel_likelihood(np.zeros((2, 3, 4)), log_px[:, :, 0])


def test_shifts_state_the_mean_and_name_each_scorer_once():
    ax = plot_sit_shifts(
        {"Glow": {"left": [1.0, 2.0], "zero": [-1.0]}, "CNN": {"zero": [0.5, np.nan]}}, xscale="symlog"
    )
    assert texts(ax) == ["+1.50  Glow", "\N{MINUS SIGN}1.00", "+0.50  CNN"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["left", "zero"]
    assert texts(plot_sit_shifts({"Glow": {"left": [1.0]}})) == ["+1.00"]
