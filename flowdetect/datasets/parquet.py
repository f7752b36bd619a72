"""Tables of Parquet files and of Arrow, read when needed."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowdetect._limits import check_count
from flowdetect._sources import Source
from flowdetect.datasets._arrow import check_same, chosen_columns, dtype_of, import_pyarrow, to_labels, to_rows
from flowdetect.datasets._pieces import WHAT_PATH_IS, Piece, pieces_of
from flowdetect.datasets._row_store import RowsInMemory, RowsOnDisk, RowStore

BATCH_BYTES, MOST_BATCH_ROWS = 2**22, 2**16  # decoded at a time
SPARSE = 4  # rows are read in order if they are at least one in SPARSE of the rows of their range


def load_parquet(
    path: Any, *, columns: Sequence[str] | None = None, y: str | None = None, cache_bytes: int = 2**28
) -> Source:
    """Open a table of Parquet files, or an Arrow table in memory, as rows of numbers that are read when needed.

    Densities, detectors and reports accept the result in place of an array. It needs pyarrow: ``pip install
    'flowdetect-ood[parquet]'``.

    Parameters
    ----------
    path : str, path, list of these, or pyarrow Table, RecordBatch or Dataset
        A file; a list of files, in this order; or a folder, which is searched with all subfolders in alphabetical order
        for names that end in .parquet, .parq or .pq. Each subfolder named ``key=value`` adds a column.
    columns : list of str or None, default=None
        The columns that make a row, in this order. None: all except `y`.
    y : str or None, default=None
        A column of labels: whole numbers, booleans or text. It is read immediately and kept in memory.
    cache_bytes : int, default=2**28
        For reading in random order the rows are stored once: in memory if they take at most this many bytes, else in a
        temporary file.

    Returns
    -------
    source : Source
        Rows of shape (D,), float32 if all columns are floats of at most 32 bits, else float64; `columns` has their
        names.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    TypeError, ValueError
        If a parameter is not as documented, if a column holds no numbers, or if a file is damaged.
    OSError
        If a file is missing or cannot be opened.

    Notes
    -----
    Integers, booleans (0 and 1) and decimals become float64; whole numbers beyond 2**53 are rounded. Null becomes NaN,
    for which densities raise an error with its row and column.

    Scoring reads rows in order; they are decoded in parts of a few MB, whatever the size of the row groups. Training
    reads rows in random order, for which Parquet would have to decode all row groups for every batch. The first such
    read therefore stores all rows once in a temporary file, ``flowdetect-rows-...`` in the folder that the environment
    variable ``TMPDIR`` names, with 8 bytes for each number. Batches are then as random as those of an array in memory.
    The file is removed with the source, or when Python ends; a killed process leaves it behind.

    Threads may read at the same time. A pickled source contains the names of the files, but not the rows.

    Examples
    --------
    >>> import numpy as np, pyarrow as pa
    >>> from flowdetect import load_parquet
    >>> table = pa.table({"age": [31, 45], "income": [2.5, None], "kind": ["a", "b"]})
    >>> rows = load_parquet(table, columns=["age", "income"], y="kind")
    >>> rows.columns, rows.array().tolist(), rows.y.tolist()
    (['age', 'income'], [[31.0, 2.5], [45.0, nan]], ['a', 'b'])
    """
    pyarrow = import_pyarrow()
    check_count("cache_bytes", cache_bytes, 0, 2**40)
    if isinstance(path, pyarrow.RecordBatch):
        path = pyarrow.Table.from_batches([path])
    if isinstance(path, pyarrow.Table):
        return ArrowTable(path, columns, y)
    if isinstance(path, pyarrow.RecordBatchReader):
        raise TypeError(f"{WHAT_PATH_IS}, got a RecordBatchReader, whose rows come once; pass path.read_all().")
    return ParquetTable(pieces_of(path), columns, y, cache_bytes)


class ArrowTable(Source):
    """Rows of an Arrow table in memory; :func:`load_parquet` returns it.

    Attributes
    ----------
    row_shape : (D,)
    dtype : float64 or float32
    columns : list of str
    y : (n,) array of labels, or None

    Examples
    --------
    >>> import pyarrow as pa
    >>> from flowdetect import load_parquet
    >>> rows = load_parquet(pa.table({"age": [31, 45], "kind": ["a", "b"]}), columns=["age"])
    >>> type(rows).__name__, rows.shape, rows[1:].array().tolist()
    ('ArrowTable', (2, 1), [[45.0]])
    """

    def __init__(self, table: Any, columns: Sequence[str] | None, y: str | None) -> None:
        self.columns = chosen_columns(table.schema, columns, y)
        self.row_shape, self.dtype = (len(self.columns),), dtype_of([table.schema], self.columns)
        self.y = None if y is None else to_labels(table.column(y), y)
        self._table = table.select(self.columns)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def read(self, indices: NDArray[np.intp]) -> NDArray[Any]:
        """Read rows by index, (k, D)."""
        if len(indices) and (np.diff(indices) == 1).all():
            part = self._table.slice(int(indices[0]), len(indices))
        else:
            part = self._table.take(import_pyarrow().array(indices))
        return to_rows(part, self.columns or [], self.dtype)


class ParquetTable(Source):
    """Rows of Parquet files; :func:`load_parquet` returns it.

    Attributes
    ----------
    row_shape : (D,)
    dtype : float64 or float32
    columns : list of str
    y : (n,) array of labels, or None

    Examples
    --------
    >>> import tempfile
    >>> import pyarrow as pa
    >>> from pyarrow import parquet
    >>> from flowdetect import load_parquet
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     parquet.write_table(pa.table({"age": [31, 45]}), f"{folder}/rows.parquet")
    ...     rows = load_parquet(folder)
    ...     type(rows).__name__, rows.columns, rows.array().tolist()
    ('ParquetTable', ['age'], [[31.0], [45.0]])
    """

    columns: list[str]
    _store: RowStore | None
    _stream: Iterator[tuple[int, NDArray[Any]]]
    _buffer: tuple[int, NDArray[Any]]

    def __init__(self, pieces: Sequence[Piece], columns: Sequence[str] | None, y: str | None, cache_bytes: int) -> None:
        first = pieces[0]
        self.columns = chosen_columns(first.schema, columns, y)
        for piece in pieces[1:]:
            check_same(piece.schema, self.columns, y, piece.name, first.name)
        schemas = [piece.schema for piece in pieces]
        self.row_shape, self.dtype = (len(self.columns),), dtype_of(schemas, self.columns)
        self._pieces, self._cache_bytes = list(pieces), cache_bytes
        # first row of each group, and its (piece, group) numbers
        rows = [n for piece in pieces for n in piece.group_rows]
        self._group_starts = np.concatenate([[0], np.cumsum(rows, dtype=np.intp)])
        self._groups = [(p, g) for p, piece in enumerate(pieces) for g in range(len(piece.group_rows))]
        self._batch_rows = int(np.clip(BATCH_BYTES // (8 * len(self.columns)), 1, MOST_BATCH_ROWS))
        self.y = None if y is None else self._labels(y)
        self._begin()

    def __len__(self) -> int:
        return int(self._group_starts[-1])

    def read(self, indices: NDArray[np.intp]) -> NDArray[Any]:
        """Read rows by index, (k, D)."""
        if not len(indices):
            return np.empty((0, *self.row_shape), self.dtype)
        if self._store is None:
            low, high = int(indices.min()), int(indices.max()) + 1
            with self._lock:
                if self._store is None and self._is_read_in_order(high - low, len(indices)):
                    return self._between(low, high, len(indices))[indices - low]
                if self._store is None:
                    self._store = self._written_down()
                    self._stream = iter(())  # the generator refers to self, and would keep the file alive
        store = self._store
        try:
            return store.read(indices)
        except FileNotFoundError:  # the file belonged to the object that this one is a copy of, and was removed with it
            with self._lock:
                self._store = None if self._store is store else self._store
            return self.read(indices)

    # ---- rows in order

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._store = None
        self._n_wasted = 0  # rows decoded for reads that needed few of them
        self._go_to(0)

    def _go_to(self, group: int) -> None:
        """Continue decoding at the first row of a group."""
        start = int(self._group_starts[group])
        self._stream = self._numbered(group, start)
        self._buffer = (
            start,
            np.empty((0, *self.row_shape), self.dtype),
        )  # the last decoded rows, and the index of the first of them

    def _numbered(self, group: int, start: int) -> Iterator[tuple[int, NDArray[Any]]]:
        for table in self._decoded(group, self.columns):
            rows = to_rows(table, self.columns, self.dtype)
            yield start, rows
            start += len(rows)

    def _decoded(self, group: int, columns: list[str]) -> Iterator[Any]:
        """Decode all rows from a group to the end, a few MB at a time."""
        if group >= len(self._groups):
            return
        first, g = self._groups[group]
        for piece in self._pieces[first:]:
            if g < len(piece.group_rows):
                yield from piece.batches(g, columns, self._batch_rows)
            g = 0

    def _between(self, low: int, high: int, n_asked: int) -> NDArray[Any]:
        """Read rows low .. high - 1, continuing from the end of the last read if they lie ahead."""
        group = int(np.searchsorted(self._group_starts, low, side="right")) - 1
        if low < self._buffer[0] or self._group_starts[group] > self._buffer[0] + len(self._buffer[1]):
            self._go_to(group)
        found = np.empty((high - low, *self.row_shape), self.dtype)
        n_decoded = 0
        try:
            while True:
                start, rows = self._buffer
                end = start + len(rows)
                if end > low:
                    a, b = max(low, start), min(high, end)
                    found[a - low : b - low] = rows[a - start : b - start]
                if end >= high:
                    break
                self._buffer = self._next(end)
                n_decoded += len(self._buffer[1])
        except BaseException:  # also Ctrl-C: rows of the stream may be lost
            self._go_to(0)
            raise
        if SPARSE * n_asked < n_decoded:
            self._n_wasted += n_decoded - n_asked
        return found

    def _next(self, end: int) -> tuple[int, NDArray[Any]]:
        """Decode the rows after row end - 1."""
        start, rows = next(self._stream, (-1, None))
        if rows is None or start != end:
            raise self._changed(end)
        return start, rows

    def _changed(self, n_rows: int) -> ValueError:
        return ValueError(
            f"The files of a table must stay as they were when it was opened, with {len(self)} rows, got {n_rows} from "
            f"{self._pieces[0].name} to {self._pieces[-1].name}; open the table again."
        )

    def _labels(self, y: str) -> NDArray[Any]:
        parts, start = [], 0
        for batch in self._decoded(0, [y]):
            parts.append(to_labels(batch.column(y), y, start))
            start += len(parts[-1])
        return np.concatenate(parts) if parts else np.empty(0, dtype=str)

    # ---- rows in any order

    def _is_read_in_order(self, span: int, n_asked: int) -> bool:
        """Whether to read `n_asked` rows by decoding the whole range of `span` rows."""
        is_dense = span <= max(SPARSE * n_asked, self._batch_rows)
        return is_dense and self._n_wasted <= len(self)

    def _written_down(self) -> RowStore:
        """Decode all rows once, and store them for reading in any order."""
        shape = (len(self), len(self.columns))
        kind = RowsInMemory if int(np.prod(shape)) * self.dtype.itemsize <= self._cache_bytes else RowsOnDisk
        return kind(self._all(), shape, self.dtype)

    def _all(self) -> Iterator[NDArray[Any]]:
        end = 0
        for start, rows in self._numbered(0, 0):
            end = start + len(rows)
            if end > len(self):
                break
            yield rows
        if end != len(self):
            raise self._changed(end)

    def __getstate__(self) -> dict[str, Any]:
        left = ("_lock", "_stream", "_buffer", "_n_wasted")
        state = {name: value for name, value in self.__dict__.items() if name not in left}
        state["_store"] = self._store if isinstance(self._store, RowsOnDisk) else None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()
        store = state["_store"]
        self._store = store if store is not None and store.is_there() else None
