"""Settings of the receive stage: of all listeners, and of each."""

from __future__ import annotations

import enum
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from postroad.mail.field_rules import RULES_MAX
from postroad.mail.header_clients import HeaderClients
from postroad.mail.policy import Role
from postroad.protocol.limits import ProtocolLimits
from postroad.protocol.offer import Dialect
from postroad.receive import budget
from postroad.world.tls import NOBODY, ClientCertificatePolicy


class ListenerTls(enum.Enum):
    """TLS on a listener."""

    NONE = "none"
    STARTTLS = "starttls"  # offered (RFC 3207)
    REQUIRED = "required"  # offered, and demanded before MAIL (530 5.7.0, RFC 3207 §4)
    IMPLICIT = "implicit"  # from the first octet (RFC 8314 §3.3)


class Proxy(enum.Enum):
    """The PROXY header that stands before everything else on a listener's connections."""

    NONE = "none"
    V1 = "v1"
    V2 = "v2"
    ANY = "any"  # one of the two, never none


class EarlyTalker(enum.Enum):
    """What becomes of a client that speaks before the greeting."""

    NOTE = "note"  # an event, nothing else
    REFUSE = "refuse"  # 554 5.5.1, and the session ends


class Telling(enum.Enum):
    """How VRFY and EXPN are answered."""

    OFF = "off"  # 502
    AMBIGUOUS = "ambiguous"  # 252, whatever was asked (RFC 5321 §3.5.3, §7.3)
    TRUSTED = "trusted"  # told to trusted networks and accounts, to others as AMBIGUOUS (EXPN: 550)
    ON = "on"


PriorityProfile = Literal["", "MIXER", "STANAG4406", "NSEP"]  # RFC 6710
_LOCAL_MAIL: Final = "mail of `sendmail` and `postroad submit`"


def _fields_removed(mail: str) -> Meta:
    return Meta(
        max_length=RULES_MAX,
        description=f"Header fields that are removed from {mail}: names, or patterns such as "
        "`/^Received: .*with ESMTPSA/`, which are matched with the whole field. The Received field that the node "
        "itself adds can be removed, too. docs/rewriting.md says more.",
    )


def _fields_replaced(mail: str) -> Meta:
    return Meta(
        max_length=RULES_MAX,
        description=f"Header fields that are replaced in {mail}: a pattern, a space and the new field, such as "
        "`/^User-Agent: (.*)/ X-Agent: $1`. The first entry that fits counts.",
    )


def _fields_added(mail: str) -> Meta:
    return Meta(
        max_length=RULES_MAX,
        description=f"Header fields that are added to {mail} if it has no field of this name.",
    )


class ListenerOptions(msgspec.Struct, frozen=True):
    """One listener, at `address` and `port`, or at the Unix socket `path`. `asking`: how a client is asked for a
    certificate under TLS."""

    name: Annotated[str, Meta(description="The listener's name in the log, in the history and in `trace`.")]
    role: Annotated[
        Role,
        Meta(
            description="What the listener is for. `mx`: mail from anywhere for our own domains. `submission`: mail "
            "from users, who must authenticate. `relay`: mail from trusted networks to anywhere.",
        ),
    ] = Role.MX
    protocol: Annotated[
        Dialect,
        Meta(
            description="The protocol to speak: SMTP, or LMTP, which sends one reply for each recipient.",
        ),
    ] = Dialect.SMTP
    address: str = ""
    port: Annotated[int, Meta(ge=1, le=65535, description="The port to listen on. A Unix socket does not use it.")] = 25
    path: str = ""
    tls: Annotated[
        ListenerTls,
        Meta(
            description="`none`: no TLS. `starttls`: STARTTLS is offered. `required`: no mail is accepted before "
            "STARTTLS. `implicit`: TLS from the first octet, on a port of its own. Unset: `starttls` if "
            "`[tls]` names a certificate, otherwise `none`.",
        ),
    ] = ListenerTls.NONE
    trusted_networks: Annotated[
        tuple[str, ...],
        Meta(
            description="Networks whose clients may relay to anywhere without an account. They are meant for the "
            "role `relay`.",
        ),
    ] = ()
    greet_delay_s: Annotated[
        float,
        Meta(
            ge=0,
            le=60,
            description="How long an untrusted client waits for the greeting. A client that speaks before the "
            "greeting is caught (`early_talker`). 0: no delay.",
        ),
    ] = 0.0
    early_talker: Annotated[
        EarlyTalker,
        Meta(
            description="What happens to a client that speaks before the greeting. `note`: a line in the log. "
            "`refuse`: it is answered 554 5.5.1, and this counts towards a ban.",
        ),
    ] = EarlyTalker.NOTE
    asking: ClientCertificatePolicy = NOBODY
    trusted_certificates: Annotated[
        tuple[str, ...],
        Meta(
            description="SHA-256 fingerprints of client certificates. A client that shows such a certificate counts "
            "as a client of a trusted network. Write them as `openssl x509 -fingerprint -sha256` does, "
            "or without colons.",
        ),
    ] = ()
    auth: Annotated[
        bool,
        Meta(
            description="Whether AUTH is offered. It is offered only under TLS. Unset: only submission listeners "
            "offer it.",
        ),
    ] = False
    auth_without_tls: Annotated[
        bool,
        Meta(
            description="Whether AUTH is also offered without TLS. Anybody on the network path can then read the "
            "passwords.",
        ),
    ] = False
    proxy: Annotated[
        Proxy,
        Meta(
            description="Whether each connection begins with a PROXY header, and of which version. HAProxy and other "
            "proxies send this header with the client's address. With `any`, either version is accepted, "
            "but the header must be there.",
        ),
    ] = Proxy.NONE
    proxy_networks: Annotated[
        tuple[str, ...],
        Meta(
            description="The proxies whose PROXY header is accepted. Connections from other addresses are closed.",
        ),
    ] = ()
    proxy_tls: Annotated[
        bool,
        Meta(
            description="Whether a session counts as protected by TLS if the PROXY header says that the proxy ended "
            "TLS with the client. This decides on AUTH, on `required` and on the trace fields.",
        ),
    ] = True
    xclient_networks: Annotated[
        tuple[str, ...],
        Meta(
            description="Networks whose clients may use XCLIENT to say who their own client is. They are meant for "
            "mail proxies. Such a client may name any address and any account.",
        ),
    ] = ()
    xforward_networks: Annotated[
        tuple[str, ...],
        Meta(
            description="Networks whose clients may use XFORWARD to say where a message came from. They are meant "
            "for content filters that hand the mail back. The node logs these facts and passes them on; "
            "they do not change who may relay.",
        ),
    ] = ()
    withheld_extensions: Annotated[
        tuple[str, ...],
        Meta(
            description="Extensions that this listener does not offer: EHLO does not name them, and their parameters "
            "and commands are refused. An example is `SMTPUTF8`, if the final recipients cannot receive "
            "such mail. TLS, AUTH, VRFY and EXPN have settings of their own. Replies keep their enhanced "
            "status codes in any case.",
        ),
    ] = ()
    vrfy: Annotated[
        Telling,
        Meta(
            description="Whether VRFY reveals which mailboxes of our domains exist. `off`: the command does not "
            "exist. `ambiguous`: every VRFY is answered 252. `trusted`: the node gives the true answer "
            "to trusted networks and accounts, and answers 252 to others. `on`: the node gives the true "
            "answer to everyone.",
        ),
    ] = Telling.AMBIGUOUS
    expn: Annotated[
        Telling,
        Meta(
            description="Whether EXPN reveals the mailboxes that an alias leads to. The values mean the same as for "
            "`vrfy`, but with `trusted` EXPN is refused to others.",
        ),
    ] = Telling.OFF
    loose_paths: Annotated[
        bool,
        Meta(
            description="Whether the node accepts addresses whose local-part has periods where RFC 5321 forbids "
            "them: `a..b@`, `a.@`, `.a@`. Such mailboxes exist. The node sends them on in quotes, which "
            "means the same. It removes a period after the domain, which DNS writes: `a@example.org.`. "
            "Unset: yes, except for the role `mx`.",
        ),
    ] = False
    add_missing: Annotated[
        bool,
        Meta(
            description="On an mx or relay listener: whether the node adds Date and Message-ID to a message that "
            "lacks them, if the message comes from a trusted network or an account. Submission listeners "
            "add more (`receive.repair`).",
        ),
    ] = False
    remove_fields: Annotated[tuple[str, ...], _fields_removed("mail of this listener")] = ()
    replace_fields: Annotated[tuple[str, ...], _fields_replaced("mail of this listener")] = ()
    add_fields: Annotated[tuple[str, ...], _fields_added("mail of this listener")] = ()
    complete_clients: Annotated[
        HeaderClients,
        Meta(
            description="Whose mail gets a domain behind addresses in header fields that have none, such as "
            "`From: root`. `local`: mail of clients at addresses of this machine. `known`: also mail of trusted "
            "networks and accounts. `all`: also mail of strangers. `none`: nobody's. Never on an LMTP listener.",
        ),
    ] = HeaderClients.LOCAL
    complete_domain: Annotated[
        str, Meta(description="The domain that such addresses get. Unset: `domain` of `[sendmail]`, or `hostname`.")
    ] = ""
    complete_hosts: Annotated[
        str,
        Meta(
            description="The domain that is added to addresses whose own domain has no dot: with `example.org`, "
            "`joe@host` becomes `joe@host.example.org`. Unset: they stay as they are.",
        ),
    ] = ""
    complete_others: Annotated[
        str,
        Meta(
            description="The domain that addresses without a domain get in the mail of all other clients. Postfix "
            "recommends a name below .invalid. Unset: they stay as they are.",
        ),
    ] = ""
    dsn_for_strangers: Annotated[
        bool,
        Meta(
            description="Whether an mx listener offers DSN to clients that are neither trusted nor authenticated. "
            "With DSN, anybody can make this node report success, or return whole messages, to a forged "
            "sender. Large providers rarely offer it to strangers. Without it, the server that sends to "
            "this node reports success to its sender, as far as it knows.",
        ),
    ] = False
    inspectors: Annotated[
        tuple[str, ...],
        Meta(
            description="Python classes or functions that inspect sessions and may change messages, `module:name` or "
            "`/path/file.py:name`. Each is called without arguments and makes an inspector "
            "(docs/inspectors.md). Inspectors are asked in this order, after the rules of the listener.",
        ),
    ] = ()


class ExtensionOptions(msgspec.Struct, frozen=True):
    """Which of the further extensions listeners offer, and their limits."""

    binarymime: Annotated[
        bool,
        Meta(
            description="Whether BINARYMIME is offered. Binary mail is kept as it is. If the next host does not "
            "accept it, the node converts it (`outbound.eight_bit`). So offer it only if your own mail "
            "servers accept it.",
        ),
    ] = False
    limits: Annotated[
        bool,
        Meta(
            description="Whether EHLO announces the limits of a session: transactions, recipients, domains of "
            "recipients.",
        ),
    ] = True
    requiretls: Annotated[
        bool,
        Meta(
            description="Whether REQUIRETLS is offered under TLS, and whether the node obeys the header field "
            "`TLS-Required: No`.",
        ),
    ] = True
    deliver_by: Annotated[bool, Meta(description="Whether DELIVERBY is offered.")] = True
    deliver_by_min_s: Annotated[
        float,
        Meta(
            ge=0,
            description="The shortest time limit that a client may set for delivery if the message is to be returned "
            "when the limit is missed. 0: any time.",
        ),
    ] = 0.0
    future_release_max_s: Annotated[
        float,
        Meta(
            ge=0,
            le=999_999_999,
            description="How long a client of a submission listener may ask to hold a message (FUTURERELEASE). 0: "
            "not offered.",
        ),
    ] = 604_800.0
    mt_priority: Annotated[bool, Meta(description="Whether MT-PRIORITY is offered.")] = True
    mt_priority_profile: Annotated[
        PriorityProfile,
        Meta(
            description='The priority profile that EHLO announces. "": none.',
        ),
    ] = ""
    mt_priority_max: Annotated[
        int,
        Meta(
            ge=-9,
            le=9,
            description="The highest priority that accounts and trusted networks may ask for. A higher one is "
            "lowered to it.",
        ),
    ] = 9
    mt_priority_strangers_max: Annotated[
        int,
        Meta(
            ge=-9,
            le=9,
            description="The highest priority that all other clients may ask for. A higher one is lowered to it.",
        ),
    ] = 0
    mt_priority_tunnel: Annotated[
        bool,
        Meta(
            description="Whether the header field `MT-Priority` carries the priority past hosts that do not offer "
            "MT-PRIORITY. The node believes this field if it comes from accounts and trusted networks, "
            "and removes it from the mail of others.",
        ),
    ] = False
    xverp: Annotated[
        bool,
        Meta(
            description="Whether XVERP is offered to clients of trusted networks and to accounts: a message then goes "
            "to each recipient with a sender of its own, such as `list+ada=example.net@example.org`.",
        ),
    ] = True
    rrvs: Annotated[
        bool,
        Meta(
            description="Whether RRVS is offered, and whether the node obeys the header field "
            "`Require-Recipient-Valid-Since`. A sender uses them for mail that is only for the owner "
            "that a mailbox had at a certain time. The node knows of changes of owner only from "
            "`recipients_file` and `since` of a `[[domain]]`.",
        ),
    ] = True


class ReceiveOptions(msgspec.Struct, frozen=True):
    """What holds for all listeners. `hostname`: our name in greeting and trace fields.

    When a time is over, the client is answered 421 4.4.2; a PROXY header has no answer. `session_s` counts while no
    transaction is open. From its refusal on, `refused_content_s` takes the place of `message_s`.
    """

    hostname: str = "localhost"
    classes: tuple[str, ...] = ()  # what is kept of the header section for routing (`mail.classes`)
    default_domain: Annotated[
        str,
        Meta(
            description="The domain of the bare `<Postmaster>`. Unset: the first `[[domain]]`.",
        ),
    ] = ""
    limits: ProtocolLimits = ProtocolLimits()
    command_s: Annotated[
        float,
        Meta(
            ge=300,
            description="How long a client may be silent between two commands.",
        ),
    ] = 300.0
    data_block_s: Annotated[
        float,
        Meta(
            ge=180,
            description="How long a client may be silent in the middle of the content.",
        ),
    ] = 180.0
    message_s: Annotated[
        float,
        Meta(
            ge=600,
            description="How long a message may take, from MAIL to the end of its content.",
        ),
    ] = 7_200.0
    refused_content_s: Annotated[
        float,
        Meta(
            ge=600,
            description="How long the client may take to send the rest of a message after the node has found a "
            "reason to refuse it. The client gets this reason only at the end of its content. "
            "`swallow_max` limits the same in octets.",
        ),
    ] = 7_200.0
    session_s: Annotated[float, Meta(ge=600, description="How long a session may last.")] = 43_200.0
    handshake_s: Annotated[float, Meta(ge=1, description="How long a TLS handshake may take.")] = 30.0
    close_s: Annotated[
        float,
        Meta(
            ge=0.1,
            description="How long a client may take to read the last reply of a session.",
        ),
    ] = 10.0
    proxy_s: Annotated[float, Meta(ge=0.1, description="How long a PROXY header may take to arrive.")] = 5.0
    proxy_header_max: Annotated[
        int,
        Meta(
            ge=536,
            le=65551,
            description="The largest PROXY header of version 2, with all its parts.",
        ),
    ] = 4096
    memory_content_max: Annotated[
        int,
        Meta(
            ge=0,
            description="Content up to this size stays in memory while it arrives. Larger content is written to a "
            "file.",
        ),
    ] = 1_048_576
    content_memory_max: Annotated[
        int,
        Meta(
            ge=1_048_576,
            description="Memory that one worker may use for content that is arriving. Above this limit, content is "
            "written to files, and new mail is answered 452, so that the client tries again later.",
        ),
    ] = budget.DEFAULT_MAX
    files_reserved: Annotated[
        int,
        Meta(
            ge=32,
            description="File descriptors of a worker that are kept free of sessions, for the spool and for "
            "deliveries; at most half of all descriptors. If sessions have used up the others, new "
            "clients are answered 421 4.3.2 and can come back later.",
        ),
    ] = 512
    input_max: Annotated[
        int,
        Meta(
            ge=4096,
            description="The most unread octets of a session. At this limit, the node reads no more from the client "
            "until it has handled some of them.",
        ),
    ] = 65_536
    auth_failures_max: Annotated[
        int,
        Meta(
            ge=1,
            description="The number of wrong passwords after which the node ends the session.",
        ),
    ] = 3
    refusals_max: Annotated[
        int,
        Meta(
            ge=1,
            description="Commands of a stranger that our rules may refuse since its last accepted message. The next "
            "refusal ends the session.",
        ),
    ] = 100
    unknown_recipients_max: Annotated[
        int,
        Meta(
            ge=0,
            description="Recipients that do not exist (5.1.1) which a stranger may name in one session. The next one "
            "ends the session and counts towards a ban. 0: no limit.",
        ),
    ] = 50
    repair: Annotated[
        bool,
        Meta(
            description="Whether submission listeners add Date, Message-ID, From or Sender if one is missing.",
        ),
    ] = True
    help: Annotated[
        str,
        Meta(
            description="The reply to HELP: one line.",
        ),
    ] = "See RFC 5321; write to postmaster about this server"
    extensions: ExtensionOptions = ExtensionOptions()


class LocalSender(enum.Enum):
    """Which envelope sender a user of this machine may name."""

    ANY = "any"
    OWN = "own"  # the user's own mailbox, what its account owns, and none
    FORCED = "forced"  # whatever the user names, the sender is the user's own mailbox


class LocalListing(enum.Enum):
    """Whose mail a user of this machine is shown by mailq."""

    OWN = "own"
    ALL = "all"
    NONE = "none"


class LocalOptions(msgspec.Struct, frozen=True):
    """Users of this machine who call `sendmail`. Root and the node's own user have no limits and may name any
    sender."""

    folder: Annotated[
        str,
        Meta(
            description="The folder that the node shares with all users: its socket for them, and the drop folder, "
            "which keeps mail while the node does not take it. Unset: users cannot call `sendmail`. "
            "Every user must be able to enter the folders above it, so it is not in `state_dir`.",
        ),
    ] = ""
    domain: Annotated[
        str,
        Meta(
            description="The domain of addresses that are written without one, such as `root`, in the envelope and "
            "in the header section. Unset: `hostname`.",
        ),
    ] = "localhost"
    remove_fields: Annotated[tuple[str, ...], _fields_removed(_LOCAL_MAIL)] = ()
    replace_fields: Annotated[tuple[str, ...], _fields_replaced(_LOCAL_MAIL)] = ()
    add_fields: Annotated[tuple[str, ...], _fields_added(_LOCAL_MAIL)] = ()
    users: Annotated[
        tuple[str, ...],
        Meta(
            description="The login names of the users who may send mail. Empty: everybody may.",
        ),
    ] = ()
    sender: Annotated[
        LocalSender,
        Meta(
            description="Which sender of the envelope a user may name with -f. `any`: each. `own`: the user's login "
            "name at `domain`, what the account of this name may use (docs/authentication.md), and the "
            "null sender. `forced`: the sender is always the login name at `domain`.",
        ),
    ] = LocalSender.ANY
    mailq: Annotated[
        LocalListing,
        Meta(
            description="Whose mail `mailq` shows to a user. `own`: the mail that the user has handed over. `all`: "
            "all mail. `none`: no mail.",
        ),
    ] = LocalListing.OWN
    flush: Annotated[
        bool,
        Meta(
            description="Whether a user may have all waiting mail tried with `sendmail -q`.",
        ),
    ] = True
    messages_max: Annotated[
        int,
        Meta(
            ge=0,
            description="The most messages that the node takes of one user within `window_s`. Mail beyond it waits "
            "in the drop folder. 0: no limit.",
        ),
    ] = 600
    window_s: Annotated[float, Meta(ge=1, description="The time within which `messages_max` counts.")] = 60.0
    at_once_max: Annotated[
        int,
        Meta(
            ge=1,
            le=20,
            description="The most messages that the node takes of one user at the same time.",
        ),
    ] = 10
