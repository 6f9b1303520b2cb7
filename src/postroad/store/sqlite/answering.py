"""The answers of a shard to the questions of `store.questions`, read from its tables within a commit or without one.

What always holds: an answer shows the state after all operations before the question. A row that cannot be decoded is
kept for `postroad spool repair`: it is never due, and does not stand in the way of others.

How it fails: sqlite3.Error, which the shard turns into an answer that comes later.

Not here: when a question is asked (`store.sqlite.shard`); how messages are selected (`store.sqlite.selecting`).
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, assert_never

from postroad.mail import identifier
from postroad.mail.envelope import Envelope
from postroad.mail.message import Content
from postroad.store import content
from postroad.store.questions import Ahead, Contents, FirstDue, Fresh, Load, NextDue, Question, Select, Take
from postroad.store.sqlite import codec, schema, selecting
from postroad.store.values import Loaded, Selection, Waiting

_SELECT_STEPS: Final = 4  # steps of a selection between two commits
_ENVELOPES_MAX: Final = 50_000  # recipients in the envelopes kept decoded, for large mailings read piece by piece
_CACHED_FROM: Final = 20  # recipients from which an envelope is worth keeping


class Answering:
    """Answers the questions to one shard. `use` returns the connection, and opens it anew if that is needed. `large`
    holds the messages whose content is in a file; the shard maintains it. `say` takes messages for the operator."""

    def __init__(
        self,
        directory: Path,
        path: Path,
        use: Callable[[], sqlite3.Connection],
        large: set[int],
        say: Callable[[str, str], None],
    ) -> None:
        self._directory = directory
        self._path = path
        self._use = use
        self._large = large
        self._say = say
        self._envelopes: OrderedDict[int, Envelope] = OrderedDict()

    def answer(self, question: Question) -> Any:
        """Answers a question as its class says. Raises sqlite3.Error."""
        match question:
            case Take(destination, before_us, limit):
                return self._take(destination, before_us, limit)
            case NextDue(destination, after_us):
                return self._next_due(destination, after_us)
            case Load(id):
                return self._load(id)
            case Fresh(after, limit):
                return self._fresh(after, limit)
            case Ahead(place, until_us, limit):
                return self._ahead(place, until_us, limit)
            case FirstDue(destinations):
                return self._first_due(destinations)
            case Contents(id):
                return self._content(id)
            case Select(selection, after):
                return self._select(selection, after)
            case _ as unknown:
                assert_never(unknown)

    def _select(self, selection: Selection, after: int) -> tuple[list[int], int | None]:
        """Finds ids in a few steps. Returns them, and the id after which to continue."""
        found: list[int] = []
        last: int | None = after
        for _ in range(_SELECT_STEPS):
            if last is None:
                break
            more, last = selecting.step(self._use(), selection, last)
            found += more
        return found, last

    def _take(self, destination: str, before_us: int, limit: int) -> list[Loaded]:
        """Returns due recipients of a destination, by message, the oldest due first, at most `limit` of them."""
        rows = self._use().execute(
            "SELECT id, state FROM recipient WHERE destination = ? AND held = 0 AND due_us <= ?"
            " ORDER BY due_us LIMIT ?",
            (destination, before_us, limit),
        ).fetchall()  # fmt: skip
        return [loaded for loaded in self._loaded(rows) if loaded.waiting]

    def _next_due(self, destination: str, after_us: int = 0) -> int:
        """When the first recipient of a destination is due after a time; 0 if none waits for longer."""
        row = self._use().execute(
            "SELECT due_us FROM recipient WHERE destination = ? AND held = 0 AND due_us > ? ORDER BY due_us LIMIT 1",
            (destination, after_us or -1),
        ).fetchone()  # fmt: skip
        return 0 if row is None else max(1, row[0])

    def _load(self, id: int) -> Loaded | None:
        """Returns a message with all its waiting recipients. A message that was never settled has none."""
        rows = self._use().execute("SELECT id, state FROM recipient WHERE id = ? ORDER BY number", (id,)).fetchall()
        loaded = self._loaded(rows) if rows else [Loaded(each, ()) for each in self._envelopes_of([id])]
        return loaded[0] if loaded else None

    def _fresh(self, after: int, limit: int) -> list[Envelope]:
        """Messages accepted and never settled, in the order of their ids, above `after`."""
        found = []
        rows = self._use().execute("SELECT id, envelope FROM fresh WHERE id > ? ORDER BY id LIMIT ?", (after, limit))
        for id, octets in rows.fetchall():
            try:
                found.append(codec.decode_envelope(octets))
            except codec.Undecodable as error:
                self._keep_for_repair(id, str(error))
        return found

    def _ahead(self, after: tuple[int, str], until_us: int, limit: int) -> list[tuple[int, str]]:
        """Returns which destinations have something due, and when: after a time and name and up to a time, in this
        order."""
        return self._use().execute(schema.AHEAD, (*after, until_us, limit)).fetchall()

    def _first_due(self, names: Sequence[str]) -> dict[str, int]:
        """When each of these destinations first has something due; those that have nothing are left out."""
        rows = schema.read_rows(self._use(), schema.SELECT_DUE, names)
        return {name: due_us for name, due_us in rows if due_us is not None}

    def _content(self, id: int) -> Content | None:
        """The octets of a message, or its file; None if there is no such message."""
        if id in self._large:
            return content.content_file(self._directory, id)
        row = self._use().execute("SELECT octets FROM content WHERE id = ?", (id,)).fetchone()
        return None if row is None else row[0]

    def _loaded(self, rows: Iterable[tuple[int, bytes]]) -> list[Loaded]:
        waiting: dict[int, list[Waiting]] = {}
        for id, state in rows:
            try:
                waiting.setdefault(id, []).append(codec.decode_waiting(state))
            except codec.Undecodable as error:
                self._keep_for_repair(id, str(error))
        envelopes = {each.id: each for each in self._envelopes_of(waiting)}
        if len(envelopes) < len(waiting):
            self._drop_strays([id for id in waiting if id not in envelopes])
        return [Loaded(envelopes[id], tuple(places)) for id, places in waiting.items() if id in envelopes]

    def _envelopes_of(self, ids: Iterable[int]) -> list[Envelope]:
        found: list[Envelope] = []
        missing: list[int] = []
        for id in ids:
            kept = self._envelopes.get(id)
            if kept is None:
                missing.append(id)
            else:
                self._envelopes.move_to_end(id)
                found.append(kept)
        connection = self._use()
        rows = list(schema.read_rows(connection, schema.SELECT_MESSAGE, missing))
        if len(rows) < len(missing):
            rows += schema.read_rows(connection, schema.SELECT_FRESH, set(missing).difference(id for id, _ in rows))
        for id, octets in rows:
            try:
                envelope = codec.decode_envelope(octets)
            except codec.Undecodable as error:
                self._keep_for_repair(id, str(error))
                continue
            found.append(envelope)
            if len(envelope.recipients) >= _CACHED_FROM:
                self._keep_decoded(envelope)
        return found

    def _keep_decoded(self, envelope: Envelope) -> None:
        self._envelopes[envelope.id] = envelope
        total = sum(len(each.recipients) for each in self._envelopes.values())
        while total > _ENVELOPES_MAX and len(self._envelopes) > 1:
            _, dropped = self._envelopes.popitem(last=False)
            total -= len(dropped.recipients)

    def _drop_strays(self, ids: Sequence[int]) -> None:
        """Removes recipients without a message. Only a commit that failed, but was written all the same, can leave such
        rows."""
        connection = self._use()
        there = {id for template in (schema.SELECT_MESSAGE, schema.SELECT_FRESH)
                 for id, _ in schema.read_rows(connection, template, ids)}  # fmt: skip
        for id in set(ids) - there:
            connection.execute("DELETE FROM recipient WHERE id = ?", (id,))
            self._say("error", f"{self._path}: recipients of {identifier.text(id)} without their message: removed")

    def _keep_for_repair(self, id: int, why: str) -> None:
        """Keeps a row that cannot be read: it is never due, and does not stand in the way of others."""
        self._say("error", f"{self._path}: message {identifier.text(id)} is damaged ({why}); it is kept, not delivered")
        connection = self._use()
        connection.execute("UPDATE recipient SET held = ? WHERE id = ?", (schema.DAMAGED, id))
        connection.execute("INSERT OR REPLACE INTO message SELECT id, envelope FROM fresh WHERE id = ?", (id,))
        if connection.execute("DELETE FROM fresh WHERE id = ?", (id,)).rowcount:
            sql = "INSERT INTO recipient VALUES (?,0,'',?,0,?) ON CONFLICT DO NOTHING"
            connection.execute(sql, (id, schema.DAMAGED, b""))
