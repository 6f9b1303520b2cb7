"""The worker's connections: how many there are, and which lane gets the next one.

What always holds:
- At most `connections_max` are open or being opened. For each connection that has not moved for `slow_s` one more is
  allowed, up to `connections_slow_max`: slow or dead remotes take no connection from the others.
- At most `probes_max` of them are being opened to destinations that failed before. So new mail has room, however many
  retries are due. If retries wait, some connections are kept for them.
- Lanes that wait take turns, by the source of their mail. Each lane that waits gets one connection at a time.
- If all connections are taken, an idle one is closed for a lane that waits.

How it fails: it does not; it counts. Connections are looked at for being slow only while a lane waits. Not here: how a
connection is opened (`queue.carrying`), the limits of the node (`node.offices.permits`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from postroad.queue.lane import Lane, PendingConnection, Slot
from postroad.queue.options import QueueOptions
from postroad.queue.order import FairQueue


class Connections:
    """Calls back. `on_slot_free(lane)`: the lane that waited may have a connection now. `on_unwanted(slot)`: this idle
    connection is to be closed. `slots()` returns all connections."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: Callable[[], QueueOptions],
        *,
        on_slot_free: Callable[[Lane], None],
        on_unwanted: Callable[[Slot], None],
        slots: Callable[[], Iterable[Slot]],
    ) -> None:
        self._loop = loop
        self._options = options
        self._on_slot_free = on_slot_free
        self._on_unwanted = on_unwanted
        self._slots = slots
        self._held = 0
        self._slow = 0
        self._openings: dict[PendingConnection, None] = {}
        self._probes = 0
        self._waiting: FairQueue[Lane] = FairQueue()
        self._waiting_probes: FairQueue[Lane] = FairQueue()
        self._idle: dict[Slot, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    # -- counting --------------------------------------------------------------------------------------------------

    @property
    def held(self) -> int:
        return self._held

    @property
    def waiting(self) -> int:
        """The number of lanes that wait for a connection."""
        return len(self._waiting) + len(self._waiting_probes)

    @property
    def probes_waiting(self) -> int:
        return len(self._waiting_probes)

    @property
    def wanted(self) -> bool:
        """Whether to close a courier without work, because a lane waits for its connection."""
        return len(self._waiting) > 0 or len(self._waiting_probes) > 0

    def room(self, probe: bool) -> bool:
        options = self._options()
        if probe and self._probes >= options.probes_max:
            return False
        return self._held < options.connections_max + min(self._slow, options.connections_slow_max)

    def begin(self, scopes: tuple[str, ...], probe: bool) -> PendingConnection:
        """Counts a connection that is being opened."""
        opening = PendingConnection(scopes, self._loop.time(), probe)
        self._openings[opening] = None
        self._held += 1
        self._probes += probe
        return opening

    def opened(self, opening: PendingConnection) -> None:
        """Notes that the connection is open."""
        del self._openings[opening]
        if opening.probe:
            self._probes -= 1
            self.feed()

    def failed(self, opening: PendingConnection) -> None:
        """Notes that the connection could not be opened."""
        del self._openings[opening]
        self._probes -= opening.probe
        self.closed()

    def closed(self) -> None:
        """Notes that a connection, open or being opened, is gone."""
        self._held -= 1
        self.feed()

    def rests(self, slot: Slot) -> None:
        self._idle[slot] = None

    def works(self, slot: Slot) -> None:
        self._idle.pop(slot, None)

    def free_one(self) -> None:
        """Closes the connection that has been idle for longest."""
        if self._idle:
            self._on_unwanted(next(iter(self._idle)))

    # -- who waits -------------------------------------------------------------------------------------------------

    def wait(self, lane: Lane, source: str, probe: bool, *, first: bool = False) -> None:
        """Calls `on_slot_free` for the lane when there is room. `first`: the lane has waited before."""
        if lane.starved:
            return
        lane.starved = True
        waiting = self._waiting_probes if probe else self._waiting
        (waiting.add_first if first else waiting.add)(source, lane)
        if not (probe and self._probes >= self._options().probes_max):
            self.free_one()
        if self._timer is None:
            self._timer = self._loop.call_later(self._options().slow_s, self._look)

    def feed(self) -> None:
        """Gives a connection to one lane that waits, if there is room for it."""
        lane = self._next()
        if lane is not None:
            lane.starved = False
            self._loop.call_soon(self._on_slot_free, lane)

    def _next(self) -> Lane | None:
        probes = len(self._waiting_probes) > 0 and self.room(True)
        few = self._probes < max(1, self._options().probes_max // 4)
        if probes and (few or not len(self._waiting)):
            return self._waiting_probes.take_next()
        return self._waiting.take_next() if len(self._waiting) and self.room(False) else None

    def _look(self) -> None:
        """Counts the connections that have not moved since the last look. Lanes that wait get as many more."""
        self._timer = None
        before = self._loop.time() - self._options().slow_s
        slow = sum(opening.began <= before for opening in self._openings)
        for slot in self._slots():
            if slot.item is not None and slot.seen == slot.carried:
                slow += 1
            slot.seen = slot.carried
        more, self._slow = max(0, slow - self._slow), slow
        for _ in range(max(1, more)):
            self.feed()
        if self.waiting:
            self._timer = self._loop.call_later(self._options().slow_s, self._look)
        else:
            self._slow = 0
