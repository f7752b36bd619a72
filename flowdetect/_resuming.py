"""Files for resuming killed trainings: one checkpoint per training, and seeds beside them.

The parameter `checkpoint` is a file, for one training, or a folder, in which every training has its own file.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np

from flowdetect._files import check_writable, open_within, write_new
from flowdetect._images import to_rows
from flowdetect._opening import as_source, is_lazy
from flowdetect._protocols import PathName, RandomState
from flowdetect._sources import digest_of_source

N_BITS = 32  # bits of a seed
MOST_OF_SEED = 1000  # bytes of a seed's file
N_DIGITS = 16  # digits of a digest in a file name
N_HASHED = 4096  # rows hashed at a time
MAY_CHANGE = {"verbose", "device", "checkpoint", "n_jobs"}  # parameters that may differ when a fit resumes
SEPARATORS = tuple(separator for separator in (os.sep, os.altsep) if separator)


# ---- paths


def name_of_path(checkpoint: Any) -> str:
    """Return a path as a string; refuse other types."""
    try:
        return os.fsdecode(checkpoint)
    except TypeError:
        raise ValueError(f"checkpoint must be a path or None, got {checkpoint!r}.") from None


def is_folder(checkpoint: PathName) -> bool:
    """Whether a checkpoint is a folder: it exists as one, or the name ends in a separator."""
    return os.path.isdir(checkpoint) or name_of_path(checkpoint).endswith(SEPARATORS)


def further(checkpoint: PathName, ending: str) -> PathName:
    """Return the checkpoint of another training: the same folder, or a file with a further suffix."""
    return checkpoint if is_folder(checkpoint) else f"{name_of_path(checkpoint)}{ending}"


def make_folder(checkpoint: PathName) -> str:
    """Create the folder if it is missing, and return its name with a separator at the end.

    Raises
    ------
    ValueError
        If it is not a path, or is a file.
    OSError
        If it cannot be created or written to.
    """
    name = os.path.normpath(name_of_path(checkpoint))
    if os.path.exists(name) and not os.path.isdir(name):
        raise ValueError(f"checkpoint must be a folder here, but {name!r} is a file; choose another name.")
    try:
        if not os.path.isdir(name):
            os.mkdir(name)
    except FileExistsError:  # created by another process
        pass
    except OSError as error:
        told = f"checkpoint={name!r} cannot be written: its folder does not exist or is not writable; choose another"
        raise OSError(error.errno, told) from error
    check_writable(Path(name, "any"), "checkpoint")
    return os.path.join(name, "")


def check_can_write(checkpoint: PathName) -> None:
    """Refuse a checkpoint that cannot be written; create a folder; an existing file may be a finished training."""
    name = name_of_path(checkpoint)
    if is_folder(name):
        make_folder(name)
    elif not os.path.exists(name):
        check_writable(Path(name), "checkpoint")


# ---- digests


def short_digest(*parts: Any) -> str:
    """Hash parameters, arrays and estimators; equal inputs have equal digests in every process."""
    text = json.dumps([_plain(part) for part in parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:N_DIGITS]


def _plain(value: Any) -> Any:
    """Return a value as JSON; values of unknown types are replaced by their type's name."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item() if isinstance(value.item(), bool | int | float | str) else repr(value)
    if isinstance(value, np.ndarray):
        return digest_of_array(value)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return [[str(key), _plain(each)] for key, each in sorted(value.items(), key=lambda item: str(item[0]))]
    if isinstance(value, np.random.RandomState):
        return ["RandomState", *map(_plain, value.get_state())]
    kind = value if isinstance(value, type) else type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, type) or not hasattr(value, "get_params"):
        return name
    parameters = value.get_params(deep=False)
    return [name, {key: _plain(each) for key, each in parameters.items() if key not in MAY_CHANGE}]


def digest_of_array(array: Any) -> str:
    """Hash an array a few rows at a time, since it may be a memory map."""
    found = hashlib.sha256(f"{array.shape}{array.dtype}".encode())
    parts = [array] if array.ndim == 0 else (array[i : i + N_HASHED] for i in range(0, len(array), N_HASHED))
    for part in parts:
        found.update(repr(part.tolist()).encode() if array.dtype == object else np.ascontiguousarray(part).tobytes())
    return found.hexdigest()


def _digest_of_data(X: Any) -> str | None:
    if X is None:
        return None
    if is_lazy(X):
        return digest_of_source(as_source(X))
    return digest_of_array(np.asarray(to_rows(X)[0]))


def path_of_training(checkpoint: PathName, name: str, stage: str, *marks: Any) -> str:
    """Return the path of a training's file; in a folder its name has class, marks and stage."""
    path = name_of_path(checkpoint)
    if not is_folder(path):
        return path + stage
    return os.path.join(path, f"{name}-{short_digest(*marks)}{stage}.checkpoint")


# ---- seeds


def kept_seed(path: PathName) -> int:
    """Return the seed in a file; if there is no file, draw a seed and write it.

    Raises
    ------
    ValueError
        If the file holds no seed.
    OSError
        If it can be neither read nor written.
    """
    path = Path(path)
    try:
        if not path.exists():
            write_new(path, json.dumps({"seed": secrets.randbits(N_BITS)}).encode())
        with open_within(path, MOST_OF_SEED) as file:
            seed = json.loads(file.read())["seed"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{str(path)!r} must hold the seed of the trainings whose checkpoints are beside it, but does not; remove "
            "the file and these checkpoints to start again."
        ) from error
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**N_BITS:
        raise ValueError(
            f"{str(path)!r} holds the seed {seed!r}, which is not a whole number from 0 to 2**{N_BITS} - 1; remove the "
            "file and the checkpoints beside it to start again."
        )
    return seed


def resuming_seed(estimator: Any, checkpoint: PathName | None, X: Any, y: Any) -> RandomState:
    """Return an estimator's `random_state`; if it is None, a stored seed that the next fit with this checkpoint reuses.

    In a folder, the name of the seed's file depends on class, parameters, X and y; beside a single file it ends in
    ".seed". Without a checkpoint the seed is drawn and not stored.
    """
    given: RandomState = estimator.random_state
    if given is not None:
        return given
    if checkpoint is None:
        return secrets.randbits(N_BITS)
    if not is_folder(checkpoint):
        return kept_seed(f"{name_of_path(checkpoint)}.seed")
    rows = _digest_of_data(X)
    labels = None if y is None else digest_of_array(np.asarray(y))
    name = f"{type(estimator).__name__}-{short_digest(estimator, rows, labels)}.seed"
    return kept_seed(os.path.join(make_folder(checkpoint), name))


def checkpoint_within(estimator: Any, but: tuple[str, ...] = ()) -> PathName | None:
    """Return the first checkpoint, by name, of the estimators inside; skip names that start with one of `but`."""
    parameters = estimator.get_params(deep=True)
    names = [name for name in sorted(parameters) if name.endswith("__checkpoint") and not name.startswith(but)]
    return next((parameters[name] for name in names if parameters[name] is not None), None)
