"""Clones of the estimators within a detector, told what the detector knows: a seed, the images' shape, the bins."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import clone

LARGEST_SEED = 2**31 - 1


def seeded_clone(estimator: Any, random: np.random.RandomState) -> Any:
    """Clone an estimator (a frozen one clones to itself) and give a seed to each random_state in it that is None."""
    copy = clone(estimator)
    parameters = copy.get_params(deep=True)
    names = sorted(name for name in parameters if name.split("__")[-1] == "random_state")
    seeds = {name: int(random.randint(LARGEST_SEED)) for name in names if parameters[name] is None}
    return copy.set_params(**seeds) if seeds else copy


def with_parameter(estimator: Any, name: str, old: Any, new: Any) -> Any:
    """Set every parameter of that name, nested ones too, that has the old value, None or a string."""
    same = {
        key
        for key, value in estimator.get_params(deep=True).items()
        if key.split("__")[-1] == name and type(value) is type(old) and value == old
    }
    if same:  # a frozen one has none, and gives nothing back
        estimator.set_params(**dict.fromkeys(same, new))
    return estimator


def tell_image_shape(density: Any, image_shape: tuple[int, int, int] | None) -> None:
    """Tell a density, or the one that an ensemble multiplies, of images in rows, where it does not say itself."""
    said = density.get_params(deep=True)
    for name in ("image_shape", "density__image_shape"):  # none within a pipeline, whose steps may change the rows
        if name in said and said[name] is None:
            density.set_params(**{name: image_shape})
