"""Decides whether a Selection means a message: pure, for every engine."""

from __future__ import annotations

from postroad.mail.address import Address
from postroad.mail.envelope import Envelope
from postroad.store.values import Selection


def means_states(selection: Selection, waiting: frozenset[tuple[str, bool]]) -> bool:
    """`waiting`: (destination, held) of the recipients that wait; none of a fresh message."""
    states = {held for destination, held in waiting if selection.destination in ("", destination)}
    if selection.destination and not states:
        return False
    return selection.held is None or (True in states) is selection.held


def means_envelope(selection: Selection, envelope: Envelope) -> bool:
    """Whether the selection means this message, by everything except its id and the states of recipients."""
    return (
        (not selection.sender or names(selection.sender, envelope.reverse_path))
        and (not selection.recipient or _has_recipient(selection.recipient, envelope))
        and (not selection.message_id or envelope.message_id.strip("<>") == selection.message_id.strip("<>"))
    )


def _has_recipient(wanted: str, envelope: Envelope) -> bool:
    return any(
        names(wanted, each.address) or (each.given is not None and names(wanted, each.given))
        for each in envelope.recipients
    )


def names(wanted: str, address: Address | None) -> bool:
    """Whether `wanted` (an address, ``@domain``, ``@.domain`` for all domains below it, or ``<>``) means `address`, in
    upper or lower case."""
    if address is None:
        return wanted == "<>"
    if wanted.startswith("@."):
        return address.domain.endswith(wanted[1:].lower())
    if wanted.startswith("@"):
        return address.domain == wanted[1:].lower()
    return str(address).lower() == wanted.lower() or address.readable().lower() == wanted.lower()
