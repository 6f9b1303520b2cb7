"""Several rules as one: asked in order until one rejects or defers.

What always holds: HOLD and DISCARD do not end the asking, a later rule may still reject; of these the first is the
answer when nobody rejects, and DISCARD outweighs HOLD. As long as rules answer at once, the composed rule does, too:
no coroutine is made before a rule gives an awaitable.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Sequence

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
            if not isinstance(verdict, Verdict):
                return _wait(verdict, kept, remaining, question)
            if verdict is ACCEPT:
                continue
            kept = _weigh(kept, verdict)
            if _ends(kept):
                return kept
        return kept

    return composed


async def _wait(pending: Awaitable[Verdict], kept: Verdict, remaining: Iterator[Rule], question: Question) -> Verdict:
    """Go on from the first rule that had to wait."""
    kept = _weigh(kept, await pending)
    for rule in remaining:
        if _ends(kept):
            return kept
        verdict = rule(question)
        kept = _weigh(kept, verdict if isinstance(verdict, Verdict) else await verdict)
    return kept


_WEIGHT = {Action.ACCEPT: 0, Action.HOLD: 1, Action.DISCARD: 2, Action.DEFER: 3, Action.REJECT: 3}


def _weigh(kept: Verdict, verdict: Verdict) -> Verdict:
    return verdict if _WEIGHT[verdict.action] > _WEIGHT[kept.action] else kept


def _ends(verdict: Verdict) -> bool:
    return verdict.action is Action.REJECT or verdict.action is Action.DEFER
