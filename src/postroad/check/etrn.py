"""Who may start which queue by ETRN (RFC 1985 §4: a server need not do it for everyone).

Pure. A node is allowed if one row holds both the node and the client, by its network or its account.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import msgspec

from postroad.mail.envelope import Peer


class EtrnRow(msgspec.Struct, frozen=True):
    """`domains`: ``example.org``, ``.example.org`` for all below it, ``*``. `networks`: as addresses or networks, or
    "unix"; `accounts`: names of accounts."""

    domains: tuple[str, ...]
    networks: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()


class EtrnOptions(msgspec.Struct, frozen=True):
    """`rows`: who may start what; without any ETRN is not offered. `interval_s`: how long a queue that was started is
    not started again. `names_max`: how many queues one client may have started within it."""

    rows: tuple[EtrnRow, ...] = ()
    interval_s: float = 60.0
    names_max: int = 20


def is_allowed(rows: Sequence[EtrnRow], peer: Peer, domain: str) -> bool:
    """Whether this client may start the queue of a canonical domain."""
    return any(_names(row, domain) and _holds(row, peer) for row in rows)


def _names(row: EtrnRow, domain: str) -> bool:
    return any(covers(pattern, domain) for pattern in row.domains)


def covers(pattern: str, domain: str) -> bool:
    """Whether a pattern of domains means this one."""
    return pattern in ("*", domain) or (pattern.startswith(".") and domain.endswith(pattern))


def _holds(row: EtrnRow, peer: Peer) -> bool:
    if peer.identity and peer.identity in row.accounts:
        return True
    if not peer.address:
        return "unix" in row.networks
    address = ipaddress.ip_address(peer.address)
    networks = (ipaddress.ip_network(text) for text in row.networks if text != "unix")
    return any(address in network for network in networks if network.version == address.version)
