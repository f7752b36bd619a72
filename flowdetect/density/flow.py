"""Flows as densities: one bijection from data to standard normal noise, and dequantisation for data in bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Bunch
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Generator, Tensor

from flowdetect._limits import short
from flowdetect._sources import RowSource
from flowdetect.bijections import Layer, MultiScale, Standardize, Top, VariationalDequantize
from flowdetect.bijections.chain import set_memory_efficient
from flowdetect.bijections.dequantize import BIN_CENTRE, Dequantize
from flowdetect.density._devices import in_torch_state
from flowdetect.density._inputs import check_temperature
from flowdetect.density.base import BaseDensity
from flowdetect.density.dequantization import build_dequantization, check_dequantization
from flowdetect.density.latent_space import LatentSpaceDensity
from flowdetect.density.model import DensityModel
from flowdetect.density.preprocessing import (
    build_preprocessing,
    check_logit_range,
    check_preprocessing,
    learn_preprocessing,
)
from flowdetect.density.spec import DataSpec
from flowdetect.distributions import standard_normal_log_prob
from flowdetect.nets import Constant, ContextMap
from flowdetect.nets.masked import seed_dropouts

MAX_AUTO_LEVELS = 3


class FlowModel(DensityModel):
    """A flow: log p(x) = log N(z; 0, 1) + log|det dz/dx|, z = top(flow(preprocess(x + u))).

    For data in bins, a bin has width 1 and u in [0, 1) is the dequantisation noise, drawn from q(u | x), so that
    E log p(x + u) - log q(u | x) is a lower bound of the discrete data's log-probability. q is uniform or learned.

    Parameters
    ----------
    event_shape : (C, H, W)
    preprocess : Layer
        The fixed first map.
    flow : MultiScale
    top : Top
        Standardises the values that arrive at the last level.
    dequantize : Dequantize or None
        Adds noise to data in bins, before the first map; None for real values.
    context_enters : "top" or "flow"
        Whether the top alone uses a context, or the flow too. If the top alone does, scores under several contexts
        share one pass through the flow.
    """

    summands = ("log_det_levels", "log_pz_levels")

    def __init__(
        self,
        event_shape: tuple[int, int, int],
        preprocess: Layer,
        flow: MultiScale,
        top: Top,
        dequantize: Dequantize | None = None,
        context_enters: Literal["top", "flow"] = "top",
    ) -> None:
        super().__init__(event_shape)
        self.preprocess = preprocess
        self.flow = flow
        self.top = top
        self.context_enters = context_enters
        self.dequantize = dequantize
        self.n_noise = 0 if self.dequantize is None else self.dequantize.n_noise
        self.is_bound = self.dequantize is not None

    def begin_step(self, seed: int, progress: float) -> None:
        seed_dropouts(self, seed)

    def preprocessed(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the input of the flow, (n, C, H, W), and the log-determinant up to there, (n,)."""
        v, term = self._dequantized(x, noise)
        y, log_det = self.preprocess(v)
        return y, log_det + term

    def _dequantized(self, x: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return x + u and -log q(u | x), (n,); q is given the flow's input at the bins' centres, within range."""
        if self.dequantize is None:
            return x, x.new_zeros(x.shape[0])
        seen = None
        if isinstance(self.dequantize, VariationalDequantize):
            seen, _ = self.preprocess((x + BIN_CENTRE).clamp(0, self.dequantize.n_bins))
        found: tuple[Tensor, Tensor] = self.dequantize(x, seen, noise)
        return found

    def log_prob(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        y, log_det = self.preprocessed(x, noise)
        for bijection in (self.flow, self.top):
            y, term = bijection(y, context)
            log_det = log_det + term
        return standard_normal_log_prob(y).sum(1) + log_det

    def log_prob_by_context(self, x: Tensor, contexts: Tensor, noise: Tensor | None = None) -> Tensor:
        """As in the base class; a flow that ignores the context is computed once for all contexts."""
        if self.context_enters == "flow":
            return super().log_prob_by_context(x, contexts, noise)
        y, log_det = self.preprocessed(x, noise)
        y, term = self.flow(y)
        columns = []
        for context in contexts:
            z, top_term = self.top(y, context.expand(x.shape[0], -1))
            columns.append(standard_normal_log_prob(z).sum(1) + (log_det + term + top_term))
        return torch.stack(columns, 1)

    def terms(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> dict[str, Tensor]:
        """log_pz_levels, log_det_levels and log_det_split_levels, each (n, L), nats; the first two sum to log_prob.

        A learned q adds minus_log_q, (n,). Level 1's log-determinant includes it, and that of the preprocessing.
        """
        v, minus_log_q = self._dequantized(x, noise)
        y, first_term = self.preprocess(v)
        first_term = first_term + minus_log_q
        y, log_det, log_det_split = self.flow.forward_levels(y, context)
        z, top_term = self.top(y, context)
        log_pz = standard_normal_log_prob(z)
        log_pz_levels = torch.stack([log_pz[:, columns].sum(1) for columns in self.flow.latent_slices], 1)
        pad = torch.zeros_like(log_det[:, 1:])
        first = torch.cat([first_term[:, None], pad], 1)
        last = torch.cat([pad, top_term[:, None]], 1)
        terms = {
            "log_pz_levels": log_pz_levels,
            "log_det_levels": log_det + first + last,
            "log_det_split_levels": log_det_split + last,
        }
        return {**terms, "minus_log_q": minus_log_q} if isinstance(self.dequantize, VariationalDequantize) else terms

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(n, C, H, W) -> latents (n, D), at the bins' centres."""
        y = self.preprocess(x if self.dequantize is None else x + BIN_CENTRE)[0]
        z: Tensor = self.top(self.flow(y, context)[0], context)[0]
        return z

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Latents (n, D) -> (n, C, H, W), the inverse of `encode`; nothing is rounded or clipped."""
        v = self._generate(z, context)
        return v if self.dequantize is None else v - BIN_CENTRE

    def _generate(self, z: Tensor, context: Tensor | None) -> Tensor:
        return self.preprocess.inverse(self.flow.inverse(self.top.inverse(z, context), context))

    def sample(
        self,
        n: int,
        context: Tensor | None = None,
        temperature: float | Tensor = 1.0,
        generator: Generator | None = None,
    ) -> Tensor:
        """As in the base class; a tensor (D,) holds one temperature for each latent."""
        noise = torch.randn(n, self.n_values, generator=generator, dtype=torch.float32)
        v = self._generate(noise.to(next(self.parameters())) * temperature, context)
        return v if self.dequantize is None else self.dequantize.inverse(v)

    def initialize(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> None:
        seed_dropouts(self, 0)  # no step has begun
        y = self.flow.initialize(self.preprocessed(x, noise)[0], context)
        self.top.initialize(y, context)


def count_levels(n_levels: int | str, event_shape: tuple[int, int, int], is_table: bool, name: str) -> int:
    """Return the number of levels, each of which halves height and width of an image; a table has one level."""
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
    if possible == 0:
        raise ValueError(
            f"{name} halves height and width at each level, so both must be even; images of {height}x{width} allow 0 "
            f"level(s) (got n_levels={n_levels!r}); pad the images to a multiple of 2, to "
            f"{height + height % 2}x{width + width % 2}, e.g. with np.pad, or use PixelCNNDensity, MAFDensity or "
            "VAEDensity, which take any size."
        )
    wanted = min(possible, MAX_AUTO_LEVELS) if isinstance(n_levels, str) else n_levels
    if wanted > possible:
        can_pad = 2**wanted <= 4 * max(height, width)
        raise ValueError(
            f"{name} halves height and width at each level; images of {height}x{width} allow {possible} level(s), got "
            f"n_levels={n_levels!r}; pass a smaller n_levels (at least 1)"
            + (f", or pad the images to a multiple of {2**wanted}." if can_pad else ".")
        )
    return wanted


@dataclass(kw_only=True, eq=False, repr=False)
class FlowDensity(LatentSpaceDensity):
    """What all flows share: latents in both directions, and the likelihood split into its terms.

    Parameters
    ----------
    n_draws : int, default 1
        Draws of the dequantisation noise per score. More than one gives the importance-weighted bound, the log of the
        mean density over the draws, which is tighter (Burda et al. 2016, eq. 8).
    preprocessing : "auto", "gaussianize", "logit" or "linear", default "auto"
        The fixed first map of the flow; its log-determinant is part of the score. "gaussianize", for data in bins and
        for tables: makes the training distribution of each channel or column roughly normal. "logit", for data in bins:
        logit(low + (high - low) x / n_bins), see `logit_range`. "linear": maps bins to about [-0.5, 0.5] and
        standardises real values. "auto": "linear" for real values and for a constant-volume flow, whose log-determinant
        must not depend on x; else "gaussianize", unless the value counts of one half of the training rows fit the other
        half worse than a normal distribution does.
    logit_range : (low, high), default (0.05, 0.95)
        Limits for preprocessing="logit": 0 <= low < high <= 1, at least 0.01 apart. The default follows the code of
        RealNVP's authors. The texts of the RealNVP and LCMA papers have (0.05, 1); the MAF paper has (1e-6, 1 - 1e-6)
        on MNIST. Where the argument is within 1e-6 of 0 or 1, straight lines continue the logit.
    dequantization : "uniform" or "variational", default "uniform"
        How data in bins become real values x + u. "uniform": u is uniform in [0, 1). "variational": u is drawn from a
        distribution q(u | x), which a small flow learns together with the density (Ho et al. 2019, section 3.1); the
        bound E_q [log p(x + u) - log q(u | x)] is then tighter. Real values need no dequantisation.
    memory_efficient : bool, default False
        True: training recomputes activations in the backward pass instead of storing them. Memory then hardly grows
        with depth, and training takes about 1.4 times as long. A layer with a closed-form inverse recomputes its input
        from its output; any other layer stores its input. The activations of the networks inside are never stored.
        Gradients differ by rounding only. Large images pass a network a few at a time. Scores and samples do not
        change.

    All other parameters are those of `BaseDensity`.

    Examples
    --------
    A flow of one activation normalisation and one invertible 1x1 convolution:

    >>> import numpy as np
    >>> from flowdetect.bijections import ActNorm, Chain, Conv1x1, MultiScale
    >>> from flowdetect.density import FlowDensity
    >>> class LinearFlowDensity(FlowDensity):
    ...     def _build(self, spec):
    ...         channels = spec.event_shape[0]
    ...         level = Chain([ActNorm(channels), Conv1x1(channels)])
    ...         return self._flow_model(spec, MultiScale([level], [], [spec.event_shape]))
    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> density = LinearFlowDensity(max_epochs=1, random_state=0).fit(X)
    >>> density.transform(X[:3]).shape
    (3, 2)
    """

    n_draws: int = 1
    preprocessing: str = "auto"
    dequantization: str = "uniform"
    logit_range: tuple[float, float] = (0.05, 0.95)
    memory_efficient: bool = False
    model_: FlowModel = field(init=False)

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseDensity._parameter_constraints,
        "n_draws": [Interval(Integral, 1, None, closed="left")],
        "preprocessing": [StrOptions({"auto", "gaussianize", "logit", "linear"})],
        "dequantization": [StrOptions({"uniform", "variational"})],
        "logit_range": [tuple, list],
        "memory_efficient": ["boolean"],
    }
    _may_change = BaseDensity._may_change | {"memory_efficient"}
    _table_start: ClassVar[str] = "linear"  # the map of preprocessing="auto" for real-valued tables

    @property
    def _dequantization(self) -> str:
        """How data in bins become real values: "uniform" or "variational"."""
        return self.dequantization

    @property
    def _has_constant_volume(self) -> bool:
        """Whether the log-determinant of the learned layers is the same for all x."""
        return False

    def _learn(self, spec: DataSpec, source: RowSource) -> dict[str, NDArray[Any]]:
        check_logit_range(self.logit_range, type(self).__name__)
        check_preprocessing(spec, self.preprocessing, type(self).__name__)
        check_dequantization(spec, self.dequantization, type(self).__name__)
        return learn_preprocessing(spec, source, self.preprocessing, self._has_constant_volume, self._table_start)

    def _first_layer(self, spec: DataSpec) -> Layer:
        """Build the fixed first map."""
        logit_range = check_logit_range(self.logit_range, type(self).__name__)
        return build_preprocessing(spec, self.preprocessing, logit_range)

    def _flow_model(
        self, spec: DataSpec, flow: MultiScale, context_enters: Literal["top", "flow"] = "top"
    ) -> FlowModel:
        """Build the model: fixed first map, flow, and a standardisation of the last level, by the context if any."""
        latent_shape = flow.latent_shapes[-1]
        parameters = (2 * latent_shape[0], *latent_shape[1:])  # mean and log-scale
        net = ContextMap(spec.n_context, *parameters) if spec.n_context else Constant(*parameters)
        top = Top(Standardize(net), latent_shape)
        first, dequantize = self._first_layer(spec), build_dequantization(spec, self._dequantization)
        model = FlowModel(spec.event_shape, first, flow, top, dequantize, context_enters)
        set_memory_efficient(model, self.memory_efficient)
        return model

    @property
    def latent_slices_(self) -> list[slice]:
        """Columns of the latents that belong to each level, level 1 first."""
        check_is_fitted(self)
        return list(self.model_.flow.latent_slices)

    def _noise_factor(self, temperature: Any) -> Any:
        """As in the base class; for one temperature per level, return a tensor with one for each latent, (D,)."""
        if (
            not isinstance(temperature, Sequence | np.ndarray)
            or isinstance(temperature, str)
            or np.shape(temperature) == ()
        ):
            return super()._noise_factor(temperature)
        levels, given = self.latent_slices_, list(temperature)
        if len(given) != len(levels):
            raise ValueError(
                f"temperature must be one number, or one number for each of the flow's {len(levels)} level(s), level 1 "
                f"first, got {len(given)}: {short(temperature)}."
            )
        for factor in given:
            check_temperature(factor)
        factors = np.repeat(np.array(given, dtype=np.float32), [level.stop - level.start for level in levels])
        return torch.from_numpy(factors).to(self.device_)

    @property
    def value_counts_(self) -> NDArray[np.int64]:
        """How often each value occurs in each channel of the training rows: (C, n_bins); for "gaussianize"."""
        return self._learned("value_counts")

    @property
    def knots_(self) -> NDArray[np.float64]:
        """Knots of each column's piecewise linear map, before and after it: (2, D, K); for "gaussianize" on tables."""
        return self._learned("knots")

    @in_torch_state()
    def transform(self, X: ArrayLike, y: ArrayLike | None = None) -> NDArray[np.float64]:
        """Latents of all levels, standard normal under the model: (n, D) float64, level 1 first.

        Data in bins are mapped from the bins' centres. For a conditional flow without y, each row's most likely class
        is used.
        """
        return self._encode(X, y)

    @in_torch_state()
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
        return self._decode(Z, y)

    @in_torch_state()
    def likelihood_terms(self, X: ArrayLike, y: ArrayLike | None = None) -> Bunch:
        """Split each row's score into its terms, nats.

        Returns
        -------
        terms : Bunch
            log_pz, log_det : (n,), whose sum is the score; log_pz_levels, log_det_levels : (n, L), which sum to them;
            log_det_split_levels : (n, L), the part of log_det_levels due to the standardisations; with
            dequantization="variational" minus_log_q : (n,), the part of level 1's log_det_levels due to q(u | x). For a
            conditional flow without y, these are the terms of the most likely class, and log_class : (n,) is added:
            log_pz, log_det and log_class sum to the score.
        """
        terms = self._terms(X, y)
        terms.log_pz, terms.log_det = terms.log_pz_levels.sum(1), terms.log_det_levels.sum(1)
        return terms
