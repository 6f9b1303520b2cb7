"""Where mail for an address goes, with all that the DNS says of it: mail servers, addresses, aliases, TLSA records.

It is for people who ask why mail does not get through, or what a change in the DNS has done. It asks with the settings
of `[dns]`, as a worker would, but from this process, so that it works without a node. How it fails: the answer says
what could not be found out, in `problem` and in `warnings`; it never raises.

Not here: connecting, so whether a host shows what its TLSA records say is not known; MTA-STS, and maps of TLS policies.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from postroad.config.aliasing import relocated_of
from postroad.mail.account import canonical_account
from postroad.mail.address import Address, is_ip_address
from postroad.mail.attempt import Attempt, Outcome
from postroad.mail.envelope import Envelope, Peer, Recipient
from postroad.mail.route import HERE, Destination, Hop
from postroad.mail.routing import DestinationOf, Found, not_now
from postroad.maps.maps import Maps, make
from postroad.operate import renaming
from postroad.operate.following import follow
from postroad.operate.maps import needed
from postroad.protocol.grammar import parse_mailbox
from postroad.route import mx
from postroad.route.choosing import NOBODYS
from postroad.route.domain_maps import KnownRoute, mapped_domains
from postroad.route.domains import OwnNames
from postroad.route.mx import Told
from postroad.route.path_maps import PathRoute
from postroad.route.relocated import RelocatedRoute
from postroad.route.report_mailboxes import ReportRoute
from postroad.route.table import RoutingTable
from postroad.route.tls_maps import TlsPolicyMaps
from postroad.route.transport_maps import TransportMaps
from postroad.world.clock import SystemClock
from postroad.world.dns import DnsAnswer, DnsResolver, DnsStatus, MxRecord, Resolver, TlsaRecord

if TYPE_CHECKING:
    from postroad.config.settings import Settings

SERVERS_MAX: Final = 20  # mail servers of a domain that are shown


class ServerFacts(msgspec.Struct, frozen=True):
    """A mail server. `preference`: None if no MX record names it. `aliases`: the chain of CNAME records from its name
    to where the addresses are. `tlsa`: its records as in a master file; `tlsa_status`: ``found``, ``nodata``,
    ``nxdomain`` or ``error``. `secure`: the addresses, `tlsa_secure`: the TLSA answer was validated by DNSSEC."""

    name: str
    preference: int | None
    addresses: tuple[str, ...] = ()
    secure: bool = False
    aliases: tuple[str, ...] = ()
    tlsa: tuple[str, ...] = ()
    tlsa_status: str = ""
    tlsa_secure: bool = False


class WayFacts(msgspec.Struct, frozen=True):
    """Where mail for `address` goes. `destination`: its key, `transport`: how, "" if there is no way. `domain`: the
    owner of the MX records; `secure`: they were validated by DNSSEC. `tries`: the hosts in the order in which a worker
    would try them now. `problem`: why there is no way. `changes`: other addresses of sender and recipient, in words.
    `steps`: the aliases on the way, in words; `targets`: the ways of those to whom they lead in the end, in its place;
    `more`: how many others there are."""

    address: str
    destination: str = ""
    transport: str = ""
    domain: str = ""
    secure: bool = False
    servers: tuple[ServerFacts, ...] = ()
    tries: tuple[str, ...] = ()
    problem: str = ""
    warnings: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    targets: tuple[WayFacts, ...] = ()
    more: int = 0


class AskedMail(msgspec.Struct, frozen=True):
    """What is said of the mail. `sender`: "" for the null reverse-path, None for one that no next hop names; `account`:
    as which its client has authenticated. The rest as of its envelope."""

    sender: str | None = None
    account: str = ""
    size: int = 0
    listener: str = ""
    priority: int = 0
    classes: tuple[str, ...] = ()

    def envelope(self, reverse_path: Address | None) -> Envelope:
        asked_for = (("MT-PRIORITY", str(self.priority)),) if self.priority else ()
        peer = Peer(identity=canonical_account(self.account), listener=self.listener)
        return Envelope(0, reverse_path, (), self.size, 0, peer, parameters=asked_for, classes=self.classes)


_ANY_MAIL: Final = AskedMail()
_READ_FIRST: Final = "it is a report mailbox: the reports in its mail are read and kept first"


def ways(settings: Settings, written: Sequence[str], asked: AskedMail = _ANY_MAIL) -> list[WayFacts]:
    """For these addresses or domains, asked now."""
    from postroad.config import options

    async def ask() -> list[WayFacts]:
        resolver = DnsResolver(options.dns_options(settings), SystemClock(), random.SystemRandom())
        try:
            return [await way(settings, each, resolver, asked) for each in written]
        finally:
            resolver.close()

    return asyncio.run(ask())


async def way(settings: Settings, written: str, resolver: Resolver, asked: AskedMail = _ANY_MAIL) -> WayFacts:
    """For one address, or one domain."""
    from postroad.config import options

    address = parse_mailbox(written if "@" in written else f"postmaster@{written}")
    if address is None:
        return WayFacts(written, problem="this is neither a mail address nor a domain")
    ourselves = options.own_names(settings)
    sender = asked.sender
    reverse_path = NOBODYS.sender if sender is None else parse_mailbox(sender) if sender else None
    if sender and reverse_path is None:
        return WayFacts(written, problem=f"the sender {sender!r} is not a mail address")
    envelope = asked.envelope(reverse_path)
    renamed = await renaming.accepted(settings, ourselves, envelope, Recipient(address))
    if isinstance(renamed, str):
        return WayFacts(written, problem=renamed)
    envelope, recipient = renamed.envelope, renamed.recipient
    followed = await follow(settings, ourselves, recipient)
    if followed.problem:
        return WayFacts(written, problem=followed.problem, changes=renamed.changes, steps=followed.steps)
    router = Router(settings, ourselves)
    try:
        facts = [
            await _sent(settings, ourselves, router, resolver, envelope, each) for each in followed.ends or (recipient,)
        ]
    finally:
        router.close()
    if not followed.ends:
        (one,) = facts
        return msgspec.structs.replace(
            one, address=written, changes=(*renamed.changes, *one.changes), steps=followed.steps,
            warnings=(*one.warnings, *followed.warnings),
        )  # fmt: skip
    lost = sum(bool(each.problem) for each in facts)
    problem = f"{lost} of its {len(facts)} targets cannot be reached" if lost else ""
    return WayFacts(
        written, problem=problem, changes=renamed.changes, steps=followed.steps, targets=tuple(facts),
        more=followed.more,
    )  # fmt: skip


async def _sent(
    settings: Settings, ourselves: OwnNames, router: Router, resolver: Resolver, envelope: Envelope,
    recipient: Recipient,
) -> WayFacts:
    """Where the mail for a recipient goes that is in the queue."""
    from postroad.config import options

    written = str(recipient.destination.outlet if recipient.destination is not None else recipient.address)
    if recipient.sender is not None:
        envelope = envelope.of(recipient)
    destination = await router.find(envelope, recipient)
    if isinstance(destination, Attempt):
        if destination.outcome is Outcome.DELIVERED:  # thrown away
            return WayFacts(written, "discard", "discard", changes=(destination.text,))
        return WayFacts(written, problem=destination.text)
    names = await router.names(envelope, recipient, destination)
    if isinstance(names, str):
        return WayFacts(written, problem=names)
    if destination.reports:
        names = (*names, _READ_FIRST)
    facts = WayFacts(written, destination.key, destination.transport.value, destination.domain, changes=names)
    if destination.path or destination.transport in HERE:
        return facts
    route = await mx.hops(destination, resolver, random.Random(), options.mx_options(settings), ourselves)
    if destination.servers:
        changes = await _by_servers(destination, resolver)
    else:
        changes = await _by_mx(destination, resolver) if destination.domain else await _by_host(destination, resolver)
    facts = msgspec.structs.replace(facts, **changes)
    if isinstance(route, Attempt):
        return msgspec.structs.replace(facts, problem=route.text)
    tries = tuple(f"{hop.name} [{hop.address}]:{hop.port}" for hop in route.hops if not _is_passed_over(hop))
    over = {hop.name: hop.policy.text for hop in route.hops if hop.policy is not None and _is_passed_over(hop)}
    warnings = (*facts.warnings, *(f"{name} gets no mail: {text}" for name, text in over.items()))
    return msgspec.structs.replace(facts, tries=tries, warnings=warnings)


def _is_passed_over(hop: Hop) -> bool:
    """Whether the host cannot satisfy its TLS policy, as far as the DNS tells."""
    return hop.policy is not None and hop.policy.passed_over


class Router:
    """Finds destinations as a worker does, but with maps of this process. Close it. `told`: how much TLS maps demand
    (`route.mx`); None: none are set."""

    def __init__(self, settings: Settings, ourselves: OwnNames) -> None:
        from postroad.config import options

        self._settings, self._ourselves = settings, ourselves
        self._maps: Maps | None = None
        self._problem = ""
        self.told: Told | None = None
        routed, outlets = options.routing_options(settings), options.outlet_options(settings)
        local = (name for each in routed.mapped_local for name in each.domain_maps)
        relay = (name for each in routed.mapped_relay for name in each.domain_maps)
        paths = (name for each in (*routed.local, *routed.mapped_local) for name in each.path_maps)
        names = (
            *routed.transport_maps, *local, *relay, *paths, *settings.rewrite.relocated_maps, *routed.tls_policy_maps
        )
        self._mailboxes = options.report_mailboxes(settings)
        self._route: DestinationOf = RoutingTable(routed, ourselves, outlets=outlets).route
        if not names:
            return
        maps = make(needed(options.map_options(settings), names), SystemClock(), lambda level, text: None)
        if not isinstance(maps, Maps):
            self._problem = "; ".join(map(str, maps))
            return
        self._maps = maps
        if routed.tls_policy_maps:
            self.told = TlsPolicyMaps(maps.named(routed.tls_policy_maps)).told
        table = RoutingTable(routed, ourselves, mapped_domains(routed, maps.named), outlets)
        route: DestinationOf = table.route
        if routed.transport_maps:
            route = TransportMaps(table, maps.named(routed.transport_maps)).route
        relocated = relocated_of(settings, table, maps.named)
        if relocated is not None:
            route = RelocatedRoute(relocated, route)
        if table.mapped is not None:
            route = KnownRoute(table.mapped, table.is_mapped, route)
        self._route = PathRoute(routed, maps.named, route)

    async def find(self, envelope: Envelope, recipient: Recipient) -> Found:
        if self._problem:
            return not_now(self._problem)
        found = ReportRoute(self._mailboxes, self._route)(envelope, recipient)
        return found if isinstance(found, Destination | Attempt) else await found

    async def names(
        self, envelope: Envelope, recipient: Recipient, destination: Destination
    ) -> tuple[str, ...] | str:
        """What the next hop hears instead of their names, in words."""
        return await renaming.sent(self._settings, self._ourselves, envelope, recipient, destination)

    def close(self) -> None:
        if self._maps is not None:
            self._maps.close()


async def _by_host(destination: Destination, resolver: Resolver) -> dict[str, object]:
    server, warnings = await _server(destination.host, None, destination.port, resolver)
    return {"servers": (server,), "warnings": warnings}


async def _by_servers(destination: Destination, resolver: Resolver) -> dict[str, object]:
    """Several servers that are set; those that are found by MX stand among the tries only."""
    found = await asyncio.gather(
        *(_server(each.host, None, each.port, resolver) for each in destination.servers if not each.mx)
    )
    return {
        "servers": tuple(server for server, _ in found),
        "warnings": tuple(warning for _, told in found for warning in told),
    }


async def _by_mx(destination: Destination, resolver: Resolver) -> dict[str, object]:
    answer = await resolver.mx(destination.domain)
    named: Sequence[MxRecord | None] = answer.records
    if answer.status is DnsStatus.NODATA:
        named = (None,)  # RFC 5321 §5.1: the domain is its own mail server
    found = await asyncio.gather(
        *(
            _server(each.exchange, each.preference, destination.port, resolver)
            if each is not None
            else _server(destination.domain, None, destination.port, resolver)
            for each in named[:SERVERS_MAX]
            if each is None or each.exchange
        )
    )
    warnings = [warning for _, told in found for warning in told]
    if len(answer.records) > 1 and any(not each.exchange for each in answer.records):
        warnings.append("there is a null MX beside other MX records, where it means nothing (RFC 7505 §3)")
    if len(answer.records) > SERVERS_MAX:
        warnings.append(f"there are {len(answer.records)} MX records, of which the first {SERVERS_MAX} are shown")
    return {
        "domain": answer.name or destination.domain,
        "secure": answer.secure,
        "servers": tuple(server for server, _ in found),
        "warnings": tuple(warnings),
    }


async def _server(
    name: str, preference: int | None, port: int, resolver: Resolver
) -> tuple[ServerFacts, tuple[str, ...]]:
    """One mail server, and what is doubtful about it."""
    if is_ip_address(name):
        by_mx = (f"an MX record names the address {name}; it must name a host (RFC 5321 §5.1)",)
        return ServerFacts(name, preference, (name,)), () if preference is None else by_mx
    addresses = await resolver.addresses(name)
    if addresses.status is DnsStatus.ERROR and not addresses.followed:
        addresses = await _with_alias(name, addresses, resolver)
    tlsa = await _tlsa(name, addresses, port, resolver)
    facts = ServerFacts(
        name, preference, addresses.records, addresses.secure, _chain(addresses), tuple(map(str, tlsa.records)),
        tlsa.status.value, tlsa.secure,
    )  # fmt: skip
    return facts, tuple(_doubts(facts, addresses, tlsa))


async def _tlsa(name: str, addresses: DnsAnswer[str], port: int, resolver: Resolver) -> DnsAnswer[TlsaRecord]:
    """RFC 7672 §2.2.2: the records of the name where a validated chain of aliases ends count first, then those of the
    name itself."""
    if addresses.followed and addresses.secure:
        found = await resolver.tlsa(addresses.name, port)
        if found.status in (DnsStatus.FOUND, DnsStatus.ERROR):
            return found
    return await resolver.tlsa(name, port)


async def _with_alias(name: str, failed: DnsAnswer[str], resolver: Resolver) -> DnsAnswer[str]:
    """A failed look-up, with the alias that may have led to what failed: the server kept that to itself."""
    alias = await resolver.cname(name)
    if not alias.records:
        return failed
    return msgspec.structs.replace(failed, name=alias.records[0], followed=(name,))


def _doubts(facts: ServerFacts, addresses: DnsAnswer[str], tlsa: DnsAnswer[TlsaRecord]) -> list[str]:
    name = facts.name
    found = []
    if addresses.followed and facts.preference is not None:
        found.append(f"an MX record names {name}, which is an alias (CNAME: {addresses.chain}); {mx.ALIAS_RULE}")
    if addresses.status is not DnsStatus.FOUND:
        found.append(f"{name} has no address: {addresses.text}")
    if tlsa.status is DnsStatus.ERROR:
        found.append(f"whether {name} has TLSA records is not known; servers with DANE would wait: {tlsa.text}")
    if tlsa.records and not tlsa.secure:
        found.append(f"{name} has TLSA records, but no DNSSEC protects them, or the DNS server asked checks none")
    return found


def _chain(answer: DnsAnswer[str]) -> tuple[str, ...]:
    return (*answer.followed, answer.name) if answer.followed else ()
