"""The same transcripts over a real TCP socket: a client here, the server machine with its host on a thread.

The host reads what the kernel gives it, so octets arrive cut and joined as they do in life; the handshake behind
STARTTLS is a real one.
"""

from __future__ import annotations

import socket
import ssl
import threading

import msgspec

from postroad.protocol.state import State
from tests.dialogs.playing import Player, Transcript, steps

_PATIENCE_S = 20.0


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
                with socket.create_connection(listener.getsockname(), _PATIENCE_S) as client:
                    self._talk(client)
            finally:
                thread.join(_PATIENCE_S)
            if self._fault is not None:
                raise self._fault

    def _talk(self, client: socket.socket) -> None:
        lines = client.makefile("rb")
        for kind, what in steps(self.transcript):
            if kind == "C":
                assert isinstance(what, bytes)
                client.sendall(what)
            elif kind == "S":
                assert lines.readline().decode() == f"{what}\r\n"
            elif kind == "T":
                trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
                client = trusting.wrap_socket(client)
                lines = client.makefile("rb")
        if not isinstance(client, ssl.SSLSocket):
            # Nothing was said beyond the transcript; the host ends when it has read all.
            client.shutdown(socket.SHUT_WR)
            assert lines.read() == b""
        lines.close()
        client.close()

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
            if self.machine.state is State.TLS:
                self._connection = self._context.wrap_socket(self._connection, server_side=True)
                self.machine.tls_started(msgspec.structs.replace(self.transcript.offer, tls=True))
        self._connection.close()

    def _take(self) -> None:
        """What the machine has said goes out, instead of being compared here."""
        octets = self.machine.take_output()
        if octets:
            self._connection.sendall(octets)
            self.given += sum(line[3:4] != b"-" for line in octets.split(b"\r\n")[:-1])
