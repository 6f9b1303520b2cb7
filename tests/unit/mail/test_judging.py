"""Rules put together: order, weight of verdicts, and no coroutine where none is needed."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

import pytest

from postroad.mail.envelope import Peer
from postroad.mail.judging import compose
from postroad.mail.policy import ACCEPT, Action, Question, Rule, Verdict, defer, reject

CONTEXT = Question(Peer())
HOLD, DISCARD = Verdict(Action.HOLD, reason="hold"), Verdict(Action.DISCARD, reason="discard")
NO, LATER = reject(550, "5.7.1", "no"), defer(450, "4.7.1", "later")


def told(verdict: Verdict, asked: list[Verdict]) -> Rule:
    def rule(question: Question) -> Verdict:
        asked.append(verdict)
        return verdict

    return rule


def slow(rule: Rule) -> Rule:
    async def waiting(question: Question) -> Verdict:
        verdict = rule(question)
        assert isinstance(verdict, Verdict)
        return verdict

    return waiting


CASES: list[tuple[list[Verdict], Verdict, int]] = [
    ([ACCEPT], ACCEPT, 1),
    ([ACCEPT, ACCEPT], ACCEPT, 2),
    ([ACCEPT, NO, LATER], NO, 2),
    ([LATER, NO], LATER, 1),
    ([HOLD, ACCEPT], HOLD, 2),
    ([HOLD, NO], NO, 2),
    ([HOLD, DISCARD], DISCARD, 2),
    ([DISCARD, HOLD, ACCEPT], DISCARD, 3),
]


@pytest.mark.parametrize(("verdicts", "expected", "count"), CASES)
def test_at_once(verdicts: list[Verdict], expected: Verdict, count: int) -> None:
    asked: list[Verdict] = []
    rule = compose([told(verdict, asked) for verdict in verdicts])
    assert rule is not None
    assert rule(CONTEXT) is expected
    assert len(asked) == count


@pytest.mark.parametrize(("verdicts", "expected", "count"), CASES)
@pytest.mark.parametrize("which", [lambda place: place == 0, lambda place: place > 0, lambda place: True])
async def test_with_rules_that_wait(
    verdicts: list[Verdict], expected: Verdict, count: int, which: Callable[[int], bool]
) -> None:
    asked: list[Verdict] = []
    rules = [told(verdict, asked) for verdict in verdicts]
    rule = compose([slow(rule) if which(place) else rule for place, rule in enumerate(rules)])
    assert rule is not None
    answer = rule(CONTEXT)
    assert (answer if isinstance(answer, Verdict) else await answer) is expected
    assert len(asked) == count


async def test_a_later_rule_that_waits_makes_a_coroutine_only_when_it_is_reached() -> None:
    first: list[Verdict] = []
    rule = compose([told(ACCEPT, first), slow(told(NO, first))])
    assert rule is not None
    pending = rule(CONTEXT)
    assert inspect.isawaitable(pending) and isinstance(pending, Awaitable)
    assert await pending is NO
    refused = compose([told(NO, first), slow(told(ACCEPT, first))])
    assert refused is not None
    assert refused(CONTEXT) is NO


def test_no_rules_are_no_rule() -> None:
    assert compose([]) is None
