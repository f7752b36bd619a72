"""Export of scores as graphs that run without flowdetect: `torch.export` or ONNX, tested before they are written."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from flowdetect._files import as_path, check_writable, write_atomically
from flowdetect._graphs import Verdict
from flowdetect._protocols import PathName
from flowdetect._reach import OutOfReachError
from flowdetect.density._devices import in_torch_state
from flowdetect.density.graphs import ModelGraph, ScoreOutput, TermsGraph, VerdictOutput, graph_of
from flowdetect.density.model import DensityModel

FORMATS = "torch", "onnx"
N_TRIED = 8  # rows
FAR = 5.0  # half of them are spread this much wider than the data: far out, operators lose digits
# tolerance of the file's scores: nats, plus float32's rounding of a sum of that size or of so many values
TOLERANCE, ROUNDING = 1e-5, 32 * float(np.finfo(np.float32).eps)
MOST_OF_ONNX = 2**31 - 2**20  # bytes; a protobuf message holds at most 2 GiB
QUIET = "torch.onnx", "torch.export", "torch.__trace", "onnxscript", "onnx_ir"  # loggers to silence
Arrays = NDArray[Any]
Runner = Callable[[Arrays], list[Arrays]]


class Exports:
    """Adds `export` to a density: writes its score as a graph."""

    @property
    def not_exported(self) -> dict[str, str]:
        """Formats that `export` cannot write for this density, each with the reason."""
        return {}

    @property
    def export_formats(self) -> tuple[str, ...]:
        """Formats that `export` can write for this density."""
        return tuple(name for name in FORMATS if not any(name in each.not_exported for each in _within(self)))

    def export(self, path: PathName, *, format: str = "torch") -> None:
        """Write the score as a graph that runs without flowdetect.

        The graph takes X as a float64 array in the layout and units of the training data, with any number of rows. It
        returns ``score``, (n,) float64, equal to ``score_samples(X, dequantize=False)``; for a conditional density, the
        sum over classes. A graph raises no errors. For rows that `score_samples` refuses, the score is NaN if the row
        holds NaN or infinity, and -inf if it lies too far from the training data.

        Parameters
        ----------
        path : str or path
            An existing file is replaced only after the new one is complete and tested: on eight rows its scores must
            equal those of `score_samples` to 1e-5 nats plus float32's rounding of a sum of that size.
        format : {"torch", "onnx"}, default="torch"
            "torch": a ``.pt2`` of `torch.export`, for ``torch.export.load(path).module()``; load only files that you
            trust. "onnx": for onnxruntime and other engines; needs ``pip install 'flowdetect-ood[onnx]'``.

        Raises
        ------
        ValueError
            If the format is unknown, or this density cannot be written in it (see `export_formats`); with
            format="torch", if the path does not end in ".pt2".
        ImportError
            If a library is missing.
        OSError
            If the file cannot be written.
        RuntimeError
            If the file's scores differ from those of `score_samples`; nothing is then written.

        Examples
        --------
        >>> import numpy as np, os, tempfile, torch
        >>> from flowdetect import NeighborsDensity
        >>> X = np.random.default_rng(0).normal(size=(50, 2))
        >>> density = NeighborsDensity().fit(X)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "density.pt2")
        ...     density.export(path)
        ...     score = torch.export.load(path).module()
        >>> bool(np.allclose(score(torch.from_numpy(X))[0].numpy(), density.score_samples(X)))
        True
        """
        check_is_fitted(self)
        check_formats([self], format)
        axes, X = self._graph_input()
        expected = without_refusals(self._score_without_noise, X)
        write_graph(ScoreOutput(graph_of(self), axes), X, expected, path, format, self)

    def _export_verdict(self, detector: Any, verdict: Verdict, path: PathName, format: str) -> None:
        """Write a detector's answers (score, p-value, label) as one graph."""
        densities = [density for single in verdict.singles for density, _ in single.asked]
        check_formats(densities, format)
        axes, X = self._graph_input()
        output = VerdictOutput(verdict, axes)
        if any(getattr(graph, "n_noise", 0) for graph in output.modules() if not isinstance(graph, DensityModel)):
            raise ValueError(
                f"{verdict.name} cannot be exported with {type(self).__name__}: the score of these data uses noise "
                "keyed by the row, which a graph lacks, so its scores would differ from those of the calibration. "
                "Export the density alone, whose graph is score_samples(X, dequantize=False), or use a density "
                "without noise, such as PixelCNNDensity, NADEDensity or MADEDensity."
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of drawn rows
            expected = detector.score_samples(X)
        write_graph(output, X, expected, path, format, detector)

    # ---- hooks for a density

    def _graph(self: Any, answer: str = "score_samples") -> nn.Module | None:
        """Return a module that computes a method: rows (n, n_features) float64 -> (n,); None if there is none."""
        kinds = {"score_samples": ModelGraph, "likelihood_terms": TermsGraph}
        return kinds[answer](self.model_, self.spec_) if answer in kinds else None

    def _graph_input(self: Any) -> tuple[str, Any]:
        """Return the axes of X, as in `Layout`, and some rows in the data's layout for testing a graph."""
        spec, rows = self.spec_, self.spec_.random_rows(N_TRIED)
        if spec.loc is not None:
            centre = spec.with_constants(spec.loc[None])
            rows[N_TRIED // 2 :] = centre + FAR * (rows[N_TRIED // 2 :] - centre)
        return spec.layout.axes, spec.arranged(rows)

    def _score_without_noise(self: Any, X: Any) -> NDArray[np.float64]:
        scores: NDArray[np.float64] = self.score_samples(X, dequantize=False)
        return scores


def check_formats(densities: list[Any], format: Any) -> None:
    """Refuse an unknown format, one that a density cannot be written in, and one whose libraries are missing."""
    if not isinstance(format, str) or format not in FORMATS:
        raise ValueError(f'export needs format="torch" or "onnx", got {format!r}.')
    for density in densities:
        for each in _within(density):
            reason = getattr(each, "not_exported", {}).get(format)
            if reason is not None:
                raise ValueError(f"{type(each).__name__} cannot be exported with format={format!r}: {reason}")
    if format == "onnx":
        _import_onnx()


def _within(density: Any) -> Iterator[Any]:
    """Yield the densities inside a density."""
    density = density.estimator if isinstance(density, FrozenEstimator) else density
    members = getattr(density, "members_", None)
    if members is None:
        yield density
    for member in members or ():
        yield from _within(member)


def _import_onnx() -> Any:
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'format="onnx" needs onnx, onnxscript and onnxruntime ({error}): run pip install '
            "'flowdetect-ood[onnx]'; or "
            f'pass format="torch".'
        ) from error
    return onnxruntime


def without_refusals(score: Callable[[Any], NDArray[np.float64]], X: Any) -> NDArray[np.float64]:
    """Score rows one by one, with -inf for rows that are refused as too far out: (n,)."""
    scores = np.full(len(X), -np.inf)
    for i in range(len(X)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of drawn rows
            try:
                scores[i] = score(X[i : i + 1])[0]
            except OutOfReachError:
                continue
    return scores


@in_torch_state()
def write_graph(
    output: ScoreOutput | VerdictOutput,
    X: Any,
    expected: NDArray[np.float64],
    path: PathName,
    format: str,
    estimator: Any,
) -> None:
    """Trace a graph, test it on rows with known scores, and write it atomically.

    Parameters
    ----------
    output : module of X -> tensors
    X : some rows in the data's layout
    expected : (n,) scores of these rows by `score_samples`
    path, format : as in `Exports.export`
    estimator : the exported estimator; its class and columns are written as metadata
    """
    file, name = as_path(path), type(estimator).__name__
    if format == "torch" and file.suffix != ".pt2":
        raise ValueError(f'path must end in ".pt2", as torch.export.load demands, got {str(path)!r}.')
    check_writable(file)
    rows = np.ascontiguousarray(np.asarray(X, dtype=np.float64))
    told = {"estimator": name, "outputs": list(output.names), "row_shape": list(rows.shape[1:])}
    if hasattr(estimator, "feature_names_in_"):
        told["columns"] = [str(column) for column in estimator.feature_names_in_]
    with _quietly():
        n_rows = {0: torch.export.Dim("n")}
        program = torch.export.export(output.eval(), (torch.from_numpy(rows),), dynamic_shapes=(n_rows,))
        content, run = (_torch_file if format == "torch" else _onnx_file)(program, output.names, told)
        _check_answers(run, rows, expected, output, f"{name}.export(format={format!r})")
    write_atomically(file, content)


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence the exporters' hints, which are about operators of other models."""
    loggers = [logging.getLogger(name) for name in QUIET]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _log_sigmoid(x: Tensor) -> Tensor:
    return x.clamp(max=0.0) - torch.log(1 + torch.exp(-x.abs()))


def _log_sigmoid_forward(x: Tensor) -> tuple[Tensor, Tensor]:
    return _log_sigmoid(x), x


def _expm1(x: Tensor) -> Tensor:
    return torch.tanh(x / 2) * (torch.exp(x) + 1)


# ONNX has none of these; its exporter writes log(sigmoid(x)), inexact far below 0, and exp(x) - 1, inexact near 0
PRECISE = {
    torch.ops.aten.log_sigmoid.default: _log_sigmoid,
    torch.ops.aten.log_sigmoid_forward.default: _log_sigmoid_forward,
    torch.ops.aten.expm1.default: _expm1,
}


def _torch_file(program: Any, names: tuple[str, ...], told: dict[str, Any]) -> tuple[bytes, Runner]:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"flowdetect.json": json.dumps(told)})
    content = buffer.getvalue()
    module = torch.export.load(io.BytesIO(content)).module()
    return content, lambda rows: [tensor.numpy() for tensor in module(torch.from_numpy(rows))]


def _onnx_file(program: Any, names: tuple[str, ...], told: dict[str, Any]) -> tuple[bytes, Runner]:
    onnxruntime = _import_onnx()
    n_bytes = sum(tensor.nbytes for tensor in program.state_dict.values())
    if n_bytes > MOST_OF_ONNX:
        raise ValueError(
            f'format="onnx" writes one file of at most 2 GiB, and this graph holds {n_bytes:,} bytes; pass '
            f'format="torch".'
        )
    program = program.run_decompositions(PRECISE)
    made = torch.onnx.export(program, dynamo=True, verbose=False, input_names=["X"], output_names=list(names))
    assert made is not None
    made.model.metadata_props["flowdetect"] = json.dumps(told)
    content, options = made.model_proto.SerializeToString(), onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return content, lambda rows: list(session.run(list(names), {"X": rows}))


def _check_answers(
    run: Runner, rows: Arrays, expected: NDArray[np.float64], output: ScoreOutput | VerdictOutput, what: str
) -> None:
    """Check that the file gives the expected scores, for all rows at once and for one, and verdicts that match them."""
    answers = run(rows)
    alone = run(rows[:1])
    with np.errstate(invalid="ignore"):
        allowed = TOLERANCE + ROUNDING * np.maximum(np.abs(expected), rows[0].size)
        for scores, ours, most in ((answers[0], expected, allowed), (alone[0], expected[:1], allowed[:1])):
            is_same = (scores == ours) | (np.abs(scores - ours) <= most)
            if not is_same.all():
                i = int(np.flatnonzero(~is_same)[0])
                raise RuntimeError(
                    f"{what}: the file's scores must equal those of score_samples, got {scores[i]} instead of "
                    f"{ours[i]} (row {i} of {len(ours)} tested); nothing was written. Please report it, with the "
                    "versions of torch and onnxruntime."
                )
    if isinstance(output, VerdictOutput):
        _check_verdict(output, *answers)


def _check_verdict(output: VerdictOutput, scores: Arrays, p_values: Arrays, labels: Arrays) -> None:
    """Check that the file's p-values and labels follow from its own scores."""
    is_right = np.array_equal(labels, np.where(scores - output.offset.item() >= 0, 1, -1))
    if len(output.singles) == 1:
        known = output.singles[0].known.numpy()
        at_most = np.searchsorted(known, scores, side="right")
        is_right &= np.allclose(p_values, (1 + at_most) / (1 + len(known)), rtol=1e-12, atol=0)
    if not is_right:
        raise RuntimeError(
            "export: the file's p-values or labels do not follow from its scores; nothing was written. Please report "
            "this."
        )
