"""All events of one day of the history, commit by commit: for reports that are made once a day.

What always holds: an event is given once, wherever it is at that moment: the rows of the journal that were not yet
moved are read first, and the day file says which of them it has meanwhile. The journal is read in one short look, so
that no snapshot of the spool is held while a large day file is read. It works whether a node runs or not.

How it fails: `TooEarly` if much of the day still stands in a journal (the history is far behind): try later.
sqlite3.Error if a file cannot be read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from postroad.mail.event import Event
from postroad.store.sqlite import codec, schema
from postroad.store.sqlite.dayfile import DAY_US, DayReader, path_of
from postroad.store.sqlite.history import day_files
from postroad.store.sqlite.journal import JournalRow
from postroad.store.sqlite.reader import shard_files

UNMOVED_MAX: Final = 20_000  # rows of a journal that are held in memory


class TooEarly(Exception):
    """The journal of a shard still has much of the day."""


def day_events(history: Path, spool: Path, day: int) -> Iterator[list[Event]]:
    """The events of each commit of the day (a number of days since 1970), shard by shard, in their order. Raises
    TooEarly, sqlite3.Error."""
    date = path_of(history, day * DAY_US, 0).name[:10]
    waiting = {shard: _unmoved(path, day) for shard, path in shard_files(spool)}
    there = {int(path.name.split(".")[1]): path for each, path in day_files(history) if each == date}
    for shard in sorted({*waiting, *there}):
        mark = 0
        if shard in there:
            reader = _open(there[shard])
            if reader is not None:
                try:
                    mark = reader.mark
                    yield from reader.commits()
                finally:
                    reader.close()
        for seq, _, octets in waiting.get(shard, ()):
            if seq > mark:
                yield _decoded(octets)


def _open(path: Path) -> DayReader | None:
    """None: the file is just being made, and all is in the journal still."""
    connection = schema.connect_reader(path)
    if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        connection.close()
        return None
    return DayReader(connection)


def _unmoved(path: Path, day: int) -> list[JournalRow]:
    connection = schema.connect_reader(path)
    try:
        rows: list[JournalRow] = connection.execute(
            "SELECT seq, at_us, events FROM journal WHERE at_us >= ? AND at_us < ? ORDER BY seq LIMIT ?",
            (day * DAY_US, (day + 1) * DAY_US, UNMOVED_MAX + 1),
        ).fetchall()
    finally:
        connection.close()
    if len(rows) > UNMOVED_MAX:
        raise TooEarly(f"the journal {path} still has more than {UNMOVED_MAX} commits of that day")
    return rows


def _decoded(octets: bytes) -> list[Event]:
    try:
        return codec.decode_journal(octets)
    except codec.Undecodable:
        return []

