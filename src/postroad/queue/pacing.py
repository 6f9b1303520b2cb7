"""Finds the pace of a lane, when the lane is opened and after each reload. If rules name hosts, the pace depends on the
hosts that serve the destination (`queue.pace`).

What always holds:
- A lane without a pace has asked for its hosts, and hears of them once.
- The lanes of a shared scope are known, so that one of them can give up a connection for another.
- What was found of hosts is kept for a while, and bounded.

How it fails: a destination without known hosts has the pace of its own rules. Not here: the limits themselves
(`queue.pace`), the counting (`node.offices.permits`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from postroad.mail.route import Destination
from postroad.queue.lane import Lane
from postroad.queue.pace import Pace, PaceTable

HostsOf = Callable[[Destination, Callable[[tuple[str, ...]], None]], None]  # the names of the hosts that serve it

_KEPT_MAX: Final = 20_000  # destinations whose hosts are remembered
_KEPT_S: Final = 300.0  # for how long


class Pacing:
    """The paces of a worker's lanes. `is_open(lane)`: whether the lane still needs its pace. `on_found(lane)` is called
    when the lane has its pace, after its hosts were looked up or after a reload."""

    def __init__(
        self,
        table: PaceTable,
        hosts_of: HostsOf | None,
        loop: asyncio.AbstractEventLoop,
        *,
        is_open: Callable[[Lane], bool],
        on_found: Callable[[Lane], None],
    ) -> None:
        self._table = table
        self._hosts_of = hosts_of
        self._loop = loop
        self._is_open = is_open
        self._on_found = on_found
        self._kept: dict[str, tuple[float, Pace]] = {}  # of destinations whose hosts had to be found; until when
        self._sharing: dict[str, dict[Lane, None]] = {}  # lanes in a scope that is not theirs alone

    def find(self, lane: Lane) -> None:
        """Finds the limits of the destination. If rules name hosts, looks these up first."""
        destination = lane.destination
        if self._hosts_of is None or not self._table.needs_hosts(destination):
            self._set(lane, self._table.of(destination))
            return
        kept = self._kept.get(destination.key)
        if kept is not None and kept[0] > self._loop.time():
            self._set(lane, kept[1])
        else:
            self._hosts_of(destination, partial(self._hosts_found, lane, self._table))

    def _hosts_found(self, lane: Lane, table: PaceTable, hosts: tuple[str, ...]) -> None:
        if not self._is_open(lane):
            return
        if table is not self._table:
            self._find_anew(lane)  # a reload came between
            return
        pace = table.of(lane.destination, hosts)
        if hosts:
            if len(self._kept) >= _KEPT_MAX:
                for key in list(self._kept)[: _KEPT_MAX // 2]:
                    del self._kept[key]
            self._kept[lane.destination.key] = (self._loop.time() + _KEPT_S, pace)
        self._set(lane, pace)
        self._on_found(lane)

    def _set(self, lane: Lane, pace: Pace) -> None:
        self.leave(lane)
        lane.pace = pace
        if not pace.rated:
            lane.tokens = None
        elif lane.tokens is None:
            lane.tokens = 0
        for scope in pace.scopes[1:]:
            self._sharing.setdefault(scope, {})[lane] = None

    def leave(self, lane: Lane) -> None:
        """Forgets the lane: it is closed, or gets another pace."""
        if lane.pace is not None:
            for scope in lane.pace.scopes[1:]:
                lanes = self._sharing.get(scope)
                if lanes is not None:
                    lanes.pop(lane, None)
                    if not lanes:
                        del self._sharing[scope]

    def sharing(self, scope: str) -> Sequence[Lane]:
        """Returns the lanes of a scope that more than one lane may share."""
        return list(self._sharing.get(scope, ()))

    def renew(self, table: PaceTable, lanes: Sequence[Lane]) -> None:
        """Takes another table after a reload, for these lanes and for later ones."""
        self._table = table
        self._kept.clear()
        for lane in lanes:
            if self._is_open(lane):  # else it has made room for another meanwhile
                self._find_anew(lane)

    def _find_anew(self, lane: Lane) -> None:
        """Finds the pace of a lane again. Mail in it may have waited for hosts, or for a rate, that do not count any
        more."""
        self.find(lane)
        if lane.pace is not None:
            self._on_found(lane)
