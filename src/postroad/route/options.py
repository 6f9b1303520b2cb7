"""The settings of the route stage, with their defaults."""

from __future__ import annotations

from typing import Final

import msgspec

from postroad.mail.route import TlsDemand, Transport

ANY: Final = "any"  # in `recipients`: every local-part


class LocalDomain(msgspec.Struct, frozen=True):
    """A domain whose mail is delivered here.

    `name`: canonical. `recipients`: the local-parts there are, or ("any",) for all; `recipients_file` names a file of
    more of them. `deliver`: MAILDIR with `path` (a template), LMTP with `socket` or `host` and `port`, PROGRAM with
    `command`. `xforward`: the LMTP server is told of our client, where it takes XFORWARD. `since`: since when the
    domain is ours, a date or a date-time of RFC 3339, "" where that is not said. `ignored_extensions`: as of a NextHop,
    for LMTP.
    """

    name: str
    recipients: tuple[str, ...] = ()
    recipients_file: str = ""
    deliver: Transport = Transport.MAILDIR
    path: str = ""
    socket: str = ""
    host: str = ""
    port: int = 24
    command: tuple[str, ...] = ()
    xforward: bool = False
    since: str = ""
    ignored_extensions: tuple[str, ...] = ()


class RelayDomain(msgspec.Struct, frozen=True):
    """A domain whose mail is taken from anywhere and passed on. `name`: as in `NextHop.domain`. `recipients`: as of a
    LocalDomain; any, unless told."""

    name: str
    recipients: tuple[str, ...] = (ANY,)
    recipients_file: str = ""


class NextHop(msgspec.Struct, frozen=True):
    """Where mail goes instead of to the MX of its domain.

    `domain`: ``example.org``, ``.example.org`` for all below it, ``*`` for all; the most exact counts. `host`: a name
    or an IP address (in brackets or not), "" for the MX of the domain itself, so that only `tls` is set. `mx`: whether
    the MX of `host` are looked up. `credentials`: name of the account to AUTH with. `xforward`: the server is
    told of our client, where it takes XFORWARD: a content filter that hands the mail back. `ignored_extensions`: what
    the servers offer at EHLO and is not used with them, by keyword in capitals.
    """

    domain: str
    host: str = ""
    port: int = 25
    mx: bool = False
    tls: TlsDemand = TlsDemand.MAY
    credentials: str = ""
    xforward: bool = False
    ignored_extensions: tuple[str, ...] = ()


class RoutingOptions(msgspec.Struct, frozen=True):
    """The tables. The first local domain is that of ``<Postmaster>`` and of mailboxes at our own address literals.

    `tls`: the demand on hosts found by MX. `mx_port`: their port, 25 in the Internet. `literals`: whether mail to
    address literals of other hosts is sent there. `detail_delimiter`: what begins an address extension in a local-part
    (RFC 5233 calls it detail), "" for none. `postmaster`: who gets the mail to the postmaster of a local domain that
    has no such mailbox and no such alias; "": its delivery does. `apart`: patterns of domains that are destinations of
    their own also behind a next hop that others share, since they have limits of their own (`queue.pace`).
    """

    local: tuple[LocalDomain, ...] = ()
    relay: tuple[RelayDomain, ...] = ()
    next_hops: tuple[NextHop, ...] = ()
    tls: TlsDemand = TlsDemand.MAY
    mx_port: int = 25
    literals: bool = False
    detail_delimiter: str = "+"
    postmaster: str = ""
    apart: tuple[str, ...] = ()
