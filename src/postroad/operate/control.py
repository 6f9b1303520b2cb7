"""The client of the control socket, by which a command reaches a running node; the server is `node.control`.

Requests and answers are those of `operate.requests`, one JSON object in a line each way. Each connection begins with
`ControlHello`, so that a node of another version is found out before anything is asked of it.

How it fails: `NotRunning` if nobody serves the socket; `NodeRefused` if the node says no, does not answer in time, or
is of another version.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from postroad import __version__
from postroad.operate.operator import OperatorRequest, OperatorResult
from postroad.operate.requests import (
    VERSION,
    ControlHello,
    ControlReply,
    Greeting,
    OperateRequest,
    Paced,
    PaceRequest,
    Request,
    RouteQuestion,
    RoutesRequest,
    encode,
)

REPLY_MAX: Final = 268_435_456  # octets of a reply that are read
_OLDER: Final = "unknown command 'hello'"  # what a node says that knows no ControlHello


class NotRunning(Exception):
    """There is no node that serves the socket."""


class NodeRefused(Exception):
    """The node said no; the text says why."""


_Result = TypeVar("_Result")


def control_path(state_dir: Path) -> Path:
    """Where the socket of a node is."""
    return state_dir / "run" / "control"


def operate(state_dir: Path, request: OperatorRequest, timeout_s: float = 600.0) -> list[OperatorResult]:
    """Has the running node do it. Raises NotRunning, NodeRefused."""
    return ask(state_dir, OperateRequest(request), list[OperatorResult], timeout_s)


def pace(state_dir: Path, destinations: Sequence[str], timeout_s: float = 5.0) -> dict[str, Paced]:
    """By destination; none of those that the node has nothing to do with now. Raises NotRunning, NodeRefused."""
    found = ask(state_dir, PaceRequest(tuple(destinations)), list[Paced], timeout_s)
    return {each.destination: each for each in found}


def routes(state_dir: Path, questions: Sequence[RouteQuestion], timeout_s: float = 5.0) -> dict[str, str]:
    """Where this mail would go by the settings that the node has, by the keys of the questions. Raises NotRunning,
    NodeRefused."""
    return ask(state_dir, RoutesRequest(asked=tuple(questions)), dict[str, str], timeout_s)


def is_running(state_dir: Path) -> bool:
    """Whether a node serves the socket."""
    try:
        with _connected(state_dir, 2.0):
            return True
    except NotRunning:
        return False
    except NodeRefused:
        return True  # someone is there whom we may not ask


def ask(state_dir: Path, request: Request, result: type[_Result], timeout_s: float) -> _Result:
    """The result of one request, which is of this type (`operate.requests` says which one belongs to which request).
    Raises NotRunning, NodeRefused."""
    with _connected(state_dir, timeout_s) as connection:
        try:
            _greet(connection)
            found = _asked(connection, request)
        except OSError as error:
            raise NodeRefused(f"the node did not answer: {error}") from error
    return _read(found, result)


def _greet(connection: socket.socket) -> None:
    """Find out whether the node speaks this version of the protocol."""
    try:
        _read(_asked(connection, ControlHello(VERSION, __version__)), Greeting)
    except NodeRefused as error:
        if _OLDER in str(error):
            text = f"the node runs a version of Postroad before {__version__}; restart the node after an upgrade"
            raise NodeRefused(text) from error
        raise


def _asked(connection: socket.socket, request: Request) -> msgspec.Raw:
    connection.sendall(encode(request))
    try:
        reply = msgspec.json.decode(_read_line(connection), type=ControlReply)
    except msgspec.DecodeError as error:
        raise NodeRefused("the node ended the connection without an answer") from error
    if not reply.ok:
        raise NodeRefused(reply.error)
    return reply.result


def _read(octets: msgspec.Raw, result: type[_Result]) -> _Result:
    try:
        return msgspec.json.decode(octets, type=result)
    except msgspec.DecodeError as error:
        raise NodeRefused(f"the node's answer cannot be read: {error}") from error


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
