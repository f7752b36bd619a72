"""Lossless codecs: the size of an image file in bits, without a model."""

from __future__ import annotations

import importlib.util
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowdetect._ctrl_c import whole_imports

BITS_PER_BYTE = 8

# name: (Pillow's format, Pillow's feature for its library, options for a short file in acceptable time)
BY_PILLOW: dict[str, tuple[str, str, dict[str, Any]]] = {
    "png": ("PNG", "zlib", {"compress_level": 9}),
    "webp": ("WEBP", "webp", {"lossless": True, "method": 2, "quality": 50}),
    "jpeg2000": ("JPEG2000", "jpg_2000", {"irreversible": False, "no_jp2": True}),  # bare codestream without container
}
JPEG_XL_EFFORT = 3  # of 1 to 9
CODECS = (*BY_PILLOW, "jpegxl")


def encode(image: NDArray[np.uint8], codec: str) -> bytes:
    """Encode an image without loss.

    Parameters
    ----------
    image : (H, W) or (H, W, 3) array of uint8
    codec : "png", "webp", "jpeg2000" or "jpegxl"

    Returns
    -------
    code : bytes
        A whole file; for "jpeg2000" and "jpegxl" a bare codestream.
    """
    if codec == "jpegxl":
        with whole_imports():
            import imagecodecs

        return bytes(imagecodecs.jpegxl_encode(np.ascontiguousarray(image), lossless=True, effort=JPEG_XL_EFFORT))
    with whole_imports():
        from PIL import Image

        Image.init()  # imports the formats

    file_format, _, options = BY_PILLOW[codec]
    if codec == "jpeg2000":
        # each wavelet level costs a header: none below 32 pixels, one from 32, two from 64, at most 5; the codec
        # rejects more levels than the shorter side allows
        resolutions = min(max(min(image.shape[:2]).bit_length() - 4, 1), 6)
        options = {**options, "num_resolutions": resolutions, "mct": int(image.ndim == 3)}  # mct: RGB -> luma, chroma
    file = io.BytesIO()
    Image.fromarray(image).save(file, format=file_format, **options)
    return file.getvalue()


def shortest_code(image: NDArray[np.uint8], codecs: tuple[str, ...]) -> int:
    """Return the size of the smallest of the codecs' files, bits."""
    return min(BITS_PER_BYTE * len(encode(image, codec)) for codec in codecs)


def check_codecs(owner: str, codecs: Any) -> None:
    """Raise if a codec is unknown or not installed."""
    known = ", ".join(repr(name) for name in CODECS)
    chosen = codecs if isinstance(codecs, tuple | list) else ()
    unknown = [name for name in chosen if name not in CODECS]
    if unknown or not chosen:
        raise ValueError(
            f"{owner} needs codecs, a tuple of at least one of {known}, got {codecs!r}"
            + (f", of which {unknown[0]!r} is unknown." if unknown else ".")
        )
    for codec in chosen:
        if not _at_hand(codec):
            others = tuple(name for name in CODECS if _at_hand(name))
            remedy = (
                "which imagecodecs does: pip install 'flowdetect-ood[codecs]'"
                if codec == "jpegxl"
                else "since Pillow was installed without it; install one of Pillow's own wheels"
            )
            raise ValueError(f"{owner} cannot write {codec!r}, {remedy}, or use codecs={others!r}.")


def _at_hand(codec: str) -> bool:
    if codec == "jpegxl":
        if importlib.util.find_spec("imagecodecs") is None:
            return False
        with whole_imports():
            import imagecodecs

        return bool(imagecodecs.JPEGXL.available)  # imagecodecs may be built without JPEG XL
    with whole_imports():
        from PIL import features

        return bool(features.check(BY_PILLOW[codec][1]))  # imports the library it looks for
