"""The settings of a domain whose mail is delivered here, and of one whose mail is accepted and passed on."""

from __future__ import annotations

import enum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from postroad.mail.route import HttpFormat, SetServer, TlsDemand, Transport
from postroad.route.batv import Batv
from postroad.route.retry_options import (
    DelayNotice,
    FirstPause,
    Lifetime,
    LifetimeOfReports,
    LongestPause,
)

ANY: Final = "any"  # in `recipients`: every local-part


class OverQuota(enum.Enum):
    """What becomes of a message for a mailbox that is full."""

    DEFER = "defer"
    FAIL = "fail"


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
