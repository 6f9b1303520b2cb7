"""Large content on its way to a connection: piece by piece, read and dot-stuffed on a thread.

What always holds: one piece is asked for at a time; the loop neither reads a file nor looks through a piece. How it
fails: a Piece whose `broken` or `error` says why; the data must not be ended then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor

import msgspec

from postroad.mail.message import HEADER_MAX, Content, size
from postroad.protocol.stuffing import Stuffer
from postroad.protocol.transaction import Inspection, inspect
from postroad.store.content import head, pieces


class Piece(msgspec.Struct, frozen=True):
    """What to send next. `last`: the content ends with it. `broken`: a bare CR or LF. `error`: reading failed."""

    octets: bytes = b""
    last: bool = False
    broken: bool = False
    error: str = ""


class Stream:
    """One content. `done` of `fetch` is called on the loop."""

    def __init__(
        self, content: Content, *, stuffed: bool, piece_size: int, pool: Executor, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._pieces: Iterator[bytes] = pieces(content, piece_size)
        self._left = size(content)  # octets that are still to be read
        self._stuffer = Stuffer() if stuffed else None
        self._pool = pool
        self._loop = loop

    def fetch(self, done: Callable[[Piece], None]) -> None:
        """Read the next piece."""
        self._loop.run_in_executor(self._pool, self._next).add_done_callback(lambda future: done(future.result()))

    def _next(self) -> Piece:
        """On a thread; never two at a time."""
        stuffer = self._stuffer
        try:
            octets = next(self._pieces, None)
        except OSError as error:
            return Piece(error=error.strerror or str(error))
        if stuffer is None:
            # With the last octet of a chunk the remote may answer: it is told at once that there are no more.
            self._left -= len(octets or b"")
            return Piece(octets or b"", last=not self._left or octets is None)
        if octets is None:
            end = stuffer.end()
            return Piece(broken=True) if end is None else Piece(end, last=True)
        sent = stuffer.piece(octets)
        return Piece(broken=True) if stuffer.broken else Piece(sent)


def look_through(
    content: Content, pool: Executor, loop: asyncio.AbstractEventLoop, done: Callable[[Inspection | str], None]
) -> None:
    """Inspect content that is not in memory, on a thread; a text where it could not be read."""
    loop.run_in_executor(pool, _inspect, content).add_done_callback(lambda future: done(future.result()))


def _inspect(content: Content) -> Inspection | str:
    try:
        return inspect(head(content, HEADER_MAX), ascii=all(piece.isascii() for piece in pieces(content)))
    except OSError as error:
        return error.strerror or str(error)
