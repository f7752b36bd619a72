"""Entry point: from the arguments of a call to an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from flowdetect.commands.console import Console, WrongCall, reason_of
from flowdetect.commands.options import Parser, add_console_options
from flowdetect.commands.versions import ShowVersions

DONE, REFUSED, INTERRUPTED = 0, 2, 130  # exit codes; 1 means outliers found, if a command was asked to tell
EXPECTED = (ValueError, TypeError, OSError, FloatingPointError, ImportError, MemoryError)
COMMANDS = {
    "fit": "learn what is normal from a table or from images; write a model file",
    "score": "score rows: a score, a p-value and a label for each",
    "report": "measure how well the model separates normal data from other data",
    "explain": "show which columns, or which part of an image, make a row unusual",
    "sample": "draw new rows or images from the model",
    "demo": "fit a flow, score images of other sets, and write a report",
}
EPILOG = """\
example:
  flowdetect fit normal.csv -o model.fd
  flowdetect score model.fd new.csv -o scores.csv

Each command has its own help, such as 'flowdetect score --help'.
exit codes: 0 done; 1 outliers found, with 'score --fail-on-outliers'; 2 invalid
call or data; 130 Ctrl-C
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; an invalid argument, data set or file is reported in one sentence, before any training.

    Parameters
    ----------
    arguments : sequence of str or None
        None: the arguments of the process.

    Returns
    -------
    code : int
        0 done; 1 outliers found, with ``score --fail-on-outliers``; 2 invalid call or data; 130 Ctrl-C.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    console = Console(arguments)
    try:
        return _run(arguments, console)
    except SystemExit as end:  # of --help and --version
        return int(end.code or 0)
    except BrokenPipeError:  # the reader of standard output has closed it
        console.forget_output()
        return DONE
    except KeyboardInterrupt as error:
        return console.fail(f"interrupted, and nothing was written{f'; {error}' if str(error) else ''}", INTERRUPTED)
    except EXPECTED as error:
        console.forget_output()
        return console.fail(reason_of(error), REFUSED)
    except Exception as error:
        console.forget_output()
        if console.verbose:
            traceback.print_exc()
        told = f"{type(error).__name__}: {str(error).rstrip('.') or 'without a message'}"
        return console.fail(
            f"{told}; this is an error in flowdetect: please report it, with the output of --verbose", REFUSED
        )


def _run(arguments: list[str], console: Console) -> int:
    options, unknown = parser(arguments).parse_known_args(arguments)
    if unknown:
        raise WrongCall(f"unknown arguments: {' '.join(unknown)}; see '{called_as()} {options.command} --help'")
    console.quiet, console.verbose = options.quiet, options.verbose
    with console.warning_lines():
        result: dict[str, Any] = _module(options.command).run(options, console)
    code = result.setdefault("exit_code", DONE)
    console.finish({"command": options.command, **result})
    return int(code)


def parser(arguments: Sequence[str]) -> Parser:
    """Build the parser: one line for each command, and all options of the command that is called."""
    called = called_as()
    top = Parser(
        prog=called,
        description="Learn what is normal and find outliers, with likelihood models.",
        epilog=EPILOG.replace("flowdetect ", f"{called} "),
    )
    top.add_argument("--version", action=ShowVersions)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    for name, meaning in COMMANDS.items():
        if name not in arguments:
            commands.add_parser(name, help=meaning)
            continue
        module = _module(name)
        epilog = getattr(module, "EPILOG", "").replace("flowdetect ", f"{called} ")
        usage = f"%(prog)s {module.USAGE}"
        command = commands.add_parser(name, help=meaning, usage=usage, description=module.DESCRIPTION, epilog=epilog)
        module.add_arguments(command)
        add_console_options(command)
    return top


def called_as() -> str:
    """Return how the command was called: "flowdetect", or "python -m flowdetect"."""
    is_module = sys.argv[0].endswith(os.path.join("flowdetect", "__main__.py"))
    return "python -m flowdetect" if is_module else "flowdetect"


def _module(name: str) -> Any:
    return import_module(f"flowdetect.commands.{name}")
