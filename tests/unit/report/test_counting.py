"""The counts: each committed event once, whoever crashed and when."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Peer
from postroad.mail.event import Accepted, Attempted, Authenticated, Event, Failed, Refused, Removed, SessionEnded
from postroad.report.counting import LATE_S, ROWS, Counting, EventCounts, counted, total
from postroad.store.face import HISTORY, Committed

PEER = Peer("192.0.2.1")


class Clock:
    def now_us(self) -> int:
        return 1_000


class FakeJournal:
    """Rows in memory; the mark is kept only if `keeps`, as after a crash that lost it."""

    def __init__(self, *rows: Committed) -> None:
        self.shards: Sequence[int] = (0,)
        self.rows = list(rows)
        self.marks = {"counts": 0, HISTORY.name: 0}
        self.read_rows = 0
        self.keeps = True

    def committed(self, shard: int) -> int:
        return self.rows[-1].seq

    def mark(self, reader: str, shard: int, seq: int) -> None:
        if self.keeps:
            self.marks[reader] = seq

    def mark_of(self, reader: str, shard: int) -> int:
        return self.marks[reader]

    def read(self, shard: int, after: int, limit: int) -> list[Committed]:
        found = [row for row in self.rows if row.seq > after][:limit]
        self.read_rows += len(found)
        return found


def attempted(outcome: Outcome, *names: str) -> Event:
    return Attempted(1, 1, names, "x", Attempt(outcome, Reach.RECIPIENT, "2.0.0"))


def accepted(*names: str) -> Event:
    return Accepted(1, 1, "", names, 1, "", PEER)


def test_what_is_counted() -> None:
    events = [
        accepted("a", "b"), attempted(Outcome.RELAYED, "a", "b"), attempted(Outcome.DELIVERED, "c"),
        attempted(Outcome.FAILED, "d"), attempted(Outcome.DEFERRED, "e"), Failed(1, 1, ("f",), "5.0.0", ""),
        Removed(1, 1, ("g",)), Refused(1, 0, PEER, "RCPT", "550"), SessionEnded(1, 0, PEER, "closed"),
        Authenticated(1, 0, PEER, "PLAIN"),
    ]  # fmt: skip
    found = counted(EventCounts(5), events)
    assert found == EventCounts(5, 1, 2, 1, 2, 2, 1, 1, 1, 1, 1)
    assert total([found, found]) == EventCounts(5, 2, 4, 2, 4, 4, 2, 2, 2, 2, 2)


def test_each_commit_is_counted_once_though_the_mark_was_lost(tmp_path: Path) -> None:
    journal = FakeJournal(*(Committed(seq, 1, (accepted("a"),)) for seq in range(1, ROWS + 11)))
    journal.keeps = False
    counting = Counting(tmp_path / "counts", journal, Clock(), lambda: 0.0)
    assert counting.step() and counting.counts().messages == ROWS
    again = Counting(tmp_path / "counts", journal, Clock(), lambda: 0.0)
    assert again.counts() == counting.counts()
    while again.step():
        pass
    assert again.counts() == EventCounts(1_000, ROWS + 10, ROWS + 10)


def test_a_disk_that_fails_moves_no_mark(tmp_path: Path) -> None:
    journal = FakeJournal(Committed(1, 1, (accepted("a"),)))
    (tmp_path / "counts").write_text("in the way")
    counting = Counting(tmp_path / "counts", journal, Clock(), lambda: 0.0)
    assert not counting.step() and counting.failure and journal.marks["counts"] == 0
    (tmp_path / "counts").unlink()
    counting.step()
    assert not counting.failure and journal.marks["counts"] == 1 and counting.counts().messages == 1


def test_a_file_that_cannot_be_read_is_begun_anew(tmp_path: Path) -> None:
    journal = FakeJournal(Committed(1, 1, (accepted("a"),)), Committed(2, 1, (accepted("b", "c"),)))
    journal.marks["counts"] = 1
    (tmp_path / "00.json").write_text("{")
    counting = Counting(tmp_path, journal, Clock(), lambda: 0.0)
    counting.step()
    assert counting.counts() == EventCounts(1_000, 1, 2)


class Led:
    """The counts behind a history, with a clock of their own."""

    def __init__(self, directory: Path, journal: FakeJournal) -> None:
        self.now = 0.0
        self.journal = journal
        self.counting = Counting(directory, journal, Clock(), lambda: self.now, leader=HISTORY.name)

    def hand_over(self, after: int, until: int) -> None:
        rows = [row for row in self.journal.rows if after < row.seq <= until]
        self.counting.on_moved(0, after, rows)
        self.journal.marks[HISTORY.name] = until

    def settle(self) -> int:
        """Steps until nothing is to be done; how many messages are counted."""
        while self.counting.step():
            pass
        return self.counting.counts().messages


def rows(count: int) -> list[Committed]:
    return [Committed(seq, 1, (accepted("a"),)) for seq in range(1, count + 1)]


def test_what_the_history_hands_over_is_not_read_again(tmp_path: Path) -> None:
    led = Led(tmp_path, FakeJournal(*rows(10)))
    led.hand_over(0, 6)
    assert led.counting.counts().messages == 6 and led.journal.marks["counts"] == 0, "nothing is kept yet"
    assert led.settle() == 6 and led.journal.marks["counts"] == 6
    led.hand_over(4, 8)
    assert led.settle() == 8 and led.journal.marks["counts"] == 8, "those of both times once"
    assert led.journal.read_rows == 0


def test_what_the_history_had_before_a_crash_is_read(tmp_path: Path) -> None:
    led = Led(tmp_path, FakeJournal(*rows(10)))
    led.hand_over(0, 6)  # and a crash before the counts are kept
    again = Led(tmp_path, led.journal)
    again.hand_over(6, 8)
    assert again.counting.counts().messages == 0, "there is a gap before these"
    assert again.settle() == 10
    again.hand_over(8, 10)
    assert again.settle() == 10


def test_a_history_that_stands_still_does_not_stop_the_counts(tmp_path: Path) -> None:
    led = Led(tmp_path, FakeJournal(*rows(10)))
    led.now += LATE_S - 1
    assert led.settle() == 0
    led.now += 2
    assert led.settle() == 10 and led.journal.marks["counts"] == 10


def test_without_a_history_the_counts_read_the_journal(tmp_path: Path) -> None:
    journal = FakeJournal(*rows(10))
    del journal.marks[HISTORY.name]
    counting = Counting(tmp_path, journal, Clock(), lambda: 0.0)
    assert counting.step() and not counting.step()
    assert counting.counts().messages == 10 and journal.marks == {"counts": 10}


def test_counts_that_are_all_there_are_not_written_again(tmp_path: Path) -> None:
    led = Led(tmp_path, FakeJournal(*rows(3)))
    led.hand_over(0, 3)
    led.settle()
    (tmp_path / "00.json").unlink()
    led.settle()
    assert not (tmp_path / "00.json").exists()
