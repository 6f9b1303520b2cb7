"""A listener: one inherited listening socket, and the sessions of its clients.

What always holds: settings are replaced as a whole (`renew`), and no session is lost by this: each takes them when no
transaction is under way, and ends then if it cannot go on under them. At the end (`stop`) no new client is let in. Idle
sessions hear 421 4.3.2 at once, those with an open transaction when it has ended; all that are left when the time limit
is reached are broken off. A message that was handed to the spool is kept in any case.

Not here: binding sockets (`world.system`), what holds for all workers (`node`).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial

from postroad.receive.options import ListenerTls, Proxy
from postroad.receive.proxied import PrefacedConnection
from postroad.receive.refusal_notes import RefusalNotes
from postroad.receive.session import ClientConnection, peer_name
from postroad.receive.setup import ListenerSetup
from postroad.world.network import Server


class Listener:
    """Serves one socket. All methods are called on the event loop."""

    def __init__(self, setup: ListenerSetup) -> None:
        self.setup = setup
        self._server: Server | None = None
        self._socket: socket.socket | None = None  # a descriptor of our own, to listen on it once more
        self._sessions: set[ClientConnection] = set()
        self.turned = RefusalNotes()
        self._empty: asyncio.Future[None] | None = None
        self._stopping = False
        self.leaving_for = ""  # why sessions come to an end, while they do

    @property
    def sessions(self) -> int:
        """How many clients are connected."""
        return len(self._sessions)

    async def serve(self, sock: socket.socket, backlog: int = 512) -> None:
        """Listen on a bound socket. OSError if it cannot; ValueError for implicit TLS without a certificate."""
        setup = self.setup
        listener = setup.listener
        if listener.tls is ListenerTls.IMPLICIT and setup.doors.tls_context(listener.asking) is None:
            raise ValueError(f"listener {listener.name}: implicit TLS without a certificate")
        again = sock.dup()
        again.setblocking(False)
        network = setup.doors.network
        if listener.proxy is Proxy.NONE:
            self._server = await network.serve(self.connect, sock, backlog=backlog)
        else:
            self._server = network.serve_prefaced(
                self._welcome, sock, backlog=backlog, preface_s=setup.options.proxy_s
            )
        if self._socket is not None:
            self._socket.close()
        self._socket = again

    def connect(self) -> ClientConnection:
        """The protocol of a new connection."""
        return ClientConnection(self)

    def _welcome(self, name: object) -> PrefacedConnection | None:
        """A connection that begins with a PROXY header; None if we are stopping."""
        if self._stopping:
            return None
        return PrefacedConnection(self.setup, *peer_name(name), partial(ClientConnection, self), self.turned)

    def take(self, setup: ListenerSetup) -> bool:
        """Settings: new sessions begin with them, others take them with their next command that is not of a
        transaction. True if `serve_again` has to follow: whether a PROXY header comes first is the server's to know,
        and no client may be heard where its header should stand.
        """
        before, self.setup = self.setup, setup
        if self._server is None or before.listener.proxy is setup.listener.proxy:
            return False
        self._server.close()  # clients that come wait in the socket
        self._server = None
        return True

    async def serve_again(self, backlog: int = 512) -> None:
        """Listen as the settings now say, on the same socket. Fails as `serve` does."""
        assert self._socket is not None
        await self.serve(self._socket.dup(), backlog)

    def close(self) -> None:
        """Let nobody in any more; sessions go on."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def stop(self, limit_s: float, reason: str = "shutdown") -> None:
        """Close, and wait until all sessions have ended, `limit_s` seconds at most; break off what is left then. It may
        be called again with a shorter limit."""
        self._stopping = True
        self.leaving_for = reason
        self.close()
        for session in tuple(self._sessions):
            session.leave()
        if self._sessions:
            loop = self.setup.doors.loop
            if self._empty is None:
                self._empty = loop.create_future()
            timer = loop.call_later(limit_s, self._break_off)
            await self._empty
            timer.cancel()

    def turn_out(self, is_banned: Callable[[str, bool], bool]) -> None:
        """Clients of these addresses are banned: their sessions end, at once or with what is under way."""
        for session in tuple(self._sessions):
            if is_banned(session.address, self.setup.listener.auth):
                session.turn_out()

    def _break_off(self) -> None:
        for session in tuple(self._sessions):
            session.break_off()

    # ---- What sessions tell

    def joined(self, session: ClientConnection) -> None:
        self._sessions.add(session)
        if self._stopping:  # its PROXY header or handshake was on its way
            self.setup.doors.loop.call_soon(session.leave)

    def gone(self, session: ClientConnection) -> None:
        self._sessions.discard(session)
        if not self._sessions and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)
