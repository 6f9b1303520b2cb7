"""A client that stays while the settings change: what it may do is what the new ones give it.

Its network is trusted by every second configuration (`plan.STAYING`). It connects just before a reload, has said EHLO,
or is in the midst of a message by then, and goes on behind it: where its trust is gone nothing may be relayed for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING

from tests.sim.plan import DOORS, STAYING, trusts_staying
from tests.sim.sender import Client, Gone, _connected

if TYPE_CHECKING:
    from tests.sim.house import House

BEGIN_S = 30.0  # how long the reload waits for the client
TAKEN_S = 5.0  # within which every worker has taken the new settings
_OUT = "RCPT TO:<u1@r0.test>"


async def stay(house: House) -> None:
    """Connect, reload, go on."""
    node = house.node
    chance = random.Random(f"stay {house.plan.seed} {node.variant}")  # of its own: what a seed means stays
    client = Client(house)
    step = ""
    with contextlib.suppress(TimeoutError, Gone):
        async with asyncio.timeout(BEGIN_S):
            step = await _begin(house, client, chance.choice(("EHLO", "RCPT", "DATA")))
    node.reload()
    variant = node.variant
    await asyncio.sleep(TAKEN_S)
    with contextlib.suppress(Gone):
        if step and node.variant == variant and not trusts_staying(variant):
            await _go_on(house, client, step)
    if client.transport is not None:
        client.transport.abort()


async def _begin(house: House, client: Client, wanted: str) -> str:
    """How far it has come."""
    if not await _connected(house, DOORS["relay"], (STAYING, house.wires.port()), client):
        return ""
    if not (await client.reply()).startswith("220") or not (await client.ask("EHLO stays.test")).startswith("250"):
        return ""
    if wanted == "EHLO":
        return wanted
    for line in ("MAIL FROM:<x@sender.test>", _OUT):
        if not (await client.ask(line)).startswith("25"):
            await client.ask("RSET")
            return "EHLO"
    if wanted == "RCPT" or not (await client.ask("DATA")).startswith("354"):
        return "RCPT"
    client.say("Subject: it stays", "", "half of it")
    return "DATA"


async def _go_on(house: House, client: Client, step: str) -> None:
    """Its trust is gone: nothing more is relayed for it."""
    if step == "DATA":
        _not(house, step, await client.ask("."), "250")
    elif step == "RCPT":
        _not(house, step, await client.ask(_OUT), "25")
        _not(house, step, await client.ask("DATA"), "354")
    else:
        await client.ask("MAIL FROM:<x@sender.test>")
        _not(house, step, await client.ask(_OUT), "25")


def _not(house: House, step: str, answer: str, wrong: str) -> None:
    house.trace(f"a client that has stayed, behind {step}: {answer[:9]}")
    if answer.startswith(wrong):
        house.ledger.fault(f"a client relays by trust that a reload has taken away, behind {step}: {answer}")
