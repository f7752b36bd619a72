"""Rows laid down once, in memory or in a temporary file, so that any of them can be read at any time."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

PREFIX = "flowdetect-rows-"


class RowStore(Protocol):
    """Rows by index, (k, D)."""

    def read(self, indices: NDArray[np.intp]) -> NDArray[Any]:
        """Return rows in the order asked for."""


class RowsInMemory:
    """Rows of an array."""

    def __init__(self, parts: Iterable[NDArray[Any]], shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self._array = np.empty(shape, dtype)
        start = 0
        for part in parts:
            self._array[start : start + len(part)] = part
            start += len(part)

    def read(self, indices: NDArray[np.intp]) -> NDArray[Any]:
        return self._array[indices]


class RowsOnDisk:
    """Rows of a temporary file, one after the other, which is removed when its maker ends.

    They are read by calls, not by a memory map: pages of a map count as memory of the process, and a pass over random
    rows would come to hold them all.

    Raises
    ------
    OSError
        If the folder of temporary files has too little room.
    """

    def __init__(self, parts: Iterable[NDArray[Any]], shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self._shape, self._dtype = shape, dtype
        self._check_room()
        handle, name = tempfile.mkstemp(prefix=PREFIX)
        self.path = Path(name)
        remove = weakref.finalize(self, _remove, name, os.getpid())
        try:
            with open(handle, "wb") as file:
                for part in parts:
                    file.write(np.ascontiguousarray(part).data)
        except BaseException:
            remove()
            raise

    def read(self, indices: NDArray[np.intp]) -> NDArray[Any]:
        n_columns = self._shape[1]
        rows = np.empty((len(indices), n_columns), self._dtype)
        if not rows.size:
            return rows
        into, width = rows.data.cast("B"), n_columns * self._dtype.itemsize
        breaks = np.flatnonzero(np.diff(indices) != 1) + 1  # of runs, which are read at once
        starts = np.concatenate([[0], breaks, [len(indices)]]) * width
        with open(self.path, "rb", buffering=0) as file:
            for place, start, end in zip(
                (indices[starts[:-1] // width] * width).tolist(), starts[:-1].tolist(), starts[1:].tolist(), strict=True
            ):
                file.seek(place)
                _fill(file, into[start:end])
        return rows

    def is_there(self) -> bool:
        """Whether the file is on this machine, whole: a copy of this object may have travelled."""
        return self.path.is_file() and self.path.stat().st_size == np.prod(self._shape) * self._dtype.itemsize

    def _check_room(self) -> None:
        folder = tempfile.gettempdir()
        needed, free = int(np.prod(self._shape)) * self._dtype.itemsize, shutil.disk_usage(folder).free
        if needed > free:
            raise OSError(
                f"The rows must fit into the folder of temporary files to be read at random, {needed / 1e9:.1f} GB, "
                f"and {folder!r} has {free / 1e9:.1f} GB free; name another in the environment variable TMPDIR."
            )


def _fill(file: Any, into: memoryview) -> None:
    while len(into):
        n = file.readinto(into)
        if not n:
            raise OSError(f"{file.name} ends too early: something else has changed it.")
        into = into[n:]


def _remove(name: str, maker: int) -> None:
    if os.getpid() == maker:  # not in a process forked from it
        Path(name).unlink(missing_ok=True)
