"""Batches of rows from engines: reading their features, and returning answers as a frame of the same kind.

The kind is recognised by its methods, so that no other library is imported.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flowdetect._rows import is_torch_tensor

Outputs = dict[str, NDArray[Any]]
SHOWN = 8  # names per message


class Batch(Protocol):
    """A batch with named columns."""

    names: list[Hashable]

    def __len__(self) -> int: ...

    def column(self, name: Any) -> NDArray[Any]:
        """Return a column, (n,) or (n, ...)."""

    def answer(self, keep: Sequence[Any], outputs: Outputs) -> Any:
        """Return a frame of the batch's kind with columns of the batch and outputs, (n,) each."""


def open_batch(batch: Any) -> Batch | None:
    """Return a reader of a batch; None for an array of rows without names.

    Raises
    ------
    TypeError
        If the kind of the batch is unknown.
    """
    if isinstance(batch, Mapping):
        return _OfColumns(batch)
    if hasattr(batch, "iloc") and hasattr(batch, "columns") and not hasattr(batch, "compute"):
        return _OfPandas(batch)
    if hasattr(batch, "to_pandas") and hasattr(batch, "schema") and hasattr(batch, "num_rows"):
        return _OfArrow(batch)
    if hasattr(batch, "with_columns") and hasattr(batch, "height"):
        return _OfPolars(batch)
    if isinstance(batch, np.ndarray) or is_torch_tensor(batch):
        return None
    lazy = "; it is not computed yet: pass the scorer to its method for batches" if _is_lazy(batch) else ""
    raise TypeError(
        "A batch must be a numpy array or torch tensor of rows, a dict of numpy columns, a pandas or polars frame, or "
        f"an Arrow Table or RecordBatch, got a {type(batch).__name__}{lazy}."
    )


def _is_lazy(batch: Any) -> bool:
    return any(hasattr(batch, name) for name in ("compute", "collect", "map_batches", "mapInPandas"))


def answer_for_rows(outputs: Outputs) -> Any:
    """Return a pandas frame, for a batch that was an array."""
    import pandas as pd

    return pd.DataFrame(outputs)


def stacked(values: NDArray[Any]) -> NDArray[Any]:
    """Stack a column of arrays or lists of one shape into one array, (n, ...); return other columns as they are."""
    if values.dtype != object or not len(values) or not all(isinstance(c, np.ndarray | list | tuple) for c in values):
        return values
    cells = [stacked(np.asarray(cell)) for cell in values]  # an image may be an array of arrays
    shapes = sorted({cell.shape for cell in cells})
    if len(shapes) > 1:
        raise ValueError(f"Arrays in a column must have one shape, got {shapes[:SHOWN]}; resize, crop or pad them.")
    return np.stack(cells)


class _OfColumns:
    """A dict of arrays."""

    def __init__(self, batch: Mapping[Any, Any]) -> None:
        self.batch = {name: np.asarray(values) for name, values in batch.items()}
        self.names = list(self.batch)
        lengths = {name: values.shape[:1] for name, values in self.batch.items()}
        if len(set(lengths.values())) > 1 or () in lengths.values():
            told = {name: length[0] if length else "no length" for name, length in lengths.items()}
            raise ValueError(f"Columns of a dict must be arrays of the same length, got {told}; make them equal.")

    def __len__(self) -> int:
        return len(next(iter(self.batch.values()))) if self.batch else 0

    def column(self, name: Any) -> NDArray[Any]:
        return stacked(self.batch[name])

    def answer(self, keep: Sequence[Any], outputs: Outputs) -> dict[Any, NDArray[Any]]:
        return {**{name: self.batch[name] for name in keep}, **outputs}


class _OfPandas:
    """A pandas frame; the answer has its index."""

    def __init__(self, batch: Any) -> None:
        self.batch, self.names = batch, list(batch.columns)

    def __len__(self) -> int:
        return len(self.batch)

    def column(self, name: Any) -> NDArray[Any]:
        values = self.batch[name]
        is_nullable = not isinstance(values.dtype, np.dtype) and getattr(values.dtype, "kind", "O") in "biuf"
        return stacked(values.to_numpy(np.float64, na_value=np.nan) if is_nullable else values.to_numpy())

    def answer(self, keep: Sequence[Any], outputs: Outputs) -> Any:
        return self.batch[list(keep)].assign(**outputs)


class _OfPolars:
    """A polars frame."""

    def __init__(self, batch: Any) -> None:
        self.batch, self.names = batch, list(batch.columns)

    def __len__(self) -> int:
        return int(self.batch.height)

    def column(self, name: Any) -> NDArray[Any]:
        return stacked(self.batch[name].to_numpy())

    def answer(self, keep: Sequence[Any], outputs: Outputs) -> Any:
        return type(self.batch)({**{name: self.batch[name] for name in keep}, **outputs})


class _OfArrow:
    """An Arrow Table or RecordBatch."""

    def __init__(self, batch: Any) -> None:
        self.batch, self.names = batch, list(batch.schema.names)

    def __len__(self) -> int:
        return int(self.batch.num_rows)

    def column(self, name: Any) -> NDArray[Any]:
        values = self.batch.column(name)
        values = values.combine_chunks() if hasattr(values, "combine_chunks") else values
        if hasattr(values, "to_numpy_ndarray"):  # a column of tensors
            found: NDArray[Any] = values.to_numpy_ndarray()
            return found
        return stacked(values.to_numpy(zero_copy_only=False))

    def answer(self, keep: Sequence[Any], outputs: Outputs) -> Any:
        import pyarrow as pa

        columns = [*(self.batch.column(name) for name in keep), *map(pa.array, outputs.values())]
        return type(self.batch).from_arrays(columns, names=[*keep, *outputs])
