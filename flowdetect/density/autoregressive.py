"""What autoregressive densities share: a model of one value after the other, its terms, and completing images.

A paper brings the network that computes the features of every value from the values before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted
from torch import Generator, Tensor

from flowdetect._images import check_in_reach, check_on_grid, draw_seed
from flowdetect._protocols import RandomState
from flowdetect.density._devices import in_torch_state
from flowdetect.density._fitted import DRAWN_AT_ONCE
from flowdetect.density._inputs import check_finite, check_temperature
from flowdetect.density._progress import show_sampling
from flowdetect.density.base import BaseDensity
from flowdetect.density.model import DensityModel
from flowdetect.density.spec import DataSpec
from flowdetect.nets.causal import CausalNet
from flowdetect.nets.heads import CategoricalHead, LogisticMixtureHead
from flowdetect.nets.masked import Dropout, MaskedMLP

Step = tuple[int, int, Tensor]  # a pixel (i, j) and its features


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
    head : LogisticMixtureHead or CategoricalHead
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
        head: LogisticMixtureHead | CategoricalHead,
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
        y = self._to_net((x - self.loc) / self.scale)
        log_px = self._from_net(self.head.log_prob(self.net(y, context), y))
        return log_px if self.n_bins is not None else log_px - self.scale.log()

    def log_prob(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        return self.log_px(x, context).flatten(1).sum(1)

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
        for index, (i, j, h) in enumerate(self._progress(self.net.in_order(y, context), y[0, 0].numel())):
            if index >= n_known:
                y[:, :, i, j] = self.head.draw(h, u[:, :, i : i + 1, j : j + 1], temperature)[:, :, 0, 0]
        values = self._from_net(y) * self.scale + self.loc
        return values if self.n_bins is None else values.round()

    def _progress(self, steps: Iterator[Step], n_steps: int) -> Iterable[Step]:
        return show_sampling(steps, n_steps) if self.shows_progress else steps

    def _to_net(self, x: Tensor) -> Tensor:
        """Lay a table's row (n, D, 1, 1) out as a strip of D pixels, (n, 1, D, 1), for network and head."""
        return x.transpose(1, 2) if self.is_table else x

    def _from_net(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2) if self.is_table else x


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
        known: int | tuple[int, int],
        *,
        y: ArrayLike | None = None,
        temperature: float = 1.0,
        random_state: RandomState = None,
    ) -> Any:
        """Draw what is unknown of images of which the first rows, or the first pixels, are known.

        Parameters
        ----------
        X : images or rows as in `fit`
        known : int or (int, int)
            How many rows of pixels are known (of a table: columns); or (row, column) of the first unknown pixel in
            raster order. In bins they are whole numbers; what lies behind is not looked at.
        y : (n,) class labels, optional
            Of a conditional density; without, each row's is drawn with its probability given what is known.
        temperature : float, default 1.0
        random_state : int, RandomState or None

        Returns
        -------
        X : as `sample` gives it, the known part as it was
        """
        check_is_fitted(self)
        check_temperature(temperature)
        spec, n_known = self.spec_, self._n_known(known)
        source, _ = self._read(X, None)
        rows = np.asarray(source.rows(np.arange(len(source))), dtype=np.float64)
        check_finite(rows, type(self).__name__)
        given = spec.modelled_rows(rows)[:, : n_known * (1 if spec.is_table else spec.event_shape[0])]
        if spec.n_bins is not None:
            check_in_reach(rows, spec.n_bins)
            if given.size:
                check_on_grid(given, spec.n_bins)
        seed, images, parts = draw_seed(random_state), spec.to_tensor(rows, self.device_), []
        labels, generator = self._drawn_labels(y, len(rows), seed), Generator().manual_seed(seed)
        if spec.is_conditional and y is None and n_known:
            labels = self._labels_given(images, n_known, seed)
        self.model_.shows_progress = bool(self.verbose)
        for start in range(0, len(rows), DRAWN_AT_ONCE):
            part = slice(start, start + DRAWN_AT_ONCE)
            context = spec.to_context(None if labels is None else labels[part], self.device_)
            parts.append(spec.to_rows(self.model_.complete(images[part], n_known, context, temperature, generator)))
        completed = np.concatenate(parts).astype(np.float64)
        completed[:, : given.shape[1]] = given  # in float64, as it came
        return spec.restore(completed)

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
