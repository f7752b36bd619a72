"""Types in public signatures: the methods that detectors, reports and transformations need of their arguments.

They are structural: scikit-learn's GaussianMixture is a `Scorer` because it has these methods.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

RandomState: TypeAlias = int | np.random.RandomState | None
PathName: TypeAlias = str | os.PathLike[str]
ImageShape: TypeAlias = Sequence[int] | None  # (H, W) or (H, W, C)


class Scorer(Protocol):
    """An object that scores how normal each row is, such as a density or a detector."""

    def fit(self, X: Any, y: Any = None) -> Any:
        """Fit to rows or images; returns the scorer itself."""

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """Score each row, (n,); higher is more normal."""


class Density(Scorer, Protocol):
    """A scorer whose scores are log-likelihoods in nats, with the further methods of flowdetect's densities."""

    def sample(self, n_samples: int = 1) -> Any:
        """Draw rows in the layout of the training data."""

    def bits_per_dim(self, X: Any) -> NDArray[np.float64]:
        """Negative log-likelihood of each row in bits per feature, (n,)."""

    def likelihood_terms(self, X: Any) -> Any:
        """Return a Bunch of named terms of the log-likelihood, nats."""

    def layer_gradient_norms(self, X: Any) -> NDArray[np.float64]:
        """Norm of the log-likelihood's gradient in each layer's parameters, (n, n_layers)."""

    def directional_derivatives(self, x0: Any, directions: Any, /) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """First and second directional derivatives of log p at x0, along each row of `directions`, (n,) each."""


class VariationalDensity(Scorer, Protocol):
    """A scorer with an encoder and a decoder, such as a VAE."""

    def likelihood_regret(self, X: Any, *, n_steps: int, learning_rate: float) -> NDArray[np.float64]:
        """Increase of each row's bound if q(z | x) is fitted to that row alone, (n,), nats."""

    def likelihood_path(self, X: Any) -> Any:
        """Return a Bunch of reconstruction_error, latent_norm and latent_scale, (n,) each."""


class Ensemble(Scorer, Protocol):
    """A scorer with several members."""

    def member_scores(self, X: Any) -> NDArray[np.float64]:
        """Score each row with each member, (n, n_members)."""


class Transformer(Protocol):
    """An object that maps rows to rows, such as a semantic-invariant transformation."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name."""

    def fit(self, X: Any, y: Any = None) -> Any:
        """Fit to rows or images; returns the transformer itself."""

    def transform(self, X: Any) -> Any:
        """Map each row."""


class Flow(Transformer, Protocol):
    """A transformer to latents of the data's size, with an inverse."""

    def inverse_transform(self, Z: Any) -> Any:
        """Map latents (n, D) to rows."""
