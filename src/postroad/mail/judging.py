"""Makes one rule of several, which are asked in order until one rejects or defers.

What always holds: after HOLD and DISCARD the next rules are still asked, because one of them may reject. If none
rejects, the answer is DISCARD if a rule said so, else HOLD. Effects add up in their order, and each rule sees what
those before it changed. If all rules answer at once, the composed rule answers at once, too: no coroutine is made
before a rule returns an awaitable.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Sequence

import msgspec

from postroad.mail.effects import amended
from postroad.mail.policy import ACCEPT, Action, Question, Rule, Verdict


def compose(rules: Sequence[Rule]) -> Rule | None:
    """One rule that asks all of them, None for no rules."""
    if not rules:
        return None
    if len(rules) == 1:
        return rules[0]
    ordered = tuple(rules)

    def composed(question: Question) -> Verdict | Awaitable[Verdict]:
        kept = ACCEPT
        remaining = iter(ordered)
        for rule in remaining:
            verdict = rule(question)
            if verdict is ACCEPT:
                continue
            if not isinstance(verdict, Verdict):
                return _wait(verdict, kept, remaining, question)
            kept = _weigh(kept, verdict)
            if _ends(kept):
                return kept
            if verdict.effects:
                question = amended(question, verdict.effects)
        return kept

    return composed


async def _wait(pending: Awaitable[Verdict], kept: Verdict, remaining: Iterator[Rule], question: Question) -> Verdict:
    """Go on from the first rule that had to wait."""
    verdict = await pending
    while True:
        kept = _weigh(kept, verdict)
        if _ends(kept):
            return kept
        if verdict.effects:
            question = amended(question, verdict.effects)
        rule = next(remaining, None)
        if rule is None:
            return kept
        answer = rule(question)
        verdict = answer if isinstance(answer, Verdict) else await answer


_WEIGHT = {Action.ACCEPT: 0, Action.HOLD: 1, Action.DISCARD: 2, Action.DEFER: 3, Action.REJECT: 3}


def _weigh(kept: Verdict, verdict: Verdict) -> Verdict:
    heavier = verdict if _WEIGHT[verdict.action] > _WEIGHT[kept.action] else kept
    if _ends(heavier) or not (kept.effects or verdict.effects):
        return heavier
    return msgspec.structs.replace(heavier, effects=kept.effects + verdict.effects)


def _ends(verdict: Verdict) -> bool:
    return verdict.action is Action.REJECT or verdict.action is Action.DEFER
