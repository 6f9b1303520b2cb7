"""The journal of the shards as its readers see it: rows of commits that succeeded, above a mark, in order.

What always holds: rows are read by a connection of their own, each row alone, so that no snapshot is held for long and
the writer is never hindered. Rows that a failed commit has left are not given. Used by one thread at a time. Not here:
who marks what (`store.face.JournalMarks`), and what is removed then (`store.sqlite.shard`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from postroad.mail.event import Event
from postroad.store.face import Committed, JournalMarks
from postroad.store.sqlite import codec, schema

_OCTETS_MAX: Final = 1_048_576  # of rows read at once

JournalRow = tuple[int, int, bytes]  # seq, at_us, events


class SqliteJournal:
    """`store.face.Journal` for one reader. It is open until `close`."""

    def __init__(self, directory: Path, spool: JournalMarks) -> None:
        self._directory = directory
        self._spool = spool
        self._journals: dict[int, ShardJournal] = {}

    @property
    def shards(self) -> Sequence[int]:
        return self._spool.shards

    def committed(self, shard: int) -> int:
        return self._spool.committed(shard)

    def mark(self, reader: str, shard: int, seq: int) -> None:
        self._spool.mark(reader, shard, seq)

    def mark_of(self, reader: str, shard: int) -> int:
        return self._spool.mark_of(reader, shard)

    def read(self, shard: int, after: int, limit: int) -> list[Committed]:
        journal = self._journals.get(shard)
        if journal is None:
            journal = self._journals[shard] = ShardJournal(self._directory, shard, after)
        journal.moved(after)
        try:
            rows = journal.rows(self.committed(shard), limit, _OCTETS_MAX)
        except sqlite3.Error as error:
            journal.close()
            raise OSError(f"the journal of shard {shard:02}: {error}") from error
        return [Committed(seq, at_us, _events(octets)) for seq, at_us, octets in rows]

    def close(self) -> None:
        for journal in self._journals.values():
            journal.close()


def _events(octets: bytes) -> tuple[Event, ...]:
    """Decodes a row. A damaged row has no events: it must not stop the reader for ever."""
    try:
        return tuple(codec.decode_journal(octets))
    except codec.Undecodable:
        return ()


class ShardJournal:
    """The journal of one shard, read from outside. `after`: the seq up to which its reader has it."""

    def __init__(self, directory: Path, shard: int, after: int) -> None:
        self._path = schema.database(directory, shard)
        self._connection: sqlite3.Connection | None = None
        self._after = after

    @property
    def after(self) -> int:
        """The seq up to which its reader has it."""
        return self._after

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _use(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = schema.connect_reader(self._path)
        return self._connection

    def oldest_us(self, until: int) -> int | None:
        """When the oldest row was written that is not moved. `until`: the seq up to which rows are committed. Rows
        above it come from a commit that failed, and will be removed again: they do not count."""
        row = self._use().execute(
            "SELECT at_us FROM journal WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT 1", (self._after, until)
        ).fetchone()  # fmt: skip
        return None if row is None else row[0]

    def rows(self, until: int, limit: int, octets_max: int) -> list[JournalRow]:
        """Gives the rows of the next step, the oldest first, up to the seq `until`. Each is read alone, so that no
        snapshot is held for long."""
        found: list[JournalRow] = []
        octets = 0
        cursor = self._use().execute(
            "SELECT seq, at_us, events FROM journal WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
            (self._after, until, limit),
        )
        for row in cursor:
            found.append(row)
            octets += len(row[2])
            if octets >= octets_max:
                break
        cursor.close()
        return found

    def moved(self, seq: int) -> None:
        self._after = seq
