"""The process that counts a day: all events of a day of UTC, once, wherever they stand; a whole file or none."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from postroad.mail.envelope import Peer
from postroad.mail.evaluation import DmarcFacts, Evaluation
from postroad.mail.event import Accepted, Evaluated
from postroad.node import collecting
from postroad.node.collecting import Collection, collect
from postroad.report.feedback import FeedbackKind, date_of
from postroad.store import feedback_days
from postroad.store.feedback_days import DayMaker, DaySending, FeedbackDay, SendingState
from postroad.store.sqlite import day_events
from tests.unit.store.sqlite.material import START_US, Clock, message
from tests.unit.store.sqlite.test_history import Place, place

DAY_US = 86_400_000_000
DAY = START_US // DAY_US
RECORD = "v=DMARC1; p=reject; rua=mailto:a@example.com"


def evaluated(at_us: int, domain: str = "example.com") -> Evaluated:
    facts = DmarcFacts(domain, "pass", domain, domain, RECORD, dkim_aligned=True)
    return Evaluated(at_us, 0, Evaluation("192.0.2.1", "mx", domain, (), (facts,)))


async def write(where: Place, *domains: str, listener: str = "mx", name: str = "ada@example.com") -> list[int]:
    """A message in a commit of its own for each author domain."""
    ids: list[int] = []
    for domain in domains:
        stored = message(where.desk.new_id(), name)
        id = stored.envelope.id
        recipients = tuple(str(each.address) for each in stored.envelope.recipients)
        event = Accepted(1, id, "", recipients, 1, "", Peer("192.0.2.1", listener=listener))
        found = msgspec.structs.replace(evaluated(where.desk.clock.time_us, domain), id=id)
        assert await where.desk.try_accept(stored, event, found) is None
        ids.append(id)
    return ids


def wanted(directory: Path, day: int = DAY) -> Collection:
    return Collection(str(directory), day, tuple(FeedbackKind), ("r@node.example",), "mx.node.example", 3_600.0, 600.0)


def rows(directory: Path, day: int = DAY) -> dict[str, int]:
    file = FeedbackDay(feedback_days.path_of(directory / feedback_days.FOLDER, date_of(day)))
    try:
        return {
            each.domain: sum(count for _, count in file.rows(each.kind, each.domain, 1_000)) for each in file.reports()
        }
    finally:
        file.close()


async def test_a_day_is_one_of_utc_whatever_the_time_zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        # The day on which New York puts its clocks back, 2026-11-01.
        day = 20_758
        clock = Clock(day * DAY_US - 2_000_000)
        with place(tmp_path, clock=clock) as where:
            await write(where, "before.example")
            clock.time_us = day * DAY_US
            await write(where, "first.example")
            clock.time_us = (day + 1) * DAY_US - 2_000_000
            await write(where, "last.example")
            clock.time_us = (day + 1) * DAY_US
            await write(where, "after.example")
            await where.move_all()
            assert collect(wanted(tmp_path, day)) == ""
        assert rows(tmp_path, day) == {"first.example": 1, "last.example": 1}
        file = FeedbackDay(feedback_days.path_of(tmp_path / feedback_days.FOLDER, "2026-11-01"))
        begin_us = (day + 1) * DAY_US + 600_000_000
        assert all(begin_us <= each.due_us <= begin_us + 3_600_000_000 for each in file.reports())
        assert {each.record for each in file.reports()} == {RECORD}
        file.close()
    finally:
        monkeypatch.undo()
        time.tzset()


async def test_events_in_the_journal_and_in_the_day_file_count_once(tmp_path: Path) -> None:
    with place(tmp_path, shards=(0, 1)) as where:
        await write(where, "a.example", "b.example")
        await where.move_all()
        await write(where, "a.example", "c.example")  # still in the journal
        assert collect(wanted(tmp_path)) == ""
    assert rows(tmp_path) == {"a.example": 2, "b.example": 1, "c.example": 1}


async def test_mail_to_our_report_mailboxes_does_not_count(tmp_path: Path) -> None:
    with place(tmp_path) as where:
        await write(where, "a.example")
        await write(where, "b.example", name="r@example.com")
        found = msgspec.structs.replace(wanted(tmp_path), mailboxes=("r@example.com",))
        assert collect(found) == ""
    assert rows(tmp_path) == {"a.example": 1}


async def test_a_history_that_is_far_behind_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(day_events, "UNMOVED_MAX", 3)
    with place(tmp_path) as where:
        await write(where, *["a.example"] * 5)
        assert "still has more than 3 commits" in collect(wanted(tmp_path))
        assert feedback_days.days(tmp_path / feedback_days.FOLDER) == []
        await where.move_all()
        assert collect(wanted(tmp_path)) == ""
    assert rows(tmp_path) == {"a.example": 5}


async def test_many_rows_are_written_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "ROWS_MAX", 2)
    with place(tmp_path) as where:
        await write(where, *[f"{number % 5}.example" for number in range(20)])
        assert collect(wanted(tmp_path)) == ""
    assert rows(tmp_path) == {f"{number}.example": 4 for number in range(5)}


async def test_a_day_without_events_has_a_file_too(tmp_path: Path) -> None:
    with place(tmp_path):
        assert collect(wanted(tmp_path, DAY - 1)) == ""
    assert rows(tmp_path, DAY - 1) == {}


async def test_a_day_is_counted_once(tmp_path: Path) -> None:
    with place(tmp_path) as where:
        await write(where, "a.example")
        assert collect(wanted(tmp_path)) == ""
        await write(where, "a.example")
        assert collect(wanted(tmp_path)) == ""
    assert rows(tmp_path) == {"a.example": 1}


async def test_what_a_crash_has_left_is_no_file_of_a_day(tmp_path: Path) -> None:
    folder = tmp_path / feedback_days.FOLDER
    unfinished = DayMaker(folder, date_of(DAY))
    unfinished.add([("dmarc", "x.example", b"x", 1)])
    assert feedback_days.days(folder) == []
    os.close(unfinished._lock)  # the process is gone, and its lock with it
    with place(tmp_path) as where:
        await write(where, "a.example")
        assert collect(wanted(tmp_path)) == ""
    assert rows(tmp_path) == {"a.example": 1}


async def test_the_process_does_the_same_and_says_why_it_could_not(tmp_path: Path) -> None:
    with place(tmp_path) as where:
        await write(where, "a.example")
    assert _run(wanted(tmp_path)) == (0, b"")
    assert rows(tmp_path) == {"a.example": 1}
    code, said = _run(wanted(tmp_path / "nowhere"))
    assert code == 1
    assert b"nowhere" in said


def _run(wanted: Collection) -> tuple[int, bytes]:
    command = [sys.executable, "-m", "postroad.node.collecting"]
    done = subprocess.run(command, input=msgspec.json.encode(wanted), capture_output=True, timeout=60)
    return done.returncode, done.stdout


def test_reports_of_days_before_are_known(tmp_path: Path) -> None:
    folder = tmp_path / feedback_days.FOLDER
    maker = DayMaker(folder, date_of(DAY - 2))
    maker.done(())
    file = FeedbackDay(feedback_days.path_of(folder, date_of(DAY - 2)), writes=True)
    file.note(DaySending("tls", "a.example", "mailto:a@a.example", SendingState.SENT, id=77))
    file.close()
    assert collecting._own_mail(folder, DAY) == [77]


async def test_two_processes_never_make_one_day(tmp_path: Path) -> None:
    """A worker was killed, and the process that counts for it goes on: what the next one makes, and what was sent by
    it, must stay."""
    with place(tmp_path) as where:
        await write(where, "a.example")
        await where.move_all()
    folder = tmp_path / feedback_days.FOLDER
    first = DayMaker(folder, date_of(DAY))
    first.add([("dmarc", "first.example", b"x", 1)])
    assert "another process" in collect(wanted(tmp_path))
    assert "another process" in collect(wanted(tmp_path, DAY - 1))
    first.done([])
    assert collect(wanted(tmp_path)) == ""
    with pytest.raises(FileExistsError):
        DayMaker(folder, date_of(DAY))
    assert collect(wanted(tmp_path, DAY - 1)) == ""  # it is free again


async def test_a_damaged_file_of_a_day_keeps_back_no_later_day(tmp_path: Path) -> None:
    with place(tmp_path) as where:
        await write(where, "a.example")
        await where.move_all()
    folder = tmp_path / feedback_days.FOLDER
    folder.mkdir()
    feedback_days.path_of(folder, date_of(DAY - 1)).write_bytes(b"no database at all" * 1_000)
    assert collect(wanted(tmp_path)) == "" and rows(tmp_path) == {"a.example": 1}
