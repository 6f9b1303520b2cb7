"""Pauses and lifetimes of a destination's own, and routes that hold mail until an operator releases it."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.event import Attempted, Held
from postroad.mail.route import Destination, Retry
from postroad.mail.routing import Answer, held
from tests.unit.queue.fakes import DEAD, DEFERRED, RELAYED, World

HOUR = 3600.0
DAY = 24 * HOUR


def with_retry(world: World, **retries: Retry) -> None:
    """`x`: the destination x.example."""
    usual = world.destination_of

    def destination_of(envelope: Envelope, recipient: Recipient) -> Answer:
        found = usual(envelope, recipient)
        assert isinstance(found, Destination)
        retry = retries.get(found.domain.partition(".")[0])
        return found if retry is None else msgspec.structs.replace(found, retry=retry)

    world.queue.destination_of = destination_of


def pauses_s(world: World, name: str) -> list[float]:
    at = [each.at_us for each in world.spool.events if isinstance(each, Attempted) and name in each.recipients]
    return [(later - earlier) / 1e6 for earlier, later in pairwise(at)]


def test_a_destination_has_pauses_and_lifetimes_of_its_own() -> None:
    world = World(retry_jitter=0.0, delay_notice_s=0.0)
    with_retry(world, x=Retry(60.0, 120.0, lifetime_s=2 * HOUR))
    world.answer = lambda job, index: DEFERRED if job.envelope.reverse_path else RELAYED
    number = world.accept("a@x.example", "b@y.example")
    world.run(3 * HOUR)
    assert pauses_s(world, "a@x.example")[:3] == pytest.approx([60.0, 102.0, 120.0], abs=1.0)
    assert pauses_s(world, "b@y.example")[:2] == pytest.approx([300.0, 510.0], abs=1.0)
    assert [(report[0], report[1], report[2]) for report in world.reports] == [(number, ("a@x.example",), False)]
    assert list(world.spool.rows[number] or ()) == [1], "the other one waits as all mail"


def test_reports_have_a_lifetime_of_their_own_there() -> None:
    world = World(delay_notice_s=0.0)
    with_retry(world, x=Retry(lifetime_dsn_s=HOUR))
    world.answer = lambda job, index: DEFERRED
    world.accept("a@x.example", sender=None)
    world.run(2 * HOUR)
    assert not world.spool.messages


def test_a_delay_is_told_when_the_destination_says() -> None:
    world = World()
    with_retry(world, x=Retry(delay_notice_s=HOUR))
    world.answer = lambda job, index: DEFERRED if job.envelope.reverse_path else RELAYED
    number = world.accept("a@x.example")
    world.run(HOUR + 120)
    assert [(report[0], report[2]) for report in world.reports] == [(number, True)]


def test_a_destination_that_cannot_be_reached_is_left_alone_no_longer_than_its_longest_pause() -> None:
    world = World(retry_jitter=0.0, delay_notice_s=0.0)
    with_retry(world, x=Retry(30.0, 30.0))
    world.dead["x.example"] = DEAD
    world.accept("a@x.example")
    world.run(10 * 60)
    assert len(pauses_s(world, "a@x.example")) >= 8
    assert max(pauses_s(world, "a@x.example")) <= 61.0


def test_a_reload_changes_the_lifetime_of_waiting_mail_from_its_next_attempt_on() -> None:
    world = World(delay_notice_s=0.0)
    with_retry(world, x=Retry(lifetime_s=4 * DAY))
    world.answer = lambda job, index: DEFERRED if job.envelope.reverse_path else RELAYED
    world.accept("a@x.example")
    world.run(6 * HOUR)
    assert not world.reports
    world.queue.take(world.options, world.queue.destination_of, world.pace_table())
    with_retry(world, x=Retry(lifetime_s=HOUR))
    world.run(5 * HOUR)
    assert len(world.reports) == 1


# ---- routes that hold


class Holding:
    """Holds all mail for x.example, at once or after a while; mail that was released goes there."""

    def __init__(self, world: World, *, waits: bool = False) -> None:
        self.on, self.waits, self.asked = True, waits, 0
        self._usual = world.destination_of
        world.queue.destination_of = self

    def __call__(self, envelope: Envelope, recipient: Recipient) -> Answer:
        answer = self._usual(envelope, recipient)
        if self.on and recipient.address.domain == "x.example" and not recipient.released:
            answer = held("until the audit is done")
        return self._later(answer) if self.waits else answer

    async def _later(self, answer: Any) -> Any:
        self.asked += 1
        await asyncio.sleep(0.1)
        return answer


@pytest.mark.parametrize("waits", [False, True])
def test_mail_that_its_route_holds_waits_until_it_is_released(waits: bool) -> None:
    world = World()
    Holding(world, waits=waits)
    number = world.accept("a@x.example", "b@y.example")
    world.run(5)
    assert world.arrivals(number) == [1]
    rows = world.spool.rows[number]
    assert rows is not None and rows[0].held and rows[0].text == "until the audit is done"
    [event] = [each for each in world.spool.events if isinstance(each, Held)]
    assert event.recipients == ("a@x.example",) and event.text == "until the audit is done"
    world.run(10 * DAY)
    assert world.arrivals(number) == [1] and not world.reports, "held mail does not expire"
    assert world.queue.withdraw(number) == ()
    rows[0] = msgspec.structs.replace(rows[0], held=False, released=True, due_us=world.clock.now_us())
    world.queue.changed(number, [rows[0].destination])
    world.run(5)
    assert world.arrivals(number) == [0, 1] and not world.spool.messages


def test_released_mail_that_is_deferred_is_not_held_again() -> None:
    world = World(lifetime_s=30 * DAY)
    Holding(world)
    number = world.accept("a@x.example")
    world.run(1)
    answers = iter([DEFERRED, DEFERRED, RELAYED])
    world.answer = lambda job, index: next(answers)
    rows = world.spool.rows[number]
    assert rows is not None
    world.queue.withdraw(number)
    rows[0] = msgspec.structs.replace(rows[0], held=False, released=True, due_us=world.clock.now_us())
    world.queue.changed(number, [rows[0].destination])
    world.run(2 * HOUR)
    assert world.arrivals(number) == [0]
