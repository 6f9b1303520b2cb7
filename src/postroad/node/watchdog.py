"""The supervisor's watch over its workers: it ends a worker whose event loop hangs, and the worker is started again.

A worker that is up says so every `BEAT_S` seconds from its loop. If it is silent for `hang_s`, it is told to abort, and
writes the stacks of its threads to stderr (`faulthandler`). If it still runs `LAST_S` later, it is killed. The mail
that it has accepted is in the spool, as after any other death of a worker.

What always holds: a worker that is starting or stopping is not watched; time in which the supervisor itself did not run
(the machine was suspended or overloaded) does not count. Times are of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

BEAT_S: Final = 1.0  # how often a worker says that it is alive, and how often it is looked at
LAST_S: Final = 2.0  # from the abort to the kill


class Silence(msgspec.Struct, frozen=True):
    """A worker that has been silent too long. `last`: it was told to abort before, and is still there."""

    number: int
    silent_s: float
    last: bool


class Watchdog:
    """`now()`: monotonic seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._heard: dict[int, float] = {}
        self._aborted: dict[int, float] = {}
        self._looked = now()

    def heard(self, number: int) -> None:
        """The worker is up, or still is."""
        if number not in self._aborted:
            self._heard[number] = self._now()

    def forget(self, number: int) -> None:
        """The worker has ended, or is told to."""
        self._heard.pop(number, None)
        self._aborted.pop(number, None)

    def look(self, hang_s: float) -> list[Silence]:
        """To be called every `BEAT_S`: the workers to be ended now. `hang_s` 0: none is."""
        now = self._now()
        lost_s, self._looked = now - self._looked - BEAT_S, now
        if lost_s > BEAT_S:
            self._heard = {number: heard + lost_s for number, heard in self._heard.items()}
        found = []
        for number, heard in list(self._heard.items()):
            if hang_s and now - heard >= hang_s:
                del self._heard[number]
                self._aborted[number] = now
                found.append(Silence(number, now - heard, last=False))
        for number, aborted in list(self._aborted.items()):
            if now - aborted >= LAST_S:
                self._aborted[number] = now  # once more, should a signal not reach it
                found.append(Silence(number, now - aborted, last=True))
        return found
