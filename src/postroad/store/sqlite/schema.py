"""The tables of a shard, how a connection to it is opened, and the SQL that writes many rows at once.

A shard is one SQLite file, ``DIR/NN.db``, in WAL mode with ``synchronous=FULL``: a commit has returned only when its
frames are on stable storage (https://www.sqlite.org/wal.html, https://www.sqlite.org/pragma.html#pragma_synchronous).

    fresh      accepted, never settled: the envelope. Small whatever the queue's size, so it is read at once at start
    message    settled at least once and not ended: the envelope
    content    the octets; no row if they stand in a file (`store.content`)
    recipient  one row for each recipient that waits; none for messages that ended at their first settlement
    journal    one row for each commit with all its events, until all readers have them
    reader     one row for each reader of the journal: up to which row it has it
    destination  one row for each destination that anything waits for: how much, and when the first of it is due

The index `recipient_due` serves the questions of the queue: the due rows of a destination are a short range of it. The
table `destination` says which destinations have something due, and how much waits for each, however large the queue is.
Triggers write it, so that it changes in the same commit as the rows that it counts. Statements write up to 64 rows at
once, because each step of SQLite gives the interpreter's lock away and must win it back from a busy loop. Not here:
what is written when (`store.sqlite.shard`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from postroad.store.face import SpoolError
from postroad.store.sqlite import wal_index

VERSION: Final = 2  # PRAGMA user_version: the layout below
# Not part of the layout's version: a Postroad that does not know this table leaves it alone and opens the file as ever.
READERS: Final = "CREATE TABLE IF NOT EXISTS reader(name TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID"
_WITHOUT_DESTINATIONS: Final = 1  # the layout before: without the table of destinations
APPLICATION_ID: Final = 0x50535244  # "PSRD", told by file(1)
PAGE_SIZE: Final = 8192  # measured: between 4096 and 16384 for 1 to 60 KB of content; see docs/decisions/0010-spool.md
BUSY_TIMEOUT_S: Final = 10.0  # another connection is in its way only when an operator opened the file for writing
WAL_COVERED: Final = 134_217_728  # octets of WAL that the index has room for from the beginning
ROWS_MAX: Final = 64  # rows in one statement

Connect = Callable[[Path], sqlite3.Connection]  # opens one file for writing; tests hand in one that fails
Row = tuple[Any, ...]


class Rows(NamedTuple):
    """A statement over any number of rows: `before`, then `row` once for each row, then `after`."""

    before: str
    row: str
    after: str = ""
    between: str = ","


TABLES: Final = """
CREATE TABLE fresh(id INTEGER PRIMARY KEY, envelope BLOB NOT NULL);
CREATE TABLE message(id INTEGER PRIMARY KEY, envelope BLOB NOT NULL);
CREATE TABLE content(id INTEGER PRIMARY KEY, octets BLOB NOT NULL);
CREATE TABLE recipient(
    id INTEGER NOT NULL, number INTEGER NOT NULL, destination TEXT NOT NULL, held INTEGER NOT NULL,
    due_us INTEGER NOT NULL, state BLOB NOT NULL, PRIMARY KEY(id, number)) WITHOUT ROWID;
CREATE INDEX recipient_due ON recipient(destination, held, due_us);
CREATE TABLE journal(seq INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, last_id INTEGER NOT NULL, events BLOB NOT NULL);
"""

# Behind the other tables: `store.sqlite.salvage` counts upon it that these begin on the same pages in every shard.
_COUNTED: Final = """
    INSERT INTO destination VALUES (new.destination, 1, new.held <> 0, CASE new.held WHEN 0 THEN new.due_us END)
    ON CONFLICT(name) DO UPDATE SET count = count + 1, held = held + excluded.held,
        due_us = min(coalesce(due_us, excluded.due_us), coalesce(excluded.due_us, due_us));
"""
_UNCOUNTED: Final = """
    UPDATE destination SET count = count - 1, held = held - (old.held <> 0), due_us = CASE
        WHEN old.held = 0 AND old.due_us <= due_us
        THEN (SELECT min(due_us) FROM recipient WHERE destination = old.destination AND held = 0)
        ELSE due_us END
    WHERE name = old.destination;
"""
_UNNAMED: Final = "DELETE FROM destination WHERE name = old.destination AND count <= 0;"
DESTINATIONS: Final = f"""
CREATE TABLE destination(
    name TEXT PRIMARY KEY, count INTEGER NOT NULL, held INTEGER NOT NULL, due_us INTEGER) WITHOUT ROWID;
CREATE INDEX destination_due ON destination(due_us, name) WHERE due_us IS NOT NULL;
CREATE TRIGGER recipient_inserted AFTER INSERT ON recipient BEGIN {_COUNTED} END;
CREATE TRIGGER recipient_deleted AFTER DELETE ON recipient BEGIN {_UNCOUNTED} {_UNNAMED} END;
CREATE TRIGGER recipient_updated AFTER UPDATE OF destination, held, due_us ON recipient BEGIN
    {_UNCOUNTED} {_COUNTED} {_UNNAMED} END;
"""

# held: 0 waits, 1 held, 2 damaged (the envelope or the state cannot be read; kept for repair, never tried)
DAMAGED: Final = 2

INSERT_FRESH: Final = Rows("INSERT OR REPLACE INTO fresh VALUES ", "(?,?)", "")
INSERT_MESSAGE: Final = Rows("INSERT OR REPLACE INTO message VALUES ", "(?,?)", "")
INSERT_CONTENT: Final = Rows("INSERT OR REPLACE INTO content VALUES ", "(?,?)", "")
# Not "INSERT OR REPLACE": what is replaced like that passes by the triggers.
INSERT_RECIPIENT: Final = Rows(
    "INSERT INTO recipient VALUES ", "(?,?,?,?,?,?)",
    " ON CONFLICT(id, number) DO UPDATE SET destination = excluded.destination, held = excluded.held,"
    " due_us = excluded.due_us, state = excluded.state",
)  # fmt: skip
UPDATE_RECIPIENT: Final = Rows(
    "WITH new(id, number, destination, held, due_us, state) AS (VALUES ", "(?,?,?,?,?,?)",
    ") UPDATE recipient SET destination = new.destination, held = new.held, due_us = new.due_us, state = new.state"
    " FROM new WHERE recipient.id = new.id AND recipient.number = new.number",
)  # fmt: skip
# Not "(id, number) IN (VALUES …)": for that SQLite goes through the whole table.
DELETE_RECIPIENT: Final = Rows("DELETE FROM recipient WHERE ", "(id=? AND number=?)", "", " OR ")
DELETE_ALL_RECIPIENTS: Final = Rows("DELETE FROM recipient WHERE id IN (", "?", ")")
MOVE_FRESH: Final = Rows("INSERT OR REPLACE INTO message SELECT id, envelope FROM fresh WHERE id IN (", "?", ")")
DELETE_FRESH: Final = Rows("DELETE FROM fresh WHERE id IN (", "?", ")")
DELETE_MESSAGE: Final = Rows("DELETE FROM message WHERE id IN (", "?", ")")
DELETE_CONTENT: Final = Rows("DELETE FROM content WHERE id IN (", "?", ")")
SELECT_FRESH: Final = Rows("SELECT id, envelope FROM fresh WHERE id IN (", "?", ")")
SELECT_FRESH_IDS: Final = Rows("SELECT id FROM fresh WHERE id IN (", "?", ")")
SELECT_MESSAGE: Final = Rows("SELECT id, envelope FROM message WHERE id IN (", "?", ")")
SELECT_PRESENT: Final = Rows("SELECT id FROM message WHERE id IN (", "?", ")")
SELECT_WAITING: Final = Rows("SELECT DISTINCT id FROM recipient WHERE id IN (", "?", ")")
SELECT_RECIPIENTS: Final = Rows("SELECT id, number, held, state FROM recipient WHERE id IN (", "?", ")")
SELECT_STATES: Final = Rows("SELECT id, destination, held FROM recipient WHERE id IN (", "?", ")")

SELECT_DESTINATIONS: Final = Rows("SELECT name, count, held, due_us FROM destination WHERE name IN (", "?", ")")
SELECT_DUE: Final = Rows("SELECT name, due_us FROM destination WHERE name IN (", "?", ")")

# What waits, by destination, counted row by row: what the table of destinations has to say.
BACKLOG: Final = (
    "SELECT destination AS name, count(*) AS count, sum(held <> 0) AS held,"
    " min(CASE held WHEN 0 THEN due_us END) AS due_us FROM recipient GROUP BY destination"
)
# Destinations with something due behind (a time, a name) and until a time, the first due first.
AHEAD: Final = (
    "SELECT due_us, name FROM destination WHERE (due_us, name) > (?, ?) AND due_us <= ?"
    " ORDER BY due_us, name LIMIT ?"
)


def database(directory: Path, shard: int) -> Path:
    """``DIR/NN.db``."""
    return directory / f"{shard:02}.db"


def connect(path: Path, factory: type[sqlite3.Connection] = sqlite3.Connection) -> sqlite3.Connection:
    """Opens a shard for its writer. The file must exist (empty is enough). Raises sqlite3.Error."""
    wal_index.check_room(path, PAGE_SIZE)
    connection = sqlite3.connect(
        path,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
        factory=factory,
        cached_statements=512,
    )
    try:
        tune(connection)
        wal_index.cover(connection, path, PAGE_SIZE, WAL_COVERED)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def tune(connection: sqlite3.Connection) -> None:
    """Prepares a new connection for the writer. Raises sqlite3.Error."""
    for pragma in (
        f"page_size={PAGE_SIZE}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "fullfsync=1",  # macOS: fsync alone does not reach the platter
        "checkpoint_fullfsync=1",
        "wal_autocheckpoint=0",  # the shard does it, after it has answered
        "secure_delete=0",  # some builds zero what is deleted: twice the writing for every message
        "auto_vacuum=0",  # freed pages are used again; keeping the file small would cost at each commit
        "cache_size=-16384",
        "temp_store=MEMORY",
        "foreign_keys=0",
        "busy_timeout=0",  # from here on the shard waits itself, if that stops nobody
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()


def create(connection: sqlite3.Connection) -> None:
    """Makes the tables in an empty file; else checks that their version is ours, or changes them to ours. Raises
    SpoolError, sqlite3.Error; then nothing has changed."""
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found == VERSION:
        return
    if found == _WITHOUT_DESTINATIONS:
        script = f"{DESTINATIONS} INSERT INTO destination {BACKLOG};"
    elif found or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise SpoolError(f"layout {found} is not known to this version of Postroad, which knows {VERSION}")
    else:
        script = f"{TABLES} {DESTINATIONS} PRAGMA application_id={APPLICATION_ID};"
    try:
        connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version={VERSION}; COMMIT;")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def recount(connection: sqlite3.Connection) -> None:
    """Makes the table of destinations again from the rows that it counts, within a transaction. Raises sqlite3.Error.
    """
    connection.execute("DELETE FROM destination")
    connection.execute(f"INSERT INTO destination {BACKLOG}")


def destinations(connection: sqlite3.Connection) -> str:
    """What a reader selects destinations from: the table; or, if no node of this version has opened the shard yet, a
    query with the same result. Raises sqlite3.Error."""
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    return f"({BACKLOG})" if found == _WITHOUT_DESTINATIONS else "destination"


def connect_reader(path: Path) -> sqlite3.Connection:
    """Opens a database to read it, whether somebody writes it or not. Raises sqlite3.Error. If there is no WAL beside
    it, nobody has it open; if we may not make a WAL then, SQLite needs `immutable` to read the file."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    connection = _reader(uri)
    try:
        wal_index.check_room(path, PAGE_SIZE)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    except sqlite3.OperationalError:
        connection.close()
        if Path(f"{path}-wal").exists():
            raise
        connection = _reader(f"{uri}&immutable=1")
    return connection


def _reader(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA query_only=1")
    return connection


def write_rows(
    connection: sqlite3.Connection, template: Rows, values: Sequence[Any], width: int = 1
) -> int:
    """Runs `template` over all `values`, `width` of them for each row. Returns how many rows changed."""
    changed = 0
    for start, count in _pieces(len(values) // width):
        piece = values[start * width : (start + count) * width]
        changed += connection.execute(_text(template, count), piece).rowcount
    return changed


def read_rows(connection: sqlite3.Connection, template: Rows, ids: Iterable[int | str]) -> Iterator[Row]:
    """The rows that `template` selects for all `ids`, or names."""
    values = list(ids)
    for start, count in _pieces(len(values)):
        yield from connection.execute(_text(template, count), values[start : start + count]).fetchall()


_SIZES: Final = (64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1)  # few statements for any count, few texts to keep prepared


def _pieces(count: int) -> Iterator[tuple[int, int]]:
    """Cuts `count` rows into statements: (first row, rows)."""
    start = 0
    for size in _SIZES:
        while count - start >= size:
            yield start, size
            start += size


@lru_cache(maxsize=512)
def _text(template: Rows, count: int) -> str:
    return template.before + template.between.join([template.row] * count) + template.after
