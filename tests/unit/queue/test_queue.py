"""The queue: every recipient comes to exactly one end, at the right time, within the limits."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from postroad.mail.address import Address
from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.event import Attempted
from postroad.mail.job import Job, Sent
from postroad.mail.route import Destination, TlsDemand, Transport
from postroad.queue import schedule
from postroad.queue.pace import PaceRule, Rate
from tests.unit.queue.fakes import BROKEN, DEAD, DEFERRED, FAILED, NOWHERE, RELAYED, FakeCourier, World

HOUR = 3600.0
DAY = 24 * HOUR


def test_a_fresh_message_goes_straight_to_a_courier_and_leaves_nothing() -> None:
    world = World()
    number = world.accept("a@x.example")
    world.run(1)
    assert world.arrivals(number) == [0]
    assert not world.spool.messages
    assert world.spool.takes == 0
    assert world.queue.status.in_memory == 0
    [event] = [event for event in world.spool.events if isinstance(event, Attempted)]
    assert event.recipients == ("a@x.example",) and event.next_us == 0


def test_recipients_of_one_destination_share_a_job() -> None:
    world = World()
    world.accept("a@x.example", "b@y.example", "c@x.example")
    world.run(1)
    assert sorted(job.recipients for job in world.jobs) == [(0, 2), (1,)]
    assert not world.spool.messages


def test_a_job_holds_no_more_recipients_than_allowed_and_others_come_between() -> None:
    world = World(recipients_per_job_max=10, concurrency=1)
    many = world.accept(*(f"r{n}@x.example" for n in range(95)))
    single = world.accept("one@x.example")
    world.run(5)
    assert [len(job.recipients) for job in world.jobs if job.envelope.id == many] == [10] * 9 + [5]
    assert [job.envelope.id for job in world.jobs].index(single) <= 2
    assert world.arrivals(many) == list(range(95))


def test_a_deferred_recipient_is_tried_again_with_growing_intervals() -> None:
    world = World(retry_jitter=0.0, delay_notice_s=0.0)
    world.answer = lambda job, index: DEFERRED
    world.accept("a@x.example")
    world.run(6 * HOUR)
    at = [event.at_us for event in world.spool.events if isinstance(event, Attempted)]
    gaps = [(later - earlier) / 1e6 for earlier, later in pairwise(at)]
    expected = [300 * 1.7**n for n in range(len(gaps))]
    assert len(gaps) >= 5
    for gap, wanted in zip(gaps, expected, strict=True):
        assert gap == pytest.approx(wanted, abs=1.0)


def test_attempts_out_of_turn_do_not_lengthen_the_pauses() -> None:
    """An operator, or a client with ETRN, asks for an attempt each minute: the schedule goes by the age."""
    world = World(retry_jitter=0.0, delay_notice_s=0.0)
    chance = random.Random(1)
    number = world.accept("a@x.example")
    world.run(0)
    envelope = world.spool.messages[number].envelope
    options = world.queue.options
    pauses = []
    for minute in range(1, 30):
        now_us = envelope.accepted_us + minute * 60_000_000
        pauses.append((schedule.next_due_us(options, envelope, False, now_us, chance) - now_us) / 1e6)
    assert pauses == pytest.approx([300.0 + 0.7 * 60 * minute for minute in range(1, 30)], abs=0.01)
    assert max(pauses) < 300 * 1.7**4, "29 attempts by the hand would have led to the longest pause"


def test_it_arrives_when_the_remote_changes_its_mind() -> None:
    world = World()
    answers = iter([DEFERRED, DEFERRED, RELAYED])
    world.answer = lambda job, index: next(answers)
    number = world.accept("a@x.example")
    world.run(DAY)
    assert world.arrivals(number) == [0]
    assert not world.spool.messages and world.queue.status.in_memory == 0


def test_a_failure_and_its_dsn_are_one_commit_and_the_dsn_is_sent() -> None:
    world = World()
    world.answer = lambda job, index: FAILED if job.envelope.reverse_path else RELAYED
    number = world.accept("a@x.example", "b@x.example")
    world.run(1)
    [commit] = [commit for commit in world.spool.commits if commit.id == number]
    assert set(commit.ended) == {0, 1} and len(commit.accepted) == 1
    assert world.arrivals(commit.accepted[0].envelope.id) == [0]
    assert not world.spool.messages


def test_some_fail_some_arrive_some_wait() -> None:
    world = World()
    outcomes = {0: RELAYED, 1: FAILED, 2: DEFERRED}
    world.answer = lambda job, index: outcomes[index] if job.envelope.reverse_path else RELAYED
    number = world.accept("a@x.example", "b@x.example", "c@x.example")
    world.run(1)
    rows = world.spool.rows[number]
    assert rows is not None and list(rows) == [2] and rows[2].attempts == 1
    assert rows[2].text == "450 4.2.0 later"
    outcomes[2] = RELAYED
    world.run(DAY)
    assert world.arrivals(number) == [0, 2] and not world.spool.messages


def test_a_recipient_expires_with_a_dsn_and_a_delay_is_told_before() -> None:
    world = World()
    world.answer = lambda job, index: DEFERRED if job.envelope.reverse_path else RELAYED
    number = world.accept("a@x.example")
    world.run(5 * DAY + HOUR)
    assert [(report[0], report[2]) for report in world.reports] == [(number, True), (number, False)]
    told_us = [event.at_us for event in world.spool.events if type(event).__name__ == "Reported"]
    accepted_us = world.spool.commits[0].events[0].at_us
    assert 4 * HOUR <= (told_us[0] - accepted_us) / 1e6 < 4 * HOUR + 120
    assert (told_us[1] - accepted_us) / 1e6 == pytest.approx(5 * DAY, abs=60)
    assert not world.spool.messages


def test_no_delay_is_told_where_notify_excludes_it() -> None:
    world = World(delay_notice_s=0.0)
    world.answer = lambda job, index: DEFERRED
    world.accept("a@x.example")
    world.run(2 * DAY)
    assert not world.reports


def test_a_dead_destination_is_left_alone_as_a_whole() -> None:
    world = World(retry_jitter=0.0)
    world.dead["x.example"] = DEAD
    for n in range(50):
        world.accept(f"r{n}@x.example")
    healthy = world.accept("a@y.example")
    world.run(50)
    assert len([key for _, key in world.openings if key == "x.example"]) <= world.options.concurrency
    assert world.arrivals(healthy) == [0]
    before = len(world.openings)
    world.accept("late@x.example")  # comes while the destination is left alone: no new connection
    world.run(5)
    assert len(world.openings) == before
    del world.dead["x.example"]
    world.run(2 * HOUR)
    assert len(world.arrived) == 52 and not world.spool.messages


def test_backoff_grows_while_a_destination_stays_dead() -> None:
    world = World(retry_jitter=0.0, retry_first_s=10.0, retry_factor=1.0)
    world.dead["x.example"] = DEAD
    world.accept("a@x.example")
    world.run(4 * HOUR)
    times = [at for at, _ in world.openings]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[0] >= 60 and gaps[-1] >= 3600 and len(gaps) < 16
    assert world.queue.status.troubles()["x.example"][0] == len(times)


def test_a_permanent_failure_of_the_destination_ends_all_its_recipients() -> None:
    world = World()
    world.dead["x.example"] = NOWHERE
    world.accept("a@x.example")
    world.accept("b@x.example")
    world.run(10)
    assert not [number for number, stored in world.spool.messages.items() if stored.envelope.reverse_path]
    assert len(world.reports) == 2


def test_no_route_fails_at_once() -> None:
    world = World()
    number = world.accept("a@nowhere.example", "b@y.example")
    world.run(5)
    assert world.arrivals(number) == [1]
    assert (number, ("a@nowhere.example",), False) in world.reports
    assert number not in world.spool.messages


def test_concurrency_per_destination_is_bounded_and_used() -> None:
    world = World(concurrency=3)
    world.took_s = 1.0
    for n in range(30):
        world.accept(f"r{n}@x.example")
    world.run(11)
    assert world.carrying_most == 3
    assert len(world.arrived) == 30
    assert max(world.held_permits.values()) <= 3


def test_how_a_destination_fares_is_told_now_and_then_and_all_of_it() -> None:
    """While a further connection is waited for: not with each message, as each word costs the supervisor a turn."""
    world = World(concurrency=10)
    world.permits_max = 2
    world.took_s = 0.002
    for n in range(1_000):
        world.accept(f"r{n}@x.example")
    world.run(0.9)
    told = [count for key, count in world.told if key == "x.example"]
    assert 10 <= len(told) <= 20, "each 50 ms"
    assert 800 <= sum(told) <= len(world.arrived)


def test_connections_of_the_worker_are_bounded_and_idle_ones_make_room() -> None:
    world = World(connections_max=4)
    for n in range(40):
        world.accept(f"r@d{n}.example")
    world.run(5)
    assert len(world.arrived) == 40
    assert sum(world.held_permits.values()) <= 4


def test_a_kept_connection_that_ended_is_replaced_at_once() -> None:
    world = World(concurrency=1)
    world.accept("a@x.example")
    world.run(1)
    broke: list[bool] = []

    def answer(job: object, index: int) -> object:
        if not broke:
            broke.append(True)
            return BROKEN
        return RELAYED

    world.answer = answer  # type: ignore[assignment]
    number = world.accept("b@x.example")
    world.run(1)
    assert world.arrivals(number) == [0] and len(world.openings) == 2


def test_a_connection_that_breaks_at_its_first_job_defers() -> None:
    world = World()
    world.answer = lambda job, index: BROKEN
    number = world.accept("a@x.example")
    world.run(2)
    assert len(world.jobs) == 1 and world.spool.rows[number] is not None


@pytest.mark.parametrize(("good_from", "jobs", "arrived"), [(2, 2, [0]), (3, 3, [0]), (4, 3, [])])
def test_a_host_that_ends_its_first_session_is_followed_by_the_next_host(
    good_from: int, jobs: int, arrived: list[int]
) -> None:
    """RFC 5321 §5.1: each of the three hosts is tried, at once and once."""
    world = World()
    world.hosts = 3
    world.answer = lambda job, index: RELAYED if len(world.openings) >= good_from else BROKEN
    number = world.accept("a@x.example")
    world.run(2)
    assert len(world.jobs) == jobs and world.arrivals(number) == arrived
    told = [event for event in world.spool.events if isinstance(event, Attempted)]
    assert [event.attempt.outcome.value for event in told][:-1] == ["deferred"] * (jobs - 1)
    assert bool(world.spool.messages) is not bool(arrived)


@pytest.mark.parametrize("first", [True, False])
def test_who_had_an_answer_before_the_session_ended_does_not_hold_up_the_others(first: bool) -> None:
    """One recipient is refused, then the host refuses BDAT or closes: the rest go at once, as they would alone."""
    world = World(concurrency=1)
    world.hosts = 2 if first else 1
    before = 0 if first else 1
    if before:
        world.accept("warm@x.example")
        world.run(1)

    def answer(job: Job, index: int) -> Attempt:
        if index == 1:
            return FAILED
        return BROKEN if len(world.openings) == 1 and len(world.jobs) > before else RELAYED

    world.answer = answer
    number = world.accept("a@x.example", "gone@x.example", "b@x.example")
    world.run(2)
    assert [job.recipients for job in world.jobs if job.envelope.id == number] == [(0, 1, 2), (0, 2)]
    assert world.arrivals(number) == [0, 2] and not world.spool.messages
    assert [names for id, names, _ in world.reports if id == number] == [("gone@x.example",)]
    retold = [each for each in world.spool.events if isinstance(each, Attempted) and each.attempt is BROKEN]
    assert [each.recipients for each in retold] == ([("a@x.example", "b@x.example")] if first else [])


def test_outcomes_wait_for_a_disk_that_is_full_and_nothing_is_sent_twice() -> None:
    world = World()
    number = world.accept("a@x.example", "b@y.example")
    world.spool.broken = True
    world.run(30)
    assert world.arrivals(number) == [0, 1] and number in world.spool.messages
    world.spool.broken = False
    world.run(5)
    assert world.arrivals(number) == [0, 1] and not world.spool.messages and len(world.jobs) == 2


def test_what_is_too_much_for_memory_waits_in_the_spool_and_arrives() -> None:
    world = World(ready_max=10, load_max=4, concurrency=2)
    numbers = [world.accept(f"r{n}@x.example") for n in range(200)]
    world.run(0.05)
    assert world.queue.status.in_memory < 200
    world.run(120)
    assert sorted(number for number, _ in world.arrived) == sorted(numbers)
    assert not world.spool.messages


def test_content_beyond_the_memory_budget_is_read_again() -> None:
    world = World(memory_max=1000, concurrency=1)
    numbers = [world.accept(f"r{n}@x.example", content=b"x" * 400, only_crlf=True) for n in range(10)]
    world.run(5)
    assert [len(job.content) for job in world.jobs] == [400] * 10  # type: ignore[arg-type]
    # What was read from the disk has not been looked through by this process.
    assert [job.only_crlf for job in sorted(world.jobs, key=lambda job: job.envelope.id)] == [True] * 2 + [False] * 8
    assert len(world.arrived) == len(numbers)


def test_recipients_whose_senders_are_named_differently_go_in_transactions_of_their_own() -> None:
    """As with VERP: each subscriber gets a reverse-path that names it."""

    def outbound(envelope: Envelope, recipient: Recipient, destination: Destination) -> Sent:
        name = recipient.address.local_part
        sender = Address("list", "sender.example") if name == "same" else Address(f"list+{name[0]}", "sender.example")
        return Sent(sender, Address(name, "there.example") if name == "b2" else recipient.address)

    world = World()
    world.queue.take(world.options, world.destination_of, world.pace_table(), outbound)
    number = world.accept("a1@x.example", "b1@x.example", "a2@x.example", "b2@x.example", "same@x.example")
    world.run(5)
    assert world.arrivals(number) == [0, 1, 2, 3, 4]
    went = {(str(job.reverse_path), tuple(str(each.address) for each in job.named())) for job in world.jobs}
    assert went == {
        ("list+a@sender.example", ("a1@x.example", "a2@x.example")),
        ("list+b@sender.example", ("b1@x.example", "b2@there.example")),
        ("list@sender.example", ("same@x.example",)),
    }
    assert not world.spool.messages
    # A settings file without such names: all go together again, under the names of the envelope.
    world.jobs.clear()
    world.queue.take(world.options, world.destination_of, world.pace_table())
    world.accept("a1@x.example", "b1@x.example")
    world.run(5)
    assert [(job.recipients, job.forward_paths, job.is_renamed) for job in world.jobs] == [((0, 1), (), False)]


def test_what_goes_again_goes_by_the_names_of_the_settings_now() -> None:
    world = World(concurrency=1)
    world.queue.take(
        world.options, world.destination_of, world.pace_table(),
        lambda envelope, recipient, destination: Sent(Address("other", "sender.example"), recipient.address),
    )
    world.accept("z@x.example")
    world.run(1)  # a connection that is kept

    def answer(job: object, index: int) -> object:
        world.answer = lambda job, index: RELAYED
        world.loop.call_soon(world.queue.take, world.options, world.destination_of, world.pace_table())
        return BROKEN

    world.answer = answer  # type: ignore[assignment]
    number = world.accept("a@x.example")
    world.run(5)
    assert world.arrivals(number) == [0]
    assert [job.is_renamed for job in world.jobs if job.envelope.id == number] == [True, False]


def test_a_restart_takes_up_what_was_fresh_and_what_waited() -> None:
    world = World()
    world.answer = lambda job, index: DEFERRED
    waited = world.accept("a@x.example")
    world.run(5)
    number = world.spool.new_id()
    world.loop.run_until_complete(world.queue.drain(1.0))
    fresh = world.accept("b@y.example")  # accepted, then the node died before its first attempt
    world.run(1)
    assert not [job for job in world.jobs if job.envelope.id == fresh] and fresh > number
    world.answer = lambda job, index: RELAYED
    world.queue = world.new_queue()
    world.queue.start([0])
    world.run(HOUR)
    assert world.arrivals(waited) == [0] and world.arrivals(fresh) == [0] and not world.spool.messages


def test_draining_ends_what_is_carried_and_starts_nothing() -> None:
    world = World(concurrency=1)
    world.took_s = 2.0
    for n in range(5):
        world.accept(f"r{n}@x.example")
    world.run(0.5)
    assert world.loop.run_until_complete(world.queue.drain(10.0)) is True
    assert len(world.arrived) == 1 and len(world.spool.messages) == 4
    world.run(20)
    assert len(world.arrived) == 1
    assert sum(world.held_permits.values()) == 0


@pytest.mark.parametrize("cause", [DEAD, NOWHERE])
def test_an_opening_that_ends_while_the_node_stops_is_no_attempt(cause: Attempt) -> None:
    world = World()
    world.dead["x.example"] = DEAD
    waited = world.accept("a@x.example")
    world.run(1)
    rows = world.spool.rows[waited]
    assert rows is not None
    before_row, failures = rows[0], world.queue.status.troubles()["x.example"][0]
    world.run((before_row.due_us - world.clock.now_us()) / 1e6 - 0.005)
    world.dead = {"x.example": cause, "y.example": cause}
    fresh = world.accept("b@y.example", "c@y.example")
    world.run(0.015)
    assert [key for _, key in world.openings][1:] == ["y.example", "x.example"], "both are being opened now"
    before = list(world.spool.commits), list(world.spool.events)
    assert world.loop.run_until_complete(world.queue.drain(1.0)) is True
    world.run(1)
    assert (world.spool.commits, world.spool.events) == before
    assert world.spool.rows[fresh] is None and world.spool.rows[waited] == {0: before_row}
    assert [entry[0] for entry in world.queue.status.troubles().values()] == [failures] and not world.reports
    assert sum(world.held_permits.values()) == 0
    world.dead.clear()
    world.queue = world.new_queue()
    world.queue.start([0])
    world.run(1)
    assert world.arrivals(waited) == [0] and world.arrivals(fresh) == [0, 1] and not world.spool.messages


def test_the_rest_of_a_message_is_due_at_once_where_its_opening_ended_by_the_stop() -> None:
    world = World()
    world.accept("a@x.example")
    world.run(1)
    world.took_s = 1.0
    world.dead["y.example"] = DEAD
    number = world.accept("b@x.example", "c@y.example")  # b goes by the kept connection, c needs a new one
    world.run(0.01)
    assert world.loop.run_until_complete(world.queue.drain(5.0)) is True
    rows = world.spool.rows[number]
    assert rows is not None and list(rows) == [1] and rows[1].attempts == 0
    world.dead.clear()
    world.queue = world.new_queue()
    world.queue.start([0])
    world.run(2)
    assert world.arrivals(number) == [0, 1] and not world.spool.messages


def test_draining_gives_up_at_its_limit() -> None:
    world = World()
    world.took_s = 100.0
    world.accept("a@x.example")
    world.run(0.5)
    assert world.loop.run_until_complete(world.queue.drain(1.0)) is False


def test_withdrawn_recipients_are_not_carried_until_told() -> None:
    world = World(concurrency=1)
    world.took_s = 1.0
    first = world.accept("a@x.example")
    second = world.accept("b@x.example", "c@y.example")
    world.run(0.5)
    assert world.queue.withdraw(first) == (0,)  # being carried
    busy = world.queue.withdraw(second)
    assert busy == (1,)
    world.run(5)
    assert world.arrivals(second) == [1]
    world.queue.changed(second, [])  # what was withdrawn and left as it was goes on
    world.run(5)
    assert world.arrivals(second) == [0, 1] and not world.spool.messages


def test_rows_read_before_an_operator_took_the_message_are_not_acted_on() -> None:
    world = World()
    world.answer = lambda job, index: DEFERRED
    number = world.accept("a@x.example")
    world.run(5)
    world.answer = lambda job, index: RELAYED
    taking = world.spool.take_due
    withdrawn: list[bool] = []

    def take(*arguments: object) -> None:
        taking(*arguments)  # type: ignore[arg-type]
        if not withdrawn:  # asked already, not answered yet
            withdrawn.append(True)
            assert world.queue.withdraw(number) == ()

    world.spool.take_due = take  # type: ignore[assignment]
    world.run(HOUR)
    assert withdrawn and not world.arrivals(number)
    world.queue.changed(number, [])
    world.run(HOUR)
    assert world.arrivals(number) == [0]


def test_a_fresh_message_in_an_operators_hand_is_taken_up_when_he_leaves_it() -> None:
    world = World()
    world.loop.run_until_complete(world.queue.drain(1.0))
    number = world.accept("a@x.example")
    world.run(1)
    world.queue = world.new_queue()
    assert world.queue.withdraw(number) == ()
    world.queue.start([0])
    world.run(2)
    assert not world.arrivals(number)
    world.queue.changed(number, [])
    world.run(2)
    assert world.arrivals(number) == [0] and not world.spool.messages


def test_surrendering_a_connection() -> None:
    world = World(concurrency=2)
    world.accept("a@x.example")
    world.run(1)
    assert world.held_permits["x.example"] == 1
    world.queue.give_up_connection("x.example")
    assert world.held_permits["x.example"] == 0
    world.accept("b@x.example")
    world.run(1)
    assert len(world.arrived) == 2


@pytest.mark.parametrize("seed", range(12))
def test_whatever_remotes_do_every_recipient_comes_to_one_end(seed: int) -> None:
    world = World(
        seed, concurrency=3, ready_max=15, load_max=5, recipients_per_job_max=3, connections_max=6, memory_max=100,
    )
    chance = world.chance
    domains = [f"d{n}.example" for n in range(8)]
    ended: dict[tuple[int, int], int] = {}

    def answer(job: object, index: int) -> object:
        return chance.choice([RELAYED, RELAYED, DEFERRED, BROKEN, FAILED])

    world.answer = answer  # type: ignore[assignment]

    def weather() -> None:
        world.dead.clear()
        for domain in domains:
            if chance.random() < 0.3:
                world.dead[domain] = DEAD
        world.spool.broken = chance.random() < 0.1
        world.took_s = chance.random() * 3
        if world.loop.now < 2 * DAY:
            world.loop.call_later(chance.random() * HOUR, weather)
        else:
            world.dead.clear()
            world.spool.broken = False

    world.loop.call_soon(weather)
    sizes: dict[int, int] = {}
    for _ in range(120):
        names = [f"r{n}@{chance.choice(domains)}" for n in range(chance.choice([1, 1, 1, 5, 12]))]
        sizes[world.accept(*names)] = len(names)
        if chance.random() < 0.3:
            world.run(chance.random() * 100)
    world.run(12 * DAY)
    assert not world.spool.messages
    for commit in world.spool.commits:
        for index in commit.ended:
            ended[commit.id, index] = ended.get((commit.id, index), 0) + 1
    for number, size in sizes.items():
        assert [ended.get((number, index)) for index in range(size)] == [1] * size
    assert world.queue.status.in_memory == 0 and world.queue.status.carrying == 0
    assert len(world.arrived) == len(set(world.arrived))


# -- failures of one message are told together


def _failing_domains(count: int) -> list[str]:
    return [f"a@d{n}.example" for n in range(count)]


def test_failures_at_many_destinations_bring_one_report() -> None:
    world = World()
    world.answer = lambda job, index: FAILED if job.envelope.reverse_path else RELAYED
    number = world.accept(*_failing_domains(60))
    world.run(9)
    assert len(world.reports) == 1 and len(world.reports[0][1]) == 60, "all had failed: there was nobody to wait for"
    assert number not in world.spool.messages
    keys = {event.destination for event in world.spool.events if isinstance(event, Attempted)}
    assert {f"d{n}.example" for n in range(60)} <= keys


def test_failures_wait_for_slow_recipients_but_not_for_long_and_others_are_not_held_up() -> None:
    world = World(gather_s=10.0)
    slow, good = "slow.example", "good.example"
    world.answer = lambda job, index: (
        RELAYED if job.destination.key in (good, "sender.example") else FAILED
    )
    number = world.accept("a@x.example", f"a@{good}", f"a@{slow}")
    opening = world.open

    def open_slowly(destination: Destination, opened: Any, lost: Any) -> None:
        world.loop.call_later(25.0 if destination.key == slow else 0.0, opening, destination, opened, lost)

    world.queue._carrying._open = open_slowly
    world.run(5)
    assert not world.reports and world.arrivals(number) == [1]
    rows = world.spool.rows[number]
    assert rows is not None and sorted(rows) == [0, 2], "a crash now would try the failed one again, not forget it"
    world.run(7)
    assert [report[1] for report in world.reports] == [("a@x.example",)]
    world.run(30)
    assert [report[1] for report in world.reports] == [("a@x.example",), (f"a@{slow}",)]
    assert number not in world.spool.messages


def test_a_single_recipient_waits_for_nobody_and_a_stop_waits_for_no_report() -> None:
    world = World(gather_s=1000.0)
    world.answer = lambda job, index: FAILED if job.envelope.reverse_path else RELAYED
    world.accept("a@x.example")
    world.run(1)
    assert len(world.reports) == 1
    world.took_s = 3.0
    world.accept("b@y.example", "c@z.example")
    world.answer = lambda job, index: FAILED if job.destination.key == "y.example" else RELAYED
    opening = world.open
    world.queue._carrying._open = lambda destination, opened, lost: world.loop.call_later(
        50.0 if destination.key == "z.example" else 0.0, opening, destination, opened, lost
    )
    world.run(5)
    assert len(world.reports) == 1, "the failure at y waits for z"
    assert world.loop.run_until_complete(world.queue.drain(5.0)) is True
    assert [report[1] for report in world.reports][1:] == [("b@y.example",)]


def test_recipients_that_expire_together_are_reported_together() -> None:
    world = World(delay_notice_s=0.0, retry_jitter=0.0)
    world.answer = lambda job, index: DEFERRED if job.envelope.reverse_path else RELAYED
    number = world.accept(*_failing_domains(20))
    world.run(5 * DAY + HOUR)
    assert len(world.reports) <= 2 and sum(len(report[1]) for report in world.reports) == 20
    assert number not in world.spool.messages


# -- pace: limits beyond connections, and what an operator is told


def test_a_rate_is_kept_and_told() -> None:
    world = World(rules=[PaceRule(domain=("x.example",), rate=Rate(60, 60.0))])
    for n in range(5):
        world.accept(f"a{n}@x.example")
    world.accept("a@y.example")
    world.run(0.5)
    assert sorted(job.destination.key for job in world.jobs) == ["x.example", "y.example"], "a token each second"
    told = world.queue.status.paces(["x.example", "y.example", "z.example"])
    assert told["x.example"]["waits"] == "rate" and told["x.example"]["ready"] == 4
    assert told["x.example"]["domains"] == ["x.example"] and told["y.example"]["domains"] == []
    assert told["y.example"]["waits"] == "" and "z.example" not in told
    assert list(world.queue.status.paces(["*"])) == ["x.example"]
    world.run(10)
    assert len(world.arrived) == 6


def test_messages_of_a_connection_and_recipients_of_a_transaction_are_bounded() -> None:
    world = World(
        rules=[PaceRule(domain=("x.example",), messages_per_connection_max=2, recipients_max=3, connections_max=1)]
    )
    world.accept(*(f"r{n}@x.example" for n in range(13)))
    world.run(10)
    assert [len(job.recipients) for job in world.jobs] == [3, 3, 3, 3, 1]
    assert len(world.openings) == 3 and len(world.arrived) == 13


def test_destinations_whose_hosts_have_a_rule_ask_for_all_their_scopes() -> None:
    world = World(rules=[PaceRule(mx=(".big.example",), provider="big", connections_max=2)])
    world.took_s = 5.0
    world.hosts_of = {f"{domain}.example": ("mx.big.example",) for domain in ("x", "y")}
    for domain in ("x", "y", "z"):
        world.accept(f"a@{domain}.example")
    world.run(1)
    assert world.held_permits["provider:big"] == 2 and world.held_permits["z.example"] == 1
    world.queue.give_up_connection("provider:big")
    world.run(10)
    assert world.held_permits["provider:big"] == 1 and len(world.arrived) == 3


def test_a_reload_brings_new_limits_to_what_is_at_work() -> None:
    world = World()
    world.took_s = 1.0
    for n in range(4):
        world.accept(f"a{n}@x.example")
    world.run(0.5)
    world.rules = (PaceRule(domain=("x.example",), recipients_max=1, connections_max=1),)
    world.queue.take(world.options, world.destination_of, world.pace_table())
    world.accept("b@x.example", "c@x.example", "d@x.example")
    world.run(20)
    assert [len(job.recipients) for job in world.jobs[-3:]] == [1, 1, 1] and len(world.arrived) == 7


def test_after_a_reload_no_mail_goes_over_a_connection_of_before() -> None:
    world = World()
    world.took_s = 1.0
    world.accept("a@idle.example")
    world.run(2)
    world.accept("a@busy.example")
    world.run(0.5)
    idle, busy = world.couriers
    assert (idle.closed, busy.closed) == (False, False)
    world.queue.take(world.options, world.destination_of, world.pace_table())
    assert (idle.closed, busy.closed) == (True, False)  # after its job
    world.accept("b@idle.example", "b@busy.example")
    world.run(3)
    assert busy.closed and len(world.couriers) == 4 and len(world.arrived) == 4
    world.accept("c@idle.example")
    world.run(3)
    assert len(world.couriers) == 4  # those of now are kept


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_being_opened_at_a_reload_carries_nothing_and_tells_nothing(fails: bool) -> None:
    """It may go to another host than now, as somebody else, or with less TLS."""
    world = World()
    opening: list[Callable[[], None]] = []

    def slowly(destination: Destination, opened: Callable[[Any], None], lost: Any) -> None:
        courier = FakeCourier(world, destination)
        world.couriers.append(courier)
        opening.append(lambda: opened(DEAD if fails and len(opening) == 1 else courier))

    world.open = slowly  # type: ignore[method-assign]
    world.queue = world.new_queue()
    world.queue.start((0,))
    number = world.accept("a@x.example")
    world.run(1)

    def demanding(envelope: Envelope, recipient: Recipient) -> Destination:
        domain = recipient.address.domain
        return Destination(domain, Transport.SMTP, domain=domain, tls=TlsDemand.VERIFY)

    world.queue.take(world.options, demanding, world.pace_table())
    opening[0]()
    world.run(1)
    assert not world.jobs and len(opening) == 2 and world.couriers[0].closed is not fails
    opening[1]()
    world.run(1)
    assert world.arrivals(number) == [0] and world.couriers[1].destination.tls is TlsDemand.VERIFY
    assert world.held_permits["x.example"] == 1


def test_what_waits_at_a_reload_goes_in_the_way_that_is_wanted_now() -> None:
    world = World()
    world.permits_max = 0
    world.accept("a@x.example")
    world.run(0.5)

    def demanding(envelope: Envelope, recipient: Recipient) -> Destination:
        domain = recipient.address.domain
        return Destination(domain, Transport.SMTP, domain=domain, tls=TlsDemand.VERIFY)

    world.queue.take(world.options, demanding, world.pace_table())
    world.permits_max = 10
    for scopes, granted in world.asking.values():
        world.acquire(scopes, 1, granted)
    world.run(1)
    assert [courier.destination.tls for courier in world.couriers] == [TlsDemand.VERIFY]


def test_a_mailing_does_not_hold_up_a_single_message_to_the_same_destination() -> None:
    world = World(concurrency=2, recipients_per_job_max=10, ready_max=50)
    world.took_s = 1.0
    for n in range(200):
        world.accept(*(f"r{n}-{m}@x.example" for m in range(60)), sender="news@mailing.example")
    world.run(10)
    number = world.accept("b@x.example", sender="ada@friend.example")
    world.run(4)
    assert world.arrivals(number) == [0]


def test_a_mailing_to_many_destinations_does_not_hold_up_a_message_to_another() -> None:
    world = World(connections_max=10, lanes_max=40)
    world.took_s = 1.0
    for n in range(300):
        world.accept(f"a@d{n}.example", sender="news@mailing.example")
    world.run(3)
    number = world.accept("b@new.example", sender="ada@friend.example")
    world.run(4)
    assert world.arrivals(number) == [0]
    world.run(3600)
    assert len(world.arrived) == 301 and not world.spool.messages


def test_connections_that_do_not_move_take_none_from_others() -> None:
    world = World(connections_max=5, connections_slow_max=5, slow_s=2.0)
    opening = world.open

    def open_slowly(destination: Destination, opened: Any, lost: Any) -> None:
        wait_s = 300.0 if destination.key.startswith("slow") else 0.0
        world.loop.call_later(wait_s, opening, destination, opened, lost)

    world.queue._carrying._open = open_slowly
    for n in range(5):
        world.accept(f"a@slow{n}.example")
    world.run(1)
    numbers = [world.accept(f"a@fast{n}.example", sender=f"x@s{n}.example") for n in range(20)]
    world.run(10)
    assert [world.arrivals(number) for number in numbers] == [[0]] * 20
    assert world.queue._carrying._connections.held <= 10


def test_what_is_overdue_after_a_restart_is_taken_up_spread_and_new_mail_goes_at_once() -> None:
    world = World(probes_per_s=10.0, retry_jitter=0.0)
    world.answer = lambda job, index: DEFERRED
    for n in range(200):
        world.accept(f"a@d{n}.example")
    world.run(5)
    assert world.loop.run_until_complete(world.queue.drain(5.0)) is True
    world.run(6 * HOUR)
    world.openings.clear()
    world.answer = lambda job, index: RELAYED
    world.queue = world.new_queue()
    begun = world.loop.now
    world.queue.start([0])
    world.run(5)
    number = world.accept("b@new.example")
    world.run(0.5)
    assert world.arrivals(number) == [0]
    world.run(30)
    times = [at - begun for at, key in world.openings if key != "new.example"]
    assert len(times) == 200 and times[-1] == pytest.approx(20, abs=2)
    assert all(sum(at <= other < at + 1.0 for other in times) <= 14 for at in times)


def test_probes_leave_new_mail_its_connections() -> None:
    world = World(connections_max=10, probes_max=3, probes_per_s=1000.0, retry_jitter=0.0, backoff_first_s=0.0)
    opening = world.open
    slow: list[bool] = []

    def open_slowly(destination: Destination, opened: Any, lost: Any) -> None:
        wait_s = 100.0 if slow and destination.key.startswith("d") else 0.0
        world.loop.call_later(wait_s, opening, destination, opened, lost)

    world.queue._carrying._open = open_slowly
    world.dead = {f"d{n}.example": DEAD for n in range(50)}
    for domain in world.dead:
        world.accept(f"a@{domain}")
    world.run(299)
    slow.append(True)
    world.run(10)
    assert world.queue._carrying._connections._probes == 3
    number = world.accept("b@new.example")
    world.run(0.5)
    assert world.arrivals(number) == [0]
