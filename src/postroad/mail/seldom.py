"""Logs a fault that lasts once a minute, not at each try: on a full disk there would be a line for each try.

Used by one thread at a time. Not here: where the line goes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

EVERY_US: Final = 60_000_000
_KNOWN_MAX: Final = 64  # different texts that are remembered; the one that came first is forgotten first


class Seldom:
    """Decides for each text whether it is told now."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now_us = now_us
        self._known: OrderedDict[str, list[int]] = OrderedDict()  # text → when it was told, how often not since then

    def to_write(self, text: str) -> str:
        """What is to be written now: the text, with how often it was left out since it was last written; else ""."""
        now_us = self._now_us()
        known = self._known.get(text)
        if known is None:
            self._known[text] = [now_us, 0]
            if len(self._known) > _KNOWN_MAX:
                self._known.popitem(last=False)
            return text
        if abs(now_us - known[0]) < EVERY_US:  # a clock that is set must not silence it for long
            known[1] += 1
            return ""
        left_out = known[1]
        known[:] = [now_us, 0]
        return f"{text} ({left_out} times more in the meantime)" if left_out else text
