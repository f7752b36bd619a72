"""The door between the user's arrays and a density's tensors: checks, layouts, rescaling, noise and chunks."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from flowdetect._images import (
    Layout,
    check_in_reach,
    check_n_bins,
    check_on_grid,
    keyed_uniform,
    resolve_n_bins,
    to_rows,
)
from flowdetect.density import _inputs
from flowdetect.density._memory import freed_memory_kept

# rows scored at once: a multiple of the first number, and at most the second
CHUNK, MAX_CHUNK = 16, 1024


class RowsDoor(BaseEstimator):
    """Turns rows into tensors and back for `BaseDensity`, and learns in fit what that takes."""

    image_shape: Any
    n_bins: Any
    conditional: bool
    dequantizes: ClassVar[bool] = False  # whether models of this class see data in bins as x + u
    chunk_values: ClassVar[int] = 2**15  # scored at once; so many that what is computed of them stays in the caches

    def _read_training_data(self, X: Any, y: Any) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
        check_n_bins(self.n_bins)
        X, layout = to_rows(X, self.image_shape)
        rows = validate_data(self, X, dtype="numeric", ensure_min_samples=2, ensure_all_finite=False)
        _inputs.check_finite(rows, type(self).__name__)
        if layout.image_shape is not None:
            to_rows(rows, layout.image_shape)  # a list or frame shows its width only now
        n_bins = resolve_n_bins(rows, self.n_bins, layout.image_shape)
        if n_bins is not None:
            check_on_grid(rows, n_bins)
        codes = None
        if self.conditional:
            self.classes_, codes = _inputs.encode_labels(y, len(rows), type(self).__name__)
            self.class_log_prior_ = np.log(np.bincount(codes) / len(codes))
        self.image_shape_, self.layout_axes_, self.n_bins_ = layout.image_shape, layout.axes, n_bins
        self.dtype_ = str(rows.dtype) if n_bins is not None or rows.dtype.kind == "f" else "float64"
        rows = self._drop_constants(rows)
        self._learn_rescaling(rows)
        return rows, codes

    def _drop_constants(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Drop a table's constant real-valued columns; in bins and images every feature is kept."""
        name = type(self).__name__
        constant = np.array([], dtype=np.intp)
        if self.n_bins_ is None:
            found = _inputs.constant_columns(rows)
            if len(found) == rows.shape[1]:
                raise ValueError(
                    f"{name}: all {len(found)} columns of X are constant, so there is no density; pass data that vary, "
                    f"or n_bins for data in bins."
                )
            if self.image_shape_ is None:
                constant = found
                _inputs.warn_of_constants(found, name)
            _inputs.warn_of_ties(np.delete(rows, constant, axis=1), name)
        self.constant_features_ = constant
        self.constant_values_ = rows[0, constant].astype(np.float64)
        return np.delete(rows, constant, axis=1) if len(constant) else rows

    def _learn_rescaling(self, rows: NDArray[Any]) -> None:
        """Per feature: real values are standardised; bins are mapped to about [-0.5, 0.5]."""
        if self.n_bins_ is not None:
            self.loc_, self.scale_ = np.float64(self.n_bins_ / 2), np.float64(self.n_bins_)
            return
        with np.errstate(over="ignore", invalid="ignore"):
            loc = rows.mean(0, dtype=np.float64)
            scale = rows.std(0, dtype=np.float64)
        _inputs.check_resolved(loc, scale.max(keepdims=True) if self.image_shape_ else scale, type(self).__name__)
        if self.image_shape_ is not None:  # one scale for all pixels keeps the image an image
            loc, scale = loc.mean(), np.sqrt(np.mean(scale**2 + (loc - loc.mean()) ** 2))
        self.loc_, self.scale_ = loc, scale

    @property
    def n_classes(self) -> int | None:
        """The number of classes seen in fit; None if the density is not conditional."""
        return len(self.classes_) if self.conditional else None

    def _event_shape(self) -> tuple[int, int, int]:
        if self.image_shape_ is not None:
            height, width, channels = self.image_shape_
            return channels, height, width
        return self.n_features_in_ - len(self.constant_features_), 1, 1

    def _read_rows(self, X: Any) -> NDArray[np.float64]:
        """Check data to score; returns (n, D) without constant columns."""
        check_is_fitted(self)
        X, layout = to_rows(X, self.image_shape_)
        rows = validate_data(self, X, dtype=np.float64, reset=False, ensure_all_finite=False)
        _inputs.check_finite(rows, type(self).__name__)
        if self.n_bins_ is not None:
            check_in_reach(rows, self.n_bins_)
        return np.delete(rows, self.constant_features_, axis=1) if len(self.constant_features_) else rows

    def _read_labels(self, y: Any, n_rows: int) -> NDArray[np.int64] | None:
        if y is None or not self.conditional:
            return None
        return _inputs.encode_labels(y, n_rows, type(self).__name__, self.classes_)[1]

    def _noises(self, rows: NDArray[Any], dequantize: bool = True) -> list[NDArray[np.float32] | None]:
        """Make the dequantisation noise of each draw, keyed by row; [None] where there is none."""
        if self.n_bins_ is None or not dequantize or not self.dequantizes:
            return [None]
        return list(keyed_uniform(rows, self.noise_seed_, getattr(self, "n_draws", 1)))

    def _to_tensor(self, rows: NDArray[Any] | Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """(n, D) rows -> (n, C, H, W) on the device."""
        channels, height, width = self._event_shape()
        if isinstance(rows, np.ndarray):
            # numpy casts what torch does not take: other byte orders, long doubles
            rows = np.require(rows, np.float64 if dtype == torch.float64 else np.float32, ["C", "W"])
            rows = torch.from_numpy(rows)
        images = rows.to(self.device_, dtype)
        return images.reshape(-1, height, width, channels).permute(0, 3, 1, 2)

    def _to_rows(self, images: Tensor) -> NDArray[Any]:
        """(n, C, H, W) -> (n, D) rows."""
        rows: NDArray[Any] = images.permute(0, 2, 3, 1).flatten(1).cpu().numpy()
        return rows

    def _chunk_length(self) -> int:
        """Give how many rows are scored at once."""
        return CHUNK * max(1, min(MAX_CHUNK, self.chunk_values // math.prod(self._event_shape())) // CHUNK)

    def _in_chunks(self, function: Any, *arrays: NDArray[Any] | None) -> Any:
        """Apply a function of tensors to row chunks of one fixed length, the last one padded; (n, ...) float64 arrays.

        A chunk's length is a multiple of 16 and a function of the number of features alone, so every row is computed by
        the same kernels on the same shapes, whatever stands beside it.
        """
        n_rows, length = len(next(a for a in arrays if a is not None)), self._chunk_length()
        parts = []
        with torch.no_grad(), freed_memory_kept() if n_rows > length else nullcontext():
            for start in range(0, n_rows, length):
                index = np.minimum(np.arange(start, start + length), n_rows - 1)  # padded with the last row
                valid = min(length, n_rows - start)
                outputs = function(*(None if a is None else a[index] for a in arrays))
                parts.append([output[:valid].double().cpu().numpy() for output in outputs])
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def _to_noise(self, noise: NDArray[Any] | None) -> Tensor | None:
        return None if noise is None else self._to_tensor(noise)

    def _to_context(self, codes: NDArray[Any] | None) -> Tensor | None:
        return None if codes is None else torch.as_tensor(codes, device=self.device_)

    def _restore(self, rows: NDArray[Any]) -> Any:
        """Rows of the modelled features -> the layout and dtype of the training data, constant columns put back."""
        images = Layout(self.image_shape_, self.layout_axes_).restore(self._with_constants(rows).astype(self.dtype_))
        return torch.from_numpy(images) if self.layout_axes_ == "nchw" else images

    def _with_constants(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Put the constant columns back into (n, D) rows of the modelled features."""
        if not len(self.constant_features_):
            return rows
        whole = np.empty((len(rows), self.n_features_in_))
        whole[:, self.constant_features_] = self.constant_values_
        whole[:, np.setdiff1d(np.arange(self.n_features_in_), self.constant_features_)] = rows
        return whole
