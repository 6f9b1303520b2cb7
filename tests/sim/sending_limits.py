"""Clients, a sender and an account who may send so much within an hour: what is beyond it is refused for now, or held.

The promises, for each clock hour, through crashes, restarts and power cuts:
1. a message is only taken while fewer than the limit have been. What a worker took within `_UNTOLD_S` may be unknown to
   the others, and is lost if it dies then; a power cut loses the counts of `_UNKEPT_S`;
2. what is refused hears 450 4.7.1, and only if so many were taken within this clock hour and the one before;
3. the postmaster is told, once within a day for each of them.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from postroad.mail import identifier
from postroad.mail.event import Accepted, Event, Held, Removed
from postroad.node.offices.sending import FILE, KEEP_S, SendingOffice
from postroad.world import files
from tests.sim import plan as plans
from tests.sim.sender import Order

if TYPE_CHECKING:
    from tests.sim.house import House
    from tests.sim.node import Node

FIRST = 6000  # the number of the first order
_BURSTS = 2
_TOGETHER = 6  # orders of one client at about the same time
_HOUR_S = 3600
_DAY_S = 86_400
_REACHED = re.compile(r"the limit of the (?:client|sender|account) (\S+) is reached", re.IGNORECASE)
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
            files.replace(f"{self._house.node.settings.state_dir}/{FILE}", msgspec.msgpack.encode(office.state()))

    def reached(self, office: SendingOffice, number: int, key: str, text: str) -> None:
        if office is self.office:
            office.reached(number, key, text)

    def heard(self, order: Order, answer: str) -> None:
        if found := _REACHED.search(answer):
            self.refused.append((self._house.node.clock.now_us(), found[1]))
            if not answer.startswith("450 4.7.1"):
                self._house.ledger.fault(f"a limit was answered with {answer}")


def orders(made: plans.Plan) -> list[tuple[float, Order, int]]:
    """Bursts of all."""
    if not made.limited:
        return []
    chance = random.Random(f"limited {made.seed}")
    found = []
    for burst in range(_BURSTS):
        at = made.days * 86_400 * chance.random()
        for number in range(4 * _TOGETHER):
            who = (plans.REFUSED, plans.HELD, plans.SENDER, plans.LIMITED_LOGIN[0])[number % 4]
            order = _order(FIRST + 100 * burst + number, who, chance)
            found.append((at + chance.choice((0.01, 0.3, 900.0)) * chance.random(), order, 2))
    return found


def _order(number: int, who: str, chance: random.Random) -> Order:
    has_account, is_client = who == plans.LIMITED_LOGIN[0], who in (plans.REFUSED, plans.HELD)
    to = chance.sample(("bob@home.test", "u1@r0.test"), 2 if who == plans.SENDER and chance.random() < 0.5 else 1)
    return Order(
        number, plans.ACCOUNT_DOOR if has_account else plans.DOORS["relay"], lmtp=False,
        address=who if is_client else "198.51.100.95",
        sender="bob@home.test" if has_account else "ann@home.test" if is_client else who,
        recipients=tuple((each, "NEVER") for each in to), body=b"sent again\r\n" * chance.choice((1, 500)),
        pipelining=chance.random() < 0.5, bdat=False, leaves=chance.choice(("", "", "", "", "end")),
        follow=chance.choice((0, 0, 2)), login=plans.LIMITED_LOGIN if has_account else None,
    )  # fmt: skip


def _subjects(event: Accepted) -> Iterator[str]:
    """Whose limits a message counts for."""
    if event.peer.address in (plans.REFUSED, plans.HELD):
        yield event.peer.address
    if event.reverse_path == plans.SENDER:
        yield plans.SENDER
    if event.peer.identity == plans.LIMITED_LOGIN[0]:
        yield event.peer.identity


def check(house: House, events: list[Event]) -> None:
    if not house.plan.limited or house.plan.jumps:  # the hours of a clock that jumps are no hours
        return
    named = {each.message_id: len(each.taken) for each in house.ledger.submitted}
    apart = {event.id for event in events if isinstance(event, Held | Removed) and event.by != "op"}  # do not count
    accepted = [event for event in events if isinstance(event, Accepted) and not event.parent]
    for who in (plans.REFUSED, plans.HELD, plans.SENDER, plans.LIMITED_LOGIN[0]):
        counts_recipients = who == plans.SENDER
        most = plans.RECIPIENTS_MAX if counts_recipients else plans.MESSAGES_MAX
        taken = sorted(
            (event.at_us, event.id, named.get(event.message_id, 1) if counts_recipients else 1) for event in accepted
            if who in _subjects(event) and event.id not in apart
        )  # fmt: skip
        for at_us, id, own in taken:
            hour = [(each, count) for each, _, count in taken if each // _us(_HOUR_S) == at_us // _us(_HOUR_S)]
            known = sum(count for each, count in hour if _is_known(house, each, at_us))
            if known + own > most:
                house.ledger.fault(f"{identifier.text(id)} of {who} was taken, and {known} were before it")
    _notices(house, accepted)
    made = house.plan
    if made.crashes or made.power_cuts or made.restarts or made.disk:  # else what was not stored may have been counted
        return
    for at_us, who in house.counts.refused:
        begin = (at_us // _us(_HOUR_S) - 1) * _us(_HOUR_S)
        count = sum(
            named.get(event.message_id, 1) if who == plans.SENDER else 1 for event in accepted
            if begin <= event.at_us <= at_us + _us(_UNTOLD_S) and who in _subjects(event)
        )  # fmt: skip
        if count < (plans.RECIPIENTS_MAX - 1 if who == plans.SENDER else plans.MESSAGES_MAX):
            house.ledger.fault(f"{who} was refused with {count} within two hours")


def _notices(house: House, accepted: list[Accepted]) -> None:
    """The postmaster hears of each limit, and once within a day."""
    notices = {event.message_id: event.at_us for event in accepted if ".notice@" in event.message_id}
    told: dict[str, list[int]] = defaultdict(list)
    came = {each.message_id: each.content for each in house.ledger.deliveries if each.message_id in notices}
    for message_id, content in came.items():
        if found := _REACHED.search(" ".join(content.decode().split())):
            told[found[1]].append(notices[message_id])
    for who, times in told.items():
        for before, behind in pairwise(sorted(times)):
            forgotten = any(before <= cut <= before + _us(_UNKEPT_S) for cut in house.counts.cuts)
            if behind < before + _us(_DAY_S) and not forgotten:
                house.ledger.fault(f"the postmaster was told twice in a day that {who} is at a limit")
    if not house.plan.postmaster or house.plan.disk or not house.counts.refused:
        return
    first_us = min(house.counts.refused)[0]
    near = [died for died in house.counts.died if first_us - _us(60.0) <= died <= first_us + _us(5.0)]
    if not near and not any(at_us <= first_us + _us(5.0) for at_us in notices.values()):
        house.ledger.fault("the postmaster was not told that somebody is at a limit")


def _is_known(house: House, each_us: int, at_us: int) -> bool:
    """Whether a message that was taken at the one time must be counted at the other."""
    if each_us > at_us - _us(_UNTOLD_S):
        return False
    if any(each_us <= died <= each_us + _us(_UNTOLD_S) for died in house.counts.died):
        return False
    return not any(each_us <= cut <= each_us + _us(_UNKEPT_S) for cut in house.counts.cuts)


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)
