"""One kept HTTP/1.1 connection to one server, for requests whose body may be large. It blocks, so use it on a thread.

Python's `http.client`. Redirections are not followed and no proxy is taken from the environment: a URL in the settings
means exactly that server. What always holds: a server's certificate proves its name; an answer longer than `answer_max`
octets is cut there; a request is sent once: a new connection is opened only if the kept one was closed before the first
octet was sent. `give_up`, called from another thread, ends the present wait of the link.

How it fails: with a Problem that names the server. The connection is then closed.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import urlsplit

import msgspec

from postroad.world.problem import Problem

_CONNECTION_ERRORS: Final = (OSError, http.client.HTTPException, ValueError)


class HttpAnswer(msgspec.Struct, frozen=True):
    """`said`: the beginning of the body. `retry_after`: that field, or ""."""

    status: int
    said: bytes = b""
    retry_after: str = ""


def tls_context(ca_file: str = "") -> ssl.SSLContext:
    """What servers must prove; "" for the system's roots. OSError and ssl.SSLError for a file that holds none."""
    return ssl.create_default_context(cafile=ca_file or None)


class HttpLink:
    """`step_s`: how long each step of connecting, sending and reading may take."""

    def __init__(self, url: str, context: ssl.SSLContext, step_s: float) -> None:
        parts = urlsplit(url)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._place = place(url)
        self._given_up = False
        self._sock: socket.socket | None = None
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            self._connection = http.client.HTTPSConnection(
                parts.hostname or "", parts.port, timeout=step_s, context=context
            )
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
            retry_after = answer.getheader("Retry-After") or ""
            # An answer before the end of the request, or longer than we want to know: the connection is of no use.
            if early or (not answer.isclosed() and answer.read(1)):
                self.close()
        except _CONNECTION_ERRORS as error:
            self.close()
            return Problem(self._place, self._why(error))
        return HttpAnswer(answer.status, said, retry_after)

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


MakeLink = Callable[[str, ssl.SSLContext, float], HttpLink]
"""A new link, by its `url`, `context` and `step_s`."""


def place(url: str) -> str:
    """A URL without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
