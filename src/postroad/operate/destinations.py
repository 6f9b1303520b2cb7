"""Destinations for commands that work on the spool without a node, as far as the tables alone tell them.

The key is only the name under which a recipient waits. With transport maps it is not known, and the node finds it when
it takes the recipient up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroad.config import options
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.routing import Answer, DestinationOf, not_now
from postroad.route.table import RoutingTable

if TYPE_CHECKING:
    from postroad.config.settings import Settings


def destination_of(settings: Settings) -> DestinationOf:
    """By these settings."""
    if settings.routing.transport_maps:
        return _not_known
    return RoutingTable(options.routing_options(settings), outlets=options.outlet_options(settings)).route


def _not_known(envelope: Envelope, recipient: Recipient) -> Answer:
    return recipient.destination or not_now("transport maps are not asked now")
