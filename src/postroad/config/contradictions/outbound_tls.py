"""Finds what does not fit together in the demands for TLS of remotes: DANE without DNSSEC, names and fingerprints that
nothing compares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from postroad.config.contradictions.next_hops import has_server
from postroad.config.finding import Finding
from postroad.config.locate import Path
from postroad.config.settings import Settings
from postroad.mail.route import TlsDemand

_DANE: Final = (TlsDemand.DANE, TlsDemand.DANE_ONLY)
_WITH_NAMES: Final = (TlsDemand.VERIFY, TlsDemand.IMPLICIT)


def find(settings: Settings) -> Iterator[Finding]:
    """All that is wrong with them."""
    yield from _resolvers(settings)
    yield from _demands(settings)
    yield from _next_hops(settings)
    yield from _local(settings)


def _resolvers(settings: Settings) -> Iterator[Finding]:
    if settings.dns.validating and not settings.dns.servers:
        yield Finding(
            (("dns", "validating"), ("dns", "servers")),
            "The file of the system may name other resolvers tomorrow, so it is not known which resolvers validate",
            'Add servers = ["127.0.0.1"] with the addresses of the validating resolvers',
        )


def _demands(settings: Settings) -> Iterator[Finding]:
    """DANE without a resolver that validates would be no DANE at all."""
    tables: list[tuple[Path, TlsDemand | None]] = [(("routing",), settings.routing.tls)]
    tables += [(("next_hop", index), hop.tls) for index, hop in enumerate(settings.next_hop)]
    tables += [(("domain", index), domain.tls) for index, domain in enumerate(settings.domain)]
    for here, demand in tables:
        if demand in _DANE and not settings.dns.validating:
            yield Finding(
                ((*here, "tls"), ("dns", "validating")),
                "DANE needs a resolver that validates by DNSSEC, and none is named",
                'Write servers = ["127.0.0.1"] and validating = true under [dns], if there is such a resolver',
            )
    if settings.routing.tls is TlsDemand.FINGERPRINT:
        yield Finding(
            (("routing", "tls"),),
            "One fingerprint cannot be that of all servers found by MX",
            "Write it in a [[next_hop]] for one domain, or in a map of tls_policy_maps",
        )


def _next_hops(settings: Settings) -> Iterator[Finding]:
    for index, hop in enumerate(settings.next_hop):
        here: Path = ("next_hop", index)
        if (hop.tls is TlsDemand.FINGERPRINT) is not bool(hop.tls_fingerprints):
            yield Finding(
                ((*here, "tls"), (*here, "tls_fingerprints")),
                'The value tls = "fingerprint" and the list tls_fingerprints need each other',
                "Write both, or none of them",
            )
        if hop.tls_names and hop.tls not in _WITH_NAMES:
            yield Finding(
                ((*here, "tls_names"), (*here, "tls")),
                "The names are compared only if a chain to a trusted root is demanded",
                'Write tls = "verify", or remove tls_names',
            )
        if hop.tls is TlsDemand.STS and has_server(hop) and not hop.mx and not any("mx" in each for each in hop.hosts):
            yield Finding(
                ((*here, "tls"), (*here, "host")),
                "MTA-STS is a policy for the servers that the MX records of a domain name",
                'Write tls = "verify", or "dane"',
            )


def _local(settings: Settings) -> Iterator[Finding]:
    for index, domain in enumerate(settings.domain):
        if domain.tls in (TlsDemand.STS, TlsDemand.FINGERPRINT):
            yield Finding(
                ((("domain", index, "tls")),),
                f'tls = "{domain.tls.value}" is not for the servers of local domains',
                'Write tls = "verify"',
            )
