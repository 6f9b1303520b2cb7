"""Makes TLS alerts reach the other side, so that it hears why a handshake was refused before the connection ends.

RFC 8446 §6.2, RFC 5246 §7.2.2. When a handshake fails, OpenSSL has made an alert, and event loops close the connection
without sending it. So the SSL object of our contexts (`Alerting`) sends it itself, at the moment of the failure. If the
other side has sent octets that nobody reads, the system would reset the connection, and the alert would be lost. So the
connection is kept for `LINGER_S` at most, and read to its end; for the loop it is closed.

What always holds: nothing is sent past octets that wait to be sent; at most `LINGERING_MAX` connections linger, each
reads `LINGER_OCTETS_MAX` octets at most. How it fails: the connection is closed without an alert.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Final, TypeVar

LINGER_S: Final = 2.0
LINGERING_MAX: Final = 64
LINGER_OCTETS_MAX: Final = 262_144
_PIECE: Final = 65_536

T = TypeVar("T")
Say = Callable[[bytes], None]
_SAY: ContextVar[Say | None] = ContextVar("postroad_alert", default=None)  # how the handshake that begins says an alert


class _Beginning:
    """The same, if the loop begins a handshake outside our context: in `start_tls`. One loop in a process."""

    say: Say | None = None


class Alerting(ssl.SSLObject):
    """The SSL object of contexts that `send_alerts` was called with. The loop makes it, while the handshake begins
    (`saying`, `starting`)."""

    _outgoing: ssl.MemoryBIO | None = None
    _say: Say | None = None

    @classmethod
    def _create(cls, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *more: Any, **named: Any) -> Alerting:
        made: Alerting = super()._create(incoming, outgoing, *more, **named)  # type: ignore[misc]
        made._outgoing, made._say = outgoing, _SAY.get() or _Beginning.say
        return made

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            if self._say is not None and self._outgoing is not None and (alert := self._outgoing.read()):
                self._say(alert)
            raise
        self._outgoing = self._say = None


def send_alerts(context: ssl.SSLContext) -> None:
    """Handshakes with this context send their alert."""
    context.sslobject_class = Alerting


@contextmanager
def saying(say: Say) -> Iterator[None]:
    """A handshake that begins in here says its alert so."""
    token = _SAY.set(say)
    try:
        yield
    finally:
        _SAY.reset(token)


async def starting(start_tls: Coroutine[Any, Any, T], say: Say) -> T:
    """Run the loop's own `start_tls`, whose handshake says its alert so.

    asyncio makes the SSL object at once, uvloop in the `connection_made` of its protocol, for which it asks the loop.
    The loop calls in the order in which it was asked to: we ask before, and once more from there.
    """
    loop = asyncio.get_running_loop()
    loop.call_soon(_begin, loop, say)
    with saying(say):
        return await start_tls


def _begin(loop: asyncio.AbstractEventLoop, say: Say) -> None:
    _Beginning.say = say
    loop.call_soon(_begun, say)


def _begun(say: Say) -> None:
    if _Beginning.say is say:
        _Beginning.say = None


class LastWords:
    """Sends alerts and lets their connections linger. One for a worker."""

    def __init__(self) -> None:
        self._lingering: dict[int, tuple[socket.socket, asyncio.TimerHandle]] = {}
        self._octets: dict[int, int] = {}

    def of_transport(self, transport: asyncio.Transport) -> Say:
        def say(alert: bytes) -> None:
            if not (transport.is_closing() or transport.get_write_buffer_size()):
                sock = transport.get_extra_info("socket")
                if sock is not None:
                    self._send(sock.fileno(), alert)

        return say

    def of_socket(self, sock: socket.socket) -> Say:
        return lambda alert: self._send(sock.fileno(), alert)

    def _send(self, descriptor: int, alert: bytes) -> None:
        if descriptor < 0:
            return
        with suppress(OSError):
            os.write(descriptor, alert)
            if len(self._lingering) < LINGERING_MAX:
                self._linger(socket.socket(fileno=os.dup(descriptor)))

    def _linger(self, sock: socket.socket) -> None:
        """Ours alone from here on: the loop closes the descriptor that it has."""
        sock.setblocking(False)
        loop, number = asyncio.get_running_loop(), sock.fileno()
        self._octets[number] = 0
        self._lingering[number] = sock, loop.call_later(LINGER_S, self._end, loop, number)
        sock.shutdown(socket.SHUT_WR)
        loop.add_reader(number, self._read, loop, number)

    def _read(self, loop: asyncio.AbstractEventLoop, number: int) -> None:
        sock, _ = self._lingering[number]
        try:
            octets = sock.recv(_PIECE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            octets = b""
        self._octets[number] += len(octets)
        if not octets or self._octets[number] > LINGER_OCTETS_MAX:
            self._end(loop, number)

    def _end(self, loop: asyncio.AbstractEventLoop, number: int) -> None:
        sock, timer = self._lingering.pop(number)
        del self._octets[number]
        timer.cancel()
        loop.remove_reader(number)
        sock.close()
