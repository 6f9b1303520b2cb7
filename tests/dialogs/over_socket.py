"""The same transcripts over a real TCP socket: a client that plays one (`talk`), and the server machine behind a socket
with its host on a thread; with the whole receive stack in its place see `real_server`.

The server reads what the kernel gives it, so octets arrive cut and joined as they do in life; the handshake behind
STARTTLS is a real one.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from postroad.protocol.command import Quit, TooManyErrors
from postroad.protocol.state import State
from tests.dialogs.playing import Player, Transcript, steps, under_tls

_PATIENCE_S = 20.0

Check = Callable[[list[str]], None]  # looks at a reply that came, as its lines


def talk(transcript: Transcript, address: tuple[str, int], checks: Sequence[Check], *, implicit: bool = False) -> None:
    """Play the client of a transcript. `checks`: for each reply that it has. `implicit`: TLS from the first octet."""
    client = socket.create_connection(address, _PATIENCE_S)
    try:
        if implicit:
            client = _secured(client)
        client = _play(transcript, client, iter(checks))
    finally:
        client.close()


def _play(transcript: Transcript, client: socket.socket, checks: Iterator[Check]) -> socket.socket:
    lines = client.makefile("rb")
    for kind, what in steps(transcript):
        if kind == "C":
            assert isinstance(what, bytes)
            client.sendall(what)
        elif kind == "S":
            # A reply of the transcript ends where its last line does; the one that came may have more or less lines.
            if str(what)[3:4] != "-":
                next(checks)(_reply(lines))
        elif kind == "T":
            lines.close()
            client = _secured(client)
            lines = client.makefile("rb")
    _ended(client, lines)
    lines.close()
    return client


def _reply(lines: BinaryIO) -> list[str]:
    came: list[str] = []
    while not came or came[-1][3:4] == "-":
        line = lines.readline().decode()
        assert line.endswith("\r\n"), f"no whole line came: {line!r}"
        came.append(line.removesuffix("\r\n"))
    return came


def _ended(client: socket.socket, lines: BinaryIO) -> None:
    """Nothing was said beyond the transcript."""
    if isinstance(client, ssl.SSLSocket):  # which cannot close one way
        with contextlib.suppress(OSError):  # it may have ended with QUIT
            client.sendall(b"NOOP\r\n")
        last = lines.readline()
        assert last in (b"", b"250 2.0.0 Ok\r\n"), last
    else:
        client.shutdown(socket.SHUT_WR)
        last = lines.read()
        assert last == b"", last


def _secured(client: socket.socket) -> socket.socket:
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    return trusting.wrap_socket(client)


def _same(lines: list[str]) -> Check:
    def check(came: list[str]) -> None:
        assert came == lines, f"{came}, not {lines}"

    return check


class SocketPlayer(Player):
    """The server's side; `play` is the client's."""

    def __init__(self, transcript: Transcript, context: ssl.SSLContext) -> None:
        super().__init__(transcript, split=False)
        self._context = context
        self._connection: socket.socket
        self._fault: BaseException | None = None

    def play(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=self._serve, args=(listener,), daemon=True)
            thread.start()
            try:
                talk(self.transcript, listener.getsockname(), [_same(lines) for lines in self.transcript.replies])
            finally:
                thread.join(_PATIENCE_S)
            if self._fault is not None:
                raise self._fault

    # ---- on the thread

    def _serve(self, listener: socket.socket) -> None:
        try:
            listener.settimeout(_PATIENCE_S)
            self._connection, _ = listener.accept()
            self._connection.settimeout(_PATIENCE_S)
            with self._connection:
                self._converse()
        except BaseException as fault:
            self._fault = fault

    def _converse(self) -> None:
        self._work()
        while octets := self._connection.recv(65_536):
            self.machine.feed(octets)
            self._work()
            if isinstance(self.handed[-1], Quit | TooManyErrors):
                break
            if self.machine.state is State.TLS:
                self._connection = self._context.wrap_socket(self._connection, server_side=True)
                self.machine.tls_started(under_tls(self.transcript.offer))
        self._connection.close()

    def _take(self) -> None:
        """What the machine has said goes out, instead of being compared here."""
        octets = self.machine.take_output()
        if octets:
            self._connection.sendall(octets)
            self.given += sum(line[3:4] != b"-" for line in octets.split(b"\r\n")[:-1])
