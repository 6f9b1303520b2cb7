"""Content written to a file descriptor with LF line ends, as Maildirs and programs on Unix have it.

BINARYMIME content is written octet for octet: its line ends are not ours to change (RFC 3030 §3). Blocks: to be called
on a thread. Fails with OSError.
"""

from __future__ import annotations

from postroad.mail.envelope import Envelope
from postroad.mail.message import Content
from postroad.store.content import pieces
from postroad.world.files import Posix


class LineEnds:
    """CRLF → LF for content that comes in pieces."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""  # a CR whose LF may be in the next piece

    def piece(self, octets: bytes) -> bytes:
        octets = self._held + octets
        self._held = b""
        if octets.endswith(b"\r"):
            octets, self._held = octets[:-1], b"\r"
        return octets.replace(b"\r\n", b"\n")

    def end(self) -> bytes:
        held, self._held = self._held, b""
        return held


def write_message(
    posix: Posix, handle: int, prefix: bytes, envelope: Envelope, content: Content, *, binary: bool
) -> int:
    """`prefix` (header fields of this delivery, CRLF) and the message; how many octets were written."""
    if binary:
        return _write(posix, handle, prefix) + sum(_write(posix, handle, piece) for piece in pieces(envelope, content))
    ends = LineEnds()
    written = _write(posix, handle, ends.piece(prefix))
    for piece in pieces(envelope, content):
        written += _write(posix, handle, ends.piece(piece))
    return written + _write(posix, handle, ends.end())


def _write(posix: Posix, handle: int, octets: bytes) -> int:
    view = memoryview(octets)
    while view:
        view = view[posix.write(handle, view) :]
    return len(octets)
