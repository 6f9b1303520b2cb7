"""Turns of the event loop for sessions that send more than is handled at once.

A session handles `AT_ONCE` commands as soon as their octets have come. If more are left, or `MUCH` has come at once,
the session waits here, and those that wait are served one after the other: one of them, with `PER_TURN` commands, each
time the loop goes round. So a client that sends without end takes the time that others leave, and one round takes no
longer however many such clients there are.

What always holds: each session that waits is served once, in the order of arrival; between two of them the loop serves
all others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

AT_ONCE: Final = 20
PER_TURN: Final = 50
MUCH: Final = 65_536  # octets that came at once; behind so many the others are heard first
REFUSAL: Final = 9  # commands that a refusal counts as beside its own: it has an event, for the disk and the log


class Turns:
    """Those who wait, of all listeners of a worker."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    def wait(self, loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> None:
        """Have `work` called when its turn has come. Who waits already must not wait twice."""
        self._waiting.append(work)
        if len(self._waiting) == 1:
            loop.call_soon(self._serve, loop)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        work = self._waiting[0]
        try:
            work()
        finally:
            self._waiting.popleft()
            if self._waiting:
                loop.call_soon(self._serve, loop)
