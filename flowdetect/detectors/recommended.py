"""The detector to start with: nearest neighbours on tables; complexity, spectrum, texture and shape on images.

Likelihood misses images that are simpler than the training images; complexity misses images that the density and a
codec find equally hard. The sum of several log p-values misses fewer.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from flowdetect._images import N_BINS_8_BIT, to_rows
from flowdetect._protocols import ImageShape, PathName, RandomState, Scorer
from flowdetect._sources import Source, Without
from flowdetect.detectors.base import FEWEST_REFERENCE
from flowdetect.detectors.calibration import log_p_value
from flowdetect.detectors.checks import check_handed_on, warn_of_groups
from flowdetect.detectors.clones import LARGEST_SEED
from flowdetect.detectors.complexity import ComplexityDetector
from flowdetect.detectors.exporting import unchanged
from flowdetect.detectors.grey_levels import GreyLevels
from flowdetect.detectors.image_statistics import ImageStatistics
from flowdetect.detectors.rows import Split, drawn, extent, few, take

USUAL_SHARE = 0.1  # share of the rows given to fit that contamination="auto" calls outliers
BATCH_SIZE = 16
# (training steps, learning rate) of the default image density. On gray images the short training reaches the AUROCs of
# the long one within 0.0012; on colour images it lost 0.003 (CIFAR-10 against SVHN)
GRAY_PACE, COLOUR_PACE = (700, 8e-3), (1500, 3e-3)
MOST_NEIGHBORS = 100_000  # rows of a source that NeighborsDensity keeps
TIME_SHARE = 0.8  # share of time_limit for the density; statistics, codecs and calibration take the rest
NAMES = ("complexity", *ImageStatistics.names)
WEIGHTS = {"spectrum": 2.0, "shape": 0.5}  # of the log p-values; the others have weight 1
TWO_SIDED = dict(zip(ImageStatistics.names, ImageStatistics.two_sided, strict=True))


class OODDetector(GreyLevels, ComplexityDetector):
    """The detector to start with, for tables and for images.

    A table is scored by the log-likelihood of the density; the default is `NeighborsDensity`, a k-nearest-neighbour
    density at two scales.

    Images are rounded to 32 grey levels, which removes invisible noise. Their score is the weighted sum of the
    logarithms of five p-values: 0 is most normal, very negative is unusual. One belongs to the complexity c(x) =
    log2 p(x) + L(x), see `ComplexityDetector`, the others to four statistics of the whole image: spectrum,
    log-spectrum, texture and shape, see Notes. The default density is a `PixelCNNDensity` of variant "pixelcnn++" with
    32 filters and one block. It trains for about 700 steps of 16 images (1,500 steps for colour images): about two
    minutes of one core for gray images of 28x28 pixels.

    Parameters
    ----------
    density : estimator with `fit` and `score_samples`, or None, default=None
        None: the defaults above. Otherwise a clone is fitted; with `prefit=True`, or inside scikit-learn's
        `FrozenEstimator`, the density is used without training. It receives images in its own number of grey levels.
    image_shape : tuple of int (H, W) or (H, W, C), or None, default=None
        None: taken from X if X has the axes of images, else from the density. If neither has a shape, X is a table.
    codecs : tuple of {"png", "webp", "jpeg2000", "jpegxl"}, default=("png", "webp", "jpeg2000")
        Lossless codecs; L(x) is the length of the shortest file. No effect on tables.
    contamination : float in (0, 0.5] or "auto", default="auto"
        A number: the share of the rows given to `fit` that are outliers. New rows are compared with the others only.
        `NeighborsDensity` then uses a larger smoothing, so that a tight group of outliers does not look normal. "auto":
        all rows count as normal, and the threshold calls 10 % of them outliers.
    calibration_fraction : float in [0, 1), default=0.1
        Share of the rows given to `fit` that are held out from training; p-values are computed from their scores. See
        `BaseDetector`. On images, half of these rows calibrate the five statistics and the other half the detector's
        p-values. On tables without a density there is no held-out part: every row is scored by all others.
    prefit : bool, default=False
        True: `density` is already fitted and is used without training.
    cv : int or None, default=None
        Number of folds for cross-conformal calibration; see `BaseDetector`.
    verbose : int, default=0
        1: print a line for each stage, and the progress of training.
    device : str or None, default=None
        Device of the training, such as "cpu" or "cuda"; None: the density's own choice. `device`, `verbose` and
        `time_limit` are passed to every density with a parameter of that name.
    checkpoint : path or None, default=None
        Folder for the checkpoints of all trainings in `fit`. A killed `fit` resumes from them; see `BaseDetector`.
    time_limit : float or None, default=None
        Approximate seconds for `fit`, with `cv` of each fold; the density trains for at most 0.8 of them.
    random_state : int, RandomState instance or None, default=None
        Draws the calibration rows, and a seed for each `random_state` inside the density that is None.

    Attributes
    ----------
    density_ : the fitted density
    scores_ : tuple of str
        Names of the terms of the score: ("likelihood",) on tables, five names on images.
    statistics_ : ImageStatistics, on images
    calibration_statistics_ : (n, 5) array, on images
        Statistics of the rows that calibrate them; higher is rarer.
    offset_ : float
        The `contamination` quantile of the scores of all rows given to `fit`; on images, of the held-out rows if there
        are at least 20.
    calibration_scores_ : (n_calibration,) array
        Scores of the calibration rows, sorted.
    image_shape_ : tuple of int (H, W, C) or None
    n_bins_ : int or None, on images
        Number of grey levels.
    n_features_in_ : int
    feature_names_in_ : (n_features_in_,) array of str
        Only if `fit` was given a data frame.

    Warns
    -----
    UserWarning
        If a table has a tight group of rows far from all others. They count as normal, because they are part of the
        training data; if they are outliers, set `contamination`.

    Notes
    -----
    "spectrum" and "log_spectrum" are distances to the nearest training images, in the amplitudes of spatial
    frequencies. "texture" is the log-density of mean filter responses at three scales. "shape" is the distance of the
    centred image from the subspace of the training images' principal components; small and large distances are both
    rare. Below the lowest 5 % of the calibration values a p-value falls exponentially, so one extreme statistic is
    enough.

    The study on detection lists the figures behind these choices. The useful statistics differ between pairs of data
    sets. Photographs and house numbers differ in their spectra; similar images, such as two kinds of shoes, hardly
    differ in any of the five.

    References
    ----------
    Tables: "Fast Outlier Detection in High Dimensional Spaces" (Angiulli and Pizzuti, 2002). Complexity: "Input
    Complexity and Out-of-Distribution Detection with Likelihood-Based Generative Models" (Serra et al., 2020),
    https://arxiv.org/abs/1909.11480. Combining statistics: "Density of States Estimation for Out-of-Distribution
    Detection" (Morningstar et al., 2020), https://arxiv.org/abs/2006.09273; the sum of logarithms of p-values is
    Fisher's, "Statistical Methods for Research Workers" (1925).

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
        contamination: float | str = "auto",
        calibration_fraction: float = 0.1,
        prefit: bool = False,
        cv: int | None = None,
        verbose: int = 0,
        device: str | None = None,
        checkpoint: PathName | None = None,
        time_limit: float | None = None,
        random_state: RandomState = None,
    ) -> None:
        super().__init__(
            density,
            image_shape=image_shape,
            codecs=codecs,
            calibration_fraction=calibration_fraction,
            prefit=prefit,
            cv=cv,
            checkpoint=checkpoint,
            random_state=random_state,
        )
        self.contamination = contamination
        self.verbose = verbose
        self.device = device
        self.time_limit = time_limit

    @property
    def learns(self) -> bool:
        """Whether the score learns from calibration rows: True on images."""
        shapes = [getattr(each, "image_shape", None) for each in (self, self.density)]
        shapes.append(getattr(self, "image_shape_", None))
        if self.is_frozen:
            shapes.append(getattr(self.density, "image_shape_", None))
        return any(shape is not None for shape in shapes)

    # ---- before training

    def _check_parameters(self) -> None:
        from flowdetect.density import PixelCNNDensity

        if self.density is None:
            if self.prefit is True:
                self._check_prefit()  # raises
            clone(self).set_params(density=PixelCNNDensity())._check_parameters()
            return
        if self._is_auto:
            clone(self).set_params(contamination=USUAL_SHARE)._check_parameters()
            return
        super()._check_parameters()
        check_handed_on(type(self).__name__, self.verbose, self.device, self.time_limit)

    @property
    def _is_auto(self) -> bool:
        return isinstance(self.contamination, str) and self.contamination == "auto"

    @property
    def _share(self) -> Any:
        return USUAL_SHARE if self._is_auto else self.contamination

    def _check_data(self, X: Any) -> None:
        self._started, self._chooses = time.monotonic(), self.density is None
        super()._check_data(X)
        if self.image_shape_ is None:
            return
        _, largest, whole = extent(X)
        if self.density is None and largest >= N_BINS_8_BIT and whole:
            raise ValueError(
                f"{type(self).__name__} codes images of at most {N_BINS_8_BIT} values a pixel, got values up to "
                f"{largest:g}; give it 8-bit images, for instance X // {int(largest) // N_BINS_8_BIT + 1}."
            )

    def _narrowed(self, X: Any, random: np.random.RandomState) -> Any:
        if not self._scores_itself or not isinstance(X, Source):
            return X
        chosen = drawn(len(X), MOST_NEIGHBORS, random)
        return self._in_memory(X[chosen])  # NeighborsDensity keeps its training rows

    def _split(self, n_rows: int, random: np.random.RandomState, most: int | None = None) -> Split:
        if not self._scores_itself:
            return super()._split(n_rows, random, most)
        rows = np.arange(n_rows)
        return rows, rows, rows

    @property
    def _scores_itself(self) -> bool:
        """Whether the density scores each training row by the other training rows."""
        return self.density is None and self.image_shape_ is None

    # ---- training

    def _template(self) -> Any:
        return self._told(self.density if self.density is not None else self._chosen())

    def _chosen(self) -> Any:
        from flowdetect.density import NeighborsDensity, PixelCNNDensity

        if self.image_shape_ is None:
            return NeighborsDensity(contamination=0.0 if self._is_auto else self._share)
        n_steps, learning_rate = self._pace
        return PixelCNNDensity(
            image_shape=self.image_shape_,
            variant="pixelcnn++",
            n_blocks=1,
            n_bins=self._n_levels(),
            batch_size=BATCH_SIZE,
            learning_rate=learning_rate,
            max_epochs=max(1, round(n_steps * BATCH_SIZE / self._n_train)),
            early_stopping=False,
        )

    @property
    def _pace(self) -> tuple[int, float]:
        return GRAY_PACE if self.image_shape_ is not None and self.image_shape_[2] == 1 else COLOUR_PACE

    def _told(self, density: Any) -> Any:
        """Pass verbose, device and time_limit to a density that has these parameters."""
        limit = None if self.time_limit is None else TIME_SHARE * self.time_limit
        told = {
            "verbose": self.verbose or None,
            "device": self.device,
            "time_limit": limit,
        }
        if self.is_frozen or not hasattr(density, "get_params"):
            return density
        told = {name: value for name, value in told.items() if value is not None and name in density.get_params()}
        return clone(density).set_params(**told) if told else density

    def _learn(self, X: Any, y: Any, train: Any, reference: Any, random: np.random.RandomState) -> None:
        if self.image_shape_ is not None and self.density is None:
            self._learn_levels(X)
            most = self._pace[0] * BATCH_SIZE  # training uses no more rows than this
            if len(train) > most and isinstance(train, Without):
                train = train[drawn(len(train), most, random)]
            elif len(train) > most:
                train = np.sort(random.permutation(train)[:most])
            self._n_train = len(train)
        self._seed_of_statistics = int(random.randint(LARGEST_SEED))
        self._say(f"density of {len(train)} rows")
        super()._learn(X, y, train, reference, random)

    def _calibrate(self, X_train: Any, X_calibration: Any) -> None:
        self.scores_: tuple[str, ...] = ("likelihood",) if self.image_shape_ is None else NAMES
        if self.density is not None or self.image_shape_ is None:
            self._learn_bytes(X_train)
        if self.image_shape_ is None:
            if self._is_auto:
                warn_of_groups(type(self).__name__, self.density_, USUAL_SHARE)
            return
        X_train = few(X_train)
        reference = self._reference(X_train, X_calibration)
        same = self._learns_of_training_rows(len(X_calibration))
        if same and len(X_train) >= 2 * FEWEST_REFERENCE:  # so that no image is its own nearest neighbour
            even, odd = np.arange(0, len(X_train), 2), np.arange(1, len(X_train), 2)
            X_train, reference = take(X_train, even), take(X_train, odd)
        self._say(f"statistics of {len(X_train)} images")
        self.statistics_: ImageStatistics = ImageStatistics(self._seed_of_statistics).fit(self._unit_images(X_train))
        self._say(f"calibration on {len(reference)} images")
        self.calibration_statistics_: NDArray[np.float64] = self._statistics(reference)

    def _learns_of_training_rows(self, n_reference: int) -> bool:
        """Whether the statistics must be calibrated on rows that the density was trained on."""
        return n_reference < FEWEST_REFERENCE or self.is_frozen or self.calibration_fraction == 0

    def _threshold_rows(
        self, n_rows: int, reference: NDArray[np.int_], calibration: NDArray[np.int_]
    ) -> NDArray[np.int_] | None:
        held_out = np.union1d(reference, calibration)
        # a training image is its own nearest neighbour in the statistics, and would score higher than a new image
        return held_out if self.image_shape_ is not None and len(held_out) >= 2 * FEWEST_REFERENCE else None

    def _settle(self, scores: NDArray[np.float64], is_calibration: NDArray[np.bool_]) -> None:
        super()._settle(scores, is_calibration)
        if self.image_shape_ is None and not self._is_auto:
            kept = scores[is_calibration & (scores >= self.offset_)]  # calibration rows without outliers
            self.calibration_scores_ = np.sort(kept) if len(kept) else self.calibration_scores_
        self._say(f"fitted in {time.monotonic() - self._started:.0f} s")

    def _say(self, text: str) -> None:
        if self.verbose:
            sys.stderr.write(f"{type(self).__name__}: {text}\n")

    # ---- scores

    def _to_bytes(self, rows: NDArray[Any]) -> NDArray[np.uint8]:
        return self._levels(rows) if self._chooses else super()._to_bytes(rows)

    def _density_rows(self, X: Any) -> Any:
        if self.image_shape_ is not None and self._chooses:
            return self._levels(self._rows(X))
        if self.image_shape_ is None or getattr(self.density_, "n_bins_", None) is None:
            return X
        return np.rint(to_rows(X, self.image_shape_)[0])

    def _statistics(self, X: Any) -> NDArray[np.float64]:
        """Return -c(x), bits, and the four statistics of whole images: (n, 5); higher is rarer."""
        complexity = -self._log_likelihood(X) / np.log(2) - self._code_lengths(X)
        return np.column_stack([complexity, self.statistics_.measure(self._unit_images(X))])

    def score_terms(self, X: ArrayLike) -> Bunch:
        """Return the terms that the score is the sum of, one for each statistic.

        Parameters
        ----------
        X : (n, D) array or frame, or images

        Returns
        -------
        terms : Bunch of (n,) arrays
            One term for each name in `scores_`; they add up to the score. On images they are weighted logarithms of
            p-values.
        """
        check_is_fitted(self, "offset_")
        return self._terms(self._check_X(X, reset=False))

    def _terms(self, X: Any) -> Bunch:
        if self.image_shape_ is None:
            return Bunch(likelihood=self._log_likelihood(X))
        return self._terms_of(self._statistics(X))

    def _terms_of(self, found: NDArray[np.float64]) -> Bunch:
        """Return the terms for statistics (n, 5)."""
        terms = Bunch()
        for name, values, known in zip(NAMES, found.T, np.sort(self.calibration_statistics_, axis=0).T, strict=True):
            log_p = log_p_value(-values, -known[::-1])
            if TWO_SIDED.get(name, False):
                log_p = np.minimum(0.0, np.minimum(log_p, log_p_value(values, known)) + np.log(2))
            terms[name] = WEIGHTS.get(name, 1.0) * log_p
        return terms

    _combined = staticmethod(unchanged)  # of a table

    def _asked(self) -> list[tuple[Any, str]]:
        return super()._asked() if self.image_shape_ is None else []

    def _score(self, X: Any) -> NDArray[np.float64]:
        return np.asarray(sum(self._terms(X).values()), dtype=np.float64)

    def _threshold_scores(
        self, X: Any, rows: NDArray[np.int_] | None, reference: NDArray[np.int_]
    ) -> NDArray[np.float64]:
        if rows is None or self._learns_of_training_rows(len(reference)) or self.image_shape_ is None:
            return super()._threshold_scores(X, rows, reference)
        # the reference has been scored already, and scores are batch-invariant
        known = np.asarray(sum(self._terms_of(self.calibration_statistics_).values()), dtype=np.float64)
        is_known, others = np.isin(rows, reference), np.setdiff1d(rows, reference)
        scores = np.empty(len(rows))
        scores[is_known] = known[np.argsort(reference, kind="stable")]
        scores[~is_known] = self._finite_scores(take(X, others))
        return self._finite(scores)
