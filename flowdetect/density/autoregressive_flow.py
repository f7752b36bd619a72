"""What MAF and IAF share: a sequence of autoregressive transforms and its parameters."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval, StrOptions

from flowdetect.bijections import Autoregressive, Bijection, Chain, MultiScale
from flowdetect.density._parameters import check_widths
from flowdetect.density.flow import FlowDensity, FlowModel
from flowdetect.density.spec import DataSpec


@dataclass(kw_only=True, eq=False, repr=False)
class AutoregressiveFlowDensity(FlowDensity):
    """A flow of autoregressive transforms, in either direction."""

    n_transforms: int = 5
    hidden_features: tuple[int, ...] = (64, 64)
    univariate: str = "spline"
    order: str = "reverse"
    batch_size: int | str = "auto"
    learning_rate: float = 3e-3

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **FlowDensity._parameter_constraints,
        "n_transforms": [Interval(Integral, 1, None, closed="left")],
        "hidden_features": [tuple, list],
        "univariate": [StrOptions({"affine", "spline"})],
        "order": [StrOptions({"reverse", "random"})],
    }

    def _directed(self, transform: Autoregressive) -> Bijection:
        """Turn a transform, whose `forward` takes one pass, into a layer from data to noise."""
        return transform

    def _build(self, spec: DataSpec) -> FlowModel:
        widths = check_widths(self.hidden_features, (64, 64), type(self).__name__)
        transforms = []
        for i in range(self.n_transforms):
            order = "random" if self.order == "random" else "reverse" if i % 2 else "forward"
            transform = Autoregressive(spec.event_shape, widths, self.univariate, order, spec.n_context)
            transforms.append(self._directed(transform))
        flow = MultiScale([Chain(transforms)], [], [spec.event_shape])
        return self._flow_model(spec, flow, context_enters="flow")
