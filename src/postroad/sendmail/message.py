"""Makes the message from standard input ready for the node.

The result has only CRLF line ends. A CR that ends no line becomes a space, as in Postfix (its
`cleanup_replace_stray_cr_lf`): cron jobs print such things. Lines of an mbox file on top ("From ada Mon …") are left
out.
"""

from __future__ import annotations

import posix

from postroad.sendmail.exits import DATAERR, IOERR, End

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

PIECE: Final = 262_144
_ADDRESSED: Final = (b"to:", b"cc:", b"bcc:", b"resent-to:", b"resent-cc:", b"resent-bcc:")


def read(descriptor: int, size_max: int, *, dots: bool, read: Callable[[int, int], bytes] = posix.read) -> bytes:
    """The whole message. `dots`: a line with only a dot is text, else it ends the message. Raises End."""
    octets = bytearray()
    while True:
        try:
            piece = read(descriptor, PIECE)
        except OSError as error:
            raise End(IOERR, f"the message cannot be read: {error.strerror}") from None
        before = len(octets)
        octets += piece
        if not dots:
            end = _dot(octets, max(0, before - 3))
            if end >= 0:
                del octets[end:]
                break
        if not piece:
            break
        if len(octets) > size_max:
            raise End(DATAERR, f"the message has more than {size_max} octets")
    return prepared(bytes(octets), size_max)


def _dot(octets: bytearray, start: int) -> int:
    """Where a line begins that is only a dot; -1 for none. `start`: nothing before it is looked at again."""
    for mark in (b".\n", b".\r\n"):
        if not start and octets.startswith(mark):
            return 0
        at = octets.find(b"\n" + mark, start)
        if at >= 0:
            return at + 1
    return -1


def prepared(octets: bytes, size_max: int) -> bytes:
    """The message with CRLF line ends."""
    octets = octets.replace(b"\r\n", b"\n").replace(b"\r", b" ")
    while octets.startswith((b"From ", b">From ")):
        octets = octets.partition(b"\n")[2]
    if octets and not octets.endswith(b"\n"):
        octets += b"\n"
    octets = octets.replace(b"\n", b"\r\n")
    if len(octets) > size_max:
        raise End(DATAERR, f"the message has more than {size_max} octets")
    return octets


def names_recipients(octets: bytes) -> bool:
    """Whether the header section may name a recipient. Who they are, the node reads."""
    for line in octets.split(b"\r\n\r\n", 1)[0].lower().split(b"\r\n"):
        name, colon, _ = line.partition(b":")
        if colon and name.rstrip() + b":" in _ADDRESSED:
            return True
    return False
