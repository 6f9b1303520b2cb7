"""The names of one next hop for mailboxes: `generic` and `generic_maps` of a `[[next_hop]]`, as generic(5) has them.

The order is: the mailbox with its address extension, the mailbox without it, then ``@domain``; first in `generic`, then
in the maps. A result ``@domain`` keeps the local-part as it was written.

What always holds: `of` is a function of what it looks up. A map may have to be waited for: that is done before the mail
is handed to a connection (`Naming`), and for header fields on the connection (`route.way_out`). What was found is kept,
so that `at_once` knows it when the connection takes the mail up.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Iterable
from functools import partial
from typing import Final

from postroad.mail.address import Address
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.route import Destination
from postroad.mail.routing import Answer, Found, not_now
from postroad.maps.asked import Asked, Known, answered
from postroad.maps.face import NoAnswer, NotNow
from postroad.route.by_next_hop import ByNextHop
from postroad.route.choosing import mailboxes
from postroad.route.later import Later
from postroad.route.options import Generic
from postroad.route.rewriting import AddressMaps

_KEPT_MAX: Final = 10_000  # names that are kept for one next hop


class GenericNames:
    """Those of one next hop."""

    def __init__(self, entries: Iterable[Generic], delimiter: str, maps: AddressMaps | None = None) -> None:
        self._delimiter = delimiter
        self._names = {entry.pattern: entry.result for entry in entries}
        self._maps = maps
        self._kept: OrderedDict[Address, Address] = OrderedDict()
        self.has_maps = maps is not None
        self.waits = maps is not None and maps.waits

    def of(self, address: Address, asked: Asked) -> Address | NoAnswer:
        """The name of a mailbox at the next hop."""
        for name in (*mailboxes(address, self._delimiter), f"@{address.domain}"):
            found = self._names.get(name)
            if found is not None:
                return found if found.local_part else Address(address.local_part, found.domain)
        return address if self._maps is None else self._maps.of(address, asked)

    def at_once(self, address: Address) -> Address | NotNow:
        """The same without waiting."""
        asked = Known()
        found = self.of(address, asked)
        if not isinstance(found, NoAnswer):
            return found
        kept = self._kept.get(address)
        return kept if kept is not None else asked.not_now or NotNow(f"the name of <{address}> has to be asked for")

    def keep(self, address: Address, name: Address) -> None:
        self._kept[address] = name
        self._kept.move_to_end(address)
        if len(self._kept) > _KEPT_MAX:
            self._kept.popitem(last=False)


class Naming:
    """Has the names of sender and recipient asked for before mail is handed to a destination whose maps take time."""

    def __init__(self, tables: ByNextHop[GenericNames]) -> None:
        self._tables = tables

    def asked(self, envelope: Envelope, recipient: Recipient, found: Answer) -> Answer:
        """The destination that was found, once its names are there; a deferral if they cannot be had."""
        if isinstance(found, Destination):
            return self._ask(envelope, recipient, found)
        return found if not isinstance(found, Awaitable) else Later(partial(self._behind, envelope, recipient, found))

    async def _behind(self, envelope: Envelope, recipient: Recipient, pending: Awaitable[Found]) -> Found:
        found = await pending
        answer = self._ask(envelope, recipient, found) if isinstance(found, Destination) else found
        return await answer if isinstance(answer, Awaitable) else answer

    def _ask(self, envelope: Envelope, recipient: Recipient, destination: Destination) -> Answer:
        names = self._tables.of(destination)
        if names is None or not names.waits:
            return destination
        sender = envelope.reverse_path
        wanted = (recipient.address,) if sender is None else (sender, recipient.address)
        made = answered(partial(_question, names, wanted))
        if isinstance(made, Awaitable):
            return Later(partial(_later, names, wanted, destination, made))
        return _named(names, wanted, destination, made)


def _question(names: GenericNames, wanted: tuple[Address, ...], asked: Asked) -> tuple[Address, ...]:
    found = [names.of(address, asked) for address in wanted]
    return tuple([address for address in found if not isinstance(address, NoAnswer)])


async def _later(
    names: GenericNames, wanted: tuple[Address, ...], destination: Destination,
    pending: Awaitable[tuple[Address, ...] | NotNow],
) -> Found:
    return _named(names, wanted, destination, await pending)


def _named(
    names: GenericNames, wanted: tuple[Address, ...], destination: Destination, made: tuple[Address, ...] | NotNow
) -> Found:
    if isinstance(made, NotNow):
        return not_now(made.text)
    for address, name in zip(wanted, made, strict=True):
        names.keep(address, name)
    return destination
