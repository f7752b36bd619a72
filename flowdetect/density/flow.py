"""Flows as densities: one bijection from data to standard normal noise, and dequantisation for data in bins."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Bunch, check_array
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from flowdetect._images import count_values
from flowdetect.bijections import (
    Bijection,
    Chain,
    Gaussianize,
    Logit,
    MultiScale,
    PiecewiseLinear,
    Rescale,
    Standardize,
    Top,
)
from flowdetect.density.base import BaseDensity
from flowdetect.density.copula import quantile_knots
from flowdetect.density.model import DensityModel
from flowdetect.distributions import standard_normal_log_prob
from flowdetect.nets import Constant, LabelTable

BIN_CENTRE = 0.5
NOISE_STEPS = 2**16
MAX_AUTO_LEVELS = 3
TERMS = ("log_pz_levels", "log_det_levels", "log_det_split_levels")


class FlowModel(DensityModel):
    """A flow: log p(x) = log N(z; 0, 1) + log|det dz/dx|, z = top(flow(preprocess(x + u))).

    For data in bins, a bin has width 1 and u in [0, 1) is the dequantisation noise, so that E_u log p(x + u) is a lower
    bound of the discrete data's log-probability.

    Parameters
    ----------
    event_shape : (C, H, W)
    preprocess : Bijection
        The fixed map that values pass first.
    flow : MultiScale
    top : Top
        The standardisation of what arrives at the last level; the one place where a label enters.
    n_bins : int or None
    n_classes : int or None
    """

    def __init__(
        self,
        event_shape: tuple[int, int, int],
        preprocess: Bijection,
        flow: MultiScale,
        top: Top,
        n_bins: int | None = None,
        n_classes: int | None = None,
    ) -> None:
        super().__init__(event_shape, n_classes)
        self.preprocess = preprocess
        self.flow = flow
        self.top = top
        self.n_bins = n_bins

    def dequantize(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Add u, by default that of the bin's centre; real-valued data stay as they are."""
        if self.n_bins is None:
            return x
        if noise is None:
            return x + BIN_CENTRE
        # so coarse that float32 keeps x + u below x + 1 for 8-bit x: u >= 1 - 2^-17 would round up into the next bin
        return x + (noise * NOISE_STEPS).floor() / NOISE_STEPS

    def log_prob(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        y, log_det = self.preprocess(self.dequantize(x, noise))
        for bijection in (self.flow, self.top):
            y, term = bijection(y, context)
            log_det = log_det + term
        return standard_normal_log_prob(y).sum(1) + log_det

    def log_prob_by_class(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """As of the base; the flow below the top, which knows no label, is computed once."""
        y, log_det = self.preprocess(self.dequantize(x, noise))
        y, term = self.flow(y)
        columns = []
        for k in range(self.n_classes or 0):
            z, top_term = self.top(y, torch.full((len(x),), k, device=x.device))
            columns.append(standard_normal_log_prob(z).sum(1) + (log_det + term + top_term))
        return torch.stack(columns, 1)

    def levels(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> list[Tensor]:
        """log_pz_levels, log_det_levels and log_det_split_levels, each (n, L), nats; the first two sum to log_prob."""
        y, first_term = self.preprocess(self.dequantize(x, noise))
        y, log_det, log_det_split = self.flow.forward_levels(y)
        z, top_term = self.top(y, context)
        log_pz = standard_normal_log_prob(z)
        log_pz_levels = torch.stack([log_pz[:, columns].sum(1) for columns in self.flow.latent_slices], 1)
        pad = torch.zeros_like(log_det[:, 1:])
        first = torch.cat([first_term[:, None], pad], 1)  # the preprocessing belongs to level 1
        last = torch.cat([pad, top_term[:, None]], 1)
        return [log_pz_levels, log_det + first + last, log_det_split + last]

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(n, C, H, W) -> latents (n, D), at the bins' centres."""
        return self.top(self.flow(self.preprocess(self.dequantize(x, None))[0])[0], context)[0]

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Latents (n, D) -> (n, C, H, W), the inverse of `encode`; nothing is rounded or clipped."""
        v = self._generate(z, context)
        return v if self.n_bins is None else v - BIN_CENTRE

    def _generate(self, z: Tensor, context: Tensor | None) -> Tensor:
        return self.preprocess.inverse(self.flow.inverse(self.top.inverse(z, context)))

    def sample(
        self,
        n: int,
        context: Tensor | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        noise = torch.randn(n, math.prod(self.event_shape), generator=generator)
        v = self._generate(noise.to(next(self.parameters())) * temperature, context)
        return v if self.n_bins is None else v.floor().clamp(0, self.n_bins - 1)

    def initialize(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> None:
        self.top.initialize(self.flow.initialize(self.preprocess(self.dequantize(x, noise))[0]), context)


def count_levels(n_levels: int | str, event_shape: tuple[int, int, int], is_table: bool, name: str) -> int:
    """Check how many levels are wanted of an image, each of which halves height and width; of a table it is one."""
    if is_table:
        if n_levels not in ("auto", 1):
            raise ValueError(
                f'{name} has one level on a table, got n_levels={n_levels!r}; pass "auto" or 1, or image_shape if the '
                f"rows are images."
            )
        return 1
    _, height, width = event_shape
    possible = 0
    while height % 2 ** (possible + 1) == 0 and width % 2 ** (possible + 1) == 0:
        possible += 1
    wanted = min(possible, MAX_AUTO_LEVELS) if isinstance(n_levels, str) else n_levels
    if wanted < 1 or wanted > possible:
        raise ValueError(
            f"{name} halves height and width once a level, and images of {height}x{width} allow {possible} level(s), "
            f"but n_levels={n_levels!r} was asked for; pad the images to a multiple of {2 ** max(1, wanted)}, or ask "
            f"for fewer levels (at least 1)."
        )
    return wanted


@dataclass(kw_only=True, eq=False, repr=False)
class FlowDensity(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseDensity):
    """What all flows share: latents both ways, and the likelihood split into its terms.

    Parameters
    ----------
    n_draws : int, default 1
        Draws of the dequantisation noise over which a score is averaged.
    preprocessing : "auto", "gaussianize", "logit" or "linear", default "auto"
        The fixed map that values pass first, part of the flow and of its log-determinant. "gaussianize", for data in
        bins and for tables: each channel's or column's distribution over the training data is made about normal.
        "logit", for data in bins: logit(0.05 + 0.9 x / n_bins), as RealNVP's paper has it. "linear": bins are mapped to
        about [-0.5, 0.5], real values are standardised. "auto": "gaussianize" in bins, but "linear" for a
        constant-volume flow, whose log-determinant must not depend on x.

    See `BaseDensity` for the other parameters.
    """

    n_draws: int = 1
    preprocessing: str = "auto"
    model_: FlowModel = field(init=False)

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseDensity._parameter_constraints,
        "n_draws": [Interval(Integral, 1, None, closed="left")],
        "preprocessing": [StrOptions({"auto", "gaussianize", "logit", "linear"})],
    }
    dequantizes: ClassVar[bool] = True

    @property
    def _has_constant_volume(self) -> bool:
        """Whether the log-determinant of all that is learned is the same for all x."""
        return False

    def _learn_rescaling(self, rows: NDArray[Any]) -> None:
        kinds = {"logit": "data in bins"}
        if self.image_shape_ is not None:
            kinds["gaussianize"] = "data in bins and for tables"
        if self.n_bins_ is None and self.preprocessing in kinds:
            raise ValueError(
                f'{type(self).__name__}: preprocessing="{self.preprocessing}" is for {kinds[self.preprocessing]}, and '
                f'X is real-valued{"" if self.image_shape_ is None else " images"}; pass "auto" or "linear", or '
                f"n_bins if X holds whole numbers."
            )
        super()._learn_rescaling(rows)
        self.__dict__.pop("knots_", None)
        if self.n_bins_ is not None:
            if self._gaussianizes:
                self.value_counts_ = count_values(rows, self._event_shape()[0], self.n_bins_)
        elif self.image_shape_ is None:
            standardized = (rows - self.loc_) / self.scale_
            if self.preprocessing == "gaussianize" or (self.preprocessing == "auto" and self._bends(standardized)):
                self.knots_ = quantile_knots(standardized)

    def _bends(self, rows: NDArray[np.float64]) -> bool:
        """Choose whether "auto" gaussianizes standardised real-valued columns."""
        return False

    @property
    def _gaussianizes(self) -> bool:
        if self.n_bins_ is None:
            return "knots_" in self.__dict__
        if self.preprocessing == "auto":
            return not self._has_constant_volume
        return self.preprocessing == "gaussianize"

    def _flow_model(self, event_shape: tuple[int, int, int], flow: MultiScale) -> FlowModel:
        """Put a flow between the fixed first layer and a standardisation of its last level, by label if any."""
        latent_shape = flow.latent_shapes[-1]
        parameters = (2 * latent_shape[0], *latent_shape[1:])  # mean and log-scale
        net = Constant(*parameters) if self.n_classes is None else LabelTable(self.n_classes, *parameters)
        top = Top(Standardize(net), latent_shape)
        return FlowModel(event_shape, self._preprocess(event_shape), flow, top, self.n_bins_, self.n_classes)

    def _preprocess(self, event_shape: tuple[int, int, int]) -> Bijection:
        """Build the fixed first layer."""
        if self._gaussianizes and self.n_bins_ is not None:
            return Gaussianize(torch.from_numpy(np.array(self.value_counts_)))
        if self.preprocessing == "logit" and self.n_bins_ is not None:
            return Logit(self.n_bins_)
        loc, scale = (torch.from_numpy(np.array(value, dtype=np.float32)) for value in (self.loc_, self.scale_))
        tall = (-1, 1, 1) if loc.ndim else ()
        rescale = Rescale(loc.reshape(tall), scale.reshape(tall), event_shape)
        if not self._gaussianizes:
            return rescale
        x_knots, z_knots = torch.from_numpy(self.knots_.astype(np.float32))
        return Chain([rescale, PiecewiseLinear(x_knots, z_knots)])

    @property
    def latent_slices_(self) -> list[slice]:
        """Columns of the latents that belong to each level, level 1 first."""
        check_is_fitted(self)
        return list(self.model_.flow.latent_slices)

    @property
    def _n_features_out(self) -> int:
        return math.prod(self._event_shape())

    def transform(self, X: ArrayLike, y: ArrayLike | None = None) -> NDArray[np.float64]:
        """Latents of all levels, standard normal under the model: (n, D) float64, level 1 first.

        In bins, the bins' centres are mapped. A conditional flow needs y, else takes each row's likeliest class.
        """
        rows = self._read_rows(X)
        codes = self._likeliest_codes(rows, y, self._noises(rows, dequantize=False))
        model = cast(FlowModel, self._double_model())

        def one_chunk(x: Any, k: Any) -> list[Tensor]:
            return [model.encode(self._to_tensor(x, torch.float64), self._to_context(k))]

        latents: NDArray[np.float64] = self._in_chunks(one_chunk, rows, codes)[0]
        return latents

    def inverse_transform(self, Z: ArrayLike, y: ArrayLike | None = None) -> NDArray[np.float64]:
        """Map latents (n, D) back to rows, the inverse of `transform` in float64; nothing is rounded or clipped.

        Parameters
        ----------
        Z : (n, D) latents, level 1 first
        y : (n,) class labels; needed by a conditional flow

        Returns
        -------
        X : (n, D) float64 rows
        """
        check_is_fitted(self)
        latents = check_array(Z, dtype=np.float64, input_name="Z")
        if latents.shape[1] != self._n_features_out:
            raise ValueError(
                f"Z must have {self._n_features_out} columns, as transform gives them, got {latents.shape[1]}."
            )
        if self.conditional and y is None:
            raise ValueError(
                f"{type(self).__name__}(conditional=True): inverse_transform needs y, the rows' class labels."
            )
        model = cast(FlowModel, self._double_model())

        def one_chunk(z: Any, k: Any) -> list[Tensor]:
            x = model.decode(torch.as_tensor(z, device=self.device_), self._to_context(k))
            return [x.permute(0, 2, 3, 1).flatten(1)]

        rows = self._in_chunks(one_chunk, latents, self._read_labels(y, len(latents)))[0]
        return self._with_constants(rows)

    def likelihood_terms(self, X: ArrayLike, y: ArrayLike | None = None) -> Bunch:
        """Split each row's score into its terms, nats.

        Returns
        -------
        terms : Bunch
            log_pz, log_det : (n,), whose sum is the score; log_pz_levels, log_det_levels : (n, L), which sum to them;
            log_det_split_levels : (n, L), the part of the latter due to the standardisations. A conditional flow
            without y gives the terms of the likeliest class, and log_class : (n,), so that the three still sum.
        """
        rows = self._read_rows(X)
        noises = self._noises(rows)
        codes = self._likeliest_codes(rows, y, noises)

        def one_chunk(x: Any, u: Any, k: Any) -> list[Tensor]:
            return self.model_.levels(self._to_tensor(x), self._to_context(k), self._to_noise(u))

        draws = [self._in_chunks(one_chunk, rows, noise, codes) for noise in noises]
        terms = Bunch(
            **{name: np.mean(values, axis=0) for name, values in zip(TERMS, zip(*draws, strict=True), strict=True)}
        )
        terms.log_pz, terms.log_det = terms.log_pz_levels.sum(1), terms.log_det_levels.sum(1)
        if self.conditional and y is None:
            score = np.mean([self._log_prob(rows, None, noise) for noise in noises], axis=0)
            terms.log_class = score - terms.log_pz - terms.log_det
        return terms

    @property
    def score_is_bound_(self) -> bool:
        """Whether scores are lower bounds: in bins, by dequantisation."""
        check_is_fitted(self)
        return self.n_bins_ is not None
