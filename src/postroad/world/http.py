"""HTTP requests outward: one at a time per thread, bounded in time and size, never on the event loop.

Python's `http.client` on a small pool of threads. Redirections are not followed and no proxy is taken from the
environment: who sets a URL means that server. What always holds: an answer longer than `answer_max` octets is an error;
a server's certificate proves its name; the whole exchange ends after `timeout_s`, for the caller and for its thread,
even if the server drips its answer octet by octet.

How it fails: with a Problem that names the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import ssl
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Final
from urllib.parse import urlsplit

import msgspec

from postroad.world.problem import Problem

ANSWER_MAX: Final = 65_536


class HttpRequest(msgspec.Struct, frozen=True):
    """A request to `url` (http or https); `body` belongs to a POST."""

    url: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    timeout_s: float = 10.0
    answer_max: int = ANSWER_MAX
    method: str = "POST"


class HttpResponse(msgspec.Struct, frozen=True):
    status: int
    body: bytes


Fetch = Callable[[HttpRequest], Awaitable[HttpResponse | Problem]]


def fetcher(executor: Executor, ca_file: str = "") -> Fetch:
    """A Fetch with these roots, "" for the system's. OSError and ssl.SSLError for a file that holds none."""
    context = ssl.create_default_context(cafile=ca_file or None)

    async def fetch(request: HttpRequest) -> HttpResponse | Problem:
        loop, exchange = asyncio.get_running_loop(), _Exchange(request, context)
        try:
            async with asyncio.timeout(request.timeout_s):
                return await loop.run_in_executor(executor, exchange.run)
        except TimeoutError:
            return Problem(_place(request.url), f"did not answer within {request.timeout_s:g} s")
        finally:
            exchange.give_up()

    return fetch


class _Exchange:
    """One request and its answer, on a thread."""

    def __init__(self, request: HttpRequest, context: ssl.SSLContext) -> None:
        self._request = request
        self._context = context
        self._sock: socket.socket | None = None
        self._given_up = False

    def give_up(self) -> None:
        """From the loop: nobody waits for it any more. What the thread waits for ends at once."""
        self._given_up = True
        sock = self._sock
        if sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not that of TLS, which the thread is at work with

    def run(self) -> HttpResponse | Problem:
        request = self._request
        if self._given_up:  # its turn came too late
            return Problem(_place(request.url), "was not asked")
        parts = urlsplit(request.url)
        host = parts.hostname or ""
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(
                host, parts.port, timeout=request.timeout_s, context=self._context
            )
        else:
            connection = http.client.HTTPConnection(host, parts.port, timeout=request.timeout_s)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            connection.connect()
            self._sock = connection.sock
            if self._given_up:
                return Problem(_place(request.url), "was not asked")
            connection.request(request.method, path, request.body or None, dict(request.headers))
            answer = connection.getresponse()
            body = answer.read(request.answer_max + 1)
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Problem(_place(request.url), f"{type(error).__name__}: {error}")
        finally:
            self._sock = None
            connection.close()
        if len(body) > request.answer_max:
            return Problem(_place(request.url), f"answered with more than {request.answer_max} octets")
        return HttpResponse(answer.status, body)


def _place(url: str) -> str:
    """A URL without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
