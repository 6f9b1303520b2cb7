"""The supervisor's secret, from which all workers make the keys of TLS session tickets (`world.tls`).

What always holds: it is only in memory, and a new one is made when its time is over. So an attacker who gets the node's
files, or later its memory, cannot read connections that were recorded before (RFC 9325 §7.4). A worker that starts gets
the secret in use.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

_SIZE: Final = 32


class TicketSecret:
    """`now`: seconds of a clock that only goes forward."""

    def __init__(self, now: Callable[[], float], random: Callable[[int], bytes] = os.urandom) -> None:
        self._now = now
        self._random = random
        self.octets = random(_SIZE)
        self._made = now()

    def renew(self, life_s: float) -> bool:
        """A new one if this one is older than that. Whether it is."""
        if self._now() - self._made < life_s:
            return False
        self.octets, self._made = self._random(_SIZE), self._now()
        return True
