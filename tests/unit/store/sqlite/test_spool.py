"""The spool on a real disk and loop: what is accepted, settled and asked, in order, over restarts."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from postroad.mail import identifier
from postroad.mail.event import Accepted, Noted
from postroad.store.arrivals import BUSY
from postroad.store.sqlite import codec, schema
from postroad.store.sqlite.reader import SpoolReader
from postroad.store.sqlite.spool import SpoolOptions, SqliteSpool
from postroad.store.values import Backlog, FailureKind, Selection, Settlement
from tests.unit.store.sqlite.material import (
    OPTIONS,
    START_US,
    TABLES,
    Clock,
    Desk,
    accepted,
    is_empty,
    message,
    open_spool,
    relayed,
    rows,
    waiting,
)

pytestmark = pytest.mark.usefixtures("commits_on")
THREADS = pytest.mark.parametrize("threads", [True, False])


async def ahead(desk: Desk, shard: int) -> list[str]:
    """All destinations that have something due some time."""
    return [name for _, name in await desk.ask(desk.spool.ahead, shard, (-1, ""), 1 << 62, 1000)]


@THREADS
async def test_a_message_that_is_delivered_leaves_nothing_but_events(tmp_path: Path, threads: bool) -> None:
    with open_spool(tmp_path, threads=threads) as desk:
        stored = await desk.accept("ann@example.com", "bob@example.com", content=b"x\r\n")
        assert await desk.fresh_ids() == [stored.envelope.id]
        assert await desk.ask(desk.spool.content, stored.envelope.id) == b"x\r\n"
        await desk.settle(stored.envelope.id, 0, 1, events=(relayed(stored.envelope.id),))
        assert await desk.fresh_ids() == []
        assert await desk.ask(desk.spool.content, stored.envelope.id) is None
        assert await desk.load(stored.envelope.id) is None
    assert is_empty(tmp_path)
    assert rows(tmp_path, "journal") == 2


@THREADS
async def test_what_waits_is_found_by_destination_until_it_ends(tmp_path: Path, threads: bool) -> None:
    with open_spool(tmp_path, threads=threads) as desk:
        stored = await desk.accept("ann@a.example", "bob@b.example", "cy@a.example")
        id = stored.envelope.id
        first, second = waiting(0, "a.example", START_US + 50), waiting(2, "a.example", START_US + 10, attempts=3)
        await desk.settle(id, 1, waiting=(first, second))
        assert await desk.fresh_ids() == []
        [loaded] = await desk.ask(desk.spool.take_due, 0, "a.example", START_US + 100, 10)
        assert loaded.envelope == stored.envelope
        assert loaded.waiting == (second, first), "the oldest due first"
        assert await desk.ask(desk.spool.take_due, 0, "b.example", START_US + 100, 10) == []
        [loaded] = await desk.ask(desk.spool.take_due, 0, "a.example", START_US + 20, 10)
        assert loaded.waiting == (second,)
        [loaded] = await desk.ask(desk.spool.take_due, 0, "a.example", START_US + 100, 1)
        assert loaded.waiting == (second,)
        await desk.settle(id, 2)
        assert (await desk.load(id)).waiting == (first,)
        await desk.settle(id, 0)
    assert is_empty(tmp_path)


@THREADS
async def test_a_later_settlement_replaces_the_state(tmp_path: Path, threads: bool) -> None:
    with open_spool(tmp_path, threads=threads) as desk:
        id = (await desk.accept()).envelope.id
        await desk.settle(id, waiting=(waiting(0, "a.example"),))
        moved = waiting(0, "b.example", START_US + 5, attempts=2, delay_reported=True, text="no answer", status="4.4.1")
        await desk.settle(id, waiting=(moved,))
        assert (await desk.load(id)).waiting == (moved,)
        assert [each.destination for each in SpoolReader(tmp_path).backlog().shown] == ["b.example"]


async def test_next_due_and_backlog_leave_out_what_is_held(tmp_path: Path) -> None:
    with open_spool(tmp_path) as desk:
        id = (await desk.accept("a@x.example", "b@x.example", "c@x.example", "d@y.example")).envelope.id
        places = (
            waiting(0, "x.example", START_US + 10, held=True), waiting(1, "x.example", START_US + 30),
            waiting(2, "x.example", START_US + 20), waiting(3, "y.example", START_US + 1, held=True),
        )  # fmt: skip
        await desk.settle(id, waiting=places)
        assert await desk.ask(desk.spool.next_due, 0, "x.example") == START_US + 20
        done = asyncio.get_running_loop().create_future()
        desk.spool.next_due(0, "x.example", done.set_result, START_US + 20)
        assert await done == START_US + 30
        assert await desk.ask(desk.spool.next_due, 0, "y.example") == 0
        found = SpoolReader(tmp_path).waiting(["x.example", "y.example", "z.example"])
        assert found == {
            "x.example": Backlog("x.example", 3, 1, START_US + 20), "y.example": Backlog("y.example", 1, 1, 0)
        }  # fmt: skip
        assert await desk.ask(desk.spool.ahead, 0, (0, ""), START_US + 99, 9) == [(START_US + 20, "x.example")]
        assert await desk.ask(desk.spool.first_due, 0, ["x.example", "y.example"]) == {"x.example": START_US + 20}
        assert await desk.ask(desk.spool.take_due, 0, "y.example", START_US + 99, 9) == []


async def test_a_message_may_be_held_on_arrival(tmp_path: Path) -> None:
    with open_spool(tmp_path) as desk:
        stored = message(desk.new_id(), "ann@example.com")
        done = asyncio.get_running_loop().create_future()
        held = waiting(0, "example.com", held=True)
        desk.spool.accept(stored, (accepted(stored),), done.set_result, (held,))
        assert await done is None
        assert await desk.fresh_ids() == []
        assert (await desk.load(stored.envelope.id)).waiting == (held,)
        await desk.settle(stored.envelope.id, 0)
    assert is_empty(tmp_path)


@THREADS
async def test_an_acceptance_brings_its_reports_in_its_own_commit(tmp_path: Path, threads: bool) -> None:
    with open_spool(tmp_path, threads=threads) as desk:
        stored, report = message(desk.new_id()), message(desk.new_id(), reverse_path=None)
        done = asyncio.get_running_loop().create_future()
        desk.spool.accept(stored, (), done.set_result, (), (report,))
        assert await done is None
        assert await desk.fresh_ids() == [stored.envelope.id, report.envelope.id]


async def test_a_failure_its_report_and_the_removal_are_one_commit(tmp_path: Path) -> None:
    with open_spool(tmp_path) as desk:
        id = (await desk.accept()).envelope.id
        report = message(desk.new_id(), "sender@example.org", reverse_path=None, parent=id)
        before = rows(tmp_path, "journal")
        await desk.settle(id, 0, accepted=(report,), events=(relayed(id), accepted(report)))
        assert rows(tmp_path, "journal") == before + 1
        assert await desk.fresh_ids() == [report.envelope.id]
        assert await desk.ask(desk.spool.content, report.envelope.id) == report.content


async def test_a_report_of_another_shard_is_a_bug(tmp_path: Path) -> None:
    with open_spool(tmp_path, (0, 1)) as desk:
        id = (await desk.accept()).envelope.id
        with pytest.raises(ValueError, match="one shard"):
            desk.spool.settle(Settlement(id, (0,), accepted=(message(desk.new_id(1)),)), print)


@pytest.mark.parametrize(
    ("ended", "places"), [((0,), ()), ((), (1,)), ((0, 0, 0), ()), ((0, 1, 2), (3,)), ((), ())]
)
async def test_a_first_settlement_that_does_not_name_all_is_refused(
    tmp_path: Path, ended: tuple[int, ...], places: tuple[int, ...]
) -> None:
    with open_spool(tmp_path) as desk:
        id = (await desk.accept("a@x.example", "b@x.example", "c@x.example")).envelope.id
        failure = await desk.try_settle(id, *ended, waiting=tuple(map(waiting, places)), events=(relayed(id),))
        assert failure is not None
        assert failure.kind is FailureKind.INVALID
        assert await desk.fresh_ids() == [id], "nothing has changed"
        assert rows(tmp_path, "journal") == 1
        await desk.settle(id, 0, 1, 2)
    assert is_empty(tmp_path)


async def test_what_has_ended_stays_ended(tmp_path: Path) -> None:
    with open_spool(tmp_path) as desk:
        id = (await desk.accept("a@x.example", "b@x.example")).envelope.id
        await desk.settle(id, 0, waiting=(waiting(1),))
        await desk.settle(id, waiting=(waiting(0), waiting(1, attempts=7)))
        assert [(each.index, each.attempts) for each in (await desk.load(id)).waiting] == [(1, 7)]
        await desk.settle(id, 1)
        await desk.settle(id, 1)
        await desk.settle(id, waiting=(waiting(1),))
        assert await desk.load(id) is None
    assert is_empty(tmp_path)


@THREADS
async def test_operations_are_executed_in_the_order_of_the_calls(tmp_path: Path, threads: bool) -> None:
    """All at once, so that they stand in few commits; each read must see exactly what was asked before it."""
    with open_spool(tmp_path, threads=threads) as desk:
        spool, seen = desk.spool, []
        everything = asyncio.get_running_loop().create_future()

        def note(name: str) -> Any:
            return lambda answer: seen.append((name, answer))

        stored = message(desk.new_id(), "a@x.example", "b@x.example")
        id = stored.envelope.id
        spool.load(id, note("before"))
        spool.accept(stored, (), note("accepted"))
        spool.load(id, note("fresh"))
        spool.settle(Settlement(id, (0,), (waiting(1, "x.example"),)), note("settled"))
        spool.take_due(0, "x.example", START_US + 9, 9, note("taken"))
        spool.settle(Settlement(id, (), (waiting(1, "y.example"),)), note("moved"))
        spool.settle(Settlement(id, (), (waiting(1, "z.example"),)), note("moved again"))
        spool.take_due(0, "x.example", START_US + 9, 9, note("gone from there"))
        spool.next_due(0, "z.example", note("due"))
        spool.settle(Settlement(id, (1,)), note("ended"))
        spool.settle(Settlement(id, (), (waiting(1, "z.example"),)), note("too late"))
        spool.load(id, note("after"))
        spool.next_due(0, "z.example", everything.set_result)
        assert await asyncio.wait_for(everything, 20) == 0
        assert [name for name, _ in seen] == [
            "before", "accepted", "fresh", "settled", "taken", "moved", "moved again", "gone from there", "due",
            "ended", "too late", "after",
        ]  # fmt: skip
        answers = dict(seen)
        assert answers["before"] is None
        assert answers["fresh"].waiting == ()
        assert [each.waiting[0].index for each in answers["taken"]] == [1]
        assert answers["gone from there"] == []
        assert answers["due"] == START_US
        assert answers["after"] is None
        assert all(answers[name] is None for name in ("accepted", "settled", "moved", "moved again", "ended"))
    assert is_empty(tmp_path)


async def test_accepted_and_settled_before_the_commit_of_the_first(tmp_path: Path) -> None:
    with open_spool(tmp_path) as desk:
        done: list[Any] = []
        for _ in range(300):
            stored = message(desk.new_id())
            desk.spool.accept(stored, (accepted(stored),), done.append)
            desk.spool.settle(Settlement(stored.envelope.id, (0,), events=(relayed(stored.envelope.id),)), done.append)
        assert await desk.fresh_ids() == []
        assert done == [None] * 600
        assert rows(tmp_path, "journal") < 100, "many to a commit"
    assert is_empty(tmp_path)


async def test_many_of_each_kind_in_one_commit(tmp_path: Path) -> None:
    """Counts around the sizes of the statements."""
    with open_spool(tmp_path, threads=False) as desk:
        for count in (1, 2, 5, 63, 64, 65, 129):
            ids = []
            for _ in range(count):
                stored = message(desk.new_id(), "a@x.example", "b@y.example")
                ids.append(stored.envelope.id)
                desk.spool.accept(stored, (), _must_be_none)
            assert await desk.fresh_ids() == ids
            for id in ids:
                desk.spool.settle(Settlement(id, (0,), (waiting(1, "y.example"),)), _must_be_none)
            assert await ahead(desk, 0) == ["y.example"]  # asked behind the settlements: they are committed by now
            [entry] = SpoolReader(tmp_path).backlog().shown
            assert entry.count == count
            for id in ids:
                changed = waiting(1, "z.example", id)
                desk.spool.settle(Settlement(id, (), (changed,)), _must_be_none)
            taken = await desk.ask(desk.spool.take_due, 0, "z.example", 1 << 62, 1000)
            assert [each.envelope.id for each in taken] == ids
            for id in ids:
                desk.spool.settle(Settlement(id, (1,)), _must_be_none)
            assert await ahead(desk, 0) == []
            assert SpoolReader(tmp_path).backlog().shown == ()
    assert is_empty(tmp_path)


def _must_be_none(answer: Any) -> None:
    assert answer is None


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    with open_spool(tmp_path) as desk:
        fresh = await desk.accept(content=b"fresh")
        settled = await desk.accept("a@x.example", "b@x.example", content=b"settled")
        await desk.settle(settled.envelope.id, 0, waiting=(waiting(1, "x.example"),))
    with open_spool(tmp_path) as desk:
        assert await desk.fresh_ids() == [fresh.envelope.id]
        assert await desk.ask(desk.spool.content, fresh.envelope.id) == b"fresh"
        loaded = await desk.load(settled.envelope.id)
        assert loaded.envelope == settled.envelope
        assert loaded.waiting == (waiting(1, "x.example"),)
        # What was fresh before the restart is settled like any other.
        failure = await desk.try_settle(fresh.envelope.id)
        assert failure is not None and failure.kind is FailureKind.INVALID
        await desk.settle(fresh.envelope.id, 0)
        await desk.settle(settled.envelope.id, 1)
    assert is_empty(tmp_path)


async def test_ids_grow_whatever_the_clock_and_over_restarts(tmp_path: Path) -> None:
    clock = Clock()
    with open_spool(tmp_path, clock=clock) as desk:
        ids = [desk.new_id() for _ in range(5)]
        clock.time_us -= 3_600_000_000
        ids += [desk.new_id() for _ in range(5)]
        await desk.accept()
        ids.append(desk.new_id())
        await desk.settle((await desk.accept()).envelope.id, 0)
        last = desk.new_id()
        await desk.accept()
        ids.append(last)
    assert ids == sorted(set(ids))
    clock.time_us -= 3_600_000_000
    with open_spool(tmp_path, clock=clock) as desk:
        assert desk.new_id() > last


async def test_shards_are_apart_and_each_takes_its_own(tmp_path: Path) -> None:
    with open_spool(tmp_path, (3, 7)) as desk:
        first = await desk.accept()
        assert identifier.shard_of(first.envelope.id) == 3
        other = message(desk.new_id(7))
        assert identifier.shard_of(other.envelope.id) == 7
        assert await desk.try_accept(other) is None
        done: list[Any] = []
        for shard, id in ((7, other.envelope.id), (3, first.envelope.id)):
            place = waiting(0, f"{shard}.example")
            desk.spool.settle(Settlement(id, (), (place,)), lambda failure, shard=shard: done.append((shard, failure)))
        assert await ahead(desk, 7) == ["7.example"]
        assert done == [(7, None), (3, None)], "callbacks come in the order of the calls"
        assert await ahead(desk, 3) == ["3.example"]
        foreign = message(identifier.make(START_US, 9, 0))
        failure = await desk.try_accept(foreign)
        assert failure is not None and failure.kind is FailureKind.CLOSED
    assert not schema.database(tmp_path, 9).exists()


async def test_two_spools_never_share_a_shard(tmp_path: Path) -> None:
    with open_spool(tmp_path, (0, 1)):
        with pytest.raises(schema.SpoolError, match="another process"), open_spool(tmp_path, (2, 1)):
            pass
        with open_spool(tmp_path, (2,)):  # and its lock was given back
            pass
    with open_spool(tmp_path, (0,)):
        pass


async def test_an_exception_in_a_callback_stops_no_other(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    reported: list[Any] = []
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    with open_spool(tmp_path) as desk:
        desk.spool.accept(message(desk.new_id()), (), lambda failure: 1 / 0)
        assert await desk.try_accept(message(desk.new_id())) is None
    assert [type(each) for each in reported] == [ZeroDivisionError]


async def test_close_ends_what_was_asked_and_then_refuses(tmp_path: Path) -> None:
    with open_spool(tmp_path) as desk:
        done: list[Any] = []
        for _ in range(10):
            desk.spool.accept(message(desk.new_id()), (), done.append)
        desk.spool.record((Noted(START_US, 0, "info", "ends"),))
        desk.spool.close()
        assert done == [None] * 10
        assert (await desk.try_accept(message(desk.new_id()))).kind is FailureKind.CLOSED
        assert await desk.load(desk.new_id()) is None
        assert await desk.fresh_ids() == []
    assert rows(tmp_path, "fresh") == 10
    assert "ends" in _journal_text(tmp_path)


async def test_close_on_another_thread_answers_on_the_loop(tmp_path: Path) -> None:
    with open_spool(tmp_path) as desk:
        threads: list[int] = []
        desk.spool.accept(message(desk.new_id()), (), lambda failure: threads.append(threading.get_ident()))
        await asyncio.get_running_loop().run_in_executor(None, desk.spool.close)
        await asyncio.sleep(0.01)
        assert threads == [threading.get_ident()]


async def test_recorded_events_join_a_commit_or_have_their_own_soon(tmp_path: Path) -> None:
    options = SpoolOptions(free_min=0, record_s=0.02)
    with open_spool(tmp_path, options=options) as desk:
        desk.spool.record((Noted(START_US, 0, "info", "first"),))
        await desk.accept()
        assert rows(tmp_path, "journal") == 1, "joined"
        assert "first" in _journal_text(tmp_path)
        desk.spool.record((Noted(START_US, 0, "info", "second"),))
        for _ in range(3000):  # a minute
            if rows(tmp_path, "journal") == 2:
                break
            await asyncio.sleep(0.02)
        assert "second" in _journal_text(tmp_path)


def _journal_text(directory: Path) -> str:
    connection = schema.connect_reader(schema.database(directory, 0))
    try:
        parts = connection.execute("SELECT events FROM journal ORDER BY seq").fetchall()
    finally:
        connection.close()
    return "".join(str(codec.decode_journal(events)) for (events,) in parts)


async def test_events_stand_in_the_journal_in_order(tmp_path: Path) -> None:
    with open_spool(tmp_path) as desk:
        stored = await desk.accept()
        await desk.settle(stored.envelope.id, 0, events=(relayed(stored.envelope.id), Noted(1, 0, "info", "x")))
    connection = schema.connect_reader(schema.database(tmp_path, 0))
    found = [
        event
        for (events,) in connection.execute("SELECT events FROM journal ORDER BY seq")
        for event in codec.decode_journal(events)
    ]
    connection.close()
    assert [type(each).__name__ for each in found] == ["Accepted", "Attempted", "Noted"]
    assert isinstance(found[0], Accepted) and found[0] == accepted(stored)


async def test_trim_keeps_the_last_row(tmp_path: Path) -> None:
    with open_spool(tmp_path) as desk:
        for _ in range(4):
            await desk.accept()
        assert await desk.ask(desk.spool.mark, "history", 0, 1 << 60) is None
        assert rows(tmp_path, "journal") == 1
        desk.spool.mark("history", 0, 1 << 61)
        await desk.accept()
        assert rows(tmp_path, "journal") == 2


async def test_a_large_mailing_is_read_piece_by_piece(tmp_path: Path) -> None:
    with open_spool(tmp_path) as desk:
        names = [f"r{number}@d{number}.example" for number in range(100)]
        stored = await desk.accept(*names)
        places = tuple(waiting(number, f"d{number}.example") for number in range(100))
        await desk.settle(stored.envelope.id, waiting=places)
        for number in range(100):
            [loaded] = await desk.ask(desk.spool.take_due, 0, f"d{number}.example", 1 << 62, 10)
            assert loaded.waiting == (places[number],)
            assert loaded.envelope == stored.envelope
        await desk.settle(stored.envelope.id, *range(50))
        assert len((await desk.load(stored.envelope.id)).waiting) == 50
        await desk.settle(stored.envelope.id, *range(50, 100))
    assert is_empty(tmp_path)


async def test_freed_pages_are_used_again(tmp_path: Path) -> None:
    with open_spool(tmp_path) as desk:
        sizes = []
        for _ in range(6):
            ids = [(await desk.accept(content=bytes(5000))).envelope.id for _ in range(20)]
            for id in ids:
                await desk.settle(id, 0)
            connection = schema.connect_reader(schema.database(tmp_path, 0))
            sizes.append(connection.execute("PRAGMA page_count").fetchone()[0])
            connection.close()
        assert sizes[-1] <= sizes[1] + 4, sizes


async def test_select_over_shards_and_up_to_its_limit(tmp_path: Path) -> None:
    with open_spool(tmp_path, (0, 1)) as desk:
        ids = [(await desk.accept()).envelope.id for _ in range(3)]
        other = message(desk.new_id(1))
        await desk.try_accept(other)
        found = await desk.ask(desk.spool.select, Selection(recipient="@example.com"))
        assert found == sorted([*ids, other.envelope.id])
        assert len(await desk.ask(desk.spool.select, Selection(limit=2))) == 2


@pytest.mark.parametrize("table", TABLES)
async def test_files_are_private(tmp_path: Path, table: str) -> None:
    directory = tmp_path / "deep" / "spool"
    with open_spool(directory) as desk:
        await desk.accept()
        assert directory.stat().st_mode & 0o777 == 0o700
        for path in directory.iterdir():
            assert path.stat().st_mode & 0o077 == 0, path
        assert rows(directory, table) == (1 if table in ("fresh", "content") else 0)


def test_a_spool_without_shards_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shard"):
        SqliteSpool(tmp_path, (), OPTIONS, Clock(), asyncio.new_event_loop())


async def test_a_lone_accept_is_committed_at_once(tmp_path: Path) -> None:
    """No timer on the way: with a record timer of an hour an accept is answered all the same."""
    with open_spool(tmp_path, options=SpoolOptions(free_min=0, record_s=3600)) as desk:
        assert isinstance(desk, Desk)
        for _ in range(5):
            await desk.accept()


async def test_a_second_commit_waits_for_those_who_are_on_their_way(tmp_path: Path) -> None:
    """By the count of commits, not by the clock: with an hour to wait, only who comes or leaves brings one about."""
    with open_spool(tmp_path, options=msgspec.structs.replace(OPTIONS, commit_wait_s=3600.0)) as desk:
        await desk.accept("a@a.example", "b@b.example")
        other = desk.spool.arrivals.join()
        first = asyncio.ensure_future(desk.accept("a@a.example", "c@b.example"))
        await asyncio.sleep(0.05)
        assert not first.done(), "the other one is waited for"
        other.leave()
        await asyncio.wait_for(asyncio.gather(first, desk.accept("a@a.example", "d@b.example")), 30)


@pytest.mark.parametrize("many", [True, False])
async def test_where_little_comes_a_quarter_of_the_wait_will_do(tmp_path: Path, many: bool) -> None:
    with open_spool(tmp_path, options=msgspec.structs.replace(OPTIONS, commit_wait_s=4 * 3600.0)) as desk:
        await desk.accept("a@a.example", "b@b.example")
        for _ in range(BUSY if many else 1):
            other = desk.spool.arrivals.join()
        desk.spool._batching._begun -= 2 * 3600.0  # since the last commit half of the time has gone by
        pending = asyncio.ensure_future(desk.accept("a@a.example", "c@b.example"))
        if many:
            await asyncio.sleep(0.05)
            assert not pending.done()
        else:
            await asyncio.wait_for(asyncio.shield(pending), 30)
        other.leave()
        desk.spool._batching._begun -= 3 * 3600.0
        await asyncio.wait_for(asyncio.gather(pending, desk.accept("a@a.example", "d@b.example")), 30)


@THREADS
async def test_a_long_chain_of_calls_from_callbacks(tmp_path: Path, threads: bool) -> None:
    with open_spool(tmp_path, threads=threads) as desk:
        ended = asyncio.get_running_loop().create_future()
        left = 1500

        def again(answer: Any) -> None:
            nonlocal left
            left -= 1
            if left:
                desk.spool.load(0, again)
            else:
                ended.set_result(None)

        again(None)
        await asyncio.wait_for(ended, 60)


async def test_reads_that_wait_are_answered_once_when_the_spool_closes(tmp_path: Path) -> None:
    with open_spool(tmp_path) as desk:
        answers: list[Any] = []
        for _ in range(50):
            desk.spool.accept(message(desk.new_id()), (), answers.append)
            desk.spool.first_due(0, [], answers.append)
        await asyncio.sleep(0)
        desk.spool.first_due(0, [], answers.append)
        desk.spool.close()
        assert len(answers) == 101


async def test_destinations_in_pages_are_all_destinations(tmp_path: Path) -> None:
    with open_spool(tmp_path) as desk:
        names = sorted(["", "-", "a.example", *(f"d{n}.example" for n in range(9))])
        for place, name in enumerate(names):
            stored = await desk.accept("ann@a.example")
            await desk.settle(stored.envelope.id, waiting=(waiting(0, name, START_US + place // 7),))
        pages: list[tuple[int, str]] = []
        while True:
            page = await desk.ask(desk.spool.ahead, 0, pages[-1] if pages else (-1, ""), START_US + 9, 5)
            assert len(page) <= 5
            pages += page
            if len(page) < 5:
                break
        assert pages == [(START_US + place // 7, name) for place, name in enumerate(names)]
        assert await desk.ask(desk.spool.ahead, 0, (-1, ""), START_US, 99) == pages[:7], "until a time"
