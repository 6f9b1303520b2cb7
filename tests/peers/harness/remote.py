"""A remote server whose answers a test decides: it defers, refuses, drops, stalls; it notes every transaction.

A rule sees each command and gives the reply to send, DROP to break the connection, or None for the plain answer. It
runs on a thread of its own for each connection; a test reads `transactions` when it has waited for what it expects.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.peers.harness import ports
from tests.peers.harness.process import PATIENCE_S, until

DROP: Final = "drop"
"""As a reply: the connection is closed at once, without a word."""

Rule = Callable[["Dialog", str, str], str | None]
"""(dialog, verb, argument) → reply. The end of content is the verb ``.``; the greeting the verb ``CONNECT``."""

EXTENSIONS: Final = ("PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN", "SIZE 0")


@dataclass(frozen=True)
class Transaction:
    """One message that was taken: the arguments of MAIL and RCPT as they came, the content with its dots unstuffed."""

    mail: str
    rcpt: tuple[str, ...]
    content: bytes
    tls: bool
    identity: str


@dataclass
class Dialog:
    """One connection. `lines` are all commands that came."""

    number: int
    hello: str = ""
    tls: bool = False
    identity: str = ""
    mail: str = ""
    rcpt: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


class Remote:
    """The server, on `address`:`port`. `counts` says how often each verb has come, over all connections."""

    def __init__(
        self, rule: Rule | None = None, *, address: str = "127.0.0.1", port: int = 0,
        extensions: Sequence[str] = EXTENSIONS, context: ssl.SSLContext | None = None, lmtp: bool = False,
    ) -> None:
        self.rule = rule or (lambda dialog, verb, argument: None)
        self.address = address
        self.port = port or ports.port()
        self.extensions = list(extensions) + (["STARTTLS"] if context is not None else [])
        self.context = context
        self.lmtp = lmtp
        self.dialogs: list[Dialog] = []
        self.transactions: list[Transaction] = []
        self.counts: dict[str, int] = {}
        self._lock = threading.Lock()
        self._server: socketserver.ThreadingTCPServer | None = None

    def start(self) -> None:
        remote = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError, ssl.SSLError):
                    _Conversation(remote, self.request).run()

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 128

        self._server = Server((self.address, self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def wait(self, count: int = 1, within_s: float = PATIENCE_S) -> list[Transaction]:
        """Waits until `count` messages were taken."""
        until(lambda: len(self.transactions) >= count, f"{count} messages at the remote", within_s=within_s)
        return list(self.transactions)

    def wait_for(self, chosen: Callable[[Transaction], bool], within_s: float = PATIENCE_S) -> Transaction:
        """Waits for a message of which `chosen` is true."""
        def found() -> Transaction | None:
            return next(filter(chosen, self.transactions), None)

        transaction = until(found, "the message at the remote", within_s=within_s)
        assert isinstance(transaction, Transaction)
        return transaction

    def opened(self) -> Dialog:
        with self._lock:
            dialog = Dialog(len(self.dialogs) + 1)
            self.dialogs.append(dialog)
            return dialog

    def came(self, dialog: Dialog, verb: str, argument: str) -> str | None:
        with self._lock:
            self.counts[verb] = self.counts.get(verb, 0) + 1
        return self.rule(dialog, verb, argument)

    def __enter__(self) -> Remote:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Dropped(OSError):
    pass


class _Conversation:
    """One connection's dialog."""

    def __init__(self, remote: Remote, connection: socket.socket) -> None:
        self._remote = remote
        self._socket = connection
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._dialog = remote.opened()
        self._buffer = b""

    def run(self) -> None:
        self._say(self._remote.came(self._dialog, "CONNECT", "") or "220 remote.test ESMTP")
        while True:
            line = self._line()
            if line is None:
                return
            self._dialog.lines.append(line)
            verb, _, argument = line.partition(" ")
            if not self._answer(verb.upper(), argument):
                return

    def _answer(self, verb: str, argument: str) -> bool:
        """Whether the connection goes on."""
        reply = self._remote.came(self._dialog, verb, argument) or self._plain(verb, argument)
        good = reply[:1] in "23"
        match verb:
            case "MAIL" if good:
                self._dialog.mail, self._dialog.rcpt = argument, []
            case "RCPT" if good:
                self._dialog.rcpt.append(argument)
            case "DATA" if reply.startswith("354"):
                self._say(reply)
                self._content(self._until_dot())
                return True
            case "BDAT" if good:
                return self._chunks(argument, reply)
            case "STARTTLS" if good:
                self._say(reply)
                assert self._remote.context is not None
                self._socket = self._remote.context.wrap_socket(self._socket, server_side=True)
                self._dialog.tls, self._buffer = True, b""
                return True
            case "AUTH" if good:
                self._dialog.identity = argument
        self._say(reply)
        return verb != "QUIT"

    def _plain(self, verb: str, argument: str) -> str:
        match verb:
            case "EHLO" | "LHLO":
                self._dialog.hello = argument
                offered = [word for word in self._remote.extensions if not (word == "STARTTLS" and self._dialog.tls)]
                return "\r\n".join(f"250-{word}" for word in ("remote.test", *offered[:-1])) + (
                    f"\r\n250 {offered[-1]}" if offered else "\r\n250 HELP")
            case "HELO" | "MAIL" | "RCPT" | "RSET" | "NOOP" | "BDAT":
                return "250 2.0.0 ok"
            case "DATA":
                return "354 go on" if self._dialog.rcpt else "503 5.5.1 no recipient"
            case "STARTTLS":
                return "220 2.0.0 go on"
            case "AUTH":
                return "235 2.7.0 welcome"
            case "QUIT":
                return "221 2.0.0 bye"
        return "500 5.5.2 unknown"

    def _content(self, content: bytes) -> None:
        """The end of content: one reply, or one per recipient over LMTP."""
        recipients = list(self._dialog.rcpt)
        taken = []
        for recipient in recipients if self._remote.lmtp else [""]:
            reply = self._remote.came(self._dialog, ".", recipient) or "250 2.0.0 taken"
            if reply.startswith("2"):
                taken += [recipient] if self._remote.lmtp else recipients
                self._note(content, taken if not self._remote.lmtp else [recipient])
            self._say(reply)

    def _note(self, content: bytes, recipients: Sequence[str]) -> None:
        dialog = self._dialog
        self._remote.transactions.append(
            Transaction(dialog.mail, tuple(recipients), content, dialog.tls, dialog.identity)
        )

    def _chunks(self, argument: str, reply: str) -> bool:
        """BDAT (RFC 3030 §2): chunks until the last one."""
        content = b""
        while True:
            size, _, last = argument.partition(" ")
            content += self._exactly(int(size))
            if last.upper() == "LAST":
                self._content(content)
                return True
            self._say(reply)
            line = self._line()
            if line is None:
                return False
            self._dialog.lines.append(line)
            verb, _, argument = line.partition(" ")
            if verb.upper() != "BDAT":
                return self._answer(verb.upper(), argument)

    def _line(self) -> str | None:
        while b"\r\n" not in self._buffer:
            octets = self._socket.recv(65536)
            if not octets:
                return None
            self._buffer += octets
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line.decode("utf-8", "backslashreplace")

    def _until_dot(self) -> bytes:
        content = bytearray(b"\r\n" + self._buffer)
        start = 0
        while (end := content.find(b"\r\n.\r\n", start)) < 0:
            start = max(0, len(content) - 4)
            octets = self._socket.recv(262_144)
            if not octets:
                raise _Dropped("closed within content")
            content += octets
        self._buffer = bytes(content[end + 5 :])
        return bytes(content[: end + 2]).replace(b"\r\n.", b"\r\n")[2:]

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            octets = self._socket.recv(262_144)
            if not octets:
                raise _Dropped("closed within a chunk")
            self._buffer += octets
        content, self._buffer = self._buffer[:size], self._buffer[size:]
        return content

    def _say(self, reply: str) -> None:
        if reply == DROP:
            # Without lingering: the peer sees a reset, as from a host that has died.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self._socket.close()
            raise _Dropped("as the rule says")
        self._socket.sendall(reply.encode() + b"\r\n")
