"""IAF: the transforms of MAF in the inverse direction, so that a sample takes one pass.

Kingma et al., "Improved Variational Inference with Inverse Autoregressive Flow" (2016),
https://arxiv.org/abs/1606.04934
"""

from __future__ import annotations

from dataclasses import dataclass

from flowdetect.bijections import Autoregressive, Bijection, Inverse
from flowdetect.density.autoregressive_flow import AutoregressiveFlowDensity

MOST_IN_A_GRAPH = 64  # values


@dataclass(kw_only=True, eq=False, repr=False)
class IAFDensity(AutoregressiveFlowDensity):
    r"""Density by an inverse autoregressive flow: each value is computed from the noise of the values before it.

    .. math:: \log p(x) = \log N(z; 0, 1) + \log|\det dz/dx|, \quad x = f(z)

    with f a sequence of transforms x_i = f_k(z_i; z_1 .. z_{i-1}). Use it for tables if samples must be fast; it treats
    a small image as a row of its values. A sample takes one pass. A score solves for z in a few passes, and a training
    step takes several times as long as one of `MAFDensity`. Scores are exact for real values, up to the solver's
    tolerance of 1e-6 (1 + abs(z)) per transform; for data in bins, dequantisation makes them lower bounds of the
    discrete data's log-probability.

    Parameters
    ----------
    n_transforms : int, default 5
    hidden_features : tuple of int, default (64, 64)
        Widths of each transform's hidden layers; raised to the number of features minus 1 if smaller.
    univariate : "affine" or "spline", default "affine"
        The map of a value. "affine", as in the paper: x_i = (z_i + t) s, s in (0.05, 20.1). "spline":
        rational-quadratic splines of 8 bins.
    order : "reverse" or "random", default "reverse"
        Order of the features: reversed from one transform to the next, or drawn for each transform.
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
    learning_rate : float, default 3e-3

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

    References
    ----------
    Improved Variational Inference with Inverse Autoregressive Flow (Kingma et al.), 2016,
    https://arxiv.org/abs/1606.04934
    Masked Autoregressive Flow for Density Estimation (Papamakarios et al.), 2017, https://arxiv.org/abs/1705.07057,
    section 3.3 (relation of MAF and IAF)

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect import IAFDensity
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> density = IAFDensity(n_transforms=2, hidden_features=(16,), max_epochs=2, random_state=0).fit(X)
    >>> density.score_samples(X[:3]).shape
    (3,)
    >>> density.sample(5, random_state=0).shape
    (5, 3)
    """

    univariate: str = "affine"

    @property
    def not_exported(self) -> dict[str, str]:
        """All formats if a fitted density has more than 64 values: a graph holds one pass per transform and value."""
        if not self.__sklearn_is_fitted__() or self.spec_.n_values <= MOST_IN_A_GRAPH:
            return {}
        reason = (
            f"each of its transforms solves for the values one by one, so a graph would hold {self.spec_.n_values} "
            f"passes per transform (at most {MOST_IN_A_GRAPH} are allowed); use MAFDensity, which scores in one pass."
        )
        return dict.fromkeys(("torch", "onnx"), reason)

    def _directed(self, transform: Autoregressive) -> Bijection:
        return Inverse(transform)
