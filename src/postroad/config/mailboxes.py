"""Which mailboxes there are at our own domains, for the check of aliases by the node and by `postroad check`."""

from __future__ import annotations

from collections.abc import Callable

from postroad.deliver.fitness import unfit
from postroad.deliver.options import MaildirOptions
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome
from postroad.mail.routing import Found
from postroad.maps.asked import AT_ONCE, Asked
from postroad.route.alias_file import Homes
from postroad.route.recipients import Recipients
from postroad.route.table import RoutingTable

Moved = Callable[[Address, Asked], bool | None]
"""Whether a mailbox has moved; None if nobody can tell at once."""


def homes(
    routing: RoutingTable, recipients: Recipients, maildir: MaildirOptions, moved: Moved | None = None
) -> Homes:
    """A mailbox to which mail can never come is not there, wherever it is. One that has moved counts as there: the
    sender hears of its new address."""

    mapped = bool(routing.options.transport_maps)
    many = tuple(local.name for local in routing.options.mapped_local)  # stand for domains that are not known yet

    def known(address: Address, asked: Asked = AT_ONCE) -> bool | None:
        found = is_there(address, asked)
        return moved(address, asked) if found is False and moved is not None else found

    def is_there(address: Address, asked: Asked) -> bool | None:
        if address.domain in many:
            return None
        # A transport map may send its mail elsewhere: that can be told only of the single mailbox, when it comes.
        if not mapped and unreachable(routing.destination(address), maildir, address) is not None:
            return False
        if asked is AT_ONCE and recipients.has_maps_for(address.domain):
            return None  # the entries of a map come and go; whether it is there shows when mail comes
        return recipients.known(address, asked) if routing.is_local(address.domain) else None

    names = tuple(local.name for local in routing.options.local)
    return Homes((*names, *many), known, routing.options.detail_delimiter)


def unreachable(found: Found, maildir: MaildirOptions, mailbox: Address) -> Attempt | None:
    """Why no mail can ever come to this very mailbox, as far as its destination and the way of delivery can tell."""
    if isinstance(found, Attempt):  # one that waits, is held or is thrown away has its way
        return found if found.outcome is Outcome.FAILED else None
    return unfit(found, mailbox, maildir)
