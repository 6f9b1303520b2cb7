"""Finds contradictions among the settings of listeners: places, roles, proxies, greeting, protocol."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from itertools import combinations

from postroad.config.finding import Finding
from postroad.config.listening import UNIX, ListenerSection
from postroad.config.settings import Settings
from postroad.mail.policy import Role
from postroad.protocol.offer import Dialect
from postroad.receive.options import EarlyTalker, ListenerTls, Proxy


def same_place(settings: Settings) -> Iterator[Finding]:
    """Two listeners at one address and port."""
    taken = [
        (("listener", index), place) for index, listener in enumerate(settings.listener) for place in places(listener)
    ]
    for (one, place), (other, other_place) in combinations(taken, 2):
        if _overlap(place, other_place):
            name = settings.listener[one[1]].name
            key = "address" if one == other or other_place[0].startswith(UNIX) else "port"
            yield Finding(
                ((*other, key), (*other, "address"), (*other, "port"), (*one, "address"), (*one, "port")),
                f"{shown(other_place)} is already used by the listener {name!r} ({shown(place)})",
                "Give each listener its own address or port",
            )


def places(listener: ListenerSection) -> list[tuple[str, int]]:
    """Each address with its port, 0 for a Unix socket."""
    return [(address, 0 if address.startswith(UNIX) else listener.port) for address in listener.address]


def _overlap(one: tuple[str, int], other: tuple[str, int]) -> bool:
    if one[1] != other[1]:
        return False
    if one[0] == other[0]:
        return True
    if UNIX in one[0] or UNIX in other[0]:
        return False
    first, second = ipaddress.ip_address(one[0]), ipaddress.ip_address(other[0])
    return first.version == second.version and (first.is_unspecified or second.is_unspecified)


def shown(place: tuple[str, int]) -> str:
    """``127.0.0.1:25``, ``[::1]:25``, ``unix:/path``."""
    address, port = place
    return address if address.startswith(UNIX) else f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def roles(settings: Settings) -> Iterator[Finding]:
    """A listener whose role lacks what it needs, or with keys of another role."""
    for index, listener in enumerate(settings.listener):
        here = ("listener", index)
        if listener.role is Role.MX and not (settings.domain or settings.relay.domains or settings.relay.domain):
            yield Finding(
                ((*here, "role"), ("domain",), ("relay",)),
                f"The listener {listener.name!r} accepts mail for our own domains, but there are no domains",
                "Add a [[domain]], or domains under [relay]",
            )
        trusting = listener.trusted_networks or listener.trusted_certificates
        if listener.role is Role.RELAY and not trusting and not listener.offers_auth:
            yield Finding(
                ((*here, "trusted_networks"), (*here, "trusted_certificates"), (*here, "role"), (*here, "auth")),
                f"Nobody may relay through the listener {listener.name!r}: it trusts no network and no certificate",
                'Add the networks of your clients, such as trusted_networks = ["192.0.2.0/24"]',
            )
        for key, role, what in (("trust_network", Role.SUBMISSION, "submission"), ("strangers", Role.RELAY, "relay")):
            if key in listener.model_fields_set and listener.role is not role:
                yield Finding(
                    ((*here, key), (*here, "role")),
                    f"This has no effect for the role {listener.role.value!r}",
                    f'Remove it: it is for the role "{what}"',
                )


def proxies(settings: Settings) -> Iterator[Finding]:
    """PROXY headers without proxies, or proxies without the header."""
    for index, listener in enumerate(settings.listener):
        here = ("listener", index)
        wanted = listener.proxy is not Proxy.NONE
        if wanted and not listener.proxy_networks:
            yield Finding(
                ((*here, "proxy"), (*here, "proxy_networks")),
                f"The listener {listener.name!r} expects PROXY headers, but trusts no proxy",
                'Add the addresses of your proxies, such as proxy_networks = ["192.0.2.10"]',
            )
        if listener.proxy_networks and not wanted:
            yield Finding(
                ((*here, "proxy_networks"), (*here, "proxy")),
                f"The listener {listener.name!r} has proxy_networks, but expects no PROXY header",
                'Write proxy = "v2" (or "v1", "any"), or remove proxy_networks',
            )


def early_talkers(settings: Settings) -> Iterator[Finding]:
    """Early talkers that cannot be found."""
    for index, listener in enumerate(settings.listener):
        here = ("listener", index)
        if listener.early_talker is EarlyTalker.REFUSE and not listener.greet_delay_s:
            yield Finding(
                ((*here, "early_talker"), (*here, "greet_delay_s")),
                "Without a delay before the greeting, no client can be caught speaking before it",
                "Add greet_delay_s = 2",
            )
        if listener.greet_delay_s and settings.tls_of(listener) is ListenerTls.IMPLICIT:
            yield Finding(
                ((*here, "greet_delay_s"), (*here, "tls")),
                "With TLS from the first octet, every client must speak before the greeting",
                "Remove greet_delay_s",
            )


def lmtp(settings: Settings) -> Iterator[Finding]:
    """LMTP on a port or for a role for which no RFC allows it."""
    for index, listener in enumerate(settings.listener):
        here = ("listener", index)
        if listener.protocol is not Dialect.LMTP:
            continue
        if listener.port == 25 and any(not address.startswith(UNIX) for address in listener.address):
            yield Finding(
                ((*here, "port"), (*here, "protocol"), (*here, "address")),
                "LMTP must not use port 25 (RFC 2033 §5)",
                "Use another port, such as 24, or a Unix socket",
            )
        for key in ("complete_clients", "complete_domain", "complete_hosts", "complete_others"):
            if key in listener.model_fields_set:
                text = "This has no effect with LMTP, whose clients are mail servers of our own"
                yield Finding(((*here, key), (*here, "protocol")), text, f"Remove {key}")
        if listener.role is Role.SUBMISSION:
            yield Finding(
                ((*here, "protocol"), (*here, "role")),
                "Submission uses SMTP (RFC 6409), not LMTP",
                'Write protocol = "smtp", or another role',
            )
