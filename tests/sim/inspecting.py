"""Inspections in the simulated node: each message that a listener accepts gets two marks, in their order.

Some answers take a while, some inspections raise on purpose, some hold a message. Each inspection looks at how it is
called: what breaks its contract is raised, and the log's error is a fault of the run (`node.Ear`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Generator, Iterable
from typing import Any

from postroad.mail import identifier
from postroad.mail.envelope import Peer
from postroad.mail.policy import ACCEPT, Action, Answer, Phase, Prepend, Question, Verdict

FIRST, SECOND = "X-Sim-First", "X-Sim-Second"
ON_PURPOSE = "raised on purpose"
# Below the marks stand the results of the checks, of a listener that makes them.
_RESULTS = r"(?:Authentication-Results: mx\.home\.test;.*\n(?:[ \t].*\n)+)?"
_MARK = re.compile(rf"^{SECOND}: (\S+)\n{FIRST}: (\S+)\n{_RESULTS}Received: ", re.MULTILINE)


class Marking:
    """The inspector. `open`: inspections that have not ended. `calm`: none raises."""

    def __init__(self) -> None:
        self.calm = False
        self.open = 0
        self.questions = 0

    def visit(self, peer: Peer) -> Marks | None:
        self.open += 1
        # `crowd` counts refused log-ins by the log: one for want of EHLO, which we had refused, would be among them.
        return Marks(self, raises=peer.listener != "accounts")


class Marks:
    """One session."""

    reads_content = True

    def __init__(self, inspector: Marking, *, raises: bool) -> None:
        self._raises = raises
        self._inspector = inspector
        self._is_over = False
        self._in_transaction = False
        self._octets = 0

    def ask(self, question: Question) -> Answer:
        self._look()
        inspector = self._inspector
        inspector.questions += 1
        if question.phase is Phase.MAIL:
            if self._in_transaction:
                raise AssertionError("a transaction begins within another")
            self._in_transaction, self._octets = True, 0
        if self._raises and not inspector.calm and inspector.questions % 211 == 0:
            raise ZeroDivisionError(ON_PURPOSE)
        verdict = self._marked(question) if question.phase is Phase.MESSAGE else ACCEPT
        return _Later(verdict) if inspector.questions % 7 == 0 else verdict

    def _marked(self, question: Question) -> Verdict:
        if self._octets != question.size:
            raise AssertionError(f"saw {self._octets} octets of {question.size}")
        self._in_transaction = False
        id = identifier.text(question.id).encode()
        action = Action.HOLD if self._inspector.questions % 37 == 0 else Action.ACCEPT
        return Verdict(action, reason="held by the simulation", effects=(Prepend(FIRST, id), Prepend(SECOND, id)))

    def content(self, octets: bytes) -> None:
        self._look()
        self._octets += len(octets)

    def aborted(self) -> None:
        self._look()
        self._in_transaction = False

    def ended(self) -> None:
        self._look()
        self._is_over = True
        self._inspector.open -= 1

    def _look(self) -> None:
        if self._is_over:
            raise AssertionError("an inspection is called after its end")


class _Later:
    """A verdict that takes a while. A class, so that one that nobody waits for any more leaves no coroutine behind."""

    def __init__(self, verdict: Verdict) -> None:
        self._verdict = verdict

    def __await__(self) -> Generator[Any, None, Verdict]:
        yield from asyncio.sleep(0.5).__await__()
        return self._verdict


def all_marked(trace: str, ids: Iterable[str]) -> bool:
    """Whether both marks stand, in their order, above each Received field of ours."""
    found = {first for second, first in _MARK.findall(trace) if second == first}
    return found == set(ids) and trace.count(f"{FIRST}: ") == trace.count(f"{SECOND}: ") == len(found)
