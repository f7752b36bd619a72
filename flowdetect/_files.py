"""Files on disk: read once and within a limit, replaced whole or not at all, and locked against a second writer."""

from __future__ import annotations

import errno
import io
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from flowdetect._protocols import PathName
from flowdetect._warning import warn

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}  # of file systems without them


def as_path(path: PathName, name: str = "path") -> Path:
    """Turn what a user passed into the path of a file, symbolic links followed.

    Raises
    ------
    TypeError
        If it is no path.
    ValueError
        If it cannot be a name.
    OSError
        If it names a folder, or something else that is no regular file.
    """
    try:
        text = os.fsdecode(path)
    except TypeError:
        raise TypeError(f"{name} must be a str or a path, got {path!r}.") from None
    if "\0" in text:
        raise ValueError(f"{name}={text!r} holds a zero byte, which no name of a file has.")
    if not text or text.endswith(("/", os.sep)) or Path(text).is_dir():
        raise IsADirectoryError(f"{name}={text!r} is a directory; add the name of a file.")
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}={text!r} cannot be the name of a file here ({error.reason}).") from error
    found = Path(os.path.realpath(text))
    if found.is_symlink():
        raise OSError(errno.ELOOP, f"{name} is a link that leads back to itself", text)
    if found.exists() and not found.is_file():
        raise OSError(f"{name}={text!r} is no regular file but a pipe, a device or the like; choose another path.")
    return found


def check_writable(path: Path, name: str = "path") -> None:
    """Refuse a path at which no file can be written: its folder is missing, or closed to us."""
    _check_folder(path, name)
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        told = f"{name}={str(path)!r} cannot be written: its folder is not writable ({error.strerror})"
        raise OSError(error.errno, told) from error


def _check_folder(path: Path, name: str = "path") -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{name}={str(path)!r} cannot be written: its folder does not exist; make it first.")


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file: whoever reads it, however many write it, finds one content or another, whole.

    Raises
    ------
    OSError
        If it cannot be written; the old file is then left as it was. The message names the file.
    """
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Return a new file to write piece by piece; it takes the place of the old one at the end, and not after an error.

    Raises
    ------
    OSError
        If it cannot be written; the old file is then left as it was. The message names the file.
    """
    with _beside(path) as (file, temporary):
        yield file
        _finish(file, path)
        with _told(path):
            if path.exists():
                os.chmod(temporary, stat.S_IMODE(path.stat().st_mode))
            os.replace(temporary, path)


def write_new(path: Path, content: bytes) -> None:
    """Write a file whole, or leave the one that another process wrote first.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    with _beside(path) as (file, temporary):
        file.write(content)
        _finish(file, path)
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without links: two first writers could then meet
            if not path.exists():
                os.replace(temporary, path)


class _Temporary(io.FileIO):
    """A new file that is written in the place of another, whose name errors tell."""

    def __init__(self, temporary: Path, path: Path) -> None:
        with _told(path):
            super().__init__(temporary, "xb")
        self._path = path

    def write(self, content: Any) -> int:
        with _told(self._path):
            return super().write(content)


@contextmanager
def _beside(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Open a temporary file in the same folder, which no other process writes, and remove it in the end."""
    _check_folder(path)
    temporary = path.with_name(f".flowdetect-{secrets.token_hex(8)}.tmp")
    try:
        with io.BufferedWriter(_Temporary(temporary, path)) as file:
            yield file, temporary
    finally:
        temporary.unlink(missing_ok=True)


def _finish(file: BinaryIO, path: Path) -> None:
    file.flush()
    with _told(path):
        os.fsync(file.fileno())
    file.close()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Let an error of writing name the file that is asked for."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror or error}; the file could not be written", str(path)) from error


def open_within(path: Path, most: int | None) -> BinaryIO:
    """Open a regular file of at most so many bytes, or of any size; a pipe or device is neither waited for nor read.

    Raises
    ------
    ValueError
        If the file is larger.
    OSError
        If it is no regular file or cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and (most is None or status.st_size <= most):
        return open(descriptor, "rb")
    os.close(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{str(path)!r} is no regular file but a folder, a pipe, a device or the like; nothing was read.")
    raise ValueError(
        f"{str(path)!r} has {status.st_size} bytes, more than the {most} that are read at most; if you trust it, pass "
        f"a higher max_bytes."
    )


class Lock:
    """The right to write a file, held by one process at a time, and gone with that process.

    It is the operating system's lock of a file beside, `path` with the ending ".lock", which is there while it is held.
    Windows has no such lock: there nothing is held.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._beside = Path(f"{path}.lock")
        self._file: BinaryIO | None = None  # closed, and so unlocked, even if nobody comes to release it

    def acquire(self) -> None:
        """Take the lock, or say at once that another has it.

        Raises
        ------
        BlockingIOError
            If another process, or another fit of this one, holds it.
        """
        check_writable(self.path, self.name)
        while fcntl is not None and self._file is None:
            file = open(self._beside, "ab")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise BlockingIOError(
                    f"{self.name}={str(self.path)!r} is in use: another training writes it now. Wait for its end, or "
                    f"choose another file."
                ) from None
            except OSError as error:
                file.close()
                if error.errno not in NO_LOCKS:
                    raise
                self._beside.unlink(missing_ok=True)
                warn(
                    f"{self.name}={str(self.path)!r} is not locked, since its file system has no locks "
                    f"({error.strerror}); let no other training write it."
                )
                return
            if self._is_beside(file):
                self._file = file
            else:  # the one who held it removed it meanwhile
                file.close()

    def release(self) -> None:
        """Let the next one have it."""
        if self._file is not None:
            self._beside.unlink(missing_ok=True)
            self._file.close()
            self._file = None

    def _is_beside(self, file: BinaryIO) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self._beside))
        except FileNotFoundError:
            return False

    def __getstate__(self) -> dict[str, object]:
        """Travel to another process without the lock, which stays with this one."""
        return {**self.__dict__, "_file": None}
