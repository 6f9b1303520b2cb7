"""A list whose alias names a program, a file and an included file, and which has an owner.

The promises, beside those that hold for every delivery (`promises`):
1. the members of the included file as it stood a while before count, also if it is broken or gone by then;
2. what a program says with its exit code counts, and one that hangs is tried again;
3. mail through the list has its owner as the sender; reports on it go to the owner, and never to who wrote.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from postroad.mail.attempt import Outcome
from postroad.mail.event import Attempted
from postroad.world.programs import ProgramResult
from tests.sim.part import Part, Scheduled, Seen
from tests.sim.plan import DOORS
from tests.sim.sender import Order

if TYPE_CHECKING:
    from tests.sim.house import House
    from tests.sim.promises import Life

LIST, OWNER, READER = "list@home.test", "owner-list@home.test", "dora@home.test"
PROGRAM = "/usr/bin/list-keep"
FOLDER = "targets"  # below the folder of all mail
FIRST = 8000  # the number of the first order
_ORDERS = 6
_READ_S = 2 * 3600.0  # within which a changed file is read, and more
_MEMBERS = ("cid@mbox.test", "eve2@box.test", "cid@mbox.test, bob@home.test")
_LATER, _NEVER = (71, 74, 75, 78, 126, 127), (64, 65, 66, 67, 68, 69, 70, 72, 73, 76, 77, 1)
_CODE = re.compile(r"the program ended with (\d+)")


class Targets(Part):
    """`states`: what the included file names, and since when; None: it is broken or gone."""

    def __init__(self, house: House) -> None:
        super().__init__(house)
        self.states: list[tuple[float, frozenset[str] | None]] = []

    @property
    def _file(self) -> Path:
        return self.house.folder / "members"

    @property
    def archive(self) -> str:
        return f"{self.house.folder}/mail/{FOLDER}/archive"

    @property
    def _fixed(self) -> frozenset[str]:
        return frozenset(("ann@home.test", "bad2@box.test", f"|{PROGRAM} list", self.archive))

    def settings(self, toml: str) -> str:
        if not self.states:
            self._write(_MEMBERS[0])
        line = f'list: ann, bad2@box.test, "|{PROGRAM} list", {self.archive}, :include:{self._file}\nowner-list: dora\n'
        with (self.house.folder / "aliases").open("a") as file:
            file.write(line)
        return f'{toml}\n[alias_targets]\nprograms = ["aliases"]\nfiles = ["aliases"]\nincludes = ["aliases"]\n'

    def _write(self, text: str) -> None:
        self._file.write_text(text + "\n")
        self.states.append((self.house.base.now, frozenset(text.split(", "))))

    def begin(self) -> None:
        made = self.house.plan  # a start and a reload need a sound file
        is_steady = not (made.crashes or made.power_cuts or made.restarts or made.disk or made.reloads)
        for _ in range(4):
            self.house.base.call_later(self.moment(), self._change, is_steady)

    def _change(self, is_steady: bool) -> None:
        if self.house.healed:
            return
        kind = self.chance.choice(("write", "break", "remove")) if is_steady else "write"
        self.house.trace(f"the included file: {kind}")
        if kind == "write":
            self._write(self.chance.choice(_MEMBERS))
            return
        self.states.append((self.house.base.now, None))
        if kind == "break":
            self._file.write_text("ann\nx@@y\n")
        else:
            self._file.unlink(missing_ok=True)

    def orders(self) -> list[Scheduled]:
        chance = self.chance
        found: list[Scheduled] = []
        for number in range(FIRST, FIRST + _ORDERS):
            order = Order(
                number, chance.choice((DOORS["relay"], DOORS["mx"])), lmtp=False, address="198.51.100.5",
                sender=chance.choice(("gus2@r0.test", "gus2@r0.test", "")), recipients=((LIST, ""),),
                body=b"to all\r\n" * chance.choice((1, 200)), pipelining=True, bdat=False, leaves="",
            )  # fmt: skip
            found.append((self.moment(), order, 3))
        return found

    async def runs(self) -> ProgramResult | None:
        """How the program ends without having done its work; None if it does it."""
        house, chance = self.house, self.chance
        if house.healed or chance.random() < 0.5:
            return None
        kind = chance.choice(("later", "later", "never", "signal"))
        if kind == "signal":
            return ProgramResult(-1, 9)
        return ProgramResult(chance.choice(_LATER if kind == "later" else _NEVER), output=b"as it says")

    # -- what must hold ---------------------------------------------------------------------------------------

    def mailboxes(self, told: str, life: Life) -> tuple[str, ...] | None:
        return life.expanded.get(told, ()) if told == LIST else None

    def sender(self, life: Life, recipient: str) -> str | None:
        members = (LIST, *life.expanded.get(LIST, ()))  # in reports, the list stands for its program and its file
        return OWNER if life.accepted.reverse_path and LIST in life.expanded and recipient in members else None

    def check(self, seen: Seen) -> None:
        for event in seen.events:
            if isinstance(event, Attempted) and event.recipients[0].startswith(f"|{PROGRAM}"):
                self._exit(event)
        for life in seen.lives.values():
            if LIST in life.expanded:
                self._led(life)
                self._told(seen, life)

    def _exit(self, event: Attempted) -> None:
        found = _CODE.match(event.attempt.text)
        if found is None:
            return
        due = Outcome.DEFERRED if int(found[1]) in _LATER else Outcome.FAILED
        if event.attempt.outcome is not due and not event.attempt.text.startswith("the lifetime"):
            self.fault(f"exit code {found[1]} makes {event.attempt.outcome}, not {due}")

    def _led(self, life: Life) -> None:
        into = frozenset(life.expanded[LIST])
        at = (life.accepted.at_us - self.house.node.clock.now_us()) / 1_000_000 + self.house.base.now
        if into not in [self._fixed | members for members in self._lately(at)] and not self.house.plan.jumps:
            self.fault(f"{life.accepted.message_id} to the list went to {sorted(into)}")

    def _lately(self, at: float) -> list[frozenset[str]]:
        """What may be in force. If the file is broken, that is what may have been in force when it broke."""
        ends = [since for since, _ in self.states[1:]] + [float("inf")]
        found: list[frozenset[str]] = []
        for (since, members), end in zip(self.states, ends, strict=True):
            if since <= at and end > at - _READ_S:
                found += self._lately(since - 0.001) if members is None else [members]
        return found

    def _told(self, seen: Seen, life: Life) -> None:
        accepted = life.accepted
        for reported in life.reported:
            child = seen.lives.get(reported.report)
            if child is not None and not {*child.accepted.recipients} <= {READER, OWNER}:
                self.fault(f"a report on {accepted.message_id} to the list went to {child.accepted.recipients}")
        for recipient in life.expanded[LIST]:
            told = any(recipient in each.recipients for each in life.reported if each.action == "failed")
            if accepted.reverse_path and life.ends.get(recipient) == ["failed"] and not told:
                self.fault(f"{recipient} of the list has failed, and the owner does not hear of {accepted.message_id}")
