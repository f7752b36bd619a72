"""Datasets of other libraries are fitted and scored as the arrays they hold."""

from functools import partial

import numpy as np
import pytest

from flowdetect import GlowDensity, LikelihoodDetector, RealNVPDensity, load_images, ood_report

DIGITS, LABELS = load_images("digits")
DIGITS, LABELS = DIGITS[:200], LABELS[:200]
TABLE = np.random.default_rng(0).normal(size=(300, 3))
SMALL = {"n_steps": 1, "hidden_channels": 8, "max_epochs": 1, "random_state": 0}


def same_scores(make, X, source, y=None):
    expected, found = make().fit(X, y), make().fit(source)
    np.testing.assert_array_equal(found.score_samples(source), expected.score_samples(X))
    return found


def test_pictures_of_hugging_face_bring_their_labels():
    datasets = pytest.importorskip("datasets")
    image = pytest.importorskip("PIL.Image")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=[str(i) for i in range(10)])}
    )
    pictures = [image.fromarray(digit) for digit in DIGITS]
    dataset = datasets.Dataset.from_dict({"image": pictures, "label": LABELS}, features=features)
    density = same_scores(lambda: GlowDensity(n_bins=17, conditional=True, **SMALL), DIGITS, dataset, LABELS)
    assert density.image_shape_ == (8, 8, 1)
    assert density.classes_.tolist() == list(range(10))
    torch_format = dataset.with_format("torch")
    np.testing.assert_array_equal(density.score_samples(torch_format), density.score_samples(DIGITS))


def test_columns_of_hugging_face_are_a_table():
    datasets = pytest.importorskip("datasets")
    columns = {name: TABLE[:, i] for i, name in enumerate("abc")}
    dataset = datasets.Dataset.from_dict({**columns, "text": ["a row"] * 300, "label": [0, 1] * 150})
    detector = same_scores(partial(LikelihoodDetector, RealNVPDensity(**SMALL), random_state=0), TABLE, dataset)
    assert detector.feature_names_in_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match=r"missing are \['c'\]"):
        detector.score_samples(dataset.rename_column("c", "d"))


@pytest.mark.parametrize("kind", ["zarr", "h5py"])
def test_arrays_in_files(kind, tmp_path):
    library = pytest.importorskip(kind)
    if kind == "zarr":
        stored = library.open(str(tmp_path / "X.zarr"), mode="w", shape=DIGITS.shape, chunks=(32, 8, 8), dtype="uint8")
        stored[:] = DIGITS
    else:
        stored = library.File(tmp_path / "X.h5", "w").create_dataset("X", data=DIGITS)
    make = partial(LikelihoodDetector, GlowDensity(n_bins=17, **SMALL), random_state=0)
    detector = same_scores(make, DIGITS, stored)
    report = ood_report([detector], stored, {"reversed": 16 - DIGITS}, n_bootstrap=10)
    assert np.isfinite(report.to_frame().auroc).all()
