"""Hands a message to a running node: the client's side of `receive.submit`.

Each worker listens on a socket of its own, `STATE_DIR/run/submit-N`; the first that answers takes the message. How it
fails: `NotRunning` if no node listens, `Refused` with the SMTP code if the node says no (451 if it does not answer in
time, or ends meanwhile; then nobody knows whether it has taken the message).
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from postroad.operate.control import NotRunning
from postroad.receive.submit import Submit, Submitted, socket_path

LINE_MAX: Final = 65_536  # octets of an answer
CONNECT_S: Final = 10.0


class SubmitRefused(Exception):
    """The node said no. `code`: of the SMTP reply; `recipient`: whom it concerns, "" for the message as a whole."""

    def __init__(self, code: int, text: str, recipient: str = "") -> None:
        super().__init__(text)
        self.code, self.text, self.recipient = code, text, recipient


def submit(
    state_dir: Path, sender: str, recipients: Sequence[str], content: bytes, *, user: str, timeout_s: float,
    verp: str = "",
) -> str:
    """Hands the message over; the node's reply after its commit. `content`: with CRLF. `timeout_s`: for each wait.
    Raises NotRunning, SubmitRefused, PermissionError."""
    with _connected(state_dir, timeout_s) as connection:
        request = Submit(sender, tuple(recipients), len(content), user, verp)
        try:
            connection.sendall(msgspec.json.encode(request) + b"\n")
            answer = _answer(connection)
            if answer.go:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have said why
                    connection.sendall(content)
                answer = _answer(connection)
        except TimeoutError:
            raise SubmitRefused(451, "the node did not answer in time; look with `postroad trace`") from None
        except OSError as error:
            raise SubmitRefused(451, f"the node ended the connection ({error.strerror or error})") from error
    if answer.code != 250:
        raise SubmitRefused(answer.code, answer.text, answer.recipient)
    return answer.text


def _answer(connection: socket.socket) -> Submitted:
    line = b""
    while not line.endswith(b"\n") and len(line) < LINE_MAX:
        piece = connection.recv(LINE_MAX)
        if not piece:
            raise SubmitRefused(451, "the node ended the connection; `postroad trace` may know the message")
        line += piece
    try:
        return msgspec.json.decode(line, type=Submitted)
    except msgspec.DecodeError:
        raise SubmitRefused(451, "the node's answer cannot be read") from None


@contextlib.contextmanager
def _connected(state_dir: Path, timeout_s: float) -> Iterator[socket.socket]:
    first = socket_path(state_dir, 0)
    for path in sorted(first.parent.glob("submit-*")) or [first]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(CONNECT_S)
            try:
                connection.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
                continue
            connection.settimeout(timeout_s)
            yield connection
            return
    raise NotRunning(str(first))
