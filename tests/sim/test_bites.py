"""The simulator bites: with a promise broken on purpose, each in one place, it must find so within a few seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from postroad.mail.event import Attempted
from postroad.report import dsn
from postroad.store.spool import Spool

from . import plan as plans
from .house import simulate

Patch = Callable[[Any, str, Any], None]
SEEDS = range(1, 13)


def _250_before_the_commit(patch: Patch) -> None:
    real = Spool.accept

    def accept(self: Spool, stored: Any, events: Any, done: Any, *more: Any) -> None:
        self._loop.call_soon(done, None)
        real(self, stored, events, lambda failure: None, *more)

    patch(Spool, "accept", accept)


def _a_report_is_lost(patch: Patch) -> None:
    real = dsn.Reporter.__call__

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        _, events = real(self, *arguments, **named)
        return (), events

    patch(dsn.Reporter, "__call__", call)


def _no_report_is_made(patch: Patch) -> None:
    patch(dsn.Reporter, "__call__", lambda self, *arguments, **named: ((), ()))


def _settling(patch: Patch, change: Callable[[Any], Any]) -> None:
    real = Spool.settle
    patch(Spool, "settle", lambda self, settlement, done: real(self, change(settlement), done))


def _an_end_is_not_in_the_history(patch: Patch) -> None:
    def change(settlement: Any) -> Any:
        kept = tuple(each for each in settlement.events if not isinstance(each, Attempted) or each.next_us)
        return msgspec.structs.replace(settlement, events=kept)

    _settling(patch, change)


def _a_recipient_vanishes(patch: Patch) -> None:
    """Deferred once, it is gone."""

    def change(settlement: Any) -> Any:
        ended = (*settlement.ended, *(row.index for row in settlement.waiting if row.attempts == 1))
        waiting = tuple(row for row in settlement.waiting if row.attempts != 1)
        return msgspec.structs.replace(settlement, ended=ended, waiting=waiting)

    _settling(patch, change)


MUTATIONS = [
    _250_before_the_commit, _a_report_is_lost, _no_report_is_made, _an_end_is_not_in_the_history,
    _a_recipient_vanishes,
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__.strip("_"))
def test_a_broken_promise_is_found(mutation: Callable[[Patch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    mutation(monkeypatch.setattr)
    for seed in _seeds_with_much(SEEDS):
        if simulate(seed.seed, made=seed).ledger.faults:
            return
    raise AssertionError(f"{mutation.__name__} was not found in {len(SEEDS)} seeds")


def _seeds_with_much(seeds: range) -> list[plans.Plan]:
    """Short runs with faults of all kinds, so that each promise is under strain."""
    return [
        dataclasses.replace(
            plans.plan(seed, days=0.5), workers=1 + seed % 2, messages=18, trouble=0.3, dns=seed % 2 == 0, crashes=6,
            power_cuts=0, disk=2 if seed % 3 == 0 else 0, operators=8, jumps=0, lifetime_days=0.2, tls=False,
        )
        for seed in seeds
    ]  # fmt: skip
