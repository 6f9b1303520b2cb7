"""What is reported to other domains, one small SQLite database for each day: ``STATE/feedback/YYYY-MM-DD.db``.

    row      what the day's messages and connections were, counted: (kind, domain, row, count)
    report   one for each kind and domain: when its turn is, and what became of it
    sending  one for each destination of a report: whether it was sent, when, by which message

A day's file is made once, by one process (`DayMaker`), and appears under its name when it is whole; no other process
makes one meanwhile. From then on one worker writes it (`FeedbackDay`), and commands read it. What always holds: a
change is on the disk when the call returns. Once no report of the day is open, the rows are removed: only what was sent
is kept (`finish`).

How it fails: sqlite3.Error or OSError, with nothing changed. Not here: what is counted (`report.feedback_counts`), and
what is sent when (`report.feedback_sending`).
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from postroad.world import files

FOLDER: Final = "feedback"  # in the state folder
_LOCK: Final = "making.lock"
_NAME: Final = re.compile(r"(\d{4}-\d\d-\d\d)\.db")
_TABLES: Final = """
CREATE TABLE row(
    kind TEXT NOT NULL, domain TEXT NOT NULL, row BLOB NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY(kind, domain, row)) WITHOUT ROWID;
CREATE TABLE report(
    kind TEXT NOT NULL, domain TEXT NOT NULL, due_us INTEGER NOT NULL, state TEXT NOT NULL, text TEXT NOT NULL,
    record TEXT NOT NULL, record_us INTEGER NOT NULL, tries INTEGER NOT NULL, PRIMARY KEY(kind, domain)) WITHOUT ROWID;
CREATE TABLE sending(
    kind TEXT NOT NULL, domain TEXT NOT NULL, destination TEXT NOT NULL, state TEXT NOT NULL, due_us INTEGER NOT NULL,
    tries INTEGER NOT NULL, at_us INTEGER NOT NULL, id INTEGER NOT NULL, size INTEGER NOT NULL, text TEXT NOT NULL,
    size_max INTEGER NOT NULL, PRIMARY KEY(kind, domain, destination)) WITHOUT ROWID;
"""
_VERSION: Final = 1
_BUSY_S: Final = 10.0
_PENDING: Final = "'open', 'planned'"
_UNDER_WAY: Final = "'waiting', 'begun'"


class ReportState(enum.Enum):
    """OPEN: nobody has looked where it goes. PLANNED: its destinations are in `sending`. DONE: no destination waits.
    NONE: nobody wants it, or nobody may get it (`text`)."""

    OPEN = "open"
    PLANNED = "planned"
    DONE = "done"
    NONE = "none"


class SendingState(enum.Enum):
    """WAITING for its turn. BEGUN: it may have been sent or not; after a crash the history knows. SENT. FAILED: it
    will not be sent (`text`)."""

    WAITING = "waiting"
    BEGUN = "begun"
    SENT = "sent"
    FAILED = "failed"


class DayReport(msgspec.Struct, frozen=True):
    """`record`: of the domain's DMARC policy as the day saw it last. `text`: why there is none, or what was wrong."""

    kind: str
    domain: str
    due_us: int
    state: ReportState = ReportState.OPEN
    text: str = ""
    record: str = ""
    tries: int = 0


class DaySending(msgspec.Struct, frozen=True):
    """`destination`: the URI. `due_us`: of the next try. `at_us`: when it was begun or sent. `id`: the queue id of its
    mail, 0 for a POST. `size`: octets of the compressed report. `size_max`: what the destination takes, 0: any."""

    kind: str
    domain: str
    destination: str
    state: SendingState = SendingState.WAITING
    due_us: int = 0
    tries: int = 0
    at_us: int = 0
    id: int = 0
    size: int = 0
    text: str = ""
    size_max: int = 0


def path_of(folder: Path, date: str) -> Path:
    """The file of a day, ``2026-11-30``."""
    return folder / f"{date}.db"


def days(folder: Path) -> list[str]:
    """The dates of all days that are there, the oldest first."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(found[1] for name in names if (found := _NAME.fullmatch(name)))


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether it says that a file is damaged for good."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def remove(folder: Path, date: str) -> None:
    for ending in ("", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path_of(folder, date)}{ending}")


class DayMaker:
    """Makes the file of a day. `add` as often as wanted, then `done`. FileExistsError if the file is there already: it
    may know that reports were sent. BlockingIOError if another process makes a file, such as one whose worker was
    killed."""

    def __init__(self, folder: Path, date: str) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._path = path_of(folder, date)
        self._beside = Path(f"{self._path}.new")
        self._lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._path.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self._path))
            self._connection = self._begun()
        except BaseException:
            os.close(self._lock)
            raise

    def _begun(self) -> sqlite3.Connection:
        for ending in ("", "-journal"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self._beside}{ending}")
        os.close(os.open(self._beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        connection = _connect(self._beside, "rw")
        connection.execute("PRAGMA synchronous = OFF")  # the file has no name yet; `done` syncs it
        connection.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")
        connection.execute("BEGIN")
        return connection

    def add(self, rows: Iterable[tuple[str, str, bytes, int]]) -> None:
        """Rows (kind, domain, row, count); equal ones are added up."""
        self._connection.executemany(
            "INSERT INTO row VALUES (?,?,?,?) ON CONFLICT DO UPDATE SET count = count + excluded.count", rows
        )

    def set_records(self, records: Mapping[str, tuple[int, str]]) -> None:
        """The DMARC records that were seen of policy domains, each with the time at which it was seen last."""
        self._connection.executemany(
            "INSERT INTO report VALUES ('dmarc', ?, 0, 'open', '', ?, ?, 0) ON CONFLICT DO UPDATE SET"
            " record = excluded.record, record_us = excluded.record_us WHERE excluded.record_us >= record_us",
            ((domain, record, at_us) for domain, (at_us, record) in records.items()),
        )

    def reports(self) -> list[tuple[str, str]]:
        """(kind, domain) of everything that was added."""
        return self._connection.execute("SELECT DISTINCT kind, domain FROM row").fetchall()

    def done(self, due: Iterable[DayReport]) -> None:
        """The file gets its name. `due`: a report for each kind and domain that has rows."""
        self._connection.execute("DELETE FROM report WHERE domain NOT IN (SELECT domain FROM row WHERE kind = 'dmarc')")
        self._connection.executemany(
            "INSERT INTO report VALUES (?, ?, ?, ?, ?, '', 0, 0) ON CONFLICT DO UPDATE SET due_us = excluded.due_us,"
            " state = excluded.state, text = excluded.text",
            ((each.kind, each.domain, each.due_us, each.state.value, each.text) for each in due),
        )
        self._connection.execute("COMMIT")
        self._connection.close()
        with open(self._beside, "rb") as file:
            os.fsync(file.fileno())
        os.rename(self._beside, self._path)
        try:
            files.sync_folder(str(self._path.parent))
        finally:
            self._unlock()

    def abandon(self) -> None:
        self._connection.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._beside)
        self._unlock()

    def _unlock(self) -> None:
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


class FeedbackDay:
    """The file of a day. `writes`: for its one writer; else it is only read."""

    def __init__(self, path: Path, *, writes: bool = False) -> None:
        self._connection = _connect(path, "rw") if writes else _reader(path)

    def close(self) -> None:
        self._connection.close()

    # --- reading

    def next_due_us(self) -> int | None:
        """When the next report or sending has its turn; None if nothing waits."""
        found = self._connection.execute(
            f"SELECT min(due_us) FROM (SELECT due_us FROM report WHERE state = 'open' UNION ALL"
            f" SELECT due_us FROM sending WHERE state IN ({_UNDER_WAY}))"
        ).fetchone()
        return None if found is None or found[0] is None else int(found[0])

    def due_reports(self, until_us: int, limit: int) -> list[DayReport]:
        return self._reports("WHERE state = 'open' AND due_us <= ? ORDER BY due_us LIMIT ?", (until_us, limit))

    def reports(self) -> list[DayReport]:
        return self._reports("ORDER BY kind, domain", ())

    def report(self, kind: str, domain: str) -> DayReport | None:
        found = self._reports("WHERE kind = ? AND domain = ?", (kind, domain))
        return found[0] if found else None

    def _reports(self, condition: str, values: tuple[object, ...]) -> list[DayReport]:
        rows = self._connection.execute(
            f"SELECT kind, domain, due_us, state, text, record, tries FROM report {condition}", values
        )
        return [DayReport(row[0], row[1], row[2], ReportState(row[3]), *row[4:]) for row in rows]

    def due_sendings(self, until_us: int, limit: int) -> list[DaySending]:
        """Mails first, because each takes a moment. Of the others, what was tried least: a server that does not answer
        takes no place of one that does."""
        return self._sendings(
            f"WHERE state IN ({_UNDER_WAY}) AND due_us <= ? ORDER BY destination LIKE 'https:%', tries, due_us LIMIT ?",
            (until_us, limit),
        )

    def sendings(self) -> list[DaySending]:
        return self._sendings("ORDER BY at_us, kind, domain, destination", ())

    def sendings_of(self, kind: str, domain: str) -> list[DaySending]:
        return self._sendings("WHERE kind = ? AND domain = ?", (kind, domain))

    def _sendings(self, condition: str, values: tuple[object, ...]) -> list[DaySending]:
        rows = self._connection.execute(
            "SELECT kind, domain, destination, state, due_us, tries, at_us, id, size, text, size_max"
            f" FROM sending {condition}", values,
        )  # fmt: skip
        return [DaySending(row[0], row[1], row[2], SendingState(row[3]), *row[4:]) for row in rows]

    def sent_count(self) -> int:
        """Sendings that were begun or sent."""
        found = self._connection.execute("SELECT count(*) FROM sending WHERE state IN ('begun', 'sent')").fetchone()
        return int(found[0])

    def rows(self, kind: str, domain: str, limit: int) -> list[tuple[bytes, int]]:
        """The rows of a report, those that count most first; equal counts in the order of their octets, so that a
        report that is made twice is the same."""
        return self._connection.execute(
            "SELECT row, count FROM row WHERE kind = ? AND domain = ? ORDER BY count DESC, row LIMIT ?",
            (kind, domain, limit),
        ).fetchall()

    def rows_count(self, kind: str, domain: str) -> int:
        found = self._connection.execute(
            "SELECT count(*) FROM row WHERE kind = ? AND domain = ?", (kind, domain)
        ).fetchone()
        return int(found[0])

    def mail_ids(self) -> Iterator[int]:
        """The queue ids of the mail that carried reports."""
        for (id,) in self._connection.execute("SELECT id FROM sending WHERE id > 0"):
            yield id

    # --- changing

    def plan(self, report: DayReport, sendings: Iterable[DaySending]) -> None:
        """What is known of a report now, and where it goes: these destinations are fixed from here on. Of those that it
        has already, nothing changes."""
        with self._changing():
            self._connection.execute(
                "UPDATE report SET due_us = ?, state = ?, text = ?, tries = ? WHERE kind = ? AND domain = ?",
                (report.due_us, report.state.value, report.text, report.tries, report.kind, report.domain),
            )
            self._connection.executemany(
                "INSERT OR IGNORE INTO sending VALUES (?,?,?,?,?,?,?,?,?,?,?)", (_octets(each) for each in sendings)
            )
            self._end_planned(report.kind, report.domain)

    def note(self, sending: DaySending) -> None:
        """The new state of a sending. A report none of whose sendings waits any more is done."""
        with self._changing():
            self._connection.execute(
                "INSERT OR REPLACE INTO sending VALUES (?,?,?,?,?,?,?,?,?,?,?)", _octets(sending)
            )
            self._end_planned(sending.kind, sending.domain)

    def _end_planned(self, kind: str, domain: str) -> None:
        self._connection.execute(
            "UPDATE report SET state = 'done' WHERE kind = ? AND domain = ? AND state = 'planned' AND NOT EXISTS"
            f" (SELECT 1 FROM sending s WHERE s.kind = report.kind AND s.domain = report.domain"
            f" AND s.state IN ({_UNDER_WAY}))",
            (kind, domain),
        )

    def finish(self) -> bool:
        """Removes the rows if no report of the day needs them any more. Whether that is so."""
        if self._connection.execute(f"SELECT 1 FROM report WHERE state IN ({_PENDING}) LIMIT 1").fetchone():
            return False
        if self._connection.execute("SELECT 1 FROM row LIMIT 1").fetchone():
            with self._changing():
                self._connection.execute("DELETE FROM row")
            self._connection.execute("VACUUM")
        return True

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


def _octets(sending: DaySending) -> tuple[object, ...]:
    return (
        sending.kind, sending.domain, sending.destination, sending.state.value, sending.due_us, sending.tries,
        sending.at_us, sending.id, sending.size, sending.text, sending.size_max,
    )  # fmt: skip


def _reader(path: Path) -> sqlite3.Connection:
    return _connect(path, "ro")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    """`mode`: ro or rw; a file that is not there is never made."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=_BUSY_S, isolation_level=None,
        check_same_thread=False,
    )  # fmt: skip
    if mode == "ro":
        return connection
    for pragma in ("journal_mode = DELETE", "synchronous = FULL", "temp_store = MEMORY", "secure_delete = 0"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection
