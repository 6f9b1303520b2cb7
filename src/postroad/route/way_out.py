"""What is changed of header fields on the way to a next hop (`mail.job.WayOut`): other names of mailboxes, as `generic`
and `generic_maps` of the `[[next_hop]]` have them, and fields that go, change or come.

What always holds: nothing of it is stored; the fields are changed first, then the addresses; only addr-specs change,
and fields that a DKIM or ARC signature covers keep their addresses, unless the settings say otherwise. How it fails:
`not_now` if a map cannot answer, and mail waits.
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial

from postroad.mail.address import Address
from postroad.mail.field_rules import FieldRules
from postroad.mail.job import ChangedHead, WayOut
from postroad.maps.asked import Asked, answered
from postroad.maps.face import NoAnswer, NotNow
from postroad.maps.field_patterns import rules
from postroad.protocol.header_addresses import Spot, replaced, signed, spots
from postroad.route.by_next_hop import ByNextHop
from postroad.route.generic import GenericNames
from postroad.route.options import NextHop, RoutingOptions
from postroad.route.outbound import HopNames
from postroad.route.rewriting import ADDRESSES_MAX


def ways_out(options: RoutingOptions, names: HopNames, *, signed_fields: bool) -> ByNextHop[WayOut] | None:
    """What each next hop has changed; None if none has anything changed."""

    def made(hop: NextHop) -> WayOut | None:
        fields = rules(hop.remove_fields, hop.replace_fields, hop.add_fields)
        own = names.get(hop) if hop.generic_header else None
        return None if fields is None and own is None else _Way(fields, own, signed_fields=signed_fields)

    return ByNextHop(options, made) if any(map(made, options.next_hops)) else None


class _Way:
    """To one next hop."""

    def __init__(self, fields: FieldRules | None, names: GenericNames | None, *, signed_fields: bool) -> None:
        self._fields = fields
        self._names = names
        self._signed_fields = signed_fields

    def __call__(self, head: bytes) -> ChangedHead | Awaitable[ChangedHead]:
        done: tuple[str, ...] = ()
        if self._fields is not None:
            head, done = self._fields.applied(head)
            new, more = self._fields.coming(head)
            head, done = _ended(head) + new, done + more
        if self._names is None:
            return ChangedHead(head, done)
        found = spots(head, frozenset() if self._signed_fields else signed(head))
        if len(found) > ADDRESSES_MAX:
            return ChangedHead(head, done, f"its header has more than {ADDRESSES_MAX} addresses")
        made = answered(partial(self._named, head, found, done))
        return made if isinstance(made, ChangedHead) else _when(head, made)

    def _named(self, head: bytes, found: list[Spot], done: tuple[str, ...], asked: Asked) -> ChangedHead:
        assert self._names is not None
        known: dict[Address, Address | NoAnswer] = {}
        for spot in found:
            if spot.address not in known:
                known[spot.address] = self._names.of(spot.address, asked)
        changes = [
            (spot, name)
            for spot in found
            if not isinstance(name := known[spot.address], NoAnswer) and name != spot.address
        ]
        if not changes:
            return ChangedHead(head, done)
        names = ", ".join(dict.fromkeys(spot.name.decode().title() for spot, _ in changes))
        return ChangedHead(replaced(head, changes), (*done, f"other addresses in {names}"))


def _when(
    head: bytes, made: NotNow | Awaitable[ChangedHead | NotNow]
) -> ChangedHead | Awaitable[ChangedHead]:
    return ChangedHead(head, (), made.text) if isinstance(made, NotNow) else _awaited(head, made)


async def _awaited(head: bytes, pending: Awaitable[ChangedHead | NotNow]) -> ChangedHead:
    made = await pending
    return ChangedHead(head, (), made.text) if isinstance(made, NotNow) else made


def _ended(head: bytes) -> bytes:
    return head if not head or head.endswith(b"\r\n") else head + b"\r\n"
