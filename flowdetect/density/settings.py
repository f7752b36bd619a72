"""The settings and the result of a training."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from flowdetect.density.model import DensityModel


@dataclass(frozen=True)
class TrainingSettings:
    """The settings of a training.

    Attributes
    ----------
    name : str, for messages
    seed, max_epochs, batch_size, learning_rate, weight_decay, n_iter_no_change, tol
        As the estimator's parameters of these names, resolved to numbers.
    device, precision, n_devices, verbose
        As the estimator's parameters; the device is resolved.
    chunk_length : int
        Held-out rows evaluated at once.
    start_counts : bool
        Whether the initial weights are candidates for the best weights.
    initialize : bool
        Whether a first batch sets data-dependent parameters; False if training continues from given weights.
    progress_name : str, shown before the progress
    time_limit : float or None
        Seconds; None: no limit.
    started : float
        Value of time.monotonic() from which these seconds count.
    events : TrainingEvents or None
        Callbacks after epochs, in this process.
    """

    name: str
    seed: int
    max_epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.0
    n_iter_no_change: int = 10
    tol: float = 1e-4
    device: str = "cpu"
    precision: str = "auto"
    n_devices: int = 1
    verbose: int = 0
    chunk_length: int = 64
    start_counts: bool = False
    initialize: bool = True
    progress_name: str = ""
    time_limit: float | None = None
    started: float = field(default_factory=time.monotonic)
    events: Any = None


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training.

    Attributes
    ----------
    model : DensityModel
        With the averaged weights; those of the best epoch if rows are held out.
    history : dict of lists, one value per epoch; the last epoch may be incomplete
    n_epochs : int
    reason : "max_epochs", "time_limit", "early stopping", "interrupted" or "failed"
    seconds : float
        Duration of the training, including the earlier runs that it resumed from.
    failure : FloatingPointError, KeyboardInterrupt (or another exception of the caller's Ctrl-C handler), or None
        The exception that ended training early, raised after the results are stored.
    """

    model: DensityModel
    history: dict[str, list[float]]
    n_epochs: int
    reason: str
    seconds: float
    failure: BaseException | None
