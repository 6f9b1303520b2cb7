"""From a destination to its hops: MX and address look-ups (RFC 5321 §5.1, §5.2, RFC 7505).

What always holds: hops stand in the order of preference, those of one preference in random order; if a host is
ourselves, this host and all that are not better are left out, so that mail cannot go in circles; the answer is bounded,
whatever the DNS says; if a domain has MX records, only these count.

How it fails: with an Attempt, whose text names the host and the reason. A clear answer of the DNS is permanent ("there
is no such domain", "takes no mail", "no mail server has an address"). Everything that may change is a deferral: no
answer, SERVFAIL, one of several hosts that cannot be looked up, a mistake in our own configuration.

Not here: connecting (`deliver`), which destination a recipient has (`table`), the cache (`world.dns`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from random import Random
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from postroad.mail.address import is_ip_address, is_loopback, is_unusable
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.route import HERE, Destination, Hop, Route, plain_demand, proof_of
from postroad.mail.tls_policy import StsPolicies, no_sts
from postroad.route import several
from postroad.route.domains import OwnNames
from postroad.route.securing import Securing, is_wanted
from postroad.route.several import LOOP, OURSELVES
from postroad.world.dns import DnsAnswer, DnsStatus, MxRecord, Resolver

Prefer = Literal["", "ipv6", "ipv4"]


class MxOptions(msgspec.Struct, frozen=True):
    """How hops are chosen. Both families of addresses take turns, so that one that is broken costs one try."""

    mx_max: Annotated[
        int,
        Meta(
            ge=1,
            description="The most mail exchangers of a domain that the node tries, and that it looks up at a time. "
            "Those without an address do not count. At most 100 of a domain are looked up.",
        ),
    ] = 10
    addresses_max: Annotated[
        int,
        Meta(
            ge=2,
            description="The most addresses of one mail exchanger that the node tries.",
        ),
    ] = 4
    prefer: Annotated[
        Prefer,
        Meta(
            description='Whether IPv6 or IPv4 addresses of a server are tried first. "": the family of the first '
            "address that the resolver gives.",
        ),
    ] = ""
    loopback: Annotated[
        bool,
        Meta(
            description="Whether the MX of a domain may have a loopback address. By default such an address is left "
            "out: the domain's owner means another machine, not this one.",
        ),
    ] = False


Told = Callable[[Destination], Awaitable[Destination | Attempt]]
"""Tells how much TLS a destination with one server demands, where maps may say so (`route.tls_maps`)."""


async def hops(
    destination: Destination, resolver: Resolver, random: Random, options: MxOptions, ourselves: OwnNames,
    sts: StsPolicies = no_sts, told: Told | None = None,
) -> Route | Attempt:
    """The route of a destination. One for local delivery without a network has no hops. `sts`: asked for the MTA-STS
    policies of domains."""
    if destination.transport in HERE:
        return Route(destination, ())
    if destination.path:
        hop = Hop(destination.path, destination.path, 0, 0, destination.tls, proof_of(destination.tls))
        return Route(destination, (hop,))
    search = _Search(destination, resolver, random, options, ourselves, sts, told)
    if destination.servers or destination.fallbacks:
        return await several.hops(destination, search.at, random)
    return await search.at(destination)


class _Search(msgspec.Struct, frozen=True):
    """One search for hops, with all that it needs."""

    destination: Destination
    resolver: Resolver
    random: Random
    options: MxOptions
    ourselves: OwnNames
    sts: StsPolicies = no_sts
    told: Told | None = None

    async def at(self, destination: Destination) -> Route | Attempt:
        """By the MX of its domain, or by its host."""
        if self.told is not None:
            found = await self.told(destination)
            if isinstance(found, Attempt):
                return found
            destination = found
        search = msgspec.structs.replace(self, destination=destination)
        return await (search.by_mx() if destination.domain else search.by_host())

    # -- a host that was set -----------------------------------------------------------------------------------------

    async def by_host(self) -> Route | Attempt:
        """What is wrong here is a mistake in our own configuration, and may be mended before the mail expires."""
        host, port = self.destination.host, self.destination.port
        answer = await self.resolver.addresses(host)
        match answer.status:
            case DnsStatus.FOUND:
                if any(self.ourselves.is_address(address, port) for address in answer.records):
                    text = "mail would go in a circle, and waits until [[next_hop]] names another host or port"
                    return self._deferred(OURSELVES, f"the next hop {host}:{port} is this server itself: {text}")
                return await self._secured(Route(self.destination, self._hops(host, answer.records, 0)), None)
            case DnsStatus.ERROR:
                return self._deferred("4.4.3", f"the address of {host} could not be looked up: {answer.text}")
            case DnsStatus.NXDOMAIN | DnsStatus.NODATA:
                return self._deferred("4.4.4", f"the next hop {host} has no address in DNS: {answer.text}")

    # -- by MX -------------------------------------------------------------------------------------------------------

    async def by_mx(self) -> Route | Attempt:
        domain = self.destination.domain
        answer = await self.resolver.mx(domain)
        match answer.status:
            case DnsStatus.NXDOMAIN:
                return self._failed("5.1.2", f"the domain {domain} does not exist")
            case DnsStatus.ERROR:
                return self._deferred("4.4.3", f"the mail servers of {domain} could not be looked up: {answer.text}")
            case DnsStatus.NODATA:
                # RFC 5321 §5.1: an empty list of MX means the domain itself, preference 0
                return await self._secured(await self._among((MxRecord(0, domain),), implicit=True), answer)
            case DnsStatus.FOUND:
                # RFC 7505 §3: a single MX of the root says that there is no mail here; beside others it says nothing
                records = tuple(record for record in answer.records if record.exchange)
                if not records:
                    return self._failed("5.1.10", f"the domain {domain} takes no mail (null MX)")
                return await self._secured(await self._among(records, implicit=False), answer)

    async def _secured(self, found: Route | Attempt, answer: DnsAnswer[MxRecord] | None) -> Route | Attempt:
        """The route with what each host must satisfy. `answer`: of the MX records, None if a host was set."""
        if isinstance(found, Attempt) or not is_wanted(self.destination):
            return found
        hops = await Securing(self.destination, answer, self.resolver, self.sts).secured(found.hops)
        return hops if isinstance(hops, Attempt) else Route(found.destination, hops)

    async def _among(self, records: Sequence[MxRecord], *, implicit: bool) -> Route | Attempt:
        """Hops by these exchangers, the least preference first."""
        ordered = self._in_order(records)
        better = _better_than(ordered, (record for record in ordered if self.ourselves.is_host(record.exchange)))
        if not better:
            return self._circle()
        most = max(1, self.options.mx_max)
        findings: list[_Finding] = []
        # Those that have no address take nobody's place: there may be a host behind them.
        while len(findings) < min(len(better), _LOOKED_MAX) and self._usable_hosts(findings) < most:
            looked_at = better[len(findings) : min(len(findings) + most, _LOOKED_MAX)]
            answers = await self._all(looked_at)
            findings += [_Finding(record, answer) for record, answer in zip(looked_at, answers, strict=True)]
        return self._judge(findings, len(better) - len(findings), implicit=implicit)

    def _usable_hosts(self, findings: Sequence[_Finding]) -> int:
        return sum(any(not self._fault(address) for address in each.answer.records) for each in findings)

    def _in_order(self, records: Sequence[MxRecord]) -> list[MxRecord]:
        """By preference; those of one preference in random order, to spread the load (RFC 5321 §5.1)."""
        shuffled = list(records)
        self.random.shuffle(shuffled)
        return sorted(shuffled, key=lambda record: record.preference)

    async def _all(self, records: Sequence[MxRecord]) -> Sequence[DnsAnswer[str]]:
        """The addresses of all of them, looked up at once."""
        if len(records) == 1:
            return (await self._addresses(records[0].exchange),)
        return await asyncio.gather(*(self._addresses(record.exchange) for record in records))

    async def _addresses(self, host: str) -> DnsAnswer[str]:
        if is_ip_address(host):
            # RFC 5321 §5.1: the data field of an MX record MUST contain a domain name
            return DnsAnswer(DnsStatus.NODATA, (), f"{host} is an address, but the MX record must give a name")
        if not _HOST_NAME.fullmatch(host):
            return DnsAnswer(DnsStatus.NODATA, (), "a name that no host can have")
        return await self.resolver.addresses(host)

    def _judge(self, findings: Sequence[_Finding], unknown: int, *, implicit: bool) -> Route | Attempt:
        """The route, if any exchanger better than ourselves has a usable address; else why not. `unknown`: how many
        were not looked at."""
        found: list[Hop] = []
        hosts = 0
        faults: list[str] = []
        unsure = False
        ours = [each for each in findings if self._is_us(each.answer.records)]
        better = _better_than([each.record for each in findings], (each.record for each in ours))
        for finding in findings[: len(better)]:
            name, answer = finding.record.exchange, finding.answer
            usable = [address for address in answer.records if self._fault(address) == ""]
            if usable and hosts < max(1, self.options.mx_max):
                hosts += 1
                found += self._hops(name, usable, finding.record.preference)
            elif answer.records and not usable:
                faults.append(f"{name} has {self._fault(answer.records[0])} ({answer.records[0]})")
            elif not answer.records:
                unsure = unsure or answer.status is DnsStatus.ERROR
                faults.append(_without_address(answer))
        if found:
            return Route(self.destination, tuple(found))
        domain, told = self.destination.domain, "; ".join(faults)[:_TOLD_MAX]
        if unsure:
            return self._deferred("4.4.3", f"no mail server of {domain} could be found for now: {told}")
        if not better:
            return self._circle()
        if unknown and len(better) == len(findings):  # our own limit says nothing of the domain
            count = len(findings)
            text = f"{domain} has {count + unknown} mail servers; of the first {count} none can be reached"
            return self._deferred("4.4.4", f"{text}: {told}")
        if implicit:
            return self._failed("5.4.4", f"{domain} has no mail server: no MX records, and {told}")
        return self._failed("5.4.4", f"{domain} has no mail server that can be reached: {told}")

    def _is_us(self, addresses: Sequence[str]) -> bool:
        return any(self.ourselves.is_address(address, self.destination.port) for address in addresses)

    def _fault(self, address: str) -> str:
        """Why nothing is sent to an address of somebody else's domain; "" if it is usable."""
        if is_loopback(address) and not self.options.loopback:
            return "a loopback address"
        return "an address that no host can have" if is_unusable(address) else ""

    def _hops(self, name: str, addresses: Sequence[str], preference: int) -> tuple[Hop, ...]:
        port = self.destination.port
        kept = self._in_turns(addresses)[: max(2, self.options.addresses_max)]
        tls = plain_demand(self.destination.tls)
        return tuple(Hop(name, address, port, preference, tls, proof_of(tls)) for address in kept)

    def _in_turns(self, addresses: Sequence[str]) -> list[str]:
        """The families by turns, the preferred one first; within a family in random order."""
        if len(addresses) < 2:
            return list(addresses)
        four = [address for address in addresses if ":" not in address]
        six = [address for address in addresses if ":" in address]
        self.random.shuffle(four)
        self.random.shuffle(six)
        six_first = self.options.prefer == "ipv6" or (not self.options.prefer and ":" in addresses[0])
        first, second = (six, four) if six_first else (four, six)
        turns = [address for pair in zip(first, second, strict=False) for address in pair]
        return turns + first[len(second) :] + second[len(first) :]

    # -- outcomes ----------------------------------------------------------------------------------------------------

    def _circle(self) -> Attempt:
        """RFC 5321 §5.1: no record is left when ours and those that are not better are discarded."""
        text = f"mail for {self.destination.domain} loops back to this server: it is the best mail exchanger itself"
        return self._failed(LOOP, text)

    def _failed(self, status: str, text: str) -> Attempt:
        return self._attempt(Outcome.FAILED, status, text)

    def _deferred(self, status: str, text: str) -> Attempt:
        return self._attempt(Outcome.DEFERRED, status, text)

    def _attempt(self, outcome: Outcome, status: str, text: str) -> Attempt:
        return Attempt(outcome, Reach.DESTINATION, status, text, transport=self.destination.transport.value)


class _Finding(msgspec.Struct, frozen=True):
    """An exchanger and what was found of its addresses."""

    record: MxRecord
    answer: DnsAnswer[str]


_LOOKED_MAX: Final = 100  # mail exchangers of a domain that are looked up
_TOLD_MAX: Final = 500  # characters of what several hosts lack

# RFC 5321 §4.1.2, underscores tolerated as in `mail.address`.
_HOST_NAME: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*")


ALIAS_RULE: Final = "it must name the host itself (RFC 2181 §10.3, RFC 5321 §5.1)"


def _without_address(answer: DnsAnswer[str]) -> str:
    """Why a mail exchanger has no address. If its name is an alias, that is what its owner has to mend."""
    if not answer.followed:
        return answer.text
    return f"{answer.text}; the MX record names an alias (CNAME: {answer.chain}), but {ALIAS_RULE}"


def _better_than(ordered: Sequence[MxRecord], ours: Iterable[MxRecord]) -> Sequence[MxRecord]:
    """RFC 5321 §5.1: all records at our own preference and at higher numbers are discarded."""
    limit = min((record.preference for record in ours), default=None)
    return ordered if limit is None else [record for record in ordered if record.preference < limit]
