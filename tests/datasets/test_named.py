import os
import random
from urllib.error import URLError

import numpy as np
import pytest
from sklearn.utils import Bunch

from flowdetect import constant_images, load_images, random_images
from flowdetect.datasets import named

OPENML_IDS = {"cifar10": 40927, "fashion_mnist": 40996, "kmnist": 41982, "mnist": 554}
N_TRAIN = {"cifar10": 50_000, "fashion_mnist": 60_000, "kmnist": 60_000, "mnist": 60_000}


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    """No folder and no network, unless a test says otherwise."""

    def refuse(**kwargs):
        raise URLError("no network in tests")

    monkeypatch.delenv("FLOWDETECT_DATA", raising=False)
    monkeypatch.setattr(named, "fetch_openml", refuse)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWDETECT_DATA", str(tmp_path))
    return tmp_path


def images(n, shape=(28, 28), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


# scikit-learn's digits


def test_digits_splits_are_whole_disjoint_and_balanced():
    X_train, y_train = load_images("digits")
    X_test, y_test = load_images("digits", split="test")
    assert X_train.shape == (1297, 8, 8)
    assert X_test.shape == (500, 8, 8)
    assert np.bincount(y_test).tolist() == [50] * 10

    both = np.concatenate([X_train, X_test]).reshape(1797, 64)
    everything = named.load_digits().data.astype(np.uint8)
    assert sorted(map(bytes, both)) == sorted(map(bytes, everything))


def test_digits_are_the_same_every_time_and_labelled_right():
    X, y = load_images("digits", split="test")
    again, _ = load_images("digits", split="test")
    np.testing.assert_array_equal(X, again)

    digits = named.load_digits()
    labels = {bytes(image.astype(np.uint8)): label for image, label in zip(digits.images, digits.target, strict=True)}
    assert [labels[bytes(image)] for image in X] == y.tolist()


def test_digits_types():
    X, y = load_images("digits")
    assert (X.dtype, y.dtype) == (np.uint8, np.int64)
    assert X.flags.c_contiguous
    assert (X.min(), X.max()) == (0, 16)


def test_digits_have_no_val():
    with pytest.raises(ValueError, match="'digits' has no split 'val'; it has 'train', 'test'"):
        load_images("digits", split="val")


def test_bunch_names_its_source():
    bunch = load_images("digits", return_X_y=False)
    assert isinstance(bunch, Bunch)
    assert bunch.data.shape == (1297, 8, 8)
    assert bunch.target.shape == (1297,)
    assert "train split, from scikit-learn" in bunch.DESCR


# Names and splits


def test_unknown_name_lists_the_names():
    with pytest.raises(ValueError, match="'imagenet'.*'cifar10', 'digits', 'fashion_mnist', 'kmnist', 'mnist', 'svhn'"):
        load_images("imagenet")


def test_unknown_split_lists_the_splits():
    with pytest.raises(ValueError, match="'valid'; the splits are 'train', 'test', 'val'"):
        load_images("mnist", split="valid")


# A folder of archives


@pytest.mark.parametrize("split", ["train", "test", "val"])
def test_folder_gives_what_it_holds(folder, split):
    arrays = {f"X_{s}": images(5, seed=i) for i, s in enumerate(("train", "test", "val"))}
    labels = {f"y_{s}": np.arange(5) + i for i, s in enumerate(("train", "test", "val"))}
    np.savez_compressed(folder / "mnist.npz", **arrays, **labels)

    X, y = load_images("mnist", split=split)
    np.testing.assert_array_equal(X, arrays[f"X_{split}"])
    np.testing.assert_array_equal(y, labels[f"y_{split}"])

    bunch = load_images("mnist", split=split, return_X_y=False)
    assert bunch.DESCR == f"MNIST, {split} split, from {folder / 'mnist.npz'}"


@pytest.mark.parametrize("name", ["cifar10", "svhn"])
def test_folder_colour(folder, name):
    X_stored = images(4, (32, 32, 3))
    np.savez(folder / f"{name}.npz", X_test=np.asfortranarray(X_stored), y_test=np.arange(4, dtype=np.uint8))
    X, y = load_images(name, split="test")
    np.testing.assert_array_equal(X, X_stored)
    assert X.flags.c_contiguous
    assert y.dtype == np.int64


def test_folder_without_the_split(folder):
    np.savez(folder / "svhn.npz", X_test=images(2, (32, 32, 3)), y_test=np.arange(2))
    with pytest.raises(ValueError, match=r"'svhn' has no split 'train' in .*svhn\.npz; it has 'test'\."):
        load_images("svhn")


def test_folder_does_not_reach_digits(folder):
    (folder / "digits.npz").write_bytes(b"no archive")
    assert load_images("digits")[0].shape == (1297, 8, 8)


GOOD = {"X_train": images(3), "y_train": np.arange(3)}
BAD = {
    "float images": GOOD | {"X_train": images(3) / 255},
    "flat images": GOOD | {"X_train": images(3).reshape(3, -1)},
    "another size": GOOD | {"X_train": images(3, (32, 32))},
    "a channel axis": GOOD | {"X_train": images(3)[..., None]},
    "too few labels": GOOD | {"y_train": np.arange(2)},
    "one-hot labels": GOOD | {"y_train": np.eye(3, dtype=np.int64)},
    "one label": GOOD | {"y_train": np.int64(3)},
    "float labels": GOOD | {"y_train": np.arange(3.0)},
    "no labels": {"X_train": images(3)},
    "no images": {"y_train": np.arange(3)},
    "other names": {"X": images(3), "y": np.arange(3)},
    "nothing": {},
    "objects": GOOD | {"y_train": np.array([0, 1, None], dtype=object)},
}


@pytest.mark.parametrize("arrays", BAD.values(), ids=BAD)
def test_wrong_archive_says_which_and_what(folder, arrays):
    np.savez(folder / "mnist.npz", **arrays)
    with pytest.raises(ValueError, match=r"mnist\.npz.* must hold X_train, uint8 of shape \(n, 28, 28\), and y_train"):
        load_images("mnist")


def test_archives_are_never_unpickled(folder):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(folder / "exploded"),)

    np.savez(folder / "mnist.npz", X_train=images(1), y_train=np.array([Bomb()], dtype=object))
    with pytest.raises(ValueError, match="mnist.npz cannot be read"):
        load_images("mnist")
    assert not (folder / "exploded").exists()


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut short"])
def test_file_that_is_no_archive(folder, content):
    (folder / "mnist.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"mnist\.npz cannot be read .* must hold X_train"):
        load_images("mnist")


def test_array_file_that_is_no_archive(folder):
    with (folder / "mnist.npz").open("wb") as file:
        np.save(file, images(3))
    with pytest.raises(ValueError, match=r"cannot be read \(not an \.npz archive\)"):
        load_images("mnist")


def test_damaged_archive_is_an_error_or_unharmed(folder):
    np.savez_compressed(folder / "mnist.npz", **GOOD)
    whole = (folder / "mnist.npz").read_bytes()
    generator = random.Random(0)
    n_refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
        (folder / "mnist.npz").write_bytes(damaged)
        try:
            X, y = load_images("mnist")
        except ValueError as error:
            assert "mnist.npz" in str(error)  # noqa: PT017
            n_refused += 1
        else:
            np.testing.assert_array_equal(X, GOOD["X_train"])
            np.testing.assert_array_equal(y, GOOD["y_train"])
    assert n_refused > 100


# OpenML


@pytest.fixture
def openml(monkeypatch):
    """A stand-in for fetch_openml: whole tables, each row filled with its own index, and a record of the calls."""
    calls = []

    def fetch(**kwargs):
        calls.append(kwargs)
        name = {number: name for name, number in OPENML_IDS.items()}[kwargs["data_id"]]
        n_rows, n_columns = (60_000, 3072) if name == "cifar10" else (70_000, 784)
        rows = np.arange(n_rows)[:, None]
        data = np.broadcast_to(rows % 251, (n_rows, n_columns))
        if name == "cifar10":  # red rows, then green, then blue
            data = np.broadcast_to(np.repeat([1, 2, 3], 1024), (n_rows, n_columns))
        return Bunch(data=data, target=(np.arange(n_rows) % 10).astype(str).astype(object))

    monkeypatch.setattr(named, "fetch_openml", fetch)
    return calls


@pytest.mark.parametrize("name", ["fashion_mnist", "kmnist", "mnist"])
def test_openml_splits(openml, name):
    X, y = load_images(name, split="test")
    assert X.shape == (10_000, 28, 28)
    assert (X.dtype, y.dtype) == (np.uint8, np.int64)
    assert X[0, 0, 0] == N_TRAIN[name] % 251
    assert y[:3].tolist() == [0, 1, 2]
    assert openml[0]["data_id"] == OPENML_IDS[name]

    bunch = load_images(name, return_X_y=False)
    assert bunch.data.shape == (N_TRAIN[name], 28, 28)
    assert bunch.target.shape == (N_TRAIN[name],)
    assert bunch.DESCR.endswith(f"train split, from OpenML data set {OPENML_IDS[name]}")


def test_openml_colours_become_channel_last(openml):
    X, _ = load_images("cifar10", split="test")
    assert X.shape == (10_000, 32, 32, 3)
    assert X.flags.c_contiguous
    assert (X == [1, 2, 3]).all()


def test_openml_keeps_rows_and_columns_in_place(monkeypatch):
    image = images(1, (3, 32, 32))[0]  # channel-first, as in a row of OpenML's table
    monkeypatch.setattr(
        named, "fetch_openml", lambda **_: Bunch(data=image.reshape(1, -1), target=np.array(["7"], dtype=object))
    )
    X, y = load_images("cifar10")
    np.testing.assert_array_equal(X[0, :, :, 1], image[1])
    assert y.tolist() == [7]


def test_openml_has_no_val(openml):
    with pytest.raises(ValueError, match="'mnist' has no split 'val'; it has 'train', 'test'"):
        load_images("mnist", split="val")
    assert not openml


def test_openml_serves_what_the_folder_lacks(openml, folder):
    assert load_images("kmnist", split="test")[0].shape == (10_000, 28, 28)


@pytest.mark.parametrize("error", [URLError("unknown host"), ConnectionResetError("reset"), TimeoutError("slow")])
def test_without_folder_and_network_both_remedies_are_named(monkeypatch, error):
    def fail(**kwargs):
        raise error

    monkeypatch.setattr(named, "fetch_openml", fail)
    with pytest.raises(ConnectionError, match="connect to the network.*mnist.npz.*FLOWDETECT_DATA") as caught:
        load_images("mnist")
    assert caught.value.__cause__ is error


def test_svhn_needs_a_folder(openml):
    with pytest.raises(FileNotFoundError, match=r"svhn\.npz into a folder.*FLOWDETECT_DATA"):
        load_images("svhn", split="test")
    assert not openml


# Images made to probe a score with


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 3)])
@pytest.mark.parametrize("make", [constant_images, random_images])
def test_probe_images_have_the_values_and_form_of_images(make, shape):
    X = make(500, shape, n_bins=17)
    assert X.shape == (500, *shape)
    assert X.dtype == np.uint8
    assert (X.min(), X.max()) == (0, 16)
    np.testing.assert_array_equal(X, make(500, shape, n_bins=17))
    assert (X != make(500, shape, n_bins=17, random_state=1)).any()
    assert make(2, shape, n_bins=1000).dtype == np.int64


def test_constant_images_are_constant_and_random_ones_are_not():
    constant, random_ = constant_images(200), random_images(200)
    assert (constant == constant[:, :1, :1]).all()
    assert len(np.unique(constant[:, 0, 0])) > 50
    assert abs(np.corrcoef(random_[:, 3, 3], random_[:, 3, 4])[0, 1]) < 0.3
    assert random_.mean() == pytest.approx(127.5, abs=1)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_images": 0}, "n_images must be a whole number >= 1, got 0"),
        ({"image_shape": (2,)}, "image_shape must be"),
        ({"image_shape": None}, "image_shape must be"),
        ({"n_bins": "auto"}, "n_bins must be a whole number >= 2, got 'auto'"),
        ({"n_bins": 1}, "n_bins must be"),
    ],
)
@pytest.mark.parametrize("make", [constant_images, random_images])
def test_probe_images_refuse(make, parameters, message):
    with pytest.raises(ValueError, match=message):
        make(**parameters)
