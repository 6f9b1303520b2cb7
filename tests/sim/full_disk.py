"""A disk that is full to the last octet while mail waits: only what a shard has in reserve is there. And one that
refuses commits and has written them all the same, while an operator gives up mail.

It comes when everything is healed and the queue is empty, so that nothing excuses the node. The promises:
1. what is in the queue goes out, and what became of it is written down, with the space of the reserve;
2. new mail is refused for now, and is not there afterwards;
3. with space again the reserve is made again, and new mail is taken;
4. what the operator has given up has an end in the history, whatever the commits after it take back (`promises`).
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from tests.sim import plan as plans
from tests.sim.sender import Order, submit

if TYPE_CHECKING:
    from tests.sim.house import House
    from tests.sim.ledger import Submitted

_GATE = "refuse"
_WAITS_S = 3600.0
_DRAINS_S = 6 * 3600.0
_MAIL = 4


async def come(house: House) -> None:
    """Mail gathers while no host answers; the disk becomes full; the hosts are there again; the disk has space."""
    node = house.node
    await house.calm()
    places = [f"{host.address}:25" for host in house.hosts if not host.lmtp]
    house.wires.gates.update(dict.fromkeys(places, _GATE))
    before = await _send(house, 4000)
    await asyncio.sleep(_WAITS_S)
    node.set_disk("packed")
    for place in places:
        house.wires.gates.pop(place, None)
    node.operate({"action": "release", "selections": [{"held": True}], "by": "op", "text": ""})
    node.operate({"action": "retry", "selections": [{}], "by": "op", "text": ""})
    begun = house.base.now
    while _elsewhere(house) and house.base.now < begun + _DRAINS_S:
        await asyncio.sleep(60.0)
    for id, message_id, recipient in _elsewhere(house):
        house.ledger.fault(f"{message_id} for {recipient} ({id}) waits on a full disk, for all its reserve")
    refused = await _send(house, 4100)
    node.set_disk("")
    await asyncio.sleep(120.0)
    after = await _send(house, 4200)
    _judge(house, (*before, *after), refused)
    await _given_up(house, places)


async def _given_up(house: House, places: list[str]) -> None:
    house.wires.gates.update(dict.fromkeys(places, _GATE))
    await _send(house, 4300)
    house.node.set_disk("written")
    house.node.operate({"action": "fail", "selections": [{}], "by": "op", "text": "given up"})
    await asyncio.sleep(10.0)
    house.node.set_disk("")
    for place in places:
        house.wires.gates.pop(place, None)


def _elsewhere(house: House) -> list[tuple[int, str, str]]:
    """What waits for other hosts. A Maildir has no space."""
    return [row[:3] for row in house.node.waiting() if not row[2].endswith("@home.test")]


async def _send(house: House, number: int) -> list[Submitted]:
    """Messages whose recipients are elsewhere and whose senders hear of nothing: no Maildir needs space."""
    first = len(house.ledger.submitted)
    for place in range(_MAIL):
        await submit(house, Order(
            number + 7 * place, plans.DOORS["relay"], lmtp=False, address="198.51.100.9", sender="",
            recipients=(("u1@r0.test", ""), ("u1@r1.test", "")), body=b"x\r\n", pipelining=True, bdat=False,
            leaves="",
        ), 1)  # fmt: skip
    return house.ledger.submitted[first:]


def _judge(house: House, kept: tuple[Submitted, ...], refused: list[Submitted]) -> None:
    for each in kept:
        if not each.told:
            house.ledger.fault(f"{each.message_id} was refused though the disk had space")
    for each in refused:
        if each.told:
            house.ledger.fault(f"{each.message_id} was taken on a full disk")
    for worker in house.node.workers:
        for shard in house.node.shards_of(worker):
            path = house.node.spool / f"{shard:02}.reserve"
            if os.stat(path).st_blocks * 512 < house.node.settings.store.reserve:
                house.ledger.fault(f"with space again the reserve {path.name} is not there")
