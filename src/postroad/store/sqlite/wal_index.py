"""Makes room for the WAL index: the file ``…-shm``, which SQLite maps into memory and writes without asking for space.

SQLite reserves the space by writing one octet at the end of every 4096 (https://www.sqlite.org/walformat.html, §2). If
the blocks of a file system are smaller, three of four blocks have no space, and a write to them on a full disk is
SIGBUS, which ends the process. So on such file systems nothing is opened without room for the index, and the writer
reserves all of it at once; then readers find it there, even if the disk is full.

How it fails: sqlite3.OperationalError with SQLITE_FULL, as when SQLite itself finds no space. A file system that
cannot reserve space (without extents, NFS) is only looked at before it is opened.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sqlite3
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

_PAGE: Final = 4096  # SQLite writes one octet into each of these
_REGION: Final = 32_768  # the index grows by this
_REGION_FRAMES: Final = 4096  # frames of the WAL in one region; the first holds a few less
_FRAME_MIN: Final = 24 + 512  # a frame of the smallest page
_SLACK: Final = 16_384  # further blocks: the folder's entry, what other programs write in the moment between


def check_room(path: Path, page_size: int) -> None:
    """Checks that there is room before a connection to the database `path` that may be the first one. Raises
    sqlite3.OperationalError."""
    try:
        found = os.statvfs(path.parent)
        if found.f_frsize >= _PAGE or path.name == ":memory:":
            return
        free = found.f_bavail * found.f_frsize  # of f_bfree ext4 keeps a part from everybody, root too
    except OSError:
        return  # what opens the file will say what is wrong
    needed = _octets(_size(f"{path}-wal"), page_size)
    if free + _allocated(f"{path}-shm") < needed + (_SLACK if free < needed else 0):
        raise full(f"{path}: no space for its WAL index, {needed} octets")


def cover(connection: sqlite3.Connection, path: Path, page_size: int, wal_octets: int) -> None:
    """Gives the index of the open database its space, for a WAL of `wal_octets`. Raises sqlite3.Error."""
    index = f"{path}-shm"
    needed = _octets(wal_octets, page_size)
    try:
        if os.statvfs(path.parent).f_frsize >= _PAGE or _allocated(index) >= needed:
            return
    except OSError:
        return
    connection.execute("SELECT count(*) FROM sqlite_master").fetchall()  # the first read makes the index
    handle = _sqlites_own(index)
    if handle >= 0 and not _allocate()(handle, needed):
        raise full(f"{path}: no space for its WAL index, {needed} octets")


def full(text: str) -> sqlite3.OperationalError:
    """The error that SQLite raises if there is no space."""
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    error.sqlite_errorname = "SQLITE_FULL"
    return error


def _octets(wal_octets: int, page_size: int) -> int:
    frames = wal_octets // max(_FRAME_MIN, page_size)
    return _REGION * (2 + frames // _REGION_FRAMES)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _allocated(path: str) -> int:
    """Octets on the disk; a file with holes is larger."""
    try:
        return os.stat(path).st_blocks * 512
    except OSError:
        return 0


def _sqlites_own(path: str) -> int:
    """The descriptor by which SQLite has the file open in this process; -1 if it cannot be found. A descriptor of our
    own would not do: closing it would remove SQLite's locks of the file (fcntl(2), POSIX locks)."""
    try:
        wanted = os.stat(path)
        for name in os.listdir("/proc/self/fd"):
            try:
                if os.path.samestat(os.fstat(int(name)), wanted):
                    return int(name)
            except OSError:
                continue
    except OSError:
        pass
    return -1


@cache
def _allocate() -> Callable[[int, int], bool]:
    """Reserves the space by the system's fallocate(2). posix_fallocate(3) may write into the file itself, which is in
    use. Returns False only if there is no space."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if call is None:
        return lambda handle, octets: True
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    call.restype = ctypes.c_int

    def allocate(handle: int, octets: int) -> bool:
        return call(handle, 0, 0, octets) == 0 or ctypes.get_errno() not in (errno.ENOSPC, errno.EDQUOT)

    return allocate
