"""MTA-STS policies of remote domains, kept on the disk (RFC 8461 §3.3): they must outlive a restart.

One small SQLite database in the state folder, written by the supervisor alone. It is a cache: what is lost is fetched
again when mail is sent. What always holds: an entry is whole or not there; an entry that cannot be read is left out,
and the others are not.

How it fails: a damaged database is moved aside and a new one begun; if neither works, nothing is kept. `told` says so,
each time once. Journal and locks are SQLite's oldest kind: a command of another user can read beside the node, and
leaves no file behind that the node could not write.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from postroad.mail.tls_policy import StsPolicy

NAME: Final = "sts.db"  # in the state folder
DAMAGED: Final = ".damaged"  # behind the name of one that was moved aside
AGE_MIN_S: Final = 300  # for so long a policy holds in any case, or its host would be asked for each message
_BUSY_S: Final = 5.0  # how long a command may read

_TABLE: Final = "CREATE TABLE IF NOT EXISTS sts (domain TEXT PRIMARY KEY, entry TEXT NOT NULL) WITHOUT ROWID"


class StsEntry(msgspec.Struct, frozen=True, array_like=True):
    """One domain. `fetched_us`: when its policy was fetched last; `refresh_us`: when it is to be fetched again;
    `used_us`: when mail for the domain was last sent, to a day or so. `failures`: fetches in a row that have failed
    since."""

    policy: StsPolicy
    fetched_us: int
    refresh_us: int
    used_us: int
    failures: int = 0

    @property
    def expires_us(self) -> int:
        return self.fetched_us + max(self.policy.max_age_s, AGE_MIN_S) * 1_000_000

    @property
    def size(self) -> int:
        """About so many octets of memory and disk."""
        return 200 + sum(map(len, self.policy.mx)) + sum(map(len, self.policy.lines))


class StsStore:
    """See the module. `told` gets messages about trouble."""

    def __init__(self, path: Path, told: Callable[[str], None] = lambda text: None) -> None:
        self._path = path
        self._told = told
        self._said = ""
        self._connection = self._open()

    def _open(self) -> sqlite3.Connection | None:
        try:
            return _connected(self._path)
        except sqlite3.OperationalError as error:
            self._say(f"the MTA-STS policies of other domains cannot be kept in {self._path}: {error}")
            return None
        except sqlite3.DatabaseError as error:
            damaged = f"{self._path}{DAMAGED}"
            text = f"{self._path} is damaged, and the MTA-STS policies that it held are lost: {error}"
            self._say(f"{text}. It is now {damaged}; policies are fetched again when mail is sent")
            with contextlib.suppress(OSError):
                os.replace(self._path, damaged)
                Path(f"{self._path}-journal").unlink(missing_ok=True)
        try:
            return _connected(self._path)
        except sqlite3.Error as error:
            self._say(f"the MTA-STS policies of other domains cannot be kept in {self._path}: {error}")
            return None

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._told(text)

    def entries(self) -> list[StsEntry]:
        """All of them, the one that was used last at the end."""
        if self._connection is None:
            return []
        try:
            rows = self._connection.execute("SELECT domain, entry FROM sts").fetchall()
        except sqlite3.Error as error:
            self._say(f"{self._path} cannot be read: {error}")
            return []
        return sorted(self._read(rows), key=lambda entry: entry.used_us)

    def _read(self, rows: list[tuple[str, str]]) -> list[StsEntry]:
        found = []
        for domain, text in rows:
            entry = _entry(domain, text)
            if entry is None:
                self._say(f"{self._path}: the MTA-STS policy of {domain!a} cannot be read, and is left out")
            else:
                found.append(entry)
        return found

    def put(self, entry: StsEntry) -> None:
        text = msgspec.json.encode(entry).decode()
        self._change("INSERT OR REPLACE INTO sts VALUES (?, ?)", (entry.policy.domain, text))

    def remove(self, domain: str) -> None:
        self._change("DELETE FROM sts WHERE domain = ?", (domain,))

    def _change(self, text: str, arguments: tuple[object, ...]) -> None:
        if self._connection is None:
            return
        try:
            self._connection.execute(text, arguments)
        except sqlite3.Error as error:
            self._say(f"an MTA-STS policy cannot be kept in {self._path}: {error}")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def kept(path: Path, domain: str) -> StsEntry | str | None:
    """What the database of a node has of a domain, for a command beside it; a text if it cannot be read."""
    if not path.exists():
        return None
    place = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(place, uri=True, timeout=_BUSY_S)) as connection:
            rows = connection.execute("SELECT domain, entry FROM sts WHERE domain = ?", (domain,)).fetchall()
    except sqlite3.Error as error:
        return f"{path} cannot be read: {error}"
    return next((_entry(*row) or f"{path}: the policy of {domain} cannot be read" for row in rows), None)


def _entry(domain: str, text: str) -> StsEntry | None:
    try:
        entry = msgspec.json.decode(text, type=StsEntry)
    except (msgspec.MsgspecError, ValueError, TypeError):
        return None
    return entry if entry.policy.domain == domain else None


def _text(octets: bytes) -> str:
    """Of octets that are no UTF-8, too: else one such row would keep back all others."""
    return octets.decode("utf-8", "replace")


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    connection.text_factory = _text
    try:
        connection.execute("PRAGMA journal_mode = DELETE")
        found = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found is not None and found[0] != "ok":
            raise sqlite3.DatabaseError(str(found[0]))
        connection.execute(_TABLE)
        connection.execute("SELECT domain, entry FROM sts LIMIT 1").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection
