"""Reports to a domain whose mail comes: counted from the history of each day, and sent in the next one.

The promises, whatever crashes, whoever does not answer, and over restarts of the machine:
1. each report is accepted once for each day and destination;
2. each day on which mail was evaluated has its report, for each destination;
3. a report counts what the history of its day has.
"""

from __future__ import annotations

import asyncio
import email
import gzip
import re
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from postroad.mail.event import Accepted, Evaluated
from postroad.report.own_mail import LISTENER_FEEDBACK
from tests.sim.part import Part, Scheduled, Seen
from tests.sim.sender import Order, submit

if TYPE_CHECKING:
    from tests.sim.house import House

DOMAIN: Final = "r1.test"
DOOR: Final = "192.0.2.1:28"
FIRST: Final = 9900  # the number of the first order
_ORDERS: Final = 20
_DAY_US: Final = 86_400_000_000
_EDGE_US: Final = 600_000_000  # so near to midnight, an event and its commit may be of different days
_TURN_S: Final = 900.0
_BOXES: Final = ("ann@home.test", "bob@home.test")
_RECORDS: Final = {
    f"_dmarc.{DOMAIN}": f"v=DMARC1; p=none; rua={','.join(f'mailto:{each}' for each in _BOXES)}",
    f"{DOMAIN}._report._dmarc.home.test": "v=DMARC1",
}
_SETTINGS: Final = f"""
[[listener]]
name = "feedback"
address = "192.0.2.1"
port = {DOOR.rpartition(":")[2]}
role = "mx"
inspectors = ["tests.sim.inspecting:Marking"]
[feedback]
organization = "The house"
contact = "dora@home.test"
spread_s = 7200
"""
_ID: Final = re.compile(r"<(\d{8})\.dmarc\.")


class Feedback(Part):
    def __init__(self, house: House) -> None:
        super().__init__(house)
        self._under_way: set[int] = set()  # workers, by the id of their assembly
        for name, text in _RECORDS.items():
            house.names.texts[name] = (text,)

    def settings(self, toml: str) -> str:
        return toml + _SETTINGS

    def orders(self) -> list[Scheduled]:
        return [(self.moment(), self._order(number), 3) for number in range(FIRST, FIRST + _ORDERS)]

    def _order(self, number: int) -> Order:
        return Order(
            number, DOOR, lmtp=False, address="198.51.106.1", sender=f"s@{DOMAIN}",
            recipients=(("ann@home.test", ""),), body=b"count me\r\n", pipelining=self.chance.random() < 0.5,
            bdat=False, leaves="",
        )  # fmt: skip

    def begin(self) -> None:
        """The records fail, or are denied, for a while; the worker that sends has its turns."""
        base, states = self.house.base, self.house.names.text_states
        if self.house.plan.trouble:
            for _ in range(3):
                name, state = self.chance.choice(list(_RECORDS)), self.chance.choice(("servfail", "timeout"))
                at = self.moment()
                base.call_later(at, states.__setitem__, name, state)
                base.call_later(at + self.chance.choice((600.0, 7200.0)), states.pop, name, None)
        base.call_later(_TURN_S, self._turn)

    def _turn(self) -> None:
        self.house.base.call_later(_TURN_S * (0.5 + self.chance.random()), self._turn)
        worker = self.house.node.workers[0]
        process, assembly = worker.process, worker.assembly
        if process is None or assembly is None or not worker.up or id(assembly) in self._under_way:
            return
        feedback = assembly.feedback
        if feedback is not None:
            self._under_way.add(id(assembly))
            process.run(lambda: process.create_task(self._one_turn(feedback.sending, id(assembly))))

    async def _one_turn(self, sending: Any, place: int) -> None:
        try:
            while await sending.turn() < 30.0:
                await asyncio.sleep(1.0)
        finally:
            self._under_way.discard(place)

    async def come(self) -> None:
        """The last day ends: mail comes until shortly before, so that the history has not all of it when the day is
        counted. Its reports are sent, and the worker that has sent them is started again."""
        await self.house.calm()
        self.house.names.text_states.clear()
        await asyncio.sleep(86_400 - (self.house.node.clock.now_us() + 1_000_000_000) % _DAY_US / 1e6)
        for number in range(FIRST + 100, FIRST + 103):
            await submit(self.house, self._order(number), 1)
        states, name = self.house.names.text_states, f"{DOMAIN}._report._dmarc.home.test"
        states[name] = "servfail"  # until long after the report's turn
        await asyncio.sleep(21_600)
        states.pop(name)
        await asyncio.sleep(21_600)
        self.house.node.restart(self.house.node.workers[0])
        await asyncio.sleep(86_400)
        await self.house.calm()

    # -- what must hold ---------------------------------------------------------------------------------------

    def check(self, seen: Seen) -> None:
        accepted: Counter[tuple[str, str]] = Counter()
        for event in seen.events:
            if isinstance(event, Accepted) and event.peer.listener == LISTENER_FEEDBACK:
                found = _ID.match(event.message_id)
                assert found is not None
                accepted[(found[1], event.recipients[0])] += 1
        for (day, to), count in accepted.items():
            if count > 1:
                self.fault(f"the report on {day} was sent to {to} {count} times")
        if self.house.plan.jumps:  # a day that is over twice, or never, has no certain report
            return
        evaluated: Counter[str] = Counter()
        edges: set[str] = set()
        for event in seen.events:
            if isinstance(event, Evaluated) and any(each.policy_domain == DOMAIN for each in event.evaluation.dmarc):
                day = _date(event.at_us)
                evaluated[day] += 1
                if not _EDGE_US < event.at_us % _DAY_US < _DAY_US - _EDGE_US:
                    edges.add(day)
        for day in evaluated:
            for to in _BOXES:
                if day not in edges and not accepted[(day, to)]:
                    self.fault(f"there is no report on {day} for {to}, and {evaluated[day]} messages were evaluated")
        self._counts(seen, evaluated, edges)

    def _counts(self, seen: Seen, evaluated: Counter[str], edges: set[str]) -> None:
        for (message_id, _), came in seen.deliveries.items():
            found = _ID.match(message_id)
            if found is None or edges:
                continue
            parts = email.message_from_bytes(came[0].content).get_payload()
            octets = gzip.decompress(parts[1].get_payload(decode=True))  # type: ignore[index, union-attr, arg-type]
            counted = sum(map(int, re.findall(rb"<count>(\d+)</count>", octets)))
            if counted != evaluated[found[1]]:
                self.fault(f"the report on {found[1]} counts {counted} messages, the history {evaluated[found[1]]}")


def _date(at_us: int) -> str:
    return time.strftime("%Y%m%d", time.gmtime(at_us // 1_000_000))
