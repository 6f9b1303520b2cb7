"""The aliases and the mailboxes that have moved, made from the settings: for the node, for `postroad check` and for
`postroad route`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from postroad.config import mailboxes, options
from postroad.mail.address import canonical_domain
from postroad.maps.face import Map
from postroad.protocol.grammar import parse_mailbox
from postroad.route.aliases import Aliases
from postroad.route.forwards import Forwards
from postroad.route.recipients import Recipients
from postroad.route.relocated import Relocated
from postroad.route.rewriting import AddressKeys, is_ours_in
from postroad.route.table import RoutingTable

if TYPE_CHECKING:
    from postroad.config.settings import Settings

Named = Callable[[tuple[str, ...]], tuple[Map, ...]]
"""The maps of these names."""


def origin_of(settings: Settings) -> str:
    """The domain of addresses that are written without one."""
    return canonical_domain(settings.sendmail.domain or settings.hostname)


def relocated_of(settings: Settings, routing: RoutingTable, named: Named) -> Relocated | None:
    """None if no map says who has moved."""
    names = settings.rewrite.relocated_maps
    if not names:
        return None
    is_ours = partial(is_ours_in, routing, origin_of(settings))
    return Relocated(AddressKeys(named(names), is_ours, settings.routing.detail_delimiter))


def aliases_of(
    settings: Settings, routing: RoutingTable, recipients: Recipients, named: Named, relocated: Relocated | None,
    forwards: Forwards | None = None,
) -> Aliases:
    """The aliases, before their file is read. `recipients` must have been read by then."""
    routed = routing.options
    moved = None if relocated is None else relocated.has_moved
    return Aliases(
        str(settings.aliases) if settings.aliases is not None else "",
        routing.is_local,
        routed.detail_delimiter,
        parse_mailbox(routed.postmaster),
        mailboxes.homes(routing, recipients, options.deliver_options(settings).maildir, moved),
        options.alias_limits(settings),
        canonical_domain(settings.hostname),
        named(settings.alias_maps),
        has_own=routing.mapped is not None,
        options=options.outlet_options(settings),
        sources=options.alias_sources(settings),
        extensions_kept=routed.extensions_kept,
        catch_all_first=routed.catch_all_first,
        forwards=forwards,
        home_maps=(*recipients.maps, *named(settings.rewrite.relocated_maps)),
    )
