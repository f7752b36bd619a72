"""Files of estimators: safetensors with a JSON header, written atomically, read without running any code of theirs.

An estimator is a tree of plain values and arrays. The tree goes into the header, the arrays beside it; estimators of
ours are named and rebuilt from an allow-list, foreign ones go through skops with its list of trusted types.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator

from flowdetect._ctrl_c import whole_imports
from flowdetect._homes import IN_FILES as OURS
from flowdetect._protocols import PathName

FORMAT = 2
MAGIC = "flowdetect"
VERSION = version("flowdetect-ood")


def save(estimator: BaseEstimator, path: PathName) -> None:
    """Write an estimator of ours to a file, atomically."""
    arrays: dict[str, NDArray[Any]] = {}
    header = {"estimator": _encode(estimator, arrays, type(estimator).__name__)}
    write(Path(os.fspath(path)), "estimator", header, arrays)


def load(path: PathName, *, trusted: Sequence[str] = ()) -> Any:
    """Read an estimator that `save` wrote; no code from the file is run.

    Parameters
    ----------
    path : str or path
    trusted : sequence of str
        Types that skops may build where a foreign estimator stands inside, beyond those it trusts by itself.

    Returns
    -------
    estimator

    Raises
    ------
    ValueError
        If the file is not whole, not ours, or of a newer format.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> import os, tempfile
    >>> import flowdetect
    >>> X, _ = flowdetect.load_images("digits")
    >>> detector = flowdetect.LikelihoodDetector(flowdetect.GlowDensity(n_bins=17, n_steps=1, max_epochs=1)).fit(X[:64])
    >>> path = os.path.join(tempfile.mkdtemp(), "detector.safetensors")
    >>> detector.save(path)
    >>> bool((flowdetect.load(path).score_samples(X[:5]) == detector.score_samples(X[:5])).all())
    True
    """
    header, arrays = read(Path(os.fspath(path)), "estimator")
    try:
        return _decode(header["estimator"], arrays, trusted)
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError, BadZipFile) as error:
        raise ValueError(f"{str(path)!r} is no whole flowdetect file: {error!r}. Save the estimator again.") from error


# ---- files


def write(path: Path, kind: str, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    """Write header and arrays to a new file and put it in the place of the old one."""
    with whole_imports():
        from safetensors.numpy import save as to_bytes

    arrays = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    text = json.dumps({**header, "format": FORMAT, "kind": kind, "version": VERSION})
    metadata = {MAGIC: text, "sha256": _digest(text, arrays)}
    if not path.parent.is_dir():
        raise OSError(f"{str(path)!r} cannot be written: its folder does not exist.")
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(to_bytes(arrays, metadata=metadata))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read header and arrays; raise ValueError unless the file is whole, ours, of this kind and of a known format."""
    with whole_imports():
        from safetensors import SafetensorError
        from safetensors.numpy import load as from_bytes

    content = path.read_bytes()
    try:
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length])["__metadata__"]
        text, checksum = metadata[MAGIC], metadata["sha256"]
        header = json.loads(text)
        found_format, found_kind = int(header["format"]), header["kind"]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} is no flowdetect file, or is not whole; nothing was loaded.") from error
    if found_format > FORMAT:
        raise ValueError(
            f"{str(path)!r} has format {found_format}, written by flowdetect {header.get('version')}; this is "
            f"flowdetect {VERSION}, which reads up to {FORMAT}. Update flowdetect."
        )
    if found_kind != kind:
        raise ValueError(
            f"{str(path)!r} holds a flowdetect {found_kind}, not a flowdetect {kind}; choose another file."
        )
    try:
        arrays = from_bytes(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ValueError(f"{str(path)!r} is not whole ({error}); nothing was loaded.") from error
    if _digest(text, arrays) != checksum:
        raise ValueError(f"{str(path)!r} is corrupt: its content does not match its checksum; nothing was loaded.")
    return header, arrays


def _digest(text: str, arrays: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        digest.update(f"{name}{arrays[name].dtype}{arrays[name].shape}".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


# ---- trees


def _encode(value: Any, arrays: dict[str, NDArray[Any]], where: str) -> Any:
    """Turn a value into JSON; arrays are put aside under the name of their place."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return _encode(value.item(), arrays, where)
    if isinstance(value, list | tuple):
        items = [_encode(item, arrays, f"{where}.{i}") for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, slice):
        return {"slice": [value.start, value.stop]}
    if isinstance(value, dict):
        return {"dict": [[_encode(k, arrays, where), _encode(v, arrays, f"{where}.{k}")] for k, v in value.items()]}
    if isinstance(value, np.ndarray):
        return _encode_array(value, arrays, where)
    if isinstance(value, os.PathLike):
        return {"path": os.fspath(value)}
    if isinstance(value, FrozenEstimator):
        return {"frozen": _encode(value.estimator, arrays, where)}
    if type(value).__name__ in OURS and type(value).__module__.startswith(OURS[type(value).__name__]):
        return {"estimator": type(value).__name__, "state": _encode(value.__getstate__(), arrays, where)}
    if isinstance(value, BaseEstimator):
        with whole_imports():
            import skops.io

        arrays[where] = np.frombuffer(skops.io.dumps(value), dtype=np.uint8)
        return {"skops": where}
    raise ValueError(
        f"{where} holds a {type(value).__name__}, which a flowdetect file does not keep; replace it with a plain value "
        f"before saving, e.g. an int or None for random_state."
    )


def _encode_array(value: NDArray[Any], arrays: dict[str, NDArray[Any]], where: str) -> Any:
    if value.dtype.kind in "OU" and all(isinstance(item, str) for item in value.ravel().tolist()):
        return {"strings": value.tolist(), "object": value.dtype.kind == "O"}
    if value.dtype.kind not in "biuf":
        raise ValueError(f"{where} holds an array of {value.dtype}, which a flowdetect file does not keep.")
    arrays[where] = value.astype(value.dtype.newbyteorder("="), copy=False)
    return {"array": where}


def _decode(tree: Any, arrays: dict[str, NDArray[Any]], trusted: Sequence[str]) -> Any:
    if isinstance(tree, list):
        return [_decode(item, arrays, trusted) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if "tuple" in tree:
        return tuple(_decode(item, arrays, trusted) for item in tree["tuple"])
    if "slice" in tree:
        return slice(*tree["slice"])
    if "dict" in tree:
        return {_decode(k, arrays, trusted): _decode(v, arrays, trusted) for k, v in tree["dict"]}
    if "array" in tree:
        return np.array(arrays[tree["array"]])
    if "strings" in tree:
        return np.array(tree["strings"], dtype=object if tree["object"] else None)
    if "path" in tree:
        return Path(tree["path"])
    if "frozen" in tree:
        return FrozenEstimator(_decode(tree["frozen"], arrays, trusted))
    if "skops" in tree:
        return _decode_foreign(arrays[tree["skops"]].tobytes(), trusted)
    return _decode_estimator(tree, arrays, trusted)


def _decode_foreign(content: bytes, trusted: Sequence[str]) -> BaseEstimator:
    """Let skops build it, of types that skops trusts, that are ours, or that the user names."""
    with whole_imports():
        import skops.io

    asked = skops.io.get_untrusted_types(data=content)
    ours = {f"{getattr(importlib.import_module(room), name).__module__}.{name}" for name, room in OURS.items()}
    unknown = [name for name in asked if name not in ours and name not in trusted]
    if unknown:
        raise ValueError(
            f"The file holds an estimator of types that are not trusted: {unknown}. If you trust where the file comes "
            f"from, pass load(path, trusted={unknown})."
        )
    return skops.io.loads(content, trusted=asked)


def _decode_estimator(tree: dict[str, Any], arrays: dict[str, NDArray[Any]], trusted: Sequence[str]) -> BaseEstimator:
    name = tree["estimator"]
    if name not in OURS:
        raise ValueError(
            f"The file names an estimator {name!r}, which this flowdetect ({VERSION}) does not know; update it."
        )
    kind = getattr(importlib.import_module(OURS[name]), name)
    estimator: BaseEstimator = kind.__new__(kind)  # its parameters are part of the state
    estimator.__setstate__(_decode(tree["state"], arrays, trusted))
    return estimator
