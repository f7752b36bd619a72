"""The demonstration's images: those trained on, those held out, and sets from outside.

An outside set is either another named set of images of the same shape, or made from the held-out images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowdetect.datasets import constant_images, load_images, random_images

CALIBRATION_FRACTION, MAX_CALIBRATION = 0.1, 2000
MAX_TEST = 2000  # images of each set that are scored
KNOWN_DIGITS = 8  # the flow learns the digits 0..7; 8 and 9 stay unseen

Images = NDArray[np.uint8]
Maker = Callable[[Images, int, np.random.Generator], Images]


@dataclass(frozen=True)
class Sets:
    """What a demonstration looks at; all images are (n, H, W) or (n, H, W, C) uint8.

    Attributes
    ----------
    name : str, the set trained on
    n_bins : int, how many values a pixel takes
    train, calibration, test : images; the calibration images set the detectors' thresholds, and neither they nor the
        test images are trained on
    outside : dict of name to images
    """

    name: str
    n_bins: int
    train: Images
    calibration: Images
    test: Images
    outside: dict[str, Images]


@dataclass(frozen=True)
class Dataset:
    """A set that can be trained on, and settings that suit it."""

    n_bins: int
    outside: tuple[str, ...]
    epochs: int
    steps: int
    hidden: int


DATASETS = {
    "digits": Dataset(
        17, ("halved", "small", "dimmed", "unseen", "shifted", "flat", "noise"), epochs=12, steps=4, hidden=64
    ),
    "fashion_mnist": Dataset(256, ("mnist", "halved"), epochs=2, steps=4, hidden=64),
    "mnist": Dataset(256, ("fashion_mnist", "halved"), epochs=2, steps=4, hidden=64),
    "kmnist": Dataset(256, ("mnist", "halved"), epochs=2, steps=4, hidden=64),
    "cifar10": Dataset(256, ("svhn", "halved"), epochs=2, steps=4, hidden=64),
}


def _halved(images: Images, n_bins: int, generator: np.random.Generator) -> Images:
    halved = images.copy()
    halved[:, :, images.shape[2] // 2 :] = 0
    return halved


def _small(images: Images, n_bins: int, generator: np.random.Generator) -> Images:
    height, width = images.shape[1] // 2, images.shape[2] // 2
    blocks = images[:, : 2 * height, : 2 * width].reshape(len(images), height, 2, width, 2, -1)
    small = np.zeros_like(images).reshape(*images.shape[:3], -1)
    top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
    small[:, top : top + height, left : left + width] = blocks.mean((2, 4)).round()
    return small.reshape(images.shape)


def _dimmed(images: Images, n_bins: int, generator: np.random.Generator) -> Images:
    return images // 2


def _shifted(images: Images, n_bins: int, generator: np.random.Generator) -> Images:
    return np.roll(images, -1, axis=2)


def _flat(images: Images, n_bins: int, generator: np.random.Generator) -> Images:
    return constant_images(len(images), images.shape[1:], n_bins=n_bins, random_state=int(generator.integers(2**31)))


def _noise(images: Images, n_bins: int, generator: np.random.Generator) -> Images:
    return random_images(len(images), images.shape[1:], n_bins=n_bins, random_state=int(generator.integers(2**31)))


MAKERS: dict[str, Maker] = {
    "halved": _halved,
    "small": _small,
    "dimmed": _dimmed,
    "shifted": _shifted,
    "flat": _flat,
    "noise": _noise,
}

OUTSIDE = {
    "halved": "the held-out images with their right half painted black",
    "small": "the held-out images at half their size, on black",
    "dimmed": "the held-out images at half brightness",
    "shifted": "the held-out images moved left by one pixel, with wrap-around",
    "flat": "one grey level over the whole image, another in each",
    "noise": "each pixel drawn evenly from all grey levels",
    "unseen": f"the digits {KNOWN_DIGITS} and above, which are left out of training",
}


def load_sets(dataset: str, outside: Sequence[str] = (), n_images: int | None = None, seed: int = 0) -> Sets:
    """Load what the demonstration needs.

    Parameters
    ----------
    dataset : one of `DATASETS`
    outside : names of made sets (`OUTSIDE`) or of other image sets; none: those that suit the data set
    n_images : at most so many images to train on; None: all
    seed : draws which images calibrate, which are left out, and the made sets

    Returns
    -------
    sets : Sets

    Raises
    ------
    ValueError
        If a name is unknown, or an outside set's images have another shape.
    OSError
        If a set is neither in the folder FLOWDETECT_DATA nor to be fetched.
    """
    if dataset not in DATASETS:
        raise ValueError(f"the demo cannot train on {dataset!r}; it can on {', '.join(DATASETS)}.")
    generator = np.random.default_rng(seed)
    X, y = load_images(dataset)
    X_test, y_test = load_images(dataset, "test")
    if dataset == "digits":
        X, y = X[y < KNOWN_DIGITS], y[y < KNOWN_DIGITS]
    order = generator.permutation(len(X))
    n_calibration = min(MAX_CALIBRATION, round(CALIBRATION_FRACTION * len(X)))
    known = X_test[y_test < KNOWN_DIGITS] if dataset == "digits" else X_test
    test = known[:MAX_TEST]
    own = {"unseen": X_test[y_test >= KNOWN_DIGITS]} if dataset == "digits" else {}
    n_bins = DATASETS[dataset].n_bins
    return Sets(
        name=dataset,
        n_bins=n_bins,
        train=X[order[n_calibration:][:n_images]],
        calibration=X[order[:n_calibration]],
        test=test,
        outside={name: _outside(name, test, own, n_bins, generator) for name in outside or DATASETS[dataset].outside},
    )


def _outside(name: str, test: Images, own: dict[str, Images], n_bins: int, generator: np.random.Generator) -> Images:
    if name in own:
        return own[name]
    if name in MAKERS:
        return MAKERS[name](test, n_bins, generator)
    if name in OUTSIDE:
        raise ValueError(f"the outside set {name!r} is made of digits; it goes with --dataset digits only.")
    try:
        images = load_images(name, "test")[0][:MAX_TEST]
    except ValueError as error:
        raise ValueError(f"the outside set {name!r}: {error} Made sets are {', '.join(OUTSIDE)}.") from error
    if images.shape[1:] != test.shape[1:]:
        raise ValueError(
            f"the outside set {name!r} has images of shape {images.shape[1:]}, those trained on have {test.shape[1:]}; "
            f"choose a set of the same shape, or a made one: {', '.join(MAKERS)}."
        )
    return images
