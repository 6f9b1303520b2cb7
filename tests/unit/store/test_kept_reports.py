"""Reports of others on the disk: once, in order, not too many."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from postroad.store.kept_reports import KeepingFailed, KeptMail, KeptReport, MailState, ReportStore
from postroad.store.options import KeptReportOptions

DAY_US = 86_400_000_000
NOW_US = 1000 * DAY_US


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReportStore]:
    made = ReportStore(tmp_path, KeptReportOptions(keep_days=10))
    yield made
    made.close()


def report(name: str, domain: str = "a.example", value: bytes = b"x", *, verified: bool = False) -> KeptReport:
    return KeptReport("dmarc", name, domain, value, verified)


def mail(id: int, at_us: int = NOW_US, state: int = MailState.READ) -> KeptMail:
    return KeptMail(id, at_us, "192.0.2.1", state=state)


def names(store: ReportStore, **asked: object) -> list[str]:
    return [each.name for each in store.reports("dmarc", **asked)]  # type: ignore[arg-type]


def test_what_is_kept_is_found(store: ReportStore) -> None:
    assert not store.is_there and store.find(1) is None
    store.put(mail(1), [report("one"), report("two", "b.a.example"), report("three", "ba.example")])
    store.put(mail(2, NOW_US + 5), [report("four")])
    assert names(store) == ["one", "two", "three", "four"]
    assert names(store, domain="a.example") == ["one", "two", "four"]
    assert names(store, since_us=NOW_US + 1) == ["four"]
    assert list(store.reports("tls")) == []
    assert [each.id for each in store.mails(NOW_US + 1)] == [2]
    first = next(store.reports("dmarc"))
    assert (first.value, first.mail, first.at_us) == (b"x", 1, NOW_US)


def test_a_mail_counts_once_and_so_does_a_report(store: ReportStore) -> None:
    store.put(mail(1), [report("one")])
    assert store.put(mail(1, NOW_US + 9), [report("other")]) == mail(1)
    assert store.put(mail(2), [report("one", value=b"forged"), report("one"), report("two")]).duplicates == 2
    assert [(each.name, each.value) for each in store.reports("dmarc")] == [("one", b"x"), ("two", b"x")]


def test_a_verified_report_takes_the_place_of_another(store: ReportStore) -> None:
    store.put(mail(1), [report("one", value=b"forged")])
    assert store.put(mail(2), [report("one", value=b"true", verified=True)]).duplicates == 0
    assert store.put(mail(3), [report("one", value=b"forged")]).duplicates == 1
    assert store.put(mail(4), [report("one", value=b"again", verified=True)]).duplicates == 1
    assert [(each.value, each.mail, each.verified) for each in store.reports("dmarc")] == [(b"true", 2, True)]


def test_mails_of_a_client_are_counted(store: ReportStore) -> None:
    for id, state in enumerate((MailState.READ, MailState.ORDINARY, MailState.UNREADABLE, MailState.NOT_READ)):
        store.put(mail(id, NOW_US + id, state), ())
    assert store.sent_by("192.0.2.1", NOW_US) == 3
    assert store.sent_by("192.0.2.1", NOW_US + 1) == 2
    assert store.sent_by("192.0.2.2", 0) == 0


def test_what_is_old_goes(store: ReportStore) -> None:
    store.put(mail(1, NOW_US - 11 * DAY_US), [report("old")])
    store.put(mail(2), [report("new")])
    store.prune(NOW_US)
    assert names(store) == ["new"] and [each.id for each in store.mails()] == [2]


def test_if_there_is_too_much_the_unverified_go_first(tmp_path: Path) -> None:
    store = ReportStore(tmp_path, KeptReportOptions(size_max=1_048_576))
    chance = random.Random(1)
    noise = [chance.randbytes(4096) for _ in range(400)]
    good = [report(f"good {number}", verified=True, value=octets) for number, octets in enumerate(noise[:40])]
    store.put(mail(1), good)
    for number, octets in enumerate(noise):
        store.put(mail(number + 2, NOW_US + number), [report(f"bad {number}", value=octets)])
    store.prune(NOW_US)
    kept = names(store)
    assert sum(name.startswith("good") for name in kept) == 40
    assert 80 < len(kept) < 300 and "bad 399" in kept and "bad 0" not in kept
    store.close()


def test_mails_without_reports_do_not_pile_up(tmp_path: Path) -> None:
    """Strangers may write to the mailbox as often as they like."""
    store = ReportStore(tmp_path, KeptReportOptions(size_max=1_048_576))
    store.put(mail(1), [report("one")])
    for id in range(2, 500):
        store.put(mail(id, NOW_US + id, MailState.ORDINARY), ())
    store.prune(NOW_US)
    assert len(store.mails()) <= 262 and names(store) == ["one"]
    store.close()


def test_two_workers_write_at_the_same_time(tmp_path: Path) -> None:
    one, two = (ReportStore(tmp_path, KeptReportOptions()) for _ in range(2))
    one.put(mail(1), [report("one")])
    assert two.put(mail(2), [report("one"), report("two")]).duplicates == 1
    assert names(one) == ["one", "two"]
    one.close()
    two.close()


def test_a_reader_makes_nothing(tmp_path: Path) -> None:
    reader = ReportStore(tmp_path, KeptReportOptions(), only_reads=True)
    assert not reader.is_there
    with pytest.raises(KeepingFailed):
        reader.mails()
    assert list(tmp_path.iterdir()) == []
    writer = ReportStore(tmp_path, KeptReportOptions())
    writer.put(mail(1), [report("one")])
    assert names(reader) == ["one"]
    with pytest.raises(KeepingFailed):
        reader.put(mail(2), ())
    writer.close()
    reader.close()
    (tmp_path / "reports.db").write_bytes(b"rubbish" * 999)
    with pytest.raises(KeepingFailed, match="not a database"):
        reader.mails()
    assert (tmp_path / "reports.db").exists()


def test_a_fault_of_ours_leaves_no_transaction_open(store: ReportStore, tmp_path: Path) -> None:
    """Else no other worker could write until this one ends."""
    with pytest.raises(UnicodeEncodeError):
        store.put(mail(1), [report("one"), report("\ud800")])
    other = sqlite3.connect(tmp_path / "reports.db", timeout=0)
    other.execute("BEGIN IMMEDIATE")
    other.close()
    assert names(store) == [] and store.put(mail(1), [report("one")]) == mail(1)


def test_what_one_worker_has_begun_anew_is_not_set_aside_by_the_next(tmp_path: Path) -> None:
    said: list[str] = []
    first, second = (ReportStore(tmp_path, KeptReportOptions(keep_days=10), said.append) for _ in range(2))
    for store in (first, second):
        store.put(mail(1), [report("one")])
    with sqlite3.connect(tmp_path / "reports.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with open(tmp_path / "reports.db", "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 60_000)
    assert first.put(mail(2), [report("two")]).id == 2
    assert second.put(mail(3), [report("three")]).id == 3
    assert names(first) == names(second) == ["two", "three"] and len(said) == 1
    first.close()
    second.close()
