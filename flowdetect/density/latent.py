"""Latent-variable models: an encoder, a decoder and a standard normal prior; what VAE and PixelVAE share.

log p(x) has no closed form; both bound it from below by importance sampling from the encoder's q(z | x).
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

# log-scales of q(z | x) lie in (-7, 1) and start at -3. A narrow start makes z informative about x from the first step;
# when they started at 0, decoders trained on little data often learned to ignore z. The upper bound keeps q from being
# much wider than the prior on outliers.
LOG_SCALE_CENTRE, LOG_SCALE_REACH = -3.0, 4.0
MOST_TABLE_LATENTS = 16
TABLE_WIDTH = 4  # width of a table's perceptrons, in hidden_channels
CODE_REACH = 10.0  # bound on the absolute values of the code for a posterior's flow


class Likelihood(Protocol):
    """The distribution of x given z, from a decoder's features."""

    n_uniforms: int

    def log_prob(self, h: Tensor, y: Tensor) -> Tensor:
        """log p(y | h) of features (n, F, H, W) and values (n, C, H, W): (n, C, H, W), nats."""

    def draw(self, h: Tensor, u: Tensor, temperature: float) -> Tensor:
        """Draw values y (n, C, H, W) from uniform numbers u (n, n_uniforms, H, W)."""

    def mean(self, h: Tensor) -> Tensor:
        """Mean of y given the features: (n, C, H, W)."""


class LatentModel(DensityModel):
    """log p(x | z) + log p(z) - log q(z | x) at z drawn from q, a lower bound of log p(x) in expectation.

    The prior p(z) is standard normal. q(z | x) is normal with independent dimensions and log-scales in (-7, 1), or such
    a distribution mapped by a flow. In training mode, log_prob weights the divergence of q from the prior by beta,
    which rises from 0 to 1 over the first share of the training (Bowman et al. 2016, "Generating Sentences from a
    Continuous Space", section 3.1). The divergence is computed in closed form; with a flow, it is estimated at the
    drawn z.

    Parameters
    ----------
    event_shape : (C, H, W)
    encoder : module, (y (n, C, H, W), context) -> (n, 2 * latent_dim + n_code)
        Mean and unbounded log-scale h of the normal distribution, log s = 4 tanh(h / 4) - 3; and, for a flow, its
        context (the code), which is then bounded to (-10, 10).
    decoder : module, (z (n, latent_dim), context) -> features (n, F, H, W)
    likelihood : Likelihood
    latent_dim : int
    n_bins : int or None
        For data in bins, networks and likelihood work on y = 2 x / (n_bins - 1) - 1; real values are used unchanged.
    kl_warm_up : float
        Share of the training over which beta rises; 0: beta is always 1.
    is_table : bool
        Whether networks and likelihood treat rows (n, D, 1, 1) as strips of D pixels, (n, 1, D, 1).
    posterior_flow : Layer or None
        Maps the normal distribution to q(z | x): `forward` of latents (n, latent_dim, 1, 1) and the code.
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
        """Mean and log-scale of q(z | x), or of the normal distribution before its flow: two (n, latent_dim)."""
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
        """log p(x | z) - beta KL(q || p) at one draw of z, the divergence in closed form if possible: (n,)."""
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
        """Map draws of the normal distribution to z (n, latent_dim); with a flow, also the log-determinant (n,)."""
        if self.posterior_flow is None:
            return start, None
        z, log_det = self.posterior_flow(start[:, :, None, None], *code)
        return z.flatten(1), log_det

    @staticmethod
    def _draw(mean: Tensor, log_s: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return z and its standard normal noise; without noise z is the mean."""
        if noise is None:
            return mean, torch.zeros_like(mean)
        epsilon = standard_normal_quantile(noise.to(mean.dtype))
        return mean + log_s.exp() * epsilon, epsilon

    def _log_px(self, x: Tensor, z: Tensor, context: Tensor | None) -> Tensor:
        return sum_except_batch(self.likelihood.log_prob(self.decoder(z, context), self._to_net(x)))

    # ---- likelihood regret and likelihood path

    def regret(
        self, x: Tensor, context: Tensor | None, noises: Sequence[Tensor | None], n_steps: int, learning_rate: float
    ) -> Tensor:
        """How much the bound rises if q(z | x) is fitted to each x alone: (n,) nats.

        Mean and log-scale of q, and the code of a flow, start at the encoder's output and take one Adam step for each
        of the first n_steps noises, with a learning rate that falls linearly to 0. Both bounds are means over the
        remaining noises.
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
        """Norms of the reconstruction error (in the networks' units), and of mean and scale of q(z | x): (n, 3).

        Huang et al. 2024, https://arxiv.org/abs/2401.04933: the statistics that the likelihoods of encoder and decoder
        depend on. With a flow, mean and scale are those of the normal distribution before it.
        """
        mean, log_s, *code = self._encoded(x, context)
        z = self._through_flow(mean, code)[0]
        error = self._to_net(x) - self.likelihood.mean(self.decoder(z, context))
        return torch.stack([each.flatten(1).square().sum(1).sqrt() for each in (error, mean, log_s.exp())], 1)

    # ---- latents and samples

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Mean of q(z | x), or the flow's image of the mean before it: (n, C, H, W) -> (n, latent_dim)."""
        mean, _, *code = self._encoded(x, context)
        return self._through_flow(mean, code)[0]

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Mean of p(x | z): (n, latent_dim) -> (n, C, H, W); not rounded for data in bins."""
        return self._from_net(self.likelihood.mean(self.decoder(z, context)))

    def sample(
        self,
        n: int,
        context: Tensor | None = None,
        temperature: float = 1.0,
        generator: Generator | None = None,
    ) -> Tensor:
        """As in the base class; the temperature multiplies z and also scales the likelihood's noise."""
        like = next(self.parameters())
        z = torch.randn(n, self.latent_dim, generator=generator, dtype=torch.float32).to(like)
        h = self.decoder(temperature * z, context)
        u = torch.rand(n, self.likelihood.n_uniforms, *h.shape[2:], generator=generator, dtype=torch.float32)
        x = self._from_net(self.likelihood.draw(h, u.to(like), temperature))
        return x if self.n_bins is None else x.round()

    def _to_net(self, x: Tensor) -> Tensor:
        """Values in the units of networks and likelihood."""
        y = x if self.n_bins is None else x * (2 / (self.n_bins - 1)) - 1
        return y.transpose(1, 2) if self.is_table else y

    def _from_net(self, y: Tensor) -> Tensor:
        x = y if self.n_bins is None else (y + 1) * ((self.n_bins - 1) / 2)
        return x.transpose(1, 2) if self.is_table else x


@dataclass(kw_only=True, eq=False, repr=False)
class LatentDensity(LatentSpaceDensity):
    """A density with an encoder and a decoder of standard normal latents."""

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
        """Build an encoder with n_encoded outputs and a decoder: convolutions for images, perceptrons for tables."""
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
        """Mean of q(z | x), or the flow's image of the mean before it: (n, latent_dim) float64.

        For a conditional density; without labels, each row's most likely class is used.
        """
        return self._encode(X, y)

    @in_torch_state()
    def inverse_transform(self, Z: ArrayLike, y: ArrayLike | None = None) -> NDArray[Any]:
        """Mean of p(x | z), as rows, not rounded; for a PixelVAE, earlier pixels are set to their means.

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
            log_px_given_z : (n,), log p(x | z), for a PixelVAE given the earlier pixels as well; minus_kl : (n,), log
            p(z) - log q(z | x), whose mean over z is minus the KL divergence of q(z | x) from the prior (near 0 if z is
            ignored). They sum to the score. For several draws they are means, weighted as the draws are in the score,
            and log_px_given_z takes the remaining difference to the score. For a conditional density without y, these
            are the terms of the most likely class, and log_class : (n,) is added: the three sum to the score.
        """
        return self._terms(X, y)
