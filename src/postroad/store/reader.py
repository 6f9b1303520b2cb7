"""The spool seen from outside: by the command line and web pages, whether a node has it open, has died, or is down.

Shards are opened read-only (WAL: a reader sees the last commit and stops nobody). Nothing is kept open between calls,
so that what is shown is the present. How it fails: a shard that cannot be read is left out, and named in `faults`.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from postroad.mail import identifier
from postroad.mail.envelope import Envelope
from postroad.mail.message import Content
from postroad.store import codec, content, schema, selecting
from postroad.store.history import BEHIND_S
from postroad.store.values import Backlog, Loaded, Selection, Waiting

_Answer = TypeVar("_Answer")
_NAME: Final = re.compile(r"(\d\d+)\.db")


class Counts(msgspec.Struct, frozen=True):
    """What a spool holds: fresh messages, settled messages that wait, recipients that wait, of these held, octets."""

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
    """All shards of a spool. Raises OSError where the folder may not be listed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.faults: list[str] = []

    def backlog(self) -> list[Backlog]:
        """What waits, by destination, over all shards."""
        total: dict[str, Backlog] = {}
        for rows in self._ask(lambda connection: connection.execute(schema.BACKLOG).fetchall()):
            for name, count, held, due_us in rows:
                entry = Backlog(name, count, int(held), due_us or 0)
                total[name] = _joined(total[name], entry) if name in total else entry
        return sorted(total.values(), key=lambda each: each.destination)

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
        """Messages that are meant, with all that waits of them, in the order of ids, above `after`."""
        parts = self._ask(
            lambda connection: _load(connection, _selected(connection, selection, after, limit)[:limit])
        )
        return sorted((each for part in parts for each in part), key=lambda each: each.envelope.id)[:limit]

    def load(self, id: int) -> Loaded | None:
        """One message with all its waiting recipients, none of a fresh one; None where it has ended."""
        parts = self._ask(lambda connection: _load(connection, [id]), identifier.shard_of(id))
        return parts[0][0] if parts and parts[0] else None

    def content(self, id: int) -> Content | None:
        """The octets or the file of a message; None where it has ended."""
        sql = "SELECT octets FROM content WHERE id = ?"
        rows = self._ask(lambda connection: connection.execute(sql, (id,)).fetchone(), identifier.shard_of(id))
        if rows and rows[0] is not None:
            return bytes(rows[0][0])
        return content.content_file(self._directory, id)

    def head(self, id: int, limit: int) -> bytes:
        """The first octets of the content; b"" where there is none."""
        found = self.content(id)
        if found is None:
            return b""
        try:
            return content.head(found, limit)
        except OSError as error:
            self.faults.append(str(error))
            return b""

    def counts(self) -> Counts:
        """How much there is."""
        columns = zip(*self._ask(_counted), strict=True)
        return Counts(*map(sum, columns))

    def unmoved(self, now_us: int) -> list[str]:
        """Journals that the history has not had for long: one line for each, for people.

        What waits there is found all the same; but it takes the disk's space until the history can be written again.
        """
        told = []
        for number, path in shard_files(self._directory):
            rows = self._ask(_journal, number)
            if rows and rows[0] and abs(now_us - rows[0][1]) > BEHIND_S * 1e6:
                count, since_us = rows[0]
                hours = abs(now_us - since_us) / 3.6e9
                told.append(f"{path}: the history is behind: {count} commits of the last {hours:.1f} h wait for it")
        return told

    def _ask(self, question: Callable[[sqlite3.Connection], _Answer], shard: int | None = None) -> list[_Answer]:
        """The answer of each shard, or of one. A shard that cannot answer is a fault, not an exception."""
        answers = []
        for number, path in shard_files(self._directory):
            if shard is not None and number != shard:
                continue
            try:
                with contextlib.closing(schema.connect_reader(path)) as connection:
                    answers.append(question(connection))
            except sqlite3.Error as error:
                self.faults.append(f"{path}: {error}")
        return answers


def _journal(connection: sqlite3.Connection) -> tuple[int, int] | None:
    """How many rows there are, about, and when the oldest was written. The last row always stays: it is no backlog."""
    first = connection.execute("SELECT seq, at_us FROM journal ORDER BY seq LIMIT 1").fetchone()
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
        "SELECT (SELECT count(*) FROM fresh), (SELECT count(*) FROM message), count(*), total(held <> 0) FROM recipient"
    ).fetchone()
    pages = connection.execute("PRAGMA page_count").fetchone()[0] - connection.execute(
        "PRAGMA freelist_count"
    ).fetchone()[0]
    return fresh, messages, waiting, int(held), pages * schema.PAGE_SIZE


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
