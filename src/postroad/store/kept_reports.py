"""Reports of others, kept on the disk beside the history: one SQLite database for all workers and for the commands.

A report is octets here; what they mean is `postroad.trust.inbound`'s matter. What always holds: a mail and its reports
are in one commit, which is synced before `put` returns, and a mail is kept once, however often it is put (its queue id
is the key), so reports are counted once over crashes and retries. A report with the name of one that is there is a
duplicate: it changes nothing, unless it is verified and the other is not. Reports older than `keep_days` are removed,
and if all are larger than `size_max`, those that are not verified and then the oldest.

How it fails: `KeepingFailed` says why nothing was kept. A damaged database is set aside, and a new one is begun; `told`
says so. Each thread or process has its own object.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import urllib.parse
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from postroad.store.options import KeptReportOptions

NAME: Final = "reports.db"  # in the folder of the history
_T = TypeVar("_T")
_BUSY_S: Final = 30.0  # how long another process may write
_DAY_US: Final = 86_400_000_000
_PRUNE_EVERY: Final = 50  # mails
_PRUNE_ROWS: Final = 20  # reports removed at once, if there is too much
_PRUNE_TURNS_MAX: Final = 1_000
_VACUUM_PAGES: Final = 10_000
VALUE_MAX: Final = 536_870_912  # octets of a report, expanded
_MAILS_MAX: Final = 200_000  # mails of which is known what they held
_MAIL_SIZE: Final = 4_000  # octets of `size_max` for each of them

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS mail (
  id INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, client TEXT NOT NULL, sender TEXT NOT NULL, author TEXT NOT NULL,
  subject TEXT NOT NULL, recipient TEXT NOT NULL, state INTEGER NOT NULL, text TEXT NOT NULL,
  duplicates INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS mail_client ON mail (client, at_us);
CREATE INDEX IF NOT EXISTS mail_at ON mail (at_us);
CREATE TABLE IF NOT EXISTS report (
  number INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, mail INTEGER NOT NULL, at_us INTEGER NOT NULL,
  domain TEXT NOT NULL, verified INTEGER NOT NULL, value BLOB NOT NULL, UNIQUE (kind, name)
);
CREATE INDEX IF NOT EXISTS report_domain ON report (kind, domain, at_us);
CREATE INDEX IF NOT EXISTS report_at ON report (verified, at_us);
"""


class KeepingFailed(Exception):
    """Nothing was kept; the text says why. `full`: because the disk is full."""

    def __init__(self, text: str, *, full: bool = False) -> None:
        super().__init__(text)
        self.full = full


class MailState:
    """What a mail held: reports; nothing that looks like one; something that could not be read; or it was not looked
    at, because its client had sent too many."""

    READ: Final = 0
    ORDINARY: Final = 1
    UNREADABLE: Final = 2
    NOT_READ: Final = 3


class KeptMail(msgspec.Struct, frozen=True):
    """A mail that came to a report mailbox. `id`: its queue id. `client`: who brought it. `author`: the domain of its
    From. `state`: MailState. `text`: what it held, or what was wrong. `duplicates`: how many of its reports were there
    already."""

    id: int
    at_us: int
    client: str = ""
    sender: str = ""
    author: str = ""
    subject: str = ""
    recipient: str = ""
    state: int = MailState.READ
    text: str = ""
    duplicates: int = 0


class KeptReport(msgspec.Struct, frozen=True):
    """A report. `kind`: of what kind; two of one kind and `name` are the same report. `domain`: that it is about.
    `verified`: its author is who it says. `mail`, `at_us`: of the mail that brought it."""

    kind: str
    name: str
    domain: str
    value: bytes
    verified: bool = False
    mail: int = 0
    at_us: int = 0


class ReportStore:
    """See the module. It opens its database at the first use. `only_reads`: for commands; it makes and mends
    nothing."""

    def __init__(
        self, directory: Path, options: KeptReportOptions, told: Callable[[str], None] = lambda text: None, *,
        only_reads: bool = False,
    ) -> None:
        self._path = directory / NAME
        self._only_reads = only_reads
        self.options = options
        self._told = told
        self._connection: sqlite3.Connection | None = None
        self._inode = 0  # of the file that is open
        self._puts = 0

    # -- writing ---------------------------------------------------------------------------------------------------

    def find(self, id: int) -> KeptMail | None:
        """The mail with this queue id, if it was put before."""
        return self._safely(lambda connection: _mail_of(connection, id))

    def sent_by(self, client: str, since_us: int) -> int:
        """How many mails of this client were looked at since then."""
        query = "SELECT count(*) FROM mail WHERE client = ? AND at_us >= ? AND state != ?"
        row = self._safely(lambda connection: connection.execute(
            query, (client, since_us, MailState.NOT_READ)).fetchone())
        return int(row[0])

    def put(self, mail: KeptMail, reports: Sequence[KeptReport]) -> KeptMail:
        """Keeps a mail with its reports. Returns it as it is kept: that of the first time, if it was put before."""
        kept = self._safely(lambda connection: _put(connection, mail, reports))
        self._puts += 1
        if self._puts % _PRUNE_EVERY == 1:
            self.prune(mail.at_us)
        return kept

    def prune(self, now_us: int) -> None:
        """Removes what is too old or too much."""
        before_us = now_us - self.options.keep_days * _DAY_US
        mails_max = min(_MAILS_MAX, self.options.size_max // _MAIL_SIZE)
        self._safely(lambda connection: _remove_old(connection, before_us, mails_max))
        for _ in range(_PRUNE_TURNS_MAX):
            if not self._safely(self._remove_some):
                return

    def _remove_some(self, connection: sqlite3.Connection) -> bool:
        """Removes a few if all are too large. Returns whether there may be more to do."""
        if _size(connection) <= self.options.size_max:
            return False
        connection.execute("BEGIN IMMEDIATE")
        chosen = "SELECT number FROM report ORDER BY verified, at_us LIMIT ?"
        gone = connection.execute(f"DELETE FROM report WHERE number IN ({chosen})", (_PRUNE_ROWS,)).rowcount
        connection.execute("COMMIT")
        connection.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()
        return gone > 0

    # -- reading ---------------------------------------------------------------------------------------------------

    def reports(self, kind: str, domain: str = "", since_us: int = 0) -> Iterator[KeptReport]:
        """Reports of a kind that came since then, the oldest first. `domain`: that and those below it, "": all."""
        query = "SELECT kind, name, domain, value, verified, mail, at_us FROM report WHERE kind = ? AND at_us >= ?"
        arguments: tuple[object, ...] = (kind, since_us)
        if domain:
            query += " AND (domain = ? OR substr(domain, ?) = ?)"
            arguments += (domain, -len(domain) - 1, f".{domain}")
        rows = self._safely(lambda connection: connection.execute(f"{query} ORDER BY at_us, number", arguments))
        try:
            for row in rows:
                yield KeptReport(row[0], row[1], row[2], _expanded(row[3]), bool(row[4]), row[5], row[6])
        except (sqlite3.Error, zlib.error) as error:
            raise KeepingFailed(f"{self._path}: {error}") from error

    def counts(self, since_us: int = 0) -> dict[str, int]:
        """How many reports of each kind came since then."""
        query = "SELECT kind, count(*) FROM report WHERE at_us >= ? GROUP BY kind"
        return dict(self._safely(lambda connection: connection.execute(query, (since_us,)).fetchall()))

    def mails(self, since_us: int = 0) -> list[KeptMail]:
        """Mails that came since then, the oldest first."""
        query = f"SELECT {_COLUMNS} FROM mail WHERE at_us >= ? ORDER BY at_us, id"
        rows = self._safely(lambda connection: connection.execute(query, (since_us,)).fetchall())
        return [KeptMail(*row) for row in rows]

    @property
    def is_there(self) -> bool:
        """Whether anything was ever kept."""
        return self._path.exists()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    # -- the database ----------------------------------------------------------------------------------------------

    def _safely(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            for again in (False, True):
                try:
                    connection = self._opened()
                    return work(connection)
                except sqlite3.DatabaseError as error:
                    self._roll_back()
                    if again or self._only_reads or not _is_damage(error):
                        raise
                    self._set_aside(error)
        except sqlite3.Error as error:
            self.close()
            full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
            raise KeepingFailed(f"{self._path}: {error}", full=full) from error
        except OSError as error:
            raise KeepingFailed(f"{self._path}: {error.strerror or error}") from error
        except BaseException:  # a fault of ours: a transaction that stays open would keep everybody from writing
            self._roll_back()
            raise
        raise AssertionError("the second turn returns or raises")

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None and self._only_reads:
            place = urllib.parse.quote(str(self._path))
            self._connection = sqlite3.connect(f"file:{place}?mode=ro", uri=True, timeout=_BUSY_S)
        if self._connection is None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            self._inode = os.fstat(file).st_ino
            os.close(file)
            connection = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            self._connection = connection
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before anything is in it
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(_SCHEMA)
        return self._connection

    def _roll_back(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def _set_aside(self, error: sqlite3.Error) -> None:
        self.close()
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self._path).st_ino != self._inode:
                return  # another worker has set the damaged one aside, and begun a new one
        number = 1
        while os.path.lexists(f"{self._path}.damaged-{number}"):
            number += 1
        aside = f"{self._path}.damaged-{number}"
        for ending in ("", "-wal", "-shm"):
            if os.path.exists(f"{self._path}{ending}"):
                os.rename(f"{self._path}{ending}", f"{aside}{ending}")
        self._told(f"{self._path} is damaged ({error}): set aside as {aside}")


_COLUMNS: Final = "id, at_us, client, sender, author, subject, recipient, state, text, duplicates"


def _mail_of(connection: sqlite3.Connection, id: int) -> KeptMail | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM mail WHERE id = ?", (id,)).fetchone()
    return None if row is None else KeptMail(*row)


def _put(connection: sqlite3.Connection, mail: KeptMail, reports: Sequence[KeptReport]) -> KeptMail:
    connection.execute("BEGIN IMMEDIATE")
    found = _mail_of(connection, mail.id)
    if found is not None:
        connection.execute("COMMIT")
        return found
    added = sum(_add(connection, mail, report) for report in reports)
    kept = msgspec.structs.replace(mail, duplicates=len(reports) - added)
    marks = ", ".join("?" * len(msgspec.structs.astuple(kept)))
    connection.execute(f"INSERT INTO mail ({_COLUMNS}) VALUES ({marks})", msgspec.structs.astuple(kept))
    connection.execute("COMMIT")
    return kept


def _add(connection: sqlite3.Connection, mail: KeptMail, report: KeptReport) -> bool:
    """Adds a report, or puts it in the place of one that is not verified. Returns False for a duplicate."""
    query = (
        "INSERT INTO report (kind, name, mail, at_us, domain, verified, value) VALUES (?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (kind, name) DO UPDATE SET mail = excluded.mail, at_us = excluded.at_us, "
        "domain = excluded.domain, verified = excluded.verified, value = excluded.value "
        "WHERE excluded.verified > report.verified"
    )
    value = zlib.compress(report.value, 6)
    row = (report.kind, report.name, mail.id, mail.at_us, report.domain, int(report.verified), value)
    return connection.execute(query, row).rowcount > 0


def _expanded(value: bytes) -> bytes:
    inflater = zlib.decompressobj()
    return inflater.decompress(value, VALUE_MAX)


def _remove_old(connection: sqlite3.Connection, before_us: int, mails_max: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM report WHERE at_us < ?", (before_us,))
    connection.execute("DELETE FROM mail WHERE at_us < ?", (before_us,))
    oldest = "SELECT id FROM mail ORDER BY at_us LIMIT max(0, (SELECT count(*) FROM mail) - ?)"
    connection.execute(f"DELETE FROM mail WHERE id IN ({oldest})", (mails_max,))
    connection.execute("COMMIT")
    connection.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()


def _size(connection: sqlite3.Connection) -> int:
    """Octets in use."""
    (pages,), (free,), (size,) = (
        connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
    )
    return (int(pages) - int(free)) * int(size)


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
