"""What the spool does when disk and database fail: nothing acknowledged is lost, callers are told, service resumes."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from postroad.mail import identifier
from postroad.mail.event import Event, Noted
from postroad.store import content
from postroad.store.sqlite import schema, shard, writer
from postroad.store.sqlite.history import Historian, HistoryOptions
from postroad.store.sqlite.operation import Accept, Row
from postroad.store.sqlite.reader import SpoolReader
from postroad.store.sqlite.searching import HistoryReader
from postroad.store.sqlite.spool import SpoolOptions
from postroad.store.values import Failure, FailureKind, Settlement
from tests.unit.store.sqlite.material import (
    START_US,
    Chosen,
    Desk,
    Faults,
    accepted,
    is_empty,
    message,
    open_spool,
    relayed,
    rows,
    text,
    waiting,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("commits_on")]

WRITES = ["BEGIN", "INSERT OR REPLACE INTO fresh", "INSERT OR REPLACE INTO content", "INSERT INTO journal", "COMMIT"]
KINDS = {
    sqlite3.SQLITE_FULL: FailureKind.FULL,
    sqlite3.SQLITE_IOERR_FSYNC: FailureKind.IO,
    sqlite3.SQLITE_IOERR_WRITE: FailureKind.IO,
    sqlite3.SQLITE_READONLY: FailureKind.IO,
    sqlite3.SQLITE_BUSY: FailureKind.IO,
    sqlite3.SQLITE_CORRUPT: FailureKind.IO,
}


def _levels(desk: Desk) -> set[str]:
    return {event.level for event in desk.noted if isinstance(event, Noted)}


@pytest.mark.parametrize("statement", WRITES)
@pytest.mark.parametrize("code", KINDS)
async def test_a_failed_commit_refuses_all_and_service_resumes(tmp_path: Path, statement: str, code: int) -> None:
    faults = Faults()
    with open_spool(tmp_path, connect=faults.connect) as desk:
        kept = await desk.accept(content=b"kept")
        faults.at = lambda sql: code if sql.startswith(statement) else None
        refused = message(desk.new_id())
        failure = await desk.try_accept(refused)
        assert failure is not None
        assert failure.kind is KINDS[code]
        assert "00.db" in failure.text
        settled: list[Failure | None] = []
        outcome = Settlement(kept.envelope.id, (), (waiting(0),), (), (relayed(kept.envelope.id),))
        desk.spool.settle(outcome, settled.append)
        unsure = statement == "COMMIT" and code not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY)
        async with asyncio.timeout(20):
            while not (desk.spool.unsure if unsure else settled):
                await asyncio.sleep(0.01)
        failure = None if unsure else settled[0]
        if not unsure and statement in ("BEGIN", "COMMIT", "INSERT INTO journal"):
            assert failure is not None
        faults.at = lambda sql: None
        # On a full disk the settlement takes the reserve, which is told, too.
        assert _levels(desk) - ({"warning"} if code == sqlite3.SQLITE_FULL else set()) == {"error"}, desk.noted
        # All that was acknowledged is there, what was refused is not, and both may be asked again.
        assert await desk.ask(desk.spool.content, refused.envelope.id) is None
        assert await desk.ask(desk.spool.content, kept.envelope.id) == b"kept"
        assert await desk.try_accept(refused) is None
        if failure is not None:
            await desk.settle(kept.envelope.id, waiting=(waiting(0),))
        assert (await desk.load(kept.envelope.id)).waiting == (waiting(0),)
        assert await desk.fresh_ids() == [refused.envelope.id]
    with open_spool(tmp_path) as desk:
        assert await desk.fresh_ids() == [refused.envelope.id]
        assert (await desk.load(kept.envelope.id)).waiting == (waiting(0),)


@pytest.mark.parametrize(("code", "again"), [(sqlite3.SQLITE_IOERR_FSYNC, True), (sqlite3.SQLITE_FULL, False)])
async def test_after_an_error_of_the_disk_the_database_is_opened_anew(
    tmp_path: Path, code: int, again: bool
) -> None:
    faults = Faults()
    with open_spool(tmp_path, connect=faults.connect) as desk:
        await desk.accept()
        faults.at = lambda sql: code if sql == "COMMIT" else None
        assert await desk.try_accept(message(desk.new_id())) is not None
        faults.at = lambda sql: None
        await desk.accept()
        assert faults.opened == (2 if again else 1)


async def test_a_commit_that_failed_and_yet_was_written_is_taken_back(tmp_path: Path) -> None:
    """A failed sync may leave frames that recovery finds whole: what was answered 451 must not be delivered as well."""
    faults = Faults()
    with open_spool(tmp_path, connect=faults.connect) as desk:
        kept = await desk.accept()
        faults.after = lambda sql: sqlite3.SQLITE_IOERR_FSYNC if sql == "COMMIT" else None
        refused = message(desk.new_id())
        assert await desk.try_accept(refused) is not None
        assert rows(tmp_path, "journal") == 2, "the test is of no use unless it was written"
        report = message(desk.new_id(), reverse_path=None)
        failed = Settlement(kept.envelope.id, (0,), (), (report,), (relayed(kept.envelope.id),))
        answers: list[Failure | None] = []
        desk.spool.settle(failed, answers.append)
        await _unsure(desk)
        assert not answers
        assert rows(tmp_path, "journal") == 2, "the first was taken back, this one is written"
        faults.after = lambda sql: None
        assert await desk.ask(desk.spool.content, refused.envelope.id) is None
        assert await desk.ask(desk.spool.load, kept.envelope.id) is None
        assert answers == [None], "the spool itself has settled again"
        assert await desk.fresh_ids() == [report.envelope.id]
        assert await desk.ask(desk.spool.content, report.envelope.id) == report.content
        assert await desk.ask(desk.spool.content, refused.envelope.id) is None
        assert rows(tmp_path, "journal") == 2, "each event once"


async def test_what_a_failed_commit_has_left_is_seen_by_no_question_and_not_by_the_history(tmp_path: Path) -> None:
    """Mail that waits on arrival, refused with 451, and yet written: questions come before the next commit does."""
    faults = Faults()
    with open_spool(tmp_path / "spool", connect=faults.connect) as desk:
        kept = await desk.accept("k@kept.example")
        historian = Historian(tmp_path / "spool", tmp_path / "history", desk.spool, HistoryOptions(), desk.clock)
        faults.after = lambda sql: sqlite3.SQLITE_IOERR_FSYNC if sql == "COMMIT" else None
        refused = message(desk.new_id(), "a@x.example", "b@x.example")
        places = (waiting(0, "x.example"), waiting(1, "x.example"))
        failure = await desk.ask(
            lambda done: desk.spool.accept(refused, (accepted(refused),), done, waiting=places)
        )
        assert failure is not None
        assert rows(tmp_path / "spool", "recipient") == 2, "the test is of no use unless it was written"
        faults.after = lambda sql: None
        faults.at = lambda sql: sqlite3.SQLITE_IOERR_FSYNC if sql == "COMMIT" else None  # the disk is still failing
        assert await desk.ask(desk.spool.content, kept.envelope.id) == kept.content, "which is no reason to hold mail"
        assert historian.step() is True and historian.step() is False
        faults.at = lambda sql: None
        assert await desk.ask(desk.spool.ahead, 0, (-1, ""), 1 << 62, 9) == []
        assert await desk.ask(desk.spool.take_due, 0, "x.example", 1 << 62, 9) == []
        assert rows(tmp_path / "spool", "recipient") == rows(tmp_path / "spool", "message") == 0
        assert rows(tmp_path / "spool", "destination") == 0
        historian.step()
        historian.close()
        found = HistoryReader(tmp_path / "history", tmp_path / "spool")
        assert found.events(refused.envelope.id) == [] and len(found.events(kept.envelope.id)) == 1


@pytest.mark.parametrize("closed", [False, True], ids=["by itself", "at the end"])
async def test_what_a_failed_commit_has_left_goes_though_nothing_else_is_asked(tmp_path: Path, closed: bool) -> None:
    """Else the next start would find it, and deliver what was answered 451."""
    faults = Faults()
    with open_spool(tmp_path, (0, 1), connect=faults.connect) as desk:
        failing = iter([True, True])
        faults.after = lambda sql: sqlite3.SQLITE_IOERR_FSYNC if sql == "COMMIT" and next(failing, False) else None
        assert await desk.try_accept(message(desk.new_id())) is not None
        assert rows(tmp_path, "fresh") == 1, "the test is of no use unless it was written"
        if closed:
            faults.after = lambda sql: None
        else:
            async with asyncio.timeout(30):
                while rows(tmp_path, "fresh"):
                    await asyncio.sleep(0.1)
            assert next(failing, None) is None, "the first look failed, too"
    with open_spool(tmp_path) as desk:
        assert await desk.fresh_ids() == []
    assert is_empty(tmp_path)


@pytest.mark.parametrize("threads", [True, False])
async def test_what_the_last_commit_of_all_has_left_is_not_there_at_the_next_start(
    tmp_path: Path, threads: bool
) -> None:
    """It failed, and yet was written, while the spool was being closed: nothing came behind it that took it back."""
    faults = Faults()
    failures: list[Failure | None] = []
    with open_spool(tmp_path, connect=faults.connect, threads=threads, quickness=Chosen(on_loop=False)) as desk:

        def fails_once(sql: str) -> int | None:
            if sql != "COMMIT":
                return None
            while desk.spool._batching.is_open:  # a commit that is under way when the spool is closed
                time.sleep(0.001)
            faults.after = lambda sql: None
            return sqlite3.SQLITE_IOERR_FSYNC

        faults.after = fails_once
        desk.spool.accept(stored := message(desk.new_id()), (accepted(stored),), failures.append)
        if threads:
            await asyncio.sleep(0)
    assert [failure is not None for failure in failures] == [True]
    assert is_empty(tmp_path) and not rows(tmp_path, "journal")


async def test_a_deferral_that_failed_and_yet_was_written_can_be_settled_again(tmp_path: Path) -> None:
    faults = Faults()
    with open_spool(tmp_path, connect=faults.connect) as desk:
        kept = await desk.accept("a@x.example", "b@x.example")
        faults.after = lambda sql: sqlite3.SQLITE_IOERR_FSYNC if sql == "COMMIT" else None
        places = (waiting(1, "x.example"),)
        answers: list[Failure | None] = []
        desk.spool.settle(Settlement(kept.envelope.id, (0,), places), answers.append)
        await _unsure(desk)
        faults.after = lambda sql: None
        await desk.accept("c@x.example")
        assert answers == [None]
        assert (await desk.load(kept.envelope.id)).waiting == places
        await desk.settle(kept.envelope.id, 1)
        assert rows(tmp_path, "recipient") == 0


def _commit_fails(sql: str) -> int | None:
    return sqlite3.SQLITE_IOERR_FSYNC if sql == "COMMIT" else None


async def _unsure(desk: Desk) -> None:
    async with asyncio.timeout(20):
        while not desk.spool.unsure:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("threads", [True, False])
async def test_who_ends_in_a_failed_commit_has_an_end_in_the_history_whatever_comes_next(
    tmp_path: Path, written: bool, threads: bool
) -> None:
    """The failed commit removed the message on the disk. The next commit takes its events out: the end and the report
    must be in that very commit, since the worker may die behind it."""
    faults, running, crashed = Faults(), tmp_path / "running", tmp_path / "crashed"
    with open_spool(running, connect=faults.connect, threads=threads) as desk:
        kept = await desk.accept()
        setattr(faults, "after" if written else "at", _commit_fails)
        report = message(desk.new_id(), reverse_path=None)
        answers: list[Failure | None] = []
        outcome = Settlement(kept.envelope.id, (0,), (), (report,), (relayed(kept.envelope.id),))
        desk.spool.settle(outcome, answers.append)
        await _unsure(desk)
        assert rows(running, "fresh") == 1 and rows(running, "journal") == (2 if written else 1)
        again: list[int] = []

        def only_the_next(sql: str) -> int | None:
            if sql == "COMMIT":
                again.append(1)
            return sqlite3.SQLITE_IOERR_FSYNC if sql == "COMMIT" and len(again) > 1 else None

        faults.after = lambda sql: None
        faults.at = only_the_next
        other = await desk.accept("b@x.example")
        assert answers == [None]
        assert not desk.spool.unsure
        shutil.copytree(running, crashed)  # as a worker leaves it that dies here
        faults.at = lambda sql: None
    with open_spool(crashed) as desk:
        assert await desk.fresh_ids() == [report.envelope.id, other.envelope.id]
    found = HistoryReader(tmp_path / "none", crashed)
    assert [type(each).__name__ for each in found.events(kept.envelope.id)] == ["Accepted", "Attempted"]


async def test_a_spool_that_is_closed_while_its_disk_fails_answers_its_settlements(tmp_path: Path) -> None:
    faults = Faults()
    answers: list[Failure | None] = []
    with open_spool(tmp_path, connect=faults.connect) as desk:
        kept = await desk.accept()
        faults.at = _commit_fails
        desk.spool.settle(Settlement(kept.envelope.id, (0,)), answers.append)
        await _unsure(desk)
    [failure] = answers
    assert failure is not None and failure.kind is FailureKind.CLOSED
    with open_spool(tmp_path) as desk:
        assert await desk.fresh_ids() == [kept.envelope.id]


async def test_recipients_without_a_message_do_not_stand_in_the_way(tmp_path: Path) -> None:
    with open_spool(tmp_path) as desk:
        ghost = (await desk.accept("a@x.example")).envelope.id
        real = (await desk.accept("a@x.example")).envelope.id
        for id in (ghost, real):
            await desk.settle(id, waiting=(waiting(0, "x.example"),))
    with sqlite3.connect(schema.database(tmp_path, 0)) as connection:
        connection.execute("DELETE FROM message WHERE id = ?", (ghost,))
    connection.close()
    with open_spool(tmp_path) as desk:
        taken = await desk.ask(desk.spool.take_due, 0, "x.example", 1 << 62, 10)
        assert [each.envelope.id for each in taken] == [real]
        await desk.settle(real, 0)
        assert await desk.ask(desk.spool.next_due, 0, "x.example") == 0
        await asyncio.sleep(0)
        assert any(text(ghost) in event.text for event in desk.noted if isinstance(event, Noted))


async def test_with_no_space_for_new_mail_settlements_go_on(tmp_path: Path) -> None:
    """In one commit: the accepts are refused, the settlement beside them, which makes room, is done."""
    faults = Faults()
    with open_spool(tmp_path, connect=faults.connect, threads=False) as desk:
        kept = await desk.accept()
        full = sqlite3.SQLITE_FULL
        faults.at = lambda sql: full if sql.startswith("INSERT OR REPLACE INTO content") else None
        answers: list[Any] = []
        desk.spool.accept(message(desk.new_id()), (), answers.append)
        desk.spool.settle(Settlement(kept.envelope.id, (0,)), answers.append)
        desk.spool.accept(message(desk.new_id()), (), answers.append)
        assert await desk.load(kept.envelope.id) is None
        assert [each.kind if each else None for each in answers] == [FailureKind.FULL, None, FailureKind.FULL]


async def test_below_the_free_space_that_is_set_new_mail_is_refused(tmp_path: Path) -> None:
    with open_spool(tmp_path) as desk:
        id = (await desk.accept()).envelope.id
    with open_spool(tmp_path, options=SpoolOptions(free_min=1 << 62)) as desk:
        failure = await desk.try_accept(message(desk.new_id()))
        assert failure is not None
        assert failure.kind is FailureKind.FULL
        assert "free_min" in failure.text and desk.spool.refuses() == failure.text
        await desk.settle(id, 0)
        incoming = desk.spool.incoming(desk.new_id())
        incoming.write(b"x" * 10)
        answer = await desk.ask(incoming.finish)
        assert answer.kind is FailureKind.FULL
    assert is_empty(tmp_path)


@pytest.mark.parametrize("code", [sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH])
async def test_one_operation_that_cannot_be_stored_harms_no_other(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = Faults()
    with open_spool(tmp_path, connect=faults.connect, threads=False) as desk:
        good, bad, last = (message(desk.new_id()) for _ in range(3))
        # The bad one is known by the number of its parameters: two rows and more fail, and so does it alone.
        answers: dict[int, Any] = {}
        calls = iter([code, None, code, None])
        faults.at = lambda sql: next(calls) if sql.startswith("INSERT OR REPLACE INTO fresh") else None
        for stored in (good, bad, last):
            desk.spool.accept(stored, (), lambda failure, id=stored.envelope.id: answers.update({id: failure}))
        assert await desk.fresh_ids() == [good.envelope.id, last.envelope.id]
        assert answers[good.envelope.id] is None
        assert answers[last.envelope.id] is None
        assert answers[bad.envelope.id].kind is FailureKind.INVALID


async def test_what_is_beyond_the_engine_is_refused_alone(tmp_path: Path) -> None:
    with open_spool(tmp_path, threads=False) as desk:
        good, bad = (message(desk.new_id()) for _ in range(2))
        answers: list[Any] = []
        desk.spool.accept(good, (), answers.append)
        desk.spool.accept(bad, (), answers.append, (waiting(0, due_us=1 << 70),))
        assert await desk.fresh_ids() == [good.envelope.id]
        assert answers[0] is None
        assert answers[1].kind is FailureKind.INVALID


async def test_a_read_that_fails_is_asked_again_and_never_answered_wrongly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_RETRY_S", 0.02)
    faults = Faults()
    with open_spool(tmp_path, connect=faults.connect) as desk:
        id = (await desk.accept("a@x.example")).envelope.id
        await desk.settle(id, waiting=(waiting(0, "x.example"),))
        faults.at = lambda sql: sqlite3.SQLITE_IOERR_READ if sql.startswith("SELECT due_us") else None
        answer = asyncio.get_running_loop().create_future()
        desk.spool.next_due(0, "x.example", answer.set_result)
        await desk.accept()  # others go on meanwhile
        await asyncio.sleep(0.1)
        assert not answer.done()
        faults.at = lambda sql: None
        assert await asyncio.wait_for(answer, 20) == START_US
        assert any("asked again" in event.text for event in desk.noted if isinstance(event, Noted))
        # When the spool closes first, the answer is empty.
        faults.at = lambda sql: sqlite3.SQLITE_IOERR_READ if sql.startswith("SELECT due_us") else None
        answer = asyncio.get_running_loop().create_future()
        desk.spool.next_due(0, "x.example", answer.set_result)
        await asyncio.sleep(0.05)
        desk.spool.close()
        assert await answer == 0


async def test_recorded_events_survive_a_failed_commit(tmp_path: Path) -> None:
    faults = Faults()
    with open_spool(tmp_path, connect=faults.connect, threads=False) as desk:
        faults.at = lambda sql: sqlite3.SQLITE_FULL if sql == "COMMIT" else None
        desk.spool.record((Noted(START_US, 0, "info", "x"),))
        assert await desk.try_accept(message(desk.new_id())) is not None
        faults.at = lambda sql: None
        await desk.accept()
        assert rows(tmp_path, "journal") == 1
    connection = schema.connect_reader(schema.database(tmp_path, 0))
    assert b"noted" in connection.execute("SELECT events FROM journal").fetchone()[0]
    connection.close()


async def test_events_are_published_after_their_commit_and_never_of_one_that_failed(tmp_path: Path) -> None:
    faults = Faults()
    bugs: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: bugs.append(context))
    heard: list[tuple[int, int]] = []  # shard, and rows of the journal at that moment

    def published(shard: int, events: tuple[Event, ...]) -> None:
        heard.append((shard, rows(tmp_path, "journal")))
        raise RuntimeError("made by the test")  # stops nobody

    with open_spool(tmp_path, connect=faults.connect, threads=False, published=published) as desk:
        stored = await desk.accept()
        assert heard == [(0, 1)]
        faults.at = lambda sql: sqlite3.SQLITE_FULL if sql == "COMMIT" else None
        assert await desk.try_accept(message(desk.new_id())) is not None
        assert len(heard) == 1
        faults.at = lambda sql: None
        await desk.settle(stored.envelope.id, 0, events=(relayed(stored.envelope.id),))
        assert heard == [(0, 1), (0, 2)] and len(bugs) == 2


@pytest.mark.parametrize("damage", ["not a database", "torn"])
async def test_a_damaged_shard_is_set_aside_with_all_that_belongs_to_it(tmp_path: Path, damage: str) -> None:
    with open_spool(tmp_path) as desk:
        for _ in range(50):
            await desk.accept(content=os.urandom(3000))
        incoming = desk.spool.incoming(id := desk.new_id())
        incoming.write(b"large")
        file = await desk.ask(incoming.finish)
        assert await desk.try_accept(message(id, content=file)) is None
    path = schema.database(tmp_path, 0)
    octets = path.read_bytes()
    path.write_bytes(b"x" * 9000 if damage == "not a database" else octets[:8192] + bytes(len(octets) - 8192))
    with open_spool(tmp_path) as desk:
        await asyncio.sleep(0)
        assert _levels(desk) == {"error"}, desk.noted
        assert await desk.fresh_ids() == []
        assert await desk.ask(desk.spool.content, id) is None
        await desk.accept()
    [aside] = [each for each in tmp_path.glob("00.db.damaged-*") if not each.name.endswith(("-wal", "-shm"))]
    assert aside.stat().st_size == path.stat().st_size or aside.stat().st_size > 8192
    [files] = tmp_path.glob("00.damaged-*")
    assert [each.read_bytes() for each in files.glob("*/*")] == [b"large"]


async def test_a_layout_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = schema.database(tmp_path, 0)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE x(y)")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(schema.SpoolError, match="layout 99"), open_spool(tmp_path):
        pass
    assert [each.name for each in tmp_path.glob("00.db*")] == ["00.db"]


@pytest.mark.parametrize("name", ["00.db", "00.lock"])
async def test_symbolic_links_are_refused(tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"")
    directory = tmp_path / "spool"
    directory.mkdir(mode=0o700)
    (directory / name).symlink_to(elsewhere)
    with pytest.raises(schema.SpoolError, match=name), open_spool(directory):
        pass
    assert elsewhere.read_bytes() == b""


async def test_folders_of_others_are_refused(tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(schema.SpoolError, match="others can write"), open_spool(directory):
        pass
    (tmp_path / "link").symlink_to(directory)
    with pytest.raises(schema.SpoolError, match="symbolic link"), open_spool(tmp_path / "link"):
        pass
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(schema.SpoolError), open_spool(tmp_path / "file"):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
async def test_files_of_others_are_refused(tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    directory.mkdir(mode=0o700)
    path = schema.database(directory, 0)
    path.write_bytes(b"")
    os.chown(path, 65534, 65534)
    with pytest.raises(schema.SpoolError, match="belongs to user 65534"), open_spool(directory):
        pass
    os.chown(directory, 65534, 65534)
    with pytest.raises(schema.SpoolError, match="belongs to user 65534"), open_spool(directory):
        pass


async def test_a_second_name_of_the_database_is_refused(tmp_path: Path) -> None:
    path = schema.database(tmp_path, 0)
    path.write_bytes(b"")
    os.link(path, tmp_path / "other")
    with pytest.raises(schema.SpoolError, match="not a regular file of its own"), open_spool(tmp_path):
        pass


async def test_a_message_whose_envelope_cannot_be_read_is_kept_and_in_nobodys_way(tmp_path: Path) -> None:
    with open_spool(tmp_path) as desk:
        fresh, settled = (await desk.accept("a@x.example")).envelope.id, (await desk.accept("a@x.example")).envelope.id
        await desk.settle(settled, waiting=(waiting(0, "x.example"),))
        good = (await desk.accept("a@x.example")).envelope.id
        await desk.settle(good, waiting=(waiting(0, "x.example"),))
    connection = sqlite3.connect(schema.database(tmp_path, 0), isolation_level=None)
    connection.execute("UPDATE fresh SET envelope = x'c1'")
    connection.execute("UPDATE message SET envelope = x'c1' WHERE id = ?", (settled,))
    connection.close()
    with open_spool(tmp_path) as desk:
        assert await desk.fresh_ids() == []
        taken = await desk.ask(desk.spool.take_due, 0, "x.example", 1 << 62, 10)
        assert [each.envelope.id for each in taken] == [good]
        await desk.settle(good, 0)
        assert await desk.ask(desk.spool.next_due, 0, "x.example") == 0, "what is damaged is never due"
        assert SpoolReader(tmp_path).backlog().held == 2
        assert await desk.ask(desk.spool.content, settled) is not None
        await asyncio.sleep(0)
        said = "".join(event.text for event in desk.noted if isinstance(event, Noted))
        assert text(fresh) in said and text(settled) in said


async def test_orphans_go_at_start_and_files_of_messages_stay(tmp_path: Path) -> None:
    with open_spool(tmp_path) as desk:
        kept = desk.spool.incoming(kept_id := desk.new_id())
        kept.write(b"kept")
        file = await desk.ask(kept.finish)
        assert await desk.try_accept(message(kept_id, content=file)) is None
        settled = desk.spool.incoming(settled_id := desk.new_id())
        settled.write(b"settled")
        file = await desk.ask(settled.finish)
        assert await desk.try_accept(message(settled_id, content=file)) is None
        await desk.settle(settled_id, waiting=(waiting(0),))
        orphan = desk.spool.incoming(orphan_id := desk.new_id())
        orphan.write(b"orphan")
        await desk.ask(orphan.finish)
    stranger = content.file_path(tmp_path, kept_id).parent / "README"
    stranger.write_bytes(b"not ours")
    with open_spool(tmp_path) as desk:
        assert not content.file_path(tmp_path, orphan_id).exists()
        assert stranger.exists()
        for id, octets in ((kept_id, b"kept"), (settled_id, b"settled")):
            found = await desk.ask(desk.spool.content, id)
            assert content.read(message(id).envelope, found) == octets
            await desk.settle(id, 0)
    assert not content.file_path(tmp_path, kept_id).exists()
    assert not content.file_path(tmp_path, settled_id).exists()


def test_the_undo_list_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard, "_UNDO_MAX", 3)
    faults = Faults()
    opened = shard.Shard(tmp_path, 0, lambda: START_US, connect=faults.connect)
    opened.open()
    faults.at = lambda sql: sqlite3.SQLITE_IOERR if sql == "COMMIT" else None
    for number in range(5):
        row = Row(identifier.make(START_US + number, 0, 0), b"\x90", b"", 1)
        [failure] = opened.commit([Accept(row, (), b"", print)])
        assert failure.kind is FailureKind.IO
    assert opened._undo is not None and len(opened._undo) == 3
    opened.close()


async def test_accepted_is_kept_through_many_failures(tmp_path: Path) -> None:
    """Each second commit fails, some written and some not: the spool holds what it acknowledged, and only that."""
    faults = Faults()
    with open_spool(tmp_path, connect=faults.connect) as desk:
        kept = []
        for number in range(40):
            kind = number % 4
            faults.at = lambda sql, kind=kind: sqlite3.SQLITE_IOERR_WRITE if (sql, kind) == ("COMMIT", 1) else None
            faults.after = lambda sql, kind=kind: sqlite3.SQLITE_IOERR_FSYNC if (sql, kind) == ("COMMIT", 3) else None
            stored = message(desk.new_id())
            if await desk.try_accept(stored, accepted(stored)) is None:
                kept.append(stored.envelope.id)
        faults.at = faults.after = lambda sql: None
        extra = await desk.accept()
        assert len(kept) == 20
        assert await desk.fresh_ids() == [*kept, extra.envelope.id]


async def test_what_follows_a_failed_commit_on_the_loop_is_done_on_the_thread(tmp_path: Path) -> None:
    """Rolling back, opening anew, trying again: any of it may take long. The answers keep their order."""
    faults = Faults()
    threads: list[tuple[str, str]] = []
    answers: list[tuple[int, bool]] = []

    def at(sql: str) -> int | None:
        threads.append((sql.split()[0], threading.current_thread().name))
        return sqlite3.SQLITE_FULL if sql == "COMMIT" and failing else None

    with open_spool(tmp_path, connect=faults.connect, quickness=Chosen(on_loop=True)) as desk:
        failing = False
        faults.at = at
        await desk.accept()
        here = threading.current_thread().name
        assert {name for _, name in threads} == {here}, "while it is well"
        threads.clear()
        failing = True
        for number in range(4):
            desk.spool.accept(
                message(desk.new_id()), (), lambda failure, number=number: answers.append((number, failure is None))
            )
        async with asyncio.timeout(20):
            while len(answers) < 4:
                await asyncio.sleep(0.001)
        assert [number for number, _ in answers] == [0, 1, 2, 3] and not any(kept for _, kept in answers)
        assert ("COMMIT", here) in threads and ("ROLLBACK", "spool") in threads and ("ROLLBACK", here) not in threads
        failing = False
        await desk.accept()


async def test_large_commits_and_questions_are_the_threads(tmp_path: Path) -> None:
    faults = Faults()
    threads: set[str] = set()
    faults.at = lambda sql: threads.add(threading.current_thread().name)
    with open_spool(tmp_path, connect=faults.connect, quickness=Chosen(on_loop=True)) as desk:
        threads.clear()
        stored = await desk.accept(content=b"x" * 300_000)
        assert "spool" in threads, "COMMIT"
        threads.clear()
        await desk.load(stored.envelope.id)
        assert threads == {"spool"}


async def test_another_writer_is_waited_for_without_stopping_the_loop(tmp_path: Path) -> None:
    with open_spool(tmp_path) as desk:
        await desk.accept()
        tool = sqlite3.connect(schema.database(tmp_path, 0), isolation_level=None)
        tool.execute("BEGIN IMMEDIATE")
        answer = asyncio.ensure_future(desk.try_accept(message(desk.new_id())))
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert not answer.done()
        tool.execute("COMMIT")
        tool.close()
        assert await answer is None


@pytest.mark.parametrize("threads", [True, False])
async def test_a_bug_in_the_writer_is_answered_and_service_goes_on(
    tmp_path: Path, threads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_spool(tmp_path, threads=threads) as desk:
        with monkeypatch.context() as patched:
            patched.setattr(shard.Shard, "_fail", None)
            patched.setattr(shard.Shard, "_finish", None)
            failure = await desk.try_accept(message(desk.new_id()))
            assert failure is not None
            assert failure.kind is FailureKind.IO
        kept = await desk.try_accept(stored := message(desk.new_id()))
        while kept is not None:  # the transaction that was left open is rolled back by the next failure
            kept = await desk.try_accept(stored)
        assert stored.envelope.id in await desk.fresh_ids()


async def test_content_that_stays_unreadable_is_given_up_and_the_operator_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked ever more seldom, not each second for ever; all other reads go on being asked."""
    monkeypatch.setattr(writer, "_RETRY_S", 0.005)
    faults = Faults()
    asked = 0

    def fails(sql: str) -> int | None:
        nonlocal asked
        if "FROM content" in sql:
            asked += 1
            return sqlite3.SQLITE_CORRUPT
        return sqlite3.SQLITE_IOERR_READ if sql.startswith("SELECT due_us") else None

    with open_spool(tmp_path, connect=faults.connect) as desk:
        bad = (await desk.accept("a@x.example")).envelope.id
        faults.at = fails
        due = asyncio.get_running_loop().create_future()
        desk.spool.next_due(0, "x.example", due.set_result)
        assert await desk.ask(desk.spool.content, bad) is None
        assert asked == writer._TRIES_MAX

        def is_told() -> bool:
            said = [event.text for event in desk.noted if isinstance(event, Noted)]
            return any("given up" in each and text(bad) in each and "spool check" in each for each in said)

        async with asyncio.timeout(20):
            while not is_told():
                await asyncio.sleep(0.001)
        assert not due.done()
        faults.at = lambda sql: None
        assert await desk.ask(desk.spool.content, bad) is not None, "it can be asked for again"


@pytest.mark.parametrize("busy", [True, False])
async def test_closing_from_another_thread_answers_all_that_was_asked(tmp_path: Path, busy: bool) -> None:
    """While the loop goes on asking: what was answered None is there, all is answered, in order."""
    for round in range(8):
        directory = tmp_path / str(round)
        kept: list[int] = []
        answered: list[int] = []
        asked: list[int] = []
        with open_spool(directory) as desk:
            loop = asyncio.get_running_loop()
            real = desk.spool._batching._next_batch

            def slow(real: Any = real) -> Any:  # between the taking of a batch and its handing over
                batch = real()
                time.sleep(0.003)
                return batch

            desk.spool._batching._next_batch = slow  # type: ignore[method-assign]
            closing = loop.run_in_executor(None, desk.spool.close)

            def one(desk: Desk = desk, asked: list[int] = asked, answered: list[int] = answered,
                    kept: list[int] = kept) -> None:  # fmt: skip
                stored = message(desk.new_id())
                asked.append(id := stored.envelope.id)

                def done(failure: object, id: int = id) -> None:
                    answered.append(id)
                    if failure is None:
                        kept.append(id)

                desk.spool.accept(stored, (), done)

            while not closing.done():
                for _ in range(3 if busy else 1):
                    one()
                await asyncio.sleep(0 if busy else 0.001)
            await closing
            async with asyncio.timeout(60):
                while len(answered) < len(asked):  # each answer comes in a turn of its own
                    await asyncio.sleep(0.001)
            assert sorted(answered) == asked
        with open_spool(directory) as desk:
            assert await desk.fresh_ids() == sorted(kept)
