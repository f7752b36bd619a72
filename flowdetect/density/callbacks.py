"""A monitor of bits/dim for scikit-learn's callbacks, which are experimental there."""

from __future__ import annotations

from typing import Any

from flowdetect._limits import is_number

try:
    from sklearn.callback import ScoringMonitor
except ImportError as error:
    raise ImportError(
        "BitsPerDimMonitor is one of scikit-learn's callbacks, which are experimental there, and the installed version "
        "has no sklearn.callback; install scikit-learn 1.9, or read history_ after fit."
    ) from error


class BitsPerDimMonitor(ScoringMonitor):
    """Records bits/dim of training and held-out rows after each epoch of a density's `fit`; costs nothing to speak of.

    It is set on a density by `set_callbacks`, wherever that stands: alone, in a detector, a pipeline or a grid search,
    also one in several processes. The numbers are those of `history_`, there while training runs.

    Parameters
    ----------
    stop_below : float or None, default=None
        Training ends with the first epoch whose bits/dim of held-out rows, or of training rows where none are held
        out, are below this.

    Notes
    -----
    Of a training on several devices in processes of its own it records nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect import BitsPerDimMonitor, MAFDensity
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> monitor = BitsPerDimMonitor()
    >>> density = MAFDensity(max_epochs=3, random_state=0).set_callbacks(monitor).fit(X)
    >>> frame = monitor.get_logs().data_as_pandas
    >>> bool((frame["validation_bits_per_dim"] == density.history_["validation_bits_per_dim"]).all())
    True
    """

    def __init__(self, stop_below: float | None = None) -> None:
        if stop_below is not None and not is_number(stop_below):
            raise ValueError(
                f"BitsPerDimMonitor needs stop_below, bits/dim that end training, or None, got {stop_below!r}."
            )
        self.stop_below = stop_below
        super().__init__(scoring=_bits_of)

    def setup(self, estimator: Any, context: Any) -> None:
        """Begin to listen to a fit."""
        super().setup(estimator, context)

    def teardown(self, estimator: Any, context: Any) -> None:
        """End it."""
        super().teardown(estimator, context)

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Do nothing yet."""

    def on_fit_task_end(self, estimator: Any, context: Any) -> bool:
        """Record an epoch, and say whether it is enough."""
        if not hasattr(context, "bits_per_dim"):
            return False
        super().on_fit_task_end(estimator, context, X=(), y=(), fitted_estimator=context)
        held_out = context.validation_bits_per_dim
        latest = context.bits_per_dim if held_out is None else held_out
        return self.stop_below is not None and bool(latest < self.stop_below)


def _bits_of(context: Any, X: Any, y: Any) -> dict[str, float | None]:
    """Give what an epoch's context holds, in the form of a scorer."""
    return {name: getattr(context, name) for name in ("bits_per_dim", "validation_bits_per_dim")}
