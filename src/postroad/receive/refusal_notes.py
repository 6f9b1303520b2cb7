"""Limits how many refusals are recorded, of the kinds that one client can cause without end.

A client that is banned, or has too many sessions, may connect thousands of times a second, and a client that is
deferred may come again at once. If each refusal were an event, such a client would fill log and history. So for each
client and reason the first `most` refusals within `PAUSE_S` are recorded, and the next one that is recorded says how
many were left out.

What always holds: of all strangers together at most `ALL_MAX` are recorded within `PAUSE_S`. Each refusal counts as the
number of recipients that it names, at least as one.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

PAUSE_S: Final = 60.0
CLIENTS_MAX: Final = 4096
ALL_MAX: Final = 4096
SEVERAL: Final = 20


class RefusalNotes:
    """Who was refused what. `most`: how many are told of one client and one reason within `PAUSE_S`."""

    def __init__(self, most: int = 1) -> None:
        self._most = most
        self._told: OrderedDict[tuple[str, str], tuple[float, int, int]] = OrderedDict()  # since when, told, left out
        self._since = -PAUSE_S  # of all
        self._all = 0

    def left_out(self, address: str, reason: str, now: float, *, names: int = 1, stranger: bool = True) -> int | None:
        """Count a refusal. How many were left out since the last one that was told; None: this one is left out, too.
        `names`: of recipients in it."""
        key = address, reason
        since, told, left_out = self._told.get(key, (now, 0, 0))
        if now - since >= PAUSE_S:
            since, told = now, 0
        tells = told < self._most and not (stranger and self._is_full(now))
        self._told[key] = (since, told + 1, 0) if tells else (since, told, left_out + 1)
        if not told:
            self._told.move_to_end(key)
            if len(self._told) > CLIENTS_MAX:
                self._told.popitem(last=False)
        if not tells:
            return None
        if stranger:
            self._all += max(1, names)
        return left_out

    def _is_full(self, now: float) -> bool:
        if now - self._since >= PAUSE_S:
            self._since, self._all = now, 0
        return self._all >= ALL_MAX


def counted(reason: str, left_out: int) -> str:
    """The reason of a refusal that is told, with those that were not."""
    return f"{reason} ({left_out} more since the last one logged)".lstrip() if left_out else reason
