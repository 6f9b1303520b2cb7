"""Clients that are turned away before a session: what is told of them.

A client that is banned, or has too many sessions, may come thousands of times a second; each refusal as an event of its
own would fill log and history by its doing. So of one client and one reason the first is told, then one within
`PAUSE_S`, with how many there were in between.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

PAUSE_S: Final = 60.0
CLIENTS_MAX: Final = 4096


class Turned:
    """For one listener."""

    def __init__(self) -> None:
        self._told: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()  # when told, how many since

    def tell(self, address: str, reason: str, now: float) -> int | None:
        """How many were not told since the last one; None: neither is this one."""
        key = address, reason
        told, count = self._told.get(key, (-PAUSE_S, 0))
        if now - told < PAUSE_S:
            self._told[key] = told, count + 1
            return None
        self._told[key] = now, 0
        self._told.move_to_end(key)
        if len(self._told) > CLIENTS_MAX:
            self._told.popitem(last=False)
        return count
