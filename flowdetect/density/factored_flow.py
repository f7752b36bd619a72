"""What Glow and RealNVP share: multi-scale flows with a choice of the dimensions that leave at each level.

Das et al. 2019, "Likelihood Contribution based Multi-scale Architecture for Generative Flows" (LCMA),
https://arxiv.org/abs/1908.01686
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Generator

from flowdetect.bijections import Bijection, Chain, Layer, MultiScale, Reorder
from flowdetect.density import factorization
from flowdetect.density._processes import in_first
from flowdetect.density._reading import TrainingRows
from flowdetect.density.factorization import Choice
from flowdetect.density.flow import FlowDensity, FlowModel, count_levels
from flowdetect.density.model import DensityModel
from flowdetect.density.settings import TrainingResult
from flowdetect.density.spec import DataSpec, TensorSource
from flowdetect.density.streams import SCORING, stream

ROWS_AT_ONCE = 1024  # whose contributions are in memory at once
PRETRAINING = ".pretraining"


@dataclass(kw_only=True, eq=False, repr=False)
class FactoringDensity(FlowDensity):
    """A flow whose dimensions leave as `factorization` says, which may need a pre-training.

    A subclass implements `_multi_scale`, `_level` and, if it standardises what leaves, `_standardizer`. It must have
    the parameters `n_levels` and `coupling`.
    """

    n_levels: int | str = "auto"
    coupling: str = "affine"
    factorization: str = "standard"
    pretraining: float = 0.25
    _may_change = FlowDensity._may_change | {"pretraining"}
    _standard_choice: ClassVar[Choice | None] = None  # None: the first channels at a split leave

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **FlowDensity._parameter_constraints,
        "factorization": [StrOptions({"standard", "likelihood", "likelihood_reversed", "random"})],
        "pretraining": [Interval(Real, 0, 1, closed="neither")],
    }

    # ---- the level at which each dimension leaves

    @property
    def _pretrains(self) -> bool:
        return self.factorization.startswith("likelihood")

    @property
    def _stages(self) -> tuple[str, ...]:
        return ("", PRETRAINING) if self._pretrains else ("",)

    def _train(self, spec: DataSpec, data: TrainingRows, max_epochs: int) -> tuple[DataSpec, TrainingResult]:
        """Choose the level at which each dimension leaves, by a pre-training if needed; then train."""
        name, standard = type(self).__name__, type(self)._standard_choice
        n_levels = count_levels(self.n_levels, spec.event_shape, spec.is_table, name)
        self._check_factorization(n_levels)
        if data.continues or (self.factorization == "standard" and standard is None):
            return super()._train(spec, data, max_epochs)
        channels, height, width = spec.event_shape
        shape = (height, width, channels)
        epochs = max(1, round(self.pretraining * max_epochs)) if self._pretrains else 0
        main = data.checkpoints.get("")
        if main is not None and main.found:
            usual = factorization.factor(shape, n_levels, factorization.checkerboard)
            name = "model/factored_dims"
            factored = in_first(lambda: main.read_one(name, lambda found: factorization.is_alike(found, usual)))
        elif self.factorization == "standard":
            factored = factorization.factor(shape, n_levels, cast(Choice, standard))
        elif self.factorization == "random":
            rng = np.random.default_rng(data.seed)
            factored = factorization.factor(shape, n_levels, factorization.random_half(rng))
        else:
            unfactored = spec.with_learned(factored_dims=np.full(shape, n_levels))
            first = self._train_once(unfactored, data, epochs, PRETRAINING, self.pretraining)
            data = replace(data, started=time.monotonic() - first.seconds)
            if first.failure is not None:  # the estimator keeps the partly trained flow
                return unfactored, first
            choice = factorization.largest_contributions(
                self._contributions(unfactored, first.model, data), self.factorization == "likelihood_reversed"
            )
            factored = factorization.factor(shape, n_levels, choice)
        return super()._train(spec.with_learned(factored_dims=factored), data, max(1, max_epochs - epochs))

    def _contributions(self, spec: DataSpec, model: DensityModel, data: TrainingRows) -> NDArray[np.float64]:
        """Log-scales of each dimension, summed over the layers up to each level, mean over rows: (L, H, W, C)."""
        flow = cast(FlowModel, model)
        rows = TensorSource(data.training, spec, None, data.device)
        total, n_rows = np.zeros(1), len(rows)
        with torch.no_grad():
            for start in range(0, n_rows, ROWS_AT_ONCE):
                x, _ = rows.batch(np.arange(start, min(start + ROWS_AT_ONCE, n_rows)))
                noise = None
                if flow.n_noise:
                    generator = Generator().manual_seed(stream(data.seed, SCORING, start))
                    noise = torch.rand(len(x), flow.n_noise, generator=generator, dtype=torch.float32).to(x.device)
                found = factorization.flow_contributions(flow.flow, flow.preprocessed(x, noise)[0])  # (n, L, C, H, W)
                total = total + found.double().sum(0).cpu().numpy()
        contributions: NDArray[np.float64] = (total / n_rows).transpose(0, 2, 3, 1)
        return contributions

    def _check_factorization(self, n_levels: int) -> None:
        if self.factorization == "standard":
            return
        name = type(self).__name__
        if n_levels == 1:
            raise ValueError(
                f'{name}: factorization="{self.factorization}" chooses what leaves a level early, but there is only '
                'one level; pass "standard", or images whose height and width can be halved twice.'
            )
        if self._pretrains and self.coupling == "additive":
            raise ValueError(
                f'{name}: factorization="{self.factorization}" ranks dimensions by the scales of their couplings, but '
                'additive couplings have no scales; pass coupling="affine" or factorization="standard".'
            )

    @property
    def factored_dims_(self) -> NDArray[np.int64]:
        """The level, 1 to L, at which each dimension of an image leaves, (H, W, C); all 1 for a table."""
        return self._learned("factored_dims")

    # ---- the network

    def _multi_scale(self, spec: DataSpec) -> MultiScale:
        """Build the flow between the fixed first map and the standardisation at the top."""
        raise NotImplementedError

    def _level(self, channels: int, is_measured: bool, is_last: bool) -> Sequence[Layer]:
        """Build the layers of one level: `Squeeze` first; at the end each channel is at its own place.

        For the measurement of contributions, return a flat list of elementwise maps, `Squeeze` and permutations;
        channels may then end at other places.
        """
        raise NotImplementedError

    def _standardizer(self, stay: int, leave: int) -> Bijection | None:
        """Build the layer that standardises leaving channels, given those that stay; None: they leave unchanged."""
        return None

    def _build(self, spec: DataSpec) -> FlowModel:
        model = self._flow_model(spec, self._multi_scale(spec))
        if "factored_dims" in spec.learned:
            model.register_buffer("factored_dims", torch.from_numpy(np.array(spec.learned["factored_dims"])))
        return model

    def _factored_scale(self, spec: DataSpec) -> MultiScale:
        """Build a multi-scale flow of images in which each dimension leaves at its level."""
        channels, height, width = spec.event_shape
        factored_dims = spec.learned["factored_dims"]
        if self._pretrains and factored_dims.min() == factored_dims.max():  # the flow of a pre-training
            n_levels = int(factored_dims.max())
            last = n_levels - 1
            steps = [Chain(self._level(4**level * channels, True, level == last)) for level in range(n_levels)]
            blocks = 4**n_levels
            return MultiScale([Chain(steps)], [], [(blocks * channels, height >> n_levels, width >> n_levels)])
        levels, standardizers, latent_shapes = [], [], []
        for order in factorization.orders(factored_dims):
            levels.append(Chain([*self._level(channels, is_measured=False, is_last=False), Reorder(order)]))
            channels, height, width = 2 * channels, height // 2, width // 2
            standardizer = self._standardizer(channels, channels)
            standardizers += [] if standardizer is None else [standardizer]
            latent_shapes.append((channels, height, width))
        levels.append(Chain(self._level(channels, is_measured=False, is_last=True)))
        latent_shapes.append((4 * channels, height // 2, width // 2))
        return MultiScale(levels, standardizers, latent_shapes)
