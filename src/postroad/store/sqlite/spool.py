"""The spool: the durable queue of one worker. One thread writes all its shards, many operations to a commit.

What always holds:
- Operations are executed in the order of the calls; a callback is called on the loop, once, in that order too, and
  after the commit that its operation stands in is on stable storage (promise 1).
- `published` is called with the events of an operation after its commit, before its callback, in the same order. An
  operation that was refused publishes nothing.
- While the thread commits, what comes gathers and is the next commit; an operation that comes alone is committed at
  once. Only where many clients are in the middle of a message, and the last commit was a moment ago, does one wait for
  the others (`commit_wait_s`).
- A shard is used by the loop or by the writer, never by both: by the loop only while the writer has no batch.
- `shards[0]` takes new mail; the others, left by a larger number of workers, drain. So a commit is one sync.

How it fails: an operation that changes something is answered with a Failure and has then changed nothing; it may be
asked again. A settlement whose commit failed and may be on the disk all the same is not answered until a commit has it:
else an operator would hear of a failure and not ask again, and the mail would be gone without an end in the history. A
read is not answered with an error: it is asked again, after a second and then ever more seldom, until the shard can be
read (an empty answer would strand mail). Only the content of one message is given up after `_TRIES_MAX` tries and
answered with None: the queue then holds that message. What the operator should know goes to `log`. An exception from a
callback goes to the loop's exception handler and stops no other callback.

With `threads=False` all is done on the loop itself, so that a simulation on a virtual clock is the same at each run;
`commit_s` then says how long a commit takes, and once more its answer, so that there is a time between the three. Not
here: the tables (`store.sqlite.shard`, `store.sqlite.schema`), files (`store.content`), reading from outside
(`store.sqlite.reader`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from postroad.mail import identifier
from postroad.mail.envelope import Envelope
from postroad.mail.event import Event, Noted
from postroad.mail.message import Content
from postroad.mail.seldom import Seldom
from postroad.store import questions
from postroad.store.arrivals import Arrivals
from postroad.store.content import Incoming, remove
from postroad.store.face import HISTORY, JournalReader, Missed, SpoolError
from postroad.store.options import SpoolOptions
from postroad.store.sqlite import codec, opening, schema
from postroad.store.sqlite.operation import Accept, Kept, Mark, Operation, Postponed, Read, RecordEvents, Row, Settle
from postroad.store.sqlite.quickness import Quickness
from postroad.store.sqlite.shard import Shard
from postroad.store.values import Failure, FailureKind, Loaded, Selection, Settlement, Stored, Waiting
from postroad.world.clock import Clock
from postroad.world.files import Posix
from postroad.world.wait_clock import WaitClock

__all__ = ["SpoolError", "SpoolOptions", "SqliteSpool"]

_RETRY_S: Final = 1.0  # until a read that failed is asked again; twice as long each time, up to _RETRY_MAX_S
_RETRY_MAX_S: Final = 60.0
_TRIES_MAX: Final = 6  # after so many (half a minute) content is given up, and the operator is told of any other read
_REMIND_TRIES: Final = 60  # and told again each time after so many more (an hour)
_CALM: Final = 4  # the part of `commit_wait_s` that is waited for where little comes: less is won by it
_RECORDED_MAX: Final = 20_000  # events without a change of state that wait for the next commit
_FAILED_OCTETS_MAX: Final = 8_388_608  # of such events whose commit has failed, encoded; what comes on top is dropped
_QUICK_MAX: Final = 16  # rows of an operation that the loop writes itself
_RESERVE_FREE: Final = 2  # times its size must be free before a reserve is made again
_RESERVE_S: Final = 60.0  # how often this is tried where no new mail comes
_SPACE_EVERY_US: Final = 100_000  # how often the free space is looked at


def free_octets(directory: Path) -> int:
    """Free space on the disk of a folder. Raises OSError."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


class SqliteSpool:
    """The shards of one worker. All methods are called on the loop; `start` and `close` block (`close` may be called on
    another thread while the loop runs, and its last answers then come on the loop)."""

    def __init__(
        self,
        directory: Path,
        shards: Sequence[int],
        options: SpoolOptions,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        *,
        log: Callable[[Event], None] | None = None,
        published: Callable[[int, tuple[Event, ...]], None] = lambda shard, events: None,
        readers: Sequence[JournalReader] = (HISTORY,),
        connect: schema.Connect = schema.connect,
        threads: bool = True,
        posix: Posix | None = None,
        free: Callable[[Path], int] = free_octets,
        commit_s: Callable[[], float] | None = None,
        quickness: Quickness | None = None,
    ) -> None:
        """`published(shard, events)`: these events were committed; see the module. `readers`: of the journal. `free`:
        octets of free space on the disk of a folder; OSError if it cannot be told."""
        if not shards:
            raise ValueError("a spool has at least one shard")
        self.directory = directory
        self.options = options
        self.shards = tuple(shards)
        self._clock = clock
        self._loop = loop
        self._log = log if log is not None else _log
        self._published = published
        self._threads = threads
        self._posix = posix or Posix()
        self._free_octets = free
        self._commit_s = commit_s
        self._quickness = quickness if quickness is not None else Quickness(loop.time)
        self._wait_clock: WaitClock | None = None  # the loop's own; none without threads
        self._under_way: _Batch | None = None  # without threads: the commit that takes its time
        self._main = self.shards[0]
        self._shards = {
            number: Shard(
                directory, number, clock.now_us, connect=connect, room=self._room, note=self._note, remove=self._unlink,
                reserve=options.reserve, readers=readers,
            )
            for number in self.shards
        }
        self._last_ids = dict.fromkeys(self.shards, 0)
        self._free_looked_us = 0
        self._reserve_again = 0.0  # when a reserve may be tried to be made again, time of the loop
        self._reserve_look = 0.0  # when this is tried though no new mail comes; 0: not
        self._free = 0
        # Between the loop and the writer: each end only puts or only takes.
        self._batches: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._answers: deque[tuple[_Asked, Any]] = deque()
        self._failed_records: deque[bytes] = deque()  # encoded, of commits that failed
        # The loop's own.
        self._writer: threading.Thread | None = None
        self._gathered: list[_Asked] = []  # what goes into the next batch
        self._recorded: list[Event] = []  # events that go with it
        self.arrivals = Arrivals(loop.time)
        self._pressing = 0  # operations among them that somebody waits for
        self._commit_timer: asyncio.TimerHandle | None = None
        self._commit_wait_until = 0.0
        self._begun = 0.0  # when the writer got its last batch, time of the loop
        self._writing = False  # the writer has a batch, or is to get one in this turn of the loop
        self._timer: asyncio.TimerHandle | None = None
        self._postponed: list[_Asked] = []  # the writer's while it has a batch
        self._kept: dict[Operation, _Asked] = {}  # settlements that the shards write again; the writer's, too
        self._seldom = Seldom(clock.now_us)
        self._files: list[_FileThread] = []
        self._next_file = 0
        self._cleaned = 0  # attempts to take out what failed commits may have left, in a row
        self._running = False
        self._loop_thread = 0
        self._record_timer: asyncio.TimerHandle | None = None

    # --- life

    def start(self) -> None:
        """Opens and recovers the shards. Raises SpoolError, with all shards closed again."""
        opening.check_directory(self.directory)
        opened: list[Shard] = []
        try:
            for shard in self._shards.values():
                shard.open()
                opened.append(shard)
        except SpoolError:
            for shard in opened:
                shard.close()
            raise
        self._last_ids = {number: shard.last_id for number, shard in self._shards.items()}
        self._running = True
        self._loop_thread = threading.get_ident()
        if self._threads:
            self._wait_clock = WaitClock()
            self._files = [_FileThread(f"files-{number}") for number in range(max(1, self.options.file_threads))]
            self._writer = threading.Thread(target=self._write, name="spool", daemon=True)
            self._writer.start()

    def close(self) -> None:
        """Does what was asked, answers it, and stops. Blocks until it is on stable storage."""
        if not self._running:
            return
        if threading.get_ident() == self._loop_thread:
            self._end()
        else:
            # What is gathered is the loop's: it alone may take it, between two turns of its own.
            ended = threading.Event()
            self._soon_from_thread(partial(self._end, ended))
            while not ended.wait(0.1):
                if not self._loop.is_running():
                    self._end()
                    break
        if self._writer is not None:
            self._writer.join()
        self._answers += [(each, each.operation.empty) for each in self._postponed if isinstance(each.operation, Read)]
        self._postponed.clear()
        for shard in self._shards.values():
            if shard.unsure:  # also by the last batch of all: the next start would take up what was refused
                shard.commit([RecordEvents(b"")])
            self._answers += self._redone(shard)
        for asked in self._kept.values():
            self._answers.append((asked, Failure(FailureKind.CLOSED, "the spool was closed while its disk failed")))
        self._kept.clear()
        if threading.get_ident() == self._loop_thread:
            self._answer()
        else:
            self._loop.call_soon_threadsafe(self._answer)
        for each in self._files:
            each.close()
        if self._wait_clock is not None:
            self._wait_clock.close()
        for shard in self._shards.values():
            shard.close()

    def _end(self, ended: threading.Event | None = None) -> None:
        """The last batch. From here on nothing is taken any more."""
        if self._running:
            self._end_now()
        if ended is not None:
            ended.set()

    def _end_now(self) -> None:
        self._running = False
        for timer in (self._timer, self._commit_timer, self._record_timer):
            if timer is not None:
                timer.cancel()
        # Without what is postponed, which is the writer's as long as it has a batch.
        last = _Batch([*self._gathered, *self._recorded_now()])
        self._gathered = []
        if self._writer is not None:
            self._batches.put(last)
            self._batches.put(None)
        else:
            self._finish_under_way()
            self._work(last)

    # --- ids

    def new_id(self, shard: int | None = None) -> int:
        """A queue id never given before. `shard`: for a message that must share a commit with another (a DSN): the
        shard of that other one. Without it: the shard that takes new mail."""
        number = self._main if shard is None else shard
        made = identifier.make(self._clock.now_us(), number, self._last_ids[number])
        self._last_ids[number] = made
        self._shards[number].last_id = made  # the next commit's journal row keeps it
        return made

    # --- changes

    def accept(
        self,
        stored: Stored,
        events: tuple[Event, ...],
        done: Callable[[Failure | None], None],
        waiting: tuple[Waiting, ...] = (),
        reports: tuple[Stored, ...] = (),
    ) -> None:
        """Keeps a new message. With `waiting` (all its recipients) it is at once as if settled so: mail held on
        arrival. `reports`: DSNs that its acceptance brings, in the same commit and of the same shard (ValueError).
        `done(None)`: it is on stable storage. After a Failure content in a file is still the caller's."""
        shard = identifier.shard_of(stored.envelope.id)
        _check_shard(shard, reports)
        operation = Accept(
            _row(stored),
            waiting,
            codec.encode_events(events) if events else b"",
            done,
            tuple(map(_row, reports)) if reports else (),
            events,
        )
        self._put(shard, operation)

    def settle(self, settlement: Settlement, done: Callable[[Failure | None], None]) -> None:
        """Commits what became of recipients. Messages in `accepted` must have ids of the same shard (ValueError)."""
        shard = identifier.shard_of(settlement.id)
        accepted = settlement.accepted
        _check_shard(shard, accepted)
        operation = Settle(
            settlement.id,
            settlement.ended,
            settlement.waiting,
            tuple(map(_row, accepted)) if accepted else (),
            codec.encode_events(settlement.events) if settlement.events else b"",
            done,
            settlement.events,
        )
        self._put(shard, operation, patient=self.options.settle_s > 0)

    def record(self, events: tuple[Event, ...]) -> None:
        """Keeps events that change nothing. They join the next commit, or have one of their own after `record_s`."""
        if not events or not self._running:
            return
        if len(self._recorded) < _RECORDED_MAX:
            self._recorded.extend(events)
        if self._record_timer is None:
            self._record_timer = self._loop.call_later(self.options.record_s, self._record_now)

    def mark(
        self, reader: str, shard: int, seq: int, done: Callable[[Failure | None], None] = lambda failure: None
    ) -> None:
        """See `store.face.JournalMarks`. If the commit fails, the mark stays as it was."""
        put = partial(self._put, shard, Mark(reader, seq, done))
        if threading.get_ident() == self._loop_thread:
            put()
        else:
            self._soon_from_thread(put)

    @property
    def unsure(self) -> bool:
        """Whether settlements wait for a disk that fails. Their commit failed and may be on the disk all the same."""
        return bool(self._kept)

    def committed(self, shard: int) -> int:
        """The seq of the journal up to which it is committed; from any thread."""
        return self._shards[shard].committed

    def mark_of(self, reader: str, shard: int) -> int:
        """See `store.face.JournalMarks`."""
        return self._shards[shard].marks[reader]

    def refuses(self) -> str:
        """See `store.face.Spool`. What is free within the files may still take a few small messages."""
        failure = self._room_on_disk()
        if failure is not None:
            return failure.text
        lacking = [str(shard.reserve.path) for shard in self._shards.values() if not shard.reserve.whole]
        return f"no space for the reserve {lacking[0]}" if lacking else ""

    def missed(self) -> list[Missed]:
        """What readers of the journal have missed since the start."""
        return [
            Missed(name, number, count)
            for number, shard in self._shards.items()
            for name, count in shard.missed.items()
        ]

    # --- questions

    def take(
        self, shard: int, destination: str, before_us: int, limit: int, done: Callable[[list[Loaded]], None]
    ) -> None:
        """Recipients of a destination that are due before `before_us` and not held, the oldest due first, at most
        `limit` of them, gathered by message. They stay due until they are settled."""
        self._put(shard, Read(questions.Take(destination, before_us, limit), done, []))

    def next_due(self, shard: int, destination: str, done: Callable[[int], None], after_us: int = 0) -> None:
        """When the first recipient of a destination that is not held is due after `after_us`; 0: none waits."""
        self._put(shard, Read(questions.NextDue(destination, after_us), done, 0))

    def load(self, id: int, done: Callable[[Loaded | None], None]) -> None:
        """A message with all its waiting recipients (none of a fresh one), None where it has ended."""
        self._put(identifier.shard_of(id), Read(questions.Load(id), done, None))

    def fresh(self, shard: int, after: int, limit: int, done: Callable[[list[Envelope]], None]) -> None:
        """Messages accepted and never settled, with ids above `after`, the oldest first."""
        self._put(shard, Read(questions.Fresh(after, limit), done, []))

    def ahead(
        self,
        shard: int,
        after: tuple[int, str],
        until_us: int,
        limit: int,
        done: Callable[[list[tuple[int, str]]], None],
    ) -> None:
        """Which destinations have something due, and when the first of it is: (time, destination), behind `after` and
        until `until_us`, in that order, at most `limit` of them. What is held is not due."""
        self._put(shard, Read(questions.Ahead(after, until_us, limit), done, []))

    def first_due(self, shard: int, names: Sequence[str], done: Callable[[dict[str, int]], None]) -> None:
        """When each of these destinations first has something due; those that have nothing are left out."""
        self._put(shard, Read(questions.FirstDue(names), done, {}))

    def content(self, id: int, done: Callable[[Content | None], None]) -> None:
        """The octets or the file of a message; None where it has ended, or they cannot be read (see the log)."""
        self._put(identifier.shard_of(id), Read(questions.Contents(id), done, None, id))

    def select(self, selection: Selection, done: Callable[[list[int]], None]) -> None:
        """The ids that an operator means, over all shards of this worker, at most `selection.limit`. Commits go on
        meanwhile, so what is accepted while it is being answered may be among them or not."""
        _Select(self, selection, done).next_shard()

    # --- large content

    def incoming(self, id: int, resumed: Callable[[], None] | None = None) -> Incoming:
        """A file for content above `inline_max`; see `store.content.Incoming`."""
        if not self._files:
            return Incoming(self.directory, id, self._soon, self._soon, self._room_on_disk, resumed, self._posix)
        self._next_file = (self._next_file + 1) % len(self._files)
        run = self._files[self._next_file].put
        return Incoming(self.directory, id, run, self._soon_from_thread, self._room_on_disk, resumed, self._posix)

    def _soon(self, work: Callable[[], None]) -> None:
        self._loop.call_soon(work)

    def _soon_from_thread(self, work: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for it any more
            self._loop.call_soon_threadsafe(work)

    # --- the loop's side

    def _put(self, shard: int, operation: Operation, *, patient: bool = False) -> None:
        """`patient`: it may wait for company, for `settle_s`."""
        asked = _Asked(shard, operation)
        if not self._running or shard not in self._shards:
            self._loop.call_soon(self._refuse, asked)
            return
        self._gathered.append(asked)
        if not patient:
            self._pressing += 1
        if not self._writing:
            self._go_on()

    def _go_on(self) -> None:
        """Something is gathered and the writer has nothing to do: a commit now, or in a moment."""
        now = self._loop.time()
        if not self._pressing:
            until = now + self.options.settle_s
        elif not self.arrivals.expected():
            until = 0.0
        else:
            commit_wait_s = self.options.commit_wait_s
            until = self._begun + (commit_wait_s if self.arrivals.busy else commit_wait_s / _CALM)
        if until <= now:
            # At the end of this turn of the loop, so that what comes in the same turn goes into the same batch.
            self._writing = True
            self._loop.call_soon(self._dispatch)
        elif self._commit_timer is None or until < self._commit_wait_until:
            if self._commit_timer is not None:
                self._commit_timer.cancel()
            self._commit_wait_until = until
            self._commit_timer = self._loop.call_later(until - now, self._waited)

    def _waited(self) -> None:
        """Who has not come by now is not waited for."""
        self._commit_timer = None
        if self._running and not self._writing and self._gathered:
            self._writing = True
            self._dispatch()

    def _recorded_now(self) -> list[_Asked]:
        found = []
        while self._failed_records:
            found.append(_Asked(self._main, RecordEvents(self._failed_records.popleft())))
        if self._recorded:
            recorded, self._recorded = self._recorded, []
            found.append(_Asked(self._main, RecordEvents(codec.encode_events(recorded))))
        return found

    def _cleanings(self) -> list[_Asked]:
        """A commit of nothing for each shard whose last one failed."""
        return [_Asked(number, RecordEvents(b"")) for number, shard in self._shards.items() if shard.unsure]

    def _next_batch(self) -> _Batch:
        """All that waits. The loop does the first half itself where that is quick: a commit then costs the writer one
        step of SQLite instead of several, for each of which it would have to win the interpreter's lock back from a
        busy loop."""
        batch = _Batch([*self._gathered, *self._recorded_now()])
        self._gathered = []
        if self._postponed:
            now = self._loop.time()
            batch.asked[:0] = [each for each in self._postponed if each.again <= now]
            self._postponed = [each for each in self._postponed if each.again > now]
        self._pressing = 0
        if self._commit_timer is not None:
            self._commit_timer.cancel()
            self._commit_timer = None
        if batch.asked:
            number = batch.asked[0].shard
            if all(each.shard == number and _is_quick(each.operation) for each in batch.asked):
                batch.shard = self._shards[number]
                batch.staged = batch.shard.stage([each.operation for each in batch.asked])
        return batch

    def _dispatch(self) -> None:
        """Give the writer its next batch; without a writer, do its work."""
        if not self._running:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._begun = self._loop.time()
        batch = self._next_batch()
        if self._is_for_the_loop(batch):
            self._commit_here(batch)
        else:
            self._hand_over(batch)

    def _hand_over(self, batch: _Batch) -> None:
        """To the writer; without a writer, its work is done now, or in a while."""
        if self._writer is not None:
            self._batches.put(batch)
        elif self._commit_s is not None:
            self._under_way = batch
            self._loop.call_later(self._commit_s(), self._commit_now, self._commit_s())
        else:
            self._work(batch)
            self._done()

    def _is_for_the_loop(self, batch: _Batch) -> bool:
        """Whether the loop makes this commit itself: a small one that is staged, while the disk is quick. All else is
        the writer's: what reads, what writes much, what follows a failure."""
        if batch.shard is None or batch.staged is None or not batch.shard.is_small():
            return False
        return self._quickness.may_be_on_loop()

    def _commit_here(self, batch: _Batch) -> None:
        """On the loop. After an error the writer goes on with the batch: that may take long."""
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
        if shard.written > self.options.wal_max:
            self._answer()
            self._hand_over(_Batch([]))  # for the checkpoint
        else:
            self._done()

    def _commit_now(self, answer_s: float) -> None:
        """Without threads: the commit that was begun is done; its answers come a little later."""
        self._finish_under_way()
        self._loop.call_later(answer_s, self._done)

    def _finish_under_way(self) -> None:
        batch, self._under_way = self._under_way, None
        if batch is not None:
            self._work(batch)

    def _idle(self) -> None:
        """The writer has done its batch and what came of it."""
        self._writing = False
        if not self._running:
            return
        if self._gathered:
            self._go_on()
        else:
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
            if waits:
                self._timer = self._loop.call_later(max(0.0, min(waits)), self._look_after)

    def _look_after(self) -> None:
        """Nothing came for a while: ask again what could not be read, take the WAL into the database, and take out what
        failed commits may have left: nobody may find it after a restart. A reserve that was given up is made again."""
        self._timer = None
        if self._running and not self._writing:
            self._writing = True
            self._look_at_reserves()
            cleanings = self._cleanings()
            if cleanings:
                self._cleaned += 1
                self._gathered += cleanings
            self._dispatch()

    def _look_at_reserves(self) -> None:
        if self._reserve_look and self._loop.time() >= self._reserve_look:
            self._reserve_look = 0.0
            for shard in self._shards.values():
                if not shard.reserve.whole:
                    self._room(shard)

    def _done(self) -> None:
        """After a batch that left the writer nothing else to do."""
        self._answer()
        self._idle()

    def _refuse(self, asked: _Asked) -> None:
        operation = asked.operation
        if isinstance(operation, Read):
            operation.done(operation.empty)
        elif not isinstance(operation, RecordEvents):
            why = f"shard {asked.shard} is not of this worker" if self._running else "the spool is closed"
            operation.done(Failure(FailureKind.CLOSED, why))

    def _record_now(self) -> None:
        self._record_timer = None
        if self._recorded or self._failed_records:
            self._put(self._main, RecordEvents(b""))

    def _answer(self) -> None:
        """Calls back, in order."""
        answers = self._answers
        while answers:
            asked, answer = answers.popleft()
            operation = asked.operation
            if answer is None and operation.told:
                try:
                    self._published(asked.shard, operation.told)
                except Exception as error:
                    self._loop.call_exception_handler({"message": "who reads the spool's events", "exception": error})
            try:
                operation.done(answer)
            except Exception as error:
                self._loop.call_exception_handler({"message": "callback of the spool", "exception": error})

    def _note(self, event: Event) -> None:
        """From any thread."""
        try:
            self._loop.call_soon_threadsafe(self._log, event)
        except RuntimeError:  # the loop is closed
            self._log(event)

    def _unlink(self, path: Path) -> None:
        """The content file of a message that has ended: unlinking many megabytes takes a while."""
        if self._files:
            self._files[0].put(partial(remove, path, self._posix))
        else:
            remove(path, self._posix)

    # --- the writer's side

    def _write(self) -> None:
        """The writer thread."""
        clock = WaitClock()
        try:
            self._write_until_the_end(clock)
        finally:
            clock.close()

    def _write_until_the_end(self, clock: WaitClock) -> None:
        while (batch := self._batches.get()) is not None:
            before_s = clock.waited_s()
            self._work(batch)
            if batch.staged is not None and batch.error is None:
                self._quickness.took(clock.waited_s() - before_s, on_loop=False)
            try:
                if self._checkpoint_due(batch):
                    self._loop.call_soon_threadsafe(self._answer)  # nobody needs to wait for what follows
                    self._checkpoint(batch)
                    self._loop.call_soon_threadsafe(self._idle)
                else:
                    self._loop.call_soon_threadsafe(self._done)
            except RuntimeError:  # the loop is closed: `close` answers, if it is called
                return

    def _work(self, batch: _Batch) -> None:
        """Commit a batch; its answers wait in `_answers`."""
        if batch.staged is not None:
            assert batch.shard is not None
            complete = partial(batch.shard.complete, staged=batch.staged)
            if batch.error is not None:
                complete = partial(batch.shard.after_error, error=batch.error)
            self._answers.extend(self._answers_of(batch.shard, complete, batch.asked))
        elif batch.asked:
            self._answers.extend(self._commit(batch.asked))
        if self._writer is None:
            self._checkpoint(batch)

    def _checkpoint_due(self, batch: _Batch) -> bool:
        """A WAL that has grown large is taken into the database, and any when nothing else is to do."""
        least = self.options.wal_max if batch.asked else 0
        return any(shard.written > least for shard in self._shards.values())

    def _checkpoint(self, batch: _Batch) -> None:
        least = self.options.wal_max if batch.asked else 0
        for shard in self._shards.values():
            if shard.written > least:
                shard.checkpoint()

    def _commit(self, batch: list[_Asked]) -> list[tuple[_Asked, Any]]:
        """One commit for each shard that is touched; the answers in the order of the batch."""
        if len(self._shards) == 1:
            return self._commit_shard(self._main, batch)
        by_shard: dict[int, list[_Asked]] = {}
        for asked in batch:
            by_shard.setdefault(asked.shard, []).append(asked)
        found = [each for number, part in by_shard.items() for each in self._commit_shard(number, part)]
        places = {id(asked): place for place, asked in enumerate(batch)}
        return sorted(found, key=lambda each: places.get(id(each[0]), -1))

    def _commit_shard(self, number: int, part: list[_Asked]) -> list[tuple[_Asked, Any]]:
        shard = self._shards[number]
        return self._answers_of(shard, shard.commit, part)

    def _answers_of(
        self, shard: Shard, commit: Callable[[list[Operation]], list[Any]], part: list[_Asked]
    ) -> list[tuple[_Asked, Any]]:
        found = self._sort(part, _guarded(commit, part))
        return self._redone(shard) + found if shard.redone else found

    def _redone(self, shard: Shard) -> list[tuple[_Asked, Any]]:
        """The answers to settlements whose first commit failed and that are committed now."""
        done, shard.redone = shard.redone, []
        return [(self._kept.pop(operation), answer) for operation, answer in done if operation in self._kept]

    def _sort(self, part: list[_Asked], answers: list[Any]) -> list[tuple[_Asked, Any]]:
        """What is to be called back; reads that could not be made and events that could not be kept wait."""
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
        """Events whose commit failed: they go with the next one."""
        if sum(map(len, tuple(self._failed_records))) < _FAILED_OCTETS_MAX:
            self._failed_records.append(events)

    def _keep(self, asked: _Asked, why: Kept) -> None:
        self._kept[asked.operation] = asked
        text = self._seldom.to_write(f"an outcome cannot be committed yet: {why.text}") if why.text else ""
        if text:
            self._say(text)

    def _postpone(self, asked: _Asked, read: Read, why: Postponed) -> bool:
        """Asks a read again later. False: it is given up."""
        asked.tries += 1
        about = read.about
        if asked.tries == 1:
            self._say(f"reading the spool failed, asked again: {why.text}")
        elif about and asked.tries >= _TRIES_MAX:
            text = f"the content of {identifier.text(about)} cannot be read, given up after {asked.tries} tries"
            self._say(f"{text}: {why.text}; see `postroad spool check`")
            return False
        elif asked.tries % _REMIND_TRIES == _TRIES_MAX:
            text = f"the spool still cannot be read after {asked.tries} tries: {why.text}"
            self._say(f"{text}; see `postroad spool check`")
        asked.again = self._loop.time() + min(_RETRY_MAX_S, _RETRY_S * 2 ** min(asked.tries - 1, 16))
        self._postponed.append(asked)
        return True

    def _say(self, text: str) -> None:
        self._note(Noted(self._clock.now_us(), 0, "error", text))

    def _room(self, shard: Shard) -> Failure | None:
        """Why new mail must be refused. Pages that are free within the file count as room."""
        failure = self._room_on_disk()
        if failure is not None and self._free + shard.free_inside() < self.options.free_min:
            return failure
        return None if shard.reserve.whole else self._fill_reserve(shard)

    def _fill_reserve(self, shard: Shard) -> Failure | None:
        """After the disk was full: new mail is taken when the reserve is there for the next time."""
        reserve = shard.reserve
        if self._free >= _RESERVE_FREE * reserve.size:
            now = self._loop.time()
            if now >= self._reserve_again:
                self._reserve_again = now + _RETRY_S
                if reserve.fill():
                    self._note(Noted(self._clock.now_us(), 0, "info", f"the reserve {reserve.path} is whole again"))
                    return None
        return Failure(FailureKind.FULL, f"{self.directory}: no space for the reserve {reserve.path}")

    def _room_on_disk(self) -> Failure | None:
        now_us = self._clock.now_us()
        if abs(now_us - self._free_looked_us) >= _SPACE_EVERY_US:
            self._free_looked_us = now_us
            try:
                self._free = self._free_octets(self.directory)
            except OSError as error:
                return Failure(FailureKind.IO, f"{self.directory}: {error.strerror}")
        if self._free >= self.options.free_min:
            return None
        text = f"{self.directory}: {self._free} octets free, fewer than free_min {self.options.free_min}"
        return Failure(FailureKind.FULL, text)


class _Batch:
    """What the writer does in one go. `staged`: the answers where the loop has done the first half in `shard`;
    `error`: the loop has tried the second half too, and this is what came of it."""

    __slots__ = ("asked", "error", "shard", "staged")

    def __init__(self, asked: list[_Asked]) -> None:
        self.asked = asked
        self.error: Exception | None = None
        self.shard: Shard | None = None
        self.staged: list[Any] | None = None


class _Asked:
    """An operation on its way through the writer. `tries`: how often a read has failed, `again`: when it is asked
    next, time of the loop."""

    __slots__ = ("again", "operation", "shard", "tries")

    def __init__(self, shard: int, operation: Operation) -> None:
        self.shard = shard
        self.operation = operation
        self.tries = 0
        self.again = 0.0


class _Select:
    """A selection on its way over the shards, a few steps between two commits."""

    def __init__(self, spool: SqliteSpool, selection: Selection, done: Callable[[list[int]], None]) -> None:
        self._spool = spool
        self._selection = selection
        self._done = done
        self._shards = iter(spool.shards)
        self._found: list[int] = []

    def next_shard(self) -> None:
        number = next(self._shards, None)
        if number is None or len(self._found) >= self._selection.limit:
            self._done(sorted(self._found)[: self._selection.limit])
        else:
            self._ask(number, 0)

    def _ask(self, number: int, after: int) -> None:
        question = questions.Select(self._selection, after)
        self._spool._put(number, Read(question, partial(self._answered, number), ([], None)))

    def _answered(self, number: int, answer: tuple[list[int], int | None]) -> None:
        found, last = answer
        self._found += found
        if last is None or len(self._found) >= self._selection.limit:
            self.next_shard()
        else:
            self._ask(number, last)


class _FileThread:
    """A thread that runs what it is handed, in order."""

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        self.put = self._work.put

    def close(self) -> None:
        self._work.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except Exception:
                logging.getLogger("postroad.store").exception("work on a content file")


def _guarded(commit: Callable[[list[Operation]], list[Any]], part: list[_Asked]) -> list[Any]:
    """The answers of a shard. An exception is a bug there; the writer must live on, and all must be answered."""
    operations = [asked.operation for asked in part]
    try:
        return commit(operations)
    except Exception as error:
        logging.getLogger("postroad.store").exception("the spool's writer")
        text = repr(error)
        return [Postponed(text) if type(each) is Read else Failure(FailureKind.IO, text) for each in operations]


def _is_quick(operation: Operation) -> bool:
    """Whether the loop may do it: a few rows that were written a moment ago, and are in memory."""
    kind = type(operation)
    if kind is Accept or kind is Settle:
        return len(operation.waiting) <= _QUICK_MAX  # type: ignore[union-attr]
    return kind is RecordEvents


def _row(stored: Stored) -> Row:
    envelope, octets = stored.envelope, stored.content
    if envelope.prefix and isinstance(octets, bytes):
        raise ValueError("content in memory has its prefix in front, and none in the envelope")
    return Row(
        envelope.id,
        codec.encode_envelope(envelope),
        octets if isinstance(octets, bytes) else None,
        len(envelope.recipients),
    )


def _check_shard(shard: int, brought: tuple[Stored, ...]) -> None:
    """What is to be one commit must be of one shard (promise 3)."""
    if any(identifier.shard_of(each.envelope.id) != shard for each in brought):
        raise ValueError("a message and the reports it brings must be of one shard: new_id(shard_of(id))")


def _log(event: Event) -> None:
    if isinstance(event, Noted):
        level = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}
        logging.getLogger("postroad.store").log(level.get(event.level, logging.ERROR), "%s", event.text)
