"""The worker's end of the porter: for each request one datagram with two descriptors, and a socket for the answer.

All workers share one socket to the porter; none of them keeps the porter waiting. What always holds: if the task that
asks is cancelled, its socket closes, and the porter's child sees that. How it fails: a Problem if the porter is gone or
takes no request for `SEND_S`; b"" if there was no answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Final, Protocol

from postroad.world.problem import Problem

SEND_S: Final = 30.0  # how long the porter may be busy
ANSWER_MAX: Final = 65_536
_AGAIN_S: Final = 0.02


class Porter(Protocol):
    """Delivers as another user (`deliver.porter`)."""

    async def ask(self, request: bytes, content: int) -> bytes | Problem:
        """Hand over a request with a descriptor of its content; the answer, b"" for none."""
        ...


class SystemPorter:
    """`sock`: the socket that all workers share; it does not block."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def ask(self, request: bytes, content: int) -> bytes | Problem:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.closing(ours):
            ours.setblocking(False)
            with contextlib.closing(theirs):
                problem = await self._send(request, (theirs.fileno(), content))
            return problem if problem is not None else await _received(ours)

    async def _send(self, request: bytes, descriptors: tuple[int, int]) -> Problem | None:
        loop = asyncio.get_running_loop()
        until = loop.time() + SEND_S
        while True:
            try:
                socket.send_fds(self._sock, [request], descriptors)
            except BlockingIOError:
                if loop.time() > until:
                    return Problem("the process that delivers as other users", "is too busy", "")
                await asyncio.sleep(_AGAIN_S)
            except OSError as error:
                return Problem(
                    "the process that delivers as other users", f"is gone ({error.strerror})", "Restart the node."
                )
            else:
                return None


async def _received(sock: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()

    def arrived() -> None:
        if not readable.done():
            readable.set_result(None)

    loop.add_reader(sock.fileno(), arrived)
    try:
        await readable
    finally:
        loop.remove_reader(sock.fileno())
    try:
        return sock.recv(ANSWER_MAX)
    except OSError:
        return b""
