"""Odd parameters, arguments, labels and layouts: refused in our words before anything is trained, or taken."""

import datetime
import inspect
import tempfile
import warnings
from functools import cache, partial
from numbers import Real
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pyod.models.knn import KNN
from sit_table import WhiteningFlow
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from smallest_densities import REACHED, SMALL, SMALLEST, Untrained

import flowdetect
from flowdetect import (
    EnsembleDensity,
    Flip,
    FlowOD,
    GlowDensity,
    LikelihoodDetector,
    MAFDensity,
    NeighborsDensity,
    OODDetector,
    PixelCNNDensity,
    RealNVPDensity,
    Translate,
    VAEDensity,
    constant_images,
    ood_report,
    random_images,
    second_order_gap,
    sit_report,
)
from flowdetect._homes import HOMES
from flowdetect.density import _training

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(40, 4))
IMAGES = RNG.integers(0, 256, (40, 8, 8)).astype(np.uint8)
LABELS = np.arange(40) % 2
MIXTURE = GaussianMixture().fit(TABLE)


@pytest.fixture(scope="module")
def fitted():
    made = {name: make().fit(TABLE) for name, make in SMALLEST.items()}
    made["NeighborsDensity"] = NeighborsDensity().fit(TABLE)
    made["EnsembleDensity"] = EnsembleDensity(made["MAFDensity"], 2, random_state=0).fit(TABLE)
    made["detector"] = LikelihoodDetector(GaussianMixture(), random_state=0).fit(TABLE)
    return made


@pytest.fixture
def no_training(fitted, monkeypatch):
    monkeypatch.setattr(_training.Training, "run", lambda *arguments: pytest.fail(REACHED))


def refuse(do, *words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are compared below
        do()
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"


# ---- parameters: each of every class, found by its signature


@cache
def saved_detector():
    path = Path(tempfile.mkdtemp(), "detector.safetensors")
    LikelihoodDetector(MIXTURE, prefit=True).fit(TABLE).save(path)
    return path


def maker(name):
    """Make an object of a public class around whatever it needs."""
    kind = getattr(flowdetect, name)
    needed = {"PyODDetector": {"model": KNN()}, "ZeroLatents": {"flow": WhiteningFlow()}}
    first = {"path": saved_detector()} if name == "Scorer" else needed.get(name, {})
    parameters = inspect.signature(kind).parameters
    if "density" in parameters and not first:
        first = {"density": Untrained()}
    return lambda **changed: kind(**{**first, **changed}), parameters


def numeric_parameters():
    found = []
    for name in (name for name in HOMES if name[0].isupper()):
        for parameter, entry in maker(name)[1].items():
            takes_number = isinstance(entry.default, Real) and not isinstance(entry.default, bool)
            if parameter != "verbose" and (takes_number or parameter in ALSO_NUMBERS):
                found.append((name, parameter))
    return found


ALSO_NUMBERS = {  # whose default is None or a word
    "random_state", "cv", "n_jobs", "time_limit", "max_epochs", "batch_size", "n_levels", "latent_dim", "n_bins",
    "contamination", "background_below",
}  # fmt: skip
NUMERIC = numeric_parameters()
ODD_NUMBERS = {
    "True": True,
    "numpy's True": np.True_,
    "1j": 1j,
    "text": "many",
    "NaN": float("nan"),
    "infinity": float("inf"),
    "a list": [1],
    "an array": np.array([1, 2]),
    "a tensor": torch.tensor([1.0, 2.0]),
}


@pytest.mark.parametrize(("name", "parameter"), NUMERIC)
def test_what_is_no_number_is_refused(name, parameter, no_training):
    make, _ = maker(name)
    silent = []
    for odd, value in ODD_NUMBERS.items():
        try:
            make(**{parameter: value}).fit(TABLE)
        except (ValueError, TypeError) as error:
            is_ours = isinstance(error, ValueError) or "as in pyod" in str(error)  # FlowOD's first argument
            if not is_ours or parameter not in str(error):
                silent.append(f"{odd}: {parameter} is not named in: {error}")
        except Exception as error:
            silent.append(f"{odd}: a raw {type(error).__name__}: {error}")
        except pytest.fail.Exception:
            silent.append(f"{odd}: {REACHED}")
        else:
            silent.append(f"{odd}: nothing was said")
    assert not "\n".join(silent)


def test_there_are_as_many_as_thought():
    assert len(NUMERIC) >= 120


TOO_LARGE = {
    "n_steps": (GlowDensity, "n_steps", 10**9, "at most 10000"),
    "n_steps of RealNVP": (RealNVPDensity, "n_steps", 10**30, "at most 10000"),
    "hidden_channels": (GlowDensity, "hidden_channels", 10**8, "at most 65536"),
    "a wide Glow": (GlowDensity, "hidden_channels", 2**16, "parameters", "memory", "hidden_channels"),
    "a wide RealNVP": (RealNVPDensity, "hidden_channels", 2**16, "parameters", "memory"),
    "a wide PixelCNN": (PixelCNNDensity, "n_filters", 2**16, "parameters", "memory"),
    "a wide MAF": (MAFDensity, "hidden_features", (2**16, 2**16), "parameters", "memory"),
    "a wide VAE": (VAEDensity, "hidden_channels", 2**16, "parameters", "memory"),
    "n_filters": (PixelCNNDensity, "n_filters", 10**9, "at most 65536"),
    "n_mixtures": (PixelCNNDensity, "n_mixtures", 10**9, "at most 65536"),
    "n_blocks": (PixelCNNDensity, "n_blocks", 10**9, "at most 10000"),
    "n_transforms": (MAFDensity, "n_transforms", 10**9, "at most 10000"),
    "hidden_features": (MAFDensity, "hidden_features", (10**9,), "from 1 to 65536"),
    "latent_dim": (VAEDensity, "latent_dim", 10**9, "at most 65536"),
    "n_draws": (VAEDensity, "n_draws", 10**9, "at most 10000"),
    "n_levels": (GlowDensity, "n_levels", 50, "8x8 allow 3 level(s)", "smaller n_levels"),
    "absurd n_levels": (GlowDensity, "n_levels", 10**30, "at most 64"),
    "max_epochs": (GlowDensity, "max_epochs", 10**30, "at most 9223372036854775807", "31 characters|10000000"),
    "n_devices": (GlowDensity, "n_devices", 10**9, "at most 10000"),
    "learning_rate": (GlowDensity, "learning_rate", 10**400, "learning_rate"),
}


@pytest.mark.parametrize("case", TOO_LARGE.values(), ids=TOO_LARGE)
def test_what_no_machine_could_do_is_refused(case, no_training):
    kind, name, value, *words = case
    refuse(lambda: kind(**{name: value}).fit(IMAGES), *(word.split("|")[-1] for word in words))


@pytest.mark.parametrize(
    "changed", [{"batch_size": 10**12}, {"max_epochs": 10**12, "time_limit": 0.2}, {"n_draws": 64}]
)
def test_what_is_large_and_works(changed):
    density = GlowDensity(**{"n_steps": 1, "hidden_channels": 4, **SMALL, **changed}).fit(TABLE)
    assert np.isfinite(density.score_samples(TABLE)).all()


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint16])
def test_numbers_of_numpy_are_numbers(kind):
    density = GlowDensity(
        n_steps=kind(1),
        hidden_channels=kind(4),
        max_epochs=kind(1),
        learning_rate=np.float32(1e-3),
        random_state=kind(0),
    )
    expected = GlowDensity(
        n_steps=1, hidden_channels=4, max_epochs=1, learning_rate=float(np.float32(1e-3)), random_state=0
    )
    np.testing.assert_array_equal(density.fit(TABLE).score_samples(TABLE), expected.fit(TABLE).score_samples(TABLE))


def test_more_neighbours_than_rows_are_cut():
    found, cut = (NeighborsDensity(n).fit(TABLE).score_samples(TABLE) for n in ((1, 10**30), (1, len(TABLE) - 1)))
    np.testing.assert_array_equal(found, cut)


# ---- arguments of methods and functions

COUNTS = {
    "sample": ("n_samples", lambda f, n: f["MAFDensity"].sample(n)),
    "sample of neighbours": ("n_samples", lambda f, n: f["NeighborsDensity"].sample(n)),
    "sample of an ensemble": ("n_samples", lambda f, n: f["EnsembleDensity"].sample(n)),
    "test_batch": ("n_bootstrap", lambda f, n: f["detector"].test_batch(TABLE, n_bootstrap=n)),
    "ood_report": ("n_bootstrap", lambda f, n: ood_report([MIXTURE], TABLE, {"out": TABLE}, n_bootstrap=n)),
    "sit_report": ("n_bootstrap", lambda f, n: sit_report([MIXTURE], TABLE, [Translate(dx=1)], n_bootstrap=n)),
    "constant_images": ("n_images", lambda f, n: constant_images(n, (2, 2))),
    "random_images": ("n_images", lambda f, n: random_images(n, (2, 2))),
    "regret": ("n_steps", lambda f, n: f["VAEDensity"].likelihood_regret(TABLE, n_steps=n)),
}
SEEDS = {
    "sample": lambda f, seed: f["MAFDensity"].sample(random_state=seed),
    "sample of neighbours": lambda f, seed: f["NeighborsDensity"].sample(random_state=seed),
    "sample of an ensemble": lambda f, seed: f["EnsembleDensity"].sample(random_state=seed),
    "test_batch": lambda f, seed: f["detector"].test_batch(TABLE, random_state=seed),
    "ood_report": lambda f, seed: ood_report([MIXTURE], TABLE, {"out": TABLE}, random_state=seed),
    "sit_report": lambda f, seed: sit_report([MIXTURE], TABLE, [Translate(dx=1)], random_state=seed),
    "second_order_gap": lambda f, seed: second_order_gap(f["MAFDensity"], TABLE, TABLE, random_state=seed),
    "constant_images": lambda f, seed: constant_images(3, (2, 2), random_state=seed),
    "random_images": lambda f, seed: random_images(3, (2, 2), random_state=seed),
}
REALS = {
    "temperature": lambda f, x: f["MAFDensity"].sample(temperature=x),
    "temperature of an ensemble": lambda f, x: f["EnsembleDensity"].sample(temperature=x),
    "fdr": lambda f, x: f["detector"].select(TABLE, x),
    "alpha": lambda f, x: f["detector"].test_batch(TABLE, alpha=x),
    "share": lambda f, x: f["NeighborsDensity"].tight_group(x),
    "learning_rate": lambda f, x: f["VAEDensity"].likelihood_regret(TABLE, n_steps=1, learning_rate=x),
}


@pytest.mark.parametrize(
    "value", [True, np.True_, 0, -1, 2.5, float("nan"), float("inf"), "many", 1j, 10**9, 10**30, None]
)
@pytest.mark.parametrize("case", COUNTS.values(), ids=COUNTS)
def test_counts(fitted, case, value):
    name, ask = case
    refuse(lambda: ask(fitted, value), name)


@pytest.mark.parametrize("value", [True, np.True_, -1, 2.5, float("nan"), "seed", 1j, 10**30, [1, 2]])
@pytest.mark.parametrize("ask", SEEDS.values(), ids=SEEDS)
def test_seeds(fitted, ask, value):
    refuse(lambda: ask(fitted, value), "random_state", "0..2**32 - 1")


@pytest.mark.parametrize("value", [True, np.True_, -1, float("nan"), float("inf"), "hot", 1j, 10**400, None])
@pytest.mark.parametrize("name", REALS)
def test_reals(fitted, name, value):
    refuse(lambda: REALS[name](fitted, value), name.split()[0])


# ---- labels

TEXT = np.array(["a", "b"])[LABELS]
DAYS = np.datetime64("2024-01-01") + LABELS
REFUSED_LABELS = {
    "bytes": (lambda: TEXT.astype("S"), "bytes", "file", "y.astype(str)"),
    "bytes as objects": (lambda: TEXT.astype("S").astype(object), "bytes", "file", "y.astype(str)"),
    "dates": (lambda: DAYS, "datetime64", "file", "np.unique"),
    "durations": (lambda: DAYS - DAYS[0], "timedelta64", "file", "np.unique"),
    "date objects": (lambda: [datetime.date(2024, 1, 1)] * 40, "date", "file", "np.unique"),
    "time stamps": (lambda: pd.Series(pd.to_datetime(DAYS)), "datetime64", "file"),
    "periods": (lambda: pd.Series(pd.PeriodIndex(DAYS, freq="D")), "Period", "file"),
    "complex": (lambda: LABELS + 1j, "1d array of numbers or text", "complex128"),
    "long doubles": (lambda: LABELS.astype(np.longdouble), "longdouble", "file"),
    "whole numbers beyond 64 bits": (lambda: [10**30, 1] * 20, "int", "file"),
    "structured": (lambda: np.zeros(40, [("a", int)]), "void", "file"),
    "objects": (lambda: [object()] * 40, "object", "file"),
    "lists": (lambda: [[1], [1, 2]] * 20, "list", "file"),
    "numbers and text": (lambda: np.array([1, "a"] * 20, object), "several types", "the same type"),
    "a list of numbers and text": (lambda: [1, "a"] * 20, "several types", "the same type"),
    "numbers and booleans": (lambda: np.array([1, True] * 20, object), "several types", "the same type"),
    "text and a missing one": (lambda: np.array(["a", None] * 20, object), "several types or None", "every row"),
    "text and NaN": (lambda: np.array(["a", np.nan] * 20, object), "several types", "every row"),
    "None": (lambda: [None] * 40, "None", "every row"),
    "NaN": (lambda: np.where(LABELS, 1.0, np.nan), "NaN", "class names"),
    "infinity": (lambda: np.where(LABELS, 1.0, np.inf), "infinity", "class names"),
    "categories with a missing one": (lambda: pd.Categorical(["a", None] * 20), "several types or None", "every row"),
    "nullable with a missing one": (lambda: pd.array([1, None] * 20, dtype="Int64"), "NaN", "class names"),
    "masked": (lambda: np.ma.masked_array(LABELS, LABELS == 1), "masked", "drop such rows"),
    "two columns": (lambda: TABLE[:, :2], "1d array", "(40, 2)"),
    "one label": (lambda: 3, "1d array", "()", "np.full(n_rows, y)"),
    "a set": (lambda: {1, 2}, "1d array", "set", "np.array(list(y))"),
    "a mapping": (lambda: {0: 1}, "1d array", "dict"),
    "a generator": (lambda: (label for label in LABELS), "1d array", "generator"),
    "too few": (lambda: LABELS[:5], "one label per row", "40", "5"),
    "none at all": (lambda: [], "one label per row", "40", "0"),
}
TAKEN_LABELS = {
    "bytes-wide": LABELS.astype(np.uint8),
    "booleans": LABELS == 1,
    "floats": LABELS.astype(np.float32),
    "text": TEXT,
    "a list of text": TEXT.tolist(),
    "text of numpy beside text": [np.str_("a"), "b"] * 20,
    "whole numbers of numpy beside others": [0, np.int64(1)] * 20,
    "objects": TEXT.astype(object),
    "categories": pd.Series(pd.Categorical(TEXT)),
    "nullable": pd.array(LABELS, dtype="Int64"),
    "pandas' text": pd.Series(TEXT, dtype="string"),
    "a tensor": torch.from_numpy(LABELS),
    "a tensor in bfloat16": torch.from_numpy(LABELS).bfloat16(),
}


@pytest.mark.parametrize("name", SMALLEST)
def test_labels_that_a_file_cannot_keep_are_refused(name, no_training):
    for make, *words in REFUSED_LABELS.values():
        refuse(lambda make=make: SMALLEST[name](conditional=True).fit(TABLE, make()), name, *words)


@pytest.mark.parametrize("case", REFUSED_LABELS.values(), ids=REFUSED_LABELS)
def test_labels_through_an_ensemble(case, no_training):
    make, *words = case
    refuse(lambda: EnsembleDensity(SMALLEST["MAFDensity"](conditional=True), 2).fit(TABLE, make()), *words)


@pytest.mark.parametrize("name", TAKEN_LABELS)
def test_labels_that_are_taken_are_kept_by_files(name, tmp_path):
    labels = TAKEN_LABELS[name]
    density = SMALLEST["MAFDensity"](conditional=True).fit(TABLE, labels)
    density.save(tmp_path / "density")
    loaded = flowdetect.load(tmp_path / "density")
    np.testing.assert_array_equal(loaded.classes_, density.classes_)
    np.testing.assert_array_equal(loaded.score_samples(TABLE, labels), density.score_samples(TABLE, labels))
    expected = SMALLEST["MAFDensity"](conditional=True).fit(TABLE, LABELS)
    np.testing.assert_array_equal(density.score_samples(TABLE, labels), expected.score_samples(TABLE, LABELS))


# ---- layouts

BAND = RNG.normal(size=(40, 3, 3, 13))
COLOUR = RNG.integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
LAYOUTS = {
    "channel-first with its image_shape": (
        COLOUR.transpose(0, 3, 1, 2),
        (8, 8, 3),
        "channel-first",
        "transpose(0, 2, 3, 1)",
    ),
    "gray channel first": (IMAGES[:, None], None, "channel-first", "transpose(0, 2, 3, 1)"),
    "channels of a kind that looks first": (BAND, None, "channel-first", "image_shape=(3, 3, 13)"),
    "five channels first": (BAND.transpose(0, 3, 1, 2), (3, 3, 13), "disagrees", "X.transpose(0, 2, 3, 1)"),
    "one gray image": (IMAGES[0], (8, 8), "64 values", "8 columns", "X[None]"),
    "one colour image": (COLOUR[0], (8, 8, 3), "disagrees", "X[None]"),
    "another size": (IMAGES, (4, 16), "disagrees", "correct image_shape"),
    "rows of another length": (IMAGES.reshape(40, 64), (7, 8), "56 values", "64 columns", "correct image_shape"),
    "torch, channels last": (torch.from_numpy(IMAGES[..., None]), None, "channel-last", "permute(0, 3, 1, 2)"),
    "torch, colours last": (torch.from_numpy(COLOUR), (8, 8, 3), "channel-last", "permute(0, 3, 1, 2)"),
    "torch without channels": (torch.from_numpy(IMAGES), (8, 8), "(n, channels, height, width)", "X[:, None]"),
    "no shape": (IMAGES, 64, "(height, width)", "64"),
    "a shape of booleans": (IMAGES, (True, 8), "(height, width)", "True"),
    "a shape of text": (IMAGES, "8x8", "(height, width)", "'8x8'"),
    "a shape of four": (IMAGES, (1, 8, 8, 1), "(height, width)", "(1, 8, 8, 1)"),
    "a negative side": (IMAGES, (-8, 8), "(height, width)", "-8"),
}
WITH_SHAPES = {
    "GlowDensity": lambda shape: GlowDensity(image_shape=shape),
    "PixelCNNDensity": lambda shape: PixelCNNDensity(image_shape=shape),
    "VAEDensity": lambda shape: VAEDensity(image_shape=shape),
    "OODDetector": lambda shape: OODDetector(image_shape=shape),
    "FlowOD": lambda shape: FlowOD(image_shape=shape),
    "Translate": lambda shape: Translate(dx=1, image_shape=shape),
    "Flip": lambda shape: Flip(image_shape=shape),
}


@pytest.mark.parametrize("name", WITH_SHAPES)
def test_layouts(name, no_training):
    for X, shape, *words in LAYOUTS.values():
        refuse(lambda X=X, shape=shape: WITH_SHAPES[name](shape).fit(X), *words)


@pytest.mark.parametrize("shape", [(3, 3, 13), [3, 3, 13]])
def test_the_shape_given_tells_channels_last(shape):
    density = SMALLEST["MAFDensity"](image_shape=shape).fit(BAND)
    assert density.image_shape_ == (3, 3, 13)
    rows = SMALLEST["MAFDensity"](image_shape=shape).fit(BAND.reshape(40, -1))
    np.testing.assert_array_equal(density.score_samples(BAND), rows.score_samples(BAND.reshape(40, -1)))


def test_the_shape_given_tells_torch_channels_first():
    tensor = torch.from_numpy(RNG.normal(size=(40, 5, 4, 1)))
    density = SMALLEST["MAFDensity"](image_shape=(4, 1, 5)).fit(tensor)
    assert np.isfinite(density.score_samples(tensor)).all()


def test_a_shape_with_channels_first_gets_a_hint():
    X = RNG.normal(size=(30, 3 * 8 * 8))
    for make in (SMALLEST["MAFDensity"], partial(Translate, dx=1)):
        with pytest.warns(UserWarning, match=r"transpose\(0, 2, 3, 1\), whose image_shape is \(8, 8, 3\)"):
            make(image_shape=(3, 8, 8)).fit(X)
    with warnings.catch_warnings(action="error"):
        SMALLEST["MAFDensity"](image_shape=(3, 3, 13)).fit(BAND)


# ---- what nothing was said of


def test_an_unconditional_density_draws_of_no_class(fitted):
    for name in SMALLEST:
        refuse(lambda name=name: fitted[name].sample(4, y=[0, 1, 0, 1]), name, "conditional=False", "conditional=True")


def test_a_search_of_detectors_has_a_score():
    search = GridSearchCV(OODDetector(random_state=0), {"contamination": [0.1, 0.2]}, cv=2).fit(TABLE)
    assert np.isfinite(search.best_score_)


def test_a_density_in_the_place_of_pyods_contamination():
    with pytest.raises(TypeError, match=r"first argument of FlowOD is contamination.*FlowOD\(density=...\)"):
        FlowOD(RealNVPDensity())
    with pytest.raises(ValueError, match="contamination"):
        FlowOD(contamination=True).fit(TABLE)


@pytest.mark.parametrize("kind", [GlowDensity, RealNVPDensity])
def test_images_of_odd_sides(kind, no_training):
    refuse(lambda: kind().fit(np.zeros((30, 29, 31), np.uint8)), "29x31", "must be even", "30x32", "PixelCNNDensity")
