"""The settings of a next hop: which mail it takes, and how it is reached."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from postroad.mail.address import Address
from postroad.mail.field_rules import RULES_MAX
from postroad.mail.route import Origin, OwnAddress, Retry, SetServer, TlsDemand, TlsTerms
from postroad.route.retry_options import (
    DelayNotice,
    FirstPause,
    Lifetime,
    LifetimeOfReports,
    LongestPause,
    retry_of,
)

MailClass = Literal["report", "automatic", "bulk"]


class Generic(msgspec.Struct, frozen=True):
    """An entry of a table of names (`route.outbound`). `pattern`: a mailbox, its local-part in lower case, or
    ``@example.org``. `result`: the name at the next hop; without a local-part it keeps that of the mailbox."""

    pattern: str
    result: Address


class NextHop(msgspec.Struct, frozen=True):
    """Where mail goes instead of to the MX of its domain (`route.choosing` says which one counts).

    `domain`: ``example.org``, ``.example.org`` for all below it, ``*`` for all; "" if `recipients` names mailboxes.
    `senders`: mailboxes, domain patterns or ``<>``. `host`: a name or an IP address (in brackets or not), "" for the MX
    of the domain itself. `credentials`: name of the account to AUTH with. `ignored_extensions`: keywords in capitals.
    """

    domain: Annotated[
        str,
        Meta(
            description="The recipients' domains. Unset: the mailboxes in `recipients`, or all domains if the table "
            "has `senders` or `accounts`.",
        ),
    ]
    host: Annotated[
        str,
        Meta(
            description="The server that gets the mail. Unset: the servers of the recipient's MX, so that the table "
            "only sets `tls`, or exempts some senders or recipients from a table with a host.",
        ),
    ] = ""
    port: Annotated[int, Meta(ge=1, le=65535, description="The port of `host`.")] = 25
    mx: Annotated[bool, Meta(description="Whether `host` is a domain whose MX records the node looks up.")] = False
    tls: Annotated[
        TlsDemand | None,
        Meta(
            description="How much TLS the node demands. `none`: TLS is not used. `may`: TLS is used if the server "
            "offers it. `encrypt`: without TLS there is no delivery. `verify`: in addition, a certificate must prove "
            "the host's name (or one of `tls_names`). `implicit`: as `verify`, with TLS from the first octet. `dane`: "
            "as the TLSA records of the host say, or as `may` if it has none. `dane-only`: without usable TLSA records "
            "there is no delivery. `sts`: as `dane`, then as the MTA-STS policy of the recipient's domain says, or as "
            "`may` if it has none. `fingerprint`: the certificate or its key must be one of `tls_fingerprints`. "
            "Unset: as `routing.tls` for a table without a server; for a table with one, `dane` if `routing.tls` is "
            "`dane` or `sts`, else `may`. docs/tls.md says more.",
        ),
    ] = None
    tls_names: Annotated[
        tuple[str, ...],
        Meta(
            description="Names that the certificate may have instead of the host's, with `verify` or `implicit`. "
            "`.example.net` stands for all names below it, `hostname` for the host, `nexthop` for the domain or host "
            "of the table, `dot-nexthop` for all names below that.",
        ),
    ] = ()
    tls_fingerprints: Annotated[
        tuple[str, ...],
        Meta(description="SHA-256 fingerprints of the server's certificates, or of their public keys, in hexadecimal."),
    ] = ()
    tls_minimum: Annotated[
        str, Meta(description='The oldest TLS version allowed. "": as set under `[outbound.tls]`.')
    ] = ""
    tls_ciphers: Annotated[
        str,
        Meta(description='OpenSSL\'s cipher list for TLS 1.2 and below. "": as set under `[outbound.tls]`.'),
    ] = ""
    credentials: str = ""
    xforward: Annotated[
        bool,
        Meta(
            description="Whether the node tells the server which client the message came from, if the server offers "
            "XFORWARD. This is meant for a content filter that hands the mail back.",
        ),
    ] = False
    xclient: Annotated[
        bool,
        Meta(
            description="Whether the node speaks for the client that the message came from, if the server offers "
            "XCLIENT. The server then treats the message as if that client had connected to it.",
        ),
    ] = False
    ignored_extensions: Annotated[
        tuple[str, ...],
        Meta(
            description="Extensions that the server offers but that the node does not use with it, because they do "
            "not work there. If a message needs an ignored extension, its delivery fails, as if the "
            "server did not offer the extension. TLS and AUTH have settings of their own: `tls`, "
            "`username`.",
        ),
    ] = ()
    recipients: Annotated[
        tuple[str, ...],
        Meta(
            description="Recipients whose mail goes this way, instead of a domain. A mailbox also stands for its "
            "address extensions (`ada+lists` for `ada`), unless a table names them.",
        ),
    ] = ()
    senders: Annotated[
        tuple[str, ...],
        Meta(
            description="The table is only for mail of these senders (reverse-paths): mailboxes, domains, or `<>` "
            "for reports. Strangers can forge a sender. Unset: any sender.",
        ),
    ] = ()
    accounts: Annotated[
        tuple[str, ...],
        Meta(
            description="The table is only for mail of clients that have authenticated with one of these accounts. "
            "Unset: any client.",
        ),
    ] = ()
    generic: Annotated[
        tuple[Generic, ...],
        Meta(
            description="Other names for senders and recipients of mail that goes this way, in MAIL and RCPT: the old "
            "name, a space, the new name. A mailbox also stands for its address extensions. `@host.local` "
            "stands for all other mailboxes of that domain. With a new name such as `@example.org` a "
            "mailbox keeps its local-part. The null sender and mail for local domains stay as they are. "
            "docs/routing.md says more.",
        ),
    ] = ()
    generic_maps: Annotated[
        tuple[str, ...],
        Meta(
            description="Maps of such names, asked after `generic`. The keys are those of canonical maps, the value is "
            "a mailbox or `@example.org`. If a map cannot answer, mail waits.",
        ),
    ] = ()
    generic_header: Annotated[
        bool,
        Meta(
            description="Whether `generic` and `generic_maps` also change the addresses in header fields, except in "
            "fields that a DKIM or ARC signature covers (`rewrite.signed_fields`).",
        ),
    ] = True
    remove_fields: Annotated[
        tuple[str, ...],
        Meta(
            max_length=RULES_MAX,
            description="Header fields that are removed from mail for this server: names, or patterns between slashes. "
            "They are written as those of a `[[listener]]`. The stored message stays as it is.",
        ),
    ] = ()
    replace_fields: Annotated[
        tuple[str, ...],
        Meta(max_length=RULES_MAX, description="Header fields that are replaced in mail for this server."),
    ] = ()
    add_fields: Annotated[
        tuple[str, ...],
        Meta(
            max_length=RULES_MAX,
            description="Header fields that are added at the end of the header section of mail for this server, if it "
            "has no field of this name.",
        ),
    ] = ()

    hosts: Annotated[
        tuple[SetServer, ...],
        Meta(
            description="Several servers instead of `host`. As a list of names they are tried in this order: the next "
            "one is used if those before it cannot be reached or refuse the connection. If an entry has a priority or "
            "a weight, the lowest priority is tried first, and servers of one priority share the connections by their "
            "weights, as with SRV records. Unset in an entry: priority 0, weight 1, the `port` of the table.",
        ),
    ] = ()
    fallback: Annotated[
        tuple[SetServer, ...],
        Meta(
            description="Servers that get the mail if its own servers cannot be found or reached, written as in "
            "`hosts`. A server that another table names, too, is reached with the TLS and the account of that table.",
        ),
    ] = ()
    source_ipv4: Annotated[
        tuple[OwnAddress, ...],
        Meta(
            description="The IPv4 addresses that the node connects from. Several take turns. A name behind an address "
            "is given in EHLO. If this or `source_ipv6` is set, the node uses no other address; IPv6 then needs "
            "`source_ipv6`. If an address is missing on this machine, the next one is used; if all are missing, the "
            "mail waits.",
        ),
    ] = ()
    source_ipv6: Annotated[
        tuple[OwnAddress, ...], Meta(description="The same for IPv6.")
    ] = ()
    hello: Annotated[
        str,
        Meta(description='The name that the node gives in EHLO. "": as set under `[outbound]`.'),
    ] = ""
    name: Annotated[
        str,
        Meta(
            description="The name by which a transport map means this table: `next_hop:NAME`. A table with a name and "
            "without `domain`, `recipients`, `senders` and `accounts` is only for such mail.",
        ),
    ] = ""

    action: Annotated[
        str,
        Meta(
            description="What becomes of the mail instead of being sent, in the words of a transport map: `hold:TEXT` "
            "holds it until `postroad queue release` lets it go on (to the host of this table, or without a host as if "
            "the table were not there), `error:5.7.1 TEXT` fails it, `retry:4.7.1 TEXT` lets it wait, `discard:TEXT` "
            "throws it away.",
        ),
    ] = ""
    size_min: Annotated[
        int, Meta(ge=0, description="The table is only for messages of at least this size. 0: of any size.")
    ] = 0
    classes: Annotated[
        tuple[MailClass, ...],
        Meta(
            description="The table is only for mail of one of these classes. `report`: its sender is `<>`. "
            "`automatic`: it has a field Auto-Submitted with another value than `no`. `bulk`: it has a field List-Id "
            "or List-Unsubscribe, or Precedence with `bulk`, `list` or `junk`. The sender decides what a message says. "
            "Fields are looked at when the message is accepted.",
        ),
    ] = ()
    fields: Annotated[
        tuple[str, ...],
        Meta(
            description="The table is only for mail with one of these header fields, perhaps with a value. With "
            "`classes`, too, one of the two must fit.",
        ),
    ] = ()
    listeners: Annotated[
        tuple[str, ...],
        Meta(description="The table is only for mail that came by one of these listeners. Unset: any way."),
    ] = ()
    priority_min: Annotated[
        int | None,
        Meta(ge=-9, le=9, description="The table is only for mail with at least this MT-PRIORITY. Unset: any."),
    ] = None
    priority_max: Annotated[
        int | None,
        Meta(ge=-9, le=9, description="The table is only for mail with at most this MT-PRIORITY. Unset: any."),
    ] = None
    retry_first_s: FirstPause = None
    retry_max_s: LongestPause = None
    lifetime_s: Lifetime = None
    lifetime_dsn_s: LifetimeOfReports = None
    delay_notice_s: DelayNotice = None

    @property
    def retry(self) -> Retry | None:
        return retry_of(self)

    @property
    def has_conditions(self) -> bool:
        """Whether it takes only some mail, whoever the sender is."""
        numbers = self.priority_min is not None or self.priority_max is not None
        return numbers or bool(self.size_min or self.classes or self.fields or self.listeners)

    @property
    def only_holds(self) -> bool:
        """Whether it says nothing but that mail is held: where the mail goes later, others say."""
        return self.action.startswith("hold:") and not self.has_server

    @property
    def terms(self) -> TlsTerms:
        """What it says of TLS besides `tls`."""
        return TlsTerms(self.tls_names, self.tls_fingerprints, self.tls_minimum, self.tls_ciphers)

    @property
    def origin(self) -> Origin:
        return Origin(self.source_ipv4, self.source_ipv6, self.hello)

    @property
    def has_server(self) -> bool:
        """Whether it names servers. Else mail goes to the MX of its domain."""
        return bool(self.host or self.hosts)

    @property
    def is_for_all(self) -> bool:
        """Whether it takes all mail for its recipients."""
        return not self.senders and not self.accounts and not self.has_conditions
