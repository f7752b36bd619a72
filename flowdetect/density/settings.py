"""How a model is trained, and what a training gives back."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from flowdetect.density.model import DensityModel


@dataclass(frozen=True)
class TrainingSettings:
    """How a model is trained.

    Attributes
    ----------
    name : str, in messages
    seed, max_epochs, batch_size, learning_rate, weight_decay, n_iter_no_change, tol
        As the estimator's parameters of these names, all of them numbers.
    device, precision, n_devices, verbose
        Likewise; the device is resolved.
    chunk_length : int
        Held-out rows evaluated at once.
    start_counts : bool
        Whether the weights at the start are among those of which the best are kept.
    initialize : bool
        Whether data-dependent parameters are set from a first batch; not when training goes on from given weights.
    progress_name : str, before what progress shows
    time_limit : float or None
        Seconds; None: as long as max_epochs take.
    started : float
        The time.monotonic() from which these seconds count.
    events : TrainingEvents or None
        The callbacks that are told of epochs, in this process.
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
    """What a training gives back.

    Attributes
    ----------
    model : DensityModel
        With the averaged weights; of the best epoch where rows are held out.
    history : dict of lists, one value an epoch; the last one may be partial
    n_epochs : int
    reason : "max_epochs", "time_limit", "early stopping", "interrupted" or "failed"
    seconds : float
        Used by the training, including those of earlier runs that it went on from.
    failure : FloatingPointError, KeyboardInterrupt or whatever else the caller's handler of Ctrl-C raises, or None
        What ended it early, to be raised once all is kept.
    """

    model: DensityModel
    history: dict[str, list[float]]
    n_epochs: int
    reason: str
    seconds: float
    failure: BaseException | None
