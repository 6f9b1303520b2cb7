"""Finds contradictions about who may send through this node: open relays, relay domains, ETRN."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final

from postroad.check.etrn import covers
from postroad.config.finding import Finding
from postroad.config.locate import Path
from postroad.config.settings import Settings
from postroad.mail.policy import Role


def open_relays(settings: Settings) -> Iterator[Finding]:
    """Networks so wide that whoever is in them is a stranger: an open relay is found within hours and listed."""
    for index, listener in enumerate(settings.listener):
        relays = listener.role is Role.RELAY or (listener.role is Role.SUBMISSION and listener.trust_network)
        for place, written in enumerate(listener.trusted_networks if relays else ()):
            if written != "unix" and _is_everyone(ipaddress.ip_network(written)):
                here = ("listener", index)
                yield Finding(
                    ((*here, "trusted_networks", place), (*here, "trusted_networks"), (*here, "role")),
                    f"The listener {listener.name!r} would be an open relay: {written} may relay to anywhere",
                    'Name your own networks only; strangers send to your domains through a listener with role = "mx"',
                )


def _is_everyone(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    """Whether a network has more public addresses than any registry gives to one owner."""
    return network.prefixlen < _WIDEST[network.version] and (network.prefixlen == 0 or not network.is_private)


_WIDEST: Final = {4: 8, 6: 16}


def open_relay_domains(settings: Settings) -> Iterator[Finding]:
    """Relay domains so wide that they are not ours: whoever connects could send to anywhere through this node."""
    taking = [
        each for each in settings.listener if each.role is Role.MX or (each.role is Role.RELAY and each.strangers)
    ]
    if not taking:
        return
    relayed: list[tuple[Path, str]] = [
        *((("relay", "domains", index), name) for index, name in enumerate(settings.relay.domains)),
        *((("relay", "domain", index, "name"), each.name) for index, each in enumerate(settings.relay.domain)),
    ]
    for path, pattern in relayed:
        if pattern == "*" or _is_public_suffix(pattern):
            whom = "every domain" if pattern == "*" else f"every domain below {pattern}"
            yield Finding(
                (path,),
                f"The listener {taking[0].name!r} would be an open relay: anybody may send to {whom}",
                "Name your own domains only. To send mail for all other domains to one server, write a [[next_hop]] "
                'with domain = "*"; who may send there, the listeners with role = "submission" or "relay" say',
            )


def _is_public_suffix(pattern: str) -> bool:
    """Whether everything below is sold to anybody: the domains of countries and the oldest of the others. A pattern of
    one label may also be a network's own (``.internal``) or one owner's."""
    label = pattern.removeprefix(".")
    return pattern.startswith(".") and "." not in label and (len(label) == 2 or label in _PUBLIC_SUFFIXES)


_PUBLIC_SUFFIXES: Final = frozenset(("arpa", "biz", "com", "edu", "gov", "info", "int", "mil", "name", "net", "org"))


def etrn(settings: Settings) -> Iterator[Finding]:
    """ETRN that nobody may use, or for domains that are not relay domains."""
    relayed = {*settings.relay.domains, *(each.name for each in settings.relay.domain)}
    any_domain = any(each.domain_maps for each in settings.relay.domain)  # maps say which ones there are
    for index, row in enumerate(settings.relay.etrn):
        here = ("relay", "etrn", index)
        if not (row.networks or row.accounts):
            yield Finding(
                ((*here, "domains"), here),
                "Nobody may use ETRN for these domains: neither networks nor accounts are set",
                'Add networks = ["192.0.2.0/24"], or accounts = ["name"]',
            )
        for place, domain in enumerate(row.domains):
            if not any_domain and domain not in relayed and not any(covers(pattern, domain) for pattern in relayed):
                yield Finding(
                    ((*here, "domains", place), (*here, "domains")),
                    f"ETRN is only for relay domains, and {domain!r} is not a relay domain",
                    "Add it to domains under [relay], or remove it here",
                )


def recipients(settings: Settings) -> Iterator[Finding]:
    """A relay domain with known recipients, but without any."""
    for index, domain in enumerate(settings.relay.domain):
        here = ("relay", "domain", index)
        if not (domain.recipients or domain.recipients_file or domain.recipient_maps or domain.verify):
            yield Finding(
                ((*here, "recipients"), (*here, "recipients_file"), (*here, "recipient_maps")),
                f"{domain.quoted} has no recipients",
                "Name them, or move the domain to domains under [relay], which accepts mail for any recipient",
            )
