"""The opener and its couriers over real sockets on loopback: hops, TLS demands, credentials, kept connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme
from aiosmtpd.controller import Controller

from postroad.deliver.credentials import Credentials
from postroad.deliver.opener import Opener
from postroad.deliver.options import DeliverOptions
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Ret
from postroad.mail.job import Job
from postroad.mail.message import ContentFile
from postroad.mail.route import (
    Destination,
    Fallback,
    Hop,
    Origin,
    OwnAddress,
    Route,
    SetServer,
    TlsDemand,
    Transport,
)
from postroad.protocol import seven_bit
from postroad.protocol.sasl.mechanisms import MECHANISMS, ExchangeContext
from postroad.protocol.sasl.step import Challenge, Mechanism, ProofFailed
from postroad.world.clock import SystemClock
from postroad.world.network import SystemNetwork
from postroad.world.programs import SystemPrograms
from postroad.world.tls import ClientTls, ClientTlsOptions
from postroad.world.tls_session import channel_binding
from tests.peers.harness import ports
from tests.unit.deliver.remote import CLOSE, Remote
from tests.unit.deliver.world import job

CREDENTIALS = {"smart": Credentials("ada", "secret"), "open": Credentials("ada", "secret", without_tls=True)}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


class Sender:
    """An opener with hops set by hand, and calls that wait."""

    def __init__(self, pool: ThreadPoolExecutor, ca_file: str = "", options: DeliverOptions | None = None) -> None:
        self.route: tuple[Hop, ...] | Attempt | Exception = ()
        self.lost: list[Any] = []
        self.lose = asyncio.Event()
        self.opener = Opener(
            name="me.test", options=options or DeliverOptions(connect_s=5, handshake_s=5), network=SystemNetwork(),
            tls=ClientTls(ClientTlsOptions(ca_file=ca_file)), hops=self.hops, credentials=CREDENTIALS.get,
            programs=SystemPrograms(), clock=SystemClock(), loop=asyncio.get_running_loop(), pool=pool,
        )

    async def hops(self, destination: Destination) -> Route | Attempt:
        if isinstance(self.route, Exception):
            raise self.route
        return self.route if isinstance(self.route, Attempt) else Route(destination, self.route)

    def lost_one(self, courier: Any) -> None:
        self.lost.append(courier)
        self.lose.set()

    async def open(self, *hops: Hop, **fields: Any) -> Any:
        self.route = hops or self.route
        fields = {"tls": TlsDemand.MAY} | fields
        destination = Destination("example.net", fields.pop("transport", Transport.SMTP), **fields)
        opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.opener(destination, opened.set_result, self.lost_one)
        assert not opened.done(), "opened was called from within the call"
        return await asyncio.wait_for(opened, 20)


async def carry(courier: Any, given: Job) -> tuple[Attempt, ...]:
    done: asyncio.Future[tuple[Attempt, ...]] = asyncio.get_running_loop().create_future()
    courier.carry(given, lambda job, attempts: done.set_result(attempts))
    return await asyncio.wait_for(done, 20)


def hop(remote: Remote, name: str = "localhost") -> Hop:
    return Hop(name, "127.0.0.1", remote.port)


@pytest.fixture
async def remotes() -> AsyncIterator[Callable[..., Awaitable[Remote]]]:
    started: list[Remote] = []

    async def start(*arguments: Any, implicit: bool = False, path: str = "", **fields: Any) -> Remote:
        started.append(await Remote(*arguments, **fields).start(implicit=implicit, path=path))
        return started[-1]

    yield start
    for remote in started:
        await remote.stop()


async def test_messages_over_a_kept_connection(remotes: Any, pool: ThreadPoolExecutor) -> None:
    remote = await remotes("PIPELINING DSN SIZE")
    courier = await Sender(pool).open(hop(remote))
    for _ in range(5):
        (attempt,) = await carry(courier, job(b"Subject: x\r\n\r\n.dot\r\n"))
        assert attempt.outcome is Outcome.RELAYED
        assert attempt.remote_port == remote.port and attempt.dsn_passed and not attempt.tls
    assert remote.connections == 1
    assert remote.mails == [b"Subject: x\r\n\r\n.dot\r\n"] * 5
    courier.close()
    await remote.until(lambda: remote.commands[-1] == "QUIT")


async def test_ten_megabytes_from_a_file_and_from_memory(
    remotes: Any, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    remote = await remotes()
    octets = b"Subject: large\r\n\r\n" + b"." * 70 + b"\r\n" + (b".x" * 38 + b"\r\n") * 40_000
    path = tmp_path / "content"
    path.write_bytes(octets)
    courier = await Sender(pool).open(hop(remote))
    for content in (ContentFile(str(path), len(octets)), octets):
        (attempt,) = await carry(courier, job(content))
        assert attempt.outcome is Outcome.RELAYED
    assert remote.mails == [octets, octets]


async def test_the_next_hop_where_one_is_dead(remotes: Any, pool: ThreadPoolExecutor) -> None:
    """RFC 5321 §5.1; a hop that failed is tried after the others for a while."""
    busy = await remotes(answers={"GREETING": b"421 4.3.2 busy\r\n"})
    closed = await remotes(answers={"GREETING": None})
    refuses = await remotes(answers={"EHLO": b"450 4.7.1 later\r\n"})
    blocked = await remotes(answers={"GREETING": b"554 5.7.1 you are blocked\r\n"})
    good = await remotes()
    sender = Sender(pool)
    route = (Hop("dead", "127.0.0.1", ports.port()), *map(hop, (busy, closed, refuses, blocked, good)))
    courier = await sender.open(*route[:1], *route[-2:])
    (attempt,) = await carry(courier, job())
    assert attempt.outcome is Outcome.RELAYED
    assert [(tried.name, tried.status) for tried in attempt.tries] == [("dead", "4.4.1"), ("localhost", "4.7.1")]
    (attempt,) = await carry(courier, job())
    assert attempt.tries == (), "they belong to the attempt for which the connection was opened"
    failed = await sender.open(*route[:2])
    assert failed.text.startswith("2 hosts tried: ")
    said = [(tried.port, tried.outcome, tried.reply and tried.reply.code) for tried in failed.tries]
    assert said == [(busy.port, Outcome.DEFERRED, 421), (route[0].port, Outcome.DEFERRED, None)]
    found = await sender.open(*route)  # five hops at most, and those that failed are behind the others
    assert not isinstance(found, Attempt)
    assert busy.connections == 1 and blocked.connections == 1


@pytest.mark.parametrize("answer", [b"421 4.3.2 going down\r\n", None])
async def test_a_host_that_ends_its_first_session_stands_behind_the_others(
    remotes: Any, pool: ThreadPoolExecutor, answer: bytes | None
) -> None:
    """RFC 5321 §5.1: the next host is there for the next opening, and it is known that there is one."""
    bad, good = await remotes(answers={"MAIL": answer}), await remotes()
    sender = Sender(pool)
    first = await sender.open(hop(bad), hop(good))
    assert first.elsewhere and first.hop.port == bad.port
    (attempt,) = await carry(first, job())
    assert (attempt.outcome, attempt.reach) == (Outcome.DEFERRED, Reach.SESSION)
    second = await sender.open()
    assert not second.elsewhere and second.hop.port == good.port
    assert (await carry(second, job()))[0].outcome is Outcome.RELAYED


async def test_no_hop_takes_us(remotes: Any, pool: ThreadPoolExecutor) -> None:
    blocked = await remotes(answers={"GREETING": b"554 5.7.1 blocked\r\n"})
    attempt = await Sender(pool).open(hop(blocked, "mx1"), Hop("mx2", "127.0.0.1", ports.port()))
    assert isinstance(attempt, Attempt)
    assert (attempt.outcome, attempt.reach, attempt.status) == (Outcome.DEFERRED, Reach.DESTINATION, "4.7.1")
    assert attempt.reply is not None and attempt.reply.code == 554
    assert attempt.remote_name == "mx1" and attempt.remote_address == "127.0.0.1"
    assert "mx1" in attempt.text and "mx2" in attempt.text and "connection refused" in attempt.text


async def test_hosts_and_addresses_of_which_the_same_is_to_be_said(remotes: Any, pool: ThreadPoolExecutor) -> None:
    one, other = ports.port(), ports.port()
    attempt = await Sender(pool).open(Hop("mx", "127.0.0.1", one), Hop("mx", "127.0.0.1", other))
    places = f"mx[127.0.0.1]:{one} and mx[127.0.0.1]:{other}"
    assert attempt.text == f"2 addresses of mx tried: no connection to {places}: connection refused"
    busy = await remotes(answers={"GREETING": b"421 4.3.2 busy\r\n"})
    attempt = await Sender(pool).open(hop(busy, "a"), hop(busy, "b"), Hop("c", "127.0.0.1", one))
    assert attempt.text == (
        f"3 hosts tried: a[127.0.0.1]:{busy.port} and b[127.0.0.1]:{busy.port}: 421 4.3.2 busy; "
        f"no connection to c[127.0.0.1]:{one}: connection refused"
    )
    assert attempt.reason == attempt.text


async def test_a_host_that_takes_no_mail_for_good(remotes: Any, pool: ThreadPoolExecutor) -> None:
    """RFC 7504"""
    never = await remotes(answers={"GREETING": b"521 5.3.2 no mail here\r\n"})
    attempt = await Sender(pool).open(hop(never))
    assert (attempt.outcome, attempt.status) == (Outcome.FAILED, "5.3.2")
    attempt = await Sender(pool).open(hop(never), Hop("mx2", "127.0.0.1", ports.port()))
    assert (attempt.outcome, attempt.status) == (Outcome.DEFERRED, "4.4.1")


async def test_the_look_up_decides(pool: ThreadPoolExecutor) -> None:
    sender = Sender(pool)
    sender.route = Attempt(Outcome.FAILED, Reach.DESTINATION, "5.1.10", "null MX")
    assert (await sender.open()) == sender.route
    sender.route = ()
    assert (await sender.open()).status == "4.4.4"
    sender.route = RuntimeError("a bug")
    attempt = await sender.open()
    assert (attempt.outcome, attempt.status) == (Outcome.DEFERRED, "4.3.0")


async def test_an_opening_broken_off_still_answers(pool: ThreadPoolExecutor, remotes: Any) -> None:
    silent = await remotes(answers={"GREETING": b""})
    sender = Sender(pool)
    opening = asyncio.ensure_future(sender.open(hop(silent)))
    await silent.until(lambda: silent.connections == 1)
    sender.opener.cancel()
    assert (await opening).status == "4.3.2"


async def test_an_opening_broken_off_before_it_has_begun_answers_too(pool: ThreadPoolExecutor) -> None:
    sender = Sender(pool)
    sender.route = (Hop("localhost", "127.0.0.1", ports.port()),)
    opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    sender.opener(Destination("example.net", Transport.SMTP), opened.set_result, sender.lost_one)
    sender.opener.cancel()
    assert (await asyncio.wait_for(opened, 20)).status == "4.3.2"


async def test_a_remote_that_is_silent_after_connecting(pool: ThreadPoolExecutor, remotes: Any) -> None:
    silent = await remotes(answers={"GREETING": b""})
    attempt = await Sender(pool, options=DeliverOptions(greeting_s=0.05)).open(hop(silent))
    assert attempt.status == "4.4.2" and "no answer to the connection" in attempt.text


@pytest.mark.parametrize(
    "greeting", [b"220-x\r\n" * 5000, b"2" * 100_000, b"HTTP/1.1 400\r\n", b"220 a\n", b"\x16\x03"]
)
async def test_a_greeting_that_is_none(pool: ThreadPoolExecutor, remotes: Any, greeting: bytes) -> None:
    hostile = await remotes(answers={"GREETING": greeting})
    attempt = await Sender(pool).open(hop(hostile))
    assert (attempt.outcome, attempt.status) == (Outcome.DEFERRED, "4.5.0")


# -- TLS


async def test_tls_where_it_is_offered(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA, ca_file: str
) -> None:
    for demand in (TlsDemand.MAY, TlsDemand.ENCRYPT, TlsDemand.VERIFY):
        remote = await remotes(tls=server_context(authority, "localhost"))
        courier = await Sender(pool, ca_file).open(hop(remote), tls=demand)
        (attempt,) = await carry(courier, job())
        assert attempt.outcome is Outcome.RELAYED and attempt.tls.startswith("TLSv1.3 ")
        assert remote.commands[:3] == ["EHLO me.test", "STARTTLS", "EHLO me.test"]
        courier.close()


async def test_tls_never(remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA) -> None:
    remote = await remotes(tls=server_context(authority, "localhost"))
    courier = await Sender(pool).open(hop(remote), tls=TlsDemand.NONE)
    assert (await carry(courier, job()))[0].tls == ""
    assert "STARTTLS" not in remote.commands


async def test_implicit_tls(remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA, ca_file: str) -> None:
    """RFC 8314 §3.3"""
    remote = await remotes(tls=server_context(authority, "localhost"), implicit=True)
    courier = await Sender(pool, ca_file).open(hop(remote), tls=TlsDemand.IMPLICIT)
    assert (await carry(courier, job()))[0].tls.startswith("TLS")
    attempt = await Sender(pool, ca_file).open(hop(remote, "other.example"), tls=TlsDemand.IMPLICIT)
    assert attempt.status == "4.7.5"


@pytest.mark.parametrize("demand", [TlsDemand.ENCRYPT, TlsDemand.VERIFY])
@pytest.mark.parametrize("answers", [{}, {"STARTTLS": b"454 4.7.0 not now\r\n"}])
async def test_stripped_starttls_where_tls_is_demanded(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA, demand: TlsDemand, answers: dict[str, bytes]
) -> None:
    """CVE-2016-0772 and its kin: nothing of the message is said, and it waits."""
    context = server_context(authority, "localhost") if answers else None
    remote = await remotes(tls=context, answers=answers)
    attempt = await Sender(pool).open(hop(remote), tls=demand)
    assert (attempt.outcome, attempt.status) == (Outcome.DEFERRED, "4.7.4")
    assert not [line for line in remote.commands if line.startswith(("MAIL", "AUTH"))]


@pytest.mark.parametrize("name", ["wrong.example", "localhost"])
async def test_a_certificate_that_proves_nothing(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA, ca_file: str, name: str
) -> None:
    """Another name, or an unknown root: refused where proof is demanded, taken where it is not."""
    issuer = authority if name == "wrong.example" else trustme.CA()
    remote = await remotes(tls=server_context(issuer, name))
    attempt = await Sender(pool, ca_file).open(hop(remote), tls=TlsDemand.VERIFY)
    assert (attempt.outcome, attempt.status) == (Outcome.DEFERRED, "4.7.5")
    assert "certificate" in attempt.text
    for demand in (TlsDemand.MAY, TlsDemand.ENCRYPT):
        courier = await Sender(pool, ca_file).open(hop(remote), tls=demand)
        assert (await carry(courier, job()))[0].tls


async def test_a_failed_handshake_leads_to_plaintext_only_where_that_is_allowed(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA
) -> None:
    """RFC 7435: what is opportunistic must not be worse than nothing."""
    context = server_context(authority, "localhost")
    answers = {"STARTTLS": b"220 ready\r\n"}  # and then no handshake
    sender = Sender(pool, options=DeliverOptions(handshake_s=0.2))
    remote = await remotes(tls=context, answers=answers)
    courier = await sender.open(hop(remote))
    assert (await carry(courier, job()))[0].tls == ""
    assert remote.connections == 2
    courier = await sender.open(hop(remote))  # it is remembered
    assert remote.connections == 3
    attempt = await sender.open(hop(remote), tls=TlsDemand.ENCRYPT)
    assert attempt.status == "4.7.5"


@pytest.mark.parametrize("demand", [TlsDemand.MAY, TlsDemand.ENCRYPT])
async def test_plaintext_behind_the_answer_to_starttls(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA, demand: TlsDemand
) -> None:
    answers = {"STARTTLS": b"220 ready\r\n250 injected\r\n"}
    remote = await remotes(tls=server_context(authority, "localhost"), answers=answers)
    attempt = await Sender(pool).open(hop(remote), tls=demand)
    assert (attempt.outcome, attempt.status) == (Outcome.DEFERRED, "4.7.0")
    assert not [line for line in remote.commands if line.startswith("MAIL")]


async def test_starttls_refused_where_tls_was_only_wished_for(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA
) -> None:
    remote = await remotes(tls=server_context(authority, "localhost"), answers={"STARTTLS": b"454 no\r\n"})
    courier = await Sender(pool).open(hop(remote))
    assert (await carry(courier, job()))[0].outcome is Outcome.RELAYED
    assert remote.connections == 1


async def test_what_was_found_for_one_destination_vouches_for_no_other(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA, ca_file: str
) -> None:
    """No TLS session is taken up again, so that no certificate counts that was not shown; a certificate that was taken
    unproved, and plaintext that was spoken, do not count where more is demanded of the same host."""
    remote = await remotes(tls=server_context(trustme.CA(), "localhost"))
    sender = Sender(pool, ca_file)
    for _ in range(2):
        courier = await sender.open(hop(remote), tls=TlsDemand.MAY)
        (attempt,) = await carry(courier, job())
        assert attempt.tls and attempt.tls_details is not None
        assert not attempt.tls_details.verified and not courier.tls.resumed
        courier.close()
    attempt = await sender.open(hop(remote), tls=TlsDemand.VERIFY)
    assert attempt.status == "4.7.5" and "certificate" in attempt.text
    good = await remotes(tls=server_context(authority, "localhost"))
    for name, proved in (("localhost", True), ("other.example", False)):  # the same address by another name
        found = await sender.open(hop(good, name), tls=TlsDemand.VERIFY)
        assert isinstance(found, Attempt) is not proved
    broken = await remotes(tls=server_context(authority, "localhost"), answers={"STARTTLS": None})
    assert (await carry(await sender.open(hop(broken)), job()))[0].tls == ""
    for demand in (TlsDemand.ENCRYPT, TlsDemand.VERIFY):
        attempt = await sender.open(hop(broken), tls=demand)
        assert isinstance(attempt, Attempt) and attempt.outcome is Outcome.DEFERRED


TLS_BREAKS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"STARTTLS": None}, {}),
    ({"STARTTLS": b"554 5.7.0 TLS failed\r\n" + CLOSE}, {}),
    ({"STARTTLS": b"421 4.7.0 no TLS now\r\n" + CLOSE}, {}),
    ({"STARTTLS": b"what?\r\n"}, {}),
    ({"STARTTLS": b"250 sure\r\n"}, {}),
    ({"STARTTLS": b""}, {}),
    ({}, {"EHLO": None}),
    ({}, {"EHLO": b"220 a greeting\r\n"}),
    ({}, {"EHLO": b""}),
]


@pytest.mark.parametrize(("answers", "within"), TLS_BREAKS)
async def test_a_break_between_starttls_and_mail_leads_to_one_try_in_plaintext(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA, answers: dict[str, Any], within: dict[str, Any]
) -> None:
    """RFC 7435 §3: and it is remembered; where TLS is demanded the mail waits."""
    remote = await remotes(tls=server_context(authority, "localhost"), answers=answers)
    remote.within = within
    options = DeliverOptions(connect_s=5, handshake_s=5, hello_s=1.0, starttls_s=1.0)
    sender = Sender(pool, options=options)
    courier = await sender.open(hop(remote))
    assert not isinstance(courier, Attempt), courier.text
    (attempt,) = await carry(courier, job())
    if attempt.outcome is Outcome.DEFERRED:  # STARTTLS was refused in words: the end of the session came behind them
        assert attempt.reach is Reach.SESSION
        courier = await sender.open(hop(remote))
        (attempt,) = await carry(courier, job())
    assert (attempt.outcome, attempt.tls) == (Outcome.RELAYED, "")
    assert remote.connections == 2 and remote.commands.count("STARTTLS") == 1
    await sender.open(hop(remote))
    assert remote.connections == 3 and remote.commands.count("STARTTLS") == 1
    attempt = await sender.open(hop(remote), tls=TlsDemand.ENCRYPT)
    assert isinstance(attempt, Attempt) and attempt.outcome is Outcome.DEFERRED
    assert remote.connections == 4


async def test_tls_is_tried_again_where_plaintext_broke_too(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA
) -> None:
    remote = await remotes(tls=server_context(authority, "localhost"), answers={"STARTTLS": None})
    sender = Sender(pool)
    opening = asyncio.ensure_future(sender.open(hop(remote)))
    await remote.until(lambda: "STARTTLS" in remote.commands)
    remote.answers["GREETING"] = b"421 4.3.2 restarting\r\n"
    attempt = await opening
    assert attempt.status == "4.3.2" and "with TLS" in attempt.text
    remote.answers.clear()
    courier = await sender.open(hop(remote))
    assert (await carry(courier, job()))[0].tls.startswith("TLS")


async def test_a_refusal_in_words_under_tls_is_no_break(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA
) -> None:
    remote = await remotes(tls=server_context(authority, "localhost"))
    remote.within = {"EHLO": b"451 4.7.1 come later\r\n"}
    attempt = await Sender(pool).open(hop(remote))
    assert attempt.status == "4.7.1" and str(attempt.reply) == "451 4.7.1 come later"
    assert remote.connections == 1


async def test_credentials_do_not_go_without_tls_after_a_break(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA
) -> None:
    remote = await remotes("AUTH:PLAIN", tls=server_context(authority, "localhost"))
    remote.within = {"AUTH": None}
    attempt = await Sender(pool).open(hop(remote), credentials="smart")
    assert attempt.status == "4.4.2" and remote.connections == 1


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("demand", [TlsDemand.MAY, TlsDemand.ENCRYPT])
async def test_a_host_that_demands_a_client_certificate(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA, ca_file: str, version: ssl.TLSVersion,
    demand: TlsDemand,
) -> None:  # fmt: skip
    """With TLS 1.3 its refusal comes behind the handshake. It is that host's outcome; the next one is tried."""
    context = server_context(authority, "localhost")
    context.minimum_version = context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca_file)
    bad = await remotes(tls=context)
    sender = Sender(pool, ca_file)
    if demand is TlsDemand.MAY:
        courier = await sender.open(hop(bad))
        assert (await carry(courier, job()))[0].tls == ""
        return
    attempt = await sender.open(hop(bad), tls=demand)
    assert attempt.outcome is Outcome.DEFERRED and "error" not in attempt.text.lower()
    good = await remotes(tls=server_context(authority, "localhost"))
    courier = await Sender(pool, ca_file).open(hop(bad), hop(good), tls=demand)
    assert (await carry(courier, job()))[0].remote_port == good.port


async def test_the_alert_of_a_host_that_demands_a_client_certificate_is_told(
    pool: ThreadPoolExecutor, authority: trustme.CA, ca_file: str
) -> None:
    """A server whose OpenSSL sends its alert before it closes, as those of real hosts do."""
    context = server_context(authority, "localhost")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca_file)

    def serve(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            connection.sendall(b"220 remote\r\n")
            connection.recv(100)
            connection.sendall(b"250-remote\r\n250 STARTTLS\r\n")
            connection.recv(100)
            connection.sendall(b"220 go\r\n")
            with context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as secured:
                with contextlib.suppress(OSError):
                    secured.do_handshake()
                with contextlib.suppress(OSError):
                    while socket.socket.recv(secured, 1000):  # else the alert could be lost by a reset
                        pass

    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as thread:
        served = thread.submit(serve, listening)
        place = Hop("localhost", "127.0.0.1", listening.getsockname()[1])
        attempt = await Sender(pool, ca_file).open(place, tls=TlsDemand.ENCRYPT)
        await asyncio.wrap_future(served)
    assert attempt.status == "4.7.5" and "certificate required" in attempt.text


async def test_a_bug_over_one_host_is_that_hosts_outcome(
    remotes: Any, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from postroad.deliver import opener, session

    bad, good = await remotes(), await remotes()

    async def visit(ways: Any, where: Any, lost: Any) -> Any:
        if where.hop.port == bad.port:
            raise ValueError("handshake not done yet")
        return await session.visit(ways, where, lost)

    monkeypatch.setattr(opener, "visit", visit)
    courier = await Sender(pool).open(hop(bad), hop(good))
    assert (await carry(courier, job()))[0].remote_port == good.port
    attempt = await Sender(pool).open(hop(bad))
    assert attempt.status == "4.3.0" and "internal error: ValueError" in attempt.text


@pytest.mark.parametrize("slow", ["STARTTLS", "AUTH", "EHLO"])
async def test_the_time_of_an_idle_connection_does_not_end_its_set_up(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA, ca_file: str, slow: str
) -> None:
    remote = await remotes("AUTH:PLAIN", tls=server_context(authority, "localhost"))
    remote.slow_s = {slow: 1.2}  # more than the second after which a timer looks
    sender = Sender(pool, ca_file, DeliverOptions(connect_s=5, handshake_s=5, idle_s=0))
    sender.route = (hop(remote),)
    destination = Destination("example.net", Transport.SMTP, tls=TlsDemand.VERIFY, credentials="smart")
    done: asyncio.Future[tuple[Attempt, ...]] = asyncio.get_running_loop().create_future()

    def opened(found: Any) -> None:  # as the queue does: with no time between
        assert not isinstance(found, Attempt), found.text
        found.carry(job(), lambda job, attempts: done.set_result(attempts))

    sender.opener(destination, opened, sender.lost_one)
    assert (await asyncio.wait_for(done, 20))[0].outcome is Outcome.RELAYED


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"EHLO": b"554 5.7.1 blocked\r\n" + CLOSE}, "554 5.7.1 blocked"),
        ({"EHLO": b"521 5.3.2 no mail here\r\n" + CLOSE}, "521 5.3.2 no mail here"),
        ({"EHLO": b"250 remote\r\n554 5.7.1 not you\r\n" + CLOSE}, "554 5.7.1 not you"),
        ({"GREETING": b"220-hello\r\n554 5.7.1 not you\r\n" + CLOSE}, "554 5.7.1 hello not you"),
        ({"GREETING": b"554 5.7.1 not you\r\n" + CLOSE}, "554 5.7.1 not you"),
    ],
)
async def test_the_words_of_a_host_that_refuses_and_closes_are_kept(
    remotes: Any, pool: ThreadPoolExecutor, answers: dict[str, bytes], words: str
) -> None:
    """RFC 5321 §4.2, RFC 7504 §3: 521 alone is final."""
    remote = await remotes(answers=answers)
    attempt = await Sender(pool).open(hop(remote))
    assert str(attempt.reply) == words
    assert attempt.outcome is (Outcome.FAILED if words.startswith("521") else Outcome.DEFERRED)


async def test_extensions_that_are_ignored_are_not_used(remotes: Any, pool: ThreadPoolExecutor) -> None:
    remote = await remotes("PIPELINING SIZE 8BITMIME DSN CHUNKING")
    ignored = ("PIPELINING", "SIZE", "DSN", "CHUNKING")
    options = DeliverOptions(bdat_size_min=1)
    courier = await Sender(pool, options=options).open(hop(remote), ignored_extensions=ignored)
    assert courier.machine.capabilities.eight_bit_mime and not courier.machine.capabilities.pipelining
    (attempt,) = await carry(courier, job())
    assert attempt.outcome is Outcome.RELAYED and not attempt.dsn_passed
    assert remote.commands[1:] == ["MAIL FROM:<ada@example.org>", "RCPT TO:<r0@example.net>", "DATA"]


@pytest.mark.parametrize("large", [False, True])
async def test_a_host_that_refused_bdat_gets_data_and_is_remembered(
    remotes: Any, pool: ThreadPoolExecutor, large: bool
) -> None:
    remote = await remotes("PIPELINING CHUNKING", {"BDAT": b"502 5.5.1 no\r\n"})
    sender = Sender(pool, options=DeliverOptions(bdat_size_min=1, whole_max=1 if large else 1000, piece_size=4096))
    courier = await sender.open(hop(remote))
    (attempt,) = await carry(courier, job())
    assert (attempt.outcome, attempt.reach) == (Outcome.DEFERRED, Reach.SESSION) and courier.elsewhere
    for _ in range(2):  # as the queue does at once
        courier = await sender.open(hop(remote))
        (attempt,) = await carry(courier, job())
        assert attempt.outcome is Outcome.RELAYED
        courier.close()
    assert len(remote.mails) == 2 and sum(line.startswith("BDAT") for line in remote.commands) == 1


async def test_a_host_that_refused_the_parameters_of_dsn_is_remembered(
    remotes: Any, pool: ThreadPoolExecutor
) -> None:
    remote = await remotes("DSN", {"MAIL FROM:<ada@example.org> RET=FULL": b"555 5.5.4 no\r\n"})
    sender = Sender(pool)
    for _ in range(2):
        courier = await sender.open(hop(remote))
        (attempt,) = await carry(courier, job(ret=Ret.FULL))
        assert attempt.outcome is Outcome.RELAYED and not attempt.dsn_passed
        courier.close()
    assert len(remote.mails) == 2 and sum("RET=FULL" in line for line in remote.commands) == 1


async def test_a_host_that_throws_groups_away_hears_one_command_at_a_time(
    remotes: Any, pool: ThreadPoolExecutor
) -> None:
    remote = await remotes("PIPELINING")
    remote.forgets = "MAIL"
    sender = Sender(pool, options=DeliverOptions(rcpt_s=1.0))
    courier = await sender.open(hop(remote))
    (attempt,) = await carry(courier, job())
    assert (attempt.outcome, attempt.reach) == (Outcome.DEFERRED, Reach.SESSION)
    courier = await sender.open(hop(remote))
    (attempt,) = await carry(courier, job())
    assert attempt.outcome is Outcome.RELAYED and len(remote.mails) == 1
    courier.close()


async def test_a_host_that_refused_bdat_stays_the_first(remotes: Any, pool: ThreadPoolExecutor) -> None:
    """It could be reached, and it takes mail by DATA: its backups are not to get the mail."""
    main, backup = await remotes("CHUNKING", {"BDAT": b"502 5.5.1 no\r\n"}), await remotes()
    sender = Sender(pool, options=DeliverOptions(bdat_size_min=1))
    for outcome in (Outcome.DEFERRED, Outcome.RELAYED):
        courier = await sender.open(hop(main), hop(backup))
        assert courier.hop.port == main.port
        assert (await carry(courier, job()))[0].outcome is outcome
        courier.close()
    assert len(main.mails) == 1 and not backup.connections


@pytest.mark.parametrize("number", [1, 3])  # the content is surveyed, measured, sent
async def test_a_bug_on_a_thread_ends_the_transaction(
    remotes: Any, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, number: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Else the connection would wait for it as long as a transaction may take: two hours."""

    calls: list[Any] = []
    walk = seven_bit.walk

    def broken(*arguments: Any) -> Iterator[Any]:
        calls.append(arguments)
        if len(calls) == number:
            raise LookupError("unforeseen")
        yield from walk(*arguments)

    monkeypatch.setattr(seven_bit, "walk", broken)
    remote = await remotes("PIPELINING")
    courier = await Sender(pool, options=DeliverOptions(whole_max=10)).open(hop(remote))
    (attempt,) = await carry(courier, job("Subject: x\r\n\r\nGrüße\r\n".encode()))
    assert (attempt.outcome, attempt.reach, attempt.status) == (Outcome.DEFERRED, Reach.MESSAGE, "4.3.0")
    assert "internal error: LookupError" in attempt.text and "unforeseen" in caplog.text and not remote.mails


# -- REQUIRETLS (RFC 8689 §4.2.1)


@pytest.mark.parametrize(
    ("offered", "name", "root", "status", "text"),
    [
        ("REQUIRETLS", "localhost", True, "", ""),
        ("PIPELINING", "localhost", True, "5.7.30", "does not offer REQUIRETLS"),
        ("REQUIRETLS", "wrong.example", True, "5.7.10", "certificate"),
        ("REQUIRETLS", "localhost", False, "5.7.10", "certificate"),
        ("REQUIRETLS", "", True, "5.7.10", "does not speak TLS"),
    ],
)
async def test_a_hop_for_mail_that_requires_tls(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA, ca_file: str, offered: str, name: str, root: bool,
    status: str, text: str,
) -> None:
    issuer = authority if root else trustme.CA()
    remote = await remotes(offered, tls=server_context(issuer, name) if name else None)
    found = await Sender(pool, ca_file).open(hop(remote), tls=TlsDemand.VERIFY, require_tls=True)
    if status:
        assert (found.outcome, found.status) == (Outcome.FAILED, status) and text in found.text
        assert not [line for line in remote.commands if line.startswith("MAIL")]
    else:
        given = job(parameters=(("REQUIRETLS", ""),))
        (attempt,) = await carry(found, given)
        assert attempt.outcome is Outcome.RELAYED
        assert "MAIL FROM:<ada@example.org> REQUIRETLS" in remote.commands


async def test_mail_that_requires_tls_tries_each_host_and_waits_for_one_that_is_away(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA, ca_file: str
) -> None:
    without = await remotes("PIPELINING", tls=server_context(authority, "localhost"))
    with_it = await remotes("REQUIRETLS", tls=server_context(authority, "localhost"))
    sender = Sender(pool, ca_file)
    courier = await sender.open(hop(without), hop(with_it), tls=TlsDemand.VERIFY, require_tls=True)
    assert not isinstance(courier, Attempt) and courier.hop.port == with_it.port
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        away = Hop("localhost", "127.0.0.1", closed.getsockname()[1])
    found = await Sender(pool, ca_file).open(hop(without), away, tls=TlsDemand.VERIFY, require_tls=True)
    assert (found.outcome, found.status) == (Outcome.DEFERRED, "4.4.1")


# -- AUTH


async def test_auth_plain_under_tls(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA, ca_file: str
) -> None:
    remote = await remotes("AUTH:LOGIN_PLAIN", tls=server_context(authority, "localhost"))
    courier = await Sender(pool, ca_file).open(hop(remote), tls=TlsDemand.VERIFY, credentials="smart")
    assert (await carry(courier, job()))[0].outcome is Outcome.RELAYED
    assert "AUTH PLAIN AGFkYQBzZWNyZXQ=" in remote.commands


@pytest.mark.parametrize(
    ("offered", "credentials", "answers", "status"),
    [
        ("AUTH:PLAIN", "smart", {}, "4.7.4"),  # no TLS: the password is not sent
        ("PIPELINING", "open", {}, "4.7.4"),
        ("AUTH:CRAM-MD5", "open", {}, "4.7.4"),
        ("AUTH:PLAIN", "open", {"AUTH": b"535 5.7.8 wrong\r\n"}, "4.7.8"),
        ("AUTH:PLAIN", "open", {"AUTH": b"454 4.7.0 later\r\n"}, "4.7.0"),
        ("AUTH:PLAIN", "open", {"AUTH": b"421 4.3.2 bye\r\n"}, "4.3.2"),
        ("AUTH:PLAIN", "unknown", {}, "4.3.5"),
    ],
)
async def test_auth_that_fails_is_ours_to_mend(
    remotes: Any, pool: ThreadPoolExecutor, offered: str, credentials: str, answers: dict[str, bytes], status: str
) -> None:
    remote = await remotes(offered, answers)
    attempt = await Sender(pool).open(hop(remote), credentials=credentials)
    assert (attempt.outcome, attempt.status) == (Outcome.DEFERRED, status)
    assert "secret" not in attempt.text
    if credentials == "smart":
        assert not [line for line in remote.commands if line.startswith("AUTH")]


ALL = "AUTH:SCRAM-SHA-256-PLUS_SCRAM-SHA-256_SCRAM-SHA-1_PLAIN_LOGIN_OAUTHBEARER_XOAUTH2_EXTERNAL"


def served(offered: str) -> Callable[[str, Any], Mechanism]:
    """The mechanisms as our own server has them, with the channel bindings of the transport."""

    def begin(name: str, transport: Any) -> Mechanism:
        binding = partial(channel_binding, transport, server_side=True)
        return MECHANISMS[name](ExchangeContext("nonce", binding, tuple(offered.partition(":")[2].split("_"))))

    return begin


@pytest.mark.parametrize(
    ("offered", "credentials", "mechanism"),
    [
        (ALL, Credentials("ada", "secret"), "SCRAM-SHA-256-PLUS"),
        ("AUTH:LOGIN_PLAIN_SCRAM-SHA-1_SCRAM-SHA-256", Credentials("ada", "secret"), "SCRAM-SHA-256"),
        ("AUTH:LOGIN_PLAIN_SCRAM-SHA-1", Credentials("ada", "secret"), "SCRAM-SHA-1"),
        ("AUTH:LOGIN_PLAIN", Credentials("ada", "secret"), "PLAIN"),
        ("AUTH:LOGIN", Credentials("ada", "secret"), "LOGIN"),
        (ALL, Credentials("ada", "secret", mechanism="SCRAM-SHA-256"), "SCRAM-SHA-256"),
        (ALL, Credentials("ada", "secret", mechanism="LOGIN"), "LOGIN"),
        (ALL, Credentials("ada", token_command=("/bin/echo", "token")), "OAUTHBEARER"),
        (ALL, Credentials("ada", token_command=("/bin/echo", "token"), mechanism="XOAUTH2"), "XOAUTH2"),
        ("AUTH:PLAIN_XOAUTH2", Credentials("ada", token_command=("/bin/echo", "token")), "XOAUTH2"),
        (ALL, Credentials("ada", mechanism="EXTERNAL"), "EXTERNAL"),
    ],
)
async def test_the_strongest_mechanism_that_both_have(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA, ca_file: str, monkeypatch: pytest.MonkeyPatch,
    offered: str, credentials: Credentials, mechanism: str,
) -> None:  # fmt: skip
    monkeypatch.setitem(CREDENTIALS, "these", credentials)
    remote = await remotes(offered, tls=server_context(authority, "localhost"))
    remote.sasl = served(offered)
    courier = await Sender(pool, ca_file).open(hop(remote), tls=TlsDemand.VERIFY, credentials="these")
    assert not isinstance(courier, Attempt), courier.text
    assert (await carry(courier, job()))[0].outcome is Outcome.RELAYED
    assert next(line for line in remote.commands if line.startswith("AUTH ")).split(" ")[1] == mechanism


async def test_a_token_is_read_anew_for_each_session(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA, ca_file: str, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    file = tmp_path / "token"
    monkeypatch.setitem(CREDENTIALS, "these", Credentials("ada", token_file=str(file)))
    remote = await remotes(ALL, tls=server_context(authority, "localhost"))
    remote.sasl = served(ALL)
    sender = Sender(pool, ca_file)
    for text, expected in ((None, "4.3.5"), ("no token at all", "4.3.5"), ("old", "4.7.8"), ("token\nmore", "")):
        if text is not None:
            file.write_text(text)
        found = await sender.open(hop(remote), tls=TlsDemand.VERIFY, credentials="these")
        assert (found.status if isinstance(found, Attempt) else "") == expected
        assert not isinstance(found, Attempt) or (text or "token at all") not in found.text


async def test_a_password_file_is_read_anew_for_each_session(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA, ca_file: str, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    file = tmp_path / "password"
    monkeypatch.setitem(CREDENTIALS, "these", Credentials("ada", "secret", password_file=str(file)))
    remote = await remotes(ALL, tls=server_context(authority, "localhost"))
    remote.sasl = served(ALL)
    sender = Sender(pool, ca_file)
    # A file that is away or empty, as while somebody writes it, leaves the password as it was when the node started.
    for text, right in ((None, True), ("", True), ("old\n", False), ("secret\r\nmore", True), ("other", False)):
        if text is not None:
            file.write_text(text)
        found = await sender.open(hop(remote), tls=TlsDemand.VERIFY, credentials="these")
        assert isinstance(found, Attempt) is not right, text


@pytest.mark.parametrize(
    ("answer", "asked"),
    [(b"535 5.7.8 wrong\r\n", 1), (b"534 5.7.9 too weak\r\n", 1), (b"432 4.7.12 set a new password\r\n", 1),
     (b"454 4.7.0 later\r\n", 2), (b"421 4.3.2 bye\r\n", 2)],
)  # fmt: skip
async def test_an_account_that_one_host_refuses_is_tried_at_no_other(
    remotes: Any, pool: ThreadPoolExecutor, answer: bytes, asked: int
) -> None:
    both = [await remotes("AUTH:PLAIN", {"AUTH": answer}) for _ in range(2)]
    sender = Sender(pool)
    attempt = await sender.open(*map(hop, both), credentials="open")
    assert attempt.outcome is Outcome.DEFERRED
    assert sum(line.startswith("AUTH") for remote in both for line in remote.commands) == asked
    # The host itself works: it is not put behind the others for that.
    if asked == 1:
        await sender.open(*map(hop, both), credentials="open")
        assert both[1].connections == 0


async def test_an_attempt_says_as_whom_and_how_we_have_authenticated(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA, ca_file: str
) -> None:
    remote = await remotes("AUTH:LOGIN_PLAIN", tls=server_context(authority, "localhost"))
    sender = Sender(pool, ca_file)
    courier = await sender.open(hop(remote), tls=TlsDemand.VERIFY, credentials="smart")
    assert (await carry(courier, job()))[0].auth == "PLAIN as ada"
    remote.answers["AUTH"] = b"535 5.7.8 wrong\r\n"
    attempt = await sender.open(hop(remote), tls=TlsDemand.VERIFY, credentials="smart")
    assert attempt.auth == "PLAIN as ada"
    without = await remotes()
    assert (await carry(await sender.open(hop(without)), job()))[0].auth == ""


@pytest.mark.parametrize(
    ("offered", "credentials", "text"),
    [
        (ALL, Credentials("ada", "wrong"), "refused our credentials (SCRAM-SHA-256-PLUS as ada)"),
        (ALL, Credentials("ada", "wrong", mechanism="PLAIN"), "refused our credentials (PLAIN as ada)"),
        ("AUTH:PLAIN", Credentials("ada", "wrong", mechanism="SCRAM-SHA-256"), "none of the mechanisms SCRAM-SHA-256"),
        ("AUTH:PLAIN", Credentials("ada", token_file="/none"), "offers none of the mechanisms OAUTHBEARER, XOAUTH2"),
        (ALL, Credentials("ada", token_command=("/bin/false",)), "no token could be read"),
    ],
)
async def test_what_is_told_of_credentials_that_do_not_do(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA, ca_file: str, monkeypatch: pytest.MonkeyPatch,
    offered: str, credentials: Credentials, text: str,
) -> None:  # fmt: skip
    monkeypatch.setitem(CREDENTIALS, "these", credentials)
    remote = await remotes(offered, tls=server_context(authority, "localhost"))
    remote.sasl = served(offered)
    attempt = await Sender(pool, ca_file).open(hop(remote), tls=TlsDemand.VERIFY, credentials="these")
    assert attempt.outcome is Outcome.DEFERRED and text in attempt.text
    assert text in attempt.reason and "wrong" not in attempt.reason
    assert attempt.tls.startswith("TLSv1.") and attempt.tls_details is not None and attempt.tls_details.verified
    assert "wrong" not in attempt.text


async def test_a_server_that_does_not_prove_itself_is_not_believed(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA, ca_file: str
) -> None:
    remote = await remotes("AUTH:SCRAM-SHA-256", tls=server_context(authority, "localhost"))
    remote.sasl, remote.believed = served("AUTH:SCRAM-SHA-256"), True
    attempt = await Sender(pool, ca_file).open(hop(remote), tls=TlsDemand.VERIFY, credentials="smart")
    assert (attempt.status, attempt.outcome) == ("4.7.8", Outcome.DEFERRED)
    assert "has not shown that it knows the account" in attempt.text
    assert not [line for line in remote.commands if line.startswith("MAIL")]


@pytest.mark.parametrize("first", ["r=x,s=QSXCR+Q6sek8bf92,i=4096", "i=1", "=2C"])
async def test_a_hostile_challenge_is_cancelled(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA, ca_file: str, first: str
) -> None:
    class Hostile:
        def begin(self, initial: bytes | None) -> Challenge:
            return Challenge(first.encode())

        def respond(self, response: bytes) -> ProofFailed:
            return ProofFailed()

    remote = await remotes("AUTH:SCRAM-SHA-256", tls=server_context(authority, "localhost"))
    remote.sasl = lambda name, transport: Hostile()
    attempt = await Sender(pool, ca_file).open(hop(remote), tls=TlsDemand.VERIFY, credentials="smart")
    assert "*" in remote.commands and attempt.status == "4.7.8" and "its SCRAM " in attempt.text


def test_a_password_is_in_no_log() -> None:
    assert "secret" not in repr(CREDENTIALS["smart"])


# -- kept connections


async def test_a_kept_connection_that_the_remote_has_closed(remotes: Any, pool: ThreadPoolExecutor) -> None:
    remote = await remotes()
    sender = Sender(pool)
    courier = await sender.open(hop(remote))
    await carry(courier, job())
    remote.drop()
    await asyncio.wait_for(sender.lose.wait(), 20)
    assert sender.lost == [courier] and not courier.usable
    courier = await sender.open(hop(remote))
    remote.drop()
    (attempt,) = await carry(courier, job())  # it was closed just as we wrote
    assert (attempt.outcome, attempt.reach) == (Outcome.DEFERRED, Reach.SESSION)
    assert len(sender.lost) == 1


async def test_lmtp_over_a_unix_socket(remotes: Any, pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    path = str(tmp_path / "lmtp")
    remote = await remotes(path=path, answers={"END": b"250 2.0.0 stored\r\n452 4.2.2 full\r\n"})
    courier = await Sender(pool).open(Hop("lmtp", path, 0), transport=Transport.LMTP, path=path)
    stored, full = await carry(courier, job(to=2))
    assert (stored.outcome, stored.transport, stored.remote_address) == (Outcome.DELIVERED, "lmtp", path)
    assert (full.outcome, full.status) == (Outcome.DEFERRED, "4.2.2")
    assert remote.commands[0] == "LHLO me.test"
    attempt = await Sender(pool).open(Hop("lmtp", path + "x", 0), transport=Transport.LMTP, path=path + "x")
    assert attempt.status == "4.4.1"


# -- a peer that is not ours


class _Keeper:
    def __init__(self) -> None:
        self.mails: list[Any] = []

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, rcpt_options: list[str]
    ) -> str:
        if address.startswith("r1@"):
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.mails.append(envelope)
        return "250 Message accepted"


async def test_aiosmtpd(pool: ThreadPoolExecutor, authority: trustme.CA, ca_file: str) -> None:
    keeper = _Keeper()
    context = server_context(authority, "localhost")
    controller = Controller(
        keeper, hostname="127.0.0.1", port=0, tls_context=context, enable_SMTPUTF8=True, ready_timeout=20
    )
    controller.port = ports.port()
    controller.start()
    try:
        sender = Sender(pool, ca_file)
        courier = await sender.open(Hop("localhost", "127.0.0.1", controller.port), tls=TlsDemand.VERIFY)
        content = b"Subject: x\r\n\r\n.dots\r\n..\r\n.\r\nend"
        for _ in range(3):
            attempts = await carry(courier, job(content, to=2))
            assert [attempt.outcome for attempt in attempts] == [Outcome.RELAYED, Outcome.FAILED]
            assert attempts[1].status == "5.1.1" and attempts[0].tls.startswith("TLS")
        assert [mail.content for mail in keeper.mails] == [content + b"\r\n"] * 3
        assert keeper.mails[0].rcpt_tos == ["r0@example.net"] and keeper.mails[0].mail_from == "ada@example.org"
        courier.close()
    finally:
        controller.stop()


# ---- addresses of ours, fallbacks


def origin(*addresses: str, **fields: Any) -> Origin:
    pairs = [address.partition(" ") for address in addresses]
    return Origin(tuple(OwnAddress(address, hello) for address, _, hello in pairs), **fields)


async def test_connections_come_from_the_addresses_that_are_set_by_turns(
    remotes: Any, pool: ThreadPoolExecutor
) -> None:
    remote = await remotes()
    sender = Sender(pool)
    wanted = origin("127.0.0.7 seven.test", "127.0.0.8", hello="mail.test")
    for _ in range(4):
        courier = await sender.open(hop(remote), origin=wanted)
        await carry(courier, job())
        courier.close()
    assert remote.peers == ["127.0.0.7", "127.0.0.8"] * 2
    said = [line for line in remote.commands if line.startswith("EHLO")]
    assert said == ["EHLO seven.test", "EHLO mail.test"] * 2


async def test_an_address_that_is_missing_is_passed_over_and_if_all_are_the_mail_waits(
    remotes: Any, pool: ThreadPoolExecutor
) -> None:
    remote = await remotes()
    sender = Sender(pool)
    there = await sender.open(hop(remote), origin=origin("192.0.2.77", "127.0.0.8"))
    assert not isinstance(there, Attempt) and remote.peers == ["127.0.0.8"]
    missing = await sender.open(hop(remote), origin=origin("192.0.2.77"))
    assert isinstance(missing, Attempt) and missing.outcome is Outcome.DEFERRED and missing.status == "4.3.5"
    assert "192.0.2.77 is not an address of this machine now" in missing.text
    assert missing.remote_address == "", "else it would count as a refusal by the host"
    assert remote.connections == 1, "nothing is sent from another address"


async def test_an_address_that_is_missing_says_nothing_of_the_host(remotes: Any, pool: ThreadPoolExecutor) -> None:
    first, second = await remotes(), await remotes()
    sender = Sender(pool)
    await sender.open(hop(first), hop(second), origin=origin("192.0.2.77"))
    await sender.open(hop(first), hop(second))
    assert (first.connections, second.connections) == (1, 0)


async def test_a_family_without_an_address_of_ours_is_not_used(remotes: Any, pool: ThreadPoolExecutor) -> None:
    remote = await remotes()
    six = Hop("six.example", "::1", remote.port)
    found = await Sender(pool).open(six, hop(remote), origin=origin("127.0.0.7"))
    assert not isinstance(found, Attempt)
    nothing = await Sender(pool).open(six, origin=origin("127.0.0.7"))
    assert isinstance(nothing, Attempt) and nothing.status == "4.3.5"
    assert nothing.text == "six.example has only IPv6 addresses, but the [[next_hop]] has no source_ipv6"


async def test_the_password_of_a_destination_never_goes_to_its_fallback(
    remotes: Any, pool: ThreadPoolExecutor
) -> None:
    own = await remotes("AUTH:PLAIN", answers={"GREETING": b"421 4.3.2 busy\r\n"})
    relay = await remotes("AUTH:PLAIN")
    last = msgspec.structs.replace(hop(relay), fallback=Fallback(SetServer("relay.example")))
    courier = await Sender(pool).open(hop(own), last, credentials="open")
    (attempt,) = await carry(courier, job())
    assert attempt.outcome is Outcome.RELAYED and attempt.remote_port == relay.port
    assert not any(line.startswith("AUTH") for line in relay.commands)


async def test_a_fallback_is_reached_with_its_own_account(remotes: Any, pool: ThreadPoolExecutor) -> None:
    relay = await remotes("AUTH:PLAIN")
    fallback = Fallback(SetServer("relay.example"), credentials="open", ignored_extensions=("PIPELINING",))
    dead = Hop("dead", "127.0.0.1", ports.port())
    courier = await Sender(pool).open(dead, msgspec.structs.replace(hop(relay), fallback=fallback))
    (attempt,) = await carry(courier, job())
    assert attempt.auth == "PLAIN as ada"


async def test_fallbacks_are_tried_however_many_hosts_are_down(remotes: Any, pool: ThreadPoolExecutor) -> None:
    relay = await remotes()
    dead = [Hop(f"dead{number}", "127.0.0.1", ports.port()) for number in range(4)]
    last = msgspec.structs.replace(hop(relay), fallback=Fallback(SetServer("relay.example")))
    sender = Sender(pool, options=DeliverOptions(connect_s=5, hops_max=2))
    courier = await sender.open(*dead, last)
    (attempt,) = await carry(courier, job())
    assert [tried.name for tried in attempt.tries] == ["dead0", "dead1"]
