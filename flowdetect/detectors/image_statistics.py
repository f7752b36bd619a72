"""Statistics of whole images that differ between data sets: spectrum, texture and shape.

A likelihood is a sum of local terms, one for each pixel. These statistics describe the whole image: the strength of
each spatial frequency, the roughness at each scale, and the distance from the principal components of the training
images. They train in seconds, and a shift or invisible noise hardly changes them.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.fft import rfft2
from sklearn.base import BaseEstimator

from flowdetect._ctrl_c import whole_imports

Images = NDArray[np.float32]  # (n, H, W, C), values in [0, 1]

N_COMPONENTS = 60  # principal components kept
N_NEIGHBORS = 3
N_MIXTURE = 5  # components of the mixture over textures
MOST_REFERENCES = 10_000  # training images among which neighbours are found
LEVELS = 3  # of the pyramid, each half the size of the one before
FLOOR = 1e-3  # about a tenth of the smallest step between grey levels; less counts as no contrast
AMPLITUDE_FLOOR = 0.1  # added to spectral amplitudes before the logarithm
SMALLEST = 1e-6  # added to distances before the logarithm
DECIMALS = 9  # rounding makes the statistics, and so their ranks, batch-invariant
AT_ONCE = 256  # images


class PrincipalNeighbors(BaseEstimator):
    """Distances to training vectors, inside and outside the subspace of their principal components.

    Parameters
    ----------
    random_state : int, default=0
    """

    def __init__(self, random_state: int = 0) -> None:
        self.random_state = random_state

    def fit(self, vectors: NDArray[Any]) -> Self:
        """Learn the components and keep the training vectors' coordinates."""
        with whole_imports():
            from sklearn.decomposition import PCA
            from sklearn.neighbors import NearestNeighbors

        n_components = max(1, min(N_COMPONENTS, len(vectors) // 2, vectors.shape[1]))
        self.pca_ = PCA(n_components, svd_solver="randomized", random_state=self.random_state)
        self.pca_.set_output(transform="default").fit(vectors)
        self.pca_.components_ = np.ascontiguousarray(
            self.pca_.components_
        )  # the memory layout that they have after loading
        self.neighbors_ = NearestNeighbors(n_neighbors=min(N_NEIGHBORS, len(vectors)), algorithm="brute")
        self.references_ = np.ascontiguousarray(self.pca_.transform(vectors))
        self.neighbors_.fit(self.references_)
        return self

    def log_distances(self, vectors: NDArray[Any]) -> NDArray[np.float64]:
        """Log of the mean distance to the nearest training vectors, inside the subspace: (n,)."""
        asked = self.pca_.transform(vectors)
        nearest = self.neighbors_.kneighbors(asked, return_distance=False)
        apart = asked[:, None] - self.references_[nearest]  # exact; scikit-learn expands the square
        return np.log(np.sqrt((apart**2).sum(axis=2)).mean(axis=1) + SMALLEST)

    def log_residuals(self, vectors: NDArray[Any]) -> NDArray[np.float64]:
        """Log of the squared distance from the subspace of the components: (n,)."""
        plane = self.pca_.inverse_transform(self.pca_.transform(vectors))
        return np.log(((vectors - plane) ** 2).sum(axis=1) + SMALLEST)


class ImageStatistics(BaseEstimator):
    """Distances of an image from the training images in spectrum, texture and shape.

    - ``"spectrum"``: distance to the nearest training images, in the square roots of the Fourier amplitudes. It does
      not change when an object moves on a black background.
    - ``"log_spectrum"``: the same distance, in the logarithms of the amplitudes, where weak and strong frequencies
      count equally.
    - ``"texture"``: negative log-density, nats, of log mean contrasts under a mixture of Gaussians. The contrasts are
      those of five linear filters (differences along x, y and both diagonals, and the Laplacian) at three scales.
    - ``"shape"``: distance of the centred image from the subspace of the training images' principal components.
      Outliers are too far from it, or, if they are simpler than all training images, too near.

    Parameters
    ----------
    random_state : int, default=0

    References
    ----------
    Statistics of filter responses as a model of texture: "A Parametric Texture Model Based on Joint Statistics of
    Complex Wavelet Coefficients" (Portilla and Simoncelli, 2000). Amplitudes, which do not depend on the position:
    "Statistics of natural image categories" (Torralba and Oliva, 2003).

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect import load_images
    >>> from flowdetect.detectors.image_statistics import ImageStatistics
    >>> X = load_images("digits")[0][..., None].astype(np.float32) / 16
    >>> statistics = ImageStatistics().fit(X[:500])
    >>> digits, inverted = statistics.measure(X[500:600]), statistics.measure(1 - X[500:600])
    >>> bool(inverted[:, 0].min() > np.median(digits[:, 0]))
    True
    """

    names: tuple[str, ...] = ("spectrum", "log_spectrum", "texture", "shape")
    two_sided: tuple[bool, ...] = (False, False, False, True)

    def __init__(self, random_state: int = 0) -> None:
        self.random_state = random_state

    def fit(self, images: Images) -> Self:
        """Learn what training images are like.

        Parameters
        ----------
        images : (n, H, W, C) array, values in [0, 1], at least two
            If there are more than 10,000, a random sample is used.

        Returns
        -------
        self : ImageStatistics
        """
        with whole_imports():
            from sklearn.mixture import GaussianMixture
            from sklearn.preprocessing import StandardScaler

        if len(images) > MOST_REFERENCES:
            chosen = np.random.default_rng(self.random_state).choice(len(images), MOST_REFERENCES, replace=False)
            images = images[np.sort(chosen)]
        self.spectrum_ = self._neighbors(spectra(images))
        self.log_spectrum_ = self._neighbors(log_spectra(images))
        self.shape_ = self._neighbors(centred(images))
        textures = contrasts(images)
        self.scaler_ = StandardScaler().set_output(transform="default").fit(textures)
        self.texture_ = GaussianMixture(
            max(1, min(N_MIXTURE, len(images) // 50)),
            reg_covar=0.03,
            init_params="random_from_data",  # k-means fails under scikit-learn's array API dispatch
            n_init=3,
            random_state=self.random_state,
        ).fit(self.scaler_.transform(textures))
        return self

    def _neighbors(self, vectors: NDArray[Any]) -> PrincipalNeighbors:
        return PrincipalNeighbors(self.random_state).fit(vectors)

    def measure(self, images: Images) -> NDArray[np.float64]:
        """Measure images.

        Parameters
        ----------
        images : (n, H, W, C) array, values in [0, 1]

        Returns
        -------
        statistics : (n, 4) array, in the order of `names`
            Higher is rarer; "shape" is rare on both sides.
        """
        found = np.empty((len(images), len(self.names)))
        for start in range(0, len(images), AT_ONCE):
            part = images[start : start + AT_ONCE]
            found[start : start + AT_ONCE] = np.stack(
                [
                    self.spectrum_.log_distances(spectra(part)),
                    self.log_spectrum_.log_distances(log_spectra(part)),
                    -self.texture_.score_samples(self.scaler_.transform(contrasts(part))),
                    self.shape_.log_residuals(centred(part)),
                ],
                axis=1,
            )
        return found.round(DECIMALS)


def spectra(images: Images) -> NDArray[np.float64]:
    """Square roots of the spectral amplitudes of the mean over channels, with zero padding: (n, K)."""
    gray = images.mean(axis=3, dtype=np.float64)
    n, height, width = gray.shape
    amplitudes = np.abs(rfft2(gray, s=(2 * height, 2 * width)))  # padded to twice the size: no wrap-around
    return np.sqrt(amplitudes).reshape(n, -1)


def log_spectra(images: Images) -> NDArray[np.float64]:
    """Logarithms of the spectral amplitudes of the mean over channels: (n, K)."""
    gray = images.mean(axis=3, dtype=np.float64)
    return np.log(np.abs(rfft2(gray)) + AMPLITUDE_FLOOR).reshape(len(gray), -1)


def centred(images: Images) -> NDArray[np.float64]:
    """Mean over channels, shifted by whole pixels until its centre of mass is in the middle: (n, H * W)."""
    gray = images.mean(axis=3, dtype=np.float64)
    n, height, width = gray.shape
    mass = gray.sum(axis=(1, 2)) + 1e-6
    rows = (gray.sum(axis=2) * np.arange(height)).sum(axis=1) / mass - (height - 1) / 2
    columns = (gray.sum(axis=1) * np.arange(width)).sum(axis=1) / mass - (width - 1) / 2
    padded = np.pad(gray, [(0, 0), (height, height), (width, width)])
    y = height + np.rint(rows).astype(int)[:, None] + np.arange(height)  # (n, H)
    x = width + np.rint(columns).astype(int)[:, None] + np.arange(width)  # (n, W)
    return padded[np.arange(n)[:, None, None], y[:, :, None], x[:, None, :]].reshape(n, -1)


def contrasts(images: Images) -> NDArray[np.float32]:
    """Log contrasts of linear filters at each scale, in brightness and colour: (n, K)."""
    brightness = images.mean(axis=3)
    planes = [brightness, *(images[..., c] - brightness for c in range(images.shape[3] - 1))]
    return np.stack([value for plane in planes for value in _of_pyramid(plane)], axis=1)


def _of_pyramid(plane: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    found = []
    for _ in range(LEVELS):
        n, height, width = plane.shape
        if min(height, width) >= 3:
            for response in _responses(plane):
                found += _spread(np.abs(response))
        found += [plane.mean(axis=(1, 2)), np.log(plane.std(axis=(1, 2)) + FLOOR)]
        if min(height, width) < 2:
            break
        even = plane[:, : height // 2 * 2, : width // 2 * 2]
        plane = even.reshape(n, height // 2, 2, width // 2, 2).mean(axis=(2, 4))
    return found


def _responses(plane: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return differences along x, y and the diagonals, and the Laplacian."""
    inner = plane[:, 1:-1, 1:-1]
    return [
        plane[:, :-1, 1:] - plane[:, :-1, :-1],
        plane[:, 1:, :-1] - plane[:, :-1, :-1],
        plane[:, 1:, 1:] - plane[:, :-1, :-1],
        plane[:, 1:, :-1] - plane[:, :-1, 1:],
        4 * inner - plane[:, :-2, 1:-1] - plane[:, 2:, 1:-1] - plane[:, 1:-1, :-2] - plane[:, 1:-1, 2:],
    ]


def _spread(magnitudes: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return the log mean magnitude, and the logs of two other power means (2 and 1/2) minus it."""
    mean = np.log(magnitudes.mean(axis=(1, 2)) + FLOOR)
    square = np.log(np.sqrt((magnitudes**2).mean(axis=(1, 2))) + FLOOR)
    root = 2 * np.log(np.sqrt(magnitudes + 1e-4).mean(axis=(1, 2)))
    return [mean, square - mean, root - mean]
