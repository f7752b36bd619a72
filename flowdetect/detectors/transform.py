"""Stirring and shaking: what an image loses when its pixels change places."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from flowdetect._images import to_rows
from flowdetect.detectors.base import BaseDetector
from flowdetect.sit import Flip, Rotate90

STIRRING = (Flip("horizontal"), Flip("vertical"), Rotate90(2))
N_SHAKES, SHAKE_SEED = 3, 0
MOST_PATCHES = 4  # along a side


class TransformDetector(BaseDetector):
    r"""Call an image an outlier if it loses little likelihood when it is turned over, or when its parts change places.

    .. math:: s(x) = \log p(x) - \frac{1}{K} \sum_{k=1}^{K} \log p(T_k(x))

    with bijections T that leave an image as smooth and as bright as it was. What pixels say about their neighbours
    stays, and falls out of the difference; what is left is what the density knows of how an image hangs together at
    large. *Stirring* turns the whole image over (mirrored, upside down, both); *shaking* cuts it into patches, at most
    4 along each side, and puts these together in another order, three times.

    It costs 4 likelihoods an image and no other training. Weakness: sets whose images look alike when turned over, or
    whose density knows little beyond neighbours.

    Parameters
    ----------
    density : estimator with `fit` and `score_samples`
        It is cloned and the clone fitted; one inside scikit-learn's `FrozenEstimator` is used as it is.
    transforms : {"stirring", "shaking"} or tuple of transformers, default="stirring"
        Transformers, such as the SITs, are cloned, get `image_shape` where theirs is None, and are fitted on the
        calibration rows.
    image_shape : tuple of int (H, W) or (H, W, C), or None, default=None
        None: taken from X if it has images' axes, else from the density; if neither knows, rows are strips of 1 x D
        pixels.
    contamination : float in (0, 0.5], default=0.1
        Share of the rows given to `fit` that are to be called outliers.
    calibration_fraction : float in [0, 1), default=0.1
        Share of the rows given to `fit` that the density is not trained on, and which p-values compare with; see
        `BaseDetector`.
    random_state : int, RandomState instance or None, default=None
        Draws the calibration rows, and the seeds within the density that are None.

    Attributes
    ----------
    density_ : the fitted density
    transforms_ : tuple of fitted transformers, or of (D,) arrays that say from where each feature is taken
    offset_ : float, nats
        The `contamination` quantile of the scores of all rows given to `fit`.
    calibration_scores_ : (n_calibration,) array, nats
        Scores of the calibration rows, sorted.
    image_shape_ : tuple of int (H, W, C) or None
    n_features_in_ : int
    feature_names_in_ : (n_features_in_,) array of str
        Where a frame was given to `fit`.

    Notes
    -----
    The paper's abstract names the two families, what they are for, and that they are bijections that are computed when
    an image is scored; which transformations are taken here, and that their mean is subtracted, is ours. The orders of
    the patches are the same for all images.

    References
    ----------
    "Shaken, and Stirred: Long-Range Dependencies Enable Robust Outlier Detection with PixelCNN++" (Umapathi et al.,
    2022), https://arxiv.org/abs/2208.13579

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.mixture import GaussianMixture
    >>> from flowdetect import TransformDetector
    >>> X = load_digits().data
    >>> detector = TransformDetector(GaussianMixture(5, reg_covar=1.0), image_shape=(8, 8), random_state=0).fit(X[:500])
    >>> detector.score_samples(X[500:]).mean() > detector.score_samples(X[500:, ::-1]).mean()  # upside down
    np.True_
    """

    def __init__(
        self,
        density: Any,
        *,
        transforms: Any = "stirring",
        image_shape: Any = None,
        contamination: float = 0.1,
        calibration_fraction: float = 0.1,
        random_state: Any = None,
    ) -> None:
        super().__init__(
            density,
            contamination=contamination,
            calibration_fraction=calibration_fraction,
            random_state=random_state,
        )
        self.transforms = transforms
        self.image_shape = image_shape

    def _check_parameters(self) -> None:
        super()._check_parameters()
        chosen = self.transforms
        if isinstance(chosen, str) and chosen in ("stirring", "shaking"):
            return
        if not isinstance(chosen, tuple | list) or not chosen or not all(hasattr(each, "transform") for each in chosen):
            raise ValueError(
                'TransformDetector needs transforms="stirring", "shaking" or a tuple of transformers such as '
                f"(Flip(), Rotate90(2)), got {chosen!r}."
            )

    def _calibrate(self, X_train: Any, X_calibration: Any) -> None:
        rows, _ = to_rows(X_train, self.image_shape_)
        shape = self.image_shape_ or (1, np.shape(rows)[1], 1)
        if self.transforms == "shaking":
            self.transforms_: tuple[Any, ...] = shakes(shape)
            return
        chosen = [clone(each) for each in (STIRRING if self.transforms == "stirring" else self.transforms)]
        for each in chosen:
            if "image_shape" in each.get_params() and each.image_shape is None:
                each.set_params(image_shape=shape)
        reference, _ = to_rows(self._reference(X_train, X_calibration), self.image_shape_)
        self.transforms_ = tuple(each.fit(np.asarray(reference)) for each in chosen)

    def _transformed(self, X: Any) -> Iterator[Any]:
        """Give X after each transformation, in its own form."""
        rows, layout = to_rows(X, self.image_shape_)
        rows = np.asarray(rows)
        for each in self.transforms_:
            moved = rows[:, each] if isinstance(each, np.ndarray) else each.transform(rows)
            is_frame = hasattr(X, "columns")
            yield type(X)(moved, columns=X.columns) if is_frame else layout.as_numpy().restore(moved)

    def _score(self, X: Any) -> NDArray[np.float64]:
        moved = [self._log_likelihood(each) for each in self._transformed(X)]
        return self._log_likelihood(X) - np.mean(moved, axis=0)


def shakes(image_shape: tuple[int, int, int]) -> tuple[NDArray[np.intp], ...]:
    """Draw orders of an image's patches: for each order from where each feature is taken, (D,).

    Parameters
    ----------
    image_shape : tuple of int (H, W, C)
        Sides are cut into as many equal parts as divide them, at most 4.
    """
    height, width, channels = image_shape
    n_down, n_across = (max(n for n in range(1, MOST_PATCHES + 1) if side % n == 0) for side in (height, width))
    places = np.arange(height * width * channels).reshape(n_down, height // n_down, n_across, width // n_across, -1)
    patches = places.transpose(0, 2, 1, 3, 4).reshape(n_down * n_across, -1)
    generator = np.random.default_rng(SHAKE_SEED)
    found = []
    for _ in range(N_SHAKES):
        mixed = patches[generator.permutation(len(patches))].reshape(places.transpose(0, 2, 1, 3, 4).shape)
        found.append(mixed.transpose(0, 2, 1, 3, 4).ravel())
    return tuple(found)
