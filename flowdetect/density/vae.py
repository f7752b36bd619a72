"""VAE: an encoder and a decoder, trained together on a lower bound of the likelihood.

Kingma & Welling, "Auto-Encoding Variational Bayes" (2014), https://arxiv.org/abs/1312.6114
Burda et al., "Importance Weighted Autoencoders" (2016), https://arxiv.org/abs/1509.00519
Rezende & Mohamed, "Variational Inference with Normalizing Flows" (2015), https://arxiv.org/abs/1505.05770
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Bunch
from sklearn.utils._param_validation import Interval, StrOptions

from flowdetect._limits import MOST_STEPS, is_count, is_number
from flowdetect.density._derivatives import double
from flowdetect.density._devices import in_torch_state
from flowdetect.density.latent import LatentDensity, LatentModel, Likelihood
from flowdetect.density.posteriors import CODE_LENGTH, POSTERIORS, build_posterior_flow
from flowdetect.density.spec import DataSpec
from flowdetect.nets.autoencoder import (
    DecodedCategorical,
    DecodedMixture,
    GaussianHead,
)

FEATURES_OF_A_COLUMN = 16
DRAWS_COMPARED = 8  # draws of z for the comparison of the bounds of two q(z | x)
PATH_NAMES = "reconstruction_error", "latent_norm", "latent_scale"


@dataclass(kw_only=True, eq=False, repr=False)
class VAEDensity(LatentDensity):
    r"""Density by a variational autoencoder: a decoder of standard normal latents, and an encoder of rows to latents.

    .. math:: \log p(x) \ge \log \frac{1}{K} \sum_{k=1}^K \frac{p(x \mid z_k) \, p(z_k)}{q(z_k \mid x)},
        \quad z_k \sim q(z \mid x)

    in expectation, where K is `n_draws`; with K = 1 it is the evidence lower bound
    :math:`E_q \log p(x \mid z) - KL(q(z \mid x) \,\|\, p(z))`, which training maximises. The prior p(z) is standard
    normal. q(z | x) is normal with independent dimensions, or such a distribution mapped by a flow. Given z, pixels are
    independent of each other. The networks are convolutional for images and perceptrons for tables. Use it for a short
    code of each row. A score takes one pass for each of the K draws, and a sample one pass.

    Parameters
    ----------
    latent_dim : "auto" or int, default "auto"
        Dimensions of z. "auto": 64 for images; for tables the number of columns, at most 16.
    hidden_channels : int, default 32
        Width of the networks at full resolution. It is two and four times as large at coarser resolutions, and four
        times as large in a table's perceptrons.
    n_blocks : int, default 1
        Residual blocks at each resolution.
    likelihood : "auto", "logistic_mixture", "categorical" or "gaussian", default "auto"
        The distribution p(x | z). "logistic_mixture": a mixture of logistic distributions for each pixel, discretised
        for data in bins. "categorical": a probability for each value; for data in bins only. "gaussian": a mean and a
        scale for each value; for real values only. "auto": "logistic_mixture" in bins, else "gaussian".
    n_mixtures : int, default 5
        Components of the logistic mixture.
    kl_warm_up : float in [0, 1], default 0.1
        Share of the training over which the weight of the KL divergence rises from 0 to 1; this prevents the decoder
        from ignoring the latents. Scores do not use the weight.
    posterior : "gaussian", "planar", "radial", "iaf" or "realnvp", default "gaussian"
        The distribution q(z | x). All but "gaussian" are flows that start from the encoder's normal distribution and
        take 32 further outputs of the encoder as their context. "planar" and "radial" (Rezende & Mohamed 2015): their
        parameters are linear in the context. "iaf" (inverse autoregressive, Kingma et al. 2016) and "realnvp" (affine
        couplings): the context is an input of their networks.
    n_posterior_steps : int, default 4
        Steps of the posterior's flow.
    n_draws : int, default 1
        Draws of z per score. More draws give a tighter bound; the cost is proportional to them.
    learning_rate : float, default 4e-3

    All other parameters are those of `BaseDensity`.

    Attributes
    ----------
    n_features_in_ : int
    image_shape_ : (H, W, C) or None
    n_bins_ : int or None
    classes_, class_log_prior_ : (K,) arrays, of a conditional density
    constant_features_ : indices of the constant columns, which are not modelled
    history_ : dict of lists, one value per epoch: bits_per_dim (with the weighted KL during its warm-up),
        validation_bits_per_dim, skipped_steps, seconds
    n_iter_ : int, epochs trained
    score_is_bound_ : bool, True

    Notes
    -----
    `score_samples` draws z with noise keyed by seed and row, so a row always has the same score. With
    `dequantize=False` z is the mean of q(z | x) instead: the score is then deterministic, but no bound.

    Samples are grainy because pixels are drawn independently. A temperature below 1 in `sample` makes them smoother: it
    multiplies z and narrows p(x | z). The smoothest images are `inverse_transform` of standard normal latents, the mean
    of p(x | z).

    With a flow, q(z | x) has no closed-form mean. `transform`, and scores with `dequantize=False`, then map the mean of
    the normal distribution before the flow. The KL divergence is then estimated at the drawn z, also in training.

    References
    ----------
    Auto-Encoding Variational Bayes (Kingma & Welling), 2014, https://arxiv.org/abs/1312.6114
    Importance Weighted Autoencoders (Burda et al.), 2016, https://arxiv.org/abs/1509.00519
    Variational Inference with Normalizing Flows (Rezende & Mohamed), 2015, https://arxiv.org/abs/1505.05770, section 4
    Improved Variational Inference with Inverse Autoregressive Flow (Kingma et al.), 2016,
    https://arxiv.org/abs/1606.04934

    Examples
    --------
    >>> from flowdetect import VAEDensity, load_images
    >>> X, _ = load_images("digits")
    >>> density = VAEDensity(n_bins=17, latent_dim=8, hidden_channels=8, max_epochs=2, random_state=0).fit(X[:200])
    >>> density.score_samples(X[:3]).shape
    (3,)
    >>> Z = density.transform(X[:3])
    >>> Z.shape
    (3, 8)
    >>> density.inverse_transform(Z).shape
    (3, 64)
    """

    likelihood: str = "auto"
    posterior: str = "gaussian"
    n_posterior_steps: int = 4
    learning_rate: float = 4e-3

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **LatentDensity._parameter_constraints,
        "likelihood": [StrOptions({"auto", "logistic_mixture", "categorical", "gaussian"})],
        "posterior": [StrOptions(POSTERIORS)],
        "n_posterior_steps": [Interval(Integral, 1, None, closed="left")],
    }

    def _build(self, spec: DataSpec) -> LatentModel:
        latent_dim = self._latent_dim(spec)
        flow = build_posterior_flow(self.posterior, latent_dim, self.n_posterior_steps, type(self).__name__)
        n_encoded = 2 * latent_dim + (0 if flow is None else CODE_LENGTH)
        encoder, decoder = self._autoencoder(spec, n_encoded, FEATURES_OF_A_COLUMN)
        likelihood = self._likelihood(spec, FEATURES_OF_A_COLUMN if spec.is_table else self.hidden_channels)
        return LatentModel(
            spec.event_shape,
            encoder,
            decoder,
            likelihood,
            latent_dim,
            spec.n_bins,
            self.kl_warm_up,
            spec.is_table,
            flow,
        )

    def _likelihood(self, spec: DataSpec, features: int) -> Likelihood:
        channels, n_bins, kind = (1 if spec.is_table else spec.event_shape[0]), spec.n_bins, self.likelihood
        if kind == "auto":
            kind = "gaussian" if n_bins is None else "logistic_mixture"
        if kind == "logistic_mixture":
            return DecodedMixture(features, channels, self.n_mixtures, n_bins)
        if kind == "categorical" and n_bins is not None:
            return DecodedCategorical(features, channels, n_bins)
        if kind == "gaussian" and n_bins is None:
            return GaussianHead(features, channels)
        needs, has = ("data in bins", "real-valued") if n_bins is None else ("real values", "in bins")
        raise ValueError(
            f'{type(self).__name__}: likelihood="{kind}" is for {needs}, but X is {has}; pass "auto" or '
            '"logistic_mixture", or another n_bins.'
        )

    @in_torch_state()
    def likelihood_regret(
        self, X: ArrayLike, y: ArrayLike | None = None, *, n_steps: int = 50, learning_rate: float = 0.1
    ) -> NDArray[np.float64]:
        r"""How much the lower bound of each row rises if q(z | x) is fitted to that row alone.

        .. math:: R(x) = \max_{\mu, \sigma} L(x; \mu, \sigma) - L(x; \mu(x), \sigma(x)),
            \quad L(x; \mu, \sigma) = E_{z \sim N(\mu, \sigma^2)} \log p(x \mid z) - KL(N(\mu, \sigma^2) \,\|\, p(z))

        With a flow, all outputs of the encoder are fitted: mean and scale before the flow, and the flow's context. The
        divergence is then the mean over the same draws of z as log p(x | z).

        Parameters
        ----------
        X : images or rows as in `fit`
        y : (n,) class labels, optional
            For a conditional density; without labels, each row's most likely class is used.
        n_steps : int, default 50
            Steps of Adam from the encoder's mean and log-scale, each at a fresh draw of z; all rows of a chunk at once.
        learning_rate : float, default 0.1
            Learning rate of the first step; it falls linearly to 0.

        Returns
        -------
        regret : (n,) float64, nats; about 0 if the steps find no better q(z | x), below 0 if they end at a worse one

        Notes
        -----
        Noise is keyed by seed and row, so a row always has the same regret. Both bounds are means over the same 8 draws
        of z, which the steps do not use. The paper fits the encoder's weights to each image instead.

        References
        ----------
        Likelihood Regret: An Out-of-Distribution Detection Score For Variational Auto-encoder (Xiao et al.), 2020,
        https://arxiv.org/abs/2003.02977, section 4
        """
        if not is_count(n_steps, most=MOST_STEPS):
            raise ValueError(
                f"n_steps must be a whole number >= 1 and at most {MOST_STEPS}, got {n_steps!r}; the usual value is 50."
            )
        if not is_number(learning_rate) or learning_rate <= 0:
            raise ValueError(f"learning_rate must be a finite number above 0, got {learning_rate!r}.")
        source, labels = self._read(X, y)
        fit = partial(self.model_.regret, n_steps=int(n_steps), learning_rate=float(learning_rate))
        return self._finite(self._scoring().apply(source, labels, fit, int(n_steps) + DRAWS_COMPARED))

    @in_torch_state()
    def likelihood_path(self, X: ArrayLike, y: ArrayLike | None = None) -> Bunch:
        """Three statistics of each row on which the likelihoods of encoder and decoder depend.

        Parameters
        ----------
        X : images or rows as in `fit`
        y : (n,) class labels, optional
            For a conditional density; without labels, each row's most likely class is used.

        Returns
        -------
        path : Bunch
            reconstruction_error : (n,), Euclidean distance of x from the mean of p(x | z) at the mean of q(z | x), for
            values scaled to [-1, 1] in bins, else standardised; latent_norm and latent_scale : (n,), Euclidean norms of
            the mean and of the standard deviations of q(z | x). All are deterministic. With a flow, latent_norm and
            latent_scale are those of the normal distribution before the flow, and z is its mean mapped by the flow.

        References
        ----------
        Rethinking Test-time Likelihood: The Likelihood Path Principle and Its Application to OOD Detection (Huang et
        al.), 2024, https://arxiv.org/abs/2401.04933
        """
        source, labels = self._read(X, y)
        columns = self._scoring().encode(source, labels, cast(LatentModel, double(self.model_)).path).T
        return Bunch(**dict(zip(PATH_NAMES, columns, strict=True)))
