"""A detector's score, p-value and label as a graph that needs no flowdetect to run.

A detector whose score is arithmetic of its density's answers says it once, in `_combined`, for numpy arrays and torch
tensors alike; the density makes the graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from flowdetect._graphs import Single, Verdict
from flowdetect._protocols import PathName
from flowdetect.detectors.reach import LOWEST_SCORE

NONE = np.array([], dtype=np.intp)


class Exports:
    """A detector that may be written as a graph."""

    no_graph = "its score is not arithmetic of what the density answers"  # why, of a detector without `_combined`
    _combined: Any = None  # the density's answers -> the score, of numpy arrays and of torch tensors

    def export(self: Any, path: PathName, *, format: str = "torch") -> None:
        """Write score, p-value and label as a graph that needs no flowdetect to run.

        The graph takes X as a float64 array in the layout and units of the training data, any number of rows, and gives
        ``score`` and ``p_value``, (n,) float64, and ``label``, (n,) int64: what `score_samples`, `p_values` and
        `predict` give. A graph raises and warns of nothing: a row with NaN or infinity has the score and p-value NaN
        and the label -1. Where a score is a calibration score or the threshold but for rounding, the p-value may be one
        step off and the label the other one.

        Parameters
        ----------
        path : str or path
            An older file of that name is replaced only when the new one is whole and has been tried, as `export` of a
            density says.
        format : {"torch", "onnx"}, default="torch"
            "torch": a ``.pt2`` of `torch.export`, for ``torch.export.load(path).module()``; load files that you trust.
            "onnx": for onnxruntime and others; it needs ``pip install 'flowdetect-ood[onnx]'``.

        Raises
        ------
        TypeError
            If the score is more than arithmetic of the density's answers, such as a codec's, or the density is none of
            flowdetect.
        ValueError
            If the format is neither, or the density has no graph in it, or its score takes noise, which a graph lacks.
        ImportError
            If a library is missing.
        OSError
            If the file cannot be written.
        RuntimeError
            If the file's scores are not ours; nothing is then written.
        """
        check_is_fitted(self, "offset_")
        singles = tuple(single._single() for single in self._singles())
        name, known = type(self).__name__, len(self.calibration_scores_)
        density = singles[0].asked[0][0]
        while isinstance(density, FrozenEstimator) or hasattr(density, "members_"):
            density = density.estimator if isinstance(density, FrozenEstimator) else density.members_[0]
        if not hasattr(density, "_export_verdict"):
            raise TypeError(
                f"{name} has no graph with {type(density).__name__}, which is no density of flowdetect; take e.g. "
                f"MAFDensity or NeighborsDensity."
            )
        density._export_verdict(self, Verdict(name, singles, self.offset_, known, LOWEST_SCORE), path, format)

    def _single(self: Any) -> Single:
        """Say what the score is made of."""
        if self._combined is None or not self._asked():
            raise TypeError(f"{type(self).__name__} has no graph: {self.no_graph}.")
        usual = self._usual or {"constant": NONE, "constants": np.zeros(0)}
        return Single(
            tuple(self._asked()), self._combined, self.calibration_scores_, usual["constant"], usual["constants"]
        )

    def _asked(self: Any) -> list[tuple[Any, str]]:
        """Give the densities whose answers `_combined` takes, each with the name of its method."""
        return [(self.density_, "score_samples")]


def unchanged(log_px: Any) -> Any:
    """Give the likelihood as the score."""
    return log_px
