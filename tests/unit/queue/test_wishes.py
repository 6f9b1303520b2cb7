"""What senders ask of the queue: by when (RFC 2852), from when on (RFC 4865), in which order (RFC 6710)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Envelope, Notify, Recipient
from postroad.mail.event import Attempted
from postroad.mail.route import Destination
from postroad.store.values import Stored, Waiting
from tests.unit.queue.fakes import DEAD, DEFERRED, RELAYED, World

HOUR = 3600.0


class Reports(World):
    """Keeps the attempts that reports are made of."""

    def __init__(self, **options: Any) -> None:
        self.told: list[tuple[str, str, bool]] = []
        super().__init__(**options)

    def report(self, envelope: Envelope, outcomes: Any, *, delayed: bool, content: Any, until_us: int) -> Any:
        if envelope.reverse_path is not None:
            self.told += [(attempt.outcome.value, attempt.status, delayed) for _, attempt in outcomes]
        return super().report(envelope, outcomes, delayed=delayed, content=content, until_us=until_us)


def accept(
    world: World, *parameters: tuple[str, str], to: str = "a@x.example", notify: Notify = Notify.UNSET,
    rcpt: tuple[tuple[str, str], ...] = (), wait_us: int = 0,
) -> int:
    number = world.spool.new_id()
    recipient = Recipient(Address(*to.split("@")), notify, parameters=rcpt)
    envelope = Envelope(
        number, Address("s", "sender.example"), (recipient,), 7, world.clock.now_us(), parameters=parameters
    )
    stored = Stored(envelope, b"content")
    world.spool.store(stored)
    if wait_us:
        row = Waiting(0, world.clock.now_us() + wait_us, recipient.address.domain)
        world.spool.rows[number] = {0: row}
        world.queue.wait(number, (row,))
    else:
        world.loop.call_soon(world.queue.add, stored)
    return number


def test_return_mode_fails_when_its_time_is_over() -> None:
    """RFC 2852: 5.4.7, though the lifetime of the queue is days."""
    world = Reports(retry_jitter=0.0)
    world.answer = lambda job, index: DEFERRED if job.envelope.reverse_path else RELAYED
    accept(world, ("BY", "900;R"))
    world.run(2 * HOUR)
    assert world.told == [("failed", "5.4.7", False)]
    attempts = [event for event in world.spool.events if isinstance(event, Attempted) and "a@x" in event.recipients[0]]
    assert (attempts[-1].at_us - attempts[0].at_us) / 1e6 == pytest.approx(900, abs=2)
    assert attempts[-1].attempt.status == "5.4.7"


def test_what_is_late_is_not_carried_any_more() -> None:
    """Also not to where it would be welcome: it waits for a connection until its time is over."""
    world = Reports(concurrency=1)
    world.took_s = 100.0
    world.accept("first@x.example")
    late = accept(world, ("BY", "60;R"))
    early = accept(world, ("BY", "500;R"))
    world.run(HOUR)
    assert world.arrivals(early) == [0] and world.arrivals(late) == []
    assert world.told == [("failed", "5.4.7", False)]


def test_notify_mode_tells_of_the_delay_at_its_time_and_goes_on() -> None:
    world = Reports(retry_jitter=0.0, delay_notice_s=100.0)
    world.answer = lambda job, index: DEFERRED if job.envelope.reverse_path else RELAYED
    number = accept(world, ("BY", "900;N"))
    world.run(890)
    assert world.told == []  # not at `delay_notice_s`
    world.run(100)
    assert world.told == [("deferred", "4.4.7", True)]
    world.answer = lambda job, index: RELAYED
    world.run(2 * HOUR)
    assert world.arrivals(number) == [0]
    # No host was told of the time: that, too, is said.
    assert world.told == [("deferred", "4.4.7", True), ("relayed", "2.0.0", False)]


@pytest.mark.parametrize(
    ("by", "notify", "passed", "told"),
    [("60;NT", Notify.UNSET, True, 1), ("60;N", Notify.UNSET, True, 0), ("60;N", Notify.NEVER, False, 0)],
)
def test_relaying_is_told_where_the_time_is_traced(by: str, notify: Notify, passed: bool, told: int) -> None:
    world = Reports()
    relayed = Attempt(Outcome.RELAYED, Reach.RECIPIENT, "2.0.0", by_passed=passed)
    world.answer = lambda job, index: relayed
    accept(world, ("BY", by), notify=notify)
    world.run(1)
    assert world.told == [("relayed", "2.0.0", False)] * told


def test_what_is_to_be_released_later_goes_at_its_time_and_lives_from_then_on() -> None:
    world = Reports(lifetime_s=HOUR, retry_jitter=0.0, delay_notice_s=0.0)
    number = accept(world, ("HOLDFOR", "7200"), wait_us=7_200_000_000)
    world.run(7190)
    assert not world.jobs
    world.answer = lambda job, index: DEFERRED if job.envelope.reverse_path else RELAYED
    world.run(20)
    assert [job.envelope.id for job in world.jobs] == [number]
    world.run(0.9 * HOUR)
    assert world.told == []  # it has had its release for less than its lifetime
    world.run(0.2 * HOUR)
    assert world.told == [("failed", "4.2.0", False)]


def test_a_restart_keeps_the_time_of_release() -> None:
    world = World()
    number = accept(world, ("HOLDFOR", "7200"), wait_us=7_200_000_000)
    world.run(60)
    world.loop.run_until_complete(world.queue.drain(1.0))
    world.queue = world.new_queue()
    world.queue.start([0])
    world.run(7000)
    assert not world.jobs
    world.run(200)
    assert world.arrivals(number) == [0]


def test_the_more_urgent_goes_first_and_equals_in_their_order() -> None:
    """RFC 6710, with what comes while others wait."""
    world = World(concurrency=1)
    world.took_s = 1.0
    first = world.accept("z@x.example")
    world.run(0.5)
    order = {}
    for name, priority in (("a", 0), ("b", -3), ("c", 4), ("d", None), ("e", 9), ("f", 4), ("g", -3)):
        asked = () if priority is None else (("MT-PRIORITY", str(priority)),)
        order[accept(world, *asked, to=f"{name}@x.example")] = name
    world.run(20)
    assert world.jobs[0].envelope.id == first
    assert [order[job.envelope.id] for job in world.jobs[1:]] == ["e", "c", "f", "a", "d", "b", "g"]


def test_urgent_mail_finds_room_in_a_full_lane() -> None:
    world = World(concurrency=1, ready_max=2)
    world.took_s = 1.0
    for number in range(6):
        world.accept(f"r{number}@x.example")
    world.run(0.5)
    urgent = accept(world, ("MT-PRIORITY", "1"))
    world.run(20)
    assert world.jobs[1].envelope.id == urgent


def test_parameters_refine_the_destination_and_may_forbid_it() -> None:
    world = Reports()
    gone = Attempt(Outcome.FAILED, Reach.RECIPIENT, "5.7.17", "another owner")

    def refined(envelope: Envelope, recipient: Recipient) -> Destination | Attempt:
        found = world.destination_of(envelope, recipient)
        if recipient.parameters:
            return gone
        if envelope.parameters and isinstance(found, Destination):
            return msgspec.structs.replace(found, key=f"{found.key}/requiretls")
        return found

    world.queue.destination_of = refined
    world.accept("a@x.example")
    accept(world, ("REQUIRETLS", ""))
    accept(world, rcpt=(("RRVS", "2014-01-01T00:00:00Z"),))
    world.run(1)
    assert sorted(key for _, key in world.openings) == ["sender.example", "x.example", "x.example/requiretls"]
    assert world.told == [("failed", "5.7.17", False)]


def test_a_destination_that_is_dead_until_the_time_is_over() -> None:
    world = Reports(retry_jitter=0.0)
    world.dead["x.example"] = DEAD
    accept(world, ("BY", "700;R"))
    world.run(HOUR)
    assert world.told == [("failed", "5.4.7", False)]


def test_recipients_without_room_in_a_session_go_by_the_next_one_at_once() -> None:
    """RFC 9422: MAILMAX=1 and RCPTMAX=2 at the remote."""
    world = Reports()
    untried = Attempt(Outcome.DEFERRED, Reach.SESSION, "4.5.3", "no room")
    world.answer = lambda job, index: RELAYED if index in job.recipients[:2] else untried
    number = world.accept(*(f"r{each}@x.example" for each in range(5)))
    world.run(1)
    assert [job.recipients for job in world.jobs] == [(0, 1, 2, 3, 4), (2, 3, 4), (4,)]
    assert world.arrivals(number) == [0, 1, 2, 3, 4] and not world.spool.messages and not world.told
