"""Files: the calls that write them, and a watch that asks now and then whether a file has changed.

What always holds: a file that was replaced, written or touched has another Stamp; no file is read here. We ask instead
of using inotify, because this also works on network disks, and if a symbolic link is changed to another file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import msgspec


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
