"""Named image sets as arrays, and synthetic images to test a score."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from flowdetect._ctrl_c import whole_imports

with whole_imports():
    import numpy as np
    from sklearn.datasets import fetch_openml, load_digits
    from sklearn.utils import Bunch

    from flowdetect._files import open_within
    from flowdetect._images import N_BINS_8_BIT, check_image_shape, check_n_bins, draw_seed
    from flowdetect._limits import check_count
    from flowdetect._protocols import RandomState
    from flowdetect.datasets._archive import members_of

_SPLITS = ("train", "test", "val")
MOST_BYTES = 2**33  # of an archive


class _ImageSet(NamedTuple):
    title: str
    shape: tuple[int, ...]  # of one image, channel-last
    openml_id: int | None = None
    n_train: int | None = None  # OpenML has both splits in one table, training rows first


_IMAGE_SETS = {
    "cifar10": _ImageSet("CIFAR-10", (32, 32, 3), 40927, 50_000),
    "digits": _ImageSet("Optical recognition of handwritten digits", (8, 8)),
    "fashion_mnist": _ImageSet("Fashion-MNIST", (28, 28), 40996, 60_000),
    "kmnist": _ImageSet("Kuzushiji-MNIST", (28, 28), 41982, 60_000),
    "mnist": _ImageSet("MNIST", (28, 28), 554, 60_000),
    "svhn": _ImageSet("SVHN, cropped digits", (32, 32, 3)),  # the order of OpenML's columns is not documented
}


def load_images(name: str, split: str = "train", return_X_y: bool = True) -> Any:
    """Load a named set of images and their labels.

    "digits" comes with scikit-learn. The others are read from ``name.npz`` in the folder that the environment variable
    ``FLOWDETECT_DATA`` names. If this file is missing, scikit-learn's ``fetch_openml`` downloads the set once into
    scikit-learn's cache.

    Parameters
    ----------
    name : {"cifar10", "digits", "fashion_mnist", "kmnist", "mnist", "svhn"}
        The set. "svhn" can only be read from the folder.
    split : {"train", "test", "val"}, default="train"
        The part of the set. OpenML's sets and "digits" have "train" and "test"; an archive has the splits of its
        arrays.
    return_X_y : bool, default=True
        Whether to return ``(X, y)`` or a Bunch.

    Returns
    -------
    X : (n, H, W) or (n, H, W, C) array of uint8
        The images, channels last; values 0..255, and 0..16 for "digits" (`n_bins=17` for a density).
    y : (n,) array of int64
        Class labels, 0..9.
    data : Bunch
        Returned instead if `return_X_y` is False: `data` is X, `target` is y, `DESCR` names the source.

    Raises
    ------
    ValueError
        If there is no such set or split, or if an archive lacks arrays or has wrong ones.
    OSError
        If the set is not in the folder and cannot be downloaded.

    Notes
    -----
    scikit-learn's "digits" have no official split. Here 50 images of each class, every third one from the start, are
    for testing. This always gives the same 1,297 images to train on and 500 to test on. Both parts have images of the
    same writers.

    An archive holds pairs of ``X_train``, ``y_train``, ``X_test``, ``y_test``, ``X_val``, ``y_val`` in the shapes and
    types above. It is never unpickled.

    Examples
    --------
    >>> from flowdetect import load_images
    >>> X, y = load_images("digits")
    >>> X.shape, X.dtype, X.max()
    ((1297, 8, 8), dtype('uint8'), np.uint8(16))
    >>> digits = load_images("digits", split="test", return_X_y=False)
    >>> digits.data.shape
    (500, 8, 8)
    >>> digits.DESCR
    'Optical recognition of handwritten digits, test split, from scikit-learn (load_digits)'
    """
    if name not in _IMAGE_SETS:
        raise ValueError(f"load_images has no set {name!r}; the sets are {_join(_IMAGE_SETS)}.")
    if split not in _SPLITS:
        raise ValueError(f"load_images has no split {split!r}; the splits are {_join(_SPLITS)}.")
    folder = os.environ.get("FLOWDETECT_DATA")
    if name == "digits":
        X, y, source = _from_sklearn(split)
    elif folder and (path := Path(folder, f"{name}.npz")).is_file():
        X, y, source = _from_archive(path, name, split)
    else:
        X, y, source = _from_openml(name, split)
    X, y = np.ascontiguousarray(X), y.astype(np.int64)
    if return_X_y:
        return X, y
    return Bunch(data=X, target=y, DESCR=f"{_IMAGE_SETS[name].title}, {split} split, from {source}")


def constant_images(
    n_images: int = 100, image_shape: tuple[int, ...] = (28, 28), *, n_bins: int = 256, random_state: RandomState = 0
) -> np.ndarray:
    """Generate constant images, each of one value drawn uniformly from 0 .. n_bins - 1.

    Likelihood models give such images a higher likelihood than their training images.

    Parameters
    ----------
    n_images : int, default=100
    image_shape : (H, W) or (H, W, C), default=(28, 28)
    n_bins : int, default=256
    random_state : int, RandomState instance or None, default=0

    Returns
    -------
    X : (n_images, H, W) or (n_images, H, W, C) array of uint8; of int64 if n_bins is above 256

    Raises
    ------
    ValueError
        If a parameter is not as documented.

    References
    ----------
    "Do Deep Generative Models Know What They Don't Know?" (Nalisnick et al., 2019), https://arxiv.org/abs/1810.09136,
    appendix D.

    Examples
    --------
    >>> from flowdetect import constant_images
    >>> constant_images(2, (2, 2)).tolist()
    [[[217, 217], [217, 217]], [[163, 163], [163, 163]]]
    """
    shape = _probe_shape(n_images, image_shape, n_bins)
    levels = np.random.default_rng(draw_seed(random_state)).integers(0, n_bins, (shape[0],) + (1,) * (len(shape) - 1))
    return np.ascontiguousarray(np.broadcast_to(levels, shape), dtype=_smallest_dtype(n_bins))


def random_images(
    n_images: int = 100, image_shape: tuple[int, ...] = (28, 28), *, n_bins: int = 256, random_state: RandomState = 0
) -> np.ndarray:
    """Generate images whose values are independent and uniform on 0 .. n_bins - 1.

    Parameters
    ----------
    n_images : int, default=100
    image_shape : (H, W) or (H, W, C), default=(28, 28)
    n_bins : int, default=256
    random_state : int, RandomState instance or None, default=0

    Returns
    -------
    X : (n_images, H, W) or (n_images, H, W, C) array of uint8; of int64 if n_bins is above 256

    Raises
    ------
    ValueError
        If a parameter is not as documented.

    References
    ----------
    "Do Deep Generative Models Know What They Don't Know?" (Nalisnick et al., 2019), https://arxiv.org/abs/1810.09136,
    appendix D.

    Examples
    --------
    >>> from flowdetect import random_images
    >>> random_images(1, (2, 2)).tolist()
    [[[217, 163], [130, 69]]]
    """
    shape = _probe_shape(n_images, image_shape, n_bins)
    values = np.random.default_rng(draw_seed(random_state)).integers(0, n_bins, shape)
    return values.astype(_smallest_dtype(n_bins))


def _probe_shape(n_images: Any, image_shape: Any, n_bins: Any) -> tuple[int, ...]:
    check_count("n_images", n_images)
    if check_image_shape(image_shape) is None:
        raise ValueError("image_shape must be (height, width) or (height, width, channels), got None.")
    if isinstance(n_bins, str) or n_bins is None:
        raise ValueError(f"n_bins must be a whole number >= 2, got {n_bins!r}.")
    check_n_bins(n_bins)
    return (int(n_images), *(int(side) for side in image_shape))


def _smallest_dtype(n_bins: int) -> type[np.generic]:
    return np.uint8 if n_bins <= N_BINS_8_BIT else np.int64


def _from_sklearn(split: str) -> tuple[np.ndarray, np.ndarray, str]:
    _check_split("digits", split, ("train", "test"))
    digits = load_digits()
    test = np.zeros(len(digits.target), dtype=bool)
    for label in range(10):
        test[np.flatnonzero(digits.target == label)[:150:3]] = True  # 50 of each class
    rows = test if split == "test" else ~test
    return digits.images[rows].astype(np.uint8), digits.target[rows], "scikit-learn (load_digits)"


def _from_archive(path: Path, name: str, split: str) -> tuple[np.ndarray, np.ndarray, str]:
    shape = _IMAGE_SETS[name].shape
    expected = f"it must hold X_{split}, uint8 of shape (n, {_join(shape)}), and y_{split}, integers of shape (n,)"
    wanted = (f"X_{split}", f"y_{split}")
    with open_within(path, MOST_BYTES) as file:
        try:
            members = members_of(file)
            splits = [split for split in _SPLITS if f"X_{split}" in members or f"y_{split}" in members]
            arrays = {name: members[name]() for name in wanted if name in members}
        except Exception as error:  # zipfile and numpy raise errors of many kinds
            raise ValueError(f"{path} cannot be read ({error}); {expected}.") from error
    if splits:
        _check_split(name, split, splits, where=f" in {path}")
    if len(arrays) < 2:
        raise ValueError(f"{path} holds {_join(arrays) or 'neither images nor labels'}; {expected}.")
    X, y = arrays[f"X_{split}"], arrays[f"y_{split}"]
    if X.dtype != np.uint8 or X.shape != (*y.shape, *shape) or y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(
            f"{path} holds X_{split}, {X.dtype} of shape {X.shape}, and y_{split}, {y.dtype} of shape {y.shape}; "
            f"{expected}."
        )
    return X, y, str(path)


def _from_openml(name: str, split: str) -> tuple[np.ndarray, np.ndarray, str]:
    title, shape, openml_id, n_train = _IMAGE_SETS[name]
    folder = f"put {name}.npz into a folder and name the folder in the environment variable FLOWDETECT_DATA"
    if openml_id is None:
        raise FileNotFoundError(f"load_images reads {title} from a folder only: {folder}.")
    _check_split(name, split, ("train", "test"))
    try:
        table = fetch_openml(data_id=openml_id, as_frame=False, parser="pandas")
    except OSError as error:
        raise ConnectionError(
            f"load_images found no {name}.npz and could not fetch {title} from OpenML ({error}). "
            f"Either connect to the network and try again, or {folder}."
        ) from error
    rows = slice(n_train) if split == "train" else slice(n_train, None)
    X = table.data[rows].astype(np.uint8)
    if len(shape) == 3:
        height, width, channels = shape
        X = X.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)  # OpenML's rows are channel-first
    else:
        X = X.reshape(-1, *shape)
    return X, table.target[rows], f"OpenML data set {openml_id}"


def _check_split(name: str, split: str, splits: Iterable[str], where: str = "") -> None:
    if split not in splits:
        raise ValueError(f"{name!r} has no split {split!r}{where}; it has {_join(splits)}.")


def _join(items: Iterable[object]) -> str:
    return ", ".join(repr(item) for item in items)
