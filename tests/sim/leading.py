"""Aliases in maps whose files are replaced while mail comes: a text, and a database that is opened for each look-up.

Where an alias leads is found at RCPT and used again for a moment, also at the end of data. The promises:
1. an answer that is older than this moment, and the looks after which a changed file counts, is used for no RCPT: who
   is gone is refused, and who is new is accepted;
2. a message that was accepted goes where the alias led shortly before; if it is gone by then, the mail is delivered or
   the sender hears of it (`promises`).
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from tests.sim.ledger import Submitted
from tests.sim.part import Part, Scheduled, Seen
from tests.sim.plan import DOORS
from tests.sim.sender import Order

if TYPE_CHECKING:
    from tests.sim.house import House
    from tests.sim.promises import Life

DOMAIN = "led.test"
TEXT, TABLE = f"text@{DOMAIN}", f"table@{DOMAIN}"  # the mailbox that each map has
FIRST = 9000  # the number of the first order
_CHANGES = 4  # of each file, if the time suffices for as many
_SLACK_S = {TEXT: 4000.0, TABLE: 300.0}  # two looks of a worker, the moment, and what the network takes
_STATES: tuple[tuple[str, ...], ...] = (("u1@r0.test",), ("u2@r1.test", "bob@home.test"), ())
_SETTINGS = f"""
[[domain]]
name = "{DOMAIN}"
recipients = ["postmaster"]
path = "FOLDER/mail/{{domain}}/{{local_part}}"
[[map]]
name = "led"
kind = "text"
file = "led"
[[map]]
name = "led table"
kind = "sqlite"
file = "led.sqlite"
query = "SELECT value FROM led WHERE name = %s"
"""


class Leading(Part):
    """`states`: where each mailbox leads, and since when."""

    def __init__(self, house: House) -> None:
        super().__init__(house)
        self.states: dict[str, list[tuple[float, tuple[str, ...]]]] = {TEXT: [], TABLE: []}
        self._begin_s: dict[int, float] = {}  # when an order is sent
        self._changes = {name: self._moments() for name in self.states}

    def _moments(self) -> list[float]:
        """When a file changes. A worker takes none that has changed since its last look, so they are far apart."""
        length_s = self.house.plan.days * 86_400
        count = min(_CHANGES, max(1, int(length_s / 10_000)))
        return [length_s / count * (number + 0.2 * self.chance.random()) for number in range(count)]

    def settings(self, toml: str) -> str:
        for name in self.states:
            if not self.states[name]:
                self._change(name)
        return f'alias_maps = ["led", "led table"]\n{toml}{_SETTINGS.replace("FOLDER", str(self.house.folder))}'

    def begin(self) -> None:
        for name, changes in self._changes.items():
            for at in changes:
                self.house.base.call_later(at, self._change, name)

    def _change(self, name: str) -> None:
        """Put another file in the place of the one before, as `postmap` and `mv` do."""
        before = self.states[name][-1][1] if self.states[name] else ()
        into = self.chance.choice([each for each in _STATES if each != before])
        new = self.house.folder / "led.new"
        if name == TEXT:
            new.write_text(f"{name} {', '.join(into)}\n" if into else "# nobody\n")
            new.replace(self.house.folder / "led")
        else:
            with sqlite3.connect(new) as connection:
                connection.execute("CREATE TABLE led (name TEXT, value TEXT)")
                connection.executemany("INSERT INTO led VALUES (?, ?)", [(name, each) for each in into])
            connection.close()
            new.replace(self.house.folder / "led.sqlite")
        self.states[name].append((self.house.base.now, into))

    def orders(self) -> list[Scheduled]:
        chance = self.chance
        found: list[Scheduled] = []
        for name, changes in self._changes.items():
            for at in changes:
                soon, late = chance.choice((0.5, 3.0, 8.0)), _SLACK_S[name] + 10.0
                for after in (-60.0, -1.0, soon, late, late + 50.0):
                    number = FIRST + len(found)
                    self._begin_s[number] = max(0.0, at + after)
                    found.append((self._begin_s[number], self._order(number, name), 1))
        return found

    def _order(self, number: int, name: str) -> Order:
        chance = self.chance
        return Order(
            number, DOORS["mx"], lmtp=False, address="198.51.100.5",
            sender=chance.choice(("s@r0.test", "bob@home.test")),
            recipients=tuple((each, "") for each in (name, "ann@home.test")[: chance.choice((1, 2))]),
            body=b"led on\r\n" * chance.choice((1, 500)), pipelining=chance.random() < 0.5, bdat=False, leaves="",
        )  # fmt: skip

    # -- what must hold ---------------------------------------------------------------------------------------

    def heard(self, order: Order, submitted: Submitted, to: str, answer: str) -> None:
        if to not in self.states:
            return
        lately = self._lately(to, self._begin_s[order.number], self.house.base.now)
        if answer.startswith("25") and not any(lately):
            self.fault(f"{to} is accepted, and has led nowhere for a while")
        if answer.startswith("550 5.1.1") and all(lately):
            self.fault(f"{to} is refused, and has led to {lately} for a while: {answer}")

    def mailboxes(self, told: str, life: Life) -> tuple[str, ...] | None:
        return life.expanded.get(told, (told,)) if told in self.states else None

    def check(self, seen: Seen) -> None:
        for life in seen.lives.values():
            sent = seen.submitted.get(life.accepted.message_id)
            at = (life.accepted.at_us - self.house.node.clock.now_us()) / 1_000_000 + self.house.base.now
            for told in sent.told if sent is not None and not self.house.plan.jumps else ():
                if told in self.states:
                    into, lately = set(life.expanded.get(told, ())), self._lately(told, at, at)
                    if into not in [{*each} for each in lately]:
                        self.fault(f"{life.accepted.message_id} for {told} went to {into}, allowed are {lately}")

    def _lately(self, name: str, since: float, until: float) -> list[tuple[str, ...]]:
        """Where a mailbox led from a while before `since` to `until`."""
        states = self.states[name]
        ends = [begin for begin, _ in states[1:]] + [float("inf")]
        every = zip(states, ends, strict=True)
        return [into for (begin, into), end in every if begin <= until and since < end + _SLACK_S[name]]
