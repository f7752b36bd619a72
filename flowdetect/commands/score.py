"""flowdetect score: a score, a p-value and a label for each row."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from flowdetect.commands.options import INPUT_HELP, add_reading_options, share

if TYPE_CHECKING:
    import pandas as pd

    from flowdetect.commands.console import Console
    from flowdetect.commands.models import Model
    from flowdetect.commands.readers import Reader

ENDINGS = (".csv", ".parquet", ".jsonl")
FOUND_OUTLIERS = 1  # exit code
USAGE = "MODEL INPUT... -o OUT [options]"
DESCRIPTION = """\
Score rows: how normal is each of them? Rows are read and written in parts, so
memory does not grow with their number."""
EPILOG = """\
columns of the output:
  row       number of the row in its input, from 0; also 'file' for several
            inputs, and only 'file' for pictures
  score     higher is more normal; the unit depends on the detector (nats for a
            log-likelihood)
  p_value   share of normal rows that score as low, in (0, 1]; small for
            outliers
  label     1 normal, -1 outlier: the score is below the threshold; with --fdr
            the label depends on the p-values of all rows
For a model file with a density but no detector, the output has only the score.

example:
  flowdetect score model.fd new.csv -o scores.csv
  flowdetect score model.fd new/ -o - --fdr 0.1 | head

With --fdr Q, on average at most a share of Q of the outliers found is normal.
This compares all p-values, and keeps about 40 bytes for each row in memory.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("model", metavar="MODEL", help="a file of 'flowdetect fit', or of a model's save()")
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help=INPUT_HELP)
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="file that ends in .csv, .parquet or .jsonl, or - for standard output",
    )
    parser.add_argument("--terms", action="store_true", help="also write the terms that add up to the score")
    parser.add_argument(
        "--fdr", metavar="Q", type=share, help="control the false discovery rate of the outliers, such as 0.1"
    )
    parser.add_argument("--fail-on-outliers", action="store_true", help="exit with code 1 if there is an outlier")
    add_reading_options(parser)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Check, then read, score and write part by part."""
    from flowdetect.commands.inputs import check_fitting
    from flowdetect.commands.models import Model
    from flowdetect.commands.writing import STDOUT, need_pyarrow, output_path, table_writer

    is_stdout = options.output == STDOUT
    if is_stdout and console.as_json:
        raise ValueError("--json and -o - both write to standard output; name a file with -o")
    console.stdout_is_taken = is_stdout
    path = None if is_stdout else output_path(options.output, ENDINGS, [options.model, *options.inputs])
    need_pyarrow(path)
    check_fitting(options, options.inputs)
    model = Model(options.model)
    _check_options(options, model)
    reader = model.open(options.inputs, options)
    started, n_rows, n_outliers = time.perf_counter(), 0, 0
    with console.progress(reader.n_rows, "score") as done, table_writer(path) as writer:
        for frame in _answers(model, reader, options, done):
            writer.write(frame)
            n_rows += len(frame)
            n_outliers += int((frame["label"] == -1).sum()) if "label" in frame else 0
    seconds = time.perf_counter() - started
    result: dict[str, Any] = {"model": options.model, "output": options.output, "rows": n_rows, "seconds": seconds}
    told = f"Scored {n_rows:,} rows in {seconds:.1f} s"
    if model.is_detector:
        result |= {"outliers": n_outliers, "threshold": model.estimator.offset_, "fdr": options.fdr}
        told += f": {n_outliers:,} outliers ({n_outliers / n_rows:.1%})"
    console.say(f"{told}. {'' if is_stdout else f'The scores: {options.output}'}".rstrip())
    if options.fail_on_outliers and n_outliers:
        result["exit_code"] = FOUND_OUTLIERS
    return result


def _check_options(options: argparse.Namespace, model: Model) -> None:
    for option, asked in {"--fdr": options.fdr is not None, "--fail-on-outliers": options.fail_on_outliers}.items():
        if asked:
            model.demand_detector(option)
    if options.terms and not hasattr(model.estimator, "score_terms"):
        raise ValueError(
            f"--terms needs a detector whose score is a sum, such as OODDetector, and {options.model!r} holds a "
            f"{model.kind}; leave it out"
        )


def _answers(
    model: Model, reader: Reader, options: argparse.Namespace, done: Callable[[int], Any]
) -> Iterator[pd.DataFrame]:
    """Yield the rows of the output part by part; with --fdr after all p-values are known."""
    import numpy as np

    if options.fdr is None:
        for places, verdicts in _scored(model, reader, options, done):
            yield _frame(places, verdicts)
        return
    from flowdetect.detectors.calibration import select_by_p_values

    kept = list(_scored(model, reader, options, done))
    p_values = np.concatenate([verdicts["p_value"] for _, verdicts in kept])
    labels = select_by_p_values(p_values, options.fdr, len(model.estimator.calibration_scores_))
    start = 0
    for places, verdicts in kept:
        stop = start + len(verdicts["score"])
        yield _frame(places, {**verdicts, "label": labels[start:stop]})
        start = stop


def _scored(
    model: Model, reader: Reader, options: argparse.Namespace, done: Callable[[int], Any]
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield the places of the rows and their verdicts, part by part."""
    for places, rows in placed_parts(reader):
        X = model.rows(rows)
        estimator = model.estimator
        verdicts = dict(estimator.verdicts(X)) if model.is_detector else {"score": estimator.score_samples(X)}
        if options.terms:
            verdicts |= dict(estimator.score_terms(X))
        yield places, verdicts
        done(len(rows))


def placed_parts(reader: Reader) -> Iterator[tuple[Any, Any]]:
    """Yield parts of an input: a dict of `file`, `row` or both with the places of the rows, and the rows."""
    import numpy as np

    each = getattr(reader, "readers", [reader])
    for one in each:
        start = 0
        for rows in one.parts():
            stop = start + len(rows)
            if one.files is not None:
                yield {"file": one.files[start:stop]}, rows
            else:
                named = {"file": one.name} if len(each) > 1 else {}
                yield {**named, "row": np.arange(start, stop)}, rows
            start = stop


def _frame(places: dict[str, Any], verdicts: dict[str, Any]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({**places, **verdicts})
