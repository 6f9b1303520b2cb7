"""Operations: the values that the spool hands to a shard, one for each call, already encoded.

`told`: the events of the operation, for the readers of the stream after the commit; `events`: the same, encoded.

These are made for every message, so they are plain objects with slots; `done` is called on the loop by the spool.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from postroad.mail.event import Event
from postroad.store.questions import Question
from postroad.store.values import Failure, Waiting


class Row:
    """A message to be written, encoded: `octets` is None if the content is in a file."""

    __slots__ = ("count", "envelope", "id", "octets")

    def __init__(self, id: int, envelope: bytes, octets: bytes | None, count: int) -> None:
        self.id = id
        self.envelope = envelope
        self.octets = octets
        self.count = count


class Accept:
    """A new message. With `waiting` it counts as settled at once (mail that is held on arrival). `reports`: the DSNs
    that come with it."""

    __slots__ = ("done", "events", "reports", "row", "told", "waiting")

    def __init__(
        self,
        row: Row,
        waiting: tuple[Waiting, ...],
        events: bytes,
        done: Callable[[Failure | None], None],
        reports: tuple[Row, ...] = (),
        told: tuple[Event, ...] = (),
    ) -> None:
        self.told = told
        self.row = row
        self.waiting = waiting
        self.events = events
        self.done = done
        self.reports = reports


class Settle:
    """A settlement. `accepted`: the DSNs, encoded."""

    __slots__ = ("accepted", "done", "ended", "events", "id", "told", "waiting")

    def __init__(
        self,
        id: int,
        ended: tuple[int, ...],
        waiting: tuple[Waiting, ...],
        accepted: tuple[Row, ...],
        events: bytes,
        done: Callable[[Failure | None], None],
        told: tuple[Event, ...] = (),
    ) -> None:
        self.told = told
        self.id = id
        self.ended = ended
        self.waiting = waiting
        self.accepted = accepted
        self.events = events
        self.done = done


class Read:
    """A question to a shard, answered from its state after all operations before it. `about`: the message whose content
    is asked for, 0 for all other questions. A question about content is given up after some time."""

    __slots__ = ("about", "done", "empty", "question")
    told: ClassVar[tuple[Event, ...]] = ()

    def __init__(self, question: Question, done: Callable[[Any], None], empty: Any, about: int = 0) -> None:
        self.question = question
        self.done = done
        self.empty = empty  # what is answered when the spool closes before it could be read, or when it is given up
        self.about = about


class Mark:
    """A reader has the journal up to `seq`. What all readers have is removed from the journal."""

    __slots__ = ("done", "reader", "seq")
    told: ClassVar[tuple[Event, ...]] = ()

    def __init__(self, reader: str, seq: int, done: Callable[[Failure | None], None]) -> None:
        self.reader = reader
        self.seq = seq
        self.done = done


class RecordEvents:
    """Events that change nothing. b"" only asks for a commit, which then takes along everything that waits."""

    __slots__ = ("done", "events")
    told: ClassVar[tuple[Event, ...]] = ()  # the stream has told them when they were recorded

    def __init__(self, events: bytes, done: Callable[[Failure | None], None] = lambda failure: None) -> None:
        self.events = events
        self.done = done


class Postponed:
    """The answer to a read that could not be done: ask again."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class Kept:
    """The answer to a settlement whose commit failed, but may be on the disk all the same. The shard writes it again
    with each commit until one succeeds, and answers then."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


Operation = Accept | Settle | Read | Mark | RecordEvents


class PendingOperation:
    """An operation on its way through the writer. `tries`: how often a read has failed. `again`: when it is asked
    again, in the time of the loop."""

    __slots__ = ("again", "operation", "shard", "tries")

    def __init__(self, shard: int, operation: Operation) -> None:
        self.shard = shard
        self.operation = operation
        self.tries = 0
        self.again = 0.0
