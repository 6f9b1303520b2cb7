"""A server whose connections begin with octets of another protocol: a PROXY header (`protocol.proxy`).

What always holds: no octet after the preface is read here (the socket is peeked at, then only the preface is read), so
that a TLS handshake or a greeting can follow as on any other connection. The preface has a time limit. At most
`WAITING_MAX` connections may be in their preface; then no new one is accepted until one of them has finished it.

How it fails: a connection that fails is closed, and its Visitor hears why. If the system has no descriptors left, no
connection is accepted for a second, as in the loop's own server.

Not here: what a preface is (the Visitor knows).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Final, Protocol

WAITING_MAX: Final = 1024
_AT_ONCE: Final = 64  # connections accepted in one turn of the loop
_LOOK: Final = 4096  # octets looked at in one go
_REST_S: Final = 1.0
_SCARCE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_LOG: Final = logging.getLogger(__name__)


class Visitor(Protocol):
    """One connection before its protocol begins."""

    @property
    def ready(self) -> bool:
        """Whether the preface is complete."""
        ...

    @property
    def refused(self) -> bool:
        """Whether the connection is to be closed; the visitor knows why."""
        ...

    def take(self, octets: bytes) -> int:
        """How many of these octets are the preface's: all, unless it is `ready` or `refused` by now."""
        ...

    def protocol(self) -> asyncio.BaseProtocol:
        """What speaks on the connection from here on; asked for once, when `ready`."""
        ...

    def gone(self, text: str) -> None:
        """The connection ended before its protocol began. Not after `refused`."""
        ...


# The peer's address as `accept` gives it → the visitor, None for nobody that we speak to.
Welcome = Callable[[object], Visitor | None]


class PrefaceServer:
    """See the module. It owns `sock` and listens on it from the start."""

    def __init__(
        self,
        welcome: Welcome,
        sock: socket.socket,
        *,
        backlog: int,
        preface_s: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._welcome = welcome
        self._socket = sock
        self._preface_s = preface_s
        self._visits: set[_Visit] = set()
        self._closed = self._resting = False
        sock.setblocking(False)
        sock.listen(backlog)
        self._loop.add_reader(sock.fileno(), self._accept)

    def close(self) -> None:
        """Accept nobody any more; who is in goes on."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if len(self._visits) >= WAITING_MAX:
                self._rest()
                return
            try:
                connection, name = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _SCARCE:
                    raise
                _LOG.error("no connection can be accepted: %s", error.strerror)
                self._rest()
                self._loop.call_later(_REST_S, self._go_on)
                return
            connection.setblocking(False)
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            visitor = self._welcome(name)
            if visitor is None or visitor.refused:
                connection.close()
            else:
                visit = _Visit(self, connection, visitor)
                self._visits.add(visit)
                visit.start(self._loop, self._preface_s)

    def _rest(self) -> None:
        self._resting = True
        self._loop.remove_reader(self._socket.fileno())

    def _go_on(self) -> None:
        if self._resting and not self._closed:
            self._resting = False
            self._loop.add_reader(self._socket.fileno(), self._accept)

    def over(self, visit: _Visit) -> None:
        """A visit has come to its end, or to its protocol."""
        self._visits.discard(visit)
        if self._resting and len(self._visits) < WAITING_MAX // 2:
            self._go_on()

    async def hand_over(self, visitor: Visitor, connection: socket.socket) -> None:
        """The preface is complete: what follows is the protocol's."""
        try:
            await self._loop.connect_accepted_socket(visitor.protocol, connection)
        except OSError as error:
            connection.close()
            visitor.gone(str(error))


class _Visit:
    """The preface of one connection."""

    def __init__(self, server: PrefaceServer, connection: socket.socket, visitor: Visitor) -> None:
        self._server = server
        self._connection = connection
        self._visitor = visitor
        self._loop: asyncio.AbstractEventLoop
        self._timer: asyncio.TimerHandle
        self._task: asyncio.Task[None] | None = None

    def start(self, loop: asyncio.AbstractEventLoop, preface_s: float) -> None:
        self._loop = loop
        self._timer = loop.call_later(preface_s, self._end, "timeout before the end of the PROXY header")
        loop.add_reader(self._connection.fileno(), self._read)

    def _read(self) -> None:
        connection, visitor = self._connection, self._visitor
        try:
            octets = connection.recv(_LOOK, socket.MSG_PEEK)
            taken = visitor.take(octets) if octets else 0
            if taken:
                connection.recv(taken)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(f"connection lost: {error}")
            return
        if visitor.refused:
            self._end("")
        elif visitor.ready:
            self._stop()
            self._task = self._loop.create_task(self._server.hand_over(visitor, connection))
            self._task.add_done_callback(self._handed_over)
        elif not octets:
            self._end("closed by the client before the end of the PROXY header")

    def _stop(self) -> None:
        self._timer.cancel()
        self._loop.remove_reader(self._connection.fileno())

    def _handed_over(self, task: asyncio.Task[None]) -> None:
        self._server.over(self)
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("a connection with a PROXY header broke", exc_info=task.exception())

    def _end(self, text: str) -> None:
        self._stop()
        self._connection.close()
        self._server.over(self)
        if text:
            self._visitor.gone(text)
