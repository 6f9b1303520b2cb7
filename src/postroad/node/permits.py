"""Permits: how many connections to one destination the whole node holds (design.md §4).

The supervisor counts (`PermitOffice`); a worker asks it over its link (`WorkerPermits`), once for each connection that
it opens, never for a message. What always holds: granted permits of a destination never pass its limit; the permits
of a worker that died come back; where one worker holds all and another asks, the holder is asked to give one up, down
to its fair share.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class PermitOffice:
    """The supervisor's side. `send(worker, frame)` delivers ("granted", key) and ("wanted", key)."""

    def __init__(self, limit: Callable[[str], int], send: Callable[[int, tuple[str, str]], None]) -> None:
        self._limit = limit
        self._send = send
        self._held: dict[str, dict[int, int]] = {}
        self._asking: dict[str, deque[int]] = {}
        self._wanted: dict[str, dict[int, int]] = {}  # asked of a worker to give up, and not come back yet

    def ask(self, worker: int, key: str) -> None:
        held = self._held.setdefault(key, {})
        if sum(held.values()) < self._limit(key):
            held[worker] = held.get(worker, 0) + 1
            self._send(worker, ("granted", key))
            return
        self._asking.setdefault(key, deque()).append(worker)
        self._nudge(key)

    def remind(self) -> None:
        """To be called now and then: a worker that was asked to give one up may have had none at that moment."""
        self._wanted.clear()
        for key in list(self._asking):
            self._nudge(key)

    def _nudge(self, key: str) -> None:
        """Ask the one that holds most to give one up, where another one waits with less than its share, or with none:
        with fewer permits than workers they go round. What is on its way already counts as come, else connections
        would be closed and opened to and fro."""
        held, asking = self._held.get(key), self._asking.get(key)
        if not held or not asking:
            return
        wanted = self._wanted.setdefault(key, {})
        coming = sum(wanted.values())
        poorest = min(asking, key=lambda number: held.get(number, 0))
        most = max(held, key=lambda number: held[number] - wanted.get(number, 0))
        rich, poor = held[most] - wanted.get(most, 0), held.get(poorest, 0) + coming
        if most != poorest and rich and (rich > poor + 1 or not poor):
            wanted[most] = wanted.get(most, 0) + 1
            self._send(most, ("wanted", key))

    def release(self, worker: int, key: str) -> None:
        held = self._held.get(key)
        if held is None or worker not in held:
            return
        held[worker] -= 1
        if not held[worker]:
            del held[worker]
        self._came_back(worker, key)
        self._grant_next(key)

    def _came_back(self, worker: int, key: str) -> None:
        wanted = self._wanted.get(key)
        if wanted and wanted.get(worker):
            wanted[worker] -= 1
            if not wanted[worker]:
                del wanted[worker]
        if not wanted:
            self._wanted.pop(key, None)

    def worker_died(self, worker: int) -> None:
        """All its permits come back, all its questions are void."""
        for queue in self._asking.values():
            while worker in queue:
                queue.remove(worker)
        for key in [key for key, queue in self._asking.items() if not queue]:
            del self._asking[key]
        for wanted in self._wanted.values():
            wanted.pop(worker, None)
        for key in [key for key, held in self._held.items() if worker in held]:
            del self._held[key][worker]
            self._grant_next(key)

    def _grant_next(self, key: str) -> None:
        held, asking = self._held.setdefault(key, {}), self._asking.get(key)
        while asking and sum(held.values()) < self._limit(key):
            # To the one that has least, else what was given up for another would come back to its giver.
            worker = min(asking, key=lambda number: held.get(number, 0))
            asking.remove(worker)
            held[worker] = held.get(worker, 0) + 1
            self._send(worker, ("granted", key))
        if asking:
            self._nudge(key)
        if not held:
            del self._held[key]
        if not asking:
            self._asking.pop(key, None)

    def counts(self) -> dict[str, int]:
        """Connections held, by destination."""
        return {key: sum(held.values()) for key, held in self._held.items()}


class WorkerPermits:
    """A worker's side, as `queue.Permits`."""

    def __init__(self, send: Callable[[tuple[str, str]], None]) -> None:
        self._send = send
        self._waiting: dict[str, deque[Callable[[], None]]] = {}

    def acquire(self, key: str, granted: Callable[[], None]) -> None:
        self._waiting.setdefault(key, deque()).append(granted)
        self._send(("ask", key))

    def release(self, key: str) -> None:
        self._send(("release", key))

    def granted(self, key: str) -> None:
        """The supervisor has granted one."""
        waiting = self._waiting.get(key)
        if not waiting:
            self._send(("release", key))
            return
        granted = waiting.popleft()
        if not waiting:
            del self._waiting[key]
        granted()
