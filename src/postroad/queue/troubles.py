"""Destinations in trouble: those that could not be reached, how often in a row, and until when they are left alone.

What always holds: at most `TROUBLES_MAX` are remembered. A time further ahead than any back-off comes from a clock that
was set back, and holds nobody up. Not here: what happens to the mail meanwhile (`queue.carrying`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from postroad.mail.attempt import Attempt
from postroad.queue import schedule
from postroad.queue.options import QueueOptions
from postroad.world.clock import Clock

TROUBLES_MAX: Final = 20_000  # destinations whose failures are remembered


class Trouble:
    """A destination that could not be reached: how often in a row, until when it is left alone, and why."""

    __slots__ = ("attempt", "failures", "until_us")

    def __init__(self, failures: int, until_us: int, attempt: Attempt) -> None:
        self.failures = failures
        self.until_us = until_us
        self.attempt = attempt


class Troubles:
    """Those of one worker, by the keys of destinations. `options()`: as they are now."""

    def __init__(self, clock: Clock, random: random.Random, options: Callable[[], QueueOptions]) -> None:
        self._clock = clock
        self._random = random
        self._options = options
        self._known: dict[str, Trouble] = {}

    def of(self, destination_key: str) -> Trouble | None:
        """What is remembered of a destination; its time may be over."""
        return self._known.get(destination_key)

    def is_left_alone(self, trouble: Trouble) -> bool:
        """Whether its time is not over."""
        ahead_us = trouble.until_us - self._clock.now_us()
        return 0 < ahead_us <= self._options().backoff_max_s * 2_000_000

    def failed(self, destination_key: str, attempt: Attempt, options: QueueOptions) -> Trouble:
        """The destination could not be reached: its trouble from here on, by these settings. One failure while it is
        left alone already, by a connection that was begun before, is no further one."""
        trouble = self._known.get(destination_key)
        if trouble is None or not self.is_left_alone(trouble):
            now_us = self._clock.now_us()
            failures = trouble.failures + 1 if trouble is not None else 1
            until_us = now_us + int(schedule.backoff_s(options, failures, self._random) * 1_000_000)
            trouble = Trouble(failures, until_us, attempt)
            self._remember(destination_key, trouble, now_us)
        return trouble

    def over(self, destination_key: str) -> None:
        """It was reached, or an operator wants it to be tried."""
        self._known.pop(destination_key, None)

    def summary(self) -> dict[str, tuple[int, int, str]]:
        """For operators: failures in a row, until when, and why."""
        return {
            destination_key: (item.failures, item.until_us, item.attempt.text)
            for destination_key, item in self._known.items()
        }

    def _remember(self, destination_key: str, trouble: Trouble, now_us: int) -> None:
        """What is over long ago goes, and if that is not enough, those that were remembered first."""
        known = self._known
        if len(known) >= TROUBLES_MAX and destination_key not in known:
            over_us = now_us - int(self._options().backoff_max_s * 1_000_000)
            gone = [name for name, one in known.items() if one.until_us < over_us]
            for name in gone or list(known)[: TROUBLES_MAX // 2]:
                del known[name]
        known[destination_key] = trouble
