"""Company for a commit: how many clients are on their way with a message just now.

Where many clients send at once, a commit that waits a few milliseconds takes the messages of more of them, and costs
each less. Where one client sends alone, each millisecond is lost. So it is counted who is on the way; who has been for
longer than a moment (`SPAN_S`, at most twice that) is slow or idle, and is not counted any more.

What always holds: who has joined leaves once, by `Place.leave` or with time. Nothing is kept for the forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

SPAN_S: Final = 0.1


class Place:
    """Those who joined within one span."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def leave(self) -> None:
        """One of them has handed over a message, or will not."""
        self.count -= 1


class Company:
    """The count. `time`: monotonic seconds."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._now, self._before = Place(), Place()
        self._until = 0.0

    def join(self) -> Place:
        """A client has connected, or begun another message. It is to `leave` its place later, once."""
        if self._time() >= self._until:
            self._turn()
        place = self._now
        place.count += 1
        return place

    def expected(self) -> int:
        """How many are on their way."""
        if self._time() >= self._until:
            self._turn()
        return self._now.count + self._before.count

    def _turn(self) -> None:
        now = self._time()
        self._before = self._now if now < self._until + SPAN_S else Place()
        self._now = Place()
        self._until = now + SPAN_S
