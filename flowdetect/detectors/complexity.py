"""Input complexity: the code length of an image under the density, compared with that of a lossless codec.

Smooth images have a high likelihood under every model and a short file under every codec. The difference of the two
code lengths is a likelihood ratio with the codec as background model; it removes the effect of smoothness.

Serra et al., "Input Complexity and Out-of-Distribution Detection with Likelihood-Based Generative Models" (2020),
https://arxiv.org/abs/1909.11480
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from flowdetect._ctrl_c import whole_imports
from flowdetect._images import N_BINS_8_BIT, is_whole, to_rows
from flowdetect._protocols import ImageShape, PathName, RandomState, Scorer
from flowdetect.detectors.base import BaseDetector
from flowdetect.detectors.codecs import BITS_PER_BYTE, check_codecs, shortest_code
from flowdetect.detectors.rows import few
from flowdetect.detectors.terms import sum_of_terms

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

N_QUANTILES = 256
CODED_AT_ONCE = 1024  # rows
MOST_COMPONENTS = 5  # of a mixture


class ComplexityDetector(BaseDetector):
    """Call an image an outlier if the density compresses it worse than a lossless codec.

    S(x) = -log2 p(x) - L(x) in bits, and s(x) = -S(x),

    where L(x) is the size of the smallest of the codecs' files. s(x) is a log-likelihood ratio of the density against
    the codecs, log2 p(x) - log2 p_codec(x) with log2 p_codec(x) = -L(x).

    With ``kind="mixture"``, s(x) is the log-density of the pair (L(x), log p(z)) under a mixture of Gaussians. log p(z)
    is the term of the latents in a flow's log-likelihood; other densities use log p(x). The mixture is fitted on half
    of the calibration rows, and p-values use the other half. Images that are too simple, too complex, or unusual in the
    combination of both values are outliers.

    Parameters
    ----------
    density : estimator with `fit` and `score_samples`
        Its score_samples is log p(x), (n,), nats. A clone of it is fitted; a density in scikit-learn's
        `FrozenEstimator` is used without training.
    image_shape : tuple of int (H, W) or (H, W, C), or None, default=None
        None: taken from X if X has the axes of images, else from the density. If neither has a shape, X is a table.
    codecs : tuple of {"png", "webp", "jpeg2000", "jpegxl"}, default=("png", "webp", "jpeg2000")
        Lossless codecs; the smallest file counts. No effect on tables. "jpegxl" needs imagecodecs.
    kind : {"difference", "mixture"}, default="difference"
        The score: -S(x), or the log-density of the mixture.
    contamination : float in (0, 0.5], default=0.1
        Share of the rows given to `fit` that are called outliers.
    calibration_fraction : float in [0, 1), default=0.1
        Share of the rows given to `fit` that are held out from training; p-values are computed from their scores. See
        `BaseDetector`.
    prefit : bool, default=False
        True: `density` is already fitted and is used without training; see `BaseDetector`.
    cv : int or None, default=None
        Number of folds of a cross-conformal calibration, for small data; see `BaseDetector`.
    checkpoint : path or None, default=None
        Folder for the checkpoints of all trainings in `fit`. A killed `fit` resumes from them; see `BaseDetector`.
    random_state : int, RandomState instance or None, default=None
        Draws the calibration rows, and a seed for each `random_state` inside the density that is None.

    Attributes
    ----------
    density_ : the fitted density
    offset_ : float, bits (of a mixture, nats)
        The `contamination` quantile of the scores of all rows given to `fit`.
    calibration_scores_ : (n_calibration,) array, bits (of a mixture, nats)
        Scores of the calibration rows, sorted.
    image_shape_ : tuple of int (H, W, C) or None
        None for tables.
    n_bins_ : int or None
        Number of integer values of a pixel, from the density's `n_bins_`. For a density without it: 256 if the training
        images have only whole numbers 0..255, else None (real values).
    value_range_ : tuple of float (low, high) or None
        For real-valued images: the range of the training rows, which the codecs receive as 0..255.
    mixture_ : pipeline of the scaler and the fitted mixture, with ``kind="mixture"``
    n_features_in_ : int
    feature_names_in_ : (n_features_in_,) array of str
        Only if `fit` was given a data frame.

    Notes
    -----
    The codecs receive 8-bit images; the density receives x unchanged. Binned values (at most 256 bins) are rounded and
    clipped to the grid and written unchanged: 16 values are written as 0..15. Real values are mapped linearly from
    `value_range_` to 0..255, rounded and clipped. Then p(x) is a density, and S is shifted by a constant that depends
    on the unit of x; this changes no ranking.

    One channel is encoded as a gray image and three channels as an RGB image (WebP has no gray images, so gray is
    encoded as RGB). Any other number of channels becomes one gray image with the channels side by side, (H, C * W).

    L is the size of the whole file, as in the paper, but without the container of JPEG 2000. The fixed part (about 34
    bytes for WebP, 69 for PNG and 128 for JPEG 2000) is not subtracted. With one codec this shifts all scores of images
    of one shape equally. With several codecs it decides which file is the smallest for tiny images: on scikit-learn's 8
    x 8 digits always WebP, with 93 bytes for a digit on average. Without the fixed parts it would be PNG for three
    digits in four, but the AUROCs against noise, flat, faint, inverted and shuffled digits were the same. From 28 x 28
    pixels the fixed parts hardly matter.

    There is no codec for tables. Each column is cut at the quantiles of the training rows into 256 bins, and L is the
    size of the row's bytes under zlib. zlib can hardly compress one row, so L is nearly constant and the detector is
    nearly the same as `LikelihoodDetector`. Tables are supported so that one program works on all data.

    The codecs' settings were chosen on Fashion-MNIST, MNIST, CIFAR-10 and SVHN. There the highest effort made files at
    most 2 % smaller, and often larger, in 25 times the time or more. JPEG XL uses effort 3: effort 7 made CIFAR-10
    files 7 % smaller in five times the time.

    The mixture has 1 to 5 components, chosen by the Bayesian information criterion. L is a whole number of bytes, so
    uniform noise one byte wide is added to it before the fit.

    References
    ----------
    "Input Complexity and Out-of-Distribution Detection with Likelihood-Based Generative Models" (Serra et al., 2020),
    https://arxiv.org/abs/1909.11480, section 3, S = -l_M(x) - L(x) with l_M in bits.
    The mixture: "Understanding Likelihood of Normalizing Flow and Image Complexity through the Lens of
    Out-of-Distribution Detection" (Osada et al., 2024), https://arxiv.org/abs/2402.10477; the choice of the components
    is ours.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.mixture import GaussianMixture
    >>> from flowdetect.detectors import ComplexityDetector
    >>> X = load_digits().data[:500]
    >>> density = GaussianMixture(5, reg_covar=1.0)
    >>> detector = ComplexityDetector(density, image_shape=(8, 8), random_state=0).fit(X)
    >>> detector.predict(np.full((1, 64), 8.0))  # a flat gray image
    array([-1])
    >>> bool(detector.code_lengths(X[:1]) > detector.code_lengths(np.full((1, 64), 8.0)))  # bits
    True
    """

    no_graph = "image codecs cannot be exported"

    def __init__(
        self,
        density: Scorer | None,
        *,
        image_shape: ImageShape = None,
        codecs: Sequence[str] = ("png", "webp", "jpeg2000"),
        kind: str = "difference",
        contamination: float = 0.1,
        calibration_fraction: float = 0.1,
        prefit: bool = False,
        cv: int | None = None,
        checkpoint: PathName | None = None,
        random_state: RandomState = None,
    ) -> None:
        super().__init__(
            density,
            contamination=contamination,
            calibration_fraction=calibration_fraction,
            prefit=prefit,
            cv=cv,
            checkpoint=checkpoint,
            random_state=random_state,
        )
        self.image_shape = image_shape
        self.codecs = codecs
        self.kind = kind

    kept = ("codecs", "kind")

    @property
    def learns(self) -> bool:
        """Whether the score learns from calibration rows."""
        return self.kind == "mixture"

    def code_lengths(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the size of the smallest lossless file of each row.

        Parameters
        ----------
        X : (n, D) array or frame, or images

        Returns
        -------
        lengths : (n,) array of float64, bits; with `cv` the members' mean
        """
        check_is_fitted(self, "offset_")
        checked = self._check_X(X, reset=False)
        return np.mean([single._code_lengths(checked) for single in self._singles()], axis=0)

    def _score(self, X: Any) -> NDArray[np.float64]:
        if self._kept["kind"] == "mixture":
            return np.asarray(self.mixture_.score_samples(self._pair(X)), dtype=np.float64)
        return self._log_likelihood(X) / np.log(2) + self._code_lengths(X)  # nats -> bits; this is -S(x)

    def _pair(self, X: Any) -> NDArray[np.float64]:
        """Return L(x), bits, and log p(z), nats: (n, 2)."""
        if not hasattr(self.density_, "likelihood_terms"):
            return np.stack([self._code_lengths(X), self._log_likelihood(X)], axis=1)
        terms = self.density_.likelihood_terms(X)
        log_p = np.asarray(terms["log_pz"]) if "log_pz" in terms else sum_of_terms(terms, len(X))
        return np.stack([self._code_lengths(X), self._finite(log_p.astype(np.float64))], axis=1)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_codecs(type(self).__name__, self.codecs)
        if self.kind not in ("difference", "mixture"):
            raise ValueError(f'{type(self).__name__} needs kind="difference" or "mixture", got {self.kind!r}.')

    def _check_data(self, X: Any) -> None:
        if self.image_shape_ is not None or getattr(self.density, "image_shape", None) is not None:
            self._check_n_bins(getattr(self.density, "n_bins", None))

    def _calibrate(self, X_train: Any, X_calibration: Any) -> None:
        """Learn the map from values to bytes from the training rows, and the mixture from the calibration rows."""
        self._learn_bytes(X_train)
        if self.kind == "mixture":
            self.mixture_: Any = _mixture(self._pair(self._reference(X_train, X_calibration)))

    def _learn_bytes(self, X_train: Any) -> None:
        rows = self._rows(few(X_train))
        self.n_bins_ = self.value_range_ = None
        if self.image_shape_ is None:
            inner = np.arange(1, N_QUANTILES) / N_QUANTILES
            self._quantiles = np.stack([np.quantile(column, inner) for column in rows.T], axis=1)  # (255, D)
            return
        low, high = float(rows.min()), float(rows.max())
        parts = (rows[start : start + CODED_AT_ONCE] for start in range(0, len(rows), CODED_AT_ONCE))
        is_8_bit = low >= 0 and high < N_BINS_8_BIT and all(is_whole(part) for part in parts)
        self.n_bins_ = getattr(self.density_, "n_bins_", N_BINS_8_BIT if is_8_bit else None)
        self._check_n_bins(self.n_bins_)
        if self.n_bins_ is None:
            self.value_range_ = (low, high)

    def _check_n_bins(self, n_bins: Any) -> None:
        if isinstance(n_bins, int | np.integer) and n_bins > N_BINS_8_BIT:
            raise ValueError(
                f"{type(self).__name__} codes images of at most {N_BINS_8_BIT} values a pixel, got n_bins={n_bins}; "
                f"give it, and its density, 8-bit images, for instance X // {-(-n_bins // N_BINS_8_BIT)}."
            )

    def _rows(self, X: Any) -> NDArray[Any]:
        rows = np.asarray(to_rows(X, self.image_shape_)[0])  # (n, D)
        return (
            rows if rows.dtype.kind in "iuf" else rows.astype(np.float64)
        )  # data frames with columns of several dtypes

    def _code_lengths(self, X: Any) -> NDArray[np.float64]:
        rows, lengths = self._rows(X), np.empty(len(X))
        for start in range(0, len(rows), CODED_AT_ONCE):
            part = slice(start, start + CODED_AT_ONCE)
            lengths[part] = self._lengths_of_part(rows[part])
        return lengths

    def _lengths_of_part(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        if self.image_shape_ is None:
            return _table_code_lengths(rows, self._quantiles)
        images, codecs = _codec_images(self._to_bytes(rows), self.image_shape_), tuple(self._kept["codecs"])
        return np.array([shortest_code(image, codecs) for image in images], dtype=np.float64)

    def _to_bytes(self, rows: NDArray[Any]) -> NDArray[np.uint8]:
        """Convert pixel values to the bytes that the codecs receive, (n, D)."""
        if self.value_range_ is not None:
            low, high = self.value_range_
            rows = (rows.astype(np.float64) - low) * ((N_BINS_8_BIT - 1) / ((high - low) or 1.0))
        highest = (self.n_bins_ or N_BINS_8_BIT) - 1
        return np.clip(np.rint(rows), 0, highest).astype(np.uint8)


def _mixture(pairs: NDArray[np.float64]) -> Pipeline:
    """Fit mixtures of 1, 2, ... Gaussians to (n, 2) pairs and return the one with the lowest BIC.

    File sizes are whole bytes: without added noise a component could shrink to a single size.
    """
    with whole_imports():
        from sklearn.mixture import GaussianMixture
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

    noise = np.random.default_rng(0).uniform(-BITS_PER_BYTE / 2, BITS_PER_BYTE / 2, len(pairs))
    pairs = pairs + np.stack([noise, np.zeros(len(pairs))], axis=1)
    found = []
    for n_components in range(1, max(1, min(MOST_COMPONENTS, len(pairs) // 20)) + 1):
        # the default start, k-means, fails under scikit-learn's array API dispatch
        mixture = GaussianMixture(n_components, init_params="random_from_data", n_init=3, random_state=0)
        scaler = StandardScaler().set_output(transform="default")  # independent of the user's global transform_output
        found.append(make_pipeline(scaler, mixture).fit(pairs))
    return min(found, key=lambda each: each[-1].bic(each[0].transform(pairs)))


def _codec_images(rows: NDArray[np.uint8], image_shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Reshape (n, D) rows to the images that codecs take: (n, H, W), (n, H, W, 3) or (n, H, C * W)."""
    height, width, channels = image_shape
    images = rows.reshape(-1, height, width, channels)
    if channels == 3:
        return images
    side_by_side = images.transpose(0, 1, 3, 2)  # (n, H, C, W)
    return np.ascontiguousarray(side_by_side).reshape(-1, height, channels * width)


def _table_code_lengths(rows: NDArray[Any], quantiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Size of each row in bits: one byte for each column, its bin between quantiles (255, D), compressed by zlib."""
    ranks = [np.searchsorted(cuts, column, side="right") for cuts, column in zip(quantiles.T, rows.T, strict=True)]
    codes = np.stack(ranks, axis=1).astype(np.uint8)  # (n, D)
    return np.array([BITS_PER_BYTE * len(zlib.compress(code.tobytes(), 9)) for code in codes], dtype=np.float64)
