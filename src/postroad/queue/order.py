"""The order of what waits: the most urgent rank first; within one rank the sources take turns.

A source is a sender (`source_of`). Messages of one sender keep their order; different senders take turns, so that a
mailing holds nobody up. A message with many recipients is a source of its own, so that a sender's single messages do
not wait for the sender's own mailing. With one source and one rank this is a plain queue.

What always holds: each value is taken once; nothing is taken before a value of a higher rank (RFC 6710 §5); values of
one source and rank keep their order, except those that were put first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

from postroad.mail.envelope import Envelope

_T = TypeVar("_T")
MAILING: Final = 50  # recipients from which a message is part of a mailing


def source_of(envelope: Envelope) -> str:
    """Whose a message is: the account, else the domain of the reverse-path; "" for reports."""
    sender = envelope.peer.identity or (envelope.reverse_path.domain if envelope.reverse_path is not None else "")
    return sender if len(envelope.recipients) < MAILING else f"{sender} mailing"


class _Round(Generic[_T]):
    """All values of one rank that wait."""

    __slots__ = ("lines", "turns")

    def __init__(self) -> None:
        self.lines: dict[str, deque[_T]] = {}
        self.turns: deque[str] = deque()

    def add(self, source: str, value: _T) -> None:
        line = self.lines.get(source)
        if line is None:
            self.lines[source] = deque((value,))
            self.turns.append(source)
        else:
            line.append(value)

    def add_first(self, source: str, value: _T) -> None:
        line = self.lines.get(source)
        if line is None:
            self.lines[source] = deque((value,))
        else:
            line.appendleft(value)
            self.turns.remove(source)
        self.turns.appendleft(source)

    def take_next(self) -> _T:
        turns = self.turns
        source = turns[0]
        line = self.lines[source]
        value = line.popleft()
        if not line:
            del self.lines[source]
            turns.popleft()
        elif len(turns) > 1:
            turns.rotate(-1)
        return value


class FairQueue(Generic[_T]):
    __slots__ = ("_count", "_rounds")

    def __init__(self) -> None:
        self._rounds: dict[int, _Round[_T]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[_T]:
        """Gives all values; those of one rank and source stand together."""
        for each in list(self._rounds.values()):
            for line in list(each.lines.values()):
                yield from line

    def count(self, source: str) -> int:
        """How many values of one source wait."""
        return sum(len(each.lines[source]) for each in self._rounds.values() if source in each.lines)

    def add(self, source: str, value: _T, rank: int = 0) -> None:
        self._round(rank).add(source, value)

    def add_first(self, source: str, value: _T, rank: int = 0) -> None:
        """Puts a value in front of all others of its rank."""
        self._round(rank).add_first(source, value)

    def _round(self, rank: int) -> _Round[_T]:
        self._count += 1
        found = self._rounds.get(rank)
        if found is None:
            found = self._rounds[rank] = _Round()
        return found

    def take_next(self) -> _T:
        """Takes the next value. Raises ValueError if nothing waits."""
        rank = max(self._rounds)
        found = self._rounds[rank]
        value = found.take_next()
        self._count -= 1
        if not found.turns:
            del self._rounds[rank]
        return value

    def first(self) -> _T:
        """Returns the value that `take_next` would take."""
        found = self._rounds[max(self._rounds)]
        return found.lines[found.turns[0]][0]

    def clear(self) -> list[_T]:
        """Takes out all values."""
        values = list(self)
        self._rounds.clear()
        self._count = 0
        return values
