"""The routing table: message and recipient → destination, at once and without the DNS (`mail.routing`).

A mailbox may have a next hop of its own; else its domain is local (delivered here), has a next hop that the operator
set, perhaps for some senders only (`route.choosing`), or goes by its MX. What always holds: if the answer depends on
the recipient's domain alone, as it mostly does, it is kept for the domain and costs one look into a dictionary; equal
keys mean equal destinations. How it fails: with a failed Attempt, if mail can never be routed.

RFC 5321 §2.3.5, §3.6, §4.1.3 (address literals), §4.5.1 (Postmaster). Not here: finding the hosts (`route.mx`), whether
a mailbox exists (`route.recipients`), who may relay (`check`).
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

import msgspec

from postroad.mail.address import Address, is_loopback, is_unusable
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.route import (
    APART,
    FROM,
    Destination,
    Fallback,
    HttpTarget,
    MailboxRules,
    Origin,
    Quota,
    SetServer,
    TlsDemand,
    Transport,
)
from postroad.mail.routing import is_held
from postroad.maps.face import NotNow
from postroad.route.choosing import NOBODYS, NextHops, RoutedMail
from postroad.route.domain_maps import MappedDomains
from postroad.route.domains import DomainTable, OwnNames, literal_address
from postroad.route.options import LocalDomain, NextHop, OverQuota, RelayDomain, RoutingOptions, retry_of
from postroad.route.outlets import NOTHING, OutletOptions, permitted
from postroad.route.transport import WayKind, action, ended

_CACHE_MAX: Final = 100_000  # domains; then begun anew
_APART_MAX: Final = 10_000  # recipients with their senders; then begun anew

_NOBODY: Final = OwnNames()
_SMTP: Final = Transport.SMTP
ONLY_ALIASES: Final = "no such user here: the domain has only aliases"
OWN_MAILBOXES: Final = ("postmaster", "mailer-daemon")  # of the node: reports come from the latter


class RoutingTable:
    """`ourselves`: for address literals that are our own. `mapped`: domains whose names come from maps; such a domain
    must be known before anything here is asked of it (`route.domain_maps`). `outlets`: which programs and files of
    aliases are allowed. A new configuration makes a new one."""

    def __init__(
        self, options: RoutingOptions, ourselves: OwnNames = _NOBODY, mapped: MappedDomains | None = None,
        outlets: OutletOptions = NOTHING,
    ) -> None:
        self.options = options
        self.outlets = outlets
        self.mapped = mapped
        if mapped is not None:
            mapped.changed.append(self._forget)
        self._ourselves = ourselves
        self._local = {domain.name: domain for domain in options.local}  # no patterns
        self._fresh = None if mapped is None else mapped.fresh.get
        self._relay = DomainTable((domain.name, domain) for domain in options.relay)
        self._next_hops = NextHops(options.next_hops, options.detail_delimiter)
        self._apart = DomainTable((name, True) for name in options.apart)
        self._kept: dict[str, Destination | Attempt] = {}  # by domain, if nothing else counts
        self._kept_apart: dict[tuple[Address, RoutedMail], Destination | Attempt] = {}
        self._first = _first(options)
        self._postmaster = _postmaster(options)

    def route(self, envelope: Envelope, recipient: Recipient) -> Destination | Attempt:
        """Where the recipient's mail goes next (`mail.routing.DestinationOf`)."""
        if recipient.destination is not None:
            return stored(recipient.destination, self.outlets)
        found = self._kept.get(recipient.address.domain)
        return self.find(recipient.address, self.mail(envelope, recipient)) if found is None else found

    def mail(self, envelope: Envelope, recipient: Recipient) -> RoutedMail:
        """What of a message its route may depend on."""
        return self._next_hops.mail(envelope, released=recipient.released)

    def destination(self, address: Address) -> Destination | Attempt:
        """Where mail for the mailbox goes next, if no table names its sender or account."""
        found = self._kept.get(address.domain)
        return self.find(address, NOBODYS) if found is None else found

    def keys(self, domain: str) -> tuple[str, ...]:
        """The keys of all destinations to which mail for a domain may go, of whatever sender and mailbox."""
        hops = () if self.is_local(domain) else tuple(self._next_hops.any_for(domain))
        ways = [self.by_hop(hop, domain) for hop in hops]
        ways.append(self.destination(Address("postmaster", domain)))
        return tuple(dict.fromkeys(way.key for way in ways if isinstance(way, Destination)))

    @property
    def has_maps(self) -> bool:
        """Whether maps may give a domain's mail destinations that are not in `keys`."""
        return bool(self.options.transport_maps) or self.mapped is not None

    def _forget(self, domain: str) -> None:
        """Maps say another thing of a domain than before."""
        self._kept.pop(domain, None)
        self._kept_apart.clear()

    def is_mapped(self, domain: str) -> bool:
        """Whether maps are asked if the domain is ours."""
        return self.mapped is not None and domain[:1] not in ("", "[") and domain not in self._local

    def make_known(self, domain: str) -> NotNow | Awaitable[NotNow | None] | None:
        """Have the table know what the domain is (`route.domain_maps.MappedDomains.make_known`)."""
        return self.mapped.make_known(domain) if self.mapped is not None and self.is_mapped(domain) else None

    def table_of(self, domain: str) -> str:
        """The name of the table with maps that serves the domain; "" if none does."""
        if self.mapped is None or not self.is_mapped(domain):
            return ""
        found = self.mapped.find(domain)
        if isinstance(found, LocalDomain):
            return found.table
        return "" if found is None or self._relay.find(domain) is not None else found.name

    def find(self, address: Address, mail: RoutedMail) -> Destination | Attempt:
        """The same for this mail."""
        domain = address.domain
        if mail.released:
            return self._choose(address, mail)
        found = self._kept.get(domain)
        if found is not None:
            return found
        if self._depends_on_domain_alone(domain):
            if len(self._kept) >= _CACHE_MAX:
                self._kept.clear()
            found = self._decide(domain, self._next_hops.for_all(domain))
            if not is_held(found):  # what is kept would also be the answer for mail that was released
                self._kept[domain] = found
            return found
        key = (address, mail)
        kept = self._kept_apart.get(key)
        if kept is None:
            if len(self._kept_apart) >= _APART_MAX:
                self._kept_apart.clear()
            kept = self._kept_apart[key] = self._choose(address, mail)
        return kept

    def hop(self, address: Address, mail: RoutedMail) -> NextHop | None:
        """The next hop that mail takes if it does not end here."""
        hops = self._next_hops
        return hops.for_mailbox(address, mail) or hops.for_domain(address.domain, mail)

    def is_for_all(self, domain: str) -> bool:
        """Whether all mail of a domain goes the same way, and it is known."""
        return domain in self._kept

    def _depends_on_domain_alone(self, domain: str) -> bool:
        if self._next_hops.has_mailboxes(domain):
            return False
        return self.is_local(domain) or not self._next_hops.depends_on_message(domain)

    def _choose(self, address: Address, mail: RoutedMail) -> Destination | Attempt:
        hop = self._next_hops.for_mailbox(address, mail)
        if hop is not None:
            return self.by_hop(hop, address.domain, released=mail.released)
        hop = self._next_hops.for_domain(address.domain, mail)
        return self._decide(address.domain, hop, released=mail.released)

    def local(self, domain: str) -> LocalDomain | None:
        """The local domain of this name; the first for "" (``<Postmaster>``) and for our own address literals."""
        found = self._local.get(domain)
        if found is not None:
            return found
        if domain and not domain.startswith("["):
            return None if self.mapped is None else self._mapped_local(domain)
        return self._first if not domain or self._is_own_literal(domain) else None

    def _mapped_local(self, domain: str) -> LocalDomain | None:
        found = self.mapped.find(domain) if self.mapped is not None else None
        return found if isinstance(found, LocalDomain) else None

    def home(self, address: Address) -> Address:
        """The mailbox as its local domain names it: a bare ``<Postmaster>`` (RFC 5321 §4.1.1.3) and mailboxes at our
        own address literals (§4.1.3) belong to the first local domain, and so do ``postmaster`` and ``MAILER-DAEMON``
        of the node (§4.5.1), if its name is no local domain; all others are as they are."""
        if address.domain and not address.domain.startswith("["):
            return self._postmaster if self.is_own(address) and self._postmaster is not None else address
        local = self.local(address.domain)
        return address if local is None else Address(address.local_part, local.name)

    def is_own(self, address: Address) -> bool:
        """Whether answers to mail of the node itself go there, and nobody said otherwise by making its name a local
        domain. Their mail is taken from everybody; if it has no mailbox here, it goes on as all mail for our name."""
        if address.domain not in self._ourselves.names or address.local_part.lower() not in OWN_MAILBOXES:
            return False
        if self.is_local(address.domain):
            return False
        hop = self._next_hops.for_all(address.domain)
        goes_on = (hop is not None and hop.has_server) or self.is_relay(address.domain)
        return self._postmaster is not None or goes_on

    def at_home(self, recipients: tuple[Recipient, ...]) -> tuple[Recipient, ...]:
        """Recipients with their mailboxes as `home` says; what the client named is kept in `given`."""
        names = self._ourselves.names
        if all(
            recipient.address.domain[:1] not in ("", "[") and recipient.address.domain not in names
            for recipient in recipients
        ):
            return recipients
        return tuple(map(self._at_home, recipients))

    def _at_home(self, recipient: Recipient) -> Recipient:
        home = self.home(recipient.address)
        if home == recipient.address:
            return recipient
        return msgspec.structs.replace(recipient, address=home, given=recipient.given or recipient.address)

    def is_local(self, domain: str) -> bool:
        if self._fresh is not None:  # many times for each message
            found = self._fresh(domain)
            if found is not None:
                return found.is_local
        if domain and domain[0] != "[":
            return domain in self._local or (self.mapped is not None and self.mapped.is_local(domain))
        return self.local(domain) is not None

    def is_elsewhere(self, domain: str) -> bool:
        """Whether it is known now that no mailbox of the domain is here, by its own or another name."""
        if not domain or domain[0] == "[" or domain in self._ourselves.names or domain in self._local:
            return False
        if self._fresh is None:
            return True
        known = self._fresh(domain)
        return known is not None and not known.is_local

    def relay(self, domain: str) -> RelayDomain | None:
        """The relay domain of this name; never a local one."""
        if self.is_local(domain):
            return None
        found = self._relay.find(domain)
        if found is None and self.mapped is not None and self.is_mapped(domain):
            mapped = self.mapped.find(domain)
            return mapped if isinstance(mapped, RelayDomain) else None
        return found

    def is_relay(self, domain: str) -> bool:
        return self.relay(domain) is not None

    def _is_own_literal(self, domain: str) -> bool:
        address = literal_address(domain)
        return address is not None and address in self._ourselves.addresses

    def _decide(self, domain: str, hop: NextHop | None, *, released: bool = False) -> Destination | Attempt:
        local = self.local(domain)
        if local is not None:
            return _nowhere("5.1.1", ONLY_ALIASES) if local.aliases_only else delivery(local)
        if not domain:
            return _nowhere("5.1.2", "this server has no domain of its own to deliver to a bare <Postmaster>")
        return self.by_hop(hop, domain, released=released)

    def by_hop(self, hop: NextHop | None, domain: str, *, released: bool = False) -> Destination | Attempt:
        """To a next hop, or by the MX of the domain."""
        if hop is not None and hop.action:
            way = action(hop.action)
            if way is not None and not (released and way.kind is WayKind.HOLD):
                return ended(way)
        if hop is not None and hop.has_server:
            found = destination_of_hop(hop, domain if self._apart.find(domain) else "", self.options.tls)
            return self.with_fallbacks(found, hop.fallback) if hop.fallback else found
        if domain.startswith("["):
            return self._literal(domain)
        # Equal keys mean equal destinations: how the MX are reached depends on sender or mailbox only if addresses of
        # ours stand in the key.
        plain = self._next_hops.for_all(domain)
        if plain is None or plain.has_server:
            found = Destination(
                domain, _SMTP, domain=domain, port=self.options.mx_port, tls=self.options.tls
            )
            fallback = self.options.fallback
        else:
            found = Destination(
                domain, _SMTP, domain=domain, port=self.options.mx_port, tls=demand_of(plain, self.options.tls),
                ignored_extensions=plain.ignored_extensions, origin=plain.origin, retry=plain.retry,
                terms=plain.terms,
            )
            fallback = plain.fallback or self.options.fallback
        if hop is not None and hop is not plain and hop.origin.is_set:  # some of its mail, by another line
            retry = hop.retry or found.retry
            found = msgspec.structs.replace(
                found, key=domain + origin_name(hop.origin), origin=hop.origin, retry=retry
            )
        return self.with_fallbacks(found, fallback) if fallback else found

    def with_fallbacks(self, destination: Destination, servers: tuple[SetServer, ...]) -> Destination:
        """Each is reached as the table says that names it, too."""
        return msgspec.structs.replace(destination, fallbacks=tuple(map(self._fallback, servers)))

    def _fallback(self, server: SetServer) -> Fallback:
        plain = (hop for hop in self.options.next_hops if hop.is_for_all)
        hop = next((hop for hop in plain if server_names(hop) == (server.key,)), None)
        if hop is None:
            return Fallback(server, self.options.tls)
        demand = demand_of(hop, self.options.tls)
        return Fallback(server, demand, hop.credentials, hop.ignored_extensions, hop.terms)

    def _literal(self, domain: str) -> Destination | Attempt:
        """Mail to ``user@[192.0.2.1]``, which goes to that host itself (RFC 5321 §5.1: no MX look-up)."""
        address = literal_address(domain)
        if address is None:
            return _nowhere("5.1.2", f"{domain} is not an IP address that mail can be sent to")
        if not self.options.literals:
            return _nowhere("5.1.2", f"this server sends no mail to address literals such as {domain}")
        if is_loopback(address) or is_unusable(address):
            return _nowhere("5.1.2", f"{domain} is not an address of another host")
        port = self.options.mx_port
        key = f"[{address}]:{port}"
        return Destination(
            key, Transport.SMTP, host=address, port=port, tls=self.options.tls
        )


def _first(options: RoutingOptions) -> LocalDomain | None:
    """The first local domain with mailboxes."""
    return next((domain for domain in options.local if not domain.aliases_only), None)
def stored(destination: Destination, outlets: OutletOptions) -> Destination | Attempt:
    """The answer for a recipient whose destination was stored with it."""
    if not destination.outlet:
        return destination
    if not destination.throws_away:
        found = permitted(destination, outlets)
        if isinstance(found, Destination):
            return found
        return Attempt(Outcome.DEFERRED, Reach.RECIPIENT, "4.3.5", found, transport="")
    text = f"its mail is thrown away, as an alias to {destination.outlet} says"
    return Attempt(Outcome.DELIVERED, Reach.RECIPIENT, "2.0.0", text, transport="discard")


def _postmaster(options: RoutingOptions) -> Address | None:
    """Who gets the mail to the node itself: the postmaster of the first local domain, else whom the settings name."""
    first = _first(options)
    if first is not None:
        return Address("postmaster", first.name)
    local_part, _, domain = options.postmaster.rpartition("@")
    return Address(local_part, domain) if local_part else None


def _nowhere(status: str, text: str) -> Attempt:
    return Attempt(Outcome.FAILED, Reach.DESTINATION, status, text)


def delivery(local: LocalDomain) -> Destination:
    """How mail of a local domain is delivered."""
    found, retry = _delivery(local), retry_of(local)
    return found if retry is None else msgspec.structs.replace(found, retry=retry)


def _delivery(local: LocalDomain) -> Destination:
    name = local.name
    match local.deliver:
        case Transport.MAILDIR | Transport.MBOX as kind:
            return Destination(f"{kind.value}:{name}", kind, domain=name, path=local.path, rules=rules_of(local))
        case Transport.PROGRAM:
            rules = MailboxRules(user=local.user, table=local.table)
            return Destination(f"program:{name}", Transport.PROGRAM, domain=name, command=local.command, rules=rules)
        case Transport.HTTP:
            target = HttpTarget(local.url, local.format, local.secret_file, local.authorization_file, local.together)
            return Destination(f"http:{name}", Transport.HTTP, domain=name, http=target)
        case Transport.LMTP | Transport.SMTP:
            return _lmtp(local)


def _lmtp(local: LocalDomain) -> Destination:
    host = local.host.strip("[]")
    if local.socket:
        key = f"lmtp:{local.socket}"
    elif local.hosts:
        key = f"lmtp:{','.join(server.key for server in local.hosts)}"
    else:
        key = f"lmtp:[{host}]:{local.port}"
    return Destination(
        key,
        Transport.LMTP,
        host="" if local.socket else host,
        port=25 if local.socket else local.port,
        path=local.socket,
        tls=local.tls,
        credentials=local.credentials,
        xforward=local.xforward,
        xclient=local.xclient,
        ignored_extensions=local.ignored_extensions,
        servers=local.hosts,
    )


def rules_of(local: LocalDomain) -> MailboxRules:
    """What holds for the mailboxes of a domain."""
    return MailboxRules(
        Quota(local.quota_size, local.quota_messages), local.quota_file, local.over_quota is OverQuota.FAIL,
        local.quota_warning, local.detail_folders, local.user, local.table,
    )


def server_names(hop: NextHop) -> tuple[str, ...]:
    """The servers of a table, as its destination's key names them."""
    if hop.hosts:
        return tuple(server.key for server in hop.hosts)
    return (SetServer(hop.host.strip("[]"), hop.port, hop.mx).key,)


def demand_of(hop: NextHop, usual: TlsDemand) -> TlsDemand:
    """How much TLS a table demands. `usual`: of servers found by MX, if nobody says otherwise."""
    if hop.tls is not None:
        return hop.tls
    if not hop.has_server:
        return usual
    return TlsDemand.DANE if usual in (TlsDemand.DANE, TlsDemand.STS) else TlsDemand.MAY


def destination_of_hop(hop: NextHop, apart: str = "", usual: TlsDemand = TlsDemand.MAY) -> Destination:
    """To the servers of a table. Addresses of ours stand in the key: such mail shares no connection with other mail.
    `usual`: as of `demand_of`."""
    host = hop.host.strip("[]")
    key = ",".join(server_names(hop))
    if hop.credentials:
        key += f"/{hop.credentials}"
    key += origin_name(hop.origin)
    if apart:
        key += APART + apart
    return Destination(
        key,
        Transport.SMTP,
        domain=host if hop.mx else "",
        host="" if hop.mx else host,
        port=hop.port,
        tls=demand_of(hop, usual),
        terms=hop.terms,
        credentials=hop.credentials,
        xforward=hop.xforward,
        xclient=hop.xclient,
        apart=apart,
        ignored_extensions=hop.ignored_extensions,
        servers=hop.hosts,
        origin=hop.origin,
        retry=hop.retry,
    )


def origin_name(origin: Origin) -> str:
    """What stands in a key for addresses of ours: the first one."""
    first = (*origin.ipv4, *origin.ipv6)[:1]
    return f"{FROM}{first[0].address}" if first else ""
