"""flowdetect fit: learn what is normal from a table or from images, and write a model file."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from flowdetect.commands.options import (
    INPUT_HELP,
    above_zero,
    add_reading_options,
    count,
    image_shape,
    seed,
)

if TYPE_CHECKING:
    from flowdetect.commands.console import Console
    from flowdetect.commands.readers import Reader, Settings

FEWEST_HELD_OUT = 10  # rows whose scores set a threshold
USUAL_SIZE = (32, 32)  # of pictures, pixels
USAGE = "INPUT... -o MODEL.fd [options]"
DESCRIPTION = """\
Learn what is normal from a table or from images, and write a model file.

The rows should be normal: rows that are rare among them are later called
outliers. Without --density, a table is learned by nearest neighbours, in
seconds; images by a small PixelCNN, in about five minutes of one core for
28 x 28 grey pixels."""
EPILOG = """\
example:
  flowdetect fit normal.csv -o model.fd --drop id
  flowdetect fit photos/ -o model.fd --size 32,32 --mode L --time-limit 300

The threshold is set on rows that the model was not trained on, and calls one
in ten of them an outlier; --contamination sets another share. The model file
stores the names of the columns, or the size of the images, so that
'flowdetect score' reads new data in the same way. It contains no code, and is
safe to load from any source.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help=INPUT_HELP)
    parser.add_argument("-o", "--output", required=True, metavar="MODEL.fd", help="the model file to write")
    model = parser.add_argument_group("the model")
    model.add_argument(
        "--detector", default="OODDetector", metavar="NAME", help="such as Likelihood (default: %(default)s)"
    )
    model.add_argument("--density", metavar="NAME", help="such as RealNVP or Glow (default: the detector's own)")
    model.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a parameter of the detector or the density, such as n_steps=4; may be repeated",
    )
    model.add_argument(
        "--contamination",
        metavar="SHARE",
        type=_share_or_auto,
        help="share of outliers in the rows, above 0 and at most 0.5, or auto",
    )
    model.add_argument("--label", metavar="NAME", help="column, or array of an .npz, with class labels")
    model.add_argument("--image-shape", metavar="H,W[,C]", type=image_shape, help="rows are images of this shape")
    training = parser.add_argument_group("the training")
    training.add_argument(
        "--epochs", metavar="N", type=count, help="passes over the rows, for a density that trains in epochs"
    )
    training.add_argument("--time-limit", metavar="SECONDS", type=above_zero, help="approximate seconds for the fit")
    training.add_argument("--seed", type=seed, default=0, help="seed of all random numbers (default: 0)")
    training.add_argument("--device", metavar="NAME", help="cpu, cuda, ... (default: the fastest available)")
    training.add_argument(
        "--checkpoint", metavar="FOLDER", help="store checkpoints there; the same call resumes from them"
    )
    add_reading_options(parser, fitting=True)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Check, read, fit and save."""
    from flowdetect.commands.inputs import check_fitting, is_same_file, open_inputs
    from flowdetect.commands.models import model_path, notes

    path = model_path(options.output)
    same = next((name for name in options.inputs if is_same_file(path, name)), None)
    if same is not None:
        raise ValueError(f"-o must be another file than the inputs, got {same!r} as both; choose another name")
    check_fitting(options, options.inputs)
    settings = _settings(options)
    reader = open_inputs(options.inputs, settings)
    from flowdetect.commands.choosing import build
    from flowdetect.commands.readers import what_it_is

    model = build(options, console.shows_progress)
    X, started = reader.whole(), time.perf_counter()
    _check_rows(reader)
    console.note(f"Fitting {type(model).__name__} to {reader.n_rows:,} rows of {reader.name}, {what_it_is(reader)}.")
    try:
        model.fit(X, _labels(options, model, reader))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "" if options.checkpoint else "with --checkpoint FOLDER the same call resumes an interrupted fit"
        ) from None
    _hold_out_threshold(model)
    from flowdetect._persistence import save

    save(model, path, notes(settings))
    result = _result(options, model, reader, time.perf_counter() - started)
    console.say(
        f"Fitted in {result['seconds']:.1f} s; rows that score below {result['threshold']:.6g} are outliers. "
        f"The model: {options.output}"
    )
    return result


def _settings(options: argparse.Namespace) -> Settings:
    from flowdetect.commands.inputs import kinds_of
    from flowdetect.commands.readers import Settings

    return Settings(
        columns=options.columns,
        drop=options.drop or [],
        label=options.label,
        separator=options.separator,
        array=options.array,
        size=options.size or (USUAL_SIZE if "pictures" in kinds_of(options.inputs).values() else None),
        mode=options.mode or "RGB",
        fit=options.fit or "crop",
        limit=options.limit,
        on_error=options.on_error or "skip",
    )


def _check_rows(reader: Reader) -> None:
    if reader.n_rows is not None and reader.n_rows < 2:
        raise ValueError(f"fit needs at least 2 rows, got {reader.n_rows} in {reader.name!r}; give more")


def _labels(options: argparse.Namespace, model: Any, reader: Reader) -> Any:
    """Return the labels if --label is given or the density is conditional."""
    wants = options.label is not None or getattr(getattr(model, "density", None), "conditional", False)
    return reader.labels if wants else None


def _hold_out_threshold(model: Any) -> None:
    """Set the threshold on the held-out rows, if there are enough of them.

    A density may give its training rows a higher likelihood than new rows; a threshold set on training rows would then
    call too many new rows outliers.
    """
    import numpy as np

    from flowdetect.detectors import OODDetector

    share = model._share
    knows_outliers = isinstance(model, OODDetector) and model.image_shape_ is None and model.contamination != "auto"
    if model.cv is None and not knows_outliers and len(model.calibration_scores_) >= FEWEST_HELD_OUT:
        model.offset_ = float(np.quantile(model.calibration_scores_, share))


def _result(options: argparse.Namespace, model: Any, reader: Reader, seconds: float) -> dict[str, Any]:
    members = getattr(model, "members_", None)
    density = (members[0] if members else model).density_
    return {
        "model": options.output,
        "detector": type(model).__name__,
        "density": type(density).__name__,
        "rows": reader.n_rows,
        "columns": reader.columns,
        "image_shape": model.image_shape_,
        "threshold": model.offset_,
        "calibration_rows": len(model.calibration_scores_),
        "seed": options.seed,
        "seconds": seconds,
    }


def _share_or_auto(text: str) -> float | str:
    if text == "auto":
        return text
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not 0 < number <= 0.5:
        raise argparse.ArgumentTypeError(f"must be a number above 0 and at most 0.5, or auto, got {text!r}")
    return number
