"""A crowd: who guesses passwords and hangs up, who sends cheap commands without end, and honest clients beside them.

It comes when everything is healed and the queue is empty, so that nothing excuses the node. The promises:
1. each wrong password that the node has looked into is counted, whether or not the client has waited for the answer:
   there is an event for each, and who goes on is banned;
2. no client has more commands handled at a time than its turn allows, while others wait;
3. an honest client beside them is let in, logs in, and has its mail taken at once.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

from postroad.accounts import accounts
from postroad.mail.event import Event, Refused
from postroad.receive.turns import PER_TURN
from tests.sim import plan as plans
from tests.sim.sender import Client, Gone, Order, _connected, submit

if TYPE_CHECKING:
    from tests.sim.house import House
    from tests.sim.process import Process
    from tests.sim.wire import End

GUESSERS = ("198.51.102.1", "198.51.102.2")
FLOODERS = ("198.51.104.1", "198.51.104.2")
HONEST = 4  # of each kind
_HANDS = 12  # connections that one guesser has at a time
_GUESSES_S = 400.0  # how long they go on, if nobody stops them
_FLOOD = 3000  # commands
_FLOODS = 5  # sessions of one who floods, one after the other
_COMMANDS = ("NOOP", "RSET", "NOOP x", "HELP")
_STAYS_S = 30.0  # how long a guesser waits for an answer
_COMES_S = 120.0  # within which the honest come


class Crowd:
    """What is known of it from outside. It only looks while the crowd is there."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.there = False
        self.wrong: Counter[str] = Counter()  # address → passwords of it that were found to be wrong
        self.counted: Counter[str] = Counter()  # address → events of failed log-ins

    def worked(self, process: Process, function: Any, arguments: tuple[Any, ...], found: Any) -> None:
        """A process has been told what a thread has worked out."""
        if self.there and function is accounts.matches and found is False:
            self.wrong[arguments[1].partition(" ")[0]] += 1  # a guess begins with the address of who makes it

    def heard(self, event: Event) -> None:
        if self.there and isinstance(event, Refused) and event.phase == "AUTH" and not event.reply.startswith("454"):
            self.counted[event.peer.address] += 1

    def wrote(self, end: End, octets: bytes) -> None:
        """The node has written to a client."""
        if not self.there or end.get_extra_info("peername")[0] not in FLOODERS:
            return
        answers = sum(line[3:4] == b" " for line in octets.split(b"\r\n"))
        if answers > PER_TURN:
            self._house.ledger.fault(f"{answers} commands of one client were handled at a time, others had to wait")


async def come(house: House) -> None:
    """All of them at once, until the honest are done and the others have had enough."""
    await house.calm()
    crowd = house.crowd
    crowd.there = True
    chance = random.Random(f"crowd {house.plan.seed}")
    guesses = [_guess(house, address, random.Random(chance.random())) for address in GUESSERS for _ in range(_HANDS)]
    floods = [_flood(house, address, chance.choice((1, 40, _FLOOD))) for address in FLOODERS]
    honest = [_honest(house, order, chance.uniform(0.0, _COMES_S)) for order in _orders(chance)]
    await asyncio.gather(*guesses, *floods, *honest)
    await asyncio.sleep(120.0)  # what was begun for who has hung up comes to its end
    await _counted(house)
    crowd.there = False


# -- who guesses ----------------------------------------------------------------------------------------------


async def _guess(house: House, address: str, chance: random.Random) -> None:
    until = house.base.now + _GUESSES_S
    number = 0
    while house.base.now < until:
        number += 1
        client = Client(house)
        try:
            if not await _connected(house, plans.ACCOUNT_DOOR, (address, house.wires.port()), client):
                return
            if not (await client.reply()).startswith("220"):
                return  # banned
            await client.ask("EHLO guess.test")
            await _try_one(client, f"{address} {number} {chance.random()}", chance)
        except Gone:
            pass
        finally:
            if client.transport is not None:
                client.transport.abort() if chance.random() < 0.5 else client.transport.close()
        await asyncio.sleep(chance.choice((0.0, 0.1, 3.0)))


async def _try_one(client: Client, guess: str, chance: random.Random) -> None:
    """Some wait for the answer, some hang up: before the password, right behind it, or while it is looked into."""
    name = chance.choice(("ann", "root"))
    if chance.random() < 0.3:
        await client.ask("AUTH LOGIN")
        await client.ask(_base64(name))
        if chance.random() < 0.2:
            return
        client.say(_base64(guess))
    else:
        client.say(f"AUTH PLAIN {_base64(f'{chr(0)}{name}{chr(0)}{guess}')}")
    stays = chance.random()
    if stays < 0.2:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STAYS_S):
                await client.reply()
    elif stays < 0.8:  # the octets must arrive, and the thread may just have them
        await asyncio.sleep(0.15 * chance.random())


async def _counted(house: House) -> None:
    crowd, node = house.crowd, house.node
    for address in GUESSERS:
        wrong, counted = crowd.wrong[address], crowd.counted[address]
        house.trace(f"{address} guessed, {wrong} were looked into, {counted} counted")
        if wrong != counted:
            house.ledger.fault(f"{wrong} passwords of {address} were found wrong, {counted} failures were counted")
        # Each worker may have all places of a client under way at the ban, and once more before it hears of it.
        most = node.settings.bans.failures_max + 2 * node.settings.auth.client_max * len(node.workers)
        if wrong > most:
            house.ledger.fault(f"{wrong} passwords of {address} were looked into, {most} at most before it is banned")
        if wrong >= node.settings.bans.failures_max + len(node.workers):
            await _is_banned(house, address)


async def _is_banned(house: House, address: str) -> None:
    client = Client(house)
    if await _connected(house, plans.ACCOUNT_DOOR, (address, house.wires.port()), client):
        with contextlib.suppress(Gone):
            answer = await client.reply()
            if not answer.startswith("421"):
                house.ledger.fault(f"{address} has guessed too often, and is not banned: {answer}")
        if client.transport is not None:
            client.transport.close()


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


# -- who floods -----------------------------------------------------------------------------------------------


async def _flood(house: House, address: str, at_once: int) -> None:
    """Cheap commands, as fast as the connection takes them; `at_once` in one write."""
    for _ in range(_FLOODS):
        await _flood_once(house, address, at_once)


async def _flood_once(house: House, address: str, at_once: int) -> None:
    client = Client(house)
    if not await _connected(house, plans.DOORS["mx"], (address, house.wires.port()), client):
        return
    try:
        await client.reply()
        await client.ask("EHLO flood.test")
        for begin in range(0, _FLOOD, at_once):
            client.say(*(_COMMANDS[number % len(_COMMANDS)] for number in range(begin, begin + at_once)))
            if at_once < _FLOOD:
                await client.reply()
        for _ in range(_FLOOD // at_once):
            await client.reply()
    except Gone:
        pass
    finally:
        if client.transport is not None:
            client.transport.abort()


# -- who is honest --------------------------------------------------------------------------------------------


def _orders(chance: random.Random) -> list[Order]:
    """A stranger's mail, a known client's, and that of somebody who logs in. From the networks of the others, too."""
    found = []
    for number in range(HONEST):
        for kind, (door, addresses, to, login) in enumerate((
            (plans.DOORS["mx"], ("198.51.104.9", "198.51.105.9", "198.51.102.9"), "bob@home.test", False),
            (plans.DOORS["relay"], ("198.51.100.9",), "u1@r0.test", False),
            (plans.ACCOUNT_DOOR, ("198.51.103.9", "198.51.104.8"), "cid@home.test", True),
        )):  # fmt: skip
            found.append(Order(
                3000 + 10 * number + kind, door, lmtp=False, address=chance.choice(addresses),
                sender="ann@home.test" if login else f"s{number}@r0.test", recipients=((to, "NEVER"),), body=b"x\r\n",
                pipelining=chance.random() < 0.5, bdat=False, leaves="", login=plans.LOGIN if login else None,
            ))  # fmt: skip
    return found


async def _honest(house: House, order: Order, after_s: float) -> None:
    await asyncio.sleep(after_s)
    await submit(house, order, 1)
    message_id = f"<{order.number}.0.0@sender.test>"
    if not any(each.message_id == message_id and each.told for each in house.ledger.submitted):
        house.ledger.fault(f"{message_id} was not taken at once by {order.door} beside a crowd")
