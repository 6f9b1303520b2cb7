"""The wall clock as a door: rooms ask it for the time, so that a simulation can put its own in place.

Durations and timers are not here: they are the event loop's (`loop.time`, `loop.call_later`), which a simulation
replaces as well. What always holds: the time is UTC in whole microseconds since 1970. It may jump, in either direction,
when the machine's clock is set; if you need an order, use ids (`mail.identifier`), not times.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the wall time."""

    def now_us(self) -> int:
        """Microseconds since 1970-01-01 UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_us(self) -> int:
        return time.time_ns() // 1000
