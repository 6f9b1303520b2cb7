"""The agenda's memory: what means nothing any more is bounded."""

from __future__ import annotations

import asyncio

from postroad.queue import agenda as rooms
from postroad.queue.agenda import Agenda
from tests.unit.queue.fakes import VirtualClock, VirtualLoop


def test_a_time_that_is_replaced_again_and_again_takes_no_memory() -> None:
    loop = VirtualLoop()
    clock = VirtualClock(loop)
    loaded: list[tuple[int, str]] = []
    agenda = Agenda(
        clock, loop, room=lambda: True, rate=lambda: 100.0,
        load=lambda shard, key: loaded.append((shard, key)) is None,
    )  # fmt: skip
    begun_us = clock.now_us()
    for step in range(20_000):  # each earlier than the one before
        agenda.schedule(0, "x.example", begun_us + 60_000_000 - step)
    assert len(agenda) == 1 and len(agenda._heap) <= 2 + rooms._OUTDATED_MAX
    loop.run_until_complete(asyncio.sleep(61.0))
    loop.close()
    assert loaded == [(0, "x.example")]
