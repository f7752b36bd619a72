"""flowdetect report: how well a model separates other data from normal data."""

from __future__ import annotations

import argparse
import os
import shlex
import time
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowdetect.commands.options import INPUT_HELP, add_reading_options, seed

if TYPE_CHECKING:
    from flowdetect.commands.console import Console
    from flowdetect.commands.models import Model
    from flowdetect.evaluation.ood import OODReport

ENDINGS = (".html", ".csv")
USAGE = "MODEL NORMAL OTHER... -o OUT [options]"
DESCRIPTION = """\
Measure how well the model separates other data from normal data that it was not
fitted to. The sets are held in memory."""
EPILOG = """\
what the numbers mean:
  AUROC      probability that a row of the other set scores lower than a normal
             row: 1 is perfect, 0.5 is guessing; with its 95 % interval
  AUPR       average precision, with the other set or the normal set as the
             positive class
  FPR95      share of normal rows that are flagged if 95 % of the other rows are

example:
  flowdetect report model.fd normal_test.csv broken.csv -o report.html
  flowdetect report model.fd normal.csv drift=week32.csv -o report.csv

The name of a set is that of its file, or the name before =, as in
drift=week32.csv. A .csv has only the numbers.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("model", metavar="MODEL", help="a file of 'flowdetect fit', or of a model's save()")
    parser.add_argument("normal", metavar="NORMAL", help=INPUT_HELP)
    parser.add_argument("others", nargs="+", metavar="OTHER", help="the same for other data; NAME=PATH gives it a name")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="file that ends in .html or .csv")
    parser.add_argument("--seed", type=seed, default=0, help="seed of the intervals (default: 0)")
    add_reading_options(parser)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Check, read, score and write."""
    from flowdetect.commands.inputs import check_fitting
    from flowdetect.commands.models import Model
    from flowdetect.commands.writing import output_path

    named = _named([options.normal, *options.others])
    path = output_path(options.output, ENDINGS, [options.model, *named.values()])
    check_fitting(options, list(named.values()))
    model = Model(options.model)
    readers = {name: model.open([each], options) for name, each in named.items()}
    import numpy as np

    from flowdetect._files import write_atomically
    from flowdetect.evaluation import ood_report

    started = time.perf_counter()
    in_set, *out_sets = named
    sets = {name: model.rows(_in_memory(reader.whole())) for name, reader in readers.items()}
    console.note(f"Scoring {sum(map(len, sets.values())):,} rows of {len(sets)} sets.")
    found = ood_report(
        {_scorer_name(model): model.estimator},
        sets[in_set],
        {name: sets[name] for name in out_sets},
        name=in_set,
        random_state=options.seed,
    )
    frame, scores = found.to_frame(), found.scores[_scorer_name(model)]
    flagged = None
    if model.is_detector:
        flagged = {name: float(np.mean(values < model.estimator.offset_)) for name, values in scores.items()}
    if path.suffix.lower() == ".csv":
        content = frame.to_csv(index=False, lineterminator="\n")
    else:
        content = _page(found, model, {name: np.asarray(X) for name, X in sets.items()}, flagged, console)
    write_atomically(path, content.encode())
    console.say(f"{found}\n\nThe report: {options.output}")
    seconds = time.perf_counter() - started
    return {
        "model": options.model,
        "output": options.output,
        "rows": {name: len(X) for name, X in sets.items()},
        "results": frame.to_dict("records"),
        "flagged": flagged,
        "seconds": seconds,
    }


def _named(inputs: list[str]) -> dict[str, str]:
    """Name each input by the word before its =, or by its file."""
    named: dict[str, str] = {}
    for each in inputs:
        name, sign, path = each.partition("=")
        if not sign or os.path.exists(each):
            path, stem = each, Path(each).stem
            name = each if stem in named or not stem else stem
        if not name or not path or name in named:
            raise ValueError(
                f"each set must have a name of its own, got {each!r} twice or without one; write NAME=PATH"
            )
        named[name] = path
    return named


def _in_memory(X: Any) -> Any:
    import numpy as np

    return X if hasattr(X, "columns") and hasattr(X, "iloc") else np.asarray(X)


def _scorer_name(model: Model) -> str:
    return model.kind


def _page(
    found: OODReport, model: Model, sets: dict[str, Any], flagged: dict[str, float] | None, console: Console
) -> str:
    """Build the HTML page."""
    import numpy as np

    from flowdetect._tensor_file import VERSION
    from flowdetect.commands.pictures import value_range
    from flowdetect.evaluation.ood_page import lowest_images, sections
    from flowdetect.evaluation.page import html_table, page, wide
    from flowdetect.evaluation.report import area_cell

    in_set, worst = found.in_set, min(found.results, key=lambda result: result["auroc"])
    others = "another set" if len(found.results) == 1 else f"{len(found.results)} other sets"
    body = [
        f"<h1>What is not like {escape(in_set)}?</h1>",
        f'<p class="lead">The hardest set is {escape(worst["out_set"])}: AUROC {area_cell(worst, "auroc")}.</p>',
        f"<p>The model {escape(model.name)}, of class {escape(model.kind)}, scored {len(sets[in_set]):,} rows of "
        f"{escape(in_set)} and rows of {others}; higher is more normal.</p>",
        found.html_table(),
    ]
    if flagged is not None:
        rows = [[name, f"{len(sets[name]):,}", f"{share:.1%}"] for name, share in flagged.items()]
        body += [
            f"<p>With the model's own threshold, {model.estimator.offset_:.6g}, this share is called outliers:</p>",
            html_table(["set", "rows", "outliers"], rows),
        ]
    body += sections(found)
    if model.image_shape is not None:
        images = {name: X.reshape(-1, *model.image_shape) for name, X in sets.items()}
        whole = np.concatenate(list(images.values()))
        grid = lowest_images(found.scores[_scorer_name(model)], images, value_range=value_range(model, whole))
        body += [
            "<h2>Images</h2><p>Of each set, those that score lowest; below each its score.</p>",
            wide(grid, "the images of each set that score lowest"),
        ]
    told = {
        "call": shlex.join(["flowdetect", *console.arguments]),
        "model": f"{model.kind} with {type(model.density).__name__}",
        "takes": model.what_it_takes,
        "flowdetect": VERSION,
    }
    body.append("<h2>The call</h2>")
    body.append(
        f'<div class="words wrapped">{html_table(["setting", "value"], [list(pair) for pair in told.items()])}</div>'
    )
    return page(f"flowdetect report: {in_set}", "\n".join(body))
