"""What autoregressive densities share: the terms of single values, and the completion of images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted
from torch import Generator, Tensor

from flowdetect._images import check_on_grid, draw_seed
from flowdetect._limits import is_count, short
from flowdetect._protocols import RandomState
from flowdetect.density._devices import in_torch_state
from flowdetect.density._fitted import DRAWN_AT_ONCE
from flowdetect.density._inputs import check_finite, check_temperature
from flowdetect.density.base import BaseDensity
from flowdetect.density.sequential import AutoregressiveModel
from flowdetect.density.spec import DataSpec
from flowdetect.distributions import systematic_draws

MOST_CANDIDATES = 100_000  # per image; all are in memory at once
MOST_PARTICLES = 256  # drawn at once, over all images


def rescaling(spec: DataSpec) -> tuple[Tensor, Tensor]:
    """loc and scale (C, 1, 1) that map bins to [-1, 1]; real values are already standardised."""
    if spec.n_bins is not None:
        half = torch.tensor((spec.n_bins - 1) / 2, dtype=torch.float32)
        return half.reshape(1, 1, 1), half.clone().reshape(1, 1, 1)
    shape = (spec.event_shape[0] if spec.is_table else 1, 1, 1)
    return torch.zeros(shape, dtype=torch.float32), torch.ones(shape, dtype=torch.float32)


@dataclass(kw_only=True, eq=False, repr=False)
class AutoregressiveDensity(BaseDensity):
    """The further methods of densities that model one value after the other."""

    model_: AutoregressiveModel = field(init=False)

    @in_torch_state()
    def likelihood_terms(self, X: ArrayLike, y: ArrayLike | None = None) -> Bunch:
        """Split each row's score into the terms of its values, nats.

        Returns
        -------
        terms : Bunch
            log_px : (n, H, W) or (n, H, W, C) for images, (n, D) for a table; it sums to the score. For a conditional
            density without y, these are the terms of the most likely class, and log_class : (n,) is added. Models of
            several orders add log_orders : (n,), see `NADEDensity`. All terms together sum to the score.
        """
        terms = self._terms(X, y)
        if not self.spec_.is_table:
            terms.log_px = terms.log_px.reshape(len(terms.log_px), *self._picture_shape())
        return terms

    def _picture_shape(self) -> tuple[int, ...]:
        channels, height, width = self.spec_.event_shape
        return (height, width) if channels == 1 else (height, width, channels)

    @in_torch_state()
    def complete(
        self,
        X: ArrayLike,
        known: int | tuple[int, int] | None = None,
        *,
        mask: ArrayLike | None = None,
        n_candidates: int = 32,
        y: ArrayLike | None = None,
        temperature: float = 1.0,
        random_state: RandomState = None,
    ) -> Any:
        """Draw the unknown pixels of images, given the first pixels or any other known ones.

        Parameters
        ----------
        X : images or rows as in `fit`
        known : int or (int, int), optional
            Number of known rows of pixels (for a table: columns); or (row, column) of the first unknown pixel in raster
            order. Known values of data in bins must be whole numbers. Unknown values are ignored and may be NaN.
        mask : boolean array (H, W) or (n, H, W), for a table (D,) or (n, D), optional
            True where a pixel (for a table: a value) is known; replaces `known`.
        n_candidates : int, default 32
            Number of candidate completions per image, one of which is returned; used with a mask, or if the model's
            order is not the raster order.
        y : (n,) class labels, optional
            For a conditional density; without y, each row's label is drawn from its distribution given the known
            pixels.
        temperature : float, default 1.0
        random_state : int, RandomState or None

        Returns
        -------
        X : as `sample` returns it, with the known part unchanged

        Notes
        -----
        With `known`, and if the model's order is the raster order, completions are exact draws from p(unknown | known).
        With a mask, or with other orders (`NADEDensity` and `MADEDensity` with several orders), known pixels may come
        after unknown ones, and no single pass draws from p(unknown | known). Candidates are then drawn in the model's
        order, each pixel given the pixels before it. Known pixels keep their values, and candidates that make them
        unlikely are replaced by copies of others (sequential importance resampling). The result is a draw from
        p(unknown | known) in the limit of many candidates; with few candidates, pixels depend too little on known
        pixels that come later. Memory and time are proportional to `n_candidates`. The temperature applies to the drawn
        pixels, not to the weights.

        References
        ----------
        A Tutorial on Particle Filtering and Smoothing: Fifteen Years Later (Doucet & Johansen), 2009, section 3.5
        """
        check_is_fitted(self)
        check_temperature(temperature)
        if not is_count(n_candidates, most=MOST_CANDIDATES):
            raise ValueError(
                f"n_candidates must be a whole number >= 1 and at most {MOST_CANDIDATES}, got {short(n_candidates)}; "
                f"the usual value is 32."
            )
        if (known is None) == (mask is None):
            raise ValueError(
                "complete needs exactly one of known, the number of known rows, and mask, True where a pixel is "
                f"known, got {'neither' if known is None else 'both'}."
            )
        spec, seed = self.spec_, draw_seed(random_state)
        source, _ = self._read(X, None)
        given = np.asarray(source.rows(np.arange(len(source))), dtype=np.float64)
        n_known = 0 if known is None else self._n_known(known)
        is_known = self._first(n_known, len(given)) if mask is None else self._masked(mask, len(given))
        rows = self._without_unknown(given, is_known)
        labels, generator = self._drawn_labels(y, len(rows), seed), Generator().manual_seed(seed)
        images = spec.to_tensor(rows, self.device_)
        self.model_.shows_progress = bool(self.verbose)
        if mask is None and (self.model_.is_in_raster_order or not n_known):
            if spec.is_conditional and y is None and n_known:
                labels = self._labels_given(images, n_known, seed)
            drawn = self._after(images, n_known, labels, temperature, generator)
        else:
            asked = None if y is None else labels
            drawn = self._around(images, is_known, int(n_candidates), asked, temperature, generator)
        return spec.restore(np.where(is_known, spec.modelled_rows(rows), drawn))  # in float64, like the input

    def _first(self, n_known: int, n_rows: int) -> NDArray[np.bool_]:
        """Return which modelled values (n, D) belong to the first known pixels."""
        n_values = n_known * (1 if self.spec_.is_table else self.spec_.event_shape[0])
        return np.broadcast_to(np.arange(self.spec_.n_values) < n_values, (n_rows, self.spec_.n_values))

    def _masked(self, mask: ArrayLike, n_rows: int) -> NDArray[np.bool_]:
        """Return which modelled values (n, D) are known by a mask."""
        spec, of_pixels = self.spec_, np.asarray(mask)
        shape = (spec.n_features,) if spec.is_table else spec.event_shape[1:]
        if of_pixels.dtype != bool or of_pixels.shape not in (shape, (n_rows, *shape)):
            raise ValueError(
                f"mask must be boolean, True where X is known, of shape {shape} or {(n_rows, *shape)}, got "
                f"{of_pixels.dtype} of shape {of_pixels.shape}."
            )
        flat = np.broadcast_to(of_pixels, (n_rows, *shape)).reshape(n_rows, -1)
        return spec.modelled_rows(flat) if spec.is_table else np.repeat(flat, spec.event_shape[0], axis=1)

    def _without_unknown(self, rows: NDArray[np.float64], is_known: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Fill the unknown values of rows (n, n_features) with valid ones, and check the known values."""
        spec, rows = self.spec_, rows.copy()
        rows[:, spec.modelled] = np.where(is_known, rows[:, spec.modelled], 0.0 if spec.loc is None else spec.loc)
        check_finite(rows, type(self).__name__)
        if spec.n_bins is not None:
            check_on_grid(rows, spec.n_bins)
        return rows

    def _after(
        self,
        images: Tensor,
        n_known: int,
        labels: NDArray[np.int64] | None,
        temperature: float,
        generator: Generator,
    ) -> NDArray[np.float64]:
        """Draw all pixels after the first known ones: rows (n, D)."""
        parts = []
        for start in range(0, len(images), DRAWN_AT_ONCE):
            part = slice(start, start + DRAWN_AT_ONCE)
            context = self.spec_.to_context(None if labels is None else labels[part], self.device_)
            drawn = self.model_.complete(images[part], n_known, context, temperature, generator)
            parts.append(self.spec_.to_rows(drawn))
        return np.concatenate(parts).astype(np.float64)

    def _around(
        self,
        images: Tensor,
        is_known: NDArray[np.bool_],
        n_candidates: int,
        labels: NDArray[np.int64] | None,
        temperature: float,
        generator: Generator,
    ) -> NDArray[np.float64]:
        """Draw all unknown pixels: rows (n, D); without labels each candidate draws its own label from P(c)."""
        spec, parts = self.spec_, []
        step = self.model_.values_a_step
        known = torch.from_numpy(np.ascontiguousarray(is_known[:, ::step])).to(self.device_)
        for start in range(0, len(images), max(1, MOST_PARTICLES // n_candidates)):
            part = slice(start, start + max(1, MOST_PARTICLES // n_candidates))
            own = None if labels is None else labels[part].repeat(n_candidates)
            if own is None and spec.class_log_prior is not None:
                log_prior = torch.from_numpy(spec.class_log_prior).expand(len(images[part]), -1)
                own = systematic_draws(log_prior, n_candidates, generator).flatten().numpy()
            context = spec.to_context(own, self.device_)
            drawn = self.model_.complete_around(
                images[part], known[part], n_candidates, context, temperature, generator
            )
            parts.append(spec.to_rows(drawn))
        return np.concatenate(parts).astype(np.float64)

    def _labels_given(self, images: Tensor, n_known: int, seed: int) -> NDArray[np.int64]:
        """Draw a label for each row from P(c | x_known), its distribution given the known pixels: (n,) indices."""
        joint = []
        for context in self.spec_.every_context(self.device_):
            parts = []
            for part in torch.split(images, DRAWN_AT_ONCE):
                log_px = self.model_.log_px(part, context.expand(len(part), -1))
                by_pixel = log_px.flatten(1) if self.spec_.is_table else log_px.sum(1).flatten(1)  # in raster order
                parts.append(by_pixel[:, :n_known].sum(1))
            joint.append(torch.cat(parts).double().cpu().numpy())
        log_p = np.stack(joint, 1) + self.spec_.class_log_prior
        p = np.exp(log_p - np.logaddexp.reduce(log_p, axis=1, keepdims=True))
        u = np.random.default_rng(seed).random((len(p), 1))
        labels: NDArray[np.int64] = np.minimum((p.cumsum(1) < u).sum(1), p.shape[1] - 1)
        return labels

    def _n_known(self, known: int | tuple[int, int]) -> int:
        channels, height, width = self.spec_.event_shape
        if self.spec_.is_table:
            height = channels
        row, column = known if isinstance(known, tuple) and len(known) == 2 else (known, 0)
        fits = is_count(row, 0, height) and is_count(column, 0, width - 1)
        if not fits or (row == height and column):
            raise ValueError(
                f"known must be a number of rows from 0 to {height}, or (row, column) of the first unknown pixel of "
                f"{height}x{width}, got {short(known)}."
            )
        return int(row) * width + int(column)
