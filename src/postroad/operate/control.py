"""The client of the control socket, by which a command reaches a running node; the server is `node.control`.

One JSON object in a line each way. A request has "command" and, for ``operate``, "request" (`operate.operator`); the
reply has "ok" and either "result" or "error".

How it fails: `NotRunning` where nobody serves the socket, `NodeRefused` where the node says no or does not answer in
time.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from postroad.operate.operator import OperatorRequest, OperatorResult

REPLY_MAX: Final = 268_435_456  # octets of a reply that are read


class NotRunning(Exception):
    """There is no node that serves the socket."""


class NodeRefused(Exception):
    """The node said no; the text says why."""


class _Reply(msgspec.Struct):
    ok: bool
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""


def control_path(state_dir: Path) -> Path:
    """Where the socket of a node is."""
    return state_dir / "run" / "control"


def operate(state_dir: Path, request: OperatorRequest, timeout_s: float = 600.0) -> list[OperatorResult]:
    """Has the running node do it. Raises NotRunning, NodeRefused."""
    result = ask(state_dir, {"command": "operate", "request": request}, timeout_s)
    try:
        return msgspec.json.decode(result, type=list[OperatorResult])
    except msgspec.DecodeError as error:
        raise NodeRefused(f"the node's answer cannot be read: {error}") from error


class Doing(msgspec.Struct, frozen=True):
    """What is under way for a destination, in words; `message`: the queue id of what is carried, "" for an opening."""

    message: str
    what: str


class Paced(msgspec.Struct, frozen=True):
    """A destination at work, or left alone: its connections over the whole node, how many it may have now and at most,
    and what its mail waits for; `because`: why it is left alone; `domains`: of recipients in
    memory; `doing`: transactions and openings under way."""

    destination: str
    connections: int
    connections_now_max: int
    connections_max: int
    in_memory: int
    waits_for: str
    because: str = ""
    domains: tuple[str, ...] = ()
    doing: tuple[Doing, ...] = ()

    @property
    def under_way(self) -> str:
        """What is under way, in short."""
        if not self.doing:
            return ""
        more = f", and {len(self.doing) - 1} more" if len(self.doing) > 1 else ""
        return self.doing[0].what + more

    @property
    def in_full(self) -> str:
        """What its mail waits for, with the reason."""
        return f"{self.waits_for}: {self.because}" if self.because else self.waits_for


def pace(state_dir: Path, destinations: Sequence[str], timeout_s: float = 5.0) -> dict[str, Paced]:
    """By destination; none of those that the node has nothing to do with now. Raises NotRunning, NodeRefused."""
    result = ask(state_dir, {"command": "pace", "request": list(destinations)}, timeout_s)
    try:
        return {each.destination: each for each in msgspec.json.decode(result, type=list[Paced])}
    except msgspec.DecodeError as error:
        raise NodeRefused(f"the node's answer cannot be read: {error}") from error


def routes(state_dir: Path, addresses: Sequence[str], timeout_s: float = 5.0) -> dict[str, str]:
    """Where the mail for these addresses would go by the settings that the node has. Raises NotRunning, NodeRefused."""
    result = ask(state_dir, {"command": "routes", "request": list(addresses)}, timeout_s)
    try:
        return msgspec.json.decode(result, type=dict[str, str])
    except msgspec.DecodeError as error:
        raise NodeRefused(f"the node's answer cannot be read: {error}") from error


def is_running(state_dir: Path) -> bool:
    """Whether a node serves the socket."""
    try:
        with _connected(state_dir, 2.0):
            return True
    except NotRunning:
        return False
    except NodeRefused:
        return True  # someone is there whom we may not ask


def ask(state_dir: Path, request: dict[str, Any], timeout_s: float) -> msgspec.Raw:
    """The result of one request. Raises NotRunning, NodeRefused."""
    with _connected(state_dir, timeout_s) as connection:
        try:
            connection.sendall(msgspec.json.encode(request) + b"\n")
            line = _read_line(connection)
        except OSError as error:
            raise NodeRefused(f"the node did not answer: {error}") from error
    try:
        reply = msgspec.json.decode(line, type=_Reply)
    except msgspec.DecodeError as error:
        raise NodeRefused("the node ended the connection without an answer") from error
    if not reply.ok:
        raise NodeRefused(reply.error)
    return reply.result


@contextlib.contextmanager
def _connected(state_dir: Path, timeout_s: float) -> Iterator[socket.socket]:
    path = control_path(state_dir)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            raise NotRunning(str(path)) from error
        except PermissionError as error:
            from postroad.operate.view import who_may

            text = f"cannot reach the node at {path}: {error.strerror}. {who_may(path)}"
            raise NodeRefused(text) from error
        except OSError as error:
            raise NodeRefused(f"cannot reach the node at {path}: {error.strerror or error}") from error
        yield connection


def _read_line(connection: socket.socket) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while size < REPLY_MAX:
        piece = connection.recv(65_536)
        pieces.append(piece)
        size += len(piece)
        if not piece or piece.endswith(b"\n"):
            break
    return b"".join(pieces)
