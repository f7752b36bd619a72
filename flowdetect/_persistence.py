"""Files of estimators: safetensors with a JSON header, written atomically; reading runs no code from a file.

An estimator is a tree of plain values and arrays. The header holds the tree, and the tensors hold the arrays.
flowdetect's estimators are named and rebuilt from an allow-list; those of other libraries are stored by skops with its
list of trusted types.

A file may come from anyone, so it is read in two steps. First the header is read, with placeholders of the declared
shapes for large arrays, so that inconsistent files are refused before memory is allocated. Then the whole file is read.
"""

from __future__ import annotations

import importlib
import inspect
import math
import os
import struct
import warnings
import zlib
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from flowdetect._callbacks import forgotten
from flowdetect._files import as_path
from flowdetect._foreign import as_bytes, from_bytes
from flowdetect._homes import IN_FILES as OURS
from flowdetect._protocols import PathName
from flowdetect._tensor_file import MOST_BYTES, VERSION, TensorFile, write

LARGEST_TRIED = 2**16  # values per row; a loaded estimator with more is not tested with a score
REPEATS, MOST_REPEATS = {"n_draws", "n_steps"}, 2000  # the same for the repeated computations within a score
MOST_OF_STRINGS = 2**26  # bytes per array of text
BROKEN = (
    *(ArithmeticError, AssertionError, AttributeError, BadZipFile, LookupError, MemoryError, NotFittedError),
    *(EOFError, ImportError, RecursionError, RuntimeError, TypeError, ValueError, struct.error, zlib.error),
)


def save(estimator: BaseEstimator, path: PathName, notes: dict[str, Any] | None = None) -> None:
    """Write an estimator of flowdetect to a file, atomically, with notes (plain values) for `notes_of`."""
    file = check_no_checkpoint(path)
    arrays: dict[str, NDArray[Any]] = {}
    header = {"estimator": _encode(estimator, arrays, type(estimator).__name__)}
    write(file, "estimator", header if notes is None else {**header, "notes": notes}, arrays)


def notes_of(path: PathName, max_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """Read the notes of an estimator's file, empty if there are none; errors are those of `load`."""
    with TensorFile(as_path(path), "estimator", max_bytes) as file:
        notes = file.header.get("notes")
    return notes if isinstance(notes, dict) else {}


def check_no_checkpoint(path: PathName) -> Path:
    """Refuse to overwrite the checkpoint of a training; return the path, with links followed."""
    file = as_path(path)
    try:
        with TensorFile(file, "checkpoint"):
            pass
    except (OSError, ValueError):
        return file
    raise ValueError(
        f"{str(file)!r} holds the checkpoint of a training, which would be lost; save to another file, or delete the "
        "checkpoint."
    )


def load(path: PathName, *, trusted: Sequence[str] = (), max_bytes: int = MOST_BYTES) -> Any:
    """Read an estimator written by `save`, without running code from the file.

    Parameters
    ----------
    path : str or path
    trusted : sequence of str
        Further types that skops may build, for estimators of other libraries inside.
    max_bytes : int, default 2**32
        Larger files are refused before they are read.

    Returns
    -------
    estimator
        If it is fitted, it was tested by scoring a row.

    Raises
    ------
    ValueError
        If the file is incomplete, not from flowdetect, of an unknown format or too large, or if its estimator cannot
        score a row.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import os, tempfile
    >>> import flowdetect
    >>> X, _ = flowdetect.load_images("digits")
    >>> detector = flowdetect.LikelihoodDetector(flowdetect.GlowDensity(n_bins=17, n_steps=1, max_epochs=1)).fit(X[:64])
    >>> path = os.path.join(tempfile.mkdtemp(), "detector.safetensors")
    >>> detector.save(path)
    >>> bool((flowdetect.load(path).score_samples(X[:5]) == detector.score_samples(X[:5])).all())
    True
    """
    check_load_options(trusted, max_bytes)
    with TensorFile(as_path(path), "estimator", int(max_bytes)) as file:
        try:
            tree = file.header["estimator"]
            if not isinstance(tree, dict) or not {"estimator", "skops"} & tree.keys():
                raise ValueError("it contains no estimator")
            _Decoder(file.previewed(), trusted, dry=True).decode_all(tree)
            estimator = _Decoder(file.arrays(), trusted).decode_all(tree)
            _check_that_it_scores(estimator)
        except _Refusal as refusal:
            raise ValueError(str(refusal)) from None
        except BROKEN as error:
            told = str(error) if type(error) is ValueError else repr(error)
            raise ValueError(
                f"{str(path)!r} is not a complete flowdetect file ({told}); nothing was loaded. Save the estimator "
                "again."
            ) from error
    return estimator


def check_load_options(trusted: Any, max_bytes: Any) -> None:
    """Refuse invalid values of `trusted` and `max_bytes`."""
    if not isinstance(max_bytes, Integral) or isinstance(max_bytes, bool) or max_bytes < 1:
        raise ValueError(f"max_bytes must be a whole number >= 1, got {max_bytes!r}.")
    if isinstance(trusted, str) or not all(isinstance(name, str) for name in trusted):
        raise TypeError(f"trusted must be a list of type names, got {trusted!r}.")


class _Refusal(Exception):
    """An error that the user can solve; its message is shown unchanged."""


# ---- estimators to trees


def _encode(value: Any, arrays: dict[str, NDArray[Any]], where: str) -> Any:
    """Turn a value into JSON; arrays are collected under the name of their position."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        plain = value.item()
        return _encode(float(plain) if isinstance(plain, np.generic) else plain, arrays, where)  # e.g. a long double
    if isinstance(value, list | tuple):
        items = [_encode(item, arrays, f"{where}.{i}") for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, slice):
        return {"slice": [value.start, value.stop]}
    if isinstance(value, dict):
        return {"dict": [[_encode(k, arrays, where), _encode(v, arrays, f"{where}.{k}")] for k, v in value.items()]}
    if isinstance(value, np.ndarray):
        return _encode_array(value, arrays, where)
    if isinstance(value, os.PathLike):
        return {"path": os.fspath(value)}
    if isinstance(value, FrozenEstimator):
        return {"frozen": _encode(value.estimator, arrays, where)}
    if type(value).__name__ in OURS and type(value).__module__.startswith(OURS[type(value).__name__]):
        if getattr(value, "_parameter_constraints", None):
            value._validate_params()  # `load` also does
        return {"estimator": type(value).__name__, "state": _encode(forgotten(value.__getstate__()), arrays, where)}
    if isinstance(value, BaseEstimator):
        arrays[where] = as_bytes(value)
        return {"skops": where}
    raise ValueError(
        f"{where} holds a {type(value).__name__}, which a flowdetect file cannot store; replace it with a plain value "
        "before saving, e.g. an int or None for random_state."
    )


def _encode_array(value: NDArray[Any], arrays: dict[str, NDArray[Any]], where: str) -> Any:
    if value.dtype.kind in "OU" and all(isinstance(item, str) for item in value.ravel().tolist()):
        return {"strings": value.tolist(), "object": value.dtype.kind == "O"}
    if value.dtype.kind not in "biuf":
        raise ValueError(f"{where} holds an array of {value.dtype}, which a flowdetect file cannot store.")
    arrays[where] = value.astype(value.dtype.newbyteorder("="), copy=False)
    return {"array": where}


# ---- trees to estimators


class _Decoder:
    """Build the values of a tree.

    Parameters
    ----------
    arrays : dict of arrays
        Each must be used exactly once in the tree.
    trusted : sequence of str
        Types that skops may build.
    dry : bool
        Whether arrays may be placeholders; states of estimators are then checked, and nothing is built.
    """

    def __init__(self, arrays: dict[str, NDArray[Any]], trusted: Sequence[str], dry: bool = False) -> None:
        self.arrays, self.trusted, self.dry = dict(arrays), trusted, dry

    def decode_all(self, tree: dict[str, Any]) -> Any:
        """Build the estimator of the whole tree."""
        found = self._decode(tree)
        if self.arrays:
            raise ValueError(f"it contains arrays that nothing refers to: {sorted(self.arrays)[:3]}")
        return found

    def _decode(self, tree: Any) -> Any:
        if isinstance(tree, list):
            return [self._decode(item) for item in tree]
        if not isinstance(tree, dict):
            return tree
        if "tuple" in tree:
            return tuple(self._decode(item) for item in tree["tuple"])
        if "slice" in tree:
            return slice(*tree["slice"])
        if "dict" in tree:
            return {self._decode(k): self._decode(v) for k, v in tree["dict"]}
        if "array" in tree:
            found = self.arrays.pop(tree["array"])
            return found if self.dry else np.array(found)
        if "strings" in tree:
            return _strings(tree["strings"], as_objects=tree["object"])
        if "path" in tree:
            return Path(tree["path"])
        if "frozen" in tree:
            return FrozenEstimator(self._decode(tree["frozen"]))
        if "skops" in tree:
            content = self.arrays.pop(tree["skops"])
            return None if self.dry else self._foreign(content)
        return self._estimator(tree)

    def _foreign(self, content: NDArray[Any]) -> BaseEstimator:
        found, unknown = from_bytes(content.tobytes(), self.trusted)
        if found is None:
            raise _Refusal(
                f"The file contains an estimator of types that are not trusted: {unknown}. If you trust the source of "
                f"the file, pass load(path, trusted={unknown})."
            )
        return found

    def _estimator(self, tree: dict[str, Any]) -> Any:
        name = tree["estimator"]
        if not isinstance(name, str) or name not in OURS:
            raise _Refusal(
                f"The file contains an estimator {name!r}, which this flowdetect ({VERSION}) does not have; nothing "
                "was loaded. Update flowdetect."
            )
        kind = getattr(importlib.import_module(OURS[name]), name)
        estimator = kind.__new__(kind)  # the state contains its parameters
        state = self._decode(tree["state"])
        _check_names(kind, state)
        given = inspect.signature(kind.__init__).parameters.values()
        defaults = {each.name: each.default for each in given if each.default is not each.empty}
        state = {**defaults, **getattr(kind, "_former", {}), **state}  # older files lack newer parameters
        if not self.dry:
            estimator.__setstate__(state)
        elif hasattr(estimator, "_check_state"):
            estimator._check_state(state)
        return estimator


def _check_names(kind: type, state: Any) -> None:
    """Refuse a state that would hide a method."""
    if not isinstance(state, dict):
        raise TypeError(f"the state of {kind.__name__} is a {type(state).__name__}")
    for name in state:
        told = getattr(kind, name, None) if isinstance(name, str) and name.isidentifier() else callable
        if callable(told) and not isinstance(told, type):
            raise KeyError(f"{kind.__name__} has no attribute {name!r} to set")


def _strings(items: Any, as_objects: Any) -> NDArray[Any]:
    """Return an array of text; each entry takes the memory of the longest."""
    found = np.array(items, dtype=object)
    lengths = [len(item) if isinstance(item, str) else MOST_OF_STRINGS for item in found.ravel().tolist()]
    if 4 * len(lengths) * max(lengths, default=0) > MOST_OF_STRINGS:
        raise ValueError("an array of text has another form, or is too large")
    return found if as_objects else np.array(items, dtype=str)


def _takes_long(estimator: Any) -> bool:
    """Whether a score has too many draws, steps or values for a test during loading."""
    density = getattr(estimator, "density_", estimator)
    told = {**estimator.get_params(deep=True), **vars(estimator).get("_kept", {})}
    told = {**told, **getattr(density, "_fitted_params", {})}
    repeats = [value for name, value in told.items() if name.split("__")[-1] in REPEATS and isinstance(value, int)]
    many = math.prod([max(1, value) for value in repeats]) > MOST_REPEATS
    return many or getattr(estimator, "n_features_in_", 1) > LARGEST_TRIED


def _check_that_it_scores(estimator: Any) -> None:
    """Test a fitted estimator: score a row of the kind that it was fitted to."""
    if not hasattr(estimator, "_example") or _takes_long(estimator):
        return
    rows = estimator._example()
    if rows is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ask = getattr(estimator, "decision_function", estimator.score_samples)
        scores = np.asarray(ask(rows), dtype=np.float64)
    if scores.shape != (1,) or not np.isfinite(scores).all():
        raise ValueError(f"{type(estimator).__name__} gives the score {scores}")
