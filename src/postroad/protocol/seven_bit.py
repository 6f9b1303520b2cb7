"""Converts a message for a remote without 8BITMIME, or without BINARYMIME (RFC 6152 §3, RFC 3030 §3).

There are two passes over the same pieces: `survey` finds what each part holds, `plan` decides what becomes of it,
`converted` gives the new content. Parts of text become quoted-printable or base64, whichever is shorter, all others
base64. Multipart and message/rfc822 may not be encoded themselves (RFC 2045 §6.4); the parts within them are. A body
without MIME fields gets them. The header sections go through `ascii_header`.

What always holds: each part decodes to the octets that it had; parts that can go as they are stay as they are, octet
for octet. Memory: one piece, one header section, and a few numbers for each part.

As other MTAs do it, a part under multipart/signed is converted like any other, and its signature may not hold after it
(RFC 1847 §2.1 asks the signer for 7 bit in the first place); the outcome says so. Readers ignore the text before the
first and after the last part of a multipart. There "?" takes the place of octets that cannot go, or another character
that is in no boundary, so that no line becomes a delimiter.

How it fails: with a text, if a message cannot be converted without loss: because of limits (`mime.MimeLimits`), an
unknown encoding (RFC 2045 §6.4), message/partial and message/external-body (RFC 2046 §5.2.2, §5.2.3), a multipart
without parts, an address that is not ASCII.
"""

from __future__ import annotations

import codecs
import enum
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

import msgspec

from postroad.mail.message import only_crlf
from postroad.protocol import ascii_header
from postroad.protocol.encoding import Base64, Encoder, MendedBase64, MendedQuotedPrintable, QuotedPrintable
from postroad.protocol.mime import (
    DEFAULT_LIMITS,
    IDENTITIES,
    Aside,
    BodyOctets,
    Entity,
    Framing,
    Head,
    MimeLimits,
    TooComplex,
    walk,
)

_LINE_MAX: Final = 998  # RFC 2045 §2.8: octets of a line of 8-bit data
_QUOTED_LINE_MAX: Final = 65_536  # a longer line is not held for quoted-printable
_OPAQUE: Final = frozenset({"message/partial", "message/external-body"})
_LOST: Final = re.compile(rb"[\x80-\xff\0]")  # what `_aside` does away with
_MARKS: Final = b"?*#!$%&~^|;<>[]{}"  # what takes the place of an octet that cannot go
_COUNTED: Final = bytes(range(128))


class EightBit(enum.Enum):
    """What becomes of 8-bit mail if the remote does not offer 8BITMIME, and of binary mail without BINARYMIME."""

    CONVERT = "convert"
    RETURN = "return"  # 5.6.3, 5.6.1
    SEND = "send"  # 8-bit mail as it is, and let us see; binary mail is returned


class ConversionTarget(enum.Enum):
    """What the remote takes."""

    SEVEN_BIT = "7bit"
    EIGHT_BIT = "8bit"


class Change(enum.Enum):
    """What becomes of the body of a part."""

    KEEP = "keep"
    QUOTED = "quoted-printable"
    BASE64 = "base64"
    MEND_QUOTED = "mend quoted-printable"
    MEND_BASE64 = "mend base64"


class LeafFacts:
    """What the body of one leaf holds. `high`: octets above ASCII."""

    __slots__ = ("_decoder", "_held", "_line", "entity", "high", "line_max", "nul", "size", "stray", "utf8")

    def __init__(self, entity: Entity) -> None:
        self.entity = entity
        self.size = self.high = self.line_max = 0
        self.stray = self.nul = False
        self.utf8 = True
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._held = b""
        self._line = 0  # octets so far of the line that a piece ended in

    def add(self, octets: bytes) -> None:
        self.size += len(octets)
        if not octets.isascii():
            self.high += len(octets.translate(None, _COUNTED))
        if self.utf8 and not self.entity.typed:
            self.utf8 = self._decodes(octets, final=False)
        self.nul = self.nul or b"\0" in octets
        if self._held:
            octets = self._held + octets
        self._held = b"\r" if octets.endswith(b"\r") else b""
        if self._held:
            octets = octets[:-1]
        self.stray = self.stray or not only_crlf(octets)
        self._measure(octets)

    def end(self) -> None:
        self.stray = self.stray or bool(self._held)
        if self.utf8 and not self.entity.typed:
            self.utf8 = self._decodes(b"", final=True)

    def _decodes(self, octets: bytes, *, final: bool) -> bool:
        try:
            self._decoder.decode(octets, final)
        except UnicodeDecodeError:
            return False
        return True

    def _measure(self, octets: bytes) -> None:
        first = octets.find(b"\r\n")
        if first < 0:
            self._line += len(octets)
        else:
            self.line_max = max(self.line_max, self._line + first, *map(len, octets.split(b"\r\n")))
            self._line = len(octets) - octets.rfind(b"\r\n") - 2
        self.line_max = max(self.line_max, self._line)

    @property
    def binary(self) -> bool:
        """RFC 2045 §2.9: more than 8-bit data may hold."""
        return self.nul or self.stray or self.line_max > _LINE_MAX


class Survey:
    """What a message holds. `ascii`: nothing but ASCII. `high_header`: octets above ASCII in the header section of the
    message or of a part, or perhaps (`problem`: why it is not known). `header_problem`: why that cannot be ASCII."""

    def __init__(self) -> None:
        self.ascii = True
        self.high_header = False
        self.problem = ""
        self.header_problem = ""
        self.entities: list[Entity] = []
        self.parents: list[int] = []
        self.facts: dict[int, LeafFacts] = {}
        self.empty_multiparts: set[int] = set()  # with octets that cannot be told from those of a part
        self.lossy = False  # octets that cannot go stand between parts


def survey(pieces: Iterable[bytes], limits: MimeLimits = DEFAULT_LIMITS) -> Survey:
    """The first pass."""
    found = Survey()
    try:
        for token in walk(pieces, limits):
            _note(found, token)
    except TooComplex as reason:
        found.problem = str(reason)
        found.ascii, found.high_header = False, True
    for facts in found.facts.values():
        facts.end()
    return found


def _note(found: Survey, token: Head | BodyOctets | Framing | Aside) -> None:
    if isinstance(token, BodyOctets):
        facts = found.facts.get(token.entity.number)
        if facts is None:
            facts = found.facts[token.entity.number] = LeafFacts(token.entity)
        facts.add(token.octets)
    elif isinstance(token, Head):
        found.entities.append(token.entity)
        found.parents.append(token.parent)
        found.empty_multiparts.discard(token.parent)
        found.high_header = found.high_header or not token.octets.isascii()
        if found.high_header and not found.header_problem and ascii_header.in_ascii(token.octets) is None:
            found.header_problem = "an address in its header is not ASCII"
    elif isinstance(token, Aside) and _LOST.search(token.octets):
        found.lossy = True
        if token.entity.number == len(found.entities) - 1:
            found.empty_multiparts.add(token.entity.number)
    if found.ascii and not token.octets.isascii():
        found.ascii = False


class Plan(msgspec.Struct, frozen=True):
    """What becomes of each part, by number; those that are not named are kept. `encodings`: what a header section is to
    say, if that is not what it says. `charsets`: of bodies that had no Content-Type. `signed`: a part under
    multipart/signed changes. `mark`: stands for an octet between parts that cannot go."""

    target: ConversionTarget
    changes: dict[int, Change]
    encodings: dict[int, str]
    charsets: dict[int, str]
    signed: bool = False
    mark: int = _MARKS[0]


def plan(found: Survey, target: ConversionTarget) -> Plan | str:
    """What is to be done; a text if it cannot be."""
    if found.problem:
        return found.problem
    if found.header_problem and target is ConversionTarget.SEVEN_BIT:
        return found.header_problem
    if found.empty_multiparts:
        return "it has a multipart without parts that holds 8-bit data"
    mark = _MARKS[0] if not found.lossy else _unlike_boundaries(found)
    if mark is None:
        return "no character is left to stand for 8-bit data between its parts"
    changes: dict[int, Change] = {}
    encodings: dict[int, str] = {}
    charsets: dict[int, str] = {}
    signed = False
    for entity, parent in zip(found.entities, found.parents, strict=True):
        facts = found.facts.get(entity.number)
        change = Change.KEEP if facts is None else _change(facts, target)
        if isinstance(change, str):
            return change
        if change is not Change.KEEP:
            changes[entity.number] = change
            signed = signed or _is_signed(found, parent)
        encoding = _encoding(entity, change, facts, target)
        if encoding != entity.encoding:
            encodings[entity.number] = encoding
        if facts is not None and change is not Change.KEEP and not entity.typed:
            charsets[entity.number] = "utf-8" if facts.utf8 else "unknown-8bit"
    return Plan(target, changes, encodings, charsets, signed, mark)


def _unlike_boundaries(found: Survey) -> int | None:
    """A character that no boundary of the message holds: a line in which it stands for others is no delimiter."""
    held = set().union(*(entity.boundary for entity in found.entities))
    return next((mark for mark in _MARKS if mark not in held), None)


def _change(facts: LeafFacts, target: ConversionTarget) -> Change | str:
    entity = facts.entity
    if not ((facts.high and target is ConversionTarget.SEVEN_BIT) or (facts.binary and _may_be_binary(facts))):
        return Change.KEEP
    if entity.type in _OPAQUE:
        return f"it has a part of the type {entity.type} that holds 8-bit data"
    if entity.encoding == "base64":
        return Change.MEND_BASE64
    if entity.encoding == "quoted-printable" and not facts.nul and not facts.stray:
        return Change.MEND_QUOTED
    if entity.encoding not in IDENTITIES:
        return f"it has a part with 8-bit data that calls itself encoded: {entity.encoding[:40]}"
    textual = entity.type.startswith(("text/", "message/")) and not (facts.nul or facts.stray)
    # An octet above ASCII takes two more in quoted-printable; base64 makes four of three.
    if textual and facts.line_max <= _QUOTED_LINE_MAX and 6 * facts.high <= facts.size:
        return Change.QUOTED
    return Change.BASE64


def _may_be_binary(facts: LeafFacts) -> bool:
    """Long lines alone are sent as they came, unless the part calls itself binary."""
    return facts.nul or facts.stray or facts.entity.encoding == "binary"


def _encoding(entity: Entity, change: Change, facts: LeafFacts | None, target: ConversionTarget) -> str:
    """What the header section is to say."""
    if change in (Change.QUOTED, Change.BASE64):
        return str(change.value)
    if entity.encoding == "binary" or (entity.encoding == "8bit" and target is ConversionTarget.SEVEN_BIT):
        return "7bit" if facts is not None and not facts.high else str(target.value)
    return entity.encoding


def _is_signed(found: Survey, parent: int) -> bool:
    while parent >= 0:
        if found.entities[parent].type == "multipart/signed":
            return True
        parent = found.parents[parent]
    return False


# -- the second pass ---------------------------------------------------------------------------------------------------


def converted(pieces: Iterable[bytes], how: Plan, limits: MimeLimits = DEFAULT_LIMITS) -> Iterator[bytes]:
    """The content anew."""
    encoder: Encoder | None = None
    number = -1
    for token in walk(pieces, limits):
        if encoder is not None and not (isinstance(token, BodyOctets) and token.entity.number == number):
            yield encoder.end()
            encoder = None
        if isinstance(token, BodyOctets):
            if token.entity.number != number:
                number = token.entity.number
                encoder = _encoder(how.changes.get(number, Change.KEEP))
            octets = token.octets if encoder is None else encoder.piece(token.octets)
        elif isinstance(token, Head):
            octets = _head(token, how)
        elif isinstance(token, Aside):
            octets = _aside(token.octets, how)
        else:
            octets = token.octets
        if octets:
            yield octets
    if encoder is not None:
        yield encoder.end()


def _encoder(change: Change) -> Encoder | None:
    match change:
        case Change.QUOTED:
            return QuotedPrintable()
        case Change.BASE64:
            return Base64()
        case Change.MEND_QUOTED:
            return MendedQuotedPrintable()
        case Change.MEND_BASE64:
            return MendedBase64()
        case _:
            return None


_LINE: Final = rb"[^\r]*(?:\r(?!\n)[^\r]*)*(?:\r\n|\Z)"
_ENCODING_FIELD: Final = re.compile(
    rb"^content-transfer-encoding[ \t]*:" + _LINE + rb"(?:[ \t]" + _LINE + rb")*", re.IGNORECASE | re.MULTILINE
)


def _head(head: Head, how: Plan) -> bytes:
    """A header section as it is to be sent."""
    section, entity = head.octets, head.entity
    if how.target is ConversionTarget.SEVEN_BIT and not section.isascii():
        section = ascii_header.in_ascii(section) or section
    number = entity.number
    encoding = how.encodings.get(number)
    # The section of a message within, which is numbered next, may get fields if it had none.
    changed = number in how.changes or (entity.nested and not head.separated and number + 1 in how.changes)
    if encoding is None and not changed:
        return section
    if section and not section.endswith(b"\r\n"):
        section += b"\r\n"
    if encoding is not None:
        section = _ENCODING_FIELD.sub(b"", section)
        charset = how.charsets.get(number)
        if entity.message and not entity.versioned:
            section += b"MIME-Version: 1.0\r\n"
        if charset is not None:
            section += b"Content-Type: text/plain; charset=%b\r\n" % charset.encode("ascii")
        section += b"Content-Transfer-Encoding: %b\r\n" % encoding.encode("ascii")
    return section if head.separated or not changed else section + b"\r\n"


def _aside(octets: bytes, how: Plan) -> bytes:
    # One for one, so that it does not matter how the pieces are cut.
    return octets.translate(_replacing(how.mark, how.target is ConversionTarget.SEVEN_BIT))


@lru_cache(maxsize=2 * len(_MARKS))
def _replacing(mark: int, high: bool) -> bytes:
    return bytes(mark if not octet or (high and octet > 127) else octet for octet in range(256))
