"""Mailboxes that have moved: who hears the new address, and how."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from postroad.check.moved import unless_moved
from postroad.mail.address import Address
from postroad.mail.envelope import Peer
from postroad.mail.policy import ACCEPT, Phase, Question, Verdict, reject
from postroad.mail.reply import said
from postroad.maps.face import Answer, NotNow

UNKNOWN = reject(550, "5.1.1", "no such user here", "unknown")
DENIED = reject(550, "5.7.1", "relaying denied", "denied")


def heard(
    verdict: Verdict, answer: Answer, *, recipient: str = "gone", try_new: bool = True, waits: tuple[bool, bool]
) -> Verdict:
    async def later(value: Any) -> Any:
        await asyncio.sleep(0)
        return value

    def rule(question: Question) -> Verdict | Awaitable[Verdict]:
        return later(verdict) if waits[0] else verdict

    def moved(address: Address) -> Answer | Awaitable[Answer]:
        return later(answer) if waits[1] else answer

    async def ask() -> Verdict:
        question = Question(Peer(), recipient=Address(recipient, "example.com"), phase=Phase.RCPT)
        found = unless_moved(rule, moved, try_new=try_new)(question)
        return found if isinstance(found, Verdict) else await found

    return asyncio.run(ask())


BOTH = pytest.mark.parametrize("waits", [(False, False), (True, False), (False, True), (True, True)])


@BOTH
@pytest.mark.parametrize("verdict", [ACCEPT, UNKNOWN])
@pytest.mark.parametrize(("answer", "try_new", "reply"), [
    ("gone@new.example", True, "551 5.1.6 <gone@example.com>: User not local; please try <gone@new.example>"),
    ("gone@new.example", False, "550 5.1.6 <gone@example.com>: User has moved to gone@new.example"),
    ("the other office", True, "550 5.1.6 <gone@example.com>: User has moved to the other office"),
    ("büro", True, "550 5.1.6 <gone@example.com>: User has moved to another place"),
    ("ü@new.example", True, "550 5.1.6 <gone@example.com>: User has moved to another place"),
    (NotNow("away"), True, "451 4.3.0 <gone@example.com>: cannot be looked up now, try again later"),
])  # fmt: skip
def test_who_has_moved(
    verdict: Verdict, answer: Answer, try_new: bool, reply: str, waits: tuple[bool, bool]
) -> None:
    found = heard(verdict, answer, try_new=try_new, waits=waits)
    assert found.reply is not None and said(found.reply) == reply


@BOTH
def test_who_may_not_send_there_hears_nothing_of_it(waits: tuple[bool, bool]) -> None:
    assert heard(DENIED, "gone@new.example", waits=waits) is DENIED


@BOTH
def test_others_are_judged_by_the_rule_alone(waits: tuple[bool, bool]) -> None:
    assert heard(ACCEPT, None, waits=waits) is ACCEPT
    assert heard(UNKNOWN, None, waits=waits) is UNKNOWN
    assert heard(ACCEPT, "gone@new.example", recipient="PostMaster", waits=waits) is ACCEPT
