"""Readers of tables: text with separators, and Parquet."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowdetect._files import open_within
from flowdetect.commands.readers import NUMBERS, Reader, Settings, check_cells, some

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

SEPARATORS = {".csv": ",", ".tsv": "\t"}
LONGEST_HEADER = 2**24  # bytes
MOST_CHECKED = 2**24  # cells that are checked by one more pass before training
REMEDY = "leave the column out with --drop, or turn it into numbers (skrub's TableVectorizer does, in Python)"


class TextTable(Reader):
    """A table of text whose first line names the columns."""

    def __init__(self, path: Path, name: str, settings: Settings) -> None:
        self.path, self.name, self.label = path, name, settings.label
        self._separator = settings.separator or SEPARATORS[path.suffix.lower()]
        self._all = _header(path, name, self._separator)
        self.columns = chosen_columns(self._all, name, settings)
        self.row_shape = (len(self.columns),)

    def parts(self) -> Iterator[NDArray[Any]]:
        start = 0
        for frame in self._frames(self.columns or [], self.part_rows):
            yield _numbers(frame, start, self.name)
            start += len(frame)
        _check_rows(start, self.name)

    def whole(self) -> pd.DataFrame:
        import pandas as pd

        label = [] if self.label is None else [self.label]
        rows: list[pd.DataFrame] = []
        labels: list[pd.DataFrame] = []
        start = 0
        for frame in self._frames([*(self.columns or []), *label], self.part_rows):
            rows.append(pd.DataFrame(_numbers(frame[self.columns], start, self.name), columns=self.columns))
            labels.append(frame[label])
            start += len(frame)
        _check_rows(start, self.name)
        if label:
            self.labels = checked_labels(pd.concat(labels)[label[0]].to_numpy(), self.name, label[0])
        self.n_rows = start
        return pd.concat(rows, ignore_index=True)

    def _frames(self, columns: list[str], n_rows: int) -> Iterator[pd.DataFrame]:
        import pandas as pd

        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a line with too many cells
            try:
                frames = pd.read_csv(
                    self.path,
                    sep=self._separator,
                    header=0,
                    names=self._all,
                    index_col=False,
                    chunksize=n_rows,
                    **_exactly(pd.__version__),
                    skipinitialspace=True,
                    encoding="utf-8-sig",
                )
                with frames:
                    for frame in frames:
                        if len(frame):
                            yield frame[columns]
            except (pd.errors.ParserError, pd.errors.ParserWarning, UnicodeDecodeError) as error:
                told = " ".join(str(error).replace("Error tokenizing data. C error: ", "").split())
                raise ValueError(
                    f"{self.name!r} must be text in UTF-8 with as many cells in every line as in the first, and it is "
                    f"not ({told.rstrip('.')}); correct it, or give another --separator"
                ) from error


class ParquetTable(Reader):
    """A Parquet file or a folder of them, read in parts."""

    def __init__(self, path: Path, name: str, settings: Settings) -> None:
        from flowdetect.datasets import load_parquet
        from flowdetect.datasets._pieces import pieces_of

        self.path, self.name, self.label = path, name, settings.label
        self.columns = chosen_columns(list(pieces_of(path)[0].schema.names), name, settings)
        self._source = load_parquet(path, columns=self.columns, y=self.label)
        self.row_shape, self.n_rows = (len(self.columns),), len(self._source)
        _check_rows(self.n_rows, name)

    def parts(self) -> Iterator[NDArray[Any]]:
        for start, rows in self._source.parts(self.part_rows):
            check_cells(rows, start, self.name, self.columns)
            yield rows

    def whole(self) -> Any:
        if len(self._source) * len(self._source.columns or []) <= MOST_CHECKED:
            for _ in self.parts():  # so that a message names the column of an invalid cell, not its number
                pass
        if self.label is not None:
            self.labels = checked_labels(self._source.y, self.name, self.label)
        return self._source


def chosen_columns(there: list[str], name: str, settings: Settings) -> list[str]:
    """Return the columns of a table that are features, in order."""
    asked = [*(settings.columns or []), *([settings.label] if settings.label else [])]
    asked += [] if settings.if_there else settings.drop
    lacking = [column for column in asked if column not in there]
    if lacking:
        raise ValueError(
            f"{name!r} has no column {some(lacking)}; it has {some(there)}: correct --columns, --drop or --label"
        )
    left_out = {*settings.drop, *([settings.label] if settings.label else [])}
    found = [column for column in settings.columns or there if column not in left_out]
    if not found:
        raise ValueError(f"{name!r} must have at least one column that is not left out, got {some(there)}")
    return found


def checked_labels(labels: Any, name: str, column: str) -> Any:
    """Raise if a label is missing."""
    import pandas as pd

    missing = pd.isna(labels).nonzero()[0]
    if len(missing):
        raise ValueError(
            f"{name!r} must have a label in every row, got none in row {missing[0]}, column {column!r} (rows are "
            f"counted from 0); drop such rows, or fill it in"
        )
    return labels


def _header(path: Path, name: str, separator: str) -> list[str]:
    """Read the names in the first line."""
    with open_within(path, None) as file:
        line = file.readline(LONGEST_HEADER)
    try:
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name!r} must be text in UTF-8, got other bytes ({error.reason}); save it as UTF-8"
        ) from error
    if not text.strip():
        raise ValueError(
            f"{name!r} must name its columns in the first line, and this line is empty; is the file complete?"
        )
    found = next(csv.reader([text], delimiter=separator, skipinitialspace=True))
    found = [cell.strip() or f"Unnamed: {i}" for i, cell in enumerate(found)]
    other = next((each for each in ";\t|" if each in text), None)
    if len(found) == 1 and other is not None:
        raise ValueError(
            f"{name!r} has one column, {found[0]!r}, if cells end at {separator!r}; they seem to end at {other!r}: "
            f"pass --separator '{other}'"
        )
    if all(map(_is_number, found)):
        raise ValueError(f"{name!r} must name its columns in the first line, got numbers, {some(found)}; add a header")
    twice = next((column for column in found if found.count(column) > 1), None)
    if twice is not None:
        raise ValueError(f"{name!r} must have a different name for each column, got {twice!r} twice; rename one")
    return found


def _exactly(version: str) -> dict[str, Any]:
    """Return the options with which pandas reads numbers exactly; 3.1 does so by default."""
    is_asked = tuple(int(part) for part in version.split(".")[:2]) < (3, 1)
    return {"float_precision": "round_trip"} if is_asked else {}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(frame: pd.DataFrame, start: int, name: str) -> NDArray[Any]:
    """Convert a part of a table to numbers (k, D), or raise for a cell that is not a number."""
    import pandas as pd

    columns = [str(column) for column in frame.columns]
    for column in columns:
        if frame[column].dtype.kind in NUMBERS:
            continue
        cells = frame[column]
        text = (pd.to_numeric(cells, errors="coerce").isna() & cells.notna()).to_numpy().nonzero()[0]
        if len(text):
            raise ValueError(
                f"{name!r} must hold numbers, got {str(cells.iloc[text[0]])!r} in row {start + text[0]}, column "
                f"{column!r} (rows are counted from 0); {REMEDY}"
            )
        frame = frame.assign(**{column: pd.to_numeric(cells)})
    rows = frame.to_numpy(dtype="float64")
    check_cells(rows, start, name, columns)
    return rows


def _check_rows(n_rows: int, name: str) -> None:
    if not n_rows:
        raise ValueError(f"{name!r} must have rows, and it has a header only; is the file complete?")
