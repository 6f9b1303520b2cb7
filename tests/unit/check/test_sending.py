"""How much may be sent: whose mail is counted, which limit counts, what becomes of mail that is over it."""

from __future__ import annotations

from collections.abc import Awaitable

import pytest

from postroad.check.sending import (
    WINDOWS_S,
    Over,
    SendingLimit,
    SendingLimits,
    SendingOptions,
    Whose,
    keys_of,
    limit_of,
    subject_of,
)
from postroad.check.tally import Tally
from postroad.mail.address import Address
from postroad.mail.envelope import Peer
from postroad.mail.policy import ACCEPT, Action, Question, Rules, Verdict, reject
from postroad.maps.face import Answer, Map, NoAnswer, NotNow

ADA, HOST, STRANGER = Peer(identity="Ada@x.test"), Peer("192.0.2.7", trusted=True), Peer("198.51.100.1")
FROM = Address("Ada+list", "x.test")
HOUR_US = 3_600_000_000


class World:
    def __init__(self, *limits: SendingLimit, source: Source | None = None) -> None:
        self.now_us = 100 * 24 * HOUR_US
        self.told: list[tuple[str, str]] = []
        tally = Tally(WINDOWS_S, lambda told: None, lambda seconds, call: None)
        self.limits = SendingLimits(
            tally, lambda: self.now_us, lambda key, text: self.told.append((key, text)),
            lambda peer: "root" if peer.hello == "user" else "",
        )
        maps = (Map("limits", "table", source, lambda text: None),) if source is not None else ()
        self.limits.take(SendingOptions(limits), maps)
        self.rules = self.limits.limited(Rules())

    async def ask(self, peer: Peer = ADA, recipients: int = 1, sender: Address | None = FROM) -> str:
        """What a message is answered, which counts if it is taken."""
        trusted = peer.trusted
        first = Question(peer, trusted, sender)
        asked = [(self.rules.mail, first)]
        asked += [
            (self.rules.rcpt, Question(peer, trusted, sender, recipients=so_far, recipient=Address("b", "y.test")))
            for so_far in range(recipients)
        ]
        asked.append((self.rules.message, Question(peer, trusted, sender, recipients=recipients)))
        for rule, question in asked:
            assert rule is not None
            answer = rule(question)
            verdict = answer if isinstance(answer, Verdict) else await answer
            if verdict is not ACCEPT:
                return f"{verdict.reply.code} {verdict.reply.status}" if verdict.reply else verdict.action.value
        self.limits.count(peer, sender, recipients)
        return "ok"


class Source:
    def __init__(self, table: dict[str, str] | None, waits: bool = False) -> None:
        self.table = table
        self.waits = waits

    def look_up(self, key: str, part: bool = False) -> Answer | Awaitable[Answer]:
        answer = NotNow("away") if self.table is None else self.table.get(key)
        return self._later(answer) if self.waits else answer

    async def _later(self, answer: Answer) -> Answer:
        return answer

    def known(self, key: str, part: bool = False) -> Answer | NoAnswer:
        return NoAnswer.NO_ANSWER if self.waits or self.table is None else self.table.get(key)

    def close(self) -> None:
        pass


def account(**numbers: object) -> SendingLimit:
    return SendingLimit(Whose.ACCOUNT, **numbers)  # type: ignore[arg-type]


async def test_messages_within_an_hour_and_a_day() -> None:
    world = World(account(messages_per_hour=2, messages_per_day=3))
    assert [await world.ask() for _ in range(3)] == ["ok", "ok", "450 4.7.1"]
    world.now_us += 2 * HOUR_US
    assert [await world.ask() for _ in range(2)] == ["ok", "450 4.7.1"]
    world.now_us += 48 * HOUR_US
    assert await world.ask() == "ok"
    assert [text for _, text in world.told] == [
        "the limit of the account ada@x.test is reached: 2 messages within an hour",
        "the limit of the account ada@x.test is reached: 3 messages within a day",
    ]


async def test_a_message_counts_each_recipient_and_what_is_refused_counts_nothing() -> None:
    world = World(account(recipients_per_day=5))
    assert await world.ask(recipients=3) == "ok"
    assert [await world.ask(recipients=3) for _ in range(20)] == ["450 4.7.1"] * 20
    assert await world.ask(recipients=2) == "ok"
    assert await world.ask() == "450 4.7.1"


async def test_what_came_to_nothing_is_taken_back() -> None:
    world = World(account(messages_per_hour=1))
    assert await world.ask() == "ok"
    world.limits.count(ADA, FROM, -1, -1)
    assert await world.ask() == "ok"


async def test_whose_mail_counts() -> None:
    every = (
        account(messages_per_hour=1), SendingLimit(Whose.SENDER, messages_per_hour=1),
        SendingLimit(Whose.CLIENT, messages_per_hour=1),
    )
    for peer, kinds in ((ADA, {"account", "sender"}), (HOST, {"sender", "client"}), (STRANGER, set()),
                        (Peer(hello="user", trusted=True), {"account", "sender"})):  # fmt: skip
        for limit in every:
            world = World(limit)
            expected = "450 4.7.1" if limit.whose.value in kinds else "ok"
            assert [await world.ask(peer) for _ in range(2)] == ["ok", expected], (peer, limit)
    world = World(every[1])
    assert await world.ask() == "ok"
    assert await world.ask(sender=Address("ada", "x.test")) == "450 4.7.1"  # without its extension
    assert await world.ask(sender=None) == "ok"


async def test_the_table_that_names_somebody_counts() -> None:
    world = World(
        account(messages_per_hour=1), account(who=("ADA@x.test",), messages_per_hour=2),
        SendingLimit(Whose.CLIENT, ("192.0.2.0/24",), messages_per_hour=1),
        SendingLimit(Whose.SENDER, (".y.test", "z.test", "eve@w.test"), messages_per_hour=1),
    )
    assert [await world.ask() for _ in range(3)] == ["ok", "ok", "450 4.7.1"]
    assert [await world.ask(Peer(identity="bob")) for _ in range(2)] == ["ok", "450 4.7.1"]
    assert [await world.ask(HOST) for _ in range(2)] == ["ok", "450 4.7.1"]
    assert [await world.ask(Peer("192.0.3.7", trusted=True)) for _ in range(2)] == ["ok", "ok"]
    for sender in (Address("a", "b.y.test"), Address("a", "z.test"), Address("eve", "w.test")):
        other = Peer(identity=f"from {sender}")
        assert [await world.ask(other, sender=sender) for _ in range(2)] == ["ok", "450 4.7.1"]
    assert await world.ask(Peer(identity="x"), sender=Address("bob", "w.test")) == "ok"


@pytest.mark.parametrize("waits", [False, True])
async def test_a_map_wins_over_the_tables(waits: bool) -> None:
    table = {"ada@x.test": "messages_per_hour=3", "bob": "none", "192.0.2.7": "messages_per_hour=1 over=hold"}
    world = World(account(messages_per_hour=1), source=Source(table, waits))
    for peer, expected in ((ADA, ["ok"] * 3 + ["450 4.7.1"]), (Peer(identity="bob"), ["ok"] * 4),
                           (Peer(identity="eve"), ["ok", "450 4.7.1"]), (HOST, ["ok", "hold"])):  # fmt: skip
        sender = Address(peer.identity or "host", "other.test")
        assert [await world.ask(peer, sender=sender) for _ in expected] == expected
    away = World(account(messages_per_hour=1), source=Source(None, waits))
    assert await away.ask() == "451 4.3.0"
    wrong = World(source=Source({"ada@x.test": "messages=1"}, waits))
    assert await wrong.ask() == "451 4.3.0"


@pytest.mark.parametrize(
    ("value", "why"),
    [("", "names nothing"), ("messages_per_hour", "needs one number"), ("messages_per_hour=x", "int"),
     ("messages_per_hour=1 messages_per_hour=2", "twice"), ("over=drop", "drop"), ("messages_per_hour=-1", "int")],
)  # fmt: skip
def test_a_value_that_is_no_limit(value: str, why: str) -> None:
    found = limit_of(value, Whose.ACCOUNT)
    assert isinstance(found, str) and why in found


async def test_mail_over_a_limit_is_held() -> None:
    world = World(account(messages_per_hour=1, over=Over.HOLD))
    assert [await world.ask() for _ in range(3)] == ["ok", "hold", "hold"]
    assert world.told


@pytest.mark.parametrize("over", list(Over))
async def test_messages_that_were_asked_about_together_are_judged_again_when_they_are_taken(over: Over) -> None:
    world = World(account(messages_per_hour=1, over=over))
    assert world.rules.message is not None
    questions = [Question(ADA, False, FROM, recipients=1) for _ in range(2)]
    assert [world.rules.message(question) for question in questions] == [ACCEPT, ACCEPT]
    assert world.limits.over(ADA, FROM, 1, 100) is ACCEPT
    world.limits.count(ADA, FROM, 1)
    last = world.limits.over(ADA, FROM, 1, 100)
    assert last.action is (Action.DEFER if over is Over.REFUSE else Action.HOLD)
    assert world.limits.over(STRANGER, FROM, 1, 100) is ACCEPT


@pytest.mark.parametrize("waits", [False, True])
async def test_a_limit_by_map_is_known_when_the_message_is_taken(waits: bool) -> None:
    """Also if the map must be waited for, and even if it is away by then."""
    source = Source({"ada@x.test": "messages_per_hour=1", "bob": "messages_per_hour=9"}, waits)
    world = World(source=source)
    assert await world.ask() == "ok"
    source.table = None
    assert world.limits.over(ADA, FROM, 1, 100).action is Action.DEFER
    assert world.limits.over(ADA, FROM, 1, 100).reply is not None


@pytest.mark.parametrize("waits", [False, True])
async def test_a_limit_that_is_not_remembered_any_more_defers(waits: bool) -> None:
    world = World(source=Source({"ada@x.test": "messages_per_hour=1"} if waits else None, waits))
    verdict = world.limits.over(ADA, FROM, 1, 100)
    assert verdict.reply is not None and (verdict.action, verdict.reply.code) == (Action.DEFER, 451)


async def test_held_mail_has_a_bound() -> None:
    world = World(account(messages_per_hour=1, over=Over.HOLD, held_max=2))
    assert [await world.ask() for _ in range(5)] == ["ok", "hold", "hold", "450 4.7.1", "450 4.7.1"]
    assert [await world.ask(Peer(identity="bob")) for _ in range(2)] == ["ok", "hold"]  # each has his own
    assert any(text.endswith("; no more of its messages are held") for _, text in world.told)
    world.now_us += 48 * HOUR_US
    assert [await world.ask() for _ in range(2)] == ["ok", "hold"]


async def test_held_octets_have_a_bound() -> None:
    world = World(account(messages_per_hour=1, over=Over.HOLD, held_size_max=1000))
    assert await world.ask() == "ok"
    assert [world.limits.over(ADA, FROM, 1, size).action for size in (600, 600, 400, 1)] == [
        Action.HOLD, Action.DEFER, Action.HOLD, Action.DEFER,
    ]  # fmt: skip


async def test_what_is_under_the_limit_is_never_refused_for_held_mail() -> None:
    world = World(account(messages_per_hour=1, over=Over.HOLD, held_max=1))
    assert [await world.ask() for _ in range(3)] == ["ok", "hold", "450 4.7.1"]
    world.now_us += 3 * HOUR_US
    assert [await world.ask() for _ in range(2)] == ["ok", "450 4.7.1"]


async def test_the_limits_come_after_the_other_rules() -> None:
    refusal = reject(550, "5.1.1", "no")
    limits = World(account(messages_per_hour=1)).limits

    def no(question: Question) -> Verdict:
        return refusal

    rules = limits.limited(Rules(mail=no, rcpt=no, message=no))
    for rule in (rules.mail, rules.rcpt, rules.message):
        assert rule is not None and rule(Question(ADA, reverse_path=FROM)) is refusal


def test_without_limits_there_are_no_rules() -> None:
    rules = Rules()
    assert World().limits.limited(rules) is rules
    assert not World().limits.is_on


def test_a_key_names_its_subject() -> None:
    for whose in Whose:
        for key in keys_of(subject := subject_of(f"m{whose.value[0]}name")):
            assert subject_of(key) == subject
            assert subject.whose is whose


