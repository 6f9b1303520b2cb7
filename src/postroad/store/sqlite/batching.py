"""Batching: which operations are one commit, and when it is made.

What always holds: operations are handed to the writer in the order of the calls, all that wait at once. What comes
while the writer has a batch gathers and is the next one. An operation that comes alone is committed at once. It waits
only if clients are in the middle of a message and the last commit was a moment ago (`commit_wait_s`), or if nobody
waits for its answer (`settle_s`, `record_s`). Events that change nothing go with the next commit.

All of it runs on the loop. It calls the writer, which calls back by `on_idle` only. Not here: how a commit is made, and
what becomes of one that fails (`store.sqlite.writer`).
"""

from __future__ import annotations

import asyncio
from typing import Final

from postroad.mail.event import Event
from postroad.store.arrivals import Arrivals
from postroad.store.options import SpoolOptions
from postroad.store.sqlite import codec
from postroad.store.sqlite.operation import Operation, PendingOperation, Read, RecordEvents
from postroad.store.sqlite.writer import CommitWriter
from postroad.store.values import Failure, FailureKind

_CALM: Final = 4  # the part of `commit_wait_s` that is waited for if little comes: less is won by it
_RECORDED_MAX: Final = 20_000  # events without a change of state that wait for the next commit


class Batching:
    """Makes the batches of one spool. `shards`: their numbers; events that change nothing go to the first one."""

    def __init__(
        self, shards: tuple[int, ...], options: SpoolOptions, loop: asyncio.AbstractEventLoop, writer: CommitWriter
    ) -> None:
        self.is_open = False
        self.arrivals = Arrivals(loop.time)
        self._shards = shards
        self._options = options
        self._loop = loop
        self._writer = writer
        writer.on_idle = self._on_idle
        self._gathered: list[PendingOperation] = []  # what goes into the next batch
        self._pressing = 0  # operations among them that somebody waits for
        self._recorded: list[Event] = []  # events that go with it
        self._begun = 0.0  # when the writer got its last batch, time of the loop
        self._writing = False  # the writer has a batch, or is to get one in this turn of the loop
        self._wait_until = 0.0
        self._wait_timer: asyncio.TimerHandle | None = None
        self._record_timer: asyncio.TimerHandle | None = None
        self._look_timer: asyncio.TimerHandle | None = None

    def put(self, shard: int, operation: Operation, *, patient: bool = False) -> None:
        """Adds an operation. `patient`: it may wait for others, for up to `settle_s`."""
        asked = PendingOperation(shard, operation)
        if not self.is_open or shard not in self._shards:
            self._loop.call_soon(self._refuse, asked)
            return
        self._gathered.append(asked)
        if not patient:
            self._pressing += 1
        if not self._writing:
            self._go_on()

    def record(self, events: tuple[Event, ...]) -> None:
        """Adds events. They go with the next commit, or get one of their own after `record_s`."""
        if not events or not self.is_open:
            return
        if len(self._recorded) < _RECORDED_MAX:
            self._recorded.extend(events)
        if self._record_timer is None:
            self._record_timer = self._loop.call_later(self._options.record_s, self._record_now)

    def end(self) -> None:
        """Hands over the last batch. After that nothing more is taken."""
        if not self.is_open:
            return
        self.is_open = False
        for timer in (self._look_timer, self._wait_timer, self._record_timer):
            if timer is not None:
                timer.cancel()
        # Without what is postponed, which is the writer's as long as it has a batch.
        last = [*self._gathered, *self._records()]
        self._gathered = []
        self._writer.end(last)

    # --- when

    def _go_on(self) -> None:
        """If something waits and the writer has nothing to do, hands it over now, or in a moment."""
        now = self._loop.time()
        if not self._pressing:
            until = now + self._options.settle_s
        elif not self.arrivals.expected():
            until = 0.0
        else:
            commit_wait_s = self._options.commit_wait_s
            until = self._begun + (commit_wait_s if self.arrivals.busy else commit_wait_s / _CALM)
        if until <= now:
            # At the end of this turn of the loop, so that what comes in the same turn goes into the same batch.
            self._writing = True
            self._loop.call_soon(self._dispatch)
        elif self._wait_timer is None or until < self._wait_until:
            if self._wait_timer is not None:
                self._wait_timer.cancel()
            self._wait_until = until
            self._wait_timer = self._loop.call_later(until - now, self._waited)

    def _waited(self) -> None:
        """The time to wait for arrivals is over: hands over what has come."""
        self._wait_timer = None
        if self.is_open and not self._writing and self._gathered:
            self._writing = True
            self._dispatch()

    def _dispatch(self) -> None:
        """Gives the writer its next batch."""
        if not self.is_open:
            return
        if self._look_timer is not None:
            self._look_timer.cancel()
            self._look_timer = None
        self._begun = self._loop.time()
        self._writer.commit(self._next_batch())

    def _on_idle(self) -> None:
        """Takes the results of a batch that the writer has done."""
        self._writing = False
        if not self.is_open:
            return
        if self._gathered:
            self._go_on()
            return
        wait_s = self._writer.look_after_s()
        if wait_s is not None:
            self._look_timer = self._loop.call_later(wait_s, self._look_after)

    def _look_after(self) -> None:
        """Gives the writer time for work that was left, with a batch that may be empty: nothing came for a while."""
        self._look_timer = None
        if self.is_open and not self._writing:
            self._writing = True
            self._gathered += self._writer.look_after()
            self._dispatch()

    def _record_now(self) -> None:
        self._record_timer = None
        if self._recorded or self._writer.has_records:
            self.put(self._shards[0], RecordEvents(b""))

    # --- what

    def _next_batch(self) -> list[PendingOperation]:
        """Takes everything that waits."""
        asked = [*self._writer.postponed(), *self._gathered, *self._records()]
        self._gathered = []
        self._pressing = 0
        if self._wait_timer is not None:
            self._wait_timer.cancel()
            self._wait_timer = None
        return asked

    def _records(self) -> list[PendingOperation]:
        found = self._writer.records()
        if self._recorded:
            recorded, self._recorded = self._recorded, []
            found.append(PendingOperation(self._shards[0], RecordEvents(codec.encode_events(recorded))))
        return found

    def _refuse(self, asked: PendingOperation) -> None:
        operation = asked.operation
        if isinstance(operation, Read):
            operation.done(operation.empty)
        elif not isinstance(operation, RecordEvents):
            why = f"shard {asked.shard} is not of this worker" if self.is_open else "the spool is closed"
            operation.done(Failure(FailureKind.CLOSED, why))
