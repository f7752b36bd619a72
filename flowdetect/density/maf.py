"""MAF: a sequence of autoregressive transforms, each computed by a masked network in one pass.

Papamakarios et al., "Masked Autoregressive Flow for Density Estimation" (2017), https://arxiv.org/abs/1705.07057
"""

from __future__ import annotations

from dataclasses import dataclass

from flowdetect.density.autoregressive_flow import AutoregressiveFlowDensity


@dataclass(kw_only=True, eq=False, repr=False)
class MAFDensity(AutoregressiveFlowDensity):
    r"""Density by a masked autoregressive flow: a network maps each feature, given the features before it.

    .. math:: \log p(x) = \log N(z; 0, 1) + \log|\det dz/dx|, \quad z = f(x)

    with f a sequence of transforms z_i = f_k(x_i; x_1 .. x_{i-1}). Use it for tables; it treats a small image as a row
    of its pixels. A score takes one pass; a sample takes a few passes, by fixed-point iteration over all features in
    parallel. Scores are exact for real values; for data in bins, dequantisation makes them lower bounds of the discrete
    data's log-probability.

    Parameters
    ----------
    n_transforms : int, default 5
    hidden_features : tuple of int, default (64, 64)
        Widths of each transform's hidden layers; raised to the number of features minus 1 if smaller.
    univariate : "affine" or "spline", default "spline"
        The map of a feature. "affine", as in the paper: z_i = (x_i + t) s, s in (0.05, 20.1). "spline":
        rational-quadratic splines of 8 bins (the autoregressive neural spline flow, Durkan et al. 2019), which are more
        flexible and take about 1.5 times as long.
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
    Masked Autoregressive Flow for Density Estimation (Papamakarios et al.), 2017, https://arxiv.org/abs/1705.07057
    Neural Spline Flows (Durkan et al.), 2019, https://arxiv.org/abs/1906.04032
    Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving (Song et al.), 2021,
    https://arxiv.org/abs/2002.03629

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect import MAFDensity
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> density = MAFDensity(n_transforms=2, hidden_features=(16,), max_epochs=2, random_state=0).fit(X)
    >>> density.score_samples(X[:3]).shape
    (3,)
    >>> density.sample(5, random_state=0).shape
    (5, 3)
    """
