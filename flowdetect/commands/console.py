"""What a command says: its result on standard output, warnings, errors and progress on standard error."""

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
# what the library tells to pass, and how it is called here
OPTIONS = {
    "pass on_error='skip' to load_folder": "pass --on-error skip",
    "pass on_error='skip'": "pass --on-error skip",
    "; see skipped_": "",
    "a larger calibration_fraction": "a larger share by --set calibration_fraction=0.3",
    "by cv=5": "by --set cv=5",
    "give select fewer rows": "give it fewer rows",
    "convert others, or pass a list of the files": "convert others, or name the files",
}


class WrongCall(ValueError):
    """What is wrong with the words of a call, in one sentence."""


class Console:
    """Where a command speaks.

    Parameters
    ----------
    arguments : sequence of str
        Those of the call. With --json: one JSON object on standard output, and no other word there.
    """

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        self.arguments, self.as_json = list(arguments), "--json" in arguments
        self.quiet = self.verbose = self.stdout_is_taken = False
        self.warnings: list[str] = []
        self._told: set[str] = set()

    def say(self, text: str) -> None:
        """Tell what is done; on standard error where standard output holds the answer."""
        if not self.quiet and not self.as_json:
            print(text, file=sys.stderr if self.stdout_is_taken else sys.stdout, flush=True)

    def note(self, text: str) -> None:
        """Tell what is being done, on standard error, where progress is shown."""
        if self.shows_progress:
            print(text, file=sys.stderr, flush=True)

    @property
    def shows_progress(self) -> bool:
        """Whether there is a terminal, or --verbose."""
        return not self.quiet and (self.verbose or sys.stderr.isatty())

    def finish(self, result: dict[str, Any]) -> None:
        """Write the result, if it is asked for as JSON."""
        if self.as_json:
            print(json.dumps(_plain({**result, "warnings": self.warnings}), allow_nan=False), flush=True)
        sys.stdout.flush()

    @staticmethod
    def forget_output() -> None:
        """Drop what standard output cannot take any more, so that the end of the process does not try again."""
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def fail(self, message: str, code: int) -> int:
        """Tell in one sentence why there is no result; give the exit code."""
        sentence = one_sentence(message)
        print(f"flowdetect: {sentence}", file=sys.stderr, flush=True)
        if self.as_json:
            print(json.dumps({"error": sentence, "exit_code": code, "warnings": self.warnings}), flush=True)
        return code

    @contextmanager
    def warning_lines(self) -> Iterator[None]:
        """Turn what libraries warn of into a line each; the same with other numbers is told once."""
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            for kind in NOISE:
                warnings.simplefilter("ignore", kind)
            warnings.showwarning = lambda message, *_, **__: self.warn(str(message))
            yield

    def warn(self, text: str) -> None:
        """Tell a warning, once."""
        kind = NUMBERS.sub("#", text)
        if kind in self._told:
            return
        self._told.add(kind)
        self.warnings.append(one_sentence(_in_options(text)))
        if not self.quiet:
            print(f"flowdetect: warning: {self.warnings[-1]}", file=sys.stderr, flush=True)

    @contextmanager
    def progress(self, n_rows: int | None, what: str) -> Iterator[Any]:
        """Return a function that is told of every so many rows done; a bar for terminals, or with --verbose."""
        if not self.shows_progress:
            yield lambda n: None
            return
        from tqdm import tqdm

        with tqdm(total=n_rows, desc=what, unit=" rows", unit_scale=True, file=sys.stderr, leave=self.verbose) as bar:
            yield bar.update


def one_sentence(text: str) -> str:
    """Write a message of several lines or sentences as one."""
    whole = " ".join(text.split()).rstrip(".; ").replace(".;", ";")
    first, *others = re.split(r"(?<=[\w)'\"\]>%])[.] (?=[A-Z])", whole)
    sentence = "; ".join([first, *map(_in_a_sentence, others)])
    return sentence if sentence.endswith("?") else f"{sentence}."


def reason_of(error: BaseException) -> str:
    """Say what an error says to a user."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename!r}: {error.strerror}" if error.filename is not None else error.strerror
    if isinstance(error, MemoryError):
        return str(error) or "there is not enough memory; give fewer rows or columns"
    return _in_options(str(error) or type(error).__name__)


def _in_options(text: str) -> str:
    """Write what the library tells to pass as it is called here."""
    for words, option in OPTIONS.items():
        text = text.replace(words, option)
    return text


def _in_a_sentence(text: str) -> str:
    """Give a sentence its small letter, unless it begins with a name."""
    word = text.split()[0].rstrip(",:;")
    return text[:1].lower() + text[1:] if word[1:].islower() or word == "A" else text


def _plain(value: Any) -> Any:
    """Return what JSON holds: no arrays, no NaN."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
