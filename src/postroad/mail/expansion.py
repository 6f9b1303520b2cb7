"""What aliases made of the recipients of one message: the value that `route` (which expands) gives to `receive` (which
asks)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from postroad.mail.address import Address
from postroad.mail.envelope import Recipient
from postroad.mail.event import Event

Passed = Callable[[Address], bool]
"""Whether the message has been led through this alias before."""


class InLoop(str):
    """Why aliases lead to nobody: they go in a circle, or too many follow one another."""

    __slots__ = ()


def excess_status(excess: str) -> str:
    """The enhanced status code of what aliases have too much of (RFC 3463 §3.3, §3.5)."""
    return "5.4.6" if isinstance(excess, InLoop) else "5.2.4"


class Expansion(msgspec.Struct, frozen=True):
    """The recipients that there are now, and what happened to the others.

    No recipients left means that all went into nothing, as the aliases say, or are in `stopped`. `through`: the aliases
    that the message is led through. `stopped`: aliases that it has been led through before (a loop), or mailboxes that
    have it already. `excess`: why the aliases lead to more than they may, "" if they do not; nothing is expanded
    then. `not_now`: why aliases cannot be looked up at the moment, "" if they were.
    """

    recipients: tuple[Recipient, ...]
    events: tuple[Event, ...] = ()
    through: tuple[Address, ...] = ()
    stopped: tuple[Address, ...] = ()
    excess: str = ""
    not_now: str = ""
