"""LDAP as a map: a simple bind and searches (RFC 4511), with filters as text (RFC 4515). No library is needed for that.

    url = "ldaps://ldap.example.org/ou=people,dc=example,dc=org?mail,mailAlternateAddress?sub"
    query = "(&(objectClass=person)(mail=%s))"

What always holds: a key never changes the filter or the base: both are read once, and keys are put into their values;
messages of the server, entries of an answer and values have limits. Connections are kept (`maps.kept`).

How it fails: `maps.waiting`. If the server refuses the bind, is busy or unavailable, the map is Away. If the base does
not exist (or may not be seen), the map cannot answer; if a part of the key stands in the base, there is no such key.
Referrals are not followed.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import ssl
from collections.abc import Callable, Iterator, Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec

from postroad.maps.databases import read_password
from postroad.maps.kept import KeptConnections
from postroad.maps.sql import SqlStatement
from postroad.maps.waiting import Away
from postroad.world.problem import Problem

MESSAGE_MAX: Final = 16 * 1024 * 1024  # octets of one message of the server
ENTRIES_MAX: Final = 100_000  # of an answer
_BUFFER_MAX: Final = 1024 * 1024  # octets that are read ahead
_DEPTH_MAX: Final = 20  # filters within filters

_SCOPES: Final = {"base": 0, "one": 1, "sub": 2, "": 2}
_START_TLS: Final = b"1.3.6.1.4.1.1466.20037"
_AWAY: Final = frozenset((3, 51, 52))  # timeLimitExceeded, busy, unavailable
_NO_SUCH_OBJECT: Final = 32

_ATTRIBUTE: Final = re.compile(r"[A-Za-z0-9;.-]+")
_BASE: Final = re.compile(r"%([0-9A-Fa-f]{2})|%([sud1-9])|([^%]+)|(%)")
_SPECIAL: Final = re.compile(rb"[^A-Za-z0-9@._\x80-\xff-]")  # in a distinguished name, or perhaps
_ESCAPE: Final = re.compile(r"\\([0-9A-Fa-f]{2})|%([sud1-9%])|([^\\%]+)|([\\%])")


# ---- BER (X.690), as much of it as RFC 4511 §5.1 needs --------------------------------------------------------------


def tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def integer(value: int, tag: int = 2) -> bytes:
    return tlv(tag, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def elements(octets: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements that stand one after another. Raises ValueError."""
    at = 0
    while at < len(octets):
        tag, size, at = octets[at], *_size(octets, at + 1)
        if at + size > len(octets):
            raise ValueError("an element runs past the end")
        yield tag, octets[at : at + size]
        at += size


def _size(octets: bytes, at: int) -> tuple[int, int]:
    """The size of an element, and where its content begins."""
    if at >= len(octets):
        raise ValueError("an element has no length")
    first = octets[at]
    if first < 128:
        return first, at + 1
    count = first & 127
    if not 0 < count <= 4 or at + 1 + count > len(octets):
        raise ValueError("an element has a wrong length")
    return int.from_bytes(octets[at + 1 : at + 1 + count], "big"), at + 1 + count


# ---- filters --------------------------------------------------------------------------------------------------------

Encode = Callable[[Sequence[bytes]], bytes]
"""From the values of the placeholders, in their order, to octets."""


class LdapText(msgspec.Struct, frozen=True):
    """A filter or a base, read. `letters`: its placeholders in order."""

    encode: Encode
    letters: tuple[str, ...]


def read_filter(text: str, elsewhere: Sequence[str] = ()) -> LdapText | str:
    """A filter, or what is wrong with it. `elsewhere`: placeholders that stand in the base."""
    letters: list[str] = []
    try:
        encode, rest = _filter(text.strip(), letters, 0)
    except ValueError as error:
        return str(error)
    if rest:
        return f"{rest[:60]!r} stands after the filter"
    if not letters and not elsewhere:
        return "the filter has no placeholder for the key: %s, %u or %d"
    return LdapText(encode, tuple(letters))


def _filter(text: str, letters: list[str], depth: int) -> tuple[Encode, str]:
    if not text.startswith("(") or depth > _DEPTH_MAX:
        raise ValueError(f"{text[:60]!r} is not a filter in parentheses")
    kind = text[1:2]
    if kind in ("&", "|", "!"):
        inner: list[Encode] = []
        rest = text[2:].lstrip()
        while rest.startswith("("):
            encode, rest = _filter(rest, letters, depth + 1)
            inner.append(encode)
            rest = rest.lstrip()
        if not rest.startswith(")") or not inner or (kind == "!" and len(inner) != 1):
            raise ValueError(f"{text[:60]!r} is not a filter")
        tag = {"&": 0xA0, "|": 0xA1, "!": 0xA2}[kind]
        return (lambda values: tlv(tag, b"".join(each(values) for each in inner))), rest[1:]
    end = text.find(")")
    if end < 0:
        raise ValueError(f"{text[:60]!r} has no closing parenthesis")
    return _item(text[1:end], letters), text[end + 1 :]


def _item(text: str, letters: list[str]) -> Encode:
    name, equals, value = text.partition("=")
    tag = {">": 0xA5, "<": 0xA6, "~": 0xA8}.get(name[-1:], 0xA3)
    name = name[:-1] if tag != 0xA3 else name
    if not equals or not _ATTRIBUTE.fullmatch(name.strip()):
        raise ValueError(f"{text[:60]!r} is not a condition such as mail=%s")
    attribute = name.strip().encode()
    if value == "*" and tag == 0xA3:
        return lambda values: tlv(0x87, attribute)
    pieces = [_value(piece, letters) for piece in value.split("*")] if tag == 0xA3 else [_value(value, letters)]
    if len(pieces) == 1:
        return lambda values: tlv(tag, tlv(4, attribute) + tlv(4, pieces[0](values)))

    def substrings(values: Sequence[bytes]) -> bytes:
        parts = b""
        for place, piece in enumerate(pieces):
            octets = piece(values)
            if octets:
                parts += tlv(0x80 if place == 0 else 0x82 if place == len(pieces) - 1 else 0x81, octets)
        return tlv(0xA4, tlv(4, attribute) + tlv(0x30, parts))

    return substrings


def _value(text: str, letters: list[str]) -> Encode:
    """An assertion value with ``\\xx`` and placeholders."""
    parts: list[bytes | int] = []
    for found in _ESCAPE.finditer(text):
        if found[1]:
            parts.append(bytes.fromhex(found[1]))
        elif found[2] == "%":
            parts.append(b"%")
        elif found[2]:
            parts.append(len(letters))
            letters.append(found[2])
        elif found[3]:
            parts.append(found[3].encode())
        else:
            raise ValueError(f"{text[:60]!r} has a {found[4]} that means nothing")
    return lambda values: b"".join(values[part] if isinstance(part, int) else part for part in parts)


# ---- bases (RFC 4514) -----------------------------------------------------------------------------------------------


def read_base(text: str) -> LdapText | str:
    """The base of a search as it stands in a URL, with ``%XX`` and placeholders; or what is wrong with it."""
    letters: list[str] = []
    parts: list[bytes | int] = []
    for found in _BASE.finditer(text):
        if found[1]:
            parts.append(bytes.fromhex(found[1]))
        elif found[2]:
            parts.append(len(letters))
            letters.append(found[2])
        elif found[3]:
            parts.append(found[3].encode())
        else:
            return f"{text[:60]!r} has a % that means nothing (write %25)"

    def encode(values: Sequence[bytes]) -> bytes:
        return b"".join(_in_name(values[part]) if isinstance(part, int) else part for part in parts)

    return LdapText(encode, tuple(letters))


def _in_name(value: bytes) -> bytes:
    """A value of a distinguished name, whatever is in it."""
    return _SPECIAL.sub(lambda found: b"\\%02x" % found[0][0], value)


# ---- the client -----------------------------------------------------------------------------------------------------

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class LdapServer(msgspec.Struct, frozen=True):
    """Where to connect, and as whom. `tls`: None without."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    starttls: bool = False
    user: str = ""
    password: str = ""


class LdapSearch(msgspec.Struct, frozen=True):
    """What is searched for. `attributes`: those whose values are the answer. The placeholders of `base` come before
    those of `filter`."""

    base: LdapText
    scope: int
    attributes: tuple[str, ...]
    filter: LdapText

    def encode(self, values: Sequence[bytes]) -> bytes:
        """RFC 4511 §4.5.1."""
        count = len(self.base.letters)
        head = tlv(4, self.base.encode(values[:count])) + integer(self.scope, 10) + integer(0, 10)
        limits = integer(ENTRIES_MAX) + integer(0) + tlv(1, b"\0")
        attributes = tlv(0x30, b"".join(tlv(4, name.encode()) for name in self.attributes))
        return tlv(0x63, head + limits + self.filter.encode(values[count:]) + attributes)


class LdapDriver:
    """A search in a directory."""

    folds = True

    def __init__(self, server: LdapServer, search: LdapSearch) -> None:
        self._server = server
        self._search = search
        self._placeholders = SqlStatement("", search.base.letters + search.filter.letters)
        self._ids = itertools.count(1)
        self.connections: KeptConnections[Streams] = KeptConnections(self._connect, lambda streams: streams[1].close())

    async def fetch(self, key: str, part: bool) -> str | None:
        values = self._placeholders.arguments(key)
        if values is None:
            return None
        request = self._search.encode([value.encode() for value in values])
        return await self.connections.use(lambda streams: self._ask(streams, request))

    async def _connect(self) -> Streams:
        server = self._server
        streams = await asyncio.open_connection(
            server.host, server.port, ssl=None if server.starttls else server.tls, limit=_BUFFER_MAX
        )
        try:
            if server.starttls:
                tag, content = await self._exchange(streams, tlv(0x77, tlv(0x80, _START_TLS)))
                _succeeded(tag, 0x78, content, "STARTTLS")
                assert server.tls is not None
                await streams[1].start_tls(server.tls, server_hostname=server.host)
            if server.user:
                secret = tlv(0x80, server.password.encode())
                tag, content = await self._exchange(
                    streams, tlv(0x60, integer(3) + tlv(4, server.user.encode()) + secret)
                )
                _succeeded(tag, 0x61, content, "the bind")
        except BaseException:
            streams[1].close()
            raise
        return streams

    async def _ask(self, streams: Streams, request: bytes) -> str | None:
        found: list[str] = []
        number = self._send(streams, request)
        while True:
            tag, content = await _receive(streams, number)
            if tag == 0x64:
                found += _values(content, self._search.attributes)
            elif tag == 0x65:
                code, text = _result(content)
                if code in _AWAY:
                    raise Away(f"the server says {code} {text}")
                if code == _NO_SUCH_OBJECT and self._search.base.letters:
                    return None
                if code:
                    raise ValueError(f"the server says {code} {text}")
                return ",".join(dict.fromkeys(found)) or None

    async def _exchange(self, streams: Streams, request: bytes) -> tuple[int, bytes]:
        return await _receive(streams, self._send(streams, request))

    def _send(self, streams: Streams, request: bytes) -> int:
        number = next(self._ids) & 0x7FFFFFFF
        streams[1].write(tlv(0x30, integer(number) + request))
        return number

    def close(self) -> None:
        self.connections.close()


async def _receive(streams: Streams, number: int) -> tuple[int, bytes]:
    """The next answer to request `number`: its tag and content."""
    reader = streams[0]
    while True:
        head = await reader.readexactly(2)
        if head[0] != 0x30:
            raise Away("the server does not speak LDAP")
        size = head[1]
        if size >= 128:
            if size == 128 or size > 132:
                raise Away("the server does not speak LDAP")
            size = int.from_bytes(await reader.readexactly(size & 127), "big")
        if size > MESSAGE_MAX:
            raise ValueError(f"the server's answer has more than {MESSAGE_MAX:,} octets")
        try:
            (_, id), (tag, content), *_ = elements(await reader.readexactly(size))
        except ValueError as error:
            raise Away(f"the server's answer cannot be read: {error}") from error
        if int.from_bytes(id, "big") == number:
            return tag, content
        if tag == 0x78:  # RFC 4511 §4.4.1: it will close the connection
            raise Away("the server ends the connection")


def _result(content: bytes) -> tuple[int, str]:
    """The code and the message of an LDAPResult."""
    try:
        (_, code), _, (_, text), *_ = elements(content)
    except ValueError as error:
        raise Away(f"the server's answer cannot be read: {error}") from error
    return int.from_bytes(code, "big"), text.decode("utf-8", "backslashreplace")


def _succeeded(tag: int, expected: int, content: bytes, what: str) -> None:
    code, text = _result(content)
    if tag != expected or code:
        raise Away(f"the server refuses {what}: {code} {text}")


def _values(content: bytes, wanted: Sequence[str]) -> list[str]:
    """The values of the wanted attributes of an entry, in the order of these attributes."""
    names = [name.lower() for name in wanted]
    found: dict[str, list[str]] = {}
    try:
        _, (_, attributes), *_ = elements(content)
        for _, attribute in elements(attributes):
            (_, name), (_, values), *_ = elements(attribute)
            found[name.decode().lower()] = [value.decode() for _, value in elements(values)]
    except UnicodeDecodeError as error:
        raise ValueError(f"a value is not in UTF-8: {error}") from error
    except ValueError as error:
        raise Away(f"the server's answer cannot be read: {error}") from error
    return [value for name in names for value in found.get(name, ())]


# ---- making ---------------------------------------------------------------------------------------------------------


def ldap_driver(
    where: str, url: str, query: str, user: str, password_file: str, ca_file: str, *, starttls: bool
) -> LdapDriver | Problem:
    parts = urlsplit(url)
    if parts.scheme not in ("ldap", "ldaps") or not parts.hostname or parts.path in ("", "/"):
        remedy = "Write ldap://host/dc=example,dc=org?attribute?sub."
        return Problem(where, "url must be ldap:// or ldaps:// with a host and a base", remedy)
    if "@" in parts.netloc:
        return Problem(where, "url has a name before the host", "Write the name into user and password_file.")
    names, _, scope = parts.query.partition("?")
    attributes = tuple(filter(None, names.split(",")))
    if not attributes or scope not in _SCOPES:
        text = "url must name the attributes that are the answer, and base, one or sub"
        return Problem(where, text, "Write ldap://host/dc=example,dc=org?attribute?sub.")
    base = read_base(parts.path[1:])
    if isinstance(base, str):
        return Problem(where, f"url: {base}", "Write ldap://host/dc=example,dc=org?attribute?sub.")
    read = read_filter(query, base.letters)
    if isinstance(read, str):
        return Problem(where, f"query: {read}", "Write a filter such as (mail=%s).")
    password = read_password(password_file)
    if isinstance(password, Problem):
        return password
    if user and not password:  # RFC 4513 §5.1.2: such a bind succeeds, and proves nothing
        return Problem(where, "there is a user, but no password", "Add password_file.")
    tls: ssl.SSLContext | None = None
    if parts.scheme == "ldaps" or starttls:
        try:
            tls = ssl.create_default_context(cafile=ca_file or None)
        except OSError as error:
            return Problem(ca_file, f"holds no certificates ({error})", "Correct ca_file.")
    port = parts.port or (636 if parts.scheme == "ldaps" else 389)
    server = LdapServer(parts.hostname, port, tls, starttls and parts.scheme == "ldap", user, password)
    search = LdapSearch(base, _SCOPES[scope], attributes, read)
    return LdapDriver(server, search)
