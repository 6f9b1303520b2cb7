"""Channel bindings and certificates of real handshakes, over asyncio's and uvloop's transports."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from typing import Any

import pytest
import trustme
import uvloop

from postroad.world import tls_session
from postroad.world.tls_session import CertificateNames

AUTHORITY = trustme.CA()
SERVER = AUTHORITY.issue_cert("localhost")
CLIENT = AUTHORITY.issue_cert("ada@example.org", common_name="ada")


def server_context(verify: ssl.VerifyMode = ssl.CERT_NONE) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    SERVER.configure_cert(context)
    AUTHORITY.configure_trust(context)
    context.verify_mode = verify
    return context


def client_context(version: ssl.TLSVersion, certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    context.maximum_version = version
    if certificate is not None:
        certificate.configure_cert(context)
    return context


async def both(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[asyncio.Transport, asyncio.Transport]:
    """The transports of the two ends of one connection."""
    loop = asyncio.get_running_loop()
    came: asyncio.Future[asyncio.Transport] = loop.create_future()

    class End(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            came.set_result(transport)

    listening = await loop.create_server(End, "127.0.0.1", 0, ssl=server)
    port = listening.sockets[0].getsockname()[1]
    transport, _ = await loop.create_connection(
        asyncio.Protocol, "127.0.0.1", port, ssl=client, server_hostname="localhost"
    )
    found = await came
    listening.close()
    return found, transport


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_ends_have_the_same_bindings(runner: Any, version: ssl.TLSVersion) -> None:
    async def main() -> None:
        seen = set()
        for _ in range(2):
            ours, theirs = await both(server_context(), client_context(version))
            exported = tls_session.channel_binding(ours, "tls-exporter", server_side=True)
            assert exported is not None and len(exported) == 32
            assert tls_session.channel_binding(theirs, "tls-exporter", server_side=False) == exported
            assert tls_session.best_binding(theirs) == ("tls-exporter", exported)
            seen.add(exported)
            end_point = tls_session.channel_binding(ours, "tls-server-end-point", server_side=True)
            shown = theirs.get_extra_info("ssl_object").getpeercert(True)
            assert end_point == hashlib.sha256(shown).digest()
            assert tls_session.channel_binding(theirs, "tls-server-end-point", server_side=False) == end_point
            assert tls_session.channel_binding(ours, "tls-unique", server_side=True) is None
            ours.abort()
            theirs.abort()
        assert len(seen) == 2, "each connection has its own"

    runner(main())


def test_without_tls_there_is_nothing() -> None:
    class Plain:
        def get_extra_info(self, name: str) -> None:
            return None

    assert tls_session.channel_binding(Plain(), "tls-exporter", server_side=True) is None
    assert tls_session.client_names(Plain()) is None
    assert tls_session.bindable()


def test_an_object_of_another_layout_is_left_alone() -> None:
    class Inner:
        context = object()

    class Odd:
        _sslobj = Inner()

        def version(self) -> str:
            return "TLSv1.3"

    assert tls_session._exported(Odd()) is None


@pytest.mark.parametrize(
    ("verify", "certificate", "expected"),
    [
        (ssl.CERT_OPTIONAL, CLIENT, CertificateNames(("ada@example.org",), "ada")),
        (ssl.CERT_OPTIONAL, None, None),
        (ssl.CERT_NONE, CLIENT, None),
    ],
)
def test_names_of_a_client(
    verify: ssl.VerifyMode, certificate: trustme.LeafCert | None, expected: CertificateNames | None
) -> None:
    async def main() -> None:
        client = client_context(ssl.TLSVersion.TLSv1_2, certificate)
        ours, theirs = await both(server_context(verify), client)
        assert tls_session.client_names(ours) == expected
        ours.abort()
        theirs.abort()

    asyncio.run(main())


def test_what_is_no_certificate() -> None:
    assert tls_session.certificate_names(b"x") is None
    assert tls_session.end_point(b"x") is None
