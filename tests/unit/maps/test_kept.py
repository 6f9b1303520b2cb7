"""Kept connections of a server that takes only so many."""

from __future__ import annotations

import asyncio

import pytest

from postroad.maps.kept import KeptConnections
from postroad.maps.waiting import Away


class Server:
    """Takes `most` connections. `broken`: what it answers nothing to."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.open: set[int] = set()
        self.made = 0
        self.broken: set[str] = set()

    async def connect(self) -> int:
        await asyncio.sleep(0)
        if len(self.open) >= self.most:
            raise ConnectionError("too many clients already")
        self.made += 1
        self.open.add(self.made)
        return self.made

    def abort(self, connection: int) -> None:
        self.open.discard(connection)


def house(most: int) -> tuple[Server, KeptConnections[int]]:
    server = Server(most)
    return server, KeptConnections(server.connect, server.abort)


async def ask(server: Server, kept: KeptConnections[int], key: str) -> str:
    async def work(connection: int) -> str:
        assert connection in server.open
        await asyncio.sleep(0.001)
        if key in server.broken:
            raise ConnectionError("gone")
        return f"value of {key}"

    return await kept.use(work)


async def test_look_ups_wait_for_a_connection_that_is_at_work() -> None:
    server, kept = house(3)
    found = await asyncio.gather(*(ask(server, kept, f"k{number}") for number in range(40)))
    assert found == [f"value of k{number}" for number in range(40)]
    assert server.made == 3 and len(kept) == 3


async def test_none_at_work_is_away() -> None:
    server, kept = house(0)
    with pytest.raises(Away, match="too many clients"):
        await ask(server, kept, "k")


async def test_the_last_one_breaks() -> None:
    """Who waits for it hears of it, and the next look-up makes a new connection."""
    server, kept = house(1)
    server.broken = {"k0"}
    found = await asyncio.gather(*(ask(server, kept, f"k{number}") for number in range(4)), return_exceptions=True)
    assert [isinstance(each, Away) for each in found] == [True] * 4
    server.broken = set()
    assert await ask(server, kept, "k") == "value of k" and server.made == 2


async def test_one_that_is_given_up_takes_nothing_with_it() -> None:
    server, kept = house(1)
    tasks = [asyncio.create_task(ask(server, kept, f"k{number}")) for number in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks[2].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [each for each in found if isinstance(each, str)] == [f"value of k{number}" for number in (0, 1, 3, 4)]
    kept.close()
    assert not server.open


async def test_closed_while_one_is_at_work() -> None:
    server, kept = house(1)
    task = asyncio.create_task(ask(server, kept, "k"))
    await asyncio.sleep(0.0005)
    kept.close()
    assert await task == "value of k"
    assert not server.open
