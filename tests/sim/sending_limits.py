"""Clients who may send so much within an hour: what is beyond it is refused for now, or held.

The promises, for each clock hour, through crashes, restarts and power cuts:
1. a message is only taken while fewer than the limit have been. What a worker took within `_UNTOLD_S` may be unknown to
   the others, and is lost if it dies then; a power cut loses the counts of `_UNKEPT_S`;
2. what is refused hears 450 4.7.1, and only if so many were taken within this clock hour and the one before.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from postroad.mail import identifier
from postroad.mail.event import Accepted, Event, Held, Removed
from postroad.node.offices.sending import FILE, KEEP_S, SendingOffice, _replace
from tests.sim import plan as plans
from tests.sim.sender import Order

if TYPE_CHECKING:
    from tests.sim.house import House
    from tests.sim.node import Node

FIRST = 6000  # the number of the first order
_BURSTS = 2
_TOGETHER = 6  # orders of one client at about the same time
_HOUR_S = 3600
_UNTOLD_S = 0.5
_UNKEPT_S = KEEP_S + 1.0


class Counts:
    """The supervisor's part, as long as its machine runs. `refused`: when somebody heard of a limit."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.refused: list[tuple[int, str]] = []
        self.died: list[int] = []
        self.cuts: list[int] = []

    def open(self, node: Node) -> SendingOffice:
        """Begin, or begin anew after a power cut, with what the file has."""
        self._due = False
        self.office = SendingOffice(
            lambda: Path(node.settings.state_dir), node._tell_of_clients,
            lambda: [each.number for each in node.workers if each.up], node.clock.now_us,
            lambda level, text: self._house.trace(f"limits: {text}"),
        )  # fmt: skip
        self.office.load()
        return self.office

    def take(self, office: SendingOffice, number: int, told: Any) -> None:
        if office is not self.office:
            return
        office.take_counts(number, told)
        if not self._due:
            self._due = True
            self._house.base.call_later(KEEP_S, self._keep, office)

    def _keep(self, office: SendingOffice) -> None:
        if office is self.office:
            self._due = False
            _replace(Path(self._house.node.settings.state_dir) / FILE, office.state())

    def heard(self, order: Order, answer: str) -> None:
        if "the limit of the client" in answer.lower():
            self.refused.append((self._house.node.clock.now_us(), order.address))
            if not answer.startswith("450 4.7.1"):
                self._house.ledger.fault(f"a limit was answered with {answer}")


def orders(made: plans.Plan) -> list[tuple[float, Order, int]]:
    """Bursts of both clients."""
    if not made.limited:
        return []
    chance = random.Random(f"limited {made.seed}")
    found = []
    for burst in range(_BURSTS):
        at = made.days * 86_400 * chance.random()
        for number in range(2 * _TOGETHER):
            order = Order(
                FIRST + 100 * burst + number, plans.DOORS["relay"], lmtp=False,
                address=(plans.REFUSED, plans.HELD)[number % 2], sender="ann@home.test",
                recipients=((chance.choice(("bob@home.test", "u1@r0.test")), "NEVER"),),
                body=b"sent again\r\n" * chance.choice((1, 500)), pipelining=chance.random() < 0.5, bdat=False,
                leaves=chance.choice(("", "", "", "", "end")), follow=chance.choice((0, 0, 2)),
            )  # fmt: skip
            found.append((at + chance.choice((0.01, 0.3, 900.0)) * chance.random(), order, 2))
    return found


def check(house: House, events: list[Event]) -> None:
    if not house.plan.limited or house.plan.jumps:  # the hours of a clock that jumps are no hours
        return
    apart = {event.id for event in events if isinstance(event, Held | Removed) and event.by != "op"}  # do not count
    for address in (plans.REFUSED, plans.HELD):
        taken = sorted(
            (event.at_us, event.id) for event in events
            if isinstance(event, Accepted) and event.peer.address == address and event.id not in apart
        )  # fmt: skip
        for at_us, id in taken:
            before = [each for each, _ in taken if each // _us(_HOUR_S) == at_us // _us(_HOUR_S)]
            known = [each for each in before if _is_known(house, each, at_us)]
            if len(known) >= plans.MESSAGES_MAX:
                house.ledger.fault(f"{identifier.text(id)} of {address} was taken, and {len(known)} were before it")
    made = house.plan
    if made.crashes or made.power_cuts or made.restarts or made.disk:  # else what was not stored may have been counted
        return
    came = [(event.at_us, event.peer.address) for event in events if isinstance(event, Accepted)]
    for at_us, address in house.counts.refused:
        begin = (at_us // _us(_HOUR_S) - 1) * _us(_HOUR_S)
        count = sum(begin <= each <= at_us + _us(_UNTOLD_S) and client == address for each, client in came)
        if count < plans.MESSAGES_MAX:
            house.ledger.fault(f"{address} was refused with {count} messages in two hours")


def _is_known(house: House, each_us: int, at_us: int) -> bool:
    """Whether a message that was taken at the one time must be counted at the other."""
    if each_us > at_us - _us(_UNTOLD_S):
        return False
    if any(each_us <= died <= each_us + _us(_UNTOLD_S) for died in house.counts.died):
        return False
    return not any(each_us <= cut <= each_us + _us(_UNKEPT_S) for cut in house.counts.cuts)


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)
