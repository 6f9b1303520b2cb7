"""Recipients whose servers do not take so large a message, as the client has declared it at MAIL."""

from __future__ import annotations

from collections.abc import Awaitable

from postroad.check.fitting import fitting
from postroad.mail.address import Address
from postroad.mail.envelope import Peer
from postroad.mail.policy import ACCEPT, Action, Question, Record, Verdict, accept, reject
from postroad.mail.reply import Reply
from postroad.mail.size_limits import SizeLimits

_TEXT = "<ann@a.example>: the message has 2000 octets; the server of this recipient takes 1000 at most"
TOO_LARGE = Reply(552, "5.3.4", (_TEXT,))
REFUSED = reject(550, "5.1.1", "no such mailbox")


def _question(size: int, recipient: str = "ann@a.example") -> Question:
    local_part, _, domain = recipient.partition("@")
    return Question(Peer(), size=size, recipient=Address(local_part, domain))


def _limits() -> SizeLimits:
    limits = SizeLimits(60.0)
    limits.note("a.example", 1000)
    return limits


def _exceeded(question: Question) -> int:
    assert question.recipient is not None
    return _limits().exceeded(question.recipient.domain, question.size)


def test_a_recipient_whose_server_takes_less_is_refused() -> None:
    rule = fitting(None, _limits(), _exceeded)
    verdict = rule(_question(2000))
    assert isinstance(verdict, Verdict) and verdict.reply == TOO_LARGE
    assert rule(_question(1000)) is ACCEPT
    assert rule(_question(0)) is ACCEPT  # no size declared
    assert rule(_question(2000, "ann@b.example")) is ACCEPT


def test_the_rule_before_decides_first() -> None:
    assert fitting(lambda question: REFUSED, _limits(), _exceeded)(_question(2000)) is REFUSED
    held = Verdict(Action.HOLD, None, "looked at")
    assert fitting(lambda question: held, _limits(), _exceeded)(_question(2000)) is held


async def test_a_rule_that_waits_is_asked_first() -> None:
    async def later(verdict: Verdict) -> Verdict:
        return verdict

    async def ask(verdict: Verdict, size: int) -> Verdict:
        pending = fitting(lambda question: later(verdict), _limits(), _exceeded)(_question(size))
        assert isinstance(pending, Awaitable)
        return await pending

    assert (await ask(accept(Record("batv", "softfail", "a note")), 2000)).reply == TOO_LARGE
    assert await ask(REFUSED, 2000) is REFUSED
    assert (await ask(ACCEPT, 1000)) is ACCEPT
