"""The memory engine: the spool and its journal in dicts, for measuring a node without a disk, and for tests.

It keeps every contract of `store.face` but one: nothing outlives the process. Large content goes to files, as with the
other engine (`store.content`). What always holds: an operation is executed whole or not at all, in the order of the
calls; all operations of one turn of the loop are one commit, and their answers come in a later turn. `fail` lets a test
refuse commits.

How it fails: only by `fail`. Used on the loop only.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, assert_never

from postroad.mail import identifier
from postroad.mail.envelope import Envelope
from postroad.mail.event import Event
from postroad.mail.message import Content, ContentFile
from postroad.store import content
from postroad.store.arrivals import Arrivals
from postroad.store.content import Incoming
from postroad.store.face import HISTORY, Committed, JournalReader, Missed
from postroad.store.options import SpoolOptions
from postroad.store.questions import Ahead, Contents, FirstDue, Fresh, Load, NextDue, Question, Select, Take
from postroad.store.selection import means_envelope, means_states
from postroad.store.values import Failure, FailureKind, Loaded, Selection, Settlement, Stored, Waiting
from postroad.world.clock import Clock

_JOURNAL_MAX: Final = 100_000  # commits of a shard that are kept for readers; of more, the oldest are missed
_CLOSED: Final = Failure(FailureKind.CLOSED, "the spool is closed")

Done = Callable[[Failure | None], None]


class MemoryShard:
    """The messages of one shard. `states` of a message is None while it is fresh."""

    def __init__(self, number: int, now_us: Callable[[], int], readers: Sequence[JournalReader]) -> None:
        self.number = number
        self.last_id = number
        self.messages: dict[int, Stored] = {}
        self.states: dict[int, dict[int, Waiting] | None] = {}
        self.journal: list[Committed] = []
        self.seq = now_us()
        self.readers = {each.name: each for each in readers}
        self.marks = dict.fromkeys(self.readers, self.seq)
        self.missed: dict[str, int] = {}

    # --- changes

    def accept(self, stored: Stored, waiting: tuple[Waiting, ...], reports: tuple[Stored, ...]) -> None:
        self._add(stored, {row.index: row for row in waiting} if waiting else None)
        for report in reports:
            self._add(report, None)

    def _add(self, stored: Stored, states: dict[int, Waiting] | None) -> None:
        self.messages[stored.envelope.id] = stored
        self.states[stored.envelope.id] = states

    def settle(self, settlement: Settlement) -> Failure | None:
        """Settles recipients. If a message or a recipient is not there any more, nothing changes."""
        id = settlement.id
        stored = self.messages.get(id)
        if stored is not None:
            failure = self._change(stored, settlement)
            if failure is not None:
                return failure
        for report in settlement.accepted:
            self._add(report, None)
        return None

    def _change(self, stored: Stored, settlement: Settlement) -> Failure | None:
        id = settlement.id
        rows = self.states[id]
        if rows is None:
            named = {*settlement.ended, *(row.index for row in settlement.waiting)}
            count = len(stored.envelope.recipients)
            if len(named) != count:
                text = f"first settlement of {identifier.text(id)} names {len(named)} of {count} recipients"
                return Failure(FailureKind.INVALID, text)
            rows = self.states[id] = {row.index: row for row in settlement.waiting}
        else:
            rows.update({row.index: row for row in settlement.waiting if row.index in rows})
            for index in settlement.ended:
                rows.pop(index, None)
        if not rows:
            del self.messages[id], self.states[id]
            if isinstance(stored.content, ContentFile):
                content.remove(Path(stored.content.path))
        return None

    # --- the journal

    def write(self, events: tuple[Event, ...], now_us: int) -> None:
        self.seq += 1
        self.journal.append(Committed(self.seq, now_us, events))
        if len(self.journal) > _JOURNAL_MAX:
            self._skip(self.journal[0].seq)

    def _skip(self, seq: int) -> None:
        for name, mark in self.marks.items():
            if mark < seq:
                self.missed[name] = self.missed.get(name, 0) + seq - mark
                self.marks[name] = seq
        self._trim()

    def mark(self, reader: str, seq: int) -> None:
        if reader not in self.marks:
            return
        self.marks[reader] = max(self.marks[reader], seq)
        for name, of in self.readers.items():
            least = self.seq - of.behind_max
            if of.behind_max and self.marks[name] < least:
                self.missed[name] = self.missed.get(name, 0) + least - self.marks[name]
                self.marks[name] = least
        self._trim()

    def _trim(self) -> None:
        place = bisect_right(self.journal, min(self.marks.values()), key=lambda row: row.seq)
        del self.journal[: min(place, len(self.journal) - 1)]

    # --- questions

    def answer(self, question: Question) -> Any:
        """Answers a question as its class in `store.questions` says."""
        match question:
            case Take(destination, before_us, limit):
                return self._take(destination, before_us, limit)
            case NextDue(destination, after_us):
                due = [row.due_us for _, row in self._due() if row.destination == destination]
                return min((due_us for due_us in due if due_us > (after_us or -1)), default=0)
            case Load(id):
                return self._load(id)
            case Fresh(after, limit):
                ids = sorted(id for id, rows in self.states.items() if rows is None and id > after)
                return [self.messages[id].envelope for id in ids[:limit]]
            case Ahead(after, until_us, limit):
                found = sorted((due_us, name) for name, due_us in self._first_due().items())
                return [each for each in found if after < each and each[0] <= until_us][:limit]
            case FirstDue(destinations):
                first = self._first_due()
                return {name: first[name] for name in destinations if name in first}
            case Contents(id):
                return self.messages[id].content if id in self.messages else None
            case Select(selection, after):
                ids = sorted(id for id in self.messages if id > after and self._means(selection, id))
                return ids, None
            case _ as unknown:
                assert_never(unknown)

    def _due(self) -> Iterator[tuple[int, Waiting]]:
        for id, rows in self.states.items():
            for row in (rows or {}).values():
                if not row.held:
                    yield id, row

    def _first_due(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for _, row in self._due():
            found[row.destination] = min(row.due_us, found.get(row.destination, row.due_us))
        return found

    def _take(self, destination: str, before_us: int, limit: int) -> list[Loaded]:
        due = [(row.due_us, id, row.index, row) for id, row in self._due() if row.destination == destination]
        found: dict[int, list[Waiting]] = {}
        for _, id, _, row in sorted(each for each in due if each[0] <= before_us)[:limit]:
            found.setdefault(id, []).append(row)
        return [Loaded(self.messages[id].envelope, tuple(rows)) for id, rows in found.items()]

    def _load(self, id: int) -> Loaded | None:
        if id not in self.messages:
            return None
        rows = self.states[id] or {}
        return Loaded(self.messages[id].envelope, tuple(rows[index] for index in sorted(rows)))

    def _means(self, selection: Selection, id: int) -> bool:
        states = frozenset((row.destination, row.held) for row in (self.states[id] or {}).values())
        return (
            (not selection.ids or id in selection.ids)
            and means_states(selection, states)
            and means_envelope(selection, self.messages[id].envelope)
        )


class MemorySpool:
    """The engine in memory: `store.face.Spool` and `store.face.Journal`. `directory`: for large content."""

    def __init__(
        self,
        directory: Path,
        shards: Sequence[int],
        options: SpoolOptions,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        *,
        published: Callable[[int, tuple[Event, ...]], None] = lambda shard, events: None,
        readers: Sequence[JournalReader] = (HISTORY,),
    ) -> None:
        if not shards:
            raise ValueError("a spool has at least one shard")
        self.options = options
        self.arrivals = Arrivals(loop.time)
        self.fail: Callable[[], Failure | None] = lambda: None  # why the next commit fails
        self._directory = directory
        self._clock = clock
        self._loop = loop
        self._published = published
        self._shards = {number: MemoryShard(number, clock.now_us, readers) for number in shards}
        self._main = next(iter(self._shards))
        self._gathered: list[Callable[[Failure | None], None]] = []
        self._events: dict[int, list[Event]] = {}  # of the commit under way, by shard
        self._answers: list[Callable[[], None]] = []
        self._recorded: list[Event] = []
        self._running = False

    @property
    def shards(self) -> Sequence[int]:
        return tuple(self._shards)

    @property
    def unsure(self) -> bool:
        return False

    def start(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._running = True

    def close(self) -> None:
        """Does what was asked, and answers it within the call, because the loop may be about to end."""
        self._commit()
        self._answer()
        self._running = False

    def new_id(self, shard: int | None = None) -> int:
        part = self._shards[self._main if shard is None else shard]
        part.last_id = identifier.make(self._clock.now_us(), part.number, part.last_id)
        return part.last_id

    # --- changes

    def accept(
        self,
        stored: Stored,
        events: tuple[Event, ...],
        done: Done,
        waiting: tuple[Waiting, ...] = (),
        reports: tuple[Stored, ...] = (),
    ) -> None:
        shard = self._shard_of(stored.envelope.id, reports)

        def work() -> Failure | None:
            self._shards[shard].accept(stored, waiting, reports)
            return None

        self._put(shard, work, events, done)

    def settle(self, settlement: Settlement, done: Done) -> None:
        shard = self._shard_of(settlement.id, settlement.accepted)
        self._put(shard, lambda: self._shards[shard].settle(settlement), settlement.events, done)

    def record(self, events: tuple[Event, ...]) -> None:
        if self._running and events:
            self._recorded.extend(events)
            self._gather(lambda failure: None)

    def mark(self, reader: str, shard: int, seq: int, done: Done = lambda failure: None) -> None:
        work = partial(self._shards[shard].mark, reader, seq)
        self._loop.call_soon_threadsafe(self._put, shard, work, (), done)

    def _shard_of(self, id: int, brought: tuple[Stored, ...]) -> int:
        shard = identifier.shard_of(id)
        if any(identifier.shard_of(each.envelope.id) != shard for each in brought):
            raise ValueError("a message and the reports it brings must be of one shard: new_id(shard_of(id))")
        return shard

    def _put(self, shard: int, work: Callable[[], Failure | None], events: tuple[Event, ...], done: Done) -> None:
        if not self._running or shard not in self._shards:
            self._loop.call_soon(done, _CLOSED)
            return
        self._gather(partial(self._execute, shard, work, events, done))

    def _execute(
        self,
        shard: int,
        work: Callable[[], Failure | None],
        events: tuple[Event, ...],
        done: Done,
        failure: Failure | None,
    ) -> None:
        failure = failure or work()
        if failure is None and events:
            self._events.setdefault(shard, []).extend(events)
            self._answers.append(partial(self._published, shard, events))
        self._answers.append(partial(done, failure))

    def _gather(self, step: Callable[[Failure | None], None]) -> None:
        self._gathered.append(step)
        if len(self._gathered) == 1:
            self._loop.call_soon(self._commit_soon)

    def _commit_soon(self) -> None:
        self._commit()
        self._loop.call_soon(self._answer)

    def _commit(self) -> None:
        gathered, self._gathered = self._gathered, []
        if not gathered:
            return
        failure = self.fail()
        for step in gathered:
            step(failure)
        if failure is None and self._recorded:
            self._events.setdefault(self._main, []).extend(self._recorded)
            self._recorded = []
        for shard, events in self._events.items():
            self._shards[shard].write(tuple(events), self._clock.now_us())
        self._events = {}

    def _answer(self) -> None:
        answers, self._answers = self._answers, []
        for answer in answers:
            try:
                answer()
            except Exception as error:
                self._loop.call_exception_handler({"message": "callback of the spool", "exception": error})

    # --- the journal

    def committed(self, shard: int) -> int:
        return self._shards[shard].seq

    def mark_of(self, reader: str, shard: int) -> int:
        return self._shards[shard].marks[reader]

    def read(self, shard: int, after: int, limit: int) -> list[Committed]:
        journal = self._shards[shard].journal
        place = bisect_right(journal, after, key=lambda row: row.seq)
        return journal[place : place + limit]

    def refuses(self) -> str:
        return ""

    def missed(self) -> list[Missed]:
        return [
            Missed(name, number, count) for number, part in self._shards.items() for name, count in part.missed.items()
        ]

    # --- questions

    def _ask(self, shard: int, question: Question, done: Callable[[Any], None], empty: Any) -> None:
        if not self._running or shard not in self._shards:
            self._loop.call_soon(done, empty)
            return

        def step(failure: Failure | None) -> None:
            self._answers.append(partial(done, self._shards[shard].answer(question)))

        self._gather(step)

    def take_due(
        self, shard: int, destination: str, before_us: int, limit: int, done: Callable[[list[Loaded]], None]
    ) -> None:
        self._ask(shard, Take(destination, before_us, limit), done, [])

    def next_due(self, shard: int, destination: str, done: Callable[[int], None], after_us: int = 0) -> None:
        self._ask(shard, NextDue(destination, after_us), done, 0)

    def load(self, id: int, done: Callable[[Loaded | None], None]) -> None:
        self._ask(identifier.shard_of(id), Load(id), done, None)

    def fresh(self, shard: int, after: int, limit: int, done: Callable[[list[Envelope]], None]) -> None:
        self._ask(shard, Fresh(after, limit), done, [])

    def ahead(
        self,
        shard: int,
        after: tuple[int, str],
        until_us: int,
        limit: int,
        done: Callable[[list[tuple[int, str]]], None],
    ) -> None:
        self._ask(shard, Ahead(after, until_us, limit), done, [])

    def first_due(self, shard: int, names: Sequence[str], done: Callable[[dict[str, int]], None]) -> None:
        self._ask(shard, FirstDue(names), done, {})

    def content(self, id: int, done: Callable[[Content | None], None]) -> None:
        self._ask(identifier.shard_of(id), Contents(id), done, None)

    def select(self, selection: Selection, done: Callable[[list[int]], None]) -> None:
        def step(failure: Failure | None) -> None:
            question = Select(selection, 0)
            found = sorted(id for part in self._shards.values() for id in part.answer(question)[0])
            self._answers.append(partial(done, found[: selection.limit]))

        if self._running:
            self._gather(step)
        else:
            self._loop.call_soon(done, [])

    # --- large content

    def incoming(self, id: int, resumed: Callable[[], None] | None = None) -> Incoming:
        return Incoming(self._directory, id, self._soon, self._soon, lambda: None, resumed)

    def _soon(self, work: Callable[[], None]) -> None:
        self._loop.call_soon(work)
