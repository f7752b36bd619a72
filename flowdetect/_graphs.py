"""A detector's description of its score for export: plain arrays, and arithmetic for arrays and tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Single:
    """The score of a detector with one density, or of one fold.

    Attributes
    ----------
    asked : tuple of (density, name of its method)
        The inputs of the score: "score_samples", "member_scores" or "likelihood_terms" of a density.
    combine : callable
        Maps the results of these methods to the score (n,), for numpy arrays and for torch tensors.
    known : (m,) array
        The sorted calibration scores.
    constant_columns, constants : (k,) arrays
        Constant columns and their values; a row with another value has the lowest score.
    """

    asked: tuple[tuple[Any, str], ...]
    combine: Callable[..., Any]
    known: NDArray[np.float64]
    constant_columns: NDArray[np.intp]
    constants: NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """A detector's answers.

    Attributes
    ----------
    name : str
        Name of the detector's class.
    singles : tuple of Single
        More than one if the detector has folds; the score is their mean.
    offset : float
        A row with a lower score is an outlier.
    n_known : int
        Number of calibration scores in all folds.
    lowest : float
        The score of rows that lie too far out.
    """

    name: str
    singles: tuple[Single, ...]
    offset: float
    n_known: int
    lowest: float
