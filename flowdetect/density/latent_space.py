"""Densities with latents: interpolation between rows, and directions of attributes.

Kingma & Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions" (2018), section 5,
https://arxiv.org/abs/1807.03039
White, "Sampling Generative Networks" (2016), section 2.1, https://arxiv.org/abs/1609.04468
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin

from flowdetect._limits import check_count, short
from flowdetect._reach import OutOfReachError
from flowdetect._sources import ArraySource, chunks
from flowdetect.density._devices import in_torch_state
from flowdetect.density._inputs import encode_labels
from flowdetect.density.base import BaseDensity

Floats = NDArray[np.float64]
LEAST_SINE = 1e-6  # of the angle between two latents; below it, the circle through both is not unique


class LatentSpaceDensity(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseDensity):
    """A density with `transform` and `inverse_transform`, whose latents are standard normal under the model.

    A subclass implements these two. If its latents have levels, `latent_slices_` gives the columns of each level.
    """

    @in_torch_state()
    def interpolate(self, X_a: ArrayLike, X_b: ArrayLike, n: int = 8, *, y: ArrayLike | None = None) -> NDArray[Any]:
        r"""Interpolate from each row of X_a to the same row of X_b in n steps, along circles between their latents.

        .. math:: z(t) = \big((1 - t) |a| + t |b|\big) \,
            \frac{\sin((1 - t) \omega) \, a / |a| + \sin(t \omega) \, b / |b|}{\sin \omega}, \quad 0 \le t \le 1

        where a and b are the latents of one level (a VAE has one level) and :math:`\omega` is the angle between them.
        Their length, on which log p(z) depends, changes linearly from ``|a|`` to ``|b|``; on a straight line it would
        be too small halfway.

        Parameters
        ----------
        X_a, X_b : (m, D) rows or m images, as in `fit`
            Pairs of rows. For a single pair, pass X[:1] rather than X[0].
        n : int, default 8
            Number of steps, including both ends; at least 2.
        y : (m,) class labels, one per pair
            Required by a conditional density, which encodes both ends and decodes all steps with the pair's label.

        Returns
        -------
        steps : array with a further axis, (m, n, D), (m, n, H, W) or (m, n, H, W, C), or a torch tensor (m, n, C, H, W)
            In the layout and dtype of the training data; in bins rounded, and clipped to the bins.

        Raises
        ------
        ValueError
            If X_a and X_b have different numbers of rows, n is below 2, or a conditional density gets no y.

        Notes
        -----
        The ends of a flow are the rows themselves (exactly, for data in bins); those of a VAE are the rows'
        reconstructions. If one of two latents is zero, or they are parallel or opposite to within an angle of 1e-6, the
        steps lie on the straight line between them instead; the same holds for a level with a single latent.

        References
        ----------
        Sampling Generative Networks (White), 2016, section 2.1, https://arxiv.org/abs/1609.04468

        Examples
        --------
        >>> from flowdetect import GlowDensity, load_images
        >>> X, _ = load_images("digits")
        >>> density = GlowDensity(n_bins=17, n_steps=1, hidden_channels=8, max_epochs=2, random_state=0).fit(X[:200])
        >>> steps = density.interpolate(X[:3], X[3:6], n=5)
        >>> steps.shape
        (3, 5, 8, 8)
        >>> bool((steps[:, 0] == X[:3]).all() and (steps[:, -1] == X[3:6]).all())
        True
        """
        n = check_count("n", n, 2)
        source_a, labels = self._read(X_a, y)
        source_b, _ = self._read(X_b, None)
        if len(source_a) != len(source_b):
            raise ValueError(
                f"{type(self).__name__}: X_a and X_b must have the same number of rows, since row i of each forms a "
                f"pair, got {len(source_a)} and {len(source_b)} rows; repeat a row that is in several pairs, e.g. with "
                "np.repeat."
            )
        self._check_has_labels(labels, "interpolate")
        a, b = (self._scoring().encode(source, labels, self._double().encode) for source in (source_a, source_b))
        t = np.linspace(0, 1, n)[:, None]
        levels = getattr(self, "latent_slices_", [slice(None)])
        z = np.concatenate([spherical(a[:, None, level], b[:, None, level], t) for level in levels], axis=2)
        return self._decoded(z, labels)

    @in_torch_state()
    def attribute_direction(self, X: ArrayLike, attribute: ArrayLike, *, y: ArrayLike | None = None) -> Floats:
        """Direction of an attribute: mean latent of the rows with it minus mean latent of the rows without it.

        Parameters
        ----------
        X : (n, D) rows or n images, as in `fit`
        attribute : (n,) labels of two values
            Such as False and True; the last value in sorted order marks rows with the attribute. For more than two
            classes, pass e.g. ``labels == 3``, or only the rows of two classes.
        y : (n,) class labels, optional
            For a conditional density; without labels, each row's most likely class is used.

        Returns
        -------
        direction : (d,) float64, where d is the number of columns that `transform` gives

        Raises
        ------
        ValueError
            If the attribute does not have exactly two values.

        References
        ----------
        Glow: Generative Flow with Invertible 1x1 Convolutions (Kingma & Dhariwal), 2018, section 5, "Semantic
        Manipulation", https://arxiv.org/abs/1807.03039

        Examples
        --------
        >>> from flowdetect import GlowDensity, load_images
        >>> X, y = load_images("digits")
        >>> density = GlowDensity(n_bins=17, n_steps=1, hidden_channels=8, max_epochs=2, random_state=0).fit(X[:200])
        >>> to_three = density.attribute_direction(X[:200], y[:200] == 3)
        >>> to_three.shape
        (64,)
        >>> density.move_along(X[:5], to_three, amounts=[0, 1]).shape
        (5, 2, 8, 8)
        """
        source, labels = self._read(X, y)
        name = f"{type(self).__name__}.attribute_direction(attribute)"
        if attribute is None:
            raise ValueError(f"{name} must hold a label for each row, got None; pass e.g. labels == 3.")
        values, codes = encode_labels(attribute, len(source), name)
        if len(values) != 2:
            raise ValueError(
                f"{name} must hold two values, one for rows with the attribute and one for rows without it, got "
                f"{len(values)}: {values[:5].tolist()}; pass e.g. labels == {values.tolist()[0]!r}, or only the rows "
                "of two classes."
            )
        encode, sums = self._double().encode, np.zeros((2, self._n_features_out))
        for start, rows in chunks(source):
            part = slice(start, start + len(rows))
            own = None if labels is None else labels[part]
            np.add.at(sums, codes[part], self._scoring().encode(ArraySource(rows), own, encode))
        without, having = sums / np.bincount(codes)[:, None]
        direction: Floats = having - without
        return direction

    @in_torch_state()
    def move_along(
        self,
        X: ArrayLike,
        direction: ArrayLike,
        amounts: Sequence[float] | NDArray[Any] = (-1.0, -0.5, 0.0, 0.5, 1.0),
        *,
        y: ArrayLike | None = None,
    ) -> NDArray[Any]:
        """Move rows along a direction of the latents: map z + amount * direction back to rows.

        Parameters
        ----------
        X : (m, D) rows or m images, as in `fit`
        direction : (d,) array, e.g. from `attribute_direction`
        amounts : (k,) numbers
            Multiples of the direction. 1 adds the mean difference between rows with and without the attribute; 0 leaves
            a row unchanged.
        y : (m,) class labels
            Required by a conditional density, which encodes and decodes with them.

        Returns
        -------
        moved : array with a further axis, (m, k, D), (m, k, H, W) or (m, k, H, W, C), or a torch tensor (m, k, C, H, W)
            In the layout and dtype of the training data; in bins rounded, and clipped to the bins.

        Raises
        ------
        ValueError
            If direction or amounts have a wrong shape or are not finite, if a conditional density gets no y, or if a
            row moves so far that it has no finite values.

        References
        ----------
        Glow: Generative Flow with Invertible 1x1 Convolutions (Kingma & Dhariwal), 2018, section 5, "Semantic
        Manipulation", https://arxiv.org/abs/1807.03039
        """
        source, labels = self._read(X, y)
        self._check_has_labels(labels, "move_along")
        by = "as attribute_direction gives them"
        along = _finite_numbers("direction", direction, (self._n_features_out,), by)
        steps = _finite_numbers("amounts", amounts, (max(1, len(np.atleast_1d(amounts))),), "such as [-1, 0, 1]")
        z = self._scoring().encode(source, labels, self._double().encode)
        with np.errstate(over="ignore"):  # overflow is refused with its row
            moved = z[:, None] + steps[:, None] * along
        return self._decoded(moved, labels)

    def _check_has_labels(self, labels: NDArray[np.int64] | None, method: str) -> None:
        if self.spec_.is_conditional and labels is None:
            raise ValueError(f"{type(self).__name__}(conditional=True): {method} needs y, the rows' class labels.")

    def _decoded(self, z: Floats, labels: NDArray[np.int64] | None) -> NDArray[Any]:
        """Latents (m, k, d) of rows with labels (m,) -> (m, k, ...) in the layout and dtype of the training data."""
        m, k, d = z.shape
        own, spec = None if labels is None else np.repeat(labels, k), self.spec_
        rows = spec.with_constants(self._scoring().decode(z.reshape(m * k, d), own, self._double().decode))
        if not np.isfinite(rows).all():
            broken = np.unique(np.flatnonzero(~np.isfinite(rows).all(1)) // k)
            raise OutOfReachError(
                f"{type(self).__name__}: row {broken[0]} has no finite values at one of its steps, because its "
                "latents lie too far out; pass smaller amounts, or rows nearer to the training data.",
                broken,
            )
        if spec.n_bins is not None:
            rows = np.clip(np.rint(rows), 0, spec.n_bins - 1)
        steps = spec.arranged(rows)
        restored: NDArray[Any] = steps.reshape(m, k, *steps.shape[1:])
        return restored


def spherical(a: Floats, b: Floats, t: Floats) -> Floats:
    """Points on the circle from a to b (vectors along the last axis) at shares t of the angle; lengths change linearly.

    If the circle is not unique (a or b is zero, or they are parallel or opposite), points on the straight line.
    """
    length_a, length_b = (np.linalg.norm(end, axis=-1, keepdims=True) for end in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        unit_a, unit_b = a / length_a, b / length_b
        # arctan2: accurate near 0 and pi, unlike arccos
        half = np.arctan2(
            np.linalg.norm(unit_a - unit_b, axis=-1, keepdims=True),
            np.linalg.norm(unit_a + unit_b, axis=-1, keepdims=True),
        )
        sine = np.sin(2 * half)
        units = (np.sin((1 - t) * 2 * half) * unit_a + np.sin(t * 2 * half) * unit_b) / sine
        on_circle = ((1 - t) * length_a + t * length_b) * units
    on_line = (1 - t) * a + t * b
    points: Floats = np.where(sine > LEAST_SINE, on_circle, on_line)
    return points


def _finite_numbers(name: str, values: Any, shape: tuple[int, ...], example: str) -> Floats:
    """Return finite numbers of a shape as an array, or raise ValueError."""
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold numbers, {example}, got {short(values)}.") from error
    if found.shape != shape or not np.isfinite(found).all():
        raise ValueError(f"{name} must hold finite numbers of shape {shape}, {example}, got {_in_short(found)}.")
    return found


def _in_short(values: Floats) -> str:
    return f"shape {values.shape}" if np.isfinite(values).all() else "NaN or infinity"
