"""How mail comes in: listeners, certificates, the limits of a session, accounts."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator

from postroad.check.client import BanOptions, ClientOptions
from postroad.check.policy import HeaderFrom, PolicyOptions
from postroad.config.field import UNSET, Section, of, setting, several, table, tables
from postroad.config.values import (
    Domain,
    File,
    Fingerprint,
    HelpText,
    ListeningAddress,
    Mechanism,
    Octets,
    Port,
    Seconds,
    TrustedNetwork,
    Url,
    one_or_more,
)
from postroad.mail.context import Role
from postroad.protocol.limits import Limits as ProtocolLimits
from postroad.protocol.limits import StrayLineEnds
from postroad.protocol.offer import Dialect
from postroad.receive.authenticate import AuthOptions, CertificateName
from postroad.receive.introspection import IntrospectionOptions
from postroad.receive.options import EarlyTalker, ExtensionOptions, Proxy, ReceiveOptions, Telling
from postroad.receive.options import Tls as ListenerTls
from postroad.route.alias_file import AliasLimits
from postroad.world.tls import NOBODY, ClientCertificates, Purpose, ServerTlsOptions, Version
from postroad.world.tls import Profile as TlsProfile

UNIX: Final = "unix:"
_AUTH: Final = AuthOptions()
_INTROSPECTION: Final = IntrospectionOptions("")
_TLS: Final = ServerTlsOptions()
_RECEIVE: Final = ReceiveOptions()
_POLICY: Final = PolicyOptions()
_ALIASES: Final = AliasLimits()
_CLIENTS: Final = ClientOptions()
_BANS: Final = BanOptions()
_EXTENSIONS: Final = ExtensionOptions()

WithheldExtension = Literal[
    "PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "CHUNKING", "BINARYMIME", "HELP",
    "ETRN", "LIMITS", "REQUIRETLS", "DELIVERBY", "FUTURERELEASE", "MT-PRIORITY", "RRVS",
]  # fmt: skip
WithheldExtensions = Annotated[tuple[WithheldExtension, ...], BeforeValidator(one_or_more)]
Profile = Literal["", "MIXER", "STANAG4406", "NSEP"]


class Listener(Section):
    """One place where mail is accepted. Give one table `[[listener]]` for each port."""

    name: str = setting(UNSET, "The listener's name in the log, the history and `trace`.", example='"mx"')
    address: Annotated[tuple[ListeningAddress, ...], BeforeValidator(one_or_more)] = several(
        ("0.0.0.0", "::"),
        'The addresses to listen on, or one Unix socket, written `"unix:/path"`.',
        least=1,
        example='["0.0.0.0", "::"]',
    )
    port: Port = setting(25, "The port to listen on; without meaning for a Unix socket.", least=1, most=65535)
    role: Role = setting(
        Role.MX,
        "What the listener is for. `mx`: mail from anywhere for our own domains. `submission`: mail from users, who "
        "must authenticate. `relay`: mail from trusted networks to anywhere.",
        source="RFC 6409",
        word=True,
    )
    protocol: Dialect = setting(
        Dialect.SMTP, "The protocol spoken: SMTP, or LMTP with a reply per recipient.", source="RFC 2033", word=True
    )
    tls: ListenerTls | None = setting(
        None,
        "`none`: no TLS. `starttls`: offered. `required`: no mail before STARTTLS. `implicit`: TLS from the first "
        "octet, on a port of its own. Unset: `starttls` where `[tls]` names a certificate, else `none`.",
        example='"starttls"',
        source="RFC 3207, RFC 8314 §3.3",
        word=True,
    )
    auth: bool | None = setting(
        None,
        "Whether AUTH is offered, under TLS only. Unset: on submission listeners only.",
        source="RFC 4954",
        example="true",
    )
    auth_without_tls: bool = setting(
        False, "Whether AUTH is offered without TLS, too. Passwords then go over the wire for anyone to read."
    )
    trusted_networks: Annotated[tuple[TrustedNetwork, ...], BeforeValidator(one_or_more)] = several(
        (), "Networks whose clients may relay to anywhere without an account, for the role `relay`."
    )

    proxy: Proxy = setting(
        Proxy.NONE,
        "Whether each connection begins with a PROXY header, as HAProxy and others send it with the client's address, "
        "and of which version. With `any` it may be either, but must be there.",
        source="HAProxy, proxy-protocol.txt",
        word=True,
        example='"v2"',
    )
    proxy_networks: Annotated[tuple[TrustedNetwork, ...], BeforeValidator(one_or_more)] = several(
        (), "The proxies whose PROXY header counts; connections of all others are closed.", example='["192.0.2.10"]'
    )
    proxy_tls: bool = setting(
        True,
        "Whether TLS that a proxy has ended, as its header tells, counts as TLS with us: for AUTH, `required` and the "
        "trace fields.",
    )
    client_certificates: ClientCertificates | None = setting(
        None,
        "Whether clients are asked for a certificate under TLS; unset: as `[tls]` says.",
        example='"asked"',
        word=True,
    )
    client_ca_file: File | None = setting(
        None,
        "The roots that they must lead to, PEM; unset: as `[tls]` says.",
        example='"tls/clients.pem"',
    )
    client_certificate_purpose: Purpose | None = setting(
        None, "What they must have been made for; unset: as `[tls]` says.", example='"any"', word=True
    )
    trusted_certificates: Annotated[tuple[Fingerprint, ...], BeforeValidator(one_or_more)] = several(
        (),
        "SHA-256 fingerprints of client certificates whose clients count as those of trusted networks do. As `openssl "
        "x509 -fingerprint -sha256` writes them, or without colons.",
    )

    xclient_networks: Annotated[tuple[TrustedNetwork, ...], BeforeValidator(one_or_more)] = several(
        (),
        "Networks whose clients may say by XCLIENT who their client is: mail proxies. They may name any address and "
        "any account.",
        source="Postfix, XCLIENT_README",
        example='["192.0.2.11"]',
    )
    xforward_networks: Annotated[tuple[TrustedNetwork, ...], BeforeValidator(one_or_more)] = several(
        (),
        "Networks whose clients may say by XFORWARD from whom they have a message: content filters that hand it back. "
        "It is logged and passed on; who may relay is not changed by it.",
        source="Postfix, XFORWARD_README",
        example='["127.0.0.1"]',
    )

    greet_delay_s: Seconds = setting(
        0.0,
        "How long strangers wait for the greeting, so that who does not wait is found out; 0: not at all.",
        least=0,
        most=60,
        source="RFC 5321 §3.1",
    )
    early_talker: EarlyTalker = setting(
        EarlyTalker.NOTE,
        "What becomes of one: `note`, a line in the log; `refuse`, 554 5.5.1, and it counts for a ban.",
        word=True,
    )
    withheld_extensions: WithheldExtensions = several(
        (),
        "Extensions that are not offered on this listener: EHLO does not name them, and their parameters and commands "
        "are refused. `SMTPUTF8`, for one, where those who get the mail cannot take it. TLS, AUTH, VRFY and EXPN have "
        "settings of their own; status codes stay in replies.",
        source="RFC 5321 §4.1.1.1",
        example='["SMTPUTF8"]',
    )
    vrfy: Telling = setting(
        Telling.AMBIGUOUS,
        "Whether VRFY tells which mailboxes of our domains there are. `off`: there is no such command. `ambiguous`: it "
        "is answered 252, whatever is asked. `trusted`: told to trusted networks and accounts, ambiguous to others. "
        "`on`: told to everyone.",
        source="RFC 5321 §3.5.3, §7.3",
        word=True,
    )
    expn: Telling = setting(
        Telling.OFF,
        "Whether EXPN tells the mailboxes that an alias leads to, in the words of `vrfy`; with `trusted` it is refused "
        "to others.",
        source="RFC 5321 §3.5, §7.3",
        word=True,
    )
    loose_paths: bool | None = setting(
        None,
        "Whether addresses are taken whose local-part has periods where RFC 5321 allows none: `a..b@`, `a.@`, `.a@`. "
        "Such mailboxes exist. They go on in quotes, which means the same. A period behind the domain, as DNS has it, "
        "is taken away: `a@example.org.`. Unset: yes, but not for the role `mx`.",
        source="RFC 5321 §4.1.2",
        example="true",
    )
    add_missing: bool = setting(
        False,
        "On an mx or relay listener: whether Date and Message-ID are added to mail that has none, where it comes from "
        "trusted networks or accounts. Submission listeners do more (`receive.repair`).",
        source="RFC 5322 §3.6",
    )
    dsn_for_strangers: bool = setting(
        False,
        "Whether an mx listener offers DSN to clients that are neither trusted nor authenticated. By it anybody can "
        "have this node report success, or return whole messages, to a forged sender; large providers rarely offer it "
        "to strangers. Without it the server before this one tells its sender of success, as far as it knows.",
        source="RFC 3461",
    )
    hello_syntax: bool = setting(
        _POLICY.hello_syntax, "Whether EHLO with what is neither a domain nor an address literal is refused."
    )
    null_sender_recipients_max: int = setting(
        _POLICY.null_sender_recipients_max,
        "Recipients of a message with the null reverse-path; 0: no limit.",
        unit="recipients",
        least=0,
    )
    auth_relays: bool = setting(
        _POLICY.auth_relays, "Whether authenticated accounts may relay on a listener that is not for submission."
    )
    trust_network: bool = setting(
        _POLICY.trust_network, "On a submission listener: whether trusted networks need no authentication."
    )
    strangers: bool = setting(
        _POLICY.strangers, "On a relay listener: whether clients of other networks may send to our own domains."
    )

    untrusted_routing: bool = setting(
        _POLICY.untrusted_routing,
        "Whether strangers may name a way on through a relay domain: `user%other@relay.example`, "
        "`other!user@relay.example`. A host behind this one that follows it would relay for them to anywhere.",
        source="RFC 5321 appendix F.2",
    )
    header_from: HeaderFrom = setting(
        _POLICY.header_from,
        "Whom the header field From may name where a client has authenticated. `any`: anybody; a submission listener "
        "adds Sender with the account's address (`receive.repair`). `owned`: addresses of its account only, in each "
        "mailbox of From, else 550 5.7.1. The reverse-path must be owned in any case.",
        source="RFC 6409 §6.1",
        word=True,
    )

    @property
    def offers_auth(self) -> bool:
        """Whether AUTH is offered here."""
        return self.role is Role.SUBMISSION if self.auth is None else self.auth

    @property
    def takes_loose_paths(self) -> bool:
        """Whether local-parts may be no Dot-strings here."""
        return self.role is not Role.MX if self.loose_paths is None else self.loose_paths

    @property
    def socket_path(self) -> str:
        """The path of the Unix socket to listen on, or ""."""
        return next((each.removeprefix(UNIX) for each in self.address if each.startswith(UNIX)), "")


class Limits(Section):
    """What one session, one client and one message may take. No limit can be set below what an RFC demands."""

    command_line_max: Octets = of(ProtocolLimits, "command_line_max", source="RFC 5321 §4.5.3.1.4")
    auth_line_max: Octets = of(ProtocolLimits, "auth_line_max", source="RFC 4954 §4.5")
    text_line_max: Octets = of(ProtocolLimits, "text_line_max", source="RFC 5321 §4.5.3.1.6")
    size_max: Octets = of(ProtocolLimits, "size_max", source="RFC 5321 §4.5.3.1.7")
    header_size_max: Octets = of(ProtocolLimits, "header_size_max")
    header_fields_max: int = of(ProtocolLimits, "header_fields_max", unit="fields")
    recipients_max: int = of(ProtocolLimits, "recipients_max", unit="recipients", source="RFC 5321 §4.5.3.1.8")
    transactions_max: int = of(ProtocolLimits, "transactions_max", unit="transactions", source="RFC 9422")
    recipient_domains_max: int = of(ProtocolLimits, "recipient_domains_max", unit="domains", source="RFC 9422")
    path_max: Octets = of(ProtocolLimits, "path_max", source="RFC 5321 §4.5.3.1.3")
    errors_max: int = of(ProtocolLimits, "errors_max", unit="errors")
    idle_commands_max: int = of(ProtocolLimits, "idle_commands_max", unit="commands")
    commands_max: int = of(ProtocolLimits, "commands_max", unit="commands")
    swallow_max: Octets = of(ProtocolLimits, "swallow_max")
    piece_size: Octets = of(ProtocolLimits, "piece_size")
    stray_line_ends: StrayLineEnds = of(ProtocolLimits, "stray_line_ends", source="RFC 5321 §2.3.8", word=True)
    nul_refused: bool = of(ProtocolLimits, "nul_refused", source="RFC 5322 §4")
    pipelining_strict: bool = of(ProtocolLimits, "pipelining_strict", source="RFC 2920 §3.1")
    hops_max: int = setting(
        _POLICY.hops_max,
        "Received fields of a message; with more it goes in circles.",
        unit="fields",
        least=100,
        source="RFC 5321 §6.3",
    )
    alias_depth_max: int = setting(
        _ALIASES.alias_depth_max, "Aliases that may stand behind each other.", unit="aliases", least=1, most=1000
    )
    alias_recipients_max: int = setting(
        _ALIASES.alias_recipients_max,
        "Mailboxes that one alias may lead to; a file of aliases with more is not taken.",
        unit="mailboxes",
        least=1,
        most=1_000_000,
    )
    message_recipients_max: int = setting(
        _ALIASES.message_recipients_max,
        "Mailboxes behind all recipients of a message whose aliases are expanded, each counted as often as a recipient "
        "leads to it; with more the message is refused (554 5.2.4).",
        unit="mailboxes",
        least=1,
        most=1_000_000,
    )
    command_s: Seconds = setting(
        _RECEIVE.command_s,
        "How long a client may be silent between two commands.",
        least=300,
        source="RFC 5321 §4.5.3.2.7",
    )
    data_block_s: Seconds = setting(
        _RECEIVE.data_block_s,
        "How long a client may be silent within the content.",
        least=180,
        source="RFC 5321 §4.5.3.2.5",
    )
    message_s: Seconds = setting(_RECEIVE.message_s, "How long a message may take, from MAIL to its end.", least=600)
    refused_content_s: Seconds = setting(
        _RECEIVE.refused_content_s,
        "How long the rest of a message may take after we have found a reason to refuse it: the client hears the "
        "reason only at the end of its content. `swallow_max` bounds the same in octets.",
        least=600,
        source="RFC 5321 §4.5.3.2.7",
    )
    session_s: Seconds = setting(_RECEIVE.session_s, "How long a session may last.", least=600)
    handshake_s: Seconds = setting(_RECEIVE.handshake_s, "How long a TLS handshake may take.", least=1)
    close_s: Seconds = setting(_RECEIVE.close_s, "How long a client may take to read our last words.", least=0.1)
    proxy_s: Seconds = setting(_RECEIVE.proxy_s, "How long a PROXY header may take.", least=0.1)
    proxy_header_max: Octets = setting(
        _RECEIVE.proxy_header_max, "A PROXY header of version 2 with all that it tells.", least=536, most=65551
    )
    memory_content_max: Octets = setting(
        _RECEIVE.memory_content_max,
        "Content up to this size is kept in memory while it arrives; more goes to a file.",
        least=0,
    )
    input_max: Octets = setting(
        _RECEIVE.input_max,
        "Unread octets of a session; with more, the client is not read from for a while.",
        least=4096,
    )
    auth_failures_max: int = setting(
        _RECEIVE.auth_failures_max, "Wrong passwords in one session; the next ends it.", unit="tries", least=1
    )
    refusals_max: int = setting(
        _RECEIVE.refusals_max,
        "Commands of a stranger that our rules refused since its last accepted message; the next ends the session.",
        unit="commands",
        least=1,
    )
    content_memory_max: Octets = setting(
        _RECEIVE.content_memory_max,
        "Memory of one worker for content that is arriving; with more, it goes to files, and new mail is told to come "
        "back (452).",
        least=1_048_576,
    )
    files_reserved: int = setting(
        _RECEIVE.files_reserved,
        "File descriptors of a worker that sessions leave for spool and deliveries, half of all at most; beyond that "
        "clients are told to come back (421 4.3.2).",
        unit="descriptors",
        least=32,
    )
    unknown_recipients_max: int = setting(
        _RECEIVE.unknown_recipients_max,
        "Recipients of a session of a stranger that do not exist (5.1.1); the next ends it and counts for a ban; "
        "0: no limit.",
        unit="recipients",
        least=0,
    )
    sessions_max: int = setting(
        _CLIENTS.sessions_max, "Sessions at a time in the whole node.", unit="sessions", least=1
    )
    sessions_per_client_max: int = setting(
        _CLIENTS.sessions_per_client_max, "Of these, for one IPv4 address or one IPv6 /64.", unit="sessions", least=1
    )
    sessions_per_network_max: int = setting(
        _CLIENTS.sessions_per_network_max, "Of these, for one network; 0: no limit.", unit="sessions", least=0
    )
    network_prefix_ipv4: int = setting(
        _CLIENTS.network_prefix_ipv4,
        "How long the prefix of a network is. Taken at start only.",
        unit="bits",
        least=8,
        most=32,
    )
    network_prefix_ipv6: int = setting(
        _CLIENTS.network_prefix_ipv6,
        "The same for IPv6. Taken at start only.",
        unit="bits",
        least=16,
        most=64,
        source="RFC 6177",
    )
    rate_s: Seconds = setting(_CLIENTS.rate_s, "The time within which the following are counted.", least=1)
    connection_rate_max: int = setting(
        _CLIENTS.connection_rate_max, "Connections of one client within it; 0: no limit.", unit="connections", least=0
    )
    connection_rate_network_max: int = setting(
        _CLIENTS.connection_rate_network_max, "The same for one network.", unit="connections", least=0
    )
    message_rate_max: int = setting(
        _CLIENTS.message_rate_max, "MAIL commands of one client within it; 0: no limit.", unit="commands", least=0
    )
    message_rate_network_max: int = setting(
        _CLIENTS.message_rate_network_max, "The same for one network.", unit="commands", least=0
    )
    recipient_rate_max: int = setting(
        _CLIENTS.recipient_rate_max, "RCPT commands of one client within it; 0: no limit.", unit="commands", least=0
    )
    recipient_rate_network_max: int = setting(
        _CLIENTS.recipient_rate_network_max, "The same for one network.", unit="commands", least=0
    )


class Receive(Section):
    """How sessions are answered beyond the rules of the protocol."""

    repair: bool = setting(
        _RECEIVE.repair,
        "Whether submission listeners add a missing Date, Message-ID, From or Sender.",
        source="RFC 6409 §8",
    )
    single_fields: bool = setting(
        _POLICY.single_fields,
        "Whether submission listeners refuse (550 5.6.0) a message with several Date, From, Sender, Reply-To, To, Cc, "
        "Bcc, Message-ID, In-Reply-To, References or Subject fields. Programs read such a message in different ways.",
        source="RFC 5322 §3.6",
    )
    help: HelpText = setting(_RECEIVE.help, "What HELP says: one line.", source="RFC 5321 §4.1.1.8")
    default_domain: Domain | None = setting(
        None,
        "The domain of the bare `<Postmaster>`; unset: the first `[[domain]]`.",
        source="RFC 5321 §4.1.1.3",
        example='"example.org"',
    )


class Extensions(Section):
    """Which of the further extensions of SMTP listeners offer, and within what bounds. As a client, what the next host
    offers is used wherever the message asks for it."""

    binarymime: bool = setting(
        _EXTENSIONS.binarymime,
        "Whether BINARYMIME is offered. Binary mail is kept as it is, and converted where the next host does not take "
        "it (`outbound.eight_bit`): offer it where those behind it do.",
        source="RFC 3030",
    )
    limits: bool = setting(
        _EXTENSIONS.limits,
        "Whether the limits of a session are announced: transactions, recipients, domains of recipients.",
        source="RFC 9422",
    )
    requiretls: bool = setting(
        _EXTENSIONS.requiretls,
        "Whether REQUIRETLS is offered under TLS, and the header field `TLS-Required: No` is heeded.",
        source="RFC 8689",
    )
    deliver_by: bool = setting(_EXTENSIONS.deliver_by, "Whether DELIVERBY is offered.", source="RFC 2852")
    deliver_by_min_s: Seconds = setting(
        _EXTENSIONS.deliver_by_min_s,
        "The least time within which a message may be wanted there or returned; 0: any.",
        least=0,
        source="RFC 2852",
    )
    future_release_max_s: Seconds = setting(
        _EXTENSIONS.future_release_max_s,
        "How long a client of a submission listener may have a message held (FUTURERELEASE); 0: not offered.",
        least=0,
        most=999_999_999,
        source="RFC 4865",
    )
    mt_priority: bool = setting(_EXTENSIONS.mt_priority, "Whether MT-PRIORITY is offered.", source="RFC 6710")
    mt_priority_profile: Profile = setting(
        _EXTENSIONS.mt_priority_profile, 'The profile of priorities that is announced; "": none.', source="RFC 6710"
    )
    mt_priority_max: int = setting(
        _EXTENSIONS.mt_priority_max,
        "The highest priority that accounts and trusted networks may ask for; a higher one is lowered to it.",
        unit="priority",
        least=-9,
        most=9,
    )
    mt_priority_strangers_max: int = setting(
        _EXTENSIONS.mt_priority_strangers_max, "The same for all others.", unit="priority", least=-9, most=9
    )
    mt_priority_tunnel: bool = setting(
        _EXTENSIONS.mt_priority_tunnel,
        "Whether the header field `MT-Priority` carries the priority past hosts that do not offer MT-PRIORITY. It is "
        "believed of accounts and trusted networks, and taken away from what others send.",
        source="RFC 6758",
    )
    rrvs: bool = setting(
        _EXTENSIONS.rrvs,
        "Whether RRVS is offered, and the header field `Require-Recipient-Valid-Since` is heeded: mail for the owner "
        "that a mailbox had at a certain time. Known is what `recipients_file` and `since` of a `[[domain]]` say.",
        source="RFC 7293",
    )


class FurtherCertificate(Section):
    """A certificate beside the first; give one table `[[tls.further]]` for each. A client that asks for a name (SNI,
    RFC 6066 §3) is shown the certificate that holds it."""

    certificate: File = setting(UNSET, "The certificate with its chain, PEM.", example='"tls/example.net.pem"')
    key: File | None = setting(None, "Its private key, PEM; unset: in the same file.", example='"tls/example.net.key"')


class Tls(Section):
    """TLS as a server. The files are read again when they change, without a dropped session."""

    certificate: File | None = setting(
        None,
        "The certificate with its chain, PEM, the leaf first. Without one there is no TLS.",
        example='"tls/mail.pem"',
    )
    key: File | None = setting(None, "Its private key, PEM; unset: in the same file.", example='"tls/mail.key"')
    profile: TlsProfile = setting(
        _TLS.profile,
        "Which versions and ciphers there are, as Mozilla's guideline 5.7 has it. `modern`: TLS 1.3. `intermediate`: "
        "TLS 1.2, too, with forward secrecy. `old`: TLS 1.0 and its ciphers, for clients that have nothing better.",
        source="RFC 9325",
        word=True,
    )
    minimum: Version | None = setting(
        None, "The oldest version of TLS, in place of the profile's.", example='"TLSv1.3"', word=True
    )
    ciphers: str = setting(
        _TLS.ciphers, 'OpenSSL\'s list of ciphers for TLS 1.2 and below, in place of the profile\'s; "": that.'
    )
    groups: tuple[str, ...] = several(
        (),
        "The groups for the agreement of keys, the best first; none: OpenSSL's choice (X25519, P-256 and more). More "
        "than one can be set with Python 3.15 or newer.",
        source="RFC 8446 §4.2.7",
        example='["X25519"]',
    )
    tickets: int = setting(
        _TLS.tickets,
        "Session tickets that a client is given to come back with at less cost; 0: none.",
        unit="tickets",
        least=0,
        most=8,
        source="RFC 8446 §4.6.1",
    )
    ticket_s: Seconds = setting(
        _TLS.ticket_s, "How long the keys of tickets are used; then new ones are made.", least=60
    )
    client_certificates: ClientCertificates = setting(
        NOBODY.client_certificates,
        "`never`: clients are not asked for a certificate. `asked`: one that is not good proves nothing. `demanded`: "
        "without a good one there is no TLS.",
        word=True,
    )
    client_ca_file: File | None = setting(
        None, "The roots that client certificates must lead to, PEM; unset: the system's.", example='"tls/clients.pem"'
    )
    client_certificate_purpose: Purpose = setting(
        NOBODY.purpose,
        "What client certificates must be made for. `client`: for clients (clientAuth, or no extended key usage)."
        " `any`: also for servers alone, which is all that public certificate authorities issue now.",
        word=True,
        source="RFC 5280 §4.2.1.12",
    )
    further: tuple[FurtherCertificate, ...] = tables()


class Introspection(Section):
    """Bearer tokens (OAUTHBEARER, XOAUTH2), checked by asking the authorization server (RFC 7662)."""

    url: Url | None = setting(
        None,
        "The introspection endpoint; unset: no tokens are checked so.",
        example='"https://login.example.org/oauth2/introspect"',
    )
    client_id: str = setting(
        "", 'By whom we are known there; "": by nobody.', source="RFC 6749 §2.3.1", example='"mail"'
    )
    client_secret_file: File | None = setting(
        None, "A file whose first line is the secret of `client_id`.", example='"introspection.secret"'
    )
    account_claim: str = setting(_INTROSPECTION.account_claim, "The member of the answer that names the account.")
    scope: str = setting(
        _INTROSPECTION.scope, 'The scopes that a token must have, separated by spaces; "": any.', example='"smtp"'
    )
    audience: str = setting(_INTROSPECTION.audience, 'For whom a token must be; "": for anybody.', example='"mail"')
    ca_file: File | None = setting(
        None, "The roots for the endpoint's certificate, PEM; unset: the system's.", example='"tls/roots.pem"'
    )


class Auth(Section):
    """Accounts: who may authenticate (AUTH, under TLS), and by whom that is verified: by the users file, by Dovecot or
    by a function (docs/authentication.md)."""

    users: File | None = setting(
        None,
        "The accounts: a text with a line `name:hash:addresses:keys` each, written by `postroad user`. It is read "
        "again when it changes. With `dovecot` or `function` it only says which addresses an account may send from.",
        example='"users"',
    )
    dovecot: File | None = setting(
        None,
        "Dovecot's auth socket: its mechanisms are offered and all passwords verified there.",
        example='"/run/dovecot/auth-client"',
    )
    function: str = setting(
        "",
        "A Python function that says who a client is: `module:function` or `/path/file.py:function`.",
        example='"/etc/postroad/accounts.py:check"',
    )
    introspection: Introspection = table(Introspection)
    mechanisms: Annotated[tuple[Mechanism, ...], BeforeValidator(one_or_more)] = several(
        (),
        "The SASL mechanisms to offer; empty: all that can be had. SCRAM is had where each account of the users file "
        "has keys for it, EXTERNAL with `certificate_name`, CRAM-MD5 and DIGEST-MD5 only where they are named here.",
        source="RFC 4954 §3",
        example='["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN"]',
    )
    certificate_name: CertificateName = setting(
        _AUTH.certificate_name,
        "Which name of a client's certificate is its account (EXTERNAL): `none`, a `mailbox` of it, or its "
        "`common-name`. `[tls]` must ask for certificates and name the roots that issue them.",
        source="RFC 4422 appendix A",
        word=True,
    )
    account_domain: Domain | None = setting(
        None,
        "Accounts whose name has no domain may send from NAME at this one, where nothing else is said of them.",
        example='"example.org"',
    )
    timeout_s: Seconds = setting(
        _AUTH.timeout_s,
        "How long Dovecot, the function or the introspection of a token may take; then the client is told to come back "
        "(454).",
        least=1,
        most=300,
    )
    threads: int = setting(
        _AUTH.threads,
        "Passwords verified, or functions run, at a time in one worker.",
        unit="threads",
        least=1,
        most=64,
    )
    queue_max: int = setting(
        _AUTH.queue_max,
        "Authentications that one worker looks into, or that wait for it, at most; the next is told to come back "
        "(454). A quarter is kept for clients that have logged in within the last week.",
        unit="authentications",
        least=1,
    )
    client_max: int = setting(
        _AUTH.client_max,
        "The same for one client, an IPv4 address or an IPv6 /64. Of a client that has not logged in lately, one that "
        "failed counts until its answer is due. A client that has may take half of `queue_max`.",
        unit="authentications",
        least=1,
    )
    network_max: int = setting(
        _AUTH.network_max,
        "The same for one network, without clients that have logged in lately.",
        unit="authentications",
        least=1,
    )
    cache_s: Seconds = setting(
        _AUTH.cache_s, "How long a right password or token is remembered; 0: not at all.", least=0
    )
    cache_max: int = setting(
        _AUTH.cache_max, "Right passwords and tokens remembered at most.", unit="passwords", least=0
    )
    failure_delay_s: Seconds = setting(
        _AUTH.failure_delay_s, "How long the answer to a wrong password is kept back at first.", least=0, most=60
    )
    failure_delay_max_s: Seconds = setting(
        _CLIENTS.failure_delay_max_s,
        "And at most: it doubles with each failure of the client or of the account within `bans.window_s`.",
        least=0,
        most=240,
    )


class Bans(Section):
    """When the node bans a client or an account by itself; `postroad bans` lists, adds and lifts bans."""

    failures_max: int = setting(
        _BANS.failures_max, "Failed AUTH of a client within `window_s`; 0: no ban for it.", unit="failures", least=0
    )
    network_failures_max: int = setting(
        _BANS.network_failures_max,
        "Failed AUTH of a network (`limits.network_prefix_ipv4`, `limits.network_prefix_ipv6`); then it is banned, but "
        "for its clients that have logged in within the last week; 0: no ban for it.",
        unit="failures",
        least=0,
    )
    account_failures_max: int = setting(
        _BANS.account_failures_max,
        "Failed AUTH of an account; then nobody can authenticate as it for a while, its owner neither; 0: no ban.",
        unit="failures",
        least=0,
    )
    offences_max: int = setting(
        _BANS.offences_max,
        "Sessions of a client ended for errors, refused commands, unknown recipients or talking early; 0: no ban.",
        unit="sessions",
        least=0,
    )
    window_s: Seconds = setting(_BANS.window_s, "The time within which they are counted.", least=1)
    time_s: Seconds = setting(_BANS.time_s, "How long such a ban lasts.", least=1)
    exempt: Annotated[tuple[TrustedNetwork, ...], BeforeValidator(one_or_more)] = several(
        _BANS.exempt, "Networks that the node never bans by itself, beside those that a listener trusts."
    )
