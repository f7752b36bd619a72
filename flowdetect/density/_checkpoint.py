"""Checkpoints: the state of a training in one file, with a fingerprint of what is trained."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flowdetect import _persistence
from flowdetect.density.source import RowSource, chunks

KIND = "checkpoint"
MAY_DIFFER = {"max_epochs", "verbose", "device", "checkpoint"}


class Checkpoint:
    """A checkpoint file and what an earlier run left in it.

    Parameters
    ----------
    path : str or path
    fingerprint : dict
        Of what is to be trained, as `fingerprint` gives it.

    Attributes
    ----------
    found : dict or None
        The header that an earlier run of the same training left; None: there is no file.
    arrays : dict of arrays

    Raises
    ------
    ValueError
        If the file is no checkpoint of ours, is not whole, or belongs to another training; it says what differs.
    OSError
        If the file cannot be read, or its folder not be written to.
    """

    def __init__(self, path: Any, fingerprint: dict[str, Any]) -> None:
        try:
            self.path = Path(os.fspath(path))
        except TypeError:
            raise ValueError(f"checkpoint must be a path or None, got {path!r}.") from None
        self.fingerprint = fingerprint
        self.found: dict[str, Any] | None = None
        self.arrays: dict[str, NDArray[Any]] = {}
        if self.path.exists():
            self.found, self.arrays = _persistence.read(self.path, KIND)
            self._compare(self.found["fingerprint"])
        elif not os.access(self.path.parent, os.W_OK | os.X_OK):
            raise OSError(
                f"checkpoint={str(self.path)!r} cannot be written: its folder does not exist or is not writable."
            )

    def _compare(self, other: dict[str, Any]) -> None:
        ours = _flat(self.fingerprint)
        theirs = _flat(other)
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
        _persistence.write(self.path, KIND, {**header, "fingerprint": self.fingerprint}, arrays)


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
        "X": digest(source),
        "y": None if labels is None or classes is None else _digest(labels) + _digest(classes.astype(str)),
        "versions": {"flowdetect": _persistence.VERSION, "torch": torch.__version__, "format": _persistence.FORMAT},
    }


def digest(source: RowSource) -> str:
    """Hash all rows of a source, with their shape and dtype, a few at a time."""
    found = hashlib.sha256()
    for start, rows in chunks(source):
        if start == 0:
            found.update(f"{len(source)}{rows.shape[1:]}{rows.dtype}".encode())
        found.update(np.ascontiguousarray(rows).data)
    return found.hexdigest()


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    flat = {name: value for name, value in tree.items() if not isinstance(value, dict)}
    for value in tree.values():
        flat.update(value if isinstance(value, dict) else {})
    return flat


def _plain(value: Any) -> Any:
    """Give a parameter as JSON gives it back; what JSON does not know is named by its type."""
    try:
        return json.loads(
            json.dumps(value, default=lambda v: v.item() if isinstance(v, np.generic) else type(v).__name__)
        )
    except ValueError:
        return repr(value)


def _digest(array: NDArray[Any]) -> str:
    array = np.ascontiguousarray(array)
    return hashlib.sha256(f"{array.shape}{array.dtype}".encode() + array.tobytes()).hexdigest()
