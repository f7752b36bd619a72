"""The parameters that all densities share, with their meanings and ranges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, InvalidParameterError, StrOptions

from flowdetect._callbacks import CallbackSupportMixin
from flowdetect._documented import Documented
from flowdetect._limits import is_count, short
from flowdetect._protocols import PathName, RandomState

LARGEST = 2**63 - 1
DEEPEST, WIDEST = 10_000, 2**16
MOST = {  # of each alone; `check_size` checks the size of the model that they define together
    **dict.fromkeys(
        ("n_steps", "n_posterior_steps", "n_blocks", "n_causal_blocks", "n_transforms", "n_flows", "n_layers"), DEEPEST
    ),
    **dict.fromkeys(("n_draws", "n_devices", "n_orders", "n_masks"), DEEPEST),
    **dict.fromkeys(("hidden_channels", "n_filters", "n_mixtures", "latent_dim", "n_hidden"), WIDEST),
    "n_levels": 64,
}


@dataclass(kw_only=True, eq=False, repr=False)
class DensityParameters(Documented, CallbackSupportMixin, BaseEstimator):
    """Parameters of data and training.

    Parameters
    ----------
    image_shape : (H, W) or (H, W, C), default None
        None: the shape is taken from X: numpy (n, H, W) or (n, H, W, C) and torch (n, C, H, W) are images, and the rows
        of a 2-D X are vectors, never guessed to be square images.
    n_bins : "auto", int or None, default "auto"
        Number of integer values of a feature; None: real-valued data, whose score is a true density. "auto": 256 for
        images of whole numbers from 0 to 255, else None.
    conditional : bool, default False
        True: y holds class labels, and the model is log p(x | y). False: y is ignored.
    max_epochs : "auto" or int, default "auto"
        Passes over the training rows; "auto": enough for about 4,000 steps, at most 500.
    time_limit : float or None, default None
        Seconds for `fit`; None: no limit. The speed of the first steps determines how many steps fit into the limit.
        Training ends after these steps, or after max_epochs if that is sooner, and the learning-rate schedule spans
        them. The last epoch may be incomplete; on large data it may be the only one. If later steps are slower than the
        first, training stops at 1.1 times the limit. In every case the best weights are kept and no error is raised.
        With a time limit, two fits with the same random_state may take different numbers of steps, and then have
        different weights.
    batch_size : int or "auto", default 64
        Rows per step; "auto": 64 images, or 256 rows of a table.
    learning_rate : float, default 1e-3
        Highest learning rate of Adam's schedule: linear warm-up, then cosine decay to 0 at the last step, which
        max_epochs or time_limit sets.
    weight_decay : float, default 0.0
        Decoupled weight decay (AdamW).
    early_stopping : bool, default True
        True: hold rows out, stop when their bits/dim has not improved by `tol` for `n_iter_no_change` epochs, and keep
        the best weights. With fewer than 20 rows, no row is held out.
    validation_fraction : float in (0, 1), default 0.05
        Share of the rows held out for early stopping.
    n_iter_no_change : int, default 10
        Epochs without improvement after which training stops.
    tol : float, default 1e-4
        Smallest decrease of the held-out bits/dim that counts as an improvement.
    warm_start : bool, default False
        True: `fit` continues from the present weights and keeps the learned location and scale of the data. It refuses
        other classes, columns, bins or model parameters than those of the first fit.
    verbose : int, default 0
        0: silent. 1: a progress bar with bits/dim and the time left; if stderr is neither a terminal nor a notebook,
        one line per epoch instead, and one every 10 seconds within a long epoch.
    random_state : int, RandomState or None, default None
        Seed of the initial weights, the order of the rows, and the noise of training and scoring.
    device : str, default "auto"
        Name of a torch device. "auto": CUDA if available, else MPS, else CPU. `fit` stores the choice as `device_`.
    precision : "auto", "float32" or "bfloat16", default "auto"
        Number type of the networks inside a model during training; "auto": bfloat16 if the device supports it natively,
        else float32. Scores are always computed in float32 and inverses in float64.
    n_devices : int or "auto", default 1
        Number of devices to train on. Each device has a process of its own, which takes its share of every batch. Under
        torchrun, pass the number of processes that it started; with 1, each of them trains alone. "auto": under
        torchrun or SLURM's srun, all processes that they started; otherwise all CUDA devices if CUDA is used, else 1.
    checkpoint : path or None, default None
        A file or a folder in which training saves its state after every epoch and every minute. A later fit with the
        same class, parameters, data and versions resumes from it; a finished training is restored. With a time_limit,
        the resumed training keeps the planned number of steps, and the seconds of earlier runs count. A file belongs to
        one training, of which only max_epochs, verbose and device may change. In a folder (one that exists, or a path
        that ends in a separator) each training has a file of its own, named after its class, parameters and data, so
        that the clones of a hyperparameter search do not share files and an interrupted search resumes. In a folder
        max_epochs must agree too, and two fits without a random_state count as one training if everything else agrees.
    """

    image_shape: tuple[int, ...] | None = None
    n_bins: int | str | None = "auto"
    conditional: bool = False
    max_epochs: int | str = "auto"
    time_limit: float | None = None
    batch_size: int | str = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    early_stopping: bool = True
    validation_fraction: float = 0.05
    n_iter_no_change: int = 10
    tol: float = 1e-4
    warm_start: bool = False
    verbose: int = 0
    random_state: RandomState = None
    device: str = "auto"
    precision: str = "auto"
    n_devices: int | str = 1
    checkpoint: PathName | None = None

    progress_prefix: ClassVar[str] = ""  # set on an estimator; progress displays show it before the name

    # values of newer parameters for older files, if not their defaults
    _former: ClassVar[dict[str, Any]] = {}

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "conditional": ["boolean"],
        "max_epochs": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
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
        "n_devices": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
    }

    def _validate_params(self) -> None:
        """Refuse values outside the constraints, booleans in place of numbers, and sizes that no machine can handle."""
        for name, rules in self._parameter_constraints.items():
            value = getattr(self, name)
            if isinstance(value, bool | np.bool_) and not {"boolean", "verbose"} & {r for r in rules if type(r) is str}:
                allowed = ", ".join(str(rule) for rule in rules)
                raise InvalidParameterError(
                    f"The {name!r} parameter of {type(self).__name__} must be a number or a word ({allowed}). Got the "
                    f"boolean {value!r} instead; pass {int(value)} if you mean that number."
                )
        super()._validate_params()
        for name, value in self.get_params(deep=False).items():
            most = MOST.get(name, LARGEST)
            if isinstance(value, Integral) and int(value) > most:
                raise InvalidParameterError(
                    f"The {name!r} parameter of {type(self).__name__} must be at most {most}, the most that this "
                    f"library allows. Got {short(value)} instead."
                )
            if (
                name in self._parameter_constraints
                and isinstance(value, Real)
                and not isinstance(value, Integral)
                and not math.isfinite(value)
            ):
                raise InvalidParameterError(
                    f"The {name!r} parameter of {type(self).__name__} must be finite. Got {value!r} instead."
                )


def check_widths(widths: Sequence[int], usual: tuple[int, ...], name: str) -> tuple[int, ...]:
    """Check the widths of hidden layers and return them as a tuple.

    Raises
    ------
    ValueError
        If a width is not a whole number from 1 to 65536.
    """
    if not all(is_count(width, most=WIDEST) for width in widths):
        raise ValueError(
            f"{name}: hidden_features must hold whole numbers from 1 to {WIDEST}, got {widths!r}; the usual value is "
            f"{usual}."
        )
    return tuple(widths)
