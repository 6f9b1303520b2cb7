"""Reads the text by which an operator names messages and recipients, and makes a Selection of it. Pure.

A queue id (12 characters), a Message-ID (``<...>``), an address, ``@domain`` for all recipients of a domain, else a
destination as `postroad queue` lists it. A prefix says which one is meant: ``id:``, ``to:``, ``from:``,
``destination:``.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from postroad.mail import identifier
from postroad.mail.message import MESSAGE_ID_MAX
from postroad.protocol.grammar import parse_mailbox
from postroad.store.values import Selection

MESSAGES_MAX = 1_000_000  # messages that one request can mean


def selections(written: Sequence[str], *, everything: bool, filtered: bool) -> tuple[Selection, ...] | str:
    """A Selection for each text, or what is wrong with them. `everything`: the whole queue was asked for; with a filter
    alone (`filtered`), the whole queue is what the filter narrows."""
    if everything and written:
        return "Give selectors or --all, not both."
    if everything or (filtered and not written):
        return (Selection(limit=MESSAGES_MAX),)
    if not written:
        return "Write a queue id, an address, a destination, or --all."
    found = []
    for each in map(selection, written):
        if isinstance(each, str):
            return each
        found.append(each)
    return tuple(found)


def selection(written: str) -> Selection | str:
    """The Selection, or what is wrong with what was written."""
    kind, colon, rest = written.partition(":")
    match kind if colon else "":
        case "id":
            number = identifier.parse(rest)
            return _of(ids=(number,)) if number is not None else f"{rest!r} is not a queue id (12 letters and digits)"
        case "to" if "@" in rest:
            return _of(recipient=address_of(rest))
        case "from" if "@" in rest or rest == "<>":
            return _of(sender=address_of(rest))
        case "to" | "from":
            return f"{rest!r} is neither an address nor @domain"
        case "destination" if rest:
            return _of(destination=rest)
    number = identifier.parse(written)
    if number is not None:
        return _of(ids=(number,))
    if written.startswith("<") and written.endswith(">") and len(written) > 2:
        return _of(message_id=message_id_of(written))
    if "@" in written and not written.endswith("@"):
        return _of(recipient=address_of(written))
    if not written or written.endswith("@"):
        return f"{written!r} names nothing: write a queue id, an address, or a destination"
    return _of(destination=written)


def address_of(written: str) -> str:
    """An address as log and history have it, if an operator left the quotes of its local-part out: ``a..b@c``."""
    parsed = parse_mailbox(written)
    text = str(parsed) if parsed is not None else ""
    return text if text.startswith('"') else written


def message_id_of(written: str) -> str:
    """A Message-ID as the envelope has it: no longer than that."""
    return written[:MESSAGE_ID_MAX]


def narrowed(each: Selection, *, sender: str, recipient: str, destination: str, held: bool | None) -> Selection:
    """`each` with what the options say on top; what it says itself stays."""
    return msgspec.structs.replace(
        each,
        sender=each.sender or sender,
        recipient=each.recipient or recipient,
        destination=each.destination or destination,
        held=held if each.held is None else each.held,
    )


def _of(**said: object) -> Selection:
    return msgspec.structs.replace(Selection(limit=MESSAGES_MAX), **said)
