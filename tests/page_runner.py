"""Runs scripts, each in a child of this process, which has imported what all of them need: that takes longer than most.

Reads a line of JSON for each, {"folder": ..., "script": ...}, and answers its exit code; what it prints goes into
output.txt in the folder.
"""

import json
import os
import runpy
import sys
import traceback

from lightning_fabric import Fabric  # noqa: F401 - what fits import

import flowdetect


def run(folder: str, script: str) -> int:
    """Be the child: run a script as a process of its own would; give its exit code."""
    os.chdir(folder)
    output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    """Answer each line of the input."""
    for name in ("GlowDensity", "OODDetector"):
        getattr(flowdetect, name)
    for line in sys.stdin:
        if not (child := os.fork()):
            code = run(**json.loads(line))
            sys.stdout.flush()
            os._exit(code)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
