"""Destinations, aliases, recipients and other addresses that have to be waited for: a map that is slow, does not
answer, or says "not now".

It stands in front of the real tables of a worker. Some domains are looked up in it, the others are known at once.
Until everything is healed it fails now and then; after that it answers within a second.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from postroad.mail.address import Address
from postroad.mail.envelope import Envelope, Peer, Recipient
from postroad.mail.expansion import Expansion, Passed
from postroad.mail.rewriting import Rewriting
from postroad.mail.routing import Answer, DestinationOf, Found, not_now
from postroad.maps.face import NO_ANSWER, MapSource, NotNow
from postroad.route.rewriting import Rewriter

NOT_NOW = "the map does not answer"


class SlowRoutes:
    """`real`: the tables. `healed()`: whether nothing fails any more."""

    def __init__(self, real: DestinationOf, chance: random.Random, healed: Callable[[], bool]) -> None:
        self._real = real
        self._chance = chance
        self._healed = healed

    def __call__(self, envelope: Envelope, recipient: Recipient) -> Answer:
        return self._real(envelope, recipient) if len(recipient.address.domain) % 2 else self._look(envelope, recipient)

    async def _look(self, envelope: Envelope, recipient: Recipient) -> Found:
        chance, healed = self._chance, self._healed()
        await asyncio.sleep(chance.random() if healed else chance.choice((0.0, 0.01, 0.5, 5.0, 5.0, 30.0, 300.0)))
        if not healed and chance.random() < 0.3:
            return not_now(NOT_NOW)
        found = self._real(envelope, recipient)
        return await found if isinstance(found, Awaitable) else found


class SlowAliases:
    """The same for what is asked while a message comes in: whether a recipient is there, and where aliases lead."""

    def __init__(self, tables: Any, chance: random.Random, healed: Callable[[], bool]) -> None:
        self._known = tables.known
        self._expand = tables.expand
        self._chance = chance
        self._healed = healed

    async def _fails(self) -> bool:
        chance = self._chance
        await asyncio.sleep(chance.choice((0.0, 0.001, 0.05, 0.5, 2.0)))
        return not self._healed() and chance.random() < 0.1

    def known(self, address: Address) -> Any:
        return self._known(address) if len(address.domain) % 3 else self._look(address)

    async def _look(self, address: Address) -> Any:
        if await self._fails():
            return NotNow(NOT_NOW)
        found = self._known(address)
        return await found if isinstance(found, Awaitable) else found

    def expand(self, id: int, now_us: int, recipients: tuple[Recipient, ...], passed: Passed | None = None) -> Any:
        if self._chance.random() < 0.5:
            return self._expand(id, now_us, recipients, passed)
        return self._lead(id, now_us, recipients, passed)

    async def _lead(
        self, id: int, now_us: int, recipients: tuple[Recipient, ...], passed: Passed | None
    ) -> Expansion:
        if await self._fails():
            return Expansion((), not_now=NOT_NOW)
        found = self._expand(id, now_us, recipients, passed)
        return found if isinstance(found, Expansion) else await found  # the table asks itself behind signed senders


class SlowRewriter:
    """The same for the other addresses of a message that comes in."""

    def __init__(self, real: Rewriter, chance: random.Random, healed: Callable[[], bool]) -> None:
        self._real = real
        self._chance = chance
        self._healed = healed
        self.recipient = real.recipient

    def __call__(
        self, peer: Peer, reverse_path: Address | None, recipients: tuple[Recipient, ...], sections: tuple[bytes, ...]
    ) -> Rewriting | Awaitable[Rewriting]:
        if self._chance.random() < 0.5:
            return self._real(peer, reverse_path, recipients, sections)
        return self._ask(peer, reverse_path, recipients, sections)

    async def _ask(
        self, peer: Peer, reverse_path: Address | None, recipients: tuple[Recipient, ...], sections: tuple[bytes, ...]
    ) -> Rewriting:
        await asyncio.sleep(self._chance.choice((0.0, 0.001, 0.05, 0.5, 2.0)))
        if not self._healed() and self._chance.random() < 0.1:
            return Rewriting(reverse_path, recipients, sections, not_now=NOT_NOW)
        found = self._real(peer, reverse_path, recipients, sections)
        return found if isinstance(found, Rewriting) else await found


class SlowDomains:
    """A map of domains of ours, as `maps.face.MapSource`. What it has told is not kept: that is the table's part."""

    waits = True

    def __init__(self, real: MapSource, chance: random.Random, healed: Callable[[], bool]) -> None:
        self._real = real
        self._chance = chance
        self._healed = healed

    def known(self, key: str, part: bool = False) -> Any:
        return NO_ANSWER

    def look_up(self, key: str, part: bool = False) -> Any:
        return self._real.look_up(key, part) if self._chance.random() < 0.3 else self._look(key, part)

    async def _look(self, key: str, part: bool) -> Any:
        await asyncio.sleep(self._chance.choice((0.0, 0.001, 0.05, 0.5, 2.0)))
        if not self._healed() and self._chance.random() < 0.2:
            return NotNow(NOT_NOW)
        return self._real.look_up(key, part)

    def close(self) -> None:
        self._real.close()


def slowed(edition: Any, chance: random.Random, healed: Callable[[], bool]) -> Any:
    """The edition of a worker, whose tables are behind the map; a text that says what is wrong stays as it is."""
    if not isinstance(edition, str):
        tables = edition.tables
        boxes = tables.maps["boxes"]
        if not isinstance(boxes.source, SlowDomains):  # maps go on over a reload
            boxes.source, boxes.waits = SlowDomains(boxes.source, chance, healed), True
        tables.destination = SlowRoutes(tables.destination, chance, healed)
        aliases = SlowAliases(tables, chance, healed)
        tables.known, tables.expand = aliases.known, aliases.expand
        if tables.rewriter is not None:
            tables.rewriter = SlowRewriter(tables.rewriter, chance, healed)
    return edition
