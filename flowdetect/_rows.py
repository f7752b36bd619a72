"""Users' X: accepted if its meaning is clear, otherwise refused with the remedy; numpy only.

An array of numbers, a frame of numbers and a torch tensor are returned unchanged, without a copy. This module checks
kinds and dtypes only; `_images.py` finds layouts, and the readers of rows check that values are finite.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowdetect._frames import DATES, ENCODE, SHOWN, is_lazy_frame, numbers_of, plain_frame
from flowdetect._limits import short

MOST_AXES = 4
STACK = "pass one array: np.stack(list(X)), or np.stack([item[0] for item in X]) of items with labels"
WHAT_X_IS = (
    "X must be rows (n, D), as an array or frame, or images: numpy (n, height, width) or (n, height, width, channels), "
    "torch (n, channels, height, width)"
)


def plain(X: Any) -> Any:
    """Return X as an array, frame or dense torch tensor of numbers; X itself if it is one.

    Parameters
    ----------
    X : data from a user

    Returns
    -------
    X : numpy array, frame with columns of plain dtypes, or torch tensor on its device
        Booleans stay booleans; they count as 0 and 1.

    Raises
    ------
    ValueError
        If X is not numeric or has no rows; the message names the remedy.
    """
    if is_torch_tensor(X):
        return _plain_tensor(X)
    if isinstance(X, np.ndarray):
        return _plain_array(X)
    if _is_table_of_arrow(X):
        X = X.to_pandas()
    if is_lazy_frame(X):
        raise ValueError(f"{WHAT_X_IS}; got a {_kind(X)}, which is not computed yet; pass X.collect().")
    if hasattr(X, "columns") and hasattr(X, "dtypes"):
        return plain_frame(X)
    if hasattr(X, "toarray") and hasattr(X, "nnz"):
        raise ValueError(
            f"{WHAT_X_IS}; got a sparse matrix, {_kind(X)} of shape {X.shape}; sparse data are not supported: pass "
            f"X.toarray() if that fits into memory, or reduce its columns, e.g. with TruncatedSVD."
        )
    if isinstance(X, list | tuple):
        return _plain_list(X)
    if _is_array_like(X):
        return _plain_array(_read_whole(X))
    raise ValueError(_what_else(X))


def is_torch_tensor(X: Any) -> bool:
    """Whether X is a torch tensor; does not import torch."""
    return type(X).__module__.split(".")[0] == "torch" and hasattr(X, "detach")


def tensor_values(X: Any) -> NDArray[Any]:
    """Return the values of a torch tensor from `plain` as an array, without a copy if numpy has the dtype."""
    return np.asarray(X.detach().cpu().numpy())


def is_read_in_parts(X: Any) -> bool:
    """Whether X is an array of numbers outside of memory, e.g. in an HDF5 file, that is read by slices."""
    if isinstance(X, np.ndarray) or is_torch_tensor(X) or not hasattr(X, "shape"):
        return False
    if hasattr(X, "iloc") or hasattr(X, "toarray"):
        return False
    has_parts = hasattr(type(X), "__getitem__") and hasattr(type(X), "__len__")
    return has_parts and getattr(getattr(X, "dtype", None), "kind", "O") in "biuf"


def is_dataset(X: Any) -> bool:
    """Whether X is a map-style dataset: it has a length and items, but is no array, frame, list, text or mapping."""
    if isinstance(X, list | tuple | str | bytes | Mapping | np.ndarray) or not hasattr(type(X), "__getitem__"):
        return False
    if is_hugging_face(X):
        return True
    return hasattr(type(X), "__len__") and not any(hasattr(X, name) for name in ("shape", "columns", "__array__"))


def is_hugging_face(X: Any) -> bool:
    """Whether X is a Hugging Face dataset."""
    return all(hasattr(X, name) for name in ("features", "column_names", "with_format"))


def is_loader(X: Any) -> bool:
    """Whether X is torch's DataLoader over a map-style dataset."""
    return hasattr(X, "batch_sampler") and hasattr(X, "collate_fn") and is_dataset(getattr(X, "dataset", None))


# ---- kinds of data


def _plain_tensor(X: Any) -> Any:
    """Check a torch tensor; numpy has no bfloat16 or 8-bit floats, which become float32."""
    if getattr(X, "is_nested", False):
        raise ValueError(f"{WHAT_X_IS}; got a nested tensor, whose rows differ in size; pad or crop them to one size.")
    if X.is_meta:
        raise ValueError(
            f"X must hold values, got a tensor of shape {tuple(X.shape)} on torch's meta device, which "
            f"has none; pass the tensor itself."
        )
    if X.is_quantized:
        raise ValueError(f"X must hold numbers, got a quantised tensor ({X.dtype}); pass X.dequantize().")
    if not str(X.layout).endswith("strided"):
        raise ValueError(f"X must be dense, got a sparse tensor ({X.layout}); pass X.to_dense().")
    if X.is_complex():
        raise ValueError(_no_complex(X.dtype))
    _check_axes(X, "X")
    X = X.detach()
    if X.is_neg():
        X = X.resolve_neg()
    if X.is_floating_point() and str(X.dtype) not in ("torch.float16", "torch.float32", "torch.float64"):
        X = X.float()
    return X


def _plain_array(X: NDArray[Any], name: str = "X") -> NDArray[Any]:
    is_matrix = isinstance(X, np.matrix)
    if is_matrix:
        raise ValueError(f"{name} must be an array, got np.matrix, which numpy deprecates; pass np.asarray({name}).")
    if isinstance(X, np.ma.MaskedArray):
        masked = np.argwhere(np.ma.getmaskarray(X))
        if len(masked):
            place = tuple(masked[0].tolist())
            raise ValueError(
                f"{name} must have a value in every cell, got a masked array with {len(masked)} masked cell(s), the "
                f"first at {place}; drop such rows or impute, e.g. X.filled(value): masked values are never used."
            )
        X = np.asarray(X.data)
    kind = X.dtype.kind
    if kind == "O":
        X = numbers_of(X, name)
    elif kind not in "biuf":
        raise ValueError(_no_numbers(X.dtype, name))
    _check_axes(X, name)
    return X.astype(np.float64) if X.dtype.itemsize > 8 else X  # long doubles


def _check_axes(X: Any, name: str) -> None:
    if X.ndim > MOST_AXES:
        raise ValueError(
            f"{WHAT_X_IS}; got an array of dim {X.ndim}, shape {tuple(X.shape)}; flatten each row to dim <= 2 by "
            f"{name}.reshape(len({name}), -1)."
        )


def _plain_list(X: Sequence[Any]) -> NDArray[Any]:
    """Return a list of rows as an array; images must come as one array."""
    first = X[0] if len(X) else None
    if hasattr(first, "shape") or _is_picture(first):
        shapes = list(dict.fromkeys(np.shape(each) for each in X))
        if len(shapes) > 1:
            more = " ..." if len(shapes) > SHOWN else ""
            raise ValueError(
                f"Images must be one array, and so have the same size, got a {_kind(X)} of {len(X)} with the sizes "
                f"{', '.join(map(str, shapes[:SHOWN]))}{more}; resize, crop or pad them, then pass np.stack(X)."
            )
        if len(shapes[0]) > 1:
            stack = "torch.stack(X)" if is_torch_tensor(first) else "np.stack(X)"
            raise ValueError(f"Images must be one array, got a list or tuple of {len(X)} arrays; pass {stack}.")
    if any(isinstance(row, Mapping) for row in X):
        raise ValueError(f"{WHAT_X_IS}; got a {_kind(X)} of {_kind(first)}; pass pandas.DataFrame(X).")
    lengths = {len(row) if isinstance(row, Sequence) and not isinstance(row, str) else None for row in X}
    if len(lengths) > 1:
        raise ValueError(
            f"X must have rows of the same length, got a {_kind(X)} with rows of {_listed(lengths)}; give every row "
            "the same number of values."
        )
    try:
        return _plain_array(np.asarray(X))
    except ValueError as error:
        if "inhomogeneous" not in str(error):
            raise
        raise ValueError(f"{WHAT_X_IS}; got a {_kind(X)} whose rows differ in shape; make all equal.") from None


def _read_whole(X: Any) -> NDArray[Any]:
    """Read an array of another library or in a file."""
    try:
        return np.asarray(X if hasattr(X, "__array__") else X[...])
    except (TypeError, ValueError, RuntimeError, KeyError, IndexError) as error:
        raise ValueError(
            f"{WHAT_X_IS}; got a {_kind(X)}, which numpy cannot read ({error}); convert it first."
        ) from error


def _what_else(X: Any) -> str:
    """Return the error for an X that is not an array, frame, tensor or list."""
    if isinstance(X, type):
        return f"{WHAT_X_IS}; got the class {X.__name__}; pass an array."
    if hasattr(X, "to_frame") and hasattr(X, "index"):
        return (
            f"{WHAT_X_IS}; got a {_kind(X)}, one column or one row. Reshape your data: pass X.to_frame() for a column, "
            f"X.to_frame().T for a row."
        )
    if _is_picture(X):
        return f"{WHAT_X_IS}; got one picture, a {_kind(X)}; pass np.asarray(X)[None], or np.stack of several."
    if isinstance(X, Mapping):
        return f"{WHAT_X_IS}; got a {_kind(X)}, which maps names; pass pandas.DataFrame(X), or one of its values."
    if is_loader(X):
        return f"{WHAT_X_IS}; got a {_kind(X)}, which densities, detectors and reports read; {STACK}."
    if hasattr(X, "dataset") and isinstance(X, Iterable):
        return f"{WHAT_X_IS}, or a map-style dataset, or a DataLoader of one; got a {_kind(X)} of another; {STACK}."
    if isinstance(X, str | bytes):
        readers = "np.load, pandas.read_csv or, for a folder of pictures, flowdetect.load_folder"
        return f"{WHAT_X_IS}; got text, {short(X)}; read the file first, e.g. with {readers}."
    if is_dataset(X):
        return f"{WHAT_X_IS}; got a {_kind(X)}, a dataset, which densities, detectors and reports read; {STACK}."
    if isinstance(X, Iterable) or hasattr(X, "__iter__") or hasattr(X, "__next__"):
        return (
            f"{WHAT_X_IS}; got a {_kind(X)}, which can be read only once, in order; pass np.stack(list(X)), or pass a "
            "density, detector or report a map-style dataset (with __len__ and __getitem__)."
        )
    return f"{WHAT_X_IS}; got {short(X)} of type {_kind(X)}; pass an array."


# ---- words


def _no_numbers(dtype: Any, name: str) -> str:
    kind = dtype.kind
    if kind == "c":
        return _no_complex(dtype)
    if kind in "mM":
        return f"{name} must hold numbers, got dates or durations ({dtype}); {DATES}."
    if kind in "SUT":
        return (
            f"{name} must hold numeric values, got strings (dtype {dtype}); use {name}.astype(float) if they are "
            f"numbers in writing, else {ENCODE}."
        )
    return (
        f"{name} must be one array of numbers, got a structured one ({dtype}); pass "
        f"np.lib.recfunctions.structured_to_unstructured({name}), or a frame."
    )


def _no_complex(dtype: Any) -> str:
    return (
        f"Complex data not supported: X must hold real numbers, got {dtype}; pass np.concatenate([X.real, X.imag], 1)."
    )


def _is_array_like(X: Any) -> bool:
    if _is_picture(X) or hasattr(X, "to_frame") or isinstance(X, type):
        return False
    return hasattr(X, "__array__") or (hasattr(X, "shape") and hasattr(X, "dtype") and hasattr(type(X), "__getitem__"))


def _is_picture(X: Any) -> bool:
    return hasattr(X, "getbands") and hasattr(X, "size")


def _is_table_of_arrow(X: Any) -> bool:
    return hasattr(X, "to_pandas") and hasattr(X, "schema") and not hasattr(X, "dtypes")


def _kind(X: Any) -> str:
    return type(X).__name__


def _listed(lengths: Iterable[Any]) -> str:
    shown = sorted(lengths, key=str)[:SHOWN]
    return " and ".join("no length" if length is None else f"{length} values" for length in shown)
