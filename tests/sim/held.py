"""A domain whose mail a `[[next_hop]]` holds until an operator releases it, and workers that die while he does.

The promises:
1. nobody in the domain is tried before he was released; an operator who is told that he released somebody has done so,
   also if the worker dies right then;
2. released mail goes to the server of the table, and is not held again, whatever happens to its attempts.

That held mail is not lost, and comes to one end, is in `promises`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroad.mail import identifier
from postroad.mail.event import Attempted, Held, Released
from tests.sim.part import Part, Scheduled, Seen
from tests.sim.plan import DOORS
from tests.sim.remote import Host
from tests.sim.sender import Order

if TYPE_CHECKING:
    from tests.sim.house import House

DOMAIN, ADDRESS = "held.test", "203.0.113.206"
FIRST = 7200  # the number of the first order
_ORDERS = 5
_RELEASES = 4
_SETTINGS = f"""
[[next_hop]]
domain = "{DOMAIN}"
action = "hold:until their audit is done"
host = "{ADDRESS}"
tls = "never"
"""


class HeldMail(Part):
    """See the module."""

    def __init__(self, house: House) -> None:
        super().__init__(house)
        self._moments = sorted(self.moment() for _ in range(_RELEASES))

    def settings(self, toml: str) -> str:
        return toml + _SETTINGS

    def hosts(self) -> list[Host]:
        return [Host("audited", ADDRESS, trouble=self.house.plan.trouble, offers=("PIPELINING", "DSN"))]

    def orders(self) -> list[Scheduled]:
        chance = self.chance
        found: list[Scheduled] = []
        for number in range(FIRST, FIRST + _ORDERS):
            to = (f"later1@{DOMAIN}", chance.choice((f"u1@{DOMAIN}", f"bad1@{DOMAIN}", "ann@home.test")))
            order = Order(
                number, DOORS["relay"], lmtp=False, address="198.51.100.4", sender=chance.choice(("cid@home.test", "")),
                recipients=tuple((each, "") for each in to), body=b"to be audited\r\n", pipelining=True, bdat=False,
                leaves="",
            )  # fmt: skip
            at = chance.choice((*self._moments, self.moment()))  # some come while others are released
            found.append((max(0.0, at - 2.0 * chance.random()), order, 2))
        return found

    def begin(self) -> None:
        for at in self._moments:
            self.house.base.call_later(at, self._release)

    def _release(self) -> None:
        """As `postroad queue release` does. In runs with crashes each worker may die at some step of it."""
        house, chance = self.house, self.chance
        if house.plan.crashes and not house.healed:
            for worker in house.node.workers:
                if worker.process is not None and chance.random() < 0.7:
                    step = chance.randint(1, 12)
                    why = f"killed at step {step} of a release"
                    worker.process.die_at(step, lambda worker=worker, why=why: house.node.crash(worker, why))
        selection = chance.choice(({"destination": "hold"}, {"recipient": f"@{DOMAIN}"}))
        house.node.operate({"action": "release", "selections": [selection], "by": "op", "text": ""})

    def check(self, seen: Seen) -> None:
        released: set[tuple[int, str]] = set()
        held: set[tuple[int, str]] = set()
        if self.house.plan.jumps:  # what came later may stand in the file of an earlier day
            return
        for event in seen.events:
            if not isinstance(event, Released | Held | Attempted):
                continue
            for recipient in event.recipients:
                who = event.id, recipient
                if not recipient.endswith(f"@{DOMAIN}"):
                    continue
                if isinstance(event, Attempted) and who not in released:
                    self.fault(f"{identifier.text(event.id)} for {recipient} was tried, and nobody has released it")
                elif isinstance(event, Held) and not event.by and who in released:
                    self.fault(f"{identifier.text(event.id)} for {recipient} was released, and is held again")
                elif isinstance(event, Held):
                    held.add(who)
                elif isinstance(event, Released) and not event.now:
                    released.add(who)
        told = {(id, recipient) for id, recipient in self.house.released if recipient.endswith(f"@{DOMAIN}")}
        for id, recipient in told - {(identifier.text(id), recipient) for id, recipient in released}:
            self.fault(f"{id} for {recipient} was released, as the operator was told, and the history knows nothing")
        for id, recipient in released - held:
            self.fault(f"{identifier.text(id)} for {recipient} was released, and had never been held")
