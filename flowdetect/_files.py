"""Files on disk: size-limited reading, atomic replacement, and locks against a second writer."""

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

NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}  # errors of file systems without locks


def as_path(path: PathName, name: str = "path") -> Path:
    """Turn a user's path into the path of a file; symbolic links are followed.

    Raises
    ------
    TypeError
        If it is not a path.
    ValueError
        If it cannot be a file name.
    OSError
        If it names a folder, or something else that is not a regular file.
    """
    try:
        text = os.fsdecode(path)
    except TypeError:
        raise TypeError(f"{name} must be a str or a path, got {path!r}.") from None
    if "\0" in text:
        raise ValueError(f"{name}={text!r} holds a zero byte, which file names cannot contain; pass another name.")
    if not text or text.endswith(("/", os.sep)) or Path(text).is_dir():
        raise IsADirectoryError(f"{name}={text!r} is a directory; add a file name.")
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}={text!r} cannot be a file name on this system ({error.reason}).") from error
    found = Path(os.path.realpath(text))
    if found.is_symlink():
        raise OSError(errno.ELOOP, f"{name} is a symbolic link to itself", text)
    if found.exists() and not found.is_file():
        raise OSError(f"{name}={text!r} is not a regular file but a pipe, a device or the like; choose another path.")
    return found


def check_writable(path: Path, name: str = "path") -> None:
    """Refuse a path that cannot be written: its folder is missing or not writable."""
    _check_folder(path, name)
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        told = f"{name}={str(path)!r} cannot be written: its folder is not writable ({error.strerror})"
        raise OSError(error.errno, told) from error


def _check_folder(path: Path, name: str = "path") -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{name}={str(path)!r} cannot be written: its folder does not exist; create it first.")


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file atomically: a reader finds the old or the new content, even with several writers.

    Raises
    ------
    OSError
        If it cannot be written; the old file is then unchanged. The message names the file.
    """
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file for writing in pieces; at the end it replaces the old one, unless there was an error.

    Raises
    ------
    OSError
        If it cannot be written; the old file is then unchanged. The message names the file.
    """
    with _beside(path) as (file, temporary):
        yield file
        _finish(file, path)
        with _told(path):
            if path.exists():
                os.chmod(temporary, stat.S_IMODE(path.stat().st_mode))
            os.replace(temporary, path)


def write_new(path: Path, content: bytes) -> None:
    """Write a complete file, unless another process wrote it first.

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
        except OSError:  # a file system without links: two first writers may collide
            if not path.exists():
                os.replace(temporary, path)


class _Temporary(io.FileIO):
    """A temporary file whose errors name the file that it will replace."""

    def __init__(self, temporary: Path, path: Path) -> None:
        with _told(path):
            super().__init__(temporary, "xb")
        self._path = path

    def write(self, content: Any) -> int:
        with _told(self._path):
            return super().write(content)


@contextmanager
def _beside(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Open a temporary file in the same folder, private to this process, and remove it at the end."""
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
    """Make errors of writing name the target file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror or error}; the file could not be written", str(path)) from error


def open_within(path: Path, most: int | None) -> BinaryIO:
    """Open a regular file of at most `most` bytes (None: any size); pipes and devices are refused without waiting.

    Raises
    ------
    ValueError
        If the file is larger.
    OSError
        If it is not a regular file or cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and (most is None or status.st_size <= most):
        return open(descriptor, "rb")
    os.close(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{str(path)!r} is a folder, a pipe, a device or the like, not a regular file; nothing was read.")
    raise ValueError(
        f"{str(path)!r} has {status.st_size} bytes, more than the limit of {most}; if you trust the file, pass a "
        "larger max_bytes."
    )


class Lock:
    """The right to write a file; one process at a time holds it, and it ends with that process.

    It is the operating system's lock of a neighbouring file, `path` with the suffix ".lock", which exists while the
    lock is held. On Windows there is no such lock, and nothing is locked.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._beside = Path(f"{path}.lock")
        self._file: BinaryIO | None = None  # garbage collection closes and so unlocks it, even without release()

    def acquire(self) -> None:
        """Take the lock; raise at once if another process holds it.

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
                    f"{self.name}={str(self.path)!r} is in use: another training is writing it. Wait for its end, or "
                    "choose another file."
                ) from None
            except OSError as error:
                file.close()
                if error.errno not in NO_LOCKS:
                    raise
                self._beside.unlink(missing_ok=True)
                warn(
                    f"{self.name}={str(self.path)!r} is not locked, because its file system has no locks "
                    f"({error.strerror}); make sure that no other training writes it."
                )
                return
            if self._is_beside(file):
                self._file = file
            else:  # its former holder removed it meanwhile
                file.close()

    def release(self) -> None:
        """Release the lock."""
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
        """Return the state for another process, without the lock, which stays in this process."""
        return {**self.__dict__, "_file": None}
