"""Saves everything readable of a damaged shard into a new one.

The keys of each table are read from both ends up to the damage; then each row is looked up alone, also rows that only
another table names. So a damaged page costs only its own rows. The first page of the file says which tables there are.
If it is lost, the first page of an empty shard takes its place, because all shards have the same layout.

What always holds: a saved message is whole, or says what it lacks. If its content is lost, or if nobody knows which
recipients have had it already, it is held with the reason. A message that has ended does not come back, unless the
damage hides its end. The new file takes the place of the damaged one in one step, complete; the damaged one is set
aside as ``NN.db.damaged-TIME``, with the content files of messages that could not be saved in ``NN.damaged-TIME``.

How it fails: OSError and sqlite3.Error if the new file cannot be written; then the damaged one stays in its place. Not
here: whether a shard is damaged (`store.sqlite.shard`, `store.sqlite.checking`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from postroad.mail import identifier
from postroad.mail.envelope import Envelope
from postroad.mail.numbers import counted
from postroad.store import content
from postroad.store.sqlite import codec, opening, schema
from postroad.store.values import Waiting

DOUBTFUL: Final = "saved from a damaged shard: it may have been delivered before; release or remove it"
NO_CONTENT: Final = "saved from a damaged shard without its content: it cannot be delivered; fail or remove it"
_ENDINGS: Final = ("", "-wal", "-shm")


class Saved(msgspec.Struct, frozen=True):
    """What was saved: messages, how many of these are held, ids whose envelope could not be read, where the rest is
    now."""

    messages: int
    held: int
    lost: tuple[int, ...]
    aside: str

    def __str__(self) -> str:
        text = f"set aside as {self.aside}; {counted(self.messages, 'message')} saved"
        if self.held:
            text += f", {self.held} of them held (`postroad queue --held` tells why)"
        if self.lost:
            names = ", ".join(identifier.text(id) for id in self.lost[:20])
            text += f"; {len(self.lost)} could not be read: {names}{'…' if len(self.lost) > 20 else ''}"
        return text


def new_path(directory: Path, shard: int) -> Path:
    """The name of the new file while it is being made."""
    return directory / f"{shard:02}.db.new"


def finish(directory: Path, shard: int) -> None:
    """Finishes what a crash has interrupted: a complete new file takes the place of the damaged one, an incomplete one
    is removed. Raises OSError."""
    new, path = new_path(directory, shard), schema.database(directory, shard)
    if not new.exists():
        return
    if path.exists():
        _take_back_wal(path)
        _unlink(new)
        return
    os.rename(new, path)
    content.sync_directory(directory)


def _take_back_wal(path: Path) -> None:
    """Takes the WAL back if the crash came after it was set aside, and before its database was: what was committed is
    in both."""
    wal = Path(f"{path}-wal")
    for aside in path.parent.glob(f"{path.name}.damaged-*-wal"):
        if not (wal.exists() or Path(str(aside).removesuffix("-wal")).exists()):
            os.rename(aside, wal)
            content.sync_directory(path.parent)


def replace(directory: Path, shard: int, now_us: int) -> Saved:
    """Puts a new shard, with everything that can be read, in the place of a damaged one. The caller holds the lock of
    the shard."""
    path, new = schema.database(directory, shard), new_path(directory, shard)
    _unlink(new)
    opening.make_private_file(new)
    with contextlib.closing(schema.connect(new)) as target:
        schema.create(target)
        with _readable(path) as source:
            found = _Source(source, directory, shard)
            saved, held = _copy(found, target)
            lost = tuple(sorted(found.unread))
    handle = os.open(new, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    aside = opening.set_aside(directory, shard, now_us, saved)
    os.rename(new, path)
    content.sync_directory(directory)
    return Saved(len(saved), held, lost, aside)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[sqlite3.Connection]:
    """Gives a connection to the damaged file, or to a copy of it with a first page that can be read."""
    connection = _opened(path)
    if connection is not None:
        with contextlib.closing(connection):
            yield connection
        return
    work = Path(f"{path}.work")
    try:
        _unlink(work)
        for ending in ("", "-wal"):
            if os.path.exists(f"{path}{ending}"):
                shutil.copyfile(f"{path}{ending}", f"{work}{ending}")
        _mend_first_page(work)
        connection = _opened(work)
        with contextlib.closing(connection or schema.connect(Path(":memory:"))) as readable:
            yield readable
    finally:
        _unlink(work)


def _opened(path: Path) -> sqlite3.Connection | None:
    """Opens the file. Returns None if not even the names of the tables can be read."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA query_only=1")
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master").fetchall()}
    except sqlite3.Error:
        connection.close()
        return None
    if not {"fresh", "message", "content", "recipient", "journal"} <= names:
        connection.close()
        return None
    return connection


def _mend_first_page(work: Path) -> None:
    """Makes a first page: that of an empty shard, with the number of pages of this one
    (https://www.sqlite.org/fileformat.html §1.3: 24 and 92, the change counter and the version that the number of pages
    at 28 is valid for)."""
    template = Path(f"{work}.template")
    _unlink(template)
    template.touch(0o600)
    try:
        with contextlib.closing(schema.connect(template)) as connection:
            schema.create(connection)
        page = bytearray(template.read_bytes()[: schema.PAGE_SIZE])
    finally:
        _unlink(template)
    pages = max(1, work.stat().st_size // schema.PAGE_SIZE)
    page[28:32] = pages.to_bytes(4, "big")
    page[92:96] = page[24:28]
    with open(work, "r+b") as file:
        file.write(page)


class _Source:
    """The part of the damaged shard that can be read."""

    def __init__(self, connection: sqlite3.Connection, directory: Path, shard: int) -> None:
        self._connection = connection
        self._directory = directory
        self.whole = True  # whether nothing was in the way so far
        fresh, message = self._keys("fresh", "id"), self._keys("message", "id")
        envelopes_whole = self.whole
        self.whole = True
        self.waiting = self._all_waiting()
        self.recipients_whole = self.whole
        contents = self._keys("content", "id")
        self.files = {
            id
            for path in content.folder(directory, shard).glob("??/*")
            if (id := identifier.parse(path.name)) is not None and identifier.shard_of(id) == shard
        }
        known = {id for (id,) in fresh} | {id for (id,) in message}
        hints = {id for (id,) in contents} | set(self.waiting) | self.files
        self.ids = sorted(known if envelopes_whole else known | hints)
        self._known = known
        self.unread: set[int] = set()  # ids whose envelope cannot be read

    def envelope(self, id: int) -> tuple[Envelope, bool] | None:
        """The envelope, and whether the message was never settled."""
        for table in ("fresh", "message"):
            row = self._row(f"SELECT envelope FROM {table} WHERE id = ?", (id,))
            if row is None:
                continue
            try:
                envelope = codec.decode_envelope(row[0])
            except (codec.Undecodable, TypeError):
                continue
            if envelope.id == id and envelope.recipients:
                return envelope, table == "fresh"
        self.unread.add(id)
        return None

    def octets(self, envelope: Envelope) -> bytes | None:
        """The content if it stands whole in the shard."""
        row = self._row("SELECT octets FROM content WHERE id = ?", (envelope.id,))
        if row is None or not isinstance(row[0], bytes) or len(row[0]) != envelope.size - len(envelope.prefix):
            return None
        return row[0]

    def has_file(self, envelope: Envelope) -> bool:
        found = content.content_file(self._directory, envelope.id) if envelope.id in self.files else None
        return found is not None and found.size == envelope.size - len(envelope.prefix)

    def journal(self) -> Iterator[tuple[Any, ...]]:
        for (seq,) in self._keys("journal", "seq"):
            row = self._row("SELECT seq, at_us, last_id, events FROM journal WHERE seq = ?", (seq,))
            if row is not None and isinstance(row[3], bytes) and codec.is_readable(row[3]):
                yield row

    def _all_waiting(self) -> dict[int, dict[int, Waiting]]:
        """Recipients by message and index, from the table and from its index, which knows the due time and the
        destination."""
        waiting: dict[int, dict[int, Waiting]] = {}
        for id, number in self._keys("recipient", "id, number"):
            row = self._row("SELECT state FROM recipient WHERE id = ? AND number = ?", (id, number))
            with contextlib.suppress(codec.Undecodable, TypeError):
                if row is not None:
                    waiting.setdefault(id, {})[number] = codec.decode_waiting(row[0])
        if self.whole:
            return waiting
        columns = "destination, held, due_us, id, number"
        for destination, held, due_us, id, number in self._keys("recipient INDEXED BY recipient_due", columns):
            if all(isinstance(each, int) for each in (held, due_us, id, number)) and isinstance(destination, str):
                waiting.setdefault(id, {}).setdefault(number, Waiting(number, due_us, destination, held=bool(held)))
        return waiting

    def _keys(self, table: str, columns: str) -> list[tuple[Any, ...]]:
        """The keys of all rows that can be reached from either end."""
        found: dict[tuple[Any, ...], None] = {}
        descending = ", ".join(f"{column} DESC" for column in columns.split(", "))
        for order in (columns, descending):
            try:
                for row in self._connection.execute(f"SELECT {columns} FROM {table} ORDER BY {order}"):
                    if order is descending and row in found:
                        break
                    found[row] = None
                else:
                    if order is columns:
                        return list(found)
            except (sqlite3.Error, OverflowError):
                self.whole = False
        return [key for key in found if all(isinstance(each, (int, str)) for each in key)]

    def _row(self, sql: str, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
        try:
            row: tuple[Any, ...] | None = self._connection.execute(sql, values).fetchone()
        except (sqlite3.Error, OverflowError):
            return None
        return row


def _copy(source: _Source, target: sqlite3.Connection) -> tuple[set[int], int]:
    """Copies the messages. Returns the ids saved, and how many of them are held."""
    saved: set[int] = set()
    held = 0
    target.execute("BEGIN IMMEDIATE")
    for id in source.ids:
        found = source.envelope(id)
        if found is None:
            continue
        envelope, fresh = found
        octets = source.octets(envelope)
        rows = _rows(source, envelope, fresh, octets is not None or source.has_file(envelope))
        if rows is None:
            continue  # it has ended
        if octets is not None:
            target.execute("INSERT INTO content VALUES (?,?)", (id, octets))
        target.execute(
            f"INSERT INTO {'message' if rows else 'fresh'} VALUES (?,?)", (id, codec.encode_envelope(envelope))
        )
        for each in rows:
            target.execute(
                "INSERT INTO recipient VALUES (?,?,?,?,?,?)",
                (id, each.index, each.destination, int(each.held), each.due_us, codec.encode_waiting(each)),
            )
        saved.add(id)
        held += any(each.text in (DOUBTFUL, NO_CONTENT) for each in rows)
    target.executemany("INSERT INTO journal VALUES (?,?,?,?)", source.journal())
    target.execute("COMMIT")
    return saved, held


def _rows(source: _Source, envelope: Envelope, fresh: bool, has_content: bool) -> list[Waiting] | None:
    """The rows of the message's recipients: none if it goes on as a fresh one. None if it has ended."""
    known = {} if fresh else source.waiting.get(envelope.id, {})
    if fresh and has_content:
        return []
    rows = []
    for index in range(len(envelope.recipients)):
        row = known.get(index)
        if row is None and not fresh and source.recipients_whole:
            continue  # it has ended
        doubtful = row is None and not fresh
        row = row or Waiting(index, envelope.accepted_us, "")
        if doubtful or not has_content:
            row = msgspec.structs.replace(row, held=True, text=DOUBTFUL if has_content else NO_CONTENT)
        rows.append(row)
    return rows or None


def _unlink(path: Path) -> None:
    for ending in (*_ENDINGS, "-journal"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}{ending}")
