"""Hashes of a body as it arrives, in the forms that signatures ask for (RFC 6376 §3.4.3, §3.4.4, §3.7).

What always holds: pieces may be of any size, and where they are cut changes nothing. Equal forms are hashed once, each
canonicalization is made once. No part of the body is kept but a run of white space at its end, as a number. Work is per
piece, in C: nothing is done per line.

It cannot fail: whatever octets come have a canonical form. Only CRLF ends a line.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec

_CRLF: Final = b"\r\n"
_LINES_MAX: Final = 4_096  # empty lines that are hashed at a time
_PIECE_MAX: Final = 262_144  # octets that are made canonical at a time


class Canonicalization(enum.Enum):
    """What may change on the way without harm (RFC 6376 §3.4)."""

    SIMPLE = "simple"  # nothing
    RELAXED = "relaxed"  # white space, and the case of field names


class BodyForm(msgspec.Struct, frozen=True):
    """Of what a signature has the hash: of the canonical body, or of its first `length` octets. Always SHA-256, the
    only hash that RFC 8301 allows."""

    canonicalization: Canonicalization
    length: int | None = None


class BodyHash(msgspec.Struct, frozen=True):
    """`size`: octets of the whole canonical body, also where only a part is hashed."""

    digest: bytes
    size: int


class BodyHashes:
    """Takes a body in pieces, then tells its hash in each of the forms."""

    __slots__ = ("_streams",)

    def __init__(self, forms: Iterable[BodyForm]) -> None:
        self._streams: dict[Canonicalization, _Simple] = {}
        for form in forms:
            stream = self._streams.get(form.canonicalization)
            if stream is None:
                made = _Relaxed() if form.canonicalization is Canonicalization.RELAXED else _Simple()
                stream = self._streams[form.canonicalization] = made
            stream.wants(form.length)

    @property
    def wanted(self) -> bool:
        """Whether anybody asked for a hash."""
        return bool(self._streams)

    def feed(self, piece: bytes) -> None:
        """The next octets of the body."""
        for stream in self._streams.values():
            if len(piece) <= _PIECE_MAX:
                stream.feed(piece)
            else:
                for at in range(0, len(piece), _PIECE_MAX):
                    stream.feed(piece[at : at + _PIECE_MAX])

    def results(self) -> dict[BodyForm, BodyHash]:
        """Ends the body. To be called once, behind the last piece."""
        found = {}
        for canonicalization, stream in self._streams.items():
            stream.end()
            for length, digest in stream.digests().items():
                found[BodyForm(canonicalization, length)] = BodyHash(digest, stream.size)
        return found


class _Simple:
    """Empty lines at the end count for nothing; a body always ends with a CRLF (§3.4.3)."""

    __slots__ = ("_hashes", "_held", "_lines", "size")

    def __init__(self) -> None:
        self.size = 0
        self._hashes: dict[int | None, hashlib._Hash] = {}
        self._held = b""  # what may be the first half of something
        self._lines = 0  # CRLFs that were not hashed, as nothing came behind them yet

    def wants(self, length: int | None) -> None:
        self._hashes[length] = hashlib.sha256()

    def feed(self, piece: bytes) -> None:
        octets = self._held + piece
        end = len(octets) - octets.endswith(b"\r")
        self._held = octets[end:]
        self._take(octets[:end])

    def end(self) -> None:
        if self._held:
            self._take(self._held)
        self._emit(_CRLF)

    def digests(self) -> dict[int | None, bytes]:
        return {length: made.digest() for length, made in self._hashes.items()}

    def _take(self, octets: bytes) -> None:
        """Octets that hold only whole CRLFs."""
        text = octets.rstrip(_CRLF)
        rest = octets[len(text) :]
        if rest == _CRLF:  # as at most ends of a piece
            lines = 1
        else:
            # A CR or an LF that stands alone is text, as is what stands before it. NUL stands for a CRLF meanwhile.
            marked = rest.replace(_CRLF, b"\0")
            alone = marked.rstrip(b"\0")
            lines = len(marked) - len(alone)
            text += alone.replace(b"\0", _CRLF)
        if text:
            self._emit_lines()
            self._emit(text)
        self._lines += lines

    def _emit_lines(self) -> None:
        while self._lines:
            some = min(self._lines, _LINES_MAX)
            self._emit(_CRLF * some)
            self._lines -= some

    def _emit(self, octets: bytes) -> None:
        for length, made in self._hashes.items():
            if length is None:
                made.update(octets)
            elif self.size < length:
                made.update(octets[: length - self.size])
        self.size += len(octets)


class _Relaxed(_Simple):
    """White space at the end of a line counts for nothing, any other run of it for one space. An empty body stays
    empty (§3.4.4)."""

    __slots__ = ()

    def feed(self, piece: bytes) -> None:
        octets = reduced(self._held + piece)
        end = len(octets) - octets.endswith(b"\r")
        end -= octets.endswith(b" ", 0, end)
        self._held = octets[end:]
        self._take(octets[:end])

    def end(self) -> None:
        if self._held and self._held != b" ":
            self._take(self._held)
        if self.size:
            self._emit(_CRLF)


def reduced(octets: bytes) -> bytes:
    """Each run of white space as one space, and none before a CRLF. Replacing is some fifteen times as fast as a
    regular expression; each turn halves the runs."""
    octets = octets.replace(b"\t", b" ")
    while b"  " in octets:
        octets = octets.replace(b"  ", b" ")
    return octets.replace(b" \r\n", _CRLF)
