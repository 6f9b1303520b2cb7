"""The settings of the route stage, with their defaults. The tables are in modules of their own: domains
(`domain_options`), next hops (`next_hop_options`), and when both are tried again (`retry_options`)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from postroad.mail.route import SetServer, TlsDemand
from postroad.route.domain_options import ANY, LocalDomain, OverQuota, RelayDomain, table_name
from postroad.route.next_hop_options import Generic, MailClass, NextHop
from postroad.route.retry_options import retry_of

__all__ = [
    "ANY", "Generic", "LocalDomain", "MailClass", "NextHop", "OverQuota", "RelayDomain", "RoutingOptions", "retry_of",
    "table_name",
]  # fmt: skip


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
            "`[[next_hop]]`. Unset: `sts` if `dns.validating` is set, else `may`.",
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
    tls_policy_maps: Annotated[
        tuple[str, ...],
        Meta(
            description="Maps that say how much TLS is demanded, as smtp_tls_policy_maps of Postfix do, before `tls` "
            "of any table: a domain, a `.parent` domain, or a server (`[mail.example.net]:587`) gets a value such "
            "as `verify`, `dane-only` or `secure match=.example.net`. If a map cannot answer, mail waits. docs/tls.md "
            "lists the values.",
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
