"""Decides who may start which queue by ETRN (RFC 1985 §4: a server need not do it for everyone).

Pure. A node is allowed if one row holds both the node and the client, by its network or its account.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from postroad.mail.envelope import Peer


class EtrnRow(msgspec.Struct, frozen=True):
    """Who may start the queues of some domains. A domain may be a pattern: ``example.org``, ``.example.org`` for all
    below it, ``*``."""

    domains: Annotated[tuple[str, ...], Meta(min_length=1, description="The domains whose queue may be started.")]
    networks: Annotated[tuple[str, ...], Meta(description="Networks whose clients may use ETRN.")] = ()
    accounts: Annotated[
        tuple[str, ...],
        Meta(
            description="Accounts that may use ETRN after they have authenticated.",
        ),
    ] = ()


class EtrnOptions(msgspec.Struct, frozen=True):
    """`rows`: who may start what. Without any, ETRN is not offered."""

    rows: tuple[EtrnRow, ...] = ()
    interval_s: Annotated[
        float,
        Meta(
            ge=0,
            description="After ETRN has started a queue, how long it takes until ETRN can start this queue again.",
        ),
    ] = 60.0
    names_max: Annotated[
        int,
        Meta(
            ge=1,
            description="The most queues that one client may start within that time. One more ETRN is answered 458.",
        ),
    ] = 20


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
