"""Encodes bodies of parts in quoted-printable and base64, piece by piece (RFC 2045 §6.7, §6.8).

What always holds: lines have at most 76 characters; no line begins with two hyphens, so that none can be taken for a
delimiter; a piece may be cut anywhere. Memory: one piece and the line that it ends in.
"""

from __future__ import annotations

import binascii
import re
from typing import Final, Protocol

_LINE_MAX: Final = 76
_BASE64_LINE: Final = 57  # octets that make a full line
_TO_MEND: Final = re.compile(rb"(?m)^(?:--[^\r]*|[^\r]{77}(?=\r))")
_HIGH: Final = re.compile(rb"[\x80-\xff]")
_HIGH_OCTETS: Final = bytes(range(128, 256))


class Encoder(Protocol):
    """`piece` gives what can be written so far, `end` the rest."""

    def piece(self, octets: bytes) -> bytes: ...

    def end(self) -> bytes: ...


class QuotedPrintable:
    """For text whose line ends are all CRLF. A line must fit into memory."""

    def __init__(self) -> None:
        self._held: list[bytes] = []  # the beginning of a line

    def piece(self, octets: bytes) -> bytes:
        cut = octets.rfind(b"\n") + 1
        if not cut:
            self._held.append(octets)
            return b""
        whole = b"".join((*self._held, octets[:cut]))
        self._held = [octets[cut:]]
        return _quoted(whole)

    def end(self) -> bytes:
        rest = b"".join(self._held)
        self._held = []
        # The CRLF is for white space at the end, and for soft line breaks as SMTP wants them.
        return _quoted(rest + b"\r\n")[:-2] if rest else b""


def _quoted(lines: bytes) -> bytes:
    written = binascii.b2a_qp(lines, istext=True)
    if b"\n--" in written or written.startswith(b"--") or b"=20\r" in written or b"=09\r" in written:
        # White space at the end of a line may have made it one character too long.
        written = _TO_MEND.sub(_mended, written)
    return written


def _mended(found: re.Match[bytes]) -> bytes:
    """A line whose first hyphen is encoded, divided if it is too long."""
    line = found.group()
    line = b"=2D" + line[1:] if line.startswith(b"-") else line
    if len(line) <= _LINE_MAX:
        return line
    cut = _LINE_MAX // 2
    mark = line.rfind(b"=", cut - 2, cut)
    if mark >= 0:
        cut = mark  # within an encoded octet
    rest = line[cut:]
    return line[:cut] + b"=\r\n" + (b"=2D" + rest[1:] if rest.startswith(b"-") else rest)


class Base64:
    """For any octets."""

    def __init__(self) -> None:
        self._held = b""

    def piece(self, octets: bytes) -> bytes:
        octets = self._held + octets
        cut = len(octets) - len(octets) % _BASE64_LINE
        self._held = octets[cut:]
        return _folded(octets[:cut]) + b"\r\n" if cut else b""

    def end(self) -> bytes:
        rest, self._held = self._held, b""
        return _folded(rest) + b"\r\n" if rest else b""


def _folded(octets: bytes) -> bytes:
    text = binascii.b2a_base64(octets, newline=False)
    return b"\r\n".join([text[at : at + _LINE_MAX] for at in range(0, len(text), _LINE_MAX)])


class MendedQuotedPrintable:
    """What calls itself quoted-printable and holds octets above ASCII: those alone are encoded."""

    def piece(self, octets: bytes) -> bytes:
        return octets if octets.isascii() else _HIGH.sub(_encoded, octets)

    def end(self) -> bytes:
        return b""


def _encoded(found: re.Match[bytes]) -> bytes:
    return b"=%02X" % found.group()[0]


class MendedBase64:
    """What calls itself base64 and holds octets above ASCII, which a reader must ignore (RFC 2045 §6.8)."""

    def piece(self, octets: bytes) -> bytes:
        return octets.translate(None, _HIGH_OCTETS)

    def end(self) -> bytes:
        return b""
