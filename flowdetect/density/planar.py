"""Planar and radial flows: many simple steps, each along one direction or around one point.

Rezende & Mohamed, "Variational Inference with Normalizing Flows" (2015), https://arxiv.org/abs/1505.05770
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval

from flowdetect.bijections import Chain, MultiScale, Planar, Radial
from flowdetect.density.flow import FlowDensity, FlowModel
from flowdetect.density.spec import DataSpec


@dataclass(kw_only=True, eq=False, repr=False)
class _StepsDensity(FlowDensity):
    """What both share: a sequence of steps of one kind."""

    n_steps: int = 32
    batch_size: int | str = "auto"
    learning_rate: float = 1e-2

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **FlowDensity._parameter_constraints,
        "n_steps": [Interval(Integral, 1, None, closed="left")],
    }
    _step: ClassVar[type[Planar] | type[Radial]]

    def _build(self, spec: DataSpec) -> FlowModel:
        steps = [self._step(spec.n_values, spec.n_context) for _ in range(self.n_steps)]
        flow = MultiScale([Chain(steps)], [], [spec.event_shape])
        return self._flow_model(spec, flow, context_enters="flow")


@dataclass(kw_only=True, eq=False, repr=False)
class PlanarDensity(_StepsDensity):
    r"""Density by a planar flow: each step moves points along one direction, near one plane.

    .. math:: \log p(x) = \log N(z; 0, 1) + \log|\det dz/dx|, \quad z = f_K(\dots f_1(x)), \quad
        f_k(x) = x + v_k \tanh(w_k^T x + b_k)

    Use it for tables of few columns, and to show how a flow works; it treats a small image as a row of its pixels. A
    step has only 2 D + 1 parameters for D features, like one hidden unit, so many steps are needed, and most other
    flows fit better in the same time. A score takes one pass. It is exact for real values; for data in bins,
    dequantisation makes it a lower bound of the discrete data's log-probability. A sample inverts each step by a
    numerical search for one number t, with an error of about 1e-6 (1 + abs(t)).

    Parameters
    ----------
    n_steps : int, default 32
    n_draws : int, default 1
        Draws of the dequantisation noise per score. More than one gives the importance-weighted bound, which is
        tighter.
    preprocessing : "auto", "gaussianize", "logit" or "linear", default "auto"
        The fixed first map of the flow; its log-determinant is part of the score. See `FlowDensity`.
    logit_range : (low, high), default (0.05, 0.95)
        Limits for preprocessing="logit"; see `FlowDensity`.
    dequantization : "uniform" or "variational", default "uniform"
        The noise added to data in bins: uniform, or drawn from a distribution that is learned with the density, which
        gives a tighter bound (Ho et al. 2019, Flow++); see `FlowDensity`.
    memory_efficient : bool, default False
        True: training recomputes activations in the backward pass instead of storing them. Memory then hardly grows
        with depth, and training takes about 1.4 times as long; see `FlowDensity`.
    batch_size : "auto" or int, default "auto"
    learning_rate : float, default 1e-2

    All other parameters are those of `BaseDensity`.

    Attributes
    ----------
    n_features_in_ : int
    image_shape_ : (H, W, C) or None
    n_bins_ : int or None
    value_counts_ : (C, n_bins) array, how often the training rows take each value; where they are gaussianized
    knots_ : (2, D, K) array, where the lines of each column of a table meet, before and after; likewise
    classes_, class_log_prior_ : (K,) arrays, of a conditional density
    constant_features_ : indices of the constant columns, which are not modelled
    latent_slices_ : list of one slice
    history_ : dict of lists, one value per epoch: bits_per_dim, validation_bits_per_dim, skipped_steps, seconds
    n_iter_ : int, epochs trained
    score_is_bound_ : bool

    See Also
    --------
    RadialDensity : Steps around points instead of along directions.
    MAFDensity : More flexible on tables.

    References
    ----------
    Variational Inference with Normalizing Flows (Rezende & Mohamed), 2015, https://arxiv.org/abs/1505.05770, eq. 10 to
    13 and appendix A.1

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect import PlanarDensity
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> density = PlanarDensity(n_steps=4, max_epochs=2, random_state=0).fit(X)
    >>> density.score_samples(X[:3]).shape
    (3,)
    >>> density.sample(5, random_state=0).shape
    (5, 2)
    """

    _step: ClassVar[type[Planar] | type[Radial]] = Planar


@dataclass(kw_only=True, eq=False, repr=False)
class RadialDensity(_StepsDensity):
    r"""Density by a radial flow: each step moves points towards one centre or away from it.

    .. math:: \log p(x) = \log N(z; 0, 1) + \log|\det dz/dx|, \quad z = f_K(\dots f_1(x)), \quad
        f_k(x) = x + \beta_k \frac{x - c_k}{\alpha_k + |x - c_k|}

    Use it for tables of few columns; it treats a small image as a row of its pixels. A step has D + 2 parameters for D
    features, and its inverse has a closed form. As with `PlanarDensity`, many steps are needed, and most other flows
    fit better in the same time. A score takes one pass. It is exact for real values; for data in bins, dequantisation
    makes it a lower bound of the discrete data's log-probability.

    Parameters
    ----------
    n_steps : int, default 32
    n_draws : int, default 1
        Draws of the dequantisation noise per score. More than one gives the importance-weighted bound, which is
        tighter.
    preprocessing : "auto", "gaussianize", "logit" or "linear", default "auto"
        The fixed first map of the flow; its log-determinant is part of the score. See `FlowDensity`.
    logit_range : (low, high), default (0.05, 0.95)
        Limits for preprocessing="logit"; see `FlowDensity`.
    dequantization : "uniform" or "variational", default "uniform"
        The noise added to data in bins: uniform, or drawn from a distribution that is learned with the density, which
        gives a tighter bound (Ho et al. 2019, Flow++); see `FlowDensity`.
    memory_efficient : bool, default False
        True: training recomputes activations in the backward pass instead of storing them. Memory then hardly grows
        with depth, and training takes about 1.4 times as long; see `FlowDensity`.
    batch_size : "auto" or int, default "auto"
    learning_rate : float, default 1e-2

    All other parameters are those of `BaseDensity`.

    Attributes
    ----------
    n_features_in_ : int
    image_shape_ : (H, W, C) or None
    n_bins_ : int or None
    value_counts_ : (C, n_bins) array, how often the training rows take each value; where they are gaussianized
    knots_ : (2, D, K) array, where the lines of each column of a table meet, before and after; likewise
    classes_, class_log_prior_ : (K,) arrays, of a conditional density
    constant_features_ : indices of the constant columns, which are not modelled
    latent_slices_ : list of one slice
    history_ : dict of lists, one value per epoch: bits_per_dim, validation_bits_per_dim, skipped_steps, seconds
    n_iter_ : int, epochs trained
    score_is_bound_ : bool

    See Also
    --------
    PlanarDensity : Steps along directions instead of around points.
    MAFDensity : More flexible on tables.

    References
    ----------
    Variational Inference with Normalizing Flows (Rezende & Mohamed), 2015, https://arxiv.org/abs/1505.05770, eq. 14 and
    appendix A.2

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect import RadialDensity
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> density = RadialDensity(n_steps=4, max_epochs=2, random_state=0).fit(X)
    >>> density.score_samples(X[:3]).shape
    (3,)
    >>> density.sample(5, random_state=0).shape
    (5, 2)
    """

    _step: ClassVar[type[Planar] | type[Radial]] = Radial
