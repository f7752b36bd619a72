"""Scores of rows, chunk by chunk: noise keyed by row, draws, and the mixture over classes.

Every chunk has the same length, the last one padded, so that a row is always computed by the same kernels on the same
shapes, whatever other rows there are. Memory depends on the chunk, not on the number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowdetect._images import check_in_reach, keyed_uniform
from flowdetect._sources import ArraySource, RowSource
from flowdetect.density import _inputs
from flowdetect.density._memory import freed_memory_kept
from flowdetect.density.model import DensityModel
from flowdetect.density.spec import DataSpec

# rows per chunk: a multiple of the first number and at most the second; fewer for large images
CHUNK, MAX_CHUNK, MOST_VALUES = 16, 1024, 2**18
SHORT_CHUNK = 16  # for the remaining rows, if results are bitwise equal; with shorter chunks they were not
SLOW_CHUNK = 64  # for slow functions, so that padding costs little
Floats = NDArray[np.float64]
Scalar = TypeVar("Scalar", bound=np.generic)


def chunk_length(n_values: int, chunk_values: int) -> int:
    """Return the number of rows per chunk: about `chunk_values` values in all."""
    if n_values * CHUNK > MOST_VALUES:
        return max(1, MOST_VALUES // n_values)
    return CHUNK * max(1, min(MAX_CHUNK, chunk_values // n_values) // CHUNK)


@dataclass(frozen=True)
class Chunk:
    """Some rows, padded to the chunk's length.

    Attributes
    ----------
    rows : (length, n_features) float64
    labels : (length,) indices of classes, or None
    noises : list of (length, n_noise) tensors or None, one per draw
    n_rows : int
        Number of rows without padding.
    """

    rows: Floats
    labels: NDArray[np.int64] | None
    noises: list[Tensor | None]
    n_rows: int

    def numpy(self, output: Tensor) -> Floats:
        """Return the output without padding, in float64."""
        found: Floats = output[: self.n_rows].double().cpu().numpy()
        return found


@dataclass(frozen=True)
class Scoring:
    """Scores the rows of one fitted density.

    Attributes
    ----------
    model : DensityModel
    spec : DataSpec
    device : str
    noise_seed : int
    n_draws : int
        More than one gives the importance-weighted bound, the log of the mean probability over draws.
    length : int
        Rows per chunk.
    name : str
        Name of the density, for messages.
    """

    model: DensityModel
    spec: DataSpec
    device: str
    noise_seed: int
    n_draws: int
    length: int
    name: str

    # ---- methods for rows

    def log_prob(self, source: RowSource, labels: NDArray[np.int64] | None = None, dequantize: bool = True) -> Floats:
        """log p(x); for a conditional density log p(x | label), or the mixture if no labels are given: (n,) nats."""

        def one(chunk: Chunk) -> dict[str, Floats]:
            return {"score": self._scores(chunk)}

        return self._each(source, labels, dequantize, one, short=self._short_length(len(source)))["score"]

    def terms(self, source: RowSource, labels: NDArray[np.int64] | None = None) -> dict[str, Floats]:
        """Return the model's terms, in float64; without labels, those of a conditional density's most likely class.

        In that case `log_class` is the remaining difference to the score, so that the terms sum to the score.
        """

        def one(chunk: Chunk) -> dict[str, Floats]:
            mixture = log_mean_exp(self._mixtures(chunk)) if self._is_mixture(chunk) else None
            terms = self._terms(chunk, self._most_likely(chunk))
            if mixture is not None:
                terms["log_class"] = mixture + self.spec.log_units.sum() - self._sum(terms)
            return terms

        return self._each(source, labels, True, one)

    def encode(
        self, source: RowSource, labels: NDArray[np.int64] | None, function: Callable[[Tensor, Tensor | None], Tensor]
    ) -> Floats:
        """Apply an encoder in float64 to x and context; without labels, the context of the most likely class."""

        def one(chunk: Chunk) -> dict[str, Floats]:
            x = self.spec.to_tensor(chunk.rows, self.device, torch.float64)
            context = self.spec.to_context(self._most_likely(chunk), self.device)
            return {"z": chunk.numpy(function(x, context))}

        return self._each(source, labels, False, one)["z"]

    def apply(
        self,
        source: RowSource,
        labels: NDArray[np.int64] | None,
        function: Callable[[Tensor, Tensor | None, list[Tensor | None]], Tensor],
        n_draws: int,
    ) -> Floats:
        """Apply a slow function to x, context and n_draws draws of the noise; without labels, as in `encode`."""

        def one(chunk: Chunk) -> dict[str, Floats]:
            x = self.spec.to_tensor(chunk.rows, self.device)
            context = self.spec.to_context(self._most_likely(chunk), self.device)
            noises: list[Tensor | None] = [
                torch.from_numpy(u).to(self.device) for u in self._noises(chunk.rows, n_draws)
            ]
            return {"values": chunk.numpy(function(x, context, noises))}

        return self._each(source, labels, True, one, min(self.length, SLOW_CHUNK))["values"]

    def decode(
        self, latents: Floats, labels: NDArray[np.int64] | None, function: Callable[[Tensor, Tensor | None], Tensor]
    ) -> Floats:
        """Apply a decoder in float64 to latents (n, d) and context; return rows (n, D) in the data's units."""
        parts = []
        with torch.no_grad():
            for start in range(0, len(latents), self.length):
                z = latents[start : start + self.length]
                own = None if labels is None else padded(labels[start : start + self.length], self.length)
                context = self.spec.to_context(own, self.device)
                x = function(torch.from_numpy(padded(z, self.length)).to(self.device), context)
                parts.append(self.spec.to_rows(x)[: len(z)])
        rows: Floats = np.concatenate(parts)
        return rows

    # ---- one chunk

    def _scores(self, chunk: Chunk) -> Floats:
        draws = self._mixtures(chunk) if self._is_mixture(chunk) else self._log_probs(chunk)
        scores: Floats = log_mean_exp(draws) + self.spec.log_units.sum()
        return scores

    def _is_mixture(self, chunk: Chunk) -> bool:
        return self.spec.is_conditional and chunk.labels is None

    def _log_probs(self, chunk: Chunk) -> Floats:
        """log p(x) or log p(x | label) of each draw: (n_draws, n)."""
        x, context = self.spec.to_tensor(chunk.rows, self.device), self.spec.to_context(chunk.labels, self.device)
        return np.stack([chunk.numpy(draw) for draw in self.model.log_prob_draws(x, context, chunk.noises)])

    def _joint(self, chunk: Chunk) -> Floats:
        """log p(x | k) + log p(k) of each draw, with the same noise for all classes: (n_draws, n, K)."""
        x, contexts = self.spec.to_tensor(chunk.rows, self.device), self.spec.every_context(self.device)
        draws = [chunk.numpy(self.model.log_prob_by_context(x, contexts, noise)) for noise in chunk.noises]
        assert self.spec.class_log_prior is not None
        return np.stack(draws) + self.spec.class_log_prior

    def _mixtures(self, chunk: Chunk) -> Floats:
        """log sum_k p(x | k) p(k) of each draw: (n_draws, n)."""
        mixtures: Floats = np.logaddexp.reduce(self._joint(chunk), axis=2)
        return mixtures

    def _most_likely(self, chunk: Chunk) -> NDArray[np.int64] | None:
        """Labels of a padded chunk: the given ones, else each row's most likely class."""
        if not self._is_mixture(chunk):
            return chunk.labels
        return padded(log_mean_exp(self._joint(chunk)).argmax(1), len(chunk.rows))

    def _terms(self, chunk: Chunk, labels: NDArray[np.int64] | None) -> dict[str, Floats]:
        x, context = self.spec.to_tensor(chunk.rows, self.device), self.spec.to_context(labels, self.device)
        draws = []
        for noise in chunk.noises:
            found = self.model.terms(x, context, noise)
            draws.append({name: self._in_row_order(chunk.numpy(term)) for name, term in found.items()})
        terms = draws[0] if len(draws) == 1 else self._weighted(draws)
        return {**terms, self.model.summands[0]: self._in_units(terms[self.model.summands[0]])}

    def _sum(self, terms: dict[str, Floats]) -> Floats:
        totals = [terms[name].reshape(len(terms[name]), -1).sum(1) for name in self.model.summands]
        total: Floats = np.sum(totals, axis=0)
        return total

    def _weighted(self, draws: list[dict[str, Floats]]) -> dict[str, Floats]:
        """Combine the terms of several draws: means weighted by the draws' probabilities.

        The log of the mean probability exceeds the weighted mean of the logs by the weights' entropy less log n_draws.
        This difference is added to the first summand, so that the terms sum to the score.
        """
        log_p = np.stack([self._sum(draw) for draw in draws])
        log_weights = log_p - np.logaddexp.reduce(log_p, axis=0)
        weights = np.exp(log_weights)
        joined = {}
        for name in draws[0]:
            values = np.stack([draw[name] for draw in draws])
            joined[name] = (weights.reshape(*weights.shape, *[1] * (values.ndim - 2)) * values).sum(0)
        rest = -(weights * log_weights).sum(0) - math.log(len(draws))
        _add_to_first(joined[self.model.summands[0]], rest)
        return joined

    def _in_row_order(self, term: Floats) -> Floats:
        """(n, C, H, W) -> (n, D) in the order of rows; other shapes are returned unchanged."""
        return term.transpose(0, 2, 3, 1).reshape(len(term), -1) if term.ndim == 4 else term

    def _in_units(self, term: Floats) -> Floats:
        """Add the change of units: to the term of each value, or as one sum."""
        units = self.spec.log_units
        if not units.any():
            return term
        if term.ndim == 2 and self.model.terms_by_value:
            return term + units
        term = term.copy()
        _add_to_first(term, np.full(len(term), units.sum()))
        return term

    # ---- chunks

    def _each(
        self,
        source: RowSource,
        labels: NDArray[np.int64] | None,
        dequantize: bool,
        function: Callable[[Chunk], dict[str, Floats]],
        length: int | None = None,
        short: int | None = None,
    ) -> dict[str, Floats]:
        """Apply a function to chunks and concatenate the results; `length` defaults to the density's.

        `short` is the length of the chunks for the remaining rows; None: `length`.
        """
        length = length or self.length
        with torch.no_grad(), freed_memory_kept() if len(source) > length else nullcontext():
            parts = [function(chunk) for chunk in self._chunks(source, labels, dequantize, length, short or length)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _chunks(
        self, source: RowSource, labels: NDArray[np.int64] | None, dequantize: bool, usual: int, short: int
    ) -> Iterator[Chunk]:
        has_warned = False
        n_usual = len(source) // usual * usual  # rows in complete chunks
        for start in [*range(0, n_usual, usual), *range(n_usual, len(source), short)]:
            length = usual if start < n_usual else short
            index = np.arange(start, min(start + length, len(source)))
            rows = np.asarray(source.rows(index), dtype=np.float64)
            _inputs.check_finite(rows, self.name, start)
            if self.spec.n_bins is not None:
                check_in_reach(rows, self.spec.n_bins, start)
            spec = self.spec
            has_warned = has_warned or _inputs.warns_of_outbreak(
                rows, spec.constant_features, spec.constant_values, self.name, start
            )
            own = None if labels is None else padded(labels[index], length)
            noises: list[Tensor | None] = [None]
            if dequantize and self.model.n_noise:
                noises = [torch.from_numpy(padded(u, length)).to(self.device) for u in self._noises(rows, self.n_draws)]
            yield Chunk(padded(rows, length), own, noises, len(index))

    def _short_length(self, n_rows: int) -> int | None:
        """Return a short chunk length for the remaining rows, if it is faster and bitwise equal; else None.

        Bitwise equality depends on the processor's kernels. It is tested once per model, with 16 random rows in a short
        chunk and in one of the usual length; the model stores the result.
        """
        n_left = -(-(n_rows % self.length) // SHORT_CHUNK) * SHORT_CHUNK
        if n_left == 0 or 2 * n_left > self.length:  # in a short chunk each row takes longer
            return None
        if self.model.short_chunk is None:
            rows = ArraySource(self.spec.random_rows(SHORT_CHUNK))
            short, usual = (self.log_prob_in(rows, length) for length in (SHORT_CHUNK, self.length))
            same = np.array_equal(short, usual, equal_nan=True)
            self.model.short_chunk = SHORT_CHUNK if same else self.length
        return self.model.short_chunk

    def log_prob_in(self, source: RowSource, length: int) -> Floats:
        """log p(x) of rows without labels, computed in chunks of the given length."""
        return self._each(source, None, True, lambda chunk: {"score": self._scores(chunk)}, length)["score"]

    def _noises(self, rows: Floats, n_draws: int) -> NDArray[np.float32]:
        return keyed_uniform(self.spec.modelled_rows(rows), self.noise_seed, n_draws, self.model.n_noise)


def padded(values: NDArray[Scalar], length: int) -> NDArray[Scalar]:
    """Pad to a length by repeating the last row."""
    missing = length - len(values)
    return values if missing <= 0 else np.concatenate([values, np.repeat(values[-1:], missing, axis=0)])


def log_mean_exp(draws: Floats) -> Floats:
    """Log of the mean of exp over the first axis; a single draw is returned bitwise unchanged."""
    mean: Floats = draws[0] if len(draws) == 1 else np.logaddexp.reduce(draws, axis=0) - math.log(len(draws))
    return mean


def _add_to_first(term: Floats, values: Floats) -> None:
    """Add one value per row to the first column of a term (n, ...)."""
    term.reshape(len(term), -1)[:, 0] += values
