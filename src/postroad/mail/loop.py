"""Marks against loops: a header field tells this node what it has already done with a message.

Other programs write fields such as Delivered-To with the same words, and anybody can forge them; so they do not count.
Our mark is a keyed hash of what was done (delivered to this mailbox, led through this alias) and of the Message-ID.
Only a holder of the node's secret can make a mark; it tells others nothing, and it means nothing in another message.
All marks stand in fields with the name `NAME`.

What always holds: a message with a mark of ours has been where the mark says. How it fails: if a program in the circle
drops the field, or changes the Message-ID, the limit of Received fields ends the loop (RFC 5321 §6.3); so it does for
older mail, which has no marks. Not here: what becomes of a message that comes back (`receive.loops`).
"""

from __future__ import annotations

import unicodedata
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from hashlib import blake2b
from itertools import islice
from typing import Final

from postroad.mail import message
from postroad.mail.address import Address

NAME: Final = "X-Postroad-Loop"
MARKS_MAX: Final = 100  # marks that are written at one time, and read of one field
FIELDS_MAX: Final = 1_000  # fields that are read
_LOWERED: Final = NAME.lower().encode()
_SIZE: Final = 12  # octets of a hash: 16 characters
_LENGTH: Final = 16
_DELIVERED: Final = b"delivered"
_EXPANDED: Final = b"expanded"
_COPIED: Final = b"copied"


class Marks:
    """The marks that a secret makes. All workers of a node have the same one."""

    def __init__(self, secret: bytes) -> None:
        self._key = blake2b(secret, digest_size=32, person=b"postroad loops").digest()

    def delivered(self, mailbox: Address, message_id: str) -> str:
        """The message has been handed to the mailbox."""
        return self._mark(_DELIVERED, mailbox, message_id)

    def expanded(self, alias: Address, message_id: str) -> str:
        """The message has been led through the alias."""
        return self._mark(_EXPANDED, alias, message_id)

    def copied(self, mailbox: Address, message_id: str) -> str:
        """A copy of the message goes to the mailbox."""
        return self._mark(_COPIED, mailbox, message_id)

    def _mark(self, kind: bytes, mailbox: Address, message_id: str) -> str:
        local_part = mailbox.local_part
        if not local_part.isascii():
            local_part = unicodedata.normalize("NFC", local_part)
        # Relays may fold a field anew: white space counts for nothing.
        said = b"\0".join((
            kind, local_part.lower().encode("utf-8", "backslashreplace"), mailbox.domain.encode(),
            "".join(message_id.split()).encode("utf-8", "backslashreplace"),
        ))  # fmt: skip
        return urlsafe_b64encode(blake2b(said, key=self._key, digest_size=_SIZE).digest()).decode()


def field(marks: Iterable[str]) -> bytes:
    """The field that bears these marks, b"" for none; at most `MARKS_MAX` of them, four to a line."""
    written = list(islice(marks, MARKS_MAX))
    if len(written) == 1:  # mostly: one alias, one mailbox
        return f"{NAME}: {written[0]}\r\n".encode()
    lines = [" ".join(written[at : at + 4]) for at in range(0, len(written), 4)]
    folded = "\r\n\t".join(lines)
    return f"{NAME}: {folded}\r\n".encode() if lines else b""


def found(section: bytes) -> frozenset[str]:
    """What may be marks in a header section. In nearly all mail there are none: one search."""
    if _LOWERED not in section.lower():
        return frozenset()
    fields = (each for each in message.fields(section) if each.name.lower().encode() == _LOWERED)
    return frozenset(
        word
        for each, _ in zip(fields, range(FIELDS_MAX), strict=False)
        for word in each.text.split()[:MARKS_MAX]
        if len(word) == _LENGTH
    )
