"""Checks of the parameters that all detectors share, before any computation."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator

from flowdetect._limits import MOST_DRAWN, is_count, is_number, short
from flowdetect._warning import warn

FEWEST_FOLDS = 2


def name_of(density: Any) -> str:
    """Return the name of the density's class; of a frozen density, the class inside."""
    if isinstance(density, type):
        return density.__name__
    return type(density.estimator if isinstance(density, FrozenEstimator) else density).__name__


def check_methods(name: str, density: Any, needs: tuple[str, ...]) -> None:
    """Raise if the density is a class, or lacks a method."""
    if isinstance(density, type):
        raise TypeError(f"{name} needs a density, got the class {name_of(density)}; make an instance of it.")
    for method in ("fit", "score_samples", *needs):
        if not hasattr(density, method):
            raise TypeError(
                f"{name} needs a density with {method}, such as GlowDensity()"
                f"{'' if method in needs else ' or GaussianMixture()'}; {name_of(density)} has none."
            )


def check_shares(name: str, contamination: Any, calibration_fraction: Any) -> None:
    """Raise if contamination or calibration_fraction is out of range."""
    if not is_number(contamination) or not 0 < contamination <= 0.5:
        raise ValueError(
            f"{name} needs contamination, the share of rows to call outliers, above 0 and at most 0.5, "
            f"got {contamination!r}; the usual value is 0.1."
        )
    if not is_number(calibration_fraction) or not 0 <= calibration_fraction < 1:
        raise ValueError(
            f"{name} needs calibration_fraction, the share of rows held out from training, at least 0 and below 1, "
            f"got {calibration_fraction!r}; the usual value is 0.1."
        )


def check_folds(name: str, cv: Any, is_frozen: bool) -> None:
    """Raise if cv is no valid number of folds, or is given for a frozen density."""
    if cv is None:
        return
    if not isinstance(cv, Integral) or isinstance(cv, bool) or cv < FEWEST_FOLDS:
        raise ValueError(
            f"{name} needs cv=None or a whole number of folds, at least {FEWEST_FOLDS}, got {cv!r}; the usual one is 5."
        )
    if is_frozen:
        raise ValueError(
            f"{name} with cv={cv} trains a density for each fold, but got a fitted one to use without training; "
            f"leave cv=None, where p-values use all rows given to fit, or pass an unfitted density with prefit=False."
        )


def check_batch_options(alpha: Any, n_bootstrap: Any) -> None:
    """Raise if the options of `test_batch` are out of range."""
    if not is_number(alpha) or not 0 < alpha < 1:
        raise ValueError(
            f"test_batch needs alpha, the share of false alarms, above 0 and below 1, got {alpha!r}; the usual value "
            f"is 0.05."
        )
    if not is_count(n_bootstrap, most=MOST_DRAWN):
        raise ValueError(
            f"test_batch needs n_bootstrap, a whole number >= 1, got {short(n_bootstrap)}; at most {MOST_DRAWN}."
        )


def check_fdr(fdr: Any) -> None:
    """Raise if the false discovery rate is out of range."""
    if not is_number(fdr) or not 0 < fdr < 1:
        raise ValueError(
            f"select needs fdr, the share of false discoveries, above 0 and below 1, got {fdr!r}; the usual value "
            f"is 0.1."
        )


def check_handed_on(name: str, verbose: Any, device: Any, time_limit: Any) -> None:
    """Raise early for options that are passed on to the density."""
    if not isinstance(verbose, bool | np.bool_) and not is_count(verbose, 0):
        raise ValueError(f"{name} needs verbose, a whole number >= 0, 1 to print what is done, got {verbose!r}.")
    if device is not None and not isinstance(device, str):
        raise ValueError(f'{name} needs device, None or a name such as "cpu" or "cuda", got {device!r}.')
    if time_limit is not None and not (is_number(time_limit) and time_limit > 0):
        raise ValueError(
            f"{name} needs time_limit, the seconds that fit may take, above 0, or None, got {time_limit!r}."
        )


def warn_of_groups(name: str, density: Any, share: float) -> None:
    """Warn of a tight group of training rows, of at most this share, that `NeighborsDensity` finds."""
    n_rows = len(density.tight_group(share)) if hasattr(density, "tight_group") else 0
    if n_rows:
        warn(
            f"{n_rows} rows lie in a tight group far from all others, and new rows like them will be called normal. "
            f"If they are outliers, leave them out or give {name} contamination, the share of outliers; "
            f"NeighborsDensity.tight_group returns their indices."
        )
