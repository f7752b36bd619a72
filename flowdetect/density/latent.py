"""Latent-variable models: an encoder, a decoder and a standard normal prior; what VAE and PixelVAE share.

Both bound log p(x), which no formula gives, from below by importance sampling with the encoder's q(z | x).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, ClassVar, Protocol

import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Bunch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Generator, Tensor, nn

from flowdetect.bijections.base import Layer, soft_bound, sum_except_batch
from flowdetect.density._devices import in_torch_state
from flowdetect.density.latent_space import LatentSpaceDensity
from flowdetect.density.model import DensityModel
from flowdetect.density.spec import DataSpec
from flowdetect.distributions import standard_normal_quantile
from flowdetect.nets.autoencoder import ImageDecoder, ImageEncoder, VectorNet

# log-scales of q(z | x) lie within 4 of -3, and start there: narrow, so that z tells of x from the first step on (from
# 0, decoders of little data often learned to ignore it), and never much wider than the prior, whatever a network makes
# of an outlier
LOG_SCALE_CENTRE, LOG_SCALE_REACH = -3.0, 4.0
MOST_TABLE_LATENTS = 16
TABLE_WIDTH = 4  # of perceptrons, times hidden_channels
CODE_REACH = 10.0  # the encoder's numbers for a posterior's flow lie within it


class Likelihood(Protocol):
    """What turns a decoder's features into the distribution of x given z."""

    n_uniforms: int

    def log_prob(self, h: Tensor, y: Tensor) -> Tensor:
        """log p(y | h) of features (n, F, H, W) and values (n, C, H, W): (n, C, H, W), nats."""

    def draw(self, h: Tensor, u: Tensor, temperature: float) -> Tensor:
        """Values y (n, C, H, W) at uniform draws u (n, n_uniforms, H, W)."""

    def mean(self, h: Tensor) -> Tensor:
        """Mean of y given the features: (n, C, H, W)."""


class LatentModel(DensityModel):
    """log p(x | z) + log p(z) - log q(z | x) at z drawn from q, a lower bound of log p(x) in expectation.

    The prior p(z) is standard normal and q(z | x) is normal with independent dimensions, whose log-scales lie within
    (-7, 1), or what a flow makes of such a distribution. In training mode log_prob weighs the divergence of q from the
    prior by beta, which rises from 0 to 1 over a first share of the training (Bowman et al. 2016, "Generating Sentences
    from a Continuous Space", section 3.1). The divergence is computed by its formula, and under a flow at the z drawn.

    Parameters
    ----------
    event_shape : (C, H, W)
    encoder : module, (y (n, C, H, W), context) -> (n, 2 * latent_dim + n_code)
        Mean and log-scale of the normal distribution, the latter before it is bounded, log s = 4 tanh(h / 4) - 3; and
        the code that a flow takes as its context, before it is bounded to within 10.
    decoder : module, (z (n, latent_dim), context) -> features (n, F, H, W)
    likelihood : Likelihood
    latent_dim : int
    n_bins : int or None
        In bins, networks and likelihood see y = 2 x / (n_bins - 1) - 1; real values they see as they are.
    kl_warm_up : float
        The share of the training over which beta rises; 0: it is 1 throughout.
    is_table : bool
        Whether a row (n, D, 1, 1) is laid out as a strip of D pixels, (n, 1, D, 1), for networks and likelihood.
    posterior_flow : Layer or None
        From the normal distribution to q(z | x): `forward` of latents (n, latent_dim, 1, 1) and the code.
    """

    is_bound = True
    summands: ClassVar[tuple[str, ...]] = ("log_px_given_z", "minus_kl")

    def __init__(
        self,
        event_shape: tuple[int, int, int],
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        latent_dim: int,
        n_bins: int | None = None,
        kl_warm_up: float = 0.0,
        is_table: bool = False,
        posterior_flow: Layer | None = None,
    ) -> None:
        super().__init__(event_shape)
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.n_noise = self.latent_dim = latent_dim
        self.n_bins, self.warm_up, self.is_table = n_bins, kl_warm_up, is_table
        self.beta = 1.0
        self.posterior_flow = posterior_flow

    def begin_step(self, seed: int, progress: float) -> None:
        self.beta = min(1.0, progress / self.warm_up) if self.warm_up else 1.0

    # ---- the bound

    def posterior(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-scale of q(z | x), under a flow of what it starts from: two (n, latent_dim)."""
        mean, log_s, *_ = self._encoded(x, context)
        return mean, log_s

    def _encoded(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        """Mean and log-scale of the normal distribution, (n, latent_dim) each, and a flow's code (n, n_code)."""
        d = self.latent_dim
        h = self.encoder(self._to_net(x), context)
        normal = h[:, :d], LOG_SCALE_CENTRE + soft_bound(h[:, d : 2 * d], LOG_SCALE_REACH)
        return normal if self.posterior_flow is None else (*normal, soft_bound(h[:, 2 * d :], CODE_REACH))

    def log_prob(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        q = self._encoded(x, context)
        if self.training:
            return self._elbo(x, q, context, noise, self.beta)
        return self._bound(x, q, context, noise).sum(0)

    def log_prob_draws(self, x: Tensor, context: Tensor | None, noises: Sequence[Tensor | None]) -> Tensor:
        """`log_prob` at each of K draws of the noise, encoding x once: (K, n) nats."""
        q = self._encoded(x, context)
        return torch.stack([self._bound(x, q, context, noise).sum(0) for noise in noises])

    def terms(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> dict[str, Tensor]:
        """log_px_given_z and minus_kl = log p(z) - log q(z | x), (n,) each."""
        q = self._encoded(x, context)
        return dict(zip(self.summands, self._bound(x, q, context, noise), strict=True))

    def _bound(self, x: Tensor, q: tuple[Tensor, ...], context: Tensor | None, noise: Tensor | None) -> Tensor:
        """log p(x | z) and log p(z) - log q(z | x): (2, n)."""
        mean, log_s, *code = q
        start, epsilon = self._draw(mean, log_s, noise)
        z, log_det = self._through_flow(start, code)
        minus_kl = (log_s + 0.5 * (epsilon.square() - z.square())).sum(1)  # both normal constants cancel
        return torch.stack([self._log_px(x, z, context), minus_kl if log_det is None else minus_kl + log_det])

    def _elbo(
        self,
        x: Tensor,
        q: tuple[Tensor, ...],
        context: Tensor | None,
        noise: Tensor | None,
        beta: float = 1.0,
    ) -> Tensor:
        """log p(x | z) - beta KL(q || p) at one draw of z, the divergence by its formula if there is one: (n,)."""
        if self.posterior_flow is not None:
            log_px, minus_kl = self._bound(x, q, context, noise).unbind()
            return log_px + beta * minus_kl
        mean, log_s = q
        z = self._draw(mean, log_s, noise)[0]
        return self._log_px(x, z, context) - beta * self._divergence(mean, log_s).sum(1)

    def _divergence(self, mean: Tensor, log_s: Tensor) -> Tensor:
        """KL(q || p) of each latent dimension, q normal with this mean and log-scale: (n, latent_dim)."""
        return 0.5 * (mean.square() + (2 * log_s).exp() - 1) - log_s

    def _through_flow(self, start: Tensor, code: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Map draws of the normal distribution to z (n, latent_dim); if there is a flow, the log-determinant (n,)."""
        if self.posterior_flow is None:
            return start, None
        z, log_det = self.posterior_flow(start[:, :, None, None], *code)
        return z.flatten(1), log_det

    @staticmethod
    def _draw(mean: Tensor, log_s: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """z and the standard normal values that it is made from; without noise z is the mean."""
        if noise is None:
            return mean, torch.zeros_like(mean)
        epsilon = standard_normal_quantile(noise.to(mean.dtype))
        return mean + log_s.exp() * epsilon, epsilon

    def _log_px(self, x: Tensor, z: Tensor, context: Tensor | None) -> Tensor:
        return sum_except_batch(self.likelihood.log_prob(self.decoder(z, context), self._to_net(x)))

    # ---- what an encoder misses, and what it computes on the way

    def regret(
        self, x: Tensor, context: Tensor | None, noises: Sequence[Tensor | None], n_steps: int, learning_rate: float
    ) -> Tensor:
        """How much a q(z | x) fitted to each x alone raises the bound: (n,) nats.

        Mean and log-scale of q, and the code of a flow, start at the encoder's answer and take a step of Adam for each
        of the first n_steps noises, at a rate that falls linearly to 0. Both bounds are then means over the remaining
        noises.
        """
        encoded = self._encoded(x, context)
        fitted = tuple(start.detach().clone().requires_grad_() for start in encoded)
        adam = torch.optim.Adam(fitted, lr=learning_rate)
        for step, noise in enumerate(noises[:n_steps]):
            adam.param_groups[0]["lr"] = learning_rate * (1 - step / n_steps)
            with torch.enable_grad():
                loss = -self._elbo(x, fitted, context, noise).sum()
            gradients = torch.autograd.grad(loss, fitted)
            for parameter, gradient in zip(fitted, gradients, strict=True):
                parameter.grad = gradient
            adam.step()
        differences = [
            self._elbo(x, fitted, context, noise) - self._elbo(x, encoded, context, noise) for noise in noises[n_steps:]
        ]
        return torch.stack(differences).mean(0).detach()

    def path(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Norms of the reconstruction's error, as the networks see values, and of mean and scale of q(z | x): (n, 3).

        Huang et al. 2024, https://arxiv.org/abs/2401.04933: what the likelihoods of encoder and decoder depend on.
        Under a flow, mean and scale are those of the normal distribution that it starts from.
        """
        mean, log_s, *code = self._encoded(x, context)
        z = self._through_flow(mean, code)[0]
        error = self._to_net(x) - self.likelihood.mean(self.decoder(z, context))
        return torch.stack([each.flatten(1).square().sum(1).sqrt() for each in (error, mean, log_s.exp())], 1)

    # ---- latents and samples

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Mean of q(z | x), under a flow where it maps the mean before it: (n, C, H, W) -> (n, latent_dim)."""
        mean, _, *code = self._encoded(x, context)
        return self._through_flow(mean, code)[0]

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Mean of p(x | z): (n, latent_dim) -> (n, C, H, W), in bins between the values."""
        return self._from_net(self.likelihood.mean(self.decoder(z, context)))

    def sample(
        self,
        n: int,
        context: Tensor | None = None,
        temperature: float = 1.0,
        generator: Generator | None = None,
    ) -> Tensor:
        """As of the base; the temperature multiplies z and applies to the likelihood's noise too."""
        like = next(self.parameters())
        z = torch.randn(n, self.latent_dim, generator=generator, dtype=torch.float32).to(like)
        h = self.decoder(temperature * z, context)
        u = torch.rand(n, self.likelihood.n_uniforms, *h.shape[2:], generator=generator, dtype=torch.float32)
        x = self._from_net(self.likelihood.draw(h, u.to(like), temperature))
        return x if self.n_bins is None else x.round()

    def _to_net(self, x: Tensor) -> Tensor:
        """Values as networks and likelihood see them."""
        y = x if self.n_bins is None else x * (2 / (self.n_bins - 1)) - 1
        return y.transpose(1, 2) if self.is_table else y

    def _from_net(self, y: Tensor) -> Tensor:
        x = y if self.n_bins is None else (y + 1) * ((self.n_bins - 1) / 2)
        return x.transpose(1, 2) if self.is_table else x


@dataclass(kw_only=True, eq=False, repr=False)
class LatentDensity(LatentSpaceDensity):
    """A density by an encoder and a decoder of standard normal latents."""

    latent_dim: int | str = "auto"
    hidden_channels: int = 32
    n_blocks: int = 1
    n_mixtures: int = 5
    kl_warm_up: float = 0.1
    n_draws: int = 1
    model_: LatentModel = field(init=False)
    _image_latents: ClassVar[int] = 64

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **LatentSpaceDensity._parameter_constraints,
        "latent_dim": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "hidden_channels": [Interval(Integral, 1, None, closed="left")],
        "n_blocks": [Interval(Integral, 0, None, closed="left")],
        "n_mixtures": [Interval(Integral, 1, None, closed="left")],
        "kl_warm_up": [Interval(Real, 0, 1, closed="both")],
        "n_draws": [Interval(Integral, 1, None, closed="left")],
    }

    def _latent_dim(self, spec: DataSpec) -> int:
        if not isinstance(self.latent_dim, str):
            return int(self.latent_dim)
        return min(spec.n_values, MOST_TABLE_LATENTS) if spec.is_table else self._image_latents

    def _autoencoder(self, spec: DataSpec, n_encoded: int, column_features: int) -> tuple[nn.Module, nn.Module]:
        """Build an encoder to n_encoded numbers, and a decoder: convolutions for images, perceptrons for tables."""
        latent_dim, width, n_context = self._latent_dim(spec), self.hidden_channels, spec.n_context
        if spec.is_table:
            width, n_columns = TABLE_WIDTH * width, spec.n_values
            encoder = VectorNet(n_columns, width, self.n_blocks, (n_encoded,), n_context)
            return encoder, VectorNet(latent_dim, width, self.n_blocks, (column_features, n_columns, 1), n_context)
        return (
            ImageEncoder(spec.event_shape, width, self.n_blocks, n_encoded, n_context),
            ImageDecoder(latent_dim, spec.event_shape, width, self.n_blocks, n_context),
        )

    @property
    def _n_features_out(self) -> int:
        return self.model_.latent_dim

    @in_torch_state()
    def transform(self, X: ArrayLike, y: ArrayLike | None = None) -> NDArray[Any]:
        """Mean of q(z | x), under a flow what that makes of the mean before it: (n, latent_dim) float64.

        A conditional density needs y, else takes each row's likeliest class.
        """
        return self._encode(X, y)

    @in_torch_state()
    def inverse_transform(self, Z: ArrayLike, y: ArrayLike | None = None) -> NDArray[Any]:
        """Mean of p(x | z), as rows; nothing is rounded. Of a PixelVAE, earlier pixels are at their means.

        Parameters
        ----------
        Z : (n, latent_dim) latents
        y : (n,) class labels; needed by a conditional density

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
            log_px_given_z : (n,), how well z explains x, of a PixelVAE with the pixels before; minus_kl : (n,), log
            p(z) - log q(z | x), whose mean over z is minus the KL divergence of q(z | x) from the prior: near 0, z is
            ignored. They sum to the score. Of several draws they are means, weighted as the draws are in the score, and
            what is missing from it is added to log_px_given_z. A conditional density without y gives the terms of the
            likeliest class, and log_class : (n,), so that the three still sum.
        """
        return self._terms(X, y)
