"""Recipients that only the next hop knows: what is kept, what is asked again, and what is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from postroad.check.tally import Tally, TallyFrame, TallyOffice
from postroad.check.verified import NotKnown, RecipientQuestions, VerifyOptions, limit_of
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Peer
from postroad.mail.policy import Action, Question, Verdict
from postroad.store.verified import VerifiedEntry

ADA = Address("Ada", "behind.test")
CLIENT = Peer("192.0.2.1")
YES = Attempt(Outcome.RELAYED, Reach.RECIPIENT, "2.1.5", "taken")
NO = Attempt(Outcome.FAILED, Reach.RECIPIENT, "5.1.1", "unknown user")


def lengths(options: dict[str, Any]) -> tuple[float, ...]:
    return (1.0, 1.0, 1.0, 1.0, options.get("span_s", 600.0))


class World:
    def __init__(self, tally: Tally | None = None, **options: Any) -> None:
        self.now_us = 1_200_000_000_000
        self.kept: dict[str, VerifiedEntry] = {}
        self.answer: Attempt | asyncio.Future[Attempt] = YES
        self.asked: list[str] = []
        self.told: list[str] = []
        self.questions = RecipientQuestions(
            VerifyOptions(**options), get=self.kept.get, put=self.put, ask=self.ask, now_us=lambda: self.now_us,
            log=self.told.append, tally=tally or Tally(lengths(options), lambda told: None, lambda seconds, call: None),
        )

    def put(self, mailbox: str, found: bool, at_us: int, text: str, hop: str) -> None:
        self.kept[mailbox] = VerifiedEntry(mailbox, found, at_us, text, hop)

    async def ask(self, address: Address) -> Attempt:
        self.asked.append(str(address))
        return self.answer if isinstance(self.answer, Attempt) else await asyncio.shield(self.answer)

    def later(self, s: float) -> None:
        self.now_us += int(s * 1_000_000)

    async def say(self, address: Address = ADA, peer: Peer = CLIENT, *, trusted: bool = False) -> int:
        found = self.questions(Question(peer, trusted, recipient=address), address)
        verdict = found if isinstance(found, Verdict) else await found
        await asyncio.sleep(0)
        if verdict.action is Action.ACCEPT:
            return 250
        assert verdict.reply is not None
        return verdict.reply.code


async def test_an_answer_is_kept_and_asked_for_again_while_it_holds() -> None:
    world = World(found_s=1000, found_refresh_s=100, missing_s=200, missing_refresh_s=50)
    assert await world.say() == 250 and await world.say() == 250
    assert len(world.asked) == 1 and "exists" in world.told[0]
    world.later(150)
    world.answer = NO
    assert await world.say() == 250  # the old answer holds while the new one is on its way
    await asyncio.sleep(0)
    assert len(world.asked) == 2 and await world.say() == 550
    world.later(60)
    world.answer = Attempt(Outcome.DEFERRED, Reach.HOP, "4.4.1", "away")
    assert await world.say() == 550  # what is no answer changes nothing
    await asyncio.sleep(0)
    assert await world.say() == 550 and len(world.asked) == 3
    world.later(200)
    world.answer = YES
    assert await world.say() == 250


@pytest.mark.parametrize(
    "answer",
    [
        Attempt(Outcome.DEFERRED, Reach.RECIPIENT, "4.7.1", "greylisted"),
        Attempt(Outcome.FAILED, Reach.MESSAGE, "5.7.1", "the sender is refused"),
        Attempt(Outcome.FAILED, Reach.DESTINATION, "5.1.2", "no such host"),
        Attempt(Outcome.DEFERRED, Reach.HOP, "4.4.1", "no connection"),
    ],
)
async def test_what_does_not_tell_refuses_nobody(answer: Attempt) -> None:
    world = World(not_known_s=60)
    world.answer = answer
    assert await world.say() == 450 and await world.say() == 450
    assert len(world.asked) == 1 and not world.kept and "not known" in world.told[0]
    world.later(61)
    world.answer = YES
    assert await world.say() == 250
    world = World(not_known=NotKnown.ACCEPT)
    world.answer = answer
    assert await world.say() == 250 and not world.kept


async def test_strangers_are_bounded_and_friends_are_not() -> None:
    world = World(client_max=2, domain_max=6, span_s=100)
    names = [Address(f"user{number}", "behind.test") for number in range(20)]
    assert [await world.say(name, Peer(f"192.0.2.{at}")) for at, name in enumerate(names[:4])] == [250, 250, 450, 450]
    assert await world.say(names[4], Peer("198.51.100.1")) == 250
    assert await world.say(names[5], Peer("192.0.2.9", identity="ada")) == 250
    assert await world.say(names[6], Peer("192.0.2.9"), trusted=True) == 250
    assert [await world.say(name, Peer("2001:db8::1")) for name in names[7:9]] == [250, 450]  # of the domain
    assert await world.say(names[0], Peer("192.0.2.9")) == 250  # what is known costs nothing
    world.later(201)
    assert await world.say(names[2], Peer("192.0.2.7")) == 250


async def test_equal_questions_are_one_and_no_client_waits_long() -> None:
    world = World(wait_s=0.01, at_once_max=1)
    answer: asyncio.Future[Attempt] = asyncio.get_running_loop().create_future()
    world.answer = answer
    assert await asyncio.gather(world.say(), world.say()) == [450, 450]
    assert len(world.asked) == 1
    assert await world.say(Address("bob", "behind.test")) == 450 and len(world.asked) == 1
    answer.set_result(YES)
    async with asyncio.timeout(20):
        while not world.kept:
            await asyncio.sleep(0.001)
    assert await world.say() == 250 and len(world.asked) == 1
    world.answer = asyncio.get_running_loop().create_future()
    assert await world.say(Address("eve", "behind.test")) == 450
    await world.questions.close()


class Node:
    """Two workers that tell each other what they count."""

    def __init__(self, **options: Any) -> None:
        self.timers: list[Callable[[], None]] = []
        self.office = TallyOffice(5, self.send, lambda key: limit_of(key, VerifyOptions(**options)), lambda key: None)
        self.tallies = [self.tally(number, options) for number in range(2)]
        self.workers = [World(tally, **options) for tally in self.tallies]
        for number in range(2):
            self.office.worker_up(number)

    def tally(self, number: int, options: dict[str, Any]) -> Tally:
        def tell(told: TallyFrame) -> None:
            self.office.take_counts(number, told)

        return Tally(lengths(options), tell, lambda seconds, call: self.timers.append(call))

    def send(self, number: int, told: TallyFrame) -> None:
        self.tallies[number].hear(told, 1_200_000_000_000)

    def tell(self) -> None:
        timers, self.timers = self.timers, []
        for timer in timers:
            timer()

    async def say(self, worker: int, name: str, client: str = "192.0.2.1") -> int:
        found = await self.workers[worker].say(Address(name, "behind.test"), Peer(client))
        self.tell()
        return found


async def test_the_bounds_are_those_of_the_node() -> None:
    node = Node(client_max=4, domain_max=6, span_s=100)
    assert [await node.say(number % 2, f"user{number}") for number in range(6)] == [250] * 4 + [450] * 2
    others = [await node.say(number % 2, f"other{number}", f"198.51.{number}.1") for number in range(4)]
    assert others == [250, 250, 450, 450]


async def test_questions_under_way_are_those_of_the_node() -> None:
    node = Node(wait_s=0.01, at_once_max=2)
    answer: asyncio.Future[Attempt] = asyncio.get_running_loop().create_future()
    for worker in node.workers:
        worker.answer = answer
    assert [await node.say(number % 2, f"user{number}") for number in range(4)] == [450] * 4
    assert [len(worker.asked) for worker in node.workers] == [1, 1]
    answer.set_result(YES)
    await asyncio.sleep(0.01)
    node.tell()
    assert await node.say(1, "user2") == 250


async def test_a_question_that_is_broken_off_counts_no_longer() -> None:
    world = World(wait_s=0.01, at_once_max=1)
    world.answer = asyncio.get_running_loop().create_future()
    assert await world.say() == 450
    await world.questions.close()
    await asyncio.sleep(0)
    world.answer = YES
    assert await world.say(Address("bob", "behind.test")) == 250
