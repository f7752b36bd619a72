"""A monitor of bits/dim for scikit-learn's experimental callbacks."""

from __future__ import annotations

from typing import Any

from flowdetect._limits import is_number

try:
    from sklearn.callback import ScoringMonitor
except ImportError as error:
    raise ImportError(
        "BitsPerDimMonitor needs scikit-learn's callbacks, which are experimental, and the installed version has no "
        "sklearn.callback; install scikit-learn 1.9, or read history_ after fit."
    ) from error


class BitsPerDimMonitor(ScoringMonitor):
    """Records bits/dim of training and held-out rows after each epoch of a density's `fit`, at negligible cost.

    Set it on a density with `set_callbacks`; the density may be inside a detector, a pipeline or a grid search, also
    one with several processes. It records the numbers of `history_`, while training runs.

    Parameters
    ----------
    stop_below : float or None, default=None
        Training ends after the first epoch with bits/dim below this, on held-out rows, or on training rows if none are
        held out.

    Notes
    -----
    It records nothing if training starts processes of its own on several devices.

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
        """Start recording a fit."""
        super().setup(estimator, context)

    def teardown(self, estimator: Any, context: Any) -> None:
        """Stop recording."""
        super().teardown(estimator, context)

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Do nothing yet."""

    def on_fit_task_end(self, estimator: Any, context: Any) -> bool:
        """Record an epoch; return True if training should stop."""
        if not hasattr(context, "bits_per_dim"):
            return False
        super().on_fit_task_end(estimator, context, X=(), y=(), fitted_estimator=context)
        held_out = context.validation_bits_per_dim
        latest = context.bits_per_dim if held_out is None else held_out
        return self.stop_below is not None and bool(latest < self.stop_below)


def _bits_of(context: Any, X: Any, y: Any) -> dict[str, float | None]:
    """Scorer that returns the bits/dim in an epoch's context."""
    return {name: getattr(context, name) for name in ("bits_per_dim", "validation_bits_per_dim")}
