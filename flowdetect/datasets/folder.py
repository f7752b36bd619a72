"""Pictures of a folder, a list of files or a list of PIL images, read when they are needed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flowdetect._limits import check_count, is_count, short
from flowdetect._protocols import PathName
from flowdetect._sources import Source
from flowdetect._warning import warn
from flowdetect.datasets._pictures import (
    ENDINGS,
    UNREAD_ENDINGS,
    Form,
    PictureError,
    check_file,
    form_picture,
    read_file,
)

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

MODES, FITS, ON_ERROR = ("RGB", "L"), ("crop", "pad", "stretch"), ("raise", "skip")
LARGEST_SIDE = 2**13  # pixels
LISTED = 5  # files that a message names
WHAT_PATH_IS = "path must be a folder, a list of image files or a list of PIL images"


def load_folder(
    path: PathName | Sequence[PathName | Picture],
    *,
    size: int | tuple[int, int],
    mode: str = "RGB",
    fit: str = "crop",
    limit: int | None = None,
    on_error: str = "raise",
    ground: int | tuple[int, int, int] = 255,
    cache_bytes: int = 2**28,
) -> ImageFolder:
    """Open a folder of pictures of any size and format as images of one size, read when they are needed.

    Densities, detectors and reports accept the result in place of an array.

    Parameters
    ----------
    path : str, path, or list of these or of PIL images
        A folder is searched, with all subfolders, in alphabetical order, for AVIF, BMP, GIF, JPEG, JPEG 2000, PNG, PPM,
        TIFF and WebP files, by the endings of their names. Names that begin with a dot are left out, and links to
        folders are not followed. In a list, every file is read, whatever its name.
    size : int or (height, width)
        Size of every image, in pixels; an int is both.
    mode : {"RGB", "L"}, default="RGB"
        Colour, or grey by ITU-R 601 (0.299 R + 0.587 G + 0.114 B).
    fit : {"crop", "pad", "stretch"}, default="crop"
        How a picture of another aspect ratio is fitted. "crop": scale it to cover the size, and keep the middle. "pad":
        scale it to lie within the size, and fill the rest with `ground`. "stretch": scale height and width separately.
        Scaling is bicubic with antialiasing.
    limit : int or None, default=None
        Largest number of pictures; they are spread evenly over the list, so that every subfolder has its share.
    on_error : {"raise", "skip"}, default="raise"
        "raise": read the headers of all files now, and raise if one is not a picture. A damaged picture raises later,
        when its values are read; `fit` reads all pictures before it trains. "skip": decode every picture now, leave out
        those that fail, list them in `skipped_` and warn. This takes as long as one pass over the pictures.
    ground : int or (red, green, blue), default=255
        Colour under transparent parts, and beside the picture with `fit="pad"`; 255 is white.
    cache_bytes : int, default=2**28
        Bytes of images that are kept in memory after reading. Images beyond that are decoded each time.

    Returns
    -------
    source : ImageFolder
        Rows of shape (height, width, 3) or (height, width), uint8, 0..255. Its labels `y` are the names of the
        top-level subfolders, if all pictures lie in subfolders; else None.

    Raises
    ------
    ValueError
        If a parameter is not as documented, if there are no pictures, or if one is damaged.
    OSError
        If `path` is not a folder.

    Notes
    -----
    The steps are, in this order:

    - Decode the first frame or page.
    - Rotate it according to its EXIF orientation.
    - Convert 16 bits a channel to 8 by the high byte, value // 256. Grey values in 32-bit integers must be 0..65535,
      and floats must be 0..1.
    - Put transparent parts on `ground`.
    - Convert palettes, CMYK and similar modes to RGB, without colour profiles; then to grey with `mode="L"`.
    - Fit the size.

    A JPEG file at least 8 times as large as the wanted size is decoded at 1/2, 1/4 or 1/8 of its scale, at least 4
    times the wanted size. This is several times as fast, and values differ by a few grey levels at most.

    Damage is found only if the format can detect it; changed bytes inside a JPEG often are not. A picture with more
    than twice ``PIL.Image.MAX_IMAGE_PIXELS`` (about 179 million) pixels is rejected.

    Threads may read at the same time. A pickled source contains the paths, but not the images in memory.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from flowdetect import load_folder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cats", "dogs"):
    ...         Path(folder, name).mkdir()
    ...         Image.new("RGB", (640, 480), "gray").save(Path(folder, name, "photo.jpg"))
    ...     photos = load_folder(folder, size=32)
    ...     len(photos), photos.row_shape, photos.y.tolist(), photos.array().max()
    (2, (32, 32, 3), ['cats', 'dogs'], np.uint8(128))
    """
    form = _checked_form(size, mode, fit, ground)
    if limit is not None:
        check_count("limit", limit)
    check_count("cache_bytes", cache_bytes, 0, 2**40)
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error must be {_either(ON_ERROR)}, got {short(on_error)}.")
    items, labels = _listed(path)
    if limit is not None and limit < len(items):
        chosen = np.arange(limit) * len(items) // limit
        items = [items[i] for i in chosen]
        labels = None if labels is None else labels[chosen]
    return ImageFolder(items, form, labels, skip=on_error == "skip", cache_bytes=cache_bytes)


class ImageFolder(Source):
    """Images of one size, each read from its file when needed; :func:`load_folder` returns it.

    Attributes
    ----------
    row_shape : (height, width) or (height, width, 3)
    dtype : uint8
    y : (n,) array of str, or None
            Names of the top-level subfolders.
    paths : list of pathlib.Path or None
        The file of each row; None for a PIL image.
    skipped_ : dict
        The pictures that `on_error="skip"` left out, and the reasons.

    Examples
    --------
    >>> from PIL import Image
    >>> from flowdetect import load_folder
    >>> images = load_folder([Image.new("L", (40, 30), grey) for grey in (0, 255)], size=(8, 8), mode="L")
    >>> type(images).__name__, images.shape, images[1:].array().min()
    ('ImageFolder', (2, 8, 8), np.uint8(255))
    """

    def __init__(
        self,
        items: Sequence[Path | Picture],
        form: Form,
        labels: NDArray[np.str_] | None,
        *,
        skip: bool,
        cache_bytes: int,
    ) -> None:
        self._items, self._form, self._cache_bytes = list(items), form, cache_bytes
        self.row_shape, self.dtype, self.y = form.row_shape, np.dtype(np.uint8), labels
        self.skipped_: dict[str, str] = {}
        self._open_cache()
        if skip:
            self._leave_out_damaged()
        else:
            self._check_heads()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def paths(self) -> list[Path | None]:
        """The file of each row; None for a PIL image."""
        return [item if isinstance(item, Path) else None for item in self._items]

    def read(self, indices: NDArray[np.intp]) -> NDArray[np.uint8]:
        """Read images by index, (k, height, width[, 3])."""
        images = np.empty((len(indices), *self.row_shape), np.uint8)
        for place, i in enumerate(indices):
            images[place] = self._image(int(i))
        return images

    def _image(self, i: int) -> NDArray[np.uint8]:
        if i < len(self._cache) and self._is_cached[i]:
            return self._cache[i]
        try:
            image = self._decoded(self._items[i])
        except PictureError as error:
            raise ValueError(
                f"{self._name(i)} cannot be read: {error}; repair or remove it, or pass on_error='skip' to load_folder."
            ) from error
        self._keep(i, image)
        return image

    def _decoded(self, item: Path | Picture) -> NDArray[np.uint8]:
        return read_file(item, self._form) if isinstance(item, Path) else form_picture(item, self._form)

    def _name(self, i: int) -> str:
        item = self._items[i]
        return str(item) if isinstance(item, Path) else f"the PIL image at place {i}"

    # ---- images in memory

    def _open_cache(self) -> None:
        row_bytes = int(np.prod(self.row_shape))
        n = min(len(self._items), self._cache_bytes // row_bytes)
        self._cache = np.empty((n, *self.row_shape), np.uint8)  # the system assigns memory as it is filled
        self._is_cached = np.zeros(n, dtype=bool)

    def _keep(self, i: int, image: NDArray[np.uint8]) -> None:
        if i < len(self._cache):
            self._cache[i] = image
            self._is_cached[i] = True  # last, so that no other thread reads an incomplete image

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_cache", "_is_cached")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_cache()

    # ---- unreadable pictures

    def _check_heads(self) -> None:
        damaged = {}
        for i, item in enumerate(self._items):
            try:
                if isinstance(item, Path):
                    check_file(item)
            except PictureError as error:
                damaged[self._name(i)] = str(error)
        if damaged:
            raise ValueError(
                f"load_folder reads pictures only, and {len(damaged)} of {len(self)} cannot be read: "
                f"{_some(damaged)}; repair or remove them, or pass on_error='skip'."
            )

    def _leave_out_damaged(self) -> None:
        kept: list[int] = []
        for i, item in enumerate(self._items):
            try:
                image = self._decoded(item)
            except PictureError as error:
                self.skipped_[self._name(i)] = str(error)
            else:
                self._keep(len(kept), image)
                kept.append(i)
        if not kept:
            raise ValueError(
                f"load_folder needs pictures, and none of the {len(self)} files can be read: {_some(self.skipped_)}."
            )
        if self.skipped_:
            self._items = [self._items[i] for i in kept]
            self.y = None if self.y is None else self.y[kept]
            self._cache, self._is_cached = self._cache[: len(kept)], self._is_cached[: len(kept)]
            warn(
                f"load_folder left out {len(self.skipped_)} file(s) that cannot be read: {_some(self.skipped_)}; see "
                f"skipped_."
            )


# ---- the list of pictures


def _listed(path: Any) -> tuple[list[Path | Picture], NDArray[np.str_] | None]:
    """Return the files or PIL images in order, and their labels if they lie in subfolders."""
    if isinstance(path, str | os.PathLike):
        folder = Path(path)
        files = _files_within(folder)
        within = [file.relative_to(folder).parts for file in files]
        labels = np.array([parts[0] for parts in within]) if all(len(parts) > 1 for parts in within) else None
        return list(files), labels
    if not isinstance(path, Iterable) or isinstance(path, bytes | dict):
        raise TypeError(f"{WHAT_PATH_IS}, got {short(path)} of type {type(path).__name__}.")
    items = [_item(item, place) for place, item in enumerate(path)]
    if not items:
        raise ValueError(f"{WHAT_PATH_IS}, got an empty list; pass at least one.")
    return items, None


def _item(item: Any, place: int) -> Path | Picture:
    if isinstance(item, str | os.PathLike):
        return Path(item)
    if hasattr(item, "getbands") and hasattr(item, "transpose"):
        return item
    raise TypeError(
        f"{WHAT_PATH_IS}, got a list with a {type(item).__name__} at place {place}; pass arrays to fit directly, "
        f"as one array, or convert each to an image by PIL.Image.fromarray."
    )


def _files_within(folder: Path) -> list[Path]:
    """Find the picture files of a folder and its subfolders, in alphabetical order."""
    if not folder.exists():
        raise FileNotFoundError(f"{WHAT_PATH_IS}, got {str(folder)!r}, which does not exist; correct the name.")
    if not folder.is_dir():
        raise NotADirectoryError(f"{WHAT_PATH_IS}, got the file {str(folder)!r}; pass [path] for one file.")
    found: list[Path] = []
    others: Counter[str] = Counter()
    for name, subfolders, files in os.walk(folder, onerror=_refuse_closed):
        subfolders[:] = sorted(each for each in subfolders if not each.startswith("."))
        for file in sorted(files):
            if not file.startswith("."):
                ending = Path(file).suffix.lower()
                others.update([ending] if ending not in ENDINGS else [])
                found.extend([Path(name, file)] if ending in ENDINGS else [])
    _tell_of_unread(folder, others, bool(found))
    return sorted(found, key=lambda file: file.parts)


def _refuse_closed(error: OSError) -> None:
    raise OSError(error.errno, f"load_folder cannot look into a folder ({error.strerror})", error.filename)


def _tell_of_unread(folder: Path, others: Counter[str], any_found: bool) -> None:
    """Raise if a folder has no pictures; warn of pictures in formats that are not read."""
    if not any_found:
        counted = ", ".join(f"{n} {ending or 'without ending'}" for ending, n in others.most_common(LISTED))
        raise ValueError(
            f"load_folder found no pictures in {str(folder)!r} ({counted or 'no files at all'}); it reads the endings "
            f"{', '.join(sorted(ENDINGS))}; convert others, or pass a list of the files."
        )
    unread = {ending: n for ending, n in others.items() if ending in UNREAD_ENDINGS}
    if unread:
        counted = ", ".join(f"{n} {ending}" for ending, n in sorted(unread.items()))
        warn(
            f"load_folder leaves out pictures in formats that it does not read ({counted}); convert them to PNG or "
            f"JPEG to include them."
        )


# ---- checks


def _checked_form(size: Any, mode: Any, fit: Any, ground: Any) -> Form:
    sides = (size, size) if is_count(size) else tuple(size) if isinstance(size, Sequence) else ()
    if len(sides) != 2 or not all(is_count(side, 1, LARGEST_SIDE) for side in sides):
        raise ValueError(
            f"size must be (height, width) or one whole number for both, 1..{LARGEST_SIDE} pixels, got {short(size)}; "
            f"pass e.g. size=32."
        )
    for name, value, values in (("mode", mode, MODES), ("fit", fit, FITS)):
        if value not in values:
            raise ValueError(f"{name} must be {_either(values)}, got {short(value)}.")
    levels = (ground,) * 3 if is_count(ground, 0) else tuple(ground) if isinstance(ground, Sequence) else ()
    if len(levels) != 3 or not all(is_count(level, 0, 255) for level in levels):
        raise ValueError(f"ground must be a level 0..255 or three, (red, green, blue), got {short(ground)}.")
    if mode == "L" and len(set(levels)) > 1:
        raise ValueError(f"ground must be one level 0..255 with mode='L', got {short(ground)}; pass ground=255.")
    height, width = (int(side) for side in sides)
    red, green, blue = (int(level) for level in levels)
    return Form((height, width), mode, fit, (red, green, blue))


def _either(values: Sequence[str]) -> str:
    return f"{', '.join(map(repr, values[:-1]))} or {values[-1]!r}"


def _some(reasons: dict[str, str]) -> str:
    shown = "; ".join(f"{name} ({reason})" for name, reason in list(reasons.items())[:LISTED])
    return shown if len(reasons) <= LISTED else f"{shown}; and {len(reasons) - LISTED} more"
