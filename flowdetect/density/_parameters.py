"""The parameters that all densities share, each with its meaning and its range."""

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
MOST = {  # of each, alone; `check_size` looks at what they make together
    **dict.fromkeys(
        ("n_steps", "n_posterior_steps", "n_blocks", "n_causal_blocks", "n_transforms", "n_flows", "n_layers"), DEEPEST
    ),
    **dict.fromkeys(("n_draws", "n_devices", "n_orders", "n_masks"), DEEPEST),
    **dict.fromkeys(("hidden_channels", "n_filters", "n_mixtures", "latent_dim", "n_hidden"), WIDEST),
    "n_levels": 64,
}


@dataclass(kw_only=True, eq=False, repr=False)
class DensityParameters(Documented, CallbackSupportMixin, BaseEstimator):
    """The parameters of data and training.

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
    time_limit : float or None, default None
        Seconds that `fit` may take; None: as long as max_epochs take. The speed of the first steps says how many steps
        fit. Training ends after these, or after max_epochs if that is sooner, and the learning rate's schedule is laid
        over them. The last epoch may be partial, and of a large set there may be no other. If steps then take longer
        than measured, training stops at 1.1 times the limit. In either case the best weights are kept, and no error is
        raised. Two fits with one random_state may differ in the number of steps, hence in their weights.
    batch_size : int or "auto", default 64
        Rows per step; "auto": 64 images, or 256 rows of a table.
    learning_rate : float, default 1e-3
        The highest learning rate of Adam's schedule: linear warm-up, then a cosine down to 0 at the last step, which
        max_epochs or time_limit sets.
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
        True: `fit` goes on from the present weights, and keeps what was learned of the data's location and scale.
        Classes, columns, bins or a model's parameters that differ are refused.
    verbose : int, default 0
        0 is silent; 1 shows a bar with bits/dim and the time left. Where stderr is neither a terminal nor a notebook's,
        it writes a line an epoch instead, and within a long epoch one every 10 seconds.
    random_state : int, RandomState or None, default None
        Initial weights, order of the rows, noise of training and of scoring.
    device : str, default "auto"
        "auto": CUDA, then MPS, then CPU; or a torch device's name. Resolved into `device_`.
    precision : "auto", "float32" or "bfloat16", default "auto"
        In which type the networks inside a model run while training; "auto": bfloat16 where the device computes it
        natively. Scores are always computed in float32 and inverses in float64.
    n_devices : int or "auto", default 1
        Devices to train on, with a process each that takes its share of every batch. Under torchrun, the number of the
        processes that it started; 1 then trains in each of them alone. "auto": under torchrun and SLURM's srun, all
        processes that they started; else all CUDA devices where CUDA is used, else 1.
    checkpoint : path or None, default None
        A file, or a folder, written after every epoch and every minute. Fitting again with the same class, parameters,
        data and versions goes on from there; a finished training is restored. With a time_limit it goes on by the
        number of steps planned, and the seconds of earlier runs count. A file belongs to one training, of which only
        max_epochs, verbose and device may change. In a folder (one that exists, or a name that ends in a separator)
        each training has a file of its own, named by what is trained: the clones in a search do not meet, and a search
        that was killed goes on. There max_epochs must agree too, and two fits without a random_state that agree in all
        else are one training.
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

    progress_prefix: ClassVar[str] = ""  # set on an estimator: shown before its name where progress is shown

    # what parameters that were not there yet stand for in older files, where that is not their default
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
        """Refuse what the constraints do not allow, booleans where numbers are meant, and what no machine could do."""
        for name, rules in self._parameter_constraints.items():
            value = getattr(self, name)
            if isinstance(value, bool | np.bool_) and not {"boolean", "verbose"} & {r for r in rules if type(r) is str}:
                allowed = ", ".join(str(rule) for rule in rules)
                raise InvalidParameterError(
                    f"The {name!r} parameter of {type(self).__name__} must be a number or a word ({allowed}). Got "
                    f"{value!r} instead, a boolean, which stands for {int(value)}."
                )
        super()._validate_params()
        for name, value in self.get_params(deep=False).items():
            most = MOST.get(name, LARGEST)
            if isinstance(value, Integral) and int(value) > most:
                raise InvalidParameterError(
                    f"The {name!r} parameter of {type(self).__name__} must be at most {most}, which is more than any "
                    f"model has. Got {short(value)} instead."
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
    """Give the widths of hidden layers as a tuple.

    Raises
    ------
    ValueError
        If one is no whole number from 1 to 65536.
    """
    if not all(is_count(width, most=WIDEST) for width in widths):
        raise ValueError(
            f"{name}: hidden_features must hold whole numbers >= 1, got {widths!r}; each may be at most {WIDEST}, and "
            f"the usual ones are {usual}."
        )
    return tuple(widths)
