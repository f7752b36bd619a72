"""What autoregressive densities share: a model of one value after the other, its terms, and completing images.

A paper brings the network that computes the features of every value from the values before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted
from torch import Generator, Tensor

from flowdetect._images import check_on_grid, draw_seed
from flowdetect._protocols import RandomState
from flowdetect.density._devices import in_torch_state
from flowdetect.density._fitted import DRAWN_AT_ONCE
from flowdetect.density._inputs import check_finite, check_temperature
from flowdetect.density._progress import show_sampling
from flowdetect.density.base import BaseDensity
from flowdetect.density.model import DensityModel
from flowdetect.density.spec import DataSpec
from flowdetect.distributions import systematic_draws
from flowdetect.nets.causal import CausalNet
from flowdetect.nets.heads import Head
from flowdetect.nets.masked import Dropout, MaskedMLP

MOST_PARTICLES = 256  # drawn at once, of all images together

Item = TypeVar("Item")


class AutoregressiveModel(DensityModel):
    """log p(x) = sum over pixels and channels of log p(x_i | those before), nats.

    Parameters
    ----------
    event_shape : (C, H, W)
    loc, scale : tensors that broadcast against (C, H, W)
        The network sees y = (x - loc) / scale, which for data in bins lies in [-1, 1].
    net : module, (n, C, H, W) -> features (n, F, H, W)
        Its `in_order` gives the features of one pixel after the other; of a table, it takes and gives strips
        (n, ..., D, 1).
    head : Head
    n_bins : int or None
    is_table : bool
    """

    summands = ("log_px",)
    terms_by_value = True

    loc: Tensor
    scale: Tensor

    def __init__(
        self,
        event_shape: tuple[int, int, int],
        rescaling: tuple[Tensor, Tensor],
        net: CausalNet | MaskedMLP,
        head: Head,
        n_bins: int | None,
        is_table: bool,
    ) -> None:
        super().__init__(event_shape)
        for name, value in zip(("loc", "scale"), rescaling, strict=True):
            self.register_buffer(name, value)
        self.net, self.head, self.n_bins = net, head, n_bins
        self.is_table = is_table

    def begin_step(self, seed: int, progress: float) -> None:
        generator = Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, Dropout):
                module.generator = generator

    def log_px(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-probability of each channel of each pixel, (n, C, H, W) -> (n, C, H, W)."""
        h, y = self._features(x, context)
        log_px = self._from_net(self.head.log_prob(h, y))
        return log_px if self.n_bins is not None else log_px - self.scale.log()

    def log_prob(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        if self.n_bins is None:
            return self.log_px(x, context).flatten(1).sum(1)
        return self.head.log_prob_of_all(*self._features(x, context))

    def _features(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Features of every pixel, and the values as network and head see them."""
        y = self._to_net((x - self.loc) / self.scale)
        return self.net(y, context), y

    def terms(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> dict[str, Tensor]:
        """log_px, (n, C, H, W): the log-probability of each value given those before it."""
        return {"log_px": self.log_px(x, context)}

    def sample(
        self,
        n: int,
        context: Tensor | None = None,
        temperature: float = 1.0,
        generator: Generator | None = None,
    ) -> Tensor:
        blank = self.loc.new_zeros(n, *self.event_shape)
        return self.complete(blank, 0, context, temperature, generator)

    def complete(
        self,
        x: Tensor,
        n_known: int,
        context: Tensor | None = None,
        temperature: float = 1.0,
        generator: Generator | None = None,
    ) -> Tensor:
        """Draw all pixels but the first n_known, in raster order, of x (n, C, H, W)."""
        y = self._to_net(((x - self.loc) / self.scale).clone())
        u = torch.rand(len(x), self.head.n_uniforms, *y.shape[2:], generator=generator, dtype=torch.float64).to(y)
        state = self.head.start(len(y))
        for index, (i, j, h) in enumerate(self._progress(self.net.in_order(y, context), y[0, 0].numel())):
            at = (slice(None), slice(None), slice(i, i + 1), slice(j, j + 1))
            if index >= n_known:
                y[at] = self.head.draw(h, u[at], temperature, state)
            state = self.head.follow(h, y[at], state)
        values = self._from_net(y) * self.scale + self.loc
        return values if self.n_bins is None else values.round()

    def complete_around(
        self,
        x: Tensor,
        known: Tensor,
        n_candidates: int,
        context: Tensor | None = None,
        temperature: float = 1.0,
        generator: Generator | None = None,
    ) -> Tensor:
        """Draw the pixels of x (n, C, H, W) that are not known (n, H, W), given all that are, by a particle filter.

        Each image has K candidates, completed in raster order. A known pixel keeps its value and multiplies a
        candidate's weight by the probability of that value given the pixels before; where the weights' effective number
        falls below K / 2, candidates are resampled (systematically). One is drawn by its weight in the end. As K grows,
        its distribution tends to p(unknown | known): Doucet & Johansen 2009, "A Tutorial on Particle Filtering and
        Smoothing", algorithm in section 3.5. The context (n K, n_context) may differ between candidates.
        """
        n, k = len(x), n_candidates
        y = self._to_net((x - self.loc) / self.scale).repeat_interleave(k, 0)  # (n K, C, H, W)
        fixed = known.reshape(n, 1, *y.shape[2:]).repeat_interleave(k, 0)
        u = torch.rand(len(y), self.head.n_uniforms, *y.shape[2:], generator=generator, dtype=torch.float64).to(y)
        log_w, index = torch.zeros(n, k, dtype=torch.float64, device=y.device), None
        steps, state = self.net.in_order(y, context), self.head.start(len(y))
        for _ in self._progress(range(y[0, 0].numel()), y[0, 0].numel()):
            i, j, h = steps.send(index)
            index, at = None, (slice(None), slice(None), slice(i, i + 1), slice(j, j + 1))
            if not fixed[at].all():
                y[at] = torch.where(fixed[at], y[at], self.head.draw(h, u[at], temperature, state))
            now, state = state, self.head.follow(h, y[at], state)
            if fixed[at].any():
                log_p = torch.where(fixed[at], self.head.log_prob(h, y[at], now), 0.0).double().flatten(1).sum(1)
                log_w = (log_w + log_p.reshape(n, k)).log_softmax(1)
                poor = (log_w.exp().square().sum(1) * k > 2)[:, None]  # effective number below K / 2
                if poor.any():
                    drawn = systematic_draws(log_w, k, generator)
                    index = _flat(torch.where(poor, drawn, torch.arange(k, device=y.device)), k)
                    y.copy_(y[index])  # in place: the network reads it
                    state = None if state is None else state[index]
                    log_w = torch.where(poor, 0.0, log_w)
        values = self._from_net(y[_flat(systematic_draws(log_w, 1, generator), k)]) * self.scale + self.loc
        return values if self.n_bins is None else values.round()

    def _progress(self, steps: Iterable[Item], n_steps: int) -> Iterable[Item]:
        return show_sampling(iter(steps), n_steps) if self.shows_progress else steps

    def _to_net(self, x: Tensor) -> Tensor:
        """Lay a table's row (n, D, 1, 1) out as a strip of D pixels, (n, 1, D, 1), for network and head."""
        return x.transpose(1, 2) if self.is_table else x

    def _from_net(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2) if self.is_table else x


def _flat(candidates: Tensor, k: int) -> Tensor:
    """Turn indices of an image's K candidates, (n, m), into indices of all images' candidates, (n m,)."""
    first = k * torch.arange(len(candidates), device=candidates.device)
    return (first[:, None] + candidates).flatten()


def rescaling(spec: DataSpec) -> tuple[Tensor, Tensor]:
    """loc and scale (C, 1, 1) that map bins to [-1, 1]; real values arrive standardised."""
    if spec.n_bins is not None:
        half = torch.tensor((spec.n_bins - 1) / 2, dtype=torch.float32)
        return half.reshape(1, 1, 1), half.clone().reshape(1, 1, 1)
    shape = (spec.event_shape[0] if spec.is_table else 1, 1, 1)
    return torch.zeros(shape, dtype=torch.float32), torch.ones(shape, dtype=torch.float32)


@dataclass(kw_only=True, eq=False, repr=False)
class AutoregressiveDensity(BaseDensity):
    """What a density of one value after the other can be asked beside all others."""

    model_: AutoregressiveModel = field(init=False)

    @in_torch_state()
    def likelihood_terms(self, X: ArrayLike, y: ArrayLike | None = None) -> Bunch:
        """Split each row's score into those of its values, nats.

        Returns
        -------
        terms : Bunch
            log_px : in the images' shape, (n, H, W) or (n, H, W, C), of a table (n, D); it sums to the score. A
            conditional density without y gives the terms of the likeliest class, and log_class : (n,), so that all
            still sum.
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
        """Draw what is unknown of images of which the first pixels are known, or any others.

        Parameters
        ----------
        X : images or rows as in `fit`
        known : int or (int, int), optional
            How many rows of pixels are known (of a table: columns); or (row, column) of the first unknown pixel in
            raster order. In bins they are whole numbers; what is unknown is not looked at, and may be NaN.
        mask : boolean array (H, W) or (n, H, W), of a table (D,) or (n, D), optional
            True where a pixel (of a table: a value) is known, instead of `known`.
        n_candidates : int, default 32
            With a mask, how many completions of each image are drawn, of which one is kept.
        y : (n,) class labels, optional
            Of a conditional density; without, each row's is drawn with its probability given what is known.
        temperature : float, default 1.0
        random_state : int, RandomState or None

        Returns
        -------
        X : as `sample` gives it, the known part as it was

        Notes
        -----
        With `known`, completions are exact draws of p(unknown | known). With a mask, known pixels may come after
        unknown ones, and no single pass draws from p(unknown | known). Candidates are then drawn in raster order, each
        pixel given those before it; known pixels keep their values, and candidates that make them unlikely are replaced
        by copies of others (sequential importance resampling). The result is a draw of p(unknown | known) in the limit
        of many candidates; with few, the pixels before a known one heed it too little. Memory and time grow with
        `n_candidates`. The temperature applies to the pixels drawn, not to the weights.

        References
        ----------
        A Tutorial on Particle Filtering and Smoothing: Fifteen Years Later (Doucet & Johansen), 2009, section 3.5
        """
        check_is_fitted(self)
        check_temperature(temperature)
        if not isinstance(n_candidates, Integral) or n_candidates < 1:
            raise ValueError(f"n_candidates must be a whole number >= 1, got {n_candidates!r}; the usual value is 32.")
        if (known is None) == (mask is None):
            raise ValueError(
                f"complete needs either known, the number of rows known, or mask, True where a pixel is known, got "
                f"{'neither' if known is None else 'both'}."
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
        if mask is None:
            if spec.is_conditional and y is None and n_known:
                labels = self._labels_given(images, n_known, seed)
            drawn = self._after(images, n_known, labels, temperature, generator)
        else:
            asked = None if y is None else labels
            drawn = self._around(images, is_known, int(n_candidates), asked, temperature, generator)
        return spec.restore(np.where(is_known, spec.modelled_rows(rows), drawn))  # in float64, as it came

    def _first(self, n_known: int, n_rows: int) -> NDArray[np.bool_]:
        """Say which modelled values (n, D) are the first known pixels."""
        n_values = n_known * (1 if self.spec_.is_table else self.spec_.event_shape[0])
        return np.broadcast_to(np.arange(self.spec_.n_values) < n_values, (n_rows, self.spec_.n_values))

    def _masked(self, mask: ArrayLike, n_rows: int) -> NDArray[np.bool_]:
        """Say which modelled values (n, D) a mask calls known."""
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
        """Put harmless values where rows (n, n_features) are unknown, and check the others."""
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
        """Draw all pixels but the known ones: rows (n, D); without labels each candidate draws its own from P(c)."""
        spec, parts = self.spec_, []
        step = 1 if spec.is_table else spec.event_shape[0]
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
        """Draw a label for each row, with its probability given the known pixels: P(c | x_known), (n,) indices."""
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
        whole = isinstance(row, Integral) and isinstance(column, Integral)
        if not whole or not (0 <= row <= height and 0 <= column < width) or (row == height and column):
            raise ValueError(
                f"known must be a number of rows, 0 .. {height}, or (row, column) of the first unknown pixel of "
                f"{height}x{width}, got {known!r}."
            )
        return int(row) * width + int(column)
