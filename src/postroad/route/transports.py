"""What a transport map says of a recipient: the values of transport(5) of Postfix, as next hops.

    example.org        smtp:[hub.example.net]:2525     this host
    example.net        smtp:example.com                the MX of this domain
    .example.com       smtp:                           the MX of the recipient's domain, whatever [[next_hop]] says
    ada@example.org    lmtp:unix:/run/dovecot/lmtp
    old.example        error:5.1.6 moved away          the mail fails
    busy.example       retry:4.3.2 later               the mail waits
    mine.example       :                               as if the map had no such key

The keys are looked up in this order: the address with its extension, the address without it, the domain, its parents
with a dot in front, ``*``. Of a local domain only addresses are looked up: what is meant for all must not carry away
the mail of a domain that is delivered here.

How it fails: a value that is none of these makes the mail wait (4.3.5), with a text that names it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Iterator, Sequence
from functools import partial
from typing import Final

import msgspec

from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.route import Destination, TlsDemand, Transport
from postroad.mail.routing import Answer, Found, not_now
from postroad.maps.asked import Asked, NoAnswer, answered
from postroad.maps.face import Map, NotNow
from postroad.maps.steps import KeyStep, domain_steps, without_extension
from postroad.route.options import NextHop
from postroad.route.table import RoutingTable

_HOST: Final = re.compile(r"(?:\[([^\[\]\s]+)\]|([^\[\]:\s]+))(?::([0-9]{1,5}))?")
_STATUS: Final = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:\s+|$)(.*)", re.DOTALL)
_SMTP: Final = frozenset(("", "smtp", "relay"))
_LMTP_PORT: Final = 24


class Transports:
    """Where mail goes by transport maps, or else by the tables of `[[next_hop]]`."""

    def __init__(self, routing: RoutingTable, maps: tuple[Map, ...]) -> None:
        self._routing = routing
        self._maps = maps

    def route(self, envelope: Envelope, recipient: Recipient) -> Answer:
        """As `mail.routing.DestinationOf`."""
        if recipient.destination is not None:
            return recipient.destination
        found = answered(partial(self._look_up, recipient.address))
        if found is None or isinstance(found, tuple | NotNow):
            return self._by(found, envelope, recipient)
        return self._awaited(found, envelope, recipient)

    def _look_up(self, address: Address, asked: Asked) -> tuple[str, str] | None:
        delimiter = self._routing.options.detail_delimiter
        return look_up(self._maps, address, delimiter, asked, local=self._routing.is_local(address.domain))

    async def _awaited(
        self, pending: Awaitable[tuple[str, str] | NotNow | None], envelope: Envelope, recipient: Recipient
    ) -> Found:
        return self._by(await pending, envelope, recipient)

    def _by(self, found: tuple[str, str] | NotNow | None, envelope: Envelope, recipient: Recipient) -> Found:
        if isinstance(found, NotNow):
            return not_now(found.text)
        options = self._routing.options
        way = None if found is None else chosen(*found, options.next_hops, options.tls)
        if way is None:
            return self._routing.route(envelope, recipient)
        return self._routing.by_hop(way, recipient.address.domain) if isinstance(way, NextHop) else way


def transport_steps(address: Address, delimiter: str, *, local: bool) -> Iterator[KeyStep]:
    """The keys for a recipient."""
    yield KeyStep("whole address", f"{address.local_part}@{address.domain}")
    base = without_extension(address.local_part, delimiter)
    if base != address.local_part:
        yield KeyStep("without extension", f"{base}@{address.domain}", True)
    if not local:
        yield from domain_steps(address.domain)
        yield KeyStep("all", "*", True)


def look_up(
    maps: Sequence[Map], address: Address, delimiter: str, asked: Asked, *, local: bool
) -> tuple[str, str] | None:
    """The value for a recipient, and the name of its map. None if no map has one, or if an answer is missing (`asked`
    says so then)."""
    for step in transport_steps(address, delimiter, local=local):
        for map in maps:
            value = asked.look_up(map, step.key, step.part)
            if isinstance(value, NoAnswer):
                return None
            if value is not None:
                return value, map.name
    return None


def chosen(
    value: str, name: str, hops: Sequence[NextHop], tls: TlsDemand
) -> NextHop | Destination | Attempt | None:
    """What a value means; None: as if there were none. `hops`: if one of these names the same host, its TLS and its
    password are used; `tls`: the demand on others."""
    transport, colon, rest = value.strip().partition(":")
    rest = rest.strip()
    if not colon:
        return _wrong(value, name)
    if transport in ("error", "retry"):
        return _refusal(transport, rest)
    if transport == "lmtp":
        return _lmtp(rest) or _wrong(value, name)
    if transport not in _SMTP:
        return _wrong(value, name)
    if not rest:
        return None if not transport else NextHop("")
    return _smtp(rest, hops, tls) or _wrong(value, name)


def _smtp(written: str, hops: Sequence[NextHop], tls: TlsDemand) -> NextHop | None:
    found = _HOST.fullmatch(written)
    if found is None or not 0 < int(found[3] or 25) < 65_536:
        return None
    host, port, by_mx = found[1] or found[2], int(found[3] or 25), found[1] is None
    wanted = NextHop("", host.removeprefix("ipv6:").lower(), port, by_mx, tls)
    place = wanted.host, port, by_mx
    for hop in hops:
        if (hop.host.strip("[]").lower(), hop.port, hop.mx) == place:
            return msgspec.structs.replace(hop, domain="", recipients=(), senders=(), accounts=())
    return wanted


def _lmtp(written: str) -> Destination | None:
    if written.startswith("unix:/"):
        path = written.removeprefix("unix:")
        return Destination(f"lmtp:{path}", Transport.LMTP, path=path)
    found = _HOST.fullmatch(written.removeprefix("inet:"))
    if found is None or not 0 < int(found[3] or _LMTP_PORT) < 65_536:
        return None
    host, port = (found[1] or found[2]).lower(), int(found[3] or _LMTP_PORT)
    return Destination(f"lmtp:[{host}]:{port}", Transport.LMTP, host=host, port=port)


def _refusal(transport: str, written: str) -> Attempt:
    found = _STATUS.fullmatch(written)
    status, text = (found[1], found[2]) if found is not None else ("5.0.0", written)
    text = text or "the transport map refuses the recipient"
    if transport == "error":
        return Attempt(Outcome.FAILED, Reach.RECIPIENT, f"5{status[1:]}", text, transport="")
    return Attempt(Outcome.DEFERRED, Reach.RECIPIENT, f"4{status[1:]}", text, transport="")


def _wrong(value: str, name: str) -> Attempt:
    text = f"map {name}: {value[:100]!r} is no transport that this node has (docs/maps.md)"
    return Attempt(Outcome.DEFERRED, Reach.RECIPIENT, "4.3.5", text, transport="")
