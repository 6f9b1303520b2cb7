"""The settings of the sending side: each limit of promise 5 that concerns delivery has its name here."""

from __future__ import annotations

import enum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from postroad.mail.message import LINE_MAX
from postroad.protocol.seven_bit import EightBit
from postroad.store.options import KeptReportOptions
from postroad.trust.inbound.limits import InboundLimits

# What may stand in braces: in the path of a Maildir, and as an argument of a command.
PATH_PLACEHOLDERS: Final = ("domain", "local_part", "home")
COMMAND_PLACEHOLDERS: Final = ("recipient", "local_part", "domain", "sender")


class MaildirOptions(msgspec.Struct, frozen=True):
    """`detail_delimiter`: the first of these characters in a local-part begins an address extension (``ada+lists``),
    which is not part of the folder's name; "" for none. If folders are not made, mail waits until they are there (a
    file system that is not mounted)."""

    fold_case: Annotated[
        bool,
        Meta(
            description="Whether the local-part is put in lower case to name its folder.",
        ),
    ] = True
    detail_delimiter: str = "+"
    make_folders: Annotated[bool, Meta(description="Whether missing folders are created.")] = True


class MboxQuoting(enum.Enum):
    """What becomes of lines that begin with ``From ``."""

    MBOXO = "mboxo"
    MBOXRD = "mboxrd"


class MboxOptions(msgspec.Struct, frozen=True):
    """How mbox files are written."""

    dotlock: Annotated[
        bool,
        Meta(
            description="Whether the node also locks a mailbox by the file NAME.lock beside it, as Debian's programs "
            "do. The node then needs the right to create files in the folder of the mailbox.",
        ),
    ] = True
    lock_s: Annotated[
        float, Meta(ge=1, description="How long a delivery waits for a mailbox that another program has locked.")
    ] = 60.0
    stale_lock_s: Annotated[
        float, Meta(ge=60, description="How old the file NAME.lock must be for the node to remove it.")
    ] = 300.0
    quoting: Annotated[
        MboxQuoting,
        Meta(
            description='What happens to a line that begins with "From ", which would begin a new message. `mboxo`: '
            'it gets a ">" in front, as Debian\'s programs write it. `mboxrd`: lines that begin with ">From " or '
            '">>From " get one, too, so that a reader can take it away again.',
        ),
    ] = MboxQuoting.MBOXO


class PorterOptions(msgspec.Struct, frozen=True):
    """How mail is delivered as other users."""

    uid_min: Annotated[
        int, Meta(ge=1, description="Nothing is delivered as a user with a smaller number (uid).")
    ] = 1000
    gain_rights: Annotated[
        bool,
        Meta(
            description="Whether programs may gain the rights of their own file (set-user-ID, set-group-ID). procmail "
            "needs it for locks in `/var/mail`, and so does every program that calls `sendmail` of Postfix.",
        ),
    ] = False
    processes_max: Annotated[
        int, Meta(ge=1, le=1000, description="How many deliveries are made as other users at a time.")
    ] = 50


class HttpOptions(msgspec.Struct, frozen=True):
    """How mail is delivered by HTTP."""

    time_s: Annotated[
        float, Meta(ge=1, description="How long a request may take, from connecting to the end of the answer.")
    ] = 60.0
    answer_max: Annotated[int, Meta(ge=0, le=1_048_576, description="How much of an answer is read.")] = 2048
    retry_after_max_s: Annotated[
        float,
        Meta(
            ge=0,
            description="If the server asks with Retry-After for a later attempt: how long the node waits at most.",
        ),
    ] = 14_400.0
    ca_file: Annotated[
        str,
        Meta(description='Certificates of the authorities that the node trusts, in PEM. "": those of the system.'),
    ] = ""


class ProgramOptions(msgspec.Struct, frozen=True):
    """How programs are run."""

    time_s: Annotated[float, Meta(ge=1, description="How long a program may run.")] = 1000.0
    output_max: Annotated[int, Meta(ge=0, description="How much of the program's output is kept for reports.")] = 2048
    directory: Annotated[str, Meta(description="The working directory of the program.")] = "/"
    path: Annotated[str, Meta(description="The PATH of the program.")] = "/usr/local/bin:/usr/bin:/bin"
    return_path: Annotated[
        bool,
        Meta(
            description="Whether the program gets a Return-Path field at the top of the message.",
        ),
    ] = True
    delivered_to: Annotated[
        bool,
        Meta(
            description="Whether the program gets a Delivered-To field with the recipient. Of a program that an alias "
            "names, the recipient is the alias, with its address extension.",
        ),
    ] = True


class ReportCopies(enum.Enum):
    """Which mail for a report mailbox goes on to the mailbox itself."""

    ALL = "all"
    UNREAD = "unread"


class ReportMailboxOptions(msgspec.Struct, frozen=True):
    """Mailboxes to which others send reports. `limits`: how much is read; `kept`: how much is kept. `authserv_id`: by
    which this node signs its Authentication-Results, "": its name."""

    addresses: Annotated[
        tuple[str, ...],
        Meta(
            description="The mailboxes to which others send reports: DMARC reports (`rua` and `ruf` of your DMARC "
            "records), TLS reports (`rua` of your TLS-RPT records), complaints. Their mail is read, and its reports "
            "are kept for `postroad reports`. They are mailboxes of your domains, and exist without being named "
            "elsewhere. An alias may lead them to somebody else.",
        ),
    ] = ()
    deliver: Annotated[
        ReportCopies,
        Meta(
            description="Which of this mail also goes to the mailbox itself. `all`: all of it. `unread`: only mail "
            "without a report, or with one that could not be read.",
        ),
    ] = ReportCopies.ALL
    limits: InboundLimits = InboundLimits()
    kept: KeptReportOptions = KeptReportOptions()
    authserv_id: str = ""


class DeliverOptions(msgspec.Struct, frozen=True):
    """How remotes are talked to.

    The time limits from `greeting_s` to `data_termination_s` are those of RFC 5321 §4.5.3.2, whose values are minima.
    `transaction_s` is for remotes that answer each command just in time. `mt_priority_tunnel`: MT-PRIORITY becomes a
    header field if the remote lacks the extension (RFC 6758).
    """

    connect_s: Annotated[float, Meta(ge=1, description="How long a connection attempt may take.")] = 30.0
    handshake_s: Annotated[float, Meta(ge=1, description="How long a TLS handshake may take.")] = 60.0
    greeting_s: Annotated[float, Meta(ge=300, description="How long the greeting may take.")] = 300.0
    hello_s: Annotated[float, Meta(ge=1, description="How long the answer to EHLO may take.")] = 300.0
    starttls_s: Annotated[float, Meta(ge=1, description="How long the answer to STARTTLS may take.")] = 300.0
    auth_s: Annotated[float, Meta(ge=1, description="How long each answer to AUTH may take.")] = 300.0
    reset_s: Annotated[float, Meta(ge=1, description="How long the answer to RSET may take.")] = 300.0
    mail_s: Annotated[float, Meta(ge=300, description="How long the answer to MAIL may take.")] = 300.0
    rcpt_s: Annotated[float, Meta(ge=300, description="How long the answer to RCPT may take.")] = 300.0
    data_initiation_s: Annotated[float, Meta(ge=120, description="How long the answer to DATA may take.")] = 120.0
    data_block_s: Annotated[
        float,
        Meta(
            ge=180,
            description="How long the server may take to read more of the content.",
        ),
    ] = 180.0
    data_termination_s: Annotated[
        float,
        Meta(
            ge=600,
            description="How long the answer to the end of the content may take.",
        ),
    ] = 600.0
    transaction_s: Annotated[float, Meta(ge=600, description="How long a transaction may take as a whole.")] = 7200.0
    quit_s: Annotated[float, Meta(ge=0, description="How long the node waits for the answer to QUIT.")] = 5.0
    idle_s: Annotated[float, Meta(ge=0, description="How long a connection without work is kept open.")] = 30.0
    age_s: Annotated[
        float,
        Meta(
            ge=1,
            description="How long after its start a connection may get a new message.",
        ),
    ] = 600.0
    messages_max: Annotated[int, Meta(ge=1, description="The most messages sent over one connection.")] = 1000
    hops_max: Annotated[
        int,
        Meta(
            ge=2,
            description="The most hosts and addresses that the node tries to open one connection.",
        ),
    ] = 5
    hop_memory_s: Annotated[
        float,
        Meta(
            ge=0,
            description="How long a host that could not be reached is tried only after all others.",
        ),
    ] = 60.0
    size_memory_s: Annotated[
        float,
        Meta(
            ge=0,
            description="How long the node remembers the largest message (SIZE) that the server of a destination "
            "takes. A larger message is refused at RCPT or at the end of its content (552 5.3.4), instead of being "
            "returned later. 0: not at all.",
        ),
    ] = 3600.0
    tls_memory_s: Annotated[
        float,
        Meta(
            ge=0,
            description="After TLS with a host has failed, how long the node sends to this host without trying TLS, "
            "if mail may be sent without TLS (`may`).",
        ),
    ] = 3600.0
    bdat_memory_s: Annotated[
        float,
        Meta(
            ge=60,
            description="After a host has offered CHUNKING but refused the command BDAT, how long the node sends all "
            "mail to this host with DATA. Also, after a host has offered DSN but refused its parameters, how long the "
            "node sends it none; and after a host has offered PIPELINING but answered only the first commands of a "
            "group, how long the node sends it one command at a time.",
        ),
    ] = 86_400.0
    source_ipv4: Annotated[
        str,
        Meta(
            description='The IPv4 address that the node connects from. "": any.',
        ),
    ] = ""
    source_ipv6: Annotated[
        str,
        Meta(
            description='The IPv6 address that the node connects from. "": any.',
        ),
    ] = ""
    hello: Annotated[
        str,
        Meta(
            description='The name that the node gives in EHLO. "": `hostname`.',
        ),
    ] = ""
    reply_line_max: Annotated[int, Meta(ge=512, description="The longest line of a reply.")] = 4096
    reply_lines_max: Annotated[int, Meta(ge=16, description="The most lines of a reply.")] = 128
    reply_size_max: Annotated[int, Meta(ge=8192, description="The largest reply with all its lines.")] = 65_536
    whole_max: Annotated[int, Meta(ge=0, description="Content up to this size is written in one go.")] = 1_048_576
    piece_size: Annotated[int, Meta(ge=4096, description="Larger content is written in pieces of this size.")] = 262_144
    bdat_size_min: Annotated[
        int,
        Meta(
            ge=0,
            description="Content of at least this size is sent with BDAT if the server offers it. On a connection "
            "that has carried a message before, the node says EHLO again first: the answer shows that "
            "replies and commands still match.",
        ),
    ] = 1_048_576
    eight_bit: Annotated[
        EightBit,
        Meta(
            description="What happens to 8-bit mail if the server does not offer 8BITMIME. `convert`: the node "
            "encodes its parts in quoted-printable or base64; this breaks a DKIM signature of the body. "
            "`return`: the message is returned (5.6.3). `send`: the message is sent as it is, against "
            "the RFC. Binary mail for a server without BINARYMIME is converted with `convert`, otherwise "
            "returned (5.6.1).",
        ),
    ] = EightBit.CONVERT
    line_max: Annotated[
        int,
        Meta(
            ge=0,
            description="The longest line, without its CRLF, that the node sends by SMTP. A longer line is broken "
            "before a space or tab; if there is none, CRLF and a space are inserted, as Postfix does. "
            "This breaks a DKIM signature of the body. 0: lines are sent as they are. Mail by LMTP, into "
            "Maildirs and to programs, and binary mail, always keeps its lines.",
        ),
    ] = LINE_MAX
    mt_priority_tunnel: bool = False  # MT-PRIORITY becomes a header field if the remote lacks it (RFC 6758)
    maildir: MaildirOptions = MaildirOptions()
    mbox: MboxOptions = MboxOptions()
    http: HttpOptions = HttpOptions()
    program: ProgramOptions = ProgramOptions()
    reports: ReportMailboxOptions = ReportMailboxOptions()
