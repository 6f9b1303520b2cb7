"""The writer: makes the commits of one spool, on the loop or on a thread, and has them answered on the loop.

What always holds:
- It has one batch at a time. `commit` gives it one, `on_idle` says that it is done, and with which results. A shard is
  used by the loop or by the thread, never by both: by the loop only while the thread has no batch.
- The loop itself writes quick operations into the transaction (`Shard.stage`). Then a commit costs the thread one step
  of SQLite instead of several; for each step it would have to win the interpreter's lock back from a busy loop. The
  commit itself is made on the loop if it is small and the disk is quick (`store.sqlite.quickness`). The thread does
  everything else: questions, large commits, checkpoints, and the work after an error.
- Answers are given on the loop, in the order of the batch, after the commit is on stable storage. `on_published` is
  called with the events of an operation before its answer, but not if the operation was refused.

How it fails: a settlement whose commit failed and may be on the disk all the same is answered when a later commit has
it. A read is asked again, after a second and then at growing intervals; content is given up after `_TRIES_MAX` tries.
Events whose commit failed go with a later one. An exception from a callback goes to the loop's exception handler and
stops no other callback.

Without `threads` everything is done on the loop, so that each run of a simulation is the same; then `commit_s` says how
long a commit takes that is not made at once, and how long its answer takes. Not here: which operations are one batch,
and when it is made (`store.sqlite.batching`); the tables (`store.sqlite.shard`).
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from postroad.mail import identifier
from postroad.mail.event import Event
from postroad.mail.seldom import Seldom
from postroad.store.options import SpoolOptions
from postroad.store.sqlite.operation import (
    Accept,
    Kept,
    Operation,
    PendingOperation,
    Postponed,
    Read,
    RecordEvents,
    Settle,
)
from postroad.store.sqlite.quickness import Quickness
from postroad.store.sqlite.shard import Shard
from postroad.store.sqlite.space import Space
from postroad.store.values import Failure, FailureKind
from postroad.world.clock import Clock
from postroad.world.wait_clock import WaitClock

_RETRY_S: Final = 1.0  # until a read that failed is asked again; twice as long each time, up to _RETRY_MAX_S
_RETRY_MAX_S: Final = 60.0
_TRIES_MAX: Final = 6  # after so many (half a minute) content is given up, and the operator is told of any other read
_REMIND_TRIES: Final = 60  # and told again each time after so many more (an hour)
_FAILED_OCTETS_MAX: Final = 8_388_608  # of events whose commit has failed, encoded; more of them are dropped
_QUICK_MAX: Final = 16  # rows of an operation that the loop writes itself
_RESERVE_S: Final = 60.0  # how often a reserve is tried to be made again if no new mail comes


class Batch:
    """The operations of one commit in each shard that they touch. `staged`: the answers if the loop has done the first
    half in `shard`. `error`: what went wrong if the loop has also tried the second half."""

    __slots__ = ("asked", "error", "shard", "staged")

    def __init__(self, asked: list[PendingOperation]) -> None:
        self.asked = asked
        self.error: Exception | None = None
        self.shard: Shard | None = None
        self.staged: list[Any] | None = None


class CommitWriter:
    """See the module. Called on the loop, except `finish`. `on_error` takes messages for the operator; it is called on
    any thread."""

    def __init__(
        self,
        shards: Mapping[int, Shard],
        options: SpoolOptions,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        space: Space,
        *,
        threads: bool,
        commit_s: Callable[[], float] | None,
        quickness: Quickness,
        on_published: Callable[[int, tuple[Event, ...]], None],
        on_error: Callable[[str], None],
    ) -> None:
        self.on_idle: Callable[[], None] = lambda: None
        self._shards = shards
        self._main = next(iter(shards))
        self._options = options
        self._loop = loop
        self._space = space
        self._threads = threads
        self._commit_s = commit_s
        self._quickness = quickness
        self._on_published = on_published
        self._on_error = on_error
        self._worker: threading.Thread | None = None
        self._wait_clock: WaitClock | None = None  # the loop's own; none without threads
        self._under_way: Batch | None = None  # without threads: the commit that takes its time
        # Between the loop and the thread: each end only puts or only takes.
        self._batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._answers: deque[tuple[PendingOperation, Any]] = deque()
        self._failed_records: deque[bytes] = deque()  # encoded, of commits that failed
        # The thread's while it has a batch.
        self._postponed: list[PendingOperation] = []
        self._kept: dict[Operation, PendingOperation] = {}  # settlements that the shards write again
        self._seldom = Seldom(clock.now_us)
        # The loop's.
        self._cleaned = 0  # attempts to take out what failed commits may have left, in a row
        self._reserve_look = 0.0  # when a reserve is tried to be made again; 0: all are whole

    # --- life

    def start(self) -> None:
        if self._threads:
            self._wait_clock = WaitClock()
            self._worker = threading.Thread(target=self._run, name="spool", daemon=True)
            self._worker.start()

    def end(self, asked: list[PendingOperation]) -> None:
        """Takes the last batch. `on_idle` does not matter any more."""
        last = Batch(asked)
        if self._worker is not None:
            self._batches.put(last)
            self._batches.put(None)
        else:
            self._finish_under_way()
            self._work(last)

    def finish(self) -> None:
        """Blocks until the last batch is done, and removes what failed commits have left. Then call `answer`."""
        if self._worker is not None:
            self._worker.join()
        if self._wait_clock is not None:
            self._wait_clock.close()
        self._answers += [(each, each.operation.empty) for each in self._postponed if isinstance(each.operation, Read)]
        self._postponed.clear()
        for shard in self._shards.values():
            if shard.unsure:  # also by the last batch of all: the next start would take up what was refused
                shard.commit([RecordEvents(b"")])
            self._answers += self._redone(shard)
        for asked in self._kept.values():
            self._answers.append((asked, Failure(FailureKind.CLOSED, "the spool was closed while its disk failed")))
        self._kept.clear()

    # --- what waits in the writer

    @property
    def unsure(self) -> bool:
        """Whether settlements wait whose commit failed, but may be on the disk all the same."""
        return bool(self._kept)

    @property
    def has_records(self) -> bool:
        """Whether events wait whose commit failed."""
        return bool(self._failed_records)

    def records(self) -> list[PendingOperation]:
        """Events whose commit failed, for the next batch."""
        found = []
        while self._failed_records:
            found.append(PendingOperation(self._main, RecordEvents(self._failed_records.popleft())))
        return found

    def postponed(self) -> list[PendingOperation]:
        """Reads that are to be asked again now."""
        if not self._postponed:
            return []
        now = self._loop.time()
        due = [each for each in self._postponed if each.again <= now]
        self._postponed = [each for each in self._postponed if each.again > now]
        return due

    def look_after_s(self) -> float | None:
        """In how many seconds `look_after` has something to do if nothing comes. Then it wants a batch, which may be
        empty."""
        waits = [each.again - self._loop.time() for each in self._postponed]
        if any(shard.written for shard in self._shards.values()):
            waits.append(_RETRY_S)
        if any(shard.unsure for shard in self._shards.values()):
            waits.append(min(_RETRY_MAX_S, _RETRY_S * 2 ** min(self._cleaned, 16)))
        else:
            self._cleaned = 0
        if not all(shard.reserve.whole for shard in self._shards.values()):
            self._reserve_look = self._reserve_look or self._loop.time() + _RESERVE_S
            waits.append(self._reserve_look - self._loop.time())
        return max(0.0, min(waits)) if waits else None

    def look_after(self) -> list[PendingOperation]:
        """Makes a reserve again that was given up. Makes an empty commit for each shard whose last commit failed: this
        removes what may have been left, before a restart finds it."""
        if self._reserve_look and self._loop.time() >= self._reserve_look:
            self._reserve_look = 0.0
            for shard in self._shards.values():
                if not shard.reserve.whole:
                    self._space.room(shard)
        unsure = [number for number, shard in self._shards.items() if shard.unsure]
        if unsure:
            self._cleaned += 1
        return [PendingOperation(number, RecordEvents(b"")) for number in unsure]

    # --- on the loop

    def commit(self, asked: list[PendingOperation]) -> None:
        """Makes the commit, here or on the thread. `on_idle` is called when it is done."""
        batch = Batch(asked)
        if asked:
            number = asked[0].shard
            if all(each.shard == number and _is_quick(each.operation) for each in asked):
                batch.shard = self._shards[number]
                batch.staged = batch.shard.stage([each.operation for each in asked])
        if self._is_for_the_loop(batch):
            self._commit_here(batch)
        else:
            self._hand_over(batch)

    def answer(self) -> None:
        """Calls back, in order."""
        answers = self._answers
        while answers:
            asked, answer = answers.popleft()
            operation = asked.operation
            if answer is None and operation.told:
                try:
                    self._on_published(asked.shard, operation.told)
                except Exception as error:
                    self._loop.call_exception_handler({"message": "who reads the spool's events", "exception": error})
            try:
                operation.done(answer)
            except Exception as error:
                self._loop.call_exception_handler({"message": "callback of the spool", "exception": error})

    def _is_for_the_loop(self, batch: Batch) -> bool:
        if batch.shard is None or batch.staged is None or not batch.shard.is_small():
            return False
        return self._quickness.may_be_on_loop()

    def _commit_here(self, batch: Batch) -> None:
        """Makes the commit on the loop. After an error the thread continues with the batch, because that may take long.
        """
        shard, staged, clock = batch.shard, batch.staged, self._wait_clock
        assert shard is not None and staged is not None
        before_s = clock.waited_s() if clock is not None else 0.0
        try:
            answers = shard.finish(staged)
        except Exception as error:
            batch.error = error
        if clock is not None:
            self._quickness.took(clock.waited_s() - before_s, on_loop=True)
        if batch.error is not None:
            self._hand_over(batch)
            return
        self._answers.extend(self._sort(batch.asked, answers))
        if shard.written > self._options.wal_max:
            self.answer()
            self._hand_over(Batch([]))  # for the checkpoint
        else:
            self._done()

    def _hand_over(self, batch: Batch) -> None:
        """Gives the batch to the thread. Without threads, does its work now, or in a while."""
        if self._worker is not None:
            self._batches.put(batch)
        elif self._commit_s is not None:
            self._under_way = batch
            self._loop.call_later(self._commit_s(), self._commit_now, self._commit_s())
        else:
            self._work(batch)
            self._done()

    def _commit_now(self, answer_s: float) -> None:
        """Without threads: makes the commit that was begun; its answers come a little later."""
        self._finish_under_way()
        self._loop.call_later(answer_s, self._done)

    def _finish_under_way(self) -> None:
        batch, self._under_way = self._under_way, None
        if batch is not None:
            self._work(batch)

    def _done(self) -> None:
        """Ends a batch that left the thread nothing to do."""
        self.answer()
        self.on_idle()

    # --- on the thread

    def _run(self) -> None:
        clock = WaitClock()
        try:
            self._write(clock)
        finally:
            clock.close()

    def _write(self, clock: WaitClock) -> None:
        """Does batch after batch, until the last one. Runs on the thread."""
        while (batch := self._batches.get()) is not None:
            before_s = clock.waited_s()
            self._work(batch)
            if batch.staged is not None and batch.error is None:
                self._quickness.took(clock.waited_s() - before_s, on_loop=False)
            try:
                if self._checkpoint_due(batch):
                    self._loop.call_soon_threadsafe(self.answer)  # nobody needs to wait for what follows
                    self._checkpoint(batch)
                    self._loop.call_soon_threadsafe(self.on_idle)
                else:
                    self._loop.call_soon_threadsafe(self._done)
            except RuntimeError:  # the loop is closed: `finish` and `answer` follow, if the spool is closed
                return

    def _work(self, batch: Batch) -> None:
        """Commits a batch; its answers wait in `_answers`."""
        if batch.staged is not None:
            assert batch.shard is not None
            complete = partial(batch.shard.complete, staged=batch.staged)
            if batch.error is not None:
                complete = partial(batch.shard.after_error, error=batch.error)
            self._answers.extend(self._answers_of(batch.shard, complete, batch.asked))
        elif batch.asked:
            self._answers.extend(self._commit(batch.asked))
        if self._worker is None:
            self._checkpoint(batch)

    def _checkpoint_due(self, batch: Batch) -> bool:
        """Which WAL is moved into its database: one that has grown large, and any if nothing else is to do."""
        least = self._options.wal_max if batch.asked else 0
        return any(shard.written > least for shard in self._shards.values())

    def _checkpoint(self, batch: Batch) -> None:
        least = self._options.wal_max if batch.asked else 0
        for shard in self._shards.values():
            if shard.written > least:
                shard.checkpoint()

    def _commit(self, batch: list[PendingOperation]) -> list[tuple[PendingOperation, Any]]:
        """Makes one commit for each shard that the batch touches. Returns the answers in the order of the batch."""
        if len(self._shards) == 1:
            return self._commit_shard(self._main, batch)
        by_shard: dict[int, list[PendingOperation]] = {}
        for asked in batch:
            by_shard.setdefault(asked.shard, []).append(asked)
        found = [each for number, part in by_shard.items() for each in self._commit_shard(number, part)]
        places = {id(asked): place for place, asked in enumerate(batch)}
        return sorted(found, key=lambda each: places.get(id(each[0]), -1))

    def _commit_shard(self, number: int, part: list[PendingOperation]) -> list[tuple[PendingOperation, Any]]:
        shard = self._shards[number]
        return self._answers_of(shard, shard.commit, part)

    def _answers_of(
        self, shard: Shard, commit: Callable[[list[Operation]], list[Any]], part: list[PendingOperation]
    ) -> list[tuple[PendingOperation, Any]]:
        found = self._sort(part, _guarded(commit, part))
        return self._redone(shard) + found if shard.redone else found

    def _redone(self, shard: Shard) -> list[tuple[PendingOperation, Any]]:
        """The answers to settlements whose first commit failed and that are committed now."""
        done, shard.redone = shard.redone, []
        return [(self._kept.pop(operation), answer) for operation, answer in done if operation in self._kept]

    def _sort(self, part: list[PendingOperation], answers: list[Any]) -> list[tuple[PendingOperation, Any]]:
        """Finds what is to be called back. Reads that could not be done and events that could not be kept wait."""
        found = []
        for asked, answer in zip(part, answers, strict=True):
            operation = asked.operation
            if type(answer) is Postponed:
                assert isinstance(operation, Read)  # nothing else is asked again
                if not self._postpone(asked, operation, answer):
                    found.append((asked, operation.empty))
            elif type(answer) is Kept:
                self._keep(asked, answer)
            elif type(operation) is not RecordEvents:
                found.append((asked, answer))
            elif type(answer) is Failure and operation.events:
                self._keep_record(operation.events)
        return found

    def _keep_record(self, events: bytes) -> None:
        """Keeps events whose commit failed: they go with the next one."""
        if sum(map(len, tuple(self._failed_records))) < _FAILED_OCTETS_MAX:
            self._failed_records.append(events)

    def _keep(self, asked: PendingOperation, why: Kept) -> None:
        self._kept[asked.operation] = asked
        text = self._seldom.to_write(f"an outcome cannot be committed yet: {why.text}") if why.text else ""
        if text:
            self._on_error(text)

    def _postpone(self, asked: PendingOperation, read: Read, why: Postponed) -> bool:
        """Asks a read again later. Returns False if it is given up."""
        asked.tries += 1
        about = read.about
        if asked.tries == 1:
            self._on_error(f"reading the spool failed, asked again: {why.text}")
        elif about and asked.tries >= _TRIES_MAX:
            text = f"the content of {identifier.text(about)} cannot be read, given up after {asked.tries} tries"
            self._on_error(f"{text}: {why.text}; see `postroad spool check`")
            return False
        elif asked.tries % _REMIND_TRIES == _TRIES_MAX:
            text = f"the spool still cannot be read after {asked.tries} tries: {why.text}"
            self._on_error(f"{text}; see `postroad spool check`")
        asked.again = self._loop.time() + min(_RETRY_MAX_S, _RETRY_S * 2 ** min(asked.tries - 1, 16))
        self._postponed.append(asked)
        return True


def _guarded(commit: Callable[[list[Operation]], list[Any]], part: list[PendingOperation]) -> list[Any]:
    """The answers of a shard. An exception is a bug there; the writer must go on, and every operation must be answered.
    """
    operations = [asked.operation for asked in part]
    try:
        return commit(operations)
    except Exception as error:
        logging.getLogger("postroad.store").exception("the spool's writer")
        text = repr(error)
        return [Postponed(text) if type(each) is Read else Failure(FailureKind.IO, text) for each in operations]


def _is_quick(operation: Operation) -> bool:
    """Whether the loop may do it: it changes a few rows that were written a moment ago, and are in memory."""
    kind = type(operation)
    if kind is Accept or kind is Settle:
        return len(operation.waiting) <= _QUICK_MAX  # type: ignore[union-attr]
    return kind is RecordEvents
