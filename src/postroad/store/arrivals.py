"""Arrivals: how many clients are in the middle of a message, so that a commit may wait for them.

If many clients send at once, a commit that waits a few milliseconds takes more messages, and each costs less. If one
client sends alone, each millisecond is lost. So we count the clients in the middle of a message. A client that has been
there for longer than `SPAN_S` (at most twice that) is slow or idle and does not count any more. The number that began a
message within the last span says whether it is worth waiting longer (`busy`).

What always holds: each client that has joined leaves once, by `Arrival.leave` or when its time is over. Nothing is kept
after that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

SPAN_S: Final = 0.1
BUSY: Final = 25  # messages begun within a span from which the commits of a worker are what it has too many of


class Arrival:
    """The clients that joined within one span."""

    __slots__ = ("count", "joined")

    def __init__(self) -> None:
        self.count = 0
        self.joined = 0  # in all

    def leave(self) -> None:
        """One of these clients has handed over its message, or will not."""
        self.count -= 1


class Arrivals:
    """Counts the clients in the middle of a message. `time`: monotonic seconds."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._now, self._before = Arrival(), Arrival()
        self._until = 0.0

    def join(self) -> Arrival:
        """A client has connected, or begun another message. It must `leave` its place later, once."""
        if self._time() >= self._until:
            self._turn()
        place = self._now
        place.count += 1
        place.joined += 1
        return place

    def expected(self) -> int:
        """How many clients are in the middle of a message."""
        if self._time() >= self._until:
            self._turn()
        return self._now.count + self._before.count

    @property
    def busy(self) -> bool:
        """Whether many messages come. Call it only after `expected`, which looks at the time."""
        return self._before.joined >= BUSY or self._now.joined >= BUSY

    def _turn(self) -> None:
        now = self._time()
        self._before = self._now if now < self._until + SPAN_S else Arrival()
        self._now = Arrival()
        self._until = now + SPAN_S
