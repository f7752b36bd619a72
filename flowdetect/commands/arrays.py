"""Readers of NumPy files, named image sets, and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from flowdetect._files import open_within
from flowdetect.commands.console import WrongCall
from flowdetect.commands.readers import NUMBERS, Reader, Settings, check_cells, some

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_AXES = 4  # rows, height, width, channels


class ArrayFile(Reader):
    """The rows of an .npy or .npz file, or of a named set."""

    def __init__(self, array: NDArray[Any], name: str, labels: Any = None) -> None:
        self.name, self._array, self.labels = name, array, labels
        if array.dtype.kind not in NUMBERS:
            raise ValueError(f"{name!r} must hold numbers, got an array of {array.dtype}; convert it first")
        if not 2 <= array.ndim <= MOST_AXES or 0 in array.shape:
            raise ValueError(
                f"{name!r} must hold rows (n, D) or images (n, H, W) or (n, H, W, C), at least one, got an array of "
                f"shape {array.shape}; reshape it first"
            )
        if labels is not None and len(labels) != len(array):
            raise ValueError(f"{name!r} must have as many labels as rows, {len(array)}, got {len(labels)}")
        self.n_rows, self.row_shape = len(array), tuple(array.shape[1:])

    def parts(self) -> Iterator[NDArray[Any]]:
        for start in range(0, len(self._array), self.part_rows):
            rows = self._array[start : start + self.part_rows]
            check_cells(rows, start, self.name, None)
            yield rows

    def whole(self) -> NDArray[Any]:
        for _ in self.parts():  # checks all values before any training
            pass
        return self._array


class Pictures(Reader):
    """Folders of pictures, or picture files, as images of one size."""

    def __init__(self, paths: list[Path], name: str, settings: Settings) -> None:
        from flowdetect.datasets import load_folder

        self.name = name
        folders = [path for path in paths if path.is_dir()]
        if folders and len(paths) > 1:
            raise ValueError(
                f"a folder of pictures must be the only input, got {some(paths)}; put them into one folder"
            )
        given = {name: getattr(settings, name) for name in ("size", "mode", "fit", "limit", "on_error")}
        self.source = load_folder(folders[0] if folders else list(paths), **given)
        found = [path for path in self.source.paths if path is not None]
        self.files = [str(path.relative_to(folders[0]) if folders else path) for path in found]
        self.n_rows, self.row_shape, self.labels = len(self.source), self.source.row_shape, self.source.y

    def parts(self) -> Iterator[NDArray[Any]]:
        for _, images in self.source.parts(self.part_rows):
            yield images

    def whole(self) -> Any:
        return self.source


def open_array(path: Path, name: str, settings: Settings) -> ArrayFile:
    """Open an .npy file, mapped into memory, or an array of an .npz file; never a pickle."""
    with open_within(path, None) as file:  # a regular file, not a pipe
        try:
            array, labels = (_mapped(path), None) if path.suffix.lower() == ".npy" else _archived(file, name, settings)
        except WrongCall:
            raise
        except Exception as error:  # numpy and zipfile raise errors of many kinds
            told = str(error).rstrip(".") or type(error).__name__
            told = "it holds Python objects, or is not such a file" if "pickle" in told or "object" in told else told
            raise ValueError(
                f"{name!r} must be a complete file of arrays without pickles ({told}); save it with numpy.save or savez"
            ) from error
    return ArrayFile(array, name, labels)


def _mapped(path: Path) -> NDArray[Any]:
    import numpy as np

    return np.load(path, mmap_mode="r", allow_pickle=False)


def _archived(file: BinaryIO, name: str, settings: Settings) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Read the rows from an archive, and the labels if --label is given."""
    from flowdetect.datasets._archive import members_of

    members, label = members_of(file), settings.label
    key = _array_of([each for each in members if each != label], name, settings.array)
    if label is not None and label not in members:
        raise WrongCall(f"{name!r} has no array {label!r} of labels, but {some(members)}; correct --label")
    return members[key](), None if label is None else members[label]()


def open_named(name: str) -> ArrayFile:
    """Load a named set of images, `name` or `name:split`."""
    from flowdetect.datasets import load_images

    title, _, split = name.partition(":")
    images, labels = load_images(title, split or "train")
    return ArrayFile(images, name, labels)


def _array_of(there: list[str], name: str, asked: str | None) -> str:
    """Return the name of the array with the rows."""
    if asked in there:
        return str(asked)
    if asked is None and len(there) == 1:
        return there[0]
    got = f"no {asked!r}" if asked is not None else f"{len(there)} arrays"
    raise WrongCall(f"{name!r} holds the arrays {some(there)}, got {got}; name one of them with --array")
