"""What an operator reads of a destination's pace: connections, and which limit or rate its mail waits for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from postroad.node.frames import AskPaces, LanePace, Paces
from postroad.node.offices.pacing import KEYS_MAX, PaceReport
from postroad.node.offices.permits import PermitOffice
from postroad.node.offices.rates import RateOffice
from postroad.operate.requests import Doing, Paced
from postroad.queue.pace import UNLIMITED, Rate, ScopeLimits

_LIMITS = {
    "own": ScopeLimits(20, 5), "provider": ScopeLimits(3, 3), "any": ScopeLimits(UNLIMITED, UNLIMITED),
    "slow": ScopeLimits(UNLIMITED, UNLIMITED, Rate(1, 60.0)),
    "slower": ScopeLimits(UNLIMITED, UNLIMITED, Rate(1, 600.0)),
}  # fmt: skip


def _told(waits: str, scopes: tuple[str, ...] = ("own",), rated: tuple[str, ...] = (), **more: Any) -> LanePace:
    return LanePace(scopes, rated, ready=2, waits=waits, **{"domains": ("example.org",), **more})


_DOING = Doing("", "looks up the hosts")


class _Node:
    """The two offices; `answers` are what the workers say."""

    def __init__(self, *answers: dict[str, LanePace] | None) -> None:
        self.permits = PermitOffice(lambda scope: _LIMITS[scope], lambda worker, frame: None)
        self.rates = RateOffice(lambda scope: _LIMITS[scope], lambda worker, frame: None, lambda: 1000.0,
                                lambda seconds, work: None)  # fmt: skip
        self._answers = answers
        self.report = PaceReport(self._ask, self.permits, self.rates)

    async def _ask(self, make: Callable[[int], Any], answer: type[Any]) -> list[tuple[int, Any]]:
        assert make(7) == AskPaces(7, ("own",)) and answer is Paces
        return [(number, None if found is None else Paces(7, found)) for number, found in enumerate(self._answers)]

    async def row(self) -> Paced:
        rows = await self.report.asked(("own",))
        assert isinstance(rows, list)
        [row] = rows
        return row


async def test_workers_are_added_up_and_reasons_stand_once() -> None:
    first = _told("", because="no route", doing=(_DOING,), domains=("b.example",))
    row = await _Node({"own": first}, None, {"own": _told("limit of this worker", doing=(_DOING,))},
                      {"own": _told("limit of this worker")}).row()  # fmt: skip
    assert (row.connections, row.connections_now_max, row.connections_max) == (0, 5, 20)
    assert row.in_memory == 6
    assert row.waits_for == "limit of this worker"
    assert row.because == "no route" and row.doing == (_DOING, _DOING)
    assert row.domains == ("b.example", "example.org")


async def test_a_back_off_is_told_once_however_many_workers_have_it() -> None:
    """Each has found out by itself, a moment earlier or later: the one that waits the longest."""
    waits = {50.2: "back-off after 1 failure in a row", 80.0: "back-off after 2 failures in a row, 80 s more"}
    told = [{"own": _told(text, left_alone_s=left_s, because=text[:20])} for left_s, text in waits.items()]
    row = await _Node(*told, {"own": _told("limit of this worker")}).row()
    assert row.waits_for == "back-off after 2 failures in a row, 80 s more; limit of this worker"


async def test_a_permit_names_the_first_scope_that_is_full() -> None:
    node = _Node({"own": _told("permit", ("own", "provider", "any"))})
    assert (await node.row()).waits_for == "", "nothing is full: the answer is on its way"
    node.permits.ask(0, ("provider",), 3)
    assert (await node.row()).waits_for == "limit of provider: 3 of 3 connections"
    node.permits.ask(0, ("own",), 5)
    assert (await node.row()).waits_for == "limit of own: 5 of 5 connections now, 20 at most"


async def test_a_rate_names_the_one_that_takes_longest() -> None:
    node = _Node({"own": _told("rate", rated=("slow", "slower"))})
    for scope in ("slow", "slower"):
        node.rates.ask(0, scope, (scope,), 50)
    said = (await node.row()).waits_for
    assert said.startswith("rate of slower (") and "by [[pace]]), next in " in said


async def test_too_many_destinations_are_refused() -> None:
    said = await _Node().report.asked(("x",) * (KEYS_MAX + 1))
    assert said == f"the request names more than {KEYS_MAX} destinations"
