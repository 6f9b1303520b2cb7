"""What becomes of stray line ends and of long lines, as `limits.stray_line_ends` and `outbound.line_max` say it.

Written for the simulation alone, from the rule and as plainly as can be: it shares no mistake with the node. It has all
of a message at once, and knows nothing of pieces. Also here: content that puts both to the test.
"""

from __future__ import annotations

import random
import re

LINE_MAX = 998
_NEAR = 200
_STRAY = re.compile(rb"\r(?!\n)|(?<!\r)\n")

# What somebody else might take for the end of data, and what would then be a message of its own.
_LOOK_ALIKES = (
    b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\r\r\n.\r\n", b"\r\n.\r\r\n", b"\n\r.\r\n",
)  # fmt: skip
_SMUGGLED = (
    b"MAIL FROM:<ann@home.test>\r\nRCPT TO:<bob@home.test>\r\nDATA\r\nSubject: x\r\nMessage-ID: <smuggled@sender.test>"
    b"\r\n\r\nsmuggled"
)
_SALAD = (b"a", b"b", b" ", b".", b"\r", b"\n", b"\r\n", b"\r\n", b"\r\r\n", b"\r\n.", b"\n.")
_UNITS = (b"x", b".", b"word ", b"a\t", "ü".encode(), "€".encode(), b"x" * 700 + b" ", b"y" * 1100 + b" .")
# Around what a line may have, pieces of content that come and go (4,096), and what is held of a line (8,192).
_LENGTHS = (997, 998, 999, 1000, 1197, 1995, 1996, 1997, 4094, 4095, 4096, 4097, 8191, 8192, 8193, 9000, 20_000)


def strays(content: bytes) -> bool:
    """Whether there is a CR or LF that is no part of a CRLF."""
    return _STRAY.search(content) is not None


def repaired(content: bytes) -> bytes:
    """An LF becomes one CRLF, together with all CRs in front of it; a CR alone becomes a space."""
    *ended, last = content.split(b"\n")
    return b"\r\n".join(line.replace(b"\r", b" ") for line in (*(each.rstrip(b"\r") for each in ended), last))


def broken(content: bytes) -> bytes:
    """Without lines that are too long."""
    return b"\r\n".join(map(_broken_line, content.split(b"\r\n")))


def _broken_line(line: bytes) -> bytes:
    """In front of the last white space within the 200 octets before the limit; else behind the last whole character
    before it, and the rest has a space in front."""
    if len(line) <= LINE_MAX:
        return line
    places = [at for at in range(LINE_MAX - _NEAR, LINE_MAX + 1) if line[at : at + 1] in (b" ", b"\t")]
    if places:
        at = places[-1]
        return line[:at] + b"\r\n" + _broken_line(line[at:])
    at = LINE_MAX
    while 0x80 <= line[at] < 0xC0:
        at -= 1
    return line[:at] + b"\r\n" + _broken_line(b" " + line[at:])


def odd_body(chance: random.Random, *, bdat: bool) -> bytes:
    """A body with stray line ends, with long lines, or with both; by BDAT it may end anyhow."""
    tidy = chance.random() < 0.4
    parts: list[bytes] = []
    for _ in range(chance.choice((1, 2, 4, 6))):
        kind = chance.random()
        if kind < 0.3:
            parts += (chance.choice(_SALAD) for _ in range(chance.choice((10, 60))))
        elif kind < 0.5:  # the wire, and pieces, may end within the CRs
            parts += (b"\r" * chance.choice((2, 30, 20_000, 30_000)), chance.choice((b"\n", b"a", b"a", b"a")))
        elif kind < 0.65:
            parts += (b"look", chance.choice(_LOOK_ALIKES), _SMUGGLED, chance.choice(_LOOK_ALIKES))
        else:
            unit, length = chance.choice(_UNITS), chance.choice(_LENGTHS)
            parts += (b"\r\n", unit * (length // len(unit)), b"z" * (length % len(unit)), b"\r\n")
    parts.append(chance.choice((b"\r\n", b"\r", b"\n", b"end")) if bdat else b"\r\n")
    body = b"".join(parts)
    return repaired(body) if tidy else body


def odd_field(chance: random.Random) -> str:
    """A header field with a long line or none, in pure ASCII."""
    return "X-Odd: " + chance.choice(("x", "word ")) * chance.choice((1, 300, 1000, 2500)) + "\r\n"
