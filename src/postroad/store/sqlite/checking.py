"""Checks a shard from outside: whether the database is sound, and whether its rows and files fit together.

It only reads, also while a node has the shard open. What always holds: all findings of one shard are of one moment (one
read transaction). Content files are checked after it. While a node runs, a file without a message is no finding,
because its message may still be arriving; nor is a message without its file, if it has ended meanwhile.

How it fails: if something cannot be read, this is a finding, never an exception. Not here: mending
(`store.sqlite.salvage`, `store.sqlite.repair`).
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path
from typing import Final

import msgspec

from postroad.mail import identifier
from postroad.mail.envelope import Envelope
from postroad.mail.numbers import counted
from postroad.store import content
from postroad.store.sqlite import codec, schema
from postroad.store.sqlite.reader import shard_files

FINDINGS_MAX: Final = 100  # of one shard
_ASIDE: Final = re.compile(r"\d\d+(\.db)?\.damaged-[0-9TZ]+")


class Damage(msgspec.Struct, frozen=True):
    """One thing that is wrong. `id`: the message's queue id as text, "" for the shard as a whole. `kind`: for programs.
    """

    shard: int
    kind: str
    text: str
    id: str = ""


class CheckedShard(msgspec.Struct, frozen=True):
    """One shard: how many messages it holds, and what is wrong with it."""

    shard: int
    path: str
    messages: int
    findings: tuple[Damage, ...]


def check(directory: Path, *, running: bool) -> list[CheckedShard]:
    """Checks all shards of a spool. `running`: whether a node has them open. Raises OSError if the folder may not be
    listed."""
    return [_Check(directory, number, path, running).run() for number, path in shard_files(directory)]


def set_aside(directory: Path) -> list[str]:
    """The damaged files and folders that stand beside the shards, kept for people who want to look into them."""
    return sorted(path.name for path in directory.iterdir() if _ASIDE.fullmatch(path.name))


class _Check:
    def __init__(self, directory: Path, number: int, path: Path, running: bool) -> None:
        self._directory = directory
        self._number = number
        self._path = path
        self._running = running
        self._findings: list[Damage] = []
        self._envelopes: dict[int, tuple[int, int]] = {}  # id → recipients, octets of content
        self._settled: set[int] = set()

    def run(self) -> CheckedShard:
        try:
            with contextlib.closing(schema.connect_reader(self._path)) as connection:
                connection.execute("BEGIN")
                if self._is_sound(connection):
                    self._read(connection)
        except sqlite3.Error as error:
            self._find("damaged", f"{self._path}: {error}")
        return CheckedShard(self._number, str(self._path), len(self._envelopes), tuple(self._findings))

    def _find(self, kind: str, text: str, id: int = 0) -> None:
        if len(self._findings) < FINDINGS_MAX:
            self._findings.append(Damage(self._number, kind, text, identifier.text(id) if id else ""))

    def _is_sound(self, connection: sqlite3.Connection) -> bool:
        lines = [row[0] for row in connection.execute("PRAGMA integrity_check(20)")]
        if lines == ["ok"]:
            return True
        for line in lines:
            self._find("damaged", " ".join(str(line).split()))
        return False

    def _read(self, connection: sqlite3.Connection) -> None:
        for table in ("fresh", "message"):
            for id, octets in connection.execute(f"SELECT id, envelope FROM {table}"):
                self._envelope(table, id, octets)
        places: dict[int, int] = {}
        for id, number, held, state in connection.execute("SELECT id, number, held, state FROM recipient"):
            places[id] = places.get(id, 0) + 1
            self._recipient(id, number, held, state)
        for id in self._settled - places.keys():
            self._find("no-recipients", "it is there, but no recipient of it waits", id)
        self._destinations(connection)
        self._contents(dict(connection.execute("SELECT id, length(octets) FROM content")))

    def _envelope(self, table: str, id: int, octets: bytes) -> None:
        envelope = _decoded(octets)
        if envelope is None or envelope.id != id:
            self._find("envelope", "its envelope cannot be read", id)
            return
        if id in self._envelopes:
            self._find("twice", "it is there twice, as fresh and as waiting", id)
        self._envelopes[id] = len(envelope.recipients), envelope.size - len(envelope.prefix)
        if table == "message":
            self._settled.add(id)

    def _recipient(self, id: int, number: int, held: int, state: bytes) -> None:
        known = self._envelopes.get(id)
        if held == schema.DAMAGED:
            self._find("kept", "it could not be read when its turn came, and is kept without being tried", id)
        elif known is None or id not in self._settled:
            self._find("no-message", "a recipient of it waits, but the message is not there", id)
        elif number >= known[0]:
            has = counted(known[0], "recipient")
            self._find("recipient", f"recipient {number} waits, but the message has {has}", id)
        else:
            try:
                codec.decode_waiting(state)
            except codec.Undecodable:
                self._find("recipient", f"the state of recipient {number} cannot be read", id)

    def _destinations(self, connection: sqlite3.Connection) -> None:
        """Checks that the table of destinations has everything that waits."""
        told = set(connection.execute(f"SELECT name, count, held, due_us FROM {schema.destinations(connection)}"))
        wrong = told ^ set(connection.execute(schema.BACKLOG))
        if wrong:
            names = sorted({name for name, *_ in wrong})
            text = f"the counts by destination differ from the recipients that wait: {', '.join(names[:5])}"
            self._find("destinations", text + (f" and {len(names) - 5} more" if len(names) > 5 else ""))

    def _contents(self, sizes: dict[int, int]) -> None:
        files = {
            id: path.stat().st_size
            for path in content.folder(self._directory, self._number).glob("??/*")
            if (id := identifier.parse(path.name)) is not None and path.exists()
        }
        for id, (_, size) in self._envelopes.items():
            found = sizes.get(id, files.get(id))
            if found is None and self._running and self._has_ended(id):
                continue
            if found is None:
                self._find("no-content", "its content is not there", id)
            elif found != size:
                self._find("content", f"its content has {found} octets instead of {size}", id)
        for id in sizes.keys() - self._envelopes.keys():
            self._find("stray-content", "content without a message", id)
        for id in files.keys() - self._envelopes.keys() if not self._running else ():
            self._find("stray-file", "a content file without a message; the next start removes it", id)


    def _has_ended(self, id: int) -> bool:
        with contextlib.closing(schema.connect_reader(self._path)) as connection:
            sql = "SELECT 1 FROM fresh WHERE id = ? UNION ALL SELECT 1 FROM message WHERE id = ?"
            return connection.execute(sql, (id, id)).fetchone() is None


def _decoded(octets: bytes) -> Envelope | None:
    try:
        return codec.decode_envelope(octets)
    except (codec.Undecodable, TypeError):
        return None
