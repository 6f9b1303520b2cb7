"""The settings of the route stage, with their defaults."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from postroad.mail.route import TlsDemand, Transport

ANY: Final = "any"  # in `recipients`: every local-part


class LocalDomain(msgspec.Struct, frozen=True):
    """A domain whose mail is delivered here. `name`: canonical. `recipients`: ("any",) for all."""

    name: Annotated[str, Meta(description="The domain.")]
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
            "local-part, or `@domain` for all. The value does not matter. If a map cannot answer, the client is told "
            "to try again later (451 4.3.0).",
        ),
    ] = ()
    deliver: Transport = Transport.MAILDIR
    path: Annotated[
        str,
        Meta(
            description="Maildir: the folder. mbox: the file. `{domain}` and `{local_part}` stand for those of the "
            "recipient.",
        ),
    ] = ""
    socket: Annotated[str, Meta(description="LMTP: the path of the server's Unix socket.")] = ""
    host: Annotated[str, Meta(description="LMTP: the server's name or address.")] = ""
    port: Annotated[int, Meta(ge=1, le=65535, description="LMTP: the server's port.")] = 24
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


class RelayDomain(msgspec.Struct, frozen=True):
    """A domain whose mail is accepted from anywhere and passed on. `name`: a pattern, as in `NextHop.domain`."""

    name: Annotated[str, Meta(description="The domain, or a pattern of domains.")]
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
            "local-part, or `@domain` for all. The value does not matter. If a map cannot answer, the client is told "
            "to try again later (451 4.3.0).",
        ),
    ] = ()


class NextHop(msgspec.Struct, frozen=True):
    """Where mail goes instead of to the MX of its domain (`route.choosing` says which one counts).

    `domain`: of the recipients: ``example.org``, ``.example.org`` for all below it, ``*`` for all; "" if `recipients`
    names them. `recipients`: mailboxes. `senders`: only mail of these reverse-paths: mailboxes, domain patterns or
    ``<>``. `accounts`: only mail of clients that have authenticated so. `host`: a name or an IP address (in brackets
    or not), "" for the MX of the domain itself. `mx`: whether the MX of `host` are looked up. `credentials`: name of
    the account to AUTH with. `xforward`: the server is told of our client, where it takes XFORWARD: a content filter
    that hands the mail back. `ignored_extensions`: what the servers offer at EHLO and is not used with them, by keyword
    in capitals.
    """

    domain: str
    host: str = ""
    port: int = 25
    mx: bool = False
    tls: TlsDemand = TlsDemand.MAY
    credentials: str = ""
    xforward: bool = False
    ignored_extensions: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    senders: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()

    @property
    def is_for_all(self) -> bool:
        """Whether it takes the mail of every sender."""
        return not self.senders and not self.accounts


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
    detail_delimiter: Annotated[
        str,
        Meta(
            description="The characters that begin an address extension in a local-part: `ada+lists` then means "
            '`ada`. "": no extensions.',
        ),
    ] = "+"
    postmaster: str = ""
    apart: tuple[str, ...] = ()
