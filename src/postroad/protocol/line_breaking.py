"""Breaks lines that are too long for the next host, on their way out (RFC 5321 §4.5.3.1.6: 1,000 octets with CRLF).

A line is broken before a space or tab near its greatest length. Header fields are folded in this way (RFC 5322 §2.2.3),
so it changes nothing there. If there is none, CRLF and a space are put in, as Postfix does it. No character of UTF-8 is
divided. What always holds: lines that are not too long stay as they are; the work is linear; pieces may be cut
anywhere.
"""

from __future__ import annotations

from typing import Final

from postroad.mail.message import lines_fit

_NEAR: Final = 200  # octets in front of the greatest length in which white space is looked for
_HELD: Final = _NEAR + 1  # octets of an unfinished line that are not given yet


def broken(octets: bytes, line_max: int) -> bytes:
    """The whole content with no line of more than `line_max` octets, CRLF not counted."""
    breaker = Breaker(line_max)
    return breaker.piece(octets) + breaker.end()


class Breaker:
    """The same for content that comes in pieces."""

    __slots__ = ("_line", "_line_max", "_rest")

    def __init__(self, line_max: int) -> None:
        self._line_max = line_max
        self._line = 0  # octets of the line that the last piece left unfinished, as far as they were given
        self._rest = b""  # the last octets of it, which are not given yet: a break may come in front of them

    def piece(self, octets: bytes) -> bytes:
        """What to send for this piece, perhaps nothing."""
        octets = self._rest + octets
        cut = len(octets) - octets.endswith(b"\r")
        if not lines_fit(octets, self._line_max + 2, self._line):
            given, cut = self._broken(octets, cut)
        else:
            last = octets.rfind(b"\n") + 1
            cut = max(last, cut - _HELD)
            given = octets[:cut]
            self._line = cut - last + (0 if last else self._line)
        self._rest = octets[cut:]
        return given

    def end(self) -> bytes:
        """What is left at the end of the content."""
        rest, self._rest = self._rest, b""
        if not rest.endswith(b"\r"):
            return self._broken(rest + b"\r\n", len(rest) + 2)[0][:-2] if rest else b""
        return rest

    def _broken(self, octets: bytes, cut: int) -> tuple[bytes, int]:
        """The octets up to `cut` with their long lines broken, and how many of them that are."""
        lines = octets[:cut].split(b"\n")
        last = lines.pop()
        given: list[bytes] = []
        for line in lines:
            ended = line.endswith(b"\r")
            given.append(self._pieces(line[:-1] if ended else line, final=True)[0] + (b"\r\n" if ended else b"\n"))
            self._line = 0
        text, taken = self._pieces(last, final=False)
        given.append(text)
        return b"".join(given), cut - len(last) + taken

    def _pieces(self, line: bytes, *, final: bool) -> tuple[bytes, int]:
        """One line broken, as far as it is known, and how many octets of it were taken. `final`: it ends here."""
        parts: list[bytes] = []
        start, used = 0, self._line
        while len(line) - start > self._line_max - used:
            limit = start + self._line_max - used
            at = max(line.rfind(b" ", max(limit - _NEAR, start + 1), limit + 1),
                     line.rfind(b"\t", max(limit - _NEAR, start + 1), limit + 1))  # fmt: skip
            if at > start:
                parts += (line[start:at], b"\r\n")
                start, used = at, 0
                continue
            at = limit
            while at > start + 1 and limit - at < 3 and line[at] & 0xC0 == 0x80:
                at -= 1
            parts += (line[start:at], b"\r\n ")
            start, used = at, 1
        end = len(line)
        if not final:  # a break may still come in front of the last octets
            end = max(start, end - _HELD)
        parts.append(line[start:end])
        self._line = used + end - start
        return b"".join(parts), end
