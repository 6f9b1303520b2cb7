"""Who is refused in a handshake hears why; a client certificate that is only asked for refuses nobody."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from postroad.world.handshakes import is_whole
from postroad.world.network import SystemNetwork
from postroad.world.tls import (
    NOBODY,
    ClientCertificatePolicy,
    ClientCertificates,
    ClientTls,
    ClientTlsOptions,
    Proof,
    Purpose,
    ServerTls,
    ServerTlsOptions,
    server_tls,
)
from postroad.world.tls_alerts import LINGERING_MAX, LastWords
from postroad.world.tls_facts import facts_of
from postroad.world.tls_session import client_names
from tests.unit.world.test_tls import issue, resumed, shake, trusting

Run = Callable[[Callable[[], Awaitable[None]]], None]
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    factory = uvloop.new_event_loop if request.param == "uvloop" else None

    def runner(main: Callable[[], Awaitable[None]]) -> None:
        async def limited() -> None:
            async with asyncio.timeout(60):
                await main()

        with asyncio.Runner(loop_factory=factory) as started:
            started.run(limited())

    socket.setdefaulttimeout(20)
    yield runner
    socket.setdefaulttimeout(None)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_of(authority: trustme.CA, folder: Path, asking: ClientCertificatePolicy) -> ServerTls:
    options = ServerTlsOptions((issue(authority, folder, "1", "a.example"),), askings=(NOBODY, asking))
    made = server_tls(options, b"s" * 32)
    assert isinstance(made, ServerTls), made
    return made


def asking_of(
    authority: trustme.CA, folder: Path, asked: ClientCertificates, purpose: Purpose = Purpose.CLIENT
) -> ClientCertificatePolicy:
    roots = folder / "roots.pem"
    authority.cert_pem.write_to_path(str(roots))
    return ClientCertificatePolicy(asked, str(roots), purpose)


def for_servers_only(authority: trustme.CA, folder: Path, context: ssl.SSLContext) -> None:
    """A certificate as public authorities issue them now: its extended key usage is serverAuth and nothing else."""
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    signing: Any = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("client.example"), x509.RFC822Name("ann@example.org")]
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "client.example")]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(signing, hashes.SHA256())
    )
    file = folder / "server-only.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ) + made.public_bytes(serialization.Encoding.PEM)
    )
    context.load_cert_chain(file)


class Transport:
    def __init__(self, ssl_object: Any) -> None:
        self.ssl_object = ssl_object

    def get_extra_info(self, name: str) -> Any:
        return getattr(self, name)


# ---- asked for, and not good


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("purpose", list(Purpose))
def test_a_certificate_for_servers_only(
    authority: trustme.CA, tmp_path: Path, version: ssl.TLSVersion, purpose: Purpose
) -> None:
    """RFC 8446 §4.4.2.4: the handshake goes on without proof; a setting takes it as one."""
    asking = asking_of(authority, tmp_path, ClientCertificates.ASKED, purpose)
    context = trusting(authority)
    context.maximum_version = version
    for_servers_only(authority, tmp_path, context)
    _, other = shake(server_of(authority, tmp_path, asking).context(asking), context, "a.example")
    found = facts_of(other)
    assert found.certificate is not None and found.certificate.common_name == "client.example"
    assert found.verified is (purpose is Purpose.ANY)
    names = client_names(Transport(other))
    assert (names is not None) is (purpose is Purpose.ANY), "and it is nobody's account without proof"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_purpose_that_is_taken_does_not_take_another_issuer(
    authority: trustme.CA, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    asking = asking_of(authority, tmp_path, ClientCertificates.ASKED, Purpose.ANY)
    context = trusting(authority)
    context.maximum_version = version
    for_servers_only(trustme.CA(), tmp_path, context)
    _, other = shake(server_of(authority, tmp_path, asking).context(asking), context, "a.example")
    assert facts_of(other).certificate is not None and not facts_of(other).verified
    assert client_names(Transport(other)) is None


@pytest.mark.parametrize("version", VERSIONS)
def test_what_was_not_proved_is_not_proved_by_a_ticket(
    authority: trustme.CA, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """Neither at the listener that gave the ticket nor at any other of the node."""
    asked = asking_of(authority, tmp_path, ClientCertificates.ASKED)
    lenient = ClientCertificatePolicy(ClientCertificates.ASKED, asked.ca_file, Purpose.ANY)
    demanded = ClientCertificatePolicy(ClientCertificates.DEMANDED, asked.ca_file)
    options = ServerTlsOptions(
        (issue(authority, tmp_path, "1", "a.example"),), askings=(NOBODY, asked, lenient, demanded)
    )
    server = server_tls(options, b"s" * 32)
    assert isinstance(server, ServerTls)
    context = trusting(authority)
    context.maximum_version = version
    for_servers_only(authority, tmp_path, context)
    session = resumed(server.context(asked), context, None).session
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = context.wrap_bio(to_client, to_server, server_hostname="a.example", session=session)
    other = server.context(asked).wrap_bio(to_server, to_client, server_side=True)
    for end in (one, other, one, other):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert other.session_reused and not facts_of(other).verified and client_names(Transport(other)) is None
    proved = resumed(server.context(lenient), context, None).session
    assert resumed(server.context(lenient), context, proved).session_reused
    assert not resumed(server.context(asked), context, proved).session_reused, "another purpose, another ticket"
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        resumed(server.context(demanded), context, resumed(server.context(lenient), context, None).session)


# ---- alerts


def refused_by_server(address: tuple[str, int], context: ssl.SSLContext) -> str:
    """What a client hears that is refused: in its handshake, or right behind it (TLS 1.3)."""
    with socket.create_connection(address) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="a.example") as stream:
                stream.sendall(b"EHLO a\r\n" * 2000)  # unread octets make the system reset the connection
                stream.recv(100)
        except ssl.SSLError as error:
            return str(error.reason or error)
        return "nothing"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("given", "heard"),
    [("none", {"TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_HANDSHAKE_FAILURE"}),
     ("stranger", {"TLSV1_ALERT_UNKNOWN_CA"}), ("server", {"SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
                                                            "SSLV3_ALERT_BAD_CERTIFICATE"})],
)  # fmt: skip
def test_a_client_that_is_refused_hears_the_alert(
    run: Run, authority: trustme.CA, tmp_path: Path, version: ssl.TLSVersion, given: str, heard: set[str]
) -> None:
    asking = asking_of(authority, tmp_path, ClientCertificates.DEMANDED)
    serving = server_of(authority, tmp_path, asking).context(asking)
    context = trusting(authority)
    context.minimum_version = context.maximum_version = version
    if given == "stranger":
        trustme.CA().issue_cert("client.example").configure_cert(context)
    elif given == "server":
        for_servers_only(authority, tmp_path, context)

    async def main() -> None:
        network, failed = SystemNetwork(), asyncio.Event()

        class Front(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                self.transport, self.hello = transport, b""

            def data_received(self, data: bytes) -> None:
                self.hello += data
                if is_whole(self.hello):  # as a session gathers it
                    self.transport.pause_reading()
                    self.task = asyncio.get_running_loop().create_task(self.begin())

            async def begin(self) -> None:
                with pytest.raises(OSError):
                    await network.start_tls(
                        self.transport, self, serving, server_side=True, octets=self.hello, timeout_s=5
                    )
                failed.set()

        sock = socket.create_server(("127.0.0.1", 0))
        server = await network.serve(Front, sock)
        assert await asyncio.to_thread(refused_by_server, sock.getsockname(), context) in heard
        await failed.wait()
        while network._last_words._lingering:  # the client has gone: nothing lingers
            await asyncio.sleep(0.005)
        server.close()

    run(main)


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_that_we_refuse_hears_the_alert(
    run: Run, authority: trustme.CA, version: ssl.TLSVersion, implicit: bool
) -> None:
    """As a client, too: over STARTTLS and with TLS from the first octet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    trustme.CA().issue_cert("mx.example.org").configure_cert(context)
    proving = ClientTls(ClientTlsOptions()).context(Proof.NAME)
    assert isinstance(proving, ssl.SSLContext)
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> str:
        plain, _ = listening.accept()
        with plain:
            try:
                with context.wrap_socket(plain, server_side=True) as stream:
                    stream.recv(10)
            except ssl.SSLError as error:
                return str(error.reason or error)
            return "nothing"

    async def main() -> None:
        network = SystemNetwork()
        heard = asyncio.get_running_loop().run_in_executor(None, serve)
        address, port = listening.getsockname()
        more: dict[str, Any] = {"timeout_s": 20.0}
        with pytest.raises(ssl.SSLCertVerificationError):
            if implicit:
                await network.connect(
                    asyncio.Protocol, address, port, context=proving, server_name="mx.example.org", **more
                )
            else:
                transport, protocol = await network.connect(asyncio.Protocol, address, port, **more)
                await network.start_tls(transport, protocol, proving, server_name="mx.example.org", **more)
        assert await heard == "TLSV1_ALERT_UNKNOWN_CA"

    run(main)
    listening.close()


def test_connections_that_linger_are_bounded(run: Run) -> None:
    async def main() -> None:
        words, kept = LastWords(), []
        for _ in range(LINGERING_MAX + 10):
            ours, theirs = socket.socketpair()
            words.of_socket(ours)(b"alert")
            assert theirs.recv(10) == b"alert"
            kept += [ours, theirs]
        assert len(words._lingering) == LINGERING_MAX
        for each in kept:
            each.close()
        while words._lingering:
            await asyncio.sleep(0.005)
        assert not words._octets

    run(main)
