"""Room for sessions: decides whether a new one leaves enough file descriptors for the rest of the worker (disk, next
hops).

What always holds: a session is let in only if more than `reserved` descriptors are free, or if the last look found so
many that the sessions since then cannot have used them up. To ask for the number of a descriptor costs too much for
every connection; far from the limit this is done only now and then.
"""

from __future__ import annotations

import asyncio
from typing import Final

LOOKS_APART_MAX: Final = 64  # sessions let in between two looks
_PART: Final = 8  # of what is left, the part that may be used up between two looks


class DescriptorRoom:
    """`files`: descriptors that the process may have. `reserved`: how many of them sessions leave free, at most
    half."""

    def __init__(self, files: int, reserved: int) -> None:
        self._files = files
        self._reserved = reserved
        self._unlooked = 0  # sessions that are let in before the next look

    def take(self, reserved: int) -> None:
        """Takes new settings."""
        self._reserved = reserved

    def __call__(self, transport: asyncio.BaseTransport) -> bool:
        """Whether there is room. The system gives the lowest free descriptor, so its number tells how many are in
        use."""
        if self._unlooked:
            self._unlooked -= 1
            return True
        sock = transport.get_extra_info("socket")
        if sock is None:
            return True
        left = self._files - min(self._reserved, self._files // 2) - int(sock.fileno())
        self._unlooked = min(max(0, left // _PART), LOOKS_APART_MAX)
        return left > 0
