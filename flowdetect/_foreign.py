"""Estimators of other libraries inside flowdetect's files, by skops and its list of trusted types."""

from __future__ import annotations

import importlib
import io
from collections.abc import Sequence
from zipfile import ZIP_STORED, ZipFile

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from flowdetect._ctrl_c import whole_imports
from flowdetect._homes import IN_FILES as OURS


def as_bytes(estimator: BaseEstimator) -> NDArray[np.uint8]:
    """Return the bytes of a skops file."""
    with whole_imports():
        import skops.io

    return np.frombuffer(skops.io.dumps(estimator), dtype=np.uint8)


def from_bytes(content: bytes, trusted: Sequence[str]) -> tuple[BaseEstimator | None, list[str]]:
    """Build an estimator with skops, from types trusted by skops, of flowdetect, or named by the user.

    Returns
    -------
    estimator : the estimator, or None if some types are not trusted
    unknown : list of str
        The untrusted types.

    Raises
    ------
    ValueError
        If the content is compressed, since it could expand without limit; flowdetect never compresses it.
    """
    with whole_imports():
        import skops.io

    with ZipFile(io.BytesIO(content)) as archive:
        if any(entry.compress_type != ZIP_STORED or entry.file_size > len(content) for entry in archive.infolist()):
            raise ValueError("it contains a compressed estimator of another library")
    asked = skops.io.get_untrusted_types(data=content)
    ours = {f"{getattr(importlib.import_module(room), name).__module__}.{name}" for name, room in OURS.items()}
    unknown = [name for name in asked if name not in ours and name not in trusted]
    return (None if unknown else skops.io.loads(content, trusted=asked)), unknown
