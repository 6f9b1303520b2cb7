"""Where a recipient goes next: the destination, to which queue, limits and back-off belong, and its hops in order.

Each recipient gets a Destination first (`mail.routing`). Its hops are looked up only when a connection must be opened
(MX and addresses, RFC 5321 §5.1), because a kept connection needs none.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from postroad.mail.tls_policy import HostPolicy


class Transport(enum.Enum):
    SMTP = "smtp"
    LMTP = "lmtp"
    MAILDIR = "maildir"
    MBOX = "mbox"
    PROGRAM = "program"
    HTTP = "http"


# Those for which no hosts are looked up.
HERE: Final = frozenset({Transport.MAILDIR, Transport.MBOX, Transport.PROGRAM, Transport.HTTP})


class TlsDemand(enum.Enum):
    """How much TLS a destination demands. MAY is opportunistic (RFC 7435): encrypt if offered, prove nothing.

    DANE, DANE_ONLY, STS and FINGERPRINT stand in settings and on destinations; a hop has one of the others
    (`plain_demand`), and what its host must show stands beside it (`Hop.proof`, `Hop.policy`).
    """

    NONE = "none"
    MAY = "may"
    ENCRYPT = "encrypt"  # refuse to go on without TLS, any certificate
    VERIFY = "verify"  # a chain to a trusted root and the host's name in the certificate (RFC 6125)
    IMPLICIT = "implicit"  # TLS from the first octet (RFC 8314 §3.3), verified as VERIFY
    DANE = "dane"  # as the TLSA records of the host say (RFC 7672); without records as MAY
    DANE_ONLY = "dane-only"  # without usable TLSA records no delivery
    STS = "sts"  # as DANE, then as MTA-STS says (RFC 8461); without a policy as MAY
    FINGERPRINT = "fingerprint"  # a certificate or key that the operator names

    @classmethod
    def _missing_(cls, value: object) -> TlsDemand | None:
        return cls.NONE if value == "never" else None  # the word of older versions

    __hash__ = object.__hash__


class HostProof(enum.Enum):
    """What the certificate of a host must show."""

    NOTHING = "nothing"  # any certificate will do
    NAME = "name"  # a chain to a trusted root and the host's name (RFC 6125)
    NAMES = "names"  # a chain to a trusted root and a name of the hop's policy
    DANE = "dane"  # what the TLSA records of the hop's policy allow
    FINGERPRINT = "fingerprint"  # a fingerprint of the hop's policy


def proof_of(demand: TlsDemand) -> HostProof:
    """What a demand asks of the host's certificate, if nothing more is known of the host."""
    return HostProof.NAME if demand in (TlsDemand.VERIFY, TlsDemand.IMPLICIT) else HostProof.NOTHING


_BY_POLICY: Final = {
    TlsDemand.DANE: TlsDemand.MAY, TlsDemand.STS: TlsDemand.MAY, TlsDemand.DANE_ONLY: TlsDemand.ENCRYPT,
    TlsDemand.FINGERPRINT: TlsDemand.ENCRYPT,
}  # fmt: skip


def plain_demand(demand: TlsDemand) -> TlsDemand:
    """The least that a demand asks of any host, whatever the host's domain publishes."""
    return _BY_POLICY.get(demand, demand)


class TlsTerms(msgspec.Struct, frozen=True, array_like=True):
    """What settings say of TLS with a destination besides the demand. `names`: those that the certificate may have
    instead of the host's: names, ``.example.org`` for all below it, or the words HOST_NAME, NEXT_HOP, BELOW_NEXT_HOP.
    `fingerprints`: SHA-256 of certificates or keys, lower-case hexadecimal. `minimum`, `ciphers`: the oldest version
    and OpenSSL's list, "": as for all. `server_name`: to ask for (SNI), "": the host's. `source`: where the demand
    stands, for people, if not in the settings."""

    names: tuple[str, ...] = ()
    fingerprints: tuple[str, ...] = ()
    minimum: str = ""
    ciphers: str = ""
    server_name: str = ""
    source: str = ""


HOST_NAME: Final = "hostname"
NEXT_HOP: Final = "nexthop"
BELOW_NEXT_HOP: Final = "dot-nexthop"
NO_TERMS: Final = TlsTerms()


# The file into which mail is delivered that nobody wants to have.
NULL_DEVICE: Final = "/dev/null"

# What the demands of a message add to a key, so that it shares no connection with other mail.
REQUIRE_TLS: Final = "/requiretls"
TLS_OPTIONAL: Final = "/tls-optional"

# What stands before an address of ours that connections come from, if a next hop names some.
FROM: Final = "/from:"

# What stands before the recipients' domain at the end of the key of a set next hop, if that domain has its own pace.
APART: Final = "/@"

# What stands at the end of the key for mail in which reports are looked for first.
REPORTS: Final = "/reports"


def plain_key(key: str) -> str:
    """A destination's key without that: what an operator says of the destination holds for such mail, too."""
    return key.removesuffix(REQUIRE_TLS).removesuffix(TLS_OPTIONAL).removesuffix(REPORTS)


def domain_of(key: str) -> str:
    """The domain that a destination's key names, if it is one's alone; else a text that is no domain."""
    return plain_key(key).rpartition(APART)[2].partition(FROM)[0]


def keys_of(plain: str) -> tuple[str, ...]:
    """The keys under which mail for a destination waits, whatever it demands. Mail for report mailboxes waits apart."""
    return (plain, plain + REQUIRE_TLS, plain + TLS_OPTIONAL)


class HttpFormat(enum.Enum):
    """How a message is sent by HTTP."""

    RAW = "raw"
    JSON = "json"


class HttpTarget(msgspec.Struct, frozen=True, array_like=True):
    """Where mail goes by HTTP POST. `secret_file`: its first line signs the requests; `authorization_file`: its first
    line is the field Authorization; "" for none. `together`: one request for all recipients of a job."""

    url: str = ""
    format: HttpFormat = HttpFormat.RAW
    secret_file: str = ""
    authorization_file: str = ""
    together: bool = False


class Quota(msgspec.Struct, frozen=True, array_like=True):
    """What a mailbox may hold: octets and messages; 0: no limit."""

    size: int = 0
    messages: int = 0


class MailboxRules(msgspec.Struct, frozen=True, array_like=True):
    """What holds for the mailboxes of a domain on this machine. `quota`: of each; `quota_file`: names mailboxes with
    another one. `quota_warning`: the share of it in percent at which the log says so, 0 for never. `over_quota_fails`:
    what finds no room fails, else it waits. `detail_folders`: mail with an address extension goes into the subfolder of
    this name, if it is there. `user`: as whom it is delivered, "" for the node's own. `table`: the name of the table of
    which the domain is one of many, "" if it has one of its own."""

    quota: Quota = Quota()
    quota_file: str = ""
    over_quota_fails: bool = False
    quota_warning: int = 90
    detail_folders: bool = False
    user: str = ""
    table: str = ""


class SetServer(msgspec.Struct, frozen=True, array_like=True):
    """One of several servers that an operator has set for a destination. `mx`: `host` is a domain whose MX records are
    looked up. The lowest `priority` is tried first; servers of one priority share the connections by `weight`
    (RFC 2782)."""

    host: str
    port: int = 25
    mx: bool = False
    priority: int = 0
    weight: int = 0

    @property
    def key(self) -> str:
        return f"mx:{self.host}:{self.port}" if self.mx else f"[{self.host}]:{self.port}"


class Fallback(msgspec.Struct, frozen=True, array_like=True):
    """A server for mail whose own servers cannot be found or reached. What is demanded of it, and as whom we log in
    there, is its own: a destination's credentials never go to it."""

    server: SetServer
    tls: TlsDemand = TlsDemand.MAY
    credentials: str = ""
    ignored_extensions: tuple[str, ...] = ()
    terms: TlsTerms = NO_TERMS


class OwnAddress(msgspec.Struct, frozen=True, array_like=True):
    """An IP address of ours to connect from, and the name for EHLO from there; "": the node's."""

    address: str
    hello: str = ""


class Origin(msgspec.Struct, frozen=True, array_like=True):
    """Where connections to a destination come from. If there are addresses, no others are used: a family without one is
    not used at all. Several take turns. `hello`: the name for EHLO, if the address has none of its own."""

    ipv4: tuple[OwnAddress, ...] = ()
    ipv6: tuple[OwnAddress, ...] = ()
    hello: str = ""

    @property
    def is_set(self) -> bool:
        return bool(self.ipv4 or self.ipv6)

    def of(self, address: str) -> tuple[OwnAddress, ...]:
        """Those of the family of a remote's address."""
        return self.ipv6 if ":" in address else self.ipv4


ANY_ORIGIN: Final = Origin()


class Retry(msgspec.Struct, frozen=True, array_like=True):
    """When mail of a destination is tried again, and for how long, as far as it differs from the queue's own settings,
    whose names these are. None: as there."""

    retry_first_s: float | None = None
    retry_max_s: float | None = None
    lifetime_s: float | None = None
    lifetime_dsn_s: float | None = None
    delay_notice_s: float | None = None


class Destination(msgspec.Struct, frozen=True, array_like=True):
    """One destination. `key` names it for people and for limits; two destinations with one key are the same.

    Keys: the recipient's domain for MX routing (``example.com``), ``[host]:port`` for a set next hop (with
    ``/@example.com`` behind it for a domain that is to go `apart` from what else goes there),
    ``lmtp:[host]:port`` or ``lmtp:/path``, ``maildir:NAME``, ``mbox:NAME`` and ``program:NAME`` for local
    delivery (NAME = domain), and so is ``http:NAME``.
    SMTP: `domain` set = by MX; else `host` (name or IP address) and `port`, no MX look-up. LMTP: `path` of the Unix
    socket, or `host` and `port`. MAILDIR, MBOX: `path` is the template (``{domain}``, ``{local_part}``). PROGRAM:
    `command`.
    `credentials`: name of the credentials to AUTH with, "" for none. `xforward`: it is told of the client from which
    we have the message, if it takes XFORWARD. `xclient`: we speak for that client, if it takes XCLIENT.
    `require_tls`: the hosts must offer REQUIRETLS under proved TLS, and be the domain's own beyond doubt (RFC 8689
    §4.2.1). `ignored_extensions`: keywords that the hosts offer and that are not used with them.
    `rules`: for mailboxes of MAILDIR and MBOX;
    `user` for PROGRAM, too. `servers`: several hosts or domains instead of `host` and `domain`, which are "" then; the
    key names them all, as ``[a.example]:25,[b.example]:25``. `fallbacks`: servers for mail that can be brought to none
    of its own. `origin`: where connections come from. `outlet`: what an alias names in the place of
    a mailbox, as it stands there: ``|/usr/bin/program argument``, ``/file`` or ``/folder/``; "" if it is none. Then
    `domain` is the name by which the porter knows from where it comes. `retry`: when it is tried again,
    None: as all mail. `place`: where the `outlet` stands, which the settings must allow as long as mail waits
    (`route.outlets`); "" if it is none, and in rows of older versions. `reports`: reports of others are looked for in
    the mail before it goes there. `terms`: what is said of its TLS besides `tls`.
    """

    key: str
    transport: Transport
    domain: str = ""
    host: str = ""
    port: int = 25
    path: str = ""
    command: tuple[str, ...] = ()
    tls: TlsDemand = TlsDemand.MAY
    credentials: str = ""
    xforward: bool = False
    require_tls: bool = False
    apart: str = ""
    ignored_extensions: tuple[str, ...] = ()
    rules: MailboxRules = MailboxRules()
    http: HttpTarget | None = None
    xclient: bool = False
    servers: tuple[SetServer, ...] = ()
    fallbacks: tuple[Fallback, ...] = ()
    origin: Origin = ANY_ORIGIN
    outlet: str = ""
    retry: Retry | None = None
    place: str = ""
    reports: bool = False
    terms: TlsTerms = NO_TERMS

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts, or the domains with their MX, that it names."""
        if self.servers:
            return tuple(server.host for server in self.servers)
        return (self.host or self.domain,)

    @property
    def throws_away(self) -> bool:
        """Whether what goes there is thrown away."""
        return self.path == NULL_DEVICE


def mailbox_itself(destination: Destination) -> Destination:
    """The destination of a report mailbox as that of any mailbox."""
    before, _, behind = destination.key.rpartition(REPORTS)
    return msgspec.structs.replace(destination, key=before + behind, reports=False)


class Hop(msgspec.Struct, frozen=True, array_like=True):
    """One server to try: its name (as MX or configuration said, for TLS and reports) and one address of it.

    `tls`: how much TLS this host is asked for, None: as its destination demands. `proof`: what its certificate must
    show, None: what that demand asks for. `fallback`: it is a host of this fallback, else None. `policy`: what it must
    satisfy besides, and where that was said; None if that is all.
    """

    name: str
    address: str  # IP address, or the path of a Unix socket
    port: int = 25
    preference: int = 0
    tls: TlsDemand | None = None
    proof: HostProof | None = None
    fallback: Fallback | None = None
    policy: HostPolicy | None = None


class Route(msgspec.Struct, frozen=True):
    """A destination with its hops, in the order in which to try them."""

    destination: Destination
    hops: tuple[Hop, ...]
