"""Checkpoints: the state of a training in one file, with a fingerprint of what is trained."""

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
    """The form of a training's state: what a checkpoint must hold so that this training can go on from it.

    Attributes
    ----------
    header : dict
        Of this training before its first step.
    arrays : dict of dicts of Declared
        By group and name; "model" and "average" must be there, each group present must be whole.
    most : dict of int
        The largest values of some counters.
    constants : dict of arrays
        By name: what training does not change, such as permutations.
    """

    header: dict[str, Any]
    arrays: dict[str, dict[str, Declared]]
    most: dict[str, int]
    constants: dict[str, NDArray[Any]]

    @classmethod
    def of(
        cls, header: dict[str, Any], arrays: dict[str, NDArray[Any]], parameters: Iterable[Tensor], *, n_batches: int
    ) -> Form:
        """Make it of the state of a training before its first step; Adam keeps two moments of each parameter."""
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
        """Raise ValueError, TypeError or KeyError unless the state of a file has this form."""
        for name, fresh in self.header.items():
            if name in header or name not in OPTIONAL:
                _check_like(header[name], fresh, name)
        for name, most in self.most.items():
            if header[name] > most:
                raise ValueError(f"{name} is {header[name]}, at most {most} here")
        if any(len(column) not in (0, header["epoch"]) for column in header["history"].values()):
            raise ValueError(f"its history is not that of {header['epoch']} epochs")
        found: dict[str, dict[str, Declared]] = {"model": {}, "average": {}}
        for name, value in declared.items():
            group, _, within = name.partition("/")
            found.setdefault(group, {})[within] = value
        for group, values in found.items():
            if values != self.arrays.get(group):
                raise ValueError(f"its arrays {group!r} are not those of this model")


class Checkpoint:
    """A checkpoint file, locked, and what an earlier run left in it.

    Parameters
    ----------
    path : str or path
    fingerprint : dict
        Of what is to be trained, as `fingerprint` gives it.

    Attributes
    ----------
    found : dict or None
        The header that an earlier run of the same training left; None: there is no file.

    Raises
    ------
    ValueError
        If the file is no checkpoint of ours, is not whole, or belongs to another training; it says what differs.
    BlockingIOError
        If another training has the file.
    OSError
        If the file cannot be read, or its folder not be written to.
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
        """Let another training have the file."""
        self._lock.release()

    def read(self, form: Form) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Read what an earlier run left: header and arrays, compared with the form that they must have.

        Raises
        ------
        ValueError
            If training could not go on from them.
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
                raise ValueError(self._broken(f"its {name!r} is not finite, or is not this model's"))
        return header, arrays

    def read_one(self, name: str, is_right: Callable[[NDArray[Any]], bool]) -> NDArray[Any]:
        """Read one array that an earlier run left, of which something can be said."""
        with TensorFile(self.path, KIND) as file:
            found = file.arrays().get(name)
        if found is None or not is_right(found):
            raise ValueError(self._broken(f"its {name!r} is not one of this model"))
        return found.copy()

    def _broken(self, what: str) -> str:
        return (
            f"Training cannot continue from checkpoint={str(self.path)!r}: {what}. Remove it to train anew, or choose "
            f"another file."
        )

    def _compare(self, header: dict[str, Any]) -> None:
        other, seed = header.get("fingerprint"), header.get("seed")
        if not isinstance(other, dict) or type(seed) is not int or not 0 <= seed < 2**32:
            raise ValueError(self._broken("it does not say what was trained, and from which seed"))
        ours, theirs = _flat(self.fingerprint), _flat(other)
        differ = [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]
        if differ:
            shown = "; ".join(
                name if name in ("X", "y") else f"{name}: {theirs.get(name)} there, {ours.get(name)} here"
                for name in differ
            )
            raise ValueError(
                f"checkpoint={str(self.path)!r} belongs to another training, which differs in {shown}. Restore these, "
                f"or choose another file; with a folder as checkpoint each training has a file of its own, as in a "
                f"search."
            )

    def write(self, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        """Replace the file, atomically."""
        write(self.path, KIND, {**header, "fingerprint": self.fingerprint}, arrays)


def fingerprint(
    name: str,
    parameters: dict[str, Any],
    source: RowSource,
    labels: NDArray[np.int64] | None,
    classes: NDArray[Any] | None,
) -> dict[str, Any]:
    """Collect what must agree for a training to go on: class, parameters, X, y and versions."""
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
    """Give a parameter as JSON gives it back, to be shown; an array by its digest, what else JSON lacks by its type."""
    try:
        return json.loads(json.dumps(value, default=_shown))
    except ValueError:
        return repr(value)


def _shown(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return digest_of_array(value)
    return value.item() if isinstance(value, np.generic) else type(value).__name__


def _check_like(found: Any, fresh: Any, where: str) -> None:
    """Demand a value of the kind of that of a fresh training; None stands for a count that is not known yet."""
    if isinstance(fresh, dict):
        if not isinstance(found, dict) or found.keys() != fresh.keys():
            raise TypeError(f"{where} does not hold {', '.join(fresh)}")
        for name, value in fresh.items():
            _check_like(found[name], value, f"{where}.{name}")
    elif isinstance(fresh, list):
        if not isinstance(found, list):
            raise TypeError(f"{where} is {found!r}, not a list")
        for value in found:
            if isinstance(value, bool) or not isinstance(value, int | float):  # NaN is what a broken epoch leaves
                raise TypeError(f"{where} holds {value!r}, not a number")
    elif isinstance(fresh, bool):
        if not isinstance(found, bool):
            raise TypeError(f"{where} is {found!r}, neither true nor false")
    elif isinstance(fresh, float):
        if isinstance(found, bool) or not isinstance(found, int | float) or math.isnan(found):
            raise TypeError(f"{where} is {found!r}, not a number")
    elif not (fresh is None and found is None) and not (type(found) is int and found >= (1 if fresh is None else 0)):
        raise TypeError(f"{where} is {found!r}, not a count")
