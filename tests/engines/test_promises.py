"""One suite of promises for all engines of the store: what `store.face` says, and `store.questions`.

A durable engine has to keep them over a restart, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from postroad.mail import identifier
from postroad.mail.event import Event, Noted
from postroad.store.face import HISTORY, Committed, JournalReader, Missed, Spool
from postroad.store.memory import MemorySpool
from postroad.store.sqlite.journal import SqliteJournal
from postroad.store.sqlite.spool import SqliteSpool
from postroad.store.values import Failure, FailureKind, Selection, Settlement, Stored
from tests.unit.store.sqlite.material import (
    OPTIONS,
    START_US,
    Chosen,
    Clock,
    Faults,
    accepted,
    message,
    relayed,
    waiting,
)

OTHER = JournalReader("other")
SLOW = JournalReader("slow", behind_max=3)
FULL = 13  # SQLITE_FULL


@dataclass
class Engine:
    """An engine with its desk: `ask` waits for the answer of a call."""

    directory: Path
    name: str
    readers: tuple[JournalReader, ...] = (HISTORY, OTHER)
    shards: tuple[int, ...] = (0, 1)
    clock: Clock = field(default_factory=Clock)
    faults: Faults = field(default_factory=Faults)
    heard: list[Event] = field(default_factory=list)
    spool: Spool = field(init=False)

    def open(self) -> Engine:
        loop = asyncio.get_running_loop()
        given: dict[str, Any] = {"published": self._published, "readers": self.readers}
        if self.name == "memory":
            self.spool = MemorySpool(self.directory, self.shards, OPTIONS, self.clock, loop, **given)
        else:
            self.spool = SqliteSpool(
                self.directory, self.shards, OPTIONS, self.clock, loop, connect=self.faults.connect,
                threads=self.name != "sqlite without threads", quickness=Chosen(on_loop="on the loop" in self.name),
                **given,
            )  # fmt: skip
        self.spool.start()
        return self

    def _published(self, shard: int, events: tuple[Event, ...]) -> None:
        self.heard.extend(events)

    def fail(self, *, failing: bool) -> None:
        """From now on commits are refused, or not any more."""
        if isinstance(self.spool, MemorySpool):
            failure = Failure(FailureKind.FULL, "made by the test") if failing else None
            self.spool.fail = lambda: failure
        else:
            self.faults.at = lambda sql: FULL if failing and sql == "COMMIT" else None

    async def ask(self, call: Callable[..., None], *arguments: Any) -> Any:
        answers: list[Any] = []
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(answer: Any) -> None:
            answers.append(answer)
            if len(answers) == 1:
                future.set_result(answer)

        call(*arguments, done)
        assert not answers, "never from within the call"
        return await asyncio.wait_for(future, 20)

    async def accept(self, *names: str, shard: int = 0, **fields: Any) -> Stored:
        stored = message(self.spool.new_id(shard), *names, **fields)
        assert await self.ask(self.spool.accept, stored, (accepted(stored),)) is None
        return stored

    async def settle(self, id: int, *ended: int, **fields: Any) -> Failure | None:
        answer = await self.ask(self.spool.settle, Settlement(id, ended, **fields))
        assert answer is None or isinstance(answer, Failure)
        return answer

    async def fresh(self, shard: int = 0) -> list[int]:
        return [each.id for each in await self.ask(self.spool.fresh, shard, 0, 1000)]

    def journal(self, shard: int = 0, after: int = 0) -> list[Committed]:
        if isinstance(self.spool, MemorySpool):
            return self.spool.read(shard, after, 1000)
        reader = SqliteJournal(self.directory, self.spool)
        try:
            return reader.read(shard, after, 1000)
        finally:
            reader.close()


# The engine in memory promises nothing over a restart.
DURABLE = ["sqlite", "sqlite with commits on the loop", "sqlite without threads"]


@pytest.fixture(params=[*DURABLE, "memory"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path / "spool", request.param)
    yield engine
    engine.spool.close()


async def test_what_is_accepted_is_fresh_until_it_is_settled_and_then_gone(made: Engine) -> None:
    engine = made.open()
    stored = await engine.accept("ann@a.example", "bob@b.example", content=b"x\r\n")
    id = stored.envelope.id
    assert await engine.fresh() == [id]
    assert await engine.ask(engine.spool.content, id) == b"x\r\n"
    loaded = await engine.ask(engine.spool.load, id)
    assert loaded.envelope == stored.envelope and loaded.waiting == ()
    assert await engine.settle(id, 0, 1, events=(relayed(id),)) is None
    assert await engine.fresh() == [] and await engine.ask(engine.spool.load, id) is None
    assert await engine.ask(engine.spool.content, id) is None


async def test_the_first_settlement_names_all_recipients(made: Engine) -> None:
    engine = made.open()
    stored = await engine.accept("ann@a.example", "bob@b.example")
    failure = await engine.settle(stored.envelope.id, 0)
    assert failure is not None and failure.kind is FailureKind.INVALID
    assert await engine.fresh() == [stored.envelope.id]
    assert await engine.settle(stored.envelope.id, 0, waiting=(waiting(1),)) is None
    assert await engine.settle(stored.envelope.id, 5, 0) is None, "what is not there changes nothing"
    assert [row.index for row in (await engine.ask(engine.spool.load, stored.envelope.id)).waiting] == [1]
    assert await engine.settle(stored.envelope.id, 1) is None
    assert await engine.settle(stored.envelope.id, 1) is None, "an end again"


async def test_a_failed_commit_leaves_nothing_and_publishes_nothing(made: Engine) -> None:
    engine = made.open()
    kept = await engine.accept()
    heard = list(engine.heard)
    journal = engine.journal()
    engine.fail(failing=True)
    refused = message(engine.spool.new_id(0))
    failure = await engine.ask(engine.spool.accept, refused, (accepted(refused),))
    assert isinstance(failure, Failure) and failure.kind is FailureKind.FULL
    engine.fail(failing=False)
    later = await engine.accept()
    assert await engine.fresh() == [kept.envelope.id, later.envelope.id]
    assert engine.heard == [*heard, accepted(later)]
    assert engine.journal()[: len(journal)] == journal and len(engine.journal()) == len(journal) + 1


async def test_answers_and_published_events_come_in_the_order_of_the_calls(made: Engine) -> None:
    engine = made.open()
    told: list[str] = []
    stored = [message(engine.spool.new_id(0)) for _ in range(5)]
    for number, each in enumerate(stored):
        events = (Noted(START_US, each.envelope.id, "info", str(number)),)

        def done(failure: Failure | None, number: int = number) -> None:
            assert failure is None and len(engine.heard) > number, "published before the callback"
            told.append(f"accept {number}")

        engine.spool.accept(each, events, done)
        engine.spool.load(each.envelope.id, lambda loaded, number=number: told.append(f"load {number}"))  # type: ignore[misc]
    await engine.ask(engine.spool.fresh, 0, 0, 1)
    assert told == [f"{what} {number}" for number in range(5) for what in ("accept", "load")]
    assert [event.text for event in engine.heard if isinstance(event, Noted)] == list("01234")
    assert [event for row in engine.journal() for event in row.events] == engine.heard


async def test_ids_grow_and_name_their_shard(made: Engine) -> None:
    engine = made.open()
    ids = [engine.spool.new_id(shard) for _ in range(50) for shard in (0, 1)]
    assert len(set(ids)) == 100
    assert all(identifier.shard_of(id) == place % 2 for place, id in enumerate(ids))
    assert ids[::2] == sorted(ids[::2]) and ids[1::2] == sorted(ids[1::2])
    with pytest.raises(ValueError, match="of one shard"):
        engine.spool.accept(message(ids[0]), (), lambda failure: None, (), (message(ids[1]),))


async def test_what_is_due_comes_the_oldest_first_and_what_is_held_does_not(made: Engine) -> None:
    engine = made.open()
    stored = await engine.accept(*(f"{name}@a.example" for name in "abcd"))
    id = stored.envelope.id
    rows = (
        waiting(0, due_us=30, destination="x"), waiting(1, due_us=10, destination="x"),
        waiting(2, due_us=20, destination="y"), waiting(3, due_us=5, destination="x", held=True),
    )  # fmt: skip
    assert await engine.settle(id, waiting=rows) is None
    (loaded,) = await engine.ask(engine.spool.take_due, 0, "x", 30, 10)
    assert [row.index for row in loaded.waiting] == [1, 0]
    (loaded,) = await engine.ask(engine.spool.take_due, 0, "x", 30, 1)
    assert [row.index for row in loaded.waiting] == [1]
    assert await engine.ask(engine.spool.take_due, 0, "x", 9, 10) == []
    assert await engine.ask(engine.spool.ahead, 0, (-1, ""), 100, 10) == [(10, "x"), (20, "y")]
    assert await engine.ask(engine.spool.ahead, 0, (10, "x"), 100, 10) == [(20, "y")]
    assert await engine.ask(engine.spool.first_due, 0, ["x", "y", "z"]) == {"x": 10, "y": 20}
    assert await engine.ask(lambda done: engine.spool.next_due(0, "x", done, after_us=10)) == 30
    assert await engine.ask(lambda done: engine.spool.next_due(0, "x", done, after_us=30)) == 0
    released = msgspec.structs.replace(rows[3], held=False)
    assert await engine.settle(id, waiting=(released,)) is None
    assert await engine.ask(engine.spool.first_due, 0, ["x"]) == {"x": 5}


async def test_reports_come_with_the_settlement_that_brings_them(made: Engine) -> None:
    engine = made.open()
    stored = await engine.accept("ann@a.example")
    report = message(engine.spool.new_id(0))
    engine.fail(failing=True)
    assert await engine.settle(stored.envelope.id, 0, accepted=(report,)) is not None
    engine.fail(failing=False)
    assert await engine.fresh() == [stored.envelope.id]
    assert await engine.settle(stored.envelope.id, 0, accepted=(report,)) is None
    assert await engine.fresh() == [report.envelope.id]


async def test_a_selection_means_the_same_everywhere(made: Engine) -> None:
    engine = made.open()
    one = await engine.accept("ann@a.example", shard=0)
    two = await engine.accept("bob@b.example", shard=1)
    row = waiting(0, destination="b.example", held=True)
    assert await engine.settle(two.envelope.id, waiting=(row,)) is None
    ids = [one.envelope.id, two.envelope.id]
    for selection, found in (
        (Selection(), ids), (Selection(limit=1), ids[:1]), (Selection(ids=(ids[1], 5)), ids[1:]),
        (Selection(recipient="@A.example"), ids[:1]), (Selection(held=True), ids[1:]),
        (Selection(held=False), ids[:1]), (Selection(destination="b.example"), ids[1:]),
        (Selection(sender="nobody@x.example"), []),
    ):  # fmt: skip
        assert await engine.ask(engine.spool.select, selection) == found, selection


async def test_the_journal_goes_up_to_the_least_mark(made: Engine) -> None:
    engine = made.open()
    spool = engine.spool
    for _ in range(4):
        await engine.accept()
    seqs = [row.seq for row in engine.journal()]
    assert len(seqs) == 4 and spool.committed(0) == seqs[-1]
    spool.mark("history", 0, seqs[-1])
    spool.mark("nobody", 0, seqs[-1])
    await engine.ask(spool.fresh, 0, 0, 1)
    assert [row.seq for row in engine.journal()] == seqs
    spool.mark("other", 0, seqs[1])
    await engine.ask(spool.fresh, 0, 0, 1)
    await engine.ask(spool.fresh, 0, 0, 1)
    assert [row.seq for row in engine.journal()] == seqs[2:]
    assert (spool.mark_of("history", 0), spool.mark_of("other", 0)) == (seqs[-1], seqs[1])
    spool.mark("other", 0, seqs[-1])
    await engine.ask(spool.fresh, 0, 0, 1)
    await engine.ask(spool.fresh, 0, 0, 1)
    assert [row.seq for row in engine.journal()] == seqs[-1:], "the last commit stays"


async def test_a_reader_too_far_behind_misses_commits(made: Engine) -> None:
    made.readers = (HISTORY, SLOW)
    engine = made.open()
    for _ in range(5):
        await engine.accept()
    engine.spool.mark("history", 0, engine.spool.committed(0))
    await engine.ask(engine.spool.fresh, 0, 0, 1)
    await engine.ask(engine.spool.fresh, 0, 0, 1)
    assert engine.spool.missed() == [Missed("slow", 0, 2)]
    assert len(engine.journal()) == 3


async def test_what_is_recorded_is_kept_and_not_published(made: Engine) -> None:
    engine = made.open()
    noted = Noted(START_US, 0, "info", "recorded")
    engine.spool.record((noted,))
    await engine.accept()
    assert noted in [event for row in engine.journal() for event in row.events] and noted not in engine.heard


async def test_large_content_is_a_file_that_goes_with_its_message(made: Engine) -> None:
    engine = made.open()
    id = engine.spool.new_id(0)
    incoming = engine.spool.incoming(id)
    incoming.write(b"large")
    file = await engine.ask(incoming.finish)
    assert await engine.ask(engine.spool.accept, message(id, content=file), ()) is None
    assert Path(file.path).read_bytes() == b"large" and await engine.ask(engine.spool.content, id) == file
    assert await engine.settle(id, 0) is None
    engine.spool.close()
    assert not Path(file.path).exists()


async def test_a_spool_that_is_closed_answers_and_takes_nothing(made: Engine) -> None:
    engine = made.open()
    stored = message(engine.spool.new_id(0))
    answers: list[Any] = []
    engine.spool.accept(stored, (accepted(stored),), answers.append)
    engine.spool.close()
    assert answers == [None] and engine.heard == [accepted(stored)]
    failure = await engine.ask(engine.spool.settle, Settlement(stored.envelope.id, (0,)))
    assert failure.kind is FailureKind.CLOSED
    assert await engine.ask(engine.spool.fresh, 0, 0, 10) == []


@pytest.mark.parametrize("made", DURABLE, indirect=True)
async def test_a_durable_engine_has_all_of_it_after_a_restart(made: Engine) -> None:
    engine = made.open()
    fresh = await engine.accept("ann@a.example")
    waits = await engine.accept("bob@b.example")
    assert await engine.settle(waits.envelope.id, waiting=(waiting(0),)) is None
    seq = engine.spool.committed(0)
    assert await engine.ask(lambda done: engine.spool.mark("other", 0, seq) or engine.spool.fresh(0, 0, 1, done))
    last = engine.spool.new_id(0)
    journal = engine.journal()
    engine.spool.close()
    engine.open()
    assert await engine.fresh() == [fresh.envelope.id]
    assert (await engine.ask(engine.spool.load, waits.envelope.id)).waiting == (waiting(0),)
    assert engine.spool.mark_of("other", 0) == seq and engine.journal() == journal
    assert engine.spool.new_id(0) > max(fresh.envelope.id, waits.envelope.id) and last
