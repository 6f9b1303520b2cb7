"""How mail comes in: listeners, certificates, the limits of a session, accounts."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator

from postroad.accounts.authenticate import AuthOptions, CertificateName
from postroad.accounts.introspection import IntrospectionOptions
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
from postroad.mail.policy import Role
from postroad.protocol.limits import ProtocolLimits, StrayLineEnds
from postroad.protocol.offer import Dialect
from postroad.receive.options import EarlyTalker, ExtensionOptions, ListenerTls, Proxy, ReceiveOptions, Telling
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


class ListenerSection(Section):
    """A place where the node accepts mail. Give one table `[[listener]]` for each port."""

    name: str = setting(UNSET, "The listener's name in the log, in the history and in `trace`.", example='"mx"')
    address: Annotated[tuple[ListeningAddress, ...], BeforeValidator(one_or_more)] = several(
        ("0.0.0.0", "::"),
        'The addresses to listen on, or one Unix socket, written `"unix:/path"`.',
        least=1,
        example='["0.0.0.0", "::"]',
    )
    port: Port = setting(25, "The port to listen on. A Unix socket does not use it.", least=1, most=65535)
    role: Role = setting(
        Role.MX,
        "What the listener is for. `mx`: mail from anywhere for our own domains. `submission`: mail from users, who "
        "must authenticate. `relay`: mail from trusted networks to anywhere.",
        source="RFC 6409",
        word=True,
    )
    protocol: Dialect = setting(
        Dialect.SMTP,
        "The protocol to speak: SMTP, or LMTP, which sends one reply for each recipient.",
        source="RFC 2033",
        word=True,
    )
    tls: ListenerTls | None = setting(
        None,
        "`none`: no TLS. `starttls`: STARTTLS is offered. `required`: no mail is accepted before STARTTLS. "
        "`implicit`: TLS from the first octet, on a port of its own. Unset: `starttls` if `[tls]` names a "
        "certificate, otherwise `none`.",
        example='"starttls"',
        source="RFC 3207, RFC 8314 §3.3",
        word=True,
    )
    auth: bool | None = setting(
        None,
        "Whether AUTH is offered. It is offered only under TLS. Unset: only submission listeners offer it.",
        source="RFC 4954",
        example="true",
    )
    auth_without_tls: bool = setting(
        False, "Whether AUTH is also offered without TLS. Anybody on the network path can then read the passwords."
    )
    trusted_networks: Annotated[tuple[TrustedNetwork, ...], BeforeValidator(one_or_more)] = several(
        (), "Networks whose clients may relay to anywhere without an account. They are meant for the role `relay`."
    )

    proxy: Proxy = setting(
        Proxy.NONE,
        "Whether each connection begins with a PROXY header, and of which version. HAProxy and other proxies send "
        "this header with the client's address. With `any`, either version is accepted, but the header must be "
        "there.",
        source="HAProxy, proxy-protocol.txt",
        word=True,
        example='"v2"',
    )
    proxy_networks: Annotated[tuple[TrustedNetwork, ...], BeforeValidator(one_or_more)] = several(
        (),
        "The proxies whose PROXY header is accepted. Connections from other addresses are closed.",
        example='["192.0.2.10"]',
    )
    proxy_tls: bool = setting(
        True,
        "Whether a session counts as protected by TLS if the PROXY header says that the proxy ended TLS with the "
        "client. This decides on AUTH, on `required` and on the trace fields.",
    )
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
    trusted_certificates: Annotated[tuple[Fingerprint, ...], BeforeValidator(one_or_more)] = several(
        (),
        "SHA-256 fingerprints of client certificates. A client that shows such a certificate counts as a client of a"
        " trusted network. Write them as `openssl x509 -fingerprint -sha256` does, or without colons.",
    )

    xclient_networks: Annotated[tuple[TrustedNetwork, ...], BeforeValidator(one_or_more)] = several(
        (),
        "Networks whose clients may use XCLIENT to say who their own client is. They are meant for mail proxies. "
        "Such a client may name any address and any account.",
        source="Postfix, XCLIENT_README",
        example='["192.0.2.11"]',
    )
    xforward_networks: Annotated[tuple[TrustedNetwork, ...], BeforeValidator(one_or_more)] = several(
        (),
        "Networks whose clients may use XFORWARD to say where a message came from. They are meant for content "
        "filters that hand the mail back. The node logs these facts and passes them on; they do not change who may "
        "relay.",
        source="Postfix, XFORWARD_README",
        example='["127.0.0.1"]',
    )

    greet_delay_s: Seconds = setting(
        0.0,
        "How long an untrusted client waits for the greeting. A client that speaks before the greeting is caught "
        "(`early_talker`). 0: no delay.",
        least=0,
        most=60,
        source="RFC 5321 §3.1",
    )
    early_talker: EarlyTalker = setting(
        EarlyTalker.NOTE,
        "What happens to a client that speaks before the greeting. `note`: a line in the log. `refuse`: it is "
        "answered 554 5.5.1, and this counts towards a ban.",
        word=True,
    )
    withheld_extensions: WithheldExtensions = several(
        (),
        "Extensions that this listener does not offer: EHLO does not name them, and their parameters and commands "
        "are refused. An example is `SMTPUTF8`, if the final recipients cannot receive such mail. TLS, AUTH, VRFY "
        "and EXPN have settings of their own. Replies keep their enhanced status codes in any case.",
        source="RFC 5321 §4.1.1.1",
        example='["SMTPUTF8"]',
    )
    vrfy: Telling = setting(
        Telling.AMBIGUOUS,
        "Whether VRFY reveals which mailboxes of our domains exist. `off`: the command does not exist. `ambiguous`: "
        "every VRFY is answered 252. `trusted`: the node gives the true answer to trusted networks and accounts, and"
        " answers 252 to others. `on`: the node gives the true answer to everyone.",
        source="RFC 5321 §3.5.3, §7.3",
        word=True,
    )
    expn: Telling = setting(
        Telling.OFF,
        "Whether EXPN reveals the mailboxes that an alias leads to. The values mean the same as for `vrfy`, but with"
        " `trusted` EXPN is refused to others.",
        source="RFC 5321 §3.5, §7.3",
        word=True,
    )
    loose_paths: bool | None = setting(
        None,
        "Whether the node accepts addresses whose local-part has periods where RFC 5321 forbids them: `a..b@`, "
        "`a.@`, `.a@`. Such mailboxes exist. The node sends them on in quotes, which means the same. It removes a "
        "period after the domain, which DNS writes: `a@example.org.`. Unset: yes, except for the role `mx`.",
        source="RFC 5321 §4.1.2",
        example="true",
    )
    add_missing: bool = setting(
        False,
        "On an mx or relay listener: whether the node adds Date and Message-ID to a message that lacks them, if the "
        "message comes from a trusted network or an account. Submission listeners add more (`receive.repair`).",
        source="RFC 5322 §3.6",
    )
    inspectors: Annotated[tuple[str, ...], BeforeValidator(one_or_more)] = several(
        (),
        "Python classes or functions that inspect sessions and may change messages, `module:name` or "
        "`/path/file.py:name`. Each is called without arguments and makes an inspector (docs/inspectors.md). "
        "Inspectors are asked in this order, after the rules of the listener.",
        example='["/etc/postroad/stamp.py:Stamp"]',
    )
    dsn_for_strangers: bool = setting(
        False,
        "Whether an mx listener offers DSN to clients that are neither trusted nor authenticated. With DSN, anybody "
        "can make this node report success, or return whole messages, to a forged sender. Large providers rarely "
        "offer it to strangers. Without it, the server that sends to this node reports success to its sender, as far"
        " as it knows.",
        source="RFC 3461",
    )
    hello_syntax: bool = setting(
        _POLICY.hello_syntax, "Whether EHLO is refused if its argument is neither a domain nor an address literal."
    )
    null_sender_recipients_max: int = setting(
        _POLICY.null_sender_recipients_max,
        "The most recipients of a message with the null reverse-path. 0: no limit.",
        unit="recipients",
        least=0,
    )
    auth_relays: bool = setting(
        _POLICY.auth_relays, "Whether authenticated accounts may relay on a listener that is not for submission."
    )
    trust_network: bool = setting(
        _POLICY.trust_network,
        "On a submission listener: whether clients of trusted networks may send without authentication.",
    )
    strangers: bool = setting(
        _POLICY.strangers, "On a relay listener: whether clients of other networks may send to our own domains."
    )

    untrusted_routing: bool = setting(
        _POLICY.untrusted_routing,
        "Whether strangers may name a further route beyond a relay domain: `user%other@relay.example`, "
        "`other!user@relay.example`. If the host of the relay domain follows such a route, strangers can relay "
        "through it to anywhere.",
        source="RFC 5321 appendix F.2",
    )
    header_from: HeaderFrom = setting(
        _POLICY.header_from,
        "Which addresses an authenticated client may put in the header field From. `any`: any address; a submission "
        "listener then adds Sender with the account's address (`receive.repair`). `owned`: each mailbox in From must"
        " belong to the account, otherwise the message is refused (550 5.7.1). The reverse-path must belong to the "
        "account in any case.",
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


class LimitsSection(Section):
    """How much one session, one client and one message may use. No limit can be set below what an RFC demands."""

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
        "The most Received fields of a message. A message with more is in a mail loop and is refused.",
        unit="fields",
        least=100,
        source="RFC 5321 §6.3",
    )
    alias_depth_max: int = setting(
        _ALIASES.alias_depth_max,
        "How many aliases may follow one another, each leading to the next.",
        unit="aliases",
        least=1,
        most=1000,
    )
    alias_recipients_max: int = setting(
        _ALIASES.alias_recipients_max,
        "The most mailboxes that one alias may lead to. An alias file in which an alias leads to more is not loaded.",
        unit="mailboxes",
        least=1,
        most=1_000_000,
    )
    message_recipients_max: int = setting(
        _ALIASES.message_recipients_max,
        "The most mailboxes that all recipients of a message may lead to together, once their aliases are expanded. "
        "A mailbox counts once for each recipient that leads to it. A message with more is refused (554 5.2.4).",
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
        "How long a client may be silent in the middle of the content.",
        least=180,
        source="RFC 5321 §4.5.3.2.5",
    )
    message_s: Seconds = setting(
        _RECEIVE.message_s, "How long a message may take, from MAIL to the end of its content.", least=600
    )
    refused_content_s: Seconds = setting(
        _RECEIVE.refused_content_s,
        "How long the client may take to send the rest of a message after the node has found a reason to refuse it. "
        "The client gets this reason only at the end of its content. `swallow_max` limits the same in octets.",
        least=600,
        source="RFC 5321 §4.5.3.2.7",
    )
    session_s: Seconds = setting(_RECEIVE.session_s, "How long a session may last.", least=600)
    handshake_s: Seconds = setting(_RECEIVE.handshake_s, "How long a TLS handshake may take.", least=1)
    close_s: Seconds = setting(
        _RECEIVE.close_s, "How long a client may take to read the last reply of a session.", least=0.1
    )
    proxy_s: Seconds = setting(_RECEIVE.proxy_s, "How long a PROXY header may take to arrive.", least=0.1)
    proxy_header_max: Octets = setting(
        _RECEIVE.proxy_header_max, "The largest PROXY header of version 2, with all its parts.", least=536, most=65551
    )
    memory_content_max: Octets = setting(
        _RECEIVE.memory_content_max,
        "Content up to this size stays in memory while it arrives. Larger content is written to a file.",
        least=0,
    )
    input_max: Octets = setting(
        _RECEIVE.input_max,
        "The most unread octets of a session. At this limit, the node reads no more from the client until it has "
        "handled some of them.",
        least=4096,
    )
    auth_failures_max: int = setting(
        _RECEIVE.auth_failures_max,
        "The number of wrong passwords after which the node ends the session.",
        unit="tries",
        least=1,
    )
    refusals_max: int = setting(
        _RECEIVE.refusals_max,
        "Commands of a stranger that our rules may refuse since its last accepted message. The next refusal ends the"
        " session.",
        unit="commands",
        least=1,
    )
    content_memory_max: Octets = setting(
        _RECEIVE.content_memory_max,
        "Memory that one worker may use for content that is arriving. Above this limit, content is written to files,"
        " and new mail is answered 452, so that the client tries again later.",
        least=1_048_576,
    )
    files_reserved: int = setting(
        _RECEIVE.files_reserved,
        "File descriptors of a worker that are kept free of sessions, for the spool and for deliveries; at most half"
        " of all descriptors. If sessions have used up the others, new clients are answered 421 4.3.2 and can come "
        "back later.",
        unit="descriptors",
        least=32,
    )
    unknown_recipients_max: int = setting(
        _RECEIVE.unknown_recipients_max,
        "Recipients that do not exist (5.1.1) which a stranger may name in one session. The next one ends the "
        "session and counts towards a ban. 0: no limit.",
        unit="recipients",
        least=0,
    )
    sessions_max: int = setting(
        _CLIENTS.sessions_max, "The most sessions at a time in the whole node.", unit="sessions", least=1
    )
    sessions_per_client_max: int = setting(
        _CLIENTS.sessions_per_client_max,
        "The most sessions at a time of one client (an IPv4 address or an IPv6 /64).",
        unit="sessions",
        least=1,
    )
    sessions_per_network_max: int = setting(
        _CLIENTS.sessions_per_network_max,
        "The most sessions at a time of one network. 0: no limit.",
        unit="sessions",
        least=0,
    )
    network_prefix_ipv4: int = setting(
        _CLIENTS.network_prefix_ipv4,
        "The prefix length of an IPv4 network: addresses with the same prefix count as one network. A change needs a"
        " restart.",
        unit="bits",
        least=8,
        most=32,
    )
    network_prefix_ipv6: int = setting(
        _CLIENTS.network_prefix_ipv6,
        "The prefix length of an IPv6 network. A change needs a restart.",
        unit="bits",
        least=16,
        most=64,
        source="RFC 6177",
    )
    rate_s: Seconds = setting(_CLIENTS.rate_s, "The time span for which the six rate limits below count.", least=1)
    connection_rate_max: int = setting(
        _CLIENTS.connection_rate_max,
        "The most connections of one client within `rate_s`. 0: no limit.",
        unit="connections",
        least=0,
    )
    connection_rate_network_max: int = setting(
        _CLIENTS.connection_rate_network_max,
        "The most connections of one network within `rate_s`. 0: no limit.",
        unit="connections",
        least=0,
    )
    message_rate_max: int = setting(
        _CLIENTS.message_rate_max,
        "The most MAIL commands of one client within `rate_s`. 0: no limit.",
        unit="commands",
        least=0,
    )
    message_rate_network_max: int = setting(
        _CLIENTS.message_rate_network_max,
        "The most MAIL commands of one network within `rate_s`. 0: no limit.",
        unit="commands",
        least=0,
    )
    recipient_rate_max: int = setting(
        _CLIENTS.recipient_rate_max,
        "The most RCPT commands of one client within `rate_s`. 0: no limit.",
        unit="commands",
        least=0,
    )
    recipient_rate_network_max: int = setting(
        _CLIENTS.recipient_rate_network_max,
        "The most RCPT commands of one network within `rate_s`. 0: no limit.",
        unit="commands",
        least=0,
    )


class ReceiveSection(Section):
    """How the node answers sessions, beyond the rules of the protocol."""

    repair: bool = setting(
        _RECEIVE.repair,
        "Whether submission listeners add Date, Message-ID, From or Sender if one is missing.",
        source="RFC 6409 §8",
    )
    single_fields: bool = setting(
        _POLICY.single_fields,
        "Whether submission listeners refuse (550 5.6.0) a message that has more than one Date, From, Sender, "
        "Reply-To, To, Cc, Bcc, Message-ID, In-Reply-To, References or Subject field. Different programs read such a"
        " message in different ways.",
        source="RFC 5322 §3.6",
    )
    help: HelpText = setting(_RECEIVE.help, "The reply to HELP: one line.", source="RFC 5321 §4.1.1.8")
    default_domain: Domain | None = setting(
        None,
        "The domain of the bare `<Postmaster>`. Unset: the first `[[domain]]`.",
        source="RFC 5321 §4.1.1.3",
        example='"example.org"',
    )


class ExtensionsSection(Section):
    """Which further extensions of SMTP the listeners offer, and their limits. As a client, the node uses every
    extension that the next host offers and that the message asks for."""

    binarymime: bool = setting(
        _EXTENSIONS.binarymime,
        "Whether BINARYMIME is offered. Binary mail is kept as it is. If the next host does not accept it, the node "
        "converts it (`outbound.eight_bit`). So offer it only if your own mail servers accept it.",
        source="RFC 3030",
    )
    limits: bool = setting(
        _EXTENSIONS.limits,
        "Whether EHLO announces the limits of a session: transactions, recipients, domains of recipients.",
        source="RFC 9422",
    )
    requiretls: bool = setting(
        _EXTENSIONS.requiretls,
        "Whether REQUIRETLS is offered under TLS, and whether the node obeys the header field `TLS-Required: No`.",
        source="RFC 8689",
    )
    deliver_by: bool = setting(_EXTENSIONS.deliver_by, "Whether DELIVERBY is offered.", source="RFC 2852")
    deliver_by_min_s: Seconds = setting(
        _EXTENSIONS.deliver_by_min_s,
        "The shortest time limit that a client may set for delivery if the message is to be returned when the limit "
        "is missed. 0: any time.",
        least=0,
        source="RFC 2852",
    )
    future_release_max_s: Seconds = setting(
        _EXTENSIONS.future_release_max_s,
        "How long a client of a submission listener may ask to hold a message (FUTURERELEASE). 0: not offered.",
        least=0,
        most=999_999_999,
        source="RFC 4865",
    )
    mt_priority: bool = setting(_EXTENSIONS.mt_priority, "Whether MT-PRIORITY is offered.", source="RFC 6710")
    mt_priority_profile: Profile = setting(
        _EXTENSIONS.mt_priority_profile, 'The priority profile that EHLO announces. "": none.', source="RFC 6710"
    )
    mt_priority_max: int = setting(
        _EXTENSIONS.mt_priority_max,
        "The highest priority that accounts and trusted networks may ask for. A higher one is lowered to it.",
        unit="priority",
        least=-9,
        most=9,
    )
    mt_priority_strangers_max: int = setting(
        _EXTENSIONS.mt_priority_strangers_max,
        "The highest priority that all other clients may ask for. A higher one is lowered to it.",
        unit="priority",
        least=-9,
        most=9,
    )
    mt_priority_tunnel: bool = setting(
        _EXTENSIONS.mt_priority_tunnel,
        "Whether the header field `MT-Priority` carries the priority past hosts that do not offer MT-PRIORITY. The "
        "node believes this field if it comes from accounts and trusted networks, and removes it from the mail of "
        "others.",
        source="RFC 6758",
    )
    rrvs: bool = setting(
        _EXTENSIONS.rrvs,
        "Whether RRVS is offered, and whether the node obeys the header field `Require-Recipient-Valid-Since`. A "
        "sender uses them for mail that is only for the owner that a mailbox had at a certain time. The node knows "
        "of changes of owner only from `recipients_file` and `since` of a `[[domain]]`.",
        source="RFC 7293",
    )


class FurtherCertificateSection(Section):
    """A certificate in addition to the first one. Give one table `[[tls.further]]` for each. A client that asks for a
    name (SNI, RFC 6066 §3) gets the certificate that holds this name."""

    certificate: File = setting(UNSET, "The certificate with its chain, PEM.", example='"tls/example.net.pem"')
    key: File | None = setting(
        None,
        "The private key of the certificate, PEM. Unset: it is in the certificate's file.",
        example='"tls/example.net.key"',
    )


class TlsSection(Section):
    """TLS as a server. The node reads the files again when they change; no session is dropped."""

    certificate: File | None = setting(
        None,
        "The certificate with its chain, PEM, the server's own certificate first. Without a certificate there is no "
        "TLS.",
        example='"tls/mail.pem"',
    )
    key: File | None = setting(
        None,
        "The private key of the certificate, PEM. Unset: it is in the certificate's file.",
        example='"tls/mail.key"',
    )
    profile: TlsProfile = setting(
        _TLS.profile,
        "Which TLS versions and ciphers are allowed, after Mozilla's guideline 5.7. `modern`: TLS 1.3. "
        "`intermediate`: TLS 1.3, and TLS 1.2 with forward secrecy. `old`: also TLS 1.0 and its ciphers, for clients"
        " that have nothing better.",
        source="RFC 9325",
        word=True,
    )
    minimum: Version | None = setting(
        None, "The oldest TLS version allowed. Unset: that of the profile.", example='"TLSv1.3"', word=True
    )
    ciphers: str = setting(_TLS.ciphers, 'OpenSSL\'s cipher list for TLS 1.2 and below. "": that of the profile.')
    groups: tuple[str, ...] = several(
        (),
        "The groups for the key exchange, the preferred one first. Empty: OpenSSL's choice (X25519, P-256 and more)."
        " More than one can be set with Python 3.15 or newer.",
        source="RFC 8446 §4.2.7",
        example='["X25519"]',
    )
    tickets: int = setting(
        _TLS.tickets,
        "How many session tickets a client gets. With a ticket, its next connection costs less. 0: none.",
        unit="tickets",
        least=0,
        most=8,
        source="RFC 8446 §4.6.1",
    )
    ticket_s: Seconds = setting(
        _TLS.ticket_s, "How long the keys of session tickets are used before new keys are made.", least=60
    )
    client_certificates: ClientCertificates = setting(
        NOBODY.client_certificates,
        "`never`: clients are not asked for a certificate. `asked`: clients are asked; an invalid certificate counts"
        " as none. `demanded`: without a valid certificate the TLS handshake fails.",
        word=True,
    )
    client_ca_file: File | None = setting(
        None,
        "The root certificates that client certificates must lead to, PEM. Unset: the system's.",
        example='"tls/clients.pem"',
    )
    client_certificate_purpose: Purpose = setting(
        NOBODY.purpose,
        "The purpose that client certificates must have been issued for. `client`: for clients (clientAuth, or no "
        "extended key usage). `any`: also for servers only; public certificate authorities issue nothing else now.",
        word=True,
        source="RFC 5280 §4.2.1.12",
    )
    further: tuple[FurtherCertificateSection, ...] = tables()


class IntrospectionSection(Section):
    """Bearer tokens (OAUTHBEARER, XOAUTH2). The node checks them with the authorization server (RFC 7662)."""

    url: Url | None = setting(
        None,
        "The introspection endpoint. Unset: no tokens are checked in this way.",
        example='"https://login.example.org/oauth2/introspect"',
    )
    client_id: str = setting(
        "",
        'The name by which the node authenticates at the endpoint. "": it does not authenticate.',
        source="RFC 6749 §2.3.1",
        example='"mail"',
    )
    client_secret_file: File | None = setting(
        None, "A file whose first line is the secret of `client_id`.", example='"introspection.secret"'
    )
    account_claim: str = setting(
        _INTROSPECTION.account_claim, "The member of the endpoint's answer that names the account."
    )
    scope: str = setting(
        _INTROSPECTION.scope, 'The scopes that a token must have, separated by spaces. "": any.', example='"smtp"'
    )
    audience: str = setting(
        _INTROSPECTION.audience, 'The audience that a token must be meant for. "": any.', example='"mail"'
    )
    ca_file: File | None = setting(
        None,
        "The root certificates for the endpoint's certificate, PEM. Unset: the system's.",
        example='"tls/roots.pem"',
    )


class AuthSection(Section):
    """Accounts: who may authenticate (AUTH, under TLS), and what verifies them: the users file, Dovecot or a function
    (docs/authentication.md)."""

    users: File | None = setting(
        None,
        "The file of accounts: a text file with one line `name:hash:addresses:keys` for each account, written by "
        "`postroad user`. The node reads it again when it changes. With `dovecot` or `function` it only says which "
        "addresses an account may send from.",
        example='"users"',
    )
    dovecot: File | None = setting(
        None,
        "Dovecot's auth socket. The node offers Dovecot's mechanisms, and Dovecot verifies all passwords.",
        example='"/run/dovecot/auth-client"',
    )
    function: str = setting(
        "",
        "A Python function that decides who a client is: `module:function` or `/path/file.py:function`.",
        example='"/etc/postroad/accounts.py:check"',
    )
    introspection: IntrospectionSection = table(IntrospectionSection)
    mechanisms: Annotated[tuple[Mechanism, ...], BeforeValidator(one_or_more)] = several(
        (),
        "The SASL mechanisms to offer. Empty: all that are possible. SCRAM is possible if every account of the users"
        " file has keys for it. EXTERNAL is possible with `certificate_name`. CRAM-MD5 and DIGEST-MD5 are offered "
        "only if this setting names them.",
        source="RFC 4954 §3",
        example='["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN"]',
    )
    certificate_name: CertificateName = setting(
        _AUTH.certificate_name,
        "Which name in a client's certificate is the client's account (EXTERNAL): `none`, a `mailbox` in it, or its "
        "`common-name`. `[tls]` must then ask for certificates and name the root certificates that issue them.",
        source="RFC 4422 appendix A",
        word=True,
    )
    account_domain: Domain | None = setting(
        None,
        "The domain for accounts whose name has none: account NAME may send from NAME at this domain, unless other "
        "addresses are set for it.",
        example='"example.org"',
    )
    timeout_s: Seconds = setting(
        _AUTH.timeout_s,
        "How long Dovecot, the function or the introspection of a token may take, and how long an authentication may "
        "wait for its turn. After that the client is answered 454 and can try again later.",
        least=1,
        most=300,
    )
    threads: int = setting(
        _AUTH.threads,
        "How many passwords one worker verifies, or how many functions it runs, at a time.",
        unit="threads",
        least=1,
        most=64,
    )
    queue_max: int = setting(
        _AUTH.queue_max,
        "The most authentications that one worker handles at a time. One more waits (`waiting_max`). A quarter of the "
        "places is kept for clients that have logged in within the last week.",
        unit="authentications",
        least=1,
    )
    client_max: int = setting(
        _AUTH.client_max,
        "The most authentications that one client (an IPv4 address or an IPv6 /64) may have among these. If the "
        "client has not logged in within the last week, a failed authentication counts until its answer is due. If "
        "it has, it may use half of `queue_max`.",
        unit="authentications",
        least=1,
    )
    network_max: int = setting(
        _AUTH.network_max,
        "The most authentications that one network may have among these. Clients that have logged in within the last"
        " week do not count.",
        unit="authentications",
        least=1,
    )
    waiting_max: int = setting(
        _AUTH.waiting_max,
        "The most authentications that wait in one worker until `queue_max`, `client_max` and `network_max` leave room "
        "for them. One more, and one that has waited for `timeout_s`, is answered 454, so that the client tries again "
        "later. A client that has not logged in within the last week may have a quarter of these, its network half, "
        "and all such clients together three quarters. 0: none waits.",
        unit="authentications",
        least=0,
    )
    cache_s: Seconds = setting(
        _AUTH.cache_s, "How long the node remembers a correct password or token. 0: not at all.", least=0
    )
    cache_max: int = setting(
        _AUTH.cache_max, "The most correct passwords and tokens that the node remembers.", unit="passwords", least=0
    )
    failure_delay_s: Seconds = setting(
        _AUTH.failure_delay_s, "How long the node delays the answer to the first wrong password.", least=0, most=60
    )
    failure_delay_max_s: Seconds = setting(
        _CLIENTS.failure_delay_max_s,
        "The longest such delay. The delay doubles with each failure of the client or of the account within "
        "`bans.window_s`.",
        least=0,
        most=240,
    )


class BansSection(Section):
    """When the node bans a client or an account by itself. `postroad bans` lists, adds and lifts bans."""

    failures_max: int = setting(
        _BANS.failures_max,
        "The number of failed AUTH attempts of a client within `window_s` after which the node bans the client. 0: "
        "no ban.",
        unit="failures",
        least=0,
    )
    network_failures_max: int = setting(
        _BANS.network_failures_max,
        "The number of failed AUTH attempts of a network (`limits.network_prefix_ipv4`, "
        "`limits.network_prefix_ipv6`) within `window_s` after which the node bans the network. Clients of this "
        "network that have logged in within the last week are not banned with it, and the ban does not hold on "
        "listeners without AUTH: mail from servers of this network is accepted there as before. 0: no ban.",
        unit="failures",
        least=0,
    )
    account_failures_max: int = setting(
        _BANS.account_failures_max,
        "The number of failed AUTH attempts at an account within `window_s` after which the node bans the account. "
        "Nobody can then authenticate as this account for `time_s`, not even its owner. 0: no ban.",
        unit="failures",
        least=0,
    )
    offences_max: int = setting(
        _BANS.offences_max,
        "The number of sessions of a client within `window_s` that ended because of errors, refused commands, "
        "unknown recipients or speaking before the greeting, after which the node bans the client. 0: no ban.",
        unit="sessions",
        least=0,
    )
    window_s: Seconds = setting(_BANS.window_s, "The time span for which failures and ended sessions count.", least=1)
    time_s: Seconds = setting(_BANS.time_s, "How long such a ban lasts.", least=1)
    exempt: Annotated[tuple[TrustedNetwork, ...], BeforeValidator(one_or_more)] = several(
        _BANS.exempt, "Networks that the node never bans by itself. Networks that a listener trusts are exempt, too."
    )
