"""Writing of outputs: tables part by part, pages and pictures; a file appears only when it is complete."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from flowdetect._files import as_path, check_writable, replacing
from flowdetect.commands.inputs import is_same_file

if TYPE_CHECKING:
    import pandas as pd

STDOUT = "-"


def output_path(name: str, endings: Sequence[str], inputs: Sequence[str]) -> Path:
    """Return the path of an output, or raise if it cannot be written or would replace an input."""
    if not name.lower().endswith(tuple(endings)):
        raise ValueError(f"-o must end in {', '.join(endings)}, got {name!r}; choose one of these")
    path = as_path(name, "-o")
    for each in inputs:
        if is_same_file(path, each):
            raise ValueError(f"-o must be another file than the inputs, got {name!r} as both; choose another name")
    check_writable(path, "-o")
    return path


@contextmanager
def table_writer(path: Path | None) -> Iterator[TextWriter | ParquetWriter]:
    """Yield a writer of frames; None is standard output, as CSV."""
    if path is None:
        sys.stdout.flush()
        yield TextWriter(sys.stdout.buffer if hasattr(sys.stdout, "buffer") else _Encoded(), ".csv")
        sys.stdout.flush()
        return
    ending = path.suffix.lower()
    with replacing(path) as file:
        writer = ParquetWriter(file) if ending == ".parquet" else TextWriter(file, ending)
        yield writer
        writer.close()


class TextWriter:
    """Write frames as CSV with a header, or as one JSON object in each line; numbers keep all their digits."""

    def __init__(self, file: Any, ending: str) -> None:
        self._file, self._as_json, self._is_first = file, ending == ".jsonl", True

    def write(self, frame: pd.DataFrame) -> None:
        """Append the rows of a frame."""
        if self._as_json:
            columns = [frame[name].tolist() for name in frame.columns]
            rows = (dict(zip(frame.columns, row, strict=True)) for row in zip(*columns, strict=True))
            text = "".join(json.dumps(row) + "\n" for row in rows)
        else:
            text = frame.to_csv(index=False, header=self._is_first, lineterminator="\n")
        self._file.write(text.encode())
        self._is_first = False

    def close(self) -> None:
        """Do nothing: all rows have been written."""


class ParquetWriter:
    """Write frames as row groups of a Parquet file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._writer: Any = None

    def write(self, frame: pd.DataFrame) -> None:
        """Append the rows of a frame."""
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter as Writer

        table = pa.Table.from_pandas(frame, preserve_index=False)
        if self._writer is None:
            self._writer = Writer(self._file, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        """Write the footer of the file."""
        if self._writer is not None:
            self._writer.close()


class _Encoded:
    """Writer of bytes to a standard output that takes only text."""

    def write(self, content: bytes) -> None:
        sys.stdout.write(content.decode())


def need_pyarrow(path: Path | None) -> None:
    """Raise if a Parquet file is to be written without pyarrow."""
    if path is None or path.suffix.lower() != ".parquet":
        return
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{str(path)!r} must be written by pyarrow, which is not installed: pip install 'flowdetect-ood[parquet]', "
            f"or choose .csv"
        ) from error
