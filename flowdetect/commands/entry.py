"""From the words of a call to an exit code."""

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

DONE, REFUSED, INTERRUPTED = 0, 2, 130  # exit codes; 1 is what a command is asked to say
EXPECTED = (ValueError, TypeError, OSError, FloatingPointError, ImportError, MemoryError)
COMMANDS = {
    "fit": "learn from a table or from images what is normal, and write a model file",
    "score": "say of each row how normal it is: a score, a p-value and a label",
    "report": "compare normal data with others: how well the model tells them apart",
    "explain": "say which columns, or which part of an image, make a row unusual",
    "sample": "draw new rows or images from what the model has learned",
    "demo": "fit a flow, ask it about images from outside, print tables and write a report",
}
EPILOG = """\
example:
  flowdetect fit normal.csv -o model.fd
  flowdetect score model.fd new.csv -o scores.csv

Each command has its own help, such as 'flowdetect score --help'.
exit codes: 0 done; 1 outliers found, with 'score --fail-on-outliers'; 2 wrong call or data; 130 Ctrl-C
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; what is wrong with its words, data or files is said in one sentence, before any training.

    Parameters
    ----------
    arguments : sequence of str or None
        None: those that the process was called with.

    Returns
    -------
    code : int
        0 done; 1 what a command was asked to say by it; 2 wrong call or data; 130 Ctrl-C.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    console = Console(arguments)
    try:
        return _run(arguments, console)
    except SystemExit as end:  # of --help and --version
        return int(end.code or 0)
    except BrokenPipeError:  # whoever reads standard output has read enough
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
        told = f"{type(error).__name__}: {str(error).rstrip('.') or 'no more is known'}"
        return console.fail(f"{told}; this should not happen: please report it, with what --verbose prints", REFUSED)


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
    """Describe the command line: each command in a line, the one that is called in full."""
    called = called_as()
    top = Parser(
        prog=called,
        description="Learn what is normal, and find what is not: likelihood models and outlier detection.",
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
    """Say how the command was called: "flowdetect", or "python -m flowdetect"."""
    is_module = sys.argv[0].endswith(os.path.join("flowdetect", "__main__.py"))
    return "python -m flowdetect" if is_module else "flowdetect"


def _module(name: str) -> Any:
    return import_module(f"flowdetect.commands.{name}")
