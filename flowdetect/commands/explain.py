"""flowdetect explain: which columns, or which part of an image, make a row unusual."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from flowdetect.commands.options import INPUT_HELP, add_reading_options, count, row_numbers

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from flowdetect.commands.console import Console
    from flowdetect.commands.models import Model
    from flowdetect.commands.readers import Reader
    from flowdetect.explanation import Explanation

ENDINGS = (".csv", ".parquet", ".jsonl", ".html", ".png")
DRAWN = (".html", ".png")
MOST_DRAWN = 50  # rows
N_LISTED = 5  # columns of a row, on a page
USAGE = "MODEL INPUT -o OUT [options]"
DESCRIPTION = """\
Explain why rows are unusual: for a table, which columns, and which values would
be normal; for images, which region."""
EPILOG = """\
columns of the output for a table, one line for each row and column, the most
important first:
  importance    share of the column in what makes the row unusual, in [0, 1]
  usual_value   nearest value with which the row would be normal, if 'suffices'
                is True; else the best value that was tried
  gain          how much the score rises with best_value
  cell_p_value, residual_p_value
                how rare the value is, given the other columns of its row
columns of the output for images, one line for each pixel: y from the top, x
from the left, and its importance: the gain of the score per replaced pixel

example:
  flowdetect explain model.fd new.csv -o why.html
  flowdetect explain model.fd new.csv -o why.csv --rows 3,17-19

Without --rows, the rows with the lowest scores are explained. A row of a table
takes 32 scores for each column, an image takes 196.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("model", metavar="MODEL", help="a file of 'flowdetect fit', or of a model's save()")
    parser.add_argument("input", metavar="INPUT", help=INPUT_HELP)
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT", help="file that ends in .csv, .parquet, .jsonl, .html or .png"
    )
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--rows", metavar="A,B-C,...", type=row_numbers, help="numbers of the rows to explain, from 0")
    chosen.add_argument(
        "--lowest", metavar="N", type=count, default=5, help="explain the N rows with the lowest scores (default: 5)"
    )
    add_reading_options(parser)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Check, choose rows, explain and write."""
    from flowdetect.commands.inputs import check_fitting
    from flowdetect.commands.models import Model
    from flowdetect.commands.writing import need_pyarrow, output_path

    path = output_path(options.output, ENDINGS, [options.model, options.input])
    need_pyarrow(path)
    n_asked = options.lowest if options.rows is None else len(options.rows)
    if path.suffix.lower() in DRAWN and n_asked > MOST_DRAWN:
        raise ValueError(
            f"--rows or --lowest must name at most {MOST_DRAWN} rows for a picture or page, got {n_asked}; name "
            f"fewer, or write a .csv"
        )
    check_fitting(options, [options.input])
    model = Model(options.model)
    model.demand_detector("explain")
    reader = model.open([options.input], options)
    if options.rows is not None and reader.n_rows is not None:
        _check_numbers(options.rows, reader.n_rows, reader)
    started = time.perf_counter()
    places, rows = _chosen(options, model, reader, console)
    explanation = model.estimator.explain(model.rows(rows))
    _write(explanation, places, path, model)
    seconds = time.perf_counter() - started
    console.say(f"Explained {len(places)} rows in {seconds:.1f} s: {options.output}")
    return {"model": options.model, "output": options.output, "rows": places, "seconds": seconds}


def _chosen(
    options: argparse.Namespace, model: Model, reader: Reader, console: Console
) -> tuple[list[Any], NDArray[Any]]:
    """Read the rows to explain: the number or file of each, and their values."""
    import numpy as np

    kept: dict[int, Any] = {}
    scores: dict[int, float] = {}
    start = 0
    with console.progress(reader.n_rows, "read") as done:
        for part in reader.parts():
            if options.rows is not None:
                kept |= {i: part[i - start].copy() for i in options.rows if start <= i < start + len(part)}
            else:
                found = model.estimator.score_samples(model.rows(part))
                scores |= {start + i: float(found[i]) for i in np.argsort(found, kind="stable")[: options.lowest]}
                order = sorted(scores, key=lambda i: (scores[i], i))[: options.lowest]
                scores = {i: scores[i] for i in order}
                kept = {i: kept[i] if i in kept else part[i - start].copy() for i in order}
            start += len(part)
            done(len(part))
    numbers = list(scores) if options.rows is None else options.rows
    _check_numbers(numbers, start, reader)
    places = [reader.files[i] if reader.files is not None else i for i in numbers]
    return places, np.stack([kept[i] for i in numbers])


def _check_numbers(numbers: list[int], n_rows: int, reader: Reader) -> None:
    beyond = next((number for number in numbers if number >= n_rows), None)
    if beyond is not None:
        raise ValueError(
            f"--rows must be numbers of rows of {reader.name!r}, 0 to {n_rows - 1}, got {beyond}; correct it"
        )


def _write(explanation: Explanation, places: list[Any], path: Any, model: Model) -> None:
    from flowdetect._files import write_atomically

    ending = path.suffix.lower()
    if ending == ".png":
        from flowdetect.evaluation.page import as_png

        write_atomically(path, as_png(_figure(explanation, places)))
    elif ending == ".html":
        write_atomically(path, _page(explanation, places, model).encode())
    else:
        from flowdetect.commands.writing import table_writer

        with table_writer(path) as writer:
            writer.write(_frame(explanation, places))


def _frame(explanation: Explanation, places: list[Any]) -> pd.DataFrame:
    """Return the lines of the explanation, each with the number or the file of its row."""
    frame = explanation.to_frame()
    named = frame["row"].map(dict(enumerate(places)))
    if isinstance(places[0], str):
        return frame.assign(row=named).rename(columns={"row": "file"})
    return frame.assign(row=named)


def _figure(explanation: Explanation, places: list[Any], rows: range | None = None) -> Any:
    """Draw rows, by default all, one below the other."""
    from matplotlib.figure import Figure

    rows = range(len(places)) if rows is None else rows
    n_bars = min(12, explanation.importance.shape[-1]) if explanation.importance.ndim == 2 else 0
    height = 1.3 + 0.3 * n_bars if n_bars else 3.2
    figure = Figure(figsize=(7.0, height * len(rows)), layout="constrained")
    for ax, row in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        explanation.plot(row, ax=ax)
        title = ax.get_title(loc="left")
        ax.set_title(title.replace(f"row {row}", _called(places[row]), 1), loc="left", fontsize="medium")
    return figure


def _page(explanation: Explanation, places: list[Any], model: Model) -> str:
    """Build the HTML page: a picture for each row, and for tables the most important columns as numbers."""
    from html import escape

    from flowdetect.evaluation.page import as_html, html_table, page

    is_table = explanation.importance.ndim == 2
    meaning = (
        "Each bar is a column. It shows the share of the column in what makes the row unusual, its value, and the "
        "nearest value with which the row would be normal if only this column changed."
        if is_table
        else "The map beside each image shows how much the score rises if a region is replaced: bright is more."
    )
    body = [
        f"<h1>Why are these rows unusual to {escape(model.name)}?</h1>",
        f"<p>{meaning} Rows that score below {explanation.threshold:.6g} are outliers.</p>",
    ]
    frame = _frame(explanation, places)
    shown = ["column", "value", "usual_value", "suffices", "importance", "cell_p_value"]
    for row, place in enumerate(places):
        body.append(f"<h2>{escape(_called(place))}</h2>")
        body.append(as_html(_figure(explanation, places, range(row, row + 1)), f"what makes {_called(place)} unusual"))
        if is_table:
            lines = frame[frame["row"] == place][shown].head(N_LISTED)
            cells = [[_cell(value) for value in line] for line in lines.itertuples(index=False)]
            body.append(f'<div class="words">{html_table(shown, cells)}</div>')
    return page(f"flowdetect explain: {model.name}", "\n".join(body))


def _called(place: Any) -> str:
    return place if isinstance(place, str) else f"row {place}"


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    return ("no", "yes")[int(value)] if str(value) in ("True", "False") else f"{value:.4g}"
