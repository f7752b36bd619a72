"""Plots of images: grids, and the likelihood of each pixel.

As in `plots`, every function draws into `ax`, or into a new figure, and returns the axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowdetect.evaluation._style import LABEL_SIZE, own_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BRIGHTEST = 0.995  # quantile of the pixels' bits that is drawn brightest


def plot_image_grid(
    images: ArrayLike,
    titles: Sequence[str] | None = None,
    *,
    captions: Sequence[str] | None = None,
    n_columns: int | None = None,
    row_labels: Sequence[str] | None = None,
    value_range: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw images in rows and columns.

    Parameters
    ----------
    images : (n, H, W), (n, H, W, 1) or (n, H, W, 3) array
    titles : sequence of n str, default=None
        Texts above the images.
    captions : sequence of n str, default=None
        Texts below the images, of one or more lines.
    n_columns : int, default=None
        None: at most 10.
    row_labels : sequence of str, default=None
        Texts at the left of each row of images.
    value_range : (low, high), default=None
        Values that are drawn black and white; others are clipped. None: (0, 255) for uint8, (0, 1) for bool, else the
        smallest and the largest value of all images.
    ax : matplotlib Axes, default=None

    Returns
    -------
    ax : matplotlib Axes

    Raises
    ------
    ValueError
        If the numbers of images, titles, labels or columns do not match.

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect.evaluation import plot_image_grid
    >>> ax = plot_image_grid(np.eye(4)[None], titles=["a line"])
    """
    shown = _as_grey_or_rgb(images)
    n_images, height, width, _ = shown.shape
    if n_columns is not None and n_columns < 1:
        raise ValueError(f"n_columns must be None or a whole number >= 1, got {n_columns!r}.")
    n_columns = min(n_images, n_columns or 10)
    n_rows = -(-n_images // n_columns)
    _check_length("titles", titles, n_images, "images")
    _check_length("captions", captions, n_images, "images")
    _check_length("row_labels", row_labels, n_rows, "rows of images")
    low, high = value_range or _default_range(np.asarray(images))
    shown = np.clip((shown - low) / max(high - low, np.finfo(float).tiny), 0, 1)
    headroom = 0 if titles is None else 0.24 * height
    footroom = 0.24 * height * max((text.count("\n") + 1 for text in captions or ()), default=0)
    step_x, step_y = width * 1.06, height * 1.06 + headroom + footroom  # in pixels of the images
    right, bottom = n_columns * step_x - 0.06 * width, n_rows * step_y - headroom - 0.06 * height
    if ax is None:
        label_inches = 0.1 * max(map(len, row_labels or ("",)))
        scale = min(1.4 / width, (8.8 - label_inches) / right)  # inches a pixel
        ax = own_axes(None, (scale * right + label_inches + 0.2, scale * (bottom + headroom) + 0.1))
    for i, image in enumerate(shown):
        left, top = (i % n_columns) * step_x, (i // n_columns) * step_y
        extent = (left, left + width, top + height, top)
        ax.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1, extent=extent)
        if titles is not None:
            ax.text(left + width / 2, top - 0.05 * height, titles[i], ha="center", va="bottom", fontsize=LABEL_SIZE)
        if captions is not None:
            ax.text(left + width / 2, top + 1.05 * height, captions[i], ha="center", va="top", fontsize=LABEL_SIZE)
    for i, label in enumerate(row_labels or ()):
        ax.text(-0.12 * width, i * step_y + height / 2, label, ha="right", va="center", fontsize=LABEL_SIZE)
    ax.set(xlim=(0, right), ylim=(bottom, -headroom))
    ax.set_axis_off()
    return ax


def plot_pixel_likelihood(
    images: ArrayLike, log_px: ArrayLike, *, value_range: tuple[float, float] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw images, and below each image the bits of each of its pixels: bright is improbable.

    Parameters
    ----------
    images : (n, H, W) or (n, H, W, C) array
    log_px : array of the same shape, nats
        From `likelihood_terms` of a `PixelCNNDensity`; channels are summed.
    value_range : (low, high), default=None
        As in `plot_image_grid`.
    ax : matplotlib Axes, default=None

    Returns
    -------
    ax : matplotlib Axes

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect.evaluation import plot_pixel_likelihood
    >>> image = np.eye(8)[None]  # (1, 8, 8)
    >>> ax = plot_pixel_likelihood(image, np.where(image, -3.0, -0.1))
    """
    bits = -np.asarray(log_px, dtype=float) / np.log(2)
    if bits.shape != np.shape(images):
        raise ValueError(f"log_px must have the shape of images, {np.shape(images)}, got {bits.shape}.")
    bits = bits.reshape(*bits.shape[:3], -1).sum(-1)
    n, height, width = bits.shape
    ax = plot_image_grid(images, n_columns=n, value_range=value_range, ax=ax)
    highest, top = max(float(np.quantile(bits, BRIGHTEST)), 1e-9), 1.06 * height
    for i, costs in enumerate(bits):
        extent = (1.06 * i * width, (1.06 * i + 1) * width, top + height, top)
        drawn = ax.imshow(costs, cmap="magma", vmin=0, vmax=highest, extent=extent)
    ax.set_ylim(top + height, 0)
    ax.figure.colorbar(drawn, ax=ax, label="bits", shrink=0.8, pad=0.02)
    return ax


def _as_grey_or_rgb(images: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(images, dtype=np.float64)
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[-1] not in (1, 3) or len(array) == 0:
        raise ValueError(f"images must be (n, H, W), (n, H, W, 1) or (n, H, W, 3), got shape {np.shape(images)}.")
    return array


def _default_range(images: NDArray[Any]) -> tuple[float, float]:
    if images.dtype == np.uint8:
        return 0.0, 255.0
    if images.dtype == bool:
        return 0.0, 1.0
    return float(images.min()), float(images.max())


def _check_length(name: str, given: Sequence[str] | None, n: int, what: str) -> None:
    if given is not None and len(given) != n:
        raise ValueError(f"{name} must be as many as {what}, {n}, got {len(given)}.")
