"""Conversion of pictures of any size and mode to arrays of one size and mode, with Pillow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flowdetect._files import open_within

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

# formats that are opened; Pillow has more, such as EPS, which runs another program
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
ENDINGS = frozenset(".avif .bmp .gif .j2k .jfif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split())
UNREAD_ENDINGS = frozenset(".arw .cr2 .cr3 .dng .eps .heic .heif .jxl .nef .orf .psd .raf .rw2 .svg .tga".split())

ORIENTATION = 0x0112  # EXIF's tag
TURNED = (5, 6, 7, 8)  # orientations that swap height and width
DRAFT = 4  # a JPEG may be decoded at a reduced scale of at least this many times the wanted size
HIGH_BYTE, LARGEST_16_BIT = 256, 65535


class PictureError(ValueError):
    """A picture that cannot become a row; the message is the reason."""


@dataclass(frozen=True)
class Form:
    """The form of every row: size (height, width), mode "RGB" or "L", fit, and background colour."""

    size: tuple[int, int]
    mode: str
    fit: str
    ground: tuple[int, int, int]

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of the array: (H, W) or (H, W, 3)."""
        return self.size if self.mode == "L" else (*self.size, 3)

    def scaled(self, width: int, height: int) -> tuple[float, float]:
        """Return width and height of the whole scaled picture, before anything is cut off."""
        to_height, to_width = self.size
        if self.fit == "stretch":
            return to_width, to_height
        pick = max if self.fit == "crop" else min
        scale = pick(to_width / width, to_height / height)
        return width * scale, height * scale


def check_file(path: Path) -> None:
    """Read the header of a file; raise a PictureError if it is not a picture, or a far too large one."""
    with _opened(path):
        pass


def read_file(path: Path, form: Form) -> NDArray[np.uint8]:
    """Read a file as an array of the form's shape.

    Raises
    ------
    PictureError
        If the file is missing, cannot be opened, or is not a complete picture of a known format.
    """
    with _opened(path) as picture:
        _decode_less(picture, form)
        return form_picture(picture, form)


def form_picture(picture: Picture, form: Form) -> NDArray[np.uint8]:
    """Convert a picture of any size and mode to the form, or raise a PictureError."""
    with _reasons():
        picture.load()
        upright = _upright(picture)
        plain = _on_ground(_eight_bits(upright), form.mode, form.ground)
        return np.asarray(_fitted(plain, form), dtype=np.uint8).reshape(form.row_shape)


@contextmanager
def _opened(path: Path) -> Iterator[Picture]:
    from PIL import Image

    Image.init()
    with _reasons(), open_within(path, None) as file:
        with Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN]) as picture:
            yield picture


@contextmanager
def _reasons() -> Iterator[None]:
    """Turn every error of Pillow into a PictureError; damaged data may raise any kind."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError(f"no picture of a format that is read ({', '.join(FORMATS)})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(
            f"{error}; a small file may claim so many pixels to fill the memory; if you trust it, raise "
            f"PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except Exception as error:
        raise PictureError(str(error) or type(error).__name__) from error


def _orientation(picture: Picture) -> int:
    try:
        found = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # EXIF data are often damaged in readable pictures
        return 1
    return found if found in range(1, 9) else 1


def _upright(picture: Picture) -> Picture:
    """Rotate and mirror a picture according to its EXIF orientation."""
    from PIL import Image

    moves = Image.Transpose
    move = {
        2: moves.FLIP_LEFT_RIGHT,
        3: moves.ROTATE_180,
        4: moves.FLIP_TOP_BOTTOM,
        5: moves.TRANSPOSE,
        6: moves.ROTATE_270,
        7: moves.TRANSVERSE,
        8: moves.ROTATE_90,
    }.get(_orientation(picture))
    return picture if move is None else picture.transpose(move)


def _decode_less(picture: Picture, form: Form) -> None:
    """Decode a large JPEG at 1/2, 1/4 or 1/8 of its scale, but at least DRAFT times the wanted size."""
    width, height = picture.size
    if _orientation(picture) in TURNED:
        high, wide = form.scaled(height, width)
    else:
        wide, high = form.scaled(width, height)
    picture.draft(None, (math.ceil(DRAFT * wide), math.ceil(DRAFT * high)))


def _eight_bits(picture: Picture) -> Picture:
    """Convert a grey picture of 16 or 32 bits to 8 bits, by the rules in `load_folder`."""
    from PIL import Image

    if not picture.mode.startswith(("I", "F")):
        return picture
    values = np.asarray(picture)
    least, most = (0.0, 1.0) if picture.mode == "F" else (0, LARGEST_16_BIT)
    if not (values.min() >= least and values.max() <= most):
        raise PictureError(
            f"values of mode {picture.mode!r} must be {least}..{most}, got {values.min()}..{values.max()}; scale them "
            f"and save them with 8 bits"
        )
    bytes_ = np.rint(values * 255.0) if picture.mode == "F" else values // HIGH_BYTE
    return Image.fromarray(bytes_.astype(np.uint8))


def _on_ground(picture: Picture, mode: str, ground: tuple[int, int, int]) -> Picture:
    """Convert a picture to mode "RGB" or "L", and transparent parts to the ground colour."""
    from PIL import Image

    if picture.has_transparency_data:
        picture = picture.convert("LA") if picture.mode == "La" else picture
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (*ground, 255)), picture)
    if picture.mode in ("P", "RGBA", "CMYK", "YCbCr", "HSV"):
        picture = picture.convert("RGB")
    return picture if picture.mode == mode else picture.convert(mode)


def _fitted(picture: Picture, form: Form) -> Picture:
    """Scale a picture to the size with antialiasing, then crop or pad it as `fit` requires."""
    from PIL import Image, ImageOps

    height, width = form.size
    bicubic = Image.Resampling.BICUBIC
    if form.fit == "stretch":
        return picture.resize((width, height), bicubic)
    if form.fit == "crop":
        return ImageOps.fit(picture, (width, height), bicubic)
    wide, high = (max(1, round(side)) for side in form.scaled(*picture.size))
    padded = Image.new(picture.mode, (width, height), form.ground if form.mode == "RGB" else form.ground[0])
    padded.paste(picture.resize((wide, high), bicubic), ((width - wide) // 2, (height - high) // 2))
    return padded
