"""Densities that are used as they are: by `prefit=True`, or inside scikit-learn's FrozenEstimator."""

from __future__ import annotations

from typing import Any

from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from flowdetect._fitting import is_fitted
from flowdetect._warning import warn
from flowdetect.detectors.checks import name_of


class UsesPrefit:
    """A detector that fits its density, or with `prefit` uses it as it is."""

    shared: tuple[str, ...] = ("density",)  # the parameters that prefit=True is about, first the one that must be given
    density: Any
    prefit: bool

    @property
    def is_frozen(self) -> bool:
        """Whether the density is used as it is, by `prefit` or in `FrozenEstimator`."""
        return self.prefit or isinstance(self.density, FrozenEstimator)

    def _as_used(self, density: Any) -> Any:
        """Freeze what is to be used as it is."""
        return FrozenEstimator(density) if self.prefit and not isinstance(density, FrozenEstimator) else density

    def __sklearn_clone__(self: Any) -> Any:
        """Clone every parameter but those that are to be used as they are."""
        shared = self.shared if self.prefit else ()
        parameters = self.get_params(deep=False).items()
        return type(self)(**{name: value if name in shared else clone(value, safe=False) for name, value in parameters})

    @staticmethod
    def _is_fitted(given: Any) -> bool:
        return is_fitted(given)

    def _check_prefit(self) -> None:
        """Refuse an unfitted density that is to be used as it is."""
        name = type(self).__name__
        if not isinstance(self.prefit, bool):
            raise TypeError(f"{name} needs prefit=True or prefit=False, got {self.prefit!r}.")
        for parameter in self.shared if self.prefit else ():
            given = getattr(self, parameter)
            needless = given is None and parameter != self.shared[0]
            if not needless and not self._is_fitted(given):
                raise NotFittedError(
                    f"{name} with prefit=True uses its {parameter} as it is, and this {name_of(given)} is not fitted; "
                    f"fit it first, or leave prefit=False, and {name} fits a clone of it."
                )

    def _warn_of_retraining(self) -> None:
        """Tell that a fitted density is not used, but one like it trained anew."""
        given = getattr(self, self.shared[0])
        if not self.is_frozen and self._is_fitted(given):
            name, kind = type(self).__name__, name_of(given)
            warn(
                f"{name} got a fitted {kind}, and trains a clone of it anew on the rows given to fit. To use it as it "
                f"is, pass prefit=True; to train anew without this warning, pass sklearn.base.clone of it."
            )
