"""The table of semantic-invariant transformations: name -> constructor. A new SIT is one more line."""

from __future__ import annotations

from functools import partial

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from flowdetect.sit import AddNoise, Contrast, Flip, Gray, Rotate90, Translate, ZeroLatents


class WhiteningFlow(TransformerMixin, BaseEstimator):
    """The smallest flow: z = W (x - mean), W the inverse Cholesky factor of the covariance; two levels of columns."""

    def fit(self, X, y=None):
        X = validate_data(self, X, dtype=np.float64)
        n_features = X.shape[1]
        centred = X - X.mean(axis=0)
        covariance = centred.T @ centred / len(X) + 1e-3 * np.eye(n_features)
        self.mean_ = X.mean(axis=0)
        self.cholesky_ = np.linalg.cholesky(covariance)
        half = n_features // 2
        self.latent_slices_ = [slice(0, half), slice(half, n_features)]
        return self

    def transform(self, X):
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        weights = np.linalg.inv(self.cholesky_)
        return ((X - self.mean_)[:, None, :] * weights).sum(axis=-1)  # not @, whose sums depend on the number of rows

    def inverse_transform(self, Z):
        check_is_fitted(self)
        return (np.asarray(Z)[:, None, :] * self.cholesky_).sum(axis=-1) + self.mean_


SITS = {
    "translate": partial(Translate, dx=1),
    "translate-edge": partial(Translate, dx=-1, fill="edge"),
    "translate-wrap": partial(Translate, dx=1, fill="wrap"),
    "noise": partial(AddNoise, scale=0.1, random_state=0),
    "noise-shifted": partial(AddNoise, scale=0.1, kind="shifted", random_state=0),
    "noise-background": partial(AddNoise, scale=0.1, kind="negative", background_below=0.3, random_state=0),
    "flip": Flip,
    "flip-vertical": partial(Flip, "vertical"),
    "rotate": Rotate90,
    "gray": Gray,
    "contrast": Contrast,
    "zero-latents": partial(ZeroLatents, WhiteningFlow()),
    "zero-latents-none": partial(ZeroLatents, WhiteningFlow(), n_factors=0),
}
