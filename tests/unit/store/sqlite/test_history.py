"""The history: every event exactly once, wherever it stands and whoever crashed; found by id, Message-ID, address."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from postroad.mail.envelope import Peer
from postroad.mail.event import Authenticated, Event, Expanded, Noted, Refused, Rewritten
from postroad.store.face import Committed
from postroad.store.sqlite import dayfile, history, schema
from postroad.store.sqlite.dayfile import DAY_US, DayFile, DayReader, key, path_of
from postroad.store.sqlite.history import Historian, HistoryOptions, day_files
from postroad.store.sqlite.searching import HistoryReader
from postroad.store.sqlite.spool import SqliteSpool
from postroad.store.values import Settlement
from tests.unit.store.sqlite.material import START_US, Clock, Desk, Faults, accepted, message, open_spool, relayed, rows


class Place:
    """A spool with its Historian and a reader of both."""

    def __init__(self, directory: Path, desk: Desk, options: HistoryOptions) -> None:
        self.desk = desk
        self.noted: list[Event] = []
        self.spool_directory, self.history_directory = directory / "spool", directory / "history"
        self.historian = Historian(
            self.spool_directory, self.history_directory, desk.spool, options, desk.clock, log=self.noted.append
        )
        self.reader = HistoryReader(self.history_directory, self.spool_directory)

    async def move_all(self) -> None:
        while self.historian.step():
            pass
        await self.desk.ask(self.desk.spool.next_due, 0, "")  # the trimming has been done by now

    def day_files(self) -> list[str]:
        return [path.name for _, path in day_files(self.history_directory)]


@contextmanager
def place(
    directory: Path,
    shards: tuple[int, ...] = (0,),
    options: HistoryOptions | None = None,
    clock: Clock | None = None,
    connect: schema.Connect = schema.connect,
) -> Iterator[Place]:
    with open_spool(directory / "spool", shards, clock=clock, connect=connect) as desk:
        made = Place(directory, desk, options or HistoryOptions())
        try:
            yield made
        finally:
            made.historian.close()


async def _one(desk: Desk, *names: str, at_us: int = START_US, **changes: Any) -> int:
    """A message accepted and relayed at a time."""
    stored = message(desk.new_id(), *names, **changes)
    assert await desk.try_accept(stored, accepted(stored, at_us)) is None
    places = range(len(stored.envelope.recipients))
    await desk.settle(stored.envelope.id, *places, events=(relayed(stored.envelope.id, at_us=at_us + 5),))
    return stored.envelope.id


def _kinds(events: list[Event]) -> list[str]:
    return [type(each).__name__ for each in events]


BOTH = ["Accepted", "Attempted"]


async def test_events_are_found_before_while_and_after_they_are_moved(tmp_path: Path) -> None:
    with place(tmp_path) as there:
        first, second = await _one(there.desk), await _one(there.desk, "bob@b.example")
        for moved in (False, True):
            if moved:
                await there.move_all()
                assert rows(there.spool_directory, "journal") == 1
            assert _kinds(there.reader.events(first)) == BOTH
            assert _kinds(there.reader.events(second)) == BOTH
            assert there.reader.events(second + 1024) == []
            assert there.reader.find(address="bob@b.example") == [second]
        third = await _one(there.desk)
        assert there.reader.find(address="ann@example.com") == [third, first], "the newest first, from both sides"
        assert there.reader.unmoved() == 2
        await there.move_all()
        assert there.reader.unmoved() == 0
    assert _kinds(HistoryReader(tmp_path / "history", tmp_path / "spool").events(third)) == BOTH


@pytest.mark.parametrize("moved", [False, True])
async def test_what_a_message_is_found_by(tmp_path: Path, moved: bool) -> None:
    with place(tmp_path) as there:
        desk = there.desk
        id = await _one(desk, "Ann@a.example", "bob@b.example", message_id="<Some.Thing@x.example>")
        desk.spool.record((Expanded(START_US, id, "list@a.example", ("cy@c.example",)),))
        desk.spool.record((Rewritten(START_US, id, ("other sender",), "Old@host.a.example"),))
        report = await _one(desk, "sender@example.org", reverse_path=None, parent=id)
        if moved:
            await there.move_all()
        find = there.reader.find
        assert find(address="old@HOST.a.example") == [id], "the sender as the client named it"
        for address in ("ann@a.example", "ANN@A.EXAMPLE", "bob@b.example", "list@a.example", "cy@c.example"):
            assert find(address=address) == [id], address
        assert find(address="Sender@example.org") == [report, id]
        assert find(message_id="<some.thing@x.example>") == [id]
        assert find(message_id="Some.Thing@x.example") == [id]
        assert find(message_id="thing@x.example") == []
        assert find(address="a.example") == []
        assert there.reader.reports(id) == [report]
        assert there.reader.reports(report) == []
        assert there.reader.faults == []


@pytest.mark.parametrize("moved", [False, True])
async def test_refusals_of_an_address(tmp_path: Path, moved: bool) -> None:
    with place(tmp_path) as there:
        refused = Refused(START_US, 0, Peer("192.0.2.1"), "RCPT", "550 5.1.1 no", "a@x.example", "nobody@y.example")
        there.desk.spool.record((refused,))
        await _one(there.desk)
        if moved:
            await there.move_all()
        assert there.reader.refusals("Nobody@y.example") == [refused]
        assert there.reader.refusals("a@x.example") == [refused]
        assert there.reader.refusals("a@x.example", since_us=START_US + 1) == []
        assert there.reader.refusals("b@x.example") == []
        assert there.reader.find(address="a@x.example") == [], "no message"


@pytest.mark.parametrize("moved", [False, True])
async def test_what_a_client_and_an_account_did(tmp_path: Path, moved: bool) -> None:
    ada = Peer("192.0.2.1", identity="Ada@x.example")
    refused = Refused(START_US, 0, Peer("192.0.2.1"), "DATA", "552 big", recipients=("a@y.example", "b@y.example"))
    wrong = Refused(START_US + 1, 0, Peer("2001:db8::1"), "AUTH", "535 5.7.8 no", reason="ada@x.example")
    right = Authenticated(START_US + 2, 0, ada, "PLAIN")
    with place(tmp_path) as there:
        reader, desk = there.reader, there.desk
        assert reader.first_us() == 0
        desk.spool.record((refused, wrong, right))
        stored = message(desk.new_id())
        event = msgspec.structs.replace(accepted(stored, START_US), peer=ada)
        assert await desk.try_accept(stored, event) is None
        if moved:
            await there.move_all()
            assert 0 < reader.first_us() <= START_US
        assert reader.refusals(client="192.0.2.1") == [right, refused]
        assert reader.refusals(client="192.0.2.1", until_us=START_US + 1) == [refused]
        assert reader.refusals(client="2001:DB8::1") == [wrong]
        assert reader.refusals(account="ada@X.example") == [right, wrong]
        assert reader.refusals(account="bob") == reader.refusals(client="192.0.2.2") == []
        assert reader.refusals("B@y.example") == [refused]
        assert reader.find(client="192.0.2.1") == reader.find(account="ADA@x.example") == [stored.envelope.id]
        assert reader.find(client="2001:db8::1") == []


async def test_what_a_clock_that_was_set_back_put_into_an_earlier_day_is_found(tmp_path: Path) -> None:
    clock = Clock()
    with place(tmp_path, clock=clock) as there:
        stored = message(there.desk.new_id())
        assert await there.desk.try_accept(stored, accepted(stored, START_US)) is None
        clock.time_us -= 3 * DAY_US
        end = relayed(stored.envelope.id, at_us=START_US - 3 * DAY_US)
        await there.desk.settle(stored.envelope.id, 0, events=(end,))
        assert sorted(_kinds(there.reader.events(stored.envelope.id))) == BOTH, "in the journal"
        await there.move_all()
        assert len(there.day_files()) == 2
        assert sorted(_kinds(there.reader.events(stored.envelope.id))) == BOTH, "in the day files"


async def test_a_crash_between_the_two_commits_repeats_nothing(tmp_path: Path) -> None:
    """The day file has the rows, the journal has not been trimmed: neither moved again nor shown twice."""
    with place(tmp_path) as there:
        trimmed: list[int] = []
        there.historian._spool = _NoTrim(there.desk.spool, trimmed)
        ids = [await _one(there.desk) for _ in range(3)]
        while there.historian.step():
            pass
        assert trimmed and rows(there.spool_directory, "journal") == 6
        for id in ids:
            assert _kinds(there.reader.events(id)) == BOTH
        assert there.reader.unmoved() == 0
        there.historian.close()
        again = Place(tmp_path, there.desk, HistoryOptions())
        await again.move_all()
        assert rows(there.spool_directory, "journal") == 1
        for id in ids:
            assert _kinds(again.reader.events(id)) == BOTH
        again.historian.close()


async def test_what_is_moved_is_handed_over_decoded_and_before_the_mark(tmp_path: Path) -> None:
    """What the day file had already is not: whoever did not get it sees a gap."""
    with place(tmp_path) as there:
        handed: list[tuple[int, int, tuple[Committed, ...]]] = []
        marked: list[int] = []

        def on_moved(shard: int, after: int, found: Sequence[Committed]) -> None:
            handed.append((len(marked), after, tuple(found)))

        there.historian._spool = _NoTrim(there.desk.spool, marked)
        there.historian._on_moved = on_moved
        id = await _one(there.desk)
        while there.historian.step():
            pass
        ((marks, after, found),) = handed
        assert marks == 0 and after < found[0].seq and marked == [found[-1].seq]
        assert _kinds([event for row in found for event in row.events if event.id == id]) == BOTH
        there.historian.close()
        handed.clear()
        again = Place(tmp_path, there.desk, HistoryOptions())
        again.historian._on_moved = on_moved
        await _one(there.desk)
        await again.move_all()
        ((_, after, more),) = handed
        assert after == found[-1].seq and len(more) == 2
        again.historian.close()


class _NoTrim:
    def __init__(self, spool: SqliteSpool, trimmed: list[int]) -> None:
        self.shards = spool.shards
        self.committed = spool.committed
        self.trimmed = trimmed
        self.mark_of = spool.mark_of

    def committed(self, shard: int) -> int:
        return 1 << 62

    def mark(self, reader: str, shard: int, seq: int) -> None:
        self.trimmed.append(seq)


async def test_what_a_failed_commit_has_left_in_the_journal_does_not_get_into_the_history(tmp_path: Path) -> None:
    """A failed sync may leave frames that are found whole: refused, and yet in the journal until the next commit."""
    faults = Faults()
    with place(tmp_path, connect=faults.connect) as there:
        kept = await _one(there.desk)
        faults.after = lambda sql: sqlite3.SQLITE_IOERR_FSYNC if sql == "COMMIT" else None
        refused = message(there.desk.new_id())
        assert await there.desk.try_accept(refused) is not None
        assert rows(there.spool_directory, "journal") == 3, "the test is of no use unless it was written"
        while there.historian.step():
            pass
        faults.after = lambda sql: None
        other = await _one(there.desk)
        await there.move_all()
        assert there.reader.events(refused.envelope.id) == []
        assert _kinds(there.reader.events(kept)) == _kinds(there.reader.events(other)) == BOTH


@pytest.mark.parametrize("statement", ["INSERT INTO batch", "INSERT INTO page", "UPDATE mark", "COMMIT"])
async def test_a_day_file_takes_all_of_a_step_or_nothing(tmp_path: Path, statement: str) -> None:
    with place(tmp_path) as there:
        ids = [await _one(there.desk) for _ in range(3)]
        there.historian.step()
        ids += [await _one(there.desk) for _ in range(3)]
        file = there.historian._files[0]
        real, file._connection = file._connection, _Failing(file._connection, statement)  # type: ignore[assignment]
        with pytest.raises(sqlite3.OperationalError):
            there.historian.step()
        file._connection = real
        for id in ids:
            assert _kinds(there.reader.events(id)) == BOTH
        await there.move_all()
        for id in ids:
            assert _kinds(there.reader.events(id)) == BOTH
        assert there.reader.unmoved() == 0


class _Failing:
    """A connection on which one statement fails."""

    def __init__(self, connection: sqlite3.Connection, statement: str) -> None:
        self._connection = connection
        self._statement = statement

    def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
        if sql.startswith(self._statement):
            raise sqlite3.OperationalError("made by the test")
        return self._connection.execute(sql, *rest)

    def executemany(self, sql: str, *rest: Any) -> sqlite3.Cursor:
        if sql.startswith(self._statement):
            raise sqlite3.OperationalError("made by the test")
        return self._connection.executemany(sql, *rest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


async def test_each_day_and_shard_has_its_file(tmp_path: Path) -> None:
    clock = Clock()
    with place(tmp_path, (0, 1), clock=clock) as there:
        desk = there.desk
        first = await _one(desk, at_us=clock.time_us)
        other = message(desk.new_id(1))
        assert await desk.try_accept(other) is None
        clock.time_us += DAY_US
        second = await _one(desk, at_us=clock.time_us)
        await there.move_all()
        names = {path_of(Path(), START_US + day * DAY_US, shard).name for day, shard in ((0, 0), (0, 1), (1, 0))}
        assert set(there.day_files()) == names
        for id in (first, second):
            assert _kinds(there.reader.events(id)) == BOTH
        assert there.reader.find(address="ann@example.com") == [second, other.envelope.id, first]
        assert there.reader.find(address="ann@example.com", since_us=START_US + DAY_US // 2) == [second]
        assert there.reader.find(address="ann@example.com", limit=1) == [second]


async def test_a_clock_that_is_set_back_over_midnight_loses_nothing(tmp_path: Path) -> None:
    clock = Clock(START_US // DAY_US * DAY_US + DAY_US - 30_000_000)
    with place(tmp_path, clock=clock) as there:
        ids = [await _one(there.desk, at_us=clock.time_us)]
        for change in (60_000_000, -60_000_000, 60_000_000, -60_000_000):
            clock.time_us += change
            ids.append(await _one(there.desk, at_us=clock.time_us))
        await there.move_all()
        assert len(there.day_files()) == 2
        for id in ids:
            assert _kinds(there.reader.events(id)) == BOTH, "each once"
        assert there.reader.unmoved() == 0


async def test_old_days_go(tmp_path: Path) -> None:
    clock = Clock()
    with place(tmp_path, options=HistoryOptions(keep_days=3), clock=clock) as there:
        for _ in range(6):
            await _one(there.desk, at_us=clock.time_us)
            clock.time_us += DAY_US
        await there.move_all()
        assert len(there.day_files()) == 6
        stranger = there.history_directory / "2020-01-01.txt"
        stranger.write_bytes(b"")
        there.historian.clear()
        days = {path_of(Path(), clock.time_us - day * DAY_US, 0).name for day in (1, 2, 3)}
        assert set(there.day_files()) == days
        assert stranger.exists()


async def test_the_oldest_days_go_while_all_are_too_large_but_never_today(tmp_path: Path) -> None:
    clock = Clock()
    with place(tmp_path, options=HistoryOptions(size_max=1), clock=clock) as there:
        for _ in range(3):
            clock.time_us += DAY_US
            await _one(there.desk, at_us=clock.time_us)
        await there.move_all()
        there.historian.clear()
        assert there.day_files() == [path_of(Path(), clock.time_us, 0).name]
        there.historian._options = HistoryOptions(size_max=1 << 40)
        there.historian.clear()
        assert len(there.day_files()) == 1


async def test_a_damaged_day_file_is_set_aside(tmp_path: Path) -> None:
    with place(tmp_path) as there:
        first = await _one(there.desk)
        await there.move_all()
        there.historian.close()
        path = path_of(there.history_directory, START_US, 0)
        path.write_bytes(b"x" * 20_000)
        again = Place(tmp_path, there.desk, HistoryOptions())
        second = await _one(there.desk)
        assert _kinds(again.reader.events(second)) == BOTH, "found in the journal although the day file is damaged"
        assert again.reader.faults
        await again.move_all()
        assert any("set aside" in event.text for event in again.noted if isinstance(event, Noted))
        assert len(list(there.history_directory.glob("*.damaged-*"))) == 1
        assert _kinds(again.reader.events(second)) == BOTH
        # The journal's last row is kept there for its number; with the mark gone it is moved a second time.
        assert _kinds(again.reader.events(first)) in ([], ["Attempted"])
        again.historian.close()


async def test_the_thread_moves_what_is_old_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_LOOK_S", 0.01)
    with place(tmp_path, options=HistoryOptions(lag_s=1.0)) as there:
        id = await _one(there.desk)
        there.historian.start()
        await asyncio.sleep(0.1)
        assert there.reader.unmoved() == 2, "it is of just now, by the clock that was given"
        there.desk.clock.time_us += 2_000_000
        for _ in range(6000):  # a minute
            if there.reader.unmoved() == 0:
                break
            await asyncio.sleep(0.01)
        assert there.reader.unmoved() == 0
        assert _kinds(there.reader.events(id)) == BOTH


async def test_the_thread_goes_on_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_LOOK_S", 0.01)
    monkeypatch.setattr(history, "_AGAIN_S", 0.01)
    with place(tmp_path, options=HistoryOptions(lag_s=0.0)) as there:
        there.history_directory.write_bytes(b"in its way")
        await _one(there.desk)
        there.historian.start()
        for _ in range(6000):  # a minute
            if there.noted:
                break
            await asyncio.sleep(0.01)
        assert there.noted
        there.history_directory.unlink()
        for _ in range(6000):  # a minute
            if there.reader.unmoved() == 0:
                break
            await asyncio.sleep(0.01)
        assert there.reader.unmoved() == 0


async def test_an_error_of_one_shard_stops_only_its_own_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the operator is told: at once, once, and again when it is over; what waits can be asked for."""
    monkeypatch.setattr(history, "_LOOK_S", 0.01)
    monkeypatch.setattr(history, "_AGAIN_S", 0.05)
    with place(tmp_path, (0, 1), HistoryOptions(lag_s=0.0)) as there:
        there.history_directory.mkdir()
        in_its_way = path_of(there.history_directory, there.desk.clock.time_us, 0)
        in_its_way.mkdir()
        for shard in (0, 1):
            stored = message(there.desk.new_id(shard))
            assert await there.desk.try_accept(stored) is None
        there.historian.start()
        moved = path_of(there.history_directory, there.desk.clock.time_us, 1)
        for _ in range(6000):  # a minute
            if moved.exists() and there.historian.backlog() and there.reader.unmoved() == 1:
                break
            await asyncio.sleep(0.01)
        assert there.reader.unmoved() == 1
        await asyncio.sleep(0.3)  # it is tried again several times, and said once
        told = [each for each in there.noted if isinstance(each, Noted) and "shard 00" in each.text]
        assert len(told) == 1 and told[0].level == "error"
        assert [each.shard for each in there.historian.backlog()] == [0]
        in_its_way.rmdir()
        for _ in range(6000):  # a minute
            if not there.historian.backlog() and there.reader.unmoved() == 0:
                break
            await asyncio.sleep(0.01)
        assert there.reader.unmoved() == 0
        assert there.historian.backlog() == ()
        assert there.noted[-1].level == "info"  # type: ignore[union-attr]


async def test_a_day_file_that_is_open_is_never_removed(tmp_path: Path) -> None:
    """Neither our own that is behind, nor one of another worker: what went into it would be nowhere."""
    clock = Clock()
    with place(tmp_path, options=HistoryOptions(size_max=1, keep_days=1), clock=clock) as there:
        await _one(there.desk, at_us=clock.time_us)
        there.historian.step()  # moves a day that is long past by the time of the next look
        [old] = there.day_files()
        others = path_of(there.history_directory, START_US, 7)
        others.write_bytes(b"x" * 100)
        schema.database(there.spool_directory, 7).write_bytes(b"")  # a shard of another worker
        strays = path_of(there.history_directory, START_US, 9)  # of a shard that is no more
        strays.write_bytes(b"x" * 100)
        clock.time_us += 10 * DAY_US
        there.historian.clear()
        assert set(there.day_files()) == {old, others.name}
        there.historian.close()
        there.historian.clear()
        assert there.day_files() == [others.name]


async def test_a_day_file_that_is_damaged_while_it_is_written_is_set_aside(tmp_path: Path) -> None:
    with place(tmp_path) as there:
        await _one(there.desk)
        await there.move_all()
        second = await _one(there.desk)
        connection = there.historian._files[0]._connection
        pages = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'batch'").fetchone()[0]
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.execute("PRAGMA cache_size=0").fetchall()
        path = there.historian._files[0].path
        with open(path, "r+b") as file:
            file.seek((pages - 1) * 8192)
            file.write(b"\xff" * 8192)
        connection.execute("PRAGMA shrink_memory").fetchall()
        await there.move_all()
        assert any("set aside" in event.text for event in there.noted if isinstance(event, Noted))
        assert _kinds(there.reader.events(second)) == BOTH


async def test_a_day_file_that_could_not_be_made_is_no_fault(tmp_path: Path) -> None:
    """A crash, or a full disk, left it empty: what belongs there is in the journal."""
    with place(tmp_path) as there:
        id = await _one(there.desk)
        there.history_directory.mkdir()
        path_of(there.history_directory, START_US, 0).write_bytes(b"")
        assert _kinds(there.reader.events(id)) == BOTH
        assert there.reader.faults == []


async def test_a_day_of_many_events(tmp_path: Path) -> None:
    """Enough for many batches and for merges of several levels; each message is found in every way."""
    with place(tmp_path) as there:
        desk, spool = there.desk, there.desk.spool
        stored = []
        for number in range(1200):
            made = message(desk.new_id(), f"r{number}@d{number % 7}.example", reverse_path=None)
            stored.append(made)
            spool.accept(made, (accepted(made),), lambda failure: None)
            spool.settle(Settlement(made.envelope.id, (0,), events=(relayed(made.envelope.id),)), lambda failure: None)
            if number % 12 == 11:
                await desk.ask(spool.next_due, 0, "")
                there.historian.step()
        await there.move_all()
        for made in stored[::97]:
            assert _kinds(there.reader.events(made.envelope.id)) == BOTH
            assert there.reader.find(message_id=made.envelope.message_id) == [made.envelope.id]
            assert there.reader.find(address=str(made.envelope.recipients[0].address)) == [made.envelope.id]
    connection = schema.connect_reader(path_of(tmp_path / "history", START_US, 0))
    levels = dict(connection.execute("SELECT level, count(DISTINCT run) FROM page GROUP BY level"))
    assert max(levels) >= 2 and all(count < 8 for count in levels.values()), levels
    batches = connection.execute("SELECT count(*) FROM batch").fetchone()[0]
    assert batches >= 100, "one for each step here"
    reader = DayReader(connection)
    assert sum(1 for _ in reader.all()) == 2400
    reader.close()


def test_runs_of_full_size_are_merged_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dayfile, "_RUN_KEYS_MAX", 10)
    monkeypatch.setattr(dayfile, "_PAGE_KEYS", 4)
    file = DayFile(tmp_path / "x.db")
    made = [message(number << 10) for number in range(1, 60)]
    for seq, stored in enumerate(made, 1):
        file.append([(seq, START_US, _journal(accepted(stored)))])
    file.close()
    connection = schema.connect_reader(tmp_path / "x.db")
    assert connection.execute("SELECT count(DISTINCT run) FROM page WHERE level = 99").fetchone()[0] == 7
    reader = DayReader(connection)
    for stored in made:
        assert stored.envelope.id in {event.id for event in reader.events(stored.envelope.id)}
    assert len(list(reader.events(key("ann@example.com")))) == 59, "one key over many pages"
    reader.close()


def _journal(*events: Event) -> bytes:
    from postroad.store.sqlite import codec

    return codec.join_events([codec.encode_events(events)])


def test_rows_up_to_the_mark_are_not_taken_again(tmp_path: Path) -> None:
    file = DayFile(tmp_path / "x.db")
    first, second = (_journal(accepted(message(number << 10))) for number in (1, 2))
    file.append([(5, START_US, first)])
    file.append([(5, START_US, first), (6, START_US, second)])
    file.append([(4, START_US, first)])
    assert file.mark == 6
    file.close()
    reader = DayReader(schema.connect_reader(tmp_path / "x.db"))
    assert [event.id >> 10 for event in reader.all()] == [1, 2]
    reader.close()


def test_rows_that_this_version_does_not_know_are_kept_and_torn_ones_harm_nobody(tmp_path: Path) -> None:
    newer = _journal(Noted(1, 0, "info", "x")).replace(b"noted", b"novel")
    file = DayFile(tmp_path / "x.db")
    file.append([
        (1, START_US, newer), (2, START_US, b"\xc1"), (3, START_US, _journal(accepted(message(1 << 10)))),
    ])  # fmt: skip
    file.close()
    connection = schema.connect_reader(tmp_path / "x.db")
    reader = DayReader(connection)
    assert [event.id >> 10 for event in reader.all()] == [1]
    import zlib

    assert b"novel" in zlib.decompress(connection.execute("SELECT events FROM batch").fetchone()[0])
    reader.close()


async def test_a_shard_set_aside_does_not_hide_what_comes_after(tmp_path: Path) -> None:
    """The new journal's numbers are above those of the old one, whose mark the day file still has."""
    clock = Clock()
    with place(tmp_path, clock=clock) as there:
        old = [await _one(there.desk) for _ in range(20)]
        await there.move_all()
    schema.database(tmp_path / "spool", 0).write_bytes(b"x" * 9000)
    with place(tmp_path, clock=clock) as there:
        new = await _one(there.desk)
        assert _kinds(there.reader.events(new)) == BOTH
        await there.move_all()
        assert _kinds(there.reader.events(new)) == BOTH
        assert _kinds(there.reader.events(old[0])) == BOTH
