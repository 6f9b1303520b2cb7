"""The agenda: which destinations have rows in the spool that are due soon, and when each one is loaded.

It keeps one time for each destination and shard: the due time of the first row.

What always holds:
- A destination on the agenda is loaded when its time has come, or it is put on the agenda again.
- Retries are spread over time: at most `rate` destinations in a second are loaded, the longest overdue first, however
  many are overdue after a restart or an outage.
- New mail that waits in the spool only because memory was full (`add_overflow`) goes before retries, at any rate.
- If there is no room for more work, nothing is loaded until there is.

How it fails: if the wall clock jumps, it is late by at most `_LOOK_S`. Not here: how destinations get on the agenda
(`queue.lookahead`, `queue.loading`), what is loaded.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from postroad.world.clock import Clock

_LOOK_S: Final = 30.0
_STEP_S: Final = 0.1  # how often more is taken up while more is due
_NO_ROOM_S: Final = 0.25
_OUTDATED_MAX: Final = 1_000  # entries of the heap that mean nothing any more, beside as many as mean something
_SPILLED_MAX: Final = 100_000  # destinations; what of new mail waits for more is taken up as retries are

Key = tuple[int, str]  # shard, destination


class Agenda:
    """Calls back when something is to be done. `load(shard, destination_key)` begins to load what is due, or returns
    False if that must wait (then the destination is scheduled again). `room()` says whether there is room for more
    work, `rate()` how many destinations may be loaded in a second. `on_nothing_due()` is called when nothing more is
    due now, `on_let_go()` when the agenda has dropped destinations that have something due."""

    def __init__(
        self,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        *,
        load: Callable[[int, str], bool],
        room: Callable[[], bool],
        rate: Callable[[], float],
        on_nothing_due: Callable[[], None] = lambda: None,
        on_let_go: Callable[[], None] = lambda: None,
    ) -> None:
        self._clock = clock
        self._loop = loop
        self._load = load
        self._room = room
        self._rate = rate
        self._on_nothing_due = on_nothing_due
        self._on_let_go = on_let_go
        self._let_go = False
        self._due: dict[Key, int] = {}
        self._heap: list[tuple[int, int, str]] = []
        self._overflow: OrderedDict[Key, None] = OrderedDict()
        self._allowance = 0.0
        self._filled = loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._stopped = False

    def __len__(self) -> int:
        return len(self._due) + len(self._overflow)

    def schedule(self, shard: int, destination_key: str, due_us: int) -> None:
        """Notes that a row of this destination is due at `due_us`. Of several times it keeps the earliest one."""
        known_us = self._due.get((shard, destination_key))
        if known_us is None or due_us < known_us:
            self._due[shard, destination_key] = due_us
            heapq.heappush(self._heap, (due_us, shard, destination_key))
            if len(self._heap) > 2 * len(self._due) + _OUTDATED_MAX:
                self._tidy()
            if self._heap[0][0] == due_us:
                self._arm()

    def add_overflow(self, shard: int, destination_key: str) -> None:
        """Notes a destination whose rows are due now: they were never tried, or the destination is at work and more is
        due."""
        if len(self._overflow) >= _SPILLED_MAX:
            self._let_go = True
        elif (shard, destination_key) not in self._overflow:
            self._overflow[shard, destination_key] = None
            if len(self._overflow) == 1:  # else it is looked at already, or there is no room
                self._arm_in(0.0)

    def hasten(self, chosen: Callable[[int], bool], due_us: int) -> None:
        """Sets the time of all destinations whose time is `chosen` to `due_us`, if that is earlier."""
        for (shard, destination_key), known_us in list(self._due.items()):
            if chosen(known_us):
                self.schedule(shard, destination_key, due_us)

    def after(self, shard: int, time_us: int) -> list[str]:
        """Returns the destinations whose time is later than `time_us`."""
        return [
            destination_key
            for (number, destination_key), due_us in self._due.items()
            if number == shard and due_us > time_us
        ]

    def forget(self, shard: int, destination_keys: Iterable[str], time_us: int) -> None:
        """Drops those of these destinations whose time is later than `time_us`."""
        due = self._due
        for destination_key in destination_keys:
            if due.get((shard, destination_key), 0) > time_us:
                del due[shard, destination_key]
        if len(self._heap) > 2 * len(due):
            self._tidy()

    def _tidy(self) -> None:
        """Removes entries that an earlier time has replaced, and those of dropped destinations."""
        self._heap = [(due_us, shard, destination_key) for (shard, destination_key), due_us in self._due.items()]
        heapq.heapify(self._heap)

    def stop(self) -> None:
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if self._heap:
            self._arm_in(min(max((self._heap[0][0] - self._clock.now_us()) / 1_000_000, 0.0), _LOOK_S))

    def _arm_in(self, wait_s: float) -> None:
        if self._stopped:
            return
        at = self._loop.time() + wait_s
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._take_spilled() and self._take_due():
            if self._overflow:  # came meanwhile
                self._arm_in(0.0)
            self._arm()
            self._on_nothing_due()

    def _take_spilled(self) -> bool:
        """Loads the overflow. Returns False if there is no room; then it tries again soon."""
        for _ in range(len(self._overflow)):
            if not self._room():
                self._arm_in(_NO_ROOM_S)
                return False
            first, _ = self._overflow.popitem(last=False)
            self._load(*first)
        if self._let_go and not self._overflow:
            self._let_go = False
            self._on_let_go()
        return True

    def _take_due(self) -> bool:
        """Loads what is due. Returns False if more is due than may be loaded now."""
        now_us = self._clock.now_us()
        self._fill()
        heap, due = self._heap, self._due
        while heap and heap[0][0] <= now_us:
            due_us, shard, destination_key = heap[0]
            if due.get((shard, destination_key)) != due_us:
                heapq.heappop(heap)
                continue  # an earlier due time has replaced this one
            if self._allowance < 1.0:
                self._arm_in(_STEP_S)
                return False
            if not self._room():
                self._arm_in(_NO_ROOM_S)
                return False
            heapq.heappop(heap)
            del due[shard, destination_key]
            if self._load(shard, destination_key):
                self._allowance -= 1.0
        return True

    def _fill(self) -> None:
        """Adds to the number of destinations that may be loaded at once; it never exceeds that of two steps."""
        now, rate = self._loop.time(), self._rate()
        self._allowance = min(self._allowance + (now - self._filled) * rate, max(1.0, rate * 2 * _STEP_S))
        self._filled = now
