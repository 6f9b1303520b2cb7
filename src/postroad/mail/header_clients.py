"""Whose mail has its header fields changed. Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable

from postroad.mail.envelope import Peer


class HeaderClients(enum.Enum):
    """Whose mail has addresses in its header fields changed."""

    NONE = "none"
    LOCAL = "local"  # programs of this machine, and clients at its own addresses
    KNOWN = "known"  # these, trusted networks and accounts
    ALL = "all"


def are_meant(clients: HeaderClients, peer: Peer, is_here: Callable[[Peer], bool]) -> bool:
    """Whether the mail of this client is meant. `is_here`: whether the client is this machine. Mail that came from
    elsewhere, as a filter says by XFORWARD, is mail of a stranger."""
    if clients is HeaderClients.ALL:
        return True
    if clients is HeaderClients.NONE or (peer.forwarded is not None and peer.forwarded.source == "REMOTE"):
        return False
    return is_here(peer) or (clients is HeaderClients.KNOWN and peer.is_known)
