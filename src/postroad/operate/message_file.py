"""A message from a file, read once in pieces: its header section, then its body. For commands that look into a message.

What always holds: lines are handed out with CRLF. A file whose first line ends with LF alone is read as one that has
LF for CRLF, and a note says so: it was most likely saved so. In any other file nothing is changed, since each octet may
count. Not more than the header section (`HEADER_MAX`) and one piece are in memory.

How it fails: UnfitFileError, which says what is wrong with the file; errors of reading as they come.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from postroad.mail.message import HEADER_MAX, header_end, header_is_whole, mbox_end
from postroad.trust.dkim_head import body_start

SIZE_MAX: Final = 1_073_741_824  # octets of a file
PIECE: Final = 65_536
_LONE_LF: Final = re.compile(rb"(?<!\r)\n")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class UnfitFileError(Exception):
    """The file holds no message that can be looked at."""


class MessageFile:
    """`section`: the header section, each line with CRLF. `notes`: what is odd about the file; whole when `body` has
    ended."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        """`read`: as of a file in binary mode."""
        self._read = read
        self._size = 0
        self._lf_only = False
        self._lone_lfs = 0
        self.notes: list[str] = []
        self._pieces = self._with_crlf()
        self.section, self._rest = self._begun()

    def body(self) -> Iterator[bytes]:
        """The body in pieces; once."""
        yield self._rest
        self._rest = b""
        yield from self._pieces
        if self._lone_lfs and not self._lf_only:
            self.notes.append(
                f"{self._lone_lfs} lines end with LF alone, others with CRLF. They were taken as they are; "
                "servers on the way may have changed them."
            )

    def _begun(self) -> tuple[bytes, bytes]:
        """The header section, and what was read of the body."""
        first = b""
        for piece in self._pieces:
            first += piece
            if len(first) > HEADER_MAX or header_is_whole(first):
                break
        if not first:
            raise UnfitFileError("it is empty")
        if first.startswith(_BYTE_ORDER_MARK):
            raise UnfitFileError("it begins with a byte order mark, which an editor has put there: save it without")
        top = mbox_end(first)
        if top:
            self.notes.append("The line of an mbox file on top (From …) was left out.")
        lines = first[top:]
        end = header_end(lines)
        if not end:
            raise UnfitFileError("it does not begin with a header field, so it is no message")
        if end > HEADER_MAX:
            raise UnfitFileError(f"its header section has more than {HEADER_MAX} octets")
        start = body_start(lines)
        if start == end < len(lines):
            number = lines.count(b"\r\n", 0, end) + 1
            self.notes.append(f"Line {number} is neither a header field nor empty: the body begins with it.")
        return lines[:end], lines[start:]

    def _with_crlf(self) -> Iterator[bytes]:
        behind_cr = False
        for number, piece in enumerate(self._limited()):
            if not number:
                first = piece.find(b"\n")
                self._lf_only = first >= 0 and piece[first - 1 : first] != b"\r"
                if self._lf_only:
                    self.notes.append("The file has LF at the end of lines. It was read as if they were CRLF.")
            joined = 1 if behind_cr and piece.startswith(b"\n") else 0  # a CRLF that was cut
            behind_cr = piece.endswith(b"\r")
            if self._lf_only:
                yield piece[:joined] + _LONE_LF.sub(b"\r\n", piece[joined:])
            else:
                self._lone_lfs += piece.count(b"\n") - piece.count(b"\r\n") - joined
                yield piece

    def _limited(self) -> Iterator[bytes]:
        while piece := self._read(PIECE):
            self._size += len(piece)
            if self._size > SIZE_MAX:
                raise UnfitFileError(f"it has more than {SIZE_MAX} octets")
            yield piece
