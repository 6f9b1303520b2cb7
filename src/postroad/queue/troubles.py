"""Destinations in trouble: those that could not be reached, how often in a row, and until when they are left alone.

What always holds: at most `TROUBLES_MAX` are remembered. If a time is further ahead than any back-off, the clock was
set back, and the time does not count. Not here: what happens to the mail meanwhile (`queue.carrying`).
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
    """The troubles of one worker, by the keys of destinations. `options()` returns the present settings."""

    def __init__(self, clock: Clock, random: random.Random, options: Callable[[], QueueOptions]) -> None:
        self._clock = clock
        self._random = random
        self._options = options
        self._known: dict[str, Trouble] = {}

    def of(self, destination_key: str) -> Trouble | None:
        """What is remembered of a destination. Its time may be over."""
        return self._known.get(destination_key)

    def is_left_alone(self, trouble: Trouble) -> bool:
        """Whether the destination is left alone now."""
        ahead_us = trouble.until_us - self._clock.now_us()
        return 0 < ahead_us <= self._options().backoff_max_s * 2_000_000

    def failed(self, destination_key: str, attempt: Attempt, options: QueueOptions) -> Trouble:
        """Notes that the destination could not be reached, and returns its trouble by these settings. If a connection
        that was begun before fails while the destination is left alone already, this is not a further failure."""
        trouble = self._known.get(destination_key)
        if trouble is None or not self.is_left_alone(trouble):
            now_us = self._clock.now_us()
            failures = trouble.failures + 1 if trouble is not None else 1
            until_us = now_us + int(schedule.backoff_s(options, failures, self._random) * 1_000_000)
            trouble = Trouble(failures, until_us, attempt)
            self._remember(destination_key, trouble, now_us)
        return trouble

    def over(self, destination_key: str) -> None:
        """Forgets the trouble: the destination was reached, or an operator wants it to be tried."""
        self._known.pop(destination_key, None)

    def summary(self) -> dict[str, tuple[int, int, str]]:
        """For operators: failures in a row, until when, and why."""
        return {
            destination_key: (item.failures, item.until_us, item.attempt.text)
            for destination_key, item in self._known.items()
        }

    def _remember(self, destination_key: str, trouble: Trouble, now_us: int) -> None:
        """Keeps a trouble. Removes those that are over for long; if that is not enough, the oldest ones."""
        known = self._known
        if len(known) >= TROUBLES_MAX and destination_key not in known:
            over_us = now_us - int(self._options().backoff_max_s * 1_000_000)
            gone = [name for name, one in known.items() if one.until_us < over_us]
            for name in gone or list(known)[: TROUBLES_MAX // 2]:
                del known[name]
        known[destination_key] = trouble
