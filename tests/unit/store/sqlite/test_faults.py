"""What errors of SQLite and of the system mean for a commit."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from postroad.store.sqlite import faults
from postroad.store.values import FailureKind


def _error(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("made by the test")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_FULL, FailureKind.FULL),
        (sqlite3.SQLITE_IOERR_FSYNC, FailureKind.IO),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, FailureKind.IO),
        (sqlite3.SQLITE_CORRUPT_INDEX, FailureKind.IO),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, FailureKind.INVALID),
        (sqlite3.SQLITE_MISUSE, FailureKind.INVALID),
    ],
)
def test_the_primary_code_decides(code: int, kind: FailureKind) -> None:
    assert faults.kind_of(faults.primary(_error(code))) is kind


def test_an_error_that_is_none_of_sqlite_has_no_code() -> None:
    assert faults.primary(ValueError("a bug")) == 0
    assert faults.kind_of(0) is FailureKind.INVALID


def test_damage() -> None:
    assert faults.is_damage(faults.damaged("row 7 is missing"))
    assert faults.is_damage(_error(sqlite3.SQLITE_IOERR_SHORT_READ))
    assert not faults.is_damage(_error(sqlite3.SQLITE_IOERR_WRITE))


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, ""), True),
        (OSError(errno.EDQUOT, ""), True),
        (OSError(errno.EIO, ""), False),
        (_error(sqlite3.SQLITE_FULL), True),
        (_error(sqlite3.SQLITE_IOERR_SHMSIZE), True),
        (_error(sqlite3.SQLITE_IOERR_WRITE), False),
    ],
)
def test_no_space(error: Exception, full: bool) -> None:
    assert faults.is_no_space(error) is full


def test_a_file_system_with_almost_nothing_free_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not faults.is_full(tmp_path / "not there")
    found = os.statvfs(tmp_path)

    def with_free(blocks: int) -> bool:
        fields = list(found)
        fields[4] = blocks  # f_bavail
        monkeypatch.setattr(faults.os, "statvfs", lambda path: os.statvfs_result(fields))
        return faults.is_full(tmp_path)

    assert with_free(0)
    assert not with_free(1 + 1_048_576 // found.f_frsize)
