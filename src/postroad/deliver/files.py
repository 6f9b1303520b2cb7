"""Writes content to a file descriptor with LF line ends, as Maildirs and programs on Unix want it.

BINARYMIME content is written octet for octet: its line ends are not ours to change (RFC 3030 §3). It blocks, so call it
on a thread. How it fails: OSError.
"""

from __future__ import annotations

from collections.abc import Iterable

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


def write_message(posix: Posix, handle: int, octets: Iterable[bytes], *, binary: bool) -> int:
    """The message, in pieces; how many octets were written. `binary`: as it is."""
    if binary:
        return sum(write(posix, handle, piece) for piece in octets)
    ends = LineEnds()
    written = 0
    for piece in octets:
        written += write(posix, handle, ends.piece(piece))
    return written + write(posix, handle, ends.end())


def write(posix: Posix, handle: int, octets: bytes) -> int:
    view = memoryview(octets)
    while view:
        view = view[posix.write(handle, view) :]
    return len(octets)
