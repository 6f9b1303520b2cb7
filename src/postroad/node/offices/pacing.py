"""What an operator is told of the pace of destinations: their connections, and what they wait for. Pure but for asking.

The workers know which scopes a destination stands in and what its mail waits for, the supervisor how full the scopes
are; put together here, one row for each destination that is at work or left alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from postroad.node.offices.permits import PermitOffice
from postroad.node.offices.rates import RateOffice
from postroad.queue.pace import UNLIMITED

KEYS_MAX: Final = 10_000

Ask = Callable[..., Awaitable[list[tuple[int, Any]]]]


class PaceReport:
    """`asked(destinations)`: rows, or a text that says what is wrong."""

    def __init__(self, ask: Ask, office: PermitOffice, rates: RateOffice) -> None:
        self._ask = ask
        self._office = office
        self._rates = rates

    async def asked(self, keys: Any) -> list[dict[str, Any]] | str:
        if not isinstance(keys, list) or len(keys) > KEYS_MAX or not all(isinstance(key, str) for key in keys):
            return f"the request is no list of at most {KEYS_MAX} destinations"
        found: dict[str, list[dict[str, Any]]] = {}
        for _, answer in await self._ask("pace", keys):
            for key, told in (answer or {}).items():
                found.setdefault(key, []).append(told)
        return [self._row(key, told) for key, told in found.items()]

    def _row(self, key: str, told: list[dict[str, Any]]) -> dict[str, Any]:
        held, window, most = self._office.usage(key)
        waits = [text for each in told for text in self._waits(each)]
        return {
            "destination": key,
            "connections": held,
            "connections_now_max": window,
            "connections_max": most,
            "in_memory": sum(each["ready"] for each in told),
            "waits_for": "; ".join(dict.fromkeys(waits)),
            "because": next((each["because"] for each in told if each["because"]), ""),
            "doing": [doing for each in told for doing in each["doing"]],
            "domains": sorted({domain for each in told for domain in each["domains"]}),
        }

    def _waits(self, told: dict[str, Any]) -> list[str]:
        """In words."""
        match told["waits"]:
            case "permit":
                full = [text for scope in told["scopes"] if (text := self._full(scope))]
                return full[:1]
            case "rate":
                slowest = max(told["rated"], key=self._rates.wait_s)
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
