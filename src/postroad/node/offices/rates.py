"""Rates: how many messages the whole node sends to a scope within a time (`queue.pace`).

The supervisor keeps a bucket of tokens for each scope with a rate; a worker asks for as many as it has messages ready
and uses them at once. Destinations without a rate never ask. What always holds: within any span of the rate's length no
more tokens are given than the rate says, whatever workers ask, also after a long pause; the questions at a scope are
answered in their order, once, with one token or more.

How it fails: if a worker dies, or a message could not be sent, its tokens are lost. So the rate is never exceeded, but
it may not be used up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from postroad.node.frames import TokensGranted, ToWorker
from postroad.queue.pace import Rate, ScopeLimits

_BURST: Final = 10  # the part of a rate that may go at once after a pause: a tenth
_LEAST_S: Final = 0.001  # timers are not finer
_NEARLY: Final = 1 - 1e-9  # of a token, for what the sums of times lose
_BUCKETS_MAX: Final = 10_000


class _Question:
    __slots__ = ("count", "key", "scopes", "worker")

    def __init__(self, worker: int, key: str, scopes: tuple[str, ...], count: int) -> None:
        self.worker = worker
        self.key = key
        self.scopes = scopes
        self.count = count


class _Bucket:
    """Tokens of one scope. A burst of B and then one each P / (N - B + 1) s is at most N in any span of P."""

    __slots__ = ("asking", "at", "level", "rate", "timer")

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate = rate
        self.level = float(self.burst)
        self.at = now
        self.asking: deque[_Question] = deque()
        self.timer: Any = None

    @property
    def burst(self) -> int:
        return max(1, self.rate.messages // _BURST)

    @property
    def each_s(self) -> float:
        return self.rate.period_s / (self.rate.messages - self.burst + 1)

    def fill(self, now: float) -> None:
        self.level = min(float(self.burst), self.level + max(0.0, now - self.at) / self.each_s)
        self.at = now

    @property
    def wait_s(self) -> float:
        return max(0.0, (1.0 - self.level) * self.each_s)


class RateOffice:
    """The supervisor's side. `send(worker, frame)` delivers `TokensGranted`; `later(seconds, work)` is a timer."""

    def __init__(
        self,
        limits: Callable[[str], ScopeLimits],
        send: Callable[[int, ToWorker], None],
        now: Callable[[], float],
        later: Callable[[float, Callable[[], None]], Any],
    ) -> None:
        self._limits = limits
        self._send = send
        self._now = now
        self._later = later
        self._buckets: dict[str, _Bucket] = {}

    def ask(self, worker: int, key: str, scopes: tuple[str, ...], count: int) -> None:
        question = _Question(worker, key, scopes, count)
        for scope in scopes:
            bucket = self._buckets.get(scope)
            if bucket is not None and bucket.asking:
                bucket.asking.append(question)  # behind those who came before
                return
        self._consider(question)

    def _consider(self, question: _Question) -> None:
        """Give what there is, or let it wait at the first of its scopes that has nothing."""
        now = self._now()
        room = question.count
        buckets = []
        for scope in question.scopes:
            bucket = self._bucket(scope, now)
            if bucket is None:
                continue
            if bucket.level < _NEARLY:
                bucket.asking.append(question)
                self._arm(scope, bucket)
                return
            room = min(room, max(1, int(bucket.level) // (len(bucket.asking) + 1)))
            buckets.append(bucket)
        for bucket in buckets:
            bucket.level -= room
        self._send(question.worker, TokensGranted(question.key, room))

    def _arm(self, scope: str, bucket: _Bucket) -> None:
        if bucket.timer is None:
            bucket.timer = self._later(max(_LEAST_S, min(bucket.wait_s, 60.0)), lambda: self._serve(scope, bucket))

    def _serve(self, scope: str, bucket: _Bucket) -> None:
        bucket.timer = None
        asking = bucket.asking
        while asking:
            found = self._bucket(scope, self._now())
            if found is not None and found.level < _NEARLY:
                self._arm(scope, bucket)
                return
            self._consider(asking.popleft())

    def worker_died(self, worker: int) -> None:
        """Its questions are void."""
        for bucket in self._buckets.values():
            if bucket.asking:
                kept = [question for question in bucket.asking if question.worker != worker]
                bucket.asking.clear()
                bucket.asking.extend(kept)

    def wait_s(self, scope: str) -> float:
        """For how long from now there is no token; 0.0: there is one, or no rate."""
        bucket = self._bucket(scope, self._now())
        return bucket.wait_s if bucket is not None else 0.0

    def _bucket(self, scope: str, now: float) -> _Bucket | None:
        """None if there is no rate (any more: a reload)."""
        rate = self._limits(scope).rate
        bucket = self._buckets.get(scope)
        if rate is None:
            return None
        if bucket is None:
            if len(self._buckets) >= _BUCKETS_MAX:
                self._forget(now)
            bucket = self._buckets[scope] = _Bucket(rate, now)
        elif bucket.rate != rate:
            bucket.rate = rate
            bucket.at = now
            bucket.level = min(bucket.level, 0.0)  # what went before counts: begin without a burst
        bucket.fill(now)
        return bucket

    def _forget(self, now: float) -> None:
        """A bucket that is full again says no more than a new one."""
        for scope, bucket in list(self._buckets.items()):
            bucket.fill(now)
            if not bucket.asking and bucket.level >= bucket.burst:
                del self._buckets[scope]
