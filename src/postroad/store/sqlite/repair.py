"""Repairs a spool that no node has open: saves damaged shards into new ones, and mends rows and files that do not fit.

What always holds: nothing is thrown away. A message that lacks its content, or its recipients, is held with the reason;
content without a message is kept as a file in ``NN.damaged-TIME``; recipients without a message are removed, because
nothing could be delivered to them. Each shard's changes are one commit.

How it fails: SpoolError if a shard cannot be opened (a node runs); shards that were repaired before stay repaired. Not
here: finding what is wrong (`store.sqlite.checking`), reading damaged files (`store.sqlite.salvage`).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from postroad.mail import identifier
from postroad.mail.event import Event, Held, Noted
from postroad.store import content
from postroad.store.sqlite import codec, schema
from postroad.store.sqlite.checking import CheckedShard
from postroad.store.sqlite.shard import Shard
from postroad.store.values import Waiting

_NO_CONTENT: Final = "its content is not in the spool: it cannot be delivered; fail or remove it"
_NO_RECIPIENTS: Final = "repaired: nobody knows which recipients have it already; release or remove it"


def repair(directory: Path, checked: CheckedShard, now_us: Callable[[], int]) -> list[str]:
    """Mends one shard. Returns what was done, in lines. Raises SpoolError, sqlite3.Error, OSError."""
    said: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, Noted):
            said.append(event.text)

    shard = Shard(directory, checked.shard, now_us, note=note)
    if any(each.kind == "damaged" for each in checked.findings):
        (directory / f"{checked.shard:02}.suspect").touch(0o600)  # looked through whole, however large it is
    shard.open()
    try:
        if not said:  # else it has just been made anew
            _Repair(directory, shard.connection, now_us(), said).run(checked)
    finally:
        shard.close()
    return said


class _Repair:
    def __init__(self, directory: Path, connection: sqlite3.Connection, now_us: int, said: list[str]) -> None:
        self._directory = directory
        self._connection = connection
        self._now_us = now_us
        self._said = said
        self._events: list[Event] = []

    def run(self, checked: CheckedShard) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for finding in checked.findings:
                id = identifier.parse(finding.id)
                if id is not None:
                    self._mend(finding.kind, id)
                elif finding.kind == "destinations":
                    schema.recount(self._connection)
                    self._said.append("the counts by destination: counted again")
            if self._events:
                self._connection.execute(
                    "INSERT INTO journal"
                    " SELECT coalesce(max(seq), ?) + 1, ?, coalesce(max(last_id), 0), ? FROM journal",
                    (self._now_us, self._now_us, codec.join_events([codec.encode_events(self._events)])),
                )
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise

    def _mend(self, kind: str, id: int) -> None:
        match kind:
            case "no-content" | "content":
                self._hold(id, _NO_CONTENT)
            case "no-recipients":
                self._hold(id, _NO_RECIPIENTS)
            case "no-message":
                self._execute("DELETE FROM recipient WHERE id = ?", id)
                self._tell(id, "recipients without their message: removed")
            case "twice":
                self._execute("DELETE FROM fresh WHERE id = ?", id)
                self._tell(id, "was there twice: it waits, and is no longer fresh")
            case "stray-content":
                self._keep_content(id)
            case _:
                self._tell(id, "is kept as it is; export it, or remove it")

    def _hold(self, id: int, text: str) -> None:
        row = self._connection.execute(
            "SELECT envelope FROM message WHERE id = ? UNION ALL SELECT envelope FROM fresh WHERE id = ?", (id, id)
        ).fetchone()
        if row is None:
            return
        envelope = codec.decode_envelope(row[0])
        known = {
            number: codec.decode_waiting(state)
            for number, state in self._connection.execute("SELECT number, state FROM recipient WHERE id = ?", (id,))
        }
        rows = [known[index] for index in sorted(known)]
        rows = rows or [Waiting(index, envelope.accepted_us, "") for index in range(len(envelope.recipients))]
        self._execute("INSERT OR IGNORE INTO message SELECT id, envelope FROM fresh WHERE id = ?", id)
        self._execute("DELETE FROM fresh WHERE id = ?", id)
        for each in rows:
            held = msgspec.structs.replace(each, held=True, text=text)
            row = (id, held.index, held.destination, 1, held.due_us, codec.encode_waiting(held))
            schema.write_rows(self._connection, schema.INSERT_RECIPIENT, row, len(row))
        names = tuple(envelope.recipients[each.index].name for each in rows)
        self._events.append(Held(self._now_us, id, names, "repair", text))
        self._tell(id, f"held: {text}")

    def _keep_content(self, id: int) -> None:
        row = self._connection.execute("SELECT octets FROM content WHERE id = ?", (id,)).fetchone()
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(self._now_us // 1_000_000))
        folder = self._directory / f"{identifier.shard_of(id):02}.damaged-{stamp}"
        content.make_directory(folder)
        handle = os.open(folder / identifier.text(id), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(row[0])
            file.flush()
            os.fsync(handle)
        content.sync_directory(folder)
        self._execute("DELETE FROM content WHERE id = ?", id)
        self._tell(id, f"content without a message: kept as {folder / identifier.text(id)}")

    def _execute(self, sql: str, *values: Any) -> None:
        self._connection.execute(sql, values)

    def _tell(self, id: int, text: str) -> None:
        self._said.append(f"{identifier.text(id)}: {text}")
