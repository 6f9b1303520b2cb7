"""What must not strand a recipient or a connection: bugs of others, reloads, full limits, a disk that fails."""

from __future__ import annotations

from typing import Any

import pytest

from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.event import Held, Noted
from postroad.mail.job import Job
from postroad.mail.route import Destination, Transport
from postroad.queue.pace import PaceRule, Rate
from postroad.store.values import Stored, Waiting
from tests.unit.queue.fakes import DEAD, DEFERRED, FAILED, RELAYED, FakeCourier, World

HOUR = 3600.0


def _restart(world: World) -> None:
    """While nothing is being carried."""
    assert not world.queue.status.carrying
    world.queue._stopping = world.queue._carrying._stopping = True
    world.queue._loading.stop()
    world.queue = world.new_queue()
    world.queue.start((0,))


def _bugs(world: World) -> list[str]:
    return [event.text for event in world.logged if isinstance(event, Noted) and "boom" in event.text]


def test_dead_destinations_leave_no_lanes_behind_that_keep_others_from_being_tried() -> None:
    world = World(lanes_max=8)
    domains = [f"d{n}.example" for n in range(20)]
    world.dead = dict.fromkeys(domains, DEAD)
    for _ in range(3):
        for domain in domains:
            world.accept(f"a@{domain}")
        world.run(20)
    assert not world.queue._capacity.lanes
    world.dead.clear()
    world.run(24 * HOUR)
    assert not world.spool.messages


@pytest.mark.parametrize("late", [False, True], ids=["before the reload", "after it"])
def test_a_reload_while_hosts_are_looked_up_strands_nobody(late: bool) -> None:
    """By the new rules nobody needs to know the hosts: the mail that waited for them goes at once."""
    world = World(rules=(PaceRule(mx=("mx.example",), connections_max=2),))
    answers: list[Any] = []
    world.find_hosts = lambda destination, found: answers.append(found)  # type: ignore[method-assign]
    world.queue = world.new_queue()
    world.queue.start((0,))
    world.accept("a@x.example")
    world.run(1)
    assert len(answers) == 1 and not world.jobs
    world.rules = ()
    world.queue.take(world.options, world.destination_of, world.pace_table())
    if late:
        answers[0](("mx.example",))
    world.run(5)
    assert not world.spool.messages


def test_a_reload_that_lifts_a_rate_sends_what_waited_for_it() -> None:
    world = World(rules=(PaceRule(domain=("x.example",), rate=Rate(1, 3600.0)),))
    asked: list[Any] = []
    world.tokens = lambda key, scopes, count, granted: asked.append(granted)  # type: ignore[method-assign]
    world.accept("a@x.example")
    world.run(1)
    assert len(asked) == 1 and not world.jobs
    world.rules = ()
    world.queue.take(world.options, world.destination_of, world.pace_table())
    world.run(5)
    assert not world.spool.messages
    asked[0](1)  # what was asked for is answered all the same
    world.run(5)


@pytest.mark.parametrize("outcome", [FAILED, RELAYED])
def test_a_bug_in_the_report_strands_nobody(outcome: Attempt) -> None:
    world = World()
    world.answer = lambda job, index: outcome
    good = world.report

    def report(*_: Any, **__: Any) -> Any:
        raise RuntimeError("boom")

    world.report = report  # type: ignore[method-assign]
    world.queue = world.new_queue()
    number = world.accept("a@x.example", "b@x.example")
    world.run(60)
    if outcome is FAILED:
        assert _bugs(world)
        rows = world.spool.rows[number]
        assert rows is not None and len(rows) == 2, "it has not failed without a word"
        world.queue._settling._report = good
        world.run(5 * HOUR)
        assert [names for about, names, _ in world.reports if about == number] == [("a@x.example", "b@x.example")]
    assert not world.queue._capacity.mails and world.queue._settling.unsettled == 0
    assert number not in world.spool.messages


def test_a_bug_in_a_courier_defers_and_gives_its_place_back() -> None:
    world = World(concurrency=1)
    carry = FakeCourier.carry
    broken = [True]

    def breaks(self: FakeCourier, job: Job, done: Any) -> None:
        if broken:
            broken.clear()
            self.usable = False
            raise RuntimeError("boom")
        carry(self, job, done)

    FakeCourier.carry = breaks  # type: ignore[method-assign]
    try:
        first = world.accept("a@x.example")
        second = world.accept("b@x.example")
        world.run(2)
        assert world.arrivals(second) == [0] and _bugs(world)
        world.run(HOUR)
        assert world.arrivals(first) == [0] and not world.spool.messages
        assert world.queue.status.carrying == 0
    finally:
        FakeCourier.carry = carry  # type: ignore[method-assign]


def test_a_courier_that_tells_twice_is_believed_once() -> None:
    world = World()
    carry = FakeCourier.carry

    def twice(self: FakeCourier, job: Job, done: Any) -> None:
        def both(*told: Any) -> None:
            done(*told)
            done(*told)

        carry(self, job, both)

    FakeCourier.carry = twice  # type: ignore[method-assign]
    try:
        world.accept("a@x.example")
        world.accept("b@x.example")
        world.run(2)
        assert not world.spool.messages and world.queue.status.carrying == 0 and len(world.spool.commits) == 2
    finally:
        FakeCourier.carry = carry  # type: ignore[method-assign]


def test_a_connection_that_a_waiting_destination_no_longer_needs_goes_to_the_next() -> None:
    world = World(connections_max=2, concurrency=2)
    world.dead = {"dead.example": DEAD}
    for n in range(6):
        world.accept(f"a{n}@dead.example")
    for n in range(6):
        world.accept(f"a{n}@x{n}.example")
    world.run(30)
    assert sorted(world.spool.rows[number] is None for number in world.spool.rows) == [False] * 6
    assert len(world.arrived) == 6 and world.queue._carrying._connections.held <= 2
    assert all(not lane.starved for lane in world.queue._capacity.lanes.values())


def test_messages_in_memory_are_bounded_over_all_destinations() -> None:
    world = World(messages_max=20, lanes_max=16, connections_max=4)
    world.took_s = 0.5
    most = [0, 0]
    for n in range(200):
        world.accept(f"a@x{n}.example")

    def look() -> None:
        most[:] = max(most[0], world.queue.status.in_memory), max(most[1], len(world.queue._capacity.lanes))
        world.loop.call_later(0.05, look)

    world.loop.call_later(0.1, look)
    world.run(300)
    assert not world.spool.messages and len(world.arrived) == 200
    assert most[0] <= 26 and most[1] <= 22, most


def _other_way(envelope: Envelope, recipient: Recipient) -> Destination | Attempt:
    return Destination("hub", Transport.SMTP, domain=recipient.address.domain)


def test_a_recipient_whose_destination_a_reload_changed_is_not_forgotten_when_there_is_no_room() -> None:
    world = World(ready_max=2, concurrency=1, load_max=4, retry_jitter=0.0, delay_notice_s=0.0)
    world.answer = lambda job, index: DEFERRED
    for n in range(12):
        world.accept(f"a{n}@x{n % 3}.example")
    world.run(60)
    world.queue.destination_of = _other_way
    world.answer = lambda job, index: RELAYED
    world.took_s = 1.0
    world.run(2 * HOUR)
    assert not world.spool.messages


def test_what_had_no_room_while_the_disk_was_full_is_not_forgotten() -> None:
    world = World(ready_max=1, concurrency=1)
    world.took_s = 1.0
    for n in range(4):
        world.accept(f"a{n}@x.example", f"a{n}@y.example")
    world.spool.broken = True
    world.run(5)
    world.spool.broken = False
    world.run(60)
    assert not world.spool.messages and world.queue._settling.unsettled == 0


def test_withdrawn_mail_whose_settlement_waits_for_the_disk_comes_back() -> None:
    world = World(concurrency=1)
    world.took_s = 5.0
    world.accept("a@x.example")
    world.run(0.1)
    number = world.accept("b@x.example")
    world.run(0.1)
    world.spool.broken = True
    assert world.queue.withdraw(number) == ()
    world.run(0.5)
    world.queue.changed(number, ["x.example"])
    world.run(3)
    world.spool.broken = False
    world.run(60)
    assert world.arrivals(number) == [0] and not world.spool.messages
    assert world.queue._settling.unsettled == 0 and not world.queue._capacity.mails


def test_destinations_in_trouble_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroad.queue.troubles.TROUBLES_MAX", 10)
    world = World()
    for n in range(40):
        world.dead[f"d{n}.example"] = DEAD
        world.accept(f"a@d{n}.example")
    world.run(10)
    assert len(world.queue.status.troubles()) <= 10


def test_a_connection_asked_for_by_another_worker_while_it_is_being_opened_is_given_up_after_its_work() -> None:
    world = World(concurrency=1)
    world.accept("a@x.example")
    world.loop.call_later(0.01, world.queue.give_up_connection, "x.example")
    world.run(5)
    assert len(world.arrived) == 1 and world.held_permits["x.example"] == 0


def test_a_message_whose_content_cannot_be_read_is_held_with_the_reason_and_harms_no_other() -> None:
    world = World()
    world.answer = lambda job, index: DEFERRED
    bad, good = world.accept("a@x.example", "b@y.example"), world.accept("c@x.example")
    world.run(1)
    _restart(world)  # what waits is read from the spool from now on
    world.answer = lambda job, index: RELAYED
    real = world.spool.content
    world.spool.content = lambda number, done: (  # type: ignore[method-assign]
        world.loop.call_soon(done, None) if number == bad else real(number, done)
    )
    world.run(2 * HOUR)
    assert good not in world.spool.messages, "the connection carries what comes behind it"
    rows = world.spool.rows[bad]
    assert rows is not None and len(rows) == 2
    assert all(row.held and "content cannot be read" in row.text and row.attempts == 1 for row in rows.values())
    held = [event for event in world.spool.events if isinstance(event, Held)]
    assert sorted(event.recipients for event in held) == [("a@x.example",), ("b@y.example",)], "told once for each"
    assert not world.queue._capacity.mails and not world.queue._settling.unsettled and not world.queue.status.carrying


@pytest.mark.parametrize("jump_h", [-72, -5, -1, 1, 5, 72])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_clock_that_jumps_neither_strands_nor_repeats(jump_h: int, restarted: bool) -> None:
    """Mail that waits, a destination that is left alone, and mail that comes behind the jump: all arrive, each once,
    within the longest interval, however far the clock was set back."""
    world = World(lanes_max=4, load_max=3, lifetime_s=20 * 24 * HOUR)
    world.answer = lambda job, index: DEFERRED
    world.dead = {"dead.example": DEAD}
    numbers = [world.accept(f"a@d{n % 7}.example", f"b@d{n % 5}.example") for n in range(20)]
    numbers.append(world.accept("a@dead.example"))
    world.run(3 * HOUR)
    world.clock.offset_us += int(jump_h * HOUR * 1_000_000)
    world.dead = {}
    world.answer = lambda job, index: RELAYED
    if restarted:
        _restart(world)
    numbers.append(world.accept("a@dead.example", "c@d1.example"))
    world.run(1)
    # Mail that is new is not held up by what was remembered before the jump.
    options = world.options
    world.run(2 * (options.retry_max_s + options.backoff_max_s) + 60)
    assert not world.spool.messages
    for number in numbers:
        assert len(world.arrivals(number)) == len(set(world.arrivals(number))) > 0
    assert not world.queue._capacity.mails and not world.queue.status.carrying


def test_a_clock_set_back_while_more_is_due_than_is_taken_at_once() -> None:
    """What is due stays due: the rest of it is not put off until the clock is there again."""
    world = World(load_max=3, ready_max=10)
    world.answer = lambda job, index: DEFERRED
    numbers = [world.accept("a@x.example") for _ in range(30)]
    world.run(10)
    world.answer = lambda job, index: RELAYED
    real, taken = world.spool.take_due, []

    def take(*arguments: Any) -> None:
        taken.append(arguments)
        real(*arguments)
        if len(taken) == 1:  # between the question and its answer
            world.loop.call_soon(setattr, world.clock, "offset_us", -int(HOUR * 1_000_000))

    world.spool.take_due = take  # type: ignore[method-assign]
    world.run(2.5 * HOUR)
    assert not world.spool.messages
    assert all(world.arrivals(number) == [0] for number in numbers)


def test_a_time_that_was_wished_for_is_waited_for_however_far() -> None:
    """A row that was never tried is no sign of a clock that was set back."""
    world = World()
    world.answer = lambda job, index: DEFERRED
    number = world.accept("a@x.example")
    world.run(1)
    rows = world.spool.rows[number]
    assert rows is not None
    due_us = world.clock.now_us() + int(100 * HOUR * 1_000_000)
    rows[0] = Waiting(0, due_us, "x.example")
    _restart(world)
    world.answer = lambda job, index: RELAYED
    world.run(99 * HOUR)
    assert not world.arrivals(number)
    world.run(1.1 * HOUR)
    assert world.arrivals(number) == [0]


def test_while_outcomes_cannot_be_committed_no_more_is_carried_than_a_limit() -> None:
    """A disk that fails must not let the number of messages grow that a crash would deliver twice."""
    world = World(unsettled_max=10, concurrency=5)
    numbers = [world.accept(f"a@d{n % 3}.example") for n in range(100)]
    world.spool.broken = True
    world.run(30)
    assert 10 <= len(world.arrived) <= 10 + 15, "the limit, and what was on its way"
    world.spool.broken = False
    world.run(30)
    assert not world.spool.messages
    assert sorted(number for number, _ in world.arrived) == numbers, "each once"
    assert not world.queue._carrying._parked and not world.queue.status.carrying and not world.queue._settling.unsettled


def test_a_courier_that_is_lost_while_it_stands_still_is_not_used() -> None:
    world = World(unsettled_max=1, concurrency=1)
    numbers = [world.accept("a@x.example") for _ in range(5)]
    world.spool.broken = True
    world.run(5)
    [courier] = world.couriers
    [lane] = world.queue._capacity.lanes.values()
    world.queue._carrying._on_idle_closed(lane, courier)
    world.spool.broken = False
    world.run(5)
    assert sorted(number for number, _ in world.arrived) == numbers
    assert all(count == 0 for count in world.held_permits.values()) or not courier.closed or world.queue._capacity.lanes


def test_a_restart_with_a_thousand_messages_half_done() -> None:
    """Of each message one recipient is done, one has failed and one waits; some are fresh. Then a crash."""
    world = World(lanes_max=50, ready_max=40, load_max=30)
    outcomes = {0: RELAYED, 1: DEFERRED, 2: FAILED}
    world.answer = lambda job, index: outcomes[index]
    numbers = [world.accept(f"a@d{n % 30}.example", f"b@d{n % 41}.example", f"c@d{n % 7}.example") for n in range(1000)]
    world.run(120)
    half = [number for number in numbers if world.spool.rows.get(number)]
    assert len(half) == 1000 and all(len(world.spool.rows[number] or {}) == 1 for number in half)
    for _ in range(20):  # accepted in the last moment, and never taken up
        world.spool.store(Stored(_fresh(world), b"content"))
    fresh = [number for number, rows in world.spool.rows.items() if rows is None]
    _restart(world)
    world.answer = lambda job, index: RELAYED
    world.run(3 * HOUR)
    assert not world.spool.messages, "nothing is lost on the way"
    for number in numbers:
        assert world.arrivals(number) == [0, 1], "each once"
        assert [names[0][0] for about, names, _ in world.reports if about == number] == ["c"], "one report, for one"
    assert all(world.arrivals(number) == [0] for number in fresh) and len(fresh) == 20


def _fresh(world: World) -> Envelope:
    number = world.spool.new_id()
    recipients = (Recipient(Address("a", "d1.example")),)
    return Envelope(number, Address("s", "sender.example"), recipients, 7, world.clock.now_us())


def test_dns_that_is_away_for_an_hour_only_delays() -> None:
    """Old mail and new: all of it arrives within the longest interval once names can be looked up again."""
    away = Attempt(Outcome.DEFERRED, Reach.DESTINATION, "4.4.3", "the name servers do not answer")
    world = World()
    domains = [f"d{n}.example" for n in range(50)]
    world.dead = dict.fromkeys(domains, away)
    numbers = []
    for minute in range(60):
        numbers += [world.accept(f"a@{domains[(minute * 7 + n) % 50]}") for n in range(3)]
        world.run(60)
    assert not world.arrived and not world.reports
    looked_up = len(world.openings)
    assert looked_up < 50 * 15, "each destination is asked for ever more seldom, however much waits for it"
    world.dead = {}
    world.run(world.options.retry_max_s * 1.2)
    assert not world.spool.messages
    assert sorted(number for number, _ in world.arrived) == sorted(numbers), "each once"


@pytest.mark.parametrize("from_disk", [False, True], ids=["fresh", "from the disk"])
@pytest.mark.parametrize("lanes_max", [1, 4])
@pytest.mark.parametrize("waits_for", ["permit", "rate"])
def test_destinations_that_only_wait_do_not_keep_the_lanes_from_others(
    waits_for: str, lanes_max: int, from_disk: bool
) -> None:
    slow = [f"slow{n}.example" for n in range(8)]
    rules = [PaceRule(domain=tuple(slow), rate=Rate(1, 3600.0))] if waits_for == "rate" else []
    world = World(lanes_max=lanes_max, rules=rules, lifetime_s=20 * 24 * HOUR)
    if waits_for == "rate":
        world.token_s = 20 * HOUR
        world.token_times = dict.fromkeys(slow, 0.0)
    else:
        # As if other workers had them all.
        world.permits_max = 1
        world.held_permits = dict.fromkeys(slow, 1)
    waiting = [world.accept(f"a@{name}") for name in slow]
    if from_disk:
        world.run(0.0)
        _restart(world)
    world.run(60)
    number = world.accept("a@quick.example")
    world.run(120)
    assert world.arrivals(number) == [0]
    assert not any(world.arrivals(each) for each in waiting)
    for name in slow:
        if waits_for == "permit":
            world.release((name,))
    world.run(100 * HOUR)
    assert not world.spool.messages and not world.queue._capacity.mails
    assert "\0aside" not in world.queue._capacity._lanes_of
