"""The spool: the durable queue of one worker, in SQLite. This is its face (`store.face.Spool`) and its ids.

What always holds:
- Operations are executed in the order of the calls; a callback is called on the loop, once, in that order too, and
  after the commit that its operation stands in is on stable storage (promise 1).
- `shards[0]` takes new mail. The others, which a larger number of workers has left, become empty. So a commit is one
  sync.

How it fails: if an operation is answered with a Failure, it has changed nothing, and it may be asked again. If the
commit of a settlement has failed and may be on the disk all the same, the settlement is answered only when a later
commit has it: else an operator would hear of a failure and not ask again, and the mail would be gone without an end in
the history. A read is never answered with an error: it is asked again until the shard can be read (an empty answer
would strand mail). Only the content of one message is given up after some tries and answered with None: the queue then
holds that message. Messages for the operator go to `log`.

The parts, each of which calls only those named after it: this face; `store.sqlite.batching` (when a commit is made, and
of what); `store.sqlite.writer` (commits, on the loop or on a thread, and answers); `store.sqlite.shard` (the tables).
Files of large content: `store.content`. Reading from outside: `store.sqlite.reader`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from postroad.mail import identifier
from postroad.mail.envelope import Envelope
from postroad.mail.event import Event, Noted
from postroad.mail.message import Content
from postroad.store import questions
from postroad.store.content import Incoming, remove
from postroad.store.face import HISTORY, JournalReader, Missed, SpoolError
from postroad.store.options import SpoolOptions
from postroad.store.sqlite import codec, opening, schema
from postroad.store.sqlite.batching import Batching
from postroad.store.sqlite.operation import Accept, Mark, Read, Row, Settle
from postroad.store.sqlite.quickness import Quickness
from postroad.store.sqlite.shard import Shard
from postroad.store.sqlite.space import Space, free_octets
from postroad.store.sqlite.writer import CommitWriter
from postroad.store.values import Failure, Loaded, Selection, Settlement, Stored, Waiting
from postroad.world.clock import Clock
from postroad.world.files import Posix

__all__ = ["SpoolError", "SpoolOptions", "SqliteSpool"]


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
        """`published`: see `store.face.Spool`. `readers`: of the journal. `free`: see `store.sqlite.space`. `threads`,
        `commit_s`: see `store.sqlite.writer`."""
        if not shards:
            raise ValueError("a spool has at least one shard")
        self.directory = directory
        self.options = options
        self.shards = tuple(shards)
        self._clock = clock
        self._loop = loop
        self._log = log if log is not None else _log
        self._threads = threads
        self._posix = posix or Posix()
        self._main = self.shards[0]
        self._space = Space(directory, options, clock, loop.time, free=free, on_whole=self._on_whole)
        self._shards = {
            number: Shard(
                directory, number, clock.now_us, connect=connect, room=self._space.room, note=self._note,
                remove=self._unlink, reserve=options.reserve, readers=readers,
            )
            for number in self.shards
        }
        self._last_ids = dict.fromkeys(self.shards, 0)
        self._files: list[_FileThread] = []
        self._next_file = 0
        self._writer = CommitWriter(
            self._shards, options, clock, loop, self._space, threads=threads, commit_s=commit_s,
            quickness=quickness if quickness is not None else Quickness(loop.time),
            on_published=published, on_error=self._on_error,
        )
        self._batching = Batching(self.shards, options, loop, self._writer)
        self._put = self._batching.put
        self.arrivals = self._batching.arrivals
        self._loop_thread = 0

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
        self._loop_thread = threading.get_ident()
        if self._threads:
            self._files = [_FileThread(f"files-{number}") for number in range(max(1, self.options.file_threads))]
        self._writer.start()
        self._batching.is_open = True

    def close(self) -> None:
        """Does what was asked, answers it, and stops. Blocks until it is on stable storage."""
        if not self._batching.is_open:
            return
        if threading.get_ident() == self._loop_thread:
            self._batching.end()
        else:
            # What is gathered is the loop's: it alone may take it, between two turns of its own.
            ended = threading.Event()
            self._soon_from_thread(partial(self._end, ended))
            while not ended.wait(0.1):
                if not self._loop.is_running():
                    self._batching.end()
                    break
        self._writer.finish()
        if threading.get_ident() == self._loop_thread:
            self._writer.answer()
        else:
            self._loop.call_soon_threadsafe(self._writer.answer)
        for each in self._files:
            each.close()
        for shard in self._shards.values():
            shard.close()

    def _end(self, ended: threading.Event) -> None:
        self._batching.end()
        ended.set()

    # --- ids

    def new_id(self, shard: int | None = None) -> int:
        """A queue id that was never given before. `shard`: for a message that must share a commit with another one (a
        DSN), the shard of the other one. Without it: the shard that takes new mail."""
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
        """Keeps a new message. With `waiting` (all its recipients) it counts as settled in this way at once: mail held
        on arrival. `reports`: the DSNs that it brings, in the same commit and of the same shard (ValueError).
        `done(None)`: it is on stable storage. After a Failure, content in a file still belongs to the caller."""
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
        """Keeps events that change nothing. They go with the next commit, or get one of their own after `record_s`."""
        self._batching.record(events)

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
        """Whether settlements wait because the disk fails: their commit failed, and may be on the disk all the same."""
        return self._writer.unsure

    def committed(self, shard: int) -> int:
        """The seq up to which the journal is committed; from any thread."""
        return self._shards[shard].committed

    def mark_of(self, reader: str, shard: int) -> int:
        """See `store.face.JournalMarks`."""
        return self._shards[shard].marks[reader]

    def refuses(self) -> str:
        """See `store.face.Spool`. Free pages within the files may still take a few small messages."""
        failure = self._space.room_on_disk()
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

    def take_due(
        self, shard: int, destination: str, before_us: int, limit: int, done: Callable[[list[Loaded]], None]
    ) -> None:
        """Gives recipients of a destination that are due before `before_us` and not held, by message, the oldest due
        first, at most `limit` of them. They stay due until they are settled."""
        self._put(shard, Read(questions.Take(destination, before_us, limit), done, []))

    def next_due(self, shard: int, destination: str, done: Callable[[int], None], after_us: int = 0) -> None:
        """When the first recipient of a destination that is not held is due after `after_us`; 0: none waits."""
        self._put(shard, Read(questions.NextDue(destination, after_us), done, 0))

    def load(self, id: int, done: Callable[[Loaded | None], None]) -> None:
        """A message with all its waiting recipients (none of a fresh one), None if it has ended."""
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
        """Gives destinations that have something due, and when the first of it is due: (time, destination), after the
        pair `after` and up to `until_us`, in this order, at most `limit` of them. Held mail is not due."""
        self._put(shard, Read(questions.Ahead(after, until_us, limit), done, []))

    def first_due(self, shard: int, names: Sequence[str], done: Callable[[dict[str, int]], None]) -> None:
        """When each of these destinations first has something due; those that have nothing are left out."""
        self._put(shard, Read(questions.FirstDue(names), done, {}))

    def content(self, id: int, done: Callable[[Content | None], None]) -> None:
        """The octets or the file of a message; None if it has ended, or if its content cannot be read (see the log)."""
        self._put(identifier.shard_of(id), Read(questions.Contents(id), done, None, id))

    def select(self, selection: Selection, done: Callable[[list[int]], None]) -> None:
        """The ids that an operator means, over all shards of this worker, at most `selection.limit`. Commits go on
        meanwhile, so the answer may or may not have messages that are accepted in this time."""
        _Select(self, selection, done).next_shard()

    # --- large content

    def incoming(self, id: int, resumed: Callable[[], None] | None = None) -> Incoming:
        """A file for content above `inline_max`; see `store.content.Incoming`."""
        if not self._files:
            return Incoming(self.directory, id, self._soon, self._soon, self._space.room_on_disk, resumed, self._posix)
        self._next_file = (self._next_file + 1) % len(self._files)
        run = self._files[self._next_file].put
        return Incoming(self.directory, id, run, self._soon_from_thread, self._space.room_on_disk, resumed, self._posix)

    def _unlink(self, path: Path) -> None:
        """Removes the content file of a message that has ended, on a thread: for many megabytes this takes a while."""
        if self._files:
            self._files[0].put(partial(remove, path, self._posix))
        else:
            remove(path, self._posix)

    def _soon(self, work: Callable[[], None]) -> None:
        self._loop.call_soon(work)

    def _soon_from_thread(self, work: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for it any more
            self._loop.call_soon_threadsafe(work)

    # --- what the parts report

    def _on_error(self, text: str) -> None:
        """From any thread."""
        self._note(Noted(self._clock.now_us(), 0, "error", text))

    def _on_whole(self, reserve: Path) -> None:
        """From any thread."""
        self._note(Noted(self._clock.now_us(), 0, "info", f"the reserve {reserve} is whole again"))

    def _note(self, event: Event) -> None:
        """From any thread."""
        try:
            self._loop.call_soon_threadsafe(self._log, event)
        except RuntimeError:  # the loop is closed
            self._log(event)


class _Select:
    """A selection that goes over the shards, a few steps between two commits."""

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
    """A thread that runs functions in the order in which it gets them."""

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
    """Checks that everything that must be in one commit is of one shard (promise 3)."""
    if any(identifier.shard_of(each.envelope.id) != shard for each in brought):
        raise ValueError("a message and the reports it brings must be of one shard: new_id(shard_of(id))")


def _log(event: Event) -> None:
    if isinstance(event, Noted):
        level = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}
        logging.getLogger("postroad.store").log(level.get(event.level, logging.ERROR), "%s", event.text)
