"""Users of the machine: their mail is delivered by the porter, and their ``.forward`` files say where it goes.

The porter checks and delivers with the real code; only the fork and the change of the user are missing. It is gone for
a while, its children die before or after they have delivered, hang, and answer late. The promises:
1. nothing is refused because of the porter: a client hears 4xx, and mail waits;
2. a mailbox is written as its own user, and as nobody else;
3. mail goes where the file said shortly before; if the file is broken or leads in a circle, to the mailbox.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from postroad.config import options
from postroad.deliver.folders import deferred
from postroad.deliver.porter import answer_of, deliver, forward_answer, read_request, user_of
from postroad.mail.attempt import Outcome
from postroad.mail.event import Attempted
from postroad.world.files import Posix
from postroad.world.forward_file import ForwardFile
from postroad.world.problem import Problem
from postroad.world.programs import SystemPrograms
from tests.sim.ledger import Delivery, Submitted
from tests.sim.part import Part, Scheduled, Seen
from tests.sim.plan import DOORS
from tests.sim.sender import Order

if TYPE_CHECKING:
    from tests.sim.house import House
    from tests.sim.promises import Life

DOMAIN = "users.test"
FIRST = 8500  # the number of the first order
_ORDERS = 8
_KEPT_S = 60.0  # longer than an answer is kept, and the look-up takes
_LATE_S = 20.0  # after which a child that is late answers
_ALARM_S = 360.0  # when a child that hangs is ended
_PORTER = "the process that delivers"
_TEAM = (("/home/kim/team", "fay\nhal\n"),)
# What a file may say, and where mail goes then: names of users; () if nobody can tell.
_STATES: tuple[tuple[ForwardFile, tuple[str, ...]], ...] = (
    (ForwardFile(), ("gil",)),
    (ForwardFile("\\gil, hal\n"), ("gil", "hal")),
    (ForwardFile("# away\nhal\n"), ("hal",)),
    (ForwardFile("hal\na b c@@\n"), ("gil",)),
    (ForwardFile(fault="all users can write to it"), ("gil",)),
    (ForwardFile(not_now="Stale file handle"), ()),
    (ForwardFile(":include:/home/gil/team\n", included=(("/home/gil/team", "x@@y\n"),)), ("gil",)),
)
_FIXED = {
    "kim": (ForwardFile(":include:/home/kim/team\n", included=_TEAM), ("fay", "hal")),
    "ivy": (ForwardFile("joe\n"), ("ivy",)),
    "joe": (ForwardFile("ivy\n"), ("joe",)),
    "fay": (ForwardFile(), ("fay",)),
    "hal": (ForwardFile(), ("hal",)),
}
_DOMAIN = """
[[domain]]
name = "users.test"
recipients = ["fay", "gil", "hal", "ivy", "joe", "kim"]
user = "{local_part}"
path = "{home}/{local_part}"
forward_files = true
"""


class Users(Part):
    """`states`: what the file of gil says, and since when. `gone_until`: when the porter is there again."""

    def __init__(self, house: House) -> None:
        super().__init__(house)
        self.states = [(0.0, _STATES[1])]
        self.gone_until = 0.0

    def settings(self, toml: str) -> str:
        made = toml.replace('includes = ["aliases"]', 'includes = ["aliases", "forwards"]')
        return made + _DOMAIN if made != toml else f'{toml}\n[alias_targets]\nincludes = ["forwards"]\n{_DOMAIN}'

    def begin(self) -> None:
        for _ in range(8):
            self.house.base.call_later(self.moment(), self._change)
        for _ in range(3):
            self.house.base.call_later(self.moment(), self._goes)

    def _change(self) -> None:
        self.states.append((self.house.base.now, self.chance.choice(_STATES[: -2 if self.house.healed else None])))

    def _goes(self) -> None:
        self.gone_until = self.house.base.now + self.chance.choice((5.0, 600.0, 7200.0))

    def orders(self) -> list[Scheduled]:
        chance = self.chance
        found: list[Scheduled] = []
        for number in range(FIRST, FIRST + _ORDERS):
            names = chance.sample(("gil", "gil", "kim", "ivy", "joe", "fay"), chance.choice((1, 1, 2)))
            order = Order(
                number, DOORS["mx"], lmtp=False, address="198.51.100.5", sender=chance.choice(("bob@home.test", "")),
                recipients=tuple((f"{name}@{DOMAIN}", "NEVER") for name in dict.fromkeys(names)),
                body=b"to a user\r\n" * chance.choice((1, 500)), pipelining=chance.random() < 0.5, bdat=False,
                leaves="",
            )  # fmt: skip
            found.append((self.moment(), order, 4))
        return found

    def file(self, name: str) -> ForwardFile:
        if name == "gil":
            found = self.states[-1][1]
            return _STATES[0][0] if self.house.healed and not found[1] else found[0]
        return _FIXED[name][0]

    def heard(self, order: Order, submitted: Submitted, to: str, answer: str) -> None:
        mine = to.endswith(f"@{DOMAIN}") or (not to and all(each.endswith(f"@{DOMAIN}") for each in submitted.taken))
        if FIRST <= order.number < FIRST + _ORDERS and mine and answer.startswith("5"):
            self.fault(f"mail for users is refused: {answer}")

    # -- what must hold ---------------------------------------------------------------------------------------

    def mailboxes(self, told: str, life: Life) -> tuple[str, ...] | None:
        return life.expanded.get(told, (told,)) if told.endswith(f"@{DOMAIN}") else None

    def check(self, seen: Seen) -> None:
        for event in seen.events:
            failed = isinstance(event, Attempted) and event.attempt.outcome is Outcome.FAILED
            if failed and event.attempt.text.startswith(_PORTER):  # if the lifetime is over, the text says so first
                self.fault(f"{event.recipients} failed, but only the porter did: {event.attempt.text}")
        for life in seen.lives.values():
            sent = seen.submitted.get(life.accepted.message_id)
            at = (life.accepted.at_us - self.house.node.clock.now_us()) / 1_000_000 + self.house.base.now
            for told in sent.told if sent is not None and not self.house.plan.jumps else ():
                name, _, domain = told.partition("@")
                if domain == DOMAIN:
                    self._led(life, told, [_FIXED[name][1]] if name in _FIXED else self._allowed(at))

    def _allowed(self, at: float) -> list[tuple[str, ...]]:
        ends = [since for since, _ in self.states[1:]] + [float("inf")]
        found = [into for (since, (_, into)), end in zip(self.states, ends, strict=True) if since <= at < end + _KEPT_S]
        return [*found, ("gil",)] if () in found and self.house.healed else found

    def _led(self, life: Life, told: str, allowed: list[tuple[str, ...]]) -> None:
        into = life.expanded.get(told, (told,))
        if {*into} not in [{f"{name}@{DOMAIN}" for name in each} for each in allowed]:
            self.fault(f"{life.accepted.message_id} for {told} went to {into}, allowed are {allowed}")


class SimPorter:
    """The porter, as a worker reaches it."""

    def __init__(self, house: House, owner: str, posix: Posix) -> None:
        self._part = next(each for each in house.parts if isinstance(each, Users))
        self._house = house
        self._owner = owner
        self._posix = posix

    async def ask(self, request: bytes, content: int) -> bytes | Problem:
        house, part, chance = self._house, self._part, self._part.chance
        if house.base.now < part.gone_until and not house.healed:
            return Problem("the process that delivers as other users", "is gone (Broken pipe)", "Restart the node.")
        ends = ("", "dies before", "dies after", "hangs", "late")
        end = "" if house.healed else chance.choices(ends, (12, 1, 1, 1, 2))[0]
        await asyncio.sleep(0.2 * chance.random())
        if end == "dies before":
            return b""
        if end == "hangs":
            others = self._of_the_job()  # nobody knows of these before this one ends
            _excuse(others, True)
            await asyncio.sleep(_ALARM_S)
            _excuse(others, False)
            return b""
        before = len(house.ledger.deliveries)
        answer = self._answer(request, content)
        delivered = house.ledger.deliveries[before:]
        if end == "late":
            _excuse(delivered, True)  # until the worker hears of it: it may be killed or give up before
            await asyncio.sleep(_LATE_S)
            _excuse(delivered, False)
        if end == "dies after":
            _excuse(delivered, True)
            return b""
        return answer

    def _of_the_job(self) -> list[Delivery]:
        """What may belong to the same job: the node learns of its recipients together."""
        since = self._house.base.now - _LATE_S - 1.0
        return [
            each for each in self._house.ledger.deliveries
            if each.owner == self._owner and each.at > since and not each.excused
            and each.recipient.endswith(f"@{DOMAIN}")
        ]  # fmt: skip

    def _answer(self, octets: bytes, content: int) -> bytes:
        house, part = self._house, self._part
        before = len(house.ledger.deliveries)
        table = options.porter_table(house.node.settings)
        assert table is not None
        found = read_request(octets, table)
        if isinstance(found, str):
            part.fault(f"the porter is asked for what it refuses: {found}")
            return answer_of(deferred("4.3.5", found))
        request, domain = found
        user = user_of(request, domain, table)
        if user is None:
            part.fault(f"the porter is asked for {request.local_part}, who is no user")
            return answer_of(deferred("4.3.5", "no user"))
        if request.reads:
            return forward_answer(part.file(user))
        home = f"{house.folder}/mail/{DOMAIN}"
        result = deliver(request, domain, table, content, home, SystemPrograms(), self._posix)  # it runs none
        for each in house.ledger.deliveries[before:]:
            if each.recipient != f"{user}@{DOMAIN}":
                part.fault(f"{each.message_id} for {each.recipient} is delivered as {user}")
        return answer_of(result)


def _excuse(delivered: list[Delivery], excused: bool) -> None:
    for each in delivered:
        each.excused = excused
