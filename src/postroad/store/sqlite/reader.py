"""Reads the spool from outside, for the command line and web pages, whether a node has it open, has died, or is down.

Shards are opened read-only (WAL: a reader sees the last commit and stops nobody). Nothing is kept open between calls,
so that each answer shows the present state. How it fails: a shard that cannot be read is left out, and named in
`faults`.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import re
import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from postroad.mail import identifier
from postroad.mail.envelope import Envelope
from postroad.mail.message import Content
from postroad.store import content
from postroad.store.face import HISTORY
from postroad.store.sqlite import codec, schema, selecting
from postroad.store.sqlite.history import BEHIND_S
from postroad.store.values import Backlog, Loaded, Selection, Waiting, WaitingMail

_Answer = TypeVar("_Answer")
_LOOKED_UP_MAX: Final = 5_000  # destinations; of more it is quicker to read them all
_NAME: Final = re.compile(r"(\d\d+)\.db")


class Counts(msgspec.Struct, frozen=True):
    """What a spool holds: fresh messages; settled messages that wait; recipients that wait, and how many of these are
    held; octets."""

    fresh: int = 0
    messages: int = 0
    waiting: int = 0
    held: int = 0
    octets: int = 0


def shard_files(directory: Path) -> list[tuple[int, Path]]:
    """(number, file) of all shards in the folder."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted((int(found[1]), directory / name) for name in names if (found := _NAME.fullmatch(name)))


class SpoolReader:
    """All shards of a spool. Raises OSError if the folder may not be listed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.faults: list[str] = []

    def backlog(self, limit: int = 0, destination: str = "") -> WaitingMail:
        """The mail that waits, by destination, over all shards: those with the most first, at most `limit` (0: all) of
        them; `destination`: only this one."""
        counts: dict[str, int] = {}
        for rows in self._ask(partial(_destinations, "name, count", (destination,) if destination else ())):
            for name, count in rows:
                counts[name] = counts.get(name, 0) + count
        first = heapq.nsmallest(limit or len(counts), counts, key=lambda name: (-counts[name], name))
        described = self.waiting(first)
        held = self._ask(partial(_destinations, "total(held)", (destination,) if destination else ()))
        return WaitingMail(
            tuple(described[name] for name in first if name in described),
            len(counts), sum(counts.values()), sum(int(rows[0][0]) for rows in held),
        )  # fmt: skip

    def waiting(self, destinations: Collection[str]) -> dict[str, Backlog]:
        """What waits for each of these destinations, over all shards. Destinations for which nothing waits are left
        out."""
        found: dict[str, Backlog] = {}
        for part in self._ask(partial(_described, destinations)):
            for name, count, held, due_us in part:
                entry = Backlog(name, count, held, due_us or 0)
                found[name] = _joined(found[name], entry) if name in found else entry
        return found

    def oldest(self, destinations: Sequence[str]) -> dict[str, Loaded]:
        """The oldest message that waits for each destination, with those of its recipients that wait there."""
        found: dict[str, Loaded] = {}
        for part in self._ask(partial(_oldest, destinations)):
            for name, loaded in part.items():
                if name not in found or loaded.envelope.id < found[name].envelope.id:
                    found[name] = loaded
        return found

    def fresh(self, limit: int) -> list[Envelope]:
        """Messages accepted and never settled, the oldest first."""
        sql = "SELECT id, envelope FROM fresh ORDER BY id LIMIT ?"
        parts = self._ask(lambda connection: connection.execute(sql, (limit,)).fetchall())
        rows = sorted(row for part in parts for row in part)[:limit]
        return [envelope for _, octets in rows if (envelope := _envelope(octets)) is not None]

    def select(self, selection: Selection) -> list[int]:
        """The ids that are meant, the oldest first, at most `selection.limit`."""
        parts = self._ask(lambda connection: _selected(connection, selection, 0, selection.limit))
        return sorted(id for part in parts for id in part)[: selection.limit]

    def messages(self, selection: Selection, limit: int, after: int = 0) -> list[Loaded]:
        """Messages that are meant, with all their recipients that wait, in the order of ids, above `after`."""
        parts = self._ask(
            lambda connection: _load(connection, _selected(connection, selection, after, limit)[:limit])
        )
        return sorted((each for part in parts for each in part), key=lambda each: each.envelope.id)[:limit]

    def load(self, id: int) -> Loaded | None:
        """One message with all its waiting recipients (a fresh message has none); None if it has ended."""
        parts = self._ask(lambda connection: _load(connection, [id]), identifier.shard_of(id))
        return parts[0][0] if parts and parts[0] else None

    def content(self, id: int) -> Content | None:
        """The octets or the file of a message; None if it has ended."""
        sql = "SELECT octets FROM content WHERE id = ?"
        rows = self._ask(lambda connection: connection.execute(sql, (id,)).fetchone(), identifier.shard_of(id))
        if rows and rows[0] is not None:
            return bytes(rows[0][0])
        return content.content_file(self._directory, id)

    def head(self, envelope: Envelope, limit: int) -> bytes:
        """The first octets of a message; b"" if its content is not there."""
        found = self.content(envelope.id)
        if found is None:
            return b""
        try:
            return content.head(envelope, found, limit)
        except OSError as error:
            self.faults.append(str(error))
            return b""

    def counts(self) -> Counts:
        """How much there is."""
        columns = zip(*self._ask(_counted), strict=True)
        return Counts(*map(sum, columns))

    def unmoved(self, now_us: int) -> list[str]:
        """Journals that the history has not moved for long: one line for each, for people. Their events are found all
        the same, but they take space on the disk until the history can be written again."""
        told = []
        for number, path in shard_files(self._directory):
            rows = self._ask(_journal, number)
            if rows and rows[0] and abs(now_us - rows[0][1]) > BEHIND_S * 1e6:
                count, since_us = rows[0]
                hours = abs(now_us - since_us) / 3.6e9
                told.append(f"{path}: the history is behind: {count} commits of the last {hours:.1f} h wait for it")
        return told

    def _ask(self, question: Callable[[sqlite3.Connection], _Answer], shard: int | None = None) -> list[_Answer]:
        """The answer of each shard, or of one. If a shard cannot answer, that is a fault, not an exception."""
        answers = []
        for number, path in shard_files(self._directory):
            if shard is not None and number != shard:
                continue
            try:
                with contextlib.closing(schema.connect_reader(path)) as connection:
                    answers.append(question(connection))
            except sqlite3.Error as error:
                fault = f"{path}: {error}"
                if fault not in self.faults:
                    self.faults.append(fault)
        return answers


def _journal(connection: sqlite3.Connection) -> tuple[int, int] | None:
    """How many rows the history has not moved, about, and when the oldest was written. The last row always stays and
    does not count."""
    mark = 0
    with contextlib.suppress(sqlite3.OperationalError):  # no node of this version has had the shard open
        for (seq,) in connection.execute("SELECT seq FROM reader WHERE name = ?", (HISTORY.name,)):
            mark = seq
    sql = "SELECT seq, at_us FROM journal WHERE seq > ? ORDER BY seq LIMIT 1"
    first = connection.execute(sql, (mark,)).fetchone()
    last = connection.execute("SELECT max(seq) FROM journal").fetchone()[0]
    return None if first is None or first[0] == last else (last - first[0] + 1, first[1])


def _joined(one: Backlog, other: Backlog) -> Backlog:
    due = [each for each in (one.due_us, other.due_us) if each]
    return Backlog(one.destination, one.count + other.count, one.held + other.held, min(due, default=0))


def _selected(connection: sqlite3.Connection, selection: Selection, after: int, limit: int) -> list[int]:
    found: list[int] = []
    last: int | None = after
    while last is not None and len(found) < limit:
        ids, last = selecting.step(connection, selection, last)
        found += ids
    return found


def _counted(connection: sqlite3.Connection) -> tuple[int, int, int, int, int]:
    fresh, messages, waiting, held = connection.execute(
        "SELECT (SELECT count(*) FROM fresh), (SELECT count(*) FROM message), total(count), total(held)"
        f" FROM {schema.destinations(connection)}"
    ).fetchone()
    pages = connection.execute("PRAGMA page_count").fetchone()[0] - connection.execute(
        "PRAGMA freelist_count"
    ).fetchone()[0]
    return fresh, messages, int(waiting), int(held), pages * schema.PAGE_SIZE


def _destinations(columns: str, names: Sequence[str], connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """`columns` of the table of destinations: for all of them, or for the one that is named."""
    where = " WHERE name = ?" if names else ""
    sql = f"SELECT {columns} FROM {schema.destinations(connection)}{where}"
    return connection.execute(sql, tuple(names)).fetchall()


def _described(names: Collection[str], connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
    if len(names) > _LOOKED_UP_MAX or schema.destinations(connection) != "destination":
        wanted = set(names)
        rows = _destinations("name, count, held, due_us", (), connection)
        return [row for row in rows if row[0] in wanted]
    return list(schema.read_rows(connection, schema.SELECT_DESTINATIONS, names))


def _oldest(names: Sequence[str], connection: sqlite3.Connection) -> dict[str, Loaded]:
    """The oldest message for each destination: ids rise with time. It reads only what is needed of the envelope, and
    only those recipients that wait there, because there may be a hundred thousand others."""
    found: dict[str, Loaded] = {}
    for name in names:
        (id,) = connection.execute("SELECT min(id) FROM recipient WHERE destination = ?", (name,)).fetchone()
        row = None if id is None else connection.execute("SELECT envelope FROM message WHERE id = ?", (id,)).fetchone()
        envelope = None if row is None else _envelope(row[0])
        if envelope is not None:
            sql = "SELECT number, held, state FROM recipient WHERE id = ? AND destination = ? ORDER BY number"
            rows = connection.execute(sql, (id, name)).fetchall()
            found[name] = Loaded(envelope, tuple(_waiting(*each) for each in rows))
    return found


def _load(connection: sqlite3.Connection, ids: Iterable[int]) -> list[Loaded]:
    ids = list(ids)
    waiting: dict[int, list[Waiting]] = {}
    for id, number, held, state in schema.read_rows(connection, schema.SELECT_RECIPIENTS, ids):
        waiting.setdefault(id, []).append(_waiting(number, held, state))
    found = []
    for template in (schema.SELECT_MESSAGE, schema.SELECT_FRESH):
        for id, octets in schema.read_rows(connection, template, ids):
            envelope = _envelope(octets)
            if envelope is not None:
                found.append(Loaded(envelope, tuple(sorted(waiting.get(id, ()), key=lambda each: each.index))))
    return sorted(found, key=lambda each: each.envelope.id)


def _waiting(number: int, held: int, state: bytes) -> Waiting:
    try:
        waiting = codec.decode_waiting(state)
    except codec.Undecodable:
        waiting = Waiting(number, 0, "", held=True, text="damaged in the spool")
    return waiting if held != schema.DAMAGED else msgspec.structs.replace(waiting, held=True)


def _envelope(octets: bytes) -> Envelope | None:
    try:
        return codec.decode_envelope(octets)
    except codec.Undecodable:
        return None
