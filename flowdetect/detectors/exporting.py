"""Export of a detector's score, p-value and label as a graph that runs without flowdetect.

A detector whose score is arithmetic on the density's results defines this arithmetic in `_combined`, for numpy arrays
and for torch tensors. The density builds the graph.
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
    """A detector that can be exported as a graph."""

    no_graph = "its score is not arithmetic on the density's results"  # the reason, for detectors without `_combined`
    _combined: Any = None  # the density's results -> the score, for numpy arrays and torch tensors

    def export(self: Any, path: PathName, *, format: str = "torch") -> None:
        """Export score, p-value and label as a graph that runs without flowdetect.

        The graph takes X as a float64 array with any number of rows, in the layout and units of the training data. It
        returns ``score`` and ``p_value``, (n,) float64, and ``label``, (n,) int64: the results of `score_samples`,
        `p_values` and `predict`. A graph does not raise or warn: a row with NaN or infinity has score and p-value NaN
        and label -1. If a score equals a calibration score or the threshold up to rounding, the p-value may differ by
        one step, and the label may differ.

        Parameters
        ----------
        path : str or path
            An existing file is replaced only after the new one is complete and has been tested, as in `export` of a
            density.
        format : {"torch", "onnx"}, default="torch"
            "torch": a ``.pt2`` file of `torch.export`, for ``torch.export.load(path).module()``; load only files that
            you trust. "onnx": for onnxruntime and others; it needs ``pip install 'flowdetect-ood[onnx]'``.

        Raises
        ------
        TypeError
            If the score is more than arithmetic on the density's results, such as one with a codec, or if the density
            is not from flowdetect.
        ValueError
            If `format` is unknown, if the density cannot be exported to it, or if its scores use random noise.
        ImportError
            If a library is missing.
        OSError
            If the file cannot be written.
        RuntimeError
            If the scores of the new file differ from those of the detector; nothing is then written.
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
        """Return the parts of the score."""
        if self._combined is None or not self._asked():
            raise TypeError(f"{type(self).__name__} has no graph: {self.no_graph}.")
        usual = self._usual or {"constant": NONE, "constants": np.zeros(0)}
        return Single(
            tuple(self._asked()), self._combined, self.calibration_scores_, usual["constant"], usual["constants"]
        )

    def _asked(self: Any) -> list[tuple[Any, str]]:
        """Return the densities whose results `_combined` takes, each with the name of the method to call."""
        return [(self.density_, "score_samples")]


def unchanged(log_px: Any) -> Any:
    """Return the likelihood as the score."""
    return log_px
