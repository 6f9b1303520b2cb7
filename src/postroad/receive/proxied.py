"""Reads the PROXY header of a connection behind a proxy, and makes the client of a session of it.

What always holds: only proxies of the listener's own list are heard. Other connections are closed without a word, and
so are those with no header, a broken header, or one that takes too long. Nothing is said, and no TLS is begun, before
the header is complete; until then the connection counts towards the limit of all sessions. After that the client is the
one that the header names, everywhere: limits, trust, trace fields, log.

How it fails: the connection is closed, and the log says why (except for probes that send nothing at all).

Not here: the header's octets (`protocol.proxy`), the socket (`world.preface`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from postroad.mail.envelope import Peer, Via
from postroad.mail.event import SessionEnded
from postroad.mail.policy import ACCEPT
from postroad.protocol.proxy import BadProxyHeader, Header, HeaderReader
from postroad.receive.forwarding import UNKNOWN
from postroad.receive.options import Proxy
from postroad.receive.refusal_notes import RefusalNotes
from postroad.receive.setup import ListenerSetup
from postroad.world.tls_facts import TlsFacts

_VERSIONS: Final = {Proxy.V1: frozenset({1}), Proxy.V2: frozenset({2})}
_BOTH: Final = frozenset({1, 2})


class Named(msgspec.Struct, frozen=True):
    """The client that a PROXY header names. `end`: IP address and port; `tls`: TLS that the proxy ended."""

    end: tuple[str, int]
    via: Via | None = None
    tls: TlsFacts | None = None


class PrefacedConnection:
    """The header of one connection (`world.preface.Visitor`). `begin` makes the session of its client; `turned`: what
    is told of those who find no room."""

    __slots__ = ("_address", "_begin", "_counted", "_port", "_reader", "_setup", "_silent", "_trusted")

    def __init__(
        self,
        setup: ListenerSetup,
        address: str,
        port: int,
        begin: Callable[[Named], asyncio.Protocol],
        turned: RefusalNotes,
    ) -> None:
        self._setup = setup
        self._address, self._port = address, port
        self._begin = begin
        self._trusted = setup.is_proxy(address)
        self._silent = True
        self._reader = HeaderReader(
            _VERSIONS.get(setup.listener.proxy, _BOTH), setup.options.proxy_header_max
        )
        self._counted = False
        if not self._trusted:
            self._tell("not a trusted proxy")
            return
        # As a session over a Unix socket: whose it is we do not know yet, and the proxy's own address says nothing.
        verdict = setup.doors.limiting.admit("", True, False)
        self._counted = verdict is ACCEPT
        if not self._counted and turned.left_out(address, verdict.reason, setup.doors.loop.time()) is not None:
            self._tell(f"{verdict.reason}, no PROXY header is waited for")

    @property
    def ready(self) -> bool:
        return isinstance(self._reader.result, Header)

    @property
    def refused(self) -> bool:
        return not self._counted or isinstance(self._reader.result, BadProxyHeader)

    def take(self, octets: bytes) -> int:
        self._silent = False
        taken = self._reader.take(octets)
        result = self._reader.result
        if isinstance(result, BadProxyHeader):
            self._leave()
            self._tell(result.text)
        return taken

    def protocol(self) -> asyncio.Protocol:
        header = self._reader.result
        assert isinstance(header, Header)
        self._leave()  # the session counts for itself
        return self._begin(client(header, self._address, self._port, tls_counts=self._setup.listener.proxy_tls))

    def gone(self, text: str) -> None:
        self._leave()
        if not self._silent:
            self._tell(text)

    def _leave(self) -> None:
        if self._counted:
            self._counted = False
            self._setup.doors.limiting.left("")

    def _tell(self, text: str) -> None:
        setup = self._setup
        doors = setup.doors
        peer = Peer(self._address, self._port, protocol="PROXY", listener=setup.listener.name)
        doors.record((SessionEnded(doors.now_us(), 0, peer, text, 0, 1),))


def client(header: Header, address: str, port: int, *, tls_counts: bool) -> Named:
    """The client that a header from this end names."""
    if header.local:
        return Named((address, port))
    secured = header.secured
    via = Via(
        f"PROXY v{header.version}",
        address,
        port,
        header.destination,
        header.destination_port,
        header.authority,
        header.alpn,
        header.unique_id,
        secured.common_name if secured is not None and secured.verified else "",
    )
    tls = None
    if secured is not None and tls_counts:
        tls = TlsFacts(secured.version or "TLS", secured.cipher, server_name=header.authority)
    # A client at a Unix socket of another host's is none of ours: it must not be trusted as one.
    return Named((header.address or (UNKNOWN if address else ""), header.port), via, tls)
