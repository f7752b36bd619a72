"""NumPy archives of unknown origin: read without pickle, after a check of headers and sizes."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

MOST_UNCHECKED, MOST_COMPRESSED = 2**24, 100  # bytes of a member; above that, the largest ratio to its compressed bytes


def members_of(file: BinaryIO) -> dict[str, Callable[[], NDArray[Any]]]:
    """Return a function for each array of an open .npz file that reads the array.

    Raises
    ------
    BadZipFile
        If it is not an archive.
    ValueError
        When an array is read whose size differs from its header, or that holds Python objects.
    """
    if not zipfile.is_zipfile(file):
        raise zipfile.BadZipFile("not an .npz archive")
    archive = zipfile.ZipFile(file)
    return {entry.filename.removesuffix(".npy"): partial(_read_member, archive, entry) for entry in archive.infolist()}


def _read_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    if entry.file_size > max(MOST_UNCHECKED, MOST_COMPRESSED * entry.compress_size):
        raise ValueError(f"{entry.filename} unpacks to {entry.file_size} bytes, suspiciously many")
    with archive.open(entry) as member:
        version = np.lib.format.read_magic(member)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(member)
        declared, there = math.prod(shape) * dtype.itemsize, entry.file_size - member.tell()
    if dtype.hasobject or declared != there or min(shape, default=0) < 0:
        raise ValueError(f"{entry.filename} declares {dtype} of shape {shape}, and has {there} bytes")
    with archive.open(entry) as member:
        return np.asarray(np.lib.format.read_array(member, allow_pickle=False))
