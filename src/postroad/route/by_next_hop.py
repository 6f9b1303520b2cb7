"""What the tables [[next_hop]] say of mail that goes to their server, found by its destination.

It belongs to the server, as the connections do, and not to the table that chose the server: mail of two tables may
share a connection, so two tables for one server say the same (`config.contradictions.next_hops`). Mail that ends here
(Maildir, LMTP, program) has no next hop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from postroad.mail.route import APART, FROM, Destination, Transport, plain_key
from postroad.route.choosing import NextHops
from postroad.route.domains import DomainTable
from postroad.route.options import NextHop, RoutingOptions
from postroad.route.table import destination_of_hop

T = TypeVar("T")


class ByNextHop(Generic[T]):
    """`made`: what a table says, None for nothing."""

    def __init__(self, options: RoutingOptions, made: Callable[[NextHop], T | None]) -> None:
        hops = options.next_hops
        self._next_hops = NextHops(hops, options.detail_delimiter)
        apart = DomainTable((name, True) for name in options.apart)
        # Also those that say nothing: a domain that goes apart may have a table of its own for the same server.
        self._of_server = {
            destination_of_hop(hop, hop.domain if hop.domain and apart.find(hop.domain) else "").key: made(hop)
            for hop in hops
            if hop.has_server
        }
        self._of_domain = {hop.domain: made(hop) for hop in hops if not hop.has_server}

    def of(self, destination: Destination) -> T | None:
        """What holds for this destination."""
        if destination.transport is not Transport.SMTP:
            return None
        key = plain_key(destination.key)
        if destination.domain == key.partition(FROM)[0]:  # by the MX of the recipients' domain
            hop = self._next_hops.for_all(destination.domain)
            return self._of_domain.get(hop.domain) if hop is not None and not hop.has_server else None
        if key in self._of_server:
            return self._of_server[key]
        return self._of_server.get(key.removesuffix(APART + destination.apart)) if destination.apart else None
