"""Content on its way to a connection: read, converted and dot-stuffed on a thread, large content piece by piece.

What always holds: one piece is asked for at a time; the loop neither reads a file nor looks through a piece. Content
that must be converted is read twice and is never in memory as a whole, unless it is small. How it fails: a Piece whose
`broken` or `error` says why; the data must not be ended then. An exception on a thread is a bug, and told the same way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from typing import Final, TypeVar

import msgspec

from postroad.mail.envelope import Envelope
from postroad.mail.message import Content, size
from postroad.protocol import seven_bit
from postroad.protocol.line_breaking import Breaker
from postroad.protocol.sending import ContentFacts
from postroad.protocol.seven_bit import ConversionTarget, Plan
from postroad.protocol.stuffing import Stuffer
from postroad.store.content import pieces

_LOG: Final = logging.getLogger(__name__)
_Made = TypeVar("_Made")


class Piece(msgspec.Struct, frozen=True):
    """What to send next. `last`: the content ends with it. `broken`: a bare CR or LF. `error`: reading failed."""

    octets: bytes = b""
    last: bool = False
    broken: bool = False
    error: str = ""


class ContentStream:
    """One content, converted as `plan` says, its lines broken at `line_max`, if that is not 0. `done` of `fetch` is
    called on the loop."""

    def __init__(
        self, envelope: Envelope, content: Content, *, stuffed: bool, piece_size: int, pool: Executor,
        loop: asyncio.AbstractEventLoop, plan: Plan | None = None, line_max: int = 0,
    ) -> None:
        self._pieces = as_it_leaves(envelope, content, piece_size, plan, line_max)
        self._left = size(envelope, content)  # octets that are still to be read
        self._stuffer = Stuffer() if stuffed else None
        self._pool = pool
        self._loop = loop

    def fetch(self, done: Callable[[Piece], None]) -> None:
        """Read the next piece."""

        def told(future: asyncio.Future[Piece]) -> None:
            found = _result(future)
            done(Piece(error=found) if isinstance(found, str) else found)

        self._loop.run_in_executor(self._pool, self._next).add_done_callback(told)

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


def as_it_leaves(
    envelope: Envelope, content: Content, piece_size: int, plan: Plan | None, line_max: int
) -> Iterator[bytes]:
    """A content piece by piece, converted and with its lines broken. It reads files."""
    read: Iterator[bytes] = pieces(envelope, content, piece_size)
    if plan is not None:
        read = _gathered(seven_bit.converted(read, plan), piece_size)
    return _broken(read, line_max) if line_max else read


def _broken(read: Iterable[bytes], line_max: int) -> Iterator[bytes]:
    breaker = Breaker(line_max)
    for octets in read:
        yield breaker.piece(octets)
    yield breaker.end()


def _gathered(small: Iterable[bytes], piece_size: int) -> Iterator[bytes]:
    """Pieces of about that size out of small ones."""
    held: list[bytes] = []
    length = 0
    for octets in small:
        held.append(octets)
        length += len(octets)
        if length >= piece_size:
            yield b"".join(held)
            held, length = [], 0
    if held:
        yield b"".join(held)


class Look(msgspec.Struct, frozen=True):
    """What for. `target`: to what the content must be converted, None if it need not. `binary`: it is BINARYMIME.
    `whole_max`: content up to this size is converted in memory."""

    target: ConversionTarget | None
    binary: bool
    whole_max: int


class Looked(msgspec.Struct, frozen=True):
    """What a look through a content gave. `plan`: how it is to be converted, None where it goes as it is; `size`:
    octets as it is to be sent; `octets`: those themselves, if they were converted and are few."""

    inspection: ContentFacts
    size: int
    plan: Plan | None = None
    octets: bytes | None = None


def look_through(
    envelope: Envelope, content: Content, what: Look, pool: Executor, loop: asyncio.AbstractEventLoop,
    done: Callable[[Looked | str], None],
) -> None:
    """Inspect content on a thread, and convert it if it must be; a text if it could not be read."""
    loop.run_in_executor(pool, _looked, envelope, content, what).add_done_callback(lambda future: done(_result(future)))


def _result(future: asyncio.Future[_Made]) -> _Made | str:
    """What a thread has made. An exception is a bug: it is logged, and its message waits, as if it were unreadable."""
    try:
        return future.result()
    except Exception as error:
        _LOG.exception("reading or converting content")
        return f"internal error: {type(error).__name__}"


def _looked(envelope: Envelope, content: Content, what: Look) -> Looked | str:
    try:
        if not what.binary and all(piece.isascii() for piece in pieces(envelope, content)):
            return Looked(ContentFacts(ascii=True, utf8_header=False), size(envelope, content))
        found = seven_bit.survey(pieces(envelope, content))
        plan = None if what.target is None else seven_bit.plan(found, what.target)
        if plan is None or isinstance(plan, str):
            return Looked(ContentFacts(found.ascii, found.high_header, None, plan or ""), size(envelope, content))
        inspection = ContentFacts(found.ascii, found.high_header, what.target)
        if size(envelope, content) <= what.whole_max:
            octets = b"".join(seven_bit.converted(pieces(envelope, content), plan))
            return Looked(inspection, len(octets), plan, octets)
        return Looked(inspection, sum(map(len, seven_bit.converted(pieces(envelope, content), plan))), plan)
    except OSError as error:
        return error.strerror or str(error)
