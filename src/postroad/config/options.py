"""Makes the options of each room from the settings: each room has its own Struct.

Each key of a section is declared as a field of a room's Struct (`config.field.of`), and `_into` gives its value to this
field. What a room must know beyond that (a field of two rooms, a value that follows from several keys) is said here. A
field that nobody gives is an error at once, so that no option of a room is forgotten when it is added.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from postroad.accounts.authenticate import AuthOptions
from postroad.accounts.introspection import IntrospectionOptions
from postroad.check.client import KNOWN_S, BanOptions, ClientOptions
from postroad.check.etrn import EtrnOptions, EtrnRow
from postroad.check.origin_options import CheckMode, OriginChecks, OriginOptions
from postroad.check.policy import PolicyOptions
from postroad.check.reports import ReportLimits
from postroad.check.sending import SendingLimit, SendingOptions, Whose
from postroad.check.verified import VerifyOptions
from postroad.config.certificates import FurtherCertificateSection, TlsSection
from postroad.config.field import Section, keys_of
from postroad.config.listening import UNIX, ListenerSection
from postroad.config.outbound import OutboundTlsSection
from postroad.config.routing import LocalDomainSection, NextHopSection, RelayDomainSection
from postroad.config.settings import Settings
from postroad.config.values import generic_name, mailbox_pattern, sender_pattern
from postroad.deliver.options import (
    DeliverOptions,
    HttpOptions,
    MaildirOptions,
    MboxOptions,
    PorterOptions,
    ProgramOptions,
    ReportMailboxOptions,
)
from postroad.deliver.porter import PorterDomain, PorterOutlets, PorterTable
from postroad.deliver.signing_options import DkimOutOptions, NamedKey, SignAs
from postroad.mail.account import canonical_account
from postroad.mail.address import Address, canonical_domain
from postroad.mail.classes import REPORT
from postroad.mail.route import OwnAddress, SetServer, TlsDemand, Transport
from postroad.maps.options import MapKind, MapOptions
from postroad.maps.waiting import WaitingOptions
from postroad.protocol.grammar import parse_mailbox
from postroad.protocol.limits import ProtocolLimits
from postroad.queue.options import QueueOptions
from postroad.queue.pace import PaceRule, PaceTable, parse_rate
from postroad.receive.options import ExtensionOptions, ListenerOptions, LocalOptions, ReceiveOptions
from postroad.report.feedback_options import FeedbackOptions
from postroad.report.options import LogOptions, ReportOptions
from postroad.route import options as route
from postroad.route.alias_file import AliasLimits
from postroad.route.batv import BatvOptions
from postroad.route.domains import DomainTable, OwnNames
from postroad.route.forwards import BY
from postroad.route.mx import MxOptions
from postroad.route.options import RoutingOptions
from postroad.route.outlets import ALIASES, OutletOptions, Place, TargetSource, source_of
from postroad.route.recipients import POSTMASTER
from postroad.route.report_mailboxes import ReportMailboxes
from postroad.route.rewrite_options import RewriteOptions
from postroad.route.srs import SrsOptions
from postroad.route.table import delivery, rules_of
from postroad.route.transport import SMTP_PORT
from postroad.store.options import HistoryOptions, KeptReportOptions, SpoolOptions
from postroad.trust.asking import AskingLimits
from postroad.trust.dkim_sign import SigningOptions
from postroad.trust.dkim_verify import DkimOptions
from postroad.trust.inbound.limits import InboundLimits
from postroad.trust.key_store import KeyOptions
from postroad.trust.rotation import RotationOptions
from postroad.trust.sts_fetch import StsOptions
from postroad.world.dns import DnsOptions
from postroad.world.memory import MemoryOptions
from postroad.world.system import own_addresses
from postroad.world.tls import NOBODY, CertificateFiles, ClientTlsOptions, ServerTlsOptions

OWN: Final = "localhost"  # the domain of the node's own mailbox, if there is one
OWN_BOX: Final = "postmaster"  # its Maildir, below state_dir
KEYS: Final = "dkim"  # the folder of the keys that sign mail, below state_dir

_Options = TypeVar("_Options", bound=msgspec.Struct)


def _into(struct: type[_Options], *sections: Section, **given: Any) -> _Options:
    """The Struct with the keys that these sections declare as its fields (`config.field.of`), and with `given`."""
    values = dict(given)
    for section in sections:
        for field, key in keys_of(type(section), struct).items():
            value = getattr(section, key)
            values.setdefault(field, None if value is None and field in _optional(struct) else _plain(value))
    missing = [field for field in struct.__struct_fields__ if field not in values]
    if missing:
        raise LookupError("no section has " + ", ".join(f"{struct.__name__}.{field}" for field in missing))
    return struct(**values)


@cache
def _optional(struct: type[msgspec.Struct]) -> frozenset[str]:
    """The fields of a Struct that are None if they are not set."""
    return frozenset(field.name for field in msgspec.structs.fields(struct) if field.default is None)


def _plain(value: Any) -> Any:
    """Rooms write paths as text, and "" if there is none."""
    return "" if value is None else str(value) if isinstance(value, Path) else value


def listener_options(settings: Settings) -> tuple[ListenerOptions, ...]:
    """One for each address of each listener, in the order of the file."""
    return tuple(
        _listener(settings, listener, address) for listener in settings.listener for address in listener.address
    )


def _listener(settings: Settings, listener: ListenerSection, address: str) -> ListenerOptions:
    unix = address.startswith(UNIX)
    domain = listener.complete_domain or settings.sendmail.domain or settings.hostname
    return _into(
        ListenerOptions,
        listener,
        address="" if unix else address,
        path=address.removeprefix(UNIX) if unix else "",
        tls=settings.tls_of(listener),
        asking=settings.asking_of(listener),
        auth=listener.offers_auth,
        loose_paths=listener.takes_loose_paths,
        complete_domain=canonical_domain(domain),
    )


def origin_checks(listener: ListenerSection) -> OriginChecks:
    """The checks of one listener."""
    modes = {name: listener.check_mode(name) for name in ("spf", "dkim", "dmarc", "arc", "iprev")}
    return _into(OriginChecks, listener, **modes)


def origin_options(settings: Settings) -> OriginOptions:
    """What holds for the checks of all listeners."""
    section = settings.checks
    dkim = _into(DkimOptions, section, skew_s=int(section.clock_skew_s))
    accounts = tuple(map(canonical_account, section.exempt_accounts))
    limits = _into(AskingLimits, section)
    return _into(
        OriginOptions, section, receiver=settings.hostname, dkim=dkim, asking=limits, exempt_accounts=accounts
    )


def policy_options(settings: Settings, listener: ListenerSection) -> PolicyOptions:
    """The rules of one listener."""
    return _into(PolicyOptions, listener, settings.limits, settings.receive)


def submit_policy(settings: Settings) -> PolicyOptions:
    """The rules for `postroad submit`: those of a submission listener, for a client of a trusted network."""
    return PolicyOptions(hops_max=settings.limits.hops_max, trust_network=True)


def local_options(settings: Settings) -> LocalOptions:
    """Users of this machine who call `sendmail`."""
    return _into(LocalOptions, settings.sendmail, domain=settings.sendmail.domain or settings.hostname)


def sending_options(settings: Settings) -> SendingOptions:
    """How much may be sent."""
    limits = tuple(
        _into(SendingLimit, each, who=tuple(map(sender_pattern, each.who)) if each.whose is Whose.SENDER else each.who)
        for each in settings.sending.limit
    )
    delimiter = settings.routing.detail_delimiter
    return _into(SendingOptions, settings.sending, limits=limits, detail_delimiter=delimiter)


def receive_options(settings: Settings) -> ReceiveOptions:
    """What holds for all listeners."""
    first = next((each.name for each in settings.domain if has_own_box(each)), settings.hostname)
    return _into(
        ReceiveOptions,
        settings.limits,
        settings.receive,
        hostname=settings.hostname,
        default_domain=settings.receive.default_domain or first,
        limits=_into(ProtocolLimits, settings.limits),
        extensions=_into(ExtensionOptions, settings.extensions),
        classes=_classes(settings),
    )


def _classes(settings: Settings) -> tuple[str, ...]:
    """What of a message's header section the tables of next hops ask for."""
    wanted = (name.lower() for hop in settings.next_hop for name in (*hop.classes, *hop.fields))
    return tuple(dict.fromkeys(name for name in wanted if name != REPORT))


def client_options(settings: Settings) -> ClientOptions:
    return _into(ClientOptions, settings.limits, settings.auth, failure_delay_s=settings.auth.failure_delay_s)


def ban_options(settings: Settings) -> BanOptions:
    return _into(BanOptions, settings.bans)


def window_lengths_s(settings: Settings) -> tuple[float, ...]:
    """Within what time are counted: rates, what may lead to a ban (`check.client`), reports (`check.reports`), logins
    (`check.client`), and questions to next hops (`check.verified`)."""
    return (
        settings.limits.rate_s, settings.bans.window_s, settings.dsn.strangers_rate_s, KNOWN_S, settings.verify.span_s
    )  # fmt: skip


def auth_options(settings: Settings) -> AuthOptions:
    return _into(AuthOptions, settings.auth, detail_delimiter=settings.routing.detail_delimiter)


def introspection_options(settings: Settings) -> IntrospectionOptions | None:
    """None if no endpoint is set. The secret of its file is for `node` to read."""
    section = settings.auth.introspection
    if section.url is None:
        return None
    return _into(IntrospectionOptions, section, client_secret="")


def server_tls_options(settings: Settings) -> ServerTlsOptions | None:
    """None if there is no certificate."""
    tls = settings.tls
    if tls.certificate is None:
        return None
    askings = tuple(dict.fromkeys((NOBODY, *map(settings.asking_of, settings.listener))))
    return _into(ServerTlsOptions, tls, certificates=(_files(tls), *map(_files, tls.further)), askings=askings)


def _files(named: TlsSection | FurtherCertificateSection | OutboundTlsSection) -> CertificateFiles:
    return CertificateFiles(_plain(named.certificate), _plain(named.key))


def routing_options(settings: Settings) -> RoutingOptions:
    relayed = tuple(route.RelayDomain(name) for name in settings.relay.domains)
    return _into(
        RoutingOptions,
        settings.routing,
        local=tuple(_local(each) for each in settings.domain if each.name) + _own_box(settings),
        relay=(*relayed, *(_into(route.RelayDomain, each) for each in settings.relay.domain if each.name)),
        mapped_local=tuple(map(_mapped_local, (each for each in settings.domain if not each.name))),
        mapped_relay=tuple(map(_mapped_relay, (each for each in settings.relay.domain if not each.name))),
        next_hops=tuple(map(next_hop, settings.next_hop)),
        tls=routing_tls(settings),
        fallback=set_servers(settings.routing.fallback, SMTP_PORT),
        postmaster=settings.postmaster,
        # What "*" says holds for a next hop as a whole.
        apart=tuple(name for each in settings.pace for name in each.domain if name != "*"),
    )


def routing_tls(settings: Settings) -> TlsDemand:
    """How much TLS is demanded of servers found by MX."""
    if settings.routing.tls is not None:
        return settings.routing.tls
    return TlsDemand.STS if settings.dns.validating and settings.dns.servers else TlsDemand.MAY


def _local(domain: LocalDomainSection) -> route.LocalDomain:
    credentials = lmtp_credentials_name(domain)
    aliases_only = domain.deliver == "aliases"
    deliver = Transport.MAILDIR if domain.deliver == "aliases" else Transport(domain.deliver)
    hosts = set_servers(domain.hosts, domain.port)
    named: dict[str, object] = {"hosts": hosts}
    if len(hosts) == 1:
        named = {"hosts": (), "host": hosts[0].host, "port": hosts[0].port}
    return _into(
        route.LocalDomain, domain, deliver=deliver, credentials=credentials, aliases_only=aliases_only, table="",
        **named,
    )


def _mapped_local(domain: LocalDomainSection) -> route.LocalDomain:
    name = route.table_name(domain.domain_maps)
    return msgspec.structs.replace(_local(domain), name=name, table=name)


def _mapped_relay(domain: RelayDomainSection) -> route.RelayDomain:
    return _into(route.RelayDomain, domain, name=route.table_name(domain.domain_maps))


def has_own_box(domain: LocalDomainSection) -> bool:
    """Whether the domain is named here, and may have a mailbox for the postmaster of the node."""
    return bool(domain.name) and domain.deliver != "aliases"


def own_box(settings: Settings) -> str:
    """The Maildir of the node itself, for mail to postmaster at `hostname`, which must be taken (RFC 5321 §4.5.1). "":
    there is none, as that mail has another way: a local domain, `postmaster`, a next hop or a relay domain."""
    relayed = (*settings.relay.domains, *(each.name for each in settings.relay.domain))
    hops = map(next_hop, settings.next_hop)
    elsewhere = (*relayed, *(hop.domain for hop in hops if hop.has_server and hop.domain and hop.is_for_all))
    found = DomainTable((name, name) for name in elsewhere)
    if any(map(has_own_box, settings.domain)) or settings.postmaster:
        return ""
    if found.find(canonical_domain(settings.hostname)) or OWN in elsewhere:
        return ""
    return str(settings.state_dir / OWN_BOX)


def _own_box(settings: Settings) -> tuple[route.LocalDomain, ...]:
    path = own_box(settings)
    return (route.LocalDomain(OWN, (POSTMASTER,), path=path),) if path else ()


def verify_options(settings: Settings) -> VerifyOptions:
    return _into(VerifyOptions, settings.verify)


def map_options(settings: Settings) -> tuple[MapOptions, ...]:
    """In the order of the file: a map of several maps stands behind these."""
    return tuple(_into(MapOptions, each, waiting=_into(WaitingOptions, each)) for each in settings.map)


def rewrite_options(settings: Settings) -> RewriteOptions:
    return _into(RewriteOptions, settings.rewrite)


def alias_limits(settings: Settings) -> AliasLimits:
    return _into(AliasLimits, settings.limits)


def outlet_options(settings: Settings) -> OutletOptions:
    return _into(OutletOptions, settings.alias_targets)


def alias_sources(settings: Settings) -> dict[str, TargetSource]:
    """Where targets of aliases come from: the alias file (""), and maps by name."""
    outlets = outlet_options(settings)
    found = {"": source_of(outlets, "aliases", _plain(settings.aliases))}
    for each in settings.map:
        place: Place = "aliases" if each.kind in _FILES else "services"
        found[each.name] = source_of(outlets, place, _plain(each.file))
    return found


# Maps whose values stand in the configuration or in a file as they are.
_FILES: Final = frozenset((
    MapKind.INLINE, MapKind.TEXT, MapKind.ALIASES, MapKind.STATIC, MapKind.CDB, MapKind.LMDB
))


def etrn_options(settings: Settings) -> EtrnOptions:
    rows = tuple(
        _into(EtrnRow, each, accounts=tuple(map(canonical_account, each.accounts))) for each in settings.relay.etrn
    )
    return EtrnOptions(rows, settings.relay.etrn_interval_s, settings.relay.etrn_names_max)


def next_hop(hop: NextHopSection) -> route.NextHop:
    by_name = bool(hop.name) and not (hop.senders or hop.accounts or conditions(hop))
    domain = hop.domain or ("" if hop.recipients or by_name else "*")
    generic = tuple(map(_generic, hop.generic))
    hosts = set_servers(hop.hosts, hop.port)
    named: dict[str, object] = {"hosts": hosts}
    if len(hosts) == 1:  # equal keys mean equal destinations
        named = {"hosts": (), "host": hosts[0].host, "port": hosts[0].port, "mx": hosts[0].mx}
    return _into(
        route.NextHop, hop, domain=domain, credentials=credentials_name(hop), generic=generic, **named,
        fallback=set_servers(hop.fallback, SMTP_PORT),
        source_ipv4=tuple(map(_own_address, hop.source_ipv4)), source_ipv6=tuple(map(_own_address, hop.source_ipv6)),
        fields=tuple(each.lower() for each in hop.fields),
        tls_minimum="" if hop.tls_minimum is None else hop.tls_minimum.value,
    )


def set_servers(written: tuple[str, ...], port: int) -> tuple[SetServer, ...]:
    """Servers as `config.values.server_entry` writes them. `port`: of those that name none. If none has a priority or a
    weight, they count in their order."""
    listed = not any("priority=" in each or "weight=" in each for each in written)
    found = []
    for place, entry in enumerate(written):
        host, *words = entry.split()
        named = dict(word.split("=") for word in words if "=" in word)
        priority = place if listed else int(named.get("priority", 0))
        weight = 0 if listed else int(named.get("weight", 1))
        found.append(SetServer(host, int(named.get("port", port)), "mx" in words, priority, weight))
    return tuple(found)


def servers_of(table: NextHopSection | LocalDomainSection) -> tuple[SetServer, ...]:
    """The servers that a table names."""
    if table.hosts:
        return set_servers(table.hosts, table.port)
    mx = isinstance(table, NextHopSection) and table.mx
    return () if table.host is None else (SetServer(table.host.strip("[]"), table.port, mx),)


def _own_address(written: str) -> OwnAddress:
    address, _, hello = written.partition(" ")
    return OwnAddress(address, hello)


def _generic(written: str) -> route.Generic:
    pattern, result = written.split()
    if not pattern.startswith("@"):
        pattern = mailbox_pattern(pattern)
    local_part, _, domain = generic_name(result).rpartition("@")
    whole = parse_mailbox(result) if local_part else None
    return route.Generic(generic_name(pattern) if pattern.startswith("@") else pattern, whole or Address("", domain))


def credentials_name(hop: NextHopSection) -> str:
    """By which name a destination asks for the credentials of this next hop; "" if it has none. The name stands in the
    destination's key: it says for whom the table is, and no two tables have the same."""
    if not hop.username:
        return ""
    whose = hop.senders[:1] or tuple(f"account:{name}" for name in hop.accounts[:1])
    to = (hop.domain,) if hop.domain else hop.recipients[:1]
    named = ">".join((*whose, *to)) if whose or to else f"next_hop:{hop.name}"
    only = conditions(hop)
    return f"{named} if {only}" if only else named


def conditions(hop: NextHopSection) -> str:
    """Which mail of its senders a table takes, as a text that no other condition has; "" for all."""
    said = {
        "size": hop.size_min or None, "class": ",".join(hop.classes) or None, "field": ",".join(hop.fields) or None,
        "listener": ",".join(hop.listeners) or None, "priority_min": hop.priority_min,
        "priority_max": hop.priority_max,
    }  # fmt: skip
    return " ".join(f"{name}={value}" for name, value in said.items() if value is not None)


def lmtp_credentials_name(domain: LocalDomainSection) -> str:
    """The same for the LMTP server of a domain, which other domains may share."""
    if not domain.username:
        return ""
    servers = ",".join(server.key for server in set_servers(domain.hosts, domain.port))
    return f"lmtp:{domain.socket or servers or f'[{domain.host}]:{domain.port}'}"


def mx_options(settings: Settings) -> MxOptions:
    return _into(MxOptions, settings.mx)


def sts_options(settings: Settings) -> StsOptions:
    demands = (routing_tls(settings), *(hop.tls for hop in settings.next_hop))
    is_on = TlsDemand.STS in demands or bool(settings.routing.tls_policy_maps)
    return _into(StsOptions, settings.mta_sts, loopback=settings.mx.loopback, is_on=is_on)


def srs_options(settings: Settings) -> SrsOptions:
    return _into(SrsOptions, settings.srs)


def batv_options(settings: Settings) -> BatvOptions:
    unsigned = tuple(map(mailbox_pattern, settings.batv.unsigned))
    return _into(BatvOptions, settings.batv, unsigned=unsigned)


def key_options(settings: Settings) -> KeyOptions:
    return _into(KeyOptions, settings.dkim, folder=str(settings.dkim.folder or settings.state_dir / KEYS))


def rotation_options(settings: Settings) -> RotationOptions:
    return _into(RotationOptions, settings.dkim, keep_s=lifetime_max_s(settings))


def lifetime_max_s(settings: Settings) -> float:
    """The longest time for which mail of any kind may wait here."""
    routed: tuple[LocalDomainSection | NextHopSection, ...] = (*settings.domain, *settings.next_hop)
    own = [each for table in routed for each in (table.lifetime_s, table.lifetime_dsn_s) if each is not None]
    return max(settings.queue.lifetime_s, settings.queue.lifetime_dsn_s, *own)


def dkim_out_options(settings: Settings) -> DkimOutOptions:
    section = settings.dkim
    fields = _into(SigningOptions, section, lifetime_s=int(section.lifetime_s))
    keys = tuple(_into(NamedKey, each) for each in section.key)
    sign_as = tuple(_into(SignAs, each) for each in section.sign_as)
    judging = frozenset(each.name for each in settings.listener if each.check_mode("arc") is not CheckMode.OFF)
    return _into(
        DkimOutOptions, section, keys=keys, sign_as=sign_as, fields=fields, arc_listeners=judging,
        authserv_id=settings.checks.authserv_id or settings.hostname,
        unchecked_networks=settings.checks.exempt_networks,
    )


def deliver_options(settings: Settings) -> DeliverOptions:
    return _into(
        DeliverOptions,
        settings.outbound,
        mt_priority_tunnel=settings.extensions.mt_priority_tunnel,
        maildir=_into(MaildirOptions, settings.maildir, detail_delimiter=settings.routing.detail_delimiter),
        mbox=_into(MboxOptions, settings.mbox),
        http=_into(HttpOptions, settings.http),
        program=_into(ProgramOptions, settings.program),
        reports=_into(
            ReportMailboxOptions, settings.report_mailboxes,
            limits=_into(InboundLimits, settings.report_mailboxes),
            kept=kept_report_options(settings), authserv_id=settings.checks.authserv_id or "",
        ),
    )


def report_mailboxes(settings: Settings) -> ReportMailboxes:
    """The mailboxes to which others send reports."""
    return ReportMailboxes(settings.report_mailboxes.addresses, settings.routing.detail_delimiter)


def kept_report_options(settings: Settings) -> KeptReportOptions:
    """How much of the reports of others is kept."""
    return _into(KeptReportOptions, settings.report_mailboxes)


def porter_table(settings: Settings) -> PorterTable | None:
    """What the process that delivers as other users knows; None if no domain has a user."""
    domains = {
        local.name: PorterDomain(
            local.deliver, local.user, local.user_group, local.path, local.command, rules_of(local),
            forwards=local.forward_files,
        )
        for local in _all_local(routing_options(settings))
        if local.user
    }
    outlets = _porter_outlets(settings)
    if not domains and not outlets:
        return None
    deliver = deliver_options(settings)
    return PorterTable(
        settings.hostname, domains, _into(PorterOptions, settings.other_users), deliver.maildir, deliver.mbox,
        deliver.program, outlets, _forward_kinds(outlet_options(settings)),
        "forwards" in settings.alias_targets.includes, _forward_kinds(outlet_options(settings), "includes"),
    )


def _all_local(routing: RoutingOptions) -> tuple[route.LocalDomain, ...]:
    return (*routing.local, *routing.mapped_local)
def _porter_outlets(settings: Settings) -> dict[str, PorterOutlets]:
    """As whom programs and files of aliases are used, by the name of their source."""
    options = outlet_options(settings)
    in_forwards = _forward_kinds(options)
    of_users = {
        f"{BY}{local.name}": PorterOutlets(local.user, in_forwards, forwards=True)
        for local in _all_local(routing_options(settings))
        if local.forward_files and local.user and in_forwards
    }
    if not options.user:
        return of_users
    kinds: tuple[Transport, ...] = (Transport.PROGRAM,) if {*options.programs} - {"forwards"} else ()
    kinds += (Transport.MBOX, Transport.MAILDIR) if {*options.files} - {"forwards"} else ()
    found = of_users | {ALIASES.by: PorterOutlets(options.user, kinds)}  # also of mail stored under older settings
    for source in alias_sources(settings).values():
        found[source.by] = PorterOutlets(source.user, kinds, source.by.partition(":")[2])
    return found


def _forward_kinds(options: OutletOptions, place: Place = "forwards") -> tuple[Transport, ...]:
    """What the .forward files of users, or files that they include, may name, other than mailboxes."""
    kinds: tuple[Transport, ...] = (Transport.PROGRAM,) if place in options.programs else ()
    return kinds + ((Transport.MBOX, Transport.MAILDIR) if place in options.files else ())


def client_tls_options(settings: Settings) -> ClientTlsOptions:
    tls = settings.outbound.tls
    return _into(ClientTlsOptions, tls, certificate=None if tls.certificate is None else _files(tls))


def dns_options(settings: Settings) -> DnsOptions:
    return _into(DnsOptions, settings.dns)


def queue_options(settings: Settings) -> QueueOptions:
    return _into(QueueOptions, settings.queue)


def pace_table(settings: Settings) -> PaceTable:
    queue = settings.queue
    rules = tuple(_into(PaceRule, each, rate=parse_rate(each.rate)) for each in settings.pace)
    return PaceTable(
        rules, most=queue.concurrency, start=queue.concurrency_start, recipients_max=queue.recipients_per_job_max,
        here=_paces_here(settings),
    )


def _paces_here(settings: Settings) -> dict[str, PaceRule]:
    """Limits of our own domains, by the keys of their destinations."""
    if not any(each.connections_max or each.recipients_max for each in settings.domain):
        return {}
    routed = routing_options(settings)
    return {
        delivery(local).key: PaceRule(connections_max=local.connections_max, recipients_max=local.recipients_max)
        for local in (*routed.local, *routed.mapped_local)
        if local.connections_max or local.recipients_max
    }


def spool_options(settings: Settings) -> SpoolOptions:
    return _into(SpoolOptions, settings.store)


def history_options(settings: Settings) -> HistoryOptions:
    return _into(HistoryOptions, settings.history)


def report_options(settings: Settings) -> ReportOptions:
    return _into(ReportOptions, settings.dsn, hostname=settings.hostname, postmaster=settings.postmaster)


def feedback_options(settings: Settings) -> FeedbackOptions:
    return _into(
        FeedbackOptions, settings.feedback, hostname=settings.hostname, mailboxes=settings.report_mailboxes.addresses,
        keep_days=settings.history.keep_days, delimiters=settings.routing.detail_delimiter,
    )  # fmt: skip


def report_limits(settings: Settings) -> ReportLimits:
    return _into(ReportLimits, settings.dsn)


def log_options(settings: Settings) -> LogOptions:
    return _into(LogOptions, settings.log)


def memory_options(settings: Settings) -> MemoryOptions:
    return _into(MemoryOptions, settings.memory)


def own_names(settings: Settings) -> OwnNames:
    """By what names, addresses and ports this node is known (RFC 5321 §5.1)."""
    listening = [listener for listener in settings.listener if not all(map(_is_socket, listener.address))]
    addresses = {address for listener in listening for address in listener.address if not _is_socket(address)}
    if addresses & {"0.0.0.0", "::"}:
        addresses |= own_addresses()
    ports = frozenset(listener.port for listener in listening)
    return OwnNames(frozenset({canonical_domain(settings.hostname)}), frozenset(addresses - {"0.0.0.0", "::"}), ports)


def _is_socket(address: str) -> bool:
    return address.startswith(UNIX)
