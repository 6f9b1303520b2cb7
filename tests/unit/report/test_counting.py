"""The counts: each committed event once, whoever crashed and when."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Peer
from postroad.mail.event import Accepted, Attempted, Authenticated, Event, Failed, Refused, Removed, SessionEnded
from postroad.report.counting import ROWS, Counting, EventCounts, counted, total
from postroad.store.face import Committed

PEER = Peer("192.0.2.1")


class Clock:
    def now_us(self) -> int:
        return 1_000


class FakeJournal:
    """Rows in memory; the mark is kept only if `keeps`, as after a crash that lost it."""

    def __init__(self, *rows: Committed) -> None:
        self.shards: Sequence[int] = (0,)
        self.rows = list(rows)
        self.marks = {"counts": 0}
        self.keeps = True

    def committed(self, shard: int) -> int:
        return self.rows[-1].seq

    def mark(self, reader: str, shard: int, seq: int) -> None:
        if self.keeps:
            self.marks[reader] = seq

    def mark_of(self, reader: str, shard: int) -> int:
        return self.marks[reader]

    def read(self, shard: int, after: int, limit: int) -> list[Committed]:
        return [row for row in self.rows if row.seq > after][:limit]


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
    counting = Counting(tmp_path / "counts", journal, Clock())
    assert counting.step() and counting.counts().messages == ROWS
    again = Counting(tmp_path / "counts", journal, Clock())
    assert again.counts() == counting.counts()
    while again.step():
        pass
    assert again.counts() == EventCounts(1_000, ROWS + 10, ROWS + 10)


def test_a_disk_that_fails_moves_no_mark(tmp_path: Path) -> None:
    journal = FakeJournal(Committed(1, 1, (accepted("a"),)))
    (tmp_path / "counts").write_text("in the way")
    counting = Counting(tmp_path / "counts", journal, Clock())
    assert not counting.step() and counting.failure and journal.marks == {"counts": 0}
    (tmp_path / "counts").unlink()
    assert counting.step() and not counting.failure and journal.marks == {"counts": 1}


def test_a_file_that_cannot_be_read_is_begun_anew(tmp_path: Path) -> None:
    journal = FakeJournal(Committed(1, 1, (accepted("a"),)), Committed(2, 1, (accepted("b", "c"),)))
    journal.marks["counts"] = 1
    (tmp_path / "00.json").write_text("{")
    counting = Counting(tmp_path, journal, Clock())
    counting.step()
    assert counting.counts() == EventCounts(1_000, 1, 2)
