"""Files: the calls that write them, ways to replace and to read one, and a watch that asks whether a file has changed.

What always holds: a file that was replaced, written or touched has another Stamp. A patient watch tells of a change
only when the file was the same at two looks: a program that writes a file in place may not have ended, and then a part
of the entries would be missing. A file that another one has replaced at each of `REPLACED_MAX` looks is read all the
same: a rename puts a whole file there. We ask now and then instead of using inotify, because this also works on network
disks, and if a symbolic link is changed to another file.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import stat
from collections.abc import Callable
from io import BufferedReader
from typing import Any, Final

import msgspec

BESIDE: Final = ".new"  # behind the name of a file that `replace` has not put into its place yet
REPLACED_MAX: Final = 12  # looks at which a patient watch has found another file, before it takes one
_NULL_DEVICE: Final = os.makedev(1, 3)


class Posix(msgspec.Struct, frozen=True):
    """The calls of the operating system that change the disk; as in `os`. Handed in, so that a test can let each of
    them fail, or record them and cut the power between two."""

    open: Callable[..., int] = os.open
    close: Callable[[int], None] = os.close
    write: Callable[[int, Any], int] = os.write
    fsync: Callable[[int], None] = os.fsync
    fdatasync: Callable[[int], None] = os.fdatasync
    fstat: Callable[[int], os.stat_result] = os.fstat
    ftruncate: Callable[[int, int], None] = os.ftruncate
    mkdir: Callable[..., None] = os.mkdir
    rename: Callable[..., None] = os.rename
    unlink: Callable[..., None] = os.unlink


class Stamp(msgspec.Struct, frozen=True):
    """The state of a file. A file that cannot be asked is all zero, so that its coming and going is a change, too."""

    device: int = 0
    inode: int = 0
    size: int = 0
    modified_ns: int = 0


def stamp(path: str) -> Stamp:
    """The state of the file behind `path`, symbolic links followed."""
    try:
        state = os.stat(path)
    except OSError:
        return Stamp()
    return Stamp(state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)


class Watch:
    """Says when files must be read again. A state is a Stamp, or several values of which one is a Stamp."""

    __slots__ = ("_noticed", "_replaced", "_taken")

    def __init__(self) -> None:
        self._taken: object = None  # the state when they were read last
        self._noticed: object = None  # the state at the last look
        self._replaced = 0  # looks that have found another file, since two were the same

    def has_changed(self, now: object, *, patient: bool = False) -> bool:
        """Whether to read them, in this state. `patient`: not before a second look has found the same state."""
        noticed, self._noticed = self._noticed, now
        if _is_another(noticed, now):
            self._replaced += 1
        elif now == noticed:
            self._replaced = 0
        if now == self._taken or (patient and now != noticed and self._replaced < REPLACED_MAX):
            return False
        self._taken = now
        self._replaced = 0
        return True

    def taken(self, state: object) -> None:
        """They have been read in this state."""
        self._taken = self._noticed = state


def _is_another(before: object, now: object) -> bool:
    """Whether there is another file than before."""
    if not isinstance(before, Stamp) or not isinstance(now, Stamp):
        return False
    return before.inode != now.inode and 0 not in (before.inode, now.inode)


def replace(path: str, octets: bytes, mode: int = 0o600) -> None:
    """The file has these octets, on the disk, when this returns. If the machine stops before, or after OSError, it has
    the old ones. For files of one writer in a folder where no other user may write."""
    beside = f"{path}{BESIDE}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(beside)  # of a writer that was ended
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    os.rename(beside, path)
    sync_folder(os.path.dirname(path) or ".")


def sync_folder(path: str) -> None:
    """Makes the entries of a folder durable. Raises OSError."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def open_file(path: str) -> BufferedReader:
    """A regular file (or the null device) for reading; OSError if it is something else. It waits for nobody: who may
    write to the folder of a file could put a FIFO or a device in its place, and reading that may never end. A byte
    order mark of UTF-8, which editors of other systems write, is passed over."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        state = os.fstat(handle)
        if stat.S_ISDIR(state.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(state.st_mode) and state.st_rdev != _NULL_DEVICE:
            raise OSError(errno.EINVAL, "it is a device, a FIFO or a socket, not a file", path)
    except BaseException:
        os.close(handle)
        raise
    return _behind_mark(os.fdopen(handle, "rb"))


def _behind_mark(file: BufferedReader) -> BufferedReader:
    """The file, behind its byte order mark if it has one."""
    try:
        if file.peek(len(codecs.BOM_UTF8)).startswith(codecs.BOM_UTF8):
            file.read(len(codecs.BOM_UTF8))
    except BaseException:
        file.close()
        raise
    return file
