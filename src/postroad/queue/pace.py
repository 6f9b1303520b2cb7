"""The pace of each destination: how many connections, how many messages over one and in a time, how many recipients.

Limits hold for a *scope*, which is what is counted together for the whole node (`node.offices.permits`,
`node.offices.rates`):

    example.com              a destination, by its key
    host:mx1.example.net     one MX host, for all domains that it serves
    provider:NAME            all domains and hosts that the operator's rules of that name match
    set:mx1.a.net+mx2.a.net  all domains with just these MX hosts

A destination stands in one scope of its own and in any number of shared ones; each of them must have room. What always
holds: the name of a scope and the rules say its limits, so the supervisor and all workers come to the same ones without
telling each other. A connection counts for every host of its route that has a rule, because it may go to any of them.

Pure. Not here: the counting, which hosts serve a domain (`route.mx`, handed in as names).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Final, Generic, TypeVar

import msgspec
from msgspec import Meta

from postroad.mail.route import Destination, Transport, domain_of

UNLIMITED: Final = 1_000_000  # connections: of a shared scope whose rule does not name a number
AUTOMATIC: Final = "*"  # as the name of a provider: each set of MX hosts is one by itself

_T = TypeVar("_T")
_RATE: Final = re.compile(r"\s*(\d{1,9})\s*/\s*(\d{1,6}(?:\.\d{1,3})?)?\s*(s|m|h|d)\s*")
_UNITS_S: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
# Members of an Enum by plain names: on Python 3.11 each access through its class costs a look-up more.
_SMTP: Final = Transport.SMTP


class Rate(msgspec.Struct, frozen=True):
    """At most `messages` within any span of `period_s`."""

    messages: int
    period_s: float

    def __str__(self) -> str:
        for unit in ("d", "h", "m"):
            if self.period_s % _UNITS_S[unit] == 0:
                return f"{self.messages}/{self.period_s / _UNITS_S[unit]:g}{unit}"
        return f"{self.messages}/{self.period_s:g}s"


def parse_rate(written: str) -> Rate | None:
    """Reads ``100/1m``, ``5/s``, ``2000/1h``; None if the text is not a rate."""
    found = _RATE.fullmatch(written)
    if found is None:
        return None
    rate = Rate(int(found[1]), float(found[2] or 1) * _UNITS_S[found[3]])
    return rate if rate.messages and rate.period_s else None


class PaceRule(msgspec.Struct, frozen=True):
    """Limits for some domains or hosts. A domain may be a pattern: ``example.com``, ``.example.com`` for all domains
    below it, ``*``; so may a host."""

    domain: Annotated[
        tuple[str, ...],
        Meta(
            description="Recipients' domains. Each one gets these limits for itself. If mail for a domain takes "
            "several ways (REQUIRETLS, another source address, another next hop), each of these destinations has the "
            "limits; `mx` limits the hosts for all of them together.",
        ),
    ] = ()
    mx: Annotated[
        tuple[str, ...],
        Meta(
            description="MX hosts and next hops. Each one gets these limits for itself.",
        ),
    ] = ()
    provider: Annotated[
        str,
        Meta(
            description='A name: all domains and hosts of this table share the limits. "*": domains with the same MX '
            "hosts share them.",
        ),
    ] = ""
    connections_max: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000,
            description="The most connections at a time. 0: as without this table.",
        ),
    ] = 0
    connections_start: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000,
            description="The most connections at first. Success raises this number; failure lowers it. 0: as without "
            "this table.",
        ),
    ] = 0
    messages_per_connection_max: Annotated[
        int,
        Meta(
            ge=0,
            description="The most messages over one connection. 0: as many as `outbound.messages_max` allows.",
        ),
    ] = 0
    recipients_max: Annotated[
        int,
        Meta(
            ge=0,
            description="The most recipients of a message in one transaction. 0: as without this table.",
        ),
    ] = 0
    rate: Annotated[
        Rate | None,
        Meta(
            description='The most messages within a time span. "": no limit.',
        ),
    ] = None


class ScopeLimits(msgspec.Struct, frozen=True):
    """The limits of one scope for the whole node: `start` connections at first, growing to at most `most`."""

    most: int
    start: int
    rate: Rate | None = None


class Pace(msgspec.Struct, frozen=True):
    """The pace of one destination: its scopes, its own one first; those of them that have a rate; the lowest of their
    limits. `messages_per_connection_max` 0: only the transport's own limit."""

    scopes: tuple[str, ...]
    rated: tuple[str, ...]
    connections_max: int
    messages_per_connection_max: int
    recipients_max: int


class Patterns(Generic[_T]):
    """Values by patterns of names; the most exact pattern wins."""

    def __init__(self, entries: Iterable[tuple[str, _T]]) -> None:
        self._entries: dict[str, _T] = {}
        for pattern, value in entries:
            self._entries.setdefault(pattern, value)

    def __bool__(self) -> bool:
        return bool(self._entries)

    def find(self, name: str) -> _T | None:
        entries = self._entries
        found = entries.get(name)
        place = name.find(".")
        while found is None and place >= 0:
            found = entries.get(name[place:])
            place = name.find(".", place + 1)
        return entries.get("*") if found is None else found


class PaceTable:
    """The rules of one configuration. `most`, `start`, `recipients_max`: used if no rule says otherwise. `here`: limits
    of our own domains, by the key of the destination."""

    def __init__(
        self, rules: Sequence[PaceRule], *, most: int, start: int, recipients_max: int,
        here: Mapping[str, PaceRule] | None = None,
    ) -> None:
        self._here = here or {}
        self._most, self._start, self._recipients_max = most, start, recipients_max
        self._domains = Patterns((name, rule) for rule in rules if not rule.provider for name in rule.domain)
        self._domain_groups = Patterns(
            (name, rule) for rule in rules if rule.provider not in ("", AUTOMATIC) for name in rule.domain
        )
        self._hosts = Patterns((name, rule) for rule in rules if not rule.provider for name in rule.mx)
        self._host_groups = Patterns(
            (name, rule) for rule in rules if rule.provider not in ("", AUTOMATIC) for name in rule.mx
        )
        self._sets = Patterns(
            (name, rule) for rule in rules if rule.provider == AUTOMATIC for name in rule.mx or ("*",)
        )
        self._providers = {rule.provider: rule for rule in rules if rule.provider not in ("", AUTOMATIC)}
        self._by_host = bool(self._hosts or self._host_groups or self._sets)
        self._plain = not rules and not self._here

    def needs_hosts(self, destination: Destination) -> bool:
        """Whether the pace of this destination depends on the hosts that serve it."""
        return self._by_host and destination.transport is _SMTP and (
            bool(destination.domain) or any(server.mx for server in destination.servers)
        )

    def of(self, destination: Destination, hosts: Sequence[str] = ()) -> Pace:
        """The pace of a destination. `hosts`: the names of the hosts to which it may go, if it `needs_hosts`."""
        if self._plain:
            limits = self._own_limits(None, remote=destination.transport is _SMTP)
            return Pace((destination.key,), (), limits.most, 0, self._recipients_max)
        scopes: dict[str, PaceRule | None] = {destination.key: self._own_rule(destination.key)}
        if destination.transport is not _SMTP:
            return self._joined(scopes)
        hosts = hosts or ((destination.host,) if destination.host else tuple(each.host for each in destination.servers))
        if (rule := self._domain_groups.find(destination.apart or destination.domain)) is not None:
            scopes[f"provider:{rule.provider}"] = rule
        for host in hosts:
            if (rule := self._hosts.find(host)) is not None:
                scopes[f"host:{host}"] = rule
            if (rule := self._host_groups.find(host)) is not None:
                scopes[f"provider:{rule.provider}"] = rule
        if self._sets and hosts and (rule := self._set_of(sorted(set(hosts)))) is not None:
            scopes[f"set:{'+'.join(sorted(set(hosts)))}"] = rule
        return self._joined(scopes)

    def limits(self, scope: str) -> ScopeLimits:
        """The limits of a scope, by its name."""
        kind, _, name = scope.partition(":")
        match kind:
            case "provider" if name in self._providers:
                return self._shared_limits(self._providers[name])
            case "host":
                return self._shared_limits(self._hosts.find(name))
            case "set":
                return self._shared_limits(self._set_of(name.split("+")))
        return self._own_limits(self._own_rule(scope), remote=not scope.startswith(_LOCAL))

    def _own_rule(self, key: str) -> PaceRule | None:
        """The rule for the key of the destination. The key is the domain of the recipients if mail goes by MX; for a
        next hop it ends with this domain (`Destination.apart`). Rules are for remotes. Mail with higher demands on its
        way counts by itself, within the same limits."""
        if key in self._here:
            return self._here[key]
        return None if key.startswith(_LOCAL) else self._domains.find(domain_of(key))

    def _set_of(self, hosts: Sequence[str]) -> PaceRule | None:
        return next((rule for host in hosts if (rule := self._sets.find(host)) is not None), None)

    def _joined(self, scopes: dict[str, PaceRule | None]) -> Pace:
        rules = [rule for rule in scopes.values() if rule is not None]
        return Pace(
            tuple(scopes),
            tuple(scope for scope, rule in scopes.items() if rule is not None and rule.rate is not None),
            min(self.limits(scope).most for scope in scopes),
            min((rule.messages_per_connection_max for rule in rules if rule.messages_per_connection_max), default=0),
            min((rule.recipients_max for rule in rules if rule.recipients_max), default=self._recipients_max),
        )

    def _own_limits(self, rule: PaceRule | None, *, remote: bool) -> ScopeLimits:
        """The limits of a destination. Local delivery needs no caution: it has all its connections at once."""
        most = rule.connections_max if rule is not None and rule.connections_max else self._most
        start = rule.connections_start if rule is not None and rule.connections_start else self._start
        return ScopeLimits(most, min(start, most) if remote else most, rule.rate if rule is not None else None)

    def _shared_limits(self, rule: PaceRule | None) -> ScopeLimits:
        """The limits of a shared scope: only those that its rule names; its destinations have their own caution."""
        most = rule.connections_max if rule is not None and rule.connections_max else UNLIMITED
        start = rule.connections_start if rule is not None and rule.connections_start else most
        return ScopeLimits(most, min(start, most), rule.rate if rule is not None else None)


_LOCAL: Final = ("lmtp:", "maildir:", "mbox:", "program:", "http:")
