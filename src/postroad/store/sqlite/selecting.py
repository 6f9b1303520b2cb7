"""Finds the messages that a Selection means: by an index if possible, else by reading all envelopes.

Works on any connection to a shard, in steps of a bounded number of rows, so that the spool's writer can commit between
two of them and a reader holds no snapshot for long. Addresses and Message-IDs are first looked for in the encoded
envelope, which holds text as it is; only envelopes that may match are decoded.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

from postroad.store.selection import means_envelope, means_states
from postroad.store.sqlite import codec, schema
from postroad.store.values import Selection

_STEP: Final = 2000  # messages in one step if an index finds them
_SPAN: Final = 10_000  # messages in one step if all are looked at (a few milliseconds)
_FEW: Final = 20_000  # recipients: so many are sorted for each step; of more it is quicker to go through all messages
_ID_MAX: Final = (1 << 63) - 1
# Of destinations that have held recipients only these are looked at; {}: the table of destinations.
HELD: Final = (
    "SELECT DISTINCT id FROM recipient WHERE destination IN (SELECT name FROM {} WHERE held > 0) AND held IN (1, 2)"
    " AND id > ? ORDER BY id LIMIT ?"
)


def step(connection: sqlite3.Connection, selection: Selection, after: int) -> tuple[list[int], int | None]:
    """Does one step: returns ids above `after` that match, in order, and the id after which to continue, None at the
    end."""
    rows, last = _candidates(connection, selection)(connection, selection, after)
    waiting = _waiting(connection, rows) if _looks_at_waiting(selection) else {}
    return [id for id, octets in rows if matches(octets, selection, waiting.get(id, frozenset()))], last


def _candidates(connection: sqlite3.Connection, selection: Selection) -> _Candidates:
    if selection.ids:
        return _chosen
    if not selection.destination and not selection.held:
        return _all
    column = "count" if selection.destination else "held"
    where = "WHERE name = ?" if selection.destination else ""
    sql = f"SELECT total({column}) FROM {schema.destinations(connection)} {where}"
    (count,) = connection.execute(sql, (selection.destination,) if where else ()).fetchone()
    if count > _FEW:
        return _all
    return _at_destination if selection.destination else _held


# Candidates as (id, encoded envelope) in the order of ids, and the id behind which to go on, None at the end.
_Step = tuple[list[tuple[int, bytes]], int | None]
_Candidates = Callable[[sqlite3.Connection, Selection, int], _Step]


def _chosen(connection: sqlite3.Connection, selection: Selection, after: int) -> _Step:
    ids = sorted(each for each in set(selection.ids) if each > after)
    return _envelopes(connection, ids[:_STEP]), ids[_STEP - 1] if len(ids) > _STEP else None


def _at_destination(connection: sqlite3.Connection, selection: Selection, after: int) -> _Step:
    rows = connection.execute(
        "SELECT DISTINCT id FROM recipient WHERE destination = ? AND id > ? ORDER BY id LIMIT ?",
        (selection.destination, after, _STEP),
    ).fetchall()
    ids = [id for (id,) in rows]
    return _envelopes(connection, ids), ids[-1] if len(ids) == _STEP else None


def _held(connection: sqlite3.Connection, selection: Selection, after: int) -> _Step:
    ids = [id for (id,) in connection.execute(HELD.format(schema.destinations(connection)), (after, _STEP))]
    return _envelopes(connection, ids), ids[-1] if len(ids) == _STEP else None


def _all(connection: sqlite3.Connection, selection: Selection, after: int) -> _Step:
    """Looks through a part of both tables, of which each has at most _SPAN rows."""
    ends = []
    for table in ("message", "fresh"):
        row = connection.execute(
            f"SELECT id FROM {table} WHERE id > ? ORDER BY id LIMIT 1 OFFSET {_SPAN - 1}", (after,)
        ).fetchone()
        if row is not None:
            ends.append(row[0])
    last = min(ends, default=None)
    needles = _needles(selection)
    rows: list[tuple[int, bytes]] = []
    for table in ("message", "fresh"):
        waits, asked = waiting_where(table, selection)
        where = " AND ".join(["id > ? AND id <= ?", *["instr(envelope, ?) > 0"] * len(needles), *waits])
        values = (after, _ID_MAX if last is None else last, *needles, *asked)
        rows += connection.execute(f"SELECT id, envelope FROM {table} WHERE {where}", values).fetchall()
    return sorted(rows), last


def waiting_where(table: str, selection: Selection) -> tuple[list[str], list[str]]:
    """The conditions on the waiting recipients of a table's messages, and the values for them. It looks at the
    recipients of each message (the plus keeps SQLite from looking at everything that waits for the destination)."""
    there = f"EXISTS (SELECT 1 FROM recipient WHERE recipient.id = {table}.id"
    named = " AND +destination = ?" if selection.destination else ""
    conditions = [f"{there}{named})"] if selection.destination else []
    if selection.held is not None:
        conditions.append(f"{'' if selection.held else 'NOT '}{there}{named} AND held <> 0)")
    return conditions, [selection.destination] * len(conditions) if named else []


def _envelopes(connection: sqlite3.Connection, ids: list[int]) -> list[tuple[int, bytes]]:
    rows = [*schema.read_rows(connection, schema.SELECT_MESSAGE, ids)]
    rows += schema.read_rows(connection, schema.SELECT_FRESH, ids)
    return sorted((id, octets) for id, octets in rows)


def _looks_at_waiting(selection: Selection) -> bool:
    return bool(selection.destination) or selection.held is not None


def _waiting(
    connection: sqlite3.Connection, rows: list[tuple[int, bytes]]
) -> dict[int, frozenset[tuple[str, bool]]]:
    """(destination, held) of the waiting recipients of each message."""
    found: dict[int, set[tuple[str, bool]]] = {}
    for id, destination, held in schema.read_rows(connection, schema.SELECT_STATES, [id for id, _ in rows]):
        found.setdefault(id, set()).add((destination, held != 0))
    return {id: frozenset(states) for id, states in found.items()}


def matches(octets: bytes, selection: Selection, waiting: frozenset[tuple[str, bool]]) -> bool:
    """Whether the selection means one message, as encoded, with its waiting recipients."""
    if not means_states(selection, waiting):
        return False
    if not (selection.sender or selection.recipient or selection.message_id):
        return True
    try:
        envelope = codec.decode_envelope(octets)
    except codec.Undecodable:
        return False
    return means_envelope(selection, envelope)


def _needles(selection: Selection) -> list[bytes]:
    """Octets that stand in the encoded envelope of every message that is meant. A domain stands there in lower case.
    U-labels and local-parts in any case cannot be found in this way."""
    found = []
    for wanted in (selection.sender, selection.recipient):
        domain = wanted.rpartition("@")[2].lower() if "@" in wanted else ""
        if domain and domain.isascii():
            found.append(domain.encode())
    if selection.message_id:
        found.append(selection.message_id.strip("<>").encode())
    return found
