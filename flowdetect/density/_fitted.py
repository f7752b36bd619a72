"""The methods of a fitted density: scores and their terms, samples, latents, derivatives, pickles and files.

They read `spec_` (what fit learned about the data) and `model_` (the torch module), never the present parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Bunch, check_array
from sklearn.utils.validation import check_is_fitted
from torch import Generator

from flowdetect import _persistence
from flowdetect._images import draw_seed
from flowdetect._limits import check_count
from flowdetect._protocols import PathName, RandomState
from flowdetect._sources import RowSource, chunks
from flowdetect.density import _derivatives, _inputs
from flowdetect.density._devices import in_torch_state, resolve_device
from flowdetect.density._parameters import DensityParameters
from flowdetect.density._reading import read_directions, read_labels, read_one, read_rows
from flowdetect.density._restoring import restored_model
from flowdetect.density._scoring import Scoring, chunk_length
from flowdetect.density.export import Exports
from flowdetect.density.model import DensityModel, HasLatents
from flowdetect.density.spec import DataSpec

DRAWN_AT_ONCE = 64  # samples


class FittedDensity(Exports, DensityParameters):
    """The methods of a density that need it fitted."""

    spec_: DataSpec
    model_: DensityModel
    device_: str
    noise_seed_: int
    _fitted_params: dict[str, Any]  # the parameters that the model was built with
    keeps_interrupted: ClassVar[bool] = True  # whether a fit interrupted by Ctrl-C keeps its best weights
    chunk_values: ClassVar[int] = 2**15  # scored at once; few enough that intermediate results stay in the caches

    def _build(self, spec: DataSpec) -> DensityModel:
        """Return the module for such data, not yet initialised; each paper implements this."""
        raise NotImplementedError

    # ---- scoring

    def _scoring(self) -> Scoring:
        spec = self.spec_
        return Scoring(
            model=self.model_,
            spec=spec,
            device=self.device_,
            noise_seed=self.noise_seed_,
            n_draws=self._fitted_params.get("n_draws", 1),
            length=chunk_length(spec.n_values, self.chunk_values),
            name=type(self).__name__,
        )

    @in_torch_state()
    def score_samples(
        self, X: ArrayLike, y: ArrayLike | None = None, *, dequantize: bool = True
    ) -> NDArray[np.float64]:
        """Log-probability of each row, in nats; higher is more likely.

        Parameters
        ----------
        X : (n, D) array, images or a dataset, as in `fit`
            For data in bins, values between the bins and up to one value range outside are scored as they are.
        y : (n,) class labels, optional
            For a conditional density: log p(x | y) if given; without labels log p(x), the sum over classes weighted by
            their training frequencies.
        dequantize : bool, default True
            True: the log of the mean probability over `n_draws` draws of noise keyed by seed and row. False: the score
            without noise, e.g. at the bins' centres.

        Returns
        -------
        log_prob : (n,) float64, nats; for data in bins, of the discrete data

        Raises
        ------
        ValueError
            If X has another width than in training, NaN, or values too far from the training data; if a label is new.

        Warns
        -----
        UserWarning
            If a column that was constant in training, and so is not modelled, has another value in a row.
        """
        source, labels = self._read(X, y)
        return self._finite(self._scoring().log_prob(source, labels, dequantize))

    def _read(self, X: Any, y: Any) -> tuple[RowSource, NDArray[np.int64] | None]:
        check_is_fitted(self)
        source, _ = read_rows(self, X, self.spec_.image_shape, reset=False)
        return source, read_labels(self.spec_, y, len(source), type(self).__name__)

    def _finite(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return _inputs.checked_answers(scores, "the log-probability", type(self).__name__)

    def score(self, X: ArrayLike, y: ArrayLike | None = None) -> float:
        """Mean log-probability of the rows, nats (a mean like GaussianMixture's; KernelDensity's is a sum)."""
        return float(self.score_samples(X, y).mean())

    def bits_per_dim(self, X: ArrayLike, y: ArrayLike | None = None) -> NDArray[np.float64]:
        """Negative log-probability of each row in bits per feature, (n,); lower is more likely."""
        return -self.score_samples(X, y) / (self.spec_.n_values * math.log(2))

    @in_torch_state()
    def likelihood_terms(self, X: ArrayLike, y: ArrayLike | None = None) -> Bunch:
        """Split each row's score into the model's terms, nats; plus log_class if the score is a sum over classes."""
        return self._terms(X, y)

    def _terms(self, X: Any, y: Any) -> Bunch:
        source, labels = self._read(X, y)
        terms = self._scoring().terms(source, labels)
        for name, values in terms.items():
            _inputs.checked_answers(values, name, type(self).__name__)
        return Bunch(**terms)

    # ---- latents, for models that encode and decode

    @property
    def _n_features_out(self) -> int:
        """Number of columns of `transform`."""
        return self.spec_.n_values

    def _encode(self, X: Any, y: Any) -> NDArray[np.float64]:
        latents = self._scoring().encode(*self._read(X, y), self._double().encode)
        return _inputs.checked_answers(latents, "a latent", type(self).__name__)

    def _double(self) -> HasLatents:
        """Return a float64 copy of the model, which computes the latents."""
        return cast(HasLatents, _derivatives.double(self.model_))

    def _decode(self, Z: Any, y: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        name, width = type(self).__name__, self._n_features_out
        latents = check_array(Z, dtype=np.float64, input_name="Z")
        if latents.shape[1] != width:
            raise ValueError(f"Z must have {width} columns, as transform returns, got {latents.shape[1]}.")
        if self.spec_.is_conditional and y is None:
            raise ValueError(f"{name}(conditional=True): inverse_transform needs y, the rows' class labels.")
        labels = read_labels(self.spec_, y, len(latents), name)
        return self.spec_.with_constants(self._scoring().decode(latents, labels, self._double().decode))

    # ---- sampling

    @in_torch_state()
    def sample(
        self,
        n_samples: int = 1,
        *,
        y: ArrayLike | None = None,
        temperature: float | Sequence[float] = 1.0,
        random_state: RandomState = None,
    ) -> NDArray[Any]:
        """Draw new rows, in the layout and dtype of the training data.

        Parameters
        ----------
        n_samples : int, default 1
        y : (n_samples,) class labels, optional
            For a conditional density; without y, labels are drawn with their training frequencies.
        temperature : float, default 1.0
            Factor on the standard deviation of the noise. Below 1, samples are more likely and more alike. The samples
            of a constant-volume flow have a density proportional to p(x)^(1 / temperature^2). For a flow, also a
            sequence of factors, one per level, level 1 first.
        random_state : int, RandomState or None

        Returns
        -------
        X : as in training: (n, D), (n, H, W), (n, H, W, C), or a torch tensor (n, C, H, W)
        """
        check_is_fitted(self)
        n = check_count("n_samples", n_samples)
        factor = self._noise_factor(temperature)
        seed = draw_seed(random_state)
        labels, generator = self._drawn_labels(y, n, seed), Generator().manual_seed(seed)
        self.model_.shows_progress = bool(self.verbose)
        parts = []
        for start in range(0, n, DRAWN_AT_ONCE):
            part = slice(start, min(start + DRAWN_AT_ONCE, n))
            context = self.spec_.to_context(None if labels is None else labels[part], self.device_)
            parts.append(self.spec_.to_rows(self.model_.sample(part.stop - start, context, factor, generator)))
        drawn = _inputs.checked_samples(np.concatenate(parts), temperature, type(self).__name__)
        return cast(NDArray[Any], self.spec_.restore(drawn))

    def _noise_factor(self, temperature: Any) -> Any:
        """Check a temperature and return it in the model's form."""
        _inputs.check_temperature(temperature)
        return temperature

    def _drawn_labels(self, y: Any, n_rows: int, seed: int) -> NDArray[np.int64] | None:
        """Class indices to sample from: those of y, else drawn with the training frequencies."""
        if self.spec_.class_log_prior is None and y is not None:
            raise ValueError(
                f"{type(self).__name__} was fitted with conditional=False, so sample takes no y; fit it with "
                "conditional=True and labels to draw samples of a class."
            )
        if self.spec_.class_log_prior is None or y is not None:
            return read_labels(self.spec_, y, n_rows, type(self).__name__)
        prior = np.exp(self.spec_.class_log_prior)
        return np.random.default_rng(seed).choice(len(prior), n_rows, p=prior / prior.sum())

    # ---- derivatives

    @in_torch_state(gradients=True)
    def layer_gradient_norms(self, X: ArrayLike, y: ArrayLike | None = None) -> NDArray[np.float64]:
        """Norm of the gradient of log p(x) in each layer's parameters: (n, n_layers); see `layer_names_`."""
        source, labels = self._read(X, y)
        parts = []
        for start, rows in chunks(source):
            own = None if labels is None else labels[start : start + len(rows)]
            parts.append(_derivatives.layer_gradient_norms(self._scoring(), rows.astype(np.float64), own))
        return _inputs.checked_answers(np.concatenate(parts), "a layer's gradient norm", type(self).__name__)

    @property
    def layer_names_(self) -> list[str]:
        """Names of the layers of `layer_gradient_norms`: the modules that hold parameters, in order."""
        check_is_fitted(self)
        return _derivatives.layer_names(self.model_)

    @in_torch_state(gradients=True)
    def curvature(self, x0: ArrayLike, y: ArrayLike | None = None) -> NDArray[np.float64]:
        """Diagonal of the Hessian of log p at one row x0 (bins: their centres): (D,), nats per squared unit of x."""
        check_is_fitted(self)
        row, labels = read_one(self, self.spec_, x0), read_labels(self.spec_, y, 1, type(self).__name__)
        diagonal = np.zeros(self.n_features_in_)  # constant columns are not modelled
        diagonal[self.spec_.modelled] = _derivatives.curvature(self._scoring(), row, labels)
        return diagonal

    @in_torch_state(gradients=True)
    def directional_derivatives(
        self, x0: ArrayLike, directions: ArrayLike, y: ArrayLike | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """First and second directional derivatives of log p at x0, along each row of `directions`.

        Parameters
        ----------
        x0 : one row, (D,) or (1, D), or one image
        directions : (n, D) array, in units of x
        y : one class label, for a conditional density; without it, derivatives of the sum over classes

        Returns
        -------
        first, second : (n,) arrays, nats; derivatives of log p(x0 + t direction) with respect to t at t = 0
        """
        check_is_fitted(self)
        row, labels = read_one(self, self.spec_, x0), read_labels(self.spec_, y, 1, type(self).__name__)
        along = read_directions(self.spec_, directions)
        return _derivatives.directional_derivatives(self._scoring(), row, along, labels)

    # ---- what was learned about the data

    def _learned(self, name: str) -> NDArray[Any]:
        if name not in self.spec_.learned:
            raise AttributeError(f"{type(self).__name__} learned no {name} from these data.")
        return self.spec_.learned[name]

    @property
    def image_shape_(self) -> tuple[int, int, int] | None:
        """(H, W, C) of the images given to `fit`; None for tables."""
        return self.spec_.image_shape

    @property
    def n_bins_(self) -> int | None:
        """Number of integer values of a feature; None: real values."""
        return self.spec_.n_bins

    @property
    def constant_features_(self) -> NDArray[np.intp]:
        """Indices of a table's columns that are constant and not modelled."""
        return self.spec_.constant_features

    @property
    def constant_values_(self) -> NDArray[np.float64]:
        """Values of the columns of `constant_features_`."""
        return self.spec_.constant_values

    @property
    def classes_(self) -> NDArray[Any]:
        """Sorted class labels of a conditional density: (K,)."""
        if self.spec_.classes is None:
            raise AttributeError(f"{type(self).__name__} was fitted with conditional=False and has no classes_.")
        return self.spec_.classes

    @property
    def class_log_prior_(self) -> NDArray[np.float64]:
        """Log of the classes' frequencies in the data given to `fit`: (K,)."""
        if self.spec_.class_log_prior is None:
            raise AttributeError(f"{type(self).__name__} was fitted with conditional=False and has no classes_.")
        return self.spec_.class_log_prior

    @property
    def score_is_bound_(self) -> bool:
        """Whether scores are lower bounds of the log-probability rather than exact."""
        check_is_fitted(self)
        return self.model_.is_bound

    # ---- scikit-learn, pickling and saving

    def __sklearn_is_fitted__(self) -> bool:
        return "model_" in self.__dict__

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.estimator_type = "density_estimator"
        tags.target_tags.required = self.conditional
        tags.input_tags.three_d_array = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Parameters, fitted attributes, and weights as arrays; pickles and files hold no torch objects."""
        state = dict(super().__getstate__())
        if "model_" in state:
            weights = state.pop("model_").state_dict()
            state["weights_"] = {name: value.cpu().numpy().copy() for name, value in weights.items()}
            state["spec_"] = self.spec_.to_dict()
        return state

    @in_torch_state()
    def __setstate__(self, state: dict[str, Any]) -> None:
        restored = self._restored(state)
        if restored is not None:
            state, spec, model = restored
        super().__setstate__({name: value for name, value in state.items() if name != "weights_"})
        if restored is not None:
            try:
                self.device_ = resolve_device(self.device)
            except ValueError:  # fitted on a device that this machine lacks
                self.device_ = resolve_device("auto")
            self.spec_, self.model_ = spec, model.to(self.device_).eval()

    @classmethod
    def _restored(cls, state: dict[str, Any]) -> tuple[dict[str, Any], DataSpec, DensityModel] | None:
        """Return the state in the current format, its spec and its model; None if it is not fitted."""
        if "weights_" not in state:
            return None
        if "spec_" not in state:
            from flowdetect.density._format1 import upgraded

            state = upgraded(state, cls._model_param_names())
        spec = DataSpec.from_dict(state["spec_"])
        fitted = cls(**{**cls._former, **state["_fitted_params"]})
        fitted._validate_params()
        state = {**state, "_fitted_params": fitted._model_params()}
        return state, spec, restored_model(fitted._build, spec, state["weights_"])

    @in_torch_state()
    def _check_state(self, state: dict[str, Any]) -> None:
        """Refuse a state from a file that describes no valid density; its arrays may be placeholders."""
        names = [name for name in self._get_param_names() if name in state]
        type(self)(**{name: state[name] for name in names})._validate_params()
        restored = self._restored(state)
        if restored is None:
            return
        state, spec, _ = restored
        n_features, history = state["n_features_in_"], state["history_"]
        if n_features != spec.n_features:
            raise ValueError(f"n_features_in_ is {n_features!r}, but the data had {spec.n_features} columns")
        if not all(isinstance(value, int | float) for column in history.values() for value in column):
            raise ValueError("history_ holds values that are not numbers")
        if not all(isinstance(state[name], int) for name in ("seed_", "noise_seed_", "n_iter_")):
            raise ValueError("a seed or the number of epochs is not a whole number")

    def _example(self) -> NDArray[np.float64] | None:
        """Return a row for a loaded density to score, (1, n_features); None if it is not fitted."""
        return self.spec_.random_rows(1) if self.__sklearn_is_fitted__() else None

    @classmethod
    def _model_param_names(cls) -> set[str]:
        """Names of the parameters that define the model: all except those that every density has."""
        shared = {entry.name for entry in fields(DensityParameters)}
        return {entry.name for entry in fields(cls) if entry.init} - shared

    def _model_params(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in sorted(self._model_param_names())}

    def save(self, path: PathName) -> None:
        """Write the estimator to a file that `flowdetect.load` reads: safetensors with a JSON header, atomically.

        Parameters
        ----------
        path : str or path

        Raises
        ------
        OSError
            If the file cannot be written; an existing file is then left unchanged.
        """
        _persistence.save(self, path)
