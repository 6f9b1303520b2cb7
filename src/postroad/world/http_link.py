"""One kept HTTP/1.1 connection to one server, for requests whose body may be large. It blocks, so use it on a thread.

Python's `http.client`. Redirections are not followed and no proxy is taken from the environment: a URL in the settings
means exactly that server. What always holds: a server's certificate proves its name, by its DNS names and never by its
common name (RFC 9110 §4.3.4); an answer longer than `answer_max` octets is cut there; a request is sent once: a new
connection is opened only if the kept one was closed before the first octet was sent. `give_up`, called from another
thread, ends the present wait of the link.

How it fails: with a Problem that names the server. The connection is then closed.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec

from postroad.world.problem import Problem

_FIELDS: Final = ("Retry-After", "Content-Type", "Content-Encoding")
_CONNECTION_ERRORS: Final = (OSError, http.client.HTTPException, ValueError)


class HttpAnswer(msgspec.Struct, frozen=True):
    """`said`: the beginning of the body; `whole`: there was not more of it. `retry_after`, `content_type`,
    `content_encoding`: these fields, or ""."""

    status: int
    said: bytes = b""
    retry_after: str = ""
    content_type: str = ""
    content_encoding: str = ""
    whole: bool = True


class Unproved(Problem, frozen=True):
    """The server's certificate does not prove its name."""


def tls_context(ca_file: str = "") -> ssl.SSLContext:
    """What servers must prove; "" for the system's roots. OSError and ssl.SSLError for a file that holds none."""
    context = ssl.create_default_context(cafile=ca_file or None)
    context.hostname_checks_common_name = False  # RFC 9110 §4.3.4
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)  # who wraps a socket decides (`_HttpsConnection`)
    return context


class HttpLink:
    """`step_s`: how long each step of connecting, sending and reading may take. `addresses`: the IP addresses of the
    server, tried in this order; none: the system resolves its name."""

    def __init__(
        self, url: str, context: ssl.SSLContext, step_s: float, addresses: Sequence[str] = ()
    ) -> None:
        parts = urlsplit(url)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._place = place(url)
        self._given_up = False
        self._sock: socket.socket | None = None
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            self._connection = _HttpsConnection(parts.hostname or "", parts.port, step_s, context, addresses)
        else:
            self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=step_s)

    def request(
        self, method: str, headers: dict[str, str], body: Iterable[bytes] | bytes | None, length: int, answer_max: int
    ) -> HttpAnswer | Problem:
        """Send `length` octets of body. `headers`: all but Host and Content-Length."""
        if self._given_up:
            return Problem(self._place, "was not asked")
        try:
            self._connect()
            early = self._send(method, headers if body is None else {**headers, "Content-Length": str(length)}, body)
            answer = self._connection.getresponse()
            said = answer.read(answer_max)
            whole = not answer.length  # what Content-Length has promised, and was not read
            later, kind, encoding = (answer.getheader(name) or "" for name in _FIELDS)
            # An answer before the end of the request, or longer than we want to know: the connection is of no use.
            if early or (not answer.isclosed() and answer.read(1)):
                self.close()
        except _CONNECTION_ERRORS as error:
            self.close()
            unproved = isinstance(error, ssl.SSLCertVerificationError) and not self._given_up
            return (Unproved if unproved else Problem)(self._place, self._why(error))
        return HttpAnswer(answer.status, said, later, kind, encoding, whole)

    def _send(self, method: str, headers: dict[str, str], body: Iterable[bytes] | bytes | None) -> bool:
        """Whether the server has closed before it had it all: it may have answered."""
        try:
            self._connection.request(method, self._target, body, headers)
        except (BrokenPipeError, ConnectionResetError):
            return True
        return False

    def close(self) -> None:
        self._sock = None
        self._connection.close()

    def give_up(self) -> None:
        """From another thread, for good: nobody waits for an answer any more."""
        self._given_up = True
        sock = self._sock
        if sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not that of TLS, which the thread is at work with

    def _connect(self) -> None:
        sock = self._connection.sock
        if sock is not None and select.select([sock], [], [], 0)[0]:  # the server has closed it meanwhile
            self.close()
        if self._connection.sock is None:
            self._connection.connect()
        self._sock = self._connection.sock
        if self._given_up:
            raise TimeoutError("it took too long to connect")

    def _why(self, error: Exception) -> str:
        if self._given_up:
            return "did not answer in time"
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"its certificate does not prove its name: {error.verify_message}"
        if isinstance(error, TimeoutError):
            return "did not answer in time"
        return f"{type(error).__name__}: {error}"


class _HttpsConnection(http.client.HTTPSConnection):
    """`addresses`: see HttpLink. The certificate and SNI are those of the name all the same. An answer that ends with
    the connection must end with TLS's own word: who can cut connections could shorten it else."""

    def __init__(
        self, host: str, port: int | None, step_s: float, context: ssl.SSLContext, addresses: Sequence[str]
    ) -> None:
        super().__init__(host, port, timeout=step_s, context=context)
        self._tls, self._addresses = context, addresses

    def connect(self) -> None:
        if not self._addresses:
            super().connect()
            return
        sock = self._reached()
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock = self._tls.wrap_socket(sock, server_hostname=self.host, suppress_ragged_eofs=False)
        except BaseException:
            sock.close()
            raise

    def _reached(self) -> socket.socket:
        """Connected to the first address that takes it. Each of the others has its share of the time."""
        *others, last = self._addresses
        for address in others:
            with contextlib.suppress(OSError):
                sock = socket.create_connection((address, self.port), (self.timeout or 0) / len(self._addresses))
                sock.settimeout(self.timeout)
                return sock
        return socket.create_connection((last, self.port), self.timeout)


MakeLink = Callable[[str, ssl.SSLContext, float], HttpLink]
"""A new link, by its `url`, `context` and `step_s`."""


def place(url: str) -> str:
    """A URL without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
