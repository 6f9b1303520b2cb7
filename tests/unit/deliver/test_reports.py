"""The courier of report mailboxes: read once, kept before it ends, and delivered when it must be."""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from postroad.deliver.courier_context import courier_context
from postroad.deliver.options import DeliverOptions, ReportCopies, ReportMailboxOptions
from postroad.deliver.reports import ReportCourier, ReportReader
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.courier import Courier
from postroad.mail.envelope import Envelope, Peer, Recipient
from postroad.mail.job import Job
from postroad.mail.route import Destination, Transport
from postroad.protocol.sending import Result
from postroad.store.kept_reports import NAME, KeptMail, MailState, ReportStore
from postroad.store.options import KeptReportOptions
from postroad.trust.inbound import report_mail
from postroad.trust.inbound.limits import InboundLimits
from tests.unit.deliver import world
from tests.unit.trust.inbound import samples

NOW_US = 1_764_600_000_000_000
DMARC = samples.mail(samples.part("text/xml", samples.aggregate()))
TLS = samples.mail(samples.part("application/tlsrpt+gzip", samples.packed(samples.tls())), author="t@sender.example")
PERSON = b"From: a@b.example\r\nSubject: hi\r\n\r\nhi\r\n"
DESTINATION = Destination("maildir:here.example/reports/requiretls", Transport.MAILDIR, reports=True)


def job(content: bytes = DMARC, id: int = 7, client: str = "192.0.2.1") -> Job:
    recipients = (Recipient(Address("dmarc", "here.example")), Recipient(Address("tls", "here.example")))
    envelope = Envelope(id, Address("r", "there.example"), recipients, len(content), NOW_US, Peer(client))
    return Job(envelope, (0, 1), content, DESTINATION, envelope.reverse_path)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReportStore]:
    made = ReportStore(tmp_path / "history", KeptReportOptions())
    yield made
    made.close()


def reader(store: ReportStore, **options: object) -> ReportReader:
    return ReportReader(store, "mx.here.example", ReportMailboxOptions(**options), lambda: 0.0)  # type: ignore[arg-type]


def read(reader: ReportReader, given: Job, now_us: int = NOW_US) -> KeptMail:
    found = reader.read(given, now_us)
    assert isinstance(found, KeptMail), found
    return found


def test_a_mail_is_kept_once(store: ReportStore) -> None:
    reading = reader(store)
    first = read(reading, job())
    assert (first.state, first.text) == (MailState.READ, "a DMARC report of Reporter Inc. for example.org")
    assert (first.client, first.sender, first.author, first.recipient) == (
        "192.0.2.1", "r@there.example", "reporter.example", "dmarc@here.example",
    )  # fmt: skip
    assert read(reading, job(b"another content"), NOW_US + 5) == first
    assert len(list(store.reports("dmarc"))) == 1 and len(store.mails()) == 1
    assert read(reading, job(id=8)).duplicates == 1
    assert len(list(store.reports("dmarc"))) == 1


@pytest.mark.parametrize(
    ("content", "state", "text"),
    [
        (PERSON, MailState.ORDINARY, ""),
        (samples.mail(samples.part("text/xml", b"<feedback>", "a.xml")), MailState.UNREADABLE, "not well-formed"),
        (DMARC + b"x" * 70_000, MailState.UNREADABLE, "more than 65536 (size_max)"),
    ],
)
def test_what_is_no_report(store: ReportStore, content: bytes, state: int, text: str) -> None:
    found = read(reader(store, limits=InboundLimits(size_max=65_536)), job(content))
    assert found.state == state and text in found.text


def test_a_client_that_sends_too_many(store: ReportStore) -> None:
    reading = reader(store, kept=KeptReportOptions(client_mails_max=2))
    states = [read(reading, job(id=id)).state for id in range(4)]
    assert states == [MailState.READ, MailState.READ, MailState.NOT_READ, MailState.NOT_READ]
    assert read(reading, job(id=9, client="192.0.2.2")).state == MailState.READ
    assert read(reading, job(id=10), NOW_US + 86_400_000_001).state == MailState.READ


@pytest.mark.parametrize(
    ("results", "state", "verified"),
    [("dkim=pass header.d=sender.example", MailState.READ, True), ("dkim=none", MailState.UNREADABLE, None)],
)
def test_a_tls_report_must_be_signed(
    store: ReportStore, results: str, state: int, verified: bool | None
) -> None:
    """RFC 8460 §3. Without our own Authentication-Results nobody can tell, and it counts as not verified."""
    top = f"Authentication-Results: mx.here.example; {results}\r\nReceived: from x by mx.here.example; now\r\n"
    assert read(reader(store), job(top.encode() + TLS)).state == state
    assert [each.verified for each in store.reports("tls")] == ([] if verified is None else [verified])
    assert read(reader(store), job(TLS, id=8)).state == MailState.READ
    assert [each.verified for each in store.reports("tls")] == [bool(verified)]


def test_a_fault_of_ours_does_not_keep_the_mail(
    store: ReportStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("bug")

    monkeypatch.setattr(report_mail, "read", broken)
    with caplog.at_level(logging.CRITICAL):
        found = read(reader(store), job())
    assert (found.state, found.text) == (MailState.UNREADABLE, "internal error: RuntimeError")


def test_what_cannot_be_kept_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "history").write_text("in the way")
    found = reader(ReportStore(tmp_path / "history", KeptReportOptions())).read(job(), NOW_US)
    assert isinstance(found, Result)
    assert (found.outcome, found.status) == (Outcome.DEFERRED, "4.3.0") and "cannot be kept" in found.text


def test_a_full_disk(store: ReportStore) -> None:
    reading = reader(store)
    read(reading, job())
    connection = store._connection
    assert connection is not None
    connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")
    chance = random.Random(1)
    rows = [samples.record(f"10.1.{number}.1", 1, header_from=chance.randbytes(30).hex()) for number in range(250)]
    large = samples.mail(samples.part("text/xml", samples.aggregate(rows, report_id="2")))
    found = reading.read(job(large, id=8), NOW_US)
    assert isinstance(found, Result) and (found.outcome, found.status) == (Outcome.DEFERRED, "4.3.1")
    assert read(reading, job(large, id=8)).state == MailState.READ, "a new connection has room"


def test_it_rests(store: ReportStore) -> None:
    times = iter(range(10_000))
    rests: list[float] = []
    options = ReportMailboxOptions()
    reading = ReportReader(store, "mx", options, lambda: float(next(times)), rests.append)
    read(reading, job())
    assert rests and set(rests) == {3.0}


def test_a_worker_that_stops_does_not_wait_for_it(store: ReportStore) -> None:
    reading = reader(store)
    reading.stop()
    found = reading.read(job(), NOW_US)
    assert isinstance(found, Result) and (found.outcome, found.status) == (Outcome.DEFERRED, "4.3.2")
    assert store.mails() == []
    assert read(reader(store), job()).state == MailState.READ, "the next worker reads it"


class Inner:
    """The courier of the mailbox itself."""

    usable, elsewhere, doing = True, False, "inner"

    def __init__(self, loop: asyncio.AbstractEventLoop, outcome: Outcome) -> None:
        self._loop = loop
        self._outcome = outcome
        self.jobs: list[Job] = []
        self.closed = 0

    def carry(self, job: Job, done: Callable[[Job, tuple[Attempt, ...]], None]) -> None:
        self.jobs.append(job)
        attempt = Attempt(self._outcome, Reach.RECIPIENT, "2.0.0", "delivered to x")
        self._loop.call_soon(done, job, (attempt,) * len(job.recipients))

    def close(self) -> None:
        self.closed += 1


async def carried(
    store: ReportStore, given: Job, deliver: ReportCopies, opened: Inner | Attempt
) -> tuple[Attempt, ...]:
    loop = asyncio.get_running_loop()
    destinations: list[Destination] = []

    def open(destination: Destination, on_opened: Callable[[Courier | Attempt], None], lost: object) -> None:
        destinations.append(destination)
        loop.call_soon(on_opened, opened)

    with ThreadPoolExecutor(1) as pool:
        shared = courier_context("mx", DeliverOptions(), world.Clock(), loop, pool)
        courier = ReportCourier(shared, pool, reader(store, deliver=deliver), open, set())
        done: asyncio.Future[tuple[Attempt, ...]] = loop.create_future()
        courier.carry(given, lambda job, attempts: done.set_result(attempts))
        assert not courier.usable and courier.doing == "reads reports" and not courier.elsewhere
        found = await done
        assert courier.usable
        courier.close()
    assert all((each.key, each.reports) == ("maildir:here.example/requiretls", False) for each in destinations)
    return found


@pytest.mark.parametrize(
    ("content", "deliver", "goes_on"),
    [
        (DMARC, ReportCopies.ALL, True),
        (DMARC, ReportCopies.UNREAD, False),
        (PERSON, ReportCopies.UNREAD, True),
        (samples.mail(samples.part("x/y", b"PK\x03\x04")), ReportCopies.UNREAD, True),
    ],
)
async def test_what_goes_on(store: ReportStore, content: bytes, deliver: ReportCopies, goes_on: bool) -> None:
    inner = Inner(asyncio.get_running_loop(), Outcome.DELIVERED)
    found = await carried(store, job(content), deliver, inner)
    assert len(found) == 2 and {each.outcome for each in found} == {Outcome.DELIVERED}
    assert [each.destination.reports for each in inner.jobs] == [False] * goes_on
    assert inner.closed == goes_on
    assert found[0].text.startswith("delivered to x; " if goes_on else "read: a DMARC report")


async def test_the_outcome_is_that_of_the_mailbox(store: ReportStore) -> None:
    inner = Inner(asyncio.get_running_loop(), Outcome.DEFERRED)
    for _ in range(2):
        found = await carried(store, job(), ReportCopies.ALL, inner)
        assert {each.outcome for each in found} == {Outcome.DEFERRED}
    assert len(list(store.reports("dmarc"))) == 1
    refused = Attempt(Outcome.DEFERRED, Reach.DESTINATION, "4.4.1", "no connection")
    found = await carried(store, job(), ReportCopies.ALL, refused)
    assert [each.status for each in found] == ["4.4.1", "4.4.1"] and "no connection; read:" in found[0].text


async def test_nothing_is_delivered_before_its_reports_are_kept(tmp_path: Path) -> None:
    (tmp_path / "history").write_text("in the way")
    store = ReportStore(tmp_path / "history", KeptReportOptions())
    inner = Inner(asyncio.get_running_loop(), Outcome.DELIVERED)
    found = await carried(store, job(), ReportCopies.ALL, inner)
    assert {each.outcome for each in found} == {Outcome.DEFERRED} and not inner.jobs


async def test_a_delivery_that_is_broken_off(store: ReportStore) -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        shared = courier_context("mx", DeliverOptions(), world.Clock(), loop, pool)
        late: list[Callable[[Courier | Attempt], None]] = []
        opening = asyncio.Event()

        def open(destination: Destination, on_opened: Callable[[Courier | Attempt], None], lost: object) -> None:
            late.append(on_opened)
            opening.set()

        courier = ReportCourier(shared, pool, reader(store), open, set())
        done: list[tuple[Attempt, ...]] = []
        courier.carry(job(), lambda job, attempts: done.append(attempts))
        await opening.wait()
        await courier.end()
    assert [each.status for each in done[0]] == ["4.3.2", "4.3.2"]
    inner = Inner(loop, Outcome.DELIVERED)
    late[0](inner)
    assert inner.closed == 1 and not inner.jobs


def test_a_damaged_database_is_set_aside(tmp_path: Path) -> None:
    told: list[str] = []
    store = ReportStore(tmp_path, KeptReportOptions(), told.append)
    read(reader(store), job())
    store.close()
    (tmp_path / NAME).write_bytes(b"rubbish" * 1000)
    assert read(reader(store), job()).state == MailState.READ
    assert "damaged" in told[0] and (tmp_path / f"{NAME}.damaged-1").exists()
    with sqlite3.connect(tmp_path / NAME) as connection:
        assert connection.execute("SELECT count(*) FROM report").fetchone() == (1,)
    store.close()


def test_jobs_are_read_from_files_too(store: ReportStore, tmp_path: Path) -> None:
    from postroad.mail.message import ContentFile

    (tmp_path / "content").write_bytes(DMARC)
    plain = job()
    given = msgspec.structs.replace(plain, content=ContentFile(str(tmp_path / "content"), len(DMARC)))
    assert read(reader(store), given).state == MailState.READ
    gone = msgspec.structs.replace(job(id=8), content=ContentFile(str(tmp_path / "gone"), 5))
    found = reader(store).read(gone, NOW_US)
    assert isinstance(found, Result) and found.outcome is Outcome.DEFERRED and "cannot be read" in found.text


@pytest.mark.parametrize("broken", ["postroad.trust.inbound.report_mail.read", "postroad.trust.inbound.keeping.kept"])
def test_a_fault_of_ours_keeps_no_mail_from_its_mailbox(
    store: ReportStore, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fails(*_: object) -> object:
        raise KeyError("x")

    monkeypatch.setattr(broken, fails)
    found = read(reader(store), job())
    assert (found.state, found.text) == (MailState.UNREADABLE, "internal error: KeyError")
