"""Models restored from a file or a pickle: their weights are checked first, and building them is bounded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode

from flowdetect.density.model import DensityModel
from flowdetect.density.spec import DataSpec

# limits for building a model: per value of its weights, per tensor, and a constant
COPIES, FREE_VALUES = 16, 2**20
OPERATIONS, FREE_OPERATIONS = 200, 2000
BY_SHAPE = {"empty", "expand", "full", "new_empty", "new_zeros", "ones", "rand", "randn", "repeat", "zeros"}
BY_LENGTH = {"arange", "eye", "linspace", "randperm"}


def restored_model(
    build: Callable[[DataSpec], DensityModel], spec: DataSpec, weights: Mapping[str, NDArray[Any]]
) -> DensityModel:
    """Build a model with the given weights; the arrays may be placeholders.

    Raises
    ------
    ValueError
        If the weights do not fit the model; the message names the first one.
    """
    n_values = sum(value.size for value in weights.values())
    if spec.is_table and spec.n_features > n_values + len(spec.constant_features):
        raise ValueError(f"{spec.n_features} columns cannot be modelled by {n_values} weights")
    with _Budget(COPIES * n_values + FREE_VALUES, OPERATIONS * len(weights) + FREE_OPERATIONS):
        model = build(spec).to(torch.float32)
    expected = {name: f"{tuple(value.shape)} of {value.dtype}" for name, value in model.state_dict().items()}
    found = {name: f"{value.shape} of torch.{value.dtype}" for name, value in weights.items()}
    for name in sorted({*expected, *found}):
        here, there = found.get(name, "missing"), expected.get(name, "none of that name")
        if here != there:
            raise ValueError(f"the weights {name!r} are {here}, but the model needs {there}")
    for name, value in weights.items():
        if value.dtype.kind == "f" and not math.isfinite(value.sum(dtype=np.float64)) and not np.isfinite(value).all():
            raise ValueError(f"the weights {name!r} are not finite")
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
    return model


class _Budget(TorchFunctionMode):
    """Count the values and operations of torch calls, and stop before there are too many."""

    def __init__(self, n_values: int, n_operations: int) -> None:
        super().__init__()
        self.n_values, self.n_operations = n_values, n_operations

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n_operations -= 1
        if self.n_operations < 0 or _size(func, args, kwargs or {}) > self.n_values:
            raise ValueError("a model larger than its weights")
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            with torch._C.DisableTorchFunction():
                self.n_values -= result.numel()
        return result


def _size(func: Any, args: Any, kwargs: Mapping[str, Any]) -> int:
    """Count the values that a function would create; its first arguments are a shape or a length."""
    name = getattr(func, "__name__", "")
    given = [value for value in args if not isinstance(value, torch.Tensor)] or [kwargs.get("size", ())]
    if name in BY_SHAPE:
        return math.prod(given[0] if isinstance(given[0], list | tuple) else given)
    if name in BY_LENGTH:
        return int(max(given)) ** (2 if name == "eye" else 1)
    return 1
