"""Recipients that are senders which this node has signed: the answer to RCPT, and the question to the next rule."""

from __future__ import annotations

from collections.abc import Awaitable

import pytest

from postroad.check.returning import returning
from postroad.mail.address import Address
from postroad.mail.envelope import Peer
from postroad.mail.policy import ACCEPT, Action, Question, Record, Verdict, reject
from postroad.mail.returned import Returned

ADA = Address("ada", "home.test")
FORGED, SRS, TAGGED, UNTAGGED, PLAIN = (
    Address(local_part, "home.test") for local_part in ("forged", "srs", "tagged", "untagged", "plain")
)
FOUND = {
    FORGED: Returned(FORGED, 550, "5.1.1", "the signature is wrong"),
    SRS: Returned(Address("eve", "far.test"), elsewhere=True),
    TAGGED: Returned(ADA),
    UNTAGGED: Returned(ADA, note="a report without a tag"),
}
NOBODY = reject(550, "5.1.1", "no such mailbox")


class _Rule:
    """The rule behind: it knows nobody but ada, and keeps of whom it was asked."""

    def __init__(self) -> None:
        self.asked: list[Address | None] = []

    def __call__(self, question: Question) -> Verdict:
        self.asked.append(question.recipient)
        return ACCEPT if question.recipient == ADA else NOBODY


def _question(recipient: Address, reverse_path: Address | None = None) -> Question:
    return Question(Peer(), reverse_path=reverse_path, recipient=recipient)


@pytest.mark.parametrize(
    ("recipient", "action", "asked"),
    [
        (FORGED, Action.REJECT, []),
        (SRS, Action.ACCEPT, []),  # taken, although its mailbox is elsewhere
        (TAGGED, Action.ACCEPT, [ADA]),
        (UNTAGGED, Action.ACCEPT, [ADA]),
        (PLAIN, Action.REJECT, [PLAIN]),
    ],
)
def test_who_is_meant_is_asked_about(recipient: Address, action: Action, asked: list[Address]) -> None:
    rule = _Rule()
    verdict = returning(rule, lambda address, is_report: FOUND.get(address))(_question(recipient))
    assert isinstance(verdict, Verdict)
    assert (verdict.action, rule.asked) == (action, asked)


def test_the_refusal_names_the_recipient_and_why() -> None:
    verdict = returning(_Rule(), lambda address, is_report: FOUND[FORGED])(_question(FORGED))
    assert isinstance(verdict, Verdict) and verdict.reply is not None
    assert str(verdict.reply) == "550 5.1.1 <forged@home.test>: the signature is wrong"


def test_what_is_wrong_and_taken_is_noted_unless_the_next_rule_refuses() -> None:
    noted = returning(_Rule(), lambda address, is_report: FOUND[UNTAGGED])(_question(UNTAGGED))
    assert isinstance(noted, Verdict)
    assert noted.effects == (Record("batv", "softfail", "a report without a tag"),)
    refused = returning(lambda question: NOBODY, lambda address, is_report: FOUND[UNTAGGED])(_question(UNTAGGED))
    assert refused is NOBODY


async def test_a_rule_that_waits_gets_its_note_later() -> None:
    async def later(question: Question) -> Verdict:
        return ACCEPT

    pending = returning(later, lambda address, is_report: FOUND[UNTAGGED])(_question(UNTAGGED))
    assert isinstance(pending, Awaitable)
    assert (await pending).effects == (Record("batv", "softfail", "a report without a tag"),)


def test_it_is_known_whether_the_mail_is_a_report() -> None:
    heard: list[bool] = []

    def returned(address: Address, is_report: bool) -> None:
        heard.append(is_report)

    rule = returning(_Rule(), returned)
    rule(_question(ADA))
    rule(_question(ADA, Address("eve", "far.test")))
    assert heard == [True, False]
