"""Pictures of images, in the value range of a model's training images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowdetect.commands.models import Model


def value_range(model: Model, images: NDArray[Any]) -> tuple[float, float]:
    """Return the values that are drawn black and white."""
    known = getattr(model.estimator, "value_range_", None)
    if known is not None:
        return float(known[0]), float(known[1])
    n_bins = getattr(model.estimator, "n_bins_", None) or getattr(model.density, "n_bins_", None)
    if n_bins is not None:
        return 0.0, float(n_bins - 1)
    return float(images.min()), float(images.max())


def image_grid(images: NDArray[Any], model: Model, **settings: Any) -> Any:
    """Draw images (n, H, W, C) in rows and columns."""
    from flowdetect.evaluation import plot_image_grid

    shown = images if images.shape[3] in (1, 3) else images.mean(axis=3, keepdims=True)
    return plot_image_grid(shown, value_range=value_range(model, images), **settings)


def as_bytes(images: NDArray[Any], model: Model) -> NDArray[Any]:
    """Convert images to 8-bit values, for picture files."""
    import numpy as np

    low, high = value_range(model, images)
    scaled = np.clip((images.astype(np.float64) - low) / max(high - low, 1e-300), 0, 1)
    return np.rint(255 * scaled).astype(np.uint8)
