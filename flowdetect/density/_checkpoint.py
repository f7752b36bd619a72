"""Checkpoints: the state of a training in one file, with a fingerprint of the training."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowdetect._files import Lock, as_path
from flowdetect._resuming import digest_of_array
from flowdetect._sources import RowSource, digest_of_source
from flowdetect._tensor_file import FORMAT, VERSION, Declared, TensorFile, write

KIND = "checkpoint"
OPTIONAL = {"time_plan"}  # older files have none
MAY_DIFFER = {"max_epochs", "verbose", "device", "checkpoint"}


@dataclass(frozen=True)
class Form:
    """The form of a training's state: what a checkpoint must contain so that this training can resume from it.

    Attributes
    ----------
    header : dict
        Header of this training before its first step.
    arrays : dict of dicts of Declared
        By group and name; "model" and "average" are required, and each group that is present must be complete.
    most : dict of int
        Upper limits of some counters.
    constants : dict of arrays
        By name: buffers that training does not change, such as permutations.
    """

    header: dict[str, Any]
    arrays: dict[str, dict[str, Declared]]
    most: dict[str, int]
    constants: dict[str, NDArray[Any]]

    @classmethod
    def of(
        cls, header: dict[str, Any], arrays: dict[str, NDArray[Any]], parameters: Iterable[Tensor], *, n_batches: int
    ) -> Form:
        """Build the form from a training's state before its first step; Adam has two moments per parameter."""
        groups: dict[str, dict[str, Declared]] = {}
        for key, value in arrays.items():
            group, _, name = key.partition("/")
            groups.setdefault(group, {})[name] = Declared.of(value)
        for i, parameter in enumerate(parameters):
            moments = Declared.of(parameter.detach().cpu().numpy())
            groups[f"adam{i}"] = {"step": Declared(moments.dtype, (1,)), "exp_avg": moments, "exp_avg_sq": moments}
        constants = {key.partition("/")[2]: value for key, value in arrays.items() if value.dtype.kind != "f"}
        return cls(header, {**groups, "best": groups["model"]}, {"batch": n_batches}, constants)

    def check(self, header: dict[str, Any], declared: dict[str, Declared]) -> None:
        """Raise ValueError, TypeError or KeyError if the state in a file does not have this form."""
        for name, fresh in self.header.items():
            if name in header or name not in OPTIONAL:
                _check_like(header[name], fresh, name)
        for name, most in self.most.items():
            if header[name] > most:
                raise ValueError(f"{name} is {header[name]}, but must be at most {most}")
        if any(len(column) not in (0, header["epoch"]) for column in header["history"].values()):
            raise ValueError(f"its history does not have {header['epoch']} epochs")
        found: dict[str, dict[str, Declared]] = {"model": {}, "average": {}}
        for name, value in declared.items():
            group, _, within = name.partition("/")
            found.setdefault(group, {})[within] = value
        for group, values in found.items():
            if values != self.arrays.get(group):
                raise ValueError(f"its arrays {group!r} do not belong to this model")


class Checkpoint:
    """A locked checkpoint file and the state of an earlier run in it.

    Parameters
    ----------
    path : str or path
    fingerprint : dict
        Fingerprint of the training, from `fingerprint`.

    Attributes
    ----------
    found : dict or None
        Header of an earlier run of the same training; None if there is no file.

    Raises
    ------
    ValueError
        If the file is not a checkpoint of flowdetect, is incomplete, or belongs to another training; the message names
        the differences.
    BlockingIOError
        If another training holds the file.
    OSError
        If the file cannot be read, or its folder cannot be written to.
    """

    def __init__(self, path: Any, fingerprint: dict[str, Any]) -> None:
        self.path = as_path(path, "checkpoint")
        self.fingerprint = fingerprint
        self.found: dict[str, Any] | None = None
        self._lock = Lock(self.path, "checkpoint")
        self._lock.acquire()
        try:
            if self.path.exists():
                with TensorFile(self.path, KIND) as file:
                    self._compare(file.header)
                    self.found = file.header
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        """Release the file for other trainings."""
        self._lock.release()

    def read(self, form: Form) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Read the header and arrays of an earlier run, and check that they have the given form.

        Raises
        ------
        ValueError
            If training cannot resume from them.
        """
        with TensorFile(self.path, KIND) as file:
            try:
                form.check(file.header, file.declared)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(self._broken(str(error))) from error
            header, arrays = file.header, file.arrays()
        for name, value in arrays.items():
            usual = form.constants.get(name.partition("/")[2], value)
            if not np.isfinite(value).all() or not np.array_equal(usual, value):
                raise ValueError(self._broken(f"its {name!r} is not finite, or does not belong to this model"))
        return header, arrays

    def read_one(self, name: str, is_right: Callable[[NDArray[Any]], bool]) -> NDArray[Any]:
        """Read one array of an earlier run, and check it with `is_right`."""
        with TensorFile(self.path, KIND) as file:
            found = file.arrays().get(name)
        if found is None or not is_right(found):
            raise ValueError(self._broken(f"its {name!r} does not belong to this model"))
        return found.copy()

    def _broken(self, what: str) -> str:
        return (
            f"Training cannot continue from checkpoint={str(self.path)!r}: {what}. Remove it to train from the start, "
            "or choose another file."
        )

    def _compare(self, header: dict[str, Any]) -> None:
        other, seed = header.get("fingerprint"), header.get("seed")
        if not isinstance(other, dict) or type(seed) is not int or not 0 <= seed < 2**32:
            raise ValueError(self._broken("it does not record what was trained, and from which seed"))
        ours, theirs = _flat(self.fingerprint), _flat(other)
        differ = [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]
        if differ:
            shown = "; ".join(
                name if name in ("X", "y") else f"{name}: {theirs.get(name)} in the file, {ours.get(name)} now"
                for name in differ
            )
            raise ValueError(
                f"checkpoint={str(self.path)!r} belongs to another training, which differs in {shown}. Restore these "
                "values, or choose another file; with a folder as checkpoint, each training has a file of its own."
            )

    def write(self, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        """Replace the file atomically."""
        write(self.path, KIND, {**header, "fingerprint": self.fingerprint}, arrays)


def fingerprint(
    name: str,
    parameters: dict[str, Any],
    source: RowSource,
    labels: NDArray[np.int64] | None,
    classes: NDArray[Any] | None,
) -> dict[str, Any]:
    """Collect what must agree for a training to resume: class, parameters, X, y and versions."""
    return {
        "class": name,
        "parameters": {key: _plain(value) for key, value in parameters.items() if key not in MAY_DIFFER},
        "X": digest_of_source(source),
        "y": None
        if labels is None or classes is None
        else digest_of_array(labels) + digest_of_array(classes.astype(str)),
        "versions": {"flowdetect": VERSION, "torch": torch.__version__, "format": FORMAT},
    }


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    flat = {name: value for name, value in tree.items() if not isinstance(value, dict)}
    for value in tree.values():
        flat.update(value if isinstance(value, dict) else {})
    return flat


def _plain(value: Any) -> Any:
    """Return a parameter in the form it has after JSON; an array as its digest, another non-JSON value as its type."""
    try:
        return json.loads(json.dumps(value, default=_shown))
    except ValueError:
        return repr(value)


def _shown(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return digest_of_array(value)
    return value.item() if isinstance(value, np.generic) else type(value).__name__


def _check_like(found: Any, fresh: Any, where: str) -> None:
    """Check that a value has the type it has in a fresh training; None is a count that is not known yet."""
    if isinstance(fresh, dict):
        if not isinstance(found, dict) or found.keys() != fresh.keys():
            raise TypeError(f"{where} does not hold {', '.join(fresh)}")
        for name, value in fresh.items():
            _check_like(found[name], value, f"{where}.{name}")
    elif isinstance(fresh, list):
        if not isinstance(found, list):
            raise TypeError(f"{where} is {found!r}, not a list")
        for value in found:
            if isinstance(value, bool) or not isinstance(value, int | float):  # NaN: from a failed epoch
                raise TypeError(f"{where} holds {value!r}, not a number")
    elif isinstance(fresh, bool):
        if not isinstance(found, bool):
            raise TypeError(f"{where} is {found!r}, neither true nor false")
    elif isinstance(fresh, float):
        if isinstance(found, bool) or not isinstance(found, int | float) or math.isnan(found):
            raise TypeError(f"{where} is {found!r}, not a number")
    elif not (fresh is None and found is None) and not (type(found) is int and found >= (1 if fresh is None else 0)):
        raise TypeError(f"{where} is {found!r}, not a count")
