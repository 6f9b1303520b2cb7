"""Mends a message at submission (RFC 6409 §8): Date, Message-ID, From and Sender, and nothing else.

What always holds: a field is put on top if it was missing, or replaces one whose value was useless. Every other octet
stays as it was, in its order, so that a signature over valid fields stays valid. `Bcc` stays, because its author wanted
it. The result is pure ASCII unless the sender's address is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from postroad.mail import message, trace
from postroad.mail.address import Address
from postroad.protocol.mailboxes import mailboxes

# RFC 5322 §3.3 with §4.3: [day-of-week ","] day month year hour ":" minute [":" second] zone, white space folded
_DATE: Final = re.compile(
    r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[ \t]*,)?[ \t]*\d{1,2}[ \t]+"
    r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[ \t]+\d{2,5}[ \t]+"
    r"\d{2}[ \t]*:[ \t]*\d{2}(?:[ \t]*:[ \t]*\d{2})?[ \t]+(?:[+-]\d{4}|[a-z]{1,5})(?:[ \t]*\(.*\))?[ \t]*",
    re.IGNORECASE,
)
# RFC 5322 §3.6.4 "<" id-left "@" id-right ">", read generously: what user agents make is seldom to the letter.
_MESSAGE_ID: Final = re.compile(r"<[^<>\s@]+@[^<>\s]+>")


def repaired(
    octets: bytes,
    *,
    reverse_path: Address | None,
    owns: Callable[[Address], bool] | None,
    message_id: str,
    submitted_us: int,
) -> tuple[bytes, bytes]:
    """The fields to add on top, and `octets` without the useless ones; `octets` hold the whole header section, and what
    follows is kept.

    `owns`: whether the authenticated account may call itself by an address; None if the client was authorised by
    its network, and no Sender is asked for. `message_id`: what to give a message that has none, with its angles.
    """
    octets = _divided(octets)
    section = octets[: message.header_end(octets)]
    useless: list[bytes] = []
    added: list[str] = []
    if (date := message.first(section, b"date")) is None or not _DATE.fullmatch(date):
        useless += () if date is None else (b"date",)
        added.append(_date(submitted_us))  # §8.2
    if (given := message.first(section, b"message-id")) is None or not _is_message_id(given):
        useless += () if given is None else (b"message-id",)
        added.append(f"Message-ID: {message_id}\r\n")  # §8.3
    written = message.first(section, b"from")
    if reverse_path is not None:
        if not written:
            useless += () if written is None else (b"from",)
            added.append(f"From: <{reverse_path}>\r\n")
        elif owns is not None and _wants_sender(section, written, owns):  # §8.1
            useless.append(b"sender")
            added.append(f"Sender: <{reverse_path}>\r\n")
    for name in useless:
        octets = message.without(octets, name)
    return _with(added, octets)


def dated(octets: bytes, *, message_id: str, submitted_us: int) -> tuple[bytes, bytes]:
    """Date and Message-ID to add on top of `octets` if there is none, and `octets`; all else stays as it is."""
    octets = _divided(octets)
    section = octets[: message.header_end(octets)]
    added: list[str] = []
    if not message.first(section, b"date"):
        added.append(_date(submitted_us))
        octets = message.without(octets, b"date")
    if not message.first(section, b"message-id"):
        added.append(f"Message-ID: {message_id}\r\n")
        octets = message.without(octets, b"message-id")
    return _with(added, octets)


def _divided(octets: bytes) -> bytes:
    """The content with an empty line if its header section ends without one, so that nobody reads on in it."""
    octets = message.joining(octets)
    end = message.header_end(octets)
    if end == len(octets) or octets.startswith(b"\r\n", end):
        return octets
    return octets[:end] + b"\r\n" + octets[end:]


def _with(added: list[str], octets: bytes) -> tuple[bytes, bytes]:
    if not added:
        return b"", octets
    return "".join(added).encode(), octets or b"\r\n"


def _date(at_us: int) -> str:
    return f"Date: {trace.date(at_us // 1_000_000)}\r\n"


def _is_message_id(text: str) -> bool:
    return len(text) <= message.MESSAGE_ID_MAX and _MESSAGE_ID.fullmatch(text) is not None


def _wants_sender(section: bytes, written: str, owns: Callable[[Address], bool]) -> bool:
    """Whether From does not name the account, or names several mailboxes, and Sender does not name it either.

    RFC 5322 §3.6.2: with several mailboxes in From, Sender MUST be there.
    """
    authors = [author for author in mailboxes(written) if author is not None]
    if not authors or (len(authors) == 1 and owns(authors[0])):
        return False
    sender = message.first(section, b"sender")
    if sender is None:
        return True
    named = mailboxes(sender)
    return len(named) != 1 or named[0] is None or not owns(named[0])
