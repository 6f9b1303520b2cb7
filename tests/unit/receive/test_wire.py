"""Real sockets on loopback: smtplib as the client, TLS with certificates of a private authority, both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import random
import smtplib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme
import uvloop

from postroad.accounts.accounts import Accounts
from postroad.accounts.authenticate import USERS, Authenticator, AuthOptions
from postroad.accounts.exchange import OwnMechanisms
from postroad.accounts.users import Users
from postroad.mail.event import SessionEnded
from postroad.mail.policy import Role, Rules, reject
from postroad.mail.tls_details import TlsDetails
from postroad.protocol.offer import Dialect
from postroad.receive.options import ListenerOptions, ListenerTls, ReceiveOptions
from postroad.receive.setup import listener_setup
from postroad.report.line import human_line
from postroad.world.network import SystemNetwork
from postroad.world.tls import (
    NOBODY,
    CertificateFiles,
    ClientCertificatePolicy,
    ClientCertificates,
    ServerTls,
    ServerTlsOptions,
    server_tls,
)
from tests.unit.accounts.test_accounts import HASHER, change
from tests.unit.receive.fakes import House
from tests.unit.receive.test_session import MESSAGE, content

AUTHORITY = trustme.CA()
SERVER, OTHER = AUTHORITY.issue_cert("mx.local.test"), AUTHORITY.issue_cert("mx.local.test")

Run = Callable[[Callable[[], Awaitable[None]]], None]


@pytest.fixture(autouse=True)
def _no_endless_waits() -> Iterator[None]:
    socket.setdefaulttimeout(20)
    yield
    socket.setdefaulttimeout(None)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    factory = uvloop.new_event_loop if request.param == "uvloop" else None

    def runner(main: Callable[[], Awaitable[None]]) -> None:
        async def limited() -> None:
            async with asyncio.timeout(60):
                await main()

        with asyncio.Runner(loop_factory=factory) as started:
            started.run(limited())

    return runner


def server_context(certificate: trustme.LeafCert = SERVER) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    context.check_hostname = False
    return context


@contextlib.asynccontextmanager
async def serving(listener: ListenerOptions, **more: Any) -> AsyncIterator[tuple[House, tuple[str, int]]]:
    loop = asyncio.get_running_loop()
    context = server_context()
    given = {"tls_context": lambda asking: context, "network": SystemNetwork(), **more}
    house = House(listener=listener, loop=loop, **given)
    sock = socket.create_server(("127.0.0.1", 0))
    await house.listener.serve(sock)
    try:
        yield house, sock.getsockname()
    finally:
        await house.listener.stop(1)


def authenticator(path: Path) -> Authenticator:
    change(path / "users", f"ann:{HASHER.hash('secret')}:ann@local.test\n", 1)
    known = Accounts(path / "users", lambda faults: None)
    options = AuthOptions(failure_delay_s=0.01)
    loop, chance = asyncio.get_running_loop(), random.Random(1)
    source = Users(known, options, loop, chance, b"secret", ThreadPoolExecutor(1))
    return Authenticator({USERS: OwnMechanisms(source, chance)}, known, options, loop, bindable=True)


async def until(come: Callable[[], bool]) -> None:
    while not come():
        await asyncio.sleep(0.005)


async def gone(house: House) -> None:
    await until(lambda: not house.listener.sessions)


def test_smtplib_sends_a_message(run: Run) -> None:
    async def main() -> None:
        async with serving(ListenerOptions("front")) as (house, address):

            def client() -> None:
                with smtplib.SMTP(*address) as smtp:
                    smtp.sendmail("eve@elsewhere.test", ["ann@local.test", "bob@local.test"], MESSAGE)
                    with pytest.raises(smtplib.SMTPRecipientsRefused):
                        smtp.sendmail("eve@elsewhere.test", ["x@elsewhere.test"], MESSAGE)

            await asyncio.to_thread(client)
            await gone(house)
            assert content(house).endswith(MESSAGE)
            assert [event.reason for event in house.logged if isinstance(event, SessionEnded)] == ["quit"]

    run(main)


def test_a_unix_socket_speaks_lmtp(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        house = House(
            listener=ListenerOptions("lmtp", Role.RELAY, Dialect.LMTP, path=str(tmp_path / "s")),
            loop=asyncio.get_running_loop(),
            network=SystemNetwork(),
        )
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / "s"))
        sock.listen()
        await house.listener.serve(sock)

        def client() -> None:
            with smtplib.LMTP(str(tmp_path / "s"), local_hostname="client.test") as lmtp:
                assert lmtp.sendmail("<>", ["ann@local.test"], MESSAGE) == {}

        await asyncio.to_thread(client)
        await house.listener.stop(1)
        assert content(house).startswith(b"Received: from client.test\r\n\tby ")
        assert b" with LMTP id " in content(house)

    run(main)


def test_starttls_and_auth_with_smtplib(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        known = authenticator(tmp_path)
        listener = ListenerOptions("submission", Role.SUBMISSION, tls=ListenerTls.REQUIRED, auth=True)
        async with serving(listener, authenticator=known) as (house, address):

            def client() -> None:
                with smtplib.SMTP(*address) as smtp:
                    smtp.ehlo("client.test")
                    assert smtp.has_extn("starttls") and not smtp.has_extn("auth")
                    assert smtp.mail("ann@local.test")[0] == 530
                    smtp.starttls(context=client_context())
                    smtp.ehlo("client.test")
                    assert smtp.has_extn("auth") and not smtp.has_extn("starttls")
                    with pytest.raises(smtplib.SMTPAuthenticationError):
                        smtp.login("ann", "wrong")
                    smtp.login("ann", "secret")
                    smtp.sendmail("ann@local.test", ["x@elsewhere.test"], MESSAGE)

            await asyncio.to_thread(client)
            await gone(house)
            known.close()
            peer = house.spool.stored[0].envelope.peer
            assert (peer.identity, peer.protocol) == ("ann", "ESMTPSA")
            assert peer.tls.startswith("TLSv1.3 ") and peer.tls_details == TlsDetails(256)
            # RFC 8314 §4.3, behind FOR
            cipher = peer.tls.split()[1]
            assert f"\r\n\ttls {cipher} (TLSv1.3, 256 bits);\r\n".encode() in content(house)

    run(main)


def test_implicit_tls(run: Run) -> None:
    async def main() -> None:
        async with serving(ListenerOptions("smtps", tls=ListenerTls.IMPLICIT)) as (house, address):

            def client() -> None:
                with smtplib.SMTP_SSL(*address, context=client_context()) as smtp:
                    smtp.ehlo("client.test")
                    assert not smtp.has_extn("starttls")
                    smtp.sendmail("eve@elsewhere.test", ["ann@local.test"], MESSAGE)

            await asyncio.to_thread(client)
            await gone(house)
            assert b" with ESMTPS id " in content(house)

    run(main)


def read_until(stream: Any, mark: bytes) -> bytes:
    heard = b""
    while mark not in heard:
        more = stream.recv(4096)
        if not more:
            break
        heard += more
    return heard


def test_what_comes_behind_starttls_in_plaintext_is_thrown_away(run: Run) -> None:
    """CVE-2011-0411."""

    async def main() -> None:
        async with serving(ListenerOptions("front", tls=ListenerTls.STARTTLS)) as (house, address):

            def client() -> bytes:
                with socket.create_connection(address) as plain:
                    read_until(plain, b"220 ")
                    plain.sendall(b"EHLO evil.test\r\n")
                    read_until(plain, b"250 ")
                    plain.sendall(b"STARTTLS\r\nEHLO injected.test\r\nMAIL FROM:<injected@x.test>\r\n")
                    assert read_until(plain, b"\r\n").startswith(b"220 ")
                    with client_context().wrap_socket(plain) as secure:
                        secure.sendall(b"RCPT TO:<ann@local.test>\r\n")
                        first = read_until(secure, b"\r\n")
                        secure.sendall(b"MAIL FROM:<x@y.test>\r\nQUIT\r\n")
                        return first + read_until(secure, b"221")

            heard = await asyncio.to_thread(client)
            codes = [line[:9] for line in heard.split(b"\r\n")]
            assert codes[:3] == [b"503 5.5.1", b"503 5.5.1", b"221 2.0.0"]
            assert house.spool.stored == []

    run(main)


def test_commands_right_behind_the_handshake_are_not_lost(run: Run) -> None:
    async def main() -> None:
        async with serving(ListenerOptions("smtps", tls=ListenerTls.STARTTLS)) as (_house, address):

            def client() -> bytes:
                with socket.create_connection(address) as plain:
                    read_until(plain, b"220 ")
                    plain.sendall(b"EHLO client.test\r\n")
                    read_until(plain, b"250 ")
                    plain.sendall(b"STARTTLS\r\n")
                    read_until(plain, b"\r\n")
                    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                    tls = client_context().wrap_bio(incoming, outgoing)
                    while True:
                        try:
                            tls.do_handshake()
                            break
                        except ssl.SSLWantReadError:
                            plain.sendall(outgoing.read())
                            incoming.write(plain.recv(16_384))
                    tls.write(b"EHLO again.test\r\n")
                    plain.sendall(outgoing.read())  # the end of the handshake and EHLO in one segment
                    heard = b""
                    while b"250 " not in heard:
                        try:
                            heard += tls.read(16_384)
                        except ssl.SSLWantReadError:
                            incoming.write(plain.recv(16_384))
                    return heard

            assert b"250-mx.local.test\r\n" in await asyncio.to_thread(client)

    run(main)


@pytest.mark.parametrize("kind", [ListenerTls.STARTTLS, ListenerTls.IMPLICIT])
@pytest.mark.parametrize("end", ["silent", "rubbish", "away"])
def test_handshakes_that_fail(run: Run, kind: ListenerTls, end: str) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        options = ReceiveOptions(hostname="mx.local.test", handshake_s=0.3)
        async with serving(ListenerOptions("front", tls=kind), options=options) as (house, address):

            def client() -> bytes:
                with socket.create_connection(address) as plain:
                    if kind is ListenerTls.STARTTLS:
                        read_until(plain, b"220 ")
                        plain.sendall(b"EHLO client.test\r\n")
                        read_until(plain, b"250 ")
                        plain.sendall(b"STARTTLS\r\n")
                        read_until(plain, b"\r\n")
                    if end == "rubbish":
                        plain.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
                    if end != "away":
                        with contextlib.suppress(ConnectionError):
                            return read_until(plain, b"never")
                    return b""

            assert b"220" not in await asyncio.to_thread(client)
            while not (reasons := [event.reason for event in house.logged if isinstance(event, SessionEnded)]):
                await asyncio.sleep(0.01)
            await gone(house)
            assert house.clients.sessions == 0 and len(reasons) == 1
            assert end == "away" or reasons[0].startswith("TLS handshake failed")

    run(main)


def test_a_reload_that_changes_how_clients_are_asked_comes_between_ehlo_and_starttls(run: Run) -> None:
    async def main() -> None:
        context, asked = server_context(), [NOBODY]
        listener = ListenerOptions("front", tls=ListenerTls.STARTTLS)

        def choose(asking: ClientCertificatePolicy) -> ssl.SSLContext | None:
            return context if asking in asked else None

        async with serving(listener, tls_context=choose) as (house, address):

            def reload() -> None:
                asked[0] = ClientCertificatePolicy(ClientCertificates.ASKED)
                before = house.listener.setup
                changed = msgspec.structs.replace(before.listener, asking=asked[0])
                house.listener.take(dataclasses.replace(before, listener=changed, offers={}))

            loop = asyncio.get_running_loop()

            def client() -> int:
                with smtplib.SMTP(*address) as smtp:
                    smtp.ehlo()
                    loop.call_soon_threadsafe(reload)
                    smtp.starttls(context=client_context())
                    return smtp.ehlo()[0]

            assert await asyncio.to_thread(client) == 250

    run(main)


def test_a_new_certificate_is_taken_without_a_new_socket(run: Run) -> None:
    async def main() -> None:
        context, current = server_context(), [server_context()]

        def choose(tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
            tls.context = current[0]

        context.sni_callback = choose  # type: ignore[assignment]
        listener = ListenerOptions("smtps", tls=ListenerTls.IMPLICIT)
        async with serving(listener, tls_context=lambda asking: context) as (_, address):

            def certificate() -> bytes | None:
                with smtplib.SMTP_SSL(*address, context=client_context()) as smtp:
                    assert isinstance(smtp.sock, ssl.SSLSocket)
                    return smtp.sock.getpeercert(binary_form=True)

            before = await asyncio.to_thread(certificate)
            current[0] = server_context(OTHER)
            assert before != await asyncio.to_thread(certificate)

    run(main)


def test_implicit_tls_without_a_certificate_is_an_error() -> None:
    async def main() -> None:
        house = House(listener=ListenerOptions("smtps", tls=ListenerTls.IMPLICIT), loop=asyncio.get_running_loop())
        with socket.create_server(("127.0.0.1", 0)) as sock, pytest.raises(ValueError, match="smtps"):
            await house.listener.serve(sock)

    asyncio.run(main())


def test_a_client_that_closes_its_side_hears_the_answer(run: Run) -> None:
    async def main() -> None:
        async with serving(ListenerOptions("front")) as (house, address):
            house.spool.patient = True

            def client() -> bytes:
                with socket.create_connection(address) as plain:
                    read_until(plain, b"220 ")
                    plain.sendall(b"EHLO client.test\r\n")
                    read_until(plain, b"250 ")
                    plain.sendall(b"MAIL FROM:<>\r\nRCPT TO:<ann@local.test>\r\nDATA\r\n")
                    read_until(plain, b"354 ")
                    plain.sendall(MESSAGE + b".\r\n")
                    plain.shutdown(socket.SHUT_WR)
                    return read_until(plain, b"never")

            talk = asyncio.create_task(asyncio.to_thread(client))
            await until(lambda: bool(house.spool.pending))
            await asyncio.sleep(0.05)
            house.spool.commit()
            assert (await talk).endswith(b"\r\n") and len(house.queued) == 1
            assert b"250 2.0.0 Ok: queued as" in await talk

    run(main)


def test_the_end_of_the_node(run: Run) -> None:
    async def main() -> None:
        async with serving(ListenerOptions("front")) as (house, address):
            release, begun = threading.Event(), threading.Semaphore(0)
            heard: dict[str, bytes] = {}

            def client(name: str, octets: bytes) -> None:
                with socket.create_connection(address) as plain:
                    read_until(plain, b"220 ")
                    plain.sendall(b"EHLO client.test\r\n")
                    read_until(plain, b"250 ")
                    plain.sendall(octets)
                    if octets:
                        read_until(plain, b"354 ")
                    begun.release()
                    release.wait()
                    heard[name] = read_until(plain, b"never")

            data = b"MAIL FROM:<>\r\nRCPT TO:<ann@local.test>\r\nDATA\r\n"
            talks = [
                asyncio.create_task(asyncio.to_thread(client, name, octets))
                for name, octets in (("idle", b""), ("stuck", data))
            ]
            for _ in talks:
                await asyncio.to_thread(begun.acquire)
            release.set()
            before = asyncio.get_running_loop().time()
            await asyncio.wait_for(house.listener.stop(0.3), 60)
            assert asyncio.get_running_loop().time() - before > 0.2, "one is in the midst of a message"
            assert house.listener.sessions == 0
            await asyncio.gather(*talks)
            assert heard["idle"].startswith(b"421 4.3.2") and heard["stuck"].startswith(b"421 4.3.2")
            lines = [human_line(event).decode() for event in house.logged if isinstance(event, SessionEnded)]
            assert ["shutdown in the middle of a transaction" in line for line in lines] == [False, True]
            assert [line.split()[1] for line in lines] == ["debug", "info"]
            with pytest.raises(ConnectionRefusedError):
                await asyncio.to_thread(socket.create_connection, address)

    run(main)


def test_settings_are_swapped_under_a_session(run: Run) -> None:
    async def main() -> None:
        async with serving(ListenerOptions("front")) as (house, address):

            def client(new: Callable[[], None]) -> list[int]:
                with smtplib.SMTP(*address) as smtp:
                    smtp.ehlo("client.test")
                    codes = [smtp.mail("<>")[0], smtp.rcpt("ann@local.test")[0]]
                    new()
                    codes.append(smtp.rcpt("bob@local.test")[0])
                    smtp.rset()
                    codes += [smtp.mail("<>")[0]]
                    return codes

            def new() -> None:
                rules = Rules(mail=lambda context: reject(550, "5.7.1", "closed"))
                renewed = listener_setup(house.listener_options, house.options, rules, house.doors)
                house.loop.call_soon_threadsafe(house.listener.take, renewed)

            assert await asyncio.to_thread(client, new) == [250, 250, 250, 550]

    run(main)


@pytest.mark.parametrize("shown", ["none", "strange", "good"])
@pytest.mark.parametrize("kind", [ListenerTls.STARTTLS, ListenerTls.IMPLICIT])
def test_a_client_certificate_that_is_not_accepted_is_a_line_of_the_log(
    run: Run, kind: ListenerTls, shown: str
) -> None:
    async def main() -> None:
        context = server_context()
        context.verify_mode = ssl.CERT_REQUIRED
        AUTHORITY.configure_trust(context)
        ours = client_context()
        if shown != "none":
            (AUTHORITY if shown == "good" else trustme.CA()).issue_cert("client.test").configure_cert(ours)
        async with serving(ListenerOptions("front", tls=kind), tls_context=lambda asking: context) as (house, address):

            def client() -> None:
                implicit = kind is ListenerTls.IMPLICIT
                with contextlib.suppress(OSError, smtplib.SMTPException):
                    smtp = smtplib.SMTP_SSL(*address, context=ours) if implicit else smtplib.SMTP(*address)
                    with contextlib.closing(smtp):
                        if not implicit:
                            smtp.starttls(context=ours)
                        smtp.noop()

            await asyncio.to_thread(client)
            await until(lambda: any(isinstance(event, SessionEnded) for event in house.logged))
            (line,) = [human_line(event).decode() for event in house.logged if isinstance(event, SessionEnded)]
            assert (line.split()[1] == "info") is (shown != "good")
            assert ("TLS handshake failed: " in line and "[127.0.0.1]" in line) is (shown != "good"), line

    run(main)


def test_the_end_of_a_client_at_work_under_tls_makes_no_noise(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(ListenerOptions("smtps", tls=ListenerTls.IMPLICIT)) as (house, address):
            house.spool.patient = True

            def client() -> None:
                with socket.create_connection(address) as plain, client_context().wrap_socket(plain) as secure:
                    read_until(secure, b"220 ")
                    secure.sendall(b"EHLO client.test\r\nMAIL FROM:<>\r\nRCPT TO:<ann@local.test>\r\n")
                    secure.sendall(b"DATA\r\n")
                    read_until(secure, b"354 ")
                    secure.sendall(MESSAGE + b".\r\n")

            await asyncio.to_thread(client)
            await gone(house)

            def away() -> None:  # between the handshake and the greeting
                with socket.create_connection(address) as plain, client_context().wrap_socket(plain):
                    plain.close()

            await asyncio.to_thread(away)
            await gone(house)
            house.spool.commit()

    run(main)
    assert [record.message for record in caplog.records if "eof_received" in record.message] == []


@pytest.mark.parametrize("early", [True, False])
def test_under_tls_no_way_back_stays_open(early: bool) -> None:
    session = House().client().session
    session.hold()
    assert session.eof_received()
    if early:
        session._early = []
    else:
        session._secure = True
    assert not session.eof_received()


def test_handshakes_that_fail_again_and_again_do_not_fill_the_log(run: Run) -> None:
    async def main() -> None:
        async with serving(ListenerOptions("front", tls=ListenerTls.IMPLICIT)) as (house, address):

            def client() -> None:
                with socket.create_connection(address) as stream:
                    stream.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    while stream.recv(100):
                        pass

            for _ in range(5):
                await asyncio.to_thread(client)
            await gone(house)
            lines = [human_line(event).decode() for event in house.logged if isinstance(event, SessionEnded)]
            assert len(lines) == 1 and " info - " in lines[0] and "TLS handshake failed: " in lines[0], lines

    run(main)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_ticket_of_one_listener_proves_anything_at_another(
    run: Run, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """Two services of one node that ask otherwise: what was shown and looked at at one counts nothing at the other."""
    roots, certificate, key = tmp_path / "roots.pem", tmp_path / "a.pem", tmp_path / "a.key"
    AUTHORITY.cert_pem.write_to_path(str(roots))
    SERVER.cert_chain_pems[0].write_to_path(str(certificate))
    SERVER.private_key_pem.write_to_path(str(key))
    asked, other = tmp_path / "other.pem", trustme.CA()
    other.cert_pem.write_to_path(str(asked))
    first = ClientCertificatePolicy(
        ClientCertificates.ASKED, str(asked)
    )  # roots to which the client's certificate does not lead
    second = ClientCertificatePolicy(ClientCertificates.ASKED, str(roots))
    files = (CertificateFiles(str(certificate), str(key)),)
    made = server_tls(ServerTlsOptions(files, askings=(NOBODY, first, second)), b"s" * 32)
    assert isinstance(made, ServerTls)
    leaf = AUTHORITY.issue_cert("client.test")
    ours = client_context()
    ours.minimum_version = ours.maximum_version = version
    leaf.configure_cert(ours)
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())).hexdigest()

    async def main() -> None:
        def of(asking: ClientCertificatePolicy) -> ListenerOptions:
            return ListenerOptions(
                "a", Role.RELAY, tls=ListenerTls.IMPLICIT, asking=asking, trusted_certificates=(digest,)
            )

        async with (
            serving(of(first), tls_context=made.find) as (_, one),
            serving(of(second), tls_context=made.find) as (_, two),
        ):

            def relays(address: tuple[str, int], session: ssl.SSLSession | None) -> tuple[bool, bool, Any]:
                with socket.create_connection(address) as plain, ours.wrap_socket(plain, session=session) as stream:
                    read_until(stream, b"\r\n")
                    for line in (b"EHLO a\r\n", b"MAIL FROM:<a@b.test>\r\n", b"RCPT TO:<x@elsewhere.test>\r\n"):
                        stream.sendall(line)
                        answer = read_until(stream, b"\r\n")
                        while answer[-4:] and answer.splitlines()[-1][3:4] == b"-":
                            answer += read_until(stream, b"\r\n")
                    return answer[:3] == b"250", bool(stream.session_reused), stream.session

            def client() -> list[tuple[bool, bool]]:
                unproved = relays(one, None)
                told = [unproved[:2], relays(one, unproved[2])[:2], relays(two, unproved[2])[:2]]
                proved = relays(two, None)
                return [*told, relays(two, proved[2])[:2], relays(one, proved[2])[:2]]

            assert await asyncio.to_thread(client) == [
                (False, False),
                (False, True),  # taken up again, and still no proof
                (True, False),  # a whole handshake, which looks at the certificate
                (True, True),
                (False, False),
            ]

    run(main)
