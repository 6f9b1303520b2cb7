"""Maps in files that are never read as a whole; each look-up goes to the file: CDB, LMDB and SQLite.

The formats of `postmap cdb:` and `postmap lmdb:` are read as they are, with or without an octet 0 behind keys and
values, as Postfix reads them. What always holds: they are opened for reading only; a file that was replaced is opened
anew within `CHECK_US`; keys are looked up in lower case; an answer costs a few microseconds, so it is given at once.

How it fails: if a file cannot be opened at start, there is a Problem; if it is missing or damaged later, the answer is
"not now". A file should be replaced by another (`postmap`, `mv`), not changed in place.
"""

from __future__ import annotations

import mmap
import os
import sqlite3
from collections.abc import Callable
from typing import Any, Final, Protocol

from postroad.maps.face import Answer, NotNow
from postroad.maps.folding import fold
from postroad.maps.sql import ROWS_MAX, SqlForm, SqlStatement, joined
from postroad.world.clock import Clock
from postroad.world.files import Stamp, open_file, stamp
from postroad.world.problem import Problem, unreadable

CHECK_US: Final = 1_000_000  # between looks whether the file is another one
BUSY_S: Final = 0.02  # how long a look-up waits for who writes to a SQLite database that is not in WAL mode
_LMDB_KEY_MAX: Final = 511
_SLOTS: Final = 256
_INSTALL: Final = "Install it: pip install 'postroad[lmdb]'."


class OpenTable(Protocol):
    """An open file. `get` raises what it raises if the file is damaged."""

    def get(self, key: str) -> str | None: ...

    def close(self) -> None: ...


class TableSource:
    """A file, opened by `opened`, which raises OSError or another exception if that cannot be."""

    waits = False
    may_keep = True

    def __init__(self, path: str, opened: Callable[[str], OpenTable], clock: Clock) -> None:
        self._path = path
        self._opened = opened
        self._clock = clock
        self._table: OpenTable | None = None
        self._stamp: Stamp | None = None
        self._looked_us = 0
        self._why = ""

    def open(self) -> Problem | None:
        """At the start: why it cannot be used."""
        self._look()
        if self._table is not None:
            return None
        if os.path.exists(self._path):
            return Problem(self._path, self._why, "Check what is in the file, and the query if the map has one.")
        return Problem(self._path, self._why, "Make the file, or correct the path.")

    @property
    def away(self) -> str:
        """Why no file is open; "" if one is."""
        return "" if self._table is not None else self._why

    def look_up(self, key: str, part: bool = False) -> Answer:
        now_us = self._clock.now_us()
        if not 0 <= now_us - self._looked_us < CHECK_US:
            self._looked_us = now_us
            self._look()
        if self._table is None:
            return NotNow(f"{self._path}: {self._why}")
        try:
            return self._table.get(fold(key))
        except UnicodeError:
            return None if _is_odd(key) else NotNow(f"{self._path}: the value of {key[:60]!r} is not in UTF-8")
        except Exception as error:
            return NotNow(f"{self._path}: {type(error).__name__}: {error}")

    def _look(self) -> None:
        """Open the file if it is another one than before. If that fails, the one before goes on."""
        now = stamp(self._path)
        if now == self._stamp:
            return
        try:
            table = self._opened(self._path)
        except OSError as error:
            self._why = unreadable(self._path, error).text
        except Exception as error:
            self._why = f"{type(error).__name__}: {error}"
        else:
            before, self._table, self._stamp = self._table, table, now
            if before is not None:
                before.close()

    def close(self) -> None:
        if self._table is not None:
            self._table.close()
            self._table = None
            self._why = "it is closed"


def _is_odd(key: str) -> bool:
    """Whether the key is no text: a lone surrogate."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return True
    return False


def _plain(value: bytes) -> str:
    """Postfix may have put an octet 0 behind it."""
    return value.removesuffix(b"\0").decode()


# ---- CDB ------------------------------------------------------------------------------------------------------------


class CdbTable:
    """A constant database (D. J. Bernstein's cdb): 256 hash tables behind the records; all numbers are 32 bits."""

    def __init__(self, path: str) -> None:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size < _SLOTS * 8:
                raise ValueError("the file is too short for a CDB")
            self._octets = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)

    def get(self, key: str) -> str | None:
        octets = key.encode()
        found = self._find(octets)
        if found is None:
            found = self._find(octets + b"\0")
        return None if found is None else _plain(found)

    def _find(self, key: bytes) -> bytes | None:
        number = _cdb_hash(key)
        start, slots = self._pair((number & 255) * 8)
        for step in range(slots):
            slot = start + ((number >> 8) + step) % slots * 8
            stored, place = self._pair(slot)
            if not place:
                return None
            if stored == number:
                key_size, value_size = self._pair(place)
                begin = place + 8
                if self._octets[begin : begin + key_size] == key:
                    value = self._octets[begin + key_size : begin + key_size + value_size]
                    if len(value) != value_size:
                        raise ValueError("a value runs past the end")
                    return value
        return None

    def _pair(self, at: int) -> tuple[int, int]:
        octets = self._octets[at : at + 8]
        if len(octets) < 8:
            raise ValueError("a table runs past the end")
        return int.from_bytes(octets[:4], "little"), int.from_bytes(octets[4:], "little")

    def close(self) -> None:
        self._octets.close()


def _cdb_hash(key: bytes) -> int:
    number = 5381
    for octet in key:
        number = ((number << 5) + number & 0xFFFFFFFF) ^ octet
    return number


# ---- LMDB -----------------------------------------------------------------------------------------------------------


class LmdbTable:
    """One file as postmap makes it, its main database."""

    def __init__(self, path: str, lmdb: Any) -> None:
        # Without its lock file, which Postfix does not use either, and for which the folder would have to be writable.
        self._environment = lmdb.open(path, subdir=False, readonly=True, lock=False, max_spare_txns=2)

    def get(self, key: str) -> str | None:
        octets = key.encode()
        if not 0 < len(octets) < _LMDB_KEY_MAX:
            return None
        with self._environment.begin() as transaction:
            value = transaction.get(octets)
            if value is None:
                value = transaction.get(octets + b"\0")
        return None if value is None else _plain(value)

    def close(self) -> None:
        self._environment.close()


def lmdb_opener(where: str) -> Callable[[str], OpenTable] | Problem:
    try:
        import lmdb
    except ImportError:
        return Problem(where, "a map of kind lmdb needs the package lmdb, which is not installed", _INSTALL)
    return lambda path: LmdbTable(path, lmdb)


# ---- SQLite ---------------------------------------------------------------------------------------------------------


SQLITE: Final = SqlForm(lambda number: "?", lambda number: "?", lambda parts: "(" + " || ".join(parts) + ")")


class SqliteTable:
    """A database and a query with `?` for the key; several rows are one value, with commas between them."""

    def __init__(self, path: str, statement: SqlStatement) -> None:
        uri = "file:" + path.replace("%", "%25").replace("?", "%3f").replace("#", "%23") + "?mode=ro"
        os.stat(path)  # for a text that says what is wrong
        self._connection = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        self._statement = statement
        try:
            self.get("nobody@nowhere.invalid")
        except BaseException:
            self._connection.close()
            raise

    def get(self, key: str) -> str | None:
        arguments = self._statement.arguments(key)
        if arguments is None:
            return None
        rows = self._connection.execute(self._statement.text, arguments).fetchmany(ROWS_MAX + 1)
        return joined(rows)

    def close(self) -> None:
        self._connection.close()
