"""What rewriting makes of the addresses of a message, for `postroad route`: when it is accepted, and at its next hop.

It asks the maps from this process, as a worker would. How it fails: a text says what cannot be told. Not here: aliases,
SRS and BATV.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

import msgspec

from postroad.mail.address import canonical_domain, path
from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.rewriting import Rewriting
from postroad.mail.route import Destination
from postroad.maps.maps import Maps, make
from postroad.operate.maps import needed
from postroad.route.by_next_hop import ByNextHop
from postroad.route.choosing import NOBODYS
from postroad.route.domains import OwnNames
from postroad.route.generic import Naming
from postroad.route.outbound import generic_names, outbound
from postroad.route.rewriting import is_ours_in, rewriter
from postroad.route.table import RoutingTable
from postroad.world.clock import SystemClock

if TYPE_CHECKING:
    from postroad.config.settings import Settings


class Renamed(msgspec.Struct, frozen=True):
    """The envelope and the recipient as they are now. `changes`: what was changed, in words."""

    envelope: Envelope
    recipient: Recipient
    changes: tuple[str, ...] = ()


async def accepted(
    settings: Settings, ourselves: OwnNames, envelope: Envelope, recipient: Recipient
) -> Renamed | str:
    """As they are stored."""
    from postroad.config import options

    wanted = options.rewrite_options(settings)
    given = wanted.canonical_maps, wanted.sender_canonical_maps, wanted.recipient_canonical_maps
    unchanged = Renamed(envelope, recipient)
    if not (any(given) or wanted.masquerade_domains):
        return unchanged
    maps = _maps(settings, tuple(name for names in given for name in names))
    if isinstance(maps, str):
        return maps
    try:
        asked = msgspec.structs.replace(wanted, always_bcc=(), sender_bcc_maps=(), recipient_bcc_maps=())
        rewrite = rewriter(
            asked, maps.named, is_ours=lambda domain: _is_ours(settings, ourselves, domain), origin=_origin(settings),
            delimiter=settings.routing.detail_delimiter, ourselves=ourselves,
        )  # fmt: skip
        assert rewrite is not None
        sender = None if envelope.reverse_path == NOBODYS.sender else envelope.reverse_path
        found = rewrite(envelope.peer, sender, (recipient,), ())
        made = found if isinstance(found, Rewriting) else await found
    finally:
        maps.close()
    if made.not_now:
        return made.not_now
    (now,) = made.recipients
    changes = made.changes
    if now.address != recipient.address:
        changes = (*changes, f"the recipient {path(recipient.address)} became {path(now.address)}")
    if sender is not None:
        envelope = msgspec.structs.replace(envelope, reverse_path=made.reverse_path)
    return Renamed(envelope, now, changes)


async def sent(
    settings: Settings, ourselves: OwnNames, envelope: Envelope, recipient: Recipient, destination: Destination
) -> tuple[str, ...] | str:
    """What the next hop hears instead of their names, in words."""
    from postroad.config import options

    routed = options.routing_options(settings)
    maps = _maps(settings, tuple(name for hop in routed.next_hops for name in hop.generic_maps))
    if isinstance(maps, str):
        return maps
    try:
        names = generic_names(
            routed, maps.named, is_ours=lambda domain: _is_ours(settings, ourselves, domain), origin=_origin(settings)
        )
        renames = outbound(routed, names)
        if renames is None:
            return ()
        if envelope.reverse_path == NOBODYS.sender:
            envelope = msgspec.structs.replace(envelope, reverse_path=None)
        answer = Naming(ByNextHop(routed, names.get)).asked(envelope, recipient, destination)
        found = await answer if isinstance(answer, Awaitable) else answer
        if isinstance(found, Attempt):
            return found.text
        said = renames(envelope, recipient, destination)
    finally:
        maps.close()
    if said.not_now:
        return said.not_now
    changes = [] if said.reverse_path == envelope.reverse_path else [f"sent from {path(said.reverse_path)}"]
    if said.forward_path != recipient.address:
        changes.append(f"sent to {path(said.forward_path)}")
    return tuple(changes)


def _maps(settings: Settings, names: tuple[str, ...]) -> Maps | str:
    from postroad.config import options

    made = make(needed(options.map_options(settings), names), SystemClock(), lambda level, text: None)
    return made if isinstance(made, Maps) else "; ".join(map(str, made))


def _origin(settings: Settings) -> str:
    return canonical_domain(settings.sendmail.domain or settings.hostname)


def _is_ours(settings: Settings, ourselves: OwnNames, domain: str) -> bool:
    from postroad.config import options

    return is_ours_in(RoutingTable(options.routing_options(settings), ourselves), _origin(settings), domain)
