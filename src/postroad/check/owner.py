"""Refuses mail that is meant for the owner whom a mailbox had at a certain time, if it has another one now (RFC
7293)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from postroad.mail import wishes
from postroad.mail.address import Address
from postroad.mail.owned import Owned
from postroad.mail.policy import Question, Rule, Verdict, reject

_WHY: Final = {"5.7.17": "the mailbox has changed its owner since", "5.7.18": "the domain has changed its owner since"}


def same_owner(rule: Rule, owned: Callable[[Address], Owned | None]) -> Rule:
    """`rule`, but if RRVS= asks for an owner that is gone 550 5.7.17 (the mailbox) or 5.7.18 (the domain)."""

    def asked(question: Question) -> Verdict | Awaitable[Verdict]:
        if question.parameters:
            refused = _refused(question, owned)
            if refused is not None:
                return refused
        return rule(question)

    return asked


def _refused(question: Question, owned: Callable[[Address], Owned | None]) -> Verdict | None:
    recipient = question.recipient
    assert recipient is not None
    value = wishes.parameter(question.parameters, wishes.RRVS)
    since = None if value is None else wishes.parse_valid_since(value)
    found = None if since is None else owned(recipient)
    status = "" if since is None or found is None else found.refusal(since.since_us)
    if not status:
        return None
    return reject(550, status, f"<{recipient}>: {_WHY[status]}", "another owner (RRVS)")
