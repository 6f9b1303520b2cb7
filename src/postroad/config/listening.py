"""Listeners: the places where mail comes in."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator

from postroad.check.origin_options import CheckMode, OriginChecks, Quarantine, TemporaryFailure
from postroad.check.policy import HeaderFrom, PolicyOptions
from postroad.config.field import Section, of, setting, several
from postroad.config.values import (
    AddedField,
    AddedFields,
    DomainOrNone,
    File,
    Fingerprint,
    ListeningAddress,
    Mailbox,
    Port,
    RemovedFields,
    ReplacedFields,
    Seconds,
    TrustedNetwork,
    one_or_more,
)
from postroad.mail.header_clients import HeaderClients
from postroad.mail.policy import Role
from postroad.protocol.offer import Dialect
from postroad.receive.options import (
    EarlyTalker,
    ListenerOptions,
    ListenerTls,
    Proxy,
    Telling,
)
from postroad.world.tls import ClientCertificates, Purpose

UNIX: Final = "unix:"

WithheldExtension = Literal[
    "PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "CHUNKING", "BINARYMIME", "HELP",
    "ETRN", "LIMITS", "REQUIRETLS", "DELIVERBY", "FUTURERELEASE", "MT-PRIORITY", "RRVS",
    "XVERP",
]  # fmt: skip
WithheldExtensions = Annotated[tuple[WithheldExtension, ...], BeforeValidator(one_or_more)]


class ListenerSection(Section):
    """A place where the node accepts mail. Give one table `[[listener]]` for each port."""

    name: str = of(ListenerOptions.name, example='"mx"')
    address: Annotated[tuple[ListeningAddress, ...], BeforeValidator(one_or_more)] = several(
        ("0.0.0.0", "::"),
        'The addresses to listen on, or one Unix socket, written `"unix:/path"`.',
        least=1,
        example='["0.0.0.0", "::"]',
    )
    port: Port = of(ListenerOptions.port)
    role: Role = of(ListenerOptions.role, source="RFC 6409", word=True)
    protocol: Dialect = of(ListenerOptions.protocol, source="RFC 2033", word=True)
    tls: ListenerTls | None = of(
        ListenerOptions.tls, default=None, source="RFC 3207, RFC 8314 §3.3", example='"starttls"', word=True
    )
    auth: bool | None = of(ListenerOptions.auth, default=None, source="RFC 4954", example="true")
    auth_without_tls: bool = of(ListenerOptions.auth_without_tls)
    trusted_networks: Annotated[tuple[TrustedNetwork, ...], BeforeValidator(one_or_more)] = of(
        ListenerOptions.trusted_networks
    )

    proxy: Proxy = of(ListenerOptions.proxy, source="HAProxy, proxy-protocol.txt", example='"v2"', word=True)
    proxy_networks: Annotated[tuple[TrustedNetwork, ...], BeforeValidator(one_or_more)] = of(
        ListenerOptions.proxy_networks, example='["192.0.2.10"]'
    )
    proxy_tls: bool = of(ListenerOptions.proxy_tls)
    client_certificates: ClientCertificates | None = setting(
        None,
        "Whether clients are asked for a certificate under TLS. Unset: as `[tls]` says.",
        example='"asked"',
        word=True,
    )
    client_ca_file: File | None = setting(
        None,
        "The root certificates that client certificates must lead to, PEM. Unset: as `[tls]` says.",
        example='"tls/clients.pem"',
    )
    client_certificate_purpose: Purpose | None = setting(
        None,
        "The purpose that client certificates must have been issued for. Unset: as `[tls]` says.",
        example='"any"',
        word=True,
    )
    trusted_certificates: Annotated[tuple[Fingerprint, ...], BeforeValidator(one_or_more)] = of(
        ListenerOptions.trusted_certificates
    )

    xclient_networks: Annotated[tuple[TrustedNetwork, ...], BeforeValidator(one_or_more)] = of(
        ListenerOptions.xclient_networks, source="Postfix, XCLIENT_README", example='["192.0.2.11"]'
    )
    xforward_networks: Annotated[tuple[TrustedNetwork, ...], BeforeValidator(one_or_more)] = of(
        ListenerOptions.xforward_networks, source="Postfix, XFORWARD_README", example='["127.0.0.1"]'
    )

    greet_delay_s: Seconds = of(ListenerOptions.greet_delay_s, source="RFC 5321 §3.1")
    early_talker: EarlyTalker = of(ListenerOptions.early_talker, word=True)
    withheld_extensions: WithheldExtensions = of(
        ListenerOptions.withheld_extensions, default=(), source="RFC 5321 §4.1.1.1", example='["SMTPUTF8"]'
    )
    vrfy: Telling = of(ListenerOptions.vrfy, source="RFC 5321 §3.5.3, §7.3", word=True)
    expn: Telling = of(ListenerOptions.expn, source="RFC 5321 §3.5, §7.3", word=True)
    loose_paths: bool | None = of(ListenerOptions.loose_paths, default=None, source="RFC 5321 §4.1.2", example="true")
    add_missing: bool = of(ListenerOptions.add_missing, source="RFC 5322 §3.6")
    remove_fields: RemovedFields = of(
        ListenerOptions.remove_fields, source="Postfix, header_checks(5), IGNORE", example='["User-Agent"]'
    )
    replace_fields: ReplacedFields = of(
        ListenerOptions.replace_fields, source="Postfix, header_checks(5), REPLACE",
        example='["/^User-Agent: (.*)/ X-Agent: $1"]',
    )  # fmt: skip
    add_fields: AddedFields = of(
        ListenerOptions.add_fields, source="Postfix, header_checks(5), PREPEND", example='["X-Gateway: mx1"]'
    )
    complete_clients: HeaderClients = of(
        ListenerOptions.complete_clients, source="Postfix, local_header_rewrite_clients", word=True
    )
    complete_domain: DomainOrNone = of(ListenerOptions.complete_domain, source="Postfix, myorigin")
    complete_hosts: DomainOrNone = of(
        ListenerOptions.complete_hosts, source="Postfix, append_dot_mydomain", example='"example.org"'
    )
    complete_others: DomainOrNone = of(
        ListenerOptions.complete_others, source="Postfix, remote_header_rewrite_domain", example='"domain.invalid"'
    )
    inspectors: Annotated[tuple[str, ...], BeforeValidator(one_or_more)] = of(
        ListenerOptions.inspectors, example='["/etc/postroad/stamp.py:Stamp"]'
    )
    spf: CheckMode | None = of(OriginChecks.spf, default=None, source="RFC 7208", example='"enforce"', word=True)
    dkim: CheckMode | None = of(OriginChecks.dkim, default=None, source="RFC 6376", example='"mark"', word=True)
    dmarc: CheckMode | None = of(OriginChecks.dmarc, default=None, source="RFC 9989", example='"enforce"', word=True)
    arc: CheckMode | None = of(OriginChecks.arc, default=None, source="RFC 8617", example='"mark"', word=True)
    iprev: CheckMode | None = of(OriginChecks.iprev, default=None, source="RFC 8601 §3", example='"mark"', word=True)
    quarantine: Quarantine = of(OriginChecks.quarantine, source="RFC 9989 §5.4", word=True)
    quarantine_field: AddedField = of(OriginChecks.quarantine_field)
    quarantine_to: Mailbox = of(OriginChecks.quarantine_to, example='"quarantine@example.org"')
    temporary_failure: TemporaryFailure = of(OriginChecks.temporary_failure, source="RFC 7372", word=True)
    dsn_for_strangers: bool = of(ListenerOptions.dsn_for_strangers, source="RFC 3461")
    hello_syntax: bool = of(PolicyOptions.hello_syntax)
    null_sender_recipients_max: int = of(PolicyOptions.null_sender_recipients_max, unit="recipients")
    auth_relays: bool = of(PolicyOptions.auth_relays)
    trust_network: bool = of(PolicyOptions.trust_network)
    strangers: bool = of(PolicyOptions.strangers)

    untrusted_routing: bool = of(PolicyOptions.untrusted_routing, source="RFC 5321 appendix F.2")
    header_from: HeaderFrom = of(PolicyOptions.header_from, source="RFC 6409 §6.1", word=True)

    owned_senders_by_login: bool = of(
        PolicyOptions.owned_senders_by_login, source="Postfix, reject_unauthenticated_sender_login_mismatch"
    )

    @property
    def offers_auth(self) -> bool:
        """Whether AUTH is offered here."""
        return self.role is Role.SUBMISSION if self.auth is None else self.auth

    def check_mode(self, name: str) -> CheckMode:
        """What is done with a check, also if the listener itself says nothing of it: mail from anywhere is marked."""
        mode: CheckMode | None = getattr(self, name)
        if mode is not None:
            return mode
        return CheckMode.MARK if self.role is Role.MX and self.protocol is Dialect.SMTP else CheckMode.OFF

    @property
    def takes_loose_paths(self) -> bool:
        """Whether local-parts may be no Dot-strings here."""
        return self.role is not Role.MX if self.loose_paths is None else self.loose_paths

    @property
    def socket_path(self) -> str:
        """The path of the Unix socket to listen on, or ""."""
        return next((each.removeprefix(UNIX) for each in self.address if each.startswith(UNIX)), "")
