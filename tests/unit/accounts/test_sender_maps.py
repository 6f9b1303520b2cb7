"""Who may send as whom, by map (`accounts.sender_maps`), and the rules that ask for it."""

from __future__ import annotations

from collections.abc import Awaitable

import pytest

from postroad.accounts.sender_maps import MaySend, SenderMaps
from postroad.check import message, sender
from postroad.mail.address import Address
from postroad.mail.envelope import Peer
from postroad.mail.policy import Action, Question, Verdict
from postroad.maps.face import Answer, Map, NoAnswer, NotNow

ADA, TEAM, ANY = Address("ada", "x.test"), Address("Team+q", "x.test"), Address("any", "x.test")
TABLE = {"ada@x.test": "Ada@X.test", "team@x.test": "ada@x.test, bob", "@y.test": "boss", "none@y.test": ""}


class Source:
    """A table; `waits`: it answers later; `away`: it cannot answer now."""

    def __init__(self, waits: bool = False, away: bool = False) -> None:
        self.waits = waits
        self.away = away

    def look_up(self, key: str, part: bool = False) -> Answer | Awaitable[Answer]:
        answer = NotNow("away") if self.away else TABLE.get(key.lower())
        return self._later(answer) if self.waits else answer

    async def _later(self, answer: Answer) -> Answer:
        return answer

    def known(self, key: str, part: bool = False) -> Answer | NoAnswer:
        return NoAnswer.NO_ANSWER

    def close(self) -> None:
        pass


def maps(source: Source) -> SenderMaps:
    return SenderMaps((Map("senders", "table", source, lambda text: None),), "+")


async def told(found: MaySend) -> bool | NotNow:
    return found if isinstance(found, bool | NotNow) else await found


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize(
    ("account", "address", "expected"),
    [
        ("ada@x.test", ADA, True),
        ("ADA@x.test", ADA, True),
        ("bob", ADA, False),
        ("bob", TEAM, True),
        ("bob", Address("team", "x.test"), True),
        ("boss", Address("who", "y.test"), True),
        ("boss", Address("none", "y.test"), False),  # the first key that is there counts
        ("boss", ADA, False),
        ("", ANY, False),
    ],
)
async def test_the_first_key_that_is_there_counts(waits: bool, account: str, address: Address, expected: bool) -> None:
    assert await told(maps(Source(waits)).owns(account, address)) is expected
    assert maps(Source()).owns_now(account, address) is expected
    assert maps(Source(waits=True)).owns_now(account, address) is False


async def test_a_map_that_cannot_answer_makes_the_client_try_again() -> None:
    for waits in (False, True):
        found = await told(maps(Source(waits, away=True)).owns("ada@x.test", ADA))
        assert isinstance(found, NotNow)


async def verdict_of(answer: Verdict | Awaitable[Verdict]) -> str:
    verdict = answer if isinstance(answer, Verdict) else await answer
    return "ok" if verdict.reply is None else f"{verdict.reply.code} {verdict.reply.status}"


@pytest.mark.parametrize("waits", [False, True])
async def test_the_rules_wait_for_maps(waits: bool) -> None:
    here, away = maps(Source(waits)), maps(Source(waits, away=True))
    question = Question(Peer(identity="bob"), reverse_path=TEAM, head=b"From: team@x.test\r\n")
    other = Question(Peer(identity="bob"), reverse_path=ADA, head=b"From: team@x.test, ada@x.test\r\n")
    assert await verdict_of(sender.sender_owned(here.owns)(question)) == "ok"
    assert await verdict_of(sender.sender_owned(here.owns)(other)) == "553 5.7.1"
    assert await verdict_of(sender.sender_owned(away.owns)(question)) == "451 4.3.0"
    assert await verdict_of(message.author_owned(here.owns)(question)) == "ok"
    assert await verdict_of(message.author_owned(here.owns)(other)) == "550 5.7.1"
    assert await verdict_of(message.author_owned(away.owns)(question)) == "451 4.3.0"


@pytest.mark.parametrize(
    ("peer", "trusted", "address", "expected"),
    [
        (Peer(), False, ADA, "553 5.7.1"),
        (Peer(), True, ADA, "ok"),
        (Peer(identity="bob"), False, ADA, "ok"),  # another rule's
        (Peer(), False, ANY, "ok"),
        (Peer(), False, None, "ok"),
    ],
)
async def test_who_has_not_logged_in(peer: Peer, trusted: bool, address: Address | None, expected: str) -> None:
    for waits in (False, True):
        rule = sender.owned_by_login(maps(Source(waits)).has_owner)
        assert await verdict_of(rule(Question(peer, trusted, address))) == expected
    away = sender.owned_by_login(maps(Source(away=True)).has_owner)(Question(Peer(), reverse_path=ADA))
    assert isinstance(away, Verdict) and away.action is Action.DEFER
