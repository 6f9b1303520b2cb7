"""What is remembered of hops for a while: which could not be reached, whose TLS failed, and which offer extensions that
do not work.

A hop that failed is not left out. It is tried after all others: so connections that are opened at the same time do not
all wait for a dead host, and a host that works again is found. The memory is bounded; times are those of the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from postroad.mail.route import Hop

_ENTRIES_MAX: Final = 10_000


class HopMemory:
    def __init__(self, failed_s: float, plain_s: float, broken_s: float = 0.0) -> None:
        self._failed_s = failed_s
        self._plain_s = plain_s
        self._broken_s = broken_s
        self._failed: dict[tuple[str, int], float] = {}
        self._plain: dict[tuple[str, int], float] = {}
        self._broken: dict[str, dict[tuple[str, int], float]] = {}  # by the keyword of the extension

    def failed(self, hop: Hop, now: float) -> None:
        """It could not be reached, or refused the session."""
        _note(self._failed, hop, now + self._failed_s, now)

    def reached(self, hop: Hop) -> None:
        self._failed.pop((hop.address, hop.port), None)

    def is_fresh(self, hop: Hop, now: float) -> bool:
        """Whether it did not fail lately: trying it may bring more than trying again what failed."""
        return self._failed.get((hop.address, hop.port), 0.0) <= now

    def tls_failed(self, hop: Hop, now: float) -> None:
        _note(self._plain, hop, now + self._plain_s, now)

    def speaks_plain(self, hop: Hop, now: float) -> bool:
        """Whether TLS with it failed not long ago."""
        return self._plain.get((hop.address, hop.port), 0.0) > now

    def is_broken(self, hop: Hop, keyword: str, now: float) -> None:
        """It offers this extension, which does not work."""
        _note(self._broken.setdefault(keyword, {}), hop, now + self._broken_s, now)

    def broken(self, hop: Hop, now: float) -> list[str]:
        """Keywords of the extensions of which this was seen not long ago."""
        key = hop.address, hop.port
        return [keyword for keyword, entries in self._broken.items() if entries.get(key, 0.0) > now]

    def ordered(self, hops: Sequence[Hop], now: float, most: int) -> list[Hop]:
        """The first `most`, as they stand, those that failed not long ago behind the others. If all that would be tried
        failed the last time, those come first that were not tried, or whose last failure is longest ago: none is left
        out for good."""
        if hops and hops[-1].fallback is not None:
            return self._with_fallbacks(hops, now, most)
        return self._first(hops, now, most)

    def _with_fallbacks(self, hops: Sequence[Hop], now: float, most: int) -> list[Hop]:
        """Fallbacks have places of their own: servers that are down, however many, do not keep mail from them."""
        own = self._first([hop for hop in hops if hop.fallback is None], now, most)
        behind = self._first([hop for hop in hops if hop.fallback is not None], now, most)
        return sorted(own + behind, key=lambda hop: not self.is_fresh(hop, now))

    def _first(self, hops: Sequence[Hop], now: float, most: int) -> list[Hop]:
        failed = self._failed
        if not failed:
            return list(hops[:most])
        ordered = sorted(hops, key=lambda hop: failed.get((hop.address, hop.port), 0.0) > now)
        if len(ordered) > most and all((hop.address, hop.port) in failed for hop in ordered[:most]):
            ordered.sort(key=lambda hop: failed.get((hop.address, hop.port), 0.0))
        return ordered[:most]


def _note(entries: dict[tuple[str, int], float], hop: Hop, until: float, now: float) -> None:
    if len(entries) >= _ENTRIES_MAX:
        for key in [key for key, end in entries.items() if end <= now] or list(entries)[: _ENTRIES_MAX // 2]:
            del entries[key]
    entries[hop.address, hop.port] = until
