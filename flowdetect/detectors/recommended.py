"""The detector to start with: it chooses the density and the scores to suit the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from flowdetect._images import N_BINS_8_BIT, is_whole
from flowdetect._protocols import ImageShape, RandomState, Scorer
from flowdetect.detectors.calibration import log_kernel_density
from flowdetect.detectors.complexity import ComplexityDetector


class OODDetector(ComplexityDetector):
    r"""Call a row an outlier by the scores that work on its kind of data, without any choice to make.

    On tables it is the likelihood, on which the paradox of images is rare:

    .. math:: s(x) = \log p(x)

    On images it asks of two statistics how usual they are among the calibration rows:

    .. math:: s(x) = \log \hat p_1(\log p(x)) + \log \hat p_2(\min(c(x), \text{median}))

    with kernel densities :math:`\hat p`, and c(x) = log2 p(x) + L(x) the score of `ComplexityDetector`: the number of
    bits by which the density's code is shorter than a lossless codec's. The likelihood raises an alarm on both sides:
    images that are too complex are unlikely, and images that are too simple are too likely. Complexity raises an alarm
    only where the density gains little on the codec.

    It costs one training, the likelihood, and the codecs. Without a density, on images, it is a `PixelCNNDensity` of
    variant "pixelcnn++" with 32 filters and one block, whose training is about 4,000 steps of 16 images: some ten
    minutes on one core for images of 28x28. A better density and more codecs find more (see Notes). Weakness: images as
    complex and as likely as those of the training set.

    Parameters
    ----------
    density : estimator with `fit` and `score_samples`, or None, default=None
        None: `PixelCNNDensity` for images, as said above, `RealNVPDensity` for tables, with its defaults. Another one
        is cloned and the clone fitted; one inside scikit-learn's `FrozenEstimator` is used as it is.
    image_shape : tuple of int (H, W) or (H, W, C), or None, default=None
        None: taken from X if it has images' axes, else from the density; if neither knows, X is a table.
    codecs : tuple of "png", "webp", "jpeg2000" and "jpegxl", default=("png", "webp", "jpeg2000")
    contamination : float in (0, 0.5], default=0.1
        Share of the rows given to `fit` that are to be called outliers.
    calibration_fraction : float in [0, 1), default=0.1
        Share of the rows given to `fit` that the density is not trained on, and which p-values compare with; see
        `BaseDetector`. On images every other one makes the kernel densities, and p-values compare with the rest.
    prefit : bool, default=False
        True: `density` is fitted, and used as it is; see `BaseDetector`.
    cv : int or None, default=None
        Folds of a cross-conformal calibration, for small data; see `BaseDetector`.
    random_state : int, RandomState instance or None, default=None
        Draws the calibration rows, and the seeds within the density that are None.

    Attributes
    ----------
    density_ : the fitted density
    scores_ : tuple of str
        What is asked: ("likelihood",) or ("complexity", "likelihood").
    calibration_statistics_ : (n, 2) array, on images
        c(x), bits, and log p(x), nats, of the rows that the kernel densities are made of.
    offset_ : float
        The `contamination` quantile of the scores of all rows given to `fit`.
    calibration_scores_ : (n_calibration,) array
        Scores of the calibration rows, sorted.
    image_shape_ : tuple of int (H, W, C) or None
    n_features_in_ : int
    feature_names_in_ : (n_features_in_,) array of str
        Where a frame was given to `fit`.

    Notes
    -----
    It is `DoSEDetector`'s scheme with complexity as a statistic, and without a constant to choose. Statistics are
    standardised; kernels are Gaussian, with the width of Scott's rule. Of several combinations tried on Fashion-MNIST
    against MNIST and CIFAR-10 against SVHN, both ways, we kept the one with the highest worst-case AUROC.

    Complexity tells more the shorter both codes are. ``codecs=("png", "webp", "jpeg2000", "jpegxl")`` finds more on
    colour images; it is not the default because it needs imagecodecs. On photographs a density with ``batch_size=8,
    learning_rate=6e-3`` is far better after the same time; it is not the default because that training failed on
    digits, whose background is exactly black.

    References
    ----------
    The statistics' densities: "Density of States Estimation for Out-of-Distribution Detection" (Morningstar et al.,
    2020), https://arxiv.org/abs/2006.09273. Complexity: "Input Complexity and Out-of-Distribution Detection with
    Likelihood-Based Generative Models" (Serra et al., 2020), https://arxiv.org/abs/1909.11480

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect import OODDetector
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> detector = OODDetector(random_state=0).fit(X)
    >>> detector.predict([[0.0, 0.0], [9.0, 9.0]])
    array([ 1, -1])
    """

    def __init__(
        self,
        density: Scorer | None = None,
        *,
        image_shape: ImageShape = None,
        codecs: Sequence[str] = ("png", "webp", "jpeg2000"),
        contamination: float = 0.1,
        calibration_fraction: float = 0.1,
        prefit: bool = False,
        cv: int | None = None,
        random_state: RandomState = None,
    ) -> None:
        super().__init__(
            density,
            image_shape=image_shape,
            codecs=codecs,
            contamination=contamination,
            calibration_fraction=calibration_fraction,
            prefit=prefit,
            cv=cv,
            random_state=random_state,
        )

    @property
    def learns(self) -> bool:
        """Whether the score learns from calibration rows: on images it does."""
        shapes = [getattr(each, "image_shape", None) for each in (self, self.density)]
        shapes.append(getattr(self, "image_shape_", None))
        if self.is_frozen:
            shapes.append(getattr(self.density, "image_shape_", None))
        return any(shape is not None for shape in shapes)

    def _check_parameters(self) -> None:
        if self.density is not None:
            super()._check_parameters()
            return
        from flowdetect.density import PixelCNNDensity

        clone(self).set_params(density=PixelCNNDensity())._check_parameters()

    def _template(self) -> Any:
        if self.density is not None:
            return self.density
        from flowdetect.density import PixelCNNDensity, RealNVPDensity

        if self.image_shape_ is None:
            return RealNVPDensity()
        return PixelCNNDensity(image_shape=self.image_shape_, variant="pixelcnn++", n_blocks=1)

    def _check_data(self, X: Any) -> None:
        super()._check_data(X)
        if self.density is not None or self.image_shape_ is None:
            return
        rows = self._rows(X)
        largest = rows.max()
        if largest >= N_BINS_8_BIT and is_whole(rows):
            raise ValueError(
                f"{type(self).__name__} codes images of at most {N_BINS_8_BIT} values a pixel, got values up to "
                f"{largest:g}; give it 8-bit images, for instance X // {int(largest) // N_BINS_8_BIT + 1}."
            )

    def _calibrate(self, X_train: Any, X_calibration: Any) -> None:
        super()._calibrate(X_train, X_calibration)
        self.scores_ = ("likelihood",) if self.image_shape_ is None else ("complexity", "likelihood")
        if self.image_shape_ is not None:
            self.calibration_statistics_ = self._statistics(self._reference(X_train, X_calibration))

    def _statistics(self, X: Any) -> NDArray[np.float64]:
        """Give c(x), bits, and log p(x), nats: (n, 2)."""
        log_likelihood = self._log_likelihood(X)
        return np.stack([log_likelihood / np.log(2) + self._code_lengths(X), log_likelihood], axis=1)

    def _score(self, X: Any) -> NDArray[np.float64]:
        if self.image_shape_ is None:
            return self._log_likelihood(X)
        highest = [np.median(self.calibration_statistics_[:, 0]), np.inf]
        return log_kernel_density(np.minimum(self._statistics(X), highest), self.calibration_statistics_)
