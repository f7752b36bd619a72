"""Layouts of images, bins of values, and noise keyed by row; numpy only.

Inside flowdetect, data are *rows*: an (n, D) array, for images with D = H * W * C in C order (channel last). A `Layout`
stores the form of the original data, so that results (samples, transformed images) have the same form. Only this module
converts layouts.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flowdetect._limits import check_seed
from flowdetect._reach import OutOfReachError
from flowdetect._rows import is_torch_tensor, plain, tensor_values
from flowdetect._warning import warn

N_BINS_8_BIT = 256
LARGEST_N_BINS = 2**20  # with more, float32 has fewer than 16 steps within a bin
COUNTED_AT_ONCE = 1024  # rows
AXES = "rows", "nhw", "nhwc", "nchw"
CHANNELS = (1, 3)  # usual numbers of channels


@dataclass(frozen=True)
class Layout:
    """The form of the original data.

    Attributes
    ----------
    image_shape : tuple of int (H, W, C), or None for plain vectors
    axes : "rows", "nhw", "nhwc" (numpy) or "nchw" (torch)
    """

    image_shape: tuple[int, int, int] | None
    axes: str = "rows"

    def as_numpy(self) -> Layout:
        """Return the layout with numpy's axes in place of torch's: flowdetect refuses channel-first numpy images."""
        return replace(self, axes="nhwc") if self.axes == "nchw" else self

    def restore(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Restore rows (n, D) to the original form: rows, (n, H, W), (n, H, W, C) or (n, C, H, W)."""
        if self.axes == "rows" or self.image_shape is None:
            return rows
        height, width, channels = self.image_shape
        if self.axes == "nhw":
            return rows.reshape(-1, height, width)
        images = rows.reshape(-1, height, width, channels)
        return images if self.axes == "nhwc" else np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def check_image_shape(image_shape: Any) -> tuple[int, int, int] | None:
    """Turn (H, W) or (H, W, C) into (H, W, C); None stays None; anything else is a ValueError."""
    if image_shape is None:
        return None
    try:
        shape = tuple(image_shape)
    except TypeError:
        shape = ()
    whole = all(isinstance(side, Integral) and not isinstance(side, bool) and int(side) >= 1 for side in shape)
    if len(shape) not in (2, 3) or not whole:
        raise ValueError(
            f"image_shape must be None, (height, width) or (height, width, channels) with whole numbers >= 1, "
            f"got {image_shape!r}."
        )
    height, width, channels = (int(side) for side in (*shape, 1)[:3])
    return height, width, channels


def to_rows(X: Any, image_shape: Any = None) -> tuple[Any, Layout]:
    """Turn data of any accepted layout into rows: `find_layout`, then flatten.

    Returns
    -------
    rows : X itself if it is 2-D (a frame stays a frame), else its (n, D) view or copy
    layout : Layout
    """
    X, layout = find_layout(X, image_shape)
    return (X if getattr(X, "ndim", 2) < 3 or layout.axes == "rows" else flatten_images(X)), layout


def flatten_images(images: NDArray[Any]) -> NDArray[Any]:
    """(n, H, W) or (n, H, W, C) -> (n, H * W * C) in C order; a view if possible."""
    return np.ascontiguousarray(images).reshape(len(images), math.prod(images.shape[1:]))


def find_layout(X: Any, image_shape: Any = None) -> tuple[Any, Layout]:
    """Find the layout of data; return torch tensors as channels-last numpy arrays, without copying.

    Parameters
    ----------
    X : (n, D) array, frame or list; numpy (n, H, W) or (n, H, W, C); torch (n, D) or (n, C, H, W)
        Any data that `plain` accepts.
    image_shape : (H, W), (H, W, C) or None
        None: taken from X if X has the axes of images; the rows of a 2-D X are never guessed to be square images.

    Returns
    -------
    X : the result of `plain`; for a torch tensor its values, (n, D) or (n, H, W, C)
    layout : Layout

    Raises
    ------
    ValueError
        If X is not numeric, looks channel-first, or disagrees with image_shape.
    """
    shape = check_image_shape(image_shape)
    X = plain(X)
    from_torch = is_torch_tensor(X)
    if from_torch:
        _check_tensor_axes(X, shape)
        X = tensor_values(X)
        X = X.transpose(0, 2, 3, 1) if X.ndim == 4 else X  # (n, C, H, W) -> (n, H, W, C)
    ndim = getattr(X, "ndim", None)
    if ndim not in (3, 4) or not isinstance(X, np.ndarray):
        _check_row_length(X, shape)
        return X, Layout(shape)
    height, width = X.shape[1:3]
    found = (height, width, X.shape[3] if ndim == 4 else 1)
    if ndim == 4 and not from_torch and shape != found and _looks_channel_first(X.shape[1:]):
        raise ValueError(
            f"X of shape {X.shape} looks channel-first; numpy images are (n, height, width, channels): pass "
            f"X.transpose(0, 2, 3, 1), or a torch tensor, which is taken as (n, channels, height, width); if channels "
            f"do come last, pass image_shape={found}."
        )
    if shape is not None and shape != found:
        raise ValueError(
            f"image_shape={image_shape!r} disagrees with X of shape {X.shape}, whose images are {found} "
            f"(height, width, channels); {_reshape_remedy(X.shape, shape)}."
        )
    axes = "nhw" if ndim == 3 else "nchw" if from_torch else "nhwc"
    return X, Layout(found, axes)


def _looks_channel_first(shape: tuple[int, ...]) -> bool:
    return shape[0] in CHANNELS and shape[2] not in CHANNELS


def _check_tensor_axes(X: Any, shape: tuple[int, int, int] | None) -> None:
    """Refuse image tensors that are not (n, C, H, W)."""
    sizes = tuple(X.shape)
    if len(sizes) == 3:
        raise ValueError(f"A torch tensor of images is (n, channels, height, width), got {sizes}; pass X[:, None].")
    if len(sizes) != 4 or (shape is not None and shape == (*sizes[2:], sizes[1])):
        return
    if sizes[3] in CHANNELS and sizes[1] not in CHANNELS:
        raise ValueError(
            f"X of shape {sizes} looks channel-last; torch tensors of images are (n, channels, height, width): pass "
            f"X.permute(0, 3, 1, 2); if channels do come first, pass image_shape={(*sizes[2:], sizes[1])}."
        )


def _reshape_remedy(sizes: tuple[int, ...], shape: tuple[int, int, int]) -> str:
    """Return the remedy that turns X of some sizes into images of a shape."""
    if sizes == shape or (*sizes, 1) == shape:
        return "this is one image without an axis for rows: pass X[None]"
    if len(sizes) == 4 and (*sizes[2:], sizes[1]) == shape:
        return "channels come last: pass X.transpose(0, 2, 3, 1)"
    return "reshape X, or correct image_shape"


def _check_row_length(X: Any, shape: tuple[int, int, int] | None) -> None:
    sizes: tuple[int, ...] = tuple(getattr(X, "shape", ()))
    if shape is None or len(sizes) != 2:
        return
    if sizes[1] != math.prod(shape):
        one = (*sizes, 1) == shape
        raise ValueError(
            f"image_shape={shape} needs rows of {math.prod(shape)} values (height * width * channels), got X with "
            f"{sizes[1]} columns; {_reshape_remedy(sizes, shape) if one else 'reshape X, or correct image_shape'}."
        )


def warn_of_channels_first(image_shape: tuple[int, int, int] | None) -> None:
    """Warn of an image_shape that was probably meant as (C, H, W); called before data are learned from."""
    if image_shape is not None and _looks_channel_first(image_shape) and min(image_shape[1:]) > max(CHANNELS):
        channels, height, width = image_shape
        warn(
            f"image_shape={image_shape} is (height, width, channels): {channels} x {height} pixels of {width} "
            f"channels. If {channels} channels of {height} x {width} pixels were meant, channels must come last: pass "
            f"X.reshape(-1, {channels}, {height}, {width}).transpose(0, 2, 3, 1), whose image_shape is "
            f"{(height, width, channels)}."
        )


def check_n_bins(n_bins: Any) -> None:
    """Refuse values other than "auto", None and whole numbers of at least 2."""
    if n_bins is None or (isinstance(n_bins, str) and n_bins == "auto"):
        return
    if not isinstance(n_bins, Integral) or isinstance(n_bins, bool) or n_bins < 2:
        raise ValueError(f'n_bins must be "auto", None or a whole number >= 2, got {n_bins!r}.')
    if int(n_bins) > LARGEST_N_BINS:
        raise ValueError(
            f"n_bins must be at most 2**20 = {LARGEST_N_BINS}, since models compute in float32, got {n_bins}; pass "
            "n_bins=None, which treats the values as real numbers."
        )


def resolve_n_bins(rows: NDArray[Any], n_bins: Any, image_shape: tuple[int, int, int] | None) -> int | None:
    """Return the number of integer values of a feature; None: real-valued data.

    "auto" is None without an image shape, and for images that are not whole numbers >= 0; it is 256 for whole numbers
    up to 255. Larger whole numbers are a ValueError, since their number of bins cannot be guessed.
    """
    return resolve_n_bins_of(_Extent(rows), n_bins, image_shape)


def resolve_n_bins_of(values: Extent, n_bins: Any, image_shape: tuple[int, int, int] | None) -> int | None:
    """As `resolve_n_bins`, from the extent of the values."""
    check_n_bins(n_bins)
    if not isinstance(n_bins, str):
        return None if n_bins is None else int(n_bins)
    if image_shape is None or values.low < 0 or not values.is_whole:
        return None
    if values.high <= N_BINS_8_BIT - 1:
        return N_BINS_8_BIT
    raise ValueError(
        f'n_bins="auto" supports only 8-bit images (whole numbers 0..255), got whole numbers up to {values.high}; '
        f"pass n_bins={int(values.high) + 1} or more, or n_bins=None for real-valued data."
    )


class Extent(Protocol):
    """Smallest and largest value, and whether all values are whole numbers."""

    @property
    def low(self) -> Any: ...

    @property
    def high(self) -> Any: ...

    @property
    def is_whole(self) -> bool: ...


class _Extent:
    """The extent of an array, computed on first use."""

    def __init__(self, rows: NDArray[Any]) -> None:
        self.rows = rows

    @property
    def low(self) -> Any:
        return self.rows.min()

    @property
    def high(self) -> Any:
        return self.rows.max()

    @property
    def is_whole(self) -> bool:
        return is_whole(self.rows)


def is_whole(rows: NDArray[Any]) -> bool:
    """Whether all values are whole numbers, whatever the dtype."""
    return rows.dtype.kind in "iub" or bool(np.all(rows == np.rint(rows)))


def check_on_grid(values: NDArray[Any] | Extent, n_bins: int) -> None:
    """Check that values are integers 0 .. n_bins - 1, as training in bins needs; accepts an array or its extent."""
    extent = _Extent(values) if isinstance(values, np.ndarray) else values
    low, high = extent.low, extent.high
    if low >= 0 and high <= n_bins - 1 and extent.is_whole:
        return
    if low >= 0 and high <= 1:
        hint = f"these look like intensities in [0, 1]: multiply by {n_bins - 1} and round, or pass n_bins=None"
    elif high > n_bins - 1 and low >= 0 and extent.is_whole:
        hint = f"pass n_bins={int(high) + 1} or more"
    else:
        hint = "round and clip the values, or pass n_bins=None for real-valued data"
    raise ValueError(
        f"With n_bins={n_bins}, X must hold whole numbers 0..{n_bins - 1}, got values from {low} to {high}; {hint}."
    )


def check_in_reach(rows: NDArray[Any], n_bins: int, start: int = 0) -> None:
    """Check that values are at most one value range outside 0 .. n_bins - 1, as scoring in bins needs.

    `start` is the index of the first of these rows.
    """
    low, high = -n_bins, 2 * n_bins - 1
    outside = (rows < low) | (rows > high)
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise OutOfReachError(
            f"With n_bins={n_bins}, values can be scored from {low} to {high} (one value range outside the data's), "
            f"got {rows[row, column]} in row {start + row}; clip X, or check its scale.",
            start + np.flatnonzero(outside.any(axis=1)),
        )


def draw_seed(random_state: Any) -> int:
    """Turn scikit-learn's random_state into a seed; None draws new entropy, and numpy's global state is unchanged."""
    check_seed(random_state)
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0] >> 1)
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31))
    return int(random_state)


def row_generators(rows: NDArray[Any], seed: int) -> Iterator[np.random.Generator]:
    """Yield one random generator per row, a function of only the seed and the row's values.

    A row therefore has the same noise alone, in any batch, in any order and in any process, whatever its dtype.
    """
    key = int(seed).to_bytes(8, "little")
    for row in rows:
        canonical = np.asarray(row, dtype=np.float64) + 0.0  # -0.0 -> 0.0
        digest = hashlib.blake2b(canonical.tobytes(), key=key, digest_size=16).digest()
        yield np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def count_values(rows: NDArray[Any], n_channels: int, n_bins: int) -> NDArray[np.int64]:
    """Count how often each value occurs in each channel: rows (n, H*W*C) of whole numbers -> (C, n_bins)."""
    counts = np.zeros((n_channels, n_bins), dtype=np.int64)
    for start in range(0, len(rows), COUNTED_AT_ONCE):
        values = rows[start : start + COUNTED_AT_ONCE].reshape(-1, n_channels).astype(np.intp)
        for channel, column in enumerate(values.T):
            counts[channel] += np.bincount(column, minlength=n_bins)
    return counts


def keyed_uniform(rows: NDArray[Any], seed: int, n_draws: int = 1, n_values: int | None = None) -> NDArray[np.float32]:
    """Draw uniform noise in [0, 1), keyed by seed and row: (n_draws, n, n_values), by default a row's length."""
    n_rows, n_features = rows.shape
    noise = np.empty((n_draws, n_rows, n_values or n_features), dtype=np.float32)
    for i, generator in enumerate(row_generators(rows, seed)):
        noise[:, i] = generator.random((n_draws, noise.shape[2]), dtype=np.float32)
    return noise
