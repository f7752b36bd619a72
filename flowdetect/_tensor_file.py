"""The file format: safetensors with a JSON header and a checksum, checked against its declarations before reading."""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from flowdetect._ctrl_c import whole_imports
from flowdetect._files import open_within, write_atomically

FORMAT, FORMATS = 2, (1, 2)
MAGIC = "flowdetect"
VERSION = version("flowdetect-ood")
MOST_BYTES = 2**32  # default limit for a file
# bytes; for smaller files the checksum is checked before the header, so that damage is reported as damage
READ_AT_ONCE = 2**24
PREVIEWED = 2**25  # bytes of a larger file's small arrays that are read before its checksum is checked
MOST_OF_HEADER, MOST_NODES = 2**24, 10**6  # bytes and brackets of a header: both bound the cost of parsing
DTYPES = {
    **{"BOOL": np.bool_, "U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64},
    **{"I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64},
    **{"F16": np.float16, "F32": np.float32, "F64": np.float64},
}


@dataclass(frozen=True)
class Declared:
    """A header's declaration of a tensor."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, array: NDArray[Any]) -> Self:
        """Return the declaration of an array."""
        return cls(array.dtype, array.shape)

    @property
    def n_bytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def placeholder(self) -> NDArray[Any]:
        """Return a read-only array of zeros with this dtype and shape, which takes no memory."""
        return np.broadcast_to(np.zeros((), self.dtype), self.shape)


def write(path: Path, kind: str, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    """Write header and arrays to a new file, which then replaces the old one.

    Raises
    ------
    OSError
        If the file cannot be written.
    ValueError
        If the header is too large for `TensorFile`.
    """
    with whole_imports():
        from safetensors.numpy import save as to_bytes

    arrays = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    text = json.dumps({**header, "format": FORMAT, "kind": kind, "version": VERSION})
    content = to_bytes(arrays, metadata={MAGIC: text, "sha256": _digest(text, arrays)})
    length = int.from_bytes(content[:8], "little")
    n_nodes = _n_nodes(content[8 : 8 + length])
    if n_nodes > MOST_NODES or length > MOST_OF_HEADER:
        raise ValueError(
            f"{str(path)!r} was not written: its header has {length} bytes and {n_nodes} lists and tables, but at most "
            f"{MOST_OF_HEADER} and {MOST_NODES} can be read back; save the members of a large ensemble one by one."
        )
    write_atomically(path, content)


class TensorFile:
    """An open file with a checked header; tensors are read on demand.

    Parameters
    ----------
    path : path
    kind : str
        The required kind of content.
    max_bytes : int or None
        None: any size, for content that is checked against its header before it is read.

    Attributes
    ----------
    header : dict
    size : int
        Size of the file in bytes.
    declared : dict of Declared
        Declarations by the tensors' names.

    Raises
    ------
    ValueError
        If the file is incomplete, not from flowdetect, of another kind or of an unknown format, or larger than
        `max_bytes`.
    OSError
        If it cannot be read.
    """

    def __init__(self, path: Path, kind: str, max_bytes: int | None = None) -> None:
        self.path = path
        self._file: BinaryIO = open_within(path, max_bytes)
        try:
            self._read_header(kind)
            self._arrays = self._read_arrays() if self.size <= READ_AT_ONCE else None
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _read_header(self, kind: str) -> None:
        size = self.size = os.fstat(self._file.fileno()).st_size
        self._start = self._file.read(8)
        length = int.from_bytes(self._start, "little")
        try:
            if len(self._start) < 8 or length > min(MOST_OF_HEADER, size - 8):
                raise ValueError
            self._start += self._file.read(length)
            tensors = _parsed(self._start[8:])
            metadata = tensors.pop("__metadata__")
            self._text, self._checksum = metadata[MAGIC], metadata["sha256"]
            self.header = _parsed(self._text)
            found_format, found_kind = self.header["format"], self.header["kind"]
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(
                f"{str(self.path)!r} is not a flowdetect file, or is incomplete; nothing was loaded."
            ) from error
        self._check_kind(found_format, found_kind, kind)
        try:
            self.declared = {name: _declared(entry) for name, entry in tensors.items()}
            self._places = {name: entry["data_offsets"][0] for name, entry in tensors.items()}
            _check_places(list(tensors.values()), size - 8 - length)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"{str(self.path)!r} is incomplete ({error}); nothing was loaded.") from error

    def _check_kind(self, found_format: Any, found_kind: Any, kind: str) -> None:
        if type(found_format) is not int or found_format not in FORMATS:
            newer = type(found_format) is int and found_format > FORMAT
            remedy = "Update flowdetect." if newer else "It is damaged; nothing was loaded."
            raise ValueError(
                f"{str(self.path)!r} has format {found_format!r}, written by flowdetect "
                f"{self.header.get('version')!r}; this is flowdetect {VERSION}, which reads {FORMATS}. {remedy}"
            )
        if found_kind != kind:
            raise ValueError(
                f"{str(self.path)!r} holds a flowdetect {found_kind}, not a flowdetect {kind}; choose another file."
            )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Read all tensors and check the checksum; for a small file this was done on opening."""
        return self._read_arrays() if self._arrays is None else self._arrays

    def previewed(self) -> dict[str, NDArray[Any]]:
        """Return the arrays before the checksum is checked: small ones as they are, large ones as placeholders."""
        if self._arrays is not None:
            return dict(self._arrays)
        found, left = {}, PREVIEWED
        for name, declared in sorted(self.declared.items(), key=lambda item: item[1].n_bytes):
            left -= declared.n_bytes
            found[name] = declared.placeholder() if left < 0 else self._read_one(declared, self._places[name])
        return found

    def _read_one(self, declared: Declared, place: int) -> NDArray[Any]:
        here = self._file.tell()
        self._file.seek(len(self._start) + place)
        content = self._file.read(declared.n_bytes)
        self._file.seek(here)
        return np.frombuffer(content, declared.dtype).reshape(declared.shape)

    def _read_arrays(self) -> dict[str, NDArray[Any]]:
        with whole_imports():
            from safetensors import SafetensorError
            from safetensors.numpy import load as from_bytes

        content = self._start + self._file.read()
        try:
            arrays: dict[str, NDArray[Any]] = from_bytes(content)
        except (SafetensorError, ValueError, KeyError) as error:
            raise ValueError(f"{str(self.path)!r} is incomplete ({error}); nothing was loaded.") from error
        if _digest(self._text, arrays) != self._checksum:
            raise ValueError(
                f"{str(self.path)!r} is corrupt: its content does not match its checksum; nothing was loaded."
            )
        return arrays


def read(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read header and arrays at once; errors as in `TensorFile`."""
    with TensorFile(path, kind) as file:
        return file.header, file.arrays()


def _parsed(text: bytes | str) -> dict[str, Any]:
    if _n_nodes(text) > MOST_NODES:
        raise ValueError
    found = json.loads(text)
    if not isinstance(found, dict):
        raise TypeError
    return found


def _n_nodes(text: bytes | str) -> int:
    encoded = text if isinstance(text, bytes) else text.encode()
    return encoded.count(b"[") + encoded.count(b"{")


def _declared(entry: dict[str, Any]) -> Declared:
    shape = entry["shape"]
    if entry["dtype"] not in DTYPES or not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError(f"a tensor of {entry['dtype']!r} and shape {shape}")
    found = Declared(np.dtype(DTYPES[entry["dtype"]]), tuple(shape))
    start, end = entry["data_offsets"]
    if end - start != found.n_bytes:
        raise ValueError(f"a tensor of shape {shape} in {end - start} bytes")
    return found


def _check_places(entries: list[dict[str, Any]], size: int) -> None:
    """Check that the tensors fill the file without gaps or overlaps."""
    reached = 0
    for start, end in sorted(tuple(entry["data_offsets"]) for entry in entries):
        if start != reached or end < start:
            raise ValueError(f"tensors overlap or leave a gap at byte {reached}")
        reached = end
    if reached != size:
        raise ValueError(f"{reached} bytes of tensors are declared, but the file has {size}")


def _digest(text: str, arrays: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        digest.update(f"{name}{arrays[name].dtype}{arrays[name].shape}".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()
