"""Recipients whose destination must be waited for: answers that come late, not at all, or break."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.event import Noted
from postroad.mail.route import Destination
from postroad.mail.routing import Answer, Found, not_now
from postroad.queue import awaiting
from postroad.queue.status import LOOKED_UP
from tests.unit.queue.fakes import DEFERRED, RELAYED, World

HOUR = 3600.0


@pytest.fixture(autouse=True)
def _everything_is_awaited_or_let_go() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


class Looked(World):
    """Destinations of the domains ``slow*`` are looked up: `took` seconds each, or `find` says what comes of it."""

    def __init__(self, **options: Any) -> None:
        self.took = 1.0
        self.find: Callable[[Envelope, Recipient], Found] = self._found
        self.looked: list[str] = []
        self.at_once = self.at_once_most = 0
        super().__init__(**options)

    def destination_of(self, envelope: Envelope, recipient: Recipient) -> Answer:
        if not recipient.address.domain.startswith("slow"):
            return super().destination_of(envelope, recipient)
        return self._look(envelope, recipient)

    async def _look(self, envelope: Envelope, recipient: Recipient) -> Found:
        self.looked.append(str(recipient.address))
        self.at_once += 1
        self.at_once_most = max(self.at_once_most, self.at_once)
        try:
            await asyncio.sleep(self.took)
        finally:
            self.at_once -= 1
        return self.find(envelope, recipient)

    def _found(self, envelope: Envelope, recipient: Recipient) -> Found:
        found = super().destination_of(envelope, recipient)
        assert isinstance(found, Destination | Attempt)
        return found

    def rows(self, number: int) -> list[tuple[str, str, str]]:
        return [(row.destination, row.status, row.text) for row in (self.spool.rows[number] or {}).values()]


def test_an_answer_that_comes_later_holds_nobody_else_back() -> None:
    world = Looked()
    slow, fast = world.accept("a@slow.example", "b@x.example"), world.accept("c@x.example")
    world.run(0.5)
    assert world.arrivals(slow) == [1] and world.arrivals(fast) == [0]
    assert world.rows(slow) == [("", "", "")]  # the first settlement has named it, without a destination
    world.run(1)
    assert world.arrivals(slow) == [0, 1] and not world.spool.messages and len(world.looked) == 1


def test_recipients_of_one_message_go_by_one_transaction() -> None:
    world = Looked()
    world.accept(*(f"r{each}@slow.example" for each in range(5)))
    world.run(2)
    assert [job.recipients for job in world.jobs] == [(0, 1, 2, 3, 4)]


def test_one_slow_answer_does_not_hold_back_those_of_the_same_message() -> None:
    world = Looked()

    async def slower(envelope: Envelope, recipient: Recipient) -> Found:
        await asyncio.sleep(50 if recipient.address.local_part == "slowest" else 0.1)
        return world._found(envelope, recipient)

    world.queue.destination_of = slower
    number = world.accept("a@slow.example", "slowest@slow.example", "b@slow.example")
    world.run(2)
    assert world.arrivals(number) == [0, 2]
    world.run(60)
    assert world.arrivals(number) == [0, 1, 2]


@pytest.mark.parametrize("at_once", [True, False])
def test_not_now_is_tried_again_and_never_refused(at_once: bool) -> None:
    world = Looked(retry_jitter=0.0)
    down = [True]

    def answer(envelope: Envelope, recipient: Recipient) -> Found:
        return not_now("the map is down") if down[0] else world._found(envelope, recipient)

    world.find = answer
    if at_once:
        world.queue.destination_of = answer
    number = world.accept("a@slow.example")
    world.run(HOUR)
    assert world.rows(number) == [("", "4.3.0", "the map is down")] and not world.jobs and not world.reports
    down[0] = False
    world.run(HOUR)
    assert world.arrivals(number) == [0] and not world.spool.messages


def test_an_answer_that_never_comes_or_breaks_means_not_now(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Looked(retry_jitter=0.0)
    world.took = 1e6
    hanging = world.accept("a@slow.example")
    world.run(awaiting.LOOKUP_S + 1)
    assert world.rows(hanging) == [("", "4.3.0", "its destination is not known: there was no answer within 60 s")]
    world.took = 0.1

    def breaks(envelope: Envelope, recipient: Recipient) -> Found:
        raise LookupError("no such column")

    world.find = breaks
    broken = world.accept("b@slow.example")
    world.run(1)
    assert [status for _, status, _ in world.rows(broken)] == ["4.3.0"]
    assert any(isinstance(event, Noted) and "no such column" in event.text for event in world.logged)
    world.find = world._found
    world.run(HOUR)
    assert world.arrivals(hanging) == world.arrivals(broken) == [0]


def test_an_answer_that_somebody_else_cancels_means_not_now() -> None:
    """As by a reload that closes the map which is asked. The recipient must not be left in memory."""
    world = Looked(retry_jitter=0.0)
    asked: list[asyncio.Future[Found]] = []

    def ask(envelope: Envelope, recipient: Recipient) -> Answer:
        asked.append(world.loop.create_future())
        return asked[-1]

    find, world.queue.destination_of = world.queue.destination_of, ask
    number = world.accept("a@slow.example")
    world.run(1)
    asked[0].cancel()
    world.queue.destination_of = find
    world.run(1)
    assert [status for _, status, _ in world.rows(number)] == ["4.3.0"]
    world.run(HOUR)
    assert world.arrivals(number) == [0] and not world.spool.messages


def test_a_failure_that_was_waited_for_is_told_to_the_sender() -> None:
    world = Looked()
    world.find = lambda envelope, recipient: Attempt(RELAYED.outcome.FAILED, RELAYED.reach, "5.1.2", "no way")
    world.accept("a@slow.example")
    world.run(5)
    assert [names for _, names, _ in world.reports] == [("a@slow.example",)]


def test_the_number_under_way_is_bounded_and_the_spool_keeps_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awaiting, "UNDER_WAY_MAX", 5)
    monkeypatch.setattr(awaiting, "WAITING_MAX", 10)
    monkeypatch.setattr("postroad.queue.loading.WAITING_MAX", 10)
    world = Looked()
    numbers = [world.accept(f"a@slow{each}.example") for each in range(60)]
    numbers.append(world.accept(*(f"r{each}@slow.example" for each in range(40))))
    world.run(0.5)
    assert len(world.queue._awaiting) == 15 and world.at_once == 5
    world.run(120)
    assert world.at_once_most == 5 and not world.spool.messages
    assert sum(len(world.arrivals(number)) for number in numbers) == 100


def test_a_shutdown_meanwhile_loses_nothing() -> None:
    world = Looked()
    fresh = world.accept("a@slow.example")
    world.answer = lambda job, index: DEFERRED
    waits = world.accept("b@x.example", "c@slow.example")
    world.run(0.5)
    assert world.rows(waits)
    drained = world.loop.create_task(world.queue.drain(5.0))
    world.run(1)
    assert drained.result() is True and world.at_once == 0
    assert world.spool.rows[fresh] is None  # as if it had just come
    world.answer = lambda job, index: RELAYED
    world.queue = world.new_queue()
    world.queue.start((0,))
    world.run(HOUR)
    assert world.arrivals(fresh) == [0] and sorted(world.arrivals(waits)) == [0, 1]


def test_an_operator_takes_a_message_out_and_gives_it_back() -> None:
    world = Looked()
    world.took = 5.0
    number = world.accept("a@slow.example", "b@slow.example")
    world.run(0.5)
    assert world.queue.withdraw(number) == ()
    world.run(10)
    assert not world.arrived and not len(world.queue._awaiting)
    world.queue.changed(number, ())
    world.run(10)
    assert world.arrivals(number) == [0, 1]


def test_what_waits_for_its_destination_is_shown() -> None:
    world = Looked()
    world.accept("a@slow.example")
    world.run(0.5)
    told = world.queue.status.paces(["*"])[LOOKED_UP]
    assert told["waits"] == "its destination is being looked up (1 look-up under way)"
    assert told["domains"] == ["slow.example"]
    world.run(1)
    assert LOOKED_UP not in world.queue.status.paces(["*"])


def test_a_reload_asks_anew_for_what_waits_in_a_lane_and_lets_the_answer_go() -> None:
    world = Looked()
    world.permits_max = 0
    number = world.accept("a@slow.example")
    world.run(2)
    world.queue.take(world.options, world.destination_of, world.pace_table())
    world.permits_max = 10
    for scopes, granted in list(world.asking.values()):
        world.acquire(scopes, 1, granted)
    world.run(2)
    assert world.arrivals(number) == [0]


def test_an_awaitable_that_swallows_its_end_does_not_come_back_twice() -> None:
    world = Looked()
    ended: list[str] = []

    async def stubborn(envelope: Envelope, recipient: Recipient) -> Found:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            ended.append("cancelled")
        return world._found(envelope, recipient)

    world.queue.destination_of = stubborn
    number = world.accept("a@slow.example")
    world.run(0.5)
    world.queue.withdraw(number)
    world.queue.changed(number, ())
    world.run(20)
    assert ended == ["cancelled"] and world.arrivals(number) == [0]


def test_a_future_is_an_answer_too() -> None:
    world = Looked()
    futures: list[asyncio.Future[Found]] = []

    def asked(envelope: Envelope, recipient: Recipient) -> Awaitable[Found]:
        futures.append(world.loop.create_future())
        return futures[-1]

    world.queue.destination_of = asked
    number = world.accept("a@slow.example")
    world.run(0.5)
    envelope = world.spool.messages[number].envelope
    futures[0].set_result(world._found(envelope, envelope.recipients[0]))
    world.run(0.5)
    assert world.arrivals(number) == [0]


