"""Bad inputs: each is refused before training starts, by a message that names the rule, the value and the remedy."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

import flowdetect
from flowdetect import GlowDensity, PixelCNNDensity, _tensor_file
from flowdetect.density import _training

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(30, 3))
IMAGES = RNG.integers(0, 17, size=(30, 8, 8))
COLOUR = RNG.integers(0, 256, size=(30, 8, 8, 3))
LABELS = np.arange(30) % 3
SMALL = {"n_steps": 1, "hidden_channels": 8, "max_epochs": 1, "random_state": 0}


def fit(X, y=None, **parameters):
    return GlowDensity(**{**SMALL, **parameters}).fit(X, y)


def fit_bins(X, **parameters):
    return fit(X, **{"n_bins": 17, **parameters})


def put(X, place, value):
    changed = np.array(X, dtype=float)
    changed.flat[place] = value
    return changed


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """What exists before the mistake: fitted densities, and files of every kind."""
    folder = tmp_path_factory.mktemp("files")
    checkpoint = folder / "checkpoint"
    table = fit(TABLE)
    classes = fit(TABLE, LABELS, conditional=True, checkpoint=checkpoint)
    table.save(folder / "saved")
    content = checkpoint.read_bytes()
    (folder / "truncated").write_bytes(content[:-9])
    (folder / "corrupt").write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    (folder / "foreign").write_bytes(b"not ours" * 99)
    (folder / "empty").write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_tensor_file, "FORMAT", 99)
        table.save(folder / "newer")
        _tensor_file.write(folder / "newer checkpoint", "checkpoint", {}, {})
    return SimpleNamespace(table=table, images=fit_bins(IMAGES), classes=classes, folder=folder, checkpoint=checkpoint)


DATA = {
    "NaN in a table": (lambda: fit(put(TABLE, 4, np.nan)), "NaN in row 1, column 1", "drop such rows"),
    "NaN in images": (lambda: fit_bins(put(IMAGES, 64, np.nan)), "NaN in row 1, column 0", "drop such rows"),
    "infinity": (lambda: fit(put(TABLE, 7, -np.inf)), "infinity in row 2, column 1", "drop such rows"),
    "no rows": (lambda: fit(TABLE[:0]), "0 sample", "minimum of 2"),
    "no images": (lambda: fit_bins(IMAGES[:0]), "0 sample", "minimum of 2"),
    "one row": (lambda: fit(TABLE[:1]), "1 sample", "minimum of 2"),
    "no columns": (lambda: fit(TABLE[:, :0]), "0 feature", "minimum of 1"),
    "one axis": (lambda: fit(TABLE[:, 0]), "1D array", "reshape(-1, 1)"),
    "five axes": (lambda: fit(np.zeros((4, 2, 2, 2, 2))), "dim 5", "dim <= 2"),
    "text": (lambda: fit(np.array([["a", "b"]] * 9)), "strings", "numeric values"),
    "a list of images": (lambda: fit(list(IMAGES)), "list", "np.stack"),
    "real values to a logit": (lambda: fit(TABLE, preprocessing="logit"), "real-valued", '"linear"'),
    "real images to gaussianize": (
        lambda: fit(RNG.normal(size=(30, 4, 4)), preprocessing="gaussianize"),
        "real-valued",
        '"linear"',
    ),
    "constant table": (lambda: fit(np.ones((30, 3))), "all 3 columns", "constant", "vary"),
    "constant real images": (lambda: fit(np.full((30, 4, 4), 0.5)), "constant", "n_bins"),
    "beyond float32": (lambda: fit(TABLE * 1e39), "standard deviation", "float32", "StandardScaler"),
    "beyond float64": (lambda: fit(TABLE * 1e300), "float32", "StandardScaler"),
    "below float32": (lambda: fit((TABLE * 40 + 1e9).astype(np.float32)), "mean 1e+09", "float32", "StandardScaler"),
    "below float64": (lambda: fit(TABLE + 1e15), "mean 1e+15", "float64", "StandardScaler"),
    "more bins than resolved": (lambda: fit_bins(IMAGES, n_bins=2**22), "2**20", "4194304", "n_bins=None"),
    "intensities in bins": (lambda: fit_bins(IMAGES / 16), "0.0 to 1.0", "multiply by 16", "n_bins=None"),
    "too large for the bins": (lambda: fit_bins(IMAGES + 1), "0..16", "1 to 17", "n_bins=18"),
    "negative in bins": (lambda: fit_bins(IMAGES - 1), "0..16", "-1 to 15", "clip"),
    "off the grid": (lambda: fit_bins(IMAGES * 0.9), "whole numbers 0..16", "round"),
    "16-bit images": (lambda: fit(IMAGES * 100), "8-bit", "1600", "n_bins=1601"),
    "channel first": (lambda: fit(COLOUR.transpose(0, 3, 1, 2)), "channel-first", "transpose(0, 2, 3, 1)"),
    "torch without channels": (lambda: fit(torch.zeros(30, 8, 8)), "(n, channels, height, width)", "X[:, None]"),
    "row length": (lambda: fit(IMAGES.reshape(30, 64), image_shape=(7, 8)), "56 values", "64 columns"),
    "other image shape": (lambda: fit(IMAGES, image_shape=(4, 16)), "(4, 16)", "(8, 8, 1)", "correct image_shape"),
    "odd height": (lambda: fit_bins(IMAGES[:, :7]), "7x8", "0 level", "pad the images to a multiple of 2"),
    "too many levels": (lambda: fit_bins(IMAGES, n_levels=4), "8x8", "allow 3", "n_levels=4", "multiple of 16"),
}

LABEL_DATA = {
    "missing": (lambda: fit(TABLE, conditional=True), "requires y", "pass class labels"),
    "wrong length": (lambda: fit(TABLE, LABELS[:5], conditional=True), "one label per row", "30", "5"),
    "NaN": (lambda: fit(TABLE, put(LABELS, 3, np.nan), conditional=True), "NaN", "class names"),
    "None": (lambda: fit(TABLE, [None] * 30, conditional=True), "None", "give every row a label"),
    "of two types": (
        lambda: fit(TABLE, np.array(["a", 1] * 15, object), conditional=True),
        "several types",
        "the same type",
    ),
    "two columns": (lambda: fit(TABLE, TABLE[:, :2], conditional=True), "1d array", "(30, 2)"),
    "one number": (lambda: fit(TABLE, 3, conditional=True), "1d array", "np.full(n_rows, y)"),
}

OPTIONS = {
    "n_steps": (0, "range [1, inf)", "0"),
    "hidden_channels": (-1, "range [1, inf)", "-1"),
    "n_levels": ("many", "'auto'", "'many'"),
    "coupling": ("spline", "'additive'", "'spline'"),
    "permutation": ("lu", "'conv1x1'", "'lu'"),
    "scale": ("tanh", "'sigmoid'", "'tanh'"),
    "split_prior": ("none", "'learned'", "'none'"),
    "n_draws": (0, "range [1, inf)", "0"),
    "factorization": ("first", "'likelihood'", "'first'"),
    "pretraining": (1.0, "range (0.0, 1.0)", "1.0"),
    "dequantization": ("normal", "'variational'", "'normal'"),
    "logit_range": ((0.9, 0.1), "0.9", "0.1"),
    "preprocessing": ("logarithm", "'gaussianize'", "'logarithm'"),
    "image_shape": (64, "(height, width)", "64"),
    "n_bins": (1, "whole number >= 2", "1"),
    "conditional": ("yes", "bool", "'yes'"),
    "memory_efficient": ("yes", "bool", "'yes'"),
    "max_epochs": ("long", "'auto'", "'long'"),
    "time_limit": (True, "seconds > 0", "True", "time_limit=600"),
    "batch_size": (2.5, "range [1, inf)", "2.5"),
    "learning_rate": (0.0, "range (0.0, inf)", "0.0"),
    "weight_decay": (-1, "range [0.0, inf)", "-1"),
    "early_stopping": ("yes", "bool", "'yes'"),
    "validation_fraction": (1.0, "range (0.0, 1.0)", "1.0"),
    "n_iter_no_change": (0, "range [1, inf)", "0"),
    "tol": (-1e-3, "range [0.0, inf)", "-0.001"),
    "warm_start": ("yes", "bool", "'yes'"),
    "verbose": ("loud", "bool", "'loud'"),
    "random_state": ("seed", "RandomState", "'seed'"),
    "device": ("abacus", "cannot be used here", '"cpu"'),
    "precision": ("float16", "'bfloat16'", "'float16'"),
    "n_devices": (0, "range [1, inf)", "0"),
    "checkpoint": (3.5, "path or None", "3.5"),
}

PIXELCNN_OPTIONS = {
    "variant": ("pixelrnn", "'gated'", "'pixelrnn'"),
    "likelihood": ("normal", "'categorical'", "'normal'"),
    "n_filters": (0, "range [1, inf)", "0"),
    "n_blocks": (1.5, "range [1, inf)", "1.5"),
    "n_mixtures": (0, "range [1, inf)", "0"),
    "dropout": (1, "range [0.0, 1.0)", "1"),
    "label_streams": ("vertical", "'both'", "'vertical'"),
    "shortcuts": ("none", "'blocks'", "'none'"),
}

CHECKPOINTS = {
    "foreign": (ValueError, "not a flowdetect file"),
    "empty": (ValueError, "not a flowdetect file", "is incomplete"),
    "truncated": (ValueError, "is incomplete"),
    "corrupt": (ValueError, "corrupt", "checksum"),
    "newer": (ValueError, "format 99", "Update flowdetect"),
    "newer checkpoint": (ValueError, "format 99", "Update flowdetect"),
    "saved": (ValueError, "holds a flowdetect estimator", "choose another file"),
    "no folder/checkpoint": (OSError, "cannot be written", "folder"),
    "foreign/checkpoint": (OSError, "cannot be written", "folder"),
}

OTHER_TRAININGS = {
    "X": (lambda path: fit(TABLE + 1, LABELS, conditional=True, checkpoint=path), "differs in X."),
    "y": (lambda path: fit(TABLE, 2 - LABELS, conditional=True, checkpoint=path), "differs in y."),
    "class names": (lambda path: fit(TABLE, LABELS + 5, conditional=True, checkpoint=path), "differs in y."),
    "a parameter": (
        lambda path: fit(TABLE, LABELS, conditional=True, checkpoint=path, hidden_channels=9),
        "hidden_channels: 8 in the file, 9 now",
    ),
    "the seed": (
        lambda path: fit(TABLE, LABELS, conditional=True, checkpoint=path, random_state=1),
        "random_state: 0 in the file, 1 now",
    ),
}

AFTERWARDS = {
    "unfitted": (lambda s: GlowDensity().score_samples(TABLE), NotFittedError, "not fitted", "Call 'fit'"),
    "unfitted sample": (lambda s: GlowDensity().sample(), NotFittedError, "not fitted", "Call 'fit'"),
    "wrong columns": (lambda s: s.table.score_samples(TABLE[:, :2]), ValueError, "2 features", "expecting 3"),
    "wrong row length": (lambda s: s.images.score_samples(TABLE), ValueError, "64 values", "3 columns"),
    "wrong image size": (lambda s: s.images.transform(IMAGES[:, :4]), ValueError, "(8, 8, 1)", "(30, 4, 8)"),
    "NaN": (lambda s: s.table.score_samples(put(TABLE, 4, np.nan)), ValueError, "NaN in row 1", "drop such rows"),
    "infinity": (lambda s: s.table.transform(put(TABLE, 4, np.inf)), ValueError, "infinity in row 1", "drop such rows"),
    "beyond reach": (
        lambda s: s.images.score_samples(put(IMAGES, 70, 35)),
        ValueError,
        "-17 to 33",
        "35.0 in row 1",
        "clip",
    ),
    "below reach": (lambda s: s.images.transform(put(IMAGES, 70, -18)), ValueError, "-17 to 33", "-18.0 in row 1"),
    "far away": (lambda s: s.table.score_samples(put(TABLE, 4, 1e30)), ValueError, "row 1 is not finite", "too far"),
    "unseen label": (lambda s: s.classes.score_samples(TABLE, LABELS + 2), ValueError, "[3, 4]", "[0, 1, 2]"),
    "label of another type": (lambda s: s.classes.transform(TABLE, ["0"] * 30), ValueError, "['0']", "[0, 1, 2]"),
    "labels too few": (lambda s: s.classes.bits_per_dim(TABLE, [1]), ValueError, "one label per row", "30", "1"),
    "latents' width": (lambda s: s.table.inverse_transform(TABLE[:, :2]), ValueError, "3 columns", "got 2"),
    "NaN in latents": (lambda s: s.table.inverse_transform(put(TABLE, 1, np.nan)), ValueError, "Z contains NaN"),
    "inverse without y": (lambda s: s.classes.inverse_transform(TABLE), ValueError, "needs y", "class labels"),
    "no samples": (lambda s: s.table.sample(0), ValueError, "n_samples", ">= 1", "0"),
    "half a sample": (lambda s: s.table.sample(2.5), ValueError, "n_samples", "whole number", "2.5"),
    "negative temperature": (lambda s: s.table.sample(temperature=-1), ValueError, "temperature", ">= 0", "-1"),
    "NaN temperature": (lambda s: s.table.sample(temperature=np.nan), ValueError, "temperature", "finite", "nan"),
    "labels of samples": (lambda s: s.classes.sample(3, y=[0, 1]), ValueError, "one label per row", "3", "2"),
    "unseen label of samples": (lambda s: s.classes.sample(1, y=[7]), ValueError, "[7]", "[0, 1, 2]"),
    "seed of samples": (lambda s: s.table.sample(random_state="seed"), ValueError, "random_state", "'seed'"),
    "negative seed": (lambda s: s.classes.sample(random_state=-1), ValueError, "random_state", "whole number", "-1"),
    "curvature of many": (lambda s: s.table.curvature(TABLE), ValueError, "one row", "got 30", "call it once per row"),
    "load nothing": (lambda s: flowdetect.load(s.folder / "none"), FileNotFoundError, "No such file"),
    "load a checkpoint": (lambda s: flowdetect.load(s.checkpoint), ValueError, "holds a flowdetect checkpoint"),
    "load newer": (lambda s: flowdetect.load(s.folder / "newer"), ValueError, "format 99", "Update flowdetect"),
    "save nowhere": (lambda s: s.table.save(s.folder / "no" / "file"), OSError, "folder does not exist"),
    "save on a folder": (lambda s: s.table.save(s.folder), OSError, "directory"),
}


@pytest.fixture(autouse=True)
def no_training(there, monkeypatch):
    def run(*arguments):
        pytest.fail("training was reached")

    monkeypatch.setattr(_training.Training, "run", run)


def refuse(do, error, words):
    with pytest.raises(error) as caught:
        do()
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"


@pytest.mark.parametrize("case", DATA.values(), ids=DATA)
def test_data(case):
    refuse(case[0], ValueError, case[1:])


@pytest.mark.parametrize("case", LABEL_DATA.values(), ids=LABEL_DATA)
def test_labels(case):
    refuse(case[0], ValueError, case[1:])


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name):
    value, *words = OPTIONS[name]
    refuse(lambda: fit(TABLE, **{name: value}), ValueError, [name, *words])


def test_every_option_is_tried():
    assert set(OPTIONS) == set(GlowDensity().get_params())
    shared = set(OPTIONS) & set(PixelCNNDensity().get_params())
    assert set(PIXELCNN_OPTIONS) | shared == set(PixelCNNDensity().get_params())


@pytest.mark.parametrize("name", PIXELCNN_OPTIONS)
def test_pixelcnn_options(name):
    value, *words = PIXELCNN_OPTIONS[name]
    refuse(lambda: PixelCNNDensity(**{name: value}).fit(TABLE), ValueError, [name, *words])


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints(there, name):
    error, *words = CHECKPOINTS[name]
    refuse(lambda: fit(TABLE, checkpoint=there.folder / name), error, words)


@pytest.mark.parametrize("case", OTHER_TRAININGS.values(), ids=OTHER_TRAININGS)
def test_checkpoints_of_other_trainings(there, case):
    refuse(lambda: case[0](there.checkpoint), ValueError, [*case[1:], "belongs to another training", "Restore"])


def test_a_finished_checkpoint_is_restored_without_training(there, monkeypatch):
    monkeypatch.undo()
    restored = fit(TABLE, LABELS, conditional=True, checkpoint=there.checkpoint)
    np.testing.assert_array_equal(restored.score_samples(TABLE), there.classes.score_samples(TABLE))


@pytest.mark.parametrize("case", AFTERWARDS.values(), ids=AFTERWARDS)
def test_after_fitting(there, case):
    refuse(lambda: case[0](there), case[1], case[2:])


def test_warm_start_with_another_width(there):
    density = copy.deepcopy(there.table).set_params(warm_start=True)
    refuse(lambda: density.fit(TABLE[:, :2]), ValueError, ["warm_start", "clone"])


def test_a_refused_fit_leaves_the_fitted_density_as_it_was(there):
    density = copy.deepcopy(there.table)
    scores = density.score_samples(TABLE)
    with pytest.raises(ValueError, match="all 2 columns"):
        density.fit(np.ones((30, 2)))
    np.testing.assert_array_equal(density.score_samples(TABLE), scores)
    unfitted = GlowDensity()
    with pytest.raises(ValueError, match="all 2 columns"):
        unfitted.fit(np.ones((30, 2)))
    assert not [name for name in vars(unfitted) if name.endswith("_")]
