"""The command line: `flowdetect fit`, `score`, `report`, `sample`, `explain` and `demo`.

Each command has a file with its options (`add_arguments`) and its work (`run`). Shared parts have files of their own:
options (`options`), reading of inputs (`inputs`, `tables`, `arrays`), model files (`models`), writing of outputs
(`writing`) and messages (`console`). Only the called command is imported, and libraries only when needed, so that
`--help` is fast.
"""

from flowdetect.commands.entry import main

__all__ = ["main"]
