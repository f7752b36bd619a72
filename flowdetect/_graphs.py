"""What a detector says of its score so that it can be exported: plain arrays, and arithmetic for arrays and tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Single:
    """The score of a detector of one density, or of one fold.

    Attributes
    ----------
    asked : tuple of (density, name of its method)
        What the score is made of: "score_samples", "member_scores" or "likelihood_terms".
    combine : callable
        Their answers -> the score (n,), for numpy arrays and torch tensors alike.
    known : (m,) array
        The sorted calibration scores.
    constant_columns, constants : (k,) arrays
        Columns of one value, and the values; a row with another one has the lowest score.
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
        Of the detector's class.
    singles : tuple of Single
        More than one where it has folds; the score is their mean.
    offset : float
        A row of a lower score is an outlier.
    n_known : int
        Number of calibration scores, of all folds.
    lowest : float
        The score of rows that lie too far out.
    """

    name: str
    singles: tuple[Single, ...]
    offset: float
    n_known: int
    lowest: float
