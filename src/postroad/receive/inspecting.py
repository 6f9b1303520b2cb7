"""The inspections of one session. This module keeps their contract (`mail.policy`), whatever they do.

What always holds: `ended` reaches each inspection exactly once, and nothing after it; `aborted` once for each
transaction that was asked about and not handed to the spool. How it fails: if an inspection raises, the error is logged
and only `ended` is still called; every further question of its session is answered 451 4.3.0, because nobody knows what
the inspection would have said.
"""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from postroad.mail.envelope import Peer
from postroad.mail.judging import compose
from postroad.mail.policy import Action, Answer, Inspection, Inspector, Phase, Question, Rule, Verdict
from postroad.receive import replies

_UNSURE: Final = Verdict(Action.DEFER, replies.UNSURE, "an inspection broke")

Log = Callable[[str], None]


class _Guarded:
    """One inspection, with what it raises caught."""

    __slots__ = ("_inspection", "_log", "broken", "reads_content")

    def __init__(self, inspection: Inspection, log: Log) -> None:
        self._inspection = inspection
        self._log = log
        self.broken = False
        self.reads_content = bool(inspection.reads_content)

    def ask(self, question: Question) -> Answer:
        if self.broken:
            return _UNSURE
        try:
            answer = self._inspection.ask(question)
        except Exception:
            return self._broke("ask")
        if isinstance(answer, Verdict):
            return answer
        return self._awaited(answer)

    async def _awaited(self, answer: Awaitable[Verdict]) -> Verdict:
        try:
            verdict = await answer
        except Exception:
            return self._broke("ask")
        if not isinstance(verdict, Verdict):
            self._log(f"an inspection answered {type(verdict).__name__}, which is not a Verdict")
            self.broken = True
            return _UNSURE
        return verdict

    def call(self, name: str, *values: bytes) -> None:
        """`content` or `aborted`."""
        if not self.broken:
            try:
                getattr(self._inspection, name)(*values)
            except Exception:
                self._broke(name)

    def end(self) -> None:
        try:
            self._inspection.ended()
        except Exception:
            self._broke("ended")

    def _broke(self, what: str) -> Verdict:
        self.broken = True
        self._log(f"an inspection broke in {what}: {traceback.format_exc()}")
        return _UNSURE


class _Unmade:
    """In the place of an inspection that could not be made."""

    reads_content = False

    def ask(self, question: Question) -> Verdict:
        return _UNSURE

    def content(self, octets: bytes) -> None: ...

    def aborted(self) -> None: ...

    def ended(self) -> None: ...


class Inspections:
    """Those of one session. One writer: its intake."""

    __slots__ = ("_composed", "_guarded", "_open", "_readers", "asked_data")

    def __init__(self, guarded: Sequence[_Guarded]) -> None:
        self._guarded = tuple(guarded)
        self._readers = tuple(each for each in guarded if each.reads_content)
        self._composed: dict[Rule | None, Rule] = {}
        self._open = False  # a transaction has been asked about
        self.asked_data = False  # DATA was asked of it

    def beside(self, rule: Rule | None, phase: Phase) -> Rule:
        """The listener's rule, then the inspections, as one rule."""
        if phase is Phase.MAIL:
            self._open, self.asked_data = True, False
        elif phase is Phase.DATA:
            self.asked_data = True
        found = self._composed.get(rule)
        if found is None:
            asked = [each.ask for each in self._guarded]
            found = compose(asked if rule is None else [rule, *asked])
            assert found is not None
            if len(self._composed) >= len(Phase):  # new settings came, with rules of their own
                self._composed.clear()
            self._composed[rule] = found
        return found

    def content(self, octets: bytes) -> None:
        for each in self._readers:
            each.call("content", octets)

    def handed_over(self) -> None:
        """The transaction is the spool's."""
        self._open = False

    def aborted(self) -> None:
        if self._open:
            self._open = False
            for each in self._guarded:
                each.call("aborted")

    def ended(self) -> None:
        """Call it once."""
        self.aborted()
        for each in self._guarded:
            each.end()


def visiting(inspectors: Sequence[Inspector], peer: Peer, log: Log) -> Inspections | None:
    """The inspections of a session that begins; None if nobody wants to see it."""
    found: list[_Guarded] = []
    for inspector in inspectors:
        try:
            inspection = inspector.visit(peer)
        except Exception:
            log(f"an inspector broke: {traceback.format_exc()}")
            inspection = _Unmade()
        if inspection is not None:
            found.append(_Guarded(inspection, log))
    return Inspections(found) if found else None
