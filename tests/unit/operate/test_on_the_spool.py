"""The operator on the real spool: what he did is there after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from postroad.mail import identifier
from postroad.mail.envelope import Envelope, Peer, Recipient
from postroad.mail.event import Accepted
from postroad.operate.operator import Operator, OperatorAction, OperatorRequest, OperatorResult
from postroad.report.dsn import Reporter
from postroad.report.options import ReportOptions
from postroad.store.sqlite.spool import SpoolOptions, SqliteSpool
from postroad.store.values import Failure, Loaded, Selection, Settlement, Stored, Waiting
from tests.unit.operate.fakes import HOUR_US, NOW_US, Clock, World, address

SHARDS = (0, 1, 2)
CONTENT = b"Subject: x\r\n\r\nbody\r\n"


class Node:
    """A spool that is opened, worked on, closed and opened again."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        self.spool = SqliteSpool(directory, SHARDS, SpoolOptions(free_min=0), Clock(), asyncio.get_running_loop())
        self.spool.start()
        self.operator = Operator(
            spool=self.spool,
            shards=SHARDS,
            report=Reporter(ReportOptions(hostname="mx.example.org"), Clock().now_us, self.spool.new_id),
            destination_of=World().destination_of,
            clock=Clock(),
        )

    async def accept(self, shard: int, *recipients: str) -> int:
        to = tuple(Recipient(address(each)) for each in recipients)
        envelope = Envelope(
            self.spool.new_id(shard), address("alice@example.org"), to, len(CONTENT), NOW_US, Peer("192.0.2.1"),
        )  # fmt: skip
        events = (Accepted(NOW_US, envelope.id, "alice@example.org", recipients, len(CONTENT), "", envelope.peer),)
        assert await answer(self.spool.accept, Stored(envelope, CONTENT), events) is None
        return envelope.id

    async def defer(self, id: int, *destinations: str) -> None:
        rows = tuple(
            Waiting(place, NOW_US + HOUR_US, destination, 1, text="450 later")
            for place, destination in enumerate(destinations)
        )
        failure: Failure | None = await answer(self.spool.settle, Settlement(id, waiting=rows))
        assert failure is None

    async def ask(self, action: OperatorAction, *selections: Selection) -> list[OperatorResult]:
        rows: list[OperatorResult] = await answer(self.operator.operate, OperatorRequest(action, selections))
        return rows

    async def load(self, id: int) -> Loaded | None:
        loaded: Loaded | None = await answer(self.spool.load, id)
        return loaded

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.spool.close)


def answer(call: Callable[..., None], *arguments: Any) -> Awaitable[Any]:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    call(*arguments, future.set_result)
    return future


@pytest.mark.parametrize("shard", SHARDS)
async def test_each_action_is_there_after_a_restart(tmp_path: Path, shard: int) -> None:
    node = Node(tmp_path / "spool")
    ids = {action: await node.accept(shard, "a@one.example", "b@two.example") for action in OperatorAction}
    for id in ids.values():
        await node.defer(id, "one.example", "two.example")
    for action, id in ids.items():
        if action is OperatorAction.RELEASE:
            await node.ask(OperatorAction.HOLD, Selection(ids=(id,)))
        rows = await node.ask(action, Selection(ids=(id,), recipient="a@one.example"))
        assert [(row.recipient, row.done) for row in rows] == [("a@one.example", True)]
    await node.close()
    node = Node(tmp_path / "spool")
    states = {}
    for action, id in ids.items():
        loaded = await node.load(id)
        assert loaded is not None
        states[action.value] = {row.index: (row.held, row.due_us - NOW_US) for row in loaded.waiting}
    assert states == {
        "retry": {0: (False, 0), 1: (False, HOUR_US)},
        "hold": {0: (True, HOUR_US), 1: (False, HOUR_US)},
        "release": {0: (False, 0), 1: (True, HOUR_US)},
        "remove": {1: (False, HOUR_US)},
        "fail": {1: (False, HOUR_US)},
    }
    (dsn,) = await answer(node.spool.fresh, shard, 0, 100)
    assert dsn.parent == ids[OperatorAction.FAIL] and dsn.reverse_path is None
    assert b"a@one.example" in await answer(node.spool.content, dsn.id)
    await node.close()


@pytest.mark.parametrize("action", OperatorAction)
async def test_fresh_messages(tmp_path: Path, action: OperatorAction) -> None:
    node = Node(tmp_path / "spool")
    ids = [await node.accept(shard, "a@one.example", "b@two.example") for shard in SHARDS]
    rows = await node.ask(action, Selection(destination="two.example"))
    assert [row.id for row in rows] == [identifier.text(id) for id in sorted(ids)]
    assert {row.recipient for row in rows} == {"b@two.example"}
    assert {row.done for row in rows} == {action is not OperatorAction.RELEASE}
    await node.close()
    node = Node(tmp_path / "spool")
    for id in ids:
        loaded = await node.load(id)
        assert loaded is not None
        kept = {row.index: row.destination for row in loaded.waiting}
        match action:
            case OperatorAction.RELEASE:
                assert kept == {}
            case OperatorAction.REMOVE | OperatorAction.FAIL:
                assert kept == {0: "one.example"}
            case _:
                assert kept == {0: "one.example", 1: "two.example"}
    await node.close()


async def test_removing_everything_leaves_nothing(tmp_path: Path) -> None:
    node = Node(tmp_path / "spool")
    for shard in SHARDS:
        await node.defer(await node.accept(shard, "a@one.example"), "one.example")
        await node.accept(shard, "b@two.example")
    rows = await node.ask(OperatorAction.REMOVE, Selection())
    assert len(rows) == 6 and all(row.done for row in rows)
    assert await answer(node.spool.select, Selection()) == []
    for shard in SHARDS:
        assert await answer(node.spool.ahead, shard, (-1, ""), 1 << 62, 10) == []
        assert await answer(node.spool.fresh, shard, 0, 10) == []
    await node.close()
