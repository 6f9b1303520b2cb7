"""Compares the size that a client declares at MAIL with the limits of a recipient's servers (RFC 1870 §6.1).

A recipient whose servers take no such message is refused at RCPT with 552 5.3.4. What always holds: a message that may
fit is never refused, and a message below all limits that are remembered costs one comparison. Not here: the limits
(`mail.size_limits`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from postroad.mail.policy import ACCEPT, Action, Question, Rule, Verdict, reject
from postroad.mail.size_limits import SizeLimits

LargestFor = Callable[[Question], int]
"""The limit that the message of a question exceeds at the destinations of its recipient; 0 if it may fit at one."""


def fitting(rule: Rule | None, limits: SizeLimits, exceeded: LargestFor) -> Rule:
    """`rule` for recipients, and for those that it accepts the question whether the message fits."""

    def judged(question: Question) -> Verdict | Awaitable[Verdict]:
        verdict = ACCEPT if rule is None else rule(question)
        if question.size <= limits.least:  # mostly: it is small, or no limit is known
            return verdict
        if isinstance(verdict, Verdict):
            return _weighed(verdict, question, exceeded)
        return _weighed_later(verdict, question, exceeded)

    return judged


def _weighed(verdict: Verdict, question: Question, exceeded: LargestFor) -> Verdict:
    limit = exceeded(question) if verdict.action is Action.ACCEPT else 0
    if not limit:
        return verdict
    text = f"the message has {question.size} octets; the server of this recipient takes {limit} at most"
    return reject(552, "5.3.4", f"<{question.recipient}>: {text}", text)


async def _weighed_later(verdict: Awaitable[Verdict], question: Question, exceeded: LargestFor) -> Verdict:
    return _weighed(await verdict, question, exceeded)
