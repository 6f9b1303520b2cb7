"""Mailboxes to which others send reports: their mail takes the same way as before, but by a courier that reads it.

A recipient is such a mailbox by its own name or by that under which it was given, before an alias led it elsewhere;
local-parts count without regard to case and without their address extension. What always holds: only the key and
`reports` of a destination change, so its mail waits apart from other mail.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from functools import partial

import msgspec

from postroad.mail.address import Address, canonical_domain
from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.route import REPORTS, Destination
from postroad.mail.routing import Answer, DestinationOf, Found
from postroad.route.later import Later
from postroad.route.recipients import fold


class ReportMailboxes:
    """The mailboxes, by their names."""

    def __init__(self, addresses: Iterable[str] = (), delimiter: str = "+") -> None:
        self._delimiter = delimiter
        self._names = frozenset(
            (fold(local_part, delimiter), canonical_domain(domain))
            for local_part, _, domain in (address.rpartition("@") for address in addresses)
        )

    def __bool__(self) -> bool:
        return bool(self._names)

    def __contains__(self, address: object) -> bool:
        if not self._names or not isinstance(address, Address):
            return False
        return (fold(address.local_part, self._delimiter), address.domain) in self._names


class ReportRoute:
    """Destinations by `route` (`mail.routing.DestinationOf`)."""

    def __init__(self, mailboxes: ReportMailboxes, route: DestinationOf) -> None:
        self._mailboxes = mailboxes
        self._route = route

    def __call__(self, envelope: Envelope, recipient: Recipient) -> Answer:
        found = self._route(envelope, recipient)
        mailboxes, given = self._mailboxes, recipient.given
        if recipient.address not in mailboxes and (given is None or given not in mailboxes):
            return found
        if isinstance(found, Destination):
            return _read_first(found)
        return found if isinstance(found, Attempt) else Later(partial(_wait, found))


async def _wait(pending: Awaitable[Found]) -> Found:
    found = await pending
    return _read_first(found) if isinstance(found, Destination) else found


def _read_first(found: Destination) -> Destination:
    return msgspec.structs.replace(found, key=found.key + REPORTS, reports=True)
