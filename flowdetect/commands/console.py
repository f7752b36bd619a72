"""Messages of a command: the result on standard output; warnings, errors and progress on standard error."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

NOISE = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning, ResourceWarning)
NUMBERS = re.compile(r"[-+]?\d[\d.,]*(?:e[-+]?\d+)?")
# words in messages of the library -> the options of the command line
OPTIONS = {
    "pass on_error='skip' to load_folder": "pass --on-error skip",
    "pass on_error='skip'": "pass --on-error skip",
    "; see skipped_": "",
    "with a larger calibration_fraction": "with --set calibration_fraction=0.3",
    "with cv=5": "with --set cv=5",
    "give select fewer rows": "give it fewer rows",
    "convert others, or pass a list of the files": "convert others, or name the files",
}


class WrongCall(ValueError):
    """An invalid call; the message is one sentence."""


class Console:
    """Messages of one command.

    Parameters
    ----------
    arguments : sequence of str
        Arguments of the call. With --json, standard output has one JSON object and nothing else.
    """

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        self.arguments, self.as_json = list(arguments), "--json" in arguments
        self.quiet = self.verbose = self.stdout_is_taken = False
        self.warnings: list[str] = []
        self._told: set[str] = set()

    def say(self, text: str) -> None:
        """Print a result; on standard error if standard output holds the output itself."""
        if not self.quiet and not self.as_json:
            print(text, file=sys.stderr if self.stdout_is_taken else sys.stdout, flush=True)

    def note(self, text: str) -> None:
        """Print the current step on standard error, if progress is shown."""
        if self.shows_progress:
            print(text, file=sys.stderr, flush=True)

    @property
    def shows_progress(self) -> bool:
        """Whether progress is shown: with a terminal, or with --verbose."""
        return not self.quiet and (self.verbose or sys.stderr.isatty())

    def finish(self, result: dict[str, Any]) -> None:
        """Print the result as JSON, if --json is set."""
        if self.as_json:
            print(json.dumps(_plain({**result, "warnings": self.warnings}), allow_nan=False), flush=True)
        sys.stdout.flush()

    @staticmethod
    def forget_output() -> None:
        """Redirect a closed standard output, so that the end of the process does not write to it again."""
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def fail(self, message: str, code: int) -> int:
        """Print one sentence about the error, and return the exit code."""
        sentence = one_sentence(message)
        print(f"flowdetect: {sentence}", file=sys.stderr, flush=True)
        if self.as_json:
            print(json.dumps({"error": sentence, "exit_code": code, "warnings": self.warnings}), flush=True)
        return code

    @contextmanager
    def warning_lines(self) -> Iterator[None]:
        """Print warnings of libraries in one line each; repetitions with other numbers are left out."""
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            for kind in NOISE:
                warnings.simplefilter("ignore", kind)
            warnings.showwarning = lambda message, *_, **__: self.warn(str(message))
            yield

    def warn(self, text: str) -> None:
        """Print a warning, once."""
        kind = NUMBERS.sub("#", text)
        if kind in self._told:
            return
        self._told.add(kind)
        self.warnings.append(one_sentence(_in_options(text)))
        if not self.quiet:
            print(f"flowdetect: warning: {self.warnings[-1]}", file=sys.stderr, flush=True)

    @contextmanager
    def progress(self, n_rows: int | None, what: str) -> Iterator[Any]:
        """Yield a function to call with the number of rows done; it draws a progress bar if progress is shown."""
        if not self.shows_progress:
            yield lambda n: None
            return
        from tqdm import tqdm

        with tqdm(total=n_rows, desc=what, unit=" rows", unit_scale=True, file=sys.stderr, leave=self.verbose) as bar:
            yield bar.update


def one_sentence(text: str) -> str:
    """Join a message of several lines or sentences to one sentence."""
    whole = " ".join(text.split()).rstrip(".; ").replace(".;", ";")
    first, *others = re.split(r"(?<=[\w)'\"\]>%])[.] (?=[A-Z])", whole)
    sentence = "; ".join([first, *map(_in_a_sentence, others)])
    return sentence if sentence.endswith("?") else f"{sentence}."


def reason_of(error: BaseException) -> str:
    """Return the message of an error for the user."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename!r}: {error.strerror}" if error.filename is not None else error.strerror
    if isinstance(error, MemoryError):
        return str(error) or "there is not enough memory; give fewer rows or columns"
    return _in_options(str(error) or type(error).__name__)


def _in_options(text: str) -> str:
    """Replace parameters in messages of the library by options of the command line."""
    for words, option in OPTIONS.items():
        text = text.replace(words, option)
    return text


def _in_a_sentence(text: str) -> str:
    """Begin a sentence with a lower-case letter, unless its first word is a name."""
    word = text.split()[0].rstrip(",:;")
    return text[:1].lower() + text[1:] if word[1:].islower() or word == "A" else text


def _plain(value: Any) -> Any:
    """Convert to values that JSON supports: no arrays, no NaN."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
