"""Mailboxes whose paths come from maps (`path_maps`), as virtual_mailbox_maps of Postfix has them.

The value is the path of a recipient's mailbox; without a slash at its beginning it is below `path_base`. With a slash
at its end it is a Maildir, else an mbox file. The keys are the whole address, the address without its extension, and
``@domain``. What always holds: a mailbox whose name has a slash has no path, so that a value that a pattern or a query
makes of a name never leads into another mailbox (``ada/.Sent``); equal keys mean equal destinations, so each path is a
destination of its own, in each domain that has it.

How it fails: a map that cannot answer, or a value that is no path, is `not_now`: the mail waits. A recipient without a
value is delivered to `path` of its domain, or fails (5.1.1) if there is none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import msgspec

from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.route import Destination, Transport
from postroad.mail.routing import Answer, DestinationOf, Found, not_now
from postroad.maps.asked import Asked, Known, answered
from postroad.maps.face import NO_ANSWER, Map, NotNow
from postroad.maps.steps import address_steps, whole_domain_step
from postroad.route.later import Later
from postroad.route.options import LocalDomain, RoutingOptions

_HERE: Final = (Transport.MAILDIR, Transport.MBOX)
_SHOWN_MAX: Final = 100  # characters of a value in a text


class PathRoute:
    """Destinations by `route`, with the paths of mailboxes by map (`mail.routing.DestinationOf`)."""

    def __init__(
        self, options: RoutingOptions, named: Callable[[tuple[str, ...]], tuple[Map, ...]], route: DestinationOf
    ) -> None:
        tables = (each for each in (*options.local, *options.mapped_local) if each.path_maps)
        self._tables = {each.table or each.name: (each, named(each.path_maps)) for each in tables}
        self._delimiter = options.detail_delimiter
        self._route = route

    def __call__(self, envelope: Envelope, recipient: Recipient) -> Answer:
        found = self._route(envelope, recipient)
        if isinstance(found, Destination):
            return self._placed(found, recipient)
        return found if isinstance(found, Attempt) else Later(partial(self._wait, found, recipient))

    async def _wait(self, pending: Awaitable[Found], recipient: Recipient) -> Found:
        found = await pending
        placed = self._placed(found, recipient) if isinstance(found, Destination) else found
        return placed if isinstance(placed, Destination | Attempt) else await placed

    def _placed(self, destination: Destination, recipient: Recipient) -> Answer:
        table = self._tables.get(destination.rules.table or destination.domain)
        if table is None or recipient.destination is not None or destination.transport not in _HERE:
            return destination
        known = Known()
        value = self._value(recipient.address, table[1], known)
        if not known.stopped:
            return _at(destination, table[0], value)
        if known.not_now is not None:
            return _unknown(known.not_now)
        return Later(partial(self._ask, destination, recipient.address, *table))

    async def _ask(
        self, destination: Destination, address: Address, table: LocalDomain, maps: tuple[Map, ...]
    ) -> Found:
        found = answered(partial(self._value, address, maps))
        value = found if found is None or isinstance(found, str | NotNow) else await found
        return _unknown(value) if isinstance(value, NotNow) else _at(destination, table, value)

    def _value(self, address: Address, maps: tuple[Map, ...], asked: Asked) -> str | None:
        if "/" in address.local_part:
            return None
        steps = address_steps(address.local_part, address.domain, self._delimiter)
        whole = (step for step in steps if "@" in step.key)
        found = asked.first((*whole, whole_domain_step(address.domain)), maps)
        return None if found is None or found is NO_ANSWER else found[0]


def _unknown(answer: NotNow) -> Attempt:
    return not_now(f"the path of its mailbox is not known: {answer.text}")


def mailbox_path(value: str, base: str) -> str:
    """The whole path that a value of a map means, "" if it means none. `base`: path_base of the domain."""
    path = value.strip()
    whole = path if path.startswith("/") else f"{base.rstrip('/')}/{path}" if base else ""
    parts = whole.strip("/").split("/")
    if not path or "{" in path or not path.isprintable() or any(part in ("", ".", "..") for part in parts):
        return ""
    return whole


def _at(destination: Destination, table: LocalDomain, value: str | None) -> Found:
    if value is None:
        if table.path:
            return destination
        return Attempt(Outcome.FAILED, Reach.RECIPIENT, "5.1.1", "no such user here: no map has a path for it")
    whole = mailbox_path(value, table.path_base)
    if not whole:
        return not_now(f"{value[:_SHOWN_MAX]!r} is not the path of a mailbox")
    kind = Transport.MAILDIR if whole.endswith("/") else Transport.MBOX
    # Another domain, or an alias that names the same file, may have other limits and another user.
    key = f"{kind.value}:{destination.domain}:{whole.rstrip('/')}"
    return msgspec.structs.replace(destination, key=key, transport=kind, path=whole.rstrip("/"))
