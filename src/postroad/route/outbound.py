"""Names of sender and recipients for a next hop: `generic` and `generic_maps` of a `[[next_hop]]` (`mail.job`).

As with smtp_generic_maps of Postfix, a machine whose own names mean nothing outside gives its mail other ones on the
way out. They count for the sender and for the recipients of all mail that goes to the server, or by the MX of its
domain; the null reverse-path stays as it is (`route.generic`).

What always holds: nothing of it is stored; mail that ends here (Maildir, LMTP, program) is never renamed. Not here:
header fields (`route.way_out`).
"""

from __future__ import annotations

from collections.abc import Callable

from postroad.mail.address import Address
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.job import Outbound, Sent
from postroad.mail.route import Destination
from postroad.maps.face import NotNow
from postroad.route.by_next_hop import ByNextHop
from postroad.route.generic import GenericNames
from postroad.route.options import NextHop, RoutingOptions
from postroad.route.rewriting import AddressKeys, AddressMaps, Named

HopNames = dict[NextHop, GenericNames]


def outbound(options: RoutingOptions, names: HopNames) -> Outbound | None:
    """How mail is renamed; None if no table renames any."""
    return _Renamed(ByNextHop(options, names.get)) if names else None


def generic_names(
    options: RoutingOptions, named: Named, *, is_ours: Callable[[str], bool], origin: str
) -> HopNames:
    """The names of all next hops that have some. `named`: the maps of these names; `is_ours`, `origin`: as for
    `route.rewriting.AddressMaps`."""
    delimiter = options.detail_delimiter

    def maps(names: tuple[str, ...]) -> AddressMaps | None:
        keys = AddressKeys(named(names), is_ours, delimiter)
        return AddressMaps(keys, "generic_maps", origin=origin) if names else None

    return {
        hop: GenericNames(hop.generic, delimiter, maps(hop.generic_maps))
        for hop in options.next_hops
        if hop.generic or hop.generic_maps
    }


class _Renamed:
    """All names of one configuration (`mail.job.Outbound`)."""

    def __init__(self, tables: ByNextHop[GenericNames]) -> None:
        self._tables = tables

    def __call__(self, envelope: Envelope, recipient: Recipient, destination: Destination) -> Sent:
        sender = envelope.reverse_path
        names = self._tables.of(destination)
        if names is None:
            return Sent(sender, recipient.address)
        path = None if sender is None else names.at_once(sender)
        forward_path = names.at_once(recipient.address)
        if isinstance(path, NotNow) or isinstance(forward_path, NotNow):
            return Sent(sender, recipient.address, _why(path) or _why(forward_path))
        return Sent(path, forward_path)


def _why(found: Address | NotNow | None) -> str:
    return found.text if isinstance(found, NotNow) else ""
