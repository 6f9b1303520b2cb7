"""The largest message that destinations take, as their servers have said in the answer to EHLO (SIZE, RFC 1870).

Couriers note it, and the receiving side asks for it: a message that no server of its destination takes is refused while
its client is there, and not returned later to a sender who may be forged.

What always holds: at most `ENTRIES_MAX` destinations are remembered, each for a set time after its server said so. If
servers of one destination differ, the larger limit counts. Used on one event loop. Not here: who asks when
(`check.fitting`, `receive.acceptance`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

ENTRIES_MAX: Final = 10_000
NO_LIMIT: Final = sys.maxsize


class SizeLimits:
    """`memory_s`: how long a limit is remembered, 0: not at all. `now`: the time of the loop. `least`: no limit that
    is remembered is below it, so that a smaller message needs no look."""

    __slots__ = ("_entries", "_memory_s", "_now", "least")

    def __init__(self, memory_s: float = 0.0, now: Callable[[], float] = lambda: 0.0) -> None:
        self._memory_s = memory_s
        self._now = now
        self._entries: dict[str, tuple[int, float]] = {}
        self.least = NO_LIMIT

    def take(self, memory_s: float) -> None:
        """A setting: how long limits that are noted from here on are remembered."""
        self._memory_s = memory_s
        if not memory_s:
            self._entries.clear()
            self.least = NO_LIMIT

    def note(self, destination_key: str, size_max: int) -> None:
        """A server of this destination takes messages of up to `size_max` octets; 0: it has named no limit."""
        size_max = size_max or NO_LIMIT
        before = self._entries.get(destination_key)
        if not self._memory_s or (before is None and size_max == NO_LIMIT):
            return
        now = self._now()
        if before is not None and before[0] > size_max and before[1] > now:
            return  # another server of the destination takes more
        if before is None and len(self._entries) >= ENTRIES_MAX:
            del self._entries[next(iter(self._entries))]
        self._entries[destination_key] = size_max, now + self._memory_s
        self._find_least(now)

    def exceeded(self, destination_key: str, size: int) -> int:
        """The limit that a message of `size` octets exceeds at this destination; 0 if it may fit."""
        entry = self._entries.get(destination_key)
        if entry is None or size <= entry[0]:
            return 0
        if entry[1] > (now := self._now()):
            return entry[0]
        del self._entries[destination_key]
        self._find_least(now)
        return 0

    def _find_least(self, now: float) -> None:
        self.least = min((limit for limit, until in self._entries.values() if until > now), default=NO_LIMIT)
