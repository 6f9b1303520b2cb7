"""A relay domain whose recipients only its next hop knows: slow, down, busy, greylisting, or in no mood at all.

The promises:
1. a client hears 550 5.1.1 only if the next hop has refused this recipient for good at RCPT, and not too long ago; in
   all other trouble it hears 450. Nobody whom the next hop does not know is accepted;
2. an answer is kept on the disk for all workers: within its time nobody asks again, whoever dies;
3. strangers cannot have the next hop asked without end: the node asks so much within a while, for one network and
   about the domain;
4. when all is well, a recipient that is there is accepted.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.sim.part import Part, Scheduled, Seen
from tests.sim.plan import DOORS
from tests.sim.remote import Host
from tests.sim.sender import Order, submit

if TYPE_CHECKING:
    from tests.sim.house import House
    from tests.sim.ledger import Submitted
    from tests.sim.wire import End

DOMAIN, ADDRESS = "asked.test", "203.0.113.209"
PROBE = "probe@home.test"  # the sender of questions, and of nothing else
FIRST = 7100  # the number of the first order
_ORDERS = 5
_TRIES = 5  # of who asks when all is well
_GUESSES = 10  # recipients of one who tries many names
_NETWORKS = ("198.51.106", "198.51.107", "198.51.108")
_FOUND_REFRESH_S, _MISSING_S, _MISSING_REFRESH_S = 7200.0, 14_400.0, 3600.0
_SPAN_S, _CLIENT_MAX, _DOMAIN_MAX = 600.0, 3, 5
_SLACK_S = 70.0  # a question takes 60 s at most
_LEARNED = re.compile(r"<(.*)> (exists|does not exist), says")
_SETTINGS = f"""
[[relay.domain]]
name = "{DOMAIN}"
verify = true
[[next_hop]]
domain = "{DOMAIN}"
host = "{ADDRESS}"
tls = "never"
[verify]
sender = "{PROBE}"
found_s = "8h"
found_refresh_s = {_FOUND_REFRESH_S:.0f}
missing_s = {_MISSING_S:.0f}
missing_refresh_s = {_MISSING_REFRESH_S:.0f}
client_max = {_CLIENT_MAX}
domain_max = {_DOMAIN_MAX}
span_s = {_SPAN_S:.0f}
"""


class Verifying(Part):
    """`asked`: when the node has asked. `refused`: when the next hop has refused a recipient for good."""

    def __init__(self, house: House) -> None:
        super().__init__(house)
        self.asked: list[float] = []
        self.refused: dict[str, list[float]] = defaultdict(list)
        self._burst_s = self.moment()  # when strangers try many names
        self._kept: dict[str, tuple[float, float]] = {}  # recipient → when the answer came, and when it is asked again

    def settings(self, toml: str) -> str:
        return toml + _SETTINGS

    def hosts(self) -> list[Host]:
        offers = ("PIPELINING", "DSN") if self.chance.random() < 0.7 else ("DSN",)
        grey_s = self.chance.choice((0.0, 0.0, 900.0))
        return [Host("knows", ADDRESS, trouble=self.house.plan.trouble, offers=offers, grey_s=grey_s)]

    def orders(self) -> list[Scheduled]:
        chance = self.chance
        found: list[Scheduled] = []
        for number in range(FIRST, FIRST + 2 * _ORDERS, 2):
            at, order = self.moment(), self._order(number, ("u1", "u1", "u2", "bad1", "later1"))
            found += (at, order, 3), (at + 2000.0 * chance.random(), replace(order, number=number + 1), 1)
        for network in _NETWORKS:
            names = [f"bad-{network[-1]}-{n}" for n in range(30)]
            for number in range(2):
                order = Order(
                    FIRST + 20 + 10 * number + _NETWORKS.index(network), DOORS["mx"], lmtp=False,
                    address=f"{network}.{number + 1}", sender="s@r0.test",
                    recipients=tuple((f"{each}@{DOMAIN}", "") for each in chance.sample(names, _GUESSES)),
                    body=b"x\r\n", pipelining=True, bdat=False, leaves="",
                )  # fmt: skip
                found.append((self._burst_s + 20.0 * chance.random(), order, 1))
        return found

    def begin(self) -> None:
        """In some runs the next hop is too slow for any question while many are asked."""
        if self.chance.random() < 0.4:
            host, base = next(each for each in self.house.hosts if each.address == ADDRESS), self.house.base
            base.call_later(self._burst_s, setattr, host, "greet_s", 80.0)
            base.call_later(self._burst_s + 900.0, setattr, host, "greet_s", 0.0)

    def _order(self, number: int, names: tuple[str, ...]) -> Order:
        chance = self.chance
        to = sorted({*chance.sample(names, chance.choice((1, 2)))})
        return Order(
            number, DOORS["mx"], lmtp=False, address=f"{chance.choice(_NETWORKS)}.7",
            sender=chance.choice(("s@r0.test", "")),
            recipients=tuple((f"{each}@{DOMAIN}", "") for each in to),
            body=b"is he there?\r\n", pipelining=chance.random() < 0.5, bdat=False, leaves="",
        )  # fmt: skip

    async def come(self) -> None:
        await self.house.calm()
        for number in range(FIRST + 50, FIRST + 50 + _TRIES):
            await submit(self.house, self._order(number, ("new1", "new2")), 1)
            if self.house.ledger.submitted[-1].told:
                return
            await asyncio.sleep(1000.0)
        self.fault(f"nobody at {DOMAIN} is accepted, though the next hop is well")

    # -- what is seen -----------------------------------------------------------------------------------------

    def told_rcpt(self, host: Host, sender: str, recipient: str, said: str, end: End) -> None:
        if host.address != ADDRESS:
            return
        now = self.house.base.now
        if said.startswith("5"):
            self.refused[recipient].append(now)
        if sender != PROBE:
            return
        self.asked.append(now)
        came, again = self._kept.get(recipient, (0.0, 0.0))
        if came + _SLACK_S < now < again - _SLACK_S and not self.house.plan.jumps:
            self.fault(f"the next hop is asked again whether {recipient} exists, {now - came:.0f} s after its answer")

    def noted(self, text: str) -> None:
        """The log says what a worker has learned: it is kept by then."""
        if found := _LEARNED.match(text):
            refresh_s = _FOUND_REFRESH_S if found[2] == "exists" else _MISSING_REFRESH_S
            self._kept[found[1]] = self.house.base.now, self.house.base.now + refresh_s

    def heard(self, order: Order, submitted: Submitted, to: str, answer: str) -> None:
        if not to.endswith(f"@{DOMAIN}"):
            return
        if answer.startswith("25") and to.startswith("bad"):
            self.fault(f"{to} is accepted, and the next hop does not know it: {answer}")
        since = self.house.base.now - _MISSING_S - _SLACK_S
        has_refused = any(at > since for at in self.refused[to]) or self.house.plan.jumps > 0
        if answer.startswith("550 5.1.1") and not has_refused:
            self.fault(f"{to} is refused, and the next hop has not refused it: {answer}")

    def check(self, seen: Seen) -> None:
        # The end of a span meets the next one, questions come late, and a power cut takes the counts.
        most = 3 * _DOMAIN_MAX * (1 + self.house.plan.power_cuts)
        for at in self.asked:
            count = sum(at <= each < at + _SPAN_S for each in self.asked)
            if count > most:
                self.fault(f"the next hop was asked {count} questions within {_SPAN_S:.0f} s")
                return
