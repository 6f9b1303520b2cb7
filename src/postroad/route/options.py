"""The settings of the route stage, with their defaults."""

from __future__ import annotations

import enum
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from postroad.mail.address import Address
from postroad.mail.route import HttpFormat, Origin, OwnAddress, Retry, SetServer, TlsDemand, Transport
from postroad.route.batv import Batv

ANY: Final = "any"  # in `recipients`: every local-part


class OverQuota(enum.Enum):
    """What becomes of a message for a mailbox that is full."""

    DEFER = "defer"
    FAIL = "fail"


MailClass = Literal["report", "automatic", "bulk"]

# The pauses and lifetimes of a table, as far as they differ from those under `[queue]`.
FirstPause = Annotated[
    float | None, Meta(ge=1, description="The pause after the first attempt. Unset: as set under `[queue]`.")
]
LongestPause = Annotated[
    float | None,
    Meta(
        ge=1,
        description="The longest pause between two attempts; also the longest time for which the node leaves these "
        "servers alone if none of them can be used. Unset: as set under `[queue]`.",
    ),
]
Lifetime = Annotated[
    float | None, Meta(ge=0, description="How long the node tries to deliver this mail. Unset: as set under `[queue]`.")
]
LifetimeOfReports = Annotated[
    float | None, Meta(ge=0, description="The same for mail without a return address. Unset: as set under `[queue]`.")
]
DelayNotice = Annotated[
    float | None,
    Meta(
        ge=0,
        description="How long a message must be delayed until the sender is told. 0: never. Unset: as set under "
        "`[queue]`.",
    ),
]


def retry_of(table: LocalDomain | NextHop) -> Retry | None:
    """When mail of a table is tried again, None if the table says nothing of that."""
    found = Retry(
        table.retry_first_s, table.retry_max_s, table.lifetime_s, table.lifetime_dsn_s, table.delay_notice_s
    )
    return None if found == Retry() else found


class LocalDomain(msgspec.Struct, frozen=True):
    """A domain whose mail is delivered here. `name`: canonical. `recipients`: ("any",) for all. `credentials`: name of
    the account to AUTH with at an LMTP server."""

    name: Annotated[str, Meta(description="The domain. Unset: all domains that `domain_maps` have.")]
    recipients: Annotated[
        tuple[str, ...],
        Meta(
            description='The local-parts that exist, or `"any"` for all. Others are refused at RCPT (550 5.1.1). The '
            "local-part postmaster always exists.",
        ),
    ] = ()
    recipients_file: Annotated[
        str,
        Meta(
            description="A file with one local-part in each line, in addition to `recipients`. `#` begins a comment.",
        ),
    ] = ""
    recipient_maps: Annotated[
        tuple[str, ...],
        Meta(
            description="Maps of further recipients: a recipient exists if one of these maps has its address, its "
            "local-part, or `@domain` for all. The value does not matter. If a map cannot answer, the "
            "client is told to try again later (451 4.3.0).",
        ),
    ] = ()
    deliver: Transport = Transport.MAILDIR
    path: Annotated[
        str,
        Meta(
            description="Maildir: the folder. mbox: the file. `{domain}` and `{local_part}` stand for those of the "
            "recipient. `{home}` stands for the home of `user`.",
        ),
    ] = ""
    socket: Annotated[str, Meta(description="LMTP: the path of the server's Unix socket.")] = ""
    host: Annotated[str, Meta(description="LMTP: the server's name or address.")] = ""
    port: Annotated[int, Meta(ge=1, le=65535, description="LMTP: the server's port.")] = 24
    hosts: Annotated[
        tuple[SetServer, ...],
        Meta(
            description="LMTP: several servers instead of `host`, as for `[[next_hop]]`. Each of them must be able to "
            "deliver to every mailbox of the domain.",
        ),
    ] = ()
    command: Annotated[
        tuple[str, ...],
        Meta(
            description="Program: the command and its arguments, run without a shell. `{sender}`, `{recipient}`, "
            "`{local_part}` and `{domain}` stand for those of the envelope.",
        ),
    ] = ()
    xforward: Annotated[
        bool,
        Meta(
            description="LMTP: whether the node tells the server which client the message came from, if the server "
            "offers XFORWARD.",
        ),
    ] = False
    xclient: Annotated[
        bool,
        Meta(
            description="LMTP: whether the node speaks for the client that the message came from, if the server offers "
            "XCLIENT. Dovecot offers it to the addresses in its `login_trusted_networks`.",
        ),
    ] = False
    since: Annotated[
        str,
        Meta(
            description="The date from which the domain is ours. Mail that is meant for an earlier owner is refused "
            "(550 5.7.18). For a single mailbox, write for example `since=2014-04-03` after its name in "
            '`recipients_file`; mail for an earlier owner is then refused with 550 5.7.17. "": unknown.',
        ),
    ] = ""
    ignored_extensions: Annotated[
        tuple[str, ...],
        Meta(
            description="LMTP: extensions that the server offers but that the node does not use with it, as for "
            "`[[next_hop]]`.",
        ),
    ] = ()
    tls: Annotated[
        TlsDemand,
        Meta(
            description="LMTP: how much TLS the node demands of the server at `host`. The values mean the same as for "
            "`[[next_hop]]`.",
        ),
    ] = TlsDemand.MAY
    credentials: str = ""
    url: Annotated[str, Meta(description="HTTP: where the requests go.")] = ""
    format: Annotated[
        HttpFormat,
        Meta(
            description="HTTP: what a request holds. `raw`: the message itself. `json`: an object with the envelope "
            "and the message in Base64.",
        ),
    ] = HttpFormat.RAW
    secret_file: Annotated[
        str,
        Meta(
            description="HTTP: a file whose first line is the secret that signs the requests, in Base64, with or "
            "without `whsec_` in front. It is read for each request. Unset: requests are not signed.",
        ),
    ] = ""
    authorization_file: Annotated[
        str,
        Meta(
            description="HTTP: a file whose first line is sent as the field Authorization, such as `Bearer abc`. It is "
            "read for each request.",
        ),
    ] = ""
    together: Annotated[
        bool,
        Meta(
            description="HTTP: whether one request is sent for all recipients of a message, as far as they are tried "
            "at the same time. Otherwise each recipient has a request.",
        ),
    ] = False
    user: Annotated[
        str,
        Meta(
            description="Maildir, mbox, program: the user of this machine as whom the mail is delivered; "
            "`{local_part}` for the recipient's own. The node must be started as root. Unset: the user of the node.",
        ),
    ] = ""
    user_group: Annotated[
        str,
        Meta(
            description="Maildir, mbox: a further group for these deliveries, such as `mail` for files in `/var/mail`.",
        ),
    ] = ""
    quota_size: Annotated[
        int, Meta(ge=0, description="Maildir, mbox: how much each mailbox may hold. 0: no limit.")
    ] = 0
    quota_messages: Annotated[
        int, Meta(ge=0, description="Maildir: how many messages each mailbox may hold. 0: no limit.")
    ] = 0
    quota_file: Annotated[
        str,
        Meta(
            description="Maildir, mbox: a file that names mailboxes with a quota of their own, one in each line, such "
            "as `ada size=2G messages=10000`. 0: no limit. It is read again when it changes.",
        ),
    ] = ""
    over_quota: Annotated[
        OverQuota,
        Meta(
            description="What happens to a message for a mailbox that is full. `defer`: it waits and is tried again "
            "(4.2.2). `fail`: the sender gets it back (5.2.2).",
        ),
    ] = OverQuota.DEFER
    quota_warning: Annotated[
        int,
        Meta(
            ge=0, le=100,
            description="Maildir: the log has a line when a message brings a mailbox to so much of its quota. 0: no "
            "line.",
        ),
    ] = 90
    detail_folders: Annotated[
        bool,
        Meta(
            description="Maildir: whether mail to `ada+lists` goes into the folder `lists` of `ada`, if there is such "
            "a folder. Otherwise all mail goes into the inbox.",
        ),
    ] = False
    batv: Annotated[
        Batv,
        Meta(
            description="Whether the senders of the domain get a tag on the way out (BATV). `sign`: they get one. "
            "`require`: in addition, a report to a mailbox of the domain is refused (550 5.7.1) if it comes without a "
            "valid tag. docs/senders.md says more.",
        ),
    ] = Batv.OFF
    path_maps: Annotated[
        tuple[str, ...],
        Meta(
            description="Maildir, mbox: maps whose value is the path of a recipient's mailbox: a Maildir if it ends in "
            "`/`, else an mbox file. A recipient with a value exists. Recipients without one are delivered to `path`.",
        ),
    ] = ()
    path_base: Annotated[
        str, Meta(description="Maildir, mbox: the folder of paths in `path_maps` that do not begin with `/`.")
    ] = ""
    quota_maps: Annotated[
        tuple[str, ...],
        Meta(
            description="Maps that are asked at RCPT if a mailbox has room: a map of kind `policy` (Dovecot's "
            "quota-status), or one with `over` or the octets that are left. If there is no room, the client hears "
            "452 4.2.2, or 552 5.2.2 with `over_quota` `fail`. If a map cannot answer, the recipient is accepted. "
            "docs/domains.md lists the values.",
        ),
    ] = ()
    forward_files: Annotated[
        bool,
        Meta(
            description='Whether the file `.forward` in the home of a user says where the mail of the user goes. Needs '
            '`user = "{local_part}"`; without it, only the user of the node can have such a file. Programs, files and '
            "included files in it need `forwards` in `[alias_targets]`.",
        ),
    ] = False
    quota_at_rcpt: Annotated[
        bool,
        Meta(
            description="Maildir: whether a recipient whose mailbox is full by its quota is refused at RCPT already. "
            "The SIZE that the client declares counts.",
        ),
    ] = False
    verify: Annotated[
        bool,
        Meta(
            description="LMTP: whether recipients that are neither in `recipients` nor in a file or map are accepted "
            "if the server says, asked by RCPT, that it would take their mail. `[verify]` has the limits.",
        ),
    ] = False
    domain_maps: Annotated[
        tuple[str, ...],
        Meta(
            description="Instead of `name`: maps of domains. Every domain that is a key in one of these maps is "
            "local, and is delivered as this table says. The value does not matter. If a map cannot answer, the "
            "client is told to try again later (451 4.3.0), and mail in the queue waits. docs/domains.md says more.",
        ),
    ] = ()
    aliases_only: bool = False  # no mailboxes
    table: str = ""  # for a domain of `domain_maps`: the name of this table
    retry_first_s: FirstPause = None
    retry_max_s: LongestPause = None
    lifetime_s: Lifetime = None
    lifetime_dsn_s: LifetimeOfReports = None
    delay_notice_s: DelayNotice = None
    connections_max: Annotated[
        int,
        Meta(
            ge=0,
            description="LMTP, program, HTTP: the most deliveries at a time. 0: as `queue.concurrency` says.",
        ),
    ] = 0
    recipients_max: Annotated[
        int,
        Meta(
            ge=0,
            description="LMTP, HTTP: the most recipients of a message in one delivery. 0: as "
            "`queue.recipients_per_job_max` says.",
        ),
    ] = 0


def table_name(maps: tuple[str, ...]) -> str:
    """The name of a table whose domains come from these maps. No domain is called so."""
    return f"maps:{','.join(maps)}"


class RelayDomain(msgspec.Struct, frozen=True):
    """A domain whose mail is accepted from anywhere and passed on. `name`: a pattern, as in `NextHop.domain`."""

    name: Annotated[
        str, Meta(description="The domain, or a pattern of domains. Unset: all domains that `domain_maps` have.")
    ]
    recipients: Annotated[tuple[str, ...], Meta(description="The local-parts that exist.")] = (ANY,)
    recipients_file: Annotated[
        str,
        Meta(
            description="A file with one local-part in each line, in addition to `recipients`.",
        ),
    ] = ""
    recipient_maps: Annotated[
        tuple[str, ...],
        Meta(
            description="Maps of further recipients: a recipient exists if one of these maps has its address, its "
            "local-part, or `@domain` for all. The value does not matter. If a map cannot answer, the "
            "client is told to try again later (451 4.3.0).",
        ),
    ] = ()
    verify: Annotated[
        bool,
        Meta(
            description="Whether recipients that are neither in `recipients` nor in a file or map are accepted if the "
            "next server says, asked by RCPT, that it would take their mail. `[verify]` has the limits.",
        ),
    ] = False
    domain_maps: Annotated[
        tuple[str, ...],
        Meta(
            description="Instead of `name`: maps of relay domains. Keys are the domain itself, and `.parent` for all "
            "domains below one. The value does not matter. If a map cannot answer, the client is told to try again "
            "later (451 4.3.0).",
        ),
    ] = ()


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
        TlsDemand,
        Meta(
            description="How much TLS the node demands. `never`: TLS is not used. `may`: TLS is used if the server "
            "offers it. `encrypt`: without TLS there is no delivery. `verify`: in addition, a "
            "certificate must prove the host's name. `implicit`: as `verify`, with TLS from the first "
            "octet.",
        ),
    ] = TlsDemand.MAY
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
            max_length=100,
            description="Header fields that are removed from mail for this server: names, or patterns between slashes. "
            "They are written as those of a `[[listener]]`. The stored message stays as it is.",
        ),
    ] = ()
    replace_fields: Annotated[
        tuple[str, ...],
        Meta(max_length=100, description="Header fields that are replaced in mail for this server."),
    ] = ()
    add_fields: Annotated[
        tuple[str, ...],
        Meta(
            max_length=100,
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


class RoutingOptions(msgspec.Struct, frozen=True):
    """The tables. The first local domain is that of ``<Postmaster>`` and of mailboxes at our own address literals.

    `postmaster`: who gets the mail to the postmaster of a local domain that has no such mailbox and no such alias; "":
    its delivery does. `apart`: patterns of domains that are destinations of their own even behind a next hop that
    others share, because they have limits of their own (`queue.pace`).
    """

    local: tuple[LocalDomain, ...] = ()
    relay: tuple[RelayDomain, ...] = ()
    next_hops: tuple[NextHop, ...] = ()
    tls: Annotated[
        TlsDemand,
        Meta(
            description="How much TLS the node demands of servers found by MX. The values mean the same as for "
            "`[[next_hop]]`.",
        ),
    ] = TlsDemand.MAY
    mx_port: Annotated[int, Meta(ge=1, le=65535, description="The port of servers found by MX.")] = 25
    literals: Annotated[
        bool,
        Meta(
            description="Whether mail to address literals of other hosts is sent to these hosts.",
        ),
    ] = False
    fallback: Annotated[
        tuple[SetServer, ...],
        Meta(
            description="Servers that get the mail if the servers found by MX cannot be found or reached, written as "
            "`hosts` of a `[[next_hop]]`. A server that a `[[next_hop]]` names, too, is reached with the TLS and the "
            "account of that table.",
        ),
    ] = ()
    detail_delimiter: Annotated[
        str,
        Meta(
            description="The characters that begin an address extension in a local-part: `ada+lists` then means "
            '`ada`. With `"+-"` both characters do, and the first one in a local-part counts. "": no extensions.',
        ),
    ] = "+"
    postmaster: str = ""
    apart: tuple[str, ...] = ()
    transport_maps: Annotated[
        tuple[str, ...],
        Meta(
            description="Maps that say where mail goes, as transport_maps of Postfix do, before any `[[next_hop]]` and "
            "`[[domain]]`: a mailbox, a domain, a `.parent` domain or `*` gets a value such as "
            "`smtp:[mail.example.net]:587`. If a map cannot answer, mail waits. A map does not make a recipient exist. "
            "docs/routing.md lists the values.",
        ),
    ] = ()
    catch_all_first: Annotated[
        bool,
        Meta(
            description="Whether an alias for a whole domain (`@example.org`) also takes the mail of its mailboxes. "
            "Otherwise it takes only mail to local-parts without a mailbox or an alias of their own.",
        ),
    ] = False
    extensions_kept: Annotated[
        tuple[str, ...],
        Meta(
            description="Which aliases keep an address extension: with `aliases` (the file) or `alias_maps` here, "
            "mail to `sales+x` goes to `ada+x` if `sales` leads to `ada`. Otherwise it goes to `ada`. An alias for "
            "`sales+x` itself, or for a whole domain, never keeps the extension.",
        ),
    ] = ()
    mapped_local: tuple[LocalDomain, ...] = ()  # with `domain_maps`
    mapped_relay: tuple[RelayDomain, ...] = ()
