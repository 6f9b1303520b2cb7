"""Where mail goes by maps: a recipient is looked up in `transport_maps` before all tables (`route.table`).

The keys are those of transport(5), the most exact first, each in all maps before the next one: ``user+ext@domain``,
``user@domain``, the domain, ``.parent`` domains, ``*``. Of a local domain only mailboxes are looked up: what stands
for many must not carry away the mail of a domain that is delivered here. What a value may
say is in `route.transport`.

What always holds (beyond `mail.routing`): if all answers are at hand, the destination is given at once and no task is
made. Else nothing begins before the answer is awaited. Equal keys mean equal destinations: a server that a
`[[next_hop]]` or a `[[domain]]` has, too, is reached as they say. How it fails: a map that cannot answer, or a value
that means nothing, is `not_now` with a text that names the map. It never fails mail and never falls back on other ways.
Not here: whether a mailbox exists; maps tell nothing of that.

Most maps have entries for domains only, and all mail of a domain goes the same way. So what is found for a domain is
used again for a second (`maps.fresh`), unless a file is replaced, or a domain turns out to be ours or not. It is not
kept if any map may have an answer for the mailbox, the sender or the account. The maps count a question once for all
mail for which its answer serves.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import msgspec

from postroad.mail.address import Address
from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.route import Destination, SetServer, Transport
from postroad.mail.routing import Answer, Found, is_held, not_now
from postroad.maps.asked import Asked, Entry, Known, answered
from postroad.maps.editions import MapAnswers
from postroad.maps.face import NO_ANSWER, Map, NotNow, WithKey
from postroad.maps.steps import transport_steps
from postroad.route.choosing import NOBODYS, Choice, Numbered, RoutedMail
from postroad.route.later import Later
from postroad.route.options import NextHop
from postroad.route.table import RoutingTable, delivery, server_names, stored
from postroad.route.transport import LMTP_PORT, SMTP_PORT, Way, WayKind, ended, parse

SHOWN_MAX: Final = 100  # characters of a value in a text
KEPT_MAX: Final = 10_000  # values and domains whose meaning is kept
_THROWN_AWAY: Final = not_now("")  # of a question that is asked again
_NOWHERE: Final = (WayKind.ERROR, WayKind.RETRY, WayKind.DISCARD, WayKind.HOLD)
_CHOSEN: Final = "its pattern puts the local-part there, so that anybody could choose where mail goes"


class TransportMaps:
    """The maps in front of a routing table."""

    def __init__(self, table: RoutingTable, maps: tuple[Map, ...]) -> None:
        options = table.options
        self._table = table
        self._maps = maps
        self._delimiter = options.detail_delimiter
        self._named = {hop.name: hop for hop in options.next_hops if hop.name}
        by_server: dict[tuple[str, ...], list[Numbered]] = {}
        for number, hop in enumerate(options.next_hops):
            if hop.has_server:
                by_server.setdefault(server_names(hop), []).append((number, hop))
        self._by_server = {server: Choice(hops) for server, hops in by_server.items()}
        # What values mean for a domain, if that does not depend on sender, account or mailbox.
        self._servers: dict[tuple[str, str], Found] = {}
        self._is_for_all = all(hop.is_for_all and not hop.recipients for hop in options.next_hops)
        lmtp = (delivery(local) for local in (*options.local, *options.mapped_local) if local.deliver is Transport.LMTP)
        self._lmtp = {destination.key: destination for destination in lmtp}
        self._by_domain: MapAnswers[str, Found] = MapAnswers(KEPT_MAX, maps)  # what holds for all mail of a domain
        if table.mapped is not None:
            table.mapped.changed.append(self._by_domain.forget)

    def route(self, envelope: Envelope, recipient: Recipient) -> Answer:
        """Where the recipient's mail goes next (`mail.routing.DestinationOf`)."""
        if recipient.destination is not None:
            return stored(recipient.destination, self._table.outlets)
        kept = self._by_domain.get(recipient.address.domain)
        if kept is not None:
            return kept
        known = Known()
        mail = self._table.mail(envelope, recipient)
        found = self._find(recipient.address, mail, known)
        if not known.stopped:
            return found
        if known.not_now is not None:
            return _unknown(known.not_now)
        return Later(partial(self._wait, recipient.address, mail))

    def at_once(self, address: Address) -> Found | None:
        """The same, if no table names its sender or account; None if it is not known at once."""
        kept = self._by_domain.get(address.domain)
        if kept is not None:
            return kept
        known = Known()
        found = self._find(address, NOBODYS, known)
        return None if known.stopped else found

    def _holds_for_all(self, domain: str, found: Found, asked: Asked) -> Found:
        """Keep what all mail of a domain does, unless maps may say something else of a mailbox."""
        if not any(map.has_addresses() for map in self._maps):
            self._by_domain.keep(domain, found, asked)
        return found

    async def _wait(self, address: Address, mail: RoutedMail) -> Found:
        found = answered(partial(self._find, address, mail))
        if not isinstance(found, Destination | Attempt | NotNow):
            found = await found
        return _unknown(found) if isinstance(found, NotNow) else found

    def _find(self, address: Address, mail: RoutedMail, asked: Asked) -> Found:
        mapped = self._table.mapped
        if mapped is None:
            return self._find_now(address, mail, asked)
        return mapped.during(asked, partial(self._find_now, address, mail))

    def _find_now(self, address: Address, mail: RoutedMail, asked: Asked) -> Found:
        if address.domain:
            many = not self._table.is_local(address.domain)
            steps = transport_steps(address.local_part, address.domain, self._delimiter, whole_domains=many)
            entry = asked.first(steps, self._maps)
            if entry is not None:
                return _THROWN_AWAY if entry is NO_ANSWER else self._meant(entry, address, mail, asked)
        found = self._table.find(address, mail)
        return self._holds_for_all(address.domain, found, asked) if self._table.is_for_all(address.domain) else found

    def _meant(self, entry: Entry, address: Address, mail: RoutedMail, asked: Asked) -> Found:
        value, key, name = entry
        kept = self._servers.get((value, address.domain))
        chosen = isinstance(value, WithKey) and value.of_local_part
        if kept is not None and not chosen:
            return self._holds_for_all(address.domain, kept, asked)
        way = parse(value)
        if chosen and isinstance(way, Way) and way.kind not in _NOWHERE:
            way = _CHOSEN
        if isinstance(way, Way):
            found = self._by(way, address, mail)
            if not isinstance(found, str):
                if self._is_for_all and way.kind is WayKind.SERVERS and not is_held(found):
                    self._keep(value, address.domain, found)
                return found
            way = found
        shown = value if len(value) <= SHOWN_MAX else f"{value[:SHOWN_MAX]}…"
        return not_now(f"its destination is not known: map {name} has {shown!r} for {key}, but {way}")

    def _keep(self, value: str, domain: str, found: Found) -> None:
        if len(self._servers) >= KEPT_MAX:
            self._servers.clear()
        self._servers[value, domain] = found

    def _by(self, way: Way, address: Address, mail: RoutedMail) -> Found | str:
        match way.kind:
            case WayKind.AS_WITHOUT:
                return self._table.find(address, mail)
            case WayKind.OWN_MX:
                return self._table.by_hop(None, address.domain)
            case WayKind.SERVERS:
                return self._to_servers(way.servers, address, mail)
            case WayKind.LMTP_SOCKET:
                key = f"lmtp:{way.name}"
                return self._lmtp.get(key) or Destination(key, Transport.LMTP, path=way.name)
            case WayKind.LMTP_SERVERS:
                servers = tuple(_with_port(server, LMTP_PORT) for server in way.servers)
                key = f"lmtp:{','.join(server.key for server in servers)}"
                if key in self._lmtp:
                    return self._lmtp[key]
                if len(servers) > 1:
                    return Destination(key, Transport.LMTP, servers=servers)
                return Destination(key, Transport.LMTP, host=servers[0].host, port=servers[0].port)
            case WayKind.NEXT_HOP:
                hop = self._named.get(way.name)
                if hop is None:
                    return "no [[next_hop]] has this name"
                return self._table.by_hop(hop, address.domain, released=mail.released)
            case WayKind.HOLD if mail.released:
                return self._table.find(address, mail)
            case WayKind.ERROR | WayKind.RETRY | WayKind.DISCARD | WayKind.HOLD:
                return ended(way)

    def _to_servers(
        self, written: tuple[SetServer, ...], address: Address, mail: RoutedMail
    ) -> Found:
        """Servers of a table are reached with the TLS and the account of this table."""
        mx_port = self._table.options.mx_port
        servers = tuple(_with_port(server, mx_port if server.mx else SMTP_PORT) for server in written)
        names = tuple(server.key for server in servers)
        choice = self._by_server.get(names)
        hop = None
        if choice is not None:
            usual = self._table.hop(address, mail)
            if usual is not None and usual.has_server and server_names(usual) == names:
                hop = usual
            else:
                # Equal keys mean equal destinations: tables without an account have the key of none.
                plain = (each for each in choice.hops if not each.credentials)
                hop = choice.of(mail, self._delimiter) or next(plain, None)
        if hop is None:
            tls = self._table.options.tls
            if len(servers) > 1:
                hop = NextHop("*", hosts=servers, tls=tls)
            else:
                hop = NextHop("*", servers[0].host, servers[0].port, servers[0].mx, tls)
        return self._table.by_hop(hop, address.domain, released=mail.released)


def _with_port(server: SetServer, port: int) -> SetServer:
    return server if server.port else msgspec.structs.replace(server, port=port)


def _unknown(answer: NotNow) -> Attempt:
    return not_now(f"its destination is not known: {answer.text}")
