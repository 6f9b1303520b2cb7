"""The dialog with the node over its Unix socket.

How it fails: `NodeAway` if nobody listens, if the node ends the connection without an answer, or if it answers that it
takes no mail now.
"""

from __future__ import annotations

import _socket
import errno

from postroad.sendmail import places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

PIECE: Final = 65_536
CONNECT_S: Final = 10.0
ANSWER_S: Final = 600.0  # how long an answer may take: the node commits, and asks maps before that
REPLY_MAX: Final = 1_048_576


class NodeAway(Exception):
    """The node cannot be reached, or takes nothing now. The text says why."""


class Forbidden(Exception):
    """The folder of the node cannot be used by this user."""


class NodeConnection:
    """A connection to the node. Raises NodeAway, and Forbidden if this user may not connect."""

    def __init__(self, folder: str) -> None:
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self._socket.settimeout(CONNECT_S)
        self._rest = b""
        try:
            self._socket.connect(f"{folder}/{places.SOCKET}")
        except OSError as error:
            self._socket.close()
            if error.errno in (errno.EACCES, errno.EPERM):
                raise Forbidden(f"{folder}: {error.strerror}") from None
            raise NodeAway("the node is not running") from None
        self._socket.settimeout(ANSWER_S)

    def send(self, octets: bytes) -> None:
        """Send all of it. If the node has answered and gone, its answer can be read all the same."""
        try:
            self._socket.sendall(octets)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                raise NodeAway(f"the node does not read: {error}") from None

    def reply(self) -> tuple[int, list[str]]:
        """The next reply: its code, and the text of its lines."""
        lines: list[str] = []
        while True:
            line = self._line()
            lines.append(line[4:])
            if line[3:4] != "-":
                return (int(line[:3]) if line[:3].isdigit() else 451), lines

    def _line(self) -> str:
        while b"\n" not in self._rest:
            if len(self._rest) > REPLY_MAX:
                raise NodeAway("the node's answer is too long")
            try:
                piece = self._socket.recv(PIECE)
            except OSError as error:
                raise NodeAway(f"the node did not answer: {error}") from None
            if not piece:
                raise NodeAway("the node ended the connection without an answer")
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return line.rstrip(b"\r").decode("utf-8", "replace")

    @property
    def descriptor(self) -> int:
        return self._socket.fileno()

    def end(self) -> None:
        """Nothing more is sent."""
        self._socket.shutdown(_socket.SHUT_WR)
