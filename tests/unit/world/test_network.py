"""Connections on a real loop: asyncio's and uvloop's; TCP, Unix sockets, TLS, time limits, what fails."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
import trustme
import uvloop

from postroad.world import system
from postroad.world.network import SystemNetwork, why

Scenario = Callable[[], Awaitable[None]]


class Recorder(asyncio.Protocol):
    """Keeps what comes, and answers each piece with itself in capitals where told to."""

    def __init__(self, *, echo: bool = False) -> None:
        self.made = 0
        self.octets = b""
        self.changed = asyncio.Event()
        self.lost = False
        self.echo = echo

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.made += 1
        self.changed.set()

    def data_received(self, data: bytes) -> None:
        self.octets += data
        if self.echo:
            self.transport.write(data.upper())
        self.changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Scenario], None]:
    factory = uvloop.new_event_loop if request.param == "uvloop" else None

    def runner(scenario: Scenario) -> None:
        async def main() -> None:
            async with asyncio.timeout(60):
                await scenario()

        with asyncio.Runner(loop_factory=factory) as each:
            each.run(main())

    return runner


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("mx.example.org", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    sock = system.bind("127.0.0.1", 0)
    assert isinstance(sock, socket.socket)
    yield sock
    sock.close()


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def test_tcp(run: Callable[[Scenario], None], listening: socket.socket) -> None:
    async def scenario() -> None:
        network = SystemNetwork()
        peer = Recorder(echo=True)
        port = port_of(listening)
        server = await network.serve(lambda: peer, listening)
        transport, protocol = await network.connect(Recorder, "127.0.0.1", port, source="127.0.0.9", timeout_s=5)
        assert protocol.made == 1
        transport.write(b"hello")
        await protocol.until(lambda: protocol.octets == b"HELLO")
        assert peer.transport.get_extra_info("peername")[0] == "127.0.0.9"
        for end in (transport, peer.transport):
            assert end.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        server.close()  # sessions go on
        transport.write(b" again")
        await protocol.until(lambda: protocol.octets == b"HELLO AGAIN")
        with pytest.raises(ConnectionRefusedError):
            await network.connect(Recorder, "127.0.0.1", port, timeout_s=5)
        transport.close()
        await peer.until(lambda: peer.lost)

    run(scenario)


def test_ipv6(run: Callable[[Scenario], None]) -> None:
    sock = system.bind("::1", 0)
    if not isinstance(sock, socket.socket):
        pytest.skip(f"no IPv6 here: {sock}")

    async def scenario() -> None:
        network = SystemNetwork()
        server = await network.serve(lambda: Recorder(echo=True), sock)
        transport, protocol = await network.connect(Recorder, "::1", port_of(sock), timeout_s=5)
        transport.write(b"x")
        await protocol.until(lambda: protocol.octets == b"X")
        transport.close()
        server.close()

    run(scenario)


def test_a_unix_socket(run: Callable[[Scenario], None], tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    sock = system.bind_unix(path)
    assert isinstance(sock, socket.socket)

    async def scenario() -> None:
        network = SystemNetwork()
        server = await network.serve(lambda: Recorder(echo=True), sock)
        transport, protocol = await network.connect(Recorder, "", 0, path=path, timeout_s=5)
        transport.write(b"x")
        await protocol.until(lambda: protocol.octets == b"X")
        transport.close()
        server.close()
        with pytest.raises(OSError):
            await network.connect(Recorder, "", 0, path=path + "-absent", timeout_s=5)

    run(scenario)


def test_starttls_on_both_sides(
    run: Callable[[Scenario], None],
    listening: socket.socket,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
) -> None:
    async def scenario() -> None:
        network = SystemNetwork()
        peer = Recorder()
        server = await network.serve(lambda: peer, listening)
        transport, protocol = await network.connect(Recorder, "127.0.0.1", port_of(listening), timeout_s=5)
        await peer.until(lambda: peer.made == 1)
        peer.transport.pause_reading()
        served, used = await asyncio.gather(
            network.start_tls(peer.transport, peer, server_context, server_side=True, timeout_s=5),
            network.start_tls(transport, protocol, client_context, server_name="mx.example.org", timeout_s=5),
        )
        assert protocol.made == peer.made == 1
        used.write(b"to the server")
        served.write(b"to the client")
        await peer.until(lambda: peer.octets == b"to the server")
        await protocol.until(lambda: protocol.octets == b"to the client")
        assert used.get_extra_info("ssl_object").version() == "TLSv1.3"
        used.close()
        await peer.until(lambda: peer.lost)
        server.close()

    run(scenario)


def test_implicit_tls(
    run: Callable[[Scenario], None],
    listening: socket.socket,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
) -> None:
    async def scenario() -> None:
        network = SystemNetwork()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Recorder(echo=True), sock=listening, ssl=server_context)
        transport, protocol = await network.connect(
            Recorder, "127.0.0.1", port_of(listening), timeout_s=5, context=client_context, server_name="mx.example.org"
        )
        assert protocol.transport.get_extra_info("ssl_object") is not None
        transport.write(b"x")
        await protocol.until(lambda: protocol.octets == b"X")
        transport.close()
        server.close()

    run(scenario)


@pytest.mark.parametrize("name", ["mx.example.net", "127.0.0.2"])
def test_a_certificate_of_another_name(
    run: Callable[[Scenario], None],
    listening: socket.socket,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    name: str,
) -> None:
    async def scenario() -> None:
        network = SystemNetwork()
        server = await asyncio.get_running_loop().create_server(Recorder, sock=listening, ssl=server_context)
        transport, protocol = await network.connect(Recorder, "127.0.0.1", port_of(listening), timeout_s=5)
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            await network.start_tls(transport, protocol, client_context, server_name=name, timeout_s=5)
        assert "certificate not accepted" in why(caught.value)
        assert transport.is_closing()
        server.close()

    run(scenario)


def test_a_peer_that_is_silent_or_talks_no_tls(
    run: Callable[[Scenario], None], listening: socket.socket, client_context: ssl.SSLContext
) -> None:
    async def scenario() -> None:
        network = SystemNetwork()
        peers: list[Recorder] = []

        def peer() -> Recorder:
            peers.append(Recorder(echo=len(peers) == 1))
            return peers[-1]

        server = await network.serve(peer, listening)
        transport, protocol = await network.connect(Recorder, "127.0.0.1", port_of(listening), timeout_s=5)
        with pytest.raises(OSError):
            await network.start_tls(transport, protocol, client_context, server_name="x", timeout_s=0.05)
        assert transport.is_closing()
        await peers[0].until(lambda: peers[0].lost)  # the connection really is gone
        transport, protocol = await network.connect(Recorder, "127.0.0.1", port_of(listening), timeout_s=5)
        with pytest.raises(OSError) as caught:
            await network.start_tls(transport, protocol, client_context, server_name="x", timeout_s=5)
        assert why(caught.value)
        transport, protocol = await network.connect(Recorder, "127.0.0.1", port_of(listening), timeout_s=5)
        transport.abort()
        with pytest.raises(ConnectionResetError):
            await network.start_tls(transport, protocol, client_context, server_name="x", timeout_s=5)
        server.close()

    run(scenario)


def test_connecting_ends_in_time(run: Callable[[Scenario], None]) -> None:
    # A full backlog: the kernel lets further connections wait for their SYN to be answered.
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    waiting = []
    for _ in range(4):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(full.getsockname())
        waiting.append(sock)

    async def scenario() -> None:
        with pytest.raises(TimeoutError) as caught:
            await SystemNetwork().connect(Recorder, "127.0.0.1", full.getsockname()[1], timeout_s=0.05)
        assert why(caught.value) == "timed out"

    run(scenario)
    for sock in (*waiting, full):
        sock.close()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TimeoutError(), "timed out"),
        (ConnectionRefusedError(111, "Connection refused"), "connection refused"),
        (OSError(113, "No route to host"), "no route to host"),
        (ConnectionResetError("gone"), "gone"),
        (OSError(), "oserror"),
    ],
)
def test_words(error: OSError, text: str) -> None:
    assert why(error) == text
