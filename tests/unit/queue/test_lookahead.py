"""What is due soon comes into memory and nothing else, and still nothing is forgotten."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from postroad.mail.address import Address
from postroad.mail.envelope import Envelope, Recipient
from postroad.queue import agenda, lookahead
from postroad.queue.agenda import Agenda
from postroad.store.values import Stored, Waiting
from tests.unit.queue.fakes import DEAD, DEFERRED, RELAYED, World

pytestmark = pytest.mark.slow

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US


def _wait(world: World, destination: str, due_us: int, *, last_us: int = 0, held: bool = False) -> int:
    """A message that waits on the disk, as an earlier process left it."""
    number = world.spool.new_id()
    recipient = Recipient(Address("a", destination))
    envelope = Envelope(number, Address("s", "sender.example"), (recipient,), 7, world.clock.now_us())
    world.spool.store(Stored(envelope, b"content"))
    row = Waiting(0, due_us, destination, 1, held=held, last_us=last_us)
    world.spool.rows[number] = {0: row}
    return number


def _restart(world: World) -> None:
    world.loop.run_until_complete(world.queue.drain(400))
    world.queue = world.new_queue()
    world.queue.start((0,))


def _known(world: World) -> Agenda:
    return world.queue._loading._agenda


def test_of_many_that_wait_only_those_due_soon_are_in_memory_and_all_are_tried_in_time() -> None:
    world = World(probes_per_s=1e6)
    begin_us, due = world.clock.now_us(), {}
    for index in range(4_000):
        due_us = begin_us + index * 30_000_000 // 10  # one each three seconds, for more than three hours
        due[_wait(world, f"d{index}.example", due_us)] = due_us
    late: list[float] = []

    def answer(job: Any, index: int) -> Any:
        late.append((world.clock.now_us() - due[job.envelope.id]) / 1e6)
        return RELAYED

    world.answer = answer
    _restart(world)
    most = 0
    for _ in range(4_000 * 3 // 60 + 2):
        world.run(60)
        most = max(most, len(_known(world)))
    assert not world.spool.messages
    assert len(late) == 4_000 and min(late) >= 0 and max(late) < 1.0
    # Ten minutes ahead there are 200, and what is read at once comes to no more than a page.
    assert most <= lookahead._PAGE


@pytest.mark.parametrize("page", [1, 3, 1000])
def test_more_that_is_overdue_than_fits_a_page_is_taken_up_in_the_order_of_time(
    monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(lookahead, "_PAGE", page)
    world = World(probes_per_s=10.0)
    begin_us = world.clock.now_us()
    numbers = [_wait(world, f"d{index:03}.example", begin_us - (100 - index) * MINUTE_US) for index in range(100)]
    _restart(world)
    world.run(15)
    assert [job.envelope.id for job in world.jobs] == numbers
    assert world.openings[-1][0] - world.openings[0][0] > 9, "no faster than the rate"


def test_what_was_deferred_is_forgotten_when_it_is_much_and_tried_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lookahead, "_KNOWN_MAX", 20)
    world = World(probes_per_s=1e6, retry_first_s=3600.0, backoff_first_s=0.1, retry_jitter=0.1)
    world.queue._loading._lookahead._known_max = 20
    world.answer = lambda job, index: DEFERRED
    for index in range(300):
        world.accept(f"a@d{index}.example")
    world.run(90)
    assert world.spool.rows and len(_known(world)) <= 40
    world.answer = lambda job, index: RELAYED
    world.run(3600 * 1.2)
    assert not world.spool.messages


def test_a_row_behind_one_that_is_in_memory_for_long_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first row of its destination is being carried all the time: to the disk it is due, and hides the second."""
    monkeypatch.setattr(lookahead, "_KNOWN_MAX", 0)
    world = World(concurrency=2, concurrency_start=2)
    world.queue._loading._lookahead._known_max = 0
    begin_us = world.clock.now_us()
    first = _wait(world, "d.example", begin_us)
    second = _wait(world, "d.example", begin_us + HOUR_US)
    _restart(world)
    world.queue._loading._lookahead._known_max = 0
    world.took_s = 7200.0
    world.run(60)
    assert [job.envelope.id for job in world.jobs] == [first]
    world.took_s = 1.0
    world.run(1800)
    assert [job.envelope.id for job in world.jobs] == [first]
    world.run(1800)
    assert [job.envelope.id for job in world.jobs] == [first, second], "in time, by a connection of its own"
    world.run(7200)
    assert not world.spool.messages


def test_what_is_far_ahead_for_no_reason_is_found_at_start_and_what_has_one_waits() -> None:
    """The clock was set back while the node was down; and somebody wished for a later time."""
    world = World()
    now_us = world.clock.now_us()
    stranded = _wait(world, "x.example", now_us + 200 * HOUR_US, last_us=now_us + 199 * HOUR_US)
    wished = _wait(world, "y.example", now_us + 100 * HOUR_US)
    _restart(world)
    world.run(60)
    assert [job.envelope.id for job in world.jobs] == [stranded]
    world.run(98 * 3600)
    assert len(world.jobs) == 1
    world.run(2 * 3600 + 60)
    assert [job.envelope.id for job in world.jobs] == [stranded, wished]


def test_new_mail_for_more_destinations_than_are_kept_in_mind_is_found_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(agenda, "_SPILLED_MAX", 5)
    world = World(lanes_max=4, probes_per_s=100.0)
    world.accept(*(f"a@d{index}.example" for index in range(200)))
    world.run(60)
    assert not world.spool.messages
    assert len(world.arrived) == 200


@pytest.mark.parametrize("seed", range(24))
def test_nothing_is_late_whatever_comes_between(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Small pages, much forgetting, operators, restarts: each row that waits is tried within seconds of its time."""
    monkeypatch.setattr(lookahead, "_PAGE", 2)
    monkeypatch.setattr(lookahead, "_KNOWN_MAX", 1)
    chance = random.Random(seed)
    world = World(
        seed, probes_per_s=1e6, retry_first_s=60.0, retry_factor=3.0, retry_max_s=4000.0, backoff_first_s=1.0,
        backoff_max_s=2.0, lifetime_s=1e9, delay_notice_s=0.0,
    )  # fmt: skip
    world.queue._loading._lookahead._known_max = 1
    restarted_us = 0

    def restart() -> None:
        nonlocal restarted_us
        if chance.random() < 0.1:
            _restart(world)
            restarted_us = world.clock.now_us()

    world.answer = lambda job, index: chance.choice((RELAYED, DEFERRED, DEFERRED))
    moves: tuple[Callable[[], object], ...] = (
        lambda: world.accept(*(f"a@d{chance.randrange(9)}.example" for _ in range(chance.randrange(1, 4)))),
        lambda: world.accept(f"a@d{chance.randrange(9)}.example"),
        lambda: _operator_moves(world, chance),
        restart,
    )
    for _ in range(150):
        chance.choice(moves)()
        world.took_s = chance.choice((0.01, 0.01, 300.0))
        world.run(chance.choice((0.0, 1.0, 30.0, 700.0)))
        world.queue._loading._lookahead._known_max = 1
        now_us = world.clock.now_us()
        for number, rows in world.spool.rows.items():
            for row in (rows or {}).values():
                mails = world.queue._capacity.mails
                in_memory = number in mails and row.index in mails[number].active
                assert in_memory or max(row.due_us, restarted_us) > now_us - 5_000_000, (number, row)


def _operator_moves(world: World, chance: random.Random) -> None:
    """What waits is moved to another time, near or far."""
    number = chance.choice(list(world.spool.rows) or [0])
    rows = world.spool.rows.get(number)
    if rows is None or world.queue.withdraw(number):
        if number:
            world.queue.changed(number, ())
        return
    due_us = world.clock.now_us() + chance.choice((0, 0, 30_000_000, 3_000_000_000))
    for index, row in list(rows.items()):
        rows[index] = Waiting(row.index, due_us, row.destination, row.attempts)
    world.queue.changed(number, [row.destination for row in rows.values()])


def test_an_outage_of_everything_and_its_end_bring_no_herd() -> None:
    """Six hundred destinations fail in the same minute, stay away for hours, and are back in the same moment; one of
    them has three hundred messages waiting."""
    world = World(probes_per_s=2.0, concurrency=20)
    world.permits_max = 3
    names = [f"d{index}.example" for index in range(600)]
    world.dead = dict.fromkeys(names, DEAD)
    for name in names:
        world.accept(f"a@{name}")
    for index in range(299):
        world.accept(f"{index}@d0.example")
    world.run(120)
    first = len(world.openings)
    world.run(3 * 3600)
    world.dead = {}
    world.run(6 * 3600)
    assert not world.spool.messages
    in_second: dict[int, int] = {}
    for at, key in world.openings[first:]:
        if key != "d0.example":
            in_second[int(at)] = in_second.get(int(at), 0) + 1
    assert max(in_second.values()) <= 4, "what two steps allow at once, and a second's rate"
    assert world.carrying_most <= 3 + 4
    to_one = [at for at, key in world.openings if key == "d0.example"]
    assert len(to_one) < 100, "one probe at a time while it is away, not one for each message"
