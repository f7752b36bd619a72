"""Adapters between flowdetect and pyod, whose signs are opposite: in pyod, higher is less normal and 1 is an outlier.

Only this module imports pyod. It is loaded when one of its names is first used.
"""

from __future__ import annotations

import inspect
import json
import numbers
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowdetect._ctrl_c import whole_imports

with whole_imports():
    import numpy as np
    import pyod.utils.knowledge
    from numpy.typing import ArrayLike, NDArray
    from pyod.models.base import BaseDetector as PyODBase
    from sklearn.base import BaseEstimator, clone
    from sklearn.frozen import FrozenEstimator
    from sklearn.utils.validation import check_array, check_is_fitted

    from flowdetect._fitting import all_or_nothing, is_kept
    from flowdetect._images import to_rows
    from flowdetect._protocols import ImageShape, PathName, RandomState, Scorer
    from flowdetect.detectors.base import BaseDetector
    from flowdetect.detectors.recommended import OODDetector

__all__ = ["FlowOD", "PyODAdapter", "PyODDetector", "to_pyod", "write_knowledge"]

KNOWLEDGE = {
    "FlowOD": {
        "class_path": "flowdetect.detectors.pyod.FlowOD",
        "full_name": "Nearest neighbours at two scales, or the likelihood of any density",
        "status": "shipped",
        "data_types": ["tabular"],
        "category": "probabilistic",
        "complexity": {"time": "O(n^2 * d)", "space": "O(n * d)"},
        "strengths": ["Fast on thousands of rows", "p-values, explanations, control of false discoveries"],
        "weaknesses": ["Scoring takes time in proportion to the training rows", "Many columns without meaning"],
        "best_for": "Tables of a hundred to some ten thousand rows",
        "avoid_when": "There are millions of rows",
        "benchmark_refs": [],
        "benchmark_rank": {},
        "paper": {"id": "realnvp", "short": "Dinh et al., ICLR 2017"},
        "default_params": {"contamination": 0.1},
        "preprocessing_mode": "internal",
        "requires": ["flowdetect-ood"],
        "version_added": "",
    }
}


class PyODAdapter(PyODBase):
    """A detector of flowdetect with the interface of pyod; `to_pyod` returns it.

    Parameters
    ----------
    detector : detector of flowdetect
        A clone of it is fitted.
    contamination : float in (0, 0.5], default=0.1
        Replaces the detector's own value.

    Attributes
    ----------
    detector_ : the fitted detector
    decision_scores_ : (n,) array
        Scores of the training rows; higher is less normal.
    threshold_ : float
    labels_ : (n,) array of int; 1 is an outlier

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from flowdetect import LikelihoodDetector
    >>> from flowdetect.detectors.pyod import PyODAdapter
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> PyODAdapter(LikelihoodDetector(GaussianMixture(), random_state=0)).fit(X).predict(np.array([[9.0, 9.0]]))
    array([1])
    """

    def __init__(self, detector: BaseDetector, contamination: float = 0.1):
        super().__init__(contamination=contamination)
        self.detector = detector

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> PyODAdapter:
        """Fit a clone of the detector; Ctrl-C has the same effect as in the detector's own `fit`.

        Parameters
        ----------
        X : (n, D) array
        y : ignored

        Returns
        -------
        self
        """
        interrupt = self._fit(X, y)
        if interrupt is not None:
            raise interrupt
        return self

    @all_or_nothing
    def _fit(self, X: ArrayLike, y: ArrayLike | None) -> KeyboardInterrupt | None:
        X, interrupt = self._checked(X), None
        self._set_n_classes(y)
        self.detector_: Any = self._made()
        try:
            self.detector_.fit(X)
        except KeyboardInterrupt as error:
            if not is_kept(self.detector_):
                raise
            interrupt = error
        self.decision_scores_: NDArray[np.float64] = -self.detector_.score_samples(X)
        self._process_decision_scores()
        return interrupt

    def _checked(self, X: Any) -> Any:
        """Convert rows to an array, as pyod does; images stay unchanged."""
        own = self if hasattr(self, "image_shape") else getattr(self, "detector", None)
        rows, layout = to_rows(X, getattr(own, "image_shape", None))
        return check_array(rows) if layout.axes == "rows" else X

    def _made(self) -> BaseDetector:
        return clone(self.detector).set_params(contamination=self.contamination)

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Score rows with pyod's sign.

        Parameters
        ----------
        X : (n, D) array

        Returns
        -------
        scores : (n,) array; higher is less normal
        """
        check_is_fitted(self, ["decision_scores_", "threshold_", "labels_"])
        return -self.detector_.score_samples(self._checked(X))


class FlowOD(PyODAdapter):
    """`OODDetector` as a pyod model, with the constructor's arguments.

    Parameters
    ----------
    contamination : float in (0, 0.5], default=0.1
        Share of outliers in the rows given to `fit`, as always in pyod; on tables it is also the `contamination` of
        `OODDetector`.
    density, image_shape, codecs, calibration_fraction, prefit, cv, verbose, device, checkpoint, time_limit
        As those of `OODDetector`.
    random_state : int, RandomState instance or None, default=None

    Attributes
    ----------
    detector_ : the fitted `OODDetector`
    decision_scores_ : (n,) array
        Scores of the training rows; higher is less normal.
    threshold_ : float
    labels_ : (n,) array of int; 1 is an outlier

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect import FlowOD
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> FlowOD(random_state=0).fit(X).predict(np.array([[0.0, 0.0], [9.0, 9.0]]))
    array([0, 1])
    """

    def __init__(
        self,
        contamination: float = 0.1,
        density: Scorer | None = None,
        *,
        image_shape: ImageShape = None,
        codecs: Sequence[str] = ("png", "webp", "jpeg2000"),
        calibration_fraction: float = 0.1,
        prefit: bool = False,
        cv: int | None = None,
        verbose: int = 0,
        device: str | None = None,
        checkpoint: PathName | None = None,
        time_limit: float | None = None,
        random_state: RandomState = None,
    ):
        if not isinstance(contamination, numbers.Number):
            raise TypeError(
                f"The first argument of FlowOD is contamination, as in pyod, got a {type(contamination).__name__}; "
                f"give a density as FlowOD(density=...)."
            )
        PyODBase.__init__(self, contamination=contamination)
        self.density = density
        self.image_shape = image_shape
        self.codecs = codecs
        self.calibration_fraction = calibration_fraction
        self.prefit = prefit
        self.cv = cv
        self.verbose = verbose
        self.device = device
        self.checkpoint = checkpoint
        self.time_limit = time_limit
        self.random_state = random_state

    def _made(self) -> BaseDetector:
        names = inspect.signature(OODDetector).parameters
        made: BaseDetector = clone(OODDetector(**{name: getattr(self, name) for name in names}))
        return made


def to_pyod(detector: BaseDetector) -> PyODAdapter:
    """Wrap a detector in the interface of pyod: its names, signs and attributes.

    Parameters
    ----------
    detector : detector of flowdetect, fitted or not
        `fit` of the adapter fits a clone of it; with a density in `FrozenEstimator` it only sets the threshold.

    Returns
    -------
    adapter : PyODAdapter, a pyod `BaseDetector`

    Raises
    ------
    TypeError
        If it is not a detector of flowdetect.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from flowdetect import LikelihoodDetector, to_pyod
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> model = to_pyod(LikelihoodDetector(GaussianMixture(), random_state=0)).fit(X)
    >>> model.predict_proba(np.array([[9.0, 9.0]]))
    array([[0., 1.]])
    """
    if not isinstance(detector, BaseDetector):
        raise TypeError(f"to_pyod needs a detector of flowdetect, got {type(detector).__name__}.")
    return PyODAdapter(detector, contamination=detector._share)  # pyod has no "auto"


class PyODScores(BaseEstimator):
    """A pyod model as a scorer: score_samples is minus its decision_function."""

    def __init__(self, model: PyODBase):
        self.model = model

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> PyODScores:
        """Fit a clone of the model."""
        self.model_ = clone(self.model).fit(np.asarray(X))
        return self

    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:
        """Score rows, higher being more normal: (n,)."""
        return -np.asarray(self.model_.decision_function(np.asarray(X)), dtype=np.float64)


class PyODDetector(BaseDetector):
    """Any detector of pyod with scikit-learn's signs, a threshold and p-values.

    Parameters
    ----------
    model : a pyod model
        A clone of it is fitted; with `prefit=True`, or inside scikit-learn's `FrozenEstimator`, it is used without
        training.
    contamination : float in (0, 0.5], default=0.1
        Share of the rows given to `fit` that are called outliers; the model's own value has no effect.
    calibration_fraction : float in [0, 1), default=0.1
        Share of the rows given to `fit` that are held out from training; p-values are computed from their scores. See
        `BaseDetector`.
    prefit : bool, default=False
        True: `model` is already fitted and is used without training; see `BaseDetector`.
    cv : int or None, default=None
        Number of folds of a cross-conformal calibration, for small data; see `BaseDetector`.
    checkpoint : path or None, default=None
        Folder for the checkpoints of all trainings in `fit`. A killed `fit` resumes from them; see `BaseDetector`.
    random_state : int, RandomState instance or None, default=None
        Draws the calibration rows, and the model's seed if that is None.

    Attributes
    ----------
    density_ : the model as a scorer; `density_.model_` is the fitted model
    offset_ : float
        The `contamination` quantile of the scores of all rows given to `fit`.
    calibration_scores_ : (n_calibration,) array
        Scores of the calibration rows, sorted.
    n_features_in_ : int
    feature_names_in_ : (n_features_in_,) array of str
        Only if `fit` was given a data frame.

    Examples
    --------
    On pixels; for the latents of a flow, use ``make_pipeline(FrozenEstimator(flow), PyODDetector(KNN()))``.

    >>> from pyod.models.knn import KNN
    >>> from sklearn.datasets import load_digits
    >>> from flowdetect import PyODDetector
    >>> X = load_digits().data
    >>> PyODDetector(KNN(), random_state=0).fit(X[:500]).predict(16 - X[:1])
    array([-1])
    """

    def __init__(
        self,
        model: PyODBase,
        *,
        contamination: float = 0.1,
        calibration_fraction: float = 0.1,
        prefit: bool = False,
        cv: int | None = None,
        checkpoint: PathName | None = None,
        random_state: RandomState = None,
    ):
        self.model = model
        self.contamination = contamination
        self.calibration_fraction = calibration_fraction
        self.prefit = prefit
        self.cv = cv
        self.checkpoint = checkpoint
        self.random_state = random_state

    shared = ("model",)

    @property
    def density(self) -> Scorer:  # type: ignore[override]
        """The model as a scorer."""
        model = self.model.estimator if isinstance(self.model, FrozenEstimator) else self.model
        scores = PyODScores(model)
        if not self.is_frozen:
            return scores
        scores.model_ = model
        return FrozenEstimator(scores)

    @property
    def is_frozen(self) -> bool:
        """Whether the model is used without training."""
        return self.prefit or isinstance(self.model, FrozenEstimator)

    @staticmethod
    def _is_fitted(given: Any) -> bool:
        return hasattr(given.estimator if isinstance(given, FrozenEstimator) else given, "decision_scores_")

    def _check_parameters(self) -> None:
        model = self.model.estimator if isinstance(self.model, FrozenEstimator) else self.model
        if not isinstance(model, PyODBase):
            raise TypeError(f"PyODDetector needs a model of pyod, such as KNN(), got {model!r}.")
        super()._check_parameters()

    def _score(self, X: Any) -> NDArray[np.float64]:
        return self._log_likelihood(X)


def write_knowledge(folder: PathName) -> str:
    """Write pyod's knowledge files with our entry added, for `ADEngine(knowledge_dir=...)`.

    Parameters
    ----------
    folder : str or path
        Created if needed; files in it with the names of pyod's files are replaced.

    Returns
    -------
    folder : str

    Raises
    ------
    OSError
        If the folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from pyod.utils.ad_engine import ADEngine
    >>> from flowdetect.detectors.pyod import write_knowledge
    >>> ADEngine(knowledge_dir=write_knowledge(tempfile.mkdtemp())).explain_detector("FlowOD")["full_name"]
    'Nearest neighbours at two scales, or the likelihood of any density'
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for source in Path(pyod.utils.knowledge.__file__).parent.glob("*.json"):
        shutil.copy(source, target / source.name)
    known = json.loads((target / "algorithms.json").read_text(encoding="utf-8"))
    (target / "algorithms.json").write_text(json.dumps({**known, **KNOWLEDGE}, indent=1), encoding="utf-8")
    return str(target)
