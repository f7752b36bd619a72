"""Rows stored once, in memory or in a temporary file, for reading in any order."""

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
        """Return rows in the order of the indices."""


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
    """Rows in a temporary file, which is removed with this object.

    The rows are read with system calls. A memory map would count as memory of the process, and after a pass in random
    order hold the whole file.

    Raises
    ------
    OSError
        If the folder for temporary files has too little space.
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
        breaks = (
            np.flatnonzero(np.diff(indices) != 1) + 1
        )  # boundaries of runs of consecutive rows, each read in one call
        starts = np.concatenate([[0], breaks, [len(indices)]]) * width
        with open(self.path, "rb", buffering=0) as file:
            for place, start, end in zip(
                (indices[starts[:-1] // width] * width).tolist(), starts[:-1].tolist(), starts[1:].tolist(), strict=True
            ):
                file.seek(place)
                _fill(file, into[start:end])
        return rows

    def is_there(self) -> bool:
        """Whether the file is complete and on this machine; this object may be a copy from another one."""
        return self.path.is_file() and self.path.stat().st_size == np.prod(self._shape) * self._dtype.itemsize

    def _check_room(self) -> None:
        folder = tempfile.gettempdir()
        needed, free = int(np.prod(self._shape)) * self._dtype.itemsize, shutil.disk_usage(folder).free
        if needed > free:
            raise OSError(
                f"To be read in random order, the rows need {needed / 1e9:.1f} GB in the folder for temporary files, "
                f"and {folder!r} has {free / 1e9:.1f} GB free; name another in the environment variable TMPDIR."
            )


def _fill(file: Any, into: memoryview) -> None:
    while len(into):
        n = file.readinto(into)
        if not n:
            raise OSError(f"{file.name} ends too early, because another program has changed it; open the table again.")
        into = into[n:]


def _remove(name: str, maker: int) -> None:
    if os.getpid() == maker:  # not in a process forked from it
        Path(name).unlink(missing_ok=True)
