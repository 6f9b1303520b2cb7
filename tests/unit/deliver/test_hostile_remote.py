"""A remote that is hostile, slow or late (docs/hardening.md): memory, time and other messages must not suffer."""

from __future__ import annotations

import datetime
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme

from postroad.mail.attempt import Outcome
from postroad.mail.route import TlsDemand
from tests.unit.deliver.remote import Remote
from tests.unit.deliver.test_opener import Sender, carry, hop
from tests.unit.deliver.world import Stage, job


@pytest.mark.parametrize("line", [b"250-more of this\r\n", b"250-" + b"x" * 400 + b"\r\n"])
def test_an_endless_reply_of_many_lines_ends_the_session(line: bytes) -> None:
    """CVE-2020-8794."""
    stage = Stage()
    stage.carry(job())
    tracemalloc.start()
    for _ in range(20_000):
        if stage.done:
            break
        stage.courier.data_received(line)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert stage.done and stage.outcomes()[0][0] == "deferred" and stage.wire.aborted
    assert peak < 2_000_000


def test_a_line_of_ten_megabytes_ends_the_session() -> None:
    stage = Stage()
    stage.carry(job())
    piece = b"2" * 65_536
    tracemalloc.start()
    for _ in range(160):
        if stage.done:
            break
        stage.courier.data_received(piece)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert stage.done and stage.outcomes()[0][0] == "deferred" and stage.wire.aborted
    assert peak < 2_000_000


def test_a_250_after_half_an_hour_is_too_late() -> None:
    """RFC 5321 §4.5.3.2.6: ten minutes for the end of data. The message waits for its next attempt; what the remote
    says later changes nothing any more."""
    stage = Stage()
    stage.carry(job())
    stage.server("250 ok", "250 ok", "354 go")
    for _ in range(30):
        stage.loop.advance(60)
    assert stage.outcomes() == [("deferred", "message", "4.4.2")] and stage.wire.aborted
    stage.courier.data_received(b"250 2.0.0 at last\r\n")
    assert stage.outcomes() == [("deferred", "message", "4.4.2")]
    assert not stage.courier.usable


def test_one_octet_a_second_for_ever_is_bounded() -> None:
    """Each octet of a reply that never ends its line counts for nothing: the step has its time as a whole."""
    stage = Stage()
    stage.carry(job())
    seconds = 0
    while not stage.done:
        stage.courier.data_received(b"2" if seconds == 0 else b"5" if seconds == 1 else b"0" if seconds == 2 else b"-")
        stage.loop.advance(1)
        seconds += 1
        assert seconds < 1000
    assert stage.outcomes()[0][0] == "deferred"


# TLS identity: each way to prove nothing against each demand


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.fixture
async def remote_of() -> AsyncIterator[list[Remote]]:
    started: list[Remote] = []
    yield started
    for remote in started:
        await remote.stop()


NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


@pytest.mark.parametrize("fault", ["wrong name", "expired", "self-signed"])
@pytest.mark.parametrize("demand", [TlsDemand.MAY, TlsDemand.ENCRYPT, TlsDemand.VERIFY])
async def test_a_bad_certificate_against_each_demand(
    remote_of: list[Remote], pool: ThreadPoolExecutor, tmp_path: Path, fault: str, demand: TlsDemand
) -> None:
    authority = trustme.CA()
    issuer = trustme.CA() if fault == "self-signed" else authority
    name = "other.example" if fault == "wrong name" else "localhost"
    until = NOW - DAY if fault == "expired" else NOW + DAY
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert(name, not_before=NOW - 30 * DAY, not_after=until).configure_cert(context)
    roots = tmp_path / "roots.pem"
    authority.cert_pem.write_to_path(str(roots))
    remote = await Remote(tls=context).start()
    remote_of.append(remote)
    answer = await Sender(pool, str(roots)).open(hop(remote), tls=demand)
    if demand is TlsDemand.VERIFY:
        assert (answer.outcome, answer.status) == (Outcome.DEFERRED, "4.7.5")
        assert not [line for line in remote.commands if line.startswith("MAIL")]
    else:
        (attempt,) = await carry(answer, job())
        assert attempt.outcome is Outcome.RELAYED and attempt.tls
