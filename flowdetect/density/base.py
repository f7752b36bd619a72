"""BaseDensity: the estimator that joins what the data are (spec), what the model is (module) and how it is trained.

The estimator handles arrays, nats and bits; the module handles tensors (n, C, H, W). A new paper adds its module, its
parameters and `_build(spec)`; everything else is here or in the modules that this one imports.
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Generator

from flowdetect._callbacks import begun, ended, with_callbacks
from flowdetect._fitting import all_or_nothing
from flowdetect._images import check_image_shape, check_n_bins, draw_seed
from flowdetect._resuming import check_can_write, is_folder, path_of_training
from flowdetect._sources import RowSource
from flowdetect._warning import warn
from flowdetect.density import _inputs
from flowdetect.density._checkpoint import Checkpoint, fingerprint
from flowdetect.density._devices import import_for_training, in_torch_state, resolve_device
from flowdetect.density._events import FitEvents
from flowdetect.density._fitted import FittedDensity
from flowdetect.density._launched import check_n_devices, joined, resolve_n_devices, writes_checkpoints
from flowdetect.density._memory import check_size
from flowdetect.density._processes import check_same, in_first
from flowdetect.density._reading import TrainingRows, read_rows, split_rows
from flowdetect.density._scoring import chunk_length
from flowdetect.density._training import train
from flowdetect.density.settings import TrainingResult, TrainingSettings
from flowdetect.density.spec import DataSpec, TensorSource, learn_spec
from flowdetect.density.streams import INITIAL, SCORING, stream

AUTO_STEPS, AUTO_MAX_EPOCHS = 4000, 500
AUTO_BATCH, AUTO_TABLE_BATCH = 64, 256
BETWEEN_TRIES = 0.5  # seconds
QUIET_SECONDS = 5.0  # of waiting for another process before a warning


@dataclass(kw_only=True, eq=False, repr=False)
class BaseDensity(FittedDensity):
    """What all densities share: parameters, `fit`, and the methods of a fitted density (`FittedDensity`).

    A paper implements `_build` and, if it needs them, `_learn` and `_train`.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from flowdetect.density import BaseDensity
    >>> from flowdetect.density.model import DensityModel
    >>> class NormalModel(DensityModel):  # log N(x; mu, 1)
    ...     summands = ("log_px",)
    ...
    ...     def __init__(self, event_shape):
    ...         super().__init__(event_shape)
    ...         self.mu = torch.nn.Parameter(torch.zeros(event_shape))
    ...
    ...     def terms(self, x, context=None, noise=None):
    ...         return {"log_px": -0.5 * ((x - self.mu).square() + np.log(2 * np.pi)).flatten(1).sum(1)}
    ...
    ...     def log_prob(self, x, context=None, noise=None):
    ...         return self.terms(x)["log_px"]
    ...
    ...     def sample(self, n, context=None, temperature=1.0, generator=None):
    ...         return self.mu + temperature * torch.randn(n, *self.event_shape, generator=generator)
    >>> class NormalDensity(BaseDensity):
    ...     def _build(self, spec):
    ...         return NormalModel(spec.event_shape)
    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> NormalDensity(max_epochs=1, random_state=0).fit(X).score_samples(X[:3]).shape
    (3,)
    """

    seed_: int = field(init=False)
    history_: dict[str, list[float]] = field(init=False)
    n_iter_: int = field(init=False)
    _may_change: ClassVar[frozenset[str]] = frozenset({"n_draws"})  # model parameters that a warm start may change

    # ---- hooks for a paper

    def _learn(self, spec: DataSpec, source: RowSource) -> dict[str, NDArray[Any]]:
        """Learn the arrays that `_build` needs from the training rows; they become `spec.learned`."""
        return {}

    def _train(self, spec: DataSpec, data: TrainingRows, max_epochs: int) -> tuple[DataSpec, TrainingResult]:
        """Build the model and train it; a paper that trains in stages overrides this and calls `train` for each."""
        return spec, self._train_once(spec, data, max_epochs)

    @property
    def _stages(self) -> tuple[str, ...]:
        """Suffixes of the checkpoint files, one for each stage of training."""
        return ("",)

    # ---- fitting

    @with_callbacks
    @in_torch_state(gradients=True)
    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Fit the density to the rows of X.

        Parameters
        ----------
        X : (n, D) array or frame; numpy (n, H, W) or (n, H, W, C); torch (n, C, H, W); or a source of rows
            Sources are the results of `load_folder` and `load_parquet`, memory maps, arrays in HDF5 and Zarr files,
            map-style datasets and DataLoaders of these. They are read a few rows at a time.
        y : (n,) class labels; ignored unless conditional=True
            None: the labels of the source, if it has them.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If parameters or data break a rule, before any training starts.
        KeyboardInterrupt
            After Ctrl-C. During training, it is raised at the end of the step, and the estimator is fitted with the
            best weights so far. Before training, or at a second Ctrl-C, it is raised at once, and the estimator is
            unchanged.
        FloatingPointError
            If the loss stays non-finite or leaps again and again; the estimator is then fitted with the best weights so
            far.

        After any other exception the estimator is unchanged.
        """
        self._check_before_fit()
        import_for_training()
        context = begun(self, X, y, len(self._stages))
        events = None if context is None else FitEvents(self, context, X, y)
        with joined(self.n_devices, resolve_device(self.device)), ExitStack() as opened:
            failure = self._fit(X, y, opened, events)
        ended(self, context, X, y, lambda: {name: getattr(self, name) for name in vars(self) if name[-1] == "_"})
        if failure is not None:
            raise failure
        return self

    def _check_before_fit(self) -> None:
        """Refuse parameters that suit no data; an enclosing estimator calls this before it trains another density."""
        self._validate_params()
        check_n_bins(self.n_bins)
        check_image_shape(self.image_shape)
        _inputs.check_time_limit(self.time_limit)
        check_n_devices(self.n_devices, resolve_device(self.device))
        if self.checkpoint is not None and writes_checkpoints(self.n_devices):
            check_can_write(self.checkpoint)

    @all_or_nothing
    def _fit(
        self, X: ArrayLike, y: ArrayLike | None, opened: ExitStack, events: FitEvents | None
    ) -> BaseException | None:
        name, started = type(self).__name__, time.monotonic()
        source, layout = read_rows(self, X, self.image_shape, reset=True)
        if y is None and self.conditional:
            y = getattr(source, "y", None)
        classes, labels = _inputs.encode_labels(y, len(source), name) if self.conditional else (None, None)
        continues = self.warm_start and self.__sklearn_is_fitted__()
        device = resolve_device(self.device)
        check_same(lambda: {**self._fingerprint(source, labels, classes), "max_epochs": self.max_epochs})
        checkpoints = in_first(lambda: self._open_checkpoints(source, labels, classes, opened))
        found = [checkpoint.found for checkpoint in checkpoints.values() if checkpoint.found]
        drawn = in_first(lambda: draw_seed(self.random_state))
        seed = found[0]["seed"] if found else self.seed_ if continues else drawn
        fraction = self.validation_fraction if self.early_stopping else 0.0
        data = split_rows(source, labels, fraction, seed, device, checkpoints, continues)
        data = replace(data, started=started, events=events)
        spec = learn_spec(source, data.training, layout, self.n_features_in_, self.n_bins, name)
        if classes is not None and labels is not None:
            prior = np.log(np.bincount(labels) / len(labels))
            spec = replace(spec, classes=classes, class_log_prior=prior)
        if continues:
            self._check_warm_start(spec)
            spec = self.spec_
        else:
            spec = replace(spec, learned=self._learn(spec, data.training))
        spec, result = self._train(spec, data, self._epochs(spec, len(data.training)))
        self.spec_, self.model_, self.device_ = spec, result.model, device
        self.seed_, self.noise_seed_ = seed, stream(seed, SCORING)
        self.history_, self.n_iter_ = result.history, result.n_epochs
        self._fitted_params = self._model_params()
        return result.failure

    def _train_once(
        self, spec: DataSpec, data: TrainingRows, max_epochs: int, stage: str = "", time_share: float = 1.0
    ) -> TrainingResult:
        """Build a model, initialise it at random or with the present weights, and train it."""
        check_size(lambda: self._build(spec), type(self).__name__)
        model = self._build(spec).to(torch.float32)
        if data.continues:
            model.load_state_dict(self.model_.state_dict())
        else:
            model.reset_parameters(Generator().manual_seed(stream(data.seed, INITIAL)))
        epochs = max_epochs if self.time_limit is None else None
        settings = TrainingSettings(
            name=type(self).__name__,
            seed=data.seed,
            max_epochs=max_epochs,
            batch_size=self._batch_size(spec),
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            n_iter_no_change=self.n_iter_no_change,
            tol=self.tol,
            device=data.device,
            precision=self.precision,
            n_devices=resolve_n_devices(self.n_devices, data.device),
            verbose=int(self.verbose),
            chunk_length=chunk_length(spec.n_values, self.chunk_values),
            start_counts=spec.is_table,  # on a table, the start may be the best state
            initialize=not data.continues,
            progress_name=self.progress_prefix + type(self).__name__ + stage.replace(".", " "),
            time_limit=None if self.time_limit is None else time_share * float(self.time_limit),
            started=data.started,
            events=data.events and data.events.of_training(self._known(spec, data), stage, epochs),
        )
        training = TensorSource(data.training, spec, data.labels, data.device)
        held_out = None
        if data.held_out is not None:
            held_out = TensorSource(data.held_out, spec, data.held_out_labels, data.device)
        return train(model, training, held_out, settings, data.checkpoints.get(stage))

    def _known(self, spec: DataSpec, data: TrainingRows) -> dict[str, Any]:
        """Return the fitted attributes that are known before training."""
        names = [name for name in ("n_features_in_", "feature_names_in_") if hasattr(self, name)]
        told = {name: getattr(self, name) for name in names}
        seeds = {"seed_": data.seed, "noise_seed_": stream(data.seed, SCORING)}
        return {**told, **seeds, "spec_": spec, "device_": data.device, "_fitted_params": self._model_params()}

    def _batch_size(self, spec: DataSpec) -> int:
        if isinstance(self.batch_size, str):
            return AUTO_TABLE_BATCH if spec.is_table else AUTO_BATCH
        return int(self.batch_size)

    def _epochs(self, spec: DataSpec, n_rows: int) -> int:
        if not isinstance(self.max_epochs, str):
            return int(self.max_epochs)
        batch_size = min(self._batch_size(spec), n_rows)
        return min(AUTO_MAX_EPOCHS, math.ceil(AUTO_STEPS / (n_rows // batch_size)))

    def _open_checkpoints(
        self, source: RowSource, labels: NDArray[np.int64] | None, classes: NDArray[Any] | None, opened: ExitStack
    ) -> dict[str, Checkpoint]:
        """Open a checkpoint for each stage of training; `opened` closes them, so that other processes can use them."""
        if self.checkpoint is None:
            return {}
        mark = self._fingerprint(source, labels, classes)
        # in a folder, trainings with different max_epochs or generators (in a search) have a file each
        marks, found = (mark, self.max_epochs, self.random_state), {}
        for stage in self._stages:
            path = path_of_training(self.checkpoint, type(self).__name__, stage, *marks)
            found[stage] = _open_checkpoint(path, {**mark, "stage": stage}, waits=is_folder(self.checkpoint))
            opened.callback(found[stage].close)
        return found

    def _fingerprint(
        self, source: RowSource, labels: NDArray[np.int64] | None, classes: NDArray[Any] | None
    ) -> dict[str, Any]:
        n_devices = resolve_n_devices(self.n_devices, resolve_device(self.device))
        parameters = {**self.get_params(deep=False), "n_devices": n_devices}
        return fingerprint(type(self).__name__, parameters, source, labels, classes)

    def _check_warm_start(self, spec: DataSpec) -> None:
        """Refuse to continue from weights of other data or of another model."""
        difference = self.spec_.difference(spec)
        for key, value in self._model_params().items():
            if not difference and key not in self._may_change and value != self._fitted_params[key]:
                difference = f"{key} was {self._fitted_params[key]!r}, is {value!r}"
        if difference:
            raise ValueError(
                f"{type(self).__name__}: warm_start continues from the present weights, which do not fit: "
                f"{difference}. Set warm_start=False, or fit a clone."
            )


def _open_checkpoint(path: str, mark: dict[str, Any], *, waits: bool) -> Checkpoint:
    """Open a checkpoint; in a folder, wait for another process that runs the same training, and take its result."""
    started, is_told = time.monotonic(), False
    while True:
        try:
            return Checkpoint(path, mark)
        except BlockingIOError:
            if not waits:
                raise
        if not is_told and time.monotonic() - started > QUIET_SECONDS:
            is_told = True
            warn(
                f"checkpoint={path!r} is in use: another process runs the same training, and this fit waits for its "
                "result. Press Ctrl-C to stop waiting."
            )
        time.sleep(BETWEEN_TRIES)
