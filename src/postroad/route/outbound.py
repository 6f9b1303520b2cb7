"""Names of sender and recipients for a next hop: the table `generic` of a `[[next_hop]]` (`mail.job`).

As with smtp_generic_maps of Postfix, a machine whose own names mean nothing outside gives its mail other ones on the
way out. A table counts for the sender and for the recipients of all mail that goes to its server, or by the MX of its
domain; the null reverse-path stays as it is. The order is that of generic(5): the mailbox with its address extension,
the mailbox without it, then ``@domain``. A result ``@domain`` keeps the local-part as it was written.

What always holds: pure; nothing of it is stored; mail that ends here (Maildir, LMTP, program) is never renamed. Not
here: header fields, which stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable

from postroad.mail.address import Address
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.job import Outbound, Sent
from postroad.mail.route import APART, FROM, Destination, Transport, plain_key
from postroad.route.choosing import NextHops, mailboxes
from postroad.route.domains import DomainTable
from postroad.route.options import Generic, RoutingOptions
from postroad.route.table import destination_of_hop


def outbound(options: RoutingOptions) -> Outbound | None:
    """How mail is renamed; None if no table renames any."""
    return _Tables(options) if any(hop.generic for hop in options.next_hops) else None


class _Tables:
    """All tables of one configuration (`mail.job.Outbound`)."""

    def __init__(self, options: RoutingOptions) -> None:
        hops, delimiter = options.next_hops, options.detail_delimiter
        self._next_hops = NextHops(hops, delimiter)
        apart = DomainTable((name, True) for name in options.apart)
        # Also those that rename nothing: a domain that goes apart may have a table of its own for the same server.
        self._of_server = {
            destination_of_hop(hop, hop.domain if hop.domain and apart.find(hop.domain) else "").key: (
                _Table(hop.generic, delimiter) if hop.generic else None
            )
            for hop in hops
            if hop.has_server
        }
        by_mx = (hop for hop in hops if hop.generic and not hop.has_server)
        self._of_domain = {hop.domain: _Table(hop.generic, delimiter) for hop in by_mx}

    def __call__(self, envelope: Envelope, recipient: Recipient, destination: Destination) -> Sent:
        sender = envelope.reverse_path
        table = self._table(destination)
        if table is None:
            return Sent(sender, recipient.address)
        return Sent(None if sender is None else table.of(sender), table.of(recipient.address))

    def _table(self, destination: Destination) -> _Table | None:
        if destination.transport is not Transport.SMTP:
            return None
        key = plain_key(destination.key)
        if destination.domain == key.partition(FROM)[0]:  # by the MX of the recipients' domain
            hop = self._next_hops.for_all(destination.domain)
            return self._of_domain.get(hop.domain) if hop is not None and not hop.has_server else None
        if key in self._of_server:
            return self._of_server[key]
        return self._of_server.get(key.removesuffix(APART + destination.apart)) if destination.apart else None


class _Table:
    """One table."""

    def __init__(self, entries: Iterable[Generic], delimiter: str) -> None:
        self._delimiter = delimiter
        self._names = {entry.pattern: entry.result for entry in entries}

    def of(self, address: Address) -> Address:
        """The name of a mailbox at the next hop."""
        for name in (*mailboxes(address, self._delimiter), f"@{address.domain}"):
            found = self._names.get(name)
            if found is not None:
                return found if found.local_part else Address(address.local_part, found.domain)
        return address
