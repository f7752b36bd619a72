"""What `fit` learned about the data, and the conversion of rows to tensors and back.

Real values are centred and scaled in float64 before they become float32, so that columns far from 0 keep their digits.
Data in bins enter a model unchanged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowdetect._images import AXES, Layout, check_image_shape, check_n_bins, check_on_grid, resolve_n_bins_of
from flowdetect._sources import RowSource, sample_rows
from flowdetect.density import _inputs

ROWS_FOR_QUANTILES = 20_000


@dataclass(frozen=True, eq=False)
class DataSpec:
    """Everything that `fit` learned about the data; a fitted density reads this, never its present parameters.

    Attributes
    ----------
    layout : Layout
        Form of the training data: image shape and axes.
    n_features : int
        Columns of the data, including constant ones; H * W * C for images.
    n_bins : int or None
        Number of integer values of a feature; None: real values.
    dtype : str
        Type of the data, and so of samples.
    constant_features, constant_values : (k,) arrays
        Columns of a table with a single value, which are not modelled, and these values.
    loc, scale : (D,) float64 arrays, or None in bins
        Mean and standard deviation of each modelled feature over the training rows; for images one for all pixels.
    low, high : float
        Least and largest value of the data.
    classes : (K,) array or None
        Sorted class labels of a conditional density.
    class_log_prior : (K,) array or None
        Log of their frequencies.
    learned : dict of arrays
        Arrays that a density learns from the training rows before it builds its model.
    """

    layout: Layout
    n_features: int
    n_bins: int | None
    dtype: str
    constant_features: NDArray[np.intp] = field(default_factory=lambda: np.array([], dtype=np.intp))
    constant_values: NDArray[np.float64] = field(default_factory=lambda: np.array([], dtype=np.float64))
    loc: NDArray[np.float64] | None = None
    scale: NDArray[np.float64] | None = None
    low: float = 0.0
    high: float = 0.0
    classes: NDArray[Any] | None = None
    class_log_prior: NDArray[np.float64] | None = None
    learned: dict[str, NDArray[Any]] = field(default_factory=dict)

    # ---- what the data are

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """(H, W, C), None for tables."""
        return self.layout.image_shape

    @property
    def is_table(self) -> bool:
        """Whether rows are vectors rather than images."""
        return self.layout.image_shape is None

    @property
    def event_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the model's input; (D, 1, 1) for a table of D modelled columns."""
        if self.layout.image_shape is None:
            return self.n_features - len(self.constant_features), 1, 1
        height, width, channels = self.layout.image_shape
        return channels, height, width

    @property
    def n_values(self) -> int:
        """Number of modelled values per row."""
        return math.prod(self.event_shape)

    @property
    def is_conditional(self) -> bool:
        """Whether the model is log p(x | y), y a class label."""
        return self.classes is not None

    @property
    def n_context(self) -> int:
        """Length of the model's context: the number of classes, or 0."""
        return 0 if self.classes is None else len(self.classes)

    @property
    def modelled(self) -> NDArray[np.intp]:
        """Indices of the modelled columns."""
        return np.setdiff1d(np.arange(self.n_features), self.constant_features)

    @property
    def log_units(self) -> NDArray[np.float64]:
        """log |d(model's input) / dx| of each modelled value: (D,), nats; 0 in bins."""
        return np.zeros(self.n_values) if self.scale is None else -np.log(self.scale)

    # ---- rows to tensors

    def modelled_rows(self, rows: NDArray[Any]) -> NDArray[Any]:
        """(n, n_features) -> (n, D), without constant columns."""
        return np.delete(rows, self.constant_features, axis=1) if len(self.constant_features) else rows

    def standardized(self, rows: NDArray[Any]) -> NDArray[Any]:
        """(n, n_features) -> (n, D) as the model's input: real values centred and scaled, in float64."""
        rows = self.modelled_rows(rows)
        if self.loc is None or self.scale is None:
            return rows
        return (np.asarray(rows, dtype=np.float64) - self.loc) / self.scale

    def to_tensor(self, rows: NDArray[Any], device: str, dtype: torch.dtype = torch.float32) -> Tensor:
        """(n, n_features) rows -> (n, C, H, W) on the device."""
        # numpy casts types that torch lacks: other byte orders, long doubles
        kind = np.float64 if dtype == torch.float64 else np.float32
        with np.errstate(over="ignore"):  # values beyond float32 become infinite; their scores are refused
            values = np.require(self.standardized(rows), kind, ["C", "W"])
        return self._as_images(torch.from_numpy(values).to(device, dtype))

    def standardized_tensor(self, x: Tensor) -> Tensor:
        """(n, D) float64 tensor of modelled values -> (n, C, H, W), differentiably."""
        if self.loc is not None and self.scale is not None:
            x = (x - torch.from_numpy(self.loc).to(x.device)) / torch.from_numpy(self.scale).to(x.device)
        return self._as_images(x)

    def _as_images(self, values: Tensor) -> Tensor:
        channels, height, width = self.event_shape
        return values.reshape(-1, height, width, channels).permute(0, 3, 1, 2)

    def to_context(self, labels: NDArray[np.int64] | None, device: str) -> Tensor | None:
        """Encode class indices (n,) as one-hot rows: (n, K) float32; None stays None."""
        if labels is None:
            return None
        context = torch.zeros(len(labels), self.n_context, dtype=torch.float32)
        context[torch.arange(len(labels)), torch.from_numpy(np.asarray(labels, dtype=np.int64))] = 1.0
        return context.to(device)

    def every_context(self, device: str) -> Tensor:
        """Return the contexts of all classes in order: (K, K)."""
        return torch.eye(self.n_context, dtype=torch.float32, device=device)

    # ---- tensors to rows

    def to_rows(self, images: Tensor) -> NDArray[Any]:
        """(n, C, H, W) model values -> (n, D) rows in the data's units."""
        rows: NDArray[Any] = images.permute(0, 2, 3, 1).flatten(1).cpu().numpy()
        if self.loc is None or self.scale is None:
            return rows
        return rows.astype(np.float64) * self.scale + self.loc

    def with_constants(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Insert the constant columns into (n, D) rows of the modelled features."""
        if not len(self.constant_features):
            return rows
        whole = np.empty((len(rows), self.n_features))
        whole[:, self.constant_features] = self.constant_values
        whole[:, self.modelled] = rows
        return whole

    def restore(self, rows: NDArray[Any]) -> Any:
        """(n, D) rows -> the layout and dtype of the training data, with the constant columns."""
        return self.arranged(self.with_constants(rows))

    def arranged(self, rows: NDArray[Any]) -> Any:
        """(n, n_features) rows -> the layout and dtype of the training data."""
        images = self.layout.restore(rows.astype(self.dtype))
        return torch.from_numpy(images) if self.layout.axes == "nchw" else images

    def with_learned(self, **arrays: NDArray[Any]) -> DataSpec:
        """Copy the spec with further learned arrays."""
        return replace(self, learned={**self.learned, **arrays})

    def random_rows(self, n: int) -> NDArray[np.float64]:
        """Draw rows within the data's range, always the same ones: (n, n_features)."""
        rng = np.random.default_rng(0)
        if self.n_bins is not None:
            return rng.integers(0, self.n_bins, (n, self.n_features)).astype(np.float64)
        z = rng.normal(size=(n, self.n_values))
        return self.with_constants(z if self.loc is None or self.scale is None else z * self.scale + self.loc)

    # ---- pickles and files

    def to_dict(self) -> dict[str, Any]:
        """Return plain values and arrays; `from_dict` is the inverse."""
        plain = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {**plain, "layout": [self.layout.image_shape, self.layout.axes]}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> DataSpec:
        """Build a spec from the result of `to_dict`."""
        image_shape, axes = plain["layout"]
        spec = cls(**{**plain, "layout": Layout(check_image_shape(image_shape), axes)})
        spec._check()
        return spec

    def _check(self) -> None:
        """Refuse states that `learn_spec` cannot return; checks shapes and dtypes of arrays, not their values."""
        check_n_bins(self.n_bins)
        n_constant = len(self.constant_features)
        shapes = {
            "constant_features": (self.constant_features, (n_constant,), "iu"),
            "constant_values": (self.constant_values, (n_constant,), "f"),
            "loc": (self.loc, (self.n_values,), "f"),
            "scale": (self.scale, (self.n_values,), "f"),
            "classes": (self.classes, (self.n_context,), "biufU"),
            "class_log_prior": (self.class_log_prior, (self.n_context,), "f"),
        }
        wrong = [
            name
            for name, (array, shape, kinds) in shapes.items()
            if array is not None and (array.shape != shape or array.dtype.kind not in kinds)
        ]
        sizes = [self.n_features] if self.image_shape is None else [self.n_features, math.prod(self.image_shape)]
        are_wrong = {
            "layout": self.layout.axes not in AXES,
            "n_features": type(self.n_features) is not int or self.n_features < 1 or len(set(sizes)) > 1,
            "n_bins": isinstance(self.n_bins, str),
            "dtype": np.dtype(self.dtype).kind not in "biuf",
            "the number of constant columns": n_constant >= self.n_features or (n_constant and not self.is_table),
            "loc or scale": (self.loc is None) != (self.scale is None)
            or (self.n_bins is not None and self.loc is not None),
            "classes": (self.classes is None) != (self.class_log_prior is None),
            "learned": not all(isinstance(array, np.ndarray) for array in self.learned.values()),
            "the range": not (math.isfinite(self.low) and math.isfinite(self.high)),
        }
        wrong += [name for name, is_wrong in are_wrong.items() if is_wrong]
        if wrong:
            raise ValueError(f"the learned description of the data is inconsistent: {', '.join(wrong)}")

    def difference(self, other: DataSpec) -> str:
        """Name the differences to another spec that rule out a common model; empty if there are none."""
        ours, theirs = self._structure(), other._structure()
        return "; ".join(f"{name} was {ours[name]}, is {theirs[name]}" for name in ours if ours[name] != theirs[name])

    def _structure(self) -> dict[str, Any]:
        return {
            "the number of columns of X": self.n_features,
            "image_shape": self.image_shape,
            "n_bins": self.n_bins,
            "constant columns": self.constant_features.tolist(),
            "classes": None if self.classes is None else self.classes.tolist(),
        }


class TensorSource:
    """Rows as a model's input tensors, with their contexts; `train` reads batches from it.

    Parameters
    ----------
    source : RowSource
    spec : DataSpec
    labels : (n,) indices of classes, or None
    device : str
    """

    def __init__(self, source: RowSource, spec: DataSpec, labels: NDArray[np.int64] | None, device: str) -> None:
        self.source, self.spec, self.labels, self.device = source, spec, labels, device

    def __len__(self) -> int:
        return len(self.source)

    def on(self, device: str) -> TensorSource:
        """Return a source of the same rows on another device."""
        return TensorSource(self.source, self.spec, self.labels, device)

    def batch(self, indices: NDArray[np.intp]) -> tuple[Tensor, Tensor | None]:
        """Read rows by index: x (n, C, H, W), and the context (n, n_context) or None."""
        x = self.spec.to_tensor(self.source.rows(indices), self.device)
        return x, self.spec.to_context(None if self.labels is None else self.labels[indices], self.device)


def learn_spec(
    source: RowSource,
    training: RowSource,
    layout: Layout,
    n_features: int,
    n_bins: int | str | None,
    name: str,
) -> DataSpec:
    """Check all rows, and learn the spec from the training rows.

    Parameters
    ----------
    source : RowSource
        All rows.
    training : RowSource
        Training rows; centre, scale and constant columns are learned from these alone.
    layout : Layout
    n_features : int
    n_bins : "auto", int or None
    name : str
        Name of the density, for messages.

    Returns
    -------
    spec : DataSpec

    Raises
    ------
    ValueError
        If the data break a rule; the message names the rule, the value received and the remedy.
    """
    found = _inputs.inspect(source, name)
    bins = resolve_n_bins_of(found, n_bins, layout.image_shape)
    if bins is not None:
        check_on_grid(found, bins)
    spec = DataSpec(
        layout=layout,
        n_features=n_features,
        n_bins=bins,
        dtype=str(found.dtype) if bins is not None or found.dtype.kind == "f" else "float64",
        low=float(found.low),
        high=float(found.high),
    )
    return spec if bins is not None else _learn_units(spec, training, name)


def _learn_units(spec: DataSpec, training: RowSource, name: str) -> DataSpec:
    """Find constant columns, centre and scale of real values."""
    moments = _inputs.Moments.of(training)
    constant = np.flatnonzero(moments.low == moments.high)
    if len(constant) == spec.n_features:
        raise ValueError(
            f"{name}: all {len(constant)} columns of X are constant, so there is no density; pass data that vary, "
            f"or n_bins for data in bins."
        )
    if spec.is_table:
        _inputs.warn_of_constants(constant, name)
        spec = replace(spec, constant_features=constant, constant_values=moments.low[constant])
    loc, scale = moments.mean[spec.modelled], moments.std[spec.modelled]
    some = spec.modelled_rows(sample_rows(training, ROWS_FOR_QUANTILES))
    whole = np.full(1, scale.max())
    _inputs.check_resolved(loc, scale if spec.is_table else whole, some.dtype, name)
    _inputs.warn_of_ties(some, spec.modelled, name)
    if spec.is_table:
        _inputs.warn_of_extremes(some, scale, moments, spec.modelled, name)
    else:  # images: one scale for all pixels, which keeps their contrasts
        centre = loc.mean()
        scale = np.full(len(loc), np.sqrt(np.mean(scale**2 + (loc - centre) ** 2)))
        loc = np.full(len(loc), centre)
    return replace(spec, loc=loc, scale=scale)
