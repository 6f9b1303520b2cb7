"""What a capability of the node brings into a run that has it: settings, hosts, mail, events, and what must hold.

Each is a class in a module of its own (`parts` has the list), draws its chance from a generator of its own, and is only
there if the plan names it. So a new one changes nothing of what the seeds without it mean.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from postroad.mail.event import Event

if TYPE_CHECKING:
    from tests.sim.house import House
    from tests.sim.ledger import Delivery, Submitted
    from tests.sim.promises import Dsn, Life
    from tests.sim.remote import Host
    from tests.sim.sender import Order
    from tests.sim.wire import End

Scheduled = tuple[float, "Order", int]  # when, what, and how often it is tried


@dataclass(frozen=True)
class Seen:
    """What there is to judge at the end. `lives`: by queue id; `by_id`: Message-ID → queue id; `submitted`: by
    Message-ID; `deliveries`: by Message-ID and recipient."""

    events: list[Event]
    lives: dict[int, Life]
    by_id: dict[str, int]
    submitted: dict[str, Submitted]
    deliveries: dict[tuple[str, str], list[Delivery]]
    dsns: list[Dsn]


class Part:
    """One capability in one run. Each method may be left as it is."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.chance = random.Random(f"{type(self).__name__} {house.plan.seed}")

    def settings(self, toml: str) -> str:
        """The configuration with what the part needs."""
        return toml

    def hosts(self) -> list[Host]:
        """Remote servers."""
        return []

    def orders(self) -> list[Scheduled]:
        """Who sends what when."""
        return []

    def begin(self) -> None:
        """The run begins."""

    async def come(self) -> None:
        """Everything is healed, and the queue was empty: nothing excuses the node."""

    def told_rcpt(self, host: Host, sender: str, recipient: str, said: str, end: End) -> None:
        """A host has answered RCPT; `end`: its end of the connection."""

    def told_size(self, host: Host, end: End) -> None:
        """A host has answered EHLO; `end`: its end of the connection."""

    def noted(self, text: str) -> None:
        """A worker has written this line of its own into the log."""

    def heard(self, order: Order, submitted: Submitted, to: str, answer: str) -> None:
        """A client has heard an answer: to RCPT for `to`, or to the content (`to` is "")."""

    def mailboxes(self, told: str, life: Life) -> tuple[str, ...] | None:
        """What a recipient, as a client named it, has become; None if it is not of this part."""
        return None

    def sender(self, life: Life, recipient: str) -> str | None:
        """The sender with whom mail for a recipient must come; None if that is the sender of the message."""
        return None

    def check(self, seen: Seen) -> None:
        """What must hold, when all is over."""

    def moment(self) -> float:
        """A moment of the days before everything is healed."""
        return self.house.plan.days * 86_400 * self.chance.random()

    def fault(self, text: str) -> None:
        self.house.ledger.fault(text)
