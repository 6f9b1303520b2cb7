"""A session of SMTP on standard input and output (`-bs`); the node speaks it, over its socket.

A caller may write all its commands at once, as scripts do, although the node has not offered this: they are passed on
one by one, each after the reply to the one before. Lines may end with LF or CRLF. The content after DATA, up to the
line with a dot, and the content after BDAT are passed on as they come.
"""

from __future__ import annotations

import posix
import select

from postroad.sendmail.node_socket import NodeAway, NodeConnection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

PIECE: Final = 65_536
LINE_MAX: Final = 1_048_576  # octets of a command; the node says what it thinks of much shorter ones


class StandardSession:
    """`source`, `sink`: descriptors of the caller."""

    def __init__(self, connection: NodeConnection, source: int = 0, sink: int = 1) -> None:
        self._connection = connection
        self._source, self._sink = source, sink
        self._rest = b""
        self._has_ended = False

    def run(self) -> None:
        """Until one side ends. Raises OSError, NodeAway."""
        if not self._reply():
            return
        while True:
            line = self._line()
            if not line:
                return
            self._connection.send(line)
            if line[:5].upper() == b"BDAT ":
                self._pass_on(line[5:].split()[:1])
            code = self._reply()
            if code == 354:
                self._content()
                code = self._reply()
            if not code or code == 421 or line[:4].upper() == b"QUIT":
                return

    def _reply(self) -> int:
        """Copy a reply to the caller; its code, 0 if the node has ended the session."""
        try:
            code, lines = self._connection.reply()
        except NodeAway:
            return 0
        last = len(lines) - 1
        for at, line in enumerate(lines):
            self._say(f"{code}{' ' if at == last else '-'}{line}\r\n".encode())
        return code

    def _say(self, octets: bytes) -> None:
        while octets:
            octets = octets[posix.write(self._sink, octets) :]

    def _content(self) -> None:
        """Up to the line that is only a dot."""
        while True:
            line = self._line()
            if not line:  # the caller is gone: what the node has is no whole message, and it drops it
                self._connection.end()
                return
            self._connection.send(line)
            if line == b".\r\n":
                return

    def _pass_on(self, size: list[bytes]) -> None:
        left = int(size[0]) if size and size[0].isdigit() else 0
        while left:
            if not self._rest and not self._more():
                self._connection.end()
                return
            piece, self._rest = self._rest[:left], self._rest[left:]
            left -= len(piece)
            self._connection.send(piece)

    def _line(self) -> bytes:
        """The caller's next line, with CRLF; b"" at the end of the input, or if the node has ended the session."""
        start = 0
        while (at := self._rest.find(b"\n", start)) < 0:
            start = len(self._rest)
            if start > LINE_MAX or not self._more():
                line, self._rest = self._rest, b""
                return line.rstrip(b"\r") + b"\r\n" if line else b""
        line, self._rest = self._rest[:at], self._rest[at + 1 :]
        return line.removesuffix(b"\r") + b"\r\n"

    def _more(self) -> bool:
        """Read from the caller; the node may say something unasked meanwhile, such as that it stops."""
        if self._has_ended:
            return False
        ready, _, _ = select.select([self._source, self._connection.descriptor], [], [])
        if self._source not in ready:
            self._reply()
            self._has_ended = True
            return False
        piece = posix.read(self._source, PIECE)
        self._rest += piece
        self._has_ended = not piece
        return bool(piece)
