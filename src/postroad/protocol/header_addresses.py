"""The addresses in a header section, and other addresses in their places (RFC 5322 §3.4, §4.4, RFC 6532).

What always holds: only the octets of an addr-spec change; display names, comments, groups, routes, white space and the
names of fields stay as they are, octet for octet. A comment within an addr-spec stands behind the new address. A line
that had at most `LINE_MAX` octets is folded if it would have more. How it fails: a field that cannot be read as a list
of mailboxes and groups has no spots, so it stays as it is; so does an element of the list that is no address. Pure,
linear in the length of the section.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple, cast

from postroad.mail.address import Address
from postroad.mail.message import LINE_MAX, raw_fields
from postroad.protocol.grammar import parse_mailbox


class FieldSide(enum.Enum):
    """Whose addresses a field holds."""

    SENDER = "sender"
    RECIPIENT = "recipient"


FIELDS: Final = {
    **dict.fromkeys(
        (b"from", b"sender", b"reply-to", b"resent-from", b"resent-sender", b"errors-to", b"return-receipt-to",
         b"disposition-notification-to", b"mail-followup-to"),
        FieldSide.SENDER,
    ),
    **dict.fromkeys(
        (b"to", b"cc", b"bcc", b"resent-to", b"resent-cc", b"resent-bcc", b"resent-reply-to", b"apparently-to"),
        FieldSide.RECIPIENT,
    ),
}  # fmt: skip
"""The fields that hold addresses, by name in lower case, and which side each is of: as Postfix has them."""

ELEMENT_MAX: Final = 1_000  # octets of an addr-spec, with white space and comments within it


class Spot(NamedTuple):
    """One addr-spec: `start` and `end` in the section; `opens` and `closes`: the same with its angle brackets, if it
    has some. `name`: of its field, in lower case. `comments`: those within it, each with a space in front."""

    start: int
    end: int
    opens: int
    closes: int
    address: Address
    name: bytes
    side: FieldSide
    comments: tuple[bytes, ...] = ()


#   quoted-string, comment's beginning, domain-literal, special, white space, atoms with the dots between them
_TOKEN: Final = re.compile(
    rb'(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<paren>\()|(?P<literal>\[[^\[\]\\]*\])|(?P<special>[<>@,;:])|'
    rb'(?P<space>[ \t\r\n]+)|(?P<atom>[^ \t\r\n()<>@,;:"\[\]\\\0]+)',
    re.DOTALL,
)
_COMMENT_PART: Final = re.compile(rb"[^()\\]+|\\.", re.DOTALL)
_JOINING: Final = b".@"


class _UnreadableError(Exception):
    """The value is no list of mailboxes."""


class _Token(NamedTuple):
    kind: str
    start: int
    end: int


def spots(section: bytes, kept: frozenset[bytes] = frozenset()) -> list[Spot]:
    """Where addresses stand, from the top. `kept`: names of fields, in lower case, that are passed over."""
    found: list[Spot] = []
    for name, _, start, end in raw_fields(section):
        side = FIELDS.get(name)
        if side is not None and name not in kept:
            try:
                found += _spots(section, start, end, name, side)
            except _UnreadableError:
                continue
    return found


def _spots(section: bytes, start: int, end: int, name: bytes, side: FieldSide) -> list[Spot]:
    """The addr-specs of one value."""
    found: list[Spot] = []
    element: list[_Token] = []  # tokens of a display name, a bare addr-spec or the name of a group
    angle: list[_Token] | None = None  # those between angle brackets
    opened, closed = start, False  # where the bracket stands; whether it was closed, so that nothing may follow

    for token in _tokens(section, start, end):
        octets = section[token.start : token.end] if token.kind == "special" else b""
        if angle is not None:
            if octets == b">":
                found += _spot(section, _behind_route(section, angle), (opened, token.end), name, side)
                angle, closed = None, True
            elif octets in (b"<", b";"):
                raise _UnreadableError
            else:
                angle.append(token)
        elif octets == b"<":
            if closed:
                raise _UnreadableError
            angle, opened = [], token.start
        elif octets == b">" or (octets == b":" and closed):
            raise _UnreadableError
        elif octets in (b",", b";", b":"):
            if not closed and octets != b":":  # behind ":" the name of a group is over
                found += _spot(section, element, None, name, side)
            element, closed = [], False
        elif closed and token.kind not in ("space", "comment"):
            raise _UnreadableError
        else:
            element.append(token)
    if angle is not None:
        raise _UnreadableError
    return found if closed else [*found, *_spot(section, element, None, name, side)]


def _tokens(section: bytes, at: int, end: int) -> Iterator[_Token]:
    while at < end:
        token = _TOKEN.match(section, at, end)
        if token is None:
            raise _UnreadableError
        kind, start = cast(str, token.lastgroup), at
        at = token.end()
        if kind == "paren":
            kind, at = "comment", _behind_comment(section, at, end)
        yield _Token(kind, start, at)


def _behind_comment(section: bytes, at: int, end: int) -> int:
    depth = 1
    while depth:
        inside = _COMMENT_PART.match(section, at, end)
        if inside is not None:
            at = inside.end()
        elif at >= end or section[at] == 0x5C:
            raise _UnreadableError
        else:
            depth += 1 if section[at] == 0x28 else -1
            at += 1
    return at


def _behind_route(section: bytes, tokens: list[_Token]) -> list[_Token]:
    """RFC 5322 §4.4: obs-route = obs-domain-list ":"."""
    for at in range(len(tokens) - 1, -1, -1):
        if tokens[at].kind == "special" and section[tokens[at].start] == 0x3A:
            return tokens[at + 1 :]
    return tokens


def _spot(
    section: bytes, tokens: list[_Token], brackets: tuple[int, int] | None, name: bytes, side: FieldSide
) -> tuple[Spot, ...]:
    """The addr-spec that these tokens are; () if they are none."""
    words = [token for token in tokens if token.kind not in ("space", "comment")]
    if not words or words[-1].end - words[0].start > ELEMENT_MAX:
        return ()
    # RFC 5322 §4.4: white space and comments may stand around "." and "@" only.
    for one, other in pairwise(words):
        if section[one.end - 1] not in _JOINING and section[other.start] not in _JOINING:
            return ()
    try:
        address = parse_mailbox(b"".join([section[word.start : word.end] for word in words]).decode())
    except UnicodeDecodeError:
        return ()
    if address is None:
        return ()
    start, end = words[0].start, words[-1].end
    within = [token for token in tokens if token.kind == "comment" and start < token.start < end]
    comments = tuple([b" " + section[token.start : token.end] for token in within])
    opens, closes = brackets or (start, end)
    return (Spot(start, end, opens, closes, address, name, side, comments),)


def replaced(section: bytes, changes: Sequence[tuple[Spot, Address]]) -> bytes:
    """The section with other addresses at these spots, which stand in their order."""
    written: list[bytes] = []
    at = place = 0
    for _, start, _, end in raw_fields(section):
        first = place
        while place < len(changes) and changes[place][0].start < end:
            place += 1
        if place > first:
            written.append(section[at:start])
            written.append(_field(section[start:end], start, changes[first:place]))
            at = end
    written.append(section[at:])
    return b"".join(written)


def _field(field: bytes, offset: int, changes: Sequence[tuple[Spot, Address]]) -> bytes:
    """A field, which stands at `offset`, with other addresses. If even folds cannot keep its lines short, it stays."""
    pieces: list[bytes] = []  # a fold may stand between two of them
    at = 0
    for spot, address in changes:
        opens, start, end, closes = (place - offset for place in (spot.opens, spot.start, spot.end, spot.closes))
        new = (field[opens:start], str(address).encode(), *spot.comments, field[end:closes])
        pieces.append(field[at:opens])
        if sum(map(len, new)) < LINE_MAX and b"\r\n" not in field[opens:closes]:
            pieces.append(b"".join(new))
        else:
            pieces += new
        at = closes
    pieces.append(field[at:])
    changed = _folded(pieces)
    return changed if _longest(changed) <= max(LINE_MAX, _longest(field)) else field


def _folded(pieces: Iterable[bytes]) -> bytes:
    written: list[bytes] = []
    length = 0  # of the line so far
    for piece in pieces:
        line, _, _ = piece.partition(b"\r\n")
        if length and length + len(line) > LINE_MAX and line.strip(b" \t"):
            written.append(b"\r\n" if line[:1] in (b" ", b"\t") else b"\r\n ")
            length = len(written[-1]) - 2
        written.append(piece)
        last = piece.rfind(b"\r\n")
        length = length + len(piece) if last < 0 else len(piece) - last - 2
    return b"".join(written)


def _longest(field: bytes) -> int:
    return max(map(len, field.split(b"\r\n")))


_SIGNATURES: Final = frozenset((b"dkim-signature", b"arc-message-signature"))
_SIGNED: Final = re.compile(rb"(?:\A|;)\s*h\s*=([^;]*)")


def signed(section: bytes) -> frozenset[bytes]:
    """The names, in lower case, of the fields that a DKIM or ARC signature of the message covers (RFC 6376 §3.5)."""
    if b"-signature" not in section.lower():
        return frozenset()
    found: set[bytes] = set()
    for name, _, start, end in raw_fields(section):
        if name in _SIGNATURES and (tag := _SIGNED.search(section[start:end])) is not None:
            found.update(each.strip().lower() for each in tag[1].split(b":"))
    return frozenset(found)
