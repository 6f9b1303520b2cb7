"""Services as maps: HTTP, and the two protocols that Postfix has for look-ups, socketmap and tcp.

socketmap_table(5): ``12:name key,`` is answered ``OK value``, ``NOTFOUND``, or ``TEMP``, ``TIMEOUT``, ``PERM`` with a
reason, all as netstrings. tcp_table(5): ``get key`` is answered ``200 value``, ``500`` (no such key) or ``400`` (not
now), with octets that are no text written ``%XX``. HTTP: GET of a URL with the key in it; 200 with the value as text,
404 if there is none.

How it fails: `maps.waiting`. PERM, and every HTTP status 4xx except 404, concern this key alone; after all other
failures the map is Away.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar
from urllib.parse import quote, urlsplit

from postroad.maps.databases import read_password
from postroad.maps.kept import KeptConnections
from postroad.maps.waiting import Away
from postroad.world.http import Fetch, HttpRequest, fetcher
from postroad.world.problem import Problem

VALUE_MAX: Final = 1024 * 1024  # octets of an answer
_LENGTH_MAX: Final = 7  # digits of the length of a netstring
_TOO_LONG: Final = f"the server's answer has more than {VALUE_MAX:,} octets"
_PLACE: Final = re.compile(r"(?:unix:(/.+)|(?:inet:)?(\[[^\]]+\]|[^:\[\]]+):([0-9]{1,5}))")

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class ServerDriver:
    """A server on a TCP port or a Unix socket, with connections that are kept."""

    folds = False

    def __init__(self, place: str) -> None:
        """`place`: ``unix:/path``, ``host:port`` or ``inet:host:port``."""
        found = _PLACE.fullmatch(place)
        if found is None:
            raise ValueError(f"{place!r} is neither unix:/path nor host:port")
        self._path, self._host, self._port = found[1] or "", (found[2] or "").strip("[]"), int(found[3] or 0)
        self.connections: KeptConnections[Streams] = KeptConnections(self._connect, lambda streams: streams[1].close())

    async def _connect(self) -> Streams:
        if self._path:
            return await asyncio.open_unix_connection(self._path, limit=VALUE_MAX)
        return await asyncio.open_connection(self._host, self._port, limit=VALUE_MAX)

    async def _answer(self, question: bytes, end: bytes) -> str:
        """What the server says to a question, to this end."""
        octets = await self.connections.use(lambda streams: _read_to(streams, question, end))
        return octets.decode("utf-8", "backslashreplace")

    def close(self) -> None:
        self.connections.close()


async def _read_to(streams: Streams, question: bytes, end: bytes) -> bytes:
    reader, writer = streams
    writer.write(question)
    try:
        return await reader.readuntil(end)
    except asyncio.LimitOverrunError as error:
        raise ValueError(_TOO_LONG) from error


S = TypeVar("S", bound=ServerDriver)


class SocketmapDriver(ServerDriver):
    """One map of a socketmap server."""

    def __init__(self, place: str, name: str) -> None:
        super().__init__(place)
        self._name = name

    async def fetch(self, key: str, part: bool) -> str | None:
        if part:  # Postfix does not look up parts in socketmaps either
            return None
        question = f"{self._name} {key}".encode()
        answer = await self.connections.use(lambda streams: _netstring(streams, question))
        status, _, rest = answer.partition(" ")
        match status:
            case "OK":
                return rest
            case "NOTFOUND":
                return None
            case "PERM":
                raise ValueError(f"the server says PERM {rest}")
            case _:
                raise Away(f"the server says {answer[:200]}")


async def _netstring(streams: Streams, question: bytes) -> str:
    digits = (await _read_to(streams, b"%d:%s," % (len(question), question), b":"))[:-1]
    if not digits.isdigit() or len(digits) > _LENGTH_MAX:
        raise Away("the server's answer is not a netstring")
    if int(digits) > VALUE_MAX:
        raise ValueError(_TOO_LONG)
    octets = await streams[0].readexactly(int(digits) + 1)
    if octets[-1:] != b",":
        raise Away("the server's answer is not a netstring")
    return octets[:-1].decode("utf-8", "backslashreplace")


class TcpDriver(ServerDriver):
    """A tcp_table server, such as postsrsd 1."""

    async def fetch(self, key: str, part: bool) -> str | None:
        if part:
            return None
        line = b"get %s\n" % quote(key, safe="!#$&'()*+,/:;=?@[]~{}|^`<>\"\\").encode()
        answer = (await self._answer(line, b"\n")).rstrip("\r\n")
        code, _, rest = answer.partition(" ")
        match code:
            case "200":
                return _unquoted(rest)
            case "500":
                return None
            case _:
                raise Away(f"the server says {answer[:200]}")


def _unquoted(text: str) -> str:
    octets = re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes([int(found[1], 16)]), text.encode())
    return octets.decode("utf-8", "backslashreplace")


class PolicyDriver(ServerDriver):
    """A server that speaks the protocol of check_policy_service: attributes, one in each line, and an empty line. It is
    asked as at RCPT. A key is the address of the recipient, with a space and the size of the message behind it if that
    is known. The value is the action, such as ``DUNNO`` or ``552 5.2.2 full``."""

    async def fetch(self, key: str, part: bool) -> str | None:
        address, _, size = key.partition(" ")
        if part or "@" not in address or not address.isprintable():
            return None
        attributes = {
            "request": "smtpd_access_policy", "protocol_state": "RCPT", "protocol_name": "ESMTP",
            "recipient": address, "size": size if size.isdigit() else "0",
        }  # fmt: skip
        question = "".join(f"{name}={value}\n" for name, value in attributes.items()).encode() + b"\n"
        return _action(await self._answer(question, b"\n\n"))


def _action(answer: str) -> str | None:
    for line in answer.splitlines():
        name, found, value = line.partition("=")
        if found and name.strip() == "action":
            return value.strip() or None
    raise Away("the server's answer has no action")


_OF_ALL_KEYS: Final = (401, 403, 407, 408, 429)  # answers that say nothing of the key: the next one fares no better


class HttpDriver:
    """A URL with ``{key}``."""

    folds = True

    def __init__(self, url: str, token: str, ca_file: str, threads: int, timeout_s: float) -> None:
        self._url = url
        self._headers = (("Authorization", f"Bearer {token}"),) if token else ()
        self._timeout_s = timeout_s
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="map")
        self._fetch: Fetch = fetcher(self._pool, ca_file)

    async def fetch(self, key: str, part: bool) -> str | None:
        url = self._url.replace("{key}", quote(key, safe=""))
        request = HttpRequest(url, b"", self._headers, self._timeout_s, VALUE_MAX, "GET")
        answer = await self._fetch(request)
        if isinstance(answer, Problem):
            raise Away(str(answer))
        if answer.status == 200:
            return answer.body.decode().strip() or None
        if answer.status == 404:
            return None
        text = f"{urlsplit(url).netloc} answers {answer.status}"
        raise ValueError(text) if 400 <= answer.status < 500 and answer.status not in _OF_ALL_KEYS else Away(text)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


# ---- making ---------------------------------------------------------------------------------------------------------


def socketmap_driver(where: str, url: str, table: str) -> SocketmapDriver | Problem:
    return _made(where, lambda: SocketmapDriver(url, table), 10001)


def tcp_driver(where: str, url: str) -> TcpDriver | Problem:
    return _made(where, lambda: TcpDriver(url), 10001)


def policy_driver(where: str, url: str) -> PolicyDriver | Problem:
    return _made(where, lambda: PolicyDriver(url), 12340)


def _made(where: str, make: Callable[[], S], port: int) -> S | Problem:
    """The driver, or what is wrong with its URL. `port`: that of an example."""
    try:
        return make()
    except ValueError as error:
        return Problem(where, f"url: {error}", f'Write "unix:/path" or "127.0.0.1:{port}".')


def http_driver(
    where: str, url: str, password_file: str, ca_file: str, threads: int, timeout_s: float
) -> HttpDriver | Problem:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or "{key}" not in url.partition(parts.netloc)[2]:
        remedy = "Write https://host/path/{key}."
        return Problem(where, "url must begin with https:// or http:// and have {key} after the host", remedy)
    token = read_password(password_file)
    if isinstance(token, Problem):
        return token
    try:
        return HttpDriver(url, token, ca_file, threads, timeout_s)
    except OSError as error:
        return Problem(ca_file, f"holds no certificates ({error})", "Correct ca_file.")
