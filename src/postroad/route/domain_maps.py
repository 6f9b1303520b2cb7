"""Domains whose names come from maps (`domain_maps`): which of them are ours, and which we relay for.

A `[[domain]]` or a `[[relay.domain]]` with `domain_maps` serves every domain that is a key there; the value does not
matter. A table that names the domain itself counts first, then local tables, then relay domains.

Many places ask at once whether a domain is local, and a map may make them wait. So a domain is made *known* first:

- Who begins (RCPT, a question about aliases, a destination) calls `make_known`, waits if it must, and goes on at once.
- What is known is kept for `KEPT_S`, so that all who ask in between get the same answer, from a dictionary. What was
  asked within the last second is in `fresh`, too, where it costs no look at the clock.
- A question of `maps.asked` needs no `make_known`: `during` has all look-ups of domains belong to the question.

What always holds: a map that cannot answer is NotNow, and the mail waits; a domain is never taken for a foreign one
because a map cannot answer. What is kept is bounded. `changed` hears of each domain whose answer is another one than
before, or is not known any more.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeVar

import msgspec

from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.route import Destination
from postroad.mail.routing import Answer, DestinationOf, Found, not_now
from postroad.maps.asked import Asked, answered
from postroad.maps.face import NO_ANSWER, Map, NoAnswer, NotNow
from postroad.maps.fresh import FRESH_S, FreshAnswers
from postroad.maps.steps import KeyStep, domain_steps
from postroad.route.later import Later
from postroad.route.options import LocalDomain, RelayDomain, RoutingOptions

T = TypeVar("T")

KEPT_S: Final = 10.0  # how long the answer for a domain is used again
KEPT_MAX: Final = 100_000  # domains whose answers are kept
_NAME_MAX: Final = 255  # characters of a domain that is looked up

Table = LocalDomain | RelayDomain


class _Peek(Asked):
    """For who cannot wait: the answers that are there. It leaves no trace."""

    __slots__ = ()

    def look_up(self, map: Map, key: str, part: bool = False) -> str | NoAnswer | None:
        if map.waits and asyncio._get_running_loop() is None:
            return NO_ANSWER
        found = map.known(key, part) if map.waits else map.look_up(key, part)
        return found if found is None or isinstance(found, str) else NO_ANSWER


def _clock() -> Callable[[], float]:
    """Tells the time of the loop. Where there is none, as while settings are checked, nothing grows old."""
    loop = asyncio._get_running_loop()
    return _never if loop is None else loop.time


def _never() -> float:
    return 0.0


def _now() -> float:
    return _clock()()


_PEEK: Final = _Peek()


class KnownDomain(msgspec.Struct, frozen=True):
    """What a domain is, until it is asked again."""

    table: Table | None
    until: float
    is_local: bool


class MappedDomains:
    """The tables with maps, each with its maps."""

    def __init__(
        self,
        local: Sequence[tuple[LocalDomain, tuple[Map, ...]]],
        relay: Sequence[tuple[RelayDomain, tuple[Map, ...]]],
    ) -> None:
        self._local = tuple(local)
        self._relay = tuple(relay)
        self._asked: Asked = _PEEK
        self._now = _now  # the time of the loop itself, once there is one
        self._kept: OrderedDict[str, KnownDomain] = OrderedDict()
        self.fresh: FreshAnswers[str, KnownDomain] = FreshAnswers(KEPT_MAX)
        self.changed: list[Callable[[str], None]] = []

    def find(self, domain: str) -> Table | None:
        """The table that serves a domain: a local one bears the domain's name. None also if the answer is missing:
        within `during` the question is then asked again; all others have made the domain known."""
        fresh = self.fresh.get(domain)
        if fresh is not None:
            return fresh.table
        kept = self._kept.get(domain)
        return kept.table if kept is not None and self._is_valid(domain, kept) else self._found(domain, kept)

    def is_local(self, domain: str) -> bool:
        """Whether `find` finds a local table. Who asks many times looks into `fresh` first."""
        return isinstance(self.find(domain), LocalDomain)

    def _is_valid(self, domain: str, kept: KnownDomain) -> bool:
        left_s = kept.until - self._now()
        if left_s > FRESH_S:
            self.fresh.keep(domain, kept)
        return left_s > 0

    def _found(self, domain: str, kept: KnownDomain | None) -> Table | None:
        clock = _clock()
        if clock is not _never:
            self._now = clock
        now = clock()
        found = self._look_up(domain, self._asked)
        if isinstance(found, NoAnswer):
            return None if kept is None else kept.table
        self._keep(domain, found, kept, now)
        return found

    def during(self, asked: Asked, question: Callable[[Asked], T]) -> T:
        """The answer to a question; all domains that must be looked up for it are looked up by `asked`."""
        before, self._asked = self._asked, asked
        try:
            return question(asked)
        finally:
            self._asked = before

    def answered(self, question: Callable[[Asked], T]) -> T | NotNow | Awaitable[T | NotNow]:
        """The answer to a question, as of `maps.asked.answered`, with the domains that it needs."""
        return answered(lambda asked: self.during(asked, question))

    def is_known(self, domain: str) -> bool:
        """Whether `find` knows the answer now; nothing is begun."""
        if self.fresh.get(domain) is not None:
            return True
        kept = self._kept.get(domain)
        if kept is None or not self._is_valid(domain, kept):
            self.during(_PEEK, lambda asked: self.find(domain))
            kept = self._kept.get(domain)
        return kept is not None and self._now() < kept.until

    def make_known(self, domain: str) -> NotNow | Awaitable[NotNow | None] | None:
        """Have `find` know the answer: None if it does, NotNow if nobody can tell, else an awaitable of these."""
        if self.is_known(domain):
            return None
        return answered(partial(self._ask, domain))

    def _ask(self, domain: str, asked: Asked) -> None:
        self.during(asked, lambda asked: self.find(domain))

    def _look_up(self, domain: str, asked: Asked) -> Table | NoAnswer | None:
        if len(domain) > _NAME_MAX:
            return None
        for local, maps in self._local:
            found = asked.first((KeyStep("domain", domain),), maps)
            if found is NO_ANSWER:
                return NO_ANSWER
            if found is not None:
                return msgspec.structs.replace(local, name=domain)
        for relay, maps in self._relay:
            found = asked.first(domain_steps(domain, part=False), maps)
            if found is NO_ANSWER:
                return NO_ANSWER
            if found is not None:
                return relay
        return None

    def _keep(self, domain: str, table: Table | None, before: KnownDomain | None, now: float) -> None:
        kept = self._kept[domain] = KnownDomain(table, now + KEPT_S, isinstance(table, LocalDomain))
        self.fresh.keep(domain, kept)
        self._kept.move_to_end(domain)
        if before is None or before.table != table:
            self._tell(domain)
        if len(self._kept) > KEPT_MAX:
            oldest = self._kept.popitem(last=False)[0]
            self.fresh.forget(oldest)
            self._tell(oldest)

    def _tell(self, domain: str) -> None:
        for each in self.changed:
            each(domain)


def mapped_domains(
    options: RoutingOptions, named: Callable[[tuple[str, ...]], tuple[Map, ...]]
) -> MappedDomains | None:
    """The domains whose names come from maps; None if there are none. `named`: the maps of these names."""
    if not options.mapped_local and not options.mapped_relay:
        return None
    return MappedDomains(
        [(each, named(each.domain_maps)) for each in options.mapped_local],
        [(each, named(each.domain_maps)) for each in options.mapped_relay],
    )


class KnownRoute:
    """Destinations by `route`, once the domain of the recipient is known (`mail.routing.DestinationOf`)."""

    def __init__(
        self, domains: MappedDomains, is_mapped: Callable[[str], bool], route: DestinationOf, *,
        with_sender: bool = False,
    ) -> None:
        """`is_mapped`: whether maps are asked for a domain at all. `with_sender`: the domain of the sender is known,
        too: who signs senders, or gives them other names, asks for it when the mail goes out."""
        self._domains = domains
        self._is_mapped = is_mapped
        self._route = route
        self._with_sender = with_sender

    def __call__(self, envelope: Envelope, recipient: Recipient) -> Answer:
        if recipient.destination is not None or (
            self._is_known(recipient.address.domain)
            and (not self._with_sender or envelope.reverse_path is None or self._is_known(envelope.reverse_path.domain))
        ):
            return self._route(envelope, recipient)
        return Later(partial(self._wait, envelope, recipient))

    def _is_known(self, domain: str) -> bool:
        return not self._is_mapped(domain) or self._domains.is_known(domain)

    async def _wait(self, envelope: Envelope, recipient: Recipient) -> Found:
        domains = [recipient.address.domain]
        if self._with_sender and envelope.reverse_path is not None:
            domains.append(envelope.reverse_path.domain)
        for domain in filter(self._is_mapped, domains):
            pending = self._domains.make_known(domain)
            answer = pending if pending is None or isinstance(pending, NotNow) else await pending
            if answer is not None:
                return not_now(f"whether the domain {domain} is ours is not known: {answer.text}")
        found = self._route(envelope, recipient)
        return found if isinstance(found, Destination | Attempt) else await found
