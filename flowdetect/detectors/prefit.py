"""Fitted densities that are used without training: with `prefit=True`, or inside scikit-learn's FrozenEstimator."""

from __future__ import annotations

from typing import Any

from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from flowdetect._fitting import is_fitted
from flowdetect._warning import warn
from flowdetect.detectors.checks import name_of


class UsesPrefit:
    """A detector that fits its density, or with `prefit` uses a fitted one."""

    shared: tuple[str, ...] = ("density",)  # the parameters that prefit=True concerns; the first is required
    density: Any
    prefit: bool

    @property
    def is_frozen(self) -> bool:
        """Whether the density is used without training: with `prefit`, or in `FrozenEstimator`."""
        return self.prefit or isinstance(self.density, FrozenEstimator)

    def _as_used(self, density: Any) -> Any:
        """Freeze the density if it is to be used without training."""
        return FrozenEstimator(density) if self.prefit and not isinstance(density, FrozenEstimator) else density

    def __sklearn_clone__(self: Any) -> Any:
        """Clone every parameter, except those that are used without training."""
        shared = self.shared if self.prefit else ()
        parameters = self.get_params(deep=False).items()
        return type(self)(**{name: value if name in shared else clone(value, safe=False) for name, value in parameters})

    @staticmethod
    def _is_fitted(given: Any) -> bool:
        return is_fitted(given)

    def _check_prefit(self) -> None:
        """Raise if an unfitted density is to be used without training."""
        name = type(self).__name__
        if not isinstance(self.prefit, bool):
            raise TypeError(f"{name} needs prefit=True or prefit=False, got {self.prefit!r}.")
        for parameter in self.shared if self.prefit else ():
            given = getattr(self, parameter)
            needless = given is None and parameter != self.shared[0]
            if not needless and not self._is_fitted(given):
                raise NotFittedError(
                    f"{name} with prefit=True uses its {parameter} as it is, and this {name_of(given)} is not fitted; "
                    f"fit it first, or leave prefit=False, so that {name} fits a clone of it."
                )

    def _warn_of_retraining(self) -> None:
        """Warn that a clone is trained although the density given is fitted."""
        given = getattr(self, self.shared[0])
        if not self.is_frozen and self._is_fitted(given):
            name, kind = type(self).__name__, name_of(given)
            warn(
                f"{name} got a fitted {kind}, but trains a new clone of it on the rows given to fit. Pass "
                f"prefit=True to use the fitted one, or pass sklearn.base.clone of it to train without this warning."
            )
