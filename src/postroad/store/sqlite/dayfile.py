"""One file of the history: the events of one day (UTC) of one shard, ``HISTORY/YYYY-MM-DD.NN.db``.

    batch  some hundred events as they stood in the journal, compressed
    page   sorted keys of what the batches name: 63-bit hashes of Message-IDs and addresses, and queue ids as they are
    mark   up to which journal row this file has what belongs to its day

What always holds: a batch, its keys and the mark are one commit, so a row of the journal is here exactly once, however
often it is handed over. Keys are not inserted one by one into a tree, because on a busy day this would write a page for
each key. Each commit adds a sorted *run* of keys, cut into pages, and runs of equal size are merged from time to time
(a log-structured merge tree of a few levels). A look-up searches the pages whose span holds the hash. A hash only names
batches that may hold the event; the reader decodes and compares.

How it fails: sqlite3.Error, with nothing changed. Not here: which rows go where and when (`store.sqlite.history`).
"""

from __future__ import annotations

import array
import hashlib
import sqlite3
import sys
import time
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

from postroad.mail.account import canonical_account
from postroad.mail.event import Accepted, Authenticated, Event, Expanded, Refused, Rewritten, SessionEnded
from postroad.store.face import Committed
from postroad.store.sqlite import codec, schema, wal_index
from postroad.store.sqlite.journal import JournalRow

_TABLES: Final = """
CREATE TABLE batch(id INTEGER PRIMARY KEY, first_us INTEGER NOT NULL, last_us INTEGER NOT NULL, events BLOB NOT NULL);
CREATE TABLE page(
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL, level INTEGER NOT NULL, first INTEGER NOT NULL,
    last INTEGER NOT NULL, hashes BLOB NOT NULL, batches BLOB NOT NULL);
CREATE INDEX page_span ON page(first, last);
CREATE INDEX page_run ON page(level, run);
CREATE TABLE mark(one INTEGER PRIMARY KEY CHECK(one = 1), seq INTEGER NOT NULL);
INSERT INTO mark VALUES (1, 0);
"""
_VERSION: Final = 1
_APPLICATION_ID: Final = 0x50535248  # "PSRH"
_PAGE_KEYS: Final = 2048  # keys in a page
_MERGE_AT: Final = 8  # runs of a level that are merged into one of the next
_RUN_KEYS_MAX: Final = 32_768  # a run of this size is merged no more: sorting it must not hold up the worker
_EVENTS_PER_BATCH: Final = 256
_MASK: Final = (1 << 63) - 1
DAY_US: Final = 86_400_000_000
_LEVEL_FULL: Final = 99  # where runs go that are merged no more



def path_of(directory: Path, at_us: int, shard: int) -> Path:
    """The file for events at `at_us`."""
    return directory / f"{time.strftime('%Y-%m-%d', time.gmtime(at_us // 1_000_000))}.{shard:02}.db"


@lru_cache(maxsize=16_384)
def key(text: str) -> int:
    """The key of a Message-ID (without angle brackets) or an address. Upper and lower case are the same."""
    digest = hashlib.blake2b(text.lower().encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") & _MASK


def message_id_key(message_id: str) -> int:
    return key(message_id.strip("<>"))


def id_key(id: int) -> int:
    """The key of a queue id: the id itself, whose 60 bits are spread well enough by time and shard."""
    return id & _MASK


def report_key(parent: int) -> int:
    """The key by which the reports about a message are found."""
    return key(f"parent:{parent}")


def client_key(address: str) -> int:
    """The key by which everything is found that a client did. `address`: an IP address as `ipaddress` writes it."""
    return key(f"client:{address}")


def account_key(name: str) -> int:
    """The key by which everything is found that was done or tried as an account."""
    return key(f"account:{canonical_account(name)}")


def account_of(event: Accepted | Refused | Authenticated | SessionEnded) -> str:
    """The account of the client, or the one that it tried to use; "" for none."""
    if isinstance(event, Refused) and event.phase == "AUTH":
        return event.reason
    return event.peer.identity


def add_keys(event: Event, names: set[int]) -> None:
    """Adds the keys by which the event can be found."""
    if event.id:
        names.add(event.id & _MASK)
    if isinstance(event, Accepted | Refused | Authenticated | SessionEnded):
        if event.peer.address:
            names.add(client_key(event.peer.address))
        if account := account_of(event):
            names.add(account_key(account))
    if isinstance(event, Accepted):
        if event.message_id:
            names.add(message_id_key(event.message_id))
        if event.reverse_path:
            names.add(key(event.reverse_path))
        names.update(map(key, event.recipients))
        if event.parent:
            names.add(report_key(event.parent))
    elif isinstance(event, Expanded):
        names.add(key(event.recipient))
        names.update(map(key, event.into))
    elif isinstance(event, Rewritten):
        if event.sender:
            names.add(key(event.sender))
    elif isinstance(event, Refused):
        if event.reverse_path:
            names.add(key(event.reverse_path))
        if event.recipient:
            names.add(key(event.recipient))
        names.update(map(key, event.recipients))


class DayFile:
    """A day file, open for its one writer."""

    def __init__(self, path: Path) -> None:
        """Opens the file, or makes it. Raises sqlite3.Error."""
        self.path = path
        self._connection = _open(path)
        self.mark: int = self._connection.execute("SELECT seq FROM mark").fetchone()[0]
        self._batch: int = self._connection.execute("SELECT coalesce(max(id), 0) FROM batch").fetchone()[0]
        self._run: int = self._connection.execute("SELECT coalesce(max(run), 0) FROM page").fetchone()[0]

    def close(self) -> None:
        self._connection.close()

    def append(self, rows: Iterable[JournalRow]) -> list[Committed]:
        """Adds the rows above the mark, in the order of seq, all or none. Returns the rows that it has added, decoded.
        Raises sqlite3.Error."""
        rows = [row for row in rows if row[0] > self.mark]
        if not rows:
            return []
        batch, run = self._batch, self._run
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            added = self._add(rows)
            connection.execute("UPDATE mark SET seq = ?", (rows[-1][0],))
            self._merge()
            connection.execute("COMMIT")
        except BaseException:
            self._batch, self._run = batch, run
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self.mark = rows[-1][0]
        return added

    def _add(self, rows: list[JournalRow]) -> list[Committed]:
        """Adds batches and one run of keys. A row that cannot be decoded has no events."""
        added: list[Committed] = []
        entries: list[int] = []
        batches = []
        part: list[bytes] = []
        count, first_us = 0, 0
        names: set[int] = set()
        for position, (seq, at_us, events) in enumerate(rows):
            first_us = first_us or at_us
            try:
                decoded = codec.decode_journal(events)
            except codec.Undecodable:
                decoded = []
            if decoded or codec.is_readable(events):  # events of a newer version are kept, what is no msgpack is not
                part.append(events)
            added.append(Committed(seq, at_us, tuple(decoded)))
            for event in decoded:
                add_keys(event, names)
            count += len(decoded)
            if count >= _EVENTS_PER_BATCH or position == len(rows) - 1:
                self._batch += 1
                batches.append((self._batch, first_us, at_us, zlib.compress(codec.join_events(part), 6)))
                entries += [name << 32 | self._batch for name in names]
                part, count, first_us = [], 0, 0
                names = set()
        self._connection.executemany("INSERT INTO batch VALUES (?,?,?,?)", batches)
        self._write_run(0, sorted(entries))
        return added

    def _write_run(self, level: int, entries: list[int]) -> None:
        self._run += 1
        pages = []
        for start in range(0, len(entries), _PAGE_KEYS):
            piece = entries[start : start + _PAGE_KEYS]
            hashes = array.array("Q", [entry >> 32 for entry in piece])
            batches = array.array("I", [entry & 0xFFFFFFFF for entry in piece])
            pages.append((self._run, level, hashes[0], hashes[-1], _octets(hashes), _octets(batches)))
        self._connection.executemany(
            "INSERT INTO page(run, level, first, last, hashes, batches) VALUES (?,?,?,?,?,?)", pages
        )

    def _merge(self) -> None:
        """Merges the runs of each level that has many."""
        level = 0
        while True:
            runs = [
                run for (run,) in self._connection.execute("SELECT DISTINCT run FROM page WHERE level = ?", (level,))
            ]
            if len(runs) < _MERGE_AT:
                return
            entries: list[int] = []
            for hashes, batches in self._connection.execute(
                "SELECT hashes, batches FROM page WHERE level = ? ORDER BY run, id", (level,)
            ):
                entries += [
                    hash << 32 | batch for hash, batch in zip(_array("Q", hashes), _array("I", batches), strict=True)
                ]
            self._connection.execute("DELETE FROM page WHERE level = ?", (level,))
            entries.sort()  # eight sorted runs in a row: the sort only merges them
            if len(entries) > _RUN_KEYS_MAX:
                self._write_run(_LEVEL_FULL, entries)
                return
            level += 1
            self._write_run(level, entries)


class DayReader:
    """A day file, open for reading, as it is at the first question. Raises sqlite3.Error."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._connection.execute("BEGIN")
        self.mark: int = self._connection.execute("SELECT seq FROM mark").fetchone()[0]

    def close(self) -> None:
        self._connection.close()

    def events(self, name: int) -> Iterator[Event]:
        """All events of the batches that hold the key. These are more than the caller looks for."""
        for batch in sorted(self._batches(name)):
            row = self._connection.execute("SELECT events FROM batch WHERE id = ?", (batch,)).fetchone()
            if row is not None:
                for part in codec.split_events(zlib.decompress(row[0])):
                    yield from part

    def all(self) -> Iterator[Event]:
        """All events of the day."""
        for (octets,) in self._connection.execute("SELECT events FROM batch ORDER BY id"):
            for part in codec.split_events(zlib.decompress(octets)):
                yield from part

    def commits(self) -> Iterator[list[Event]]:
        """All events of the day, commit by commit, in their order."""
        for (octets,) in self._connection.execute("SELECT events FROM batch ORDER BY id"):
            yield from codec.split_events(zlib.decompress(octets))

    def _batches(self, name: int) -> set[int]:
        found: set[int] = set()
        for hashes, batches in self._connection.execute(
            "SELECT hashes, batches FROM page WHERE first <= ? AND last >= ?", (name, name)
        ):
            keys = _array("Q", hashes)
            at = bisect_left(keys, name)
            if at < len(keys) and keys[at] == name:
                numbers = _array("I", batches)
                while at < len(keys) and keys[at] == name:
                    found.add(numbers[at])
                    at += 1
        return found


def _octets(numbers: array.array[int]) -> bytes:
    """The octets of the keys, little-endian on every machine."""
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers.tobytes()


def _array(kind: str, octets: bytes) -> array.array[int]:
    numbers = array.array(kind, octets)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _open(path: Path) -> sqlite3.Connection:
    wal_index.check_room(path, schema.PAGE_SIZE)
    connection = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
    try:
        for pragma in (
            f"page_size={schema.PAGE_SIZE}", "journal_mode=WAL", "synchronous=FULL", "secure_delete=0",
            "cache_size=-4096", "temp_store=MEMORY",
        ):  # fmt: skip
            connection.execute(f"PRAGMA {pragma}").fetchall()
        if connection.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
            connection.executescript(
                f"BEGIN IMMEDIATE; {_TABLES} PRAGMA application_id={_APPLICATION_ID};"
                f" PRAGMA user_version={_VERSION}; COMMIT;"
            )
        wal_index.cover(connection, path, schema.PAGE_SIZE, schema.WAL_COVERED)
    except BaseException:
        connection.close()
        raise
    return connection
