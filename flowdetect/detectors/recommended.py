"""The detector to start with: neighbours on tables; on images a density's complexity beside spectrum, texture, shape.

Likelihood misses images that are simpler than those of the training set, complexity misses those that a density and a
codec find equally hard, and each statistic of the whole image misses some set too. Joined, they miss little of what
was tried.
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

USUAL_SHARE = 0.1  # of the rows given to fit, called outliers where contamination="auto"
BATCH_SIZE = 16
# steps of training, and learning rate, of the density that images get; in gray the shorter pace has the AUROCs of the
# longer one within 0.0012, in colour it lost 0.003 (CIFAR-10 against SVHN)
GRAY_PACE, COLOUR_PACE = (700, 8e-3), (1500, 3e-3)
MOST_NEIGHBORS = 100_000  # rows of a source that a density of neighbours keeps
TIME_SHARE = 0.8  # of time_limit, for the density; the rest is for statistics, codecs and calibration
NAMES = ("complexity", *ImageStatistics.names)
WEIGHTS = {"spectrum": 2.0, "shape": 0.5}  # of log p-values; all others have 1
TWO_SIDED = dict(zip(ImageStatistics.names, ImageStatistics.two_sided, strict=True))


class OODDetector(GreyLevels, ComplexityDetector):
    """The detector to start with: for tables and images, and for both directions of a pair of data sets.

    Without a density, a table is scored by `NeighborsDensity`, the k-nearest-neighbour density at two scales. With one,
    a table is scored by its log-likelihood.

    Images are rounded to 32 grey levels, so that noise which no eye sees is gone, and scored by the weighted sum of the
    logarithms of five p-values: of c(x) = log2 p(x) + L(x) (complexity; see `ComplexityDetector`) and of four
    statistics of the whole image, spectrum, its logarithm, texture and shape (see Notes). Without a density, p is a
    `PixelCNNDensity` of variant "pixelcnn++" with 32 filters and one block, trained for about 700 steps of 16 images
    (1,500 where they have colour): about two minutes of one core for images of 28x28 in gray.

    Parameters
    ----------
    density : estimator with `fit` and `score_samples`, or None, default=None
        None: chosen as said above. Another one is cloned and the clone fitted; with `prefit=True`, or inside
        scikit-learn's `FrozenEstimator`, it is used as it is. It gets images in its own grey levels.
    image_shape : tuple of int (H, W) or (H, W, C), or None, default=None
        None: taken from X if it has images' axes, else from the density; if neither knows, X is a table.
    codecs : tuple of "png", "webp", "jpeg2000" and "jpegxl", default=("png", "webp", "jpeg2000")
    contamination : float in (0, 0.5] or "auto", default="auto"
        A number: the share of the rows given to `fit` that are outliers. They are left out of what new rows are
        compared with, and on tables without a density the smoothing is widened so that outliers, scattered or in one
        tight group, cannot vouch for each other. "auto": the rows are taken for normal, and the threshold is set so
        that 10 % of them are called outliers.
    calibration_fraction : float in [0, 1), default=0.1
        Share of the rows given to `fit` that the density is not trained on, and which p-values compare with; see
        `BaseDetector`. On images every other one makes the p-values of the statistics, and the detector's p-values
        compare with the rest. Tables without a density need none: every row is scored by all others.
    prefit : bool, default=False
        True: the density given is fitted, and used as it is.
    cv : int or None, default=None
        Number of folds for cross-conformal calibration; see `BaseDetector`.
    verbose : int, default=0
        1: a line for each stage, and the training's progress.
    device : str or None, default=None
        Where the density is trained, such as "cpu" or "cuda"; None leaves that to the density. This, verbose and
        time_limit are handed to what has parameters of these names.
    checkpoint : path or None, default=None
        A folder that keeps all trainings within, so that a fit that was killed goes on; see `BaseDetector`.
    time_limit : float or None, default=None
        Seconds that `fit` may take, about: 0.8 of them are for the density's training.
    random_state : int, RandomState instance or None, default=None
        Draws the calibration rows, and the seeds within the density that are None.

    Attributes
    ----------
    density_ : the fitted density
    scores_ : tuple of str
        What is asked: ("likelihood",), or the five names on images.
    statistics_ : ImageStatistics, on images
    calibration_statistics_ : (n, 5) array, on images
        Of the rows that the statistics' p-values compare with; higher is rarer.
    offset_ : float
        The `contamination` quantile of the scores of all rows given to `fit`; of images, of those that the density was
        not trained on, if they are at least 20.
    calibration_scores_ : (n_calibration,) array
        Scores of the calibration rows, sorted.
    image_shape_ : tuple of int (H, W, C) or None
    n_bins_ : int or None, on images
        How many grey levels they have.
    n_features_in_ : int
    feature_names_in_ : (n_features_in_,) array of str
        Where a frame was given to `fit`.

    Warns
    -----
    UserWarning
        If a table holds a tight group of rows far from all others. A density takes them for normal, as it must: the
        rows say that such rows occur. If they are outliers, give `contamination`.

    Notes
    -----
    "spectrum" and "log_spectrum" are distances to the nearest training images by amplitudes of spatial frequencies,
    "texture" is the log-density of mean filter responses on three scales, "shape" the distance of the centred image
    from the plane of the training images' principal components, which is rare on both sides. Each p-value continues
    below the lowest 5 % of the known values as an exponential, so that one statistic far out is enough.

    The page on detection says what was chosen by which figures.

    Which statistics tell two sets of images apart is a property of these sets. Photographs and house numbers differ in
    their spectra; images of the same kind, such as two sorts of shoes, hardly differ in any of the five.

    References
    ----------
    Tables: "Fast Outlier Detection in High Dimensional Spaces" (Angiulli and Pizzuti, 2002). Complexity: "Input
    Complexity and Out-of-Distribution Detection with Likelihood-Based Generative Models" (Serra et al., 2020),
    https://arxiv.org/abs/1909.11480. Joining statistics: "Density of States Estimation for Out-of-Distribution
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
        """Whether the score learns from calibration rows: on images it does."""
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
                self._check_prefit()  # which refuses
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
        return self._in_memory(X[chosen])  # a density of neighbours keeps its rows

    def _split(self, n_rows: int, random: np.random.RandomState, most: int | None = None) -> Split:
        if not self._scores_itself:
            return super()._split(n_rows, random, most)
        rows = np.arange(n_rows)
        return rows, rows, rows

    @property
    def _scores_itself(self) -> bool:
        """Whether the density scores training rows by the others."""
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
        """Hand on what the density has parameters for."""
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
            most = self._pace[0] * BATCH_SIZE  # what training can see
            if len(train) > most and isinstance(train, Without):
                train = train[drawn(len(train), most, random)]
            elif len(train) > most:
                train = np.sort(random.permutation(train)[:most])
            self._n_train = len(train)
        self._seed_of_statistics = int(random.randint(LARGEST_SEED))
        self._say(f"density of {len(train)} rows")
        super()._learn(X, y, train, reference, random)

    def _calibrate(self, X_train: Any, X_calibration: Any) -> None:
        self.scores_ = ("likelihood",) if self.image_shape_ is None else NAMES
        if self.density is not None or self.image_shape_ is None:
            self._learn_bytes(X_train)
        if self.image_shape_ is None:
            if self._is_auto:
                warn_of_groups(type(self).__name__, self.density_, USUAL_SHARE)
            return
        X_train = few(X_train)
        reference = self._reference(X_train, X_calibration)
        same = self._learns_of_training_rows(len(X_calibration))
        if same and len(X_train) >= 2 * FEWEST_REFERENCE:  # images are no neighbours of themselves
            even, odd = np.arange(0, len(X_train), 2), np.arange(1, len(X_train), 2)
            X_train, reference = take(X_train, even), take(X_train, odd)
        self._say(f"statistics of {len(X_train)} images")
        self.statistics_ = ImageStatistics(self._seed_of_statistics).fit(self._unit_images(X_train))
        self._say(f"calibration on {len(reference)} images")
        self.calibration_statistics_ = self._statistics(reference)

    def _learns_of_training_rows(self, n_reference: int) -> bool:
        """Whether the rows to learn statistics from are, for want of others, among those that the density knows."""
        return n_reference < FEWEST_REFERENCE or self.is_frozen or self.calibration_fraction == 0

    def _threshold_rows(
        self, n_rows: int, reference: NDArray[np.int_], calibration: NDArray[np.int_]
    ) -> NDArray[np.int_] | None:
        held_out = np.union1d(reference, calibration)
        # images are their own nearest neighbours in the statistics, so that those trained on score higher than new ones
        return held_out if self.image_shape_ is not None and len(held_out) >= 2 * FEWEST_REFERENCE else None

    def _settle(self, scores: NDArray[np.float64], is_calibration: NDArray[np.bool_]) -> None:
        super()._settle(scores, is_calibration)
        if self.image_shape_ is None and not self._is_auto:
            kept = scores[is_calibration & (scores >= self.offset_)]  # outliers are not to be compared with
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
        """Give c(x), bits, with the sign reversed, and the statistics of whole images: (n, 5); higher is rarer."""
        complexity = -self._log_likelihood(X) / np.log(2) - self._code_lengths(X)
        return np.column_stack([complexity, self.statistics_.measure(self._unit_images(X))])

    def score_terms(self, X: ArrayLike) -> Bunch:
        """Say what each statistic adds to the score: which of them found a row unusual.

        Parameters
        ----------
        X : (n, D) array or frame, or images

        Returns
        -------
        terms : Bunch of (n,) arrays
            One of each name in `scores_`, whose sum is the score. On images, weighted logarithms of p-values.
        """
        check_is_fitted(self, "offset_")
        return self._terms(self._check_X(X, reset=False))

    def _terms(self, X: Any) -> Bunch:
        if self.image_shape_ is None:
            return Bunch(likelihood=self._log_likelihood(X))
        return self._terms_of(self._statistics(X))

    def _terms_of(self, found: NDArray[np.float64]) -> Bunch:
        """Give the terms of images by their statistics, (n, 5)."""
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
        # the density has been asked about the reference, and a row scores the same in any company
        known = np.asarray(sum(self._terms_of(self.calibration_statistics_).values()), dtype=np.float64)
        is_known, others = np.isin(rows, reference), np.setdiff1d(rows, reference)
        scores = np.empty(len(rows))
        scores[is_known] = known[np.argsort(reference, kind="stable")]
        scores[~is_known] = self._finite_scores(take(X, others))
        return self._finite(scores)
