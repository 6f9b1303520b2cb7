"""TLS handshakes take turns, so that the other sessions are still served when many clients begin one at the same
moment.

The costly part of a server's handshake (a signature, an agreement of keys: from a fifth of a millisecond to six) is
done on the loop at once, when the ClientHello is read. Without turns the loop would do all waiting handshakes one after
the other, and every other session would wait for all of them. So a session itself gathers the ClientHello, as plain
octets, until it is whole (`is_whole`). Then its handshake waits for a turn; the loop gives one turn at a time, and does
all its other work between two. The handshake gets these octets before any others (`taking`).

What always holds: a client that sends no ClientHello, or half of one, holds up nobody and costs no TLS; turns are given
in the order in which the ClientHellos were complete; the gathered octets have a limit.

Not here: time limits (the session's, the network's).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final, TypeVar, cast

T = TypeVar("T")

_HEADER: Final = 5  # RFC 8446 §5.1: type, version, length
_HANDSHAKE: Final = 22
_RECORD_MAX: Final = 16_384 + 256  # RFC 8446 §5.2


def is_whole(octets: bytes | bytearray) -> bool:
    """Whether the first record of a client has come to its end. What is no handshake, or too long for one, need not be
    waited for: it fails at once."""
    if octets and octets[0] != _HANDSHAKE:
        return True
    if len(octets) < _HEADER:
        return False
    length = int.from_bytes(octets[3:_HEADER], "big")
    return length > _RECORD_MAX or len(octets) >= _HEADER + length


class HandshakeSlots:
    """One turn for each turn of the loop. One of these for a worker."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = False

    async def turn(self) -> None:
        """Wait until it is our turn."""
        loop = asyncio.get_running_loop()
        if not self._taken:
            self._taken = True
            loop.call_soon(self._next, loop)
            return
        future = loop.create_future()
        self._waiting.append(future)
        await future

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():  # else it was given up
                future.set_result(None)
                loop.call_soon(self._next, loop)
                return
        self._taken = False


async def taking(starting: Coroutine[Any, Any, T], transport: asyncio.Transport, octets: bytes) -> T:
    """Run the loop's own `start_tls`, which takes these octets first.

    The loop calls in the order in which it was asked to. `start_tls` asks for `connection_made` of its protocol and for
    reading to go on, both for the next turn of the loop; we ask behind it for the same turn, so that the octets are
    there before the first that are read.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(starting)
    loop.call_soon(loop.call_soon, _take, transport, octets)
    return await task


def _take(transport: asyncio.Transport, octets: bytes) -> None:
    """Hand the octets to the transport's protocol, which by now is that of TLS."""
    if transport.is_closing():
        return
    protocol = cast(asyncio.BufferedProtocol, transport.get_protocol())
    view = memoryview(octets)
    while view:
        buffer = memoryview(cast(bytearray, protocol.get_buffer(len(view))))
        size = min(len(buffer), len(view))
        buffer[:size] = view[:size]
        protocol.buffer_updated(size)
        view = view[size:]
