"""Makes the header section of a message ready that a user of this machine hands over, as Postfix's sendmail does.

If the caller wants it, recipients are read from it (To, Cc and Bcc; if the message is sent again, only Resent-To,
Resent-Cc and Resent-Bcc, RFC 5322 §3.6.6). Bcc and Resent-Bcc are removed in any case, and so are Content-Length and
Return-Path, which a user may not set. Addresses without a domain get the node's. A missing From is added, with the
user's full name; to a message that is sent again, Resent-From, Resent-Date and Resent-Message-ID. Everything else stays
as it was, in its order. Pure.
"""

from __future__ import annotations

import base64
import re
from typing import Final

import msgspec

from postroad.mail import message
from postroad.mail.address import Address
from postroad.protocol.mailboxes import mailboxes, qualified

_DROPPED: Final = frozenset((b"bcc", b"resent-bcc", b"content-length", b"return-path"))
_NAMED: Final = frozenset((b"to", b"cc", b"bcc"))
_RESENT_NAMED: Final = frozenset((b"resent-to", b"resent-cc", b"resent-bcc"))
_ADDRESSES: Final = frozenset((
    b"from", b"sender", b"reply-to", b"to", b"cc", b"resent-from", b"resent-sender", b"resent-reply-to", b"resent-to",
    b"resent-cc",
))  # fmt: skip
_PHRASE: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_WORD_OCTETS: Final = 39  # of text in an encoded word, which has at most 75 characters (RFC 2047 §2)


class LocalHead(msgspec.Struct, frozen=True):
    """`octets`: the content with the header section made ready. `recipients`: those that were wanted from it; None
    stands for something that is no address. `resent`: the message is sent again."""

    octets: bytes
    recipients: tuple[Address | None, ...] = ()
    resent: bool = False


def prepared(
    octets: bytes, *, extract: bool, domain: str, author: str, name: str, date: str, message_id: str
) -> LocalHead:
    """`octets`: content, at least its whole header section. `domain`: for addresses without one. `author`, `name`:
    mailbox and full name for a missing From. `date`, `message_id`: of sending again."""
    octets = message.joining(octets)
    end = message.header_end(octets)
    fields = _fields(octets[:end])
    names = {name for name, _ in fields}
    resent = any(each.startswith(b"resent-") for each in names)
    wanted = _RESENT_NAMED if resent else _NAMED
    recipients: list[Address | None] = []
    kept: list[bytes] = []
    for field, raw in fields:
        if extract and field in wanted:
            value = raw.partition(b":")[2].decode("utf-8", "surrogateescape")
            recipients += mailboxes(value, domain=domain, value_max=message.HEADER_MAX)
        if field in _ADDRESSES:
            raw = _qualified(raw, domain)
        if field not in _DROPPED:
            kept.append(raw)
    if b"from" not in names and author:
        kept.append(_from(b"From", author, name))
    if resent:  # RFC 5322 §3.6.6: Resent-Date and Resent-From MUST be there
        if b"resent-from" not in names and author:
            kept.append(_from(b"Resent-From", author, name))
        if b"resent-date" not in names:
            kept.append(b"Resent-Date: %s\r\n" % date.encode())
        if b"resent-message-id" not in names:
            kept.append(b"Resent-Message-ID: %s\r\n" % message_id.encode())
    body = octets[end:]
    if kept and body and not body.startswith(b"\r\n"):
        body = b"\r\n" + body
    return LocalHead(b"".join(kept) + (body or b"\r\n"), tuple(recipients), resent)


def _fields(section: bytes) -> list[tuple[bytes, bytes]]:
    """The name of each field in lower case, and the field as it stands, with its CRLF."""
    found: list[tuple[bytes, bytes]] = []
    lines: list[bytes] = []
    for line in section.splitlines(keepends=True):
        if line[:1] in (b" ", b"\t") and lines:
            lines.append(line)
            continue
        if lines:
            found.append(_named(lines))
        lines = [line]
    if lines:
        found.append(_named(lines))
    return found


def _named(lines: list[bytes]) -> tuple[bytes, bytes]:
    raw = b"".join(lines)
    if not raw.endswith(b"\r\n"):
        raw += b"\r\n"
    return raw.partition(b":")[0].rstrip(b" \t").lower(), raw


def _qualified(raw: bytes, domain: str) -> bytes:
    name, _, value = raw.partition(b":")
    text = value.decode("utf-8", "surrogateescape")
    changed = qualified(text, domain)
    return raw if changed is text else name + b":" + changed.encode("utf-8", "surrogateescape")


def _from(field: bytes, author: str, name: str) -> bytes:
    name = " ".join(name.split())
    shown = f"{_phrase(name)} <{author}>" if name else author
    return b"%s: %s\r\n" % (field, shown.encode())


def _phrase(name: str) -> str:
    """A display-name (RFC 5322 §3.4), in encoded words if it is not ASCII (RFC 2047 §5)."""
    if name.isascii():
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        return name if _PHRASE.fullmatch(name) else f'"{quoted}"'
    words: list[bytes] = [b""]
    for char in name:
        octets = char.encode("utf-8", "replace")
        if len(words[-1]) + len(octets) > _WORD_OCTETS:
            words.append(b"")
        words[-1] += octets
    return "\r\n ".join(f"=?utf-8?B?{base64.b64encode(word).decode()}?=" for word in words)
