"""HTTP requests outward: one at a time per thread, bounded in time and size, never on the event loop.

Python's `http.client` on a small pool of threads. Redirections are not followed and no proxy is taken from the
environment: a URL in the settings means exactly that server. What always holds: an answer longer than `answer_max`
octets is an error; a server's certificate proves its name; the whole exchange ends after `timeout_s`, for the caller
and for its thread, even if the server drips its answer octet by octet.

How it fails: with a Problem that names the server; an `Unproved` if its certificate does not prove its name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Final

import msgspec

from postroad.world.http_link import HttpLink, place, tls_context
from postroad.world.problem import Problem

ANSWER_MAX: Final = 65_536
_URL_SHOWN_MAX: Final = 100  # characters


class HttpRequest(msgspec.Struct, frozen=True):
    """A request to `url` (http or https); `body` belongs to a POST. `addresses`: the IP addresses of its host, for
    https; none: the system resolves the name."""

    url: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    timeout_s: float = 10.0
    answer_max: int = ANSWER_MAX
    method: str = "POST"
    addresses: tuple[str, ...] = ()


class HttpResponse(msgspec.Struct, frozen=True):
    status: int
    body: bytes
    content_type: str = ""
    content_encoding: str = ""


Fetch = Callable[[HttpRequest], Awaitable[HttpResponse | Problem]]


def fetcher(executor: Executor, ca_file: str = "") -> Fetch:
    """A Fetch with these roots, "" for the system's. OSError and ssl.SSLError for a file that holds none."""
    context = tls_context(ca_file)

    async def fetch(request: HttpRequest) -> HttpResponse | Problem:
        loop = asyncio.get_running_loop()
        try:
            link = HttpLink(request.url, context, request.timeout_s, request.addresses)
        except ValueError as error:
            return Problem(request.url[:_URL_SHOWN_MAX], f"is no URL that can be asked: {error}")
        try:
            async with asyncio.timeout(request.timeout_s):
                return await loop.run_in_executor(executor, _exchange, link, request)
        except TimeoutError:
            return Problem(place(request.url), f"did not answer within {request.timeout_s:g} s")
        finally:
            link.give_up()

    return fetch


def _exchange(link: HttpLink, request: HttpRequest) -> HttpResponse | Problem:
    """One request and its answer, on a thread."""
    body = request.body or None
    answer = link.request(request.method, dict(request.headers), body, len(request.body), request.answer_max + 1)
    link.close()
    if isinstance(answer, Problem):
        return answer
    if len(answer.said) > request.answer_max:
        return Problem(place(request.url), f"answered with more than {request.answer_max} octets")
    if not answer.whole:
        return Problem(place(request.url), "closed the connection in the middle of its answer")
    return HttpResponse(answer.status, answer.said, answer.content_type, answer.content_encoding)
