"""A host that takes messages of some size only (SIZE), and changes its mind; the node remembers what it said.

The promises:
1. a client hears that its message is too large only for recipients of this host, and only if the host has named this
   limit within `size_memory_s`;
2. a worker that has heard of the limit takes no larger message for this host alone, as long as it remembers it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from postroad.mail.event import Held
from tests.sim.part import Part, Scheduled, Seen
from tests.sim.plan import DOORS
from tests.sim.remote import Host
from tests.sim.sender import Order

if TYPE_CHECKING:
    from tests.sim.house import House
    from tests.sim.ledger import Submitted
    from tests.sim.process import Process
    from tests.sim.wire import End

DOMAIN, ADDRESS = "sized1.test", "203.0.113.207"  # names whose destination is known at once (`routing`)
ROOMY, ROOMY_ADDRESS = "roomy.test1", "203.0.113.208"
FIRST = 7300  # the number of the first order
_ROUNDS = 3
_LARGE = 6000
_LIMITS = (2000, 2000, 60_000, 0)
_MEMORY_S = 1800.0
_SLACK_S = 60.0
_NO_LIMIT = 1 << 60
_LIMIT = re.compile(r"552 5\.3\.4 .*the message has (\d+) octets; the servers? of .* takes? (\d+) at most")
_SETTINGS = "".join(
    f'\n[[next_hop]]\ndomain = "{domain}"\nhost = "{host}"\ntls = "never"\n'
    for domain, host in ((DOMAIN, ADDRESS), (ROOMY, ROOMY_ADDRESS))
)


class Sized(Part):
    """`said`: when the host named a limit, which, to which life of a worker."""

    def __init__(self, house: House) -> None:
        super().__init__(house)
        self.said: list[tuple[float, int, str]] = []
        self._rounds = sorted(1.0 + self.moment() for _ in range(_ROUNDS))
        self._taken: list[tuple[str, int]] = []  # what a worker that knew the limit took all the same

    def settings(self, toml: str) -> str:
        return toml.replace("\n[outbound]\n", f"\n[outbound]\nsize_memory_s = {_MEMORY_S:.0f}\n") + _SETTINGS

    def hosts(self) -> list[Host]:
        trouble = self.house.plan.trouble
        self._host = Host("sized", ADDRESS, trouble=trouble / 3, offers=("PIPELINING",), size_max=_LIMITS[0])
        return [self._host, Host("roomy", ROOMY_ADDRESS, trouble=trouble / 3, offers=("PIPELINING",))]

    def orders(self) -> list[Scheduled]:
        """Small messages, by which the workers learn; large ones soon, and others when all is forgotten."""
        chance = self.chance
        found: list[Scheduled] = []
        for begin in self._rounds:
            soon, late = 60.0 + 900.0 * chance.random(), _MEMORY_S + _SLACK_S + 1200.0 * chance.random()
            for place, (after_s, domains, large) in enumerate((
                (0.0, (DOMAIN,), False), (3.0, (DOMAIN,), False), (6.0, (DOMAIN,), False),
                (soon, (DOMAIN,), True), (soon + 60.0, (ROOMY,), True),
                (late, (DOMAIN,), True), (late + 5.0, (DOMAIN,), True), (late + 60.0, (DOMAIN, ROOMY), True),
            )):  # fmt: skip
                number = 10 * self._rounds.index(begin) + place
                found.append((begin + after_s, self._order(number, domains, large=large), 1))
        return found

    def _order(self, number: int, domains: tuple[str, ...], *, large: bool) -> Order:
        return Order(
            FIRST + number, DOORS["relay"], lmtp=False, address="198.51.100.3", sender="cid@home.test",
            recipients=tuple((f"u1@{each}", "NEVER") for each in domains),
            body=b"large or small\r\n" * (_LARGE // 16 if large else 1), pipelining=True, bdat=False, leaves="",
            sizes=self.chance.random() < 0.5,
        )  # fmt: skip

    def begin(self) -> None:
        for begin in self._rounds:
            self.house.base.call_later(begin - 1.0, self._change, _LIMITS[0])
            self.house.base.call_later(begin + _MEMORY_S * self.chance.random(), self._change, 0)

    def _change(self, size_max: int) -> None:
        if not self.house.healed:
            self._host.size_max = size_max or self.chance.choice(_LIMITS)

    # -- what is seen -----------------------------------------------------------------------------------------

    def told_size(self, host: Host, end: End) -> None:
        process = end.peer.process if end.peer is not None else None
        if host is self._host and process is not None:
            self.house.base.call_later(1.0, self._knows, host.size_max, end, process, end.written)

    def _knows(self, size_max: int, end: End, process: Process, octets: int) -> None:
        """If it has come: what is said and not heard may not be told to clients either."""
        if end.peer is not None and end.peer.received >= octets:
            self.said.append((self.house.base.now, size_max, process.name))

    def heard(self, order: Order, submitted: Submitted, to: str, answer: str) -> None:
        now = self.house.base.now
        if found := _LIMIT.match(answer):
            size, limit = int(found[1]), int(found[2])
            names = [to] if to else list(submitted.taken)
            known = any(most == limit < size and now - at < _MEMORY_S + _SLACK_S for at, most, _ in self.said)
            if not known or not all(each.endswith(f"@{DOMAIN}") for each in names):
                self.fault(f"{submitted.message_id} for {names} was refused for its size: {answer}")
        elif not to and answer.startswith("250") and all(each.endswith(f"@{DOMAIN}") for each in submitted.taken):
            workers = self.house.node.workers
            alone = "copied" not in self.house.plan.parts  # else other hosts get it, too
            if alone and len(workers) == 1 and workers[0].process is not None:
                self._took(submitted, workers[0].process.name, now)

    def _took(self, submitted: Submitted, name: str, now: float) -> None:
        heard = [(at, most or _NO_LIMIT) for at, most, who in self.said if who == name]
        known = [
            most for at, most in heard
            if now - _MEMORY_S + _SLACK_S < at < now - _SLACK_S and most < len(submitted.content)
            and all(other <= most for when, other in heard if when > at - _MEMORY_S - _SLACK_S)  # the largest counts
        ]  # fmt: skip
        if known:
            self._taken.append((submitted.message_id, known[-1]))

    def check(self, seen: Seen) -> None:
        held = {event.id for event in seen.events if isinstance(event, Held) and not event.by}  # these may be larger
        for message_id, limit in self._taken:
            if seen.by_id.get(message_id) not in held:
                self.fault(f"{message_id} is larger than the {limit} octets that the worker knew of, and was taken")
