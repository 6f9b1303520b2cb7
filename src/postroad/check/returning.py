"""Recipients that are senders which this node has signed (SRS, BATV): replies and reports come back to them.

A recipient that SRS has made is taken from everybody, although its mailbox is elsewhere: the signature shows that it
was a sender of mail that went through us. What is forged or out of date is refused at RCPT. All other recipients, and
what stands behind a BATV tag, are for the rule that follows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from postroad.mail.address import Address
from postroad.mail.policy import ACCEPT, Question, Record, Rule, Verdict, accept, reject
from postroad.mail.returned import Returned

Returning = Callable[[Address, bool], Returned | None]
"""What a recipient means; the second argument: the mail has the null reverse-path."""

RULE: Final = "batv"


def returning(rule: Rule, returned: Returning) -> Rule:
    """`rule`, asked about the mailbox that is meant."""

    def asked(question: Question) -> Verdict | Awaitable[Verdict]:
        recipient = question.recipient
        assert recipient is not None
        found = returned(recipient, question.reverse_path is None)
        if found is None:
            return rule(question)
        if found.code:
            return reject(found.code, found.status, f"<{recipient}>: {found.text}", found.text)
        if found.elsewhere:
            return ACCEPT
        answer = rule(msgspec.structs.replace(question, recipient=found.address))
        if not found.note:
            return answer
        if not isinstance(answer, Verdict):
            return _noted_later(answer, found.note)
        return _noted(answer, found.note)

    return asked


async def _noted_later(answer: Awaitable[Verdict], note: str) -> Verdict:
    return _noted(await answer, note)


def _noted(verdict: Verdict, note: str) -> Verdict:
    if verdict is not ACCEPT:
        return verdict
    return accept(Record(RULE, "softfail", note))
