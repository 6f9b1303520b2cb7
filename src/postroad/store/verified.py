"""What next hops have said of recipients: kept on the disk, for all workers of a node and for the commands.

One small SQLite database in the state folder. It is a cache: if it is lost or cannot be read, a new one is begun, and
recipients are asked about again. What always holds: it holds at most `entries_max` entries, of which the oldest go
first; an entry is whole or not there. How it fails: `get` then knows nothing and `put` keeps nothing, and `told` says
so once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

NAME: Final = "verified.db"  # in the state folder
_BUSY_S: Final = 0.2  # how long another process may write
_OPEN_S: Final = 5.0  # the same while the database is made
_PRUNE_EVERY: Final = 500  # new entries
_TEXT_MAX: Final = 500  # characters of what the next hop said

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS verified (
  mailbox TEXT PRIMARY KEY, found INTEGER NOT NULL, at_us INTEGER NOT NULL, text TEXT NOT NULL, hop TEXT NOT NULL
) WITHOUT ROWID
"""


class VerifiedEntry(msgspec.Struct, frozen=True):
    """`found`: whether the recipient exists. `at_us`: when the next hop said so. `text`: what it said; `hop`: who."""

    mailbox: str
    found: bool
    at_us: int
    text: str = ""
    hop: str = ""


class VerifiedStore:
    """See the module. `told` gets messages about trouble."""

    def __init__(self, path: Path, entries_max: int, told: Callable[[str], None] = lambda text: None) -> None:
        self._path = path
        self.entries_max = entries_max
        self._told = told
        self._broken = ""
        self._new = 0
        self._connection = self._open()

    def _open(self) -> sqlite3.Connection | None:
        for again in (False, True):
            try:
                connection = sqlite3.connect(
                    self._path, timeout=_OPEN_S, isolation_level=None, check_same_thread=False
                )
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute(_TABLE)
                connection.execute("SELECT mailbox, found, at_us, text, hop FROM verified LIMIT 1").fetchall()
                connection.execute(f"PRAGMA busy_timeout = {int(_BUSY_S * 1000)}")
                return connection
            except sqlite3.OperationalError as error:
                self._say(error)
                return None
            except sqlite3.DatabaseError as error:
                self._say(error)
                if again:
                    return None
                for suffix in ("", "-wal", "-shm"):
                    Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        return None

    def _say(self, error: sqlite3.Error) -> None:
        text = f"{self._path}: the answers of next hops about recipients cannot be kept: {error}"
        if text != self._broken:
            self._broken = text
            self._told(text)

    def get(self, mailbox: str) -> VerifiedEntry | None:
        rows = self._rows("SELECT mailbox, found, at_us, text, hop FROM verified WHERE mailbox = ?", (mailbox,))
        return next(rows, None)

    def put(self, entry: VerifiedEntry) -> None:
        row = (entry.mailbox, entry.found, entry.at_us, entry.text[:_TEXT_MAX], entry.hop)
        self._change("INSERT OR REPLACE INTO verified VALUES (?, ?, ?, ?, ?)", row)
        self._new += 1
        if self._new >= min(_PRUNE_EVERY, max(1, self.entries_max // 10)):
            self._new = 0
            self._prune()

    def _prune(self) -> None:
        count = f"(SELECT max(0, count(*) - {int(self.entries_max)}) FROM verified)"
        oldest = f"SELECT mailbox FROM verified ORDER BY at_us LIMIT {count}"
        self._change(f"DELETE FROM verified WHERE mailbox IN ({oldest})", ())

    def entries(self, domain: str = "") -> Iterator[VerifiedEntry]:
        """All, or those of one domain, by name."""
        rows = self._rows("SELECT mailbox, found, at_us, text, hop FROM verified ORDER BY mailbox", ())
        return (each for each in rows if not domain or each.mailbox.endswith(f"@{domain}"))

    def forget(self, mailboxes: Iterable[str]) -> int:
        """Removes entries, and returns how many there were. ``@domain`` means all mailboxes of a domain."""
        gone = 0
        for mailbox in mailboxes:
            if mailbox.startswith("@"):
                gone += self._change("DELETE FROM verified WHERE substr(mailbox, ?) = ?", (-len(mailbox), mailbox))
            else:
                gone += self._change("DELETE FROM verified WHERE mailbox = ?", (mailbox,))
        return gone

    def forget_all(self) -> int:
        return self._change("DELETE FROM verified", ())

    def _rows(self, text: str, arguments: tuple[object, ...]) -> Iterator[VerifiedEntry]:
        if self._connection is None:
            return
        try:
            rows = self._connection.execute(text, arguments).fetchall()
        except sqlite3.Error as error:
            self._say(error)
            return
        for mailbox, found, at_us, said, hop in rows:
            yield VerifiedEntry(str(mailbox), bool(found), int(at_us), str(said), str(hop))

    def _change(self, text: str, arguments: tuple[object, ...]) -> int:
        if self._connection is None:
            return 0
        try:
            return self._connection.execute(text, arguments).rowcount
        except sqlite3.Error as error:
            self._say(error)
            return 0

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
