"""Stirring and shaking: the loss of likelihood when an image's pixels change places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from flowdetect._frames import like
from flowdetect._images import to_rows
from flowdetect._nested import check_within
from flowdetect._protocols import ImageShape, PathName, RandomState, Scorer, Transformer
from flowdetect.detectors.base import BaseDetector
from flowdetect.detectors.clones import seeded_clone, with_parameter
from flowdetect.detectors.rows import few, is_frame
from flowdetect.sit import Rotate90

N_SHAKES, SHAKE_SEED = 3, 0
MOST_PATCHES = 4  # along a side
N_DECIMALS = 6  # of a difference, nats


class TransformDetector(BaseDetector):
    r"""Call an image an outlier if it loses little likelihood when it is flipped or when its patches are reordered.

    .. math:: s(x) = \log p(x) - \frac{1}{K} \sum_{k=1}^{K} \log p(T_k(x))

    with bijections T that keep the smoothness and brightness of an image. They keep the relations between neighbouring
    pixels, whose terms cancel in the difference; the rest depends on long-range structure. *Stirring* flips the whole
    image (left-right, upside down, both). *Shaking* cuts it into equal patches, at most 4 along each side, and reorders
    them, three times. If 2, 3 or 4 do not divide a side, the last pixels stay in place.

    It costs 4 likelihoods for each image and no other training. Weakness: it fails on images that look the same after
    flipping, and with densities that model little beyond neighbouring pixels.

    Parameters
    ----------
    density : estimator with `fit` and `score_samples`
        A clone of it is fitted; a density in scikit-learn's `FrozenEstimator` is used without training.
    transforms : {"stirring", "shaking"} or tuple of transformers, default="stirring"
        Transformers, such as the SITs, are cloned and fitted on the training rows of the density. With a frozen density
        they are fitted on half of the rows given to `fit`, and p-values use the other half. They receive rows (n, D).
        If not set, their `image_shape` comes from the data, `n_bins` from the density, and seeds from `random_state`.
    image_shape : tuple of int (H, W) or (H, W, C), or None, default=None
        None: taken from X if X has the axes of images, else from the density. If neither has a shape, rows are images
        of 1 x D pixels.
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
    transforms_ : tuple of (D,) arrays, or of fitted transformers
        An array has the index from which each feature is taken.
    offset_ : float, nats
        The `contamination` quantile of the scores of all rows given to `fit`.
    calibration_scores_ : (n_calibration,) array, nats
        Scores of the calibration rows, sorted.
    image_shape_ : tuple of int (H, W, C) or None
    n_features_in_ : int
    feature_names_in_ : (n_features_in_,) array of str
        Only if `fit` was given a data frame.

    Notes
    -----
    The paper's abstract names the two families, their purpose, and that they are bijections applied at scoring time.
    The choice of the transformations, and the mean over them, are ours. The orders of the patches are the same for all
    images.

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
        density: Scorer | None,
        *,
        transforms: str | Sequence[Transformer] = "stirring",
        image_shape: ImageShape = None,
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
        self.transforms = transforms
        self.image_shape = image_shape

    def _check_parameters(self) -> None:
        super()._check_parameters()
        chosen = self.transforms
        if isinstance(chosen, str) and chosen in ("stirring", "shaking"):
            return
        methods = ("fit", "transform", "get_params")
        if (
            not isinstance(chosen, tuple | list)
            or not chosen
            or not all(hasattr(each, method) and not isinstance(each, type) for each in chosen for method in methods)
        ):
            raise ValueError(
                'TransformDetector needs transforms="stirring", "shaking" or a tuple of transformers such as '
                f"(Flip(), Rotate90(2)), got {chosen!r}."
            )
        check_within(self, "transforms")

    @property
    def learns(self) -> bool:
        """Whether the score learns from calibration rows: True for transformers with a frozen density."""
        return not isinstance(self.transforms, str) and self.is_frozen

    def _calibrate(self, X_train: Any, X_calibration: Any) -> None:
        rows = np.asarray(to_rows(few(X_train), self.image_shape_)[0])
        if isinstance(self.transforms, str):
            self.transforms_: tuple[Any, ...] = self._orders()
            return
        random, n_bins = check_random_state(self._seed), getattr(self.density_, "n_bins_", "auto")
        chosen = [with_parameter(seeded_clone(each, random), "n_bins", "auto", n_bins) for each in self.transforms]
        chosen = [self._with_checkpoints(each) for each in chosen]
        if self.image_shape_ is not None:
            chosen = [with_parameter(each, "image_shape", None, self.image_shape_) for each in chosen]
        self.transforms_ = tuple(each.fit(rows, None) for each in chosen)
        for each in self.transforms_:
            self._moved(each, rows[:1])  # raises if it changes the shape

    def _check_data(self, X: Any) -> None:
        if isinstance(self.transforms, str):
            self._orders()  # raises for a single pixel
        elif self.image_shape_ is not None and self.image_shape_[0] != self.image_shape_[1]:
            within = [part for each in self.transforms for part in (each, *each.get_params(deep=True).values())]
            for turn in within:
                if isinstance(turn, Rotate90) and turn.k % 2:
                    raise ValueError(
                        f"TransformDetector needs transformers that keep the images' shape, {self.image_shape_}, got "
                        f"{turn!r}, which swaps height and width; take Rotate90(2)."
                    )

    def _orders(self) -> tuple[NDArray[np.intp], ...]:
        orders = stirrings if self.transforms == "stirring" else shakes
        return orders(self.image_shape_ or (1, self.n_features_in_, 1))

    def _moved(self, transformation: Any, rows: NDArray[Any]) -> NDArray[Any]:
        """Apply one transformation to rows (n, D)."""
        if isinstance(transformation, np.ndarray):
            return np.ascontiguousarray(rows[:, transformation])
        moved = np.ascontiguousarray(transformation.transform(rows))  # the transformer may return a frame
        if moved.shape != rows.shape:
            raise ValueError(
                f"TransformDetector needs transformers that keep the shape, got {moved.shape[1:]} for {rows.shape[1:]} "
                f"from {transformation!r}; leave it out."
            )
        return moved

    def _transformed(self, X: Any) -> Iterator[Any]:
        """Yield X after each transformation, in the form of X."""
        rows, layout = to_rows(X, self.image_shape_)
        rows = np.asarray(rows)
        for each in self.transforms_:
            moved = self._moved(each, rows)
            yield like(X, moved) if is_frame(X) else layout.as_numpy().restore(moved)

    def _score(self, X: Any) -> NDArray[np.float64]:
        moved = [self._log_likelihood(each) for each in self._transformed(X)]
        difference = self._log_likelihood(X) - np.mean(moved, axis=0)
        return np.asarray(np.round(difference, N_DECIMALS))  # rounded so that scores that cancel to 0 tie


def stirrings(image_shape: tuple[int, int, int]) -> tuple[NDArray[np.intp], ...]:
    """Return three orders (D,) of the features: left-right flip, upside-down flip, and both.

    Parameters
    ----------
    image_shape : tuple of int (H, W, C)
    """
    _check_pixels(image_shape)
    places = np.arange(np.prod(image_shape)).reshape(image_shape)
    return tuple(turned.ravel() for turned in (places[:, ::-1], places[::-1], places[::-1, ::-1]))


def shakes(image_shape: tuple[int, int, int]) -> tuple[NDArray[np.intp], ...]:
    """Draw orders (D,) of the features in which the image's patches are permuted.

    Parameters
    ----------
    image_shape : tuple of int (H, W, C)
        A side is cut into 4, 3 or 2 equal parts, the most that divide it. If none does, it is cut into 4 parts, or into
        single pixels if it is shorter, and the remaining pixels stay in place.
    """
    _check_pixels(image_shape)
    height, width, channels = image_shape
    places = np.arange(height * width * channels).reshape(image_shape)
    (n_down, down), (n_across, across) = _parts(height), _parts(width)
    inner = places[: n_down * down, : n_across * across]
    cells = inner.reshape(n_down, down, n_across, across, channels).transpose(0, 2, 1, 3, 4)
    patches = cells.reshape(n_down * n_across, -1)
    generator = np.random.default_rng(SHAKE_SEED)
    found: list[NDArray[np.intp]] = []
    while len(found) < N_SHAKES:
        order = generator.permutation(len(patches))
        if (order == np.arange(len(patches))).all():
            continue
        mixed = places.copy()
        mixed[: n_down * down, : n_across * across] = (
            patches[order].reshape(cells.shape).transpose(0, 2, 1, 3, 4).reshape(inner.shape)
        )
        found.append(mixed.ravel())
    return tuple(found)


def _parts(side: int) -> tuple[int, int]:
    """Return the number of parts of a side, and their length."""
    divisors = [n for n in range(2, MOST_PATCHES + 1) if side % n == 0]
    n_parts = max(divisors, default=min(MOST_PATCHES, side))
    return n_parts, side // n_parts


def _check_pixels(image_shape: tuple[int, int, int]) -> None:
    if image_shape[0] * image_shape[1] < 2:
        raise ValueError(
            "TransformDetector needs at least two pixels to change places, got one, of "
            f"{image_shape[2]} feature(s); take LikelihoodDetector."
        )
