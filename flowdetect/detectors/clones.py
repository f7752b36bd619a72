"""Clones of the estimators inside a detector, with the detector's seed, image shape and bins."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import clone

LARGEST_SEED = 2**31 - 1


def seeded_clone(estimator: Any, random: np.random.RandomState) -> Any:
    """Clone an estimator and set a seed for each random_state in it that is None; a frozen one is its own clone."""
    copy = clone(estimator)
    parameters = copy.get_params(deep=True)
    names = sorted(name for name in parameters if name.split("__")[-1] == "random_state")
    seeds = {name: int(random.randint(LARGEST_SEED)) for name in names if parameters[name] is None}
    return copy.set_params(**seeds) if seeds else copy


def with_parameter(estimator: Any, name: str, old: Any, new: Any) -> Any:
    """Set every parameter of this name, also nested, whose value is `old`, None or a string, to `new`."""
    same = {
        key
        for key, value in estimator.get_params(deep=True).items()
        if key.split("__")[-1] == name and type(value) is type(old) and value == old
    }
    if same:  # a frozen estimator has none, and its set_params returns nothing
        estimator.set_params(**dict.fromkeys(same, new))
    return estimator


def tell_image_shape(density: Any, image_shape: tuple[int, int, int] | None) -> None:
    """Set image_shape of a density, or of an ensemble's density, if it is None."""
    said = density.get_params(deep=True)
    for name in ("image_shape", "density__image_shape"):  # not inside a pipeline, whose steps may change the rows
        if name in said and said[name] is None:
            density.set_params(**{name: image_shape})
