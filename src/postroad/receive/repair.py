"""What a submission server mends in a message (RFC 6409 §8): Date, Message-ID, From and Sender, and nothing else.

What always holds: a field is prepended where it was missing, or put in place of one whose value was useless; every
other octet stays as it was, in its order, so that a signature over sound fields stays whole. `Bcc` is left: who wrote
it meant it. The result is pure ASCII unless the sender's address is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from postroad.mail import message, trace
from postroad.mail.address import Address
from postroad.protocol.grammar import parse_mailbox

_ID_MAX: Final = 998  # RFC 5322 §2.1.1
_VALUE_MAX: Final = 16_384  # octets of a From or Sender field that are looked at; a longer one is left alone

# RFC 5322 §3.3 with §4.3: [day-of-week ","] day month year hour ":" minute [":" second] zone, white space folded
_DATE: Final = re.compile(
    r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[ \t]*,)?[ \t]*\d{1,2}[ \t]+"
    r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[ \t]+\d{2,5}[ \t]+"
    r"\d{2}[ \t]*:[ \t]*\d{2}(?:[ \t]*:[ \t]*\d{2})?[ \t]+(?:[+-]\d{4}|[a-z]{1,5})(?:[ \t]*\(.*\))?[ \t]*",
    re.IGNORECASE,
)
# RFC 5322 §3.6.4 "<" id-left "@" id-right ">", read generously: what user agents make is seldom to the letter.
_MESSAGE_ID: Final = re.compile(r"<[^<>\s]+@[^<>\s]+>")
# A quoted string (a display name), an address in angles, or a bare one. What is not closed goes to the end: a failed
# match would be tried again from the next octet on, and again.
_MAILBOX: Final = re.compile(
    r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|<(?P<angle>[^<>]*)>|(?P<bare>[^",:;<>()\s]+@[^",:;<>()\s]+)', re.DOTALL
)
_COMMENT: Final = re.compile(r'("(?:[^"\\]|\\.)*(?:"|\\?\Z))|\((?:[^()\\]|\\.)*(?:\)|\\?\Z)', re.DOTALL)


def repaired(
    octets: bytes,
    *,
    reverse_path: Address | None,
    owns: Callable[[Address], bool] | None,
    message_id: str,
    submitted_us: int,
) -> bytes:
    """The header section of `octets` mended; `octets` hold all of it, and what follows is kept.

    `owns`: whether the authenticated account may call itself by an address; None where the client was authorised by
    its network, and no Sender is asked for. `message_id`: what to give a message that has none, with its angles.
    """
    added: list[str] = []
    if (date := message.first(octets, b"date")) is None or not _DATE.fullmatch(date):
        octets = octets if date is None else without(octets, b"date")
        added.append(f"Date: {trace.date(submitted_us // 1_000_000)}\r\n")  # §8.2
    if (given := message.first(octets, b"message-id")) is None or not _is_message_id(given):
        octets = octets if given is None else without(octets, b"message-id")
        added.append(f"Message-ID: {message_id}\r\n")  # §8.3
    written = message.first(octets, b"from")
    if reverse_path is not None:
        if not written:
            octets = octets if written is None else without(octets, b"from")
            added.append(f"From: <{reverse_path}>\r\n")
        elif owns is not None and _wants_sender(octets, written, owns):  # §8.1
            octets = without(octets, b"sender")
            added.append(f"Sender: <{reverse_path}>\r\n")
    if not added:
        return octets
    # Without a header section and its empty line the first line of the body would become a field.
    gap = b"" if octets.startswith(b"\r\n") or _has_field(octets) else b"\r\n"
    return "".join(added).encode() + gap + octets


def _is_message_id(text: str) -> bool:
    return len(text) <= _ID_MAX and _MESSAGE_ID.fullmatch(text) is not None


def _has_field(octets: bytes) -> bool:
    return next(message.fields(octets), None) is not None


def _wants_sender(octets: bytes, written: str, owns: Callable[[Address], bool]) -> bool:
    """Whether From does not name the account, or names several mailboxes, and Sender does not name it either.

    RFC 5322 §3.6.2: with several mailboxes in From, Sender MUST be there.
    """
    authors = mailboxes(written)
    if not authors or (len(authors) == 1 and owns(authors[0])):
        return False
    sender = message.first(octets, b"sender")
    if sender is None:
        return True
    named = mailboxes(sender)
    return len(named) != 1 or not owns(named[0])


def mailboxes(value: str) -> list[Address]:
    """The addresses in the value of an address field; display names, comments and group names are passed over.

    Nothing for a value that is too long to be looked at.
    """
    if len(value) > _VALUE_MAX:
        return []
    for _ in range(8):  # comments nest (RFC 5322 §3.2.2), not deeper than anybody writes
        before, value = value, _COMMENT.sub(lambda match: match[1] or " ", value)
        if value == before:
            break
    found = list(_MAILBOX.finditer(value))
    angles = [match["angle"] for match in found if match["angle"] is not None]
    written = angles or [match["bare"] for match in found if match["bare"] is not None]
    return [address for text in written if (address := parse_mailbox(text.strip())) is not None]


def without(octets: bytes, name: bytes) -> bytes:
    """`octets` without any field called `name` (in lower case) in the header section."""
    end = message.header_end(octets)
    section = b"\r\n" + octets[:end]
    lowered = section.lower()
    # Blanks before the colon are of a syntax of old, which receivers still take (RFC 5322 §4.5).
    mark = re.compile(b"\r\n" + re.escape(name) + b"[ \t]*:")
    kept: list[bytes] = []
    start, found = 0, mark.search(lowered)
    while found is not None:
        at = found.start()
        kept.append(section[start:at])
        start = _line_end(section, at + 2)
        while section[start + 2 : start + 3] in (b" ", b"\t"):
            start = _line_end(section, start + 2)
        found = mark.search(lowered, start)
    kept.append(section[start:])
    return b"".join(kept)[2:] + octets[end:]


def _line_end(section: bytes, start: int) -> int:
    found = section.find(b"\r\n", start)
    return len(section) if found < 0 else found
