"""SQLite on a recorded disk: a VFS of apsw below, and above it what `store` uses of sqlite3.Connection.

The standard library's SQLite cannot be given a VFS, so the shard is handed a connection of apsw's that looks like one
of sqlite3's (`store.sqlite.schema.Connect`). The files are real, and recorded (`tests.crash.disk`) as SQLite writes and
syncs them; the unix VFS syncs the folder with the first sync of a new journal, so the recording says so.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw

from postroad.store.sqlite import schema
from tests.crash.disk import Disk

_COUNT = itertools.count()


class Vfs(apsw.VFS):
    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.name = f"recorded-{next(_COUNT)}"
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return File(self.disk, name, flags)

    def xDelete(self, name: str, sync_folder: bool) -> None:
        super().xDelete(name, sync_folder)
        self.disk.unlink(name)
        if sync_folder:
            self.disk.sync_folder(str(Path(name).parent))


class File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self.path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self.disk = disk
        self.is_new = not Path(self.path).exists()
        super().__init__("", name, flags)
        if self.is_new:
            disk.create(self.path)

    def xWrite(self, octets: bytes, offset: int) -> None:
        super().xWrite(octets, offset)
        self.disk.write(self.path, offset, bytes(octets))

    def xTruncate(self, size: int) -> None:
        super().xTruncate(size)
        self.disk.truncate(self.path, size)

    def xSync(self, flags: int) -> None:
        self.disk.sync(self.path)
        if self.is_new:
            self.is_new = False
            self.disk.sync_folder(str(Path(self.path).parent))


class Rows:
    """A cursor that has fetched all."""

    def __init__(self, rows: list[Any], rowcount: int) -> None:
        self._rows = iter(rows)
        self.rowcount = rowcount

    def fetchall(self) -> list[Any]:
        return list(self._rows)

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def __iter__(self) -> Iterator[Any]:
        return self._rows

    def close(self) -> None:
        pass


class Connection:
    """What `store` uses of sqlite3.Connection, by apsw."""

    def __init__(self, path: Path, vfs: str) -> None:
        self._real = apsw.Connection(str(path), vfs=vfs, statementcachesize=512)

    @property
    def in_transaction(self) -> bool:
        return bool(self._real.in_transaction)

    def execute(self, sql: str, parameters: Any = ()) -> Rows:
        def run() -> Rows:
            return Rows(self._real.cursor().execute(sql, tuple(parameters)).fetchall(), self._real.changes())

        return _translated(run)

    def executescript(self, sql: str) -> Rows:
        return self.execute(sql)

    def close(self) -> None:
        _translated(self._real.close)


def _translated(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except apsw.Error as error:
        made = sqlite3.OperationalError(str(error))
        made.sqlite_errorcode = getattr(error, "extendedresult", apsw.SQLITE_ERROR)
        made.sqlite_errorname = type(error).__name__
        raise made from error


def connector(disk: Disk) -> schema.Connect:
    """Opens a shard on the recorded disk."""
    vfs = Vfs(disk)

    def connect(path: Path) -> Any:
        connection: Any = Connection(path, vfs.name)
        schema.tune(connection)
        return connection

    connect.vfs = vfs  # type: ignore[attr-defined]  # it lives as long as the connector
    return connect
