"""Seeds that outlive the process: what lets a detector without `random_state` resume from its checkpoint."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from pathlib import Path

from flowdetect._protocols import PathName

N_BITS = 32


def kept_seed(checkpoint: PathName) -> int:
    """Give the seed that stands beside a checkpoint, drawn and written where there is none.

    Raises
    ------
    ValueError
        If the file holds no seed.
    OSError
        If it can be neither read nor written.
    """
    path = Path(f"{os.fspath(checkpoint)}.seed")
    try:
        seed = json.loads(path.read_text())["seed"]
    except FileNotFoundError:
        seed = secrets.randbits(N_BITS)
        _write(path, json.dumps({"seed": seed}))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{str(path)!r} should hold the seed of the detector whose checkpoint stands beside it, and does not; "
            f"remove both files to start anew."
        ) from error
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**N_BITS:
        raise ValueError(
            f"{str(path)!r} holds the seed {seed!r}, which is no whole number from 0 to 2**{N_BITS} - 1; remove it "
            f"and the checkpoint to start anew."
        )
    return seed


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    if not path.parent.is_dir():
        raise OSError(f"{str(path)!r} cannot be written: its folder does not exist.")
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False) as file:
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
