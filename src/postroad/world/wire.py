"""The octets of DNS messages: a query out, an answer in (RFC 1035 §4, RFC 6891, RFC 3596, RFC 6698), pure.

Only the types that a mail server needs are read: A, AAAA, CNAME, MX, PTR, TLSA, TXT, and SOA; all others are skipped.
dnspython reads everything, and takes 320 µs for an answer of three MX records; this takes 8 (see
docs/decisions/0020-dns-wire.md). The tests compare this module with dnspython.

What always holds: names are lower-case text without a final dot ("" is the root), other octets than letters, digits and
the like are escaped as in master files (RFC 1035 §5.1), so that two names are equal if their texts are. Reading never
raises and always ends, whatever the octets: a compression pointer must lead backward, and their number is limited.
"""

from __future__ import annotations

import socket
import struct
from functools import lru_cache
from typing import Final

import msgspec

A: Final = 1
CNAME: Final = 5
SOA: Final = 6
PTR: Final = 12
MX: Final = 15
TXT: Final = 16
AAAA: Final = 28
OPT: Final = 41
TLSA: Final = 52
NS: Final = 2
_IN: Final = 1

NOERROR: Final = 0
FORMERR: Final = 1
SERVFAIL: Final = 2
NXDOMAIN: Final = 3
NOTIMP: Final = 4
REFUSED: Final = 5
BADVERS: Final = 16

_RCODES: Final = {
    NOERROR: "NOERROR", FORMERR: "FORMERR", SERVFAIL: "SERVFAIL", NXDOMAIN: "NXDOMAIN", NOTIMP: "NOTIMP",
    REFUSED: "REFUSED", BADVERS: "BADVERS",
}  # fmt: skip

_HEADER: Final = struct.Struct("!HHHHHH")
_QUESTION: Final = struct.Struct("!HH")
_RECORD: Final = struct.Struct("!HHIH")
_OPT_RECORD: Final = struct.Struct("!BHHIH")

# RFC 1035 §4.1.1; AD: RFC 6840 §5.7, a query with it says that we understand it in the answer.
_QR: Final = 0x8000
_OPCODE: Final = 0x7800
_TC: Final = 0x0200
_RD: Final = 0x0100
_AD: Final = 0x0020

_TLSA_HEAD: Final = 3  # octets before the data
_POINTERS_MAX: Final = 32
_NAME_MAX: Final = 255  # RFC 1035 §2.3.4
_QUESTION_POINTER: Final = b"\xc0\x0c"


class MxRecord(msgspec.Struct, frozen=True, array_like=True, order=True):
    """One MX record; `exchange` is "" for the root, as a null MX has it (RFC 7505)."""

    preference: int
    exchange: str


class TlsaRecord(msgspec.Struct, frozen=True, array_like=True, order=True):
    """One TLSA record (RFC 6698 §2.1): which certificate or key a server shows. The three numbers as they stand, if
    nobody knows them, too; `data` is a digest or the whole."""

    usage: int
    selector: int
    matching_type: int
    data: bytes

    def __str__(self) -> str:
        """As in a master file (RFC 6698 §2.2)."""
        return f"{self.usage} {self.selector} {self.matching_type} {self.data.hex()}"


Value = str | MxRecord | TlsaRecord


class ResourceRecord(msgspec.Struct, frozen=True, gc=False):
    """One record of the answer section. `ttl_s` as it stands."""

    owner: str
    type: int
    ttl_s: int
    value: Value


class Message(msgspec.Struct, frozen=True):
    """An answer, read. `negative_ttl_s`: how long its "no" holds by its SOA record (RFC 2308 §5), None without one.

    `question` is None if the server left it out. `referral`: neither answer nor SOA, but the names of other servers
    (RFC 2308 §2.2). `rcode` has the upper bits from OPT (RFC 6891 §6.1.3).
    """

    id: int
    question: tuple[str, int] | None
    rcode: int
    truncated: bool
    authentic: bool
    answers: tuple[ResourceRecord, ...]
    negative_ttl_s: int | None
    referral: bool


def rcode_text(rcode: int) -> str:
    """The name of a response code."""
    return _RCODES.get(rcode, f"RCODE {rcode}")


@lru_cache(maxsize=16384)
def encode_name(name: str) -> bytes | None:
    """A name in wire form (RFC 1035 §3.1), or None if `name` cannot be one: a label empty or over 63 octets, over
    255 in all, not ASCII, or with escapes (no name of a mail server has any)."""
    if not name.isascii() or "\\" in name:
        return None
    parts: list[bytes] = []
    for label in name.removesuffix(".").encode().split(b"."):
        if not 0 < len(label) < 64:
            return None
        parts += (bytes((len(label),)), label)
    encoded = b"".join(parts) + b"\0"
    return encoded if len(encoded) <= _NAME_MAX else None


def encode_query(id: int, name: bytes, type: int, payload: int) -> bytes:
    """A recursive query for `name` (in wire form). `payload`: octets that we take over UDP (RFC 6891 §6.2.3); 0 leaves
    EDNS out."""
    head = _HEADER.pack(id, _RD | _AD, 1, 0, 0, 1 if payload else 0)
    query = head + name + _QUESTION.pack(type, _IN)
    return query + _OPT_RECORD.pack(0, OPT, payload, 0, 0) if payload else query


def message_id(octets: bytes) -> int:
    """The id of a message, -1 if it is too short for one."""
    return int.from_bytes(octets[:2], "big") if len(octets) >= 12 else -1


def decode(octets: bytes) -> Message | None:
    """An answer read, or None if the octets are no whole answer to one question. A truncated answer (TC) is not
    read past its question."""
    try:
        return _decode(octets)
    except (IndexError, struct.error, ValueError):
        return None


def _decode(octets: bytes) -> Message | None:
    id, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(octets)
    if not flags & _QR or flags & _OPCODE or questions > 1:
        return None
    at = 12
    question = None
    if questions:
        name, at = _name(octets, at, "")
        type, class_ = _QUESTION.unpack_from(octets, at)
        at += 4
        if class_ != _IN:
            return None
        question = (name, type)
    rcode = flags & 15
    if flags & _TC:
        return Message(id, question, rcode, True, False, (), None, False)
    asked = question[0] if question else ""
    records, at = _answers(octets, at, answers, asked)
    negative_ttl_s, servers, at = _authority(octets, at, authorities, asked)
    rcode |= _upper_rcode(octets, at, additionals, asked)
    referral = servers and not answers and negative_ttl_s is None
    return Message(id, question, rcode, False, bool(flags & _AD), records, negative_ttl_s, referral)


def _answers(octets: bytes, at: int, count: int, asked: str) -> tuple[tuple[ResourceRecord, ...], int]:
    records = []
    for _ in range(count):
        owner, at = _name(octets, at, asked)
        type, class_, ttl_s, length = _RECORD.unpack_from(octets, at)
        at += 10
        end = at + length
        if end > len(octets):
            raise ValueError("a record runs past the end")
        if class_ == _IN:
            value = _value(octets, at, end, type, asked)
            if value is not None:
                records.append(ResourceRecord(owner, type, ttl_s, value))
        at = end
    return tuple(records), at


def _authority(octets: bytes, at: int, count: int, asked: str) -> tuple[int | None, bool, int]:
    """The time to keep a "no" (RFC 2308 §5: the lesser of the SOA's TTL and its MINIMUM), whether there are NS."""
    negative_ttl_s = None
    servers = False
    for _ in range(count):
        _owner, at = _name(octets, at, asked)
        type, _class, ttl_s, length = _RECORD.unpack_from(octets, at)
        at += 10 + length
        if at > len(octets):
            raise ValueError("a record runs past the end")
        if type == SOA and length >= 22:
            negative_ttl_s = min(bounded_ttl_s(ttl_s), bounded_ttl_s(int.from_bytes(octets[at - 4 : at], "big")))
        elif type == NS:
            servers = True
    return negative_ttl_s, servers, at


def _upper_rcode(octets: bytes, at: int, count: int, asked: str) -> int:
    """The upper eight bits of the response code, from the OPT record's TTL (RFC 6891 §6.1.3), in their place."""
    for _ in range(count):
        _owner, at = _name(octets, at, asked)
        type, _class, ttl, length = _RECORD.unpack_from(octets, at)
        if type == OPT:
            return int(ttl >> 24) << 4
        at += 10 + length
    return 0


def _value(octets: bytes, at: int, end: int, type: int, asked: str) -> Value | None:
    match type:
        case 1:  # A, RFC 1035 §3.4.1
            return socket.inet_ntop(socket.AF_INET, octets[at:end])
        case 28:  # AAAA, RFC 3596 §2.2
            return socket.inet_ntop(socket.AF_INET6, octets[at:end])
        case 15:  # MX, RFC 1035 §3.3.9
            host, after = _name(octets, at + 2, asked)
            value: Value = MxRecord(octets[at] << 8 | octets[at + 1], host)
        case 5 | 12:  # CNAME, PTR: RFC 1035 §3.3.1, §3.3.12
            value, after = _name(octets, at, asked)
        case 16:  # TXT, RFC 1035 §3.3.14
            return _text(octets, at, end)
        case 52:  # TLSA, RFC 6698 §2.1
            return _tlsa(octets, at, end)
        case _:
            return None
    if after != end:
        raise ValueError("a name runs past its record")
    return value


def _tlsa(octets: bytes, at: int, end: int) -> TlsaRecord:
    if end - at < _TLSA_HEAD:
        raise ValueError("a TLSA record is too short")
    return TlsaRecord(octets[at], octets[at + 1], octets[at + 2], octets[at + _TLSA_HEAD : end])


def _text(octets: bytes, at: int, end: int) -> str:
    """The character-strings of a TXT record put together without anything between (RFC 7208 §3.3, RFC 6376 §3.6.2.2).

    Octets that are not UTF-8 are escaped, so that the text can be written anywhere.
    """
    parts = []
    while at < end:
        after = at + 1 + octets[at]
        if after > end:
            raise ValueError("a character-string runs past its record")
        parts.append(octets[at + 1 : after])
        at = after
    return b"".join(parts).decode("utf-8", "backslashreplace")


def _name(octets: bytes, at: int, asked: str) -> tuple[str, int]:
    """The name at `at` and where what follows it begins (RFC 1035 §4.1.4). `asked`: the question's name, to which most
    pointers lead."""
    if asked and octets[at : at + 2] == _QUESTION_POINTER:
        return asked, at + 2
    labels = []
    after = 0
    limit = at
    pointers = 0
    size = 1
    while length := octets[at]:
        if length < 64:
            end = at + 1 + length
            labels.append(octets[at + 1 : end])
            size += length + 1
            at = end
        elif length >= 192:
            target = (length & 63) << 8 | octets[at + 1]
            pointers += 1
            if target >= limit or pointers > _POINTERS_MAX:
                raise ValueError("a compression pointer leads forward or in a ring")
            after = after or at + 2
            limit = at = target
        else:
            raise ValueError("no such kind of label")
        if size > _NAME_MAX:
            raise ValueError("a name is too long")
    return _name_text(labels), after or at + 1


def _name_text(labels: list[bytes]) -> str:
    joined = b".".join(labels).lower()
    if joined.translate(None, _PLAIN) or joined.count(b".") != max(0, len(labels) - 1):
        return ".".join("".join(map(_escape, label.lower())) for label in labels)
    return joined.decode("ascii")


_PLAIN: Final = b"abcdefghijklmnopqrstuvwxyz0123456789-_./*+=:"

_SPECIAL: Final = b'"().;\\@$'  # what means something in a master file


def _escape(octet: int) -> str:
    char = chr(octet)
    if octet in _SPECIAL:
        return "\\" + char
    return char if 33 <= octet < 127 else f"\\{octet:03}"


def bounded_ttl_s(ttl_s: int) -> int:
    """A TTL with its top bit set counts as 0 (RFC 2181 §8)."""
    return ttl_s if ttl_s < 0x8000_0000 else 0
