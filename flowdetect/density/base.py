"""The contract of a density: a torch module with log_prob and sample, behind a scikit-learn estimator.

The estimator sees arrays, nats and bits; the module sees tensors (n, C, H, W). A new paper writes its module, its
parameters and `_build`; everything else is here.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from flowdetect import _persistence
from flowdetect._images import draw_seed, to_rows
from flowdetect.density._devices import resolve_device
from flowdetect.density._inputs import check_temperature
from flowdetect.density._rows import RowsDoor
from flowdetect.density.model import DensityModel

DRAWN_AT_ONCE = 64  # samples


@dataclass(kw_only=True, eq=False, repr=False)
class BaseDensity(RowsDoor):
    """What all densities share: the parameters of data and training, fitting, scoring, sampling, saving.

    Parameters
    ----------
    image_shape : (H, W) or (H, W, C), default None
        None: rows are vectors, unless X has images' axes: numpy (n, H, W) or (n, H, W, C), torch (n, C, H, W). A 2-D X
        is never guessed to be square.
    n_bins : "auto", int or None, default "auto"
        How many integer values a feature takes; None: real-valued data, a true density. "auto": 256 for images of whole
        numbers 0..255, else None.
    conditional : bool, default False
        True: y holds class labels, and the density is of x given y. False: y is ignored.
    max_epochs : "auto" or int, default "auto"
        Passes over the training rows; "auto": as many as make about 4,000 steps, 500 at most.
    batch_size : int, default 64
        Rows per step.
    learning_rate : float, default 1e-3
        The highest learning rate of Adam's schedule: linear warm-up, then a cosine down to 0 at max_epochs.
    weight_decay : float, default 0.0
        Decoupled weight decay (AdamW).
    early_stopping : bool, default True
        Hold rows out, stop when their bits/dim has not improved by `tol` for `n_iter_no_change` epochs, and keep the
        best weights. Fewer than 20 rows are all trained on.
    validation_fraction : float in (0, 1), default 0.05
        Share of the rows held out for early stopping.
    n_iter_no_change : int, default 10
        Epochs without improvement that end training.
    tol : float, default 1e-4
        The least improvement that counts, in bits/dim.
    warm_start : bool, default False
        True: `fit` goes on from the present weights.
    verbose : int, default 0
        0 is silent; 1 shows a bar with bits/dim and the time left.
    random_state : int, RandomState or None, default None
        Initial weights, order of the rows, noise of training and of scoring.
    device : str, default "auto"
        "auto": CUDA, then MPS, then CPU; or a torch device's name. Resolved into `device_`.
    precision : "auto", "float32" or "bfloat16", default "auto"
        In which type the networks inside a model run while training; "auto": bfloat16 where the device computes it
        natively. Scores are always computed in float32 and inverses in float64.
    n_devices : int, default 1
        Devices to train on; more than one: distributed data parallel.
    checkpoint : path or None, default None
        A file written after every epoch and every minute. Fitting again with the same class, parameters, data and
        versions goes on from there; a finished training is restored. Only max_epochs, verbose and device may differ.
    """

    image_shape: tuple[int, ...] | None = None
    n_bins: int | str | None = "auto"
    conditional: bool = False
    max_epochs: int | str = "auto"
    batch_size: int | str = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    early_stopping: bool = True
    validation_fraction: float = 0.05
    n_iter_no_change: int = 10
    tol: float = 1e-4
    warm_start: bool = False
    verbose: int = 0
    random_state: Any = None
    device: str = "auto"
    precision: str = "auto"
    n_devices: int = 1
    checkpoint: Any = None

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "conditional": ["boolean"],
        "max_epochs": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
        "device": [str],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "n_devices": [Interval(Integral, 1, None, closed="left")],
    }

    # ---- to be written by a paper

    def _build(self, event_shape: tuple[int, int, int]) -> DensityModel:
        """Return the module for data of the given (C, H, W), parameters not yet drawn.

        `n_bins_`, `n_classes` and the training data's `loc_` and `scale_` (C, H, W) are known by then.
        """
        raise NotImplementedError

    def _prepare(
        self, rows: NDArray[Any], codes: NDArray[np.int64] | None, found: dict[str, NDArray[Any]] | None
    ) -> None:
        """Decide, before training, what `_build` needs to know; found: the arrays of a training that goes on."""

    def _epochs(self, total: int) -> int:
        """Of all epochs, give those that are left to the training itself."""
        return total

    def _rows_a_step(self) -> int:
        """Give the batch size as a number."""
        return int(self.batch_size)

    # ---- fitting

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Fit the density to the rows of X.

        Parameters
        ----------
        X : (n, D) array or frame; numpy (n, H, W) or (n, H, W, C); torch (n, C, H, W)
        y : (n,) class labels if conditional, else ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If parameters or data break a rule, before any training starts.
        KeyboardInterrupt
            After Ctrl-C; the estimator is then fitted with the best weights so far.
        FloatingPointError
            If the loss stays non-finite; the estimator is then fitted with the best weights so far.
        """
        from flowdetect.density._training import fit_model

        self._validate_params()
        before = dict(self.__dict__)
        try:
            rows, codes = self._read_training_data(X, y)
            fit_model(self, rows, codes)
        except BaseException:
            if self.__dict__.get("model_") is before.get("model_"):  # nothing was trained: all stays as it was
                self.__dict__ = before
            raise
        return self

    # ---- scoring

    def score_samples(
        self, X: ArrayLike, y: ArrayLike | None = None, *, dequantize: bool = True
    ) -> NDArray[np.float64]:
        """Log-probability of each row, in nats; higher is more likely.

        Parameters
        ----------
        X : (n, D) array, or images as in `fit`
            In bins, values off the grid and up to one value range outside are scored as they are.
        y : (n,) class labels, optional
            Of a conditional density: log p(x | y). Without: log p(x), the sum over classes with training frequencies.
        dequantize : bool, default True
            True: the mean over `n_draws` of log p(x + u), u in [0, 1) keyed by seed and row. False: u = 0.5.

        Returns
        -------
        log_prob : (n,) float64, nats; of the discrete data if they are in bins

        Raises
        ------
        ValueError
            If X has another width than in training, NaN, or values beyond reach; if a label was not seen in training.
        """
        rows = self._read_rows(X)
        codes = self._read_labels(y, len(rows))
        draws = [self._log_prob(rows, codes, noise) for noise in self._noises(rows, dequantize)]
        return self._finite(np.mean(draws, axis=0))

    def _log_prob(
        self, rows: NDArray[Any], codes: NDArray[Any] | None, noise: NDArray[Any] | None
    ) -> NDArray[np.float64]:
        if self.conditional and codes is None:
            joint = self._log_prob_by_class(rows, noise) + self.class_log_prior_
            return np.logaddexp.reduce(joint, axis=1)

        def one_chunk(x: Any, u: Any, k: Any) -> list[Tensor]:
            return [self.model_.log_prob(self._to_tensor(x), self._to_context(k), self._to_noise(u))]

        return self._in_chunks(one_chunk, rows, noise, codes)[0]

    def _log_prob_by_class(self, rows: NDArray[Any], noise: NDArray[Any] | None) -> NDArray[np.float64]:
        def one_chunk(x: Any, u: Any) -> list[Tensor]:
            return [self.model_.log_prob_by_class(self._to_tensor(x), self._to_noise(u))]

        return self._in_chunks(one_chunk, rows, noise)[0]

    def _likeliest_codes(
        self, rows: NDArray[Any], y: Any, noises: list[NDArray[Any] | None]
    ) -> NDArray[np.int64] | None:
        """Class indices of a conditional density: those of y, else the likeliest of each row."""
        if not self.conditional or y is not None:
            return self._read_labels(y, len(rows))
        joint = np.mean([self._log_prob_by_class(rows, noise) for noise in noises], axis=0) + self.class_log_prior_
        return joint.argmax(1)

    def _drawn_codes(self, y: Any, n_rows: int, seed: int) -> NDArray[np.int64] | None:
        """Class indices to draw from: those of y, else drawn with their training frequencies."""
        if not self.conditional or y is not None:
            return self._read_labels(y, n_rows)
        prior = np.exp(self.class_log_prior_)
        return np.random.default_rng(seed).choice(len(prior), n_rows, p=prior / prior.sum())

    def _finite(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        if not np.isfinite(scores).all():
            row = int(np.flatnonzero(~np.isfinite(scores))[0])
            raise ValueError(
                f"{type(self).__name__}: the log-probability of row {row} is not finite, so it is no score; the row "
                f"lies too far from the training data, or the weights are broken (see history_)."
            )
        return scores

    def score(self, X: ArrayLike, y: ArrayLike | None = None) -> float:
        """Mean log-probability of the rows, nats (a mean as GaussianMixture's; KernelDensity's is a sum)."""
        return float(self.score_samples(X, y).mean())

    def bits_per_dim(self, X: ArrayLike, y: ArrayLike | None = None) -> NDArray[np.float64]:
        """Negative log-probability of each row in bits per feature, (n,); lower is more likely."""
        return -self.score_samples(X, y) / (math.prod(self._event_shape()) * math.log(2))

    # ---- sampling

    def sample(
        self,
        n_samples: int = 1,
        *,
        y: ArrayLike | None = None,
        temperature: float = 1.0,
        random_state: Any = None,
    ) -> NDArray[Any]:
        """Draw new rows, in the layout and dtype of the training data.

        Parameters
        ----------
        n_samples : int, default 1
        y : (n_samples,) class labels, optional
            Of a conditional density; without, labels are drawn with their training frequencies.
        temperature : float, default 1.0
            Factor of the standard deviation of the noise that samples are made from.
        random_state : int, RandomState or None

        Returns
        -------
        X : as in training: (n, D), (n, H, W), (n, H, W, C), or a torch tensor (n, C, H, W)
        """
        check_is_fitted(self)
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"n_samples must be a whole number >= 1, got {n_samples!r}.")
        check_temperature(temperature)
        seed = draw_seed(random_state)
        codes = self._drawn_codes(y, int(n_samples), seed)
        generator = torch.Generator().manual_seed(seed)
        parts = []
        with torch.no_grad():
            for start in range(0, int(n_samples), DRAWN_AT_ONCE):
                n = min(DRAWN_AT_ONCE, int(n_samples) - start)
                context = self._to_context(None if codes is None else codes[start : start + n])
                parts.append(self._to_rows(self.model_.sample(n, context, temperature, generator)))
        return self._restore(np.concatenate(parts))

    # ---- derivatives

    def layer_gradient_norms(self, X: ArrayLike, y: ArrayLike | None = None) -> NDArray[np.float64]:
        """Norm of the gradient of log p(x) by each layer's parameters: (n, n_layers); names in `layer_names_`."""
        from flowdetect.density._gradients import layer_gradient_norms

        rows = self._read_rows(X)
        return layer_gradient_norms(self, rows, self._read_labels(y, len(rows)))

    @property
    def layer_names_(self) -> list[str]:
        """Names of the layers of `layer_gradient_norms`: the modules that hold parameters, in order."""
        check_is_fitted(self)
        return list(dict.fromkeys(name.rpartition(".")[0] for name, _ in self.model_.named_parameters()))

    def curvature(self, x0: ArrayLike, y: ArrayLike | None = None) -> NDArray[np.float64]:
        """Diagonal of the Hessian of log p at one row x0: (D,), nats per squared unit of x; at the bins' centres."""
        from flowdetect.density._gradients import curvature

        row = self._read_one(x0)
        diagonal = np.zeros(self.n_features_in_)  # constant columns are not modelled
        diagonal[self._modelled()] = curvature(self, row, self._read_labels(y, 1))
        return diagonal

    def directional_derivatives(
        self, x0: ArrayLike, ways: ArrayLike, y: ArrayLike | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """First and second derivative of log p(x0 + t way) by t at 0, of ways (n, D): two (n,) arrays, nats."""
        from flowdetect.density._gradients import directional_derivatives

        row, rows = self._read_one(x0), np.asarray(to_rows(ways, self.image_shape_)[0], dtype=np.float64)
        return directional_derivatives(self, row[0], rows[:, self._modelled()], self._read_labels(y, 1))

    def _read_one(self, x0: ArrayLike) -> NDArray[Any]:
        one = np.ndim(x0) == 1 or (self.image_shape_ or ())[: np.ndim(x0)] == np.shape(x0)
        rows: NDArray[Any] = self._read_rows(np.asarray(x0)[None] if one else x0)
        if len(rows) != 1:
            raise ValueError(f"derivatives are taken at one row, got {len(rows)}; call it once a row.")
        return rows

    def _modelled(self) -> NDArray[np.int_]:
        return np.delete(np.arange(self.n_features_in_), self.constant_features_)

    # ---- scikit-learn, pickling and saving

    @property
    def score_is_bound_(self) -> bool:
        """Whether scores are lower bounds of the log-probability rather than exact."""
        check_is_fitted(self)
        return False

    def __sklearn_is_fitted__(self) -> bool:
        return "model_" in self.__dict__

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.estimator_type = "density_estimator"
        tags.target_tags.required = self.conditional
        tags.input_tags.three_d_array = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Parameters, fitted attributes and weights as arrays: no torch object goes into a pickle or a file."""
        state = dict(super().__getstate__())
        model = state.pop("model_", None)
        if model is not None:
            state["weights_"] = {name: value.cpu().numpy().copy() for name, value in model.state_dict().items()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        weights = state.get("weights_")
        super().__setstate__({name: value for name, value in state.items() if name != "weights_"})
        if weights is not None:
            try:
                self.device_ = resolve_device(self.device)
            except ValueError:  # it was fitted where there is such a device
                self.device_ = resolve_device("auto")
            self._set_model({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})

    def _set_model(self, weights: dict[str, Tensor]) -> None:
        model = self._build(self._event_shape())
        model.load_state_dict(weights)
        self.model_ = model.to(self.device_).eval()

    def _double_model(self) -> DensityModel:
        """Copy the module in float64, for latents, inverses and derivatives."""
        return copy.deepcopy(self.model_).double()

    def save(self, path: Any) -> None:
        """Write the estimator to a file that `flowdetect.load` reads: safetensors with a JSON header, atomically.

        Parameters
        ----------
        path : str or path

        Raises
        ------
        OSError
            If the file cannot be written; an older file of that name is then left as it was.
        """
        _persistence.save(self, path)
