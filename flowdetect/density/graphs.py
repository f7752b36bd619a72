"""Scores as graphs: self-contained torch modules from rows to scores, for `torch.export` and ONNX.

They take rows (n, n_features) as float64 in the data's units and return float64. A graph raises no errors: for rows
that scoring refuses, the score is NaN (the row is not finite) or -inf (it lies too far from the training data).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator
from sklearn.utils import Bunch
from torch import Tensor, nn

from flowdetect._graphs import Single, Verdict
from flowdetect._reach import SAME, SAME_AS_ZERO
from flowdetect.density.model import DensityModel
from flowdetect.density.spec import DataSpec

SPARE = 8  # additional candidates, since the first search has rounding errors
Arrays = NDArray[Any]


class ModelGraph(nn.Module):
    """log p(x) of a density's model without noise: the same computation as `_scoring` for a chunk.

    Parameters
    ----------
    model : DensityModel
        Copied to the CPU.
    spec : DataSpec
    """

    modelled: Tensor | None
    loc: Tensor | None
    scale: Tensor | None
    contexts: Tensor | None
    log_prior: Tensor
    log_units: Tensor

    def __init__(self, model: DensityModel, spec: DataSpec) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
        self.event_shape, self.n_bins = spec.event_shape, spec.n_bins
        self.n_noise = model.n_noise
        _keep(self, "log_units", spec.log_units.sum())
        _keep(self, "modelled", spec.modelled if len(spec.constant_features) else None)
        _keep(self, "loc", spec.loc)
        _keep(self, "scale", spec.scale)
        _keep(self, "log_prior", 0.0 if spec.class_log_prior is None else spec.class_log_prior)
        _keep(self, "contexts", spec.every_context("cpu").numpy() if spec.is_conditional else None)

    def forward(self, rows: Tensor) -> Tensor:
        """(n, n_features) -> (n,) nats."""
        x = self._as_seen(rows)
        if self.contexts is None:
            scores = self.model.log_prob(x).double()
        else:
            scores = self._joint(x, self.contexts).logsumexp(1)
        scores = scores + self.log_units
        is_reached = torch.isfinite(scores)
        if self.n_bins is not None:  # as in `check_in_reach`
            is_reached = is_reached & ((rows >= -self.n_bins) & (rows <= 2 * self.n_bins - 1)).all(1)
        return nan_where_lost(torch.where(is_reached, scores, -math.inf), rows)

    def _as_seen(self, rows: Tensor) -> Tensor:
        """(n, n_features) -> (n, C, H, W) float32; real values are centred and scaled before they become float32."""
        x = rows if self.modelled is None else rows[:, self.modelled]
        if self.loc is not None and self.scale is not None:
            x = (x - self.loc) / self.scale
        channels, height, width = self.event_shape
        return x.float().reshape(-1, height, width, channels).permute(0, 3, 1, 2)

    def _joint(self, x: Tensor, contexts: Tensor) -> Tensor:
        return self.model.log_prob_by_context(x, contexts).double() + self.log_prior


class TermsGraph(ModelGraph):
    """The terms of a flow's likelihood per level; for a conditional flow, those of the most likely class."""

    def forward(self, rows: Tensor) -> Any:
        """(n, n_features) -> a Bunch of tensors (n, L), nats."""
        x = self._as_seen(rows)
        context = None if self.contexts is None else self.contexts[self._joint(x, self.contexts).argmax(1)]
        terms = {name: term.double() for name, term in self.model.terms(x, context).items()}
        first = self.model.summands[0]
        terms[first] = torch.cat([terms[first][:, :1] + self.log_units, terms[first][:, 1:]], 1)
        return Bunch(**terms)


class MembersGraph(nn.Module):
    """The scores of an ensemble's members, (n, M), or their mixture, (n,)."""

    log_n_members: Tensor

    def __init__(self, members: Sequence[nn.Module], *, is_mixture: bool) -> None:
        super().__init__()
        self.members, self.is_mixture = nn.ModuleList(members), is_mixture
        _keep(self, "log_n_members", math.log(len(members)))

    def forward(self, rows: Tensor) -> Tensor:
        """(n, n_features) -> nats."""
        scores = torch.stack([member(rows) for member in self.members], 1)
        if not self.is_mixture:
            return scores
        mixture = scores.logsumexp(1) - self.log_n_members
        return torch.where(torch.isfinite(scores).all(1), mixture, scores.amin(1))  # refused if one member refuses


class NeighborsGraph(nn.Module):
    """The score of `NeighborsDensity`; the graph holds its training rows.

    Matrix products find the nearest rows and some additional candidates; their distances are then recomputed.

    Parameters
    ----------
    references : (N, D) array
        Scaled training rows.
    shift, scale : (D,) arrays
    scales : sequence of int
        Numbers of neighbours.
    constants : (n_scales,) array
        Added to -D log r, nats.
    is_mean : bool
        Whether r is the mean distance to the neighbours, instead of the distance to the last of them.
    is_joined : bool
        Whether the output is the mean over the scales, (n,), instead of each scale's log p, (n, n_scales).
    same, closest : float
        A row nearer than `same` is the reference itself; `closest` is added to r.
    """

    references: Tensor
    squares: Tensor
    shift: Tensor
    scale: Tensor
    constants: Tensor
    same: Tensor
    closest: Tensor

    def __init__(
        self,
        references: Arrays,
        shift: Arrays,
        scale: Arrays,
        scales: Sequence[int],
        constants: Arrays,
        *,
        is_mean: bool,
        is_joined: bool,
        same: float,
        closest: float,
    ) -> None:
        super().__init__()
        kept = {"references": references, "squares": (references**2).sum(1), "shift": shift, "scale": scale}
        for name, array in {**kept, "constants": constants, "same": same, "closest": closest}.items():
            _keep(self, name, array)
        self.scales, self.is_mean, self.is_joined = tuple(scales), is_mean, is_joined
        self.n_found = min(len(references), max(scales) + 1 + SPARE)
        self.n_noise = 0

    def forward(self, rows: Tensor) -> Tensor:
        """(n, D) -> (n,) nats, or (n, n_scales)."""
        x = (rows - self.shift) / self.scale
        about = self.squares - 2 * (x @ self.references.T)  # squared distances minus |x|^2
        nearest = self.references[about.topk(self.n_found, largest=False).indices]  # (n, k, D)
        distances = (nearest - x[:, None]).square().sum(2).sqrt().sort(1).values
        is_own = distances[:, :1] < self.same
        distances = torch.where(is_own, distances[:, 1:], distances[:, :-1])
        if self.is_mean:
            radii = [distances[:, :k].mean(1) for k in self.scales]
        else:
            radii = [distances[:, k - 1] for k in self.scales]
        log_p = self.constants - len(self.scale) * (torch.stack(radii, 1) + self.closest).log()
        return nan_where_lost(log_p.mean(1), rows) if self.is_joined else log_p


class ScoreOutput(nn.Module):
    """The input and output of a score's graph: X in the layout of the training data -> {"score": (n,)}."""

    names = ("score",)

    def __init__(self, graph: nn.Module, axes: str) -> None:
        super().__init__()
        self.scored, self.axes = graph, axes  # a module of torch.fx has a `graph` of its own

    def forward(self, X: Tensor) -> tuple[Tensor, ...]:
        """(n, ...) float64 -> (n,)."""
        return (self.scored(to_rows(X, self.axes)),)


class VerdictOutput(nn.Module):
    """A detector's score, p-value and label, as `score_samples`, `p_values` and `predict` return them.

    Parameters
    ----------
    verdict : Verdict
        The detector's description for export.
    axes : str
        Axes of X, as in `Layout`.
    """

    names = ("score", "p_value", "label")
    offset: Tensor
    n_known: Tensor

    def __init__(self, verdict: Verdict, axes: str) -> None:
        super().__init__()
        self.singles: Any = nn.ModuleList([SingleGraph(single, verdict.lowest) for single in verdict.singles])
        self.axes = axes
        _keep(self, "offset", verdict.offset)
        _keep(self, "n_known", float(verdict.n_known))

    def forward(self, X: Tensor) -> tuple[Tensor, ...]:
        """(n, ...) float64 -> score (n,), p_value (n,), both float64, and label (n,) int64, +1 or -1."""
        rows = to_rows(X, self.axes)
        scores = [single(rows) for single in self.singles]
        counts = [count_at_most(single.known, each) for single, each in zip(self.singles, scores, strict=True)]
        score = scores[0] if len(scores) == 1 else torch.stack(scores, 1).mean(1)
        at_most = torch.stack(counts, 1).sum(1).double()
        p_value = nan_where_lost((1 + at_most) / (1 + self.n_known), rows)
        return score, p_value, torch.where(score - self.offset >= 0, 1, -1)


class SingleGraph(nn.Module):
    """The score of a detector with one density, or of one fold."""

    known: Tensor
    lowest: Tensor
    columns: Tensor | None
    constants: Tensor

    def __init__(self, single: Single, lowest: float) -> None:
        super().__init__()
        self.graphs = nn.ModuleList([graph_of(density, answer) for density, answer in single.asked])
        self.combine: Any = single.combine
        _keep(self, "lowest", lowest)
        _keep(self, "known", single.known)
        has_constants = len(single.constant_columns) > 0  # torch saves no empty tensor
        _keep(self, "columns", single.constant_columns if has_constants else None)
        _keep(self, "constants", single.constants if has_constants else 0.0)

    def forward(self, rows: Tensor) -> Tensor:
        """(n, n_features) -> (n,); the lowest score for rows that lie too far out."""
        scores = self.combine(*[graph(rows) for graph in self.graphs])
        scores = torch.where(torch.isfinite(scores), scores, self.lowest).maximum(self.lowest)
        if self.columns is not None:  # as in `differs`
            off = (rows[:, self.columns] - self.constants).abs() > SAME * self.constants.abs() + SAME_AS_ZERO
            scores = torch.where(off.any(1), self.lowest, scores)
        return nan_where_lost(scores, rows)


def graph_of(density: Any, answer: str = "score_samples") -> nn.Module:
    """Return the graph of a fitted density's method: "score_samples", "member_scores" or "likelihood_terms".

    Raises
    ------
    TypeError
        If the density is not one of flowdetect's, or the method has no graph.
    """
    if isinstance(density, FrozenEstimator):
        density = density.estimator
    members = getattr(density, "members_", None)
    if members is not None and answer in ("score_samples", "member_scores"):
        return MembersGraph([graph_of(member) for member in members], is_mixture=answer == "score_samples")
    graph: nn.Module | None = density._graph(answer) if hasattr(density, "_graph") else None
    if graph is None:
        raise TypeError(
            f"export needs densities of flowdetect whose {answer} can be exported, got {type(density).__name__}; use "
            "e.g. MAFDensity, or an ensemble of it."
        )
    return graph


def to_rows(X: Tensor, axes: str) -> Tensor:
    """Flatten X to rows (n, n_features), as in `Layout`."""
    return (X.permute(0, 2, 3, 1) if axes == "nchw" else X).flatten(1)


def nan_where_lost(values: Tensor, rows: Tensor) -> Tensor:
    """Replace the values of rows that are not finite by NaN."""
    return torch.where(torch.isfinite(rows).all(1), values, math.nan)


def count_at_most(known: Tensor, scores: Tensor) -> Tensor:
    """Count the sorted values (m,) that are at most each score, by binary search, which ONNX lacks."""
    count, m = torch.zeros_like(scores, dtype=torch.int64), known.shape[0]
    for bit in reversed(range(m.bit_length())):
        more = count + 2**bit
        is_at_most = known[more.clamp(max=m) - 1] <= scores
        count = torch.where((more <= m) & is_at_most, more, count)
    return count


def _keep(module: nn.Module, name: str, array: Arrays | float | None) -> None:
    """Register an array or a number as a buffer, which keeps its type; ONNX stores plain numbers as float32."""
    kept = None if array is None else torch.from_numpy(np.array(array, order="C"))
    module.register_buffer(name, kept)
