"""Reads the value of a transport map, in the words of transport(5): ``smtp:[mail.example.net]:587``. Pure.

A value has a transport, a colon, and what the transport needs. If this node cannot do what a value says, the result is
a text that says why and, if possible, what to write instead; nothing is guessed.

    :                            as without the maps
    smtp: relay:                 the MX of the recipient's domain, no next hop
    smtp:domain                  the MX of that domain
    smtp:[host]:port             that host; an IP address needs no brackets
    smtp:[host]:port, [other]    the first of them that takes the connection
    :[host]:port                 the same
    lmtp:unix:/path              the LMTP server behind this socket
    lmtp:inet:host:port          the LMTP server on this host; `inet:` may be left out; several as with smtp
    next_hop:NAME                the `[[next_hop]]` of this name
    error:5.7.1 text             the mail fails
    retry:4.7.1 text             the mail waits, for as long as mail may wait
    discard:text                 the mail is thrown away, as if it were delivered
    hold:text                    the mail is held until an operator releases it
"""

from __future__ import annotations

import enum
import ipaddress
import re
from functools import lru_cache
from typing import Final

import msgspec

from postroad.mail.address import canonical_domain
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.route import SetServer
from postroad.mail.routing import held

VALUE_MAX: Final = 1_000  # characters; longer ones are no destination
SERVERS_MAX: Final = 20  # servers of one destination
SMTP_PORT: Final = 25
LMTP_PORT: Final = 24
_PORTS: Final = {"smtp": 25, "lmtp": 24, "submission": 587, "submissions": 465, "smtps": 465}  # /etc/services
_STATUS: Final = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?:\s+|$)")
_SERVER: Final = re.compile(r"(\[[^\[\]]*\]|[^\[\]:\s]*)(?::([A-Za-z0-9-]+))?")
_SMTP: Final = frozenset({"", "smtp", "relay"})
_ELSEWHERE: Final = {
    "local": "write a colon alone for what [[domain]] says",
    "virtual": "write a colon alone for what [[domain]] says",
    "pipe": "a [[domain]] can have deliver = \"program\"",
}  # fmt: skip


class WayKind(enum.Enum):
    """What becomes of the mail."""

    AS_WITHOUT = "as without maps"
    OWN_MX = "the MX of its domain"
    SERVERS = "servers"
    LMTP_SOCKET = "a Unix socket"
    LMTP_SERVERS = "LMTP servers"
    NEXT_HOP = "a next hop"
    ERROR = "failed"
    RETRY = "waits"
    DISCARD = "thrown away"
    HOLD = "held"


class Way(msgspec.Struct, frozen=True):
    """A value that is understood. `servers`: in the order in which they are tried; `port` 0 in one of them if none is
    said; `name`: of a next hop, or the path of a socket; `status` and `text`: of an outcome."""

    kind: WayKind
    servers: tuple[SetServer, ...] = ()
    name: str = ""
    status: str = ""
    text: str = ""


@lru_cache(maxsize=4096)
def parse(value: str) -> Way | str:
    """What the value says, or why it cannot be used."""
    value = value.strip()
    if not value:
        return "it is empty"
    if len(value) > VALUE_MAX:
        return f"it has more than {VALUE_MAX} characters"
    transport, _, rest = value.partition(":")
    transport, rest = transport.strip(), rest.strip()
    if transport in _SMTP:
        return _smtp(transport, rest)
    match transport:
        case "lmtp":
            return _lmtp(rest)
        case "next_hop":
            return Way(WayKind.NEXT_HOP, name=rest) if rest else "it names no next hop"
        case "error":
            return _outcome(WayKind.ERROR, "5", rest or "no mail is taken for this address")
        case "retry":
            return _outcome(WayKind.RETRY, "4", rest or "no mail goes to this address now")
        case "discard":
            return Way(WayKind.DISCARD, status="2.0.0", text=rest)
        case "hold":
            return Way(WayKind.HOLD, text=rest)
        case _:
            return _unknown(transport, value)


def ended(way: Way) -> Attempt:
    """The answer of a way on which mail goes nowhere."""
    match way.kind:
        case WayKind.ERROR:
            return Attempt(Outcome.FAILED, Reach.RECIPIENT, way.status, way.text, transport="")
        case WayKind.RETRY:
            return Attempt(Outcome.DEFERRED, Reach.RECIPIENT, way.status, way.text, transport="")
        case WayKind.DISCARD:
            text = way.text or "its mail is thrown away, as the settings say"
            return Attempt(Outcome.DELIVERED, Reach.RECIPIENT, way.status, text, transport="discard")
        case WayKind.HOLD:
            return held(way.text or "its mail is held, as the settings say")
        case _:
            raise ValueError(way.kind)


NOWHERE: Final = (WayKind.ERROR, WayKind.RETRY, WayKind.DISCARD, WayKind.HOLD)


def action(written: str) -> Way | None:
    """What an action of a table says; None if it is none."""
    way = parse(written)
    return way if isinstance(way, Way) and way.kind in NOWHERE else None


def _unknown(transport: str, value: str) -> str:
    if transport.startswith("["):
        return f"a transport must stand in front of a host: smtp:{value}"
    remedy = _ELSEWHERE.get(transport)
    return f"there is no transport {transport[:60]!r}" + (f"; {remedy}" if remedy else "")


def _smtp(transport: str, rest: str) -> Way | str:
    if not rest:
        return Way(WayKind.OWN_MX if transport else WayKind.AS_WITHOUT)
    servers = _servers(rest)
    return servers if isinstance(servers, str) else Way(WayKind.SERVERS, servers)


def _lmtp(rest: str) -> Way | str:
    if rest.startswith("unix:"):
        path = rest.removeprefix("unix:")
        if not path.startswith("/"):
            return f"the path of the socket must begin with a slash: lmtp:unix:/var/spool/postfix/{path}"
        return Way(WayKind.LMTP_SOCKET, name=path)
    if not rest:
        return "an LMTP server must be named: lmtp:unix:/path or lmtp:inet:host:port"
    servers = _servers(rest)
    if isinstance(servers, str):
        return servers
    return Way(WayKind.LMTP_SERVERS, tuple(msgspec.structs.replace(server, mx=False) for server in servers))


def _servers(written: str) -> tuple[SetServer, ...] | str:
    """Servers, the first choice first."""
    names = written.replace(",", " ").split()
    if not names:
        return "it names no host"
    if len(names) > SERVERS_MAX:
        return f"it names more than {SERVERS_MAX} hosts"
    found: list[SetServer] = []
    for name in names:
        if name.startswith("unix:"):
            return "a socket must stand alone"
        server = _server(name.removeprefix("inet:"), len(found))
        if isinstance(server, str):
            return server
        found.append(server)
    return tuple(found)


def _server(written: str, place: int) -> SetServer | str:
    """A server; its port is 0 if none is said."""
    if ":" in written and _address(written):
        return SetServer(_address(written), 0, priority=place)
    match = _SERVER.fullmatch(written)
    if match is None:
        return f"{written[:60]!r} is not a host; an IPv6 address stands in brackets"
    host, port = match[1], _port(match[2])
    if port is None:
        return f"{match[2]!r} is not a port"
    bare = host.strip("[]")
    address = _address(bare[5:] if bare[:5].lower() == "ipv6:" else bare)
    if address:
        return SetServer(address, port, priority=place)
    try:
        return SetServer(canonical_domain(bare), port, not host.startswith("["), place)
    except ValueError:
        return f"{bare[:60]!r} is not a host"


def _port(written: str | None) -> int | None:
    if written is None:
        return 0
    port = int(written) if written.isdecimal() and len(written) <= 5 else _PORTS.get(written.lower(), 0)
    return port if 0 < port <= 65_535 else None


def _address(written: str) -> str:
    """The IP address, or "" if it is none."""
    try:
        return str(ipaddress.ip_address(written))
    except ValueError:
        return ""


def _outcome(kind: WayKind, status_class: str, rest: str) -> Way:
    """A status of another class than that of the transport gets this class, as in Postfix."""
    found = _STATUS.match(rest)
    if found is None:
        return Way(kind, status=f"{status_class}.0.0", text=rest)
    return Way(kind, status=f"{status_class}.{found[2]}.{found[3]}", text=rest[found.end() :])
