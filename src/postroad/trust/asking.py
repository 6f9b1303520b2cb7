"""Questions to the DNS on behalf of one message, counted and limited. They go through the Resolver that is handed in.

What always holds: one message costs at most `queries_max` queries and `waiting_max_s` seconds in which it waits for
answers, however many checks ask, one after another or side by side. The same question is asked once. What was asked and
answered is kept in its order.

How it fails: it never raises, except when it is cancelled. A question over a limit is not asked; its answer is an ERROR
that names the limit, and `exceeded` has the same text.
"""

from __future__ import annotations

import asyncio
import enum
import ipaddress
from collections.abc import Coroutine
from functools import lru_cache
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from postroad.mail.address import canonical_domain
from postroad.world.dns import DnsAnswer, DnsStatus, MxRecord, Resolver

T = TypeVar("T")
NAME_MAX: Final = 253


class RecordType(enum.Enum):
    TXT = "TXT"
    A = "A"
    AAAA = "AAAA"
    MX = "MX"
    PTR = "PTR"
    CNAME = "CNAME"


class AskingLimits(msgspec.Struct, frozen=True):
    """What one message may cost."""

    queries_max: Annotated[
        int, Meta(ge=1, description="The most DNS queries for one message. Checks that need more fail for a time.")
    ] = 200
    waiting_max_s: Annotated[
        float, Meta(ge=0.1, description="How long one message may wait for answers of the DNS in all.")
    ] = 20.0


class DnsQuestion(msgspec.Struct, frozen=True):
    """One question and its answer. `name`: as it was asked; for PTR the IP address."""

    type: RecordType
    name: str
    answer: DnsAnswer[Any]


class DnsQuestions:
    """The DNS for one message."""

    __slots__ = ("_answers", "_cut", "_loop", "_timer", "_waited_s", "_waiting", "_waits_since", "exceeded", "limits",
                 "log", "queries", "resolver")  # fmt: skip

    def __init__(self, resolver: Resolver, limits: AskingLimits = AskingLimits()) -> None:  # noqa: B008  # frozen
        self.resolver = resolver
        self.limits = limits
        self.log: list[DnsQuestion] = []
        self.queries = 0
        self.exceeded = ""
        self._answers: dict[tuple[RecordType, str], DnsAnswer[Any]] = {}
        self._loop = asyncio.get_running_loop()
        self._waiting: set[asyncio.Task[Any]] = set()  # tasks whose questions are under way
        self._cut: set[asyncio.Task[Any]] = set()  # those for which the time was over
        self._timer: asyncio.TimerHandle | None = None
        self._waited_s = 0.0
        self._waits_since = 0.0

    async def text(self, name: str) -> DnsAnswer[str]:
        return await self._ask(RecordType.TXT, name)

    async def a(self, host: str) -> DnsAnswer[str]:
        return await self._ask(RecordType.A, host)

    async def aaaa(self, host: str) -> DnsAnswer[str]:
        return await self._ask(RecordType.AAAA, host)

    async def mx(self, domain: str) -> DnsAnswer[MxRecord]:
        return await self._ask(RecordType.MX, domain)

    async def reverse(self, address: str) -> DnsAnswer[str]:
        return await self._ask(RecordType.PTR, address)

    async def cname(self, name: str) -> DnsAnswer[str]:
        return await self._ask(RecordType.CNAME, name)

    async def _ask(self, type: RecordType, name: str) -> DnsAnswer[Any]:
        key = (type, name)
        answer = self._answers.get(key)
        if answer is not None:
            return answer
        answer = await self._within_limits(type, name)
        known = self._answers.setdefault(key, answer)
        if known is answer:
            self.log.append(DnsQuestion(type, name, answer))
        return known

    async def _within_limits(self, type: RecordType, name: str) -> DnsAnswer[Any]:
        asked = queried(name)
        if asked is None:
            return DnsAnswer(
                DnsStatus.NXDOMAIN, (), f"{name[:NAME_MAX]} is not a name that the DNS can hold", name=name
            )
        if self.queries >= self.limits.queries_max:
            return self._refused(name, f"this message needs more than {self.limits.queries_max} DNS queries")
        remaining_s = self._remaining_s()
        if remaining_s <= 0:
            return self._late(name)
        self.queries += 1
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        cancelled = task.cancelling()
        self._begin(task, remaining_s)
        try:
            return await self._question(type, asked)
        except asyncio.CancelledError:
            if task in self._cut and task.uncancel() <= cancelled:
                return self._late(name)
            raise
        finally:
            self._end(task)

    def _question(self, type: RecordType, name: str) -> Coroutine[Any, Any, DnsAnswer[Any]]:
        resolver = self.resolver
        match type:
            case RecordType.TXT:
                return resolver.text(name)
            case RecordType.A:
                return resolver.a(name)
            case RecordType.AAAA:
                return resolver.aaaa(name)
            case RecordType.MX:
                return resolver.mx(name)
            case RecordType.PTR:
                return resolver.reverse(name)
            case RecordType.CNAME:
                return resolver.cname(name)

    def _late(self, name: str) -> DnsAnswer[Any]:
        text = f"the DNS queries of this message took longer than {self.limits.waiting_max_s:g} s"
        return self._refused(name, text)

    def _refused(self, name: str, text: str) -> DnsAnswer[Any]:
        self.exceeded = self.exceeded or text
        return DnsAnswer(DnsStatus.ERROR, (), text, name=name)

    # The time counts once for all questions that are under way side by side, and so there is one timer for all.

    def _remaining_s(self) -> float:
        since_s = self._loop.time() - self._waits_since if self._waiting else 0.0
        return self.limits.waiting_max_s - self._waited_s - since_s

    def _begin(self, task: asyncio.Task[Any], remaining_s: float) -> None:
        if not self._waiting:
            self._waits_since = self._loop.time()
            self._timer = self._loop.call_later(remaining_s, self._expire)
        self._waiting.add(task)

    def _expire(self) -> None:
        for task in self._waiting:
            self._cut.add(task)
            task.cancel()

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._cut.discard(task)
        self._waiting.discard(task)
        if not self._waiting:
            self._waited_s += self._loop.time() - self._waits_since
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None


def queried(name: str) -> str | None:
    """The name as a Resolver wants it: lower-case A-labels without a dot at the end. None if there is no such name."""
    if not name.isascii():
        try:
            name = canonical_domain(name)
        except ValueError:
            return None
    name = name.lower().removesuffix(".")
    return name if 0 < len(name) <= NAME_MAX else None


@lru_cache(maxsize=4096)
def client_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An IP address, without its zone; an IPv4-mapped one as the IPv4 address that it means (RFC 7208 §5). None if the
    text is no address."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
