"""The journal and the marks of its readers: what each is offered, what is removed, and who misses what."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from postroad.mail.event import Noted
from postroad.store.face import HISTORY, JournalReader, Missed
from postroad.store.sqlite import schema
from postroad.store.sqlite.journal import SqliteJournal
from tests.unit.store.sqlite.material import Desk, Faults, message, open_spool, rows

SLOW = JournalReader("slow", behind_max=5)
OTHER = JournalReader("other")


async def marked(desk: Desk, reader: str, seq: int) -> None:
    assert await desk.ask(desk.spool.mark, reader, 0, seq) is None


async def test_the_journal_keeps_what_one_reader_has_not(tmp_path: Path) -> None:
    with open_spool(tmp_path, readers=(HISTORY, OTHER)) as desk:
        journal = SqliteJournal(tmp_path, desk.spool)
        first = desk.spool.mark_of("other", 0)
        for _ in range(4):
            await desk.accept()
        seqs = [row.seq for row in journal.read(0, first, 100)]
        assert seqs == [*range(first + 1, first + 5)] and journal.committed(0) == seqs[-1]
        await marked(desk, "history", seqs[-1])
        assert rows(tmp_path, "journal") == 4
        await marked(desk, "other", seqs[1])
        assert [row.seq for row in journal.read(0, seqs[1], 1)] == seqs[2:3]
        assert rows(tmp_path, "journal") == 2
        await marked(desk, "other", seqs[0])  # a mark does not go back
        assert desk.spool.mark_of("other", 0) == seqs[1]
        journal.close()
    with open_spool(tmp_path, readers=(HISTORY, OTHER)) as desk:
        assert (desk.spool.mark_of("history", 0), desk.spool.mark_of("other", 0)) == (seqs[-1], seqs[1])


async def test_a_reader_that_is_gone_holds_nothing_back_and_a_new_one_begins_with_what_is_there(tmp_path: Path) -> None:
    with open_spool(tmp_path, readers=(HISTORY, OTHER)) as desk:
        for _ in range(4):
            await desk.accept()
    with open_spool(tmp_path, readers=(HISTORY, SLOW)) as desk:
        assert [event.text.partition("the journal ")[2] for event in desk.noted if isinstance(event, Noted)] == []
        first = desk.spool.mark_of("slow", 0)
        journal = SqliteJournal(tmp_path, desk.spool)
        assert len(journal.read(0, first, 100)) == 4
        journal.close()
        await marked(desk, "history", desk.spool.committed(0))
        await marked(desk, "slow", desk.spool.committed(0))
        assert rows(tmp_path, "journal") == 1


async def test_a_reader_too_far_behind_misses_commits_and_it_is_told(tmp_path: Path) -> None:
    with open_spool(tmp_path, readers=(HISTORY, SLOW)) as desk:
        first = desk.spool.mark_of("slow", 0)
        for _ in range(9):
            await desk.accept()
        await marked(desk, "history", desk.spool.committed(0))
        assert desk.spool.missed() == [Missed("slow", 0, 4)]
        assert desk.spool.mark_of("slow", 0) == first + 4 and rows(tmp_path, "journal") == 5
        await desk.ask(desk.spool.next_due, 0, "")
        assert any("misses 4 commits" in event.text for event in desk.noted if isinstance(event, Noted))


async def test_a_mark_whose_commit_fails_removes_nothing(tmp_path: Path) -> None:
    faults = Faults()
    with open_spool(tmp_path, connect=faults.connect, threads=False, readers=(HISTORY, OTHER)) as desk:
        await desk.accept()
        await desk.accept()
        before = desk.spool.mark_of("history", 0)
        faults.at = lambda sql: sqlite3.SQLITE_IOERR_FSYNC if sql == "COMMIT" else None
        assert await desk.ask(desk.spool.mark, "history", 0, desk.spool.committed(0)) is not None
        assert desk.spool.mark_of("history", 0) == before
        faults.at = lambda sql: None
        assert await desk.try_accept(message(desk.new_id())) is None
        assert rows(tmp_path, "journal") == 3


async def test_a_spool_of_before_the_marks_is_read_and_stays_readable_for_its_own_version(tmp_path: Path) -> None:
    """The table of readers is new; without it nothing is missing, and the layout's number is as it was."""
    with open_spool(tmp_path) as desk:
        for _ in range(3):
            await desk.accept()
    path = schema.database(tmp_path, 0)
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE reader")
    connection.commit()
    connection.close()
    with open_spool(tmp_path, readers=(HISTORY, OTHER)) as desk:
        journal = SqliteJournal(tmp_path, desk.spool)
        assert len(journal.read(0, desk.spool.mark_of("history", 0), 100)) == 3
        assert len(journal.read(0, desk.spool.mark_of("other", 0), 100)) == 3
        journal.close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone()[0] == 2
    connection.close()
