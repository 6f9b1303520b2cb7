"""Where mail goes: our own domains and how they are delivered, relay domains, next hops."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator

from postroad.check.etrn import EtrnOptions
from postroad.config.field import UNSET, Section, setting, several, tables
from postroad.config.values import (
    Domain,
    DomainPattern,
    File,
    Host,
    Moment,
    Port,
    Seconds,
    TrustedNetwork,
    one_or_more,
)
from postroad.mail.route import TlsDemand
from postroad.route.mx import MxOptions
from postroad.route.options import RoutingOptions

Deliver = Literal["maildir", "lmtp", "program"]
Prefer = Literal["", "ipv6", "ipv4"]
ClientMechanism = Literal[
    "", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-1", "PLAIN", "LOGIN", "OAUTHBEARER",
    "XOAUTH2", "EXTERNAL", "CRAM-MD5",
]  # fmt: skip
# What a server may offer and the client can do without; STARTTLS and AUTH have settings of their own.
Extension = Literal[
    "PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "BINARYMIME", "LIMITS", "DELIVERBY", "MT-PRIORITY",
    "RRVS", "XFORWARD",
]  # fmt: skip
IgnoredExtensions = Annotated[tuple[Extension, ...], BeforeValidator(one_or_more)]

_ROUTING: Final = RoutingOptions()
_MX: Final = MxOptions()


class LocalDomain(Section):
    """A domain whose mail is delivered here. Give one table `[[domain]]` for each."""

    name: Domain = setting(UNSET, "The domain.", example='"example.org"')
    recipients: Annotated[tuple[str, ...], BeforeValidator(one_or_more)] = several(
        (),
        'The local-parts that there are, or `"any"` for all. Others are refused at RCPT (550 5.1.1); postmaster always '
        "is there.",
        source="RFC 5321 §4.5.1",
        example='["alice", "bob"]',
    )
    recipients_file: File | None = setting(
        None,
        "A file with a local-part in each line, beside those of `recipients`; `#` begins a comment.",
        example='"recipients"',
    )
    deliver: Deliver = setting(
        "maildir",
        "`maildir`: into the folder `path`. `lmtp`: to the LMTP server at `socket`, or at `host` and `port`. "
        "`program`: to the standard input of `command`.",
        source="RFC 2033",
        example='"maildir"',
    )
    path: File | None = setting(
        None,
        "Maildir: the folder, where `{domain}` and `{local_part}` are the recipient's.",
        example='"/var/mail/{domain}/{local_part}"',
    )
    socket: File | None = setting(None, "LMTP: the path of the server's Unix socket.", example='"/run/dovecot/lmtp"')
    host: Host | None = setting(None, "LMTP: the server's name or address.", example='"imap.example.org"')
    port: Port = setting(24, "LMTP: the server's port.", least=1, most=65535)
    command: tuple[str, ...] = several(
        (),
        "Program: the command and its arguments, run without a shell; `{sender}`, `{recipient}`, `{local_part}` and "
        "`{domain}` stand for the envelope's.",
    )
    xforward: bool = setting(
        False,
        "LMTP: whether the server is told from which client the message is, where it takes XFORWARD.",
        source="Postfix, XFORWARD_README",
    )
    ignored_extensions: IgnoredExtensions = several(
        (), "LMTP: what the server offers and is not used with it, as of `[[next_hop]]`.", example='["CHUNKING"]'
    )
    since: Moment = setting(
        "",
        "Since when the domain is ours: mail that is meant for an owner before that is refused (550 5.7.18). Of a "
        'mailbox, `since=2014-04-03` behind its name in `recipients_file` says the same (550 5.7.17). "": not told.',
        source="RFC 7293",
        example='"2014-04-03"',
    )


class RelayDomain(Section):
    """A domain to pass on whose recipients we know, so that others are refused at RCPT. Give one table
    `[[relay.domain]]` for each."""

    name: DomainPattern = setting(UNSET, "The domain, or a pattern of domains.", example='"example.net"')
    recipients: Annotated[tuple[str, ...], BeforeValidator(one_or_more)] = several(
        (), "The local-parts that there are.", example='["alice", "bob"]'
    )
    recipients_file: File | None = setting(
        None, "A file with a local-part in each line, beside those of `recipients`.", example='"recipients"'
    )


class RelayEtrn(Section):
    """Who may have the queue of a relay domain started by ETRN, when its server is back. Give one table
    `[[relay.etrn]]` for each. A domain must be a relay domain, and its client must be in a network or be an account."""

    domains: Annotated[tuple[DomainPattern, ...], BeforeValidator(one_or_more)] = several(
        UNSET, "The domains.", least=1, source="RFC 1985", example='["example.net"]'
    )
    networks: Annotated[tuple[TrustedNetwork, ...], BeforeValidator(one_or_more)] = several(
        (), "Networks of the clients that may.", example='["192.0.2.0/24"]'
    )
    accounts: Annotated[tuple[str, ...], BeforeValidator(one_or_more)] = several(
        (), "Accounts that may, once they have authenticated.", example='["example.net"]'
    )


class Relay(Section):
    """Domains that are not ours, yet whose mail we take from anywhere and pass on."""

    etrn_interval_s: Seconds = setting(
        EtrnOptions().interval_s,
        "How long a queue that ETRN has started is not started again.",
        least=0,
        source="RFC 1985",
    )

    etrn_names_max: int = setting(
        EtrnOptions().names_max,
        "How many queues one client may have started within that time; then ETRN is answered 458.",
        unit="queues",
        least=1,
    )

    domains: tuple[DomainPattern, ...] = several(
        (), "The domains whose mail is taken for any recipient.", example='["example.net"]'
    )
    domain: tuple[RelayDomain, ...] = tables()
    etrn: tuple[RelayEtrn, ...] = tables()


class Routing(Section):
    """How recipients find their destination."""

    tls: TlsDemand = setting(
        _ROUTING.tls,
        "How much TLS is demanded of servers found by MX, in the words of `[[next_hop]]`.",
        source="RFC 7435",
        word=True,
    )
    mx_port: Port = setting(_ROUTING.mx_port, "The port of servers found by MX.", least=1, most=65535)
    literals: bool = setting(
        _ROUTING.literals, "Whether mail to address literals of other hosts is sent there.", source="RFC 5321 §4.1.3"
    )
    detail_delimiter: str = setting(
        _ROUTING.detail_delimiter,
        'The characters that begin an address extension in a local-part (`ada+lists` is `ada`); "": none.',
    )


class Mx(Section):
    """How the servers of a domain are chosen by its MX records (RFC 5321 §5.1)."""

    mx_max: int = setting(
        _MX.mx_max,
        "Mail exchangers of a domain that are tried, and looked up at a time. Those without an address do not count; "
        "100 of a domain are looked up at most.",
        unit="servers",
        least=1,
    )
    addresses_max: int = setting(
        _MX.addresses_max,
        "Addresses of one of them that are tried.",
        unit="addresses",
        least=2,
        source="RFC 5321 §5.1",
    )
    prefer: Prefer = setting(_MX.prefer, 'Which addresses of a server are tried first; "": as the resolver gives them.')
    loopback: bool = setting(
        _MX.loopback, "Whether the MX of a domain may have a loopback address, which means another machine's own."
    )


class NextHop(Section):
    """Where the mail for some domains goes instead of to their MX. The most exact pattern wins."""

    domain: DomainPattern = setting(UNSET, "The recipients' domains.", example='"*"')
    host: Host | None = setting(
        None,
        "The server to hand the mail to; unset: those of the recipient's MX, so that only `tls` is set.",
        example='"smtp.example.net"',
    )
    port: Port = setting(25, "Its port.", least=1, most=65535, example="587")
    mx: bool = setting(False, "Whether `host` is a domain whose MX records are looked up.")
    tls: TlsDemand = setting(
        TlsDemand.MAY,
        "How much TLS is demanded. `never`: none used. `may`: where offered. `encrypt`: or no delivery. `verify`: and "
        "a certificate that proves the host's name. `implicit`: as `verify`, TLS from the first octet.",
        source="RFC 3207, RFC 7435, RFC 8314 §3.3",
        word=True,
        example='"verify"',
    )
    username: str = setting(
        "", "The account to AUTH with; without one there is no AUTH.", source="RFC 4954", example='"example"'
    )
    password: str = setting("", "Its password. Better in `password_file`.", secret=True)
    password_file: File | None = setting(
        None,
        "A file whose first line is the password. It is read again for each connection, so a new password needs no "
        "reload.",
        example='"smtp.example.net.password"'
    )
    xforward: bool = setting(
        False,
        "Whether the server is told from which client the message is, where it takes XFORWARD: for a content filter "
        "that hands the mail back.",
        source="Postfix, XFORWARD_README",
    )
    token_file: File | None = setting(
        None,
        "A file whose first line is a bearer token (OAUTHBEARER, XOAUTH2), read anew for each connection, in place of "
        "a password.",
        source="RFC 7628",
        example='"smtp.example.net.token"',
    )
    token_command: tuple[str, ...] = several(
        (),
        "A command, run without a shell, whose first line of output is such a token.",
        example='["/usr/local/bin/token", "smtp.example.net"]',
    )
    mechanism: ClientMechanism = setting(
        "", 'The only SASL mechanism to use; "": the strongest that both ends have.', source="RFC 4954 §4"
    )
    cram_md5: bool = setting(
        False,
        "Whether CRAM-MD5 may be used where the server offers nothing better: the password can be guessed from what it "
        "sends, so it needs TLS, too. With `auth_without_tls` and no TLS it comes before `PLAIN` and `LOGIN`, which "
        "show the password.",
        source="RFC 2195",
    )
    ignored_extensions: IgnoredExtensions = several(
        (),
        "Extensions that the server offers and that are not used with it, because they do not work there. What the "
        "message needs and is ignored here makes it fail, as if the server did not offer it. TLS and AUTH have "
        "settings of their own: `tls`, `username`.",
        source="RFC 5321 §4.1.1.1",
        example='["CHUNKING"]',
    )
    auth_without_tls: bool = setting(
        False, "Whether the password may go over the wire without TLS, for anyone to read: a server on this machine."
    )
