"""The PROXY protocol, versions 1 and 2, as its receiver reads it: octets in, a Header or a BadProxyHeader out,
sans-I/O.

HAProxy, "The PROXY protocol, versions 1 & 2" (proxy-protocol.txt); its sections are cited as "PP §".

What always holds: `take` says how many of the octets belong to the header, and never takes one that comes after it: so
a caller that peeks at a socket can leave the rest to what follows (a TLS handshake, a greeting). Until the header is
complete, all octets belong to it. It is bounded: 107 octets for version 1, `size_max` for version 2. Texts that come
out hold no unprintable characters. How the stream was split changes nothing; nothing raises.

How it fails: with a BadProxyHeader, now and at each later call: the connection is to be closed (PP §2: "must not try to
guess").

Not here: who may send a header, time limits (`receive.proxied`).
"""

from __future__ import annotations

import enum
import ipaddress
import re
from functools import lru_cache
from typing import Final

import msgspec

V1_MAX: Final = 107  # PP §2.1: the longest line, with its CRLF
SIZE_MAX: Final = 4096
_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"  # PP §2.2
_FIXED: Final = 16  # octets of version 2 before the addresses
_TEXT_MAX: Final = 255
_UNIQUE_ID_MAX: Final = 128  # PP §2.2.5

# PP §2.1: "PROXY" SP ( "TCP4" / "TCP6" ) SP source SP destination SP port SP port CRLF,
# or "PROXY UNKNOWN" with anything behind it
_V1: Final = re.compile(
    rb"PROXY (TCP4|TCP6) ([0-9A-Fa-f:.]{2,45}) ([0-9A-Fa-f:.]{2,45}) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})"
)
_V1_UNKNOWN: Final = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?")

# PP §2.2: family and transport
_UNSPECIFIED, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_DATAGRAMS: Final = (0x12, 0x22, 0x32)
_LENGTHS: Final = {_UNSPECIFIED: 0, _TCP4: 12, _TCP6: 36, _UNIX: 216, 0x12: 12, 0x22: 36, 0x32: 216}


class _Kind(enum.IntEnum):
    """Types of TLVs (PP §2.2.1 to §2.2.8)."""

    ALPN = 0x01
    AUTHORITY = 0x02
    CRC32C = 0x03
    UNIQUE_ID = 0x05
    SSL = 0x20
    SSL_VERSION = 0x21
    SSL_CN = 0x22
    SSL_CIPHER = 0x23


# PP §2.2.6: bits of the field "client"
_CLIENT_SSL, _CLIENT_CERT_CONN, _CLIENT_CERT_SESS = 0x01, 0x02, 0x04


class BadProxyHeader(msgspec.Struct, frozen=True):
    """What came is no header that we could follow; `text` says why."""

    text: str


class Secured(msgspec.Struct, frozen=True):
    """The client speaks TLS with the proxy (PP2_TYPE_SSL). `common_name`: of a client certificate, which `verified`
    says the proxy found to be good; "" if none was sent."""

    version: str = ""
    cipher: str = ""
    common_name: str = ""
    verified: bool = False


class Header(msgspec.Struct, frozen=True):
    """A whole header. `local`: the connection is the proxy's own (LOCAL), or whose it is the proxy does not tell
    (UNKNOWN, UNSPEC): its real ends count (PP §2.1, §2.2). A client at a Unix socket has the address "".

    `authority`: the name that the client asked for (SNI). `unique_id`: the proxy's name for the connection.
    """

    version: int
    local: bool = False
    address: str = ""
    port: int = 0
    destination: str = ""
    destination_port: int = 0
    authority: str = ""
    alpn: str = ""
    unique_id: str = ""
    secured: Secured | None = None


class HeaderReader:
    """`take` octets until `result` is there."""

    __slots__ = ("_held", "_size_max", "_versions", "result")

    def __init__(self, versions: frozenset[int] = frozenset({1, 2}), size_max: int = SIZE_MAX) -> None:
        self._held = b""
        self._versions = versions
        self._size_max = size_max
        self.result: Header | BadProxyHeader | None = None

    def take(self, octets: bytes) -> int:
        """How many of these octets are the header's: all of them, unless it ends among them."""
        if self.result is not None:
            return 0
        before = len(self._held)
        held = self._held + octets[: max(0, max(V1_MAX, self._size_max) - before)]
        end = self._read(held)
        if end is None:
            self._held = held
            return len(held) - before
        self._held = b""
        return max(0, end - before)

    def _read(self, held: bytes) -> int | None:
        """Where the header ends, None where more octets are needed. A fault ends it where it stands."""
        if held.startswith(_SIGNATURE[: len(held)]) and 2 in self._versions:
            return self._read_v2(held)
        if held.startswith(b"PROXY "[: len(held)]) and 1 in self._versions:
            return self._read_v1(held)
        return self._fault("no PROXY header of a version that is taken here", held) if held else None

    def _fault(self, text: str, held: bytes) -> int:
        self.result = BadProxyHeader(text)
        return len(held)

    def _read_v1(self, held: bytes) -> int | None:
        end = held.find(b"\r\n", 0, V1_MAX)
        if end < 0:
            return None if len(held) < V1_MAX else self._fault("a PROXY header of version 1 without an end", held)
        self.result = _v1(held[:end])
        return end + 2

    def _read_v2(self, held: bytes) -> int | None:
        if len(held) < _FIXED:
            return None
        size = _FIXED + int.from_bytes(held[14:16], "big")
        if size > self._size_max:
            return self._fault(f"a PROXY header of {size} octets, more than {self._size_max}", held)
        if len(held) < size:
            return None
        self.result = _v2(held[:size])
        return size


# ---- version 1


def _v1(line: bytes) -> Header | BadProxyHeader:
    if _V1_UNKNOWN.fullmatch(line):
        return Header(1, local=True)
    found = _V1.fullmatch(line)
    if found is None:
        return BadProxyHeader("a PROXY header of version 1 that breaks its syntax")
    family = 4 if found[1] == b"TCP4" else 6
    source, destination = (_written(found[each].decode("ascii"), family) for each in (2, 3))
    port, destination_port = int(found[4]), int(found[5])
    if source is None or destination is None or max(port, destination_port) > 65_535:
        return BadProxyHeader("a PROXY header of version 1 with an address that is none")
    return Header(1, False, source, port, destination, destination_port)


def _written(text: str, family: int) -> str | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return _shown(address) if address.version == family else None


def _shown(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """An IPv4 address that came as an IPv6 one is one and the same client."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


# ---- version 2


def _v2(octets: bytes) -> Header | BadProxyHeader:
    version, command, family = octets[12] >> 4, octets[12] & 15, octets[13]
    if version != 2:
        return BadProxyHeader(f"a PROXY header of the unknown version {version}")
    if command == 0:  # LOCAL: "must discard the protocol block"; a health check of the proxy's own
        return Header(2, local=True)
    if command != 1:
        return BadProxyHeader(f"a PROXY header with the unknown command {command}")
    length = _LENGTHS.get(family)
    if length is None:
        return BadProxyHeader(f"a PROXY header for {family:#04x}, which is not a known family and transport")
    if len(octets) < _FIXED + length:
        return BadProxyHeader("a PROXY header too short for its addresses")
    header = _addressed(family, octets[_FIXED : _FIXED + length])
    vectors = _vectors(octets, _FIXED + length)
    if isinstance(vectors, BadProxyHeader):
        return vectors
    return _told(header, vectors, octets)


def _addressed(family: int, block: bytes) -> Header:
    if family == _UNSPECIFIED or family in _DATAGRAMS:  # what is not implemented "falls back to the UNSPEC mode"
        return Header(2, local=True)
    if family == _UNIX:
        return Header(2)
    size = 4 if family == _TCP4 else 16
    source, destination = (_shown(ipaddress.ip_address(block[at : at + size])) for at in (0, size))
    ports = block[2 * size :]
    return Header(2, False, source, int.from_bytes(ports[:2], "big"), destination, int.from_bytes(ports[2:], "big"))


def _vectors(octets: bytes, at: int) -> list[tuple[int, int, bytes]] | BadProxyHeader:
    """Type, place of the value and value of each TLV from `at` on (PP §2.2)."""
    found = []
    while at < len(octets):
        end = at + 3 + int.from_bytes(octets[at + 1 : at + 3], "big")
        if len(octets) < at + 3 or end > len(octets):
            return BadProxyHeader("a PROXY header whose TLVs do not fit into it")
        found.append((octets[at], at + 3, octets[at + 3 : end]))
        at = end
    return found


def _told(header: Header, vectors: list[tuple[int, int, bytes]], octets: bytes) -> Header | BadProxyHeader:
    """The header with what its TLVs say; types that we do not know are skipped (PP §2.2)."""
    facts: dict[str, str] = {}
    secured: Secured | None = None
    for kind, at, value in vectors:
        match kind:
            case _Kind.CRC32C:
                if len(value) != 4 or crc32c(octets[:at] + bytes(4) + octets[at + 4 :]) != int.from_bytes(value, "big"):
                    return BadProxyHeader("a PROXY header whose checksum is wrong")  # PP §2.2.3: "MUST abort"
            case _Kind.ALPN:
                facts["alpn"] = _text(value)
            case _Kind.AUTHORITY:
                facts["authority"] = _text(value)
            case _Kind.UNIQUE_ID:
                if len(value) > _UNIQUE_ID_MAX:
                    return BadProxyHeader("a PROXY header with a unique id that is too long")
                facts["unique_id"] = _id(value)
            case _Kind.SSL:
                told = _secured(value)
                if isinstance(told, BadProxyHeader):
                    return told
                secured = told
            case _:
                pass
    return msgspec.structs.replace(header, secured=secured, **facts)


def _secured(value: bytes) -> Secured | BadProxyHeader | None:
    """PP §2.2.6: client (1 octet), verify (4), then TLVs of its own. None if the client speaks no TLS."""
    if len(value) < 5:
        return BadProxyHeader("a PROXY header with a TLS part that is too short")
    vectors = _vectors(value, 5)
    if isinstance(vectors, BadProxyHeader):
        return vectors
    client, verify = value[0], int.from_bytes(value[1:5], "big")
    if not client & _CLIENT_SSL:
        return None
    texts = {kind: _text(each) for kind, _, each in vectors}
    certified = bool(client & (_CLIENT_CERT_CONN | _CLIENT_CERT_SESS))
    return Secured(
        texts.get(_Kind.SSL_VERSION, ""),
        texts.get(_Kind.SSL_CIPHER, ""),
        texts.get(_Kind.SSL_CN, "") if certified else "",
        certified and verify == 0,
    )


def _text(value: bytes) -> str:
    text = value[:_TEXT_MAX].decode("utf-8", "replace")
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def _id(value: bytes) -> str:
    """An opaque id: as it is if it is a word of ASCII, else as hexadecimal digits."""
    return value.decode("ascii") if re.fullmatch(rb"[!-~]+", value) else value.hex()


# ---- CRC-32C (Castagnoli, as RFC 9260 Appendix A has it), reflected


@lru_cache(maxsize=1)
def _table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


def crc32c(octets: bytes) -> int:
    """The checksum of a header, which is small: a table will do."""
    table, value = _table(), 0xFFFFFFFF
    for octet in octets:
        value = value >> 8 ^ table[(value ^ octet) & 255]
    return value ^ 0xFFFFFFFF
