"""flowdetect sample: new rows or images from the density in a model."""

from __future__ import annotations

import argparse
import inspect
import io
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowdetect.commands.options import above_zero, count, seed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowdetect.commands.console import Console
    from flowdetect.commands.models import Model

TABLES = (".csv", ".parquet", ".jsonl")
ENDINGS = (".npy", *TABLES, ".png")
MOST_IN_A_GRID = 400
USAGE = "MODEL -o OUT [options]"
DESCRIPTION = """\
Draw new rows or images from the density in the model, to see what the model has
learned."""
EPILOG = """\
what is written:
  .npy              an array in the layout of the training data
  .csv, .parquet    one line for each row, with the columns of the training
                    table
  .png              one picture with all images
  a folder          one .png for each image; the folder must be new or empty

example:
  flowdetect sample model.fd -n 16 -o samples.png

A lower --temperature gives rows that are more likely and more similar.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("model", metavar="MODEL", help="a file of 'flowdetect fit', or of a model's save()")
    parser.add_argument("-n", "--number", type=count, default=16, help="number of rows or images (default: 16)")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="file that ends in .npy, .csv, .parquet or .png, or a folder/",
    )
    parser.add_argument(
        "--temperature", type=above_zero, help="factor of the standard deviation of the noise (default: 1)"
    )
    parser.add_argument("--label", help="class to draw from, for a model fitted with classes")
    parser.add_argument("--seed", type=seed, default=0, help="seed of the random numbers (default: 0)")


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Check, draw and write."""
    from flowdetect.commands.models import Model
    from flowdetect.commands.writing import need_pyarrow, output_path

    is_folder = options.output.endswith(("/", os.sep)) or os.path.isdir(options.output)
    path = _new_folder(options.output) if is_folder else output_path(options.output, ENDINGS, [options.model])
    need_pyarrow(path)
    model = Model(options.model)
    settings = _settings(options, model)
    if model.image_shape is None and (is_folder or path.suffix.lower() == ".png"):
        raise ValueError(
            f"-o must end in .npy, .csv or .parquet, since {options.model!r} was fitted to tables, got "
            f"{options.output!r}"
        )
    if path.suffix.lower() == ".png" and options.number > MOST_IN_A_GRID:
        raise ValueError(
            f"-n must be at most {MOST_IN_A_GRID} for one picture, got {options.number}; name a folder/ or .npy"
        )
    started = time.perf_counter()
    rows = model.density.sample(options.number, **settings)
    if isinstance(rows, tuple):  # of scikit-learn's mixtures, with the components
        rows = rows[0]
    if getattr(model.estimator, "_chooses", False) and model.image_shape is not None:
        rows = model.estimator._from_levels(rows)
    _write(rows, path, model, is_folder)
    seconds = time.perf_counter() - started
    console.say(f"Drew {options.number:,} {'rows' if model.image_shape is None else 'images'}: {options.output}")
    return {"model": options.model, "output": options.output, "rows": options.number, "seconds": seconds}


def _settings(options: argparse.Namespace, model: Model) -> dict[str, Any]:
    """Return the arguments for the density's `sample`, or raise if it does not support them."""
    kind = type(model.density).__name__
    if not hasattr(model.density, "sample"):
        raise ValueError(f"{options.model!r} holds a {kind}, which cannot draw rows; fit with another --density")
    takes = inspect.signature(model.density.sample).parameters
    found: dict[str, Any] = {"random_state": options.seed} if "random_state" in takes else {}
    if options.temperature is not None:
        if "temperature" not in takes:
            raise ValueError(
                f"--temperature needs a density that draws from noise, such as Glow, got {options.temperature:g} for a "
                f"{kind}; leave it out"
            )
        found["temperature"] = options.temperature
    if options.label is not None:
        classes = getattr(model.density, "classes_", None)
        there = {} if classes is None else {str(each): each for each in classes.tolist()}
        if options.label not in there:
            known = f"one of {', '.join(there)}" if there else "left out, since the model has no classes"
            raise ValueError(
                f"--label must be {known}, got {options.label!r}; fit with --set conditional=True for classes"
            )
        found["y"] = [there[options.label]] * options.number
    return found


def _new_folder(name: str) -> Path:
    """Return the path of a new or empty folder, or raise if it cannot be written."""
    path = Path(os.path.realpath(name))
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"-o must be a new or empty folder, and {name!r} is a file; choose another name")
    if path.exists() and any(path.iterdir()):
        raise FileExistsError(f"-o must be a new or empty folder, and {name!r} holds files; choose another name")
    from flowdetect._files import check_writable

    check_writable(path, "-o")
    return path


def _write(rows: Any, path: Path, model: Model, is_folder: bool) -> None:
    import numpy as np

    from flowdetect._files import write_atomically

    rows = np.asarray(rows)
    ending = path.suffix.lower()
    if is_folder:
        _write_folder(_images(rows, model), path, model)
    elif ending == ".npy":
        content = io.BytesIO()
        np.save(content, rows, allow_pickle=False)
        write_atomically(path, content.getvalue())
    elif ending == ".png":
        from flowdetect.commands.pictures import image_grid
        from flowdetect.evaluation.page import as_png

        n_columns = int(np.ceil(np.sqrt(len(rows))))
        write_atomically(path, as_png(image_grid(_images(rows, model), model, n_columns=n_columns)))
    else:
        import pandas as pd

        from flowdetect.commands.writing import table_writer

        flat = rows.reshape(len(rows), -1)
        with table_writer(path) as writer:
            writer.write(pd.DataFrame(flat, columns=model.columns or [f"x{i}" for i in range(flat.shape[1])]))


def _write_folder(images: NDArray[Any], path: Path, model: Model) -> None:
    """Write one picture for each image to a folder, which is created only after all are written."""
    from PIL import Image

    from flowdetect.commands.pictures import as_bytes

    shown = as_bytes(images, model)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".flowdetect-") as hidden:
        made = Path(hidden, "images")
        made.mkdir()
        for i, image in enumerate(shown):
            single = image[..., 0] if image.shape[2] != 3 else image
            Image.fromarray(single).save(made / f"{i:0{len(str(len(shown) - 1))}d}.png")
        if path.exists():
            path.rmdir()
        made.rename(path)


def _images(rows: NDArray[Any], model: Model) -> NDArray[Any]:
    return rows.reshape(len(rows), *(model.image_shape or ()))
