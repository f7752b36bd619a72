"""The command line: `flowdetect fit`, `score`, `report`, `sample`, `explain` and `demo`.

A file a command: its options (`add_arguments`) and what it does (`run`). What they share stands beside: how options are
told (`options`), how inputs are read (`inputs`, `tables`, `arrays`), what a model file tells of its data (`models`),
how answers are written (`writing`) and what is said while they work (`console`). Only the command that is called is
loaded, and libraries when they are needed, so that `--help` is there at once.
"""

from flowdetect.commands.entry import main

__all__ = ["main"]
