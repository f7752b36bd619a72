"""Files of a Parquet table, each read in order from any row group; pyarrow is imported inside functions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from flowdetect._limits import short
from flowdetect.datasets._arrow import import_pyarrow

ENDINGS = (".parquet", ".parq", ".pq")
BUFFER_BYTES = 2**16  # of one column, read at a time
WHAT_PATH_IS = (
    "path must be a Parquet file, a list of these, a folder of these, or a Table, RecordBatch or Dataset of pyarrow"
)


class Piece(Protocol):
    """Rows that are read in order, from the start of any row group."""

    name: str
    schema: Any
    group_rows: list[int]  # rows of each group

    def batches(self, group: int, columns: list[str], n_rows: int) -> Iterator[Any]:
        """Read from a group to the end, as tables of at most `n_rows` rows."""


class FilePiece:
    """A Parquet file, with the columns from its folder names."""

    def __init__(self, path: Path, keys: dict[str, Any] | None = None) -> None:
        pyarrow = import_pyarrow()
        self.name, self._path, self._keys = str(path), path, keys or {}
        with _named(self.name), _opened(path) as file:
            self.group_rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            self.schema = file.schema_arrow
        for key, value in self._keys.items():
            if key not in self.schema.names:
                self.schema = self.schema.append(pyarrow.field(key, pyarrow.scalar(value).type))

    def batches(self, group: int, columns: list[str], n_rows: int) -> Iterator[Any]:
        """Read from a row group to the end."""
        pyarrow = import_pyarrow()
        with _named(self.name), _opened(self._path) as file:
            stored = [name for name in columns if name in file.schema_arrow.names]
            groups = range(group, file.num_row_groups)
            for batch in file.iter_batches(n_rows, row_groups=groups, columns=stored):
                table = pyarrow.Table.from_batches([batch])
                for key in columns:
                    if key not in stored:
                        table = table.append_column(key, pyarrow.repeat(self._keys[key], table.num_rows))
                yield table


class DatasetPiece:
    """A Dataset of pyarrow."""

    def __init__(self, dataset: Any) -> None:
        self.name, self._dataset, self.schema = f"the {type(dataset).__name__}", dataset, dataset.schema
        with _named(self.name):
            self.group_rows = [dataset.count_rows()]

    def batches(self, group: int, columns: list[str], n_rows: int) -> Iterator[Any]:
        """Read all."""
        pyarrow = import_pyarrow()
        with _named(self.name):
            for batch in self._dataset.to_batches(columns=columns, batch_size=n_rows, batch_readahead=1):
                yield pyarrow.Table.from_batches([batch])


def pieces_of(path: Any) -> list[Piece]:
    """Return the pieces of a user's `path` argument.

    Raises
    ------
    TypeError, ValueError, OSError
        If it has no rows or cannot be read; the message says what to pass.
    """
    if type(path).__module__.startswith("pyarrow") and hasattr(path, "count_rows"):
        return [DatasetPiece(path)]
    if isinstance(path, str | os.PathLike):
        found = Path(path)
        if found.is_dir():
            return _of_folder(found)
        return [FilePiece(_existing(found))]
    if isinstance(path, bytes | dict) or not isinstance(path, Sequence):
        raise TypeError(f"{WHAT_PATH_IS}, got {short(path)} of type {type(path).__name__}.")
    others = [each for each in path if not isinstance(each, str | os.PathLike)]
    if others or not path:
        raise TypeError(f"{WHAT_PATH_IS}, got a list of {short(others[0]) if others else 'nothing'}.")
    return [FilePiece(_existing(Path(each))) for each in path]


def _existing(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{WHAT_PATH_IS}, got {str(path)!r}, which does not exist; correct the name.")
    if not path.is_file():
        raise OSError(f"{WHAT_PATH_IS}, got {str(path)!r}, which is no regular file.")
    return path


def _of_folder(folder: Path) -> list[Piece]:
    """Find the files of a folder in alphabetical order, with the values of subfolders `key=value`."""
    files = sorted(
        Path(name, file)
        for name, _, names in os.walk(folder)
        for file in names
        if file.lower().endswith(ENDINGS) and not file.startswith((".", "_"))
    )
    if not files:
        raise ValueError(
            f"load_parquet found no file in {str(folder)!r} whose name ends in {', '.join(ENDINGS)}; correct the name, "
            f"or pass a list of the files."
        )
    keys = _keys_of(folder, files)
    return [FilePiece(file, keys.get(str(file))) for file in files]


def _keys_of(folder: Path, files: list[Path]) -> dict[str, dict[str, Any]]:
    if not any("=" in part for file in files for part in file.relative_to(folder).parts[:-1]):
        return {}
    import pyarrow.dataset as datasets

    with _named(str(folder)):
        table = datasets.dataset(
            list(map(str, files)), format="parquet", partitioning="hive", partition_base_dir=str(folder)
        )
        return {piece.path: datasets.get_partition_keys(piece.partition_expression) for piece in table.get_fragments()}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from pyarrow import parquet

    with parquet.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER_BYTES) as file:
        yield file


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Add the file's name to errors of pyarrow."""
    pyarrow = import_pyarrow()
    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        told = f"{name} cannot be read as Parquet: {error}; write it again, or leave it out."
        if isinstance(error, OSError) and error.errno is not None:  # an error of the system, not of the content
            raise type(error)(error.errno, told) from error
        raise ValueError(told) from error
