"""Options that several commands share, and parsers of their values."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from flowdetect.commands.console import WrongCall

LARGEST_SEED = 2**32 - 1
MOST_ROWS = 10_000  # rows to explain
INPUT_HELP = (
    "a table (.csv or .tsv with a header, .parquet), an array (.npy, .npz), a folder of images, image files, or a "
    "named set such as digits or fashion_mnist:test"
)


class Parser(argparse.ArgumentParser):
    """A parser that raises errors instead of exiting, and accepts no abbreviated options."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**settings, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise the error of a call.

        Raises
        ------
        WrongCall
            Always.
        """
        raise WrongCall(f"{message}; see '{self.prog} --help'")


def add_console_options(parser: argparse.ArgumentParser) -> None:
    """Add options for messages and output."""
    said = parser.add_argument_group("messages")
    said.add_argument("--json", action="store_true", help="print one JSON object on standard output, also for errors")
    loud = said.add_mutually_exclusive_group()
    loud.add_argument("--quiet", action="store_true", help="print only errors")
    loud.add_argument("--verbose", action="store_true", help="show progress even without a terminal")


def add_reading_options(parser: argparse.ArgumentParser, *, fitting: bool = False) -> None:
    """Add options for reading inputs; a model file stores those of its own data."""
    kept = "" if fitting else " (default: as in fit)"
    table = parser.add_argument_group("reading tables and arrays")
    table.add_argument("--columns", metavar="A,B,...", type=names, help=f"columns to use, in this order{kept}")
    table.add_argument("--drop", metavar="A,B,...", type=names, help=f"columns to leave out{kept}")
    table.add_argument(
        "--separator", metavar="CHAR", type=character, help="character between the cells of a .csv (default: ,)"
    )
    table.add_argument("--array", metavar="NAME", help="array of an .npz with the rows")
    folder = parser.add_argument_group("reading folders of images")
    if fitting:
        folder.add_argument("--size", metavar="H,W", type=sides, help="size of the images in pixels (default: 32,32)")
        folder.add_argument("--mode", choices=["L", "RGB"], help="L is grey, RGB is colour (default: RGB)")
        folder.add_argument(
            "--fit",
            choices=["crop", "pad", "stretch"],
            help="how an image of another shape is fitted: cut, add a border, or stretch (default: crop)",
        )
    folder.add_argument("--limit", metavar="N", type=count, help="use at most N images")
    folder.add_argument(
        "--on-error",
        choices=["raise", "skip"],
        help="for damaged files: stop, or leave them out with a warning (default: skip)",
    )


def count(text: str) -> int:
    """Parse a whole number of at least 1."""
    return _whole(text, 1, None)


def seed(text: str) -> int:
    """Parse a seed."""
    return _whole(text, 0, LARGEST_SEED)


def above_zero(text: str) -> float:
    """Parse a number above 0."""
    return _number(text, 0, float("inf"), "above 0")


def share(text: str) -> float:
    """Parse a share between 0 and 1."""
    return _number(text, 0, 1, "above 0 and below 1")


def names(text: str) -> list[str]:
    """Parse names of columns, separated by commas."""
    found = [name.strip() for name in text.split(",")]
    if not all(found) or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"must be different names, separated by commas, got {text!r}")
    return found


def character(text: str) -> str:
    r"""Parse one character; \t is the tab."""
    found = "\t" if text == r"\t" else text
    if len(found) != 1:
        raise argparse.ArgumentTypeError(f"must be one character, got {text!r}")
    return found


def sides(text: str) -> tuple[int, int]:
    """Parse a height and a width in pixels; one number is both."""
    found = _counts(text, (1, 2), "H,W such as 32,32")
    return (found[0], found[-1])


def image_shape(text: str) -> tuple[int, ...]:
    """Parse height, width and optional channels."""
    return tuple(_counts(text, (2, 3), "H,W or H,W,C such as 28,28"))


def _counts(text: str, lengths: tuple[int, ...], wanted: str) -> list[int]:
    parts = text.replace("x", ",").split(",")
    if len(parts) not in lengths or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"must be {wanted}, whole numbers of at least 1, got {text!r}")
    return [int(part) for part in parts]


def _number(text: str, low: float, high: float, rule: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not low < number < high:
        raise argparse.ArgumentTypeError(f"must be a number {rule}, got {text!r}")
    return number


def _whole(text: str, least: int, most: int | None) -> int:
    rule = f"of at least {least}" if most is None else f"from {least} to {most}"
    try:
        number = int(text)
    except ValueError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        raise argparse.ArgumentTypeError(f"must be a whole number {rule}, got {text!r}")
    return number


def row_numbers(text: str) -> list[int]:
    """Parse numbers of rows from 0 and ranges of them, separated by commas."""
    found: list[int] = []
    for part in text.split(","):
        first, sign, last = part.strip().partition("-")
        if not first.isdecimal() or (sign and not last.isdecimal()):
            raise argparse.ArgumentTypeError(f"must be numbers of rows from 0, such as 3,17-19, got {text!r}")
        stop = int(last) + 1 if sign else int(first) + 1
        if not int(first) < stop <= int(first) + MOST_ROWS:
            raise argparse.ArgumentTypeError(
                f"must be at most {MOST_ROWS} rows, with ranges from low to high, got {text!r}"
            )
        found += range(int(first), stop)
    if len(set(found)) < len(found) or len(found) > MOST_ROWS:
        raise argparse.ArgumentTypeError(f"must name each row once, and at most {MOST_ROWS}, got {text!r}")
    return found
