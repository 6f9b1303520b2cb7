"""What an error of SQLite, or of the disk below it, means for a commit.

Pure functions of an exception; only `is_full` looks at the file system. What always holds: an error that is none of
SQLite's is a bug. Not here: what is done about an error (`store.sqlite.shard`).
"""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import Final

from postroad.store.values import FailureKind

_ENVIRONMENT: Final = frozenset(
    {
        sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_NOLFS,
    }
)  # fmt: skip
KEEP_OPEN: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM})
DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
UNREADABLE: Final = frozenset({sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ})
_ROOM_LEAST: Final = 1_048_576  # octets: a file system with fewer free counts as full


def primary(error: Exception) -> int:
    """SQLite's primary result code; 0 if the error is not from SQLite."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is damaged, or cannot be read."""
    return primary(error) in DAMAGE or getattr(error, "sqlite_errorcode", 0) in UNREADABLE


def damaged(text: str) -> sqlite3.DatabaseError:
    """Makes the error of a database in which a check has found damage."""
    error = sqlite3.DatabaseError(text)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    error.sqlite_errorname = "SQLITE_CORRUPT"
    return error


def is_no_space(error: Exception) -> bool:
    """Whether the file system or a quota is full."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    code = getattr(error, "sqlite_errorcode", 0)
    return primary(error) == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE


def kind_of(code: int) -> FailureKind:
    """The kind of failure that a primary result code means."""
    if code == sqlite3.SQLITE_FULL:
        return FailureKind.FULL
    return FailureKind.IO if code in _ENVIRONMENT else FailureKind.INVALID


def is_full(directory: Path) -> bool:
    """Whether the file system has no space left. A failed write does not always say so (a quota, delayed allocation).
    """
    try:
        found = os.statvfs(directory)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < _ROOM_LEAST
