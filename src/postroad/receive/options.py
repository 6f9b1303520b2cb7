"""Settings of the receive stage: of all listeners, and of each."""

from __future__ import annotations

import enum

import msgspec

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


class ListenerOptions(msgspec.Struct, frozen=True):
    """One listener. `name` stands in log, history and `Peer.listener`. It listens at `address` and `port`, or at the
    Unix socket `path`.

    `trusted_networks`: addresses or networks ("192.0.2.0/24") whose clients count as trusted; a Unix socket's client
    does where "unix" is among them. `asking`: whether a client is asked for a certificate under TLS;
    `trusted_certificates`: SHA-256 fingerprints (lower-case hexadecimal) of those whose clients count as trusted, too.
    `auth`: AUTH is offered, under TLS only unless `auth_without_tls`.

    `proxy`: each connection begins with a PROXY header, and comes from one of `proxy_networks` (as `trusted_networks`);
    all others are closed. `proxy_tls`: TLS between client and proxy counts as TLS of the session.
    `xclient_networks`, `xforward_networks`: whose clients may speak for others by XCLIENT and XFORWARD.
    `loose_paths`: local-parts that are no Dot-string, such as ``a..b``, are taken. `add_missing`: of trusted networks
    and accounts, Date and Message-ID are added to messages that have none.
    `withheld_extensions`: keywords that are not offered here though they could be, and whose parameters and commands
    are refused (`protocol.offer.WITHHELD`).
    `vrfy`: which mailboxes of local domains exist. `expn`: whom an alias leads to.
    `dsn_for_strangers`: on an mx listener DSN (RFC 3461) is offered to those, too, who are neither trusted nor
    authenticated.

    `inspectors`: names of the inspectors that see its sessions (`mail.policy.Inspector`).

    `greet_delay_s`: how long strangers wait for the greeting, so that `early_talker` finds some (not under TLS from the
    first octet, where a client has to speak first).
    """

    name: str
    role: Role = Role.MX
    protocol: Dialect = Dialect.SMTP
    address: str = ""
    port: int = 25
    path: str = ""
    tls: ListenerTls = ListenerTls.NONE
    trusted_networks: tuple[str, ...] = ()
    greet_delay_s: float = 0.0
    early_talker: EarlyTalker = EarlyTalker.NOTE
    asking: ClientCertificatePolicy = NOBODY
    trusted_certificates: tuple[str, ...] = ()
    auth: bool = False
    auth_without_tls: bool = False
    proxy: Proxy = Proxy.NONE
    proxy_networks: tuple[str, ...] = ()
    proxy_tls: bool = True
    xclient_networks: tuple[str, ...] = ()
    xforward_networks: tuple[str, ...] = ()
    withheld_extensions: tuple[str, ...] = ()
    vrfy: Telling = Telling.AMBIGUOUS
    expn: Telling = Telling.OFF
    loose_paths: bool = False
    add_missing: bool = False
    dsn_for_strangers: bool = False
    inspectors: tuple[str, ...] = ()


class ExtensionOptions(msgspec.Struct, frozen=True):
    """Which of the further extensions listeners offer, and within what bounds. Times in seconds.

    `binarymime` (RFC 3030), `limits` (RFC 9422), `requiretls` (RFC 8689: under TLS only; with it the header field
    TLS-Required counts), `rrvs` (RFC 7293). `deliver_by` (RFC 2852), `deliver_by_min_s`: the least time that a message
    to be returned may be given. `future_release_max_s` (RFC 4865): how long a message may be held, on submission
    listeners; 0: not offered. `mt_priority` (RFC 6710), with the name of a profile or ""; `mt_priority_max` for
    accounts and trusted networks, `mt_priority_strangers_max` for others: a higher priority is lowered to it.
    `mt_priority_tunnel`: the header field MT-Priority takes the place of the parameter where a host lacks it (RFC
    6758): it is believed of the former, taken away from the latter, and put before what goes to such a host.
    """

    binarymime: bool = False
    limits: bool = True
    requiretls: bool = True
    deliver_by: bool = True
    deliver_by_min_s: float = 0.0
    future_release_max_s: float = 604_800.0
    mt_priority: bool = True
    mt_priority_profile: str = ""
    mt_priority_max: int = 9
    mt_priority_strangers_max: int = 0
    mt_priority_tunnel: bool = False
    rrvs: bool = True


class ReceiveOptions(msgspec.Struct, frozen=True):
    """All listeners.

    `hostname`: our name in greeting and trace fields. `default_domain`: of the bare ``<Postmaster>`` (RFC 5321
    §4.1.1.3). `limits`: of the protocol machine.

    Time limits, each answered with 421 4.4.2: `command_s` for the next command (RFC 5321 §4.5.3.2.7: at least 300),
    `data_block_s` for the next octets of content, `message_s` from MAIL to the end of data, `refused_content_s` for the
    rest of content from its refusal on (in place of `message_s`), `session_s` for a session (counted when no
    transaction is open), `handshake_s` for a TLS handshake, `close_s` for a client to take our last words;
    `proxy_s` for a PROXY header, whose octets are at most `proxy_header_max`, and without an answer.

    `memory_content_max`: octets of content kept in memory; more goes to a file as it arrives. `content_memory_max`: the
    same for all sessions of a worker together. `files_reserved`: file descriptors that sessions leave to the rest.
    `input_max`: octets held unread while the session waits for something; then the client is not read from.
    `auth_failures_max`: wrong passwords until 421. `refusals_max`: commands of a client, neither trusted nor
    authenticated, that rules refused since its last accepted message, until 421; `unknown_recipients_max`: recipients
    of a session that do not exist, 0 for no limit. `repair`: submission listeners add Date, Message-ID, From and Sender
    (RFC 6409 §8). `help`: what HELP says.
    """

    hostname: str = "localhost"
    default_domain: str = ""
    limits: ProtocolLimits = ProtocolLimits()
    command_s: float = 300.0
    data_block_s: float = 180.0
    message_s: float = 7_200.0
    refused_content_s: float = 7_200.0
    session_s: float = 43_200.0
    handshake_s: float = 30.0
    close_s: float = 10.0
    proxy_s: float = 5.0
    proxy_header_max: int = 4096
    memory_content_max: int = 1_048_576
    content_memory_max: int = budget.DEFAULT_MAX
    files_reserved: int = 512
    input_max: int = 65_536
    auth_failures_max: int = 3
    refusals_max: int = 100
    unknown_recipients_max: int = 50
    repair: bool = True
    help: str = "See RFC 5321; write to postmaster about this server"
    extensions: ExtensionOptions = ExtensionOptions()
