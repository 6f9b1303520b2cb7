"""Connections, in and out, on the running event loop: TCP over IPv4 and IPv6, Unix sockets, TLS on top.

What always holds: `connect` and `start_tls` end within their time limit; addresses are IP addresses or paths, names are
never resolved here (`world.dns` does that); a TCP connection has TCP_NODELAY, because the dialog of SMTP is written in
as few pieces as possible already and must not wait for acknowledgements.

How it fails: with OSError and nothing else (TimeoutError and ssl.SSLError are OSErrors). The caller makes an Attempt of
it if the remote refused, was silent or has a bad certificate; `why` gives the words. After a failed `start_tls` the
transport is closed.

Not here: buffers and pauses (the Protocol's), certificates (`world.tls`), the turns of handshakes
(`world.handshakes`), listening addresses (`world.system`).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from postroad.world.handshakes import HandshakeSlots, taking
from postroad.world.preface import PrefaceServer, Welcome
from postroad.world.tls_alerts import LastWords, saying, starting

P = TypeVar("P", bound=asyncio.BaseProtocol)


class Server(Protocol):
    """What listens. Sessions that it brought forth are not its own: closing it ends none of them."""

    def close(self) -> None:
        """Stop listening, in this process."""
        ...


class Network(Protocol):
    async def connect(
        self,
        protocol_factory: Callable[[], P],
        address: str,
        port: int,
        *,
        path: str = "",
        source: str = "",
        timeout_s: float,
        context: ssl.SSLContext | None = None,
        server_name: str = "",
    ) -> tuple[asyncio.Transport, P]:
        """A connection to an IP address and port, or to the Unix socket `path`. `source`: our own IP address, "" for
        the system's choice. `context`: TLS from the first octet (RFC 8314 §3.3); the protocol then sees only that."""
        ...

    async def start_tls(
        self,
        transport: asyncio.Transport,
        protocol: asyncio.BaseProtocol,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_name: str = "",
        octets: bytes = b"",
        timeout_s: float,
    ) -> asyncio.Transport:
        """TLS on a connection. The transport to use from here on; `connection_made` is not called again.

        The caller has dropped what it had read but not yet used (RFC 3207 §4.2, CVE-2011-0411). `octets`: what it has
        read of the handshake itself; handshakes of servers take turns (`world.handshakes`), in which the transport must
        be paused.
        """
        ...

    async def serve(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sock: socket.socket,
        *,
        backlog: int = 512,
    ) -> Server:
        """Listen on a bound socket. TLS from the first octet is the protocol's to begin (`start_tls`), as any other."""
        ...


    def serve_prefaced(
        self,
        welcome: Welcome,
        sock: socket.socket,
        *,
        backlog: int = 512,
        preface_s: float,
    ) -> Server:
        """Listen on a bound socket whose connections begin with a preface (`world.preface`), before TLS."""
        ...


class SystemNetwork:
    """The machine's network, on the running loop."""

    def __init__(self) -> None:
        self._turns = HandshakeSlots()
        self._last_words = LastWords()

    async def connect(
        self,
        protocol_factory: Callable[[], P],
        address: str,
        port: int,
        *,
        path: str = "",
        source: str = "",
        timeout_s: float,
        context: ssl.SSLContext | None = None,
        server_name: str = "",
    ) -> tuple[asyncio.Transport, P]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(timeout_s):
            if context is not None:
                sock = await _connected(loop, address, port, path, source)
                # With TLS and no name to check the loop still wants to be given one.
                name = server_name or address
                with saying(self._last_words.of_socket(sock)):
                    if path:
                        return await loop.create_unix_connection(
                            protocol_factory, sock=sock, ssl=context, server_hostname=name
                        )
                    return await loop.create_connection(
                        protocol_factory, sock=sock, ssl=context, server_hostname=name
                    )
            if path:
                return await loop.create_unix_connection(protocol_factory, path)
            # asyncio and uvloop both set TCP_NODELAY on their own.
            return await loop.create_connection(
                protocol_factory,
                address,
                port,
                local_addr=(source, 0) if source else None,
            )

    async def start_tls(
        self,
        transport: asyncio.Transport,
        protocol: asyncio.BaseProtocol,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_name: str = "",
        octets: bytes = b"",
        timeout_s: float,
    ) -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        if transport.is_closing():
            raise ConnectionResetError("the connection was closed before TLS began")
        try:
            async with asyncio.timeout(timeout_s):
                if server_side:
                    await self._turns.turn()
                    if transport.is_closing():
                        raise ConnectionResetError("the connection was closed before TLS began")
                beginning = loop.start_tls(
                    transport,
                    protocol,
                    context,
                    server_side=server_side,
                    server_hostname=None if server_side else server_name or None,
                    ssl_handshake_timeout=timeout_s,
                )
                handshake = starting(beginning, self._last_words.of_transport(transport))
                started = await (taking(handshake, transport, octets) if octets else handshake)
        except BaseException:
            transport.abort()
            raise
        if started is None:  # asyncio: the peer went away in the middle
            raise ConnectionResetError("the connection was closed while TLS began")
        return started

    async def serve(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sock: socket.socket,
        *,
        backlog: int = 512,
    ) -> Server:
        loop = asyncio.get_running_loop()
        if sock.family == socket.AF_UNIX:
            return await loop.create_unix_server(protocol_factory, sock=sock, backlog=backlog)
        return await loop.create_server(protocol_factory, sock=sock, backlog=backlog)

    def serve_prefaced(
        self,
        welcome: Welcome,
        sock: socket.socket,
        *,
        backlog: int = 512,
        preface_s: float,
    ) -> Server:
        return PrefaceServer(welcome, sock, backlog=backlog, preface_s=preface_s)


async def _connected(
    loop: asyncio.AbstractEventLoop, address: str, port: int, path: str, source: str
) -> socket.socket:
    """A connected socket of our own: TLS has to know it for its alerts."""
    end: Any = path
    if path:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    else:
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        family, kind, proto, _, end = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=numeric)[0]
        sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        if not path:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if source:
                sock.bind((source, 0))
        await loop.sock_connect(sock, end)
    except BaseException:
        sock.close()
        raise
    return sock


def why(error: OSError) -> str:
    """What went wrong with a connection, for people: "connection refused", "the certificate has expired"."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"certificate not accepted: {error.verify_message or error}"
        case ssl.SSLError():
            reason = getattr(error, "reason", "") or str(error)  # only OpenSSL's own errors have one
            return f"TLS failed: {reason.lower().replace('_', ' ')}"
        case TimeoutError():
            return "timed out"
        case ConnectionRefusedError():
            return "connection refused"
        case ConnectionError() if not str(error):  # so say loops, of a connection that went
            return "the connection was closed"
        case _:
            return (error.strerror or str(error) or type(error).__name__).lower()

