"""The pace of destinations for operators: their connections, and what their mail waits for. Pure, except for asking.

The workers know the scopes of a destination and what its mail waits for; the supervisor knows how full the scopes are.
This module joins both: one row for each destination that is at work or left alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

from postroad.node.frames import Answer, AskPaces, LanePace, Paces, ToWorker
from postroad.node.offices.permits import PermitOffice
from postroad.node.offices.rates import RateOffice
from postroad.operate.requests import Paced
from postroad.queue.pace import UNLIMITED

KEYS_MAX: Final = 10_000

_Answer = TypeVar("_Answer", bound=Answer)


class Ask(Protocol):
    """Ask all workers; each worker's number with its answer, None from one that died or took too long."""

    def __call__(
        self, make: Callable[[int], ToWorker], answer: type[_Answer]
    ) -> Awaitable[list[tuple[int, _Answer | None]]]: ...


class PaceReport:
    """`asked(destinations)`: rows, or a text that says what is wrong."""

    def __init__(self, ask: Ask, office: PermitOffice, rates: RateOffice) -> None:
        self._ask = ask
        self._office = office
        self._rates = rates

    async def asked(self, destination_keys: tuple[str, ...]) -> list[Paced] | str:
        if len(destination_keys) > KEYS_MAX:
            return f"the request names more than {KEYS_MAX} destinations"
        found: dict[str, list[LanePace]] = {}
        for _, answer in await self._ask(lambda question: AskPaces(question, destination_keys), Paces):
            for key, pace in (answer.found if answer is not None else {}).items():
                found.setdefault(key, []).append(pace)
        return [self._row(key, paces) for key, paces in found.items()]

    def _row(self, key: str, paces: list[LanePace]) -> Paced:
        held, window, most = self._office.usage(key)
        # Each worker has found out by itself that the destination cannot be reached: one of them speaks for all.
        longest = max(paces, key=lambda each: each.left_alone_s)
        waits = [text for each in paces if not each.left_alone_s or each is longest for text in self._waits(each)]
        return Paced(
            destination=key,
            connections=held,
            connections_now_max=window,
            connections_max=most,
            in_memory=sum(each.ready for each in paces),
            waits_for="; ".join(dict.fromkeys(waits)),
            because=longest.because or next((each.because for each in paces if each.because), ""),
            doing=tuple(doing for each in paces for doing in each.doing),
            domains=tuple(sorted({domain for each in paces for domain in each.domains})),
        )

    def _waits(self, pace: LanePace) -> list[str]:
        """In words."""
        match pace.waits:
            case "permit":
                full = [text for scope in pace.scopes if (text := self._full(scope))]
                return full[:1]
            case "rate":
                slowest = max(pace.rated, key=self._rates.wait_s)
                wait_s = self._rates.wait_s(slowest)
                return [f"rate of {slowest} ({self._office.limits(slowest).rate} by [[pace]]), next in {wait_s:.1f} s"]
            case "":
                return []
            case text:
                return [text]

    def _full(self, scope: str) -> str:
        held, window, most = self._office.usage(scope)
        if held < window or window >= UNLIMITED:
            return ""
        found = f"limit of {scope}: {held} of {window} connections"
        return found if window == most else f"{found} now, {most} at most"
