"""The simulator bites: with a promise broken on purpose, each in one place, it must find so within a few seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from postroad.check.client import Clients
from postroad.mail.attempt import Outcome
from postroad.mail.event import Attempted
from postroad.node.permits import WorkerPermits
from postroad.queue.queue import Queue
from postroad.report import dsn
from postroad.store.spool import Spool
from postroad.store.values import Waiting

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


def _who_has_ended_is_tried_again(patch: Patch) -> None:
    def change(settlement: Any) -> Any:
        again = tuple(Waiting(place, 1, "r0.test", 1) for place in settlement.ended[:1])
        return msgspec.structs.replace(settlement, ended=settlement.ended[1:], waiting=settlement.waiting + again)

    _settling(patch, change)


def _a_retry_is_never_scheduled(patch: Patch) -> None:
    patch(Queue, "_note_stored", lambda self, shard, key, due_us: None)


def _the_outcome_is_committed_late(patch: Patch) -> None:
    """A minute later: a crash in between brings a duplicate of what was not in flight any more."""
    real = Spool.settle

    def settle(self: Spool, settlement: Any, done: Any) -> None:
        self._loop.call_later(4000.0, real, self, settlement, done)

    patch(Spool, "settle", settle)


def _a_permit_is_never_returned(patch: Patch) -> None:
    patch(WorkerPermits, "release", lambda self, key: None)


def _a_session_is_never_counted_out(patch: Patch) -> None:
    patch(Clients, "left", lambda self, address: None)


def _a_report_to_nobody(patch: Patch) -> None:
    """The null reverse-path is told of failures, as the mailbox of the first recipient."""
    real = dsn.Reporter.make

    def make(self: Any, reports: Any, envelope: Any, content: Any) -> Any:
        if envelope.reverse_path is None:
            envelope = msgspec.structs.replace(envelope, reverse_path=envelope.recipients[0].address)
        return real(self, reports, envelope, content)

    patch(dsn.Reporter, "make", make)


def _everyone_is_told_of_everything(patch: Patch) -> None:
    patch(dsn, "wants", lambda notify, action, *, dsn_passed=False: True)


def _a_refusal_counts_as_delivery(patch: Patch) -> None:
    real = Queue._settle_results

    def settle_results(self: Any, mail: Any, results: Any, *more: Any) -> None:
        changed = [
            (place, msgspec.structs.replace(each, outcome=Outcome.RELAYED) if each.outcome is Outcome.FAILED else each)
            for place, each in results
        ]
        real(self, mail, changed, *more)

    patch(Queue, "_settle_results", settle_results)


def _an_operator_s_hand_is_forgotten(patch: Patch) -> None:
    """What was withdrawn for an operator never comes back to the queue."""
    patch(Queue, "changed", lambda self, number, keys: None)


def _content_is_cut(patch: Patch) -> None:
    real = Spool.accept

    def accept(self: Spool, stored: Any, events: Any, done: Any, *more: Any) -> None:
        content = stored.content[:-2] if isinstance(stored.content, bytes) else stored.content
        real(self, msgspec.structs.replace(stored, content=content), events, done, *more)

    patch(Spool, "accept", accept)


MUTATIONS = [
    _250_before_the_commit, _a_report_is_lost, _no_report_is_made, _an_end_is_not_in_the_history,
    _a_recipient_vanishes, _who_has_ended_is_tried_again, _a_retry_is_never_scheduled, _the_outcome_is_committed_late,
    _a_permit_is_never_returned, _a_session_is_never_counted_out, _a_report_to_nobody,
    _everyone_is_told_of_everything, _a_refusal_counts_as_delivery, _an_operator_s_hand_is_forgotten, _content_is_cut,
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
