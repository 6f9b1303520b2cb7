"""What rewriting makes of one message when it is accepted: the rooms `route` (which rewrites) and `receive` (which asks
and applies) meet here."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

import msgspec

from postroad.mail.address import Address
from postroad.mail.envelope import Peer, Recipient


class Rewriting(msgspec.Struct, frozen=True):
    """`reverse_path` and `recipients`: as they are now, each recipient with what the client named in `given`.
    `sections`: the header sections that were asked with, as they are now. `copies`: mailboxes that get a copy, each
    with the setting that wants it. `changes`: what was changed of sender and header fields, in words. `not_now`:
    why maps cannot answer at the moment, `excess`: why the message cannot be rewritten at all; "" if it can."""

    reverse_path: Address | None
    recipients: tuple[Recipient, ...]
    sections: tuple[bytes, ...] = ()
    copies: tuple[tuple[Address, str], ...] = ()
    changes: tuple[str, ...] = ()
    not_now: str = ""
    excess: str = ""


class Rewrite(Protocol):
    """Asked once for each message, at the end of data. An awaitable if a map must be waited for."""

    def __call__(
        self, peer: Peer, reverse_path: Address | None, recipients: tuple[Recipient, ...], sections: tuple[bytes, ...]
    ) -> Rewriting | Awaitable[Rewriting]: ...
