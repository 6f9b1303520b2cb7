"""Where mail goes: our own domains and how they are delivered, relay domains, next hops."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator

from postroad.check.etrn import EtrnOptions, EtrnRow
from postroad.check.verified import NotKnown, VerifyOptions
from postroad.config.field import Section, of, setting, several, tables
from postroad.config.values import (
    Action,
    AddedFields,
    CertificateName,
    DomainOrNone,
    DomainPattern,
    DomainPatternOrNone,
    FieldPattern,
    File,
    Fingerprint,
    GenericEntry,
    HelloName,
    Host,
    Mailbox,
    MailboxPattern,
    MapNames,
    Moment,
    Octets,
    OwnAddressEntry,
    Port,
    RemovedFields,
    ReplacedFields,
    Seconds,
    SenderPattern,
    ServerEntry,
    TrustedNetwork,
    Url,
    one_or_more,
)
from postroad.mail.route import HttpFormat, TlsDemand
from postroad.route import options as route
from postroad.route.batv import Batv
from postroad.route.mx import MxOptions, Prefer
from postroad.route.options import OverQuota, RoutingOptions
from postroad.route.outlets import OutletOptions, Place
from postroad.world.tls import Version

Deliver = Literal["maildir", "mbox", "lmtp", "program", "http", "aliases"]
ClientMechanism = Literal[
    "", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-1", "PLAIN", "LOGIN", "OAUTHBEARER",
    "XOAUTH2", "EXTERNAL", "CRAM-MD5",
]  # fmt: skip
# What a server may offer and the client can do without; STARTTLS and AUTH have settings of their own.
Extension = Literal[
    "PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "BINARYMIME", "LIMITS", "DELIVERBY", "MT-PRIORITY",
    "RRVS", "XFORWARD",
]  # fmt: skip
KeepsExtensions = Literal["aliases", "alias_maps"]
IgnoredExtensions = Annotated[tuple[Extension, ...], BeforeValidator(one_or_more)]
ServerEntries = Annotated[tuple[ServerEntry, ...], BeforeValidator(one_or_more)]
OwnAddresses = Annotated[tuple[OwnAddressEntry, ...], BeforeValidator(one_or_more)]


class DomainSection(Section):
    """A table for one domain, or for those that maps have."""

    name: str
    domain_maps: MapNames

    @property
    def called(self) -> str:
        """What the table is called in messages."""
        return self.name or f"the table with domain_maps = {list(self.domain_maps)}"

    @property
    def quoted(self) -> str:
        """The same, with the name of a domain in quotes."""
        return repr(self.name) if self.name else self.called


class LocalDomainSection(DomainSection):
    """A domain whose mail is delivered on this node. Give one table `[[domain]]` for each, or one for many, whose names
    are in `domain_maps`."""

    name: DomainOrNone = of(route.LocalDomain.name, default="", example='"example.org"')
    domain_maps: MapNames = of(
        route.LocalDomain.domain_maps,
        source="Postfix, virtual_mailbox_domains, virtual_alias_domains",
        example='["domains"]',
    )
    recipients: Annotated[tuple[str, ...], BeforeValidator(one_or_more)] = of(
        route.LocalDomain.recipients, source="RFC 5321 §4.5.1", example='["alice", "bob"]'
    )
    recipients_file: File | None = of(route.LocalDomain.recipients_file, default=None, example='"recipients"')
    recipient_maps: MapNames = of(route.LocalDomain.recipient_maps, example='["mailboxes"]')
    verify: bool = of(route.LocalDomain.verify, source="Postfix, reject_unverified_recipient")
    deliver: Deliver = setting(
        "maildir",
        "`maildir`: into the folder `path`. `mbox`: to the end of the file `path`. `lmtp`: to the LMTP server at "
        "`socket`, or at `host` and `port`. "
        "`program`: to the standard input of `command`. `http`: by POST to `url`. `aliases`: nowhere; the domain has "
        "only aliases and no mailboxes.",
        source="RFC 2033",
        example='"maildir"',
    )
    path: File | None = of(route.LocalDomain.path, default=None, example='"/var/mail/{domain}/{local_part}"')
    socket: File | None = of(route.LocalDomain.socket, default=None, example='"/run/dovecot/lmtp"')
    host: Host | None = of(route.LocalDomain.host, default=None, example='"imap.example.org"')
    port: Port = of(route.LocalDomain.port)
    hosts: ServerEntries = of(
        route.LocalDomain.hosts, default=(), source="RFC 2782", example='["imap1.example.org", "imap2.example.org"]'
    )
    command: tuple[str, ...] = of(route.LocalDomain.command)
    xforward: bool = of(route.LocalDomain.xforward, source="Postfix, XFORWARD_README")
    xclient: bool = of(route.LocalDomain.xclient, source="Postfix, XCLIENT_README")
    url: Url | None = of(route.LocalDomain.url, default=None, example='"https://app.example.org/mail"')
    format: HttpFormat = of(route.LocalDomain.format, word=True)
    secret_file: File | None = of(
        route.LocalDomain.secret_file, default=None, source="Standard Webhooks", example='"webhook.secret"'
    )
    authorization_file: File | None = of(
        route.LocalDomain.authorization_file, default=None, source="RFC 9110 §11.6.2", example='"app.authorization"'
    )
    together: bool = of(route.LocalDomain.together)
    user: str = of(route.LocalDomain.user, example='"{local_part}"')
    user_group: str = of(route.LocalDomain.user_group, example='"mail"')
    forward_files: bool = of(route.LocalDomain.forward_files, source="Postfix, forward_path")
    quota_size: Octets = of(route.LocalDomain.quota_size, example='"2G"')
    quota_messages: int = of(route.LocalDomain.quota_messages, unit="messages")
    quota_file: File | None = of(route.LocalDomain.quota_file, default=None, example='"quotas"')
    over_quota: OverQuota = of(route.LocalDomain.over_quota, source="RFC 3463 §3.3", word=True)
    quota_warning: int = of(route.LocalDomain.quota_warning, unit="percent")
    path_maps: MapNames = of(
        route.LocalDomain.path_maps, source="Postfix, virtual_mailbox_maps", example='["mailboxes"]'
    )
    path_base: File | None = of(
        route.LocalDomain.path_base, default=None, source="Postfix, virtual_mailbox_base", example='"/var/mail/vhosts"'
    )
    quota_maps: MapNames = of(
        route.LocalDomain.quota_maps, source="Postfix, check_policy_service", example='["quota-status"]'
    )
    quota_at_rcpt: bool = of(route.LocalDomain.quota_at_rcpt)
    detail_folders: bool = of(route.LocalDomain.detail_folders, source="RFC 5233")
    tls: TlsDemand = of(route.LocalDomain.tls, source="RFC 3207", word=True, example='"verify"')
    username: str = setting(
        "", "LMTP: the account for AUTH. Unset: no AUTH.", source="RFC 4954", example='"postroad"'
    )
    password_file: File | None = setting(
        None,
        "LMTP: a file whose first line is the password of the account. It is read again for each connection. The "
        "password is sent under TLS only, except to a server on this machine.",
        example='"lmtp.password"',
    )
    ignored_extensions: IgnoredExtensions = of(route.LocalDomain.ignored_extensions, default=(), example='["CHUNKING"]')
    retry_first_s: Seconds | None = of(route.LocalDomain.retry_first_s, example='"10m"')
    retry_max_s: Seconds | None = of(route.LocalDomain.retry_max_s, example='"1h"')
    lifetime_s: Seconds | None = of(route.LocalDomain.lifetime_s, source="RFC 5321 §4.5.4.1", example='"1d"')
    lifetime_dsn_s: Seconds | None = of(route.LocalDomain.lifetime_dsn_s, example='"1d"')
    delay_notice_s: Seconds | None = of(route.LocalDomain.delay_notice_s, example='"1h"')
    connections_max: int = of(route.LocalDomain.connections_max, unit="deliveries")
    recipients_max: int = of(route.LocalDomain.recipients_max, unit="recipients")
    since: Moment = of(route.LocalDomain.since, source="RFC 7293", example='"2014-04-03"')
    batv: Batv = of(route.LocalDomain.batv, source="draft-levine-smtp-batv", word=True)


Places = Annotated[tuple[Place, ...], BeforeValidator(one_or_more)]


class AliasTargetsSection(Section):
    """What aliases may name instead of mailboxes: programs, files and included files. Only what this table allows is
    allowed (docs/aliases.md)."""

    programs: Places = of(
        OutletOptions.programs, source="Postfix, allow_mail_to_commands", example='["aliases"]'
    )
    files: Places = of(OutletOptions.files, source="Postfix, allow_mail_to_files", example='["aliases"]')
    includes: Places = of(OutletOptions.includes, example='["aliases"]')
    user: str = of(OutletOptions.user, source="Postfix, default_privs", example='"nobody"')
    as_owner: bool = of(OutletOptions.as_owner)
    owners: bool = of(OutletOptions.owners, source="RFC 3461 §5.2.7.1; Postfix, owner_request_special")


class RelayDomainSection(DomainSection):
    """A relay domain whose recipients we know, so that others are refused at RCPT. Give one table `[[relay.domain]]`
    for each, or one for many, whose names are in `domain_maps`."""

    name: DomainPatternOrNone = of(route.RelayDomain.name, default="", example='"example.net"')
    domain_maps: MapNames = of(
        route.RelayDomain.domain_maps, source="Postfix, relay_domains", example='["relay-domains"]'
    )
    recipients: Annotated[tuple[str, ...], BeforeValidator(one_or_more)] = of(
        route.RelayDomain.recipients, default=(), example='["alice", "bob"]'
    )
    recipients_file: File | None = of(route.RelayDomain.recipients_file, default=None, example='"recipients"')
    recipient_maps: MapNames = of(route.RelayDomain.recipient_maps, example='["mailboxes"]')
    verify: bool = of(route.RelayDomain.verify, source="Postfix, reject_unverified_recipient")


class RelayEtrnSection(Section):
    """Who may use ETRN to start the queue of a relay domain when the server of this domain is back. Give one table
    `[[relay.etrn]]` for each. The domain must be a relay domain, and the client must be in one of the networks or
    log in as one of the accounts."""

    domains: Annotated[tuple[DomainPattern, ...], BeforeValidator(one_or_more)] = of(
        EtrnRow.domains, source="RFC 1985", example='["example.net"]'
    )
    networks: Annotated[tuple[TrustedNetwork, ...], BeforeValidator(one_or_more)] = of(
        EtrnRow.networks, example='["192.0.2.0/24"]'
    )
    accounts: Annotated[tuple[str, ...], BeforeValidator(one_or_more)] = of(EtrnRow.accounts, example='["example.net"]')


class VerifySection(Section):
    """Recipients of domains with `verify`: the next server is asked, by MAIL and RCPT, whether it would take their
    mail. docs/domains.md says more."""

    sender: Mailbox = of(VerifyOptions.sender, source="Postfix, address_verify_sender", example='"check@example.org"')
    wait_s: Seconds = of(VerifyOptions.wait_s)
    found_s: Seconds = of(VerifyOptions.found_s, source="Postfix, address_verify_positive_expire_time")
    found_refresh_s: Seconds = of(
        VerifyOptions.found_refresh_s, source="Postfix, address_verify_positive_refresh_time"
    )
    missing_s: Seconds = of(VerifyOptions.missing_s, source="Postfix, address_verify_negative_expire_time")
    missing_refresh_s: Seconds = of(
        VerifyOptions.missing_refresh_s, source="Postfix, address_verify_negative_refresh_time"
    )
    not_known_s: Seconds = of(VerifyOptions.not_known_s)
    not_known: NotKnown = of(
        VerifyOptions.not_known, source="Postfix, unverified_recipient_tempfail_action", word=True
    )
    entries_max: int = of(VerifyOptions.entries_max, unit="answers")
    at_once_max: int = of(VerifyOptions.at_once_max, unit="questions")
    client_max: int = of(VerifyOptions.client_max, unit="questions")
    domain_max: int = of(VerifyOptions.domain_max, unit="questions")
    span_s: Seconds = of(VerifyOptions.span_s)


class RelaySection(Section):
    """Domains that are not ours. The node accepts their mail from anywhere and passes it on."""

    etrn_interval_s: Seconds = of(EtrnOptions.interval_s, source="RFC 1985")

    etrn_names_max: int = of(EtrnOptions.names_max, unit="queues")

    domains: tuple[DomainPattern, ...] = several(
        (), "Domains for which mail is accepted for any recipient.", example='["example.net"]'
    )
    domain: tuple[RelayDomainSection, ...] = tables()
    etrn: tuple[RelayEtrnSection, ...] = tables()


class RoutingSection(Section):
    """How the node finds the destination of a recipient."""

    tls: TlsDemand | None = of(
        RoutingOptions.tls, default=None, source="RFC 7435, RFC 7672, RFC 8461", example='"sts"', word=True
    )
    tls_policy_maps: MapNames = of(
        RoutingOptions.tls_policy_maps, source="Postfix, smtp_tls_policy_maps", example='["tls-policies"]'
    )
    mx_port: Port = of(RoutingOptions.mx_port)
    fallback: ServerEntries = of(
        RoutingOptions.fallback, default=(), source="Postfix, smtp_fallback_relay", example='["relay.example.net"]'
    )
    literals: bool = of(RoutingOptions.literals, source="RFC 5321 §4.1.3")
    detail_delimiter: str = of(RoutingOptions.detail_delimiter)
    catch_all_first: bool = of(RoutingOptions.catch_all_first, source="Postfix, virtual(5)")
    extensions_kept: Annotated[tuple[KeepsExtensions, ...], BeforeValidator(one_or_more)] = of(
        RoutingOptions.extensions_kept, default=(), source="Postfix, propagate_unmatched_extensions",
        example='["alias_maps"]',
    )
    transport_maps: MapNames = of(
        RoutingOptions.transport_maps, source="Postfix, transport(5)", example='["transports"]'
    )


class MxSection(Section):
    """How the node chooses the servers of a domain by its MX records (RFC 5321 §5.1)."""

    mx_max: int = of(MxOptions.mx_max, unit="servers")
    addresses_max: int = of(MxOptions.addresses_max, unit="addresses", source="RFC 5321 §5.1")
    prefer: Prefer = of(MxOptions.prefer)
    loopback: bool = of(MxOptions.loopback)


class NextHopSection(Section):
    """Where some mail goes instead of to the MX of its recipients' domains. If several tables match, the most exact
    pattern of recipients wins; among tables for the same recipients, the one that names the account or the sender.
    docs/routing.md has the whole order."""

    domain: DomainPattern | None = of(route.NextHop.domain, default=None, example='"*"')
    recipients: Annotated[tuple[MailboxPattern, ...], BeforeValidator(one_or_more)] = of(
        route.NextHop.recipients, example='["helpdesk@example.org"]'
    )
    senders: Annotated[tuple[SenderPattern, ...], BeforeValidator(one_or_more)] = of(
        route.NextHop.senders, example='["example.org"]'
    )
    accounts: Annotated[tuple[str, ...], BeforeValidator(one_or_more)] = of(
        route.NextHop.accounts, example='["ada@example.org"]'
    )
    size_min: Octets = of(route.NextHop.size_min, example='"10M"')
    classes: Annotated[tuple[route.MailClass, ...], BeforeValidator(one_or_more)] = of(
        route.NextHop.classes, source="RFC 2919, RFC 3834", example='["bulk"]'
    )
    fields: Annotated[tuple[FieldPattern, ...], BeforeValidator(one_or_more)] = of(
        route.NextHop.fields, default=(), example='["X-Campaign", "Precedence: bulk"]'
    )
    listeners: Annotated[tuple[str, ...], BeforeValidator(one_or_more)] = of(
        route.NextHop.listeners, example='["lists"]'
    )
    priority_min: int | None = of(route.NextHop.priority_min, unit="priority", source="RFC 6710", example="1")
    priority_max: int | None = of(route.NextHop.priority_max, unit="priority", source="RFC 6710", example="-1")
    action: Action = of(route.NextHop.action, source="Postfix, transport(5)", example='"hold:until the audit is done"')
    name: str = of(route.NextHop.name, example='"isp"')
    host: Host | None = of(route.NextHop.host, default=None, example='"smtp.example.net"')
    port: Port = of(route.NextHop.port, example="587")
    mx: bool = of(route.NextHop.mx)
    hosts: ServerEntries = of(
        route.NextHop.hosts,
        default=(),
        source="RFC 2782; Postfix, transport(5)",
        example='["smtp1.example.net", "smtp2.example.net"]',
    )
    fallback: ServerEntries = of(
        route.NextHop.fallback,
        default=(),
        source="Postfix, smtp_fallback_relay",
        example='["relay.example.net"]',
    )
    source_ipv4: OwnAddresses = of(
        route.NextHop.source_ipv4, default=(), example='["192.0.2.7 mail7.example.org"]'
    )
    source_ipv6: OwnAddresses = of(route.NextHop.source_ipv6, default=(), example='["2001:db8::7"]')
    hello: HelloName = of(route.NextHop.hello, source="RFC 5321 §4.1.1.1", example='"mail.example.org"')
    retry_first_s: Seconds | None = of(route.NextHop.retry_first_s, example='"10m"')
    retry_max_s: Seconds | None = of(route.NextHop.retry_max_s, example='"1h"')
    lifetime_s: Seconds | None = of(route.NextHop.lifetime_s, source="RFC 5321 §4.5.4.1", example='"1d"')
    lifetime_dsn_s: Seconds | None = of(route.NextHop.lifetime_dsn_s, example='"1d"')
    delay_notice_s: Seconds | None = of(route.NextHop.delay_notice_s, example='"1h"')
    tls: TlsDemand | None = of(
        route.NextHop.tls, source="RFC 3207, RFC 7435, RFC 7672, RFC 8314 §3.3, RFC 8461", example='"verify"', word=True
    )
    tls_names: Annotated[tuple[CertificateName, ...], BeforeValidator(one_or_more)] = of(
        route.NextHop.tls_names, default=(), source="RFC 6125 §6.4; Postfix, smtp_tls_secure_cert_match",
        example='["mail.example.net", ".example.net"]',
    )  # fmt: skip
    tls_fingerprints: Annotated[tuple[Fingerprint, ...], BeforeValidator(one_or_more)] = of(
        route.NextHop.tls_fingerprints, default=(), source="Postfix, smtp_tls_fingerprint_cert_match",
        example='["AB:CD:…"]',
    )  # fmt: skip
    tls_minimum: Version | None = of(
        route.NextHop.tls_minimum, default=None, source="RFC 9325", example='"TLSv1.3"', word=True
    )
    tls_ciphers: str = of(route.NextHop.tls_ciphers, example='"ECDHE+AESGCM"')
    username: str = setting("", "The account for AUTH. Unset: no AUTH.", source="RFC 4954", example='"example"')
    password: str = setting("", "The password of the account. `password_file` is the better place for it.", secret=True)
    password_file: File | None = setting(
        None,
        "A file whose first line is the password. It is read again for each connection, so a new password needs no "
        "reload.",
        example='"smtp.example.net.password"',
    )
    xforward: bool = of(route.NextHop.xforward, source="Postfix, XFORWARD_README")
    xclient: bool = of(route.NextHop.xclient, source="Postfix, XCLIENT_README")
    generic: Annotated[tuple[GenericEntry, ...], BeforeValidator(one_or_more)] = of(
        route.NextHop.generic,
        default=(),
        source="Postfix, generic(5)",
        example='["ada@host.local ada@example.org", "@host.local @example.org"]',
    )
    generic_maps: MapNames = of(route.NextHop.generic_maps, source="Postfix, generic(5)", example='["generic"]')
    generic_header: bool = of(route.NextHop.generic_header)
    remove_fields: RemovedFields = of(
        route.NextHop.remove_fields, source="Postfix, smtp_header_checks", example='["X-Originating-Script"]'
    )
    replace_fields: ReplacedFields = of(
        route.NextHop.replace_fields, source="Postfix, smtp_header_checks",
        example='["/^User-Agent: (.*)/ X-Agent: $1"]',
    )  # fmt: skip
    add_fields: AddedFields = of(route.NextHop.add_fields, example='["X-Sent-By: example.org"]')
    token_file: File | None = setting(
        None,
        "A file whose first line is a bearer token (OAUTHBEARER, XOAUTH2), used instead of a password. It is read "
        "again for each connection.",
        source="RFC 7628",
        example='"smtp.example.net.token"',
    )
    token_command: tuple[str, ...] = several(
        (),
        "A command, run without a shell, whose first line of output is such a token.",
        example='["/usr/local/bin/token", "smtp.example.net"]',
    )
    mechanism: ClientMechanism = setting(
        "", 'The only SASL mechanism to use. "": the strongest that both ends have.', source="RFC 4954 §4"
    )
    cram_md5: bool = setting(
        False,
        "Whether CRAM-MD5 may be used if the server offers nothing better. The password can be guessed from what "
        "CRAM-MD5 sends, so CRAM-MD5 needs TLS, too. With `auth_without_tls`, on a connection without TLS, it is "
        "preferred to `PLAIN` and `LOGIN`, which reveal the password.",
        source="RFC 2195",
    )
    ignored_extensions: IgnoredExtensions = of(
        route.NextHop.ignored_extensions, default=(), source="RFC 5321 §4.1.1.1", example='["CHUNKING"]'
    )
    auth_without_tls: bool = setting(
        False,
        "Whether the password may be sent without TLS, so that anybody on the network path can read it. Use it only "
        "for a server on this machine.",
    )
