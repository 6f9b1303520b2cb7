"""Stuffs the dots of content on its way out and adds the end of data (RFC 5321 §4.5.2, §4.1.1.4).

What always holds: no bare CR and no bare LF goes out. A server might read one as a line end, and the text after it as
commands (SMTP smuggling); so the result for content that holds one is None, and it must not be sent. Pieces may be cut
anywhere, between CR and LF and in front of a dot too.

Not here: BDAT, which sends octets as they are (RFC 3030 §2).
"""

from __future__ import annotations

from postroad.mail.message import only_crlf

END = b".\r\n"


def stuffed(content: bytes, *, seen: bool = False) -> tuple[bytes, bytes] | None:
    """The whole content ready to send, and its end; None if it holds a bare CR or LF. `seen`: it is known to hold
    none."""
    if not seen and not only_crlf(content):
        return None
    return _dots(content, at_line_start=True), _end(content)


def _dots(octets: bytes, *, at_line_start: bool) -> bytes:
    if b"." not in octets:  # found much faster, and most of a large message (Base64) has none
        return octets
    octets = octets.replace(b"\r\n.", b"\r\n..")  # the very same octets if there is none
    return b"." + octets if at_line_start and octets.startswith(b".") else octets


def _end(content: bytes) -> bytes:
    # RFC 5321 §4.1.1.4: the CRLF that ends the last line is the first of <CRLF>.<CRLF>
    return END if not content or content.endswith(b"\r\n") else b"\r\n" + END


class Stuffer:
    """The same for content that comes in pieces. `broken`: a bare CR or LF was met, the data must not be ended."""

    __slots__ = ("_at_line_start", "_held", "broken")

    def __init__(self) -> None:
        self._at_line_start = True
        self._held = b""  # a CR whose LF may be in the next piece
        self.broken = False

    def piece(self, octets: bytes) -> bytes:
        """What to send for this piece, perhaps nothing."""
        if self._held:
            octets, self._held = self._held + octets, b""
        if octets.endswith(b"\r"):
            octets, self._held = octets[:-1], b"\r"
        if not octets or self.broken:
            return b""
        if not only_crlf(octets):
            self.broken = True
            return b""
        sent = _dots(octets, at_line_start=self._at_line_start)
        self._at_line_start = octets.endswith(b"\r\n")
        return sent

    def end(self) -> bytes | None:
        """What ends the data; None if it must not be ended."""
        if self._held or self.broken:
            self.broken = True
            return None
        return END if self._at_line_start else b"\r\n" + END
