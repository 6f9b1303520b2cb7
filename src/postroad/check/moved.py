"""Mailboxes that have moved (RFC 5321 §3.4): their mail is refused at RCPT with the new address (5.1.6).

It is asked only about recipients that the client may send to: relay control comes first. A mailbox that is in the map
is refused whether it still exists or not; `postmaster` is never refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from postroad.check.relay import cannot_look_up, is_postmaster
from postroad.mail.address import Address
from postroad.mail.moved import has_moved
from postroad.mail.policy import ACCEPT, Question, Rule, Verdict, reject
from postroad.maps.face import Answer, NotNow
from postroad.protocol.grammar import parse_mailbox

Moved = Callable[[Address], Answer | Awaitable[Answer]]
"""Where a mailbox has gone, in the words of a map; None if it has not. An awaitable if it must be waited for,
NotNow if nobody can tell now."""

_UNKNOWN: Final = "5.1.1"


def unless_moved(rule: Rule, moved: Moved, *, try_new: bool) -> Rule:
    """`rule`, but a mailbox that has moved is refused. `try_new`: with 551 and the new address."""

    def asked(question: Question) -> Verdict | Awaitable[Verdict]:
        recipient = question.recipient
        assert recipient is not None
        verdict = rule(question)
        if not isinstance(verdict, Verdict):
            return _awaited(verdict, recipient)
        if not _concerns(verdict, recipient):
            return verdict
        answer = moved(recipient)
        if answer is None or isinstance(answer, str | NotNow):
            return _judged(verdict, recipient, answer, try_new)
        return _answered(verdict, recipient, answer)

    async def _awaited(pending: Awaitable[Verdict], recipient: Address) -> Verdict:
        verdict = await pending
        if not _concerns(verdict, recipient):
            return verdict
        answer = moved(recipient)
        if answer is not None and not isinstance(answer, str | NotNow):
            answer = await answer
        return _judged(verdict, recipient, answer, try_new)

    async def _answered(verdict: Verdict, recipient: Address, answer: Awaitable[Answer]) -> Verdict:
        return _judged(verdict, recipient, await answer, try_new)

    return asked


def _concerns(verdict: Verdict, recipient: Address) -> bool:
    if verdict is ACCEPT:
        return not is_postmaster(recipient)
    return verdict.reply is not None and verdict.reply.status == _UNKNOWN


def _judged(verdict: Verdict, recipient: Address, answer: Answer, try_new: bool) -> Verdict:
    if answer is None:
        return verdict
    if isinstance(answer, NotNow):
        return cannot_look_up(recipient, answer)
    found = parse_mailbox(answer)
    if try_new and found is not None and found.is_ascii:
        return reject(551, "5.1.6", f"<{recipient}>: User not local; please try <{found}>", "the mailbox has moved")
    return reject(550, "5.1.6", f"<{recipient}>: {has_moved(answer)}", "the mailbox has moved")
