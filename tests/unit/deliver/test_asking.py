"""A question to a next hop takes a permit and gives it back, however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from postroad.deliver import asking
from postroad.deliver.asking import Asking
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.route import Destination, Transport

TO = Address("ada", "example.net")
THERE = Attempt(Outcome.RELAYED, Reach.RECIPIENT, "2.1.5", "it takes it")
DOWN = Attempt(Outcome.DEFERRED, Reach.DESTINATION, "4.4.1", "nobody answers")


class _Courier:
    def __init__(self, answers: bool = True) -> None:
        self.closed = False
        self._answers = answers
        self._told: Callable[[], None] = lambda: None

    def carry(self, job: Any, done: Callable[[Any, tuple[Attempt, ...]], None]) -> None:
        self._told = lambda: done(job, (THERE,))
        if self._answers:
            self.ends()

    def ends(self) -> None:
        asyncio.get_running_loop().call_soon(self._told)

    def close(self) -> None:
        assert not self.closed, "once"
        self.closed = True


class _World:
    """Permits that wait to be given, and connections that wait to be opened."""

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[str, ...], Callable[[int], None]]] = []
        self.held: list[tuple[str, ...]] = []
        self.opening: list[Callable[[Any], None]] = []
        self.asking = Asking(
            opener=lambda destination, opened, lost: self.opening.append(opened), permits=self,
            destination_of=lambda envelope, recipient: Destination("example.net", Transport.SMTP, domain="example.net"),
            scopes_of=lambda destination: (destination.key,), now_us=lambda: 0, loop=asyncio.get_running_loop(),
        )  # fmt: skip

    def acquire(self, scopes: tuple[str, ...], count: int, granted: Callable[[int], None]) -> None:
        self.asked.append((scopes, granted))

    def release(self, scopes: tuple[str, ...]) -> None:
        self.held.remove(scopes)

    def grant(self) -> None:
        scopes, granted = self.asked.pop(0)
        self.held.append(scopes)
        granted(1)

    async def ask(self) -> asyncio.Task[Attempt]:
        task = asyncio.ensure_future(self.asking.ask(TO, None))
        await _turns()
        return task


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def _run(test: Callable[[_World], Any]) -> None:
    async def run() -> None:
        await test(_World())

    asyncio.run(run())


def test_an_answer_closes_the_connection_and_gives_the_permit_back() -> None:
    async def test(world: _World) -> None:
        task, courier = await world.ask(), _Courier()
        world.grant()
        await _turns()
        assert len(world.held) == 1
        world.opening.pop()(courier)
        assert await task == THERE
        assert courier.closed and not world.held

    _run(test)


def test_a_connection_that_fails_gives_the_permit_back() -> None:
    async def test(world: _World) -> None:
        task = await world.ask()
        world.grant()
        await _turns()
        world.opening.pop()(DOWN)
        assert await task == DOWN
        assert not world.held

    _run(test)


@pytest.mark.parametrize("opened", [_Courier(), DOWN], ids=["opened", "failed"])
def test_who_waits_no_longer_leaves_the_permit_with_the_connection(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was given back while the connection was still being opened: the host then got more than its limit."""
    monkeypatch.setattr(asking, "QUESTION_S", 0.01)

    async def test(world: _World) -> None:
        task = await world.ask()
        world.grant()
        assert (await task).text == "no answer in 0.01 s"
        assert len(world.held) == 1
        world.opening.pop()(opened)
        assert not world.held
        assert isinstance(opened, Attempt) or opened.closed

    _run(test)


def test_who_waits_no_longer_for_a_permit_gives_it_back_when_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then no other question asks under its name, else the permits of both would be one to the node."""
    monkeypatch.setattr(asking, "QUESTION_S", 0.01)

    async def test(world: _World) -> None:
        await (await world.ask())
        task = await world.ask()
        assert len({scopes[0] for scopes, _ in world.asked}) == 2
        world.grant()
        assert not world.held
        await task
        world.grant()
        assert not world.held

    _run(test)


@pytest.mark.parametrize("comes", ["permit", "connection"])
def test_a_question_that_is_broken_off_as_something_comes_keeps_nothing(comes: str) -> None:
    async def test(world: _World) -> None:
        task, courier = await world.ask(), _Courier()
        world.grant()
        if comes == "connection":
            await _turns()
            world.opening.pop()(courier)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not world.held and not world.opening
        assert courier.closed or comes == "permit"

    _run(test)


def test_a_question_that_is_broken_off_keeps_its_permit_until_its_connection_has_ended_its_job() -> None:
    async def test(world: _World) -> None:
        task, courier = await world.ask(), _Courier(answers=False)
        world.grant()
        await _turns()
        world.opening.pop()(courier)
        await _turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert courier.closed and len(world.held) == 1
        courier.ends()
        await _turns()
        assert not world.held

    _run(test)


def test_a_question_that_is_broken_off_as_its_answer_comes_keeps_nothing() -> None:
    async def test(world: _World) -> None:
        task, courier = await world.ask(), _Courier(answers=False)
        world.grant()
        await _turns()
        world.opening.pop()(courier)
        await _turns()
        courier.ends()
        asyncio.get_running_loop().call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert courier.closed and not world.held

    _run(test)
