"""What comes back to senders that the node has signed: reports, and reports that are forged.

Some hosts that have taken a message send a report to the sender that they heard. The promises:
1. it is accepted at RCPT, whichever key signs by then, and even if the host has made its letters small. It reaches the
   real sender (`promises` sees to that: it is a message as any other);
2. a report to an address whose hash is wrong is refused, and so is one without a tag if the domain requires tags.
"""

from __future__ import annotations

import asyncio
import random
import re
from typing import TYPE_CHECKING

from tests.sim import plan as plans
from tests.sim import signing
from tests.sim.ledger import Delivery
from tests.sim.sender import Client, Gone, Order, _connected, submit

if TYPE_CHECKING:
    from tests.sim.house import House

FIRST = 5000  # the number of the first report
_SIGNED_MAX = 16  # messages from a signed sender that are looked at in a run
_SHARE = 0.6  # of them
_LATEST_S = 30_000.0
_SOURCE = "198.51.105.7"  # nobody trusts it
_HASH = re.compile(r"(?:SRS0=|prvs=[0-9]{4})(.)")


def taken(house: House, delivery: Delivery) -> None:
    """A host may send a report, now or later."""
    if delivery.said is None or delivery.final or house.closing or house.crowd.there:
        return
    is_signed = signing.untagged(delivery.said) != delivery.said
    is_named = delivery.said != delivery.sender and delivery.said.endswith("@home.test")  # VERP
    if not is_signed and not (is_named and house.plan.signed != "require"):
        return
    house.signed += 1
    chance = random.Random(f"report {house.plan.seed} {house.signed}")  # of its own: what a seed means stays
    if house.signed <= _SIGNED_MAX and chance.random() < _SHARE:
        house.begin(_report(house, delivery.said, signing.untagged(delivery.said), FIRST + house.signed, chance))


async def _report(house: House, said: str, meant: str, number: int, chance: random.Random) -> None:
    await asyncio.sleep(_LATEST_S * chance.random() ** 3)
    if chance.random() < 0.5 and house.plan.signed and said != meant:
        is_ours = meant.endswith("@home.test")
        if not is_ours or house.plan.signed == "require":
            await _forged(house, _spoilt(said))
            await _forged(house, meant) if is_ours else None
    order = Order(
        number, plans.DOORS["mx"], lmtp=False, address=_SOURCE, sender="",
        recipients=((said.lower() if chance.random() < 0.3 else said, ""),), meant=meant, body=b"it failed\r\n",
        pipelining=chance.random() < 0.5, bdat=False, leaves=chance.choice(("", "", "", "content", "end")),
    )  # fmt: skip
    await submit(house, order, 4)


def _spoilt(said: str) -> str:
    """With another first character of the hash, in whatever case."""
    found = _HASH.match(said)
    assert found is not None, said
    return f"{said[: found.start(1)]}{'b' if found[1] in 'aA' else 'a'}{said[found.end(1):]}"


async def _forged(house: House, to: str) -> None:
    client = Client(house)
    try:
        if not await _connected(house, plans.DOORS["mx"], (_SOURCE, house.wires.port()), client):
            return
        await client.reply()
        await client.ask("EHLO forges.test")
        await client.ask("MAIL FROM:<>")
        answer = await client.ask(f"RCPT TO:<{to}>")
        house.trace(f"a forged report to {to}: {answer[:9]}")
        if answer.startswith("25"):
            house.ledger.fault(f"a forged report to {to} is taken: {answer}")
    except Gone:
        pass
    finally:
        if client.transport is not None:
            client.transport.close()
