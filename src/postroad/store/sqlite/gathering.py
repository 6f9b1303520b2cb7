"""What one commit writes of mail: rows are gathered from many operations and written in few statements.

`accept` and `settle` gather; `flush` writes. Only a settlement that leaves recipients waiting, or is of a message that
this process did not accept, looks into the tables.

What always holds: what is gathered of a message is written before anything else of the same message is gathered.
Nothing here begins or ends a transaction. How it fails: sqlite3.Error; the whole commit is rolled back then, and this
value is thrown away.

Not here: the order of operations, and what a failed commit means (`store.sqlite.shard`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from postroad.mail import identifier
from postroad.store.sqlite import codec, schema
from postroad.store.sqlite.operation import Accept, Row, Settle
from postroad.store.values import Failure, FailureKind, Waiting


class Gathering:
    """What one commit has gathered, as flat lists: the values of the rows, one after another. `new`: messages that this
    process has accepted and not settled, with the number of their recipients; the shard keeps it."""

    __slots__ = (
        "_new", "added", "changed", "committing", "contents", "ended", "events", "fresh", "gone", "large", "marks",
        "messages", "missed", "moved", "recipients", "redone", "removed", "settled", "touched", "transaction",
        "written",
    )  # fmt: skip

    def __init__(self, new: Mapping[int, int]) -> None:
        self._new = new
        self.fresh: list[Any] = []
        self.messages: list[Any] = []
        self.contents: list[Any] = []
        self.recipients: list[Any] = []
        self.changed: list[Any] = []
        self.ended: list[int] = []
        self.gone: list[int] = []  # fresh, all ended
        self.moved: list[int] = []  # fresh, some wait
        self.removed: list[int] = []
        self.large: list[int] = []
        self.events: list[bytes] = []
        self.marks: dict[str, int] = {}
        self.missed: dict[str, int] = {}
        self.added: dict[int, int] = {}
        self.settled: set[int] = set()  # settled in this commit, no longer new
        self.touched: set[int] = set()  # has something gathered that is not yet written
        self.written = 0
        self.transaction = False
        self.committing = False  # the commit was begun: what fails now may be on the disk
        self.redone: list[tuple[Settle, Failure | None]] = []

    def accept(self, operation: Accept) -> None:
        """Gathers a new message with the reports that come with it."""
        row, waiting = operation.row, operation.waiting
        if waiting:
            self.messages += (row.id, row.envelope)
            self.recipients += _recipient_rows(row.id, waiting)
            self._gather_content(row)
        else:
            self._gather_fresh(row)
        self.touched.add(row.id)
        for report in operation.reports:
            self._gather_fresh(report)
        if operation.events:
            self.events.append(operation.events)

    def _gather_fresh(self, row: Row) -> None:
        self.fresh += (row.id, row.envelope)
        self.added[row.id] = row.count
        self._gather_content(row)

    def _gather_content(self, row: Row) -> None:
        if row.octets is not None:
            self.contents += (row.id, row.octets)
            self.written += len(row.octets)
        else:
            self.large.append(row.id)
        self.written += len(row.envelope)

    def settle(self, connection: sqlite3.Connection, operation: Settle) -> Failure | None:
        """Gathers a settlement. If that is not possible, returns the reason, and gathers nothing of it."""
        id = operation.id
        if id in self.touched:  # accepted or settled in this very commit: what is gathered of it goes first
            self.flush(connection)
        count = None if id in self.settled else self._new.get(id) or self.added.get(id)
        if count is not None and not operation.waiting and len(set(operation.ended)) == count:
            self.gone.append(id)
            self.settled.add(id)
        else:
            failure = self._settle_looking(connection, operation, count)
            if failure is not None:
                return failure
        self.touched.add(id)
        for row in operation.accepted:
            self._gather_fresh(row)
        if operation.events:
            self.events.append(operation.events)
        return None

    def _settle_looking(
        self, connection: sqlite3.Connection, operation: Settle, count: int | None
    ) -> Failure | None:
        """Gathers a settlement that leaves recipients waiting, or of a message that is not new to this process.
        `count`: the number of its recipients if it is known to be fresh. If a message or a recipient is not there (any
        more), nothing changes: an end cannot be taken back."""
        id = operation.id
        if count is None and id not in self.settled:
            row = connection.execute("SELECT envelope FROM fresh WHERE id = ?", (id,)).fetchone()
            count = None if row is None else len(codec.decode_envelope(row[0]).recipients)
        self.written += 512 * len(operation.waiting)
        if count is None:
            for place in operation.ended:
                self.ended += (id, place)
            self.changed += _recipient_rows(id, operation.waiting)
            return None
        named = {*operation.ended, *(each.index for each in operation.waiting)}
        if len(named) != count:
            text = f"first settlement of {identifier.text(id)} names {len(named)} of {count} recipients"
            return Failure(FailureKind.INVALID, text)
        self.settled.add(id)
        if operation.waiting:
            self.moved.append(id)
            self.recipients += _recipient_rows(id, operation.waiting)
        else:
            self.gone.append(id)
        return None

    def flush(self, connection: sqlite3.Connection) -> None:
        """Writes what was gathered. Deletions come first, so that the space they free is used again at once."""
        write = schema.write_rows
        if self.gone:
            write(connection, schema.DELETE_FRESH, self.gone)
            write(connection, schema.DELETE_CONTENT, self.gone)
            self.removed += self.gone
            self.gone.clear()
        if self.moved:
            write(connection, schema.MOVE_FRESH, self.moved)
            write(connection, schema.DELETE_FRESH, self.moved)
            self.moved.clear()
        if self.fresh:
            write(connection, schema.INSERT_FRESH, self.fresh, 2)
            self.fresh.clear()
        if self.messages:
            write(connection, schema.INSERT_MESSAGE, self.messages, 2)
            self.messages.clear()
        if self.contents:
            write(connection, schema.INSERT_CONTENT, self.contents, 2)
            self.contents.clear()
        if self.recipients:
            write(connection, schema.INSERT_RECIPIENT, self.recipients, 6)
            self.recipients.clear()
        if self.changed:
            write(connection, schema.UPDATE_RECIPIENT, self.changed, 6)
            self.changed.clear()
        if self.ended:
            self._end(connection, self.ended)
            self.ended.clear()
        self.touched.clear()

    def _end(self, connection: sqlite3.Connection, ended: Sequence[int]) -> None:
        """Removes recipients, and the messages that have none left."""
        schema.write_rows(connection, schema.DELETE_RECIPIENT, ended, 2)
        touched = dict.fromkeys(ended[::2])
        for (id,) in schema.read_rows(connection, schema.SELECT_WAITING, touched):
            del touched[id]
        if touched:
            self.delete_messages(connection, list(touched))
            self.removed += touched

    def delete_messages(self, connection: sqlite3.Connection, ids: Sequence[int]) -> None:
        """Removes messages with their content, at once. Their recipients are removed elsewhere."""
        for template in (schema.DELETE_FRESH, schema.DELETE_MESSAGE, schema.DELETE_CONTENT):
            schema.write_rows(connection, template, ids)


def _recipient_rows(id: int, waiting: Iterable[Waiting]) -> list[Any]:
    rows: list[Any] = []
    for each in waiting:
        rows += (id, each.index, each.destination, int(each.held), each.due_us, codec.encode_waiting(each))
    return rows
