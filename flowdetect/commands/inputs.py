"""Inputs by their names: which reader opens them, and several of one kind as one."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flowdetect.commands.readers import Reader, Settings, some, what_it_is

TABLES, PARQUET, ARRAYS = (".csv", ".tsv"), (".parquet",), (".npy", ".npz")
PICTURES = (".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
WORDS = {
    "text": "text tables",
    "parquet": "Parquet",
    "array": "array files",
    "pictures": "pictures",
    "named": "named sets",
}
USED_BY = {
    "columns": ("text", "parquet"),
    "drop": ("text", "parquet"),
    "label": ("text", "parquet", "array"),
    "separator": ("text",),
    "array": ("array",),
    "image_shape": ("text", "parquet", "array"),
    **dict.fromkeys(("size", "mode", "fit", "limit", "on_error"), ("pictures",)),
}
NAMED = ("cifar10", "digits", "fashion_mnist", "kmnist", "mnist", "svhn")


class Joined(Reader):
    """Several inputs of one form, read one after the other."""

    def __init__(self, readers: Sequence[Reader]) -> None:
        self.readers = list(readers)
        first = self.readers[0]
        for other in self.readers[1:]:
            if (other.columns, other.row_shape) != (first.columns, first.row_shape):
                raise ValueError(
                    f"inputs of one call must have the same columns or size, got {what_it_is(first)} in {first.name!r} "
                    f"and {what_it_is(other)} in {other.name!r}; call the command for each"
                )
        self.name = ", ".join(reader.name for reader in self.readers)
        self.columns, self.row_shape = first.columns, first.row_shape
        lengths = [reader.n_rows for reader in self.readers]
        self.n_rows = None if None in lengths else sum(length or 0 for length in lengths)

    def parts(self) -> Iterator[Any]:
        for reader in self.readers:
            yield from reader.parts()

    def whole(self) -> Any:
        import numpy as np
        import pandas as pd

        from flowdetect.commands.tables import ParquetTable

        if all(isinstance(reader, ParquetTable) for reader in self.readers):
            return self._one_source()
        parts = [np.asarray(reader.whole()) for reader in self.readers]
        if all(reader.labels is not None for reader in self.readers):
            self.labels = np.concatenate([reader.labels for reader in self.readers])
        rows = np.concatenate(parts)
        self.n_rows = len(rows)
        return rows if self.columns is None else pd.DataFrame(rows, columns=self.columns)

    def _one_source(self) -> Any:
        """Return several Parquet files as one source."""
        from flowdetect.datasets import load_parquet

        readers: list[Any] = self.readers
        source = load_parquet([reader.path for reader in readers], columns=self.columns, y=readers[0].label)
        self.labels = source.y
        return source


def open_inputs(names: Sequence[str], settings: Settings) -> Reader:
    """Open the inputs of a call as one reader; headers are read and checked, rows are not."""
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise ValueError(f"each input must be given once, got {twice!r} twice; leave one out")
    kinds = kinds_of(names)
    if "pictures" in kinds.values():
        from flowdetect.commands.arrays import Pictures

        other = next((name for name, kind in kinds.items() if kind != "pictures"), None)
        if other is not None:
            raise ValueError(f"pictures and other files must not be mixed in one call, got {other!r} among them")
        return Pictures([Path(name) for name in names], some(names, 1).strip("'"), settings)
    readers = [_open(name, kind, settings) for name, kind in kinds.items()]
    return readers[0] if len(readers) == 1 else Joined(readers)


def kinds_of(names: Sequence[str]) -> dict[str, str]:
    """Return the kind of each input: "text", "parquet", "array", "pictures" or "named"."""
    return {name: _kind_of(name) for name in names}


def check_fitting(options: argparse.Namespace, names: Sequence[str]) -> None:
    """Raise for options that apply to none of the inputs."""
    kinds = set(kinds_of(names).values())
    for option, goes_with in USED_BY.items():
        value = getattr(options, option, None)
        if value is not None and not kinds & set(goes_with):
            there = ", ".join(WORDS[kind] for kind in goes_with)
            raise ValueError(
                f"--{option.replace('_', '-')} applies to {there}, got {_written(value)} for {some(names)}; omit it"
            )


def _written(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else repr(value)


def is_same_file(output: Path, name: str) -> bool:
    """Whether an output would replace an input."""
    return os.path.exists(name) and os.path.exists(output) and os.path.samefile(output, name)


def _kind_of(name: str) -> str:
    path = Path(name)
    ending = path.suffix.lower()
    if path.is_dir():
        return "parquet" if any(path.glob("*.parquet")) else "pictures"
    if not path.exists():
        if name.partition(":")[0] in NAMED:
            return "named"
        if ending or os.sep in name:
            raise ValueError(f"there is no file or folder {name!r}; correct the path")
        raise ValueError(
            f"there is no file, folder or named set {name!r}; correct the path, or take a named set, such as digits or "
            f"digits:test (of {', '.join(NAMED)})"
        )
    for kind, endings in {"text": TABLES, "parquet": PARQUET, "array": ARRAYS, "pictures": PICTURES}.items():
        if ending in endings:
            return kind
    raise ValueError(
        f"{name!r} must end in {', '.join(TABLES + PARQUET + ARRAYS)} or be an image or a folder of images, got the "
        f"ending {ending!r}; convert it first"
    )


def _open(name: str, kind: str, settings: Settings) -> Reader:
    from flowdetect.commands import arrays, tables

    if kind == "named":
        return arrays.open_named(name)
    path = Path(name)
    if kind == "array":
        return arrays.open_array(path, name, settings)
    return (tables.TextTable if kind == "text" else tables.ParquetTable)(path, name, settings)
