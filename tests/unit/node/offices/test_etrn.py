"""ETRN in a worker: who may, what is meant, what is answered, and what it costs when it is said again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from postroad.check.etrn import EtrnOptions, EtrnRow
from postroad.mail.address import Address
from postroad.mail.envelope import Peer
from postroad.mail.reply import Reply
from postroad.maps.face import NotNow
from postroad.node.offices.etrn import COUNT_MAX, Counted, QueueStarter
from postroad.operate.operator import OperatorAction, OperatorRequest
from postroad.protocol.etrn import EtrnKind, Wish, parse
from postroad.store.selection import names
from postroad.store.values import Selection

ROWS = (
    EtrnRow(
        ("relay.test", ".wide.test", "slow.test", ".slow.test", "away.test"),
        ("192.0.2.0/24", "2001:db8::/32", "unix"), (),
    ),
    EtrnRow(("other.test",), (), ("ann",)),
    EtrnRow(("local.test", "gone.test"), ("0.0.0.0/0",)),
)
FRIEND, STRANGER, ACCOUNT = Peer("192.0.2.1"), Peer("203.0.113.1"), Peer("203.0.113.1", identity="ann")


class World:
    """Routing, spool and operator in one, and the supervisor, who has `others` beside us."""

    def __init__(self, ids: dict[Selection, list[int]] | None = None, others: list[Any] | None = None) -> None:
        self.ids = ids or {}
        self.others = others or []
        self.selected: list[Selection] = []
        self.has_maps = False
        self.settled = set[str]()  # domains about which a map was asked
        self.requests: list[OperatorRequest] = []
        self.time = 1000.0
        self.starter = QueueStarter(
            options=EtrnOptions(ROWS, 60.0), routing=self, spool=self, operator=self, ask=self.ask,  # type: ignore[arg-type]
            now=lambda: self.time, later=self.later,
        )  # fmt: skip
        self.rests: list[Callable[[], None]] = []
        self.resting = False  # else a rest is over at once

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        if self.resting:
            self.rests.append(call)
        else:
            call()

    def is_relay(self, domain: str) -> bool:
        mapped = domain in self.settled and domain != "x.slow.test"
        return mapped or domain in ("relay.test", "other.test", "gone.test") or domain.endswith(".wide.test")

    def make_known(self, domain: str) -> NotNow | Awaitable[NotNow | None] | None:
        if domain == "away.test":
            return NotNow("it is away")
        if domain.endswith("slow.test") and domain not in self.settled:
            return self.settle_later(domain)
        return None

    async def settle_later(self, domain: str) -> NotNow | None:
        await asyncio.sleep(0)
        self.settled.add(domain)
        return NotNow("it is away") if domain == "noanswer.slow.test" else None

    def keys(self, domain: str) -> tuple[str, ...]:
        if domain == "gone.test":
            return ()
        return ("[192.0.2.9]:25",) if domain == "relay.test" else (domain,)

    def select(self, selection: Selection, done: Callable[[list[int]], None]) -> None:
        self.selected.append(selection)
        done(self.ids.get(selection, []))

    def operate(self, request: OperatorRequest, done: Callable[[Any], None]) -> None:
        self.requests.append(request)
        done([])

    def ask(self, wish: Wish, by: str, done: Counted) -> None:
        self.starter.start(wish, by, lambda count: done([count, *self.others]))

    def say(self, argument: str, peer: Peer = FRIEND) -> str:
        wish, answers = parse(argument), list[Reply]()
        assert not isinstance(wish, Reply)
        self.starter(peer, wish, answers.append)
        (answer,) = answers
        return str(answer)


RELAY, REQUIRING, RELAXED = (
    Selection(destination=f"[192.0.2.9]:25{demand}", recipient="@relay.test", limit=COUNT_MAX)
    for demand in ("", "/requiretls", "/tls-optional")
)


@pytest.mark.parametrize(
    ("argument", "code"),
    [("slow.test", "251"), ("@slow.test", "251"), ("x.slow.test", "459"), ("noanswer.slow.test", "458"),
     ("away.test", "458")],
)  # fmt: skip
async def test_a_domain_that_a_map_knows(argument: str, code: str) -> None:
    world, answers = World(), list[Reply]()
    wish = parse(argument)
    assert not isinstance(wish, Reply)
    world.starter(FRIEND, wish, answers.append)
    for _ in range(10):
        await asyncio.sleep(0)
    (answer,) = answers
    assert str(answer).startswith(code)


@pytest.mark.parametrize(
    ("peer", "argument", "code"),
    [
        (FRIEND, "relay.test", "251"), (Peer(""), "relay.test", "251"), (Peer("2001:db8::7"), "relay.test", "251"),
        (STRANGER, "relay.test", "459"), (ACCOUNT, "relay.test", "459"), (ACCOUNT, "other.test", "251"),
        (FRIEND, "other.test", "459"), (Peer("", identity="bob"), "other.test", "459"), (FRIEND, "a.wide.test", "251"),
        (FRIEND, "@wide.test", "251"), (FRIEND, "wide.test", "459"), (FRIEND, "unknown.test", "459"),
        (FRIEND, "local.test", "459"), (FRIEND, "gone.test", "458"), (FRIEND, "#relay.test", "251"),
        (STRANGER, "#relay.test", "459"), (FRIEND, "#[192.0.2.9]:25", "459"),
    ],
)  # fmt: skip
def test_who_may_start_what(peer: Peer, argument: str, code: str) -> None:
    world = World()
    assert world.say(argument, peer).startswith(code)
    assert bool(world.selected) == (code == "251") and not world.requests


def test_what_waits_is_counted_and_tried() -> None:
    world = World({RELAY: [1, 2, 3]}, others=[11])
    assert world.say("relay.test") == "253 2.0.0 OK, 14 pending messages for node relay.test started"
    (request,) = world.requests
    assert request.action is OperatorAction.RETRY and request.selections == (RELAY, REQUIRING, RELAXED)
    assert not request.before_release
    assert request.by == "ETRN of 192.0.2.1"


def test_a_domain_with_all_below_it() -> None:
    below = Selection(recipient="@.relay.test", held=False, limit=COUNT_MAX)
    world = World({RELAY: [1, 2], below: [2, 3]})
    assert world.say("@relay.test").startswith("253 2.0.0 OK, 3 pending messages for node @relay.test")
    assert names("@.relay.test", Address("a", "b.relay.test")) and not names("@.relay.test", Address("a", "relay.test"))
    assert not names("@.relay.test", Address("a", "norelay.test"))


def test_a_queue_by_name_is_all_that_goes_to_its_destination() -> None:
    world = World({Selection(destination="[192.0.2.9]:25", limit=COUNT_MAX): [7]})
    assert world.say("#relay.test").startswith("253 2.0.0 OK, 1 pending messages for node #relay.test")


def test_mail_that_demands_more_or_less_of_the_way_is_meant_too() -> None:
    world = World({RELAY: [1, 2], REQUIRING: [2, 3], RELAXED: [4]})
    assert world.say("relay.test").startswith("253 2.0.0 OK, 4 pending messages for node relay.test")
    world = World({Selection(destination="[192.0.2.9]:25/requiretls", limit=COUNT_MAX): [7]})
    assert world.say("#relay.test").startswith("253 2.0.0 OK, 1 pending messages for node #relay.test")


def test_with_transport_maps_the_recipients_say_what_is_meant() -> None:
    """A map may give each of them another destination."""
    own, below = (Selection(recipient=name, held=False, limit=COUNT_MAX) for name in ("@relay.test", "@.relay.test"))
    for argument, selections in (
        ("relay.test", (own,)), ("#relay.test", (own,)), ("@relay.test", (own, below))
    ):  # fmt: skip
        world = World({own: [7], below: [8]})
        world.has_maps = True
        assert world.say(argument).startswith(f"253 2.0.0 OK, {len(selections)} pending messages for node {argument}")
        assert world.requests[0].selections == selections


def test_very_many_are_not_counted() -> None:
    assert World(others=[COUNT_MAX]).say("relay.test").startswith("252 ")


def test_said_again_it_costs_nothing() -> None:
    world = World({RELAY: [1]})
    assert world.say("relay.test").startswith("253")
    assert [world.say("relay.test") for _ in range(3)] == ["250 2.0.0 OK, queuing for node relay.test started"] * 3
    assert world.selected == [RELAY, REQUIRING, RELAXED] and len(world.requests) == 1
    world.time += 61
    assert world.say("relay.test").startswith("253")


def test_one_client_starts_so_many_queues_and_no_more() -> None:
    """Very many names below a wildcard: each would be looked for in the whole spool."""
    world = World()
    said = [world.say(f"n{number}.wide.test") for number in range(100)]
    assert [answer[:3] for answer in said] == ["251"] * 20 + ["458"] * 80
    assert len(world.selected) == 60
    assert world.say("relay.test", Peer("192.0.2.2")).startswith("251"), "others are not held back by it"
    world.time += 61
    assert world.say("n99.wide.test").startswith("251")


def test_a_worker_looks_for_one_queue_at_a_time_and_for_each_once() -> None:
    world = World()
    world.resting = True
    counts: list[int | None] = []
    for number in range(150):
        world.starter.start(Wish(EtrnKind.NODE, f"n{number}.wide.test"), "x", counts.append)
        world.starter.start(Wish(EtrnKind.NODE, "n1.wide.test"), "y", counts.append)
    assert len(world.selected) == 3, "the others wait until it has rested"
    assert counts == [0] + [None] * (len(counts) - 1), "what is too much is told at once"
    while world.rests:
        world.rests.pop(0)()
    assert len(world.selected) == 3 * 101 and not world.starter._waiting
    assert counts.count(None) == 49 and len(counts) == 300


def test_a_worker_that_does_not_answer() -> None:
    world = World({RELAY: [1]}, others=[None])
    assert world.say("relay.test").startswith("458 4.3.0 Unable")
    world.others = [0]
    assert world.say("relay.test").startswith("253")  # it may be asked again at once
