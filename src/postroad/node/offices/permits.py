"""Permits: how many connections the whole node may hold, and how this number adapts.

The supervisor counts (`PermitOffice`). A worker asks it over its link (`WorkerPermits`), once for all connections that
a destination needs at a moment, never for each message. A question names all scopes of the destination (`queue.pace`),
and is granted when each of them has room. What always holds:
- The granted permits of a scope never exceed its window, and the window never exceeds its limit.
- If a worker dies, its permits are free again, and its questions are dropped.
- A question is answered once, with one permit or more. The worker that waits longest comes first, but no worker gets
  another permit while one with fewer of the same scope waits.
- If one worker holds all and another asks, the holder is asked to give one up, down to its fair share.

The window begins at the scope's start value. After as many successes as it is wide, it grows by one. If a destination
cannot be reached, it falls by half; if only further connections are refused, it falls to the number of connections that
work. After each refusal a larger window is tried at longer intervals (`patience`). Workers report successes only while
they wait for a permit, so a window that is wide enough costs nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from postroad.node.frames import (
    AskPermits,
    AskTokens,
    FromWorker,
    Granted,
    OpeningFailed,
    PermitWanted,
    ReleasePermit,
    Scopes,
    Succeeded,
    TokensGranted,
    ToWorker,
)
from postroad.queue.pace import UNLIMITED, ScopeLimits

_PATIENCE_MAX: Final = 64
_REMEMBERED_S: Final = 600.0  # how long a window that has found its measure is kept without connections
_REMEMBERED_MAX: Final = 20_000


class _Question:
    __slots__ = ("count", "scopes", "worker")

    def __init__(self, worker: int, scopes: Scopes, count: int) -> None:
        self.worker = worker
        self.scopes = scopes
        self.count = count


class _Count:
    """What the office knows of one scope. `until`: when what was learned may be forgotten; 0 while it is in use."""

    __slots__ = ("asking", "credit", "grown", "held", "patience", "total", "until", "wanted", "window")

    def __init__(self, window: int) -> None:
        self.held: dict[int, int] = {}
        self.total = 0
        self.window = window
        self.credit = 0  # successes towards the next one
        self.grown = False  # since the last refusal
        self.patience = 1
        self.asking: deque[_Question] = deque()
        self.wanted: dict[int, int] = {}  # asked of a worker to give up, and not come back yet
        self.until = 0.0


class PermitOffice:
    """The supervisor's side. `send(worker, frame)` delivers `Granted` and `PermitWanted`."""

    def __init__(
        self,
        limits: Callable[[str], ScopeLimits],
        send: Callable[[int, ToWorker], None],
        now: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.limits = limits
        self._send = send
        self._now = now
        self._counts: dict[str, _Count] = {}

    def _count(self, scope: str) -> _Count:
        count = self._counts.get(scope)
        if count is None:
            count = self._counts[scope] = _Count(max(1, self.limits(scope).start))
        count.until = 0.0
        return count

    # -- questions ---------------------------------------------------------------------------------------------

    def ask(self, worker: int, scopes: Scopes, count: int) -> None:
        self._consider(_Question(worker, scopes, count))

    def _consider(self, question: _Question) -> bool:
        """Grant it, or let it wait at the first of its scopes that has no room."""
        room = question.count
        counts = [self._count(scope) for scope in question.scopes]
        for scope, count in zip(question.scopes, counts, strict=True):
            left = self._window(scope, count) - count.total
            if left <= 0:
                count.asking.append(question)
                self._nudge(scope, count)
                return False
            room = min(room, left if not count.asking else 1)
        for count in counts:
            count.held[question.worker] = count.held.get(question.worker, 0) + room
            count.total += room
        self._send(question.worker, Granted(question.scopes[0], room))
        return True

    def _window(self, scope: str, count: _Count) -> int:
        """A reload may have set the limit lower since."""
        return min(count.window, self.limits(scope).most)

    def _nudge(self, scope: str, count: _Count) -> None:
        """Ask the one that holds most to give one up, if another one waits with less than its share, or with none:
        with fewer permits than workers they go round. What is on its way already counts as come, else connections
        would be closed and opened to and fro. In a scope that several destinations share a worker may wait for itself.
        """
        held, wanted = count.held, count.wanted
        if not held or not count.asking:
            return
        coming = sum(wanted.values())
        poorest = min((question.worker for question in count.asking), key=lambda number: held.get(number, 0))
        most = max(held, key=lambda number: held[number] - wanted.get(number, 0))
        rich, poor = held[most] - wanted.get(most, 0), held.get(poorest, 0) + coming
        shared = count.asking[0].scopes[0] != scope
        if (most != poorest and rich and (rich > poor + 1 or not poor)) or (shared and rich and not coming):
            wanted[most] = wanted.get(most, 0) + 1
            self._send(most, PermitWanted(scope))

    # -- permits come back -------------------------------------------------------------------------------------

    def release(self, worker: int, scopes: Scopes) -> None:
        for scope in scopes:
            count = self._counts.get(scope)
            if count is None or worker not in count.held:
                continue
            count.held[worker] -= 1
            count.total -= 1
            if not count.held[worker]:
                del count.held[worker]
            if count.wanted.get(worker):
                count.wanted[worker] -= 1
                if not count.wanted[worker]:
                    del count.wanted[worker]
        for scope in scopes:
            self._grant_next(scope)

    def _grant_next(self, scope: str) -> None:
        count = self._counts.get(scope)
        if count is None:
            return
        asking = count.asking
        while asking and count.total < self._window(scope, count):
            # To the one that has least, else what was given up for another would come back to its giver.
            chosen = min(asking, key=lambda question: count.held.get(question.worker, 0))
            asking.remove(chosen)
            self._consider(chosen)  # else it waits at another one of its scopes
        if asking:
            self._nudge(scope, count)
        elif not count.held:
            self._leave(scope, count)

    def _leave(self, scope: str, count: _Count) -> None:
        """Nobody uses it now: what was learned is kept for a while."""
        if count.patience == 1 and count.window == max(1, self.limits(scope).start):
            del self._counts[scope]
        else:
            count.until = self._now() + _REMEMBERED_S

    def worker_died(self, worker: int) -> None:
        """All its permits come back, all its questions are void."""
        for count in self._counts.values():
            if any(question.worker == worker for question in count.asking):
                count.asking = deque(question for question in count.asking if question.worker != worker)
            count.wanted.pop(worker, None)
            count.total -= count.held.pop(worker, 0)
        for scope in list(self._counts):
            if not self._counts[scope].until:
                self._grant_next(scope)

    def remind(self) -> None:
        """To be called now and then: a worker that was asked to give one up may have had none at that moment."""
        now = self._now()
        for scope, count in list(self._counts.items()):
            if count.until:
                if count.until <= now or len(self._counts) > _REMEMBERED_MAX:
                    del self._counts[scope]
                continue
            count.wanted.clear()
            self._grant_next(scope)  # a reload may have made room

    # -- the window --------------------------------------------------------------------------------------------

    def succeeded(self, scopes: Scopes, successes: int) -> None:
        """So many messages went well, while somebody waited for a further connection."""
        for scope in scopes:
            count = self._counts.get(scope)
            if count is None:
                continue
            most = self.limits(scope).most
            if count.window >= most:
                continue
            count.credit += successes
            grown = False
            while count.window < most and count.credit >= count.window * count.patience:
                count.credit -= count.window * count.patience
                count.window += 1
                if count.grown:  # the one before was not refused
                    count.patience = max(1, count.patience // 2)
                grown = count.grown = True
            if grown:
                self._grant_next(scope)

    def refused(self, scopes: Scopes, *, others: bool) -> None:
        """A connection could not be opened, and still counts. `others`: while others to the same destination work."""
        for scope in scopes:
            count = self._counts.get(scope)
            if count is None or self.limits(scope).most >= UNLIMITED:
                continue
            count.credit, count.grown = 0, False
            if others:
                count.window = max(1, min(count.window, count.total) - 1)
                count.patience = min(count.patience * 2, _PATIENCE_MAX)
            else:
                count.window = max(1, count.window // 2)

    # -- for operators -----------------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """Connections held, by scope."""
        return {scope: count.total for scope, count in self._counts.items() if count.total}

    def usage(self, scope: str) -> tuple[int, int, int]:
        """Connections held, the window, the limit."""
        limits, count = self.limits(scope), self._counts.get(scope)
        if count is None:
            return 0, min(limits.start, limits.most), limits.most
        return count.total, self._window(scope, count), limits.most


class WorkerPermits:
    """A worker's side, as `queue.Permits`. One question of a destination is open at a time."""

    def __init__(self, send: Callable[[FromWorker], None]) -> None:
        self._send = send
        self._permits: dict[str, Callable[[int], None]] = {}
        self._tokens: dict[str, Callable[[int], None]] = {}

    def acquire(self, scopes: Scopes, count: int, granted: Callable[[int], None]) -> None:
        self._permits[scopes[0]] = granted
        self._send(AskPermits(scopes, count))

    def release(self, scopes: Scopes) -> None:
        self._send(ReleasePermit(scopes))

    def succeeded(self, scopes: Scopes, successes: int) -> None:
        self._send(Succeeded(scopes, successes))

    def refused(self, scopes: Scopes, others: bool) -> None:
        self._send(OpeningFailed(scopes, others))

    def tokens(self, key: str, scopes: Scopes, count: int, granted: Callable[[int], None]) -> None:
        self._tokens[key] = granted
        self._send(AskTokens(key, scopes, count))

    def received(self, frame: Granted | TokensGranted) -> None:
        """The supervisor has granted permits, or tokens of a rate."""
        waiting = self._permits if isinstance(frame, Granted) else self._tokens
        granted = waiting.pop(frame.destination_key, None)
        if granted is not None:
            granted(frame.count)
